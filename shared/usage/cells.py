"""Usage as cells: what requests of the same key, model, task and so on add up to, in exact integers; and cells as a row's text.

A request adds to the cell of the model that answered, each of its attempts to the cell of the model it called. A roll-up is
cells by columns, each dimension with the list of its values: small to keep, and summed up a column at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final, NamedTuple

import orjson

from shared.core.fields import Fields
from shared.core.records import SUCCEEDED
from shared.usage import rows
from shared.usage.rows import Document

TOKENS: Final = ("input_tokens", "output_tokens", "cache_read", "cache_creation", "reasoning")
COUNTS: Final = (
    *("requests", "attempts", *TOKENS),
    *("cost", "cost_unknown", "underestimates", "billed", "billed_unknown"),
)
"""What a cell counts, in the order of its numbers."""

_ZEROS: Final = (0,) * len(COUNTS)
_NO_TOKENS: Final = (0,) * len(TOKENS)
_INT64: Final = 1 << 63
_MAX_CELLS: Final = 4_000


class Dims(NamedTuple):
    """What requests are told apart by. "" is none; ``tags`` is canonical JSON."""

    key: str
    project: str
    model: str
    deployment: str
    provider: str
    task: str
    operation: str
    tags: str


class Share(NamedTuple):
    """What a request, or one attempt of it, adds to its cell."""

    dims: Dims
    counts: tuple[int, ...]
    error: str | None
    attempt_error: str | None


@dataclass(slots=True)
class Cell:
    """A sum: numbers in the order of `COUNTS`, failed requests and failed attempts by outcome."""

    counts: list[int] = field(default_factory=lambda: list(_ZEROS))
    errors: dict[str, int] = field(default_factory=dict)
    attempt_errors: dict[str, int] = field(default_factory=dict)

    def add(self, share: Share) -> None:
        """Count a share."""
        self.counts = [mine + its for mine, its in zip(self.counts, share.counts, strict=True)]
        if share.error is not None:
            self.errors[share.error] = self.errors.get(share.error, 0) + 1
        if share.attempt_error is not None:
            self.attempt_errors[share.attempt_error] = self.attempt_errors.get(share.attempt_error, 0) + 1

    def merge(self, other: Cell) -> None:
        """Count everything the other one counted."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        for mine, its in ((self.errors, other.errors), (self.attempt_errors, other.attempt_errors)):
            for outcome, count in its.items():
                mine[outcome] = mine.get(outcome, 0) + count


def shares_of(request: Document) -> list[Share]:
    """Return what a request adds up to; raise `ValueError` when its row can't be a request."""
    row = Fields(request)
    attempts = [Fields(attempt) for attempt in request["attempts"]]
    tags = rows.tags_in(request.get("tags"))
    dims = Dims(
        key=row.find_text("key_id") or "",
        project=row.find_text("project") or "",
        model=row.find_text("model") or row.find_text("original_model") or "",
        deployment=row.find_text("deployment") or "",
        provider=(attempts[-1].find_text("provider") or "") if attempts else "",
        task=row.find_text("task") or "",
        operation=row.find_text("operation") or "",
        tags=orjson.dumps(tags, option=orjson.OPT_SORT_KEYS).decode() if tags else "",
    )
    outcome = row.text("outcome")
    billed = _billed(row, attempts)
    counts = (1, 0, *_NO_TOKENS, 0, 0, 0, billed or 0, int(billed is None))
    shares = [Share(dims, counts, None if outcome == SUCCEEDED else outcome, None)]
    shares += [_attempt(attempt, dims, row.find_text("original_model") or "") for attempt in attempts]
    return shares


def _billed(request: Fields, attempts: Sequence[Fields]) -> int | None:
    """Return what the request costs its caller. A row that does not say was answered by the attempt that succeeded, or none."""
    billed = request.find_whole("billed")
    if billed is not None:
        return billed
    for attempt in attempts:
        if attempt.text("outcome") == SUCCEEDED:
            return attempt.find_whole("cost")
    return 0


def _attempt(row: Fields, request: Dims, original_model: str) -> Share:
    outcome = row.text("outcome")
    cost = row.find_whole("cost")
    exact = row.flag("exact")
    usage = row.find_fields("usage")
    tokens = _NO_TOKENS if usage is None else tuple([usage.find_whole(name) or 0 for name in TOKENS])
    dims = Dims(
        key=request.key,
        project=request.project,
        model=row.find_text("model") or original_model,
        deployment=row.find_text("deployment") or "",
        provider=row.find_text("provider") or "",
        task=request.task,
        operation=request.operation,
        tags=request.tags,
    )
    counts = (0, 1, *tokens, cost or 0, int(cost is None), int(not exact), 0, 0)
    return Share(dims, counts, None, None if outcome == SUCCEEDED else outcome)


