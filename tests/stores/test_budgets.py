"""Budgets as stored: what is refused, whom they cover, how soon a change counts, and what survives concurrency and outages."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from shared.budgets import GRACE, MAX_AGE, MAX_DEPTH, Budgets, StoredBudget
from shared.budgets.checks import nano_usd
from shared.budgets.store import REFRESH_AFTER, RETRY_AFTER
from shared.core.budgets import MAX_ACCOUNTS, AtEnd, Budget, Cycle, Scope, ScopeKind
from shared.core.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    StorageUnavailableError,
)
from shared.core.records import Caller
from shared.ports import Action, Entity, Op, Tables
from tests.fakes import FakeClock

GOOD: dict[str, Any] = {"name": "shop", "scope": {"kind": "project", "name": "shop"}, "limit_usd": 100, "cycle": "month"}
SHOP = Caller("key_0123456789ab", "shop")
HOSTS = frozenset({"hooks.example.com", "localhost"})


@pytest.fixture
def make(tables: Tables, clock: FakeClock) -> Callable[[], Budgets]:
    """Return a maker of processes that share the store."""
    numbers = itertools.count()
    return lambda: Budgets(tables, clock, webhook_hosts=HOSTS, make_id=lambda: f"{next(numbers):x}")


@pytest.fixture
def budgets(make: Callable[[], Budgets]) -> Budgets:
    """Return the budgets of one process."""
    return make()


@pytest.fixture
def elsewhere(make: Callable[[], Budgets]) -> Budgets:
    """Return the budgets of another process on the same store."""
    return make()


def fields(name: str, kind: str = "bound", scope: str | None = None, **more: Any) -> dict[str, Any]:
    """Return the fields of a budget whose id is its name."""
    found = {"kind": kind} if scope is None else {"kind": kind, "name": scope}
    return {"id": name, "name": name, "scope": found, "limit_usd": 1, "cycle": "month", **more}


async def ids(budgets: Budgets, caller: Caller = SHOP, model: str = "large") -> list[str]:
    """Return the ids of what applies to a call; what is known without waiting is the same."""
    found = await budgets.applying(caller, model)
    assert budgets.current(caller, model) in {found, None}
    return [budget.id for budget in found]


# ---- what is kept ----------------------------------------------------------------------------------------------------


async def test_a_budget_comes_back_as_it_was_made(budgets: Budgets, elsewhere: Budgets, clock: FakeClock) -> None:
    """Every field, also elsewhere; what was not said has its default."""
    plain = await budgets.create({**GOOD, "id": "plain"})
    full = await budgets.create(
        {
            **fields("full", "model", "org/größe 4", parent="plain"),
            "limit_usd": "0.000000001",
            "cycle": "week",
            "time_zone": "Asia/Kathmandu",
            "hard": False,
            "thresholds": [1, 0.25],
            "at_end": "clamp",
            "downgrade_at": 0.5,
            "floor_tokens": 16,
            "webhook": "https://hooks.example.com/x?y=1",
            "enabled": False,
        }
    )

    assert plain.budget == Budget(
        "plain", "shop", Scope(ScopeKind.PROJECT, "shop"), 100 * 10**9, Cycle.MONTH, created_at=clock.now()
    )
    assert full.budget == Budget(
        "full",
        "full",
        Scope(ScopeKind.MODEL, "org/größe 4"),
        1,
        Cycle.WEEK,
        hard=False,
        time_zone="Asia/Kathmandu",
        parent="plain",
        thresholds=(0.25, 1.0),
        at_end=AtEnd.CLAMP,
        downgrade_at=0.5,
        floor_tokens=16,
        webhook="https://hooks.example.com/x?y=1",
        enabled=False,
        created_at=clock.now(),
    )
    assert [full, plain] == await elsewhere.list()
    assert full == await elsewhere.get("full")


async def test_a_budget_changes_by_field(budgets: Budgets, clock: FakeClock) -> None:
    """The version grows, the rest stays; null takes a parent and a webhook away."""
    await budgets.create({**GOOD, "id": "top"})
    made = await budgets.create({**fields("b"), "parent": "top", "webhook": "https://hooks.example.com"})
    clock.seconds += 5
    changed = await budgets.update("b", {"limit_usd": "2.5", "parent": None, "webhook": None}, expected_version=1)

    assert (2_500_000_000, None, None) == (changed.budget.limit, changed.budget.parent, changed.budget.webhook)
    assert (2, clock.now()) == (changed.version, changed.updated_at)
    assert made.budget.created_at == changed.budget.created_at
    assert changed == await budgets.get("b")


async def test_a_version_that_moved_on_is_a_conflict(budgets: Budgets, elsewhere: Budgets) -> None:
    """Who changes what somebody else has changed is told."""
    await budgets.create({**GOOD, "id": "b"})
    await elsewhere.update("b", {"limit_usd": 1})
    with pytest.raises(ConflictError) as refusal:
        await budgets.update("b", {"limit_usd": 2}, expected_version=1)
    assert "version 2, not 1" in refusal.value.message
    assert (await budgets.get("b")).budget.limit == 10**9


async def test_an_id_is_taken_for_good(budgets: Budgets, elsewhere: Budgets) -> None:
    """A chosen id makes creating safe to repeat; a disabled budget keeps its id, because its money is under it."""
    await budgets.create({**GOOD, "id": "b"})
    await budgets.delete("b")
    with pytest.raises(ConflictError):
        await elsewhere.create({**GOOD, "id": "b"})
    assert (await budgets.create(GOOD)).budget.id.startswith("bud_")


async def test_a_deleted_budget_stays_and_covers_nothing(budgets: Budgets, elsewhere: Budgets) -> None:
    """Its row and money stay; deleting again is no error; it can be enabled again."""
    await budgets.create({**GOOD, "id": "b"})
    assert await ids(budgets) == ["b"]
    for _ in range(2):
        assert not (await budgets.delete("b")).budget.enabled
    assert await ids(budgets) == []
    assert not (await elsewhere.get("b")).budget.enabled
    await elsewhere.update("b", {"enabled": True})
    assert await ids(elsewhere) == ["b"]


@pytest.mark.parametrize("name", ["", "b", "x/y", "~head", "A", "é", "b'--", "../b"])
async def test_what_is_not_there_is_not_found(budgets: Budgets, name: str) -> None:
    """Also under names that could not be stored, and the store's own row."""
    await budgets.create(GOOD)
    for call in (budgets.get(name), budgets.delete(name), budgets.update(name, {"limit_usd": 1})):
        with pytest.raises(NotFoundError):
            await call


