"""Files that callers upload, and those that batches write.

    f~ID       0                the FILE: its upload has ended well
               p~NNNNN          its content, `pieces.CAPACITY` bytes a row; a composed file has none
    p~PROJECT  a~TIME~ID        a project's files, the oldest first
               d~TIME~ID        and the newest first
    all        (the same)       everybody's
    expiring   TIME~ID          files that are not kept for good, by the time they expire
    open       ID               a MARK: rows of this file may be there that nobody is to see; when to remove them

A mark is made before an upload's first row and taken back after its last one: only then is the upload answered. Whatever has a
mark whose time has come is removed as a whole, so a process that dies leaves nothing for good. One row is held at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from shared import pieces
from shared.core.errors import InvalidRequestError, NotFoundError, StorageUnavailableError
from shared.core.fields import Fields
from shared.ports import (
    Action,
    Clock,
    Entity,
    EntityExistsError,
    EntityNotFoundError,
    Op,
    Tables,
    Value,
)

TABLE: Final = "files"
MAX_LINE: Final = 10 * 1024 * 1024
"""Bytes of a line beyond which it is not held, but only measured."""
MAX_LISTED: Final = 10_000
UPLOAD_SECONDS: Final = 2 * 3600.0
"""How long an upload may be under way; then nobody is waiting for it any more."""

_AT_ONCE: Final = 8
"""Rows of content that a transaction deletes: SQLite holds them in memory until it ends."""
_HEAD: Final = "0"
_ALL: Final = "all"
_OPEN: Final = "open"
_EXPIRING: Final = "expiring"
_SAFE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LATEST: Final = 9_999_999_999_999


@dataclass(frozen=True, slots=True)
class NewFile:
    """What is said of a file that is made. ``lifetime`` is in seconds; None keeps it until it is deleted."""

    project: str
    filename: str
    purpose: str
    lifetime: float | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A file. ``size`` is in bytes, times are seconds since the epoch.

    ``composed`` is the batch whose outcomes are its content: then the content is with the batch, and not here.
    """

    id: str
    project: str
    filename: str
    purpose: str
    size: int
    created_at: float
    expires_at: float | None = None
    composed: str | None = None


class Line(NamedTuple):
    """A line of a file: where it begins, its bytes without the newline, and where the next one begins.

    ``content`` is None for a line longer than `MAX_LINE`.
    """

    start: int
    content: bytes | None
    end: int


class Page(NamedTuple):
    """Some files of a list, and whether more come after them."""

    files: tuple[File, ...]
    more: bool


def new_id() -> str:
    """Return a file id that is not to be guessed."""
    return f"file-{secrets.token_hex(16)}"


