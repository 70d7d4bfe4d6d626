"""Files in rows: whole or not there at all, read from any byte on, and never more of one held than a row."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from shared import files as store
from shared.core.errors import InvalidRequestError, NotFoundError, StorageUnavailableError
from shared.files import UPLOAD_SECONDS, File, Files, Line, NewFile
from shared.pieces import CAPACITY, CHUNK
from shared.ports import Entity, Tables
from tests.fakes import FakeClock
from tests.stores.conftest import Weather

HOUR = 3_600.0


@pytest.fixture
def files(tables: Tables, clock: FakeClock) -> Files:
    """Return no files yet."""
    return Files(tables, clock)


def described(**changes: Any) -> Callable[[], NewFile]:
    """Return what says of an upload that it is a batch's, of the project shop."""
    return lambda: NewFile(**{"project": "shop", "filename": "in.jsonl", "purpose": "batch", **changes})


async def chunks(*parts: bytes, then: BaseException | None = None) -> AsyncGenerator[bytes, None]:
    """Yield parts, then break off if there is a reason to."""
    for part in parts:
        yield part
    if then is not None:
        raise then


async def put(files: Files, *parts: bytes, **changes: Any) -> File:
    """Upload."""
    return await files.create(chunks(*parts), described(**changes))


async def nobody(file_id: str) -> bool:
    """Say that no file is in use."""
    return not file_id


async def forget(file: File) -> None:
    """Refuse to be told of files whose content is here."""
    assert file.composed is not None


async def all_rows(tables: Tables, *file_ids: str) -> list[Entity]:
    """Return every row there is of some files, and of the indexes."""
    table = tables.table(store.TABLE)
    partitions = ["all", "p~shop", "open", "expiring", *(f"f~{file_id}" for file_id in file_ids)]
    return [entity for partition in partitions async for entity in table.query(partition)]


async def read(files: Files, file: File, start: int = 0) -> bytes:
    """Return a file's content."""
    return b"".join([piece async for piece in files.content(file.id, start)])


