"""The router's answer as values: who will be asked, in which order, and why; who will not, and why not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ReasonCode(StrEnum):
    """Why a candidate stands where it stands, or was dropped. One word each; ``detail`` says the rest to a person."""

    # taken
    NAMED = "named"  # the caller named this model
    ALIASED = "aliased"  # the name the caller sent stands for it
    PREFERRED_BY_CALLER = "preferred_by_caller"
    RULE_PREFERRED = "rule_preferred"
    RULE_FALLBACK = "rule_fallback"
    FALLBACK = "fallback"  # the catalog allows falling back to it from the model named
    EXPERIMENT = "experiment"
    OBJECTIVE = "objective"  # ordered by cost, quality, latency or the balance of them
    PRIORITY = "priority"  # its place among a model's deployments
    LAST_RESORT = "last_resort"  # its breaker is open; asked only when nothing else is left
    # dropped
    UNAVAILABLE = "unavailable"
    DISABLED = "disabled"
    RETIRED = "retired"
    OPERATION = "operation"
    CAPABILITY = "capability"
    PARAMETER = "parameter"
    CONTEXT_WINDOW = "context_window"
    OUTPUT_LIMIT = "output_limit"
    EXCLUDED = "excluded"
    MIN_QUALITY = "min_quality"
    MAX_LATENCY = "max_latency"
    REGION = "region"
    BUDGET = "budget"
    UNKNOWN_PRICE = "unknown_price"
    NOT_ALLOWED = "not_allowed"
    NOT_AUTO = "not_auto"
    BEYOND_LIMIT = "beyond_limit"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason: a code a machine can group by and a sentence a person can read."""

    code: ReasonCode
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A deployment in the route. Costs are nano-USD for this request on it, None when its price is not known.

    ``not_before`` is seconds after the request's start before which its breaker will not admit a call (0: at once);
    ``last_resort`` candidates have a breaker that failures opened: they are asked only when nothing else is left.
    """

    deployment: str
    model: str
    provider: str
    reasons: tuple[Reason, ...]
    worst_cost: int | None = None
    expected_cost: int | None = None
    context_window: int | None = None
    not_before: float = 0.0
    last_resort: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """A deployment that was considered and left out (``deployment`` is "" when its model has none)."""

    deployment: str
    model: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which arm of which experiment this request belongs to."""

    experiment: str
    arm: str
    model: str


@dataclass(frozen=True, slots=True)
class Route:
    """The ordered plan for one request. Empty ``candidates`` means nobody can serve it; ``dropped`` says why."""

    task: str
    candidates: tuple[Candidate, ...]
    dropped: tuple[Dropped, ...] = ()
    registry_version: str = ""
    objective: str = ""
    rule: str | None = None
    assignment: Assignment | None = None
    note: str = ""
