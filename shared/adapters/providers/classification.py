"""A provider's refusal → `Failed`, by tables: the HTTP status first, then the provider's code. Never by reading prose.

The one exception is `DOCUMENTED_MESSAGES`: what a provider documents by its message alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from shared.adapters.providers.reply import NO_ERROR_BODY, ErrorBody, Reply, read_error
from shared.adapters.providers.retry_after import retry_after
from shared.core.chat import Json
from shared.core.failures import CALLERS_FAULT, Failed, FailureKind
from shared.ports import (
    Call,
    ConnectError,
    DisconnectedError,
    ResponseTooLargeError,
    TlsError,
    TransportError,
    TransportTimeoutError,
)

K = FailureKind

FIRST_REFUSAL: Final = 300
"""Statuses from here on hold no answer; redirects are never followed."""

STATUSES: Final[Mapping[int, FailureKind]] = {
    400: K.INVALID_REQUEST,
    401: K.UNAUTHORIZED,
    402: K.QUOTA_EXHAUSTED,
    403: K.UNAUTHORIZED,
    404: K.DEPLOYMENT_NOT_FOUND,
    405: K.DEPLOYMENT_NOT_FOUND,  # this URL does not take what we send
    407: K.UNAUTHORIZED,
    408: K.TIMEOUT,
    409: K.OVERLOADED,
    410: K.GONE,
    413: K.INVALID_REQUEST,
    415: K.INVALID_REQUEST,
    422: K.INVALID_REQUEST,
    424: K.SERVER_ERROR,  # what stands behind the provider's front failed
    425: K.OVERLOADED,
    429: K.RATE_LIMITED,
    500: K.SERVER_ERROR,
    502: K.SERVER_ERROR,
    503: K.OVERLOADED,
    504: K.TIMEOUT,
    522: K.TIMEOUT,  # Cloudflare: its origin did not answer
    524: K.TIMEOUT,
    529: K.OVERLOADED,  # Anthropic
}
"""What a status means when no code says more. Others: see `_kind_of_status`."""

CODES: Final[Mapping[str, FailureKind]] = {
    # OpenAI, Azure OpenAI
    "context_length_exceeded": K.CONTEXT_LENGTH,
    "string_above_max_length": K.CONTEXT_LENGTH,
    "content_filter": K.CONTENT_FILTER,
    "content_policy_violation": K.CONTENT_FILTER,
    "ResponsibleAIPolicyViolation": K.CONTENT_FILTER,
    "insufficient_quota": K.QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": K.QUOTA_EXHAUSTED,
    "billing_not_active": K.QUOTA_EXHAUSTED,
    "model_not_found": K.DEPLOYMENT_NOT_FOUND,
    "DeploymentNotFound": K.DEPLOYMENT_NOT_FOUND,
    "rate_limit_exceeded": K.RATE_LIMITED,
    "RateLimitReached": K.RATE_LIMITED,
    "too_many_requests": K.RATE_LIMITED,
    "tokens": K.RATE_LIMITED,  # OpenAI's ``type`` beside rate_limit_exceeded: which limit it was
    "requests": K.RATE_LIMITED,
    "invalid_api_key": K.UNAUTHORIZED,
    "PermissionDenied": K.UNAUTHORIZED,
    "NoCapacity": K.OVERLOADED,
    "engine_overloaded": K.OVERLOADED,
    "server_error": K.SERVER_ERROR,
    "internal_error": K.SERVER_ERROR,
    "InternalServerError": K.SERVER_ERROR,
    "timeout": K.TIMEOUT,
    "Timeout": K.TIMEOUT,
    # GitHub Models, llama.cpp
    "tokens_limit_reached": K.CONTEXT_LENGTH,
    "exceed_context_size_error": K.CONTEXT_LENGTH,
    # Anthropic (its ``type``)
    "invalid_request_error": K.INVALID_REQUEST,
    "authentication_error": K.UNAUTHORIZED,
    "permission_error": K.UNAUTHORIZED,
    "billing_error": K.QUOTA_EXHAUSTED,
    "not_found_error": K.DEPLOYMENT_NOT_FOUND,
    "request_too_large": K.INVALID_REQUEST,
    "rate_limit_error": K.RATE_LIMITED,
    "timeout_error": K.TIMEOUT,
    "api_error": K.SERVER_ERROR,
    "overloaded_error": K.OVERLOADED,
}
"""What documented codes and types mean. Without a telling status (an error inside a 200) they alone decide."""

REFINEMENTS: Final[Mapping[FailureKind, frozenset[FailureKind]]] = {
    K.INVALID_REQUEST: frozenset({K.CONTEXT_LENGTH, K.CONTENT_FILTER, K.DEPLOYMENT_NOT_FOUND, K.QUOTA_EXHAUSTED}),
    K.RATE_LIMITED: frozenset({K.QUOTA_EXHAUSTED, K.OVERLOADED}),
    K.UNAUTHORIZED: frozenset({K.DEPLOYMENT_NOT_FOUND, K.QUOTA_EXHAUSTED}),
    K.SERVER_ERROR: frozenset({K.OVERLOADED, K.TIMEOUT}),
}
"""Which kinds a code may make of what the status said: a 500 that calls itself invalid_request stays a server error."""

DOCUMENTED_MESSAGES: Final[tuple[tuple[str, FailureKind], ...]] = (
    ("prompt is too long", K.CONTEXT_LENGTH),  # Anthropic: 400 invalid_request_error
    ("input length and `max_tokens` exceed context limit", K.CONTEXT_LENGTH),  # Anthropic
    ("output blocked by content filtering policy", K.CONTENT_FILTER),  # Anthropic: 400 invalid_request_error
    ("this model's maximum context length is", K.CONTEXT_LENGTH),  # vLLM: 400 without a code
    ("your credit balance is too low", K.QUOTA_EXHAUSTED),  # Anthropic: 400 invalid_request_error
)
"""Beginnings of messages, in lower case, that are the only documented sign of a kind. Looked at for 400s alone."""

PUBLIC_CODES: Final[Mapping[FailureKind, str]] = {
    K.CONTEXT_LENGTH: "context_length_exceeded",
    K.CONTENT_FILTER: "content_filter",
}
"""OpenAI's code for kinds that other providers name in their own way, or not at all."""

