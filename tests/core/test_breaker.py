"""The circuit breaker: opens on failures, obeys providers, lets one probe through, is never opened by a caller's mistake."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.breaker import DEFAULT_POLICY, NEW, Admission, Breaker, admit, admits_in, failed, ramp, release, succeeded
from shared.core.failures import RULES, BreakerEffect, FailureKind
from shared.core.health import BreakerState

ERROR = FailureKind.SERVER_ERROR


def after(*outcomes: bool, now: float = 0.0) -> Breaker:
    """A breaker that saw these outcomes (True is a success), all at one moment."""
    breaker = NEW
    for outcome in outcomes:
        breaker = succeeded(breaker, started_at=now) if outcome else failed(breaker, ERROR, now=now)
    return breaker


def opened(now: float = 0.0) -> Breaker:
    """A breaker that three failures opened."""
    return after(False, False, False, now=now)


def test_three_failures_in_a_row_open_it_and_two_do_not() -> None:
    """The row is what counts."""
    assert BreakerState.CLOSED is after(False, False).state
    assert BreakerState.CLOSED is after(False, False, True, False, False).state
    assert BreakerState.OPEN is opened().state


def test_half_of_ten_failing_opens_it() -> None:
    """A deployment that fails every other call is not healthy, though never three in a row."""
    pattern = [True, False] * 4
    assert BreakerState.CLOSED is after(False, True, *pattern[:7]).state
    assert (
        BreakerState.OPEN is after(False, True, *pattern).state
        or BreakerState.OPEN is after(False, True, *pattern, False).state
    )


def test_old_failures_are_forgotten() -> None:
    """Only the latest calls count."""
    breaker = after(*([False, True] * 4))
    for _ in range(DEFAULT_POLICY.window):
        breaker = succeeded(breaker, started_at=0)
    assert BreakerState.CLOSED is failed(failed(breaker, ERROR, now=0), ERROR, now=0).state
    assert not any(breaker.outcomes)


def test_open_refuses_until_the_cooldown_ends_then_lets_one_probe_through() -> None:
    """The second caller is refused while the probe runs."""
    breaker = opened(now=100)
    assert Admission.REFUSE is admit(breaker, 104.9)[1]
    assert pytest.approx(0.1) == admits_in(breaker, 104.9)
    probing, verdict = admit(breaker, 105.0)
    assert Admission.PROBE is verdict
    assert BreakerState.HALF_OPEN is probing.state
    assert Admission.REFUSE is admit(probing, 105.0)[1]


def test_a_dead_prober_cannot_hold_it_half_open() -> None:
    """Its lease runs out, and a released one at once."""
    probing, _ = admit(opened(now=0), 5)
    assert Admission.REFUSE is admit(probing, 5 + DEFAULT_POLICY.lease - 1)[1]
    assert Admission.PROBE is admit(probing, 5 + DEFAULT_POLICY.lease)[1]
    assert Admission.PROBE is admit(release(probing), 6)[1]


def test_a_good_probe_closes_it_and_a_bad_one_opens_it_for_longer() -> None:
    """The cooldown doubles with each opening in a row, up to its cap, and starts afresh after a success."""
    breaker = opened(now=0)
    pauses = []
    now = 0.0
    for _ in range(4):
        pauses.append(admits_in(breaker, now))
        now += pauses[-1]
        breaker, verdict = admit(breaker, now)
        assert Admission.PROBE is verdict
        breaker = failed(breaker, ERROR, now=now)
    assert [5, 10, 10, 10] == pauses
    breaker, _ = admit(breaker, now + 10)
    assert NEW == succeeded(breaker, started_at=now + 10)


def test_a_success_that_began_before_it_opened_proves_nothing() -> None:
    """A slow answer from before must not close it; a forced call made since does."""
    breaker = opened(now=10)
    assert BreakerState.OPEN is succeeded(breaker, started_at=9).state
    assert BreakerState.CLOSED is succeeded(breaker, started_at=11).state


def test_a_straggling_failure_does_not_prolong_an_open_breaker() -> None:
    """Calls that were under way when it opened say nothing new."""
    breaker = opened(now=10)
    assert breaker.open_until == failed(breaker, ERROR, now=12).open_until


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if RULES[kind].breaker is BreakerEffect.NONE])
def test_a_callers_mistake_never_opens_it(kind: FailureKind) -> None:
    """Nor does it use up a probe."""
    breaker = NEW
    for _ in range(50):
        breaker = failed(breaker, kind, now=0)
    assert NEW == breaker
    probing, _ = admit(opened(now=0), 5)
    assert Admission.PROBE is admit(failed(probing, kind, now=5), 5)[1]


def test_a_provider_that_asks_for_a_pause_is_obeyed_for_exactly_that_long_and_needs_no_probe() -> None:
    """A 429 is not a fault: afterwards everybody may call."""
    breaker = failed(NEW, FailureKind.RATE_LIMITED, now=100, retry_after=7)
    assert breaker.cooling
    assert Admission.REFUSE is admit(breaker, 106.9)[1]
    closed, verdict = admit(breaker, 107)
    assert (Admission.PASS, BreakerState.CLOSED) == (verdict, closed.state)
    assert 2 == admits_in(failed(NEW, FailureKind.RATE_LIMITED, now=0), 0)


def test_a_pause_is_never_shortened() -> None:
    """A second 429 with a smaller Retry-After changes nothing; one with a larger prolongs it."""
    breaker = failed(NEW, FailureKind.RATE_LIMITED, now=0, retry_after=60)
    assert 60 == failed(breaker, FailureKind.RATE_LIMITED, now=1, retry_after=1).open_until
    assert 91 == failed(breaker, FailureKind.RATE_LIMITED, now=1, retry_after=90).open_until
    assert 5 + 60 == failed(opened(now=0), FailureKind.RATE_LIMITED, now=5, retry_after=60).open_until
    assert BreakerState.OPEN is succeeded(breaker, started_at=2).state


def test_absurd_pauses_are_bounded() -> None:
    """A date a century away, or in the past, doesn't end a deployment or break arithmetic."""
    assert DEFAULT_POLICY.max_pause == failed(NEW, FailureKind.RATE_LIMITED, now=0, retry_after=1e12).open_until
    assert 0 == admits_in(failed(NEW, FailureKind.RATE_LIMITED, now=0, retry_after=-5), 0)


