"""One attempt of a chain: claimed, sent by one run alone, and told to every other; or taken for lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from shared.background.beginning import NO_RIGHT_CODE
from shared.background.places import served_of
from shared.chains import Chain, Claim, ClaimState, State
from shared.core.chain import (
    Cancelled,
    Happened,
    attempt_in,
    happened_out,
)
from shared.core.chat import AUTO, InferenceRequest
from shared.core.errors import StorageUnavailableError
from shared.core.failover import Attempt, AttemptFailed, Succeeded
from shared.core.failures import Failed, FailureKind
from shared.core.fields import Fields
from shared.core.fitness import models_named
from shared.core.records import LOST, AttemptRecord, Caller
from shared.execution import ClaimedElsewhereError, Claiming, Execution, Sent
from shared.gateway import Gateway
from shared.ledger import IntentState
from shared.recovery import attempt_of
from shared.rights import caller_now, limits_of, tokens_of
from shared.tracing import serving

LOOK_SECONDS: Final = 1.0
"""How often an attempt looks whether its chain was cancelled, and a second run of it whether the first has ended."""
MIN_PAUSE: Final = 2.0
"""Seconds before a candidate that could not take an attempt is asked again: each time is an activity of its own."""
FINISH_TRIES: Final = 30
NO_RIGHT: Final = Failed(
    FailureKind.INVALID_REQUEST,
    "The key that asked for this has expired, was revoked, or may no longer ask for this model.",
    code=NO_RIGHT_CODE,
)

Read = Callable[[Gateway, Caller, str, dict[str, Any]], Awaitable[InferenceRequest]]
"""Reads a stored body of an endpoint into the request it stands for."""


async def attempt(gateway: Gateway, given: Mapping[str, Any], read: Read) -> dict[str, Any]:
    """Make one attempt, or take what became of it; return how it ended (`shared.core.chain.happened_out`).

    Raise `StorageUnavailableError` when nothing can be said now: then the engine asks again.
    """
    chain = await gateway.chains.get(given["id"])
    with serving(served_of(gateway, chain)):
        return await _attempted(gateway, chain, attempt_in(given), read)


async def _attempted(gateway: Gateway, chain: Chain, step: Attempt, read: Read) -> dict[str, Any]:
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
    caller = await caller_now(gateway, chain.caller)
    if caller is None or not _may_ask(gateway, caller, chain, step):
        return happened_out(AttemptFailed(0.0, NO_RIGHT))
    step = replace(step, remaining=min(step.remaining, chain.deadline - now))
    status = {"attempt": step.number, "deployment": step.candidate.deployment, "since": now}
    await gateway.chains.change(
        chain.id, lambda one: replace(one, state=State.IN_PROGRESS, started_at=one.started_at or now, status=status)
    )
    request = await read(gateway, chain.caller, chain.path, orjson.loads(await gateway.chains.body(chain.id)))
    return await _Attempting(gateway, replace(chain, caller=caller), step).make(request)


def _may_ask(gateway: Gateway, caller: Caller, chain: Chain, step: Attempt) -> bool:
    """Say whether a key may still ask for this: what it may changes while its chains wait."""
    if caller.models is None or (chain.facts.get("model") == AUTO and AUTO in caller.models):
        return True
    return step.candidate.model in models_named(caller.models, gateway.catalog.current)


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
        happened = await self._written(self._claim, execution, event)
        await self._count(execution)  # not before: until the answer is written, it dies with this process
        return happened

    async def _count(self, execution: Execution) -> None:
        """Count the tokens against the caller's limits that were not counted when the chain was asked for."""
        usage = execution.attempts[-1].usage
        if usage is not None:
            counted = tokens_of(execution.requirements) if self._step.number == 1 else 0
            limited = limits_of(self._gateway, self._chain.caller)
            await self._gateway.limits.charge(limited, usage.input_tokens + usage.output_tokens - counted)

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
            ended = await lost(gateway, chain, claim)
            if ended is not None:
                return ended
        await gateway.clock.sleep(LOOK_SECONDS)
        claim = await gateway.chains.claim(chain.id, claim.number) or claim
    return dict(claim.happened or {})


async def lost(gateway: Gateway, chain: Chain, claim: Claim) -> dict[str, Any] | None:
    """Write an attempt down whose process died; None while recovery has yet to say what it was charged."""
    row = await gateway.ledger.attempt(claim.session, chain.request_id, claim.number)
    if row is not None and row.state is IntentState.PENDING:
        return None
    facts = {} if row is None else orjson.loads(row.facts)
    if row is None or "deployment" not in facts:
        return await give_up(gateway, chain, claim)
    return await _finish_lost(gateway, chain, claim, attempt_of(row, Fields(facts)))


async def give_up(gateway: Gateway, chain: Chain, claim: Claim) -> dict[str, Any] | None:
    """Write an attempt down of which nothing is known but what was held for it."""
    registry = gateway.catalog.current
    deployment = registry.deployments.get(claim.deployment)
    record = AttemptRecord(
        number=claim.number,
        deployment=claim.deployment,
        model="" if deployment is None else deployment.model,
        provider="" if deployment is None else deployment.provider,
        semconv_name=None if deployment is None else registry.providers[deployment.provider].semconv_name,
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
