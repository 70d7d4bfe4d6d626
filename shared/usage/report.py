"""Usage added up: what was asked, tried, spent, by any grouping. Streams rows; holds one sum per group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from shared.core import ids
from shared.core.errors import InvalidRequestError
from shared.core.fields import Fields
from shared.core.records import SUCCEEDED


class GroupBy(StrEnum):
    """What usage can be grouped by. Days and hours are UTC, of the moment the request began."""

    KEY = "key"
    PROJECT = "project"
    MODEL = "model"
    DEPLOYMENT = "deployment"
    PROVIDER = "provider"
    TASK = "task"
    OPERATION = "operation"
    DAY = "day"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """A question: requests that began from ``start`` up to but without ``end`` (seconds since the epoch), filtered, grouped.

    ``group_by`` are names of `GroupBy`. A filter of None lets everything through.
    """

    start: float
    end: float
    group_by: tuple[str, ...] = ()
    key: str | None = None
    project: str | None = None
    model: str | None = None
    deployment: str | None = None
    provider: str | None = None
    task: str | None = None
    operation: str | None = None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One group's sum.

    Requests count under the model and deployment that answered (the original model when none did), attempts under the one
    they called. ``errors`` are requests that failed, ``attempt_errors`` attempts, each by outcome. ``cost`` is nano-USD over
    the attempts whose cost is known; ``cost_unknown`` counts the others; ``underestimates`` counts attempts whose amounts are
    only what was seen of them.
    """

    group: Mapping[str, str] = field(default_factory=dict)
    requests: int = 0
    attempts: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    attempt_errors: Mapping[str, int] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read: int = 0
    cache_creation: int = 0
    reasoning: int = 0
    cost: int = 0
    cost_unknown: int = 0
    underestimates: int = 0

    @property
    def exact(self) -> bool:
        """Whether ``cost`` is all there is: nothing unknown, nothing underestimated."""
        return self.cost_unknown == 0 and self.underestimates == 0


_TOKENS: Final = ("input_tokens", "output_tokens", "cache_read", "cache_creation", "reasoning")
_COMMON: Final = ("request_id", "key_id", "project", "operation", "original_model", "task")
"""What an attempt shares with its request."""
_NOTHING: Final = Fields({})


@dataclass(frozen=True, slots=True)
class _Share:
    """What a request, or one attempt of it, adds to its group."""

    group: tuple[str, ...]
    counts: Mapping[str, int]
    errors: Counter[str] = field(default_factory=Counter)
    attempt_errors: Counter[str] = field(default_factory=Counter)


class Sums:
    """Adds up requests for one query, each as the document in its row (see `shared.usage.rows`)."""

    def __init__(self, query: UsageQuery) -> None:
        self._readers = tuple(_reader(name) for name in query.group_by)
        self._group_by = query.group_by
        wanted = {name: getattr(query, name) for name in _FILTERS}
        self._filters = tuple((_READERS[name], value) for name, value in wanted.items() if value is not None)
        self._counts: dict[tuple[str, ...], Counter[str]] = {}
        self._errors: dict[tuple[str, ...], tuple[Counter[str], Counter[str]]] = {}

    def add(self, request: Mapping[str, Any]) -> None:
        """Count a request and its attempts, or nothing of it: a broken one is a `ValueError`."""
        attempts = request["attempts"]
        common = {name: request.get(name) for name in _COMMON}
        shares = [self._request({**request, "provider": attempts[-1].get("provider") if attempts else None})]
        shares += [self._attempt({**common, **attempt, "requested_at": request.get("started_at")}) for attempt in attempts]
        for share in shares:
            if share is None:
                continue
            if share.group not in self._counts:
                self._counts[share.group] = Counter()
                self._errors[share.group] = (Counter(), Counter())
            self._counts[share.group].update(share.counts)
            self._errors[share.group][0].update(share.errors)
            self._errors[share.group][1].update(share.attempt_errors)

    def _request(self, properties: Mapping[str, object]) -> _Share | None:
        row = Fields({**properties, "requested_at": properties.get("started_at")})
        outcome = row.text("outcome")
        group = self._group(row)
        if group is None:
            return None
        return _Share(group, {"requests": 1}, errors=Counter() if outcome == SUCCEEDED else Counter([outcome]))

    def _attempt(self, properties: Mapping[str, object]) -> _Share | None:
        row = Fields(properties)
        outcome = row.text("outcome")
        cost = row.find_whole("cost")
        exact = row.flag("exact")
        usage = row.find_fields("usage") or _NOTHING
        counts = {name: usage.find_whole(name) or 0 for name in _TOKENS}
        group = self._group(row)
        if group is None:
            return None
        counts |= {"attempts": 1, "cost": cost or 0, "cost_unknown": int(cost is None), "underestimates": int(not exact)}
        return _Share(group, counts, attempt_errors=Counter() if outcome == SUCCEEDED else Counter([outcome]))

    def rows(self) -> list[UsageRow]:
        """Return the sums, ordered by their groups."""
        return [
            UsageRow(
                group=dict(zip(self._group_by, group, strict=True)),
                errors=dict(sorted(self._errors[group][0].items())),
                attempt_errors=dict(sorted(self._errors[group][1].items())),
                **counts,
            )
            for group, counts in sorted(self._counts.items())
        ]

    def _group(self, row: Fields) -> tuple[str, ...] | None:
        for read, wanted in self._filters:
            if read(row) != wanted:
                return None
        return tuple(read(row) for read in self._readers)


def _reader(name: str) -> Callable[[Fields], str]:
    reader = _READERS.get(name)
    if reader is None:
        message = f"Usage can't be grouped by `{name}`. It can be by {', '.join(_READERS)}."
        raise InvalidRequestError(message, param="group_by")
    return reader


def _named(name: str) -> Callable[[Fields], str]:
    return lambda row: row.find_text(name) or ""


def _model(row: Fields) -> str:
    return row.find_text("model") or row.find_text("original_model") or ""


def _day(row: Fields) -> str:
    return _moment(row)[:10]


def _hour(row: Fields) -> str:
    return _moment(row)[:13]


def _moment(row: Fields) -> str:
    try:
        moment = ids.time_of(row.text("request_id"))
    except ValueError:
        moment = row.number("requested_at")
    return datetime.fromtimestamp(moment, UTC).isoformat()


_READERS: Final[Mapping[str, Callable[[Fields], str]]] = {
    GroupBy.KEY.value: _named("key_id"),
    GroupBy.PROJECT.value: _named("project"),
    GroupBy.MODEL.value: _model,
    GroupBy.DEPLOYMENT.value: _named("deployment"),
    GroupBy.PROVIDER.value: _named("provider"),
    GroupBy.TASK.value: _named("task"),
    GroupBy.OPERATION.value: _named("operation"),
    GroupBy.DAY.value: _day,
    GroupBy.HOUR.value: _hour,
}
_FILTERS: Final = tuple(name for name in _READERS if name not in {GroupBy.DAY.value, GroupBy.HOUR.value})
