"""An example value for a JSON schema: enough of JSON Schema for tool arguments and structured outputs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

_DEEP: Final = 12

_FORMATS: Final[Mapping[str, str]] = {
    "date": "2026-01-15",
    "date-time": "2026-01-15T12:00:00Z",
    "time": "12:00:00Z",
    "email": "simulator@example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "duration": "PT1H",
}


def example(schema: object, *, prompt: str = "") -> Any:
    """Return a value that satisfies the schema, the same one each time.

    Understands type, properties, items, prefixItems, enum, const, default, anyOf, oneOf, allOf, $ref into the schema itself,
    bounds of numbers, lengths and formats. ``pattern`` and ``not`` are beyond it. Words for free text come from the prompt.
    """
    return _Maker(schema, _words_of(prompt)).make(schema, "value", 0)


def _words_of(prompt: str) -> list[str]:
    """Return what a form would be filled with: names first (capitalised words that do not begin the text)."""
    words = re.findall(r"[^\W_][\w'-]*", prompt[:2000])
    return [word for word in words[1:] if word[0].isupper() and word.lower() not in {"i", "i'm"}] or []


class _Maker:
    def __init__(self, root: object, names: list[str]) -> None:
        self._root = root
        self._names = names

    def make(self, schema: object, name: str, depth: int) -> Any:
        if not isinstance(schema, Mapping):
            return f"simulated {name}"
        resolved = self._resolve(schema)
        if "const" in resolved:
            return resolved["const"]
        if isinstance(resolved.get("enum"), list) and resolved["enum"]:
            return resolved["enum"][0]
        if depth > _DEEP:
            return None
        kind = self._kind(resolved)
        makers = {"object": self._object, "array": self._array, "string": self._string}
        if kind in makers:
            return makers[kind](resolved, name, depth)
        return {"number": _number(resolved), "integer": _integer(resolved), "boolean": True}.get(kind)

    def _resolve(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Follow $ref, take the first real choice of anyOf and oneOf, and merge allOf."""
        resolved = dict(schema)
        for _ in range(_DEEP):
            reference = resolved.pop("$ref", None)
            choices = resolved.pop("anyOf", None) or resolved.pop("oneOf", None)
            parts = resolved.pop("allOf", None)
            if reference is None and not choices and not parts:
                break
            if isinstance(reference, str):
                resolved |= self._at(reference)
            if isinstance(choices, list):
                resolved |= next((item for item in choices if _is_value(item)), {})
            for part in parts if isinstance(parts, list) else ():
                resolved = _merged(resolved, self._resolve(part) if isinstance(part, Mapping) else {})
        return resolved

    def _at(self, reference: str) -> dict[str, Any]:
        place: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                place = place.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(place, Mapping) else None
        return dict(place) if isinstance(place, Mapping) else {}

    def _kind(self, schema: Mapping[str, Any]) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((item for item in kind if item != "null"), "null")
        if isinstance(kind, str):
            return kind
        return "object" if "properties" in schema else "array" if "items" in schema else "string"

    def _object(self, schema: Mapping[str, Any], _name: str, depth: int) -> dict[str, Any]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        required = [key for key in schema.get("required") or () if isinstance(key, str)]
        # A schema that refers to itself ends where its optional properties are left out.
        keys = required if depth > _DEEP // 2 else dict.fromkeys([*properties, *required])
        return {key: self.make(properties.get(key, {}), key, depth + 1) for key in keys}

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        first = schema.get("prefixItems") or []
        count = max(int(schema.get("minItems") or 0), len(first), 0 if depth > _DEEP // 2 else 1)
        count = min(count, int(schema.get("maxItems", count)))
        kinds = [*first, *([schema.get("items", {})] * max(0, count - len(first)))]
        return [self.make(kind, name, depth + 1) for kind in kinds[:count]]

    def _string(self, schema: Mapping[str, Any], name: str, _depth: int) -> str:
        known = _FORMATS.get(str(schema.get("format")))
        if known is not None:
            return known
        text = self._names[0] if self._names else f"simulated {name}"
        text = text.ljust(int(schema.get("minLength") or 0), ".")
        return text[: int(schema["maxLength"])] if "maxLength" in schema else text


def _is_value(schema: object) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") != "null"


def _merged(one: dict[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    properties = {**(one.get("properties") or {}), **(two.get("properties") or {})}
    required = [*(one.get("required") or ()), *(two.get("required") or ())]
    return {**one, **two, **({"properties": properties, "required": required} if properties else {})}


def _bounds(schema: Mapping[str, Any], step: float) -> tuple[float | None, float | None]:
    """Return inclusive bounds; an exclusive one is moved by ``step``."""
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    low = above + step if isinstance(above, int | float) and not isinstance(above, bool) else low
    high = below - step if isinstance(below, int | float) and not isinstance(below, bool) else high
    return low, high


def _within(value: float, low: float | None, high: float | None) -> float:
    value = value if low is None else max(value, low)
    return value if high is None else min(value, high)


def _number(schema: Mapping[str, Any]) -> float:
    low, high = _bounds(schema, 0.5)
    if low is not None and high is not None:
        return (low + high) / 2
    value = _within(1.5, low, high)
    multiple = schema.get("multipleOf")
    return math.ceil(value / multiple) * multiple if multiple else value


def _integer(schema: Mapping[str, Any]) -> int:
    low, high = _bounds(schema, 1)
    value = math.ceil(_within(1, low, high))
    multiple = schema.get("multipleOf")
    return math.ceil(value / multiple) * int(multiple) if multiple else value
