"""Use case: requests that nobody waits for. A chain is stored, an engine drives its flow, activities do its work.

    start → the engine's orchestrator → attempt … attempt → end → notify

Activities run at least once. An attempt is claimed in the store between the moment its money is held and the moment it is sent,
so that of all runs of one activity a single one sends; whoever comes after it takes its result, or, if its process died, the
attempt for lost: charged at its bound by the ledger's recovery, and followed by another attempt. Nothing is billed twice, and
nothing that may have been billed is forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from shared.chain_outcomes import error_out
from shared.chains import Chain, Claim, ClaimState, Kind, State
from shared.core import errors
from shared.core.chain import (
    CURRENT,
    Cancelled,
    Happened,
    Plan,
    attempt_in,
    chain_policy,
    happened_out,
    outcome_in,
    plan_in,
    plan_out,
)
from shared.core.chat import InferenceRequest
from shared.core.errors import ConflictError, GatewayError, StorageUnavailableError
from shared.core.failover import Attempt, AttemptFailed, Ended, Outcome, Succeeded
from shared.core.failures import Failed, FailureKind
from shared.core.fields import Fields
from shared.core.records import SUCCEEDED, AttemptRecord, Caller, RequestRecord
from shared.core.route import Route
from shared.execution import ClaimedElsewhereError, Claiming, Execution, Sent
from shared.executor import failure_of, outcome_name
from shared.gateway import Gateway
from shared.ledger import IntentState
from shared.ports import ChainEngine
from shared.recovery import LOST, attempt_of
from shared.usage.rows import attempt_in as record_in

DURABLE: Final = "durable"
"""The name of an engine that never forgets."""
ORCHESTRATOR: Final = "run_chain"
LOOK_SECONDS: Final = 1.0
"""How often an attempt looks whether its chain was cancelled, and a second run of it whether the first has ended."""
MIN_PAUSE: Final = 2.0
"""Seconds before a candidate that could not take an attempt is asked again: each time is an activity of its own."""
FINISH_TRIES: Final = 30
UNSTARTED_SECONDS: Final = 30.0
OVERDUE_SECONDS: Final = 3 * 3600.0
"""After its deadline a chain has this long to end; then its engine has lost it."""

Read = Callable[[Gateway, Caller, str, dict[str, Any]], Awaitable[InferenceRequest]]
"""Reads a stored body of an endpoint into the request it stands for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewChain:
    """What a chain is to be. ``deadline`` is seconds from now; ``body`` is read again by the endpoint at ``path``."""

    id: str
    request_id: str
    kind: Kind
    path: str
    body: bytes
    deadline: float
    webhook: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


# ---- the beginning ---------------------------------------------------------------------------------------------------


async def start(gateway: Gateway, engine: ChainEngine, caller: Caller, request: InferenceRequest, new: NewChain) -> Chain:
    """Plan a request, store it as a chain and have the engine run it; raise the `GatewayError` of a plan that finds nobody.

    With the id of a chain that is there, that one is returned. Once the chain is stored it will run: if the engine does not
    answer now, `sweep` starts it.
    """
    chain = await gateway.chains.find(new.id)
    if chain is None:
        chain = await _created(gateway, engine, caller, request, new)
    elif chain.caller.key_id != caller.key_id:
        message = "There is another chain of this id."
        raise ConflictError(message)
    if chain.state is State.QUEUED:
        try:
            await _launch(engine, chain)
        except StorageUnavailableError as error:
            _log.warning("The chain %s will be started later: %s", chain.id, error.message)
    return chain


async def _created(gateway: Gateway, engine: ChainEngine, caller: Caller, request: InferenceRequest, new: NewChain) -> Chain:
    execution = Execution(gateway, caller, request, new.request_id)
    try:
        await execution.admit()
        route = await execution.plan()
    except GatewayError as error:
        execution.close(outcome_name(error))
        raise
    plan = Plan(
        route.task,
        route.candidates,
        chain_policy(execution.registry.policy.failover, new.deadline),
        jitter=execution.draw,
        cost_cap=request.requirements.budget_limit,
    )
    requirements = request.requirements
    now = gateway.clock.now()
    chain = Chain(
        new.id,
        new.kind,
        new.request_id,
        new.path,
        caller,
        plan_out(plan),
        created_at=now,
        deadline=now + new.deadline,
        version=CURRENT,
        engine=engine.name,
        webhook=new.webhook,
        facts={**new.facts, "operation": requirements.operation, "model": requirements.model[:256], "task": requirements.task},
    )
    return await gateway.chains.create(chain, new.body, orjson.dumps(execution.trace()))


async def _launch(engine: ChainEngine, chain: Chain) -> None:
    given = {
        "id": chain.id,
        "version": chain.version,
        "began": chain.created_at,
        "plan": dict(chain.plan),
        "webhook": chain.webhook is not None,
    }
    await engine.start(ORCHESTRATOR, chain.id, given)