# ---- what is refused -------------------------------------------------------------------------------------------------

WRONG: list[tuple[str, str, Any]] = [
    *(
        ("limit_usd", "limit_usd", value)
        for value in (
            *(-1, 0, 0.0, -0.0, 1e30, 10**30, "1e30", 1e-10, "0.0000000001", "1.0000000001", 1.00000000001, math.nan, math.inf),
            *("NaN", "Infinity", "-Infinity", "sNaN", "", " ", "1 ", "1_000", "1,5", "٣", "0x10", "$1", "-1", "0", "1e999"),
            *("1e-999", "9" * 60, "9" * 61, "1." + "0" * 59 + "1", "1000000000.000000001", True, None, [1], {"usd": 1}),
            *(Decimal("1000000000.0000000001"), Decimal("1e999999"), Decimal("NaN"), Decimal("-0.5"), "1\n"),
        )
    ),
    *(("cycle", "cycle", value) for value in ("year", "", "DAY", None, 1, ["day"])),
    *(
        ("time_zone", "time_zone", value)
        for value in (
            *("Mars/Olympus", "", "utc ", "../../etc/passwd", "/etc/localtime", "America", "europe/berlin", "localtime"),
            *("Factory", "posix/UTC", "UTC\0", "\ud83d", "Europe/Berlin\n", "x" * 10_000, "Europe/Kyiv/x", None, 5, ["UTC"]),
        )
    ),
    ("scope", "scope", "organization"),
    ("scope", "scope", None),
    ("scope", "scope", {"kind": "project", "name": "x", "more": 1}),
    *(("scope", "scope.kind", {"kind": value, "name": "x"}) for value in ("team", "", None, 5, ["key"])),
    ("scope", "scope.kind", {}),
    *(("scope", "scope.name", {"kind": "project", "name": value}) for value in ("", "a b", "ä", "/", "x" * 65, None, 5, "a\n")),
    *(("scope", "scope.name", {"kind": "key", "name": value}) for value in ("", "key/1", "K", "a\0", "x" * 65, None)),
    *(("scope", "scope.name", {"kind": "model", "name": value}) for value in ("", "a\n", "\ud83d", "x" * 257, None, ["m"])),
    *(("scope", "scope.name", {"kind": kind, "name": "x"}) for kind in ("organization", "bound")),
    *(("name", "name", value) for value in ("", " ", "a\n", "x" * 101, None, 5, "\ud83d")),
    *(("thresholds", "thresholds[0]", [value]) for value in (0, -0.1, 1.0001, 0.12345, math.nan, math.inf, True, "0.5", None)),
    *(("thresholds", "thresholds", value) for value in ([0.5, 0.5], [0.01 * each for each in range(1, 12)], "0.5", None, 0.5)),
    *(("downgrade_at", "downgrade_at", value) for value in (0, 1.1, math.nan, "x", None)),
    *(("floor_tokens", "floor_tokens", value) for value in (0, -1, 1.5, 10**6 + 1, True, "64", None)),
    *(("at_end", "at_end", value) for value in ("stop", "", None, 1)),
    *(("hard", "hard", value) for value in ("yes", 1, None)),
    *(("enabled", "enabled", value) for value in ("yes", 0, None)),
    *(("parent", "parent", value) for value in ("nobody", "", "A", "x/y", "~head", 5, ["b"])),
    *(
        ("webhook", "webhook", value)
        for value in (
            *("", "hooks.example.com", "http://hooks.example.com", "https://evil.example", "https://hooks.example.com:8443"),
            *("https://hooks.example.com@evil.example/", "https://evil.example/@hooks.example.com", "https://10.0.0.1/", 5),
            *("https://hooks.example.com\\@evil.example", "https://hooks.example.com.evil.example", "https://localhost.:1/"),
            *("https://u:p@hooks.example.com/", "https://hooks.example.com/#x", "https://hooks.example.com/\n", "file:///x"),
            *("https://hooks.example.com/" + "x" * 1100, "https://hooks.example.com:0/", "https://hooks.example.com:99999/"),
            *("https://[::1]/", "https://2130706433/", "https://\uff28OOKS.example.com/", "https://hooks.example.com/a b"),
        )
    ),
    *(("id", "id", value) for value in ("", "A", "a|b", "a~b", "a/b", "a\\b", "a#b", "a?b", "a\0", "é", "x" * 64, 5, ["a"])),
    ("colour", "colour", "red"),
    ("created_at", "created_at", 0),
]