PHRASES: Final[Mapping[FailureKind, str]] = {
    K.RATE_LIMITED: "its rate limit is reached",
    K.OVERLOADED: "it is overloaded",
    K.SERVER_ERROR: "it failed",
    K.TIMEOUT: "it ran out of time",
    K.UNAUTHORIZED: "it refused our credentials; check the provider's key, role or scope",
    K.QUOTA_EXHAUSTED: "its quota or credit is used up",
    K.DEPLOYMENT_NOT_FOUND: "it does not know the deployment; check target and base_url in the catalog",
    K.GONE: "the service is gone",
    K.BAD_RESPONSE: "what it sent makes no sense",
    K.INVALID_REQUEST: "it can't take this request",
    K.CONTEXT_LENGTH: "the input is longer than the model's context",
    K.CONTENT_FILTER: "its content filter refused",
}

TRANSPORT_ERRORS: Final[tuple[tuple[type[TransportError], FailureKind], ...]] = (
    (ConnectError, K.CONNECTION),
    (TlsError, K.TLS),
    (TransportTimeoutError, K.TIMEOUT),
    (DisconnectedError, K.DISCONNECTED),
    (ResponseTooLargeError, K.RESPONSE_TOO_LARGE),
    (TransportError, K.DISCONNECTED),  # unknown: the careful reading is that something was sent
)

RETRY_AFTER_KINDS: Final = frozenset({K.RATE_LIMITED, K.OVERLOADED, K.QUOTA_EXHAUSTED, K.SERVER_ERROR, K.TIMEOUT})

MAX_MESSAGE: Final = 500
_SECRETS: Final = re.compile(
    r"(?i)\b(?:sk|pk|hf|ghp|gho|ghs|github_pat|xai|gsk|AIza|eyJ)[-_]?[A-Za-z0-9*_\-.]{8,}"  # keys by their vendors' prefixes
    r"|\b(?:bearer|basic)\s+[^\s\"',;]+"
    r"|\b(?:api[-_]?key|subscription[-_]?key|access[-_]?token|token|secret|password|signature|sig)\b[\"']?\s*[=:]\s*[\"']?[^\s\"'&,;]+"
)
_CREDENTIALS_IN_URL: Final = re.compile(r"(?<=://)[^\s/@]+@")
_QUERY_IN_URL: Final = re.compile(r"(://[^\s?#]+)[?#][^\s\"')]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,63}")


def failed(call: Call, reply: Reply, error: ErrorBody | None = None) -> Failed:
    """Return what a reply that is a refusal means: by its status and by the error it holds."""
    error = error or NO_ERROR_BODY
    status = reply.status if reply.status >= FIRST_REFUSAL else error.status  # the latter: an error inside a success
    kind = classify(status, error)
    asked = retry_after(reply, limits=kind is K.RATE_LIMITED) if kind in RETRY_AFTER_KINDS else None
    code = _clean_code(error.code, call)
    if kind in CALLERS_FAULT:
        return Failed(
            kind,
            clean(error.message, call) or _our_words(call, kind, reply.status, code),
            status=reply.status,
            code=PUBLIC_CODES.get(kind) or code,
            param=_clean_param(error.param, call),
            provider_request_id=reply.request_id,
        )
    return Failed(
        kind,
        _our_words(call, kind, reply.status, code),
        status=reply.status,
        retry_after=asked,
        provider_request_id=reply.request_id,
    )


