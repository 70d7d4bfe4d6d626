"""Schedules, by hand: what happens when, and what must be true then. Each shows a fault that was once there, or could be.

A schedule lives in the first instance of a `Bench`: it is frozen and killed with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Final

from shared.ledger import Hold
from tests.ledger.bench import HARD, LIMIT, OTHER, POLICY, SOFT, Bench
from tests.ledger.settings import LAG
from tests.ledger.store import OPENING, Change, Fate

Schedule = Callable[[Bench], Coroutine[None, None, None]]


def _is(state: str) -> Callable[[Change], bool]:
    return lambda change: change.after is not None and change.after.get("state") == state


# ---- with which the simulation found bugs ----------------------------------------------------------------------------


async def an_outage_between_two_closes(bench: Bench) -> None:
    """A session that could close only one of its leases closes the other one later, and that one not again."""
    bench.settle(await bench.hold("q1", (HARD, OTHER), 100), 40)
    bench.when(_is("closed"), lambda: bench.down(2.0))
    await asyncio.sleep(20)


async def money_freed_and_promised_again_while_the_head_is_told(bench: Bench) -> None:
    """What a settlement freed and a call took again is not asked for once more."""
    first = await bench.hold("q1", (HARD,), 600)
    await asyncio.sleep(2)
    bench.fate("s~", Fate.REQUEST_LOST)
    bench.settle(first, 100)
    await asyncio.sleep(0.5)  # on its way, and lost
    again = asyncio.ensure_future(bench.hold("q2", (HARD,), 500))
    await asyncio.wait([again])
    if again.exception() is None:
        bench.settle(again.result(), 0)
    bench.auditor.attempts["q2~1"].charged = None
    await asyncio.sleep(10)


async def thawed_with_a_settlement_and_a_closed_lease(bench: Bench) -> None:
    """A settlement that waits when a lease is found closed is not forgotten."""
    first = await bench.hold("q1", (HARD,), 100)
    recovering = bench.recovering()
    await bench.frozen()
    bench.settle(first, 10)
    bench.settle(await bench.hold("q2", (HARD,), 900), 20)  # finds its lease closed before the settlement is written
    await asyncio.sleep(10)
    await recovering


async def fenced_while_it_flushes_before_closing(bench: Bench) -> None:
    """A session that learns, in closing, that it was taken over leaves its leases to whoever did so."""
    soft = await bench.hold("q1", (SOFT,), 100)
    await asyncio.sleep(0.3)
    bench.when(_is("fenced"), lambda: bench.freeze(60.0, bench.others_gate))  # so its lease is not closed yet
    recovering = bench.recovering()
    await bench.frozen(40)
    bench.settle(soft, 30)
    bench.usage.flush()
    await bench.one.aclose()
    await recovering


async def an_orderly_end_right_after_everything_was_lost(bench: Bench) -> None:
    """A process that ends writes anew what nobody has: also what it did not know to be lost."""
    bench.fate("s~", Fate.REQUEST_LOST, bench.freeze)
    recovering = bench.recovering()
    soft = await bench.hold("q1", (SOFT,), 100)
    await asyncio.sleep(0.5)  # the first write is lost, and a closed fence is found where there was none
    bench.settle(soft, 30)
    await bench.one.aclose()
    await recovering


async def closed_while_the_first_fold_is_on_its_way(bench: Bench) -> None:
    """A move of a lease whose sender was cancelled is finished before the lease is closed."""
    closing: list[asyncio.Task[None]] = []

    def close() -> None:
        bench.settle(soft, 0)
        bench.usage.flush()
        closing.append(bench.loop.create_task(bench.one.aclose()))

    bench.fate("b~", Fate.ANSWER_LOST, close)
    soft = await bench.hold("q1", (SOFT,), 100)
    while not closing:
        await asyncio.sleep(0.1)
    await closing[0]


async def a_store_that_does_not_answer_is_not_an_empty_budget(bench: Bench) -> None:
    """Whoever is not served in time because the store is late is told so."""
    first = await bench.hold("q1", (HARD,), 100)
    bench.fate("b~", Fate.REQUEST_LOST)
    bench.loop.call_later(POLICY.wait + 0.1, bench.settle, first, 10)  # everybody who waits is looked at
    await bench.unreachable("q2", (HARD,), 500)
    await asyncio.sleep(5)


async def a_small_request_does_not_hide_one_that_takes_less(bench: Bench) -> None:
    """The modest one is served with what there is, at once."""
    first = await bench.hold("q1", (HARD,), 700)
    small = bench.loop.create_task(bench.hold("q2", (HARD,), 400))
    await asyncio.sleep(0.3)
    asked_at = bench.loop.time()
    modest = await bench.hold("q3", (HARD,), 500, least=200)
    assert 300 == modest.amount
    assert bench.loop.time() < asked_at + 1.0
    bench.settle(modest, 0)
    small.cancel()
    bench.settle(first, 700)
    await asyncio.sleep(1)


async def a_session_closed_before_its_usage_is_written(bench: Bench) -> None:
    """A session stays until the usage log has caught up: nobody looks for usage in a closed one."""
    bench.settle(await bench.hold("q1", (HARD,), 100), 40)
    await asyncio.sleep(6)  # its lease and itself are idle, the usage waits
    bench.kill()
    await asyncio.sleep(1)


async def usage_that_was_taken_long_after_the_settlement(bench: Bench) -> None:
    """A request's usage is written when its record is, not when that is taken."""
    hold = await bench.hold("q1", (HARD,), 100)
    bench.billed(hold, 40)
    bench.auditor.told(bench.auditor.attempts["q1~1"], 40)
    bench.one.settle(hold, 40)
    await asyncio.sleep(15)
    bench.ended(hold)
    await asyncio.sleep(6)
    bench.kill()
    await asyncio.sleep(1)


