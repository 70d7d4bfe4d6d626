"""What the tests of faults ask: a budget to spend from, a call to make, and the books afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from shared.gateway import Gateway
from shared.ledger import IntentRow, IntentState, rows
from shared.ports import Tables
from tests.functions.harness import SETTINGS, Edge, Reply, running

CHAT: Final = "/v1/chat/completions"
PERIOD: Final = "total"
INPUT, OUTPUT = 1_000, 2_000
"""Nano-USD a token of the model `small`: one dollar a million in, two out."""
MAX_TOKENS: Final = 50
PAYING: Final = "rich"
"""The project that has a hard budget."""


def chat(content: str = "Hello", **fields: Any) -> dict[str, Any]:
    """Return a chat whose cost has a small bound."""
    return {"model": "small", "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": content}], **fields}


@dataclass(frozen=True)
class Books:
    """What the store says about a budget. ``charges`` are its attempts' charges, whatever state they are in."""

    spent: int
    held: int
    attempts: tuple[IntentRow, ...]

    @property
    def charges(self) -> list[int]:
        """What each attempt was charged, in the order of their requests."""
        return [row.charged for row in self.attempts]

    @property
    def states(self) -> set[IntentState]:
        """In which states attempts are."""
        return {row.state for row in self.attempts}


@asynccontextmanager
async def over(storage: str, *, around: Callable[..., Any] | None = None, **settings: Any) -> AsyncIterator[Edge]:
    """Run the edge over a store of this kind."""
    async with running(replace(SETTINGS, storage=storage, **settings), around=around) as edge:
        yield edge


async def budget(edge: Edge, limit: str = "1", **fields: Any) -> str:
    """Make a hard budget of the paying project through the API; return its id."""
    scope = {"kind": "project", "name": PAYING}
    made = await edge.post("/v1/budgets", {"name": "b", "scope": scope, "limit_usd": limit, "cycle": "total", **fields})
    assert made.status == 201, made.body
    return str(made.json["id"])


async def ask(edge: Edge, headers: dict[str, str], content: str = "Hello", **fields: Any) -> Reply:
    """Ask a model for an answer."""
    return await edge.post(CHAT, chat(content, **fields), headers=headers)


async def finish(gateway: Gateway) -> None:
    """Write usage, then have the ledger settle and give back all it holds, as when a process ends. It can be used again."""
    await gateway.usage.flush()
    await gateway.ledger.aclose()


async def settled(edge: Edge, name: str) -> Books:
    """Let the ledger settle and give back all it holds, then read the books, which must add up to the nano-dollar."""
    await finish(edge.gateway)
    found = await books(edge.gateway.tables, name)
    assert found.spent == sum(found.charges)
    assert found.held == 0
    return found


async def books(tables: Tables, name: str) -> Books:
    """Read a budget's head, and every attempt that is charged to it."""
    table = tables.table(rows.TABLE)
    key = rows.AccountKey(name, PERIOD)
    entity = await table.get(rows.account_partition(key), rows.HEAD)
    head = rows.Head(0) if entity is None else rows.head(entity)
    sessions = [each.row async for each in table.query(rows.SESSIONS)]
    sessions += [each.row.partition("~")[2] async for each in table.query(rows.CLOSED)]
    attempts = [
        rows.intent(each)
        for session in sessions
        async for each in table.query(rows.session_partition(session), start=rows.INTENT, end="r~~")
    ]
    mine = sorted((row for row in attempts if key in row.accounts), key=lambda row: row.row)
    return Books(head.spent, head.reserved, tuple(mine))