@pytest.mark.parametrize(("field", "param", "value"), WRONG)
async def test_a_bad_field_is_refused_by_name(budgets: Budgets, tables: Tables, field: str, param: str, value: Any) -> None:
    """Nothing is stored, and the message names the field and not the value's secret."""
    with pytest.raises(InvalidRequestError) as refusal:
        await budgets.create({**GOOD, field: value})

    assert param == refusal.value.param
    assert field == "parent" or f"`{param}`" in refusal.value.message
    assert "u:p" not in refusal.value.message
    assert [] == [row async for row in tables.table("budgets").query("budgets")]


@pytest.mark.parametrize("field", ["name", "scope", "limit_usd", "cycle"])
async def test_a_field_that_is_missing_is_named(budgets: Budgets, field: str) -> None:
    """What has no default must be said."""
    with pytest.raises(InvalidRequestError) as refusal:
        await budgets.create({name: value for name, value in GOOD.items() if name != field})
    assert (field, "missing_required_parameter") == (refusal.value.param, refusal.value.code)


@pytest.mark.parametrize("field", ["scope", "cycle", "time_zone", "id"])
async def test_what_the_money_is_kept_under_can_not_change(budgets: Budgets, field: str) -> None:
    """A new cycle or zone would begin another period with nothing spent in it."""
    await budgets.create({**GOOD, "id": "b"})
    with pytest.raises(InvalidRequestError) as refusal:
        await budgets.update("b", {field: {**GOOD, "time_zone": "UTC", "id": "c"}[field]})
    assert field == refusal.value.param