# ---- the limit -------------------------------------------------------------------------------------------------------


async def the_limit_is_the_limit(bench: Bench) -> None:
    """What is held can't be held again, here or elsewhere; what is settled counts as what it cost, once."""
    first = await bench.hold("q1", (HARD,), 600)
    await bench.refused("q2", (HARD,), 600)
    await bench.refused("q3", (HARD,), 600, at="two")
    bench.settle(first, 500)
    bench.one.settle(first, 600)
    bench.one.void(first)
    second = await bench.hold("q4", (HARD,), 500, at="two")
    await bench.refused("q5", (HARD,), 1)
    bench.settle(second, 450, at="two")
    await asyncio.sleep(0.3)
    third = await bench.hold("q6", (HARD,), 50)
    bench.one.void(third)
    bench.auditor.told(bench.auditor.attempts["q6~1"], 0)
    bench.one.settle(third, 50)
    bench.ended(third)
    await asyncio.sleep(5)


async def every_budget_has_its_limit(bench: Bench) -> None:
    """A call under two budgets is held in both."""
    both = await bench.hold("q1", (HARD, OTHER), 600)
    await bench.refused("q2", (OTHER,), 600)
    await bench.refused("q3", (HARD,), 600)
    bench.settle(both, 600)
    await asyncio.sleep(5)


async def a_limit_that_is_changed(bench: Bench) -> None:
    """Who hears of a lower limit holds no more than that; who hears of a higher one may."""
    first = await bench.hold("q1", (HARD,), 300)
    bench.settings.change(replace(HARD, limit=500))
    await asyncio.sleep(LAG + 25.0)
    lower = bench.settings.seen("hard")
    await bench.refused("q2", (lower,), 400)
    bench.settings.change(replace(HARD, limit=200))
    await asyncio.sleep(LAG + 25.0)
    await bench.refused("q3", (bench.settings.seen("hard"),), 1)
    bench.settings.change(replace(HARD, limit=2 * LIMIT))
    await asyncio.sleep(LAG + 25.0)
    bench.settle(await bench.hold("q4", (bench.settings.seen("hard"),), 1_500), 1_500)
    bench.settle(first, 300)
    await asyncio.sleep(5)


async def what_was_freed_stays_until_that_is_written(bench: Bench) -> None:
    """Money a settlement frees leaves a session when the settlement has landed: else recovery charges it once more."""
    hold = await bench.hold("q1", (HARD,), 900)
    bench.cut("s~")
    bench.settle(hold, 100)
    await asyncio.sleep(6)  # the head is told what is used
    await bench.refused("q2", (HARD,), 800, at="two")
    bench.kill()
    await asyncio.sleep(1)


async def calls_that_come_all_the_time(bench: Bench) -> None:
    """What they free does not pile up where they come: others may have it."""
    for hold in [await bench.hold(f"q{number}", (HARD,), 150) for number in range(6)]:
        bench.settle(hold, 1)
    large: list[asyncio.Task[Hold]] = []
    for number in range(32):
        bench.settle(await bench.hold(f"small{number}", (HARD,), 5), 1)
        await asyncio.sleep(0.5)
        if number == 24:
            large.append(asyncio.ensure_future(bench.hold("large", (HARD,), 500, at="two")))
    bench.settle(await large[0], 500, at="two")
    await asyncio.sleep(5)