# ---- cells as text ---------------------------------------------------------------------------------------------------

Sparse = Mapping[str, Sequence[Sequence[int]]]
"""Outcome → the places of cells, and their counts."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Cells by columns: ``codes[dimension][cell]`` is the place of the cell's value in ``values[dimension]``.

    ``hours`` tells the hour of the day of each cell where cells of several hours are together. ``damaged`` counts rows that
    could not be read and are in no cell; ``requests`` of all cells and ``damaged`` are all rows there were.
    """

    values: Sequence[Sequence[str]]
    codes: Sequence[Sequence[int]]
    counts: Sequence[Sequence[int]]
    errors: Sparse
    attempt_errors: Sparse
    hours: Sequence[int] | None = None
    damaged: int = 0

    @property
    def rows(self) -> int:
        """How many rows were rolled up."""
        return sum(self.counts[0]) + self.damaged

    def cells(self) -> Iterator[tuple[int, Dims, Cell]]:
        """Yield each cell with its hour (0 where there are none) and its dimensions."""
        found = [Cell(list(counts)) for counts in zip(*self.counts, strict=True)]
        for sparse, name in ((self.errors, "errors"), (self.attempt_errors, "attempt_errors")):
            for outcome, (places, numbers) in sparse.items():
                for place, number in zip(places, numbers, strict=True):
                    getattr(found[place], name)[outcome] = number
        named = [[values[code] for code in codes] for values, codes in zip(self.values, self.codes, strict=True)]
        for hour, cell, *dims in zip(self.hours or repeat(0, len(found)), found, *named, strict=True):
            yield hour, Dims(*dims), cell


def texts_of(cells: Mapping[tuple[int, Dims], Cell], *, hours: bool, damaged: int) -> list[str]:
    """Return cells as the texts of as many rows as they need, at least one."""
    return list(_texts(sorted(cells.items()), hours=hours, damaged=damaged))


def _texts(cells: list[tuple[tuple[int, Dims], Cell]], *, hours: bool, damaged: int) -> Iterator[str]:
    text = _text(cells, hours=hours, damaged=damaged) if len(cells) <= _MAX_CELLS else None
    if text is not None and (rows.fits(text) or len(cells) < 2):  # noqa: PLR2004 - one can't be halved
        yield text
        return
    half = len(cells) // 2
    yield from _texts(cells[:half], hours=hours, damaged=damaged)
    yield from _texts(cells[half:], hours=hours, damaged=0)


def _text(cells: list[tuple[tuple[int, Dims], Cell]], *, hours: bool, damaged: int) -> str:
    values: list[dict[str, int]] = [{} for _ in Dims._fields]
    codes = [[known.setdefault(dims[at], len(known)) for (_, dims), _ in cells] for at, known in enumerate(values)]
    counts = [[_whole(cell.counts[at]) for _, cell in cells] for at in range(len(COUNTS))]
    found = {
        "values": [list(known) for known in values],
        "codes": codes,
        "counts": counts,
        "large": any(isinstance(number, str) for column in counts for number in column),
        "errors": _sparse([cell.errors for _, cell in cells]),
        "attempt_errors": _sparse([cell.attempt_errors for _, cell in cells]),
        "hours": [hour for (hour, _), _ in cells] if hours else None,
        "damaged": damaged,
    }
    return orjson.dumps(found).decode()


def _whole(number: int) -> int | str:
    """Return a number as JSON keeps it: over 64 bits as text."""
    return number if -_INT64 <= number < _INT64 else str(number)


def _sparse(counters: Iterable[Mapping[str, int]]) -> dict[str, tuple[list[int], list[int]]]:
    found: dict[str, tuple[list[int], list[int]]] = {}
    for place, counter in enumerate(counters):
        for outcome, count in counter.items():
            places, counts = found.setdefault(outcome, ([], []))
            places.append(place)
            counts.append(count)
    return found


def columns_in(text: str) -> Columns:
    """Return the cells in a row's text; raise `ValueError` when there are none."""
    found: Any = orjson.loads(text)
    try:
        columns = Columns(
            values=found["values"],
            codes=found["codes"],
            counts=[list(map(int, column)) for column in found["counts"]] if found["large"] else found["counts"],
            errors=found["errors"],
            attempt_errors=found["attempt_errors"],
            hours=found["hours"],
            damaged=found["damaged"],
        )
        lengths = {len(column) for column in (*columns.codes, *columns.counts, *([columns.hours] if columns.hours else ()))}
        complete = len(lengths) == 1 and len(columns.codes) == len(Dims._fields) and len(columns.counts) == len(COUNTS)
    except (KeyError, TypeError) as error:
        message = f"it is no roll-up: {error}"
        raise ValueError(message) from error
    if not complete:
        message = "its columns are not of one length"
        raise ValueError(message)
    return columns
