"""Breakers known to all instances: several books over one store, on one clock that is moved by hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from shared.core.failures import FailureKind
from shared.core.health import BreakerState
from shared.core.pool import PROBE_LEASE
from shared.health_book import HealthBook, Refusal
from shared.ports import Entity, Tables
from shared.shared_health import IDLE_SECONDS, PARTITION, TABLE, SharedHealth, row_of
from tests.bench.breaker_simulated import PRIMARY, Death, Scenario, simulate
from tests.fakes import FakeClock
from tests.stores.conftest import Weather

K = FailureKind
SOL = "azure/sol"


@dataclass
class SkewedClock(FakeClock):
    """The same time as another clock's, on a wall that is wrong."""

    of: FakeClock | None = None
    skew: float = 0.0

    def now(self) -> float:
        """Return the wrong wall clock."""
        assert self.of is not None
        return self.of.now() + self.skew

    def monotonic(self) -> float:
        """Return the other's time."""
        assert self.of is not None
        return self.of.monotonic()


class Instance:
    """One instance: a book and its exchange."""

    def __init__(self, tables: Tables, clock: FakeClock, name: str, *, skew: float = 0.0) -> None:
        self.clock = clock
        self.book = HealthBook()
        self.shared = SharedHealth(tables, SkewedClock(of=clock, skew=skew), self.book, name)

    def call(self, *outcomes: FailureKind | None, deployment: str = SOL, retry_after: float | None = None) -> None:
        """Make calls that end so, None being a success; each must be admitted."""
        for outcome in outcomes:
            now = self.clock.seconds
            assert self.book.admit(deployment, now) is None
            self.end(outcome, deployment=deployment, retry_after=retry_after)

    def end(self, outcome: FailureKind | None, *, deployment: str = SOL, retry_after: float | None = None) -> None:
        """End a call that began now."""
        now = self.clock.seconds
        if outcome is None:
            self.book.succeeded(deployment, started_at=now, now=now)
        else:
            self.book.failed(deployment, outcome, now=now, started_at=now, retry_after=retry_after)

    def state(self, deployment: str = SOL) -> BreakerState:
        """Return the breaker's state."""
        return self.book.snapshot(self.clock.seconds).of(deployment).breaker

    async def ask(self, deployment: str = SOL) -> Refusal | None:
        """Ask to call as a request does."""
        if self.book.needs_lease(deployment, self.clock.seconds):
            await self.shared.claim(deployment)
        return self.book.admit(deployment, self.clock.seconds)


@pytest.fixture
def three(tables: Tables, clock: FakeClock) -> list[Instance]:
    """Return three instances that have called a fallback before."""
    instances = [Instance(tables, clock, name) for name in "abc"]
    for one in instances:
        one.call(None, deployment="openai/luna")
    return instances


async def exchanged(*instances: Instance) -> None:
    """Let each exchange once, in this order."""
    for one in instances:
        assert await one.shared.exchange()


async def opened(three: list[Instance]) -> None:
    """Let the first instance open the breaker, and the others hear of it."""
    three[0].call(K.SERVER_ERROR, K.SERVER_ERROR, K.SERVER_ERROR)
    await exchanged(*three)


async def test_an_opening_reaches_everybody_and_a_closing_too(three: list[Instance], clock: FakeClock) -> None:
    """One instance's failures spare the others theirs; one probe brings all back."""
    a, b, c = three
    await opened(three)
    assert [BreakerState.OPEN] * 3 == [one.state() for one in three]
    refusal = b.book.admit(SOL, clock.seconds)
    assert refusal is not None
    assert refusal.retry_after is None
    clock.seconds += 5
    assert await b.ask() is None
    assert await a.ask() is not None
    assert await c.ask() is not None
    b.end(None)
    await exchanged(b, a, c)
    assert [BreakerState.CLOSED] * 3 == [one.state() for one in three]


