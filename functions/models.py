"""``/v1/models``: what can be asked for, in OpenAI's and the seed's shape at once; registration for the administrator."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from starlette.responses import Response

from functions.catalog_view import Situation, model_view, openai_view
from functions.endpoints import Access, Endpoint, blueprint
from functions.http import Call, endpoint
from functions.periods import iso
from functions.rendering import json_response
from functions.schemas import ModelDocument
from functions.validation import Schema
from shared.catalog import RegisteredModel
from shared.core.errors import InvalidRequestError, ModelNotFoundError
from shared.core.registry import Registry

DOCUMENT: Final = Schema(ModelDocument, "ModelDocument")


async def list_models(call: Call) -> Response:
    """List the models the caller may ask for, and the aliases that stand for them."""
    situation, allowed = _situation(call), call.caller.models
    registry = situation.registry
    names = [name for name in registry.models if allowed is None or name in allowed]
    aliases = [
        alias.name
        for alias in registry.aliases.values()
        if not alias.retired and (allowed is None or not allowed.isdisjoint(registry.resolve(alias.name)))
    ]
    data = [openai_view(registry, name) for name in (*names, *aliases)]
    return json_response({"object": "list", "data": data, "models": [model_view(situation, name) for name in names]})


async def get_model(call: Call) -> Response:
    """Show one model, or what an alias stands for."""
    situation, name = _situation(call), call.path("id")
    registry = situation.registry
    targets = registry.resolve(name)
    _check_allowed(call, name, targets)
    alias = registry.find_alias(name)
    body = openai_view(registry, name) | model_view(situation, targets[0])
    if alias is not None:
        body |= {"name": name, "alias_of": list(targets), "retired": alias.retired, "note": alias.note}
    versions = await call.gateway.catalog.versions(name)
    if versions and versions[-1].document is not None:
        body["registration"] = _registration(versions[-1])
    return json_response(body)


def _check_allowed(call: Call, name: str, targets: tuple[str, ...]) -> None:
    allowed = call.caller.models
    if allowed is not None and name not in allowed and allowed.isdisjoint(targets):
        message = f"The model `{name}` does not exist, or this key may not use it."
        raise ModelNotFoundError(message, param="model")


async def register_model(call: Call) -> Response:
    """Register a new model; 409 if one of that name is registered already."""
    return await _register(call, expected=0, status=201)


async def replace_model(call: Call) -> Response:
    """Register a model or its next version. ``expected_version`` guards against somebody else's change."""
    return await _register(call, expected=None, status=200)


async def _register(call: Call, *, expected: int | None, status: int) -> Response:
    document = call.json()
    DOCUMENT.check(document)
    wanted = document.pop("expected_version", None)
    if not document:
        message = "Send the model as the catalog describes one, with at least `deployments`. The README shows an example."
        raise InvalidRequestError(message, param="model", code="invalid_model")
    registered = await call.gateway.catalog.register(
        _named(call), document, expected_version=expected if wanted is None else wanted
    )
    body = openai_view(call.gateway.catalog.current, registered.name) | model_view(_situation(call), registered.name)
    return json_response(body | {"registration": _registration(registered)}, status=status)


async def remove_model(call: Call) -> Response:
    """Take a registration back; the catalog file's own entry of that name serves again, if there is one."""
    removed = await call.gateway.catalog.remove(_named(call))
    return json_response({"id": removed.name, "object": "model", "deleted": True, "registration": _registration(removed)})


def _named(call: Call) -> str:
    if not (name := call.path("id")):
        message = "Name the model in the path: /v1/models/NAME."
        raise InvalidRequestError(message, param="id", code="missing_required_parameter")
    return name


def _registration(registered: RegisteredModel) -> dict[str, Any]:
    return {"version": registered.version, "registered_at": iso(registered.registered_at)}


def _situation(call: Call) -> Situation:
    clock = call.gateway.clock
    registry: Registry = call.gateway.catalog.current
    return Situation(
        registry=registry,
        health=call.gateway.health.report(clock.monotonic()),
        day=datetime.fromtimestamp(clock.now(), UTC).date(),
    )


_ONE: Final = "/v1/models/{*id}"  # names of models may have slashes: meta-llama/Llama-3.3-70B-Instruct

ENDPOINTS: Final = (
    Endpoint(
        name="list_models",
        method="GET",
        path="/v1/models",
        handler=list_models,
        summary="List models",
        tag="Models",
        answers="OpenAI's `object, data` and the seed's `models` in one object.",
        aliases=("/openai/v1/models",),
    ),
    Endpoint(
        name="get_model",
        method="GET",
        path=_ONE,
        handler=get_model,
        summary="Show a model",
        tag="Models",
        answers="The model in both shapes.",
        aliases=("/openai/v1/models/{*id}",),
    ),
    Endpoint(
        name="register_model",
        method="POST",
        path=_ONE,
        handler=register_model,
        summary="Register a model",
        tag="Models",
        access=Access.ADMIN,
        body=DOCUMENT,
        status=201,
        answers="The model, and its registration's version.",
    ),
    Endpoint(
        name="replace_model",
        method="PUT",
        path=_ONE,
        handler=replace_model,
        summary="Register a model or its next version",
        tag="Models",
        access=Access.ADMIN,
        body=DOCUMENT,
        answers="The model, and its registration's version.",
    ),
    Endpoint(
        name="remove_model",
        method="DELETE",
        path=_ONE,
        handler=remove_model,
        summary="Take a registration back",
        tag="Models",
        access=Access.ADMIN,
        answers="What was removed.",
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
