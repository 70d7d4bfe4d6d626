"""What an operation on Table Storage costs this process: our HTTP adapter beside Microsoft's SDK, both on Azurite.

    python -m tests.bench.tables_cost

Processor time is the client's alone: the emulator is another process. The two take turns, so that a busy machine is busy for
both; the least of the rounds counts. Transactions are the ledger's: one row replaced by its ETag, the others new.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Final

from shared.adapters.clock import SystemClock
from shared.adapters.tables import open_tables
from shared.adapters.transport import open_transport
from shared.ports import Action, Entity, EntityTable, Op, Tables, Value
from tests.azurite.process import Azurite
from tests.bench.tables import number, table
from tests.contracts.sdk_tables import SdkTables

ROUNDS: Final = 5
REPEATS: Final = 40

_INTENT: Final[dict[str, Value]] = {
    "state": "p",
    "est": 12_345_678,
    "charged": 0,
    "accounts": "team-a 2026-11|project-b 2026-11-23|key-c 2026-11-23",
    "facts": '{"model":"gpt-5.1","deployment":"eastus-1","key":"3f2a91bc"}',
}


class Load:
    """What is measured: each method does its operation once."""

    def __init__(self, store: EntityTable, partition: str) -> None:
        self._table = store
        self._partition = partition
        self._numbers = itertools.count()
        self._fence = ""

    async def prepare(self) -> None:
        """Make the row that every transaction replaces."""
        self._fence = await self._table.insert(Entity(self._partition, "0", {"state": "open", "tok": "-"}))

    async def transact(self, size: int) -> None:
        """Do a transaction of ``size`` operations."""
        fence = Entity(self._partition, "0", {"state": "open", "tok": f"{next(self._numbers):08}"}, self._fence)
        ops = [Op(Action.REPLACE, fence)]
        ops += [Op(Action.INSERT, self._row()) for _ in range(size - 1)]
        self._fence = (await self._table.transact(ops))[0]

    async def insert(self) -> None:
        """Insert one row."""
        await self._table.insert(self._row())

    async def get(self) -> None:
        """Read one row."""
        assert await self._table.get(self._partition, "0")

    async def query(self) -> None:
        """Read a page of fifty rows."""
        assert len([row async for row in self._table.query(self._partition, start="r~", limit=50)]) == 50

    def _row(self) -> Entity:
        return Entity(self._partition, f"r~{next(self._numbers):08}~1", _INTENT)


def _operations(load: Load) -> dict[str, Callable[[], Awaitable[None]]]:
    return {
        "transaction of 2": lambda: load.transact(2),
        "transaction of 50": lambda: load.transact(50),
        "insert": load.insert,
        "get": load.get,
        "query of 50 rows": load.query,
    }


async def _cost(operation: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Return milliseconds of the processor and of the clock for one operation."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(REPEATS):
        await operation()
    return (time.process_time() - cpu) * 1e3 / REPEATS, (time.perf_counter() - wall) * 1e3 / REPEATS


async def measure(stores: dict[str, Tables]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return, for each operation and store, the least (processor, wall) milliseconds of the rounds."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for turn in range(ROUNDS):
        for name, store in stores.items():
            load = Load(store.table("cost"), f"{name}{turn}")
            await load.prepare()
            for what, operation in _operations(load).items():
                before = found.setdefault(what, {}).get(name, (1e9, 1e9))
                now = await _cost(operation)
                found[what][name] = (min(before[0], now[0]), min(before[1], now[1]))
    return found


async def main() -> None:
    """Print the table."""
    transport = open_transport(trust_env=False)
    with Azurite() as emulator:
        stores: dict[str, Tables] = {
            "http": open_tables(emulator.setting, transport=transport, clock=SystemClock()),
            "sdk": SdkTables(emulator.url),
        }
        found = await measure(stores)
        for store in stores.values():
            await store.aclose()
    await transport.aclose()
    rows = []
    for what, costs in found.items():
        (http_cpu, http_wall), (sdk_cpu, sdk_wall) = costs["http"], costs["sdk"]
        cells = [number(value, 2) for value in (http_cpu, sdk_cpu, sdk_cpu / http_cpu, http_wall, sdk_wall)]
        rows.append([what, *cells])
    head = ["operation", "CPU ms, ours", "CPU ms, SDK", "SDK / ours", "wall ms, ours", "wall ms, SDK"]
    table("Table Storage on Azurite, one caller", head, rows)


if __name__ == "__main__":
    asyncio.run(main())