async def test_news_travel_without_being_asked_for(three: list[Instance]) -> None:
    """What opens is written at once, in the background: the call that found out does not wait."""
    a, b, _ = three
    a.call(K.SERVER_ERROR, K.SERVER_ERROR, K.SERVER_ERROR)
    for _ in range(200):
        if a.shared.writes:
            break
        await asyncio.sleep(0.005)
    await a.shared.exchange()
    await b.shared.exchange()
    assert BreakerState.OPEN is b.state()
    await a.shared.aclose()


async def test_claims_at_the_same_moment_make_one_prober(three: list[Instance], clock: FakeClock) -> None:
    """However they race for the row."""
    await opened(three)
    clock.seconds += 5
    answers = await asyncio.gather(*(one.ask() for one in three for _ in range(3)))
    assert 1 == answers.count(None)


async def test_a_dead_prober_is_replaced_when_its_lease_ends(three: list[Instance], clock: FakeClock) -> None:
    """It says no more that it probes."""
    _, b, c = three
    await opened(three)
    clock.seconds += 5
    assert await b.ask() is None
    await exchanged(c)
    clock.seconds += PROBE_LEASE / 2
    assert await c.ask() is not None
    clock.seconds += PROBE_LEASE
    assert await c.ask() is None


async def test_a_slow_probe_keeps_its_lease(three: list[Instance], clock: FakeClock) -> None:
    """As long as its instance says so."""
    _, b, c = three
    await opened(three)
    clock.seconds += 5
    assert await b.ask() is None
    for _ in range(10):
        clock.seconds += PROBE_LEASE * 0.6
        await exchanged(b, c)
        assert await c.ask() is not None


@pytest.mark.parametrize("skew", [-300.0, 300.0])
async def test_a_providers_pause_is_kept_by_all_whatever_their_clocks_say(
    tables: Tables, clock: FakeClock, skew: float
) -> None:
    """Not a second less than the provider asked for, and not much more."""
    a, b = Instance(tables, clock, "a", skew=skew), Instance(tables, clock, "b")
    a.call(K.RATE_LIMITED, retry_after=60)
    await exchanged(a)
    clock.seconds += 2
    await exchanged(b)
    clock.seconds += 57.9
    refusal = b.book.admit(SOL, clock.seconds, forced=True)
    assert refusal is not None
    assert refusal.retry_after is not None
    clock.seconds += 2.2
    assert b.book.admit(SOL, clock.seconds) is None


async def test_a_pause_is_prolonged_by_whoever_is_told_and_never_shortened(three: list[Instance], clock: FakeClock) -> None:
    """A shorter one that comes later changes nothing."""
    a, b, c = three
    for one in (a, b, c):
        assert one.book.admit(SOL, clock.seconds) is None
    a.end(K.RATE_LIMITED, retry_after=30)
    b.end(K.RATE_LIMITED, retry_after=90)
    c.end(K.RATE_LIMITED, retry_after=5)
    await exchanged(a, b, c, a)
    for one in three:
        refusal = one.book.admit(SOL, clock.seconds + 80)
        assert refusal is not None
        assert refusal.retry_after == pytest.approx(10, abs=0.6)


async def test_without_a_store_each_instance_goes_by_its_own_knowledge(
    three: list[Instance], weather: Weather, clock: FakeClock
) -> None:
    """It opens, probes and closes alone, as if there were nobody else; afterwards all agree again."""
    a, b, _ = three
    await opened(three)
    weather.down = True
    clock.seconds += 5
    assert await b.ask() is None
    b.end(K.SERVER_ERROR)
    assert not await a.shared.exchange()
    assert await a.ask() is None
    a.end(None)
    assert BreakerState.CLOSED is a.state()
    weather.down = False
    clock.seconds += 10
    await exchanged(a, b)
    assert BreakerState.CLOSED is b.state()


