"""One process of a kill run: workers that reserve, call and settle, and a timer that recovers what others left open.

    python -m tests.bench.money.worker PLAN NAME

It ends in order on SIGTERM; on SIGKILL, of course, not.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path
from random import Random

from shared.adapters.clock import SystemClock
from shared.core.budgets import Account
from shared.core.errors import BudgetExceededError, StorageUnavailableError
from shared.ledger import Hold, Intent, Ledger
from tests.bench.money.plan import LEAST_BOUND, MOST_BOUND, REFUSED, Plan, load
from tests.bench.money.stores import opened

ATTEMPTS = 2
LIFE_BEYOND = 90.0
"""Seconds after the run's end at which a process ends by itself: whoever should have ended it has died."""


class Worker:
    """All workers of this process."""

    def __init__(self, plan: Plan, name: str, ledger: Ledger) -> None:
        self._plan = plan
        self._name = name
        self._ledger = ledger
        self._numbers = itertools.count(1)
        self._random = Random(f"{plan.seed}/{name}")
        self._stop = asyncio.Event()
        self._refusals = os.open(Path(plan.folder) / REFUSED, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    async def run(self) -> None:
        """Work until told to end."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.call_later(self._plan.seconds + LIFE_BEYOND, self._stop.set)
        recovering = asyncio.create_task(self._recover())
        (Path(self._plan.folder) / f"{self._name}.ready").touch()
        await asyncio.gather(*(self._work() for _ in range(self._plan.workers)))
        recovering.cancel()
        await asyncio.gather(recovering, return_exceptions=True)
        await self._ledger.aclose()

    async def _recover(self) -> None:
        while True:
            await asyncio.sleep(self._plan.ttl / 4 * self._random.uniform(0.5, 1.5))
            with contextlib.suppress(StorageUnavailableError):
                for found in await self._ledger.recover():
                    await self._ledger.finish(found)

    async def _work(self) -> None:
        while not self._stop.is_set():
            await self._request()
            await asyncio.sleep(self._plan.call * 0.1 * self._random.random())

    async def _request(self) -> None:
        request_id = f"{self._name}-{next(self._numbers)}"
        accounts = self._accounts()
        amount = self._random.randint(LEAST_BOUND, MOST_BOUND)
        least = max(LEAST_BOUND, amount // 8) if self._random.random() < 0.25 else None
        for attempt in range(1, ATTEMPTS + 1):
            try:
                hold = await self._ledger.reserve(Intent(request_id, attempt, {"model": "m"}), accounts, amount, least=least)
            except BudgetExceededError as error:
                line = {"at": time.time(), "budget": error.budget, "amount": amount if least is None else least}
                os.write(self._refusals, json.dumps(line).encode() + b"\n")
                await asyncio.sleep(self._random.uniform(0.1, 0.3))
                return
            except StorageUnavailableError:
                await asyncio.sleep(self._random.uniform(0.1, 0.3))
                return
            if await self._call(hold):
                return

    def _accounts(self) -> tuple[Account, ...]:
        plan, chance = self._plan, self._random.random()
        extra = ((plan.key,), (plan.project,), (plan.key, plan.project), ())[min(3, int(chance * 8))]
        return plan.organization, *extra

    async def _call(self, hold: Hold) -> bool:
        """Call the provider and settle; return whether that was it."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._plan.provider)
        except OSError:
            self._ledger.void(hold)
            return True
        answer = b""
        with contextlib.suppress(ConnectionError):
            call = {"id": hold.intent.request_id, "attempt": hold.intent.attempt, "bound": hold.amount}
            writer.write(json.dumps(call).encode() + b"\n")
            answer = await reader.readline()
        writer.close()
        if not answer:  # nobody knows what it cost
            self._ledger.settle(hold, hold.amount, facts={"unreconciled": True})
            return True
        told = json.loads(answer)
        if told.get("void"):
            self._ledger.void(hold)
            return False
        self._ledger.settle(hold, told["billed"])
        return True


async def main() -> None:
    """Work."""
    plan, name = load(sys.argv[1]), sys.argv[2]
    async with opened(plan.setting) as tables:
        await Worker(plan, name, Ledger(tables, SystemClock(), name, policy=plan.policy)).run()


if __name__ == "__main__":
    asyncio.run(main())
