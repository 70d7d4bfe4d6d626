"""Responses are kept with their conversation, seen by their project, and forgotten in time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shared.adapters.tables import open_tables
from shared.core.records import Caller
from shared.ports import Tables
from shared.responses import KEPT_DAYS, Kept, Responses, day_of, partition_of
from tests.fakes import FakeClock

DAY = 86_400.0
SHOP = Caller(key_id="k1", project="shop")
OTHER = Caller(key_id="k2", project="other")
ADMIN = Caller(key_id="k0", project="default", admin=True)
ITEMS: list[dict[str, Any]] = [{"id": "msg_1", "type": "message", "role": "user", "content": "Hi"}]


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands."""
    return FakeClock()


@pytest.fixture
def tables() -> Tables:
    """Return a store in memory."""
    return open_tables("memory:")


@pytest.fixture
def responses(tables: Tables, clock: FakeClock) -> Responses:
    """Return the responses in it."""
    return Responses(tables, clock)


def made(clock: FakeClock, name: str = "resp_1", **changes: Any) -> Kept:
    """Return a response of the shop's that has ended."""
    response = {"id": name, "status": "completed", "output": []}
    return replace(Kept(name, "shop", "k1", clock.now(), response, ended=True), **changes)


async def rows(tables: Tables, partition: str) -> list[str]:
    """Return the rows of a partition."""
    return [entity.row async for entity in tables.table("responses").query(partition)]


async def test_what_is_kept_is_found_by_its_project_and_administrators(responses: Responses, clock: FakeClock) -> None:
    """For everybody else it is not there."""
    kept = await responses.keep(made(clock), ITEMS)

    assert kept == await responses.visible("resp_1", SHOP)
    assert kept == await responses.visible("resp_1", ADMIN)
    assert await responses.visible("resp_1", OTHER) is None
    assert ITEMS == await responses.items("resp_1")


@pytest.mark.parametrize("name", ["", "resp/1", "resp~1", "r\u00e9sp", "a" * 65, "resp_1\n"])
async def test_what_can_be_no_id_is_not_looked_for(responses: Responses, name: str) -> None:
    """Some of it the store could not even be asked for."""
    assert await responses.visible(name, ADMIN) is None


async def test_large_responses_and_conversations_are_kept_whole(responses: Responses, clock: FakeClock) -> None:
    """Over many rows."""
    large = made(clock, response={"id": "resp_1", "status": "completed", "text": "x" * 3_000_000})
    items = [{"id": "msg_1", "text": "y" * 5_000_000}]
    await responses.keep(large, items)

    assert large == await responses.find("resp_1")
    assert items == await responses.items("resp_1")


async def test_the_same_id_is_kept_once(responses: Responses, clock: FakeClock) -> None:
    """Whoever starts a background response again gets the one that is there."""
    first = await responses.keep(made(clock), ITEMS)
    again = await responses.keep(made(clock, response={"id": "resp_1", "status": "queued"}), [])

    assert first == again
    assert ITEMS == await responses.items("resp_1")


@pytest.mark.parametrize("size", [1, 5_000_000])
async def test_what_was_half_kept_is_kept_whole_the_next_time(
    responses: Responses, tables: Tables, clock: FakeClock, size: int
) -> None:
    """Whoever kept it died before its head was there."""
    await responses.keep(made(clock, response={"id": "resp_1", "text": "x" * size}), ITEMS)
    await tables.table("responses").delete(partition_of("resp_1"), "0")
    again = await responses.keep(made(clock, response={"id": "resp_1", "text": "y" * size}), ITEMS)

    assert again == await responses.find("resp_1")


@pytest.mark.parametrize("size", [1, 5_000_000])
async def test_a_background_response_ends_once_it_has_an_end(responses: Responses, clock: FakeClock, size: int) -> None:
    """Until then it is as it began; the same end may be written twice."""
    begun = made(clock, response={"id": "resp_1", "status": "queued"}, background=True, ended=False)
    await responses.keep(begun, ITEMS)
    assert begun == await responses.find("resp_1")
    ended = replace(begun, response={"id": "resp_1", "status": "completed", "text": "x" * size}, ended=True)
    await responses.end(ended)
    await responses.end(ended)

    assert ended == await responses.find("resp_1")
    assert ITEMS == await responses.items("resp_1")


async def test_an_end_does_not_bring_back_what_was_deleted(responses: Responses, tables: Tables, clock: FakeClock) -> None:
    """Its answer least of all."""
    begun = await responses.keep(made(clock, background=True, ended=False), ITEMS)
    await responses.delete("resp_1")
    await responses.end(replace(begun, ended=True))

    assert [] == await rows(tables, partition_of("resp_1"))


async def test_deleting_leaves_nothing_behind(responses: Responses, tables: Tables, clock: FakeClock) -> None:
    """And twice does no harm."""
    kept = await responses.keep(made(clock), ITEMS)
    await responses.delete("resp_1")
    await responses.delete("resp_1")

    assert await responses.find("resp_1") is None
    assert [] == await rows(tables, partition_of("resp_1"))
    assert [] == await rows(tables, day_of(kept.created_at))


async def test_what_is_old_is_pruned_and_nothing_else(responses: Responses, tables: Tables, clock: FakeClock) -> None:
    """Thirty days after its day has ended; also what was never whole."""
    old = await responses.keep(made(clock, "resp_old"), ITEMS)
    await responses.keep(made(clock, "resp_torn"), ITEMS)
    await tables.table("responses").delete(partition_of("resp_torn"), "0")
    clock.seconds += KEPT_DAYS * DAY
    await responses.keep(made(clock, "resp_new"), ITEMS)
    assert 0 == await responses.prune()
    clock.seconds += DAY

    assert 2 == await responses.prune()
    assert await responses.find("resp_new") is not None
    for partition in (partition_of("resp_old"), partition_of("resp_torn"), day_of(old.created_at)):
        assert [] == await rows(tables, partition)


async def test_one_that_is_being_deleted_is_gone_already(responses: Responses, tables: Tables, clock: FakeClock) -> None:
    """Whoever has read its head and then finds nothing behind it is told that it is not there."""
    await responses.keep(made(clock), ITEMS)
    for row in await rows(tables, partition_of("resp_1")):
        if row != "0":
            await tables.table("responses").delete(partition_of("resp_1"), row)

    assert await responses.find("resp_1") is None
