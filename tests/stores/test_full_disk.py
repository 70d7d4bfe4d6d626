"""A full disk under SQLite (fault 34): no money is granted that is not written down, and all is well once there is room."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.adapters.clock import SystemClock
from shared.adapters.tables import open_tables
from shared.core.budgets import Account
from shared.core.errors import StorageUnavailableError
from shared.ledger import Hold, Intent, Ledger, LedgerPolicy
from shared.ledger.rows import session_partition
from shared.ports import Tables

LIMIT = 1_000_000_000
EACH = 1_000
FACTS = {"model": "m" * 3_000}
"""Large enough that a page holds one row."""


async def resize(tables: Tables, pages: int) -> None:
    """Let the file have so many pages and no more: what a disk without room is to SQLite."""
    worker = tables._writer  # type: ignore[attr-defined]
    await worker.do(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone(), writes=False)


async def test_a_full_disk_grants_nothing(tmp_path: Path) -> None:
    """Under a hard budget what is granted is written, and the rest hears 503; once there is room the books are right."""
    tables = open_tables(f"sqlite:{tmp_path / 'state.db'}")
    ledger = Ledger(tables, SystemClock(), "i", policy=LedgerPolicy(wait=1.0, gather=0.01, tick=0.05))
    account = Account("b", "total", LIMIT, hard=True)
    first = await ledger.reserve(Intent("first", 1), (account,), EACH)
    await resize(tables, 30)

    granted: list[Hold] = []
    with pytest.raises(StorageUnavailableError):
        while len(granted) < 100:
            granted.append(await ledger.reserve(Intent(f"r{len(granted)}", 1, FACTS), (account,), EACH))

    assert granted
    written = {row.row for row in [row async for row in tables.table("ledger").query(session_partition(first.session.name))]}
    assert {f"r~{hold.intent.request_id}~1" for hold in granted} <= written
    with pytest.raises(StorageUnavailableError):
        await ledger.reserve(Intent("still full", 1, FACTS), (account,), EACH)

    await resize(tables, 100_000)
    last = await ledger.reserve(Intent("room again", 1, FACTS), (account,), EACH)
    for hold in [first, *granted, last]:
        ledger.settle(hold, EACH)
    await ledger.aclose()
    balance = await ledger.balance("b", "total", LIMIT)
    assert (balance.spent, balance.held) == (EACH * (len(granted) + 2), 0)
    await tables.aclose()
