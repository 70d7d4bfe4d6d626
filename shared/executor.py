"""The use cases: answer a request whole or streamed, show its plan, probe what is silent.

A request becomes a route (pure), the route a failover flow (pure); `drive` performs the flow's steps with asyncio, and an
`Execution` keeps the account. Nothing beneath retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from shared.core import router
from shared.core.chat import Capability, Chunk, Completion, InferenceRequest, Operation, Requirements
from shared.core.content import Heard
from shared.core.errors import (
    AllAttemptsFailedError,
    BudgetExceededError,
    ConfigurationError,
    DeadlineExceededError,
    GatewayError,
    InvalidRequestError,
    OverloadedError,
    RateLimitError,
    StorageUnavailableError,
    StreamInterruptedError,
)
from shared.core.failover import Attempt, AttemptFailed, Ended, Event, Outcome, Step, Succeeded, Wait, Waited, failover
from shared.core.failures import CALLERS_FAULT, Failed, FailureKind
from shared.core.health import BreakerState
from shared.core.limits import Header
from shared.core.records import SUCCEEDED, Caller
from shared.core.registry import Deployment
from shared.core.requirements import MESSAGE_BOUND, OVERHEAD_BOUND
from shared.core.route import Candidate, Route
from shared.core.seen import Seen
from shared.execution import Execution, Open
from shared.gateway import Gateway
from shared.health_book import HealthReport
from shared.ports import Clock

PROBER: Final = Caller(key_id="probe", project="switchyard", name="health probe")
PROBE_TEXT: Final = "ping"
PROBE_TOKENS: Final = 16
PROBE_INPUT_BOUND: Final = OVERHEAD_BOUND + MESSAGE_BOUND + len(PROBE_TEXT)
SILENT_AFTER: Final = 600.0
"""Seconds without a call after which a deployment's health is no longer known."""

Perform = Callable[[Attempt], Awaitable[Succeeded | AttemptFailed]]

