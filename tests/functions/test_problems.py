"""Every error has its row, and is rendered as OpenAI does."""

from __future__ import annotations

import logging

import pytest

import shared.ports  # noqa: F401 - defines further errors
from functions.problems import TABLE, logged, problem_of, row_of, unexpected_problem
from shared.core import errors


def _tree(kind: type[errors.GatewayError]) -> list[type[errors.GatewayError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _tree(child))]


@pytest.mark.parametrize("kind", [kind for kind in _tree(errors.GatewayError) if kind.__module__ == "shared.core.errors"])
def test_the_table_has_every_error_of_the_tree(kind: type[errors.GatewayError]) -> None:
    """No error is shown by accident: each has a row of its own."""
    assert kind in TABLE


@pytest.mark.parametrize("kind", _tree(errors.GatewayError))
def test_errors_defined_elsewhere_are_shown_as_their_ancestor(kind: type[errors.GatewayError]) -> None:
    """A storage conflict is a conflict; nothing but the root itself falls through to the root."""
    assert (row_of(kind) is TABLE[errors.GatewayError]) == (kind is errors.GatewayError)


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (errors.InvalidRequestError("m"), 400, "invalid_request_error", None),
        (errors.InvalidRequestError("m", code="content_filter"), 400, "invalid_request_error", "content_filter"),
        (errors.AuthenticationError("m"), 401, "invalid_request_error", "invalid_api_key"),
        (errors.PermissionDeniedError("m"), 403, "permission_error", "permission_denied"),
        (errors.ModelNotFoundError("m"), 404, "invalid_request_error", "model_not_found"),
        (errors.ConflictError("m"), 409, "invalid_request_error", "conflict"),
        (errors.PayloadTooLargeError("m"), 413, "invalid_request_error", "request_too_large"),
        (errors.RateLimitError("m"), 429, "rate_limit_error", "rate_limit_exceeded"),
        (errors.AllAttemptsFailedError("m"), 503, "server_error", "all_attempts_failed"),
        (errors.OverloadedError("m"), 503, "server_error", "overloaded"),
        (errors.DeadlineExceededError("m"), 504, "server_error", "deadline_exceeded"),
    ],
)
def test_an_error_has_its_status_type_and_code(error: errors.GatewayError, status: int, kind: str, code: str | None) -> None:
    """The contract's refusals."""
    problem = problem_of(error)

    assert status == problem.status
    assert problem.body == {"error": {"message": "m", "type": kind, "param": None, "code": code}}


def test_retry_after_is_rounded_up_to_seconds_and_exact_in_milliseconds() -> None:
    """A client that waits whole seconds never comes too early."""
    headers = dict(problem_of(errors.RateLimitError("m", retry_after=1.2)).headers)

    assert headers[b"retry-after"] == b"2"
    assert headers[b"retry-after-ms"] == b"1200"


@pytest.mark.parametrize("retry_after", [float("nan"), float("inf"), None])
def test_a_retry_after_that_is_no_number_is_left_out(retry_after: float | None) -> None:
    """No header is better than a wrong one."""
    assert b"retry-after" not in dict(problem_of(errors.RateLimitError("m", retry_after=retry_after)).headers)


@pytest.mark.parametrize("kind", [errors.AllAttemptsFailedError, errors.DeadlineExceededError, errors.ConflictError])
def test_sdks_are_told_not_to_retry_what_is_decided(kind: type[errors.GatewayError]) -> None:
    """Our own chain is spent: a client that retries would multiply attempts."""
    assert dict(problem_of(kind("m")).headers)[b"x-should-retry"] == b"false"


def test_a_rate_limit_may_be_retried() -> None:
    """Waiting helps there."""
    assert b"x-should-retry" not in dict(problem_of(errors.RateLimitError("m", retry_after=1)).headers)


def test_the_operators_mistakes_are_not_shown_to_callers() -> None:
    """A configuration error names files and settings: those go to the log."""
    problem = problem_of(errors.ConfigurationError("catalog/models.yaml:3 is wrong", problems=["x"]))

    assert problem.level == logging.CRITICAL
    assert "models.yaml" not in str(problem.body)


def test_a_bug_shows_its_request_id_only() -> None:
    """Nothing of the exception leaks."""
    assert "req_1" in unexpected_problem("req_1").body["error"]["message"]


@pytest.mark.parametrize(
    "error", [errors.InvalidRequestError, errors.ModelNotFoundError, errors.NotFoundError, errors.StreamInterruptedError]
)
def test_the_log_does_not_quote_callers_and_providers(error: type[errors.GatewayError]) -> None:
    """Their words may be the prompt's: the code and the field stand for them. Our own words are logged."""
    told = logged(error("You wrote: my secret prompt", code="invalid_value", param="messages"))

    assert f"{error.__name__}: invalid_value at messages" == told
    assert "RateLimitError: Wait." == logged(errors.RateLimitError("Wait."))
