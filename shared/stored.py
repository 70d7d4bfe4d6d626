"""Values as rows hold them: JSON in a property's text, and whoever something was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from shared.core.fields import Fields
from shared.core.records import Caller
from shared.ports import Value


def text_of(value: Any) -> str:
    """Return JSON text."""
    return orjson.dumps(value).decode()


def json_in(text: str) -> dict[str, Any]:
    """Return the object in JSON text; raise `ValueError`."""
    value = orjson.loads(text)
    if not isinstance(value, dict):
        message = "not an object"
        raise ValueError(message)  # noqa: TRY004 - a damaged row, like any other
    return value


def present(properties: Mapping[str, Value | None]) -> dict[str, Value]:
    """Return what a row can hold of these: None is what is not there."""
    return {name: value for name, value in properties.items() if value is not None}


def caller_out(caller: Caller) -> str:
    """Return who asked as JSON text."""
    return text_of(
        {
            "key_id": caller.key_id,
            "project": caller.project,
            "admin": caller.admin,
            "name": caller.name,
            "models": None if caller.models is None else sorted(caller.models),
            "budgets": list(caller.budgets),
            "requests_per_minute": caller.requests_per_minute,
            "tokens_per_minute": caller.tokens_per_minute,
            "tags": dict(caller.tags),
        }
    )


def caller_in(text: str) -> Caller:
    """Return who asked; raise `ValueError` for what `caller_out` did not write."""
    read = Fields(json_in(text))
    tags, models = read.find_fields("tags"), read.find_texts("models")
    return Caller(
        key_id=read.text("key_id"),
        project=read.text("project"),
        admin=read.flag("admin"),
        name=read.text("name"),
        models=None if models is None else frozenset(models),
        budgets=read.find_texts("budgets") or (),
        requests_per_minute=read.find_whole("requests_per_minute"),
        tokens_per_minute=read.find_whole("tokens_per_minute"),
        tags={} if tags is None else {name: tags.text(name) for name in tags.names()},
    )
