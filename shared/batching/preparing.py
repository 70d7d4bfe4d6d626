"""The first part of a batch: look through its file once, make slices of it, find the custom_ids that come twice.

Of a line nothing is kept but 24 bytes in the store; in memory there are eight for each while custom_ids are compared.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

from shared.batches import Batch, Status
from shared.batches.lines import BOM, BadLine, Line, digest, is_blank, parse
from shared.batches.rows import Cursor
from shared.batches.slices import SLICE_BYTES, SLICE_LINES, Index, pack
from shared.core.errors import NotFoundError
from shared.files import MAX_LINE
from shared.gateway import Gateway

MAX_LINES: Final = 500_000
STEP_SECONDS: Final = 20.0
"""How long one step looks through a file: a step that is lost is done again."""
SHOWN_ERRORS: Final = 20
_FLUSH_SLICES: Final = 50
_LOOK_AFTER: Final = 64
_LOOK_AFTER_SLICES: Final = 20
"""Lines, or slices' digests, after which others get the event loop."""
_BUCKETS: Final = 64
_MAX_REPEATED: Final = 20_000


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why a batch can't be run at all."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


async def prepare(gateway: Gateway, given: Mapping[str, Any]) -> dict[str, Any]:
    """Do some of a batch's preparation: ``{"state": "more" | "ready" | "stopped", "slices"}``.

    Raise `StorageUnavailableError`: then what this step found is found again.
    """
    until = gateway.clock.monotonic() + STEP_SECONDS
    batch = await gateway.batches.get(given["id"])
    while batch.status is Status.VALIDATING and gateway.clock.monotonic() < until:
        if not batch.cursor.scanned:
            batch = await _scan(gateway, batch, until)
        else:
            batch = await _settle(gateway, batch)
    if batch.status is Status.VALIDATING:
        return {"state": "more", "slices": 0}
    ready = batch.status is Status.IN_PROGRESS
    return {"state": "ready" if ready else "stopped", "slices": batch.cursor.slices}


# ---- looking through the file ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Scan:
    """What has been found since the cursor was written."""

    cursor: Cursor
    found: list[tuple[Index, bytes]] = field(default_factory=list)
    digests: list[tuple[int, int, bytes]] = field(default_factory=list)
    offset: int = 0
    line: int = 0
    count: int = 0

    def __post_init__(self) -> None:
        self.offset, self.line = self.cursor.offset, self.cursor.line

    def take(self, read: Line | BadLine | None) -> None:
        """Take the next line in; None is a blank one."""
        if read is None:
            return
        if isinstance(read, Line):
            self.digests.append((self.count, read.number, digest(read.custom_id)))
        self.count += 1

    def full(self, end: int) -> bool:
        """Say whether the slice is to end with the line that ends there."""
        return self.count >= SLICE_LINES or end - self.cursor.offset >= SLICE_BYTES

    def close(self, end: int) -> None:
        """End the slice; the next one begins at ``end``."""
        cursor = self.cursor
        if self.count:
            index = Index(cursor.slices, cursor.offset, cursor.line, self.count)
            self.found.append((index, pack(self.digests)))
        self.cursor = replace(
            cursor,
            offset=end,
            line=self.line,
            requests=cursor.requests + self.count,
            valid=cursor.valid + len(self.digests),
            slices=cursor.slices + (1 if self.count else 0),
        )
        self.digests, self.count = [], 0


def read_line(gateway: Gateway, endpoint: str, number: int, content: bytes | None) -> Line | BadLine | None:
    """Read a line of a file; None for a blank one. ``content`` None is a line too long to be held."""
    if content is None:
        return BadLine(number, None, "line_too_long", f"Line {number} is too long: at most {MAX_LINE} bytes are accepted.")
    content = content.removeprefix(BOM) if number == 1 else content
    longest = gateway.settings.max_body_bytes
    return None if is_blank(content) else parse(content, number, endpoint, longest=longest)


async def _scan(gateway: Gateway, batch: Batch, until: float) -> Batch:
    """Look through more of the file, and write down what was found."""
    scan = _Scan(batch.cursor)
    end, whole = scan.cursor.offset, True
    try:
        async for line in gateway.files.lines(batch.input_file, scan.cursor.offset):
            scan.take(read_line(gateway, batch.endpoint, scan.line, line.content))
            scan.line += 1
            end = line.end
            if scan.line % _LOOK_AFTER == 0:
                await gateway.clock.sleep(0)
            if scan.full(end):
                scan.close(end)
                late = gateway.clock.monotonic() >= until
                if late or len(scan.found) >= _FLUSH_SLICES or scan.cursor.requests > MAX_LINES:
                    whole = False
                    break
    except NotFoundError:
        return await _fail(gateway, batch, [_Problem("input_file_gone", "The input file was deleted.", param="input_file_id")])
    if whole:
        scan.close(end)
        scan.cursor = replace(scan.cursor, scanned=True)
    if scan.cursor.requests > MAX_LINES:
        message = f"The input file has more than {MAX_LINES} lines. Split it."
        return await _fail(gateway, batch, [_Problem("too_many_lines", message, param="input_file_id")])
    await gateway.batches.slices.write_index(batch.id, scan.found)
    return await gateway.batches.change(batch.id, lambda one: _further(one, scan.cursor))


