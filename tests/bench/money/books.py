"""The money as the tables tell it, read back by itself: no total of the ledger's is believed, all are added up again."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.core.budgets import Account
from shared.ledger import rows
from shared.ports import EntityTable


class Attempt(NamedTuple):
    """What names an attempt."""

    request_id: str
    number: int


class Violation(NamedTuple):
    """What must not be: of which kind it is, and in words."""

    kind: str
    text: str


@dataclass(slots=True)
class AccountBooks:
    """One account: its head, and what its leases, rows and corrections add up to."""

    account: Account
    head: rows.Head
    charged: int = 0
    corrected: int = 0
    open_leases: int = 0
    billed: int = 0


@dataclass(slots=True)
class Books:
    """Everything in the tables after a run, beside what the provider billed."""

    accounts: dict[rows.AccountKey, AccountBooks] = field(default_factory=dict)
    intents: dict[Attempt, list[rows.IntentRow]] = field(default_factory=lambda: defaultdict(list))
    corrections: dict[rows.AccountKey, Counter[Attempt]] = field(default_factory=lambda: defaultdict(Counter))
    correction_rows: int = 0
    sessions: int = 0
    unclosed: list[str] = field(default_factory=list)
    recovered: int = 0
    billed: dict[Attempt, list[int]] = field(default_factory=lambda: defaultdict(list))

    def violations(self) -> list[Violation]:
        """Return what must not be."""
        return [*self._at_rest(), *self._totals(), *self._attempts()]

    def states(self) -> Counter[str]:
        """Return how many attempts ended how."""
        return Counter(row.state.value for found in self.intents.values() for row in found)

    def _at_rest(self) -> Iterator[Violation]:
        for name in self.unclosed:
            yield Violation("open", f"the session {name} is still listed")
        for attempt, found in self.intents.items():
            if any(row.state is rows.IntentState.PENDING for row in found):
                yield Violation("open", f"{attempt} is still pending")
        for key, books in self.accounts.items():
            if books.head.reserved or books.head.open or books.open_leases:
                text = f"{books.head.reserved} reserved, {books.head.open} open, {books.open_leases} leases open"
                yield Violation("open", f"{key}: {text}")

    def _totals(self) -> Iterator[Violation]:
        for key, books in self.accounts.items():
            spent = books.head.spent
            if spent != books.charged + books.corrected:
                yield Violation("sum", f"{key}: the head says {spent}, the rows {books.charged} {books.corrected:+}")
            if books.billed > spent:
                yield Violation("less", f"{key}: the provider billed {books.billed}, {spent} is spent")
            if books.account.hard and max(books.billed, spent) > books.account.limit:
                yield Violation("over", f"{key}: billed {books.billed}, spent {spent}, limit {books.account.limit}")

    def _attempts(self) -> Iterator[Violation]:
        for attempt, found in self.intents.items():
            if len(found) > 1:
                yield Violation("twice", f"{attempt} has {len(found)} rows")
        for attempt, bills in self.billed.items():
            if len(bills) > 1:
                yield Violation("twice", f"{attempt} was billed {len(bills)} times")
            if attempt not in self.intents:
                yield Violation("lost", f"{attempt} was billed {bills} and has no row")
            for row in self.intents.get(attempt, ()):
                yield from self._less(attempt, row, sum(bills))

    def _less(self, attempt: Attempt, row: rows.IntentRow, billed: int) -> Iterator[Violation]:
        for key in row.accounts:
            charged = row.charged + self.corrections[key][attempt]
            if charged < billed:
                yield Violation("less", f"{attempt} was charged {charged} to {key}, and billed {billed}")


async def read(table: EntityTable, accounts: Iterable[Account], billed: str) -> Books:
    """Read everything back; ``billed`` is the provider's log."""
    books = Books()
    books.unclosed = [entity.row async for entity in table.query(rows.SESSIONS)]
    for account in accounts:
        await _read_account(table, account, books)
    names = {str(entity.properties["session"]) async for entity in table.query(rows.CLOSED)}
    for name in {*names, *books.unclosed}:
        await _read_session(table, name, books)
    for line in billed.splitlines():
        call = json.loads(line)
        attempt = Attempt(call["id"], call["attempt"])
        books.billed[attempt].append(call["billed"])
        for row in books.intents.get(attempt, []):
            for key in row.accounts:
                books.accounts[key].billed += call["billed"]
    return books


async def _read_account(table: EntityTable, account: Account, books: Books) -> None:
    key = rows.AccountKey(account.budget, account.period)
    found = await table.get(rows.account_partition(key), rows.HEAD)
    books.accounts[key] = mine = AccountBooks(account, rows.Head(account.limit) if found is None else rows.head(found))
    async for entity in table.query(rows.account_partition(key)):
        if entity.row.startswith(rows.LEASE):
            mine.open_leases += not rows.lease(entity).closed
        elif entity.row.startswith(rows.CORRECTION):
            _, _, request_id, number = entity.row.split("~")
            delta = int(entity.properties["delta"])
            books.corrections[key][Attempt(request_id, int(number))] += delta
            books.correction_rows += 1
            mine.corrected += delta


async def _read_session(table: EntityTable, name: str, books: Books) -> None:
    books.sessions += 1
    async for entity in table.query(rows.session_partition(name)):
        if entity.row == rows.FENCE:
            books.recovered += ":" in rows.fence(entity).token  # recovery's tokens have the form INSTANCE:DRAW
        if not entity.row.startswith(rows.INTENT):
            continue
        row = rows.intent(entity)
        books.intents[Attempt(row.request_id, row.attempt)].append(row)
        for key in row.accounts:
            books.accounts[key].charged += row.charged
