"""Keys: only who holds one gets in, only the hash is stored, a revoked key stops within seconds everywhere."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from shared.core.access import Identity, Role
from shared.core.errors import InvalidRequestError, NotFoundError, StorageUnavailableError
from shared.core.records import Caller
from shared.core.registry import Secret
from shared.keys import CACHE_SECONDS, GRACE_SECONDS, MAX_CACHED, Grants, Keys
from shared.ports import Action, Entity, Op, Tables
from tests.fakes import FakeClock

ADMIN_KEY = "canary-admin-key"
EVERYTHING: Grants = {
    "models": frozenset({"large"}),
    "budgets": ("team", "bud_2"),
    "requests_per_minute": 60,
    "tokens_per_minute": 10**12,
    "roles": frozenset({Role.VIEWER, Role.MEMBER}),
    "tags": {"cost_center": "4711 – 🔀"},
}


async def budget_exists(budget: str) -> bool:
    """Say that every budget exists but `gone`."""
    return budget != "gone"


@pytest.fixture
def keys(tables: Tables, clock: FakeClock) -> Keys:
    """Return the keys of one process."""
    return Keys(tables, clock, Secret(ADMIN_KEY), budget_exists=budget_exists)


@pytest.fixture
def elsewhere(tables: Tables, clock: FakeClock) -> Keys:
    """Return the keys of another process on the same store."""
    return Keys(tables, clock, Secret(ADMIN_KEY), budget_exists=budget_exists)


async def stored(tables: Tables) -> list[Entity]:
    """Return every row of the table."""
    return [entity async for entity in tables.table("keys").query("keys")]


# ---- who gets in -----------------------------------------------------------------------------------------------------


async def test_a_key_names_its_caller(keys: Keys) -> None:
    """The token of a new key is answered with its project, name and models."""
    everything = await keys.create("laptop", "search")
    some = await keys.create("batch", "shop", models=frozenset({"large", "small"}))

    assert everything.token.reveal().startswith("sk-sw-")
    assert len(everything.token.reveal()) >= len("sk-sw-") + 43
    assert await keys.authenticate(everything.token.reveal()) == Identity(
        Caller(everything.key.key_id, "search", name="laptop"), frozenset({Role.MEMBER})
    )
    assert await keys.authenticate(some.token.reveal()) == Identity(
        Caller(some.key.key_id, "shop", name="batch", models=frozenset({"large", "small"}))
    )


async def test_what_a_key_is_bound_to_is_its_callers(keys: Keys, elsewhere: Keys) -> None:
    """Budgets, limits and tags come with the caller, in every process; only the role admin makes an administrator."""
    new = await keys.create("app", "shop", **EVERYTHING)
    expected = Caller(
        new.key.key_id,
        "shop",
        name="app",
        models=frozenset({"large"}),
        budgets=("team", "bud_2"),
        requests_per_minute=60,
        tokens_per_minute=10**12,
        tags={"cost_center": "4711 – 🔀"},
    )

    for each in (keys, elsewhere):
        assert await each.authenticate(new.token.reveal()) == Identity(expected, frozenset({Role.VIEWER, Role.MEMBER}))
    assert new.key == await elsewhere.get(new.key.key_id)
    boss = await keys.create("boss", "shop", roles=frozenset({Role.ADMIN}))
    identity = await elsewhere.authenticate(boss.token.reveal())
    assert identity is not None
    assert (True, frozenset({Role.ADMIN})) == (identity.caller.admin, identity.roles)


async def test_the_admin_key_is_the_operators(keys: Keys, weather: Any) -> None:
    """It needs no store. Anything else, even nearly the same, is not it."""
    weather.down = True
    admin = await keys.authenticate(ADMIN_KEY)

    assert admin is not None
    assert admin.caller.admin
    assert {Role.ADMIN} == admin.roles
    for token in ("", ADMIN_KEY[:-1], ADMIN_KEY + " ", ADMIN_KEY.upper(), "\ud83d", "ä"):
        assert await keys.authenticate(token) is None


async def test_without_an_admin_key_nobody_is_admin(tables: Tables, clock: FakeClock) -> None:
    """No admin key set is not an empty one."""
    keys = Keys(tables, clock, None)

    assert await keys.authenticate("") is None
    assert await keys.authenticate("None") is None


async def test_what_can_not_be_a_key_costs_no_look_up(keys: Keys, weather: Any) -> None:
    """Garbage never reaches the store, nor fills a cache."""
    for token in (
        "x",
        "sk-sw-",
        "sk-sw-" + "a" * 39,
        "sk-sw-" + "a" * 200,
        "sk-sw-' OR 1=1; --" + "a" * 40,
        "sk-sw-" + "a/" * 30,
    ):
        assert await keys.authenticate(token) is None

    assert weather.reads == 0
    assert not keys._lookups._bad


async def test_an_unknown_key_is_nobody(keys: Keys) -> None:
    """Also one that differs from a real one in its last letter, or its first."""
    token = (await keys.create("a", "b")).token.reveal()

    for wrong in (token[:-1] + ("A" if token[-1] != "A" else "B"), token[:6] + "-" + token[7:], token[6:]):
        assert (await keys.authenticate(wrong) is None) == (wrong != token)


async def test_a_key_expires(keys: Keys, clock: FakeClock) -> None:
    """At its moment, even when it was looked up just before."""
    new = await keys.create("a", "b", expires_at=clock.now() + 10)
    clock.seconds += 9.9
    assert await keys.authenticate(new.token.reveal()) is not None
    clock.seconds += 0.1
    assert await keys.authenticate(new.token.reveal()) is None


async def test_a_revoked_key_stops_at_once_here_and_soon_elsewhere(keys: Keys, elsewhere: Keys, clock: FakeClock) -> None:
    """The process that revokes it refuses it at once, every other within the cache's seconds; it stays revoked."""
    new = await keys.create("a", "b")
    token = new.token.reveal()
    assert await keys.authenticate(token) is not None
    assert await elsewhere.authenticate(token) is not None

    revoked = await elsewhere.revoke(new.key.key_id)

    assert revoked.disabled
    assert await elsewhere.authenticate(token) is None
    clock.seconds += CACHE_SECONDS
    assert await keys.authenticate(token) is None
    assert (await keys.get(new.key.key_id)).disabled
    assert (await keys.revoke(new.key.key_id)).disabled