async def test_content_comes_back_as_it_went_in(files: Files) -> None:
    """However it was cut on the way, at and around the size of a row, from any byte on."""
    for size in (1, CAPACITY - 1, CAPACITY, CAPACITY + 1, 2 * CAPACITY + 17):
        content = bytes(range(256)) * (size // 256 + 1)
        content = content[:size]
        file = await put(files, content[:5], b"", content[5:])

        assert file.size == size
        assert await read(files, file) == content
        for start in (1, CAPACITY - 1, CAPACITY, size - 1, size, size + CAPACITY):
            assert await read(files, file, start) == content[start:]


async def test_what_was_said_of_a_file_is_kept(files: Files, clock: FakeClock) -> None:
    """And read back as it was."""
    file = await put(files, b"x", filename="größe/“1”.jsonl", lifetime=HOUR)

    assert await files.get(file.id) == file
    assert file == File(file.id, "shop", "größe/“1”.jsonl", "batch", 1, clock.now(), clock.now() + HOUR)
    assert file.id.startswith("file-")


async def test_another_projects_file_is_not_there(files: Files) -> None:
    """The same words as for one that never was; so for ids that no file can have."""
    file = await put(files, b"x")

    assert await files.get(file.id, project="shop") == file
    for asked, project in ((file.id, "other"), ("file-none", None), ("../all", None), ("", None), ("x" * 2_000, None)):
        with pytest.raises(NotFoundError, match="There is no file"):
            await files.get(asked, project=project)


async def test_lists_are_pages_in_either_order(files: Files, clock: FakeClock) -> None:
    """Of a project or of all, of a purpose or of all; a page follows the file it is asked to follow."""
    made = []
    for number in range(5):
        clock.seconds += 0.5
        made.append(
            await put(files, b"x", project="a/b" if number == 2 else "shop", purpose="batch" if number else "user_data")
        )
    own = [made[0], made[1], made[3], made[4]]

    assert await files.list(None) == (tuple(reversed(made)), False)
    assert await files.list("shop") == (tuple(reversed(own)), False)
    assert await files.list("a/b") == ((made[2],), False)
    assert await files.list("a") == ((), False)
    assert await files.list("shop", newest_first=False, limit=3) == (tuple(own[:3]), True)
    assert await files.list("shop", newest_first=False, limit=3, after=made[3].id) == ((made[4],), False)
    assert await files.list("shop", limit=2, after=made[4].id) == ((made[3], made[1]), True)
    assert await files.list("shop", purpose="batch", limit=3) == ((made[4], made[3], made[1]), False)
    with pytest.raises(InvalidRequestError) as refused:
        await files.list("shop", after=made[2].id)
    assert refused.value.param == "after"


async def test_lines_know_their_place(files: Files) -> None:
    """Also those that span rows; from every line's end the rest can be read."""
    long = b"y" * CAPACITY
    file = await put(files, b"first\n\n" + long + b"\nlast \r\n" + b"no newline")
    lines = [line async for line in files.lines(file.id)]

    assert [line.content for line in lines] == [b"first", b"", long, b"last \r", b"no newline"]
    assert [line.start for line in lines] == [0, 6, 7, CAPACITY + 8, CAPACITY + 15]
    assert lines[-1].end == file.size
    for number, line in enumerate(lines):
        assert [rest async for rest in files.lines(file.id, line.end)] == lines[number + 1 :]


async def test_reading_from_a_line_on_reads_nothing_before_it(files: Files, weather: Weather) -> None:
    """Half a million lines are worked through in slices: each must cost its own rows only."""
    file = await put(files, b"z" * (5 * CAPACITY) + b"\nlast")
    before = weather.reads
    assert [Line(5 * CAPACITY + 1, b"last", file.size)] == [one async for one in files.lines(file.id, 5 * CAPACITY + 1)]
    assert weather.reads - before == 2  # the file and one row


async def test_a_line_that_is_too_long_is_measured_and_not_held(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported as such, and the lines around it are read; the bound itself is not too long."""
    monkeypatch.setattr(store, "MAX_LINE", CAPACITY)
    fits = b"f" * CAPACITY
    file = await put(files, b"a\n", fits, b"\n", b"l" * (4 * CAPACITY), b"\nb\n", fits, b"!")
    lines = [line async for line in files.lines(file.id)]

    assert [line.content for line in lines] == [b"a", fits, None, b"b", None]
    assert lines[2].end - lines[2].start == 4 * CAPACITY + 1
    assert lines[4].end == file.size


async def test_an_upload_and_its_reading_hold_a_few_rows() -> None:
    """Memory does not grow with the file. Measured over a store that keeps one row, so that only our own is counted."""

    async def source(rows: int) -> AsyncGenerator[bytes, None]:
        for _ in range(rows * CAPACITY // CHUNK):
            yield (b"x" * 1_023 + b"\n") * (CHUNK // 1_024)

    async def peak(rows: int) -> tuple[int, int]:
        sink = Files(Discarding(), FakeClock())  # type: ignore[arg-type]  # as much of a store as this needs
        tracemalloc.start()
        try:
            file = await sink.create(source(rows), described())
            written = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            counted = 0
            async for line in sink.lines(file.id):
                counted += line.content is not None
            measured = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert counted == rows * CAPACITY // 1_024
        return written, measured

    for small, large in zip(await peak(2), await peak(6), strict=True):
        assert large < 5 * CAPACITY
        assert large < small + CAPACITY


async def test_a_line_without_end_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured as above: it is as long as the file, and no more of it is in memory than of any other."""
    monkeypatch.setattr(store, "MAX_LINE", CAPACITY)
    sink = Files(Discarding(), FakeClock())  # type: ignore[arg-type]  # as much of a store as this needs
    file = await sink.create(chunks(*([b"x" * CAPACITY] * 10)), described())
    tracemalloc.start()
    try:
        lines = [line async for line in sink.lines(file.id)]
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert lines == [Line(0, None, file.size)]
    assert held < 5 * CAPACITY


class Discarding:
    """A store that keeps of each partition what is small, and one row that is not: they are all alike."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Entity] = {}
        self.large: dict[str, Entity] = {}

    def table(self, name: str) -> Discarding:
        """Return itself."""
        del name
        return self

    async def transact(self, ops: list[Any]) -> list[str]:
        """Write."""
        for op in ops:
            entity: Entity = op.entity
            if entity.row.startswith("p~"):
                self.large[entity.partition] = Entity(entity.partition, "", entity.properties)
            else:
                self.kept[entity.partition, entity.row] = entity
        return [""] * len(ops)

    async def insert(self, entity: Entity) -> str:
        """Write a row."""
        self.kept[entity.partition, entity.row] = entity
        return ""

    async def delete(self, partition: str, row: str, etag: str = "*") -> None:
        """Delete a row."""
        del etag
        del self.kept[partition, row]

    async def get(self, partition: str, row: str) -> Entity | None:
        """Read."""
        return self.large[partition] if row.startswith("p~") else self.kept.get((partition, row))


async def test_an_upload_that_breaks_off_leaves_nothing(files: Files, tables: Tables) -> None:
    """Whether its content, or what is said of it at the end, is what fails."""
    for then in (ConnectionError("gone"), InvalidRequestError("no")):
        with pytest.raises(type(then)):
            await files.create(chunks(b"x" * (3 * CAPACITY), then=then), described())

    def refuse() -> NewFile:
        message = "purpose?"
        raise InvalidRequestError(message)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "new_id", lambda: "file-known")
        with pytest.raises(InvalidRequestError, match="purpose"):
            await files.create(chunks(b"x" * (3 * CAPACITY)), refuse)
    assert await all_rows(tables, "file-known") == []


@pytest.mark.parametrize("write", range(1, 8))
async def test_a_store_that_fails_leaves_nothing_for_good(
    files: Files, tables: Tables, clock: FakeClock, weather: Weather, write: int
) -> None:
    """At whichever write it stops answering, done or not: no file is seen, and what is left goes when the time has come."""
    fail_at(weather, write)
    with pytest.raises(StorageUnavailableError), pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "new_id", lambda: "file-known")
        await files.create(chunks(b"x" * (2 * CAPACITY + 1)), described(lifetime=HOUR))
    calm(weather)
    clock.seconds += UPLOAD_SECONDS
    await files.prune(nobody, forget)

    assert await all_rows(tables, "file-known") == []


async def test_a_write_that_happens_late_leaves_nothing_for_good(files: Files, tables: Tables, clock: FakeClock) -> None:
    """What the store did not acknowledge it may still do, after everything was removed."""
    with pytest.raises(StorageUnavailableError), pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "new_id", lambda: "file-known")
        await files.create(chunks(b"x" * CAPACITY, then=StorageUnavailableError("late")), described())
    await tables.table(store.TABLE).insert(Entity("f~file-known", "p~00001", {"chunks": 0}))
    clock.seconds += UPLOAD_SECONDS
    await files.prune(nobody, forget)

    assert await all_rows(tables, "file-known") == []


async def test_a_process_that_dies_leaves_nothing_for_good(files: Files, tables: Tables, clock: FakeClock) -> None:
    """Nobody sees what it had stored; a timer removes it, but not before any upload must have ended."""
    await upload_until_killed(tables, "file-dead")
    with pytest.raises(NotFoundError):
        await files.get("file-dead")
    assert await files.list(None) == ((), False)
    clock.seconds += UPLOAD_SECONDS - 1
    assert await files.prune(nobody, forget) == 0
    clock.seconds += 1
    assert await files.prune(nobody, forget) == 1

    assert await all_rows(tables, "file-dead") == []


async def test_an_upload_that_was_given_up_does_not_come_back(files: Files, tables: Tables, clock: FakeClock) -> None:
    """A process that slept while its rows were removed can't make a file of what is missing."""

    async def slow() -> AsyncGenerator[bytes, None]:
        yield b"x" * (2 * CAPACITY)
        clock.seconds += UPLOAD_SECONDS
        assert await files.prune(nobody, forget) == 1
        yield b"y"

    with pytest.raises(StorageUnavailableError, match="too long"):
        await files.create(slow(), described(lifetime=HOUR))

    assert await all_rows(tables) == []


async def test_an_expired_file_is_not_there(files: Files, tables: Tables, clock: FakeClock) -> None:
    """From that moment on; its rows go with the timer, but for those of a file that a batch still reads."""
    kept, gone, used = (
        await put(files, b"kept"),
        await put(files, b"gone", lifetime=HOUR),
        await put(files, b"used", lifetime=HOUR),
    )

    async def in_use(file_id: str) -> bool:
        return file_id == used.id

    assert await files.prune(in_use, forget) == 0
    clock.seconds += HOUR

    for file in (gone, used):
        with pytest.raises(NotFoundError):
            await files.get(file.id)
    assert await files.list(None) == ((kept,), False)
    assert await files.prune(in_use, forget) == 1
    assert await read(files, used) == b"used"
    assert await files.prune(nobody, forget) == 1
    assert {kept.id} == {entity.properties["id"] for entity in await all_rows(tables, gone.id, used.id)}
    assert await read(files, kept) == b"kept"


async def test_deleting_removes_every_row(files: Files, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one transaction's worth of them; a second time there is nothing."""
    monkeypatch.setattr(store, "_AT_ONCE", 2)
    file = await put(files, b"x" * (5 * CAPACITY), lifetime=HOUR)
    await files.delete(file.id)

    assert await all_rows(tables, file.id) == []
    with pytest.raises(NotFoundError):
        await files.delete(file.id)


async def test_deleting_is_finished_by_the_timer(files: Files, tables: Tables, weather: Weather) -> None:
    """Once it has begun, whatever it could not do."""
    for write in range(1, 7):
        file = await put(files, b"x" * (2 * CAPACITY), lifetime=HOUR)
        fail_at(weather, write)
        with pytest.raises(StorageUnavailableError):
            await files.delete(file.id)
        calm(weather)
        await files.prune(nobody, forget)
        assert await all_rows(tables, file.id) == []


async def test_a_file_deleted_while_it_is_read_ends_in_an_error(files: Files) -> None:
    """Its first part must not pass for all of it."""
    file = await put(files, b"x" * (2 * CAPACITY))
    reading = files.content(file.id)
    await anext(reading)
    await files.delete(file.id)
    with pytest.raises(NotFoundError):
        await anext(reading)


async def test_a_composed_file_is_registered_once(files: Files, tables: Tables, clock: FakeClock) -> None:
    """An activity that runs twice gives the same file; the content is with its batch, not here."""
    new = NewFile("shop", "out.jsonl", "batch_output", HOUR)
    first = await files.add_composed(new, file_id="file-out", size=12, batch="batch_1")
    clock.seconds += 5
    second = await files.add_composed(new, file_id="file-out", size=12, batch="batch_1")

    assert first == second == await files.get("file-out", project="shop")
    assert first.composed == "batch_1"
    assert await files.list("shop") == ((first,), False)
    with pytest.raises(NotFoundError):
        await read(files, first)
    await files.delete("file-out")
    assert await all_rows(tables, "file-out") == []


async def test_the_content_of_a_composed_file_goes_with_it(files: Files, clock: FakeClock) -> None:
    """Whoever holds it is told when the file has expired."""
    new = NewFile("shop", "out.jsonl", "batch_output", HOUR)
    file = await files.add_composed(new, file_id="file-out", size=12, batch="batch_1")
    told: list[File] = []

    async def noted(gone: File) -> None:
        told.append(gone)

    clock.seconds += HOUR
    assert await files.prune(nobody, noted) == 1
    assert told == [file]


# ---- how stores and processes fail -------------------------------------------------------------------------------


def fail_at(weather: Weather, write: int) -> None:
    """Stop answering at the next transactions but so many; the one it stops at is done."""
    weather.writes = -write
    weather.after = True
    strike = weather.strike

    def failing() -> None:
        weather.down = weather.writes >= 0
        strike()

    object.__setattr__(weather, "strike", failing)


def calm(weather: Weather) -> None:
    """Answer again."""
    weather.down, weather.after = False, False
    object.__delattr__(weather, "strike")


async def upload_until_killed(tables: Tables, file_id: str) -> None:
    """Leave what an upload has stored when its process is killed in its middle."""

    class Killed(BaseException):
        pass

    files = Files(tables, FakeClock())

    async def nothing(*given: object, **named: object) -> None:
        del given, named

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Killed):
        patched.setattr(store, "new_id", lambda: file_id)
        patched.setattr(Files, "_remove", nothing)
        await files.create(chunks(b"x" * (2 * CAPACITY), then=Killed()), described())