async def test_an_answer_that_is_lost_changes_nothing(three: list[Instance], weather: Weather, clock: FakeClock) -> None:
    """What was written and not confirmed is said again to no effect: one opening, one lease."""
    a, b, c = three

    async def losing(one: Instance) -> None:
        table = one.shared._table
        replaced, inserted = table.replace, table.insert

        async def replace_and_lose(entity: Entity) -> str:
            await replaced(entity)
            weather.down = True
            weather.strike()
            return ""

        async def insert_and_lose(entity: Entity) -> str:
            await inserted(entity)
            weather.down = True
            weather.strike()
            return ""

        table.replace, table.insert = replace_and_lose, insert_and_lose  # type: ignore[method-assign]
        assert not await one.shared.exchange([SOL])
        table.replace, table.insert = replaced, inserted  # type: ignore[method-assign]
        weather.down = False

    a.call(K.SERVER_ERROR, K.SERVER_ERROR, K.SERVER_ERROR)
    await losing(a)
    await exchanged(a, b, c)
    clock.seconds += 5
    await losing(b)
    await exchanged(b, c)
    assert await b.ask() is None
    assert await c.ask() is not None


async def test_one_sick_instance_does_not_shut_a_deployment_for_those_it_serves(
    three: list[Instance], clock: FakeClock
) -> None:
    """Whoever has just succeeded tries once; its success opens the door for all but the sick one, which rests."""
    a, b, c = three
    b.call(None)
    await opened(three)
    assert await b.ask() is None
    assert await b.ask() is not None
    b.end(None)
    await exchanged(b, c, a)
    assert [BreakerState.OPEN, BreakerState.CLOSED, BreakerState.CLOSED] == [one.state() for one in three]
    clock.seconds += 5
    assert await a.ask() is None


async def test_traffic_comes_back_gradually_on_every_instance(three: list[Instance], clock: FakeClock) -> None:
    """A tenth at first, half in the middle, all at the end; a last resort at any time."""
    await opened(three)
    clock.seconds += 5
    assert await three[1].ask() is None
    three[1].end(None)
    await exchanged(three[1], three[2])
    for one in three[1:]:
        admitted = 0
        for step in range(60):
            admitted += one.book.admit(SOL, clock.seconds + step / 20) is None
        assert 10 <= admitted <= 30  # the mean share of these three seconds is 0.325
        assert one.book.admit(SOL, clock.seconds + 3, forced=True) is None
        assert all(one.book.admit(SOL, clock.seconds + 6) is None for _ in range(10))


async def test_in_a_panic_nobody_waits_for_a_lease_or_a_ramp(tables: Tables, clock: FakeClock) -> None:
    """When more than half of all deployments are out, whatever comes back is used at once."""
    a, b = Instance(tables, clock, "a"), Instance(tables, clock, "b")
    for name in (SOL, "azure/luna"):
        a.call(K.SERVER_ERROR, K.SERVER_ERROR, K.SERVER_ERROR, deployment=name)
    b.call(None, deployment="vllm/mine")
    await exchanged(a, b, a)
    clock.seconds += 5
    assert await a.ask() is None
    assert await b.ask() is None
    b.end(None)
    assert b.book.admit("azure/luna", clock.seconds, forced=True) is None


async def test_averages_are_everybodys(three: list[Instance], clock: FakeClock) -> None:
    """An instance that never called a deployment knows how it does; its own calls count from the next moment on."""
    a, b, _ = three
    for _ in range(4):
        assert a.book.admit(SOL, clock.seconds) is None
        a.book.succeeded(SOL, started_at=clock.seconds - 2, now=clock.seconds, first_content_at=clock.seconds - 1)
    await exchanged(a, b)
    health = b.book.report(clock.seconds)[SOL].health
    assert (2000.0, 1000.0, 1.0) == (health.latency_ms, health.first_content_ms, health.success_rate)
    writes = b.shared.writes + a.shared.writes
    for _ in range(5):
        a.call(None, deployment="openai/luna")
        await exchanged(a, b)
    assert writes + 1 >= b.shared.writes + a.shared.writes


