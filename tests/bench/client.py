"""A small HTTP/1.1 client on asyncio's protocols: cheap enough to time a gateway with, standard library only."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

OnData = Callable[[bytes], None]


class LostError(Exception):
    """The connection died before the answer was complete."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status (0: none came), the seconds it took, the body unless it was read as it came, and the head."""

    status: int
    seconds: float
    body: bytes = b""
    head: bytes = b""

    def header(self, name: str) -> str:
        """Return a header's value, "" when it is absent."""
        found = re.search(rb"^%b: *([^\r]*)\r?$" % re.escape(name.encode()), self.head, re.MULTILINE | re.IGNORECASE)
        return found[1].decode() if found else ""


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self.closed = False
        self.transport: asyncio.Transport
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self._buffer = b""
        self._on_data: OnData | None = None
        self._begin()

    def _begin(self) -> None:
        self._status = 0
        self.head = b""
        self._left: int | None = None  # bytes of the body to come; None while unknown
        self._chunked = False
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request in flight, unless its body runs until the connection closes."""
        self.closed = True
        if self._waiter is None or self._waiter.done():
            return
        if self._status and not self._chunked and self._left is None:
            self._finish()
        else:
            self._waiter.set_exception(LostError(str(exc or "closed")))

    def send(self, request: bytes, on_data: OnData | None = None) -> asyncio.Future[tuple[int, bytes]]:
        """Send; the future is (status, body). ``on_data`` sees the body as it arrives instead."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._on_data = on_data
        self._begin()
        if self.closed:
            self._waiter.set_exception(LostError("closed"))
        else:
            self.transport.write(request)
        return self._waiter

    def data_received(self, data: bytes) -> None:
        """Take the head, then the body."""
        if self._waiter is None or self._waiter.done():
            return
        self._buffer += data
        if not self._status and not self._take_head():
            return
        if self._chunked:
            self._take_chunks()
        elif self._buffer or self._left == 0:
            piece, self._buffer = self._buffer, b""
            if self._left is not None:
                self._left -= len(piece)
            self._take(piece)
            if self._left == 0:
                self._finish()

    def _take_head(self) -> bool:
        head, mark, rest = self._buffer.partition(b"\r\n\r\n")
        if not mark:
            return False
        self.head = head
        self._status = int(head[9:12])
        for line in head.lower().split(b"\r\n")[1:]:
            if line.startswith(b"content-length:"):
                self._left = int(line[15:])
            elif line.startswith(b"transfer-encoding:") and b"chunked" in line:
                self._chunked = True
        self._buffer = rest
        return True

    def _take_chunks(self) -> None:
        while True:
            size, mark, rest = self._buffer.partition(b"\r\n")
            length = int(size.split(b";")[0], 16) if mark else 0
            if not mark or len(rest) < length + 2:
                return
            self._buffer = rest[length + 2 :]
            if length == 0:
                self._finish()
                return
            self._take(rest[:length])

    def _take(self, piece: bytes) -> None:
        if self._on_data is None:
            self._parts.append(piece)
        else:
            self._on_data(piece)

    def _finish(self) -> None:
        self._buffer = b""
        if b"connection: close" in self.head.lower():
            self.closed = True
            self.transport.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result((self._status, b"".join(self._parts)))


@dataclass(slots=True)
class Target:
    """A gateway, or the upstream itself: its base URL, what to send, and idle connections to it."""

    name: str
    url: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)
    idle: list[Connection] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return urlsplit(self.url).port or 80

    def body(self, *, stream: bool = False) -> bytes:
        """Return the small chat request that every measurement sends."""
        extra = ',"stream":true' if stream else ""
        return f'{{"model":"{self.model}","messages":[{{"role":"user","content":"hello there"}}]{extra}}}'.encode()

    def request(self, body: bytes, path: str = "/chat/completions", method: str = "POST") -> bytes:
        """Return the request as it goes over the wire."""
        parts = urlsplit(self.url + path)
        fields = {"Host": parts.netloc, "Content-Type": "application/json", "Content-Length": str(len(body))} | dict(
            self.headers
        )
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def connect(self) -> Connection:
        """Open a connection."""
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, "127.0.0.1", self.port))[1]

    async def ask(self, request: bytes, on_data: OnData | None = None, within: float = 60) -> Answer:
        """Send one request on an idle connection. A dead or late answer has status 0."""
        began = time.perf_counter()
        connection: Connection | None = None
        while self.idle and (connection is None or connection.closed):
            connection = self.idle.pop()
        try:
            if connection is None or connection.closed:
                connection = await self.connect()
            status, body = await asyncio.wait_for(connection.send(request, on_data), within)
        except (LostError, OSError, TimeoutError):
            if connection is not None:
                connection.transport.abort()
            return Answer(0, time.perf_counter() - began)
        self.idle.append(connection)
        return Answer(status, time.perf_counter() - began, body, connection.head)

    def close(self) -> None:
        """Drop the idle connections."""
        for connection in self.idle:
            connection.transport.abort()
        self.idle.clear()
