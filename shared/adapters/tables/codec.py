"""Properties to the text that SQLite keeps, and back: JSON that a person can read, with every type distinct.

JSON itself tells text, integers, doubles and booleans apart; what it can't hold (bytes, infinities, NaN) is written as an
object with one ``$`` name, which no property can be mistaken for, because a property is never an object.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

import orjson

from shared.ports import Value

_MARK: Final = ':{"$'
"""How a wrapped value begins. Inside text it can't occur: the quote would be escaped."""


def encode(properties: Mapping[str, Value]) -> str:
    """Return checked properties as text."""
    text = orjson.dumps(properties, default=_bytes).decode()
    # orjson writes NaN and infinities as null.
    if "null" in text and any(isinstance(value, float) and (value - value) != 0 for value in properties.values()):
        text = orjson.dumps({name: _wrapped(value) for name, value in properties.items()}).decode()
    return text


def decode(text: str) -> dict[str, Value]:
    """Return the properties; raise `ValueError` for a text that `encode` did not make."""
    found = orjson.loads(text)
    if not isinstance(found, dict):
        message = "not an object"
        raise ValueError(message)  # noqa: TRY004 - the text is wrong, not the caller's types
    if _MARK in text:
        return {name: _unwrapped(value) for name, value in found.items()}
    return found


def _wrapped(value: Value) -> object:
    if isinstance(value, float) and (value - value) != 0:  # NaN and the infinities
        return {"$double": repr(value)}
    if isinstance(value, bytes):
        return _bytes(value)
    return value


def _unwrapped(value: Any) -> Value:
    match value:
        case {"$double": str() as text}:
            return float(text)
        case {"$binary": str() as text}:
            return base64.b64decode(text, validate=True)
        case str() | bool() | int() | float():
            return value
    message = "a value of no known type"
    raise ValueError(message)


def _bytes(value: object) -> dict[str, str]:
    if not isinstance(value, bytes):
        message = f"A property can't be a {type(value).__name__}."
        raise TypeError(message)
    return {"$binary": base64.b64encode(value).decode()}
