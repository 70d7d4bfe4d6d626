"""Usage added up: what was asked, tried, spent, by any grouping. Streams rows; holds one sum per group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

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


class Sums:
    """Adds up rows for one query. Rows are the properties of `shared.usage.rows`; a broken one is a `ValueError`."""

    def __init__(self, query: UsageQuery) -> None:
        self._readers = tuple(_reader(name) for name in query.group_by)
        self._group_by = query.group_by
        wanted = {name: getattr(query, name) for name in _FILTERS}
        self._filters = tuple((_READERS[name], value) for name, value in wanted.items() if value is not None)
        self._counts: dict[tuple[str, ...], Counter[str]] = {}
        self._errors: dict[tuple[str, ...], tuple[Counter[str], Counter[str]]] = {}

    def add_request(self, properties: Mapping[str, object]) -> None:
        """Count a request's row."""
        row = Fields(properties)
        outcome = row.text("outcome")
        group = self._group(row)
        if group is not None:
            self._counts[group]["requests"] += 1
            if outcome != SUCCEEDED:
                self._errors[group][0][outcome] += 1

    def add_attempt(self, properties: Mapping[str, object]) -> None:
        """Count an attempt's row."""
        row = Fields(properties)
        outcome = row.text("outcome")
        cost = row.find_whole("cost")
        tokens = [(name, row.find_whole(name) or 0) for name in _TOKENS]
        exact = row.flag("exact")
        group = self._group(row)
        if group is None:
            return
        counts = self._counts[group]
        counts["attempts"] += 1
        for name, count in tokens:
            counts[name] += count
        counts["cost"] += cost or 0
        counts["cost_unknown"] += cost is None
        counts["underestimates"] += not exact
        if outcome != SUCCEEDED:
            self._errors[group][1][outcome] += 1

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
        group = tuple(read(row) for read in self._readers)
        if group not in self._counts:
            self._counts[group] = Counter()
            self._errors[group] = (Counter(), Counter())
        return group


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