CANCELLED: Final = Failed(FailureKind.CANCELLED, "The client closed the connection.")
THROTTLED: Final = frozenset({FailureKind.RATE_LIMITED, FailureKind.QUOTA_EXHAUSTED})


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer and how it came about. ``cost`` is nano-USD over all attempts, None when not known.

    ``limits`` are the headers that tell what is left of the caller's limits.
    """

    request_id: str
    completion: Completion
    route: Route
    model: str
    deployment: str
    attempts: int
    cost: int | None
    simulated: bool
    limits: tuple[Header, ...] = ()


class AnswerStream:
    """A streamed answer from its first content event on. Iterate it once, by event or by ``batches``; always close it.

    Raises `StreamInterruptedError` when it breaks. ``cost`` is known once it has ended.
    """

    def __init__(self, execution: Execution, stream: Open, route: Route, attempts: int) -> None:
        self.request_id = execution.request_id
        self.route = route
        self.model = stream.sent.deployment.model
        self.deployment = stream.sent.deployment.id
        self.attempts = attempts
        self.simulated = execution.gateway.settings.simulated
        self.limits = execution.admission.headers
        self._execution = execution
        self._stream = stream
        self._seen = Seen()
        self._heard = Heard() if execution.gateway.telemetry.content else None
        self._ended = False
        self.batches = self._pump()

    @property
    def cost(self) -> int | None:
        """Nano-USD over all attempts of the request, once it has ended; None before, or when not known."""
        return self._execution.cost if self._ended else None

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        async for batch in self.batches:
            for chunk in batch:
                yield chunk

    async def aclose(self) -> None:
        """Drop the provider's connection if the stream has not ended, and write down what went by."""
        try:
            await self.batches.aclose()
            await self._stream.events.aclose()
        finally:
            self._end(CANCELLED)

    async def _pump(self) -> AsyncGenerator[list[Chunk], None]:
        stream = self._stream
        failed = None
        try:
            chunks, failed = self._taken(stream.opening)
            yield chunks
            while failed is None and (batch := await anext(stream.events, None)) is not None:
                chunks, failed = self._taken(batch)
                if chunks:
                    yield chunks
            if failed is not None:
                self._end(Failed(FailureKind.INTERRUPTED, failed.message, status=failed.status))
                message = f"The answer was cut off: {failed.message} What came before stands; ask again for the rest."
                raise StreamInterruptedError(message, code="stream_interrupted")
            self._end(None)
        finally:
            self._end(CANCELLED)
            await stream.events.aclose()

    def _taken(self, batch: list[Chunk | Failed]) -> tuple[list[Chunk], Failed | None]:
        """Take note of what came together; return the events of the answer, and the failure that ended it."""
        chunks: list[Chunk] = []
        for event in batch:
            if isinstance(event, Failed):
                return chunks, event
            self._seen.note(event)
            if self._heard is not None:
                self._heard.note(event)
            chunks.append(event)
        return chunks, None

    def _end(self, failed: Failed | None) -> None:
        if self._ended:
            return
        self._ended = True
        if self._heard is not None:
            self._execution.output = self._heard.text()
        self._execution.stream_ended(self._stream, self._seen if failed is None else self._seen.partial(), failed)
        self._execution.close(SUCCEEDED if failed is None else failed.kind.value)


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that got no answer, and what its attempts cost together (nano-USD), None when that is not known."""

    error: GatewayError
    cost: int | None


async def complete(gateway: Gateway, caller: Caller, request: InferenceRequest, *, request_id: str) -> Answer:
    """Answer whole (chat or embeddings); raise a `GatewayError` when no allowed candidate could."""
    return await _complete(Execution(gateway, caller, request, request_id))


async def ask(gateway: Gateway, caller: Caller, request: InferenceRequest, *, request_id: str) -> Answer | Refused:
    """Answer whole, for somebody who accounts for what gets no answer too."""
    execution = Execution(gateway, caller, request, request_id)
    try:
        return await _complete(execution, patient=True)
    except GatewayError as error:
        return Refused(error, execution.cost)


async def _complete(execution: Execution, *, patient: bool = False) -> Answer:
    gateway = execution.gateway
    with _closing(execution, patient=patient):
        route, outcome = await _run(execution, execution.ask_whole)
        completion, candidate = execution.completion, outcome.candidate
        if completion is None or candidate is None:
            raise _failure(execution, outcome, route)
        execution.close(SUCCEEDED)
    return Answer(
        execution.request_id,
        completion,
        route,
        model=candidate.model,
        deployment=candidate.deployment,
        attempts=outcome.attempts,
        cost=execution.cost,
        simulated=gateway.settings.simulated,
        limits=execution.admission.headers,
    )


async def open_stream(gateway: Gateway, caller: Caller, request: InferenceRequest, *, request_id: str) -> AnswerStream:
    """Answer streamed; return once the first content event is here, or raise a `GatewayError`."""
    execution = Execution(gateway, caller, request, request_id)
    with _closing(execution):
        route, outcome = await _run(execution, execution.ask_stream)
        if execution.open is None:
            raise _failure(execution, outcome, route)
    return AnswerStream(execution, execution.open, route, outcome.attempts)


def plan_route(gateway: Gateway, caller: Caller, requirements: Requirements) -> Route:
    """Return the plan for a request without running it. An empty one says in its note why."""
    clock = gateway.clock
    return router.plan(
        requirements,
        gateway.catalog.current,
        gateway.health.snapshot(clock.monotonic()),
        day=datetime.fromtimestamp(clock.now(), UTC).date(),
        draw=clock.draw(),
        allowed=caller.models,
    )


async def probe(gateway: Gateway, *, request_id: Callable[[], str]) -> dict[str, bool]:
    """Make one small call to every deployment that an open breaker keeps from being called, or that has been silent.

    Only deployments this instance has called before: what nobody uses is not worth a bill. Probes are written down like any
    other request, under the key ``probe``. Returns who answered.
    """
    now = gateway.clock.monotonic()
    registry = gateway.catalog.current
    due = [
        registry.deployments[name]
        for name, report in gateway.health.report(now).items()
        if name in registry.deployments and registry.deployments[name].unavailable is None and _due(report, now)
    ]
    answered = await asyncio.gather(*(_probe_one(gateway, deployment, request_id()) for deployment in due))
    return {deployment.id: well for deployment, well in zip(due, answered, strict=True)}


def _due(report: HealthReport, now: float) -> bool:
    if report.health.admits_in > 0:
        return False
    silent = report.last_call_at is not None and now - report.last_call_at >= SILENT_AFTER
    return silent or report.health.breaker is not BreakerState.CLOSED


async def _probe_one(gateway: Gateway, deployment: Deployment, request_id: str) -> bool:
    embeds = Capability.CHAT not in gateway.catalog.current.models[deployment.model].capabilities
    if embeds:
        payload: dict[str, object] = {"model": deployment.model, "input": PROBE_TEXT}
        requirements = Requirements(
            Operation.EMBEDDINGS, deployment.model, "embeddings", input_tokens=1, input_tokens_bound=PROBE_INPUT_BOUND
        )
    else:
        messages = [{"role": "user", "content": PROBE_TEXT}]
        payload = {"model": deployment.model, "messages": messages, "max_tokens": PROBE_TOKENS}
        requirements = Requirements(
            Operation.CHAT,
            deployment.model,
            "conversation",
            input_tokens=8,
            input_tokens_bound=PROBE_INPUT_BOUND,
            max_output_tokens=PROBE_TOKENS,
        )
    execution = Execution(gateway, PROBER, InferenceRequest(payload, requirements), request_id)
    candidate = Candidate(deployment.id, deployment.model, deployment.provider, ())
    with _closing(execution):
        policy = replace(execution.registry.policy.failover, max_attempts=1, max_wait=0.0)
        outcome = await drive(failover(Route("probe", (candidate,)), policy), execution.ask_whole, gateway.clock)
        well = outcome.ended is Ended.ANSWERED
        execution.close(SUCCEEDED if well else "probe_failed")
    return well


async def drive(flow: Generator[Step, Event, Outcome], perform: Perform, clock: Clock) -> Outcome:
    """Perform a failover flow's steps until it ends: the asyncio driver."""
    began = clock.monotonic()
    event: Event | None = None
    while True:
        try:
            step = next(flow) if event is None else flow.send(event)
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome
        if isinstance(step, Wait):
            await clock.sleep(step.seconds)
            event = Waited(clock.monotonic() - began)
        else:
            event = await perform(step)