async def cancel(gateway: Gateway, engine: ChainEngine, chain_id: str) -> Chain:
    """Ask a chain to end. One that has ended stays as it is. Raise `NotFoundError`, `StorageUnavailableError`."""
    chain = await gateway.chains.change(chain_id, lambda one: one if one.cancelling else replace(one, cancelling=True))
    if not chain.state.ended:
        await engine.cancel(chain_id)
    return chain


async def wait_for(gateway: Gateway, chain_id: str, seconds: float) -> Chain:
    """Return a chain as soon as it has ended, or as it is after so many seconds."""
    until, pause = gateway.clock.monotonic() + seconds, 0.05
    while True:
        chain = await gateway.chains.get(chain_id)
        left = until - gateway.clock.monotonic()
        if chain.state.ended or left <= 0:
            return chain
        await gateway.clock.sleep(min(pause, left))
        pause = min(pause * 1.5, LOOK_SECONDS)


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
            await _launch(engine, chain)
            touched += 1
        elif chain.cancelling:
            await engine.cancel(chain.id)
            touched += 1
    return touched


# ---- one attempt -----------------------------------------------------------------------------------------------------


async def attempt(gateway: Gateway, given: Mapping[str, Any], read: Read) -> dict[str, Any]:
    """Make one attempt, or take what became of it; return how it ended (`shared.core.chain.happened_out`).

    Raise `StorageUnavailableError` when nothing can be said now: then the engine asks again.
    """
    step = attempt_in(given)
    chain = await gateway.chains.get(given["id"])
    claim = await gateway.chains.claim(chain.id, step.number)
    if claim is not None and claim.state is not ClaimState.FENCED:
        return await _told(gateway, chain, claim)
    if chain.state.ended or chain.cancelling:
        return happened_out(Cancelled())
    if step.candidate.deployment not in gateway.catalog.current.deployments:
        gone = Failed(FailureKind.DEPLOYMENT_NOT_FOUND, f"{step.candidate.deployment} is no longer in the catalog.")
        return happened_out(AttemptFailed(0.0, gone))
    now = gateway.clock.now()
    if now >= chain.deadline:  # its turn came late: many were before it, or the store was away
        late = Failed(FailureKind.NOT_ADMITTED, "The deadline passed before this attempt could be made.")
        return happened_out(AttemptFailed(0.0, late))
    step = replace(step, remaining=min(step.remaining, chain.deadline - now))
    status = {"attempt": step.number, "deployment": step.candidate.deployment, "since": now}
    await gateway.chains.change(
        chain.id, lambda one: replace(one, state=State.IN_PROGRESS, started_at=one.started_at or now, status=status)
    )
    request = await read(gateway, chain.caller, chain.path, orjson.loads(await gateway.chains.body(chain.id)))
    return await _Attempting(gateway, chain, step).make(request)


class _Attempting:
    """One run of one attempt's activity."""

    def __init__(self, gateway: Gateway, chain: Chain, step: Attempt) -> None:
        self._gateway = gateway
        self._chain = chain
        self._step = step
        self._claim: Claim | None = None

    async def make(self, request: InferenceRequest) -> dict[str, Any]:
        """Make the attempt, unless somebody else has."""
        try:
            return await self._made(request)
        finally:  # only then may the session that holds its money close: that it has not is how others know we live
            self._gateway.ledger.ended(self._chain.request_id)

    async def _made(self, request: InferenceRequest) -> dict[str, Any]:
        gateway, chain = self._gateway, self._chain
        claiming = Claiming(self._take, chain.created_at, {"chain": chain.id})
        execution = Execution(gateway, chain.caller, request, chain.request_id, claiming=claiming)
        try:
            event = await self._watched(execution)
        except ClaimedElsewhereError:
            claim = await gateway.chains.claim(chain.id, self._step.number)
            if claim is None or claim.state is ClaimState.FENCED:
                message = "This attempt's money was given up meanwhile. It begins anew."
                raise StorageUnavailableError(message) from None
            return await _told(gateway, chain, claim)
        if self._claim is None:
            return happened_out(_patient(event))
        return await self._written(self._claim, execution, event)

    async def _take(self, sent: Sent) -> bool:
        hold = sent.held.hold
        claim = Claim(
            self._step.number,
            ClaimState.SENT,
            hold.session.name,
            hold.amount,
            sent.deployment.id,
            at=sent.began_at,
        )
        self._claim = await self._gateway.chains.take(self._chain.id, claim)
        return self._claim is not None

    async def _watched(self, execution: Execution) -> Happened:
        """Perform the attempt, until it has ended or its chain is cancelled."""
        asking = asyncio.get_running_loop().create_task(execution.ask_whole(self._step))
        try:
            while not asking.done():
                await asyncio.wait((asking,), timeout=LOOK_SECONDS)
                if not asking.done() and await self._is_cancelled():
                    asking.cancel()
                    await asyncio.wait((asking,))
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait((asking,))
        return Cancelled() if asking.cancelled() else asking.result()

    async def _is_cancelled(self) -> bool:
        with contextlib.suppress(StorageUnavailableError):
            return (await self._gateway.chains.get(self._chain.id)).cancelling
        return False

    async def _written(self, claim: Claim, execution: Execution, event: Happened) -> dict[str, Any]:
        """Write down what came of the attempt, trying for long: an answer is at hand that was paid for."""
        record, completion = execution.attempts[-1], execution.completion
        happened = happened_out(event)
        answered = completion is not None and isinstance(event, Succeeded)
        body = orjson.dumps(completion.payload) if completion is not None and answered else b""
        facts = {"response_model": completion.response_model, "finish_reason": completion.finish_reason} if completion else {}
        done = replace(claim, state=ClaimState.DONE, happened=happened, record=orjson.loads(orjson.dumps(record)), answer=facts)
        for tries in range(FINISH_TRIES):
            try:
                kept = await self._gateway.chains.finish(self._chain.id, done, body)
            except StorageUnavailableError:
                if tries == FINISH_TRIES - 1:
                    raise
                await self._gateway.clock.sleep(1.0)
                continue
            if kept:
                return happened
            break
        known = await self._gateway.chains.claim(self._chain.id, claim.number)
        return happened if known is None or known.happened is None else dict(known.happened)