async def test_a_timer_on_an_instance_of_its_own_finds_what_others_opened(three: list[Instance], clock: FakeClock) -> None:
    """It reports the deployment though it never called it, may probe it, and its probe teaches the others."""
    timer = three[2]
    three[0].call(K.SERVER_ERROR, K.SERVER_ERROR, K.SERVER_ERROR)
    await exchanged(three[0], timer, three[1])
    clock.seconds += 30
    await exchanged(timer)
    report = timer.book.report(clock.seconds)[SOL]
    assert (BreakerState.OPEN, 0.0, None) == (report.health.breaker, report.health.admits_in, report.last_call_at)
    assert await timer.ask() is None
    timer.end(None)
    await exchanged(timer, three[0], three[1])
    assert BreakerState.CLOSED is three[1].state()


async def test_five_instances_that_call_seldom_find_out_together(tables: Tables, clock: FakeClock) -> None:
    """None has seen three failures; all of them have."""
    many = [Instance(tables, clock, f"i{number}") for number in range(8)]
    for one in many[:5]:
        one.call(K.SERVER_ERROR)
        await exchanged(one)
        clock.seconds += 0.1
    await exchanged(*many)
    assert {BreakerState.OPEN} == {one.state() for one in many}


async def test_a_success_in_between_clears_the_count(tables: Tables, clock: FakeClock) -> None:
    """One failing call in ten opens nothing, however many instances there are."""
    many = [Instance(tables, clock, f"i{number}") for number in range(10)]
    for number, one in enumerate(many * 3):
        one.call(None if number % 3 == 0 else K.SERVER_ERROR)
        await exchanged(*many)
        clock.seconds += 1.1
    assert {BreakerState.CLOSED} == {one.state() for one in many}


async def test_a_damaged_row_is_written_anew(three: list[Instance], tables: Tables) -> None:
    """And said in the log; nobody fails."""
    await tables.table(TABLE).insert(Entity(PARTITION, row_of(SOL), {"entries": "{"}))
    await opened(three)
    assert [BreakerState.OPEN] * 3 == [one.state() for one in three]


async def test_nothing_is_read_without_traffic(tables: Tables, clock: FakeClock) -> None:
    """The task ends when nobody calls any more, and begins again with the next request."""
    one = Instance(tables, clock, "a")
    slow = replace(SkewedClock(of=clock))

    async def sleep(seconds: float) -> None:
        clock.seconds += seconds
        await asyncio.sleep(0)

    slow.sleep = sleep  # type: ignore[method-assign]
    shared = SharedHealth(tables, slow, one.book, "b")
    shared.touch(clock.seconds)
    began = clock.seconds
    while shared._poll is not None and not shared._poll.done():
        await asyncio.sleep(0.001)
    assert IDLE_SECONDS <= clock.seconds - began <= IDLE_SECONDS + 5
    reads = shared.reads
    assert 12 <= reads <= 20
    shared.touch(clock.seconds)
    while shared.reads == reads:
        await asyncio.sleep(0.001)
    await shared.aclose()


@pytest.mark.parametrize("seed", [1, 2])
def test_an_outage_wastes_little_and_ends_soon(seed: int) -> None:
    """Fifty instances, a primary dead for two minutes, clocks off: the goals, in virtual time, against each instance alone."""
    scenario = Scenario(Death.ERRORS, 10.0, seed=seed, skew=150.0)
    shared, alone = simulate(scenario), simulate(replace(scenario, shared=False))
    assert shared.answered == shared.all_requests
    assert shared.wasted <= 0.03 * shared.attempts
    assert shared.attempts <= 1.1 * shared.requests
    assert shared.back <= 20
    assert shared.wasted < alone.wasted / 3


def test_a_sick_instance_costs_the_others_little() -> None:
    """One of twenty can't reach a primary that is well: the others go on using it."""
    result = simulate(Scenario(Death.ERRORS, 40.0, instances=20, seed=3, dead=0.1, sick=1))
    assert result.answered == result.all_requests
    served = [name for _, name in result.by].count(PRIMARY) / len(result.by)
    assert served >= 0.85
