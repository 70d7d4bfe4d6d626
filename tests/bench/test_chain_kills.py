"""What `tests.bench.chain_kills` looks for in the tables, it finds. Kills themselves: tests/faults/test_chains.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shared.chains import Chain, Claim, ClaimState, Kind, State
from shared.core.chat import Operation
from shared.core.records import SUCCEEDED, AttemptRecord, Caller, RequestRecord
from shared.ledger.rows import Head, IntentState
from shared.usage import StoredRequest
from tests.bench.chain_kills_books import Books, Charge

LIMIT, COST = 1_000, 70
ANSWER = "an answer"


def books() -> Books:
    """Return the books of a chain whose first attempt died unclaimed in one session and was made in another: all is well."""
    made = AttemptRecord(1, "a/sol", "sol", "a", 0.0, 1.0, SUCCEEDED, cost=COST)
    usage = RequestRecord("req", "key", "shop", Operation.CHAT, "sol", "", False, 0.0, 1.0, SUCCEEDED, (made,), cost=COST)
    chain = Chain("chain_1", Kind.ASYNC, "req", "/v1/chat/completions", Caller("key", "shop"), {}, 0.0, 9.0)
    chain = replace(chain, state=State.COMPLETED, answer=1, cost=COST, attempts=1)
    found = Books(chain, LIMIT, Head(LIMIT, COST), StoredRequest(usage), text=ANSWER)
    found.claims = [Claim(1, ClaimState.DONE, "s2", 100, "a/sol", 0.0)]
    found.charges = [
        Charge("s1", 1, IntentState.CHARGED, 100, -100),
        Charge("s2", 1, IntentState.DONE, COST, 0),
    ]
    return found


def test_what_is_right_is_not_complained_of() -> None:
    """An attempt that was held twice and sent once has one charge."""
    assert [] == books().wrong(answers=[ANSWER], billed=COST)


@pytest.mark.parametrize(
    ("said", "changes"),
    [
        ("the chain is failed", {"chain": replace(books().chain, state=State.FAILED)}),
        ("the answer is 'another one'", {"text": "another one"}),
        ("no usage", {"usage": None}),
        ("usage has the attempts [], claimed were [1]", {"usage": None}),
        ("attempt 1 has the charges [100, 70]", {"charges": [replace(books().charges[0], corrected=0), books().charges[1]]}),
        ("attempt 1 has the charges []", {"charges": []}),
        ("attempt 1 is charged and was never claimed", {"claims": []}),
        ("attempt 1 is still sent", {"claims": [replace(books().claims[0], state=ClaimState.SENT)]}),
        ("usage has the attempts [1], claimed were []", {"claims": []}),
        ("attempt 1: usage says 70, the ledger [69]", {"charges": [Charge("s2", 1, IntentState.DONE, 69, 0)]}),
        ("spent 71, rows 70, usage 70, chain 70", {"head": Head(LIMIT, 71)}),
        ("69 of 60 are spent", {"limit": 60, "head": Head(60, 69)}),
        ("5 held, 0 open, 0 leases open", {"head": Head(LIMIT, COST, reserved=5)}),
        ("0 held, 0 open, 1 leases open", {"open_leases": 1}),
        ("an attempt is pending", {"charges": [replace(books().charges[1], state=IntentState.PENDING)]}),
        ("it is still in the index", {"listed": True}),
        ("the sessions ['s1'] are not closed", {"sessions": ["s1"]}),
    ],
)
def test_each_thing_that_must_not_be_is_seen(said: str, changes: dict[str, Any]) -> None:
    """Each by itself."""
    assert any(one.startswith(said) for one in replace(books(), **changes).wrong(answers=[ANSWER], billed=COST))


def test_what_the_provider_billed_and_nobody_charged_is_seen() -> None:
    """An attempt that was sent twice."""
    assert ["the provider billed 140, 70 is charged"] == books().wrong(answers=[ANSWER, ANSWER], billed=2 * COST)


def test_what_was_lost_must_say_so() -> None:
    """A chain that ended with its process has failed with a code, in its row and in its usage."""
    assert books().wrong(answers=[], billed=COST, code="chain_lost")
    usage = StoredRequest(replace(books().usage.record, outcome="chain_lost"))  # type: ignore[union-attr]  # it has one
    lost = replace(books(), chain=replace(books().chain, state=State.FAILED, error={"code": "chain_lost"}), usage=usage)
    assert [] == lost.wrong(answers=[], billed=COST, code="chain_lost")
    assert ["the chain is failed, chain_lost, not chain_cancelled", "no usage that says chain_cancelled"] == lost.wrong(
        answers=[], billed=COST, code="chain_cancelled"
    )


def test_what_was_refused_for_nothing_has_no_charge() -> None:
    """An attempt of cost 0 in the usage must have none, and one that has one is seen."""
    found = books()
    assert found.usage is not None
    free = replace(found.usage.record, attempts=(replace(found.usage.record.attempts[0], cost=0),), cost=0)
    found = replace(found, usage=StoredRequest(free), head=Head(LIMIT, 0), chain=replace(found.chain, cost=0), charges=[])
    assert [] == found.wrong(answers=[ANSWER], billed=0)
    assert "attempt 1 has the charges [70]" in replace(found, charges=books().charges).wrong(answers=[ANSWER], billed=0)
