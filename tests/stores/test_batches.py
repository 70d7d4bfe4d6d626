"""Slices: one run at a time writes what lines come to, and each line has one outcome."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from functions.batches import MAX_HOURS
from shared.batches import Batch, Batches, Counts, Part, Status
from shared.batches.lines import BadLine, Line, Result, Spent, answered, digest, parse, refused
from shared.batches.slices import LEASE_SECONDS, Head, Index, Later, LostSliceError, pack
from shared.batches.store import KEPT_DAYS
from shared.batching.lifecycle import OUTPUT_SECONDS, OVERDUE_SECONDS
from shared.core.chat import Usage
from shared.core.errors import InvalidRequestError, NotFoundError, StorageUnavailableError
from shared.core.records import Caller
from shared.ports import Tables
from tests.fakes import FakeClock
from tests.stores.conftest import Weather

ID = "batch_00000001"
CHAT = "/v1/chat/completions"
INDEX = Index(0, 0, 1, 5)


@pytest.fixture
def batches(tables: Tables, clock: FakeClock) -> Batches:
    """Return no batches."""
    return Batches(tables, clock)


def batch(name: str = ID, project: str = "shop", **changes: object) -> Batch:
    """Return a batch that was made now."""
    caller = Caller("key_1", project, models=frozenset({"sol"}), budgets=("b",), requests_per_minute=7, tags={"team": "ops"})
    made = Batch(name, caller, CHAT, "file-1", "24h", created_at=1_795_001_000.0, expires_at=1_795_087_400.0)
    return replace(made, **changes)  # type: ignore[arg-type]  # fields of Batch


def well(number: int, text: str = "fine") -> Result:
    """Return the result of a line that was answered."""
    response = {"status_code": 200, "request_id": "req", "body": {"text": text}}
    return answered(ID, Line(number, f"c{number}", {}), response, Spent(100), Usage(10, 5))


def ill(number: int) -> Result:
    """Return the result of a line that was not."""
    return refused(ID, BadLine(number, None, "invalid_json_line", "no"))


async def taken(batches: Batches, run: str = "run") -> Head:
    """Take the slice."""
    head = await batches.slices.take(ID, INDEX, run)
    assert isinstance(head, Head)
    return head


async def shown(batches: Batches, part: Part = Part.OUTPUT) -> list[int]:
    """Return the lines of the results."""
    content = b"".join([piece async for piece in batches.slices.results(ID, 0, part)])
    return [json.loads(one)["switchyard"]["line"] for one in content.splitlines()]


async def test_results_come_in_the_order_of_the_input(batches: Batches) -> None:
    """Whatever the order in which lines end, results are in that of the file, answers apart from errors, and counted."""
    head = await taken(batches)
    head = await batches.slices.commit("run", head, {3: well(4), 1: ill(2)})
    head = await batches.slices.commit("run", head, {0: well(1), 2: well(3)})

    assert [1, 3, 4] == await shown(batches)
    assert [2] == await shown(batches, Part.ERRORS)
    assert [4] == head.left
    assert (3, 1, 300, 30, 15) == (
        head.counts.completed,
        head.counts.failed,
        head.counts.cost,
        head.counts.input_tokens,
        head.counts.output_tokens,
    )
    assert head == await batches.slices.find(ID, 0)


async def test_a_slice_changes_hands_when_its_run_is_silent(batches: Batches, clock: FakeClock) -> None:
    """Another run has to wait for the lease; then the first one can write nothing, not even that it lives."""
    first = await taken(batches, "first")
    assert 0 < float(await batches.slices.take(ID, INDEX, "second")) <= LEASE_SECONDS  # type: ignore[arg-type]  # not a head
    clock.seconds += LEASE_SECONDS
    second = await taken(batches, "second")

    for results in ({0: well(1)}, {}):
        with pytest.raises(LostSliceError):
            await batches.slices.commit("first", first, results)
    await batches.slices.commit("second", second, {1: well(2)})
    assert [2] == await shown(batches)


async def test_a_slice_that_was_given_back_is_free_at_once(batches: Batches) -> None:
    """Nobody waits for the lease of a run that has ended well."""
    head = await taken(batches, "first")
    await batches.slices.commit("first", replace(head, owner=""), {0: well(1)})

    assert [1, 2, 3, 4] == (await taken(batches, "second")).left


async def test_a_write_whose_answer_was_lost_is_not_counted_twice(batches: Batches, weather: Weather) -> None:
    """The store did it and did not say so: the same write again finds it done, in part or whole."""
    head = await taken(batches)
    weather.down = weather.after = True
    with pytest.raises(StorageUnavailableError):
        await batches.slices.commit("run", head, {0: well(1), 1: ill(2)})
    weather.down = False

    again = await batches.slices.commit("run", head, {0: well(1), 1: ill(2), 2: well(3)})

    assert (2, 1, 200) == (again.counts.completed, again.counts.failed, again.counts.cost)
    assert [1, 3] == await shown(batches)


async def test_a_write_that_did_not_happen_is_done_again(batches: Batches, weather: Weather) -> None:
    """Nothing is lost of what could not be written at first."""
    head = await taken(batches)
    weather.down = True
    with pytest.raises(StorageUnavailableError):
        await batches.slices.commit("run", head, {0: well(1)})
    weather.down = False

    assert 1 == (await batches.slices.commit("run", head, {0: well(1)})).counts.completed


async def test_large_results_take_several_transactions(batches: Batches, tables: Tables) -> None:
    """A result of any size is written, and what a run that died left of one is not shown."""
    head = await taken(batches)
    large = well(1, os.urandom(2_500_000).hex())
    head = await batches.slices.commit("run", head, {0: large, 1: well(2)})
    assert large.content + well(2).content == b"".join([one async for one in batches.slices.results(ID, 0, Part.OUTPUT)])

    table = tables.table("batches")
    orphan = await table.get(f"s~{ID}~000000", "o~00000~00000")
    assert orphan is not None
    await table.insert(replace(orphan, row="o~00003~00000", etag=""))
    await table.insert(replace(orphan, row="o~00001~00001", etag=""))
    assert [1, 2] == await shown(batches)


async def test_many_results_fit_into_transactions(batches: Batches, weather: Weather) -> None:
    """No transaction has more than a hundred rows."""
    index = Index(1, 0, 1, 250)
    head = await batches.slices.take(ID, index, "run")
    assert isinstance(head, Head)
    head = await batches.slices.commit("run", head, {place: well(place + 1) for place in range(250)})

    assert not head.left
    assert 100 == max(weather.sizes)


async def test_what_is_to_be_tried_again_is_remembered(batches: Batches) -> None:
    """Passes, the time of the next one and what a line has cost survive the run."""
    head = await taken(batches, "first")
    later = {0: Later(2, 1_795_009_999.5, Spent(77, unpriced=True)), 1: Later(1, 5.0)}
    await batches.slices.commit("first", replace(head, owner="", later=later), {1: well(2)})

    assert {0: later[0]} == (await taken(batches, "second")).later


async def test_a_sealed_slice_is_nobodys(batches: Batches, clock: FakeClock) -> None:
    """Once a batch is being ended, no run can write or take an unfinished slice."""
    head = await taken(batches)
    await batches.slices.seal(ID, 0)
    clock.seconds += 10 * LEASE_SECONDS

    with pytest.raises(LostSliceError):
        await batches.slices.commit("run", head, {0: well(1)})
    assert LEASE_SECONDS == await batches.slices.take(ID, INDEX, "another")
    assert await batches.slices.seal(ID, 7) is None


async def test_a_batch_is_kept_as_it_is(batches: Batches) -> None:
    """Everything said of a batch comes back; making it again finds it; what has ended stays."""
    given = batch(metadata={"a": "b"}, webhook="https://hooks.example.com/x")
    stored = await batches.create(given)
    assert given == replace(stored, etag="")
    assert stored == await batches.create(batch(engine="another"))
    assert await batches.uses("file-1")

    errors = ({"code": "x", "message": "y", "param": None, "line": 3},)
    done = await batches.change(ID, lambda one: replace(one.become(Status.COMPLETED, 5.0), counts=Counts(1, 2), errors=errors))
    assert done == await batches.get(ID)
    assert done == await batches.change(ID, lambda one: one.become(Status.FAILED, 6.0))
    assert not await batches.uses("file-1")
    assert [] == [one async for one in batches.unfinished()]


async def test_lists(batches: Batches) -> None:
    """The newest come first, page by page; a project sees its own."""
    for number in range(5):
        at = 1_795_001_000.0 + number
        await batches.create(batch(f"batch_{number}", "shop" if number % 2 else "müll/#?", created_at=at))

    first = await batches.page(None, after=None, limit=3)
    rest = await batches.page(None, after=first.batches[-1].id, limit=3)
    assert (["batch_4", "batch_3", "batch_2"], True) == ([one.id for one in first.batches], first.more)
    assert (["batch_1", "batch_0"], False) == ([one.id for one in rest.batches], rest.more)
    assert ["batch_3", "batch_1"] == [one.id for one in (await batches.page("shop", after=None, limit=9)).batches]
    assert 3 == len((await batches.page("müll/#?", after=None, limit=9)).batches)
    with pytest.raises(InvalidRequestError):
        await batches.page("shop", after="batch_0", limit=3)
    with pytest.raises(NotFoundError):
        await batches.get("batch_0", project="shop")
    for odd in ("", "nobody", "a/b", "x" * 200):
        assert await batches.find(odd) is None


def test_a_batch_is_kept_as_long_as_its_files() -> None:
    """Their content is with the batch, and their thirty days begin when it ends: at the latest after its longest window."""
    longest = MAX_HOURS * 3600 + OVERDUE_SECONDS + OUTPUT_SECONDS

    assert longest <= KEPT_DAYS * 86_400


async def test_old_batches_are_forgotten_with_everything(batches: Batches, tables: Tables, clock: FakeClock) -> None:
    """After its days nothing is left of a batch that has ended."""
    await batches.create(batch(created_at=clock.now()))
    await batches.slices.write_index(ID, [(INDEX, pack([(0, 1, digest("c1"))]))])
    head = await taken(batches)
    await batches.slices.commit("run", head, {0: well(1)})
    await batches.slices.note(head)
    await batches.slices.write_repeated(ID, 0, {3: 1})
    await batches.change(ID, lambda one: replace(one.become(Status.COMPLETED, 5.0), cursor=replace(one.cursor, slices=1)))
    assert 0 == await batches.prune()
    clock.seconds += (KEPT_DAYS + 2) * 86_400

    assert 1 == await batches.prune()
    table = tables.table("batches")
    partitions = [f"{kind}~{ID}" for kind in "bihxg"] + [f"s~{ID}~000000", "open", "all", "u~file-1"]
    for partition in partitions:
        assert [] == [row.row async for row in table.query(partition)], partition


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b'{"a": NaN}', "invalid_json_line"),
        (b"\xff\xfe{\x00", "invalid_json_line"),
        (b"null", "invalid_json_line"),
        (b"[" * 5000, "invalid_json_line"),
        (b'{"custom_id": 5}', "invalid_custom_id"),
        (b'{"custom_id": ""}', "invalid_custom_id"),
        (b'{"custom_id": "a", "method": "GET"}', "invalid_method"),
        (b'{"custom_id": "a", "method": "POST", "url": "/v1/embeddings"}', "invalid_url"),
        (b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": []}', "invalid_value"),
        (b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {}, "x": 1}', "unknown_parameter"),
        (b" " * 2000, "line_too_long"),
    ],
)
def test_bad_lines(raw: bytes, code: str) -> None:
    """What is wrong with a line is told with its number."""
    read = parse(raw, 17, CHAT, longest=6000 if raw[:1] == b"[" else 1000)
    assert isinstance(read, BadLine)
    assert (code, 17) == (read.code, read.number)
    assert read.message.startswith("Line 17")
