"""Counting chains: what is under way, what has finished, and that counting stays cheap."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from shared.chains import Chain, Chains, Kind, Queue, State
from shared.chains.store import MAX_LOOKED_AT, QUEUE_SECONDS
from shared.core.records import Caller
from shared.ports import Tables
from tests.fakes import FakeClock
from tests.stores.conftest import Weather

HOUR = 3600.0


async def make(chains: Chains, clock: FakeClock, name: str, *, project: str = "p") -> Chain:
    """Store a chain."""
    now = clock.now()
    chain = Chain(name, Kind.ASYNC, "req_1", "/v1/embeddings", Caller("k", project), {}, created_at=now, deadline=now + HOUR)
    return await chains.create(chain, b"{}")


async def begin(chains: Chains, name: str, status: dict[str, object]) -> None:
    """Have a chain run."""
    await chains.change(name, lambda one: replace(one, state=State.IN_PROGRESS, status=status))


async def test_states_are_counted(tables: Tables, clock: FakeClock) -> None:
    """Queued, running, waiting; the oldest is the one that was asked for first; what has ended is not under way."""
    chains = Chains(tables, clock)
    assert Queue() == await chains.queue()
    first = clock.now()
    for name in ("a", "b", "c", "d"):
        await make(chains, clock, name)
        clock.seconds += 10
    await begin(chains, "b", {"attempt": 1})
    await begin(chains, "c", {"waiting_until": "2026-11-23T10:00:00+00:00"})
    await begin(chains, "d", {})
    await chains.change("d", lambda one: replace(one, state=State.CANCELLED))

    queue = await chains.queue()
    assert Queue(unfinished=3, queued=1, running=1, waiting=1, oldest=first, looked_at=3, oldest_queued=first) == queue


async def test_finished_are_those_of_the_range(tables: Tables, clock: FakeClock) -> None:
    """Over midnight too; what was asked for before does not count, nor what is under way."""
    chains = Chains(tables, clock)
    await make(chains, clock, "old")
    clock.seconds += 16 * HOUR
    since = clock.now()
    for name in ("yesterday", "today", "open"):
        await make(chains, clock, name)
        clock.seconds += 16 * HOUR
    for name in ("old", "yesterday", "today"):
        await begin(chains, name, {})
        await chains.change(name, lambda one: replace(one, state=State.CANCELLED))

    assert 2 == await chains.finished(since)


async def test_counting_often_costs_little(tables: Tables, clock: FakeClock, weather: Weather) -> None:
    """Within some seconds what was counted is told again; of many chains only some are looked at."""
    chains = Chains(tables, clock)
    await asyncio.gather(*(make(chains, clock, f"{number:04}") for number in range(MAX_LOOKED_AT + 50)))
    before = weather.reads
    queue = await chains.queue()
    counted = weather.reads - before
    assert (MAX_LOOKED_AT + 50, MAX_LOOKED_AT) == (queue.unfinished, queue.looked_at)
    assert counted <= MAX_LOOKED_AT + 1

    clock.seconds += QUEUE_SECONDS - 1
    assert queue == await chains.queue()
    assert before + counted == weather.reads
    clock.seconds += 1
    await chains.queue()
    assert before + counted < weather.reads


async def test_only_what_is_asked_for_is_read(tables: Tables, clock: FakeClock, weather: Weather) -> None:
    """Another project's chains, and what came before, cost no read of their own; over midnight too."""
    chains = Chains(tables, clock)
    for number in range(40):
        await make(chains, clock, f"{number:02}", project="p" if number % 2 else "other")
        clock.seconds += HOUR
    after = await chains.get("19")
    before = weather.reads

    found = []
    async for chain in chains.newest(kind=Kind.ASYNC, project="p", after=after):
        found.append(chain.id)
        if len(found) == 3:
            break
    assert ["17", "15", "13"] == found
    assert before + 3 == weather.reads
    assert [] == [chain async for chain in chains.newest(kind=Kind.RESPONSE)]