async def test_a_look_up_under_way_does_not_bring_a_revoked_key_back(
    keys: Keys, elsewhere: Keys, weather: Any, clock: FakeClock
) -> None:
    """What was read before the revocation is not remembered after it."""
    new = await elsewhere.create("a", "b")
    token = new.token.reveal()
    weather.slow = asyncio.Event()
    under_way = asyncio.ensure_future(keys.authenticate(token))
    while not weather.reads:
        await asyncio.sleep(0)
    clock.seconds += 0.5
    await keys.revoke(new.key.key_id)
    weather.slow.set()

    assert await under_way is None
    assert await keys.authenticate(token) is None


async def test_a_new_key_works_where_it_was_refused_before(elsewhere: Keys, tables: Tables, clock: FakeClock) -> None:
    """A token tried too early is refused; once its key exists it is good at once here, and within seconds elsewhere."""
    fixed = Keys(tables, clock, None, make_token=lambda size: "t" * (size + 11))
    token = "sk-sw-" + "t" * 43
    for each in (fixed, elsewhere):
        assert await each.authenticate(token) is None
    await fixed.create("a", "b")

    assert await fixed.authenticate(token) is not None
    clock.seconds += CACHE_SECONDS
    assert await elsewhere.authenticate(token) is not None


# ---- look-ups --------------------------------------------------------------------------------------------------------


async def test_a_look_up_is_remembered(keys: Keys, weather: Any, clock: FakeClock) -> None:
    """Good or bad, a token is looked up once in the cache's seconds."""
    good = (await keys.create("a", "b")).token.reveal()
    bad = "sk-sw-" + "z" * 43
    clock.seconds += CACHE_SECONDS
    weather.reads = 0
    for _ in range(100):
        assert await keys.authenticate(good) is not None
        assert await keys.authenticate(bad) is None
    assert weather.reads == 2
    clock.seconds += CACHE_SECONDS
    await keys.authenticate(good)
    assert weather.reads == 3


