"""An example value for a JSON schema: enough of JSON Schema for tool arguments and structured outputs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

_DEEP: Final = 12
_LARGE: Final = 1000
_MOST_STEPS: Final = 4000
_WIDEST: Final = 2**53

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
        self._left = _MOST_STEPS

    def make(self, schema: object, name: str, depth: int) -> Any:
        if not isinstance(schema, Mapping):
            return f"simulated {name}"
        resolved = self._resolve(schema, 0)
        if "const" in resolved:
            return resolved["const"]
        if isinstance(resolved.get("enum"), list) and resolved["enum"]:
            return resolved["enum"][0]
        if depth > _DEEP or self._left <= 0:
            return None
        kind = self._kind(resolved)
        makers = {"object": self._object, "array": self._array, "string": self._string}
        if kind in makers:
            return makers[kind](resolved, name, depth)
        return {"number": _number(resolved), "integer": _integer(resolved), "boolean": True}.get(kind)

    def _resolve(self, schema: Mapping[str, Any], nested: int) -> dict[str, Any]:
        """Follow $ref, take the first real choice of anyOf and oneOf, and merge allOf."""
        resolved = dict(schema)
        for _ in range(_DEEP):
            self._left -= 1
            if self._left <= 0 or nested > _DEEP:
                break
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
                resolved = _merged(resolved, self._resolve(part, nested + 1) if isinstance(part, Mapping) else {})
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
            kind = next((item for item in kind if isinstance(item, str) and item != "null"), "null")
        if isinstance(kind, str):
            return kind
        return "object" if "properties" in schema else "array" if "items" in schema else "string"

    def _object(self, schema: Mapping[str, Any], _name: str, depth: int) -> dict[str, Any]:
        properties = _mapping(schema, "properties")
        required = [key for key in _list(schema, "required") if isinstance(key, str)]
        keys = required if self._is_enough(depth) else list(dict.fromkeys([*properties, *required]))
        return {key: self.make(properties.get(key, {}), key, depth + 1) for key in keys}

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        first = _list(schema, "prefixItems")
        count = max(_size(schema, "minItems", 0), len(first), 0 if self._is_enough(depth) else 1)
        count = min(count, _size(schema, "maxItems", count))
        kinds = [*first, *([schema.get("items", {})] * max(0, count - len(first)))]
        return [self.make(kind, name, depth + 1) for kind in kinds[:count]]

    def _is_enough(self, depth: int) -> bool:
        """Return whether to leave out what may be left out, so that a schema that refers to itself ends."""
        return depth > _DEEP // 2 or self._left < _MOST_STEPS // 2

    def _string(self, schema: Mapping[str, Any], name: str, _depth: int) -> str:
        known = _FORMATS.get(str(schema.get("format")))
        if known is not None:
            return known
        text = self._names[0] if self._names else f"simulated {name}"
        text = text.ljust(_size(schema, "minLength", 0), ".")
        return text[: _size(schema, "maxLength", len(text))]


def _is_value(schema: object) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") != "null"


def _merged(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    properties = {**_mapping(one, "properties"), **_mapping(two, "properties")}
    required = [*_list(one, "required"), *_list(two, "required")]
    return {**one, **two, **({"properties": properties, "required": required} if properties else {})}


def _mapping(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = schema.get(name)
    return value if isinstance(value, Mapping) else {}


def _list(schema: Mapping[str, Any], name: str) -> list[Any]:
    value = schema.get(name)
    return value if isinstance(value, list) else []


def _figure(schema: Mapping[str, Any], name: str) -> float | None:
    value = schema.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _size(schema: Mapping[str, Any], name: str, default: int) -> int:
    """Return a length or count; one that is absurd is cut, so that no schema can exhaust the machine."""
    value = _figure(schema, name)
    return default if value is None else int(min(max(value, 0), _LARGE))


def _bounds(schema: Mapping[str, Any], step: float) -> tuple[float | None, float | None]:
    """Return inclusive bounds; an exclusive one is moved by ``step``."""
    low, high = _figure(schema, "minimum"), _figure(schema, "maximum")
    above, below = _figure(schema, "exclusiveMinimum"), _figure(schema, "exclusiveMaximum")
    return low if above is None else above + step, high if below is None else below - step


def _number(schema: Mapping[str, Any]) -> float:
    low, high = _bounds(schema, 0.5)
    if low is not None and high is not None:
        return (low + high) / 2
    return _stepped(schema, _within(1.5, low, high))


def _integer(schema: Mapping[str, Any]) -> int:
    value = _stepped(schema, math.ceil(_within(1, *_bounds(schema, 1))))
    return int(_within(value, -_WIDEST, _WIDEST))


def _within(value: float, low: float | None, high: float | None) -> float:
    value = value if low is None else max(value, low)
    return value if high is None else min(value, high)


def _stepped(schema: Mapping[str, Any], value: float) -> float:
    """Return the next multiple of ``multipleOf``."""
    step = _figure(schema, "multipleOf")
    steps = value / step if step else 0.0
    return math.ceil(steps) * step if step and math.isfinite(steps) else value
