"""How deployments are doing, measured from the calls that were made; kept apart from the catalog's facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class BreakerState(StrEnum):
    """A circuit breaker's state: calls pass, are refused until the cooldown ends, or one probe at a time is let through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class DeploymentHealth:
    """What is known of one deployment: shares of 0..1, milliseconds, and its breaker.

    ``latency_ms`` None is "not measured yet": the catalog's figure stands in. ``admits_in`` is how many seconds from the
    snapshot's time until the breaker lets a call through (0 now). ``cooling`` is True when the provider itself asked for the
    pause (Retry-After), False when failures opened the breaker. ``disabled`` says why it needs a person (a refused key).
    """

    success_rate: float = 1.0
    latency_ms: float | None = None
    first_content_ms: float | None = None
    breaker: BreakerState = BreakerState.CLOSED
    admits_in: float = 0.0
    cooling: bool = False
    disabled: str | None = None


UNMEASURED: Final = DeploymentHealth()


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """Health of every deployment that was ever called, at one moment. A deployment that is not listed is unmeasured."""

    deployments: Mapping[str, DeploymentHealth] = field(default_factory=dict)

    def of(self, deployment: str) -> DeploymentHealth:
        """Return the health of a deployment."""
        return self.deployments.get(deployment, UNMEASURED)
