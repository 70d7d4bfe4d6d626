"""A short kill run on each store, as a test. The long one: python -m tests.bench.kill_run."""

from __future__ import annotations

import pytest

from shared.core.budgets import Account
from shared.ledger.rows import AccountKey, Head, IntentRow, IntentState
from tests.bench.kill_run import run
from tests.bench.money.books import AccountBooks, Attempt, Books

KEY = AccountKey("b", "2026-11")


@pytest.mark.parametrize("store", ["sqlite", "azurite"])
async def test_money_is_right_after_kills(store: str) -> None:
    """After SIGKILLs, a frozen and a restarted store, the tables hold every billed attempt once, and spent is their sum."""
    outcome = await run(store, seconds=4.0, quick=True)
    assert [] == outcome.violations
    assert outcome.kills == 2
    assert outcome.books.billed
    assert outcome.books.accounts.keys() == {(one.budget, one.period) for one in outcome.plan.accounts}


def _books(*, spent: int, charged: int, state: IntentState = IntentState.DONE, limit: int = 1000) -> Books:
    """One attempt of one account, billed 70."""
    attempt = Attempt("q", 1)
    books = Books()
    books.intents[attempt].append(IntentRow("q", 1, state, 100, charged, (KEY,), "{}", 0.0))
    books.billed[attempt].append(70)
    account = Account(KEY.budget, KEY.period, limit, hard=True)
    books.accounts[KEY] = AccountBooks(account, Head(limit, spent), charged=charged, billed=70)
    return books


def _lost() -> Books:
    books = _books(spent=70, charged=70)
    books.intents.clear()
    return books


def _twice() -> Books:
    books = _books(spent=70, charged=70)
    books.intents[Attempt("q", 1)] *= 2
    return books


@pytest.mark.parametrize(
    ("kinds", "books"),
    [
        (set(), _books(spent=70, charged=70)),
        ({"less"}, _books(spent=69, charged=69)),
        ({"sum"}, _books(spent=71, charged=70)),
        ({"over"}, _books(spent=70, charged=70, limit=69)),
        ({"open"}, _books(spent=70, charged=70, state=IntentState.PENDING)),
        ({"lost"}, _lost()),
        ({"twice"}, _twice()),
    ],
)
def test_each_violation_is_seen(kinds: set[str], books: Books) -> None:
    """What must not be in the tables is told, by its kind."""
    assert kinds == {violation.kind for violation in books.violations()}
