"""A provider's reply before its meaning: status, headers, the time it came, and the error it may hold.

`read_error` finds the error in every shape providers are known to send it: OpenAI's and Anthropic's ``{"error": {…}}``, a
bare string there (Ollama, Hugging Face), vLLM's top-level ``object: error``, Azure API Management's ``statusCode``, FastAPI's
``detail``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

from shared.core.chat import Json

KEPT_HEADERS: Final = frozenset(
    {
        "x-request-id", "request-id", "apim-request-id", "x-ms-region", "x-ms-deployment-name",
        "x-ms-spillover-from-deployment", "x-ms-spillover-error", "retry-after", "retry-after-ms",
        *(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
        *(
            f"anthropic-ratelimit-{of}-{what}"
            for what in ("limit", "remaining", "reset")
            for of in ("requests", "tokens", "input-tokens", "output-tokens")
        ),
    }
)  # fmt: skip
"""Response headers worth keeping: request ids, rate limits, and which deployment Azure really answered from."""

MAX_WORD: Final = 256
"""Characters a name may have that a provider sends and we keep: a model, an id, a tier."""
TOO_MANY_TOKENS: Final = 1_000_000_000
"""No request has so many: a provider that reports them reports nonsense."""

REQUEST_ID_HEADERS: Final = ("x-request-id", "apim-request-id", "request-id")


@dataclass(frozen=True, slots=True)
class Reply:
    """The head of a provider's response. ``now`` is our wall clock when it came, in seconds since the epoch."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    now: float = 0.0

    @property
    def kept(self) -> dict[str, str]:
        """Return the headers worth keeping."""
        return {name: value for name, value in self.headers.items() if name in KEPT_HEADERS}

    @property
    def request_id(self) -> str | None:
        """Return the provider's own id of this exchange, for its support."""
        return next((self.headers[name][:MAX_WORD] for name in REQUEST_ID_HEADERS if name in self.headers), None)

    @property
    def content_type(self) -> str:
        """Return the media type in lower case without its parameters, "" when there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def sent_at(self) -> float:
        """Return the provider's clock: dates it sends are relative to its own time, not to ours."""
        try:
            return as_utc(parsedate_to_datetime(self.headers.get("date", ""))).timestamp()
        except (ValueError, OverflowError):
            return self.now


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error as the provider told it. ``status`` is a status it named inside the body, where there is one."""

    message: str = ""
    codes: tuple[str, ...] = ()
    """Its codes and types, the most telling first: ``code``, ``innererror.code``, ``type``."""
    code: str | None = None
    param: str | None = None
    status: int | None = None


NO_ERROR_BODY: Final = ErrorBody()


def load_object(body: bytes) -> dict[str, Any] | None:
    """Parse a JSON object; None for anything else."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def read_error(payload: Json) -> ErrorBody | None:
    """Return the error a JSON object holds, None when it holds none (``"error": null`` is none)."""
    error = payload.get("error")
    if isinstance(error, dict):
        return _from_object(error)
    if error:
        return ErrorBody(message=_text(error))
    if payload.get("object") == "error" or payload.get("type") == "error":
        return _from_object(payload)
    if "choices" not in payload and ("statusCode" in payload or "detail" in payload):
        status = payload.get("statusCode")
        message = _text(payload.get("message") or payload.get("detail"))
        return ErrorBody(message=message, status=_status(status))
    return None


def _from_object(error: Json) -> ErrorBody:
    inner = error.get("innererror")
    codes = (error.get("code"), inner.get("code") if isinstance(inner, dict) else None, error.get("type"))
    named = tuple(code for code in codes if isinstance(code, str) and code)
    code, param = error.get("code"), error.get("param")
    return ErrorBody(
        message=_text(error.get("message")),
        codes=named,
        code=code if isinstance(code, str) and code else None,
        param=param if isinstance(param, str) and param else None,
        status=_status(code),
    )


def _status(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:4])
    valid = isinstance(value, int) and 400 <= value <= 599  # noqa: PLR2004  (HTTP's error statuses)
    return value if valid else None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else dump_text(value) or ""


def as_utc(moment: datetime) -> datetime:
    """Take a time without a zone as UTC: what the provider means, wherever this machine stands."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def dump_text(value: Any) -> str | None:
    """Return a parsed JSON value as text; None when it is nested too deep: orjson reads deeper than it writes."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return None


def count(value: Any) -> int | None:
    """Return a number of tokens; None for what is none: a boolean, a negative, a float, a billion and more."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < TOO_MANY_TOKENS else None


def word(value: Any) -> str | None:
    """Return a string with something in it and not too much, None for anything else."""
    return value if isinstance(value, str) and 0 < len(value) <= MAX_WORD else None
