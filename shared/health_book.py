"""What this instance has learnt about its deployments: breakers, success rates, latencies. One per process.

The transitions are pure (`shared.core.breaker`); this holds the current values and hands out immutable snapshots. Nothing
loops: it learns from the calls that are made.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.core.breaker import DEFAULT_POLICY, FOREVER, NEW, Admission, Breaker, BreakerPolicy, admit, admits_in
from shared.core.breaker import failed as breaker_failed
from shared.core.breaker import release as breaker_release
from shared.core.breaker import succeeded as breaker_succeeded
from shared.core.failures import RULES, BreakerEffect, FailureKind
from shared.core.health import BreakerState, DeploymentHealth, HealthSnapshot

SMOOTHING = 0.1
"""Weight of the newest call in the moving averages."""

SNAPSHOT_AGE = 0.25
"""Seconds a snapshot is handed out again while no breaker has changed: averages may be that stale, breakers never are."""


@dataclass(slots=True)
class _Record:
    breaker: Breaker = NEW
    success_rate: float = 1.0
    latency_ms: float | None = None
    first_content_ms: float | None = None
    in_flight: int = 0
    last_call_at: float | None = None
    last_failure: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call was not admitted. ``retry_after`` None: a breaker that failures opened, which a last resort may override."""

    reason: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class HealthReport:
    """One deployment's health for a person: what the snapshot says, and when and how it was last called (monotonic seconds)."""

    health: DeploymentHealth
    in_flight: int
    last_call_at: float | None
    last_failure: str | None


class HealthBook:
    """Measured health by deployment id. All times are seconds of one monotonic clock."""

    def __init__(self, policy: BreakerPolicy = DEFAULT_POLICY) -> None:
        self._policy = policy
        self._records: dict[str, _Record] = {}
        self._snapshot = HealthSnapshot()
        self._taken_at = float("-inf")
        self._stale = True

    def admit(self, deployment: str, now: float, *, concurrency: int | None = None, forced: bool = False) -> Refusal | None:
        """Ask to call; None means go, and the call must be ended by `succeeded`, `failed` or `cancelled`."""
        record = self._records.get(deployment)
        if record is None:
            record = self._records[deployment] = _Record()
        if concurrency is not None and record.in_flight >= concurrency:
            return Refusal(f"{deployment} has {record.in_flight} calls in flight, its limit", retry_after=0.05)
        if record.breaker.state is not BreakerState.CLOSED:
            refusal = self._admit_opened(deployment, record, now, forced=forced)
            if refusal is not None:
                return refusal
        record.in_flight += 1
        record.last_call_at = now
        return None

    def _admit_opened(self, deployment: str, record: _Record, now: float, *, forced: bool) -> Refusal | None:
        breaker, verdict = admit(record.breaker, now, self._policy)
        self._put(record, breaker)
        if verdict is not Admission.REFUSE:
            return None
        pause = admits_in(breaker, now)
        if breaker.cooling:
            return Refusal(f"{deployment} asked for a pause of {pause:.1f} s", retry_after=pause)
        gone = breaker.disabled is not None and pause >= FOREVER / 2
        return None if forced and not gone else Refusal(f"the breaker of {deployment} is open for {pause:.1f} s")

    def succeeded(self, deployment: str, *, started_at: float, now: float, first_content_at: float | None = None) -> None:
        """End a call that answered."""
        record = self._ended(deployment)
        latency = (now - started_at) * 1000
        record.latency_ms = _average(record.latency_ms, latency)
        if first_content_at is not None:
            record.first_content_ms = _average(record.first_content_ms, (first_content_at - started_at) * 1000)
        record.success_rate = _average(record.success_rate, 1.0)
        self._put(record, breaker_succeeded(record.breaker, started_at=started_at, policy=self._policy))

    def failed(self, deployment: str, kind: FailureKind, *, now: float, retry_after: float | None = None) -> None:
        """End a call that failed."""
        record = self._ended(deployment)
        effect = RULES[kind].breaker
        if effect in (BreakerEffect.FAILURE, BreakerEffect.DISABLE):
            record.success_rate = _average(record.success_rate, 0.0)
        if effect is not BreakerEffect.NONE:
            record.last_failure = kind.value
        self._put(record, breaker_failed(record.breaker, kind, now=now, retry_after=retry_after, policy=self._policy))

    def cancelled(self, deployment: str) -> None:
        """End a call whose client left: it says nothing about the deployment."""
        record = self._ended(deployment)
        self._put(record, breaker_release(record.breaker))

    def snapshot(self, now: float) -> HealthSnapshot:
        """Return everybody's health as of now."""
        if self._stale or now - self._taken_at >= SNAPSHOT_AGE:
            self._snapshot = HealthSnapshot({name: _health(record, now) for name, record in self._records.items()})
            self._taken_at = now
            self._stale = False
        return self._snapshot

    def report(self, now: float) -> dict[str, HealthReport]:
        """Return what is known of each deployment that was ever called."""
        return {
            name: HealthReport(_health(record, now), record.in_flight, record.last_call_at, record.last_failure)
            for name, record in self._records.items()
        }

    def _ended(self, deployment: str) -> _Record:
        record = self._records[deployment]
        record.in_flight -= 1
        return record

    def _put(self, record: _Record, breaker: Breaker) -> None:
        if breaker.state is not record.breaker.state or breaker.open_until != record.breaker.open_until:
            self._stale = True
        record.breaker = breaker


def _average(old: float | None, new: float) -> float:
    return new if old is None else (1 - SMOOTHING) * old + SMOOTHING * new


def _health(record: _Record, now: float) -> DeploymentHealth:
    breaker = record.breaker
    return DeploymentHealth(
        success_rate=record.success_rate,
        latency_ms=record.latency_ms,
        first_content_ms=record.first_content_ms,
        breaker=breaker.state,
        admits_in=admits_in(breaker, now),
        cooling=breaker.cooling,
        disabled=breaker.disabled,
    )
