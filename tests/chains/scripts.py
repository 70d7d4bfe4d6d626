"""What can become of a chain, told once for every driver: who may be asked, how each attempt ends, what comes in between.

Times are seconds of the script; a driver that has real ones runs it ``scaled`` down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from shared.core.chain import CURRENT, Plan, chain_policy, happened_out, plan_out
from shared.core.failover import AttemptFailed, Ended, Succeeded
from shared.core.failures import Failed, FailureKind
from shared.core.registry import FailoverPolicy
from shared.core.route import Candidate

BEGAN: Final = 1_795_000_000.0


@dataclass(frozen=True, slots=True)
class Try:
    """How an attempt ends, after so many seconds. ``kind`` None: it answers."""

    kind: FailureKind | None = None
    seconds: float = 1.0
    retry_after: float | None = None
    billed: int | None = 0

    def event(self, at: float) -> Succeeded | AttemptFailed:
        """Return it as an event."""
        if self.kind is None:
            return Succeeded(at)
        failed = Failed(self.kind, f"It was scripted to be {self.kind.value}.", retry_after=self.retry_after)
        return AttemptFailed(at, failed, self.billed)


@dataclass(frozen=True, slots=True)
class Script:
    """A chain's story. ``ends`` is its outcome, None when it is cancelled; ``attempts`` are the deployments it asks.

    ``broken_store`` says how often each activity can't reach the store before it can; ``scale`` is what a driver with real
    time multiplies seconds by.
    """

    name: str
    tries: tuple[Try, ...]
    attempts: tuple[str, ...]
    ends: Ended | None = Ended.ANSWERED
    candidates: tuple[str, ...] = ("one", "two")
    policy: FailoverPolicy = field(default_factory=lambda: chain_policy(FailoverPolicy(), 86_400.0))
    cost_cap: int | None = None
    cancel_at: float | None = None
    webhook: bool = False
    broken_store: Mapping[str, int] = field(default_factory=dict)
    scale: float = 0.01

    @property
    def plan(self) -> Plan:
        """The chain's plan."""
        found = tuple(Candidate(name, f"m-{name}", f"p-{name}", (), worst_cost=1_000) for name in self.candidates)
        return Plan("conversation", found, self.policy, cost_cap=self.cost_cap)

    def given(self, began: float = BEGAN) -> dict[str, Any]:
        """Return what the orchestration is started with."""
        return {
            "id": "chain_1",
            "version": CURRENT,
            "began": began,
            "plan": plan_out(self.plan),
            "webhook": self.webhook,
        }

    def happened(self, number: int) -> dict[str, Any]:
        """Return how an attempt ends, as its activity reports it."""
        return happened_out(self.tries[number - 1].event(0.0))

    def scaled(self) -> Script:
        """Return the same story in less time."""
        by, policy = self.scale, self.policy
        faster = replace(
            policy,
            deadline=policy.deadline * by,
            backoff=policy.backoff * by,
            max_backoff=policy.max_backoff * by,
            max_wait=policy.max_wait * by,
        )
        tries = tuple(
            replace(one, seconds=one.seconds * by, retry_after=None if one.retry_after is None else one.retry_after * by)
            for one in self.tries
        )
        return replace(self, policy=faster, tries=tries, cancel_at=None if self.cancel_at is None else self.cancel_at * by)


def _within(deadline: float, **bounds: Any) -> FailoverPolicy:
    return replace(chain_policy(FailoverPolicy(), deadline), **bounds)


THROTTLED: Final = Try(FailureKind.RATE_LIMITED, 0.2, retry_after=3_600.0)
DOWN: Final = Try(FailureKind.SERVER_ERROR, 0.5)

SCRIPTS: Final = (
    Script("success", (Try(),), ("one",), webhook=True),
    Script("fallback", (Try(FailureKind.EMPTY_RESPONSE), Try(FailureKind.TIMEOUT, 30.0), Try()), ("one", "one", "two")),
    Script("long_wait", (THROTTLED, THROTTLED, Try()), ("one", "two", "one"), scale=1 / 18_000),
    Script("cancel_in_a_wait", (THROTTLED, THROTTLED), ("one", "two"), None, cancel_at=100.0, scale=1 / 200, webhook=True),
    Script("cancel_in_an_attempt", (Try(seconds=2_000.0),), ("one",), None, cancel_at=20.0, scale=1 / 20),
    Script(
        "cancel_in_a_later_attempt",
        (replace(THROTTLED, retry_after=5.0), replace(THROTTLED, retry_after=5.0), Try(seconds=2_000.0)),
        ("one", "two", "one"),
        None,
        cancel_at=30.0,
        scale=1 / 30,
    ),
    Script(
        "deadline",
        (Try(FailureKind.SERVER_ERROR, 0.0), Try(FailureKind.SERVER_ERROR, 90.0)),
        ("one", "two"),
        Ended.DEADLINE,
        policy=_within(60.0),
        scale=1 / 60,
    ),
    Script(
        "cost_cap",
        (Try(FailureKind.SERVER_ERROR, billed=900), Try(FailureKind.SERVER_ERROR, billed=None)),
        ("one", "two"),
        Ended.COST_CAP,
        cost_cap=2_000,
    ),
    Script(
        "all_failed",
        (DOWN,) * 6,
        ("one", "two", "one", "two", "one", "two"),
        Ended.NOBODY_LEFT,
        policy=_within(3_600.0, retries=2),
    ),
    Script(
        "attempt_cap",
        (DOWN,) * 3,
        ("one", "two", "one"),
        Ended.ATTEMPT_CAP,
        policy=_within(3_600.0, max_attempts=3),
        webhook=True,
    ),
    Script("refused", (Try(FailureKind.INVALID_REQUEST),) * 2, ("one", "two"), Ended.NOBODY_LEFT),
    Script("gave_up", (Try(FailureKind.INTERRUPTED),), ("one",), Ended.GAVE_UP),
    Script(
        "store_down",
        (THROTTLED, Try()),
        ("one", "one"),
        candidates=("one",),
        webhook=True,
        broken_store={"attempt_chain": 1, "note_chain": 1, "end_chain": 2, "notify_chain": 1},
        scale=1 / 18_000,
    ),
)