async def another_one_changes_the_head_meanwhile(bench: Bench) -> None:
    """A write that was lost is sent again, and changes nothing if the head is another one by now."""
    bench.fate("b~", Fate.REQUEST_LOST)
    slow = asyncio.ensure_future(bench.hold("q1", (HARD,), 600))
    await asyncio.sleep(0.5)
    quick = await bench.hold("q2", (HARD,), 700, at="two")
    await asyncio.wait([slow])
    assert slow.exception() is not None
    await asyncio.sleep(5)
    bench.settle(quick, 700, at="two")
    await asyncio.sleep(5)


# ---- writes that are not answered ------------------------------------------------------------------------------------


async def a_settlement_that_did_not_arrive(bench: Bench) -> None:
    """It is sent again, and the session goes on."""
    hold = await bench.hold("q1", (HARD,), 100)
    bench.fate("s~", Fate.REQUEST_LOST)
    bench.settle(hold, 10)
    await asyncio.sleep(10)


async def a_settlement_that_arrived_unheard(bench: Bench) -> None:
    """It is sent again, recognised as one's own, and the session goes on."""
    hold = await bench.hold("q1", (HARD,), 100)
    bench.fate("s~", Fate.ANSWER_LOST)
    bench.settle(hold, 10)
    await asyncio.sleep(10)


async def an_intent_that_does_not_arrive(bench: Bench) -> None:
    """What is not written is not sent."""
    first = await bench.hold("q1", (HARD,), 100)
    bench.fate("b~", Fate.WELL, lambda: bench.cut("s~"))
    held = asyncio.ensure_future(bench.hold("q2", (HARD,), 300))
    await asyncio.wait([held])
    if held.exception() is None:
        bench.billed(held.result(), 300)
    bench.billed(first, 10)
    bench.kill()
    await asyncio.sleep(1)


async def a_caller_who_leaves_while_its_intent_is_on_its_way(bench: Bench) -> None:
    """The intent may land: it is taken back."""

    def leave() -> None:
        second.cancel()

    first = await bench.hold("q1", (HARD,), 100)
    bench.fate("b~", Fate.WELL, lambda: bench.fate("s~", Fate.ANSWER_LOST, leave))
    second = asyncio.ensure_future(bench.hold("q2", (HARD,), 300))
    await asyncio.wait([second])
    bench.one.ended("q2")
    assert second.cancelled()
    bench.settle(first, 10)
    await asyncio.sleep(10)


async def a_move_that_happened_unheard(bench: Bench) -> None:
    """A lease's first move is sent again, and recognised as one's own."""
    soft = await bench.hold("q0", (SOFT,), 100)
    bench.fate("b~hard", Fate.ANSWER_LOST)
    await bench.unreachable("q1", (HARD,), 300)
    await asyncio.sleep(3)
    bench.settle(soft, 30)
    bench.settle(await bench.hold("q2", (HARD,), 300), 10)
    await asyncio.sleep(8)


# ---- processes that are taken for dead -------------------------------------------------------------------------------


async def frozen_in_mid_call(bench: Bench) -> None:
    """It is charged the estimate, and then what it cost; nothing it sends can land in a session that is fenced."""
    first = await bench.hold("q1", (HARD,), 100)
    recovering = bench.recovering()
    await bench.frozen()
    bench.settle(first, 10)
    await asyncio.sleep(10)
    await recovering


async def settled_long_after_its_session_was_lost(bench: Bench) -> None:
    """It is charged the estimate, and then what it cost: once, also when the correction is not answered."""
    first = await bench.hold("q1", (HARD,), 100)
    recovering = bench.recovering()
    await bench.frozen()
    bench.settle(await bench.hold("q2", (SOFT,), 100), 20)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            bench.settle(await bench.hold("q3", (HARD,), 800), 20)
    await asyncio.sleep(20)
    bench.fate("b~hard", Fate.ANSWER_LOST, row="c~")
    bench.settle(first, 10)
    await asyncio.sleep(20)
    await recovering


async def settled_unheard_before_it_was_frozen(bench: Bench) -> None:
    """What was settled in time is charged what it cost: there is nothing to correct."""
    first = await bench.hold("q1", (HARD,), 100)
    recovering = bench.recovering()
    bench.fate("s~", Fate.ANSWER_LOST, bench.freeze)
    bench.settle(first, 10)
    await asyncio.sleep(20)
    await recovering


# ---- processes that die ----------------------------------------------------------------------------------------------


