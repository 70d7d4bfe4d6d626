"""The process's HTTP client: aiohttp beneath the `HttpTransport` port (docs/decisions/0001-http-transport.md says why).

What aiohttp would do by itself and a gateway must not is switched off here: redirects, cookies, headers of its own, the silent
second try of an idempotent request on a stale connection, and ``trust_env``, which hops through two threads for every request
(proxies are looked up once per URL instead). Every exception aiohttp can raise is in one table, `ERRORS`.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import urllib.request
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Final, Self

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from shared.ports import (
    ConnectError,
    DisconnectedError,
    HttpRequest,
    HttpResponse,
    HttpTransport,
    ResponseTooLargeError,
    TlsError,
    TransportError,
    TransportTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.connector import Connection

KEEP_ALIVE: Final = 50.0
"""Seconds an idle connection may be used again: less than the 60 s and more after which vendors' edges close theirs, so that a
POST does not meet a connection that is being closed. Servers that close sooner (uvicorn, Node: 5 s) stand near, and their close
has long arrived and been acted on. What remains, a close that crosses our request on the wire, is a `DisconnectedError`: the
request may have been read, so failover asks somebody else and the attempt's billing is unknown."""

DNS_TTL: Final = 30.0
"""Seconds a resolved name is kept: vendors steer regions by DNS."""

MAX_HEADER: Final = 32 * 1024
MAX_TARGETS: Final = 1024
LARGE_BODY: Final = 512 * 1024


# ---- errors ----------------------------------------------------------------------------------------------------------


def _timed_out_connecting(_error: BaseException) -> TransportError:
    return TransportTimeoutError("No connection within the time limit; nothing was sent.", sent=False)


def _timed_out(_error: BaseException) -> TransportError:
    return TransportTimeoutError("The provider was silent for longer than the time limit.", sent=True)


def _unresolved(_error: BaseException) -> TransportError:
    return ConnectError("The provider's host name does not resolve.")


def _unreachable(error: BaseException) -> TransportError:
    return ConnectError(f"No connection to the provider{_reason(error)}.")


def _proxy_unreachable(error: BaseException) -> TransportError:
    return ConnectError(f"No connection to the proxy{_reason(error)}; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.")


def _proxy_refused(error: BaseException) -> TransportError:
    status = error.status if isinstance(error, aiohttp.ClientResponseError) else 0
    return ConnectError(f"The proxy refused the tunnel with status {status}.")


def _bad_certificate(_error: BaseException) -> TransportError:
    return TlsError("The provider's certificate can't be trusted: unknown issuer, other name, or expired.")


def _no_handshake(_error: BaseException) -> TransportError:
    return TlsError("The TLS handshake with the provider failed.")


def _lost(_error: BaseException) -> TransportError:
    return DisconnectedError("The provider closed the connection before the answer was complete.")


def _not_http(_error: BaseException) -> TransportError:
    return DisconnectedError("What the provider sent is not HTTP.")


def _unsendable(_error: BaseException) -> TransportError:
    return ConnectError("The request can't be sent: its URL or a header holds what HTTP does not allow.")


def _reason(error: BaseException) -> str:
    """Return the system's words for an error number, never the exception's own, which hold the address."""
    number = error.errno if isinstance(error, OSError) else None
    return f": {os.strerror(number).lower()}" if number is not None and number > 0 else ""


ERRORS: Final[tuple[tuple[type[BaseException], Callable[[BaseException], TransportError]], ...]] = (
    (aiohttp.ConnectionTimeoutError, _timed_out_connecting),
    (aiohttp.SocketTimeoutError, _timed_out),
    (aiohttp.ServerTimeoutError, _timed_out),
    (aiohttp.ClientConnectorCertificateError, _bad_certificate),
    (aiohttp.ClientConnectorSSLError, _no_handshake),
    (aiohttp.ClientSSLError, _no_handshake),
    (aiohttp.ServerFingerprintMismatch, _bad_certificate),
    (aiohttp.ClientConnectorDNSError, _unresolved),
    (aiohttp.ClientProxyConnectionError, _proxy_unreachable),
    (UnixClientConnectorError, _unreachable),
    (aiohttp.ClientConnectorError, _unreachable),
    (aiohttp.ServerDisconnectedError, _lost),
    (aiohttp.ServerConnectionError, _lost),
    (aiohttp.ClientConnectionResetError, _lost),
    (aiohttp.ClientOSError, _lost),
    (aiohttp.ClientConnectionError, _lost),
    (aiohttp.ClientPayloadError, _lost),
    (aiohttp.UploadAbortedError, _lost),
    (aiohttp.ClientHttpProxyError, _proxy_refused),
    (aiohttp.WSServerHandshakeError, _not_http),
    (aiohttp.ContentTypeError, _not_http),
    (aiohttp.TooManyRedirects, _not_http),
    (aiohttp.ClientResponseError, _not_http),
    (HttpProcessingError, _not_http),
    (aiohttp.InvalidUrlRedirectClientError, _not_http),
    (aiohttp.NonHttpUrlRedirectClientError, _not_http),
    (aiohttp.RedirectClientError, _not_http),
    (aiohttp.InvalidUrlClientError, _unsendable),
    (aiohttp.NonHttpUrlClientError, _unsendable),
    (aiohttp.InvalidURL, _unsendable),
    (aiohttp.ClientError, _lost),
    (TimeoutError, _timed_out),
    (socket.gaierror, _unresolved),
    (OSError, _lost),
    (ValueError, _unsendable),
)
"""Every exception aiohttp can raise, most specific first, and what it is at the port. A test fails when aiohttp gains one."""

RAISED: Final = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError, ValueError)


