"""The description of the API, made from the same rows that register the endpoints and the same schemas that check bodies.

Pure: endpoints in, an OpenAPI 3.1 document out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from pydantic import TypeAdapter

from functions.endpoints import Access, AnyEndpoint, Endpoint, Parameter

VERSION: Final = "0.1.0"
REF: Final = "#/components/schemas/{model}"

_ERROR: Final = {
    "type": "object",
    "description": "OpenAI's error object.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong and what to do about it."},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The field at fault."},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

_REFUSALS: Final = {
    "400": "The request can't be understood, or not be served as asked.",
    "401": "No key, or one that is not known.",
    "403": "The key is not allowed to do this.",
    "404": "No such thing: a model, a key, a request, a chain, a response, a file, a batch.",
    "409": "It clashes with what is there: a key used for another request, work that has ended, or has not.",
    "413": "The body is too large.",
    "429": "Every candidate is throttled; `retry-after` says when to come back.",
    "503": "Every candidate failed, or this instance is full.",
    "504": "The deadline passed before anybody answered.",
}


def describe(endpoints: Iterable[AnyEndpoint]) -> dict[str, Any]:
    """Return the OpenAPI document of some endpoints."""
    listed = [row for row in endpoints if isinstance(row, Endpoint) or row.listed]
    schemas: dict[str, Any] = {"Error": _ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for row in listed:
        for number, path in enumerate((row.path, *row.aliases) if isinstance(row, Endpoint) else (row.path,)):
            operation = _operation(row, path, schemas)
            if number:
                operation["operationId"] += f"_{number + 1}"
                operation["x-alias-of"] = row.path
            elif isinstance(row, Endpoint) and row.aliases:
                operation["x-aliases"] = list(row.aliases)
            paths.setdefault(re.sub(r"\{\*", "{", path), {})[row.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Switchyard",
            "version": VERSION,
            "description": "One OpenAI-compatible endpoint over many models: routed, metered, with failover that works.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"apiKey": []}, {"xApiKey": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(row.tag for row in listed)],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
                "xApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _operation(row: AnyEndpoint, path: str, schemas: dict[str, Any]) -> dict[str, Any]:
    answer = {media: {"schema": {} if "json" in media else {"type": "string"}} for media in row.media_types}
    operation: dict[str, Any] = {
        "operationId": row.name,
        "summary": row.summary,
        "tags": [row.tag],
        "parameters": [],
        "responses": {
            status: {"description": text, "headers": _HEADERS, "content": answer}
            for status, text in ((str(row.status), row.answers), *_also(row))
        },
    }
    if not isinstance(row, Endpoint):
        operation["security"] = []
        return operation
    if row.least is not Access.VIEWER:
        operation["description"] = _NEEDS[row.least]
    operation["parameters"] = [_parameter(parameter) for parameter in _all_parameters(row, path)]
    if row.body is not None:
        schema = _schema(row.body.adapter, row.body.name, schemas)
        operation["requestBody"] = {"required": row.body_required, "content": {"application/json": {"schema": schema}}}
    if row.form is not None:
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": row.form}}}
    error = {"application/json": {"schema": {"$ref": REF.format(model="Error")}}}
    operation["responses"] |= {
        status: {"description": text, "headers": _HEADERS, "content": error} for status, text in _REFUSALS.items()
    }
    return operation


def _also(row: AnyEndpoint) -> tuple[tuple[str, str], ...]:
    """Return what else an endpoint can answer with beside its usual answer: statuses and descriptions."""
    return tuple(row.also.items()) if isinstance(row, Endpoint) else ()


_NEEDS: Final = {
    Access.MEMBER: "Needs the role `member`.",
    Access.ADMIN: "Needs the administrator's key, or the role `admin`.",
}

_HEADERS: Final = {"x-request-id": {"schema": {"type": "string"}, "description": "The request's id."}}


def _all_parameters(row: Endpoint, path: str) -> list[Parameter]:
    """Return the declared parameters, and every one of the path that was not declared."""
    named = re.findall(r"\{\*?(\w+)\}", path)
    declared = [parameter for parameter in row.parameters if parameter.place != "path" or parameter.name in named]
    known = {parameter.name for parameter in declared}
    return [*(Parameter(name, _PATH_NAMES.get(name, ""), place="path") for name in named if name not in known), *declared]


_PATH_NAMES: Final = {"model": "The model, as the catalog names it.", "id": "Its id."}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required or parameter.place == "path",
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _schema(adapter: TypeAdapter[Any], name: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """Put a body's schema and all it refers to among ``schemas``; return the reference to it."""
    found = adapter.json_schema(ref_template=REF)
    schemas |= found.pop("$defs", {})
    if "$ref" not in found:
        schemas[name] = found
    return {"$ref": REF.format(model=name)}
