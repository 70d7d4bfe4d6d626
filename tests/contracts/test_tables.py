"""What every store of tables must do. One suite for all adapters: a new one is a line in STORES."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shared.adapters.clock import SystemClock
from shared.adapters.tables import open_tables
from shared.core.errors import StorageUnavailableError
from shared.ports import (
    Action,
    Entity,
    EntityChangedError,
    EntityExistsError,
    EntityNotFoundError,
    EntityTable,
    HttpTransport,
    InvalidEntityError,
    Op,
    Tables,
    Value,
)
from tests.azurite.process import Azurite
from tests.contracts.sdk_tables import SdkTables

Opener = Callable[[Path, HttpTransport, Callable[[], Azurite]], Tables]

STORES: dict[str, Opener] = {
    "sqlite": lambda folder, *_: open_tables(f"sqlite:{folder / 'made' / 'on demand' / 'state.db'}"),
    "memory": lambda *_: open_tables("memory:"),
    "azurite": lambda _, http, azurite: open_tables(azurite().setting, transport=http, clock=SystemClock()),
    "sdk": lambda _folder, _http, azurite: SdkTables(azurite().url),  # the reference: see sdk_tables
}


@pytest.fixture(params=STORES)
async def tables(
    request: pytest.FixtureRequest, tmp_path: Path, transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Tables]:
    """Return an empty store. It may be slow: how long a store may take is not part of the contract."""
    monkeypatch.setattr("shared.adapters.tables.azure_account.HEAD", 60.0)

    def azurite() -> Azurite:
        running: Azurite = request.getfixturevalue("azurite")
        running.clear()
        return running

    opened = STORES[request.param](tmp_path, transport, azurite)
    yield opened
    await opened.aclose()


@pytest.fixture
def table(tables: Tables) -> EntityTable:
    """Return an empty table."""
    return tables.table("contract")


def insert(row: str, partition: str = "p", **properties: Value) -> Op:
    """Return an operation that inserts a row."""
    return Op(Action.INSERT, Entity(partition, row, properties))


async def rows(table: EntityTable, partition: str = "p", **bounds: str | int | None) -> list[str]:
    """Return the keys of a range."""
    return [entity.row async for entity in table.query(partition, **bounds)]  # type: ignore[arg-type]


# ---- values ----------------------------------------------------------------------------------------------------------

VALUES: dict[str, Value] = {
    "text": "plain",
    "empty": "",
    "emoji": "🔀 smörgås 漢字 \u0000\u2028\ufeff",
    "quoted": '{"$binary":"AA=="} \\ null',
    "looks_wrapped": ':{"$double":"nan"}',
    "zero": 0,
    "one": 1,
    "least": -(2**63),
    "most": 2**63 - 1,
    "whole_double": 1.0,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "third": 1 / 3,
    "infinite": math.inf,
    "minus_infinite": -math.inf,
    "yes": True,
    "no": False,
    "binary": bytes(range(256)),
    "no_bytes": b"",
}


async def test_every_type_comes_back_as_it_was(table: EntityTable) -> None:
    """Text, integers, doubles, booleans and bytes stay distinct and exact, whatever they look like."""
    await table.insert(Entity("p", "r", VALUES))

    found = await table.get("p", "r")

    assert found is not None
    assert dict(found.properties) == VALUES
    assert [type(v) for v in VALUES.values()] == [type(found.properties[name]) for name in VALUES]


async def test_a_transaction_carries_every_type(table: EntityTable) -> None:
    """What a transaction writes is what an insert writes, also when a text looks like the end of what carries it."""
    nasty = "\r\n--batch_a--\r\n\r\nPOST http://127.0.0.1/a/b HTTP/1.1\r\n{}}{{ \u2028\u2029"
    values: dict[str, Value] = {**VALUES, "nasty": nasty}
    ops = [Op(Action.INSERT, Entity("p", "it's {a} 🔀", values)), Op(Action.UPSERT, Entity("p", "b", values))]
    first, second = await table.transact(ops)

    assert [entity async for entity in table.query("p")] == [
        Entity("p", "b", values, second),
        Entity("p", "it's {a} 🔀", values, first),
    ]


async def test_not_a_number_is_a_value(table: EntityTable) -> None:
    """A double may be NaN."""
    await table.insert(Entity("p", "r", {"x": math.nan, "y": "null"}))

    found = await table.get("p", "r")

    assert found is not None
    assert math.isnan(float(found.properties["x"]))
    assert found.properties["y"] == "null"


async def test_a_row_that_is_not_there_is_none(table: EntityTable) -> None:
    """Looking for what is not there is no error, not even in a table nobody has written to."""
    assert await table.get("p", "r") is None
    assert await rows(table) == []


async def test_tables_and_partitions_are_apart(tables: Tables) -> None:
    """The same keys in another table or partition are another row; a table's name does not tell case."""
    await tables.table("alpha").insert(Entity("p", "r", {"in": "alpha"}))
    await tables.table("beta").insert(Entity("p", "r", {"in": "beta"}))
    await tables.table("beta").insert(Entity("q", "r", {"in": "beta q"}))

    found = [await tables.table("ALPHA").get("p", "r"), await tables.table("beta").get("q", "r")]

    assert [entity and entity.properties["in"] for entity in found] == ["alpha", "beta q"]


