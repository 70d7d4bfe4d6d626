"""A key changes and is rotated: its name and usage go on, nothing of a change is lost, revoking ends every token."""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
from typing import Any

import pytest

from shared.core.access import Identity, Role
from shared.core.errors import ConflictError, InvalidRequestError
from shared.core.records import Caller
from shared.keys import CACHE_SECONDS, MAX_OVERLAP, Keys
from shared.ports import Entity, Tables
from tests.fakes import FakeClock
from tests.stores.test_keys import EVERYTHING, WRONG, budget_exists, stored


@pytest.fixture
def keys(tables: Tables, clock: FakeClock) -> Keys:
    """Return the keys of one process."""
    return Keys(tables, clock, None, budget_exists=budget_exists)


@pytest.fixture
def elsewhere(tables: Tables, clock: FakeClock) -> Keys:
    """Return the keys of another process on the same store."""
    return Keys(tables, clock, None, budget_exists=budget_exists)


@pytest.mark.parametrize(
    ("field", "value"), [*((field, value) for field, value in WRONG if field not in {"project", "key_id"}), ("project", "x")]
)
async def test_a_bad_change_is_refused_by_name(keys: Keys, field: str, value: Any) -> None:
    """The key stays as it was. A project is for good."""
    key = (await keys.create("a", "b", **EVERYTHING)).key
    changes: dict[str, Any] = {"name": "new", field: value}
    with pytest.raises(InvalidRequestError) as refusal:
        await keys.update(key.key_id, **changes)

    assert refusal.value.param == field
    assert await keys.get(key.key_id) == key


def home(token: str, properties: dict[str, Any]) -> Entity:
    """Return a row as the first release wrote them."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    old: dict[str, Any] = {
        "key_id": "key_" + digest[:12],
        "name": "old",
        "project": "shop",
        "created_at": 1_790_000_000.0,
        "disabled": False,
    }
    return Entity("keys", digest, old | properties)


async def test_rows_of_the_first_release_are_read(keys: Keys, tables: Tables) -> None:
    """They have no roles, tokens or version: they are members, with one token, and can be changed and rotated."""
    token = "sk-sw-" + "o" * 43
    await tables.table("keys").insert(home(token, {"models0": '["small"]'}))
    (listed,) = await keys.list()

    identity = await keys.authenticate(token)
    new = await keys.rotate(listed.key_id, overlap=60)
    changed = await keys.update(listed.key_id, name="new")

    assert identity == Identity(Caller(listed.key_id, "shop", name="old", models=frozenset({"small"})))
    assert (1, 3) == (listed.version, changed.version)
    for each in (token, new.token.reveal()):
        assert await keys.authenticate(each) == Identity(Caller(listed.key_id, "shop", name="new", models=frozenset({"small"})))


async def test_a_rotated_key_has_a_new_token_and_its_old_name(keys: Keys, elsewhere: Keys, clock: FakeClock) -> None:
    """The old token works until the overlap ends, then only the new one; both are the same key to usage."""
    first = await keys.create("app", "shop", **EVERYTHING)
    before = await elsewhere.authenticate(first.token.reveal())
    second = await keys.rotate(first.key.key_id, overlap=60)

    assert first.token.reveal() != second.token.reveal()
    for each in (keys, elsewhere):
        for token in (first.token, second.token):
            assert await each.authenticate(token.reveal()) == before
    clock.seconds += 60
    for each in (keys, elsewhere):
        assert await each.authenticate(first.token.reveal()) is None
        assert await each.authenticate(second.token.reveal()) == before
    assert [second.key] == await elsewhere.list()


async def test_a_key_is_rotated_twice(keys: Keys, elsewhere: Keys, clock: FakeClock) -> None:
    """Each token has its own end, a later rotation never extends one, and rows of ended tokens are cleared away."""
    first = await keys.create("app", "shop")
    second = await elsewhere.rotate(first.key.key_id, overlap=100)
    clock.seconds += 50
    third = await keys.rotate(first.key.key_id, overlap=200)
    good = []
    for _ in range(4):
        good.append([await elsewhere.authenticate(one.token.reveal()) is not None for one in (first, second, third)])
        clock.seconds += 50
    clock.seconds += 50
    fourth = await keys.rotate(first.key.key_id, overlap=0)

    assert [[True, True, True], [False, True, True], [False, True, True], [False, True, True]] == good
    assert await keys.authenticate(third.token.reveal()) is None
    assert await keys.authenticate(fourth.token.reveal()) is not None
    assert len(await keys.list()) == 1


async def test_without_overlap_every_earlier_token_ends_at_once(
    keys: Keys, elsewhere: Keys, tables: Tables, clock: FakeClock
) -> None:
    """What one does when a token has leaked: also those in their overlap end, elsewhere within the cache's seconds."""
    made = [await keys.create("app", "shop")]
    made.append(await keys.rotate(made[0].key.key_id, overlap=1_000))
    for one in made:
        assert await elsewhere.authenticate(one.token.reveal()) is not None
    last = await keys.rotate(made[0].key.key_id, overlap=0)

    for one in made:
        assert await keys.authenticate(one.token.reveal()) is None
    clock.seconds += CACHE_SECONDS
    for one in made:
        assert await elsewhere.authenticate(one.token.reveal()) is None
    assert await elsewhere.authenticate(last.token.reveal()) is not None
    for _ in range(20):
        clock.seconds += 1
        last = await keys.rotate(made[0].key.key_id, overlap=0)
    assert len(await stored(tables)) <= 4
    assert await keys.authenticate(last.token.reveal()) is not None


