"""The process's HTTP client: aiohttp's connections beneath the `HttpTransport` port (docs/decisions/0001-http-transport.md).

What is used of aiohttp is what is hard: its pool of connections, name resolution, TLS, proxies, and its parser. Its client is
not: a session costs as much again per request, and it follows redirects, keeps cookies, adds headers, reads netrc and repeats
requests, none of which a gateway may do. Every exception aiohttp can raise is in one table, `ERRORS`.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
import socket
import urllib.request
from collections.abc import AsyncGenerator, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple, Self
from weakref import WeakSet

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.resolver import ThreadedResolver
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

    from aiohttp.abc import ResolveResult
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader

KEEP_ALIVE: Final = 50.0
"""Seconds an idle connection may be used again: less than the 60 s and more after which vendors' edges close theirs, so that a
POST does not meet a connection that is being closed. Servers that close sooner (uvicorn, Node: 5 s) stand near, and their close
has long arrived; where the loop stood still and has not acted on it, `_hung_up` asks the system. What remains is a close that
crosses our request on the wire, a `DisconnectedError`: the request may have been read, so failover asks somebody else and the
attempt's billing is unknown."""

_HUNG_UP: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
"""Linux tells a close by the other side from data; elsewhere a close that the loop has not read yet goes unseen."""

DNS_TTL: Final = 30
"""Seconds a resolved name is kept: vendors steer regions by DNS."""

MAX_HEADER: Final = 32 * 1024
MAX_TARGETS: Final = 1024


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


# ---- the response ----------------------------------------------------------------------------------------------------


class _Response:
    """A response whose head has arrived, and the connection its body comes on."""

    __slots__ = ("_connection", "_content", "_silence", "headers", "status")

    def __init__(self, connection: Connection, message: RawResponseMessage, content: StreamReader, silence: float) -> None:
        self._connection = connection
        self._content = content
        self._silence = silence
        self.status = message.code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in message.headers.items()}
        content.on_eof(self._give_back)  # at once when the body is here already

    async def read(self, limit: int) -> bytes:
        """Return the whole body; raise `ResponseTooLargeError` above ``limit`` bytes, counted after decompression.

        A pause as long as the head was allowed to take is a `TransportTimeoutError`.
        """
        content = self._content
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
            _drop(self._connection)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self, idle: float) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes; raise `TransportTimeoutError` after ``idle`` seconds of silence.

        Silence is the provider's: while the reader is slow and the buffer full, the clock stands.
        """
        content = self._content
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
            _drop(self._connection)

    def _give_back(self) -> None:
        transport = self._connection.transport
        if transport is not None and transport.get_write_buffer_size():
            _drop(self._connection)  # answered before it had read the request: the rest of that is still on its way
        else:
            self._connection.release()

    def _allow_silence(self, seconds: float) -> None:
        protocol = self._connection.protocol
        if protocol is not None:
            protocol.read_timeout = seconds
            protocol.start_timeout()

    async def aclose(self) -> None:
        """Drop the connection, unless the body has come to its end: then it is back in the pool already."""
        _drop(self._connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        _drop(self._connection)


def _drop(connection: Connection) -> None:
    """Close a connection that has not been given back, now: a request still being written is not flushed first."""
    if connection.protocol is not None:
        connection.protocol.abort()
        connection.close()


# ---- the transport ---------------------------------------------------------------------------------------------------


class _Target(NamedTuple):
    """A URL made ready, once: what a connection is looked up by, and what a request to it begins with."""

    key: aiohttp.ClientRequest
    path: str
    headers: tuple[str, ...]


class _CheckedResolver(ThreadedResolver):
    """Resolves names only to addresses that may be called: what is connected to is what was checked."""

    def __init__(self, admits: Callable[[str, str], bool]) -> None:
        super().__init__()
        self._admits = admits

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        if not found or not all(self._admits(host, address["host"]) for address in found):
            message = "The name leads to an address that may not be called."
            raise OSError(message)
        return found


class _AiohttpTransport:
    """One pool of connections, made when the first request needs it, inside the loop that will run it."""

    def __init__(self, *, limit: int, proxies: Mapping[str, str], admits: Callable[[str, str], bool] | None = None) -> None:
        self._limit = limit
        self._proxies = proxies
        self._admits = admits
        self._pool: aiohttp.TCPConnector | None = None
        self._targets: dict[str, _Target] = {}
        self._used: WeakSet[ResponseHandler] = WeakSet()
        self._closed = False

    async def send(self, request: HttpRequest, *, connect: float, head: float) -> HttpResponse:
        """Send and wait for the response's head, at most ``head`` seconds after the connection stands.

        Raise a `TransportError`. Cancelling closes the connection.
        """
        pool = self._pool or self._open()
        try:
            target = self._targets.get(request.url) or self._target(request.url)
            written = _render(request, target)
            connection = await self._connected(pool, target, connect)
            try:
                return await _exchange(connection, written, head, bodiless=request.method == "HEAD")
            except BaseException:
                _drop(connection)
                raise
        except RAISED as error:
            raise translate(error) from error

    async def aclose(self) -> None:
        """Close every connection. May be called twice; requests after it fail as `ConnectError`."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    def _open(self) -> aiohttp.TCPConnector:
        if self._closed:
            message = "The gateway is shutting down."
            raise ConnectError(message)
        resolver = None if self._admits is None else _CheckedResolver(self._admits)
        self._pool = aiohttp.TCPConnector(
            limit=self._limit, keepalive_timeout=KEEP_ALIVE, ttl_dns_cache=DNS_TTL, resolver=resolver
        )
        return self._pool

    async def _connected(self, pool: aiohttp.TCPConnector, target: _Target, seconds: float) -> Connection:
        """Return a connection that the server had not closed a moment ago, however long this process stood still meanwhile."""
        while True:
            try:
                connection = await pool.connect(target.key, [], _connect_within(seconds))
            except TimeoutError as error:
                raise _timed_out_connecting(error) from error
            protocol = connection.protocol
            if protocol is None or protocol not in self._used:
                if protocol is not None:
                    self._used.add(protocol)
                return connection
            if not _hung_up(protocol):
                return connection
            _drop(connection)

    def _target(self, url: str) -> _Target:
        """Parse a URL and find its proxy: there are as many as the catalog has deployments."""
        parsed = URL(url)
        host = parsed.host_port_subcomponent
        if parsed.scheme not in {"http", "https"} or not host or parsed.raw_user or parsed.raw_password:
            message = "A URL is http or https, has a host, and no credentials."
            raise ValueError(message)
        proxy = self._proxy(parsed)
        headers = [f"Host: {host}"]
        path = parsed.raw_path_qs
        if proxy is not None and parsed.scheme == "http":  # no tunnel: the proxy itself reads the request
            path = str(parsed.with_fragment(None))
            if proxy.user is not None:
                headers.append(f"Proxy-Authorization: {aiohttp.encode_basic_auth(proxy.user, proxy.password or '')}")
        if len(self._targets) >= MAX_TARGETS:
            self._targets.clear()
        target = _Target(
            aiohttp.ClientRequest("POST", parsed, loop=asyncio.get_running_loop(), proxy=proxy), path, tuple(headers)
        )
        self._targets[url] = target
        return target

    def _proxy(self, url: URL) -> URL | None:
        found = self._proxies.get(url.scheme)
        if found is None or urllib.request.proxy_bypass(f"{url.host}:{url.port}"):
            return None
        return URL(found)


