"""A chain: a failover flow whose steps are made durable. Its plan, its events and its end as plain JSON values, and back.

A durable engine replays the flow from its history, so everything the flow depends on travels in that history: the plan when the
chain begins, each event when it has happened. What is large (the request, the answers) stays in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from shared.core.failover import Attempt, AttemptFailed, Ended, Event, Outcome, Step, Succeeded, failover
from shared.core.failures import Failed, FailureKind
from shared.core.fields import Fields
from shared.core.registry import FailoverPolicy
from shared.core.route import Candidate, Route

Json = Mapping[str, Any]

MAX_ATTEMPTS: Final = 100
RETRIES: Final = 30
"""How often one deployment is asked again: with the pauses below, for about six hours."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 900.0
MIN_DEADLINE: Final = 1.0
MAX_DEADLINE: Final = 3 * 86_400.0
DEFAULT_DEADLINE: Final = 86_400.0
MAX_MESSAGE: Final = 500
"""Characters of a failure's message that go into a history."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a chain's flow is made of: who may be asked, within which bounds. ``cost_cap`` is nano-USD for all attempts."""

    task: str
    candidates: tuple[Candidate, ...]
    policy: FailoverPolicy
    jitter: float = 0.5
    cost_cap: int | None = None

    @property
    def route(self) -> Route:
        """The candidates as a route."""
        return Route(self.task, self.candidates)


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What an attempt's activity reports when the chain was cancelled while, or before, it ran."""


Flow = Generator[Step, Event, Outcome]


def begin(plan: Plan) -> Flow:
    """Return the flow of a plan, version 1."""
    return failover(plan.route, plan.policy, jitter=plan.jitter, cost_cap=plan.cost_cap)


FLOWS: Final[Mapping[int, Callable[[Plan], Flow]]] = {1: begin}
"""Every version of the flow that a chain in flight may have begun with. A chain ends with the version it began with."""
CURRENT: Final = 1


def chain_policy(policy: FailoverPolicy, deadline: float) -> FailoverPolicy:
    """Return the bounds of a chain that nobody waits for at the other end of a connection: it may wait as long as it lives."""
    return replace(
        policy,
        deadline=deadline,
        max_attempts=MAX_ATTEMPTS,
        retries=RETRIES,
        backoff=max(policy.backoff, FIRST_PAUSE),
        max_backoff=max(policy.max_backoff, LONGEST_PAUSE),
        max_wait=deadline,
    )


# ---- the plan --------------------------------------------------------------------------------------------------------