async def test_keys_tell_case_and_may_be_empty(table: EntityTable) -> None:
    """Keys are compared as they are."""
    for row in ("", "A", "a", "é", "emoji 🔀", "k='1' OR 1=1; --", "%_*"):
        await table.insert(Entity("p", row, {"row": row}))
        found = await table.get("p", row)
        assert found is not None
        assert found.properties["row"] == row

    assert await table.get("p", "É") is None


# ---- what Table Storage refuses ---------------------------------------------------------------------------------------

REFUSED = {
    "slash": Entity("a/b", "r"),
    "backslash": Entity("p", "a\\b"),
    "hash": Entity("p", "a#b"),
    "question mark": Entity("p?", "r"),
    "control character": Entity("p", "a\x01"),
    "tab": Entity("p", "\t"),
    "C1 control": Entity("p", "\x85"),
    "half an emoji": Entity("p", "\ud83d"),
    "long key": Entity("p", "k" * 513),
    "long emoji key": Entity("🔀" * 257, "r"),
    "too small": Entity("p", "r", {"x": -(2**63) - 1}),
    "too large": Entity("p", "r", {"x": 2**63}),
    "long text": Entity("p", "r", {"x": "a" * 32_769}),
    "long emoji text": Entity("p", "r", {"x": "🔀" * 16_385}),
    "long bytes": Entity("p", "r", {"x": b"a" * 65_537}),
    "half an emoji in text": Entity("p", "r", {"x": "\ud83d"}),
    "large": Entity("p", "r", {f"x{n}": "a" * 32_768 for n in range(17)}),
    "many properties": Entity("p", "r", {f"x{n}": 1 for n in range(253)}),
    "a name with a hyphen": Entity("p", "r", {"a-b": 1}),
    "a name with a digit first": Entity("p", "r", {"1a": 1}),
    "a system property": Entity("p", "r", {"Timestamp": 1}),
    "no value": Entity("p", "r", {"x": None}),  # type: ignore[dict-item]
    "a list": Entity("p", "r", {"x": [1]}),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_table_storage_can_not_hold_is_refused(table: EntityTable, what: str) -> None:
    """Refused before anything is written, in a single insert and in a transaction, naming the limit."""
    entity = REFUSED[what]

    with pytest.raises(InvalidEntityError) as refusal:
        await table.insert(entity)
    with pytest.raises(InvalidEntityError):
        await table.transact([Op(Action.UPSERT, entity)])

    assert len(refusal.value.message) < 200
    assert await rows(table) == []


async def test_the_limits_themselves_fit(table: EntityTable) -> None:
    """A key of 1 KiB, 252 properties, a text and bytes of 64 KiB and an entity just under 1 MiB are stored."""
    await table.insert(Entity("k" * 512, "k" * 512, {f"x{n}": n for n in range(252)}))
    await table.insert(Entity("p", "r", {"text": "a" * 32_768, "bytes": b"a" * 65_536}))
    await table.insert(Entity("p", "large", {f"x{n}": "a" * 32_700 for n in range(16)}))

    assert await rows(table) == ["large", "r"]


@pytest.mark.parametrize("name", ["", "ab", "a" * 64, "1ab", "a-b", "a_b", "täb", "tables", 'x" --'])
def test_a_bad_table_name_is_refused(name: str) -> None:
    """Names are 3 to 63 letters and digits, a letter first."""
    store = open_tables("memory:")

    with pytest.raises(InvalidEntityError):
        store.table(name)


BAD_TRANSACTIONS = {
    "empty": [],
    "101 operations": [insert(str(n)) for n in range(101)],
    "two partitions": [insert("a", "p"), insert("a", "q")],
    "a row twice": [insert("a"), Op(Action.DELETE, Entity("p", "a", etag="*"))],
    "over 4 MiB": [insert(str(n), x="a" * 32_000, y="a" * 32_000) for n in range(34)],
    "a replace without an ETag": [Op(Action.REPLACE, Entity("p", "a"))],
    "a replace of anything": [Op(Action.REPLACE, Entity("p", "a", etag="*"))],
    "a delete without an ETag": [Op(Action.DELETE, Entity("p", "a"))],
}


@pytest.mark.parametrize("what", BAD_TRANSACTIONS)
async def test_a_bad_transaction_is_refused_whole(table: EntityTable, what: str) -> None:
    """What can't be one transaction leaves nothing behind."""
    with pytest.raises(InvalidEntityError):
        await table.transact(BAD_TRANSACTIONS[what])

    assert await rows(table) == []


# ---- conditions ------------------------------------------------------------------------------------------------------


async def test_an_insert_finds_the_row_taken(table: EntityTable) -> None:
    """The first insert wins, and what it wrote stays."""
    await table.insert(Entity("p", "r", {"n": 1}))

    with pytest.raises(EntityExistsError):
        await table.insert(Entity("p", "r", {"n": 2}))

    found = await table.get("p", "r")
    assert found is not None
    assert found.properties == {"n": 1}


async def test_a_replace_needs_the_current_etag(table: EntityTable) -> None:
    """An old ETag is refused; the new one is returned and is what a reader sees."""
    first = await table.insert(Entity("p", "r", {"n": 1, "old": True}))
    second = await table.replace(Entity("p", "r", {"n": 2}, first))

    with pytest.raises(EntityChangedError):
        await table.replace(Entity("p", "r", {"n": 3}, first))

    assert await table.get("p", "r") == Entity("p", "r", {"n": 2}, second)
    assert len({first, second, ""}) == 3


async def test_an_etag_never_comes_back(table: EntityTable) -> None:
    """Writing the same value, or deleting and inserting again, makes an ETag that was not there before."""
    etags = [await table.insert(Entity("p", "r", {"n": 1}))]
    etags.append(await table.replace(Entity("p", "r", {"n": 1}, etags[-1])))
    etags += await table.transact([Op(Action.UPSERT, Entity("p", "r", {"n": 1}))])
    await table.delete("p", "r", etags[-1])
    etags.append(await table.insert(Entity("p", "r", {"n": 1})))

    assert len(set(etags)) == 4
    with pytest.raises(EntityChangedError):
        await table.replace(Entity("p", "r", {"n": 2}, etags[0]))


async def test_a_write_to_a_row_that_is_not_there(table: EntityTable) -> None:
    """Replacing or deleting what is not there says so."""
    with pytest.raises(EntityNotFoundError):
        await table.replace(Entity("p", "r", {}, "some-etag"))
    with pytest.raises(EntityNotFoundError):
        await table.delete("p", "r")
    with pytest.raises(EntityNotFoundError):
        await table.delete("p", "r", "some-etag")


async def test_a_delete_may_be_conditional(table: EntityTable) -> None:
    """A delete with an old ETag is refused; with the current one, or with *, the row is gone."""
    first = await table.insert(Entity("p", "r", {"n": 1}))
    second = await table.replace(Entity("p", "r", {"n": 2}, first))

    with pytest.raises(EntityChangedError):
        await table.delete("p", "r", first)
    assert await rows(table) == ["r"]
    await table.delete("p", "r", second)
    assert await rows(table) == []
    await table.insert(Entity("p", "r"))
    await table.delete("p", "r")
    assert await rows(table) == []


# ---- transactions ----------------------------------------------------------------------------------------------------


async def test_a_transaction_does_everything(table: EntityTable) -> None:
    """Inserts, replaces, upserts and deletes happen together; deletes have no ETag."""
    old = await table.insert(Entity("p", "replaced", {"n": 1}))
    await table.insert(Entity("p", "deleted"))

    etags = await table.transact(
        [
            insert("inserted", n=1),
            Op(Action.REPLACE, Entity("p", "replaced", {"n": 2}, old)),
            Op(Action.UPSERT, Entity("p", "upserted", {"n": 3})),
            Op(Action.DELETE, Entity("p", "deleted", etag="*")),
        ]
    )

    stored = {entity.row: entity.etag async for entity in table.query("p")}
    assert stored == dict(zip(["inserted", "replaced", "upserted"], etags[:3], strict=True))
    assert etags[3] == ""


SPOILERS = {
    "a row that is taken": (Op(Action.INSERT, Entity("p", "there")), EntityExistsError),
    "an old ETag": (Op(Action.REPLACE, Entity("p", "there", {}, "old")), EntityChangedError),
    "a row that is missing": (Op(Action.REPLACE, Entity("p", "missing", {}, "old")), EntityNotFoundError),
    "a delete of nothing": (Op(Action.DELETE, Entity("p", "missing", etag="*")), EntityNotFoundError),
}


@pytest.mark.parametrize("what", SPOILERS)
@pytest.mark.parametrize("before", [Action.INSERT, Action.UPSERT, Action.DELETE])
async def test_a_transaction_happens_wholly_or_not_at_all(table: EntityTable, what: str, before: Action) -> None:
    """One operation that can't be done undoes those before it, and spares what others queue at the same moment."""
    etag = await table.insert(Entity("p", "there", {"n": 1}))
    await table.insert(Entity("p", "victim", {"n": 1}))
    spoiler, error = SPOILERS[what]
    first = Op(before, Entity("p", "new" if before is Action.INSERT else "victim", {"n": 2}, "*"))

    outcomes = await asyncio.gather(
        table.insert(Entity("p", "earlier")),
        table.transact([first, insert("more"), spoiler]),
        table.insert(Entity("p", "later")),
        return_exceptions=True,
    )

    assert type(outcomes[1]) is error
    assert f"row {spoiler.entity.row}" in str(outcomes[1])
    assert await rows(table) == ["earlier", "later", "there", "victim"]
    there, victim = await table.get("p", "there"), await table.get("p", "victim")
    assert there == Entity("p", "there", {"n": 1}, etag)
    assert victim is not None
    assert victim.properties == {"n": 1}


async def test_a_transaction_of_inserts_finds_one_taken(table: EntityTable) -> None:
    """A hundred inserts of which the last is taken leave nothing behind and say which row it was."""
    await table.insert(Entity("p", "099"))

    with pytest.raises(EntityExistsError, match="099"):
        await table.transact([insert(f"{n:03}") for n in range(100)])

    assert await rows(table) == ["099"]
    await table.transact([insert(f"{n:03}") for n in range(99)])
    assert len(await rows(table)) == 100


# ---- ranges ----------------------------------------------------------------------------------------------------------


async def test_a_query_is_ordered_and_half_open(table: EntityTable) -> None:
    """Rows come by their keys, from start, up to but without end, at most limit of them, from one partition."""
    for row in ("b", "a10", "a", "B", "a2", "c", "~", "é"):
        await table.insert(Entity("p", row))
    await table.insert(Entity("q", "b"))

    assert await rows(table) == ["B", "a", "a10", "a2", "b", "c", "~", "é"]
    assert await rows(table, start="a", end="b") == ["a", "a10", "a2"]
    assert await rows(table, start="a1", limit=2) == ["a10", "a2"]
    assert await rows(table, start="c") == ["c", "~", "é"]
    assert await rows(table, end="a") == ["B"]
    assert await rows(table, start="b", end="b") == []
    assert await rows(table, start="c", end="a") == []
    assert await rows(table, end="") == []
    assert await rows(table, limit=0) == []
    assert await rows(table, start="a/", end="a0") == []


async def test_a_query_crosses_pages(table: EntityTable) -> None:
    """Nothing is lost, doubled or out of order where one page ends and the next begins, large rows or small."""
    expected = [f"{n:04}" for n in range(1001)]
    for at in range(0, 1001, 100):
        await table.transact([insert(row) for row in expected[at : at + 100]])
    for n in range(12):
        await table.insert(Entity("large", f"{n:02}", {f"x{part}": "a" * 32_000 for part in range(14)}))

    assert await rows(table) == expected
    assert await rows(table, limit=200) == expected[:200]
    assert await rows(table, limit=401) == expected[:401]
    assert len(await rows(table, "large")) == 12


async def test_a_query_may_be_left_early(table: EntityTable) -> None:
    """Whoever has seen enough stops, and may write to what is being read."""
    await table.transact([insert(f"{n:03}") for n in range(100)])

    seen = []
    async for entity in table.query("p"):
        await table.delete("p", entity.row, entity.etag)
        seen.append(entity.row)
        if len(seen) == 3:
            break

    assert seen == ["000", "001", "002"]
    assert len(await rows(table)) == 97


@pytest.mark.parametrize("bounds", [{"start": "\x00"}, {"end": "a\n"}, {"start": "\ud83d"}])
async def test_a_bad_bound_is_refused(table: EntityTable, bounds: dict[str, str]) -> None:
    """A bound that could not be asked for is refused."""
    with pytest.raises(InvalidEntityError):
        await rows(table, **bounds)


# ---- together --------------------------------------------------------------------------------------------------------


async def test_twenty_writers_under_etags_lose_nothing(table: EntityTable) -> None:
    """Read, add one, write if unchanged, else again: twenty tasks make exactly twenty."""
    await table.insert(Entity("p", "counter", {"n": 0}))

    async def increment() -> None:
        while True:
            found = await table.get("p", "counter")
            assert found is not None
            try:
                await table.replace(Entity("p", "counter", {"n": int(found.properties["n"]) + 1}, found.etag))
            except EntityChangedError:
                continue
            return

    await asyncio.gather(*[increment() for _ in range(20)])

    found = await table.get("p", "counter")
    assert found is not None
    assert found.properties["n"] == 20


async def test_one_of_many_inserts_wins(table: EntityTable) -> None:
    """Of fifty that insert one row at once, one succeeds."""
    outcomes = await asyncio.gather(*[table.insert(Entity("p", "r", {"n": n})) for n in range(50)], return_exceptions=True)

    winners = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, str)]
    found = await table.get("p", "r")
    assert len(winners) == 1
    assert sum(isinstance(outcome, EntityExistsError) for outcome in outcomes) == 49
    assert found is not None
    assert found.properties["n"] == winners[0]