def test_a_refused_key_disables_with_the_reason_and_gone_is_for_good() -> None:
    """A person must act; a refused key is tried again by a probe, a provider that is gone never."""
    refused = failed(NEW, FailureKind.UNAUTHORIZED, now=0)
    assert ("unauthorized", BreakerState.OPEN) == (refused.disabled, refused.state)
    assert Admission.PROBE is admit(refused, DEFAULT_POLICY.disabled_pause)[1]
    gone = failed(NEW, FailureKind.GONE, now=0)
    assert Admission.REFUSE is admit(gone, 10 * 365 * 86_400.0)[1]


def test_server_errors_with_retry_after_open_it_at_least_that_long() -> None:
    """A 503 that says when to come back is believed once it trips."""
    breaker = NEW
    for _ in range(3):
        breaker = failed(breaker, FailureKind.OVERLOADED, now=0, retry_after=42)
    assert 42 == breaker.open_until


def test_traffic_comes_back_gradually_after_a_probe() -> None:
    """A tenth at once, all of it when the ramp ends; then it is as if nothing had been."""
    probing, _ = admit(opened(now=0), 5)
    back = succeeded(probing, started_at=5, now=6)
    shares = [ramp(back, now) for now in (5, 6, 6 + DEFAULT_POLICY.ramp / 2, 6 + DEFAULT_POLICY.ramp)]
    assert [0.1, 0.1, 0.55, 1.0] == pytest.approx(shares)
    assert back == succeeded(back, started_at=6, now=7)
    assert NEW is succeeded(back, started_at=6, now=6 + DEFAULT_POLICY.ramp)
    assert 1.0 == ramp(NEW, 0)


def test_a_straggler_from_before_it_closed_does_not_open_it_again() -> None:
    """Calls that hung while the deployment was dead fail long after it has come back."""
    breaker = succeeded(admit(opened(now=0), 5)[0], started_at=5, now=6)
    for _ in range(3):
        breaker = failed(breaker, FailureKind.TIMEOUT, started_at=4, now=10)
    assert BreakerState.CLOSED is breaker.state
    for _ in range(3):
        breaker = failed(breaker, FailureKind.TIMEOUT, started_at=6.5, now=10)
    assert BreakerState.OPEN is breaker.state


def test_a_probe_that_hung_has_served_its_pause() -> None:
    """The next one goes soon: only one call at a time hangs, and recovery is seen sooner."""
    probing, _ = admit(opened(now=0), 5)
    assert 16 == failed(probing, FailureKind.TIMEOUT, started_at=5, now=15).open_until
    assert 15 == failed(probing, FailureKind.TIMEOUT, started_at=5, now=7).open_until


def test_an_outage_of_a_day_does_not_break_arithmetic() -> None:
    """Ten thousand openings in a row, and the pause is still the longest there is."""
    breaker = opened(now=0)
    for _ in range(10_000):
        now = breaker.open_until
        breaker = failed(admit(breaker, now)[0], ERROR, now=now)
        assert breaker.open_until <= now + DEFAULT_POLICY.max_cooldown


events = st.lists(
    st.tuples(
        st.sampled_from(["admit", "success", "release", *FailureKind]), st.floats(0, 30), st.none() | st.floats(-10, 1e6)
    ),
    max_size=40,
)


@given(events)
def test_whatever_happens_it_admits_again_in_the_end(script: list[tuple[str, float, float | None]]) -> None:
    """No history locks a breaker for ever, unless the provider is gone; and at most one probe holds the lease."""
    breaker, now = NEW, 0.0
    for event, pause, retry_after in script:
        now += pause
        if event == "admit":
            before = breaker
            breaker, verdict = admit(breaker, now)
            assert (verdict is Admission.REFUSE) == (admits_in(before, now) > 0)
            if verdict is Admission.PROBE:
                assert Admission.REFUSE is admit(breaker, now)[1]
        elif event == "success":
            breaker = succeeded(breaker, started_at=now)
        elif event == "release":
            breaker = release(breaker)
        else:
            breaker = failed(breaker, FailureKind(event), now=now, retry_after=retry_after)
        assert len(breaker.outcomes) <= DEFAULT_POLICY.window
    if all(event != FailureKind.GONE for event, _, _ in script):
        assert Admission.REFUSE is not admit(breaker, now + DEFAULT_POLICY.max_pause + 1)[1]
