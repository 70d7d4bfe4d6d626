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
from typing import Any, NoReturn

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
"""Recovery's timer is due so often in the time after which a session is taken for dead: every 10 s of 30 s, as shipped."""
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

    def text(self) -> str:
        """Return it as an argument of a command."""
        return json.dumps(asdict(self))


def orders_in(text: str) -> Orders:
    """Return the orders in such a text."""
    given = json.loads(text)
    return Orders(**{**given, "dies": given["dies"] and Place(given["dies"])})


# ---- deaths ----------------------------------------------------------------------------------------------------------


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError  # nothing survives that


def _before(owner: object, name: str, *, first: Callable[[], Awaitable[object]] | None = None) -> None:
    async def dying(*_: object, **__: object) -> NoReturn:
        if first is not None:
            await first()
        _die()

    setattr(owner, name, dying)


def _after(owner: object, name: str, *, then: Callable[[], Awaitable[object]] | None = None) -> None:
    real = getattr(owner, name)

    async def dying(*given: Any, **named: Any) -> Any:
        done = await real(*given, **named)
        if done:  # what another process has done is not this one's to die of
            if then is not None:
                await then()
            _die()
        return done

    setattr(owner, name, dying)


DEATHS: Mapping[Place, Callable[[Gateway], None]] = {
    Place.BEFORE_HOLD: lambda it: _before(it.ledger, "reserve"),
    Place.BEFORE_CLAIM: lambda it: _before(it.chains, "take"),
    Place.BEFORE_SEND: lambda it: _after(it.chains, "take"),
    Place.BEFORE_WRITTEN: lambda it: _before(it.chains, "finish"),
    Place.SETTLED_NOT_WRITTEN: lambda it: _before(it.chains, "finish", first=it.ledger.flush),
    Place.BEFORE_SETTLED: lambda it: _after(it.chains, "finish"),
    Place.AFTER_SETTLED: lambda it: _after(it.chains, "finish", then=it.ledger.flush),
    Place.BEFORE_USAGE: lambda it: _before(it.usage, "insert_recovered"),
    Place.AFTER_USAGE: lambda it: _after(it.usage, "insert_recovered"),
    Place.BEFORE_INDEX: lambda it: _before(it.chains, "_close"),
    Place.IN_RECOVERY: lambda it: _before(it.chains, "fence"),
    Place.IN_RECOVERY_LATE: lambda it: _before(it.ledger, "finish"),
    Place.LOST_NOT_WRITTEN: lambda it: _before(it.chains, "finish"),
}
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
        DEATHS[orders.dies](gateway)
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
    loop.call_later(LIFE_SECONDS, _die)
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
