"""The embedded engine: in this process only, on its event loop, with the behaviour of azure-functions-durable 1.x, and flat."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import azure.durable_functions as df  # type: ignore[import-untyped]
import pytest

from local.durable import LocalEngine
from local.embedded import MAX_ACTIVITIES, Backend
from local.mounting import Functions
from shared.core.errors import ConfigurationError

Flow = Generator[Any, Any, Any]
ONCE = df.RetryOptions(10, 1)


def engine_of(orchestrator: Callable[[Any], Any], **activities: Callable[[Any], Awaitable[Any]]) -> LocalEngine:
    """Return an engine with one orchestrator, ``flow``."""
    return LocalEngine(Functions([], [], {"flow": orchestrator}, activities))


async def settled(engine: LocalEngine) -> None:
    """Wait until everything has ended."""
    async with asyncio.timeout(60):
        while engine.running:
            await asyncio.sleep(0.005)


async def result_of(orchestrator: Callable[[Any], Flow], given: Any = None, **activities: Any) -> Any:
    """Run an orchestrator alone; return its result."""
    results: list[Any] = []

    async def keep(result: Any) -> None:
        results.append(result)

    def flow(context: Any) -> Flow:
        result = yield from orchestrator(context)
        yield context.call_activity("keep", result)

    engine = engine_of(flow, keep=keep, **activities)
    try:
        await engine.start("flow", "one", given)
        await settled(engine)
    finally:
        await engine.aclose()
    assert results, "the orchestrator failed"
    return results[0]


async def double(number: int) -> int:
    """Be an activity."""
    return 2 * number


async def fail(given: Any) -> None:
    """Be an activity that does not work."""
    message = f"no {given}"
    raise ValueError(message)


# ---- what orchestrators see ------------------------------------------------------------------------------------------


async def test_results_of_activities_are_sent_and_failures_raised() -> None:
    """A failure can be caught, as `functions.chain_flow.tell` does."""

    def flow(context: Any) -> Flow:
        doubled = yield context.call_activity("double", context.get_input()["number"])
        try:
            yield context.call_activity_with_retry("fail", ONCE, "way")
        except Exception as error:  # noqa: BLE001 - what the engine raises
            return [doubled, "no way" in str(error)]
        return None

    assert [42, True] == await result_of(flow, {"number": 21}, double=double, fail=fail)


async def test_the_first_of_several_tasks_is_told_by_identity() -> None:
    """And a failed task's result is its exception, not something that raises it."""

    def flow(context: Any) -> Flow:
        failing, later = context.call_activity("fail", "way"), context.create_timer(_in(context, 60))
        first = yield context.task_any([later, failing])
        return [first is failing, isinstance(failing.result, Exception), later.is_completed]

    assert [True, True, False] == await result_of(flow, fail=fail)


async def test_results_of_several_tasks_come_in_their_order() -> None:
    """Whoever ends first."""

    async def slow_if_small(number: int) -> int:
        await asyncio.sleep(0.05 / number)
        return number

    def flow(context: Any) -> Flow:
        return (yield context.task_all([context.call_activity("slow", number) for number in (1, 2, 3)]))

    assert [1, 2, 3] == await result_of(flow, slow=slow_if_small)


async def test_nothing_is_scheduled_before_it_is_yielded() -> None:
    """As in 1.x, where an activity that nobody waits for never runs."""
    asked: list[Any] = []

    async def note(given: Any) -> None:
        asked.append(given)

    def flow(context: Any) -> Flow:
        context.call_activity("note", "dropped")
        yield context.call_activity("note", "wanted")

    await result_of(flow, note=note)
    assert ["wanted"] == asked


async def test_a_cancelled_timer_has_not_completed() -> None:
    """And a wait that went on without it ends."""

    def flow(context: Any) -> Flow:
        timer = context.create_timer(_in(context, 3600))
        yield context.task_any([timer, context.create_timer(_in(context, 0.01))])
        timer.cancel()
        after = yield context.call_activity("double", 1)
        return [timer.is_completed, after]

    assert [False, 2] == await result_of(flow, double=double)


async def test_beginning_again_forgets_the_history_and_keeps_events() -> None:
    """A cancel that comes while an orchestration begins again is not lost."""
    seen: list[Any] = []

    async def note(given: Any) -> None:
        seen.append(given)

    def flow(context: Any) -> Flow:
        rounds = context.get_input()["round"]
        yield context.call_activity("note", rounds)
        if rounds < 3:
            context.continue_as_new({"round": rounds + 1})
            return
        yield context.wait_for_external_event("cancel")
        yield context.call_activity("note", "cancelled")

    engine = engine_of(flow, note=note)
    await engine.start("flow", "one", {"round": 1})
    await engine.cancel("one")
    await settled(engine)
    await engine.aclose()

    assert [1, 2, 3, "cancelled"] == seen


def _in(context: Any, seconds: float) -> Any:
    return context.current_utc_datetime + timedelta(seconds=seconds)


# ---- the engine ------------------------------------------------------------------------------------------------------


def waiting(context: Any) -> Flow:
    """Wait for an hour, or until cancelled."""
    timer = context.create_timer(_in(context, 3600))
    yield context.task_any([timer, context.wait_for_external_event("cancel")])