def _patient(event: Happened) -> Happened:
    """Return a refusal that asks for a pause worth an activity."""
    if isinstance(event, AttemptFailed) and event.failed.retry_after is not None:
        return replace(event, failed=replace(event.failed, retry_after=max(event.failed.retry_after, MIN_PAUSE)))
    return event


async def _told(gateway: Gateway, chain: Chain, claim: Claim) -> dict[str, Any]:
    """Return how an attempt that another run made has ended; wait for it as long as that one lives."""
    while claim.state is not ClaimState.DONE:
        if not await gateway.ledger.alive(claim.session):
            lost = await _lost(gateway, chain, claim)
            if lost is not None:
                return lost
        await gateway.clock.sleep(LOOK_SECONDS)
        claim = await gateway.chains.claim(chain.id, claim.number) or claim
    return dict(claim.happened or {})


async def _lost(gateway: Gateway, chain: Chain, claim: Claim) -> dict[str, Any] | None:
    """Write an attempt down whose process died; None while recovery has yet to say what it was charged."""
    row = await gateway.ledger.attempt(claim.session, chain.request_id, claim.number)
    if row is not None and row.state is IntentState.PENDING:
        return None
    facts = {} if row is None else orjson.loads(row.facts)
    if row is None or "deployment" not in facts:
        return await _give_up(gateway, chain, claim)
    return await _finish_lost(gateway, chain, claim, attempt_of(row, Fields(facts)))


async def _give_up(gateway: Gateway, chain: Chain, claim: Claim) -> dict[str, Any] | None:
    """Write an attempt down of which nothing is known but what was held for it."""
    deployment = gateway.catalog.current.deployments.get(claim.deployment)
    record = AttemptRecord(
        number=claim.number,
        deployment=claim.deployment,
        model="" if deployment is None else deployment.model,
        provider="" if deployment is None else deployment.provider,
        started_at=claim.at,
        duration_ms=0.0,
        outcome=LOST,
        cost=claim.held,
        exact=False,
    )
    return await _finish_lost(gateway, chain, claim, record)


async def _finish_lost(gateway: Gateway, chain: Chain, claim: Claim, record: AttemptRecord) -> dict[str, Any] | None:
    failed = Failed(FailureKind.DISCONNECTED, "The process that made this attempt died before it ended.")
    happened = happened_out(AttemptFailed(0.0, failed, billed=record.cost))
    # Its answer, if there was one, died with the process: whatever it was charged, it did not succeed.
    written = orjson.loads(orjson.dumps(replace(record, outcome=LOST)))
    done = replace(claim, state=ClaimState.DONE, happened=happened, record=written)
    return happened if await gateway.chains.finish(chain.id, done) else None


# ---- the end ---------------------------------------------------------------------------------------------------------


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
    return True


async def _end(
    gateway: Gateway, chain: Chain, *, answered: bool = False, error: GatewayError | None = None, code: str | None = None
) -> str:
    """Write the end: answered, cancelled (no error), or failed."""
    if chain.state.ended:
        return chain.state.value
    claims = await _all_done(gateway, chain)
    answer = next((one for one in reversed(claims) if _succeeded(one)), None) if answered else None
    state = State.COMPLETED if answer is not None else State.CANCELLED if error is None else State.FAILED
    outcome = SUCCEEDED if answer is not None else "cancelled" if error is None else code or outcome_name(error)
    record = await _record(gateway, chain, claims, outcome)
    if await gateway.usage.insert_recovered([record]):
        gateway.metrics.observe(record)
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


async def _all_done(gateway: Gateway, chain: Chain) -> list[Claim]:
    """Return the attempts that were sent, all ended: one that nobody will end any more is charged what was held for it."""
    for claim in await gateway.chains.claims(chain.id):
        if claim.state is ClaimState.SENT and await _lost(gateway, chain, claim) is None:
            await _give_up(gateway, chain, claim)
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
        operation=chain.facts["operation"],
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
        tags=chain.caller.tags,
        trace=orjson.loads(trace) if trace else {},
    )