@pytest.mark.parametrize(
    ("nano", "value"),
    [
        (1, "0.000000001"),
        (1, 1e-09),
        (100_000_000, 0.1),
        (10**18, 10**9),
        (10**18, "1e9"),
        (123_456_789_123_456_789, "123456789.123456789"),
        (123_456_789_123_456_789, Decimal("123456789.123456789")),
        (12_500_000_000, "12.50"),
        (10**9, "1." + "0" * 60),
    ],
)
def test_an_amount_is_kept_to_the_nano_dollar(nano: int, value: object) -> None:
    """Nothing is rounded on the way."""
    assert nano == nano_usd(value)


# ---- trees -----------------------------------------------------------------------------------------------------------


async def test_a_cycle_is_refused_by_name(budgets: Budgets) -> None:
    """A budget can't stand above itself, by however many steps."""
    await budgets.create(fields("a"))
    await budgets.create(fields("b", parent="a"))
    await budgets.create(fields("c", parent="b"))
    for parent in ("a", "b", "c"):
        with pytest.raises(InvalidRequestError) as refusal:
            await budgets.update("a", {"parent": parent})
        assert refusal.value.param == "parent"
        assert "cycle" in refusal.value.message


async def test_two_changes_at_once_make_no_cycle(make: Callable[[], Budgets]) -> None:
    """Each alone would be right: one of them is checked against the other."""
    for number in range(20):
        here, there = make(), make()
        one, two = f"a{number}", f"b{number}"
        await here.create(fields(one))
        await here.create(fields(two))
        await there.list()
        outcomes = await asyncio.gather(
            here.update(one, {"parent": two}), there.update(two, {"parent": one}), return_exceptions=True
        )
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]

        assert [InvalidRequestError] == [type(failure) for failure in failed]
        assert isinstance(failed[0], InvalidRequestError)
        assert failed[0].param == "parent"


async def test_reading_never_loops(budgets: Budgets, tables: Tables) -> None:
    """Also where somebody wrote a cycle into the rows by hand."""
    for name in "abc":
        await budgets.create(fields(name, "organization"))
    table = tables.table("budgets")
    for name, parent in zip("abc", "bca", strict=True):
        row = await table.get("budgets", name)
        assert row is not None
        await table.transact([Op(Action.UPSERT, Entity("budgets", name, {**row.properties, "parent": parent}))])
    head = await table.get("budgets", "~head")
    assert head is not None
    await table.replace(head)

    assert [each.budget.parent for each in await budgets.list()] == ["b", "c", "a"]
    assert await ids(budgets) == ["a", "b", "c"]
    assert (await budgets.update("a", {"parent": None})).budget.parent is None


async def test_a_line_is_only_so_long(budgets: Budgets) -> None:
    """However it grows: at its end, or by joining two."""
    for number in range(MAX_DEPTH):
        await budgets.create(fields(f"b{number}", parent=f"b{number - 1}" if number else None))
    await budgets.create(fields("top"))
    for call in (budgets.create(fields("x", parent=f"b{MAX_DEPTH - 1}")), budgets.update("b0", {"parent": "top"})):
        with pytest.raises(InvalidRequestError) as refusal:
            await call
        assert refusal.value.param == "parent"


