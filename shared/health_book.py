"""What this instance has learnt about its deployments: breakers, success rates, latencies. One per process.

The transitions are pure (`shared.core.breaker`); this holds the current values and hands out immutable snapshots. Nothing
loops and nothing waits: it learns from the calls that are made, and from what `shared.shared_health` tells it of others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from shared.core.breaker import DEFAULT_POLICY, NEW, Admission, Breaker, BreakerPolicy, admit, admits_in, ramp
from shared.core.breaker import failed as breaker_failed
from shared.core.breaker import release as breaker_release
from shared.core.breaker import succeeded as breaker_succeeded
from shared.core.failures import RULES, BreakerEffect, FailureKind
from shared.core.health import BreakerState, DeploymentHealth, HealthSnapshot
from shared.core.pool import SELDOM, UNSHARED, Entry, Moment, Pending, Sample, Shared, folded, heard, news_of_cooling

SMOOTHING = 0.1
"""Weight of the newest call in the moving averages."""

SNAPSHOT_AGE = 0.25
"""Seconds a snapshot is handed out again while no breaker has changed: averages may be that stale, breakers never are."""


DOUBT_SECONDS: Final = 1.0
"""How lately a call must have gone well for this instance to try once before it believes that others found it broken."""


@dataclass(slots=True)
class _Record:
    breaker: Breaker = NEW
    shared: Shared = UNSHARED
    success_rate: float = 1.0
    latency_ms: float | None = None
    first_content_ms: float | None = None
    in_flight: int = 0
    last_call_at: float | None = None
    seldom: bool = True
    last_failure: str | None = None
    last_success_at: float = float("-inf")
    credit: float = 1.0
    calls: int = 0
    successes: int = 0
    latency_sum: float = 0.0
    first_contents: int = 0
    first_content_sum: float = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call was not admitted. ``retry_after`` None: a breaker that failures opened, which a last resort may override."""

    reason: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Learnt:
    """What this instance has to say of one deployment, as of the moment it was asked."""

    breaker: Breaker
    shared: Shared
    sample: Sample


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
        self._tell: Callable[[], None] | None = None
        self._seed = 1.0
        self._alone = True

    # ---- calls -------------------------------------------------------------------------------------------------------

    def admit(self, deployment: str, now: float, *, concurrency: int | None = None, forced: bool = False) -> Refusal | None:
        """Ask to call; None means go, and the call must be ended by `succeeded`, `failed` or `cancelled`."""
        record = self._records.get(deployment)
        if record is None:
            record = self._records[deployment] = _Record()
        if concurrency is not None and record.in_flight >= concurrency:
            return Refusal(f"{deployment} has {record.in_flight} calls in flight, its limit", retry_after=0.05)
        breaker = record.breaker
        if breaker.state is not BreakerState.CLOSED:
            refusal = self._admit_opened(deployment, record, now, forced=forced)
            if refusal is not None:
                return refusal
        elif breaker.closed_at is not None and not (self._let_back(record, now) or forced):
            return Refusal(f"{deployment} has just come back and gets its traffic gradually")
        record.in_flight += 1
        record.seldom = record.last_call_at is None or now - record.last_call_at >= SELDOM
        record.last_call_at = now
        return None

    def _admit_opened(self, deployment: str, record: _Record, now: float, *, forced: bool) -> Refusal | None:
        if self._needs_lease(record, now):
            return None if forced else Refusal(f"the breaker of {deployment} is open: one instance probes for all")
        breaker, verdict = admit(record.breaker, now, self._policy)
        self._put(record, breaker)
        if verdict is not Admission.REFUSE:
            return None
        pause = admits_in(breaker, now)
        if breaker.cooling:
            return Refusal(f"{deployment} asked for a pause of {pause:.1f} s", retry_after=pause)
        gone = breaker.disabled == FailureKind.GONE
        return None if forced and not gone else Refusal(f"the breaker of {deployment} is open for {pause:.1f} s")

    def _let_back(self, record: _Record, now: float) -> bool:
        """Let a growing share of calls through, evenly; when more than half of all deployments are out, every call."""
        share = ramp(record.breaker, now, self._policy)
        if share >= 1.0:
            record.breaker = replace(record.breaker, closed_at=None)
            return True
        if self._panic():
            return True
        record.credit = min(2.0, record.credit + share)
        if record.credit < 1.0:
            return False
        record.credit -= 1.0
        return True

    def _panic(self) -> bool:
        opened = sum(record.breaker.state is not BreakerState.CLOSED for record in self._records.values())
        return 2 * opened > len(self._records)

    def succeeded(self, deployment: str, *, started_at: float, now: float, first_content_at: float | None = None) -> None:
        """End a call that answered."""
        record = self._ended(deployment)
        latency = (now - started_at) * 1000
        record.latency_ms = _average(record.latency_ms, latency)
        record.latency_sum += latency
        if first_content_at is not None:
            first_content = (first_content_at - started_at) * 1000
            record.first_content_ms = _average(record.first_content_ms, first_content)
            record.first_contents += 1
            record.first_content_sum += first_content
        record.success_rate = _average(record.success_rate, 1.0)
        record.calls += 1
        record.successes += 1
        record.last_success_at = now
        if record.shared.warned or record.shared.strikes:
            record.shared = replace(record.shared, strikes=0, warned=False, cleared=True)
            self._speak()
        self._put(record, breaker_succeeded(record.breaker, started_at=started_at, now=now, policy=self._policy))

    def failed(
        self,
        deployment: str,
        kind: FailureKind,
        *,
        now: float,
        started_at: float | None = None,
        retry_after: float | None = None,
    ) -> None:
        """End a call that failed. With ``started_at``, one that began before the breaker closed does not open it again."""
        record = self._ended(deployment)
        effect = RULES[kind].breaker
        if effect in (BreakerEffect.FAILURE, BreakerEffect.DISABLE):
            record.success_rate = _average(record.success_rate, 0.0)
            record.calls += 1
            record.last_success_at = float("-inf")
        if effect is not BreakerEffect.NONE:
            record.last_failure = kind.value
        before = record.breaker
        after = breaker_failed(before, kind, now=now, started_at=started_at, retry_after=retry_after, policy=self._policy)
        self._put(record, after)
        if effect is BreakerEffect.FAILURE and record.seldom and after.state is BreakerState.CLOSED:
            record.shared = replace(record.shared, strikes=record.shared.strikes + 1, cleared=False)
            self._speak()
        elif after.cooling and news_of_cooling(after, record.shared, now):
            self._speak()

    def cancelled(self, deployment: str) -> None:
        """End a call whose client left: it says nothing about the deployment."""
        record = self._ended(deployment)
        self._put(record, breaker_release(record.breaker))

    # ---- reading -----------------------------------------------------------------------------------------------------

    def snapshot(self, now: float) -> HealthSnapshot:
        """Return everybody's health as of now."""
        if self._stale or now - self._taken_at >= SNAPSHOT_AGE:
            self._snapshot = HealthSnapshot({name: _health(record, now) for name, record in self._records.items()})
            self._taken_at = now
            self._stale = False
        return self._snapshot

    def report(self, now: float) -> dict[str, HealthReport]:
        """Return what is known of each deployment that was ever called, here or by others."""
        return {
            name: HealthReport(_health(record, now), record.in_flight, record.last_call_at, record.last_failure)
            for name, record in self._records.items()
        }

    # ---- others ------------------------------------------------------------------------------------------------------

    def share(self, tell: Callable[[], None], *, seed: float) -> None:
        """Say whom to tell, at once and without waiting, when a breaker opens or closes or a provider asks for a pause.

        ``seed`` (0..1) differs between instances, so that they don't all let the first call through after an outage.
        """
        self._tell = tell
        self._seed = seed

    def needs_lease(self, deployment: str, now: float) -> bool:
        """Say whether a breaker's pause is over and this instance must first be chosen as the one that probes."""
        record = self._records.get(deployment)
        return record is not None and self._needs_lease(record, now)

    def probing(self, now: float) -> list[str]:
        """Return the deployments this instance probes for all others right now."""
        return [
            name
            for name, record in self._records.items()
            if record.breaker.state is BreakerState.HALF_OPEN and record.shared.granted_until > now
        ]

    def learnt(self) -> dict[str, Learnt]:
        """Return what there is to say of every deployment."""
        return {name: Learnt(record.breaker, record.shared, _sample(record)) for name, record in self._records.items()}

    def hear(self, deployment: str, entry: Entry, said: Learnt | None, at: Moment) -> None:
        """Take in what all instances know of a deployment, after what this one ``said`` of it was stored.

        If it has learnt more meanwhile, only the averages count: it speaks again soon.
        """
        record = self._records.get(deployment)
        if record is None:
            record = self._records[deployment] = _Record(credit=self._seed)
        if entry.averages.calls > 0:
            averages = folded(entry.averages, _sample(record), at.wall)
            record.success_rate = averages.success_rate
            record.latency_ms = record.latency_ms if averages.latency_ms is None else averages.latency_ms
            record.first_content_ms = averages.first_content_ms or record.first_content_ms
        if _state(record.breaker, record.shared) != _state(*((said.breaker, said.shared) if said else (NEW, UNSHARED))):
            return
        doubted = at.monotonic - record.last_success_at <= DOUBT_SECONDS
        breaker, record.shared = heard(entry, record.breaker, record.shared, at, doubted=doubted)
        if breaker is record.breaker:
            return
        if breaker.closed_at is not None and record.breaker.state is not BreakerState.CLOSED:
            record.credit = self._seed
        record.breaker = breaker
        self._stale = True

    def alone(self, *, alone: bool) -> None:
        """Say whether the store answers. While this instance is alone it goes by its own knowledge and probes by itself."""
        self._alone = alone

    def told(self, deployment: str, sample: Sample) -> None:
        """Take off the calls that are in the averages of all now."""
        record = self._records[deployment]
        record.calls -= sample.calls
        record.successes -= sample.successes
        record.latency_sum -= sample.latency_ms
        record.first_contents -= sample.first_contents
        record.first_content_sum -= sample.first_content_ms

    def _needs_lease(self, record: _Record, now: float) -> bool:
        shared, breaker = record.shared, record.breaker
        if self._alone or not shared.open or shared.granted_until > now or breaker.cooling:
            return False
        return breaker.state is BreakerState.OPEN and breaker.open_until <= now and not self._panic()

    def _ended(self, deployment: str) -> _Record:
        record = self._records[deployment]
        record.in_flight -= 1
        return record

    def _put(self, record: _Record, breaker: Breaker) -> None:
        before = record.breaker
        if breaker is before:
            return
        record.breaker = breaker
        if breaker.state is before.state and breaker.open_until == before.open_until:
            return
        self._stale = True
        if breaker.state is BreakerState.OPEN and not breaker.cooling:
            record.shared = replace(record.shared, pending=Pending.OPENED, own_until=breaker.open_until, granted_until=0.0)
        elif breaker.state is BreakerState.CLOSED and not before.cooling:
            record.credit = 0.0  # its own probe was the first call
            record.shared = replace(record.shared, pending=Pending.CLOSED, own_until=0.0, granted_until=0.0)
        else:
            return
        self._speak()

    def _speak(self) -> None:
        if self._tell is not None:
            self._tell()


def _state(breaker: Breaker, shared: Shared) -> tuple[object, ...]:
    return breaker.state, breaker.opened_at, breaker.asked_until, shared.pending, shared.strikes, shared.cleared


def _sample(record: _Record) -> Sample:
    return Sample(record.calls, record.successes, record.latency_sum, record.first_contents, record.first_content_sum)


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
