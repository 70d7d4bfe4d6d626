"""A shared row's text: what it says of each deployment, as JSON, and never more than a row can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final

from shared.core.pool import Averages, Entry

MAX_TEXT: Final = 30_000
"""Characters; Table Storage takes 32,768 in one property."""

_KEPT: Final = 86_400.0
"""Seconds for which the averages of a deployment that nobody calls any more are kept."""

_TEXTS: Final = frozenset({"disabled", "prober"})
_OPTIONAL: Final = frozenset({"disabled", "latency_ms", "first_content_ms"})


def text_of(entries: Mapping[str, Entry], wall: float) -> str:
    """Return the row's text. What is long past is left out, and the oldest first when there is too much."""
    kept = {name: entry for name, entry in entries.items() if _tells(entry, wall)}
    texts = {name: json.dumps({name: _brief(entry)}, separators=(",", ":"))[1:-1] for name, entry in kept.items()}
    length = sum(len(text) + 1 for text in texts.values())
    for name in sorted(kept, key=lambda name: (kept[name].open, kept[name].cool_until, kept[name].averages.at)):
        if length <= MAX_TEXT:
            break
        length -= len(texts.pop(name)) + 1
    return "{" + ",".join(texts.values()) + "}"


def entries_of(text: str) -> dict[str, Entry]:
    """Return what a row's text says; raise `ValueError` for one that says nothing sensible."""
    try:
        document = json.loads(text)
    except RecursionError as error:
        message = "it is nested too deeply"
        raise ValueError(message) from error
    if not isinstance(document, dict):
        message = "it is not an object"
        raise ValueError(message)  # noqa: TRY004  (damaged data, not a wrong call)
    return {name: _entry(facts) for name, facts in document.items()}


def _tells(entry: Entry, wall: float) -> bool:
    return entry.open or entry.cool_until > wall - _KEPT or entry.averages.at > wall - _KEPT


def _brief(entry: Entry) -> dict[str, Any]:
    facts = {name: value for name, value in asdict(entry).items() if value != getattr(_PLAIN, name)}
    if "averages" in facts:
        facts["averages"] = {name: value for name, value in facts["averages"].items() if value is not None}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in facts.items()}


_PLAIN: Final = Entry()


def _entry(facts: object) -> Entry:
    known = _checked(facts, Entry)
    if "averages" in known:
        known["averages"] = Averages(**_checked(known["averages"], Averages))
    return Entry(**known)


def _checked(facts: object, kind: type[Entry | Averages]) -> dict[str, Any]:
    """Return the facts this version knows, each of the right type."""
    if not isinstance(facts, dict):
        message = "an entry is not an object"
        raise ValueError(message)  # noqa: TRY004  (damaged data, not a wrong call)
    known = {field.name: facts[field.name] for field in fields(kind) if field.name in facts}
    for name, value in known.items():
        if not _fits(name, value):
            message = f"{name} is not what it should be"
            raise ValueError(message)
    return known


def _fits(name: str, value: object) -> bool:
    if name == "averages":
        return isinstance(value, dict)
    if value is None:
        return name in _OPTIONAL
    if name in _TEXTS:
        return isinstance(value, str)
    if name == "open":
        return isinstance(value, bool)
    whole = name in {"epoch", "openings", "lease", "cools", "strikes"}
    number = isinstance(value, int) if whole else isinstance(value, int | float)
    return number and not isinstance(value, bool) and math.isfinite(value)  # type: ignore[arg-type]  # a number by now
