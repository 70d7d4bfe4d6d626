"""How a chain ends: its usage written once, its state for good; and what is done about chains that do not end."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from shared.background.attempting import give_up, lost
from shared.background.beginning import NO_RIGHT_CODE, launch
from shared.background.places import served_of
from shared.chain_outcomes import NotDeliveredError, error_out, notify
from shared.chains import Chain, Claim, ClaimState, State
from shared.core import content, errors
from shared.core.chain import (
    outcome_in,
    plan_in,
)
from shared.core.chat import Operation
from shared.core.errors import GatewayError, NotFoundError, StorageUnavailableError
from shared.core.failover import Ended, Outcome
from shared.core.fields import Fields
from shared.core.ids import instance_id
from shared.core.records import SUCCEEDED, RequestRecord
from shared.core.route import Route
from shared.core.telemetry import Content
from shared.executor import failure_of, outcome_name
from shared.gateway import Gateway
from shared.ports import ChainEngine
from shared.tracing import serving
from shared.usage.rows import attempt_in as record_in

UNSTARTED_SECONDS: Final = 30.0
OVERDUE_SECONDS: Final = 3 * 3600.0
"""After its deadline a chain has this long to end; then its engine has lost it."""

_log = logging.getLogger(__name__)


async def note(gateway: Gateway, given: Mapping[str, Any]) -> dict[str, Any]:
    """Write down what a chain is doing."""
    status = dict(given["status"])
    now = gateway.clock.now()
    await gateway.chains.change(
        given["id"], lambda one: replace(one, state=State.IN_PROGRESS, started_at=one.started_at or now, status=status)
    )
    return {}


async def end(gateway: Gateway, given: Mapping[str, Any]) -> str:
    """Write a chain's end down, with the usage of all its attempts; return its state. Twice is as good as once."""
    chain = await gateway.chains.get(given["id"])
    plan = plan_in(chain.plan)
    if given.get("broken"):
        return await _end(gateway, chain, error=GatewayError("Something went wrong inside the gateway.", code="internal_error"))
    if given.get("outcome") is None:
        return await _end(gateway, chain, error=None)
    outcome = outcome_in(given["outcome"], plan)
    if outcome.ended is Ended.ANSWERED:
        return await _end(gateway, chain, answered=True)
    return await _end(gateway, chain, error=_failure(outcome, plan.route))


def _failure(outcome: Outcome, route: Route) -> GatewayError:
    if outcome.ended is Ended.BUDGET:
        message = "A hard budget does not cover this request. Ask for less output, or have the budget raised."
        return errors.BudgetExceededError(message, budget="")
    refused = next((failed for failed in outcome.failures if failed.code == NO_RIGHT_CODE), None)
    if refused is not None:
        return errors.PermissionDeniedError(refused.message, code=NO_RIGHT_CODE)
    return failure_of(outcome, route)


async def lose(gateway: Gateway, chain: Chain) -> bool:
    """End a chain whose engine has forgotten it; False while an attempt of it may still be with a provider.

    One that was answered, and only not told so, is completed: its process was stopped between the two.
    """
    for claim in await gateway.chains.claims(chain.id):
        if claim.state is ClaimState.SENT and await gateway.ledger.alive(claim.session):
            return False
    message = "The process that ran this was stopped, and the engine of one machine forgets its work at its end. Ask again."
    await _end(gateway, chain, answered=True, error=errors.AllAttemptsFailedError(message), code="chain_lost")
    with contextlib.suppress(NotDeliveredError, StorageUnavailableError):  # no engine is left to try again
        await notify(gateway, {"id": chain.id})
    return True


async def _end(
    gateway: Gateway, chain: Chain, *, answered: bool = False, error: GatewayError | None = None, code: str | None = None
) -> str:
    """Write the end: answered, cancelled (no error), or failed."""
    if chain.state.ended:
        return chain.state.value
    with serving(served_of(gateway, chain)):
        return await _ended(gateway, chain, answered=answered, error=error, code=code)


async def _ended(gateway: Gateway, chain: Chain, *, answered: bool, error: GatewayError | None, code: str | None) -> str:
    claims = await _all_done(gateway, chain)
    answer = next((one for one in reversed(claims) if _succeeded(one)), None) if answered else None
    state = State.COMPLETED if answer is not None else State.CANCELLED if error is None else State.FAILED
    outcome = SUCCEEDED if answer is not None else "cancelled" if error is None else code or outcome_name(error)
    record = await _record(gateway, chain, claims, outcome)
    if await gateway.usage.insert_recovered([record]):
        await _tell(gateway, chain, record, answer)
    written = None if error is None or answer is not None else error_out(error, code)
    after = await gateway.chains.change(
        chain.id,
        lambda one: replace(
            one,
            state=state,
            ended_at=gateway.clock.now(),
            answer=None if answer is None else answer.number,
            cost=record.cost,
            attempts=len(record.attempts),
            error=written,
            status={},
        ),
    )
    return after.state.value