async def test_a_flood_of_bad_tokens_evicts_no_good_one(keys: Keys, weather: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caches are bounded, and apart."""
    assert MAX_CACHED <= 10_000
    monkeypatch.setattr("shared.keys.lookups.MAX_CACHED", 10)
    good = (await keys.create("a", "b")).token.reveal()
    await keys.authenticate(good)
    for number in range(100):
        await keys.authenticate(f"sk-sw-{number:043}")
    weather.reads = 0

    assert await keys.authenticate(good) is not None
    assert weather.reads == 0
    assert (len(keys._lookups._bad), len(keys._lookups._good)) == (10, 1)


async def test_a_known_key_survives_a_short_outage(keys: Keys, weather: Any, clock: FakeClock) -> None:
    """While the store does not answer, who was known a minute ago is let in; strangers hear that it does not answer."""
    good = (await keys.create("a", "b")).token.reveal()
    await keys.authenticate(good)
    weather.down = True
    clock.seconds += GRACE_SECONDS - 1
    assert await keys.authenticate(good) is not None
    with pytest.raises(StorageUnavailableError):
        await keys.authenticate("sk-sw-" + "z" * 43)
    clock.seconds += 1
    with pytest.raises(StorageUnavailableError):
        await keys.authenticate(good)


async def test_a_frozen_store_stops_no_known_key(
    keys: Keys, weather: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One caller waits a moment, the others not even that; strangers wait for the store."""
    monkeypatch.setattr("shared.keys.lookups.PATIENCE", 0.1)
    new = await keys.create("app", "shop")
    clock.seconds += CACHE_SECONDS
    weather.slow, weather.reads = asyncio.Event(), 0
    async with asyncio.timeout(2):  # 100 waits would be 10 s
        for _ in range(100):
            assert await keys.authenticate(new.token.reveal()) is not None
    stranger = asyncio.ensure_future(keys.authenticate("sk-sw-" + "z" * 43))
    await asyncio.sleep(0.01)

    assert not stranger.done()
    assert weather.reads == 2
    weather.slow.set()
    assert await stranger is None


async def test_callers_at_the_same_time_share_a_look_up(keys: Keys, elsewhere: Keys, weather: Any) -> None:
    """Fifty requests with one token are one read; one caller's leaving stops nobody."""
    token = (await elsewhere.create("app", "shop")).token.reveal()
    weather.reads = 0
    asked = [asyncio.ensure_future(keys.authenticate(token)) for _ in range(50)]
    await asyncio.sleep(0)
    asked[0].cancel()
    found = await asyncio.gather(*asked[1:])

    assert all(found)
    assert weather.reads == 1


async def test_a_token_is_told_by_all_of_it(keys: Keys) -> None:
    """CVE-2026-35030: two tokens with a long common beginning are two; a longer or shorter one is another."""
    token = "sk-sw-" + "t" * 42
    keys._make_token = lambda _size: "t" * 42 + "a"
    await keys.create("app", "shop")

    assert await keys.authenticate(token + "a") is not None
    for other in ("b", "A", "aa", "", "a\n", "a "):
        assert await keys.authenticate(token + other) is None


# ---- what is stored and shown ----------------------------------------------------------------------------------------


async def test_the_token_is_nowhere(keys: Keys, tables: Tables, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the store, the list, a repr or a log: it is shown once."""
    new = await keys.create("a", "b")
    token = new.token.reveal()
    await keys.authenticate(token)

    seen = repr([await stored(tables), await keys.list(), await keys.get(new.key.key_id), new]) + caplog.text

    assert token not in seen
    assert token.removeprefix("sk-sw-") not in seen
    assert new.key.key_id in seen


async def test_keys_are_listed_and_found(keys: Keys, clock: FakeClock) -> None:
    """All of them, the oldest first, with everything but the token."""
    assert await keys.list() == []
    made = []
    for name in ("c", "a", "b"):
        made.append((await keys.create(name, "p", models=frozenset({name}), expires_at=clock.now() + 1e6)).key)
        clock.seconds += 1

    assert await keys.list() == made
    assert await keys.get(made[1].key_id) == made[1]


@pytest.mark.parametrize(
    ("key_id", "error"),
    [
        ("key_000000000000", NotFoundError),
        *(
            (malformed, InvalidRequestError)
            for malformed in (
                *("", "key_", "0" * 64, "key_0' OR 1=1", "key_00000000000", "key_0000000000000", "key_00000000000g"),
                *("key_00000000000A", "key_000000000000\n", "\x00", "../keys", "key_\ud83d", "entra:1", "admin"),
            )
        ),
    ],
)
async def test_a_key_that_is_not_there(keys: Keys, key_id: str, error: type[Exception]) -> None:
    """Unknown ids are not found, malformed ones refused by name; a prefix is not an id."""
    await keys.create("a", "b")
    for ask in (keys.get(key_id), keys.revoke(key_id), keys.rotate(key_id, overlap=0), keys.update(key_id, name="x")):
        with pytest.raises(error) as refusal:
            await ask
        assert getattr(refusal.value, "param", "") == "key_id"


async def test_a_damaged_row_lets_nobody_in(keys: Keys, tables: Tables, clock: FakeClock) -> None:
    """A row whose models or expiry can't be read is nobody's key; the others are listed."""
    good = await keys.create("a", "b")
    bad = await keys.create("a", "b", models=frozenset({"m"}), expires_at=clock.now() + 1e6)
    row = next(entity for entity in await stored(tables) if entity.properties["key_id"] == bad.key.key_id)
    for change in (
        {"models0": "{}"},
        {"models0": '["m"'},
        {"models0": 5},
        {"expires_at": "never"},
        {"disabled": "no"},
        {"project": 1},
        {"roles": '["root"]'},
        {"roles": "admin"},
        {"budgets": "[1]"},
        {"budgets": "{}"},
        {"tags": '{"a": 1}'},
        {"requests_per_minute": "60"},
        {"tokens_per_minute": 1.5},
        {"tokens": "[[1, 2, 3]]"},
        {"tokens": '["x"]'},
        {"version": "1"},
        {"ends_at": "never"},
    ):
        broken = Entity("keys", row.row, {**row.properties, **change})
        await tables.table("keys").transact([Op(Action.UPSERT, broken)])
        clock.seconds += CACHE_SECONDS

        assert await keys.authenticate(bad.token.reveal()) is None, change
        if "ends_at" not in change:
            assert await keys.list() == [good.key], change


async def test_a_long_list_of_models_is_kept(keys: Keys) -> None:
    """As many and as long names as are accepted come back."""
    models = frozenset("🔀" * 250 + str(number) for number in range(200))
    new = await keys.create("a", "b", models=models)

    identity = await keys.authenticate(new.token.reveal())

    assert identity is not None
    assert identity.caller.models == models


WRONG: list[tuple[str, Any]] = [
    *(("name", value) for value in ("", " ", "a\n", "x" * 101, 5, None, "\x00", "\ud83d")),
    *(("project", value) for value in ("", "a b", "ä", "-a", "a/b", "x" * 65, 5, None, "a\n")),
    *(("expires_at", value) for value in (0, -1.0, math.nan, math.inf, True, "tomorrow", 1e300)),
    *(
        ("models", value)
        for value in (frozenset(), frozenset({""}), frozenset({"a\n"}), frozenset({5}), frozenset({"x" * 257}))
    ),
    ("models", frozenset(map(str, range(201)))),
    *(
        (limit, value)
        for limit in ("requests_per_minute", "tokens_per_minute")
        for value in (0, -1, True, 1.0, 0.5, math.nan, math.inf, 10**30, "60")
    ),
    *(("budgets", value) for value in (("a b",), ("a|b",), ("",), ("x" * 64,), ("A",), (5,), ("a", "a"), ["a"], "a", None)),
    ("budgets", tuple(map(str, range(5_000)))),
    ("budgets", tuple(map(str, range(17)))),
    ("budgets", ("team", "gone")),
    *(("roles", value) for value in (frozenset[str](), frozenset({"root"}), frozenset({"Admin"}), "admin", ["admin"], None)),
    *(("tags", value) for value in ({"": "a"}, {"a": ""}, {"a b": "c"}, {"a": "b\n"}, {"=a": "b"}, {"a": "x" * 129})),
    ("tags", {"a": 1}),
    *(("tags", value) for value in (None, "a")),
    ("tags", ["a"]),
    ("tags", {1: "a"}),
    ("tags", {f"tag{number}": "a" for number in range(17)}),
    ("admin", True),
    ("disabled", False),
    ("key_id", "key_000000000000"),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
async def test_a_bad_field_is_refused_by_name(keys: Keys, tables: Tables, field: str, value: Any) -> None:
    """Nothing is stored, and the message names the field."""
    good: dict[str, Any] = {"name": "a", "project": "b"}
    with pytest.raises(InvalidRequestError) as refusal:
        await keys.create(**{**good, field: value})

    assert refusal.value.param == field
    assert field in refusal.value.message
    assert await stored(tables) == []
