"""Plain values → the extension's responses. Headers are written as the server wants them, bytes in lower case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.responses import Response

if TYPE_CHECKING:
    from functions.problems import Problem

RawHeaders = list[tuple[bytes, bytes]]

JSON: Final = (b"content-type", b"application/json")
NO_STORE: Final = (b"cache-control", b"no-store")
NANO: Final = 1_000_000_000


class Rendered(Response):
    """A whole response whose headers are already bytes: nothing is left to be derived when it is sent."""

    def __init__(self, body: bytes, *, status: int = 200, headers: RawHeaders) -> None:  # the base only derives headers
        self.status_code = status
        self.body = body
        self.background = None
        headers.append((b"content-length", b"%d" % len(body)))
        self.raw_headers = headers


def json_response(value: Any, *, status: int = 200, headers: RawHeaders | None = None) -> Rendered:
    """Return JSON."""
    found: RawHeaders = [JSON] if headers is None else [JSON, *headers]
    return Rendered(orjson.dumps(value), status=status, headers=found)


def text_response(text: str, *, media_type: str, headers: RawHeaders | None = None) -> Rendered:
    """Return text of a media type, in UTF-8."""
    kind = (b"content-type", f"{media_type}; charset=utf-8".encode())
    return Rendered(text.encode(), headers=[kind, *(headers or ())])


def empty_response(status: int = 204) -> Rendered:
    """Return a response without a body."""
    response = Rendered(b"", status=status, headers=[])
    if status == 204:  # noqa: PLR2004 - 204 must not carry a length
        response.raw_headers.clear()
    return response


def problem_response(problem: Problem) -> Rendered:
    """Return an error in OpenAI's shape."""
    return json_response(problem.body, status=problem.status, headers=[*problem.headers])


def usd_text(cost: int) -> str:
    """Return integer nano-USD as exact decimal USD, without trailing zeros: ``0.00042``."""
    whole, rest = divmod(cost, NANO)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def usd(cost: int | None) -> float | None:
    """Return integer nano-USD as the JSON number of USD; None stays unknown."""
    return None if cost is None else cost / NANO