async def killed_in_mid_call(bench: Bench) -> None:
    """It is charged the estimate, and nothing stays reserved; what it had settled is charged what it cost."""
    bench.settle(await bench.hold("q1", (HARD,), 100), 40)
    await asyncio.sleep(0.3)
    bench.billed(await bench.hold("q2", (HARD, OTHER), 300), 200)
    bench.kill()
    await asyncio.sleep(1)


async def killed_while_its_usage_waits(bench: Bench) -> None:
    """The usage of what it settled in its last seconds is handed to whoever recovers it."""
    hold = await bench.hold("q1", (HARD,), 100)
    bench.settle(hold, 40)
    await bench.hold("q2", (HARD,), 100)
    await asyncio.sleep(0.5)
    bench.kill()
    await asyncio.sleep(1)


async def killed_before_its_marker_has_landed(bench: Bench) -> None:
    """A lease that nobody knows of is never opened."""
    bench.fate("s~", Fate.REQUEST_LOST, lambda: bench.cut("s~"))
    bench.when(lambda change: change.partition.startswith("b~"), bench.kill)
    await bench.unreachable("q1", (HARD,), 100)
    bench.kill()
    await asyncio.sleep(1)


async def killed_when_it_has_a_lease_and_nothing_else(bench: Bench) -> None:
    """What it had been granted comes back."""
    bench.fate("b~", Fate.WELL, bench.kill)
    await bench.hold("q1", (HARD,), 100)


async def killed_while_its_first_lease_is_on_its_way(bench: Bench) -> None:
    """A lease that lands when its session has been recovered finds its place taken."""
    bench.network.late_by = 100.0
    bench.fate("b~", Fate.LATE, bench.kill)
    await bench.hold("q1", (HARD,), 100)


async def killed_while_its_first_write_is_on_its_way(bench: Bench) -> None:
    """A session that begins when it has been given up finds its place taken."""
    bench.network.late_by = 100.0
    bench.fate(OPENING, Fate.LATE, bench.kill)
    await bench.hold("q1", (SOFT,), 100)
    await asyncio.sleep(1)


async def recovery_is_interrupted_between_two_leases(bench: Bench) -> None:
    """Whoever goes on closes the other lease, and the closed one not again."""
    bench.billed(await bench.hold("q1", (HARD, OTHER), 300), 200)
    bench.when(_is("closed"), lambda: bench.down(2.0))
    bench.kill()
    await asyncio.sleep(1)


SCHEDULES: Final[dict[str, Schedule]] = {
    schedule.__name__.replace("_", " "): schedule
    for schedule in (
        an_outage_between_two_closes,
        money_freed_and_promised_again_while_the_head_is_told,
        thawed_with_a_settlement_and_a_closed_lease,
        fenced_while_it_flushes_before_closing,
        an_orderly_end_right_after_everything_was_lost,
        closed_while_the_first_fold_is_on_its_way,
        a_store_that_does_not_answer_is_not_an_empty_budget,
        a_small_request_does_not_hide_one_that_takes_less,
        a_session_closed_before_its_usage_is_written,
        usage_that_was_taken_long_after_the_settlement,
        the_limit_is_the_limit,
        every_budget_has_its_limit,
        a_limit_that_is_changed,
        what_was_freed_stays_until_that_is_written,
        calls_that_come_all_the_time,
        another_one_changes_the_head_meanwhile,
        a_settlement_that_did_not_arrive,
        a_settlement_that_arrived_unheard,
        an_intent_that_does_not_arrive,
        a_caller_who_leaves_while_its_intent_is_on_its_way,
        a_move_that_happened_unheard,
        frozen_in_mid_call,
        settled_long_after_its_session_was_lost,
        settled_unheard_before_it_was_frozen,
        killed_in_mid_call,
        killed_while_its_usage_waits,
        killed_before_its_marker_has_landed,
        killed_when_it_has_a_lease_and_nothing_else,
        killed_while_its_first_lease_is_on_its_way,
        killed_while_its_first_write_is_on_its_way,
        recovery_is_interrupted_between_two_leases,
    )
}
USAGE_LAG: Final = {
    "a session closed before its usage is written": 60.0,
    "usage that was taken long after the settlement": 60.0,
    "killed while its usage waits": 60.0,
}
"""Seconds until usage is written, where that is what the schedule is about."""


def played(name: str) -> list[str]:
    """Play a schedule; return what went wrong."""
    return Bench(usage_lag=USAGE_LAG.get(name, 0.2)).play(SCHEDULES[name])