class Files:
    """The files of this gateway, over the store that all instances share."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._table = tables.table(TABLE)
        self._clock = clock

    # ---- making ------------------------------------------------------------------------------------------------------

    async def create(self, chunks: AsyncIterable[bytes], describe: Callable[[], NewFile]) -> File:
        """Store a file as its content comes; ``describe`` is called when all of it is there.

        Nobody sees the file before it is whole. When anything raises, here or in what is given, nothing is left of it.
        Raise `StorageUnavailableError`: then the file may be there, and is removed within hours.
        """
        file_id, began = new_id(), self._clock.now()
        await self._mark(file_id, due=began + UPLOAD_SECONDS)
        try:
            size = await self._fill(file_id, chunks)
            new = describe()
            expires = None if new.lifetime is None else began + new.lifetime
            file = File(file_id, new.project, new.filename, new.purpose, size, began, expires)
            await self._table.insert(_entity(file))
            await self._index(file)
            await self._table.delete(_OPEN, file_id)
        except BaseException as error:
            # A write that was not answered may still happen: its mark stays, for `prune` to come back to.
            with contextlib.suppress(StorageUnavailableError):
                await self._remove(file_id, marked=isinstance(error, StorageUnavailableError))
            if isinstance(error, EntityNotFoundError):
                message = "The upload took too long and was given up. Upload the file again."
                raise StorageUnavailableError(message) from error
            raise
        return file

    async def _fill(self, file_id: str, chunks: AsyncIterable[bytes]) -> int:
        """Write the content, a row whenever there is enough for one; return its size."""
        held, number = bytearray(), 0
        async for chunk in chunks:
            held += chunk
            while len(held) >= pieces.CAPACITY:
                await self._write(file_id, number, bytes(held[: pieces.CAPACITY]))
                del held[: pieces.CAPACITY]
                number += 1
        if held:
            await self._write(file_id, number, bytes(held))
        return number * pieces.CAPACITY + len(held)

    async def _write(self, file_id: str, number: int, content: bytes) -> None:
        row = Entity(_partition(file_id), _piece(number), pieces.spread(content))
        await self._table.transact([Op(Action.UPSERT, row)])

    async def add_composed(self, new: NewFile, *, file_id: str, size: int, batch: str) -> File:
        """Register a file whose content is with a batch; return the one that is there when it is known already.

        Doing it again does no harm, whatever became of the first time. Raise `StorageUnavailableError`.
        """
        now = self._clock.now()
        expires = None if new.lifetime is None else now + new.lifetime
        file = File(file_id, new.project, new.filename, new.purpose, size, now, expires, batch)
        try:
            await self._table.insert(_entity(file))
        except EntityExistsError:
            file = await self._find(file_id) or file
        await self._index(file)
        return file

    async def _index(self, file: File) -> None:
        for partition, names in _indexes(file).items():
            rows = [Op(Action.UPSERT, Entity(partition, name, _properties(file))) for name in names]
            await self._table.transact(rows)

    async def _mark(self, file_id: str, *, due: float) -> None:
        await self._table.transact([Op(Action.UPSERT, Entity(_OPEN, file_id, {"due": due}))])

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def get(self, file_id: str, *, project: str | None = None) -> File:
        """Return a file that has not expired; raise `NotFoundError`, also for one of another project (None is everybody's)."""
        file = await self._find(file_id)
        if file is None or self._expired(file) or project not in {None, file.project}:
            raise _unknown(file_id)
        return file

    async def list(
        self,
        project: str | None,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = MAX_LISTED,
        newest_first: bool = True,
    ) -> Page:
        """Return the files of a project (None is everybody's) that have not expired, those that follow the file ``after``.

        Raise `InvalidRequestError` when ``after`` is not a file of that project.
        """
        prefix, start = ("d~", "d~") if newest_first else ("a~", "a~")
        if after is not None:
            start = _places(await self._cursor(after, project))[0 if newest_first else 1] + "~"
        found: list[File] = []
        partition = _ALL if project is None else _project(project)
        async for entity in self._table.query(partition, start=start, end=prefix + "~"):
            file = _file(entity)
            if self._expired(file) or purpose not in {None, file.purpose}:
                continue
            if len(found) == limit:
                return Page(tuple(found), more=True)
            found.append(file)
        return Page(tuple(found), more=False)

    async def _cursor(self, file_id: str, project: str | None) -> File:
        file = await self._find(file_id)
        if file is None or project not in {None, file.project}:
            message = f"`after` is {file_id[:60]!r}, which is no file here. Give the last id of the page before."
            raise InvalidRequestError(message, param="after", code="invalid_value")
        return file

    async def content(self, file_id: str, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield a file's bytes from ``start`` on, a row at a time, even if it has expired meanwhile.

        Raise `NotFoundError` when the file is not there, or is deleted on the way. A composed file's are with its batch.
        """
        file = await self._find(file_id)
        if file is None or file.composed is not None:
            raise _unknown(file_id)
        skipped = start % pieces.CAPACITY
        for number in range(start // pieces.CAPACITY, _count(file.size)):
            row = await self._table.get(_partition(file_id), _piece(number))
            if row is None:
                raise _unknown(file_id)
            yield pieces.gather(row.properties)[skipped:]
            skipped = 0

    async def lines(self, file_id: str, start: int = 0) -> AsyncGenerator[Line, None]:
        """Yield a file's lines from the byte ``start`` on, which is 0 or some line's ``end``. Raise as `content` does.

        A last line needs no newline. Empty lines are lines too.
        """
        begun, measured, held = start, 0, bytearray()
        async for data in self.content(file_id, start):
            at = 0
            while (newline := data.find(b"\n", at)) >= 0:
                measured += newline - at
                content = None if measured > MAX_LINE else bytes(held) + data[at:newline]
                yield Line(begun, content, begun + measured + 1)
                begun, measured, at = begun + measured + 1, 0, newline + 1
                held.clear()
            measured += len(data) - at
            if measured > MAX_LINE:
                held.clear()
            else:
                held += data[at:]
        if measured:
            yield Line(begun, None if measured > MAX_LINE else bytes(held), begun + measured)

    async def _find(self, file_id: str) -> File | None:
        if _SAFE.fullmatch(file_id) is None:
            return None
        entity = await self._table.get(_partition(file_id), _HEAD)
        return None if entity is None else _file(entity)

    def _expired(self, file: File) -> bool:
        return file.expires_at is not None and file.expires_at <= self._clock.now()

    # ---- removing ----------------------------------------------------------------------------------------------------

    async def delete(self, file_id: str) -> None:
        """Remove a file with all its rows. Raise `StorageUnavailableError`: then it is removed later, or do it again."""
        if await self._find(file_id) is None:
            raise _unknown(file_id)
        await self._mark(file_id, due=self._clock.now())
        await self._remove(file_id, marked=False)

    async def prune(self, in_use: Callable[[str], Awaitable[bool]], forget: Callable[[File], Awaitable[None]]) -> int:
        """Remove what has expired, but for what is ``in_use``, and what uploads have left; return how many. For a timer.

        ``forget`` is told the composed files that are gone, so that their content goes too.
        """
        gone, now = 0, self._clock.now()
        left = [entity.row async for entity in self._table.query(_OPEN) if Fields(entity.properties).number("due") <= now]
        for file_id in left:
            await self._remove(file_id, marked=False)
            gone += 1
        over = [entity.row async for entity in self._table.query(_EXPIRING, end=_time(now) + "~~")]
        for row in over:
            file_id = row.partition("~")[2]
            if await in_use(file_id):
                continue
            file = await self._find(file_id)
            await self._mark(file_id, due=now)
            await self._remove(file_id, marked=False)
            await self._delete(_EXPIRING, (row,))  # even if its file went without it
            if file is not None and file.composed is not None:
                await forget(file)
            gone += 1
        return gone

    async def _remove(self, file_id: str, *, marked: bool) -> None:
        """Remove every row of a file, the mark last, unless it is to stay ``marked``. The head goes after what it leads to."""
        file = await self._find(file_id)
        if file is not None:
            for partition, names in _indexes(file).items():
                await self._delete(partition, names)
            await self._delete(_partition(file_id), (_HEAD,))
            names = tuple(_piece(number) for number in range(_count(file.size)))
            for start in range(0, len(names), _AT_ONCE):
                await self._delete(_partition(file_id), names[start : start + _AT_ONCE])
        # Of an upload that broke off nobody knows how many rows there are.
        while rest := [entity.row async for entity in self._table.query(_partition(file_id), limit=1)]:
            await self._delete(_partition(file_id), tuple(rest))
        if not marked:
            await self._delete(_OPEN, (file_id,))

    async def _delete(self, partition: str, names: tuple[str, ...]) -> None:
        """Delete rows at once, or, when some are gone already, one by one."""
        try:
            await self._table.transact([Op(Action.DELETE, Entity(partition, name, etag="*")) for name in names])
        except EntityNotFoundError:
            for name in names if len(names) > 1 else ():
                with contextlib.suppress(EntityNotFoundError):
                    await self._table.delete(partition, name)


# ---- rows ------------------------------------------------------------------------------------------------------------


def _partition(file_id: str) -> str:
    return "f~" + file_id


def _project(name: str) -> str:
    """Return a project's partition; its name may hold what a key can't."""
    return "p~" + (name if _SAFE.fullmatch(name) else "~" + hashlib.sha256(name.encode()).hexdigest())


def _piece(number: int) -> str:
    return f"p~{number:05}"


def _count(size: int) -> int:
    return -(-size // pieces.CAPACITY)


def _time(moment: float) -> str:
    return f"{round(moment * 1000):013}"


def _places(file: File) -> tuple[str, str]:
    """Return a file's row among the newest and among the oldest of a list."""
    at = round(file.created_at * 1000)
    return f"d~{_LATEST - at:013}~{file.id}", f"a~{at:013}~{file.id}"


def _indexes(file: File) -> dict[str, tuple[str, ...]]:
    """Return the rows by which a file is found, by their partition."""
    places = _places(file)
    found: dict[str, tuple[str, ...]] = {_ALL: places, _project(file.project): places}
    if file.expires_at is not None:
        found[_EXPIRING] = (f"{_time(file.expires_at)}~{file.id}",)
    return found


def _entity(file: File) -> Entity:
    return Entity(_partition(file.id), _HEAD, _properties(file))


def _properties(file: File) -> dict[str, Value]:
    properties: dict[str, Value | None] = {
        "id": file.id,
        "project": file.project,
        "filename": file.filename,
        "purpose": file.purpose,
        "size": file.size,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
        "composed": file.composed,
    }
    return {name: value for name, value in properties.items() if value is not None}


def _file(entity: Entity) -> File:
    row = Fields(entity.properties)
    return File(
        id=row.text("id"),
        project=row.text("project"),
        filename=row.text("filename"),
        purpose=row.text("purpose"),
        size=row.whole("size"),
        created_at=row.number("created_at"),
        expires_at=row.find_number("expires_at"),
        composed=row.find_text("composed"),
    )


def _unknown(file_id: str) -> NotFoundError:
    return NotFoundError(f"There is no file {file_id[:80]!r}. It was never uploaded, or it has expired or was deleted.")
