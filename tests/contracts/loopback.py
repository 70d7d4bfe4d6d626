"""A raw server on loopback that answers as it is told, and what the transport's tests ask it with."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from shared.ports import HttpRequest, HttpTransport

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: 7\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Server:
    """A raw loopback server: what it was sent, how many connections it saw, and whether they were closed on it."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.closed = asyncio.Event()
        self.url = ""

    async def serve(self, tls: ssl.SSLContext | None) -> asyncio.Server:
        """Listen on a free port."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=tls, backlog=2048)
        port = server.sockets[0].getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/v1/chat/completions"
        return server

    async def _connected(self, reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            await self._handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self.closed.set()
            self._tasks.discard(task)
            writer.transport.abort()

    async def stop(self) -> None:
        """End every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def receive(self, reader: Reader) -> bytes:
        """Read and keep one request."""
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
        body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        self.requests.append(head + body)
        return head + body


@contextlib.asynccontextmanager
async def serving(
    handler: Callable[[Server, Reader, Writer], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """Run a server whose connections are answered by ``handler``."""

    async def connected(reader: Reader, writer: Writer) -> None:
        await handler(server, reader, writer)

    server = Server(connected)
    listening = await server.serve(tls)
    try:
        yield server
    finally:
        listening.close()
        await server.stop()


def answering(*parts: bytes, pause: float = 0, then: str = "wait") -> Callable[[Server, Reader, Writer], Awaitable[None]]:
    """Answer each request with ``parts``, ``pause`` seconds apart, and then "wait" for the next, "hang", "close" or "reset"."""

    async def handler(server: Server, reader: Reader, writer: Writer) -> None:
        while True:
            await server.receive(reader)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
            if then == "hang":
                await reader.read()
            if then == "reset":
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            if then != "wait":
                return

    return handler


def post(url: str, body: bytes = b"{}", **headers: str) -> HttpRequest:
    """Return a request as the adapters make them."""
    return HttpRequest("POST", url, {"content-type": "application/json", **headers}, body)


async def ask(transport: HttpTransport, url: str, *, connect: float = 2, head: float = 2) -> bytes:
    """Send, and return the whole body."""
    response = await transport.send(post(url), connect=connect, head=head)
    return await response.read(1 << 20)


async def gather_into(parts: list[bytes], chunks: AsyncIterator[bytes]) -> None:
    """Keep what came before an error."""
    async for part in chunks:
        parts.append(part)  # noqa: PERF401  # a comprehension would lose them


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the other side of a socket does, two seconds at most."""
    async with asyncio.timeout(2):
        while not condition():  # a socket sets no event
            await asyncio.sleep(0.001)
