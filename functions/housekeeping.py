"""What is to be done without a request, and how often: probes, recovery, alerts, sweeps, gauges, roll-ups.

One timer does it all, once a minute: Azure bills every run for a second at least, and gives every timer function instances of
its own, so that a timer for each chore would cost more than all else of an idle gateway. A host to which runs cost nothing may
run it more often: then each chore is due in its own time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from functions.http import new_request_id
from functions.periods import iso
from shared import batching
from shared.background import sweep
from shared.core.errors import GatewayError
from shared.executor import probe
from shared.gateway import Gateway
from shared.gauges import tell
from shared.ledger.retention import KEPT_DAYS
from shared.ports import ChainEngine
from shared.recovery import recover

logger = logging.getLogger("switchyard.edge")

DAY: Final = 86_400.0
EARLY: Final = 2.0
"""Seconds by which a run may come early: timers are not exact."""
ROUND: Final = 45.0
"""Seconds a run waits for its chores: no run is started beside another, so one that waits on holds up all that is due."""
LONGEST: Final = 900.0
"""Seconds after which a chore is given up; half of what the host gives a function before it ends the whole process."""


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to be done every so many seconds, on any instance. May be done twice, also at the same time."""

    name: str
    every: float
    do: Callable[[Gateway, ChainEngine], Awaitable[object]]


async def _probe(gateway: Gateway, _: ChainEngine) -> None:
    """Ask deployments whose breaker is open, or that were silent for long, whether they answer again."""
    await gateway.shared_health.exchange()
    await probe(gateway, request_id=new_request_id)
    await gateway.shared_health.exchange()


async def _write(gateway: Gateway, _: ChainEngine) -> None:
    """Write usage and metrics that wait, and take over what other instances registered."""
    await gateway.usage.flush()
    await gateway.metrics.flush()
    await gateway.catalog.refresh()


async def _recover(gateway: Gateway, _: ChainEngine) -> None:
    """Settle what processes that died have left open, and write their usage down."""
    await recover(gateway)


async def _alert(gateway: Gateway, _: ChainEngine) -> None:
    """Tell of budgets that have passed a threshold."""
    await gateway.alerts.check()


async def _tell(gateway: Gateway, _: ChainEngine) -> None:
    """Tell how budgets and the work in the background stand."""
    await tell(gateway)


async def _sweep(gateway: Gateway, engine: ChainEngine) -> None:
    """Start chains and batches that were stored and never started, and cancel again those that did not hear it."""
    await sweep(gateway, engine)
    await batching.sweep(gateway, engine)


async def _roll_up(gateway: Gateway, _: ChainEngine) -> None:
    """Add usage up, so that reports need not read every request; delete what is kept no longer."""
    now = gateway.clock.now()
    await gateway.usage.roll_up(now)
    await gateway.idempotency.prune()
    await gateway.chains.prune()
    await gateway.responses.prune()
    await gateway.batches.prune()
    await gateway.files.prune(gateway.batches.uses, gateway.batches.forget_output)
    await gateway.ledger.prune(iso(now - KEPT_DAYS * DAY)[:10])
    if gateway.settings.usage_days is not None:
        await gateway.usage.prune(iso(now - gateway.settings.usage_days * DAY)[:10])


CHORES: Final = (
    Chore("probe", 30.0, _probe),
    Chore("write", 10.0, _write),
    Chore("recover", 10.0, _recover),
    Chore("alert", 60.0, _alert),
    Chore("tell", 60.0, _tell),
    Chore("sweep", 60.0, _sweep),
    Chore("roll up", 300.0, _roll_up),
)
"""All there is to do; a chore cannot be done more often than the timer runs."""


class Rounds:
    """Remembers when this process last did what. A process that has just begun does everything."""

    __slots__ = ("_begun", "_chores", "_gateway", "_going_on")

    def __init__(self, chores: tuple[Chore, ...] = CHORES) -> None:
        self._chores = chores
        self._gateway: Gateway | None = None
        self._begun: dict[str, float] = {}
        self._going_on: dict[str, asyncio.Task[None]] = {}

    async def go(self, gateway: Gateway, engine: ChainEngine) -> None:
        """Do all that is due, at once: what one chore meets holds up no other. Each failure is logged; the next run goes on.

        A chore that takes longer than a run goes on after it, and is not begun again meanwhile.
        """
        if gateway is not self._gateway:
            self._gateway, self._begun, self._going_on = gateway, {}, {}
        now, going_on = gateway.clock.monotonic(), self._going_on
        for chore in self._chores:
            if chore.name not in going_on and now - self._begun.get(chore.name, float("-inf")) >= chore.every - EARLY:
                self._begun[chore.name] = now
                going_on[chore.name] = task = asyncio.create_task(_done(chore, gateway, engine))
                task.add_done_callback(partial(_ended, going_on, chore.name))
        tasks = list(going_on.values())
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=ROUND)
        except asyncio.CancelledError:  # the host ends
            for task in tasks:
                task.cancel()
            raise


def _ended(going_on: dict[str, asyncio.Task[None]], name: str, _: asyncio.Task[None]) -> None:
    going_on.pop(name)


async def _done(chore: Chore, gateway: Gateway, engine: ChainEngine) -> None:
    limit = asyncio.timeout(LONGEST)
    try:
        async with limit:
            await chore.do(gateway, engine)
    except GatewayError as error:
        logger.warning("The chore `%s` is left for the next round: %s", chore.name, error.message)
    except Exception:
        if limit.expired():
            logger.error("The chore `%s` was given up after %d seconds", chore.name, LONGEST)  # noqa: TRY400 - it only waited
        else:
            logger.exception("The chore `%s` failed by a bug", chore.name)


ROUNDS: Final = Rounds()
"""The Functions worker gives timers no place to remember anything, so this is it."""
