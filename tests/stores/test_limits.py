"""Rate limits over the tables: all or nothing, group commit, several instances, and a store that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from shared.adapters.tables import open_tables
from shared.limits import UNLIMITED, Limited, RateLimits
from shared.ports import Entity, EntityTable, Tables
from tests.bench.limits_simulated import PLANS, Plan, simulate
from tests.bench.limits_world import LoopClock, Store, run
from tests.fakes import FakeClock
from tests.stores.conftest import Weather, WeatheredTable, WeatheredTables

KEY = Limited("key:key_abc", 10)
PROJECT = Limited("project:shop", 3)
BIG = Limited("key:big", 6000)


@pytest.fixture
async def tables() -> AsyncIterator[Tables]:
    """Return a store in memory."""
    store = open_tables("memory:")
    yield store
    await store.aclose()


async def test_no_limit_costs_nothing(tables: Tables, clock: FakeClock) -> None:
    """Subjects without limits share one constant, and nothing is written."""
    limits = RateLimits(tables, clock, "one")
    assert UNLIMITED is await limits.admit((Limited("key:a"), Limited("project:b")), tokens=5)
    assert UNLIMITED is await limits.admit((), tokens=5)
    limits.settle(None, 3)
    assert [] == limits.report()


async def test_a_refusal_uses_nothing_up(tables: Tables, clock: FakeClock) -> None:
    """When the second subject refuses, the first still has all it had."""
    limits = RateLimits(tables, clock, "one")
    admissions = [await limits.admit((KEY, PROJECT), tokens=1) for _ in range(5)]
    assert [True, True, True, False, False] == [one.allowed for one in admissions]
    refusal = admissions[-1]
    assert PROJECT == refusal.refused_by
    assert "requests" == refusal.what
    assert 0 < refusal.retry_after <= 60
    assert ("x-ratelimit-remaining-requests", "0") in refusal.headers
    await limits.flush()
    assert {"key:key_abc": 3, "project:shop": 3} == {use.limited.subject: use.used for use in limits.report()}
    await limits.aclose()


async def test_a_refusal_by_the_row_is_taken_back(tables: Tables, clock: FakeClock) -> None:
    """Also when only the row of another instance knows that the second subject is used up."""
    other = RateLimits(tables, clock, "other")
    for _ in range(3):
        assert (await other.admit((PROJECT,), tokens=1)).allowed
    limits = RateLimits(tables, clock, "one")
    assert not (await limits.admit((KEY, PROJECT), tokens=1)).allowed
    await limits.flush()
    assert {"key:key_abc": 0, "project:shop": 3} == {use.limited.subject: use.used for use in limits.report()}


async def test_one_change_admits_many(weather: Weather, tables: Tables, clock: FakeClock) -> None:
    """Admissions that ask at once share one write, and exactly the limit of them goes."""
    writes = 0
    limits = RateLimits(WeatheredTables(tables, weather), clock, "one")
    admissions = await asyncio.gather(*(limits.admit((KEY,), tokens=1) for _ in range(100)))
    writes = weather.reads
    assert 10 == sum(one.allowed for one in admissions)
    assert 1 == writes
    await limits.aclose()


async def test_release_and_settle_give_back(tables: Tables, clock: FakeClock) -> None:
    """A release gives all back, a settlement what was not used; a second one of either changes nothing."""
    tokens = Limited("key:t", 100, 1000)
    limits = RateLimits(tables, clock, "one")
    first = await limits.admit((tokens,), tokens=1000)
    assert not (await limits.admit((tokens,), tokens=100)).allowed
    limits.settle(first.ticket, 20)
    limits.settle(first.ticket, 0)
    await limits.flush()
    second = await limits.admit((tokens,), tokens=40)
    assert second.allowed
    limits.release(second.ticket)
    limits.release(second.ticket)
    await limits.flush()
    assert {"requests": 1, "tokens": 20} == {use.what: use.used for use in limits.report()}
    await limits.aclose()


async def test_a_lost_answer_counts_once(weather: Weather, tables: Tables, clock: FakeClock) -> None:
    """A change of a row that happened but was not answered is told by its mark, and not written again."""
    limits = RateLimits(_Deaf(tables, weather), clock, "one")
    weather.after = weather.down = True
    admission = await limits.admit((KEY,), tokens=1)
    assert admission.allowed
    weather.down = False
    await limits.flush()
    other = RateLimits(tables, clock, "other")
    assert (await other.admit((KEY,), tokens=1)).allowed
    assert 2 == other.report()[0].used
    await limits.aclose()


async def test_without_the_store_a_share_goes(weather: Weather, tables: Tables, clock: FakeClock) -> None:
    """While the store fails a limit is neither open nor closed, and what went is written down afterwards."""
    limits = RateLimits(WeatheredTables(tables, weather), clock, "one")
    weather.down = True
    allowed = [(await limits.admit((KEY,), tokens=1)).allowed for _ in range(30)]
    assert 1 <= sum(allowed) <= 5
    weather.down = False
    await limits.flush()
    assert sum(allowed) == limits.report()[0].used
    await limits.aclose()


async def test_a_frozen_store_is_waited_for_briefly() -> None:
    """A store that never answers holds nobody up: it is given up after a quarter of a second; the rest is a slow machine's."""

    class Frozen:
        def table(self, _: str) -> Frozen:
            return self

        def __getattr__(self, _: str) -> object:
            async def never(*_: object) -> None:
                await asyncio.Event().wait()

            return never

    limits = RateLimits(Frozen(), FakeClock(), "one")  # type: ignore[arg-type]
    began = asyncio.get_running_loop().time()
    admission = await limits.admit((KEY,), tokens=1)
    assert asyncio.get_running_loop().time() - began < 10.0
    assert admission.allowed
    for row in limits._rows.values():
        await row.aclose()