async def test_a_parent_must_be_there_and_enabled(budgets: Budgets) -> None:
    """But disabling one later takes only its own limit away, not those above it."""
    await budgets.create(fields("top"))
    await budgets.create(fields("middle", parent="top"))
    await budgets.create(fields("low", "project", "shop", parent="middle"))
    await budgets.delete("middle")

    assert await ids(budgets) == ["low", "top"]
    with pytest.raises(InvalidRequestError) as refusal:
        await budgets.create(fields("new", parent="middle"))
    assert refusal.value.param == "parent"
    assert (await budgets.update("low", {"limit_usd": 5})).budget.limit == 5 * 10**9
    await budgets.delete("low")
    assert await ids(budgets) == []
    assert await ids(budgets, Caller("k", "shop", budgets=("low",))) == []


# ---- whom they cover -------------------------------------------------------------------------------------------------


async def test_a_call_is_covered_by_all_its_scopes(budgets: Budgets) -> None:
    """Organization, project, key and model, those the key is bound to, and what stands above; each once, sorted."""
    await budgets.create(fields("top"))
    await budgets.create(fields("org", "organization"))
    await budgets.create(fields("p", "project", "shop", parent="top"))
    await budgets.create(fields("k", "key", SHOP.key_id, parent="top"))
    await budgets.create(fields("m", "model", "large", parent="p"))
    await budgets.create(fields("team", parent="org"))
    await budgets.create(fields("other", "project", "bank"))

    bound = Caller(SHOP.key_id, "shop", budgets=("team", "top"))
    assert await ids(budgets) == ["k", "m", "org", "p", "top"]
    assert await ids(budgets, bound) == ["k", "m", "org", "p", "team", "top"]
    assert await ids(budgets, SHOP, "small") == ["k", "org", "p", "top"]
    assert await ids(budgets, Caller("key_x", "bank"), "small") == ["org", "other"]
    assert await ids(budgets, Caller("key_x", "x"), "large") == ["m", "org", "p", "top"]


async def test_a_caller_may_read_what_covers_it(budgets: Budgets) -> None:
    """With whatever model it may ask for."""
    await budgets.create(fields("top"))
    await budgets.create(fields("m", "model", "large", parent="top"))
    await budgets.create(fields("p", "project", "shop"))
    await budgets.create(fields("other", "project", "bank"))

    async def seen(caller: Caller) -> list[str]:
        return [each.budget.id for each in await budgets.covering(caller)]

    assert await seen(SHOP) == ["m", "p", "top"]
    assert await seen(Caller("k", "shop", models=frozenset({"small"}))) == ["p"]
    assert {each.id for each in await budgets.below("top")} == {"m", "top"}


async def test_a_key_bound_to_nothing_spends_nothing(budgets: Budgets, elsewhere: Budgets, clock: FakeClock) -> None:
    """A budget that does not exist limits nothing, so the call is refused; one made a moment ago elsewhere is found."""
    bound = Caller("key_x", "shop", budgets=("team",))
    assert await ids(budgets) == []
    with pytest.raises(PermissionDeniedError) as refusal:
        await budgets.applying(bound, "large")
    assert "team" in refusal.value.message
    await elsewhere.create(fields("team"))
    clock.seconds += 1

    assert await ids(budgets, bound) == ["team"]


async def test_a_wrong_key_does_not_make_us_read(budgets: Budgets, weather: Any) -> None:
    """A thousand refused calls ask the store once or twice."""
    bound = Caller("key_x", "shop", budgets=("nobody",))
    for _ in range(1000):
        with pytest.raises(PermissionDeniedError):
            await budgets.applying(bound, "large")
    assert weather.reads <= 2


