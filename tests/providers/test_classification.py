"""Refusals by table: the status first, then the code; messages clean of secrets; waits in every form providers send them."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.adapters.providers.classification import CODES, PHRASES, RETRY_AFTER_KINDS, STATUSES, clean, from_transport
from shared.adapters.providers.openai_wire import parse
from shared.adapters.providers.reply import Reply
from shared.adapters.providers.retry_after import MAX_RETRY_AFTER, retry_after
from shared.core.failures import Failed, FailureKind
from shared.core.registry import Secret
from shared.ports import (
    ConnectError,
    DisconnectedError,
    ResponseTooLargeError,
    TlsError,
    TransportError,
    TransportTimeoutError,
)
from tests.providers.conftest import call

K = FailureKind
NOW = 1_795_000_000.0


def refused(status: int, error: Any = None, headers: dict[str, str] | None = None) -> Failed:
    """Return what a refusal means."""
    body = orjson.dumps({"error": error}) if error is not None else b"<html>Oops</html>"
    found = parse(call(), Reply(status, headers or {}, NOW), body)
    assert isinstance(found, Failed)
    assert found.status == status
    return found


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, K.BAD_RESPONSE),
        (307, K.BAD_RESPONSE),
        (400, K.INVALID_REQUEST),
        (401, K.UNAUTHORIZED),
        (402, K.QUOTA_EXHAUSTED),
        (403, K.UNAUTHORIZED),
        (404, K.DEPLOYMENT_NOT_FOUND),
        (405, K.DEPLOYMENT_NOT_FOUND),
        (407, K.UNAUTHORIZED),
        (408, K.TIMEOUT),
        (409, K.OVERLOADED),
        (410, K.GONE),
        (413, K.INVALID_REQUEST),
        (415, K.INVALID_REQUEST),
        (418, K.INVALID_REQUEST),
        (422, K.INVALID_REQUEST),
        (424, K.SERVER_ERROR),
        (425, K.OVERLOADED),
        (429, K.RATE_LIMITED),
        (500, K.SERVER_ERROR),
        (501, K.SERVER_ERROR),
        (502, K.SERVER_ERROR),
        (503, K.OVERLOADED),
        (504, K.TIMEOUT),
        (522, K.TIMEOUT),
        (524, K.TIMEOUT),
        (529, K.OVERLOADED),
        (599, K.SERVER_ERROR),
    ],
)
def test_statuses(status: int, kind: FailureKind) -> None:
    """The status alone decides when the body says nothing."""
    assert kind == refused(status).kind
    assert kind == refused(status, {"message": "context_length_exceeded: rate limit, insufficient_quota"}).kind


def test_every_status_in_the_table_is_tried() -> None:
    """A status that is added to the table needs its line above."""
    tried = {status for mark in test_statuses.pytestmark for status, _ in mark.args[1]}  # type: ignore[attr-defined]
    assert set(STATUSES) <= tried


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"code": "context_length_exceeded"}, K.CONTEXT_LENGTH),
        (400, {"code": "string_above_max_length"}, K.CONTEXT_LENGTH),
        (400, {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}, K.CONTENT_FILTER),
        (400, {"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}, K.CONTENT_FILTER),
        (400, {"code": "DeploymentNotFound"}, K.DEPLOYMENT_NOT_FOUND),
        (400, {"code": "unsupported_parameter", "type": "invalid_request_error"}, K.INVALID_REQUEST),
        (400, {"code": "rate_limit_exceeded"}, K.INVALID_REQUEST),
        (400, {"type": "invalid_request_error", "message": "prompt is too long: 250000 tokens > 200000"}, K.CONTEXT_LENGTH),
        (400, {"message": "This model's maximum context length is 4096 tokens."}, K.CONTEXT_LENGTH),
        (400, {"message": "Your credit balance is too low to access"}, K.QUOTA_EXHAUSTED),
        (400, {"message": "The word 'prompt is too long' was in the prompt"}, K.INVALID_REQUEST),
        (400, {"message": None, "code": 400}, K.INVALID_REQUEST),
        (413, {"code": "tokens_limit_reached"}, K.CONTEXT_LENGTH),
        (403, {"code": "model_not_found"}, K.DEPLOYMENT_NOT_FOUND),
        (404, {"code": "DeploymentNotFound"}, K.DEPLOYMENT_NOT_FOUND),
        (429, {"code": "insufficient_quota"}, K.QUOTA_EXHAUSTED),
        (429, {"type": "insufficient_quota", "code": None}, K.QUOTA_EXHAUSTED),
        (429, {"code": "rate_limit_exceeded", "type": "tokens"}, K.RATE_LIMITED),
        (429, {"code": "NoCapacity"}, K.OVERLOADED),
        (500, {"code": "content_filter"}, K.SERVER_ERROR),
        (500, {"type": "invalid_request_error"}, K.SERVER_ERROR),
        (500, {"type": "overloaded_error"}, K.OVERLOADED),
        (529, {"type": "overloaded_error"}, K.OVERLOADED),
        (401, {"code": "insufficient_quota"}, K.QUOTA_EXHAUSTED),
    ],
)
def test_codes_refine_what_the_status_said(status: int, error: dict[str, Any], kind: FailureKind) -> None:
    """A code makes the kind narrower, never another: a 500 about a filter stays the provider's fault."""
    assert kind == refused(status, error).kind