async def test_revoking_a_key_ends_all_its_tokens(keys: Keys, elsewhere: Keys, clock: FakeClock) -> None:
    """In one transaction: there is no moment at which one of them is left."""
    made = [await keys.create("app", "shop")]
    made += [await keys.rotate(made[0].key.key_id, overlap=1_000) for _ in range(3)]
    for one in made:
        assert await elsewhere.authenticate(one.token.reveal()) is not None
    await keys.revoke(made[0].key.key_id)
    here = [await keys.authenticate(one.token.reveal()) for one in made]
    clock.seconds += CACHE_SECONDS
    there = [await elsewhere.authenticate(one.token.reveal()) for one in made]

    assert [None] * 8 == here + there
    for refused in (keys.rotate(made[0].key.key_id, overlap=0), keys.update(made[0].key.key_id, name="x")):
        with pytest.raises(ConflictError, match="revoked for good"):
            await refused


async def test_a_key_has_few_tokens_at_once(keys: Keys, clock: FakeClock) -> None:
    """A fifth good token is refused until one ends."""
    key_id = (await keys.create("app", "shop")).key.key_id
    for _ in range(3):
        await keys.rotate(key_id, overlap=100)
    with pytest.raises(ConflictError, match="without overlap"):
        await keys.rotate(key_id, overlap=100)
    clock.seconds += 100
    assert await keys.authenticate((await keys.rotate(key_id, overlap=100)).token.reveal()) is not None


async def test_an_expired_key_is_not_rotated(keys: Keys, clock: FakeClock) -> None:
    """Its new token would be dead; with a later expiry it can be."""
    key_id = (await keys.create("app", "shop", expires_at=clock.now() + 10)).key.key_id
    clock.seconds += 10
    with pytest.raises(ConflictError, match="expired"):
        await keys.rotate(key_id, overlap=0)
    await keys.update(key_id, expires_at=None)
    assert await keys.authenticate((await keys.rotate(key_id, overlap=0)).token.reveal()) is not None


