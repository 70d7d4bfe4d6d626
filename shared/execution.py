"""One request while it is being executed: its plan, its attempts, and the one record that is written when it ends.

Whatever happens — an answer, a refusal, a cut stream, a client that left, a cancelled task — `Execution.close` runs once and
the usage log gets every attempt that was sent, with what it cost or may have cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from shared.core import content, router, trace
from shared.core.chat import Chunk, Completion, InferenceRequest, Usage
from shared.core.errors import RateLimitError
from shared.core.failover import Attempt, AttemptFailed, Succeeded
from shared.core.failures import RULES, Billing, Failed, FailureKind
from shared.core.health import HealthSnapshot
from shared.core.records import SUCCEEDED, AttemptRecord, Caller, RequestRecord
from shared.core.registry import Deployment, Timeouts
from shared.core.route import Candidate, Route
from shared.core.seen import Seen
from shared.core.telemetry import Content
from shared.gateway import Gateway
from shared.gauges import tell_breakers
from shared.limits import UNLIMITED, Limited, Ticket
from shared.ports import Call
from shared.rights import limits_of, tokens_of
from shared.spending import Held, Spending
from shared.tracing import SERVED

OUTPUT_LIMITS: Final = frozenset({"max_tokens", "max_completion_tokens"})
MAX_NAME: Final = 256
"""Characters kept of the model's name a caller asked for: it may be anything."""
CHARACTERS_PER_TOKEN: Final = 4
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
    """An attempt on its way: who was asked, as which number, since when (monotonic and wall seconds), with what money."""

    candidate: Candidate
    deployment: Deployment
    number: int
    began: float
    began_at: float
    held: Held
    ticket: Ticket | None


@dataclass(frozen=True, slots=True)
class Claiming:
    """How the attempts of a request that outlives its processes are claimed.

    ``take`` is awaited between holding an attempt's money and sending it; when it says no, nothing is sent. ``began_at`` is
    when the request began (epoch seconds), ``facts`` are written down with its money.
    """

    take: Callable[[Sent], Awaitable[bool]]
    began_at: float
    facts: Mapping[str, Any]


class ClaimedElsewhereError(Exception):
    """The attempt is somebody else's; nothing was sent."""