def test_the_tables_are_complete() -> None:
    """Whatever kind a reply can become has its words."""
    assert set(STATUSES.values()) | set(CODES.values()) | {K.BAD_RESPONSE} <= set(PHRASES)


def test_the_callers_mistakes_carry_code_and_param() -> None:
    """OpenAI's words for what the caller can mend."""
    found = refused(400, {"message": "No tool.", "code": "invalid_tool", "param": "tools[0]", "type": "x"})
    assert found == Failed(K.INVALID_REQUEST, "No tool.", status=400, code="invalid_tool", param="tools[0]")


def test_other_failures_are_told_in_our_words() -> None:
    """What the provider says about its own trouble can hold anything: it stays out."""
    found = refused(500, {"message": "Traceback: key sk-canary-0123456789", "code": "internal_error", "param": "x"})
    assert found == Failed(K.SERVER_ERROR, "vendor answered 500 (internal_error): it failed.", status=500)
    assert "vendor answered 401" in refused(401, {"message": "Incorrect API key provided: sk-***"}).message


@pytest.mark.parametrize(
    "secret",
    [
        "sk-canary-0123456789",
        "sk-proj-AAAABBBBCCCC",
        "Bearer abc.def-ghi",
        "api-key: 0123456789abcdef",
        "api_key=0123456789abcdef",
        "https://user:pass@host/path",
        "https://host/path?sig=abc&se=1",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "hf_abcdefghijklmnop",
        '"token": "abcdefgh"',
    ],
)
def test_messages_are_clean(secret: str) -> None:
    """No key, no credential in a URL, no control characters, not endless."""
    message = f"Refused\x00\x1b[31m:\n\u2028 {secret} " + "x" * 2000
    found = clean(message, call())
    for part in ("canary", "AAAABBBB", "abc.def", "0123456789", "user", "pass@", "sig=", "eyJ", "abcdefgh"):
        assert part not in found
    assert found.isprintable()
    assert len(found) == 500
    assert found.startswith("Refused")


@pytest.mark.parametrize(
    "message",
    [
        "Missing required parameter: 'messages[0].content'.",
        "max_tokens: 5000 > 4096",
        "Token limit is 4096 tokens.",
        "日本語 🌍",
    ],
)
def test_honest_messages_are_left_alone(message: str) -> None:
    """Words that only sound like secrets stay."""
    assert message == clean(message, call())


def test_a_key_in_a_code_or_param_is_no_code() -> None:
    """Codes are short identifiers; anything else is dropped."""
    found = refused(400, {"message": "x", "code": "sk-canary-0123456789", "param": "sk-canary-0123456789"})
    assert found.code is None
    assert found.param == "[redacted]"
    assert refused(400, {"message": "x", "code": "a b\n"}).code is None


def test_a_provider_without_a_credential_still_gets_clean_messages() -> None:
    """An empty or missing credential must not blank out every message."""
    assert clean("fine", call(credential=None)) == "fine"
    assert clean("fine", call(credential=Secret(""))) == "fine"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectError("x"), K.CONNECTION),
        (TlsError("x"), K.TLS),
        (TransportTimeoutError("x", sent=False), K.CONNECTION),
        (TransportTimeoutError("x", sent=True), K.TIMEOUT),
        (DisconnectedError("x"), K.DISCONNECTED),
        (ResponseTooLargeError("x"), K.RESPONSE_TOO_LARGE),
        (TransportError("x"), K.DISCONNECTED),
    ],
)
def test_broken_exchanges(error: TransportError, kind: FailureKind) -> None:
    """What was surely not sent costs nothing; what may have been sent is not called a refused connection."""
    assert from_transport(call(), error) == Failed(kind, "vendor: x")


# ---- when to come back -----------------------------------------------------------------------------------------------