def _further(batch: Batch, cursor: Cursor) -> Batch:
    """Return the batch with the cursor, if it is further: two runs of a step find the same."""
    ahead = cursor.offset > batch.cursor.offset or (cursor.scanned and not batch.cursor.scanned)
    return replace(batch, cursor=cursor) if ahead and batch.status is Status.VALIDATING else batch


# ---- what it came to -------------------------------------------------------------------------------------------------


async def _settle(gateway: Gateway, batch: Batch) -> Batch:
    """Let a batch begin whose file has been looked through, or say why it can't."""
    if not batch.cursor.valid:
        return await _fail(gateway, batch, await first_problems(gateway, batch.input_file, batch.endpoint))
    if not await _compare(gateway, batch):
        message = f"More than {_MAX_REPEATED} custom_ids come more than once. They must be unique in a batch."
        return await _fail(gateway, batch, [_Problem("duplicate_custom_id", message, param="custom_id")])
    now = gateway.clock.now()

    def begun(one: Batch) -> Batch:
        return one.become(Status.IN_PROGRESS, now) if one.status is Status.VALIDATING else one

    batch = await gateway.batches.change(batch.id, begun)
    await gateway.batches.slices.forget_digests(batch.id)
    return batch


async def first_problems(gateway: Gateway, file_id: str, endpoint: str, *, most: int | None = None) -> list[_Problem]:
    """Return what is wrong with a file's first lines; none as soon as a line is right, or after ``most`` lines."""
    problems: list[_Problem] = []
    number = 0
    async for line in gateway.files.lines(file_id):
        number += 1
        read = read_line(gateway, endpoint, number, line.content)
        if isinstance(read, Line) or (most is not None and number > most):
            return []
        if read is not None and len(problems) < SHOWN_ERRORS:
            problems.append(_Problem(read.code, read.message, number, read.param))
        if number % _LOOK_AFTER == 0:
            await gateway.clock.sleep(0)
    return problems or [_Problem("empty_file", "The input file has no request in it.", param="input_file_id")]


async def _fail(gateway: Gateway, batch: Batch, problems: Iterable[_Problem]) -> Batch:
    now, errors = gateway.clock.now(), tuple(asdict(one) for one in problems)

    def failed(one: Batch) -> Batch:
        return replace(one.become(Status.FAILED, now), errors=errors) if one.status is Status.VALIDATING else one

    return await gateway.batches.change(batch.id, failed)


# ---- custom_ids that come twice --------------------------------------------------------------------------------------


async def _compare(gateway: Gateway, batch: Batch) -> bool:
    """Write down which lines repeat a custom_id; False when there are too many.

    First the beginnings of the digests are compared, eight bytes a line. Then, for the few that are not unique, the whole ones.
    """
    buckets = [array("Q") for _ in range(_BUCKETS)]
    async for number, digests in gateway.batches.slices.digests(batch.id):
        for _, _, whole in digests:
            start = _start(whole)
            buckets[start % _BUCKETS].append(start)
        await _give_way(gateway, number)
    suspects: set[int] = set()
    for bucket in buckets:
        ordered = sorted(bucket)
        suspects.update(one for one, following in pairwise(ordered) if one == following)
        await gateway.clock.sleep(0)
    if len(suspects) > _MAX_REPEATED:
        return False
    if suspects:
        await _write_repeated(gateway, batch, suspects)
    return True


async def _write_repeated(gateway: Gateway, batch: Batch, suspects: set[int]) -> None:
    first: dict[bytes, int] = {}
    async for number, digests in gateway.batches.slices.digests(batch.id):
        repeated = {}
        for place, line, whole in digests:
            if _start(whole) in suspects and (known := first.setdefault(whole, line)) != line:
                repeated[place] = known
        if repeated:
            await gateway.batches.slices.write_repeated(batch.id, number, repeated)
        await _give_way(gateway, number)


async def _give_way(gateway: Gateway, number: int) -> None:
    if number % _LOOK_AFTER_SLICES == 0:
        await gateway.clock.sleep(0)


def _start(whole: bytes) -> int:
    return int.from_bytes(whole[:8])