async def _tell(gateway: Gateway, chain: Chain, record: RequestRecord, answer: Claim | None) -> None:
    """Tell of a chain that has ended: whoever wrote its usage down does, once, in the trace of its beginning."""
    gateway.metrics.observe(record)
    place = served_of(gateway, chain).trace
    told = None
    if gateway.telemetry.content and place is not None and place.sampled:
        with contextlib.suppress(NotFoundError, StorageUnavailableError):  # its end is told without
            told = await _content(gateway, chain, answer)
    gateway.telemetry.ended(record, place, told)


async def _content(gateway: Gateway, chain: Chain, answer: Claim | None) -> Content:
    asked = content.asked(orjson.loads(await gateway.chains.body(chain.id)))
    if answer is None:
        return Content(asked)
    payload = orjson.loads(await gateway.chains.answer(chain.id, answer.number))
    return Content(asked, content.answered(payload))


async def _all_done(gateway: Gateway, chain: Chain) -> list[Claim]:
    """Return the attempts that were sent, all ended: one that nobody will end any more is charged what was held for it."""
    for claim in await gateway.chains.claims(chain.id):
        if claim.state is ClaimState.SENT and await lost(gateway, chain, claim) is None:
            await give_up(gateway, chain, claim)
    claims = [claim for claim in await gateway.chains.claims(chain.id) if claim.state is ClaimState.DONE]
    return [await _concluded(gateway, chain, claim) for claim in claims]


async def _concluded(gateway: Gateway, chain: Chain, claim: Claim) -> Claim:
    """Return a claim with what the ledger charges for it whatever comes: its owner, taken for dead, may yet settle it."""
    cost = None if claim.record is None else claim.record.get("cost")
    if not isinstance(cost, int):
        return claim
    charged = await gateway.ledger.conclude(claim.session, chain.request_id, claim.number, cost)
    return claim if charged == cost else replace(claim, record={**(claim.record or {}), "cost": charged})


def _succeeded(claim: Claim) -> bool:
    return claim.happened is not None and claim.happened.get("event") == "succeeded"


async def _record(gateway: Gateway, chain: Chain, claims: Sequence[Claim], outcome: str) -> RequestRecord:
    attempts = tuple(record_in(Fields(claim.record)) for claim in claims if claim.record is not None)
    answered = next((one for one in attempts if one.outcome == SUCCEEDED), None)
    costs = [one.cost for one in attempts]
    known = [cost for cost in costs if cost is not None]
    trace = await gateway.chains.trace(chain.id)
    return RequestRecord(
        request_id=chain.request_id,
        key_id=chain.caller.key_id,
        project=chain.caller.project,
        operation=Operation(chain.facts["operation"]),
        original_model=chain.facts["model"],
        task=chain.facts["task"],
        stream=False,
        started_at=chain.created_at,
        duration_ms=max(0.0, gateway.clock.now() - chain.created_at) * 1000,
        outcome=outcome,
        attempts=attempts,
        model=None if answered is None else answered.model,
        deployment=None if answered is None else answered.deployment,
        cost=sum(known) if len(known) == len(costs) else None,
        billed=None if answered is None else answered.cost,
        exact=all(one.exact for one in attempts),
        simulated=gateway.settings.simulated,
        chain=chain.id,
        tags=chain.caller.tags,
        trace=orjson.loads(trace) if trace else {},
    )


async def sweep(gateway: Gateway, engine: ChainEngine) -> int:
    """Start chains that were stored and never started, cancel again those that did not hear it; return how many."""
    touched = 0
    now = gateway.clock.now()
    async for chain in gateway.chains.unfinished():
        if chain.engine != engine.name:
            continue
        if now - chain.deadline > OVERDUE_SECONDS:
            touched += await lose(gateway, chain)
        elif chain.state is State.QUEUED and now - chain.created_at > UNSTARTED_SECONDS:
            await launch(engine, chain)
            touched += 1
        elif chain.cancelling:
            await engine.cancel(instance_id(chain.id, chain.created_at))
            touched += 1
    return touched