async def test_too_many_budgets_are_refused(budgets: Budgets) -> None:
    """A call is charged to at most so many; who binds 5,000 to a key is told at once."""
    for number in range(MAX_ACCOUNTS):
        await budgets.create(fields(f"b{number:02}"))
    names = tuple(f"b{number:02}" for number in range(MAX_ACCOUNTS))
    assert await ids(budgets, Caller("k", "shop", budgets=names)) == list(names)
    await budgets.create(fields("org", "organization"))

    for bound in (names, tuple(map(str, range(5000)))):
        with pytest.raises(PermissionDeniedError) as refusal:
            await budgets.applying(Caller("k", "shop", budgets=bound), "large")
        assert refusal.value.code == "too_many_budgets"
        assert str(max(len(bound), MAX_ACCOUNTS + 1)) in refusal.value.message


@pytest.mark.parametrize(("first", "last"), [("project", "model"), ("model", "key"), ("organization", "project")])
async def test_the_budget_that_makes_too_many_is_refused(budgets: Budgets, first: str, last: str) -> None:
    """Where it can be known: a scope's own, the organization's, a model's beside a project's or key's."""

    def scoped(name: str, kind: str) -> dict[str, Any]:
        return fields(name, kind, None if kind == "organization" else "x")

    for number in range(MAX_ACCOUNTS):
        await budgets.create(scoped(f"b{number}", first if number % 2 else last))
    for kind in (first, last):
        with pytest.raises(InvalidRequestError) as refusal:
            await budgets.create(scoped("more", kind))
        assert (refusal.value.param, refusal.value.code) == ("scope", "too_many_budgets")
    await budgets.create({**scoped("more", last), "enabled": False})
    with pytest.raises(InvalidRequestError):
        await budgets.update("more", {"enabled": True})
    assert (await budgets.update("b0", {"limit_usd": 3})).version == 2


async def test_a_parent_that_makes_too_many_is_refused(budgets: Budgets) -> None:
    """Also when it is put above budgets that are full already."""
    for number in range(MAX_ACCOUNTS):
        await budgets.create(fields(f"b{number}", "project", "shop"))
    await budgets.create(fields("low"))
    await budgets.update("b1", {"parent": "b0"})
    with pytest.raises(InvalidRequestError):
        await budgets.update("b0", {"parent": "low"})


async def test_five_thousand_budgets_cover_only_their_own(budgets: Budgets, tables: Tables) -> None:
    """One project's call among thousands of others' budgets is charged to its own."""
    await budgets.create(fields("mine", "project", "shop"))
    row = await tables.table("budgets").get("budgets", "mine")
    assert row is not None
    for start in range(0, 5000, 100):
        rows = [
            Entity("budgets", f"o{number}", {**row.properties, "scope_name": f"other{number}"})
            for number in range(start, start + 100)
        ]
        await tables.table("budgets").transact([Op(Action.UPSERT, each) for each in rows])
    await budgets.create(fields("another", "project", "x"))  # moves the head, so that what was written past it is seen
    budgets._state = None

    assert len(await budgets.list()) == 5002
    assert await ids(budgets) == ["mine"]


# ---- how soon a change counts ----------------------------------------------------------------------------------------


async def settled(budgets: Budgets) -> None:
    """Let a reading beside the calls come to its end."""
    if budgets._refreshing is not None:
        await budgets._refreshing


async def test_a_change_counts_at_once_here_and_soon_elsewhere(budgets: Budgets, elsewhere: Budgets, clock: FakeClock) -> None:
    """A lowered limit, a new budget: in force in the process that made it, everywhere within `MAX_AGE`."""
    await budgets.create({**GOOD, "id": "b"})
    assert await ids(elsewhere) == ["b"]
    await budgets.update("b", {"limit_usd": 1})
    await budgets.create(fields("c", "organization"))

    assert [(each.id, each.limit) for each in await budgets.applying(SHOP, "large")] == [("b", 10**9), ("c", 10**9)]
    assert elsewhere.current(SHOP, "large") is not None
    clock.seconds += MAX_AGE
    assert elsewhere.current(SHOP, "large") is None
    assert [(each.id, each.limit) for each in await elsewhere.applying(SHOP, "large")] == [("b", 10**9), ("c", 10**9)]