def _render(request: HttpRequest, target: _Target) -> bytes:
    """Return the request as it goes over the wire; raise `ValueError` for what would be another header or request."""
    lines = [f"{request.method} {target.path} HTTP/1.1", *target.headers]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    body = request.body or b""
    if request.body is not None or request.method not in {"GET", "HEAD"}:
        lines.append(f"Content-Length: {len(body)}")
    text = "\r\n".join(lines)
    breaks = len(lines) - 1
    if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text:
        message = "A header holds a line break."
        raise ValueError(message)
    return b"".join((text.encode(), b"\r\n\r\n", body))


def _hung_up(protocol: ResponseHandler) -> bool:
    """Tell whether the server has closed the connection and the loop has not come round to reading so."""
    transport = protocol.transport
    if transport is None:
        return True
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), _HUNG_UP)
    return bool(poll.poll(0))


async def _exchange(connection: Connection, written: bytes, seconds: float, *, bodiless: bool) -> _Response:
    protocol = connection.protocol
    if protocol is None or protocol.transport is None:
        raise aiohttp.ServerDisconnectedError
    protocol.set_response_params(
        skip_payload=bodiless, read_until_eof=True, auto_decompress=True, max_line_size=MAX_HEADER, max_field_size=MAX_HEADER
    )
    async with asyncio.timeout(seconds):
        protocol.transport.write(written)
        message, content = await protocol.read()
        while HTTPStatus.CONTINUE <= message.code < HTTPStatus.OK:
            if message.code == HTTPStatus.SWITCHING_PROTOCOLS:
                raise HttpProcessingError
            message, content = await protocol.read()
    return _Response(connection, message, content, seconds)


@lru_cache(maxsize=64)
def _connect_within(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=seconds, ceil_threshold=math.inf)


def open_transport(
    *, limit: int = 0, trust_env: bool = True, admits: Callable[[str, str], bool] | None = None
) -> HttpTransport:
    """Return an HTTP client.

    ``limit`` is the most connections at once, 0 for no limit; waiting for one counts as connecting. ``trust_env`` takes proxies
    from HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read now. ``admits`` says of a host's name and an address it
    resolves to whether that may be called; with it nothing goes through a proxy, which would resolve names by itself.
    """
    proxies = urllib.request.getproxies_environment() if trust_env and admits is None else {}
    return _AiohttpTransport(limit=limit, proxies=proxies, admits=admits)