async def _run(execution: Execution, perform: Perform) -> tuple[Route, Outcome]:
    await execution.admit()
    route = await execution.plan()
    flow = failover(
        route,
        execution.registry.policy.failover,
        jitter=execution.draw,
        cost_cap=execution.request.requirements.budget_limit,
    )
    return route, await drive(flow, perform, execution.gateway.clock)


class _closing:  # noqa: N801  (reads as what it does: `with _closing(execution)`)
    """Write the execution down when its block is left by an exception, under the right name; a success closes itself.

    Who is ``patient`` comes back when providers have room again: that nobody had any is no failure then.
    """

    __slots__ = ("_execution", "_patient")

    def __init__(self, execution: Execution, *, patient: bool = False) -> None:
        self._execution = execution
        self._patient = patient

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._execution.close(RATE_LIMITED if self._patient and isinstance(error, RateLimitError) else outcome_name(error))


RATE_LIMITED: Final = "rate_limited"
THROTTLED_EVERYWHERE: Final = "throttled"
"""Not the caller's limit, which works as it should, but a failure: no provider had room for the caller."""

OUTCOMES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (asyncio.CancelledError, FailureKind.CANCELLED.value),
    (DeadlineExceededError, "deadline_exceeded"),
    (AllAttemptsFailedError, "all_attempts_failed"),
    (RateLimitError, RATE_LIMITED),
    (BudgetExceededError, "over_budget"),
    (InvalidRequestError, "invalid_request"),
    (StorageUnavailableError, "storage_unavailable"),
    (OverloadedError, "overloaded"),
    (ConfigurationError, "misconfigured"),
    (GatewayError, "refused"),
    (BaseException, "internal_error"),
)
"""How a request that ended in an exception is called in its record; most specific first."""


def outcome_name(error: BaseException) -> str:
    """Return the outcome under which a request that ended so is written down."""
    if isinstance(error, RateLimitError) and error.by_providers:
        return THROTTLED_EVERYWHERE
    return next(name for kind, name in OUTCOMES if isinstance(error, kind))


def _failure(execution: Execution, outcome: Outcome, route: Route) -> GatewayError:
    return execution.spending.exceeded if outcome.ended is Ended.BUDGET else failure_of(outcome, route)


def failure_of(outcome: Outcome, route: Route) -> GatewayError:
    """Return what the caller is told about a chain that nobody answered."""
    failures = outcome.failures
    if failures and all(failed.kind in CALLERS_FAULT for failed in failures):
        first = failures[0]
        return InvalidRequestError(first.message, param=first.param, code=first.code or first.kind.value)
    if outcome.ended is Ended.GAVE_UP and failures[-1].kind in CALLERS_FAULT:
        last = failures[-1]
        return InvalidRequestError(last.message, param=last.param, code=last.code or last.kind.value)
    if outcome.ended is Ended.DEADLINE:
        message = f"No model answered before the deadline; {_tried(outcome, route)}"
        return DeadlineExceededError(message, failures=failures, retry_after=outcome.retry_after)
    if outcome.ended is Ended.COST_CAP:
        message = "What is left of `budget_limit` does not cover another attempt. Raise it, or lower `max_tokens`."
        return InvalidRequestError(message, param="budget_limit", code="budget_limit_exceeded")
    if all(failed.kind in THROTTLED for failed in failures) and outcome.retry_after is not None:
        message = "Every model this request may use is throttled by its provider. Wait as long as Retry-After says."
        return RateLimitError(message, code="rate_limit_exceeded", retry_after=outcome.retry_after, by_providers=True)
    message = f"No model could answer; {_tried(outcome, route)}"
    return AllAttemptsFailedError(message, failures=failures, retry_after=outcome.retry_after)


def _tried(outcome: Outcome, route: Route) -> str:
    if not outcome.failures:
        return f"all {len(route.candidates)} candidates are pausing after failures."
    kinds = ", ".join(dict.fromkeys(failed.kind.value for failed in outcome.failures))
    plural = "attempt" if len(outcome.failures) == 1 else "attempts"
    return f"{len(outcome.failures)} {plural} failed ({kinds})."