async def test_a_table_is_made_once_by_many(tables: Tables) -> None:
    """Fifty that write to a table nobody has written to all succeed, by every kind of write."""
    table = tables.table("contract")

    await asyncio.gather(
        *[table.insert(Entity("p", f"a{n:02}")) for n in range(25)],
        *[table.transact([insert(f"b{n:02}"), insert(f"c{n:02}")]) for n in range(25)],
    )

    assert len(await rows(table)) == 75
    with pytest.raises(EntityNotFoundError):
        await tables.table("alpha").replace(Entity("p", "r", {}, "some-etag"))
    with pytest.raises(EntityNotFoundError):
        await tables.table("beta").delete("p", "r")


async def test_what_was_written_is_seen_at_once(table: EntityTable) -> None:
    """After a write has returned, every reader sees it."""
    for n in range(50):
        await table.transact([Op(Action.UPSERT, Entity("p", "r", {"n": n}))])
        found = await table.get("p", "r")
        assert found is not None
        assert found.properties["n"] == n


async def test_a_cancelled_caller_harms_nobody(table: EntityTable) -> None:
    """A caller that goes away leaves the store answering the others."""
    tasks = [asyncio.ensure_future(table.insert(Entity("p", f"{n:02}"))) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(outcome, str) for outcome in outcomes[1::2])
    assert set(await rows(table)) >= {f"{n:02}" for n in range(1, 20, 2)}


async def test_closing_finishes_what_was_asked(tables: Tables) -> None:
    """What is queued is written before the store closes; afterwards it says that it is closed; closing twice is fine."""
    table = tables.table("contract")
    writes = [asyncio.ensure_future(table.insert(Entity("p", str(n)))) for n in range(100)]
    await asyncio.sleep(0)

    await tables.aclose()
    await tables.aclose()

    assert all(isinstance(outcome, str) for outcome in await asyncio.gather(*writes))
    with pytest.raises(StorageUnavailableError):
        await table.get("p", "1")
