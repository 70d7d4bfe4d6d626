"""A circuit breaker as a frozen value with pure transitions.

``CLOSED`` lets calls pass. Failures open it: three in a row, or half of at least ten among the last twenty. ``OPEN`` refuses
until the cooldown ends, which doubles with each opening in a row; then ``HALF_OPEN`` lets one probe through at a time, under a
lease, so that a prober that dies can't hold it half open. Once a probe has closed it, traffic comes back gradually (`ramp`). A
provider that asks for a pause (429 with Retry-After) is obeyed for exactly that long and then it closes by itself: it did not
break. Which failure means what is `shared.core.failures.RULES`.

Time is an argument everywhere: seconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from shared.core.failures import RULES, BreakerEffect, FailureKind
from shared.core.health import BreakerState

FOREVER: Final = 1e9
"""Seconds: longer than any process lives, and still a number in JSON."""

DISPROVED: Final = 3.0
"""Seconds: less than the shortest pause after failures."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When it opens and for how long; seconds, and shares of 0..1.

    After it closes, ``ramp_from`` of the traffic is let through at once and all of it ``ramp`` seconds later.
    """

    consecutive: int = 3
    window: int = 20
    min_calls: int = 10
    failure_share: float = 0.5
    cooldown: float = 5.0
    max_cooldown: float = 10.0
    least_cooldown: float = 1.0
    throttle_pause: float = 2.0
    max_pause: float = 86_400.0
    disabled_pause: float = 300.0
    lease: float = 60.0
    ramp: float = 5.0
    ramp_from: float = 0.1


DEFAULT_POLICY: Final = BreakerPolicy()


class Admission(StrEnum):
    """What `admit` says: pass, pass as the one probe, or don't."""

    PASS = "pass"  # noqa: S105  (not a password)
    PROBE = "probe"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Breaker:
    """One deployment's breaker. ``outcomes`` are the latest calls, newest last, True for a failure.

    ``asked_until`` ends the longest pause that the provider asked this instance for, whatever else it waits for.
    ``closed_at`` is when a probe closed it; None once its traffic is back, or if it never opened.
    """

    state: BreakerState = BreakerState.CLOSED
    outcomes: tuple[bool, ...] = ()
    opened_at: float = 0.0
    open_until: float = 0.0
    openings: int = 0
    cooling: bool = False
    asked_until: float = 0.0
    lease_until: float = 0.0
    disabled: str | None = None
    closed_at: float | None = None


NEW: Final = Breaker()


def admits_in(breaker: Breaker, now: float) -> float:
    """Return the seconds until it would let a call through; 0 when it would now."""
    if breaker.state is BreakerState.CLOSED:
        return 0.0
    until = breaker.lease_until if breaker.state is BreakerState.HALF_OPEN else breaker.open_until
    return max(0.0, until - now)


def admit(breaker: Breaker, now: float, policy: BreakerPolicy = DEFAULT_POLICY) -> tuple[Breaker, Admission]:
    """Ask to call. A probe takes the lease with it: the caller must report success, failure or `release`."""
    if breaker.state is BreakerState.CLOSED:
        return breaker, Admission.PASS
    if admits_in(breaker, now) > 0:
        return breaker, Admission.REFUSE
    if breaker.cooling:
        return replace(breaker, state=BreakerState.CLOSED, cooling=False, outcomes=()), Admission.PASS
    return replace(breaker, state=BreakerState.HALF_OPEN, lease_until=now + policy.lease), Admission.PROBE


def ramp(breaker: Breaker, now: float, policy: BreakerPolicy = DEFAULT_POLICY) -> float:
    """Return the share of its traffic that a closed breaker lets through: 1, or less for a while after a probe closed it."""
    if breaker.closed_at is None:
        return 1.0
    done = (now - breaker.closed_at) / policy.ramp if policy.ramp > 0 else 1.0
    return min(1.0, policy.ramp_from + (1.0 - policy.ramp_from) * max(0.0, done))


def succeeded(
    breaker: Breaker, *, started_at: float, now: float | None = None, policy: BreakerPolicy = DEFAULT_POLICY
) -> Breaker:
    """Record a success of a call that started then. One that started before the breaker opened proves nothing about now.

    With ``now``, a breaker that this closes lets its traffic back gradually; without, at once.
    """
    if breaker.state is BreakerState.CLOSED:
        # The usual case, on every request: nothing to forget, nothing to change.
        if breaker is NEW:
            return breaker
        if any(breaker.outcomes):
            return replace(breaker, outcomes=_push(breaker.outcomes, failed=False, policy=policy))
        ramping = now is not None and ramp(breaker, now, policy) < 1.0
        return replace(NEW, closed_at=breaker.closed_at) if ramping else NEW
    if breaker.cooling or started_at < breaker.opened_at:
        return breaker
    return closed(breaker, now)