def plan_out(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON."""
    policy = plan.policy
    return {
        "task": plan.task,
        "candidates": [_candidate_out(candidate) for candidate in plan.candidates],
        "deadline": policy.deadline,
        "max_attempts": policy.max_attempts,
        "retries": policy.retries,
        "backoff": policy.backoff,
        "max_backoff": policy.max_backoff,
        "max_wait": policy.max_wait,
        "content_filter_fallback": policy.content_filter_fallback,
        "jitter": plan.jitter,
        "cost_cap": plan.cost_cap,
    }


def plan_in(written: Json) -> Plan:
    """Return the plan in JSON; raise `ValueError` for what `plan_out` did not write."""
    fields = Fields(written)
    policy = FailoverPolicy(
        deadline=fields.number("deadline"),
        max_attempts=fields.whole("max_attempts"),
        retries=fields.whole("retries"),
        backoff=fields.number("backoff"),
        max_backoff=fields.number("max_backoff"),
        max_wait=fields.number("max_wait"),
        content_filter_fallback=fields.flag("content_filter_fallback"),
    )
    candidates = tuple(_candidate_in(Fields(one)) for one in written["candidates"])
    return Plan(fields.text("task"), candidates, policy, jitter=fields.number("jitter"), cost_cap=fields.find_whole("cost_cap"))


def _candidate_out(candidate: Candidate) -> dict[str, Any]:
    return {
        "deployment": candidate.deployment,
        "model": candidate.model,
        "provider": candidate.provider,
        "worst_cost": candidate.worst_cost,
        "expected_cost": candidate.expected_cost,
        "context_window": candidate.context_window,
        "not_before": candidate.not_before,
        "last_resort": candidate.last_resort,
    }


def _candidate_in(fields: Fields) -> Candidate:
    return Candidate(
        fields.text("deployment"),
        fields.text("model"),
        fields.text("provider"),
        (),
        worst_cost=fields.find_whole("worst_cost"),
        expected_cost=fields.find_whole("expected_cost"),
        context_window=fields.find_whole("context_window"),
        not_before=fields.number("not_before"),
        last_resort=fields.flag("last_resort"),
    )


# ---- steps and events ------------------------------------------------------------------------------------------------


def attempt_out(step: Attempt) -> dict[str, Any]:
    """Return an attempt as JSON: what its activity is given."""
    return {
        "candidate": _candidate_out(step.candidate),
        "number": step.number,
        "remaining": step.remaining,
        "forced": step.forced,
    }


def attempt_in(written: Json) -> Attempt:
    """Return the attempt in JSON; raise `ValueError`."""
    fields = Fields(written)
    candidate = _candidate_in(Fields(written["candidate"]))
    return Attempt(candidate, fields.whole("number"), fields.number("remaining"), forced=fields.flag("forced"))


Happened = Succeeded | AttemptFailed | Cancelled
"""How an attempt's activity can end."""


def happened_out(event: Happened) -> dict[str, Any]:
    """Return how an attempt ended as JSON; when it did is for the engine's clock to say."""
    if isinstance(event, Succeeded):
        return {"event": "succeeded"}
    if isinstance(event, Cancelled):
        return {"event": "cancelled"}
    return {"event": "failed", "billed": event.billed, "failed": failed_out(event.failed)}


def happened_in(written: Json, at: float) -> Happened:
    """Return how an attempt ended, ``at`` seconds after the chain began; raise `ValueError`."""
    fields = Fields(written)
    match fields.text("event"):
        case "succeeded":
            return Succeeded(at)
        case "cancelled":
            return Cancelled()
        case "failed":
            return AttemptFailed(at, failed_in(written["failed"]), billed=fields.find_whole("billed"))
        case other:
            message = f"no attempt ends in {other!r}"
            raise ValueError(message)


def failed_out(failed: Failed) -> dict[str, Any]:
    """Return a failure as JSON."""
    return {
        "kind": failed.kind.value,
        "message": failed.message[:MAX_MESSAGE],
        "status": failed.status,
        "code": failed.code,
        "param": failed.param,
        "retry_after": failed.retry_after,
    }


def failed_in(written: Json) -> Failed:
    """Return the failure in JSON; raise `ValueError`."""
    fields = Fields(written)
    return Failed(
        FailureKind(fields.text("kind")),
        fields.text("message"),
        status=fields.find_whole("status"),
        code=fields.find_text("code"),
        param=fields.find_text("param"),
        retry_after=fields.find_number("retry_after"),
    )


# ---- the end ---------------------------------------------------------------------------------------------------------


def outcome_out(outcome: Outcome) -> dict[str, Any]:
    """Return how a flow ended as JSON."""
    return {
        "ended": outcome.ended.value,
        "deployment": None if outcome.candidate is None else outcome.candidate.deployment,
        "model": None if outcome.candidate is None else outcome.candidate.model,
        "attempts": outcome.attempts,
        "failures": [failed_out(failed) for failed in outcome.failures],
        "retry_after": outcome.retry_after,
    }


def outcome_in(written: Json, plan: Plan) -> Outcome:
    """Return how a flow ended; raise `ValueError`."""
    fields = Fields(written)
    deployment = fields.find_text("deployment")
    return Outcome(
        Ended(fields.text("ended")),
        next((one for one in plan.candidates if one.deployment == deployment), None),
        fields.whole("attempts"),
        tuple(failed_in(one) for one in written["failures"]),
        fields.find_number("retry_after"),
    )