async def test_it_is_read_again_beside_the_calls(budgets: Budgets, elsewhere: Budgets, weather: Any, clock: FakeClock) -> None:
    """A busy instance never waits; an unchanged store costs one small read, once."""
    await budgets.create({**GOOD, "id": "b"})
    await ids(elsewhere)
    await budgets.delete("b")
    clock.seconds += REFRESH_AFTER
    weather.reads = 0
    for _ in range(100):
        found = elsewhere.current(SHOP, "large")
        assert found is not None
        assert [each.id for each in found] == ["b"]
    await settled(elsewhere)

    assert elsewhere.current(SHOP, "large") == ()
    assert weather.reads == 1
    for _ in range(10):
        clock.seconds += REFRESH_AFTER
        assert elsewhere.current(SHOP, "large") == ()
        await settled(elsewhere)
    assert weather.reads == 11


async def test_a_slow_reading_undoes_no_write(budgets: Budgets, weather: Any) -> None:
    """What was read before a change and arrives after it is not believed."""
    await budgets.create({**GOOD, "id": "b"})
    weather.slow = asyncio.Event()
    reading = asyncio.ensure_future(budgets._refresh())
    await asyncio.sleep(0)
    held, weather.slow = weather.slow, None
    await budgets.delete("b")
    held.set()
    await reading

    assert await ids(budgets) == []


async def test_an_outage_is_survived_for_a_minute(budgets: Budgets, weather: Any, clock: FakeClock) -> None:
    """What was known stays good, without waiting for the store at every call; then calls are refused; then it is well again."""
    await budgets.create({**GOOD, "id": "b"})
    weather.down = True
    weather.reads = 0
    while clock.seconds < 1_000 + GRACE - 1:
        for _ in range(10):
            assert await ids(budgets) == ["b"]
        clock.seconds += 0.25
    assert weather.reads <= GRACE / RETRY_AFTER
    clock.seconds += 2
    assert budgets.current(SHOP, "large") is None
    with pytest.raises(StorageUnavailableError):
        await budgets.applying(SHOP, "large")
    weather.down = False
    clock.seconds += RETRY_AFTER
    assert await ids(budgets) == ["b"]


async def test_without_anything_known_an_outage_refuses(budgets: Budgets, weather: Any) -> None:
    """No budget known is not no budget."""
    weather.down = True
    assert budgets.current(SHOP, "large") is None
    with pytest.raises(StorageUnavailableError):
        await budgets.applying(SHOP, "large")


