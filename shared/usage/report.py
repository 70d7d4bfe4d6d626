"""Usage added up: what was asked, tried, spent, by any grouping. Takes requests and roll-ups alike; holds one sum per group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from itertools import repeat
from typing import Final, NamedTuple

import orjson

from shared.core import ids
from shared.core.errors import InvalidRequestError
from shared.core.fields import Fields
from shared.usage.cells import COUNTS, Cell, Columns, Dims, shares_of
from shared.usage.rows import Document

TAG: Final = "tag:"


class GroupBy(StrEnum):
    """What usage can be grouped by, beside ``tag:NAME``. Days and hours are UTC, of the moment the request began."""

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

    ``group_by`` are names of `GroupBy`, or ``tag:`` and the name of a tag. A filter of None lets everything through; ``tags``
    are filters by tag, of which "" lets only requests without that tag through.
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
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One group's sum. A tag that requests of the group do not have is "".

    Requests count under the model and deployment that answered (the original model when none did), attempts under the one
    they called. ``errors`` are requests that failed, ``attempt_errors`` attempts, each by outcome. ``cost`` is nano-USD over
    the attempts whose cost is known; ``cost_unknown`` counts the others; ``underestimates`` counts attempts whose amounts are
    only what was seen of them. ``billed`` and ``billed_unknown`` are the same of requests, without attempts that failed.
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
    billed: int = 0
    billed_unknown: int = 0

    @property
    def exact(self) -> bool:
        """Whether ``cost`` is all there is: nothing unknown, nothing underestimated."""
        return self.cost_unknown == 0 and self.underestimates == 0


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The answer: a row for each group, and their sum.

    ``damaged_rows`` counts what could not be read and is in no sum. ``coarse`` says that the start or end fell within a quarter
    of an hour whose rows are deleted: it is counted whole if it begins in the stretch of time. ``scanned`` counts rows read.
    """

    rows: list[UsageRow]
    total: UsageRow
    damaged_rows: int = 0
    coarse: bool = False
    scanned: int = 0

    @property
    def exact(self) -> bool:
        """Whether the sums are all there is."""
        return self.total.exact and self.damaged_rows == 0 and not self.coarse


class _Source(NamedTuple):
    """Where a group's label comes from: a dimension, a tag of it, or the time."""

    dimension: int
    label: Callable[[str], str]


_NO_DIMENSION: Final = -1
_TAGS: Final = Dims._fields.index("tags")
_FILTERS: Final = tuple(name for name in GroupBy if name not in {GroupBy.DAY, GroupBy.HOUR})