class Execution:
    """The state of one request, or, with ``claiming``, of one attempt of a request. Made per request, closed once."""

    def __init__(
        self,
        gateway: Gateway,
        caller: Caller,
        request: InferenceRequest,
        request_id: str,
        *,
        claiming: Claiming | None = None,
    ) -> None:
        self.gateway = gateway
        self.caller = caller
        self.request = request
        self.request_id = request_id
        self.registry = gateway.catalog.current
        now = gateway.clock.now()
        self.began_at = now if claiming is None else claiming.began_at
        self.began = gateway.clock.monotonic() - (now - self.began_at)
        self.day: date = datetime.fromtimestamp(now, UTC).date()
        self.claiming = claiming
        self.draw = gateway.clock.draw()
        self.health = HealthSnapshot()
        self.route: Route | None = None
        self.attempts: list[AttemptRecord] = []
        self.not_admitted: list[str] = []
        self.completion: Completion | None = None
        self.open: Open | None = None
        self.first_content_ms: float | None = None
        self.requirements = request.requirements
        self.admission = UNLIMITED
        self.spending = Spending(
            gateway,
            caller,
            self.registry,
            request_id=request_id,
            moment=now,
            day=self.day,
            written=claiming is not None,
        )
        served = SERVED.get()
        ours = served is not None and served.request_id == request_id
        self.place = served.trace if served is not None and ours else gateway.telemetry.trace(None)
        self.output = ""
        self._closed = False

    # ---- the decision ------------------------------------------------------------------------------------------------

    async def admit(self) -> None:
        """Count the request against its key's and project's limits; raise `RateLimitError`."""
        limited = limits_of(self.gateway, self.caller)
        if limited:
            self.admission = admission = await self.gateway.limits.admit(limited, tokens=tokens_of(self.requirements))
            if not admission.allowed:
                message = (
                    f"The limit of {admission.what} per minute of {admission.refused_by and admission.refused_by.subject} is "
                    "used up. Wait as long as Retry-After says."
                )
                raise RateLimitError(
                    message, code="rate_limit_exceeded", retry_after=admission.retry_after, headers=admission.headers
                )

    async def plan(self) -> Route:
        """Make the route; raise a `GatewayError` when nobody can serve the request."""
        self.requirements = requirements = await self.spending.economised(self.requirements)
        self.gateway.shared_health.touch(self.began)
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
        sent = await self._admitted(step)
        if isinstance(sent, AttemptFailed):
            return sent
        call = self._call(step, sent, stream=False)
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
        sent = await self._admitted(step)
        if isinstance(sent, AttemptFailed):
            return sent
        call = self._call(step, sent, stream=True)
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
            failed = self._failed(sent, result)  # before anything is waited for: whoever waits can be cancelled
            await events.aclose()
            return failed
        now = self.gateway.clock.monotonic()
        self.first_content_ms = (now - self.began) * 1000
        self.open = Open(events, opening, sent, now)
        return Succeeded(self.elapsed())

    async def _admitted(self, step: Attempt) -> Sent | AttemptFailed:
        """Pass what stands between a step of the plan and its being sent: breaker, the deployment's limits, the budgets."""
        deployment = self.registry.deployments[step.candidate.deployment]
        health = self.gateway.health
        if health.needs_lease(deployment.id, self.gateway.clock.monotonic()):
            await self.gateway.shared_health.claim(deployment.id)
        now = self.gateway.clock.monotonic()
        refusal = health.admit(deployment.id, now, concurrency=deployment.limits.concurrency, forced=step.forced)
        if refusal is not None:
            return self._refused(FailureKind.NOT_ADMITTED, refusal.reason, refusal.retry_after)
        ticket = held = None
        try:
            limits = deployment.limits
            if limits.requests_per_minute is not None or limits.tokens_per_minute is not None:
                limited = Limited(f"deployment:{deployment.id}", limits.requests_per_minute, limits.tokens_per_minute)
                admission = await self.gateway.limits.admit((limited,), tokens=tokens_of(self.requirements))
                if not admission.allowed:
                    reason = f"{deployment.id} has used up its {admission.what} per minute"
                    return self._refused(FailureKind.NOT_ADMITTED, reason, admission.retry_after)
                ticket = admission.ticket
            held = await self.spending.hold(self.requirements, step.candidate, step.number, facts=self._facts(deployment))
            if held is None:
                return self._refused(FailureKind.OVER_BUDGET, f"a budget does not cover {deployment.id}", None)
        finally:
            if held is None:
                health.cancelled(deployment.id)
                self.gateway.limits.release(ticket)
        now = self.gateway.clock.monotonic()
        sent = Sent(step.candidate, deployment, step.number, now, self.began_at + (now - self.began), held, ticket)
        if self.claiming is not None:
            await self._claim(sent, self.claiming)
        return sent

    async def _claim(self, sent: Sent, claiming: Claiming) -> None:
        claimed = False
        try:
            claimed = await claiming.take(sent)
        finally:
            if not claimed:
                self.gateway.health.cancelled(sent.deployment.id)
                self.gateway.limits.release(sent.ticket)
                self.spending.release(sent.held)
        if not claimed:
            raise ClaimedElsewhereError

    def _refused(self, kind: FailureKind, reason: str, retry_after: float | None) -> AttemptFailed:
        self.not_admitted.append(reason)
        return AttemptFailed(self.elapsed(), Failed(kind, reason, retry_after=retry_after))

    def _facts(self, deployment: Deployment) -> dict[str, Any]:
        """Return what recovery needs to write this attempt's usage down, should this process die."""
        requirements, caller = self.requirements, self.caller
        return {
            "key_id": caller.key_id,
            "project": caller.project,
            "tags": caller.tags,
            "operation": requirements.operation,
            "original_model": requirements.model[:MAX_NAME],
            "task": requirements.task,
            "stream": requirements.stream,
            "started_at": self.began_at,
            "simulated": self.gateway.settings.simulated,
            "deployment": deployment.id,
            "model": deployment.model,
            "provider": deployment.provider,
            "semconv_name": self.registry.providers[deployment.provider].semconv_name or None,
            "region": deployment.region,
            **({} if self.claiming is None else self.claiming.facts),
        }

    def _call(self, step: Attempt, sent: Sent, *, stream: bool) -> Call:
        deployment = sent.deployment
        asked = deployment.timeouts or self.registry.policy.failover.timeouts
        left = step.remaining
        model = self.registry.models[deployment.model]
        return Call(
            operation=self.requirements.operation,
            payload=self._bounded_payload(sent),
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

    def _bounded_payload(self, sent: Sent) -> Any:
        # A limit on the cost only holds if the output is bounded: what the price was computed for is what is sent.
        requirements, payload = self.requirements, self.request.payload
        bound, asked = sent.held.output_tokens, requirements.max_output_tokens
        if bound is None and requirements.budget_limit is not None and asked is None:
            bound = router.output_bound(requirements, self.registry.models[sent.deployment.model], self.registry.policy)
        if not bound or bound == asked:
            return payload
        return {**{name: value for name, value in payload.items() if name not in OUTPUT_LIMITS}, "max_tokens": bound}

    # ---- how attempts end --------------------------------------------------------------------------------------------

    def _answered(self, sent: Sent, usage: Usage | None, *, response_model: str | None, request_id: str | None) -> None:
        now = self.gateway.clock.monotonic()
        self.gateway.health.succeeded(sent.deployment.id, started_at=sent.began, now=now)
        self._write(sent, SUCCEEDED, usage or self._seen(0), response_model=response_model, provider_request_id=request_id)

    def _failed(self, sent: Sent, failed: Failed) -> AttemptFailed:
        now = self.gateway.clock.monotonic()
        self.gateway.health.failed(
            sent.deployment.id, failed.kind, now=now, retry_after=failed.retry_after, started_at=sent.began
        )
        tell_breakers(self.gateway)
        maybe_billed = RULES[failed.kind].billing is Billing.UNKNOWN
        record = self._write(sent, failed.kind.value, self._seen(0) if maybe_billed else None, failed=failed)
        # What was seen going in is less than what may be billed: against a limit of the caller's, the most counts.
        billed = record.cost if record.exact or sent.held.hard else None
        return AttemptFailed(self.elapsed(), failed, billed=billed)

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
            health.failed(sent.deployment.id, failed.kind, now=now, started_at=sent.began)
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
            input_tokens=self.requirements.input_tokens,
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
        charged = self._settle(sent, outcome, usage)
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
            cost=charged,
            exact=usage is None or usage.exact,
            response_model=response_model,
            provider_request_id=provider_request_id or (failed.provider_request_id if failed else None),
            message=failed.message if failed else None,
            semconv_name=self.registry.providers[deployment.provider].semconv_name or None,
        )
        self.attempts.append(record)
        return record

    def _settle(self, sent: Sent, outcome: str, usage: Usage | None) -> int | None:
        """Settle an attempt with the ledger and the deployment's limits; return what it was charged."""
        tokens = 0 if usage is None else usage.input_tokens + usage.output_tokens
        self.gateway.limits.settle(sent.ticket, tokens)
        facts: dict[str, Any] = {"outcome": outcome, "ended_at": self.gateway.clock.now()}
        if usage is not None:
            facts["usage"] = usage
        return self.spending.settle(sent.held, usage, facts=facts)

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
        requirements = self.requirements
        answered = next((attempt for attempt in self.attempts if attempt.outcome == SUCCEEDED), None)
        record = RequestRecord(
            request_id=self.request_id,
            key_id=self.caller.key_id,
            project=self.caller.project,
            operation=requirements.operation,
            original_model=requirements.model[:MAX_NAME],
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
            billed=None if answered is None else answered.cost,
            tags=self.caller.tags,
            exact=all(attempt.exact for attempt in self.attempts),
            simulated=self.gateway.settings.simulated,
            trace=self.trace(),
        )
        self.gateway.usage.record(record)
        self.gateway.metrics.observe(record)
        self.gateway.telemetry.ended(record, self.place, self._content() if self.gateway.telemetry.content else None)
        self.gateway.ledger.ended(self.request_id)
        used = sum([one.usage.input_tokens + one.usage.output_tokens for one in self.attempts if one.usage is not None])
        self.gateway.limits.settle(self.admission.ticket, used)

    def _content(self) -> Content | None:
        """Return what was asked and answered; only ever made when the operator opted in, and where it will be told."""
        if self.place is None or not self.place.sampled:
            return None
        output = self.output if self.completion is None else content.answered(self.completion.payload)
        return Content(content.asked(self.request.payload), output)

    def trace(self) -> dict[str, Any]:
        """Return the decision as it is written down: what the plan was given, and the route it gave."""
        if self.route is None:
            return {}
        written = trace.record(
            self.requirements,
            self.registry,
            self.health,
            day=self.day,
            draw=self.draw,
            allowed=self.caller.models,
            route=self.route,
        )
        return {**written, "not_admitted": self.not_admitted} if self.not_admitted else written


async def _until_content(events: AsyncGenerator[list[Chunk | Failed], None], opening: list[Chunk | Failed]) -> Failed | None:
    async for batch in events:
        opening += batch
        for event in batch:
            if isinstance(event, Failed):
                return event
            if event.content:
                return None
    return Failed(FailureKind.EMPTY_RESPONSE, "The stream ended without any content.")