def listening() -> int:
    """Return how many sockets of this process listen."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            with socket.socket(fileno=os.dup(int(descriptor.name))) as one:
                found += one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            continue
    return found


async def test_nobody_outside_the_process_can_reach_it() -> None:
    """An engine that asks nobody who they are has no port."""
    before = listening()
    engine = engine_of(waiting)
    await engine.start("flow", "one", {})

    assert before == listening()
    await engine.aclose()
    with pytest.raises(NotImplementedError):
        Backend(asyncio.get_running_loop(), lambda *_: None).start()


async def test_an_instance_is_started_once() -> None:
    """Neither one that runs is started again, nor one that has run."""
    calls: list[Any] = []

    async def note(given: Any) -> None:
        calls.append(given)

    def flow(context: Any) -> Flow:
        yield context.call_activity("note", context.get_input())

    engine = engine_of(flow, note=note)
    await engine.start("flow", "one", {"turn": "first"})
    await engine.start("flow", "one", {"turn": "second"})
    await settled(engine)
    await engine.start("flow", "one", {"turn": "third"})
    await settled(engine)
    await engine.aclose()

    assert [{"turn": "first"}] == calls


async def test_cancelling_what_does_not_run_does_nothing() -> None:
    """Before, twice, and after the end."""
    engine = engine_of(waiting)
    await engine.cancel("one")
    await engine.start("flow", "one", {})
    await engine.cancel("one")
    await engine.cancel("one")
    await settled(engine)
    await engine.cancel("one")
    await engine.aclose()


async def test_cancelling_what_ended_a_moment_ago_does_nothing() -> None:
    """The engine has dropped it in another thread, and the loop, which was busy, has not been told yet."""

    def flow(context: Any) -> Flow:
        del context
        yield from ()

    engine = engine_of(flow)
    embedded = await engine._opened()
    await engine.start("flow", "one", {})
    deadline = time.monotonic() + 60
    while embedded.size and time.monotonic() < deadline:
        time.sleep(0.01)  # noqa: ASYNC251 - keeps the loop from hearing of it
    was = engine.running
    await engine.cancel("one")

    assert (0, 1) == (embedded.size, was)
    await engine.aclose()


async def test_activities_run_on_the_hosts_own_loop() -> None:
    """They use the gateway's connections, which belong to it; and never too many at once."""
    loop, running, most = asyncio.get_running_loop(), 0, 0
    loops: set[Any] = set()
    full = asyncio.Event()

    async def note(_: Any) -> None:
        nonlocal running, most
        loops.add(asyncio.get_running_loop())
        running += 1
        most = max(most, running)
        if running == MAX_ACTIVITIES:
            full.set()
        await full.wait()
        await asyncio.sleep(0.01)
        running -= 1

    def flow(context: Any) -> Flow:
        yield context.task_all([context.call_activity("note", number) for number in range(2 * MAX_ACTIVITIES)])

    engine = engine_of(flow, note=note)
    await engine.start("flow", "one", {})
    await settled(engine)
    await engine.aclose()

    assert {loop} == loops
    assert most == MAX_ACTIVITIES


async def test_what_has_ended_is_forgotten_and_what_waits_costs_no_thread() -> None:
    """Thousands of chains: nothing is kept of those that have ended, and a wait is no thread."""
    engine = engine_of(waiting)
    for number in range(300):
        await engine.start("flow", f"chain_{number}", {"id": number})
    embedded = await engine._opened()
    async with asyncio.timeout(60):
        while any(not one.history for one in list(embedded._backend._instances.values())):
            await asyncio.sleep(0.01)

    assert 300 == embedded.size
    assert threading.active_count() < 100
    for number in range(300):
        await engine.cancel(f"chain_{number}")
    await settled(engine)
    assert 0 == embedded.size
    assert not embedded._backend._state_waiters
    await engine.aclose()


async def test_an_orchestration_that_fails_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """By its id; it runs no longer."""

    def flow(context: Any) -> Flow:
        yield context.call_activity("fail", "way")

    engine = engine_of(flow, fail=fail)
    with caplog.at_level(logging.ERROR):
        await engine.start("flow", "chain_7", {})
        await settled(engine)
    await engine.aclose()

    assert ["the orchestration chain_7 failed by a bug"] == [one.getMessage().partition(":")[0] for one in caplog.records]


async def test_closing_gives_activities_their_time_and_no_more() -> None:
    """One that ends in time ends; one that does not is cancelled; no thread is left."""
    before, ended = threading.active_count(), []

    async def take(seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        ended.append("whole")

    def flow(context: Any) -> Flow:
        yield context.call_activity("take", context.get_input()["seconds"])

    engine = engine_of(flow, take=take)
    await engine.start("flow", "one", {"seconds": 0.2})
    await engine.start("flow", "two", {"seconds": 3600.0})
    embedded = await engine._opened()
    async with asyncio.timeout(60):
        while len(embedded._worker.performing) < 2:
            await asyncio.sleep(0.01)
    await engine.aclose(1.0)

    assert ["whole", "cancelled"] == ended
    # asyncio's own pool, which ran the import, stays with its loop
    assert before >= sum(not one.name.startswith("asyncio") for one in threading.enumerate())


async def test_without_its_library_background_work_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host serves what needs no engine."""
    monkeypatch.setitem(sys.modules, "local.embedded", None)
    engine = engine_of(waiting)

    with pytest.raises(ConfigurationError, match=r"requirements-local\.txt"):
        await engine.start("flow", "one", {})
    await engine.aclose()


async def test_an_engine_that_was_never_used_is_closed_for_nothing() -> None:
    """And has started nothing."""
    before = threading.active_count()
    engine = engine_of(waiting)
    await engine.aclose(10.0)

    assert before == threading.active_count()