class Sums:
    """Adds up requests, as the documents in their rows (see `shared.usage.rows`), and roll-ups, for one query."""

    def __init__(self, query: UsageQuery) -> None:
        self._group_by = query.group_by
        self._sources = tuple(_source(name) for name in query.group_by)
        wanted = [(name.value, getattr(query, name.value)) for name in _FILTERS]
        wanted += [(TAG + name, value) for name, value in query.tags]
        self._filters = tuple((_source(name), value) for name, value in wanted if value is not None)
        self._sums: dict[tuple[str, ...], Cell] = {}
        self.by_hour = GroupBy.HOUR.value in query.group_by
        self.damaged = 0
        self.coarse = False
        self.scanned = 0

    # ---- requests ----------------------------------------------------------------------------------------------------

    def add(self, request: Document) -> None:
        """Count a request and its attempts, or nothing of it: a broken one is a `ValueError`."""
        shares = shares_of(request)
        moment = _moment(request) if self._timed else ""
        for share in shares:
            dims = share.dims
            if any(label(dims[at]) != wanted for (at, label), wanted in self._filters):
                continue
            self._sum([label(dims[at] if at >= 0 else moment) for at, label in self._sources]).add(share)

    @property
    def _timed(self) -> bool:
        return any(source.dimension == _NO_DIMENSION for source in self._sources)

    def _sum(self, group: Sequence[str]) -> Cell:
        return self._sums.setdefault(tuple(group), Cell())

    # ---- roll-ups ----------------------------------------------------------------------------------------------------

    def add_columns(self, columns: Columns, day: str, hour: int = 0) -> None:
        """Count the cells of a day, or of an hour of it."""
        self.damaged += columns.damaged
        chosen = self._chosen(columns)
        if not chosen:
            return
        moments = [f"{day}T{at:02}" for at in range(24)]
        hours: Sequence[int] = columns.hours or list(repeat(hour, len(columns.codes[0])))
        groups = []
        for dimension, label in self._sources:
            values, codes = (columns.values[dimension], columns.codes[dimension]) if dimension >= 0 else (moments, hours)
            labels = [label(value) for value in values]
            groups.append([labels[codes[cell]] for cell in chosen])
        by_group: dict[tuple[str, ...], list[int]] = {}
        for cell, group in zip(chosen, zip(*groups, strict=True) if groups else repeat(()), strict=False):
            by_group.setdefault(group, []).append(cell)
        for group, cells in by_group.items():
            sums = self._sum(group)
            sums.counts = [
                so_far + sum(map(column.__getitem__, cells)) for so_far, column in zip(sums.counts, columns.counts, strict=True)
            ]
        if columns.errors or columns.attempt_errors:
            self._add_errors(columns, {cell: group for group, cells in by_group.items() for cell in cells})

    def _chosen(self, columns: Columns) -> Sequence[int]:
        """Return the cells that pass the filters."""
        chosen: Sequence[int] = range(len(columns.codes[0]))
        for (dimension, label), wanted in self._filters:
            passing = {code for code, value in enumerate(columns.values[dimension]) if label(value) == wanted}
            codes = columns.codes[dimension]
            chosen = [cell for cell in chosen if codes[cell] in passing] if passing else ()
        return chosen

    def _add_errors(self, columns: Columns, groups: Mapping[int, tuple[str, ...]]) -> None:
        for sparse, name in ((columns.errors, "errors"), (columns.attempt_errors, "attempt_errors")):
            for outcome, (places, numbers) in sparse.items():
                found: defaultdict[tuple[str, ...] | None, int] = defaultdict(int)
                for place, number in zip(places, numbers, strict=True):
                    found[groups.get(place)] += number
                for group, count in found.items():
                    if group is not None:
                        counter = getattr(self._sums[group], name)
                        counter[outcome] = counter.get(outcome, 0) + count

    # ---- the answer --------------------------------------------------------------------------------------------------

    def report(self) -> UsageReport:
        """Return the sums, ordered by their groups."""
        total = Cell()
        for cell in self._sums.values():
            total.merge(cell)
        found = [
            _row(cell, dict(zip(self._group_by, group, strict=True))) for group, cell in sorted(self._sums.items(), key=_group)
        ]
        return UsageReport(found, _row(total, {}), self.damaged, self.coarse, self.scanned)


def _group(item: tuple[tuple[str, ...], Cell]) -> tuple[str, ...]:
    return item[0]


def _row(cell: Cell, group: Mapping[str, str]) -> UsageRow:
    return UsageRow(
        group=group,
        errors=dict(sorted(cell.errors.items())),
        attempt_errors=dict(sorted(cell.attempt_errors.items())),
        **dict(zip(COUNTS, cell.counts, strict=True)),
    )


def _source(name: str) -> _Source:
    if name.startswith(TAG) and name != TAG:
        return _Source(_TAGS, _tag(name.removeprefix(TAG)))
    if name in Dims._fields[:_TAGS]:
        return _Source(Dims._fields.index(name), str)
    length = _TIME_LENGTHS.get(name)
    if length is None:
        message = f"Usage can't be grouped by `{name:.60}`. It can be by {', '.join(GroupBy)}, or tag:NAME."
        raise InvalidRequestError(message, param="group_by")
    return _Source(_NO_DIMENSION, lambda moment: moment[:length])


_TIME_LENGTHS: Final[Mapping[str, int]] = {GroupBy.DAY.value: 10, GroupBy.HOUR.value: 13}
"""How much of an ISO moment tells the day, and the hour."""


def _tag(name: str) -> Callable[[str], str]:
    @lru_cache(maxsize=4096)
    def label(tags: str) -> str:
        return str(orjson.loads(tags).get(name, "")) if tags else ""

    return label


def _moment(request: Document) -> str:
    row = Fields(request)
    try:
        moment = ids.time_of(row.text("request_id"))
    except ValueError:
        moment = row.number("started_at")
    return datetime.fromtimestamp(moment, UTC).isoformat()