def closed(breaker: Breaker, now: float | None) -> Breaker:
    """Return the breaker as it is when it has just been closed. ``now`` None: with all its traffic at once.

    So it is also when it was open for `DISPROVED` seconds at most: then the opening was a mistake and no outage.
    """
    return NEW if now is None or now - breaker.opened_at < DISPROVED else replace(NEW, closed_at=now)


def failed(
    breaker: Breaker,
    kind: FailureKind,
    *,
    now: float,
    started_at: float | None = None,
    retry_after: float | None = None,
    policy: BreakerPolicy = DEFAULT_POLICY,
) -> Breaker:
    """Record a failure of that kind. A call that started before the breaker closed proves nothing against it."""
    effect = RULES[kind].breaker
    straggler = breaker.closed_at is not None and started_at is not None and started_at < breaker.closed_at
    if straggler and effect is BreakerEffect.FAILURE:
        return breaker
    match effect:
        case BreakerEffect.NONE:
            return release(breaker)
        case BreakerEffect.COOL_DOWN:
            return _cool_down(breaker, now, retry_after, policy)
        case BreakerEffect.DISABLE:
            pause = FOREVER if kind is FailureKind.GONE else policy.disabled_pause
            return _open(replace(breaker, disabled=str(kind)), now, pause)
        case BreakerEffect.FAILURE:
            return _failure(breaker, now, started_at, retry_after, policy)


def release(breaker: Breaker) -> Breaker:
    """Give a probe's lease back without a verdict: the call was cancelled, or failed through no fault of the deployment."""
    return replace(breaker, lease_until=0.0) if breaker.state is BreakerState.HALF_OPEN else breaker


def _failure(
    breaker: Breaker, now: float, started_at: float | None, retry_after: float | None, policy: BreakerPolicy
) -> Breaker:
    pushed = replace(breaker, outcomes=_push(breaker.outcomes, failed=True, policy=policy))
    if breaker.state is BreakerState.OPEN:
        return pushed  # a straggler from before it opened
    if breaker.state is BreakerState.CLOSED and not _trips(pushed.outcomes, policy):
        return pushed
    pause = min(policy.max_cooldown, policy.cooldown * 2.0 ** min(breaker.openings, 20))
    if breaker.state is BreakerState.HALF_OPEN and started_at is not None:
        # A probe that hung has served its pause while it hung.
        pause = max(min(pause, policy.least_cooldown), pause - (now - started_at))
    if retry_after is not None:
        pause = max(pause, min(retry_after, policy.max_pause))
    return _open(pushed, now, pause)


def _cool_down(breaker: Breaker, now: float, retry_after: float | None, policy: BreakerPolicy) -> Breaker:
    pause = policy.throttle_pause if retry_after is None else min(max(retry_after, 0.0), policy.max_pause)
    breaker = replace(breaker, asked_until=max(breaker.asked_until, now + pause))
    if breaker.state is BreakerState.CLOSED or breaker.cooling:
        until = max(breaker.open_until if breaker.cooling else 0.0, now + pause)  # a pause is never shortened
        return replace(breaker, state=BreakerState.OPEN, cooling=True, opened_at=now, open_until=until, closed_at=None)
    # Already open, or its probe was throttled: it answers, so only the pause is left to wait for.
    until = max(breaker.open_until, now + pause)
    return replace(breaker, state=BreakerState.OPEN, opened_at=now, open_until=until, lease_until=0.0)


def _open(breaker: Breaker, now: float, pause: float) -> Breaker:
    return replace(
        breaker,
        state=BreakerState.OPEN,
        cooling=False,
        opened_at=now,
        open_until=max(breaker.open_until, now + pause),
        openings=breaker.openings + 1,
        lease_until=0.0,
        closed_at=None,
    )


def _push(outcomes: tuple[bool, ...], *, failed: bool, policy: BreakerPolicy) -> tuple[bool, ...]:
    return (*outcomes, failed)[-policy.window :]


def _trips(outcomes: tuple[bool, ...], policy: BreakerPolicy) -> bool:
    if len(outcomes) >= policy.consecutive and all(outcomes[-policy.consecutive :]):
        return True
    return len(outcomes) >= policy.min_calls and sum(outcomes) >= policy.failure_share * len(outcomes)