async def test_a_frozen_store_holds_a_call_for_a_moment_only(
    budgets: Budgets, weather: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as something is known."""
    monkeypatch.setattr("shared.budgets.store.PATIENCE", 0.01)
    await budgets.create({**GOOD, "id": "b"})
    weather.slow = asyncio.Event()
    clock.seconds += MAX_AGE
    for _ in range(20):
        assert await ids(budgets) == ["b"]
    weather.slow.set()
    await budgets.aclose()


async def test_a_lost_answer_is_found_out(budgets: Budgets, elsewhere: Budgets, weather: Any) -> None:
    """A write whose answer is lost is looked for: it is told as done when it is, as unknown when that can't be seen."""
    await budgets.create({**GOOD, "id": "b"})
    lost = LostAnswers(budgets._table)
    budgets._table = lost
    changed = await budgets.update("b", {"limit_usd": 7})
    assert (changed.version, (await elsewhere.get("b")).budget.limit) == (2, 7 * 10**9)
    lost.lands = False
    with pytest.raises(StorageUnavailableError) as refusal:
        await budgets.update("b", {"limit_usd": 9})
    assert "may or may not" in refusal.value.message
    assert budgets.current(SHOP, "large") is None
    assert [each.limit for each in await budgets.applying(SHOP, "large")] == [7 * 10**9]
    assert weather.writes >= 2


class LostAnswers:
    """A table whose transactions land, or not, and are never answered."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.lands = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    async def transact(self, ops: Any) -> list[str]:
        """Write, maybe; never say so."""
        if self.lands:
            await self._table.transact(ops)
        message = "The store did not answer."
        raise StorageUnavailableError(message)


async def test_many_processes_change_many_budgets(make: Callable[[], Budgets]) -> None:
    """Every change lands once, none is lost, none overwrites another."""
    processes = [make() for _ in range(5)]
    await processes[0].create({**GOOD, "id": "hot"})
    random_ = random.Random(7)

    async def work(each: Budgets, number: int) -> int:
        done = 0
        for turn in range(6):
            while True:
                with contextlib.suppress(StorageUnavailableError):  # on this clock waiting takes no time
                    await each.create(fields(f"b{number}-{turn}"))
                    break
            while True:
                version = (await each.get("hot")).version
                with contextlib.suppress(ConflictError, StorageUnavailableError):
                    await each.update("hot", {"limit_usd": random_.randint(1, 9)}, expected_version=version)
                    done += 1
                    break
        return done

    done = await asyncio.gather(*(work(each, number) for number, each in enumerate(processes)))
    everything = await processes[0].list()

    assert len(everything) == 31
    assert (await processes[0].get("hot")).version == 1 + sum(done)


# ---- damage, cost ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"limit": "9"},
        {"limit": 0},
        {"enabled": None},
        {"hard": None},
        {"cycle": "year"},
        {"time_zone": "Mars"},
        {"thresholds": "{"},
    ],
)
async def test_a_damaged_budget_refuses_calls_until_it_is_disabled(
    budgets: Budgets, elsewhere: Budgets, tables: Tables, change: dict[str, Any]
) -> None:
    """Its limit is not known, so nothing may be spent; deleting it is the way out."""
    await budgets.create({**GOOD, "id": "b"})
    await budgets.create(fields("c", "organization"))
    row = await tables.table("budgets").get("budgets", "b")
    head = await tables.table("budgets").get("budgets", "~head")
    assert row is not None
    assert head is not None
    broken = {name: value for name, value in {**row.properties, **change}.items() if value is not None}
    await tables.table("budgets").transact([Op(Action.UPSERT, Entity("budgets", "b", broken)), Op(Action.REPLACE, head)])

    with pytest.raises(StorageUnavailableError) as refusal:
        await elsewhere.applying(SHOP, "large")
    assert "DELETE /v1/budgets" in refusal.value.message
    assert [each.budget.id for each in await elsewhere.list()] == ["c"]
    await elsewhere.delete("b")
    assert await ids(elsewhere) == ["c"]
    assert not (await elsewhere.get("b")).budget.enabled


async def test_what_is_known_is_not_asked_again(budgets: Budgets) -> None:
    """Without budgets and with some, a caller's next call finds the very answer of the last: nothing is read or computed."""
    await budgets.list()
    assert budgets.current(SHOP, "large") == ()

    await budgets.create({**GOOD, "id": "b"})
    first = await budgets.applying(SHOP, "large")

    assert first is budgets.current(SHOP, "large")
    assert first is budgets.current(SHOP, "large")


async def test_what_is_remembered_is_bounded(budgets: Budgets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model names come from callers."""
    monkeypatch.setattr("shared.budgets.cover.MAX_REMEMBERED", 10)
    await budgets.create({**GOOD, "id": "b"})
    for number in range(100):
        assert await ids(budgets, SHOP, str(number)) == ["b"]
    assert budgets._state is not None
    assert len(budgets._state.snapshot._known) <= 10


def test_what_is_stored_can_be_compared(clock: FakeClock) -> None:
    """The values are frozen."""
    budget = Budget("b", "b", Scope(ScopeKind.BOUND), 1, Cycle.DAY)
    with pytest.raises(AttributeError):
        StoredBudget(budget, 1, clock.now(), "t").version = 2  # type: ignore[misc]