def wait(**headers: str) -> float | None:
    """Return the seconds that headers ask for; underscores stand for hyphens."""
    return retry_after(Reply(429, {name.replace("_", "-"): value for name, value in headers.items()}, NOW))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        ({"retry_after": "9"}, 9),
        ({"retry_after": "0.25"}, 0.25),
        ({"retry_after": " 9 "}, 9),
        ({"retry_after": formatdate(NOW + 20, usegmt=True)}, 20),
        ({"retry_after": formatdate(NOW - 20, usegmt=True)}, None),
        ({"retry_after": formatdate(20 + 999, usegmt=True), "date": formatdate(999, usegmt=True)}, 20),
        ({"retry_after": "Wed, 18 Nov 2026 06:00:00 -0000", "date": "Wed, 18 Nov 2026 05:59:30 GMT"}, 30),
        ({"retry_after": "9999999"}, MAX_RETRY_AFTER),
        ({"retry_after_ms": "-1", "retry_after": "9"}, 9),
        ({"retry_after_ms": "0", "retry_after": "0"}, None),
        ({"retry_after": "-1"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": ""}, None),
        ({"retry_after": "Fri, 99 Foo 2026 99:99:99 GMT"}, None),
        ({"x_ratelimit_reset_requests": "6m0s", "x_ratelimit_remaining_requests": "0"}, 360),
        ({"x_ratelimit_reset_tokens": "120ms", "x_ratelimit_remaining_tokens": "0"}, 0.12),
        ({"x_ratelimit_reset_tokens": "1h2m3.5s"}, 3723.5),
        ({"x_ratelimit_reset_tokens": "12"}, 12),
        ({"x_ratelimit_reset_tokens": "0s", "x_ratelimit_remaining_tokens": "0"}, None),
        (
            {
                "x_ratelimit_reset_requests": "9s",
                "x_ratelimit_remaining_requests": "0",
                "x_ratelimit_reset_tokens": "1s",
                "x_ratelimit_remaining_tokens": "0",
            },
            9,
        ),
        ({"x_ratelimit_reset_requests": "9s", "x_ratelimit_reset_tokens": "1s"}, 1),
        (
            {
                "x_ratelimit_reset_requests": "9s",
                "x_ratelimit_remaining_requests": "0",
                "x_ratelimit_reset_tokens": "1s",
                "x_ratelimit_remaining_tokens": "7",
            },
            9,
        ),
        ({"x_ratelimit_reset_requests": "-1", "x_ratelimit_remaining_requests": "-1"}, None),
        ({"x_ratelimit_reset_requests": "garbage"}, None),
        ({"anthropic_ratelimit_tokens_reset": "2026-11-18T06:00:00Z", "date": "Wed, 18 Nov 2026 05:59:30 GMT"}, 30),
        ({"anthropic_ratelimit_tokens_reset": "2026-11-18T06:00:00", "date": "Wed, 18 Nov 2026 05:59:30 GMT"}, 30),
        ({"retry_after": "3", "x_ratelimit_reset_requests": "9s", "x_ratelimit_remaining_requests": "0"}, 3),
    ],
)
def test_when_to_come_back(headers: dict[str, str], expected: float | None) -> None:
    """Milliseconds, seconds, dates by the provider's own clock, then the limits that are used up; nonsense is not said."""
    found = wait(**headers)
    assert expected is None or found == pytest.approx(expected)
    assert (found is None) == (expected is None)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["retry_after", "retry_after_ms", "x_ratelimit_reset_tokens", "date"]), st.text(max_size=12)
    )
)
def test_no_header_can_break_it(headers: dict[str, str]) -> None:
    """Whatever it says, the wait is None or between 0 and a day."""
    found = wait(**headers)
    assert found is None or 0 < found <= MAX_RETRY_AFTER


@pytest.mark.parametrize("status", [429, 503, 529, 500, 402, 504])
def test_waits_are_reported_where_they_mean_something(status: int) -> None:
    """Every kind that cools down carries the provider's wait."""
    assert refused(status, headers={"retry-after": "7"}).retry_after == 7


def test_the_resets_of_limits_are_no_wait_for_other_failures() -> None:
    """They come with every reply: a 500 must not cool down until tomorrow's tokens."""
    headers = {"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "0"}
    assert refused(429, headers=headers).retry_after == 360
    assert refused(500, headers=headers).retry_after is None
    assert refused(503, headers={**headers, "retry-after": "7"}).retry_after == 7


def test_waits_of_refusals_are_not_reported() -> None:
    """Coming back with the same bad request helps nobody."""
    assert refused(400, {"message": "x"}, {"retry-after": "7"}).retry_after is None
    assert K.INVALID_REQUEST not in RETRY_AFTER_KINDS