def translate(error: BaseException) -> TransportError:
    """Return the port's error for one of aiohttp's."""
    return next(make(error) for kind, make in ERRORS if isinstance(error, kind))


# ---- the request -----------------------------------------------------------------------------------------------------


_HEAD: Final[ContextVar[tuple[asyncio.Timeout, float]]] = ContextVar("head")
"""The time limit of the request that the running task is sending, not yet running, and its seconds: how `_Request` finds it
through aiohttp. One timer of our own instead of aiohttp's three saves 20 µs a request."""

_SKIPPED: Final = CIMultiDict[None]({"Content-Type": None})


class _Request(aiohttp.ClientRequest):
    """A request that adds no headers (Host and Content-Length are the protocol's) and starts the clock when it is written."""

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:  # noqa: ARG002  # the base's signature
        """Add nothing: no Accept, Accept-Encoding, User-Agent or Content-Type. aiohttp's own way to skip costs 10 µs."""
        self._skip_auto_headers = _SKIPPED

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Write the request to a connection that stands."""
        limit, seconds = _HEAD.get()
        limit.reschedule(asyncio.get_running_loop().time() + seconds)
        return await super().send(conn)


# ---- the response ----------------------------------------------------------------------------------------------------


class _Response:
    """A response whose head has arrived."""

    __slots__ = ("_response", "_silence", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, silence: float) -> None:
        self._response = response
        self._silence = silence
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    async def read(self, limit: int) -> bytes:
        """Return the whole body; raise `ResponseTooLargeError` above ``limit`` bytes, counted after decompression.

        A pause as long as the head was allowed to take is a `TransportTimeoutError`.
        """
        content = self._response.content
        parts: list[bytes] = []
        size = 0
        if not content.is_eof():
            self._allow_silence(self._silence)
        try:
            while not content.at_eof():
                part = await content.readany()
                size += len(part)
                if size > limit:
                    message = f"The provider's answer is over {limit} bytes."
                    raise ResponseTooLargeError(message)
                parts.append(part)
        except RAISED as error:
            raise translate(error) from error
        finally:
            self._response.close()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self, idle: float) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes; raise `TransportTimeoutError` after ``idle`` seconds of silence.

        Silence is the provider's: while the reader is slow and the buffer full, the clock stands.
        """
        content = self._response.content
        self._allow_silence(idle)
        try:
            while not content.at_eof():
                try:
                    part = await content.readany()
                except RAISED as error:
                    raise translate(error) from error
                if part:
                    yield part
        finally:
            self._response.close()

    def _allow_silence(self, seconds: float) -> None:
        connection = self._response.connection
        if connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = seconds
            connection.protocol.start_timeout()

    async def aclose(self) -> None:
        """Drop the connection, unless the body has come to its end: then it is back in the pool already."""
        self._response.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._response.close()


# ---- the transport ---------------------------------------------------------------------------------------------------


class _AiohttpTransport:
    """One aiohttp session, made when the first request needs it, inside the loop that will run it."""

    def __init__(self, *, limit: int, proxies: Mapping[str, str]) -> None:
        self._limit = limit
        self._proxies = proxies
        self._session: aiohttp.ClientSession | None = None
        self._targets: dict[str, tuple[URL, URL | None]] = {}
        self._closed = False

    async def send(self, request: HttpRequest, *, connect: float, head: float) -> HttpResponse:
        """Send and wait for the response's head, at most ``head`` seconds after the connection stands.

        Raise a `TransportError`. Cancelling closes the connection.
        """
        session = self._session
        if session is None or session.closed:
            session = self._open()
        limit = asyncio.timeout(None)
        _HEAD.set((limit, head))
        try:
            url, proxy = self._targets.get(request.url) or self._target(request.url)
            async with limit:
                response = await session.request(
                    request.method,
                    url,
                    data=_sendable(request.body),
                    headers=request.headers,
                    allow_redirects=False,
                    proxy=proxy,
                    timeout=_connect_within(connect),
                )
        except RAISED as error:
            raise translate(error) from error
        return _Response(response, head)

    async def aclose(self) -> None:
        """Close every connection. May be called twice; requests after it fail as `ConnectError`."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            message = "The gateway is shutting down."
            raise ConnectError(message)
        connector = aiohttp.TCPConnector(limit=self._limit, keepalive_timeout=KEEP_ALIVE, ttl_dns_cache=int(DNS_TTL))
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_Request,
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
        )
        session._retry_connection = False  # noqa: SLF001  # no public switch; a contract test holds us to it
        self._session = session
        return session

    def _target(self, url: str) -> tuple[URL, URL | None]:
        """Parse a URL and find its proxy, once: there are as many as the catalog has deployments."""
        parsed = URL(url)
        found = self._proxies.get(parsed.scheme)
        if found is not None and urllib.request.proxy_bypass(f"{parsed.host}:{parsed.port}"):
            found = None
        proxy = None if found is None else URL(found)
        if len(self._targets) >= MAX_TARGETS:
            self._targets.clear()
        self._targets[url] = parsed, proxy
        return parsed, proxy


@lru_cache(maxsize=64)
def _connect_within(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=seconds, ceil_threshold=math.inf)


def _sendable(body: bytes | None) -> bytes | BytesIO | None:
    """Return a large body as a stream: aiohttp writes it piece by piece then, and the loop goes on meanwhile."""
    return body if body is None or len(body) <= LARGE_BODY else BytesIO(body)


def open_transport(*, limit: int = 0, trust_env: bool = True) -> HttpTransport:
    """Return the process's HTTP client.

    ``limit`` is the most connections at once, 0 for no limit; waiting for one counts as connecting. ``trust_env`` takes proxies
    from HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read now.
    """
    return _AiohttpTransport(limit=limit, proxies=urllib.request.getproxies_environment() if trust_env else {})
