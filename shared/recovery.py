"""Use case: settle what dead processes left open, and write down the usage they could not.

To be run by a timer on any instance, also on several at once: the ledger charges each attempt once, the usage log keeps the
first record of a request, and a session is forgotten only when both have happened.

A process may die after it wrote a request's usage and before it wrote the settlement. What it wrote is then what it charged:
the bound that recovery charged is corrected to it, so that usage and ledger are one sum.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from shared.chains import ClaimState
from shared.core.chat import Operation
from shared.core.fields import Fields
from shared.core.records import LOST, SUCCEEDED, AttemptRecord, RequestRecord
from shared.gateway import Gateway
from shared.ledger import IntentRow, IntentState, RecoveredSession
from shared.ledger.corrections import LateSettlement, correct
from shared.ledger.rows import TABLE
from shared.usage import DamagedUsageError
from shared.usage.rows import usage_in

_log = logging.getLogger(__name__)


async def recover(gateway: Gateway) -> int:
    """Settle every dead session; return how many. Raise `StorageUnavailableError`: the next run goes on then."""
    found = await gateway.ledger.recover()
    # A request's attempts may lie in two sessions of its process: its record is made of all of them.
    records = records_of(one for session in found for one in session.attempts)
    written = await gateway.usage.insert_recovered(records, wrote=partial(_tell, gateway))
    if written:
        _log.warning("Wrote the usage of %d requests that a process which died had not written", written)
    for session in found:
        await _correct(gateway, session)
        await gateway.ledger.finish(session)
    return len(found)


def _tell(gateway: Gateway, record: RequestRecord) -> None:
    """Tell of a request in its process's place, as whoever wrote it down first."""
    gateway.metrics.observe(record)
    gateway.telemetry.ended(record, gateway.telemetry.trace(None))


async def _correct(gateway: Gateway, session: RecoveredSession) -> None:
    """Correct what recovery charged at its bound to what the usage says, where the process wrote that before it died."""
    for attempt in session.attempts:
        known = None
        if attempt.state is IntentState.CHARGED:
            chain = _facts(attempt).get("chain")
            known = await (_claimed(gateway, chain, session.session, attempt) if chain else _known(gateway, attempt))
        if known is not None and known != attempt.charged:
            late = LateSettlement(session.session, replace(attempt, charged=known), ())
            await correct(gateway.tables.table(TABLE), late)


async def _claimed(gateway: Gateway, chain: str, session: str, attempt: IntentRow) -> int | None:
    """Return what an attempt of a chain cost whose claim says so, 0 if it was never sent from here, None if nobody knows.

    A chain's usage is written when the chain ends, which this need not be. What nobody has claimed is fenced first: who was
    taken for dead may be about to.
    """
    claim = await gateway.chains.fence(chain, attempt.attempt, session)
    if claim.session != session or claim.state is ClaimState.FENCED:
        return 0
    return None if claim.record is None else Fields(claim.record).find_whole("cost")


def _facts(attempt: IntentRow) -> Mapping[str, Any]:
    facts = orjson.loads(attempt.facts)
    return facts if isinstance(facts, dict) else {}


async def _known(gateway: Gateway, attempt: IntentRow) -> int | None:
    """Return what the process that made an attempt charged for it, None when it did not say."""
    try:
        stored = await gateway.usage.find(attempt.request_id)
    except DamagedUsageError:
        return None
    if stored is None or stored.record.recovered:
        return None
    # A record is written when all attempts have ended: one that is not in it was given up before it was sent.
    return sum(one.cost or 0 for one in stored.attempts if one.number == attempt.attempt)


def records_of(attempts: Iterable[IntentRow]) -> list[RequestRecord]:
    """Return the usage of requests as the ledger knows it. Attempts without facts (a tool's) and chains' are left out."""
    requests: dict[str, list[tuple[IntentRow, Fields]]] = defaultdict(list)
    for attempt in attempts:
        facts = _facts(attempt)
        if "key_id" in facts and "chain" not in facts:  # a chain writes its own usage, at its end
            requests[attempt.request_id].append((attempt, Fields(facts)))
    return [_record(request_id, found) for request_id, found in requests.items()]


def _record(request_id: str, found: list[tuple[IntentRow, Fields]]) -> RequestRecord:
    found.sort(key=lambda one: one[0].attempt)
    attempts = tuple(attempt_of(row, facts) for row, facts in found)
    facts = found[0][1]
    answered = next((one for one in attempts if one.outcome == SUCCEEDED), None)
    started_at = facts.number("started_at")
    return RequestRecord(
        request_id=request_id,
        key_id=facts.text("key_id"),
        project=facts.text("project"),
        operation=Operation(facts.text("operation")),
        original_model=facts.text("original_model"),
        task=facts.text("task"),
        stream=facts.flag("stream"),
        started_at=started_at,
        duration_ms=max(0.0, max(row.at for row, _ in found) - started_at) * 1000,
        outcome=LOST if answered is None else SUCCEEDED,
        attempts=attempts,
        model=None if answered is None else answered.model,
        deployment=None if answered is None else answered.deployment,
        cost=sum(one.cost or 0 for one in attempts),
        billed=None if answered is None else answered.cost,
        exact=all(one.exact for one in attempts),
        simulated=facts.flag("simulated"),
        recovered=True,
        tags=_tags(facts),
    )


def attempt_of(row: IntentRow, facts: Fields) -> AttemptRecord:
    """Return what is known of an attempt from its row in the ledger alone."""
    usage = usage_in(facts)
    ended_at = facts.find_number("ended_at")
    return AttemptRecord(
        number=row.attempt,
        deployment=facts.text("deployment"),
        model=facts.text("model"),
        provider=facts.text("provider"),
        started_at=row.at if ended_at is None else facts.number("started_at"),
        duration_ms=0.0,
        outcome=facts.find_text("outcome") or LOST,
        region=facts.find_text("region"),
        usage=usage,
        cost=row.charged,
        exact=row.state is not IntentState.CHARGED and (usage is None or usage.exact),
        semconv_name=facts.find_text("semconv_name"),
    )


def _tags(facts: Fields) -> dict[str, Any]:
    found = facts.find_fields("tags")
    return {} if found is None else {name: found.text(name) for name in found.names()}