@pytest.mark.parametrize("overlap", [-1, math.nan, math.inf, True, "60", None, MAX_OVERLAP + 1, 10**30])
async def test_a_bad_overlap_is_refused_by_name(keys: Keys, overlap: Any) -> None:
    """Nothing is rotated."""
    new = await keys.create("app", "shop")
    with pytest.raises(InvalidRequestError) as refusal:
        await keys.rotate(new.key.key_id, overlap=overlap)

    assert refusal.value.param == "overlap_seconds"
    assert await keys.get(new.key.key_id) == new.key


async def test_a_change_takes_effect_on_every_token(keys: Keys, elsewhere: Keys, clock: FakeClock) -> None:
    """What is not named stays; null takes a grant away; elsewhere it holds within the cache's seconds."""
    first = await keys.create("app", "shop", **EVERYTHING)
    second = await keys.rotate(first.key.key_id, overlap=1_000)
    for one in (first, second):
        await elsewhere.authenticate(one.token.reveal())
    changed = await keys.update(first.key.key_id, models=None, requests_per_minute=5, tags={}, roles=frozenset({Role.VIEWER}))
    clock.seconds += CACHE_SECONDS

    for each in (keys, elsewhere):
        for one in (first, second):
            identity = await each.authenticate(one.token.reveal())
            assert identity is not None
            assert (None, 5, 10**12, {}) == (
                identity.caller.models,
                identity.caller.requests_per_minute,
                identity.caller.tokens_per_minute,
                identity.caller.tags,
            )
            assert {Role.VIEWER} == identity.roles
            assert not identity.caller.admin
    assert ("app", 3) == (changed.name, changed.version)


async def test_changes_at_once_lose_nothing(keys: Keys, elsewhere: Keys) -> None:
    """Ten writers, each with a field or a rotation of its own: everything is there afterwards."""
    new = await keys.create("app", "shop")
    key_id = new.key.key_id
    results = await asyncio.gather(
        keys.update(key_id, name="new"),
        elsewhere.update(key_id, models=frozenset({"m"})),
        keys.update(key_id, requests_per_minute=7),
        elsewhere.update(key_id, tokens_per_minute=8),
        keys.update(key_id, tags={"team": "x"}),
        elsewhere.rotate(key_id, overlap=50),
        keys.rotate(key_id, overlap=50),
    )
    key = await keys.get(key_id)

    assert ("new", frozenset({"m"}), 7, 8, {"team": "x"}) == (
        key.name,
        key.models,
        key.requests_per_minute,
        key.tokens_per_minute,
        key.tags,
    )
    assert (8, 3) == (key.version, len(key.tokens))
    assert len(results) == 7


async def test_a_change_may_insist_on_a_version(keys: Keys) -> None:
    """Who has seen another version is told, and nothing changes."""
    key_id = (await keys.create("app", "shop")).key.key_id
    await keys.update(key_id, expected_version=1, name="b")
    with pytest.raises(ConflictError) as refusal:
        await keys.update(key_id, expected_version=1, name="c")

    assert refusal.value.param == "expected_version"
    assert (await keys.get(key_id)).name == "b"


async def test_a_lost_answer_does_not_lose_a_token(keys: Keys, weather: Any, clock: FakeClock) -> None:
    """A write that landed is recognised by its mark when it is sent again: the token that counts is the one returned."""
    asked = 0

    def make_token(size: int) -> str:
        nonlocal asked
        asked += 1
        weather.down = weather.after = asked % 2 == 0  # when the write's mark is made
        return secrets.token_urlsafe(size)

    async def clears(seconds: float) -> None:  # noqa: ARG001 - the clock's own signature
        weather.down = False

    clock.sleep = clears  # type: ignore[method-assign]
    keys._make_token = make_token
    new = await keys.create("app", "shop")
    second = await keys.rotate(new.key.key_id, overlap=0)

    assert weather.writes == 4
    assert await keys.authenticate(second.token.reveal()) is not None
    assert (2, 2) == (second.key.version, (await keys.get(new.key.key_id)).version)
    assert await keys.authenticate(new.token.reveal()) is None
