"""A chain's rows, in the table ``chains``.

c~ID     0              the CHAIN: who asked for what, until when, and how it ended
         q~NNNNN        the body of its request, in pieces
         t~NNNNN        the decision about it, in pieces
         a~NNNN         a CLAIM: one attempt, by whom, and how it ended
         r~NNNN~NNNNN   the answer of an attempt, in pieces
open     ID             chains that have not ended
DAY      ID             chains by the day they began (``d~2026-11-23``)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from shared.core.fields import Fields
from shared.core.records import Caller
from shared.ports import Entity, Value
from shared.stored import caller_in, caller_out, json_in, present, text_of

TABLE: Final = "chains"
HEAD: Final = "0"
OPEN: Final = "open"


class Kind(StrEnum):
    """What a chain's answer is shown as."""

    RESPONSE = "response"  # POST /v1/responses, background
    ASYNC = "async"  # Prefer: respond-async


class State(StrEnum):
    """Where a chain stands. The words are those of OpenAI's background responses."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Say whether nothing will change it any more."""
        return not TRANSITIONS[self]


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.QUEUED: frozenset({State.IN_PROGRESS, State.COMPLETED, State.FAILED, State.CANCELLED}),
    State.IN_PROGRESS: frozenset({State.COMPLETED, State.FAILED, State.CANCELLED}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
"""Where a chain may go from where it stands. The store keeps to it, and docs/chains.md is drawn from it."""


@dataclass(frozen=True, slots=True)
class Chain:
    """One piece of work that nobody waits for at the other end of a connection.

    ``path`` is the endpoint whose body this is (``/v1/chat/completions``), ``version`` that of its flow. ``plan`` is
    `shared.core.chain.plan_out`'s. Times are seconds since the epoch. ``engine`` is who runs it: ``durable``, or the name of a
    local engine, which forgets at its end. ``status`` tells what the chain is doing. When it has ended: ``answer`` is the
    number of the attempt that answered, or ``error`` why nobody did, as OpenAI's error object. ``facts`` are of whoever made
    the chain.
    """

    id: str
    kind: Kind
    request_id: str
    path: str
    caller: Caller
    plan: Mapping[str, Any]
    created_at: float
    deadline: float
    version: int = 1
    engine: str = "durable"
    webhook: str | None = None
    state: State = State.QUEUED
    cancelling: bool = False
    status: Mapping[str, Any] = field(default_factory=dict)
    started_at: float | None = None
    ended_at: float | None = None
    answer: int | None = None
    cost: int | None = None
    attempts: int = 0
    error: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    etag: str = ""


class ClaimState(StrEnum):
    """Where a claimed attempt stands."""

    SENT = "sent"  # it may be with the provider
    DONE = "done"
    FENCED = "fenced"  # its owner died before it was sent; whoever comes next may claim it


CLAIM_TRANSITIONS: Final[Mapping[ClaimState | None, frozenset[ClaimState]]] = {
    None: frozenset({ClaimState.SENT, ClaimState.FENCED}),
    ClaimState.FENCED: frozenset({ClaimState.SENT}),
    ClaimState.SENT: frozenset({ClaimState.DONE}),
    ClaimState.DONE: frozenset(),
}
"""Where a claim may go; None is an attempt that nobody has claimed."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt of a chain: who makes it, and, when it has ended, what came of it.

    ``session`` is the ledger session that holds its money; it tells whether its owner lives. ``held`` is nano-USD.
    ``happened`` is `shared.core.chain.happened_out`'s; ``record`` is what usage says of it; ``answer`` what was read of the
    answer beside its text.
    """

    number: int
    state: ClaimState
    session: str
    held: int
    deployment: str
    at: float
    happened: Mapping[str, Any] | None = None
    record: Mapping[str, Any] | None = None
    answer: Mapping[str, Any] | None = None
    etag: str = ""


def partition_of(chain: str) -> str:
    """Return the partition of a chain."""
    return "c~" + chain


def day_of(moment: float) -> str:
    """Return the partition of the chains that began on a day."""
    return "d~" + datetime.fromtimestamp(moment, UTC).date().isoformat()


def claim_row(number: int) -> str:
    """Return the row of an attempt's claim."""
    return f"a~{number:04}"


def answer_rows(number: int) -> str:
    """Return what the rows of an attempt's answer begin with."""
    return f"r~{number:04}~"


def chain_entity(chain: Chain) -> Entity:
    """Return a chain as a row."""
    properties: dict[str, Value | None] = {
        "kind": chain.kind.value,
        "request_id": chain.request_id,
        "path": chain.path,
        "caller": caller_out(chain.caller),
        "plan": text_of(chain.plan),
        "created_at": chain.created_at,
        "deadline": chain.deadline,
        "version": chain.version,
        "engine": chain.engine,
        "webhook": chain.webhook,
        "state": chain.state.value,
        "cancelling": chain.cancelling,
        "status": text_of(chain.status),
        "started_at": chain.started_at,
        "ended_at": chain.ended_at,
        "answer": chain.answer,
        "cost": chain.cost,
        "attempts": chain.attempts,
        "error": None if chain.error is None else text_of(chain.error),
        "facts": text_of(chain.facts),
    }
    return Entity(partition_of(chain.id), HEAD, present(properties), chain.etag)


def chain_in(entity: Entity) -> Chain:
    """Return the chain in a row; raise `ValueError` when it is damaged."""
    row = Fields(entity.properties)
    error = row.find_text("error")
    return Chain(
        id=entity.partition.removeprefix("c~"),
        kind=Kind(row.text("kind")),
        request_id=row.text("request_id"),
        path=row.text("path"),
        caller=caller_in(row.text("caller")),
        plan=json_in(row.text("plan")),
        created_at=row.number("created_at"),
        deadline=row.number("deadline"),
        version=row.whole("version"),
        engine=row.text("engine"),
        webhook=row.find_text("webhook"),
        state=State(row.text("state")),
        cancelling=row.flag("cancelling"),
        status=json_in(row.text("status")),
        started_at=row.find_number("started_at"),
        ended_at=row.find_number("ended_at"),
        answer=row.find_whole("answer"),
        cost=row.find_whole("cost"),
        attempts=row.whole("attempts"),
        error=None if error is None else json_in(error),
        facts=json_in(row.text("facts")),
        etag=entity.etag,
    )


def claim_entity(chain: str, claim: Claim) -> Entity:
    """Return a claim as a row."""
    properties: dict[str, Value | None] = {
        "state": claim.state.value,
        "session": claim.session,
        "held": claim.held,
        "deployment": claim.deployment,
        "at": claim.at,
        "happened": None if claim.happened is None else text_of(claim.happened),
        "record": None if claim.record is None else text_of(claim.record),
        "answer": None if claim.answer is None else text_of(claim.answer),
    }
    return Entity(partition_of(chain), claim_row(claim.number), present(properties), claim.etag)


def claim_in(entity: Entity) -> Claim:
    """Return the claim in a row; raise `ValueError` when it is damaged."""
    row = Fields(entity.properties)
    happened, record, answer = row.find_text("happened"), row.find_text("record"), row.find_text("answer")
    return Claim(
        number=int(entity.row.removeprefix("a~")),
        state=ClaimState(row.text("state")),
        session=row.text("session"),
        held=row.whole("held"),
        deployment=row.text("deployment"),
        at=row.number("at"),
        happened=None if happened is None else json_in(happened),
        record=None if record is None else json_in(record),
        answer=None if answer is None else json_in(answer),
        etag=entity.etag,
    )
