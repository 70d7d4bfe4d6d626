"""One request while it is being executed: its plan, its attempts, and the one record that is written when it ends.

Whatever happens — an answer, a refusal, a cut stream, a client that left, a cancelled task — `Execution.close` runs once and
the usage log gets every attempt that was sent, with what it cost or may have cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from shared.core import pricing, router, trace
from shared.core.chat import Chunk, Completion, InferenceRequest, Usage
from shared.core.failover import Attempt, AttemptFailed, Succeeded
from shared.core.failures import RULES, Billing, Failed, FailureKind
from shared.core.health import HealthSnapshot
from shared.core.records import SUCCEEDED, AttemptRecord, Caller, RequestRecord
from shared.core.registry import Deployment, Timeouts
from shared.core.route import Candidate, Route
from shared.gateway import Gateway
from shared.ports import Call

CHARACTERS_PER_TOKEN = 4
"""What stands in for a tokenizer where a provider never reported: an underestimate, and marked as one."""


@dataclass(slots=True)
class Open:
    """A stream whose first content event has arrived; ``opening`` are the events up to it, and those that came with it."""

    events: AsyncGenerator[list[Chunk | Failed], None]
    opening: list[Chunk | Failed]
    sent: Sent
    first_content_at: float


@dataclass(frozen=True, slots=True)
class Sent:
    """An attempt on its way: who was asked, as which number, since when (monotonic and wall seconds)."""

    candidate: Candidate
    deployment: Deployment
    number: int
    began: float
    began_at: float


class Execution:
    """The state of one request. Made per request, closed once."""

    def __init__(self, gateway: Gateway, caller: Caller, request: InferenceRequest, request_id: str) -> None:
        self.gateway = gateway
        self.caller = caller
        self.request = request
        self.request_id = request_id
        self.registry = gateway.catalog.current
        self.began = gateway.clock.monotonic()
        self.began_at = gateway.clock.now()
        self.day: date = datetime.fromtimestamp(self.began_at, UTC).date()
        self.draw = gateway.clock.draw()
        self.health = HealthSnapshot()
        self.route: Route | None = None
        self.attempts: list[AttemptRecord] = []
        self.not_admitted: list[str] = []
        self.completion: Completion | None = None
        self.open: Open | None = None
        self.first_content_ms: float | None = None
        self._closed = False

    # ---- the decision ------------------------------------------------------------------------------------------------

    def plan(self) -> Route:
        """Make the route; raise a `GatewayError` when nobody can serve the request."""
        requirements = self.request.requirements
        self.health = self.gateway.health.snapshot(self.began)
        self.route = router.plan(
            requirements, self.registry, self.health, day=self.day, draw=self.draw, allowed=self.caller.models
        )
        if not self.route.candidates:
            raise router.no_candidate_error(self.route, requirements)
        return self.route

    # ---- the attempts ------------------------------------------------------------------------------------------------

    async def ask_whole(self, step: Attempt) -> Succeeded | AttemptFailed:
        """Perform an attempt for a whole answer; the answer is left in ``completion``."""
        sent = self._admitted(step)
        if isinstance(sent, AttemptFailed):
            return sent
        call = self._call(step, sent.deployment, stream=False)
        adapter = self.gateway.providers[call.provider.kind]
        try:
            result = await adapter.complete(call)
        except BaseException:  # cancelled, or a defect: what was sent must be written down either way
            self._left(sent)
            raise
        if isinstance(result, Failed):
            return self._failed(sent, result)
        self.completion = result
        self._answered(sent, result.usage, response_model=result.response_model, request_id=result.headers.get("x-request-id"))
        return Succeeded(self.elapsed())

    async def ask_stream(self, step: Attempt) -> Succeeded | AttemptFailed:
        """Perform an attempt for a streamed answer, up to its first content event; the stream is left in ``open``."""
        sent = self._admitted(step)
        if isinstance(sent, AttemptFailed):
            return sent
        call = self._call(step, sent.deployment, stream=True)
        events = self.gateway.providers[call.provider.kind].stream(call)
        opening: list[Chunk | Failed] = []
        result: Failed | None
        try:
            async with asyncio.timeout(call.timeouts.first_content):
                result = await _until_content(events, opening)
        except TimeoutError:
            seconds = call.timeouts.first_content
            result = Failed(FailureKind.TIMEOUT, f"{sent.deployment.id} sent no content within {seconds:.0f} s.")
        except BaseException:  # cancelled, or a defect: what was sent must be written down either way
            self._left(sent)
            await events.aclose()
            raise
        if result is not None:
            await events.aclose()
            return self._failed(sent, result)
        now = self.gateway.clock.monotonic()
        self.first_content_ms = (now - self.began) * 1000
        self.open = Open(events, opening, sent, now)
        return Succeeded(self.elapsed())

    def _admitted(self, step: Attempt) -> Sent | AttemptFailed:
        deployment = self.registry.deployments[step.candidate.deployment]
        now = self.gateway.clock.monotonic()
        refusal = self.gateway.health.admit(deployment.id, now, concurrency=deployment.limits.concurrency, forced=step.forced)
        if refusal is None:
            return Sent(step.candidate, deployment, step.number, now, self.began_at + (now - self.began))
        self.not_admitted.append(refusal.reason)
        failed = Failed(FailureKind.NOT_ADMITTED, refusal.reason, retry_after=refusal.retry_after)
        return AttemptFailed(self.elapsed(), failed)

    def _call(self, step: Attempt, deployment: Deployment, *, stream: bool) -> Call:
        asked = deployment.timeouts or self.registry.policy.failover.timeouts
        left = step.remaining
        model = self.registry.models[deployment.model]
        return Call(
            operation=self.request.requirements.operation,
            payload=self._bounded_payload(deployment),
            stream=stream,
            provider=self.registry.providers[deployment.provider],
            model=model,
            deployment=deployment,
            # The chain's deadline ends with the first content: a long answer that has begun is not cut by it.
            timeouts=Timeouts(
                connect=min(asked.connect, left),
                first_content=min(asked.first_content, left),
                idle=asked.idle,
                whole=asked.whole if stream else min(asked.whole, left),
            ),
            request_id=self.request_id,
        )

    def _bounded_payload(self, deployment: Deployment) -> Any:
        # A cost limit only holds if the output is bounded: what the price was computed for is what is sent.
        requirements = self.request.requirements
        if requirements.budget_limit is None or requirements.max_output_tokens is not None:
            return self.request.payload
        bound = router.output_bound(requirements, self.registry.models[deployment.model], self.registry.policy)
        return {**self.request.payload, "max_tokens": bound} if bound else self.request.payload

    # ---- how attempts end --------------------------------------------------------------------------------------------

    def _answered(self, sent: Sent, usage: Usage | None, *, response_model: str | None, request_id: str | None) -> None:
        now = self.gateway.clock.monotonic()
        self.gateway.health.succeeded(sent.deployment.id, started_at=sent.began, now=now)
        self._write(sent, SUCCEEDED, usage or self._seen(0), response_model=response_model, provider_request_id=request_id)

    def _failed(self, sent: Sent, failed: Failed) -> AttemptFailed:
        now = self.gateway.clock.monotonic()
        self.gateway.health.failed(sent.deployment.id, failed.kind, now=now, retry_after=failed.retry_after)
        maybe_billed = RULES[failed.kind].billing is Billing.UNKNOWN
        record = self._write(sent, failed.kind.value, self._seen(0) if maybe_billed else None, failed=failed)
        return AttemptFailed(self.elapsed(), failed, billed=record.cost)

    def _left(self, sent: Sent) -> None:
        self.gateway.health.cancelled(sent.deployment.id)
        self._write(sent, FailureKind.CANCELLED.value, self._seen(0))

    def stream_ended(self, stream: Open, seen: Seen, failed: Failed | None) -> None:
        """Write down a committed stream: it came to its end (``failed`` None), broke, or its client left (CANCELLED)."""
        sent = stream.sent
        health = self.gateway.health
        now = self.gateway.clock.monotonic()
        usage = seen.usage or self._seen(seen.text_length)
        outcome = SUCCEEDED if failed is None else failed.kind.value
        if failed is None:
            health.succeeded(sent.deployment.id, started_at=sent.began, now=now, first_content_at=stream.first_content_at)
        elif failed.kind is FailureKind.CANCELLED:
            health.cancelled(sent.deployment.id)
        else:
            health.failed(sent.deployment.id, failed.kind, now=now)
        self._write(
            sent,
            outcome,
            usage,
            failed=failed,
            response_model=seen.response_model,
            first_content_ms=(stream.first_content_at - sent.began) * 1000,
        )

    def _seen(self, text_length: int) -> Usage:
        """Return what is known to have gone by, when no provider reported: an underestimate."""
        return Usage(
            input_tokens=self.request.requirements.input_tokens,
            output_tokens=-(-text_length // CHARACTERS_PER_TOKEN),
            exact=False,
        )

    def _write(
        self,
        sent: Sent,
        outcome: str,
        usage: Usage | None,
        *,
        failed: Failed | None = None,
        response_model: str | None = None,
        provider_request_id: str | None = None,
        first_content_ms: float | None = None,
    ) -> AttemptRecord:
        deployment = sent.deployment
        record = AttemptRecord(
            number=sent.number,
            deployment=deployment.id,
            model=deployment.model,
            provider=deployment.provider,
            started_at=sent.began_at,
            duration_ms=(self.gateway.clock.monotonic() - sent.began) * 1000,
            outcome=outcome,
            region=deployment.region,
            status=failed.status if failed else None,
            first_content_ms=first_content_ms,
            usage=usage,
            cost=self._cost(deployment, usage),
            exact=usage is None or usage.exact,
            response_model=response_model,
            provider_request_id=provider_request_id or (failed.provider_request_id if failed else None),
            message=failed.message if failed else None,
        )
        self.attempts.append(record)
        return record

    def _cost(self, deployment: Deployment, usage: Usage | None) -> int | None:
        if usage is None:
            return 0  # the provider does not charge for this outcome
        price = pricing.price_on(deployment.prices, self.day)
        return None if price is None else pricing.cost(price, usage)

    # ---- the end -----------------------------------------------------------------------------------------------------

    def elapsed(self) -> float:
        """Return the seconds since the request began."""
        return self.gateway.clock.monotonic() - self.began

    @property
    def cost(self) -> int | None:
        """The sum over all attempts in nano-USD; None when one of them is not known."""
        total = 0
        for attempt in self.attempts:
            if attempt.cost is None:
                return None
            total += attempt.cost
        return total

    def close(self, outcome: str) -> None:
        """Write the record, once; later calls change nothing."""
        if self._closed:
            return
        self._closed = True
        requirements = self.request.requirements
        answered = next((attempt for attempt in self.attempts if attempt.outcome == SUCCEEDED), None)
        record = RequestRecord(
            request_id=self.request_id,
            key_id=self.caller.key_id,
            project=self.caller.project,
            operation=requirements.operation,
            original_model=requirements.model,
            task=requirements.task,
            stream=requirements.stream,
            started_at=self.began_at,
            duration_ms=self.elapsed() * 1000,
            outcome=outcome,
            attempts=tuple(self.attempts),
            model=answered.model if answered else None,
            deployment=answered.deployment if answered else None,
            first_content_ms=self.first_content_ms,
            cost=self.cost,
            exact=all(attempt.exact for attempt in self.attempts),
            simulated=self.gateway.settings.simulated,
            trace=self._trace(),
        )
        self.gateway.usage.record(record)
        self.gateway.metrics.observe(record)

    def _trace(self) -> dict[str, Any]:
        if self.route is None:
            return {}
        written = trace.record(
            self.request.requirements,
            self.registry,
            self.health,
            day=self.day,
            draw=self.draw,
            allowed=self.caller.models,
            route=self.route,
        )
        return {**written, "not_admitted": self.not_admitted} if self.not_admitted else written


@dataclass(slots=True)
class Seen:
    """What went by in a stream: the usage the provider reported, or at least the length of the text."""

    usage: Usage | None = None
    text_length: int = 0
    response_model: str | None = None

    def note(self, chunk: Chunk) -> None:
        """Take one event in."""
        self.text_length += chunk.text_length
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.response_model is not None:
            self.response_model = chunk.response_model

    def partial(self) -> Seen:
        """Return the same for a stream that did not come to its end: what was reported so far is an underestimate."""
        return replace(self, usage=None if self.usage is None else replace(self.usage, exact=False))


async def _until_content(events: AsyncGenerator[list[Chunk | Failed], None], opening: list[Chunk | Failed]) -> Failed | None:
    async for batch in events:
        opening += batch
        for event in batch:
            if isinstance(event, Failed):
                return event
            if event.content:
                return None
    return Failed(FailureKind.EMPTY_RESPONSE, "The stream ended without any content.")