def classify(status: int | None, error: ErrorBody) -> FailureKind:
    """Return the kind. ``status`` None is an error inside a reply that calls itself a success."""
    meant = [CODES[code] for code in error.codes if code in CODES]
    if status is None:
        return meant[0] if meant else K.SERVER_ERROR
    kind = _kind_of_status(status)
    allowed = REFINEMENTS.get(kind, frozenset())
    refined = next((candidate for candidate in meant if candidate in allowed), None)
    if refined is not None:
        return refined
    if status == 400:  # noqa: PLR2004
        message = error.message[:100].lower()
        return next((meaning for start, meaning in DOCUMENTED_MESSAGES if message.startswith(start)), kind)
    return kind


def bad_response(call: Call, reply: Reply, what: str, kind: FailureKind = K.BAD_RESPONSE) -> Failed:
    """Return the failure of a reply that is no refusal but can't be used. ``what`` is our words."""
    message = f"{call.provider.name}: {what}"
    return Failed(kind, message, status=reply.status, provider_request_id=reply.request_id)


def unusable(call: Call, reply: Reply, payload: dict[str, Any] | None) -> Failed | None:
    """Return why a reply holds no answer at all: a refusal, an error inside a success, or not JSON. None when it may."""
    error = None if payload is None else read_error(payload)
    if error is not None or reply.status >= FIRST_REFUSAL:
        return failed(call, reply, error)
    if payload is None:
        return bad_response(call, reply, "the answer is not a JSON object")
    if reply.content_type and "json" not in reply.content_type:
        return bad_response(call, reply, "the answer has a content type that is not JSON")
    return None


def dump_body(body: Json) -> bytes | Failed:
    """Return a body to send, or the failure of one nested deeper than can be written: orjson reads deeper than it writes."""
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        return refused("The request is nested too deep.", None)


def refused(message: str, param: str | None) -> Failed:
    """Return the failure of a request that this protocol can't carry: nothing was sent, others may take it."""
    return Failed(K.INVALID_REQUEST, message, code="unsupported_value", param=param)


def from_transport(call: Call, error: TransportError) -> Failed:
    """Return what a broken exchange means."""
    kind = next(kind for cls, kind in TRANSPORT_ERRORS if isinstance(error, cls))
    if isinstance(error, TransportTimeoutError) and not error.sent:
        kind = K.CONNECTION
    return Failed(kind, f"{call.provider.name}: {error or 'the exchange broke'}")


def timed_out(call: Call, what: str) -> Failed:
    """Return the failure of an attempt that used up its time."""
    return Failed(K.TIMEOUT, f"{call.provider.name}: {what}")


def clean(message: str, call: Call) -> str:
    """Return a provider's message fit for a caller: one line, no keys, no credentials in URLs, not endless."""
    text = message[: 4 * MAX_MESSAGE]
    credential = call.provider.credential
    if credential is not None and len(credential.reveal()) > 3:  # noqa: PLR2004  (a shorter one would hit words)
        text = text.replace(credential.reveal(), "[redacted]")
    text = _CONTROL.sub(" ", text)
    text = _CREDENTIALS_IN_URL.sub("[redacted]@", text)
    text = _QUERY_IN_URL.sub(r"\1", text)
    text = _SECRETS.sub("[redacted]", text).strip()
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def _kind_of_status(status: int) -> FailureKind:
    known = STATUSES.get(status)
    if known is not None:
        return known
    if 400 <= status < 500:  # noqa: PLR2004  (HTTP's classes)
        return K.INVALID_REQUEST
    return K.SERVER_ERROR if status >= 500 else K.BAD_RESPONSE  # noqa: PLR2004  (redirects are never followed)


def _our_words(call: Call, kind: FailureKind, status: int, code: str | None) -> str:
    told = f"{status} ({code})" if code else str(status)
    return f"{call.provider.name} answered {told}: {PHRASES[kind]}."


def _clean_code(code: str | None, call: Call) -> str | None:
    """Return a code that is a short identifier; one that is not could be anything."""
    return code if code is not None and _CODE.fullmatch(code) and clean(code, call) == code else None


def _clean_param(param: str | None, call: Call) -> str | None:
    return clean(param, call)[:128] if param else None