async def test_who_leaves_takes_nothing_along(tables: Tables, clock: FakeClock) -> None:
    """A request cancelled while it asks is not counted in the end."""
    limits = RateLimits(tables, clock, "one")
    task = asyncio.ensure_future(limits.admit((KEY,), tokens=1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await limits.admit((KEY,), tokens=1)).allowed
    await asyncio.sleep(0.05)
    await limits.flush()
    assert 1 == limits.report()[0].used
    await limits.aclose()


def test_instances_share_a_large_limit() -> None:
    """Counters exchanged every second keep four instances to one limit; nobody waits but the first."""
    outcome = run(simulate(Plan(600, instances=4, seconds=130)))
    assert outcome.worst <= 1.05
    assert outcome.use >= 0.95


@pytest.mark.parametrize("limited", [Limited("key:small", 40), Limited("key:large", 600)])
async def test_all_of_the_limit_goes_at_once(tables: Tables, clock: FakeClock, limited: Limited) -> None:
    """In a row and by counters alike: what remains is counted down to none, then a refusal says why and for how long."""
    limits = RateLimits(tables, clock, "one")
    limit = limited.requests_per_minute or 0
    admissions = [await limits.admit((limited,), tokens=1) for _ in range(limit + limit // 20 + 1)]
    assert [str(left) for left in range(limit - 1, -1, -1)] == [
        dict(one.headers)["x-ratelimit-remaining-requests"] for one in admissions[:limit]
    ]
    refusal = admissions[-1]
    assert not refusal.allowed
    assert "requests" == refusal.what
    assert "0" == dict(refusal.headers)["x-ratelimit-remaining-requests"]
    assert 0 < refusal.retry_after <= 60
    assert limit == limits.report()[0].used
    clock.seconds += 60.3
    assert (await limits.admit((limited,), tokens=1)).allowed
    await limits.aclose()


async def test_all_tokens_of_the_limit_go_at_once(tables: Tables, clock: FakeClock) -> None:
    """The same for tokens: nine tenths in one request, and the last tenth in the next."""
    limits = RateLimits(tables, clock, "one")
    limited = Limited("key:tokens", None, 10_000)
    first = await limits.admit((limited,), tokens=9000)
    assert "1000" == dict(first.headers)["x-ratelimit-remaining-tokens"]
    assert "1m0s" == dict(first.headers)["x-ratelimit-reset-tokens"]
    assert not (await limits.admit((limited,), tokens=1500)).allowed
    second = await limits.admit((limited,), tokens=1000)
    assert "0" == dict(second.headers)["x-ratelimit-remaining-tokens"]
    assert not (await limits.admit((limited,), tokens=100)).allowed
    await limits.aclose()


@pytest.mark.parametrize("limit", [24, 40, 100])
def test_bursts_a_minute_apart_are_one_limit(limit: int) -> None:
    """Who asks for everything as soon as it is there gets no two bursts into one minute, though answers take their time."""
    outcome = run(simulate(Plan(limit, instances=4, demand=60, seconds=125)))
    assert outcome.worst <= 1.04
    assert len(outcome.times) >= 2 * limit


@pytest.mark.parametrize("limit", [40, 300])
def test_a_row_is_fair(limit: int) -> None:
    """Four instances of equal demand, together twice the limit, get the same of it: each at least four fifths of its part."""
    outcome = run(simulate(Plan(limit, instances=4, zipf=0.0, seconds=300)))
    assert outcome.fairness >= 0.8
    assert outcome.worst <= 1.05


@pytest.mark.parametrize("name", ["30 RPM", "300 RPM"])
def test_fifty_instances_keep_a_small_limit(name: str) -> None:
    """At twice the demand the worst minute is at most 105 % of the limit, and the limit is used."""
    outcome = run(simulate(replace(PLANS[name], seconds=150)))
    assert outcome.worst <= 1.05
    assert outcome.use >= 0.95


def test_fifty_instances_keep_a_larger_limit() -> None:
    """The same above five a second, where counters are exchanged."""
    outcome = run(simulate(replace(PLANS["600 RPM"], seconds=100)))
    assert outcome.worst <= 1.05
    assert outcome.use >= 0.85


def test_without_a_store_fifty_instances_stay_below() -> None:
    """An outage neither opens a limit nor closes it, and nobody waits longer than a quarter of a second."""
    outcome = run(simulate(replace(PLANS["300 RPM, store down 60 to 120 s"], seconds=150)))
    during = sum(70 <= time < 120 for time in outcome.times)
    assert outcome.worst <= 1.06
    assert 30 <= during <= 300
    assert max(outcome.waits) <= 0.26


def test_a_dead_instances_row_is_swept_and_its_share_given_on() -> None:
    """Two minutes of silence, and the row is gone."""

    async def story() -> tuple[int, int]:
        import random  # noqa: PLC0415

        chance = random.Random(1)
        store = Store(chance)
        limits = [RateLimits(store, LoopClock(chance), name) for name in ("one", "two")]
        for one in limits:
            await one.admit((BIG,), tokens=1)
        task = limits[1]._exchange._task
        assert task is not None
        task.cancel()
        before = len([key for key in store.rows if key[1] == "counters"])
        for _ in range(140):
            await limits[0].admit((BIG,), tokens=1)
            await asyncio.sleep(1)
        after = len([key for key in store.rows if key[1] == "counters"])
        await limits[0].aclose()
        return before, after

    assert (2, 1) == run(story())


class _Deaf(WeatheredTables):
    """A store whose inserts happen and are not answered."""

    def table(self, name: str) -> EntityTable:
        """Return the table."""
        return _DeafTable(self._tables.table(name), self._weather)


class _DeafTable(WeatheredTable):
    async def get(self, partition: str, row: str) -> Entity | None:
        return await self._table.get(partition, row)

    async def insert(self, entity: Entity) -> str:
        etag = await self._table.insert(entity)
        self._weather.strike()
        return etag
