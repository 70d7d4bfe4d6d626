"""A process that performs a chain's activities, recovers what others left open, and dies where it is told to.

    python -m tests.bench.chain_kills_worker ORDERS

Reads activities from standard input and answers each on standard output, a line of JSON each; ends in order when its input
does. The product knows nothing of this: what kills the process is put around methods of its own gateway, here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from functions import chains
from functions import gateway as holder
from shared.bootstrap import open_gateway
from shared.core.errors import StorageUnavailableError
from shared.gateway import Gateway
from shared.ledger import Ledger, LedgerPolicy
from shared.recovery import recover
from shared.settings import Settings

LONG = 3600.0
TIMERS = 3
"""Recovery is due so often in the time after which a session is taken for dead: every 10 s of 30 s, as on one machine."""
QUIET_SECONDS = 0.3
"""Before a process is stopped: in the middle of a write to SQLite it would keep its lock, and everybody from the file."""
LIFE_SECONDS = 600.0
"""After which a process ends by itself: whoever should have ended it has died."""


class Place(StrEnum):
    """Where a process dies."""

    BEFORE_HOLD = "before the hold"
    BEFORE_CLAIM = "held, not claimed"
    BEFORE_SEND = "claimed, not sent"
    BEFORE_WRITTEN = "answered, claim not written, not settled"
    SETTLED_NOT_WRITTEN = "settled, claim not written"
    BEFORE_SETTLED = "claim written, not settled"
    AFTER_SETTLED = "claim written and settled"
    BEFORE_USAGE = "in `end`, usage not written"
    AFTER_USAGE = "in `end`, usage written, chain's row not"
    BEFORE_INDEX = "in `end`, chain's row written, still in the index"
    IN_RECOVERY = "in recovery: charged, not corrected"
    IN_RECOVERY_LATE = "in recovery: corrected, session not closed"
    LOST_NOT_WRITTEN = "a lost attempt found, not written down"


@dataclass(frozen=True, slots=True)
class Orders:
    """What a process is started with. ``ttl`` is the seconds after which it takes a silent session for dead."""

    name: str
    storage: str
    catalog: str
    ttl: float
    dies: Place | None = None
    stops: bool = False
    """Whether it does not die there, but is stopped."""

    def text(self) -> str:
        """Return it as an argument of a command."""
        return json.dumps(asdict(self))


def orders_in(text: str) -> Orders:
    """Return the orders in such a text."""
    given = json.loads(text)
    return Orders(**{**given, "dies": given["dies"] and Place(given["dies"])})


# ---- deaths ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Death:
    """At which call of a method of which part of the gateway: before it, or after it has done something.

    With ``settled`` everything that waits in the ledger is written first.
    """

    part: str
    method: str
    after: bool = False
    settled: bool = False


DEATHS: Mapping[Place, Death] = {
    Place.BEFORE_HOLD: Death("ledger", "reserve"),
    Place.BEFORE_CLAIM: Death("chains", "take"),
    Place.BEFORE_SEND: Death("chains", "take", after=True),
    Place.BEFORE_WRITTEN: Death("chains", "finish"),
    Place.SETTLED_NOT_WRITTEN: Death("chains", "finish", settled=True),
    Place.BEFORE_SETTLED: Death("chains", "finish", after=True),
    Place.AFTER_SETTLED: Death("chains", "finish", after=True, settled=True),
    Place.BEFORE_USAGE: Death("usage", "insert_recovered"),
    Place.AFTER_USAGE: Death("usage", "insert_recovered", after=True),
    Place.BEFORE_INDEX: Death("chains", "_close"),
    Place.IN_RECOVERY: Death("chains", "fence"),
    Place.IN_RECOVERY_LATE: Death("ledger", "finish"),
    Place.LOST_NOT_WRITTEN: Death("chains", "finish"),
}


def doom(gateway: Gateway, death: Death, *, stops: bool) -> None:
    """Have this process killed, or with ``stops`` only stopped, once, where it is said."""
    part = getattr(gateway, death.part)
    real = getattr(part, death.method)
    met = False

    async def leave() -> None:
        nonlocal met
        met = True
        if death.settled:
            await gateway.ledger.flush()
        if stops:
            await asyncio.sleep(QUIET_SECONDS)
        os.kill(os.getpid(), signal.SIGSTOP if stops else signal.SIGKILL)

    async def doomed(*given: Any, **named: Any) -> Any:
        if not death.after and not met and given[0]:  # recovery writes the usage of nobody, most of the time
            await leave()
        done = await real(*given, **named)
        if death.after and not met and done:  # what another process has done is not this one's to die of
            await leave()
        return done

    setattr(part, death.method, doomed)


LATE_TO_SETTLE = frozenset({Place.BEFORE_WRITTEN, Place.BEFORE_SETTLED})
"""Settlements are written a tenth of a second after they were made: these die within it, however slow the machine."""


# ---- the work --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def opened(orders: Orders) -> Any:
    """Open the gateway of a process, doomed as its orders say."""
    gateway = await open_gateway(Settings(catalog=orders.catalog, storage=orders.storage), environment={})
    policy = LedgerPolicy(ttl=orders.ttl)
    if orders.dies in LATE_TO_SETTLE:
        policy = replace(policy, gather=LONG)
    ledger = Ledger(gateway.tables, gateway.clock, orders.name, policy=policy, usage_until=gateway.usage.written_until)
    gateway = replace(gateway, ledger=ledger)
    if orders.dies is not None:
        doom(gateway, DEATHS[orders.dies], stops=orders.stops)
    holder.use(gateway)
    try:
        yield gateway
    finally:
        await gateway.aclose()


async def _recovering(gateway: Gateway, ttl: float) -> None:
    while True:
        with contextlib.suppress(StorageUnavailableError):
            await recover(gateway)
        await asyncio.sleep(ttl / TIMERS)


async def _performed(activity: str, given: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"done": await ACTIVITIES[activity](given)}
    except StorageUnavailableError as error:
        return {"again": error.message}


ACTIVITIES: Mapping[str, Callable[[dict[str, Any]], Awaitable[Any]]] = {one.__name__: one for one in chains.ACTIVITIES}


async def work(orders: Orders) -> None:
    """Perform activities until there are no more."""
    loop = asyncio.get_running_loop()
    loop.call_later(LIFE_SECONDS, os._exit, 1)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with opened(orders) as gateway:
        recovering = asyncio.create_task(_recovering(gateway, orders.ttl))
        while line := await reader.readline():
            asked = json.loads(line)
            print(json.dumps(await _performed(asked["activity"], asked["given"])), flush=True)
        recovering.cancel()
        await asyncio.gather(recovering, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(work(orders_in(sys.argv[1])))
