"""Measured health: what one instance learns from its own calls."""

from __future__ import annotations

import pytest

from shared.core.failures import FailureKind
from shared.core.health import UNMEASURED, BreakerState
from shared.health_book import SNAPSHOT_AGE, HealthBook

K = FailureKind


def called(book: HealthBook, *outcomes: FailureKind | None, at: float = 0.0) -> None:
    """Make calls that end so, None being a success, each taking no time."""
    for outcome in outcomes:
        assert book.admit("azure/sol", at, forced=True) is None
        if outcome is None:
            book.succeeded("azure/sol", started_at=at, now=at)
        else:
            book.failed("azure/sol", outcome, now=at)


def test_a_deployment_nobody_called_is_unmeasured() -> None:
    """Not bad, not good: unknown."""
    assert UNMEASURED == HealthBook().snapshot(0).of("azure/sol")
    assert {} == HealthBook().report(0)


def test_latency_and_success_move_towards_the_newest_call() -> None:
    """The first call sets the average, each further one moves it a tenth of the way."""
    book = HealthBook()
    for took in (1.0, 2.0):
        book.admit("azure/sol", 10)
        book.succeeded("azure/sol", started_at=10, now=10 + took, first_content_at=10.5)
    health = book.snapshot(20).of("azure/sol")
    assert health.latency_ms == pytest.approx(1100)
    assert health.first_content_ms == pytest.approx(500)
    assert 1.0 == health.success_rate
    called(book, K.SERVER_ERROR, at=20)
    assert pytest.approx(0.9) == book.report(20)["azure/sol"].health.success_rate


@pytest.mark.parametrize("kind", [K.INVALID_REQUEST, K.CONTENT_FILTER, K.CONTEXT_LENGTH, K.RATE_LIMITED])
def test_what_is_not_the_deployments_fault_does_not_lower_its_success_rate(kind: FailureKind) -> None:
    """A caller's mistake, or too much traffic, is no sign of bad health."""
    book = HealthBook()
    called(book, kind)
    assert 1.0 == book.report(0)["azure/sol"].health.success_rate


def test_a_breaker_that_changes_is_seen_at_once_though_averages_may_be_stale() -> None:
    """A snapshot is reused for a moment, but never past a breaker that opened."""
    book = HealthBook()
    called(book, None)
    before = book.snapshot(0)
    called(book, None)
    assert before is book.snapshot(SNAPSHOT_AGE / 2)
    called(book, K.SERVER_ERROR, K.SERVER_ERROR, K.SERVER_ERROR)
    assert BreakerState.OPEN is book.snapshot(SNAPSHOT_AGE / 2).of("azure/sol").breaker


def test_calls_in_flight_are_counted_and_capped() -> None:
    """Beyond its limit a deployment is busy for a moment, not broken."""
    book = HealthBook()
    assert book.admit("azure/sol", 0, concurrency=1) is None
    refusal = book.admit("azure/sol", 0, concurrency=1)
    assert refusal is not None
    assert refusal.retry_after is not None
    book.cancelled("azure/sol")
    assert book.admit("azure/sol", 0, concurrency=1) is None
    assert 1 == book.report(0)["azure/sol"].in_flight


def test_only_failures_can_be_overridden_never_a_pause_the_provider_asked_for() -> None:
    """A last resort may knock on a broken door, not on one with a sign."""
    book = HealthBook()
    called(book, K.SERVER_ERROR, K.SERVER_ERROR, K.SERVER_ERROR)
    refusal = book.admit("azure/sol", 1)
    assert refusal is not None
    assert refusal.retry_after is None
    assert book.admit("azure/sol", 1, forced=True) is None
    book = HealthBook()
    called(book, K.RATE_LIMITED)
    refusal = book.admit("azure/sol", 1, forced=True)
    assert refusal is not None
    assert pytest.approx(1.0) == refusal.retry_after


def test_a_provider_that_is_gone_is_never_called_again() -> None:
    """Not even as a last resort: 410 is permanent."""
    book = HealthBook()
    called(book, K.GONE)
    assert book.admit("azure/sol", 1e6, forced=True) is not None
    assert "gone" == book.report(1)["azure/sol"].health.disabled


def test_a_cancelled_probe_lets_the_next_one_through() -> None:
    """A client that left must not keep the breaker half open."""
    book = HealthBook()
    called(book, K.SERVER_ERROR, K.SERVER_ERROR, K.SERVER_ERROR)
    assert book.admit("azure/sol", 6) is None
    assert book.admit("azure/sol", 6) is not None
    book.cancelled("azure/sol")
    assert book.admit("azure/sol", 6) is None
