"""The spending run's audit finds what it is there to find. The run itself: python -m tests.bench.spend."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from shared.core.budgets import Account
from shared.core.records import LOST
from shared.ledger.rows import AccountKey, Head, IntentRow, IntentState
from tests.bench.audit import Received, Verdict
from tests.bench.client import Answer
from tests.bench.money.books import AccountBooks, Attempt, Books
from tests.bench.replay import CATALOG, Question
from tests.bench.spend_audit import Evidence, audit
from tests.bench.spend_scene import LATE, Kill, Sample, Told, judged

HARD, SOFT = AccountKey("everything", "total"), AccountKey("replay", "total")
TOKENS = {"input_tokens": 10, "output_tokens": 7, "cache_read": 3, "cache_creation": 0, "reasoning": 2}
COST = 5_683  # see test_audit
BOUND = 9_000
LIMIT = 14_690
"""Covers the two attempts; the 7 that are left cover nothing."""


def attempt(**changes: Any) -> dict[str, Any]:
    """Return an attempt as a row of the usage table has it."""
    fine = {"number": 1, "provider": "primary", "outcome": "succeeded", "usage": TOKENS, "exact": True, "cost": COST}
    return fine | changes


def request(name: str, *attempts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return such a request."""
    fine = {"request_id": name, "key_id": "key", "project": "replay", "recovered": False, "trace": {}}
    return fine | {"attempts": list(attempts)} | changes


ANSWERED = request("req_1", attempt())
RECOVERED = request("req_2", attempt(outcome=LOST, usage=None, exact=False, cost=BOUND), recovered=True)
REFUSED = request("req_3")
TOLD = (
    Told("req_1", False, "answered", 1.0, 2.0),
    Told("", False, "lost", 2.0, 3.0),
    Told("req_3", False, "refused", 9.0, 9.1),
)  # fmt: skip
IN_LOG = (
    Received("req_1", "primary", None, stream=False, billed=TOKENS),
    Received("req_2", "primary", None, stream=False, billed=TOKENS),
)


def books(*, spent: int = COST + BOUND, held: int = 0, charged: int = BOUND) -> Books:
    """Return what the tables hold: one attempt settled, one charged at its bound by recovery."""
    rows = [
        IntentRow("req_1", 1, IntentState.DONE, BOUND, COST, (HARD, SOFT), "{}", 0.0),
        IntentRow("req_2", 1, IntentState.CHARGED, BOUND, charged, (HARD, SOFT), "{}", 0.0),
    ]
    found = Books(sessions=2, recovered=1)
    for row in rows:
        found.intents[Attempt(row.request_id, row.attempt)].append(row)
    for key, hard in ((HARD, True), (SOFT, False)):
        account = Account(key.budget, key.period, LIMIT if hard else 1, hard=hard)
        total = sum(row.charged for row in rows)
        found.accounts[key] = AccountBooks(account, Head(account.limit, spent, reserved=held), charged=total)
    return found


def evidence(**changes: Any) -> Evidence:
    """Return what a good run leaves, but for what is given."""
    spent = COST + BOUND
    fine = Evidence(
        limit=LIMIT,
        hard=HARD,
        soft=SOFT,
        told=TOLD,
        kills=(Kill(2.5, 2, 4.0), Kill(5.5, 2, 6.0)),
        samples=(Sample(1.5, 0, BOUND), Sample(8.9, spent, 0)),
        shown=(Sample(8.9, spent, 0),),
        usage={"cost_nano_usd": spent, "cost_unknown": 0},
        hard_shown={"spent_nano_usd": spent, "held_nano_usd": 0},
        soft_shown={"spent_nano_usd": spent, "held_nano_usd": 0},
        requests=(ANSWERED, RECOVERED, REFUSED),
        books=books(),
        received=IN_LOG,
        overruns=(),
        catalog=CATALOG,
        recovered_shown=1,
    )
    return replace(fine, **changes)


def verdict(**changes: Any) -> Verdict:
    """Audit that."""
    return audit(evidence(**changes))


def test_all_is_well() -> None:
    """One request answered, one lost with its process and charged its bound, one refused: no promise is broken."""
    found = verdict()

    assert ([], True) == (found.problems, found.kept), [row for row in found.rows if row[3]]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: verdict(samples=(Sample(1.5, 0, LIMIT + 1), Sample(8.9, 0, LIMIT))),
        lambda: verdict(shown=(Sample(1.5, LIMIT, 1),)),
        lambda: verdict(limit=LIMIT - 8),
        lambda: verdict(limit=LIMIT + BOUND),
        lambda: verdict(overruns=("overrun: attempt 1 of req_1 cost 2 nano-USD, 1 were held",)),
        lambda: verdict(samples=(Sample(1.5, 0, BOUND), Sample(8.9, 0, BOUND))),
        lambda: verdict(told=(*TOLD, Told("req_1", False, "a refusal of the wrong shape", 9.0, 9.1))),
        lambda: verdict(told=(*TOLD, Told("req_1", False, "error 503", 9.0, 9.1))),
        lambda: verdict(told=(*TOLD, Told("", False, "no answer", 7.0, 7.1))),
        lambda: verdict(told=(*TOLD, Told("req_1", False, LATE, 7.0, 9.1))),
        lambda: verdict(told=TOLD[:2]),
        lambda: verdict(received=(*IN_LOG, Received("req_3", "reserve", None, stream=False, billed=TOKENS))),
        lambda: verdict(received=(*IN_LOG, IN_LOG[0])),
        lambda: verdict(received=IN_LOG[1:]),
        lambda: verdict(requests=(ANSWERED, REFUSED)),
        lambda: verdict(requests=(ANSWERED, ANSWERED, RECOVERED, REFUSED)),
        lambda: verdict(requests=(request("req_1", attempt(cost=COST - 1)), RECOVERED, REFUSED)),
        lambda: verdict(requests=(ANSWERED, RECOVERED | {"recovered": False}, REFUSED)),
        lambda: verdict(books=books(spent=COST + BOUND - 1)),
        lambda: verdict(books=books(held=1)),
        lambda: verdict(books=books(charged=BOUND - 1)),
        lambda: verdict(usage={"cost_nano_usd": 1, "cost_unknown": 0}),
        lambda: verdict(hard_shown={"spent_nano_usd": COST + BOUND, "held_nano_usd": 1}),
        lambda: verdict(kills=()),
        lambda: verdict(recovered_shown=0),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(wrong: Callable[[], Verdict]) -> None:
    """Money above the limit, unspent or lost, a wrong refusal, a lost, doubled or mischarged attempt break a promise each."""
    assert not wrong().kept


def _refusal(status: int = 429, headers: str = "x-should-retry: false\r\nx-request-id: req_1", **changes: Any) -> str:
    error = {"message": "Used up.", "type": "insufficient_quota", "param": None, "code": "insufficient_quota"} | changes
    head = f"HTTP/1.1 {status} Nothing\r\n{headers}".encode()
    return judged(Answer(status, 0.1, json.dumps({"error": error}).encode(), head), Question(b"", stream=False))


def test_a_refusal_is_judged() -> None:
    """A refusal for want of money is 429, in OpenAI's shape, and says that asking again is no use; a late store is none."""
    assert "refused" == _refusal()
    assert "error 503" == _refusal(status=503, type="server_error")
    assert LATE == _refusal(status=503, headers="x-request-id: req_1", code="storage_unavailable", type="server_error")
    wrong = (_refusal(status=402), _refusal(headers="x-request-id: req_1"), _refusal(code="x"), _refusal(message=""))
    assert {"a refusal of the wrong shape"} == set(wrong)
