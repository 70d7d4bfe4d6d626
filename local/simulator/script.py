"""What the simulator was told to do: rules by profile and model, faults taken in order, rates drawn from a seed.

A rule is found by (profile, model), then (profile, any), (any, model), (any, any). Settings add up, the most specific winning;
the queue of faults and the rates are each taken from the most specific rule that has some left.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from local.simulator.faults import GROUPS, Fault, FaultKind, ScriptError, fault_kind, parse_fault

ANY: Final = "*"
_LONGEST_QUEUE: Final = 100_000
_MOST_WORDS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Settings:
    """How a profile behaves when nothing fails.

    ``latency_ms`` passes before the response's head, plus up to ``jitter_ms``; ``chunk_gap_ms`` between two events of a stream.
    ``answer`` replaces the made-up text; ``words`` sets its length. ``models`` lists what is deployed (None: everything).
    ``response_model`` is the model that an Azure deployment runs. ``context_window`` is in tokens. ``require_key`` None leaves
    it to the protocol: Azure and Anthropic insist, OpenAI-shaped servers do not.
    """

    seed: int = 0
    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    chunk_gap_ms: float = 0.0
    words: int = 0
    answer: str | None = None
    models: tuple[str, ...] | None = None
    response_model: str | None = None
    context_window: int | None = None
    require_key: bool | None = None


_SETTINGS: Final = tuple(item.name for item in fields(Settings))
_KEYS: Final = frozenset({"profile", "model", "faults", "rates", *_SETTINGS})


@dataclass(slots=True)
class _Rule:
    settings: dict[str, Any] = field(default_factory=dict)
    queue: deque[Fault] = field(default_factory=deque)
    rates: tuple[tuple[float, Fault], ...] = ()
    drawn: int = 0


class Script:
    """The rules in force. Not safe across threads; the server uses it from its event loop only."""

    def __init__(self) -> None:
        self._rules: dict[tuple[str, str], _Rule] = {}

    def apply(self, document: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Take one rule or a list of them: fields that are given replace that rule's; nothing is kept of a broken document.

        Raise `ScriptError`.
        """
        documents = [document] if isinstance(document, Mapping) else list(document)
        for item, (key, rule) in [(item, _parse_rule(item)) for item in documents]:
            known = self._rules.setdefault(key, _Rule())
            known.settings |= rule.settings
            known.queue = rule.queue if "faults" in item else known.queue
            known.rates = rule.rates if "rates" in item else known.rates

    def clear(self) -> None:
        """Forget every rule."""
        self._rules.clear()

    def settings(self, profile: str, model: str) -> Settings:
        """Return what holds for that profile and model."""
        if not self._rules:
            return Settings()
        merged: dict[str, Any] = {}
        for rule in reversed(self._matching(profile, model)):
            merged |= rule.settings
        return Settings(**merged)

    def take(self, profile: str, model: str, seed: int) -> Fault | None:
        """Return the fault the next request of that profile and model meets, or None; a queue moves on by one."""
        matching = self._matching(profile, model)
        for rule in matching:
            if rule.queue:
                fault = rule.queue.popleft()
                return None if fault.kind is FaultKind.OK else fault
        rated = next((rule for rule in matching if rule.rates), None)
        if rated is None:
            return None
        rated.drawn += 1
        place = draw(f"{seed}/{profile}/{model}/{rated.drawn}")
        for rate, fault in rated.rates:
            place -= rate
            if place < 0:
                return fault
        return None

    def pending(self) -> int:
        """Count the faults that are queued and not yet taken."""
        return sum(len(rule.queue) for rule in self._rules.values())

    def _matching(self, profile: str, model: str) -> list[_Rule]:
        keys = ((profile, model), (profile, ANY), (ANY, model), (ANY, ANY))
        return [rule for key in dict.fromkeys(keys) if (rule := self._rules.get(key)) is not None]


def draw(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone, so that a run can be repeated."""
    return int.from_bytes(hashlib.blake2b(name.encode(errors="replace"), digest_size=7).digest()) / 2**56


def _parse_rule(document: object) -> tuple[tuple[str, str], _Rule]:
    if not isinstance(document, Mapping):
        message = "a script must be an object, or a list of objects"
        raise ScriptError(message)
    unknown = sorted(set(document) - _KEYS)
    if unknown:
        message = f"unknown field {unknown[0]!r}; fields are: {', '.join(sorted(_KEYS))}"
        raise ScriptError(message)
    rule = _Rule({name: _setting(name, document[name]) for name in _SETTINGS if name in document})
    faults = document.get("faults") or ()
    if isinstance(faults, str) or not isinstance(faults, Sequence):
        message = "'faults' must be a list of fault names or objects"
        raise ScriptError(message)
    for fault in map(parse_fault, faults):
        if len(rule.queue) + fault.times > _LONGEST_QUEUE:
            message = f"'faults' holds more than {_LONGEST_QUEUE} faults; use 'rates'"
            raise ScriptError(message)
        rule.queue.extend([fault] * fault.times)
    rule.rates = _parse_rates(document.get("rates") or {})
    return (_name(document, "profile"), _name(document, "model")), rule


def _name(document: Mapping[str, Any], key: str) -> str:
    name = document.get(key)
    if name is not None and not isinstance(name, str):
        message = f"{key!r} must be text, or null for any"
        raise ScriptError(message)
    return name or ANY


def _setting(name: str, value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
    listed = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    count = number and isinstance(value, int)
    good, wanted = {
        "seed": (isinstance(value, int) and not isinstance(value, bool), "a whole number"),
        "latency_ms": (number, "milliseconds"),
        "jitter_ms": (number, "milliseconds"),
        "chunk_gap_ms": (number, "milliseconds"),
        "words": (count and value <= _MOST_WORDS, f"a whole number up to {_MOST_WORDS}"),
        "answer": (value is None or isinstance(value, str), "text or null"),
        "models": (value is None or listed, "a list of names or null"),
        "response_model": (value is None or isinstance(value, str), "text or null"),
        "context_window": (value is None or count, "a whole number of tokens or null"),
        "require_key": (value is None or isinstance(value, bool), "true, false or null"),
    }[name]
    if not good:
        message = f"{name!r} must be {wanted}"
        raise ScriptError(message)
    return tuple(value) if name == "models" and value is not None else value


def _parse_rates(rates: object) -> tuple[tuple[float, Fault], ...]:
    if not isinstance(rates, Mapping):
        message = "'rates' must be an object of fault names and rates between 0 and 1"
        raise ScriptError(message)
    parsed: list[tuple[float, Fault]] = []
    for name, value in rates.items():
        settings = dict(value) if isinstance(value, Mapping) else {"rate": value}
        rate = settings.pop("rate", None)
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 <= rate <= 1:
            message = f"the rate of {name!r} must be a number between 0 and 1"
            raise ScriptError(message)
        kinds = GROUPS.get(name) or (fault_kind(name),)
        parsed.extend((rate / len(kinds), parse_fault({**settings, "kind": kind})) for kind in kinds)
    if sum(rate for rate, _ in parsed) > 1 + 1e-9:
        message = "the rates add up to more than 1"
        raise ScriptError(message)
    return tuple(parsed)
