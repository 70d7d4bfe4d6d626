"""Server-sent events to a client.

Comments while nothing comes, an error event instead of a silent cut, and an early end to the work when the client has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Final

import orjson
from starlette.responses import StreamingResponse

from functions.clients import ClientWatch, Receive
from functions.http import Boundary
from functions.rendering import RawHeaders
from shared.tracing import SERVED, serving

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

KEEP_ALIVE_SECONDS: Final = 15.0
"""The longest silence: Azure's front end closes a connection after 240 s without a byte, other proxies after 30 or 60."""

COMMENT: Final = b": keep-alive\n\n"
DONE: Final = b"data: [DONE]\n\n"

_HEADERS: Final[RawHeaders] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


def event(value: Any) -> bytes:
    """Return one server-sent event with JSON data."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


class EventStream(StreamingResponse):
    """A response that sends events as they come; ``close`` is awaited whichever way it ends."""

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        close: Callable[[], Awaitable[None]],
        request_id: str,
        headers: RawHeaders,
    ) -> None:  # the base class would only derive headers
        self.status_code = 200
        self.background = None
        self.body_iterator = events
        self.raw_headers = [*_HEADERS, *headers]
        self._events = events
        self._close = close
        self._request_id = request_id
        self._served = SERVED.get()  # the response may be sent by another task

    def record(
        self, events: Callable[[AsyncGenerator[bytes, None]], AsyncGenerator[bytes, None]], end: Callable[[], Awaitable[None]]
    ) -> None:
        """Have the events pass through ``events``, and await ``end`` when the stream is over."""
        inner, close = self._events, self._close
        self.body_iterator = self._events = events(inner)

        async def closed() -> None:
            await inner.aclose()
            await close()
            await end()

        self._close = closed

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Send the stream to its end, or until the client has gone."""
        del scope
        with serving(self._served), Boundary(self._request_id) as boundary:
            try:
                with ClientWatch(receive), _KeptAlive(send, KEEP_ALIVE_SECONDS) as client:
                    await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                    async for data in self._events:
                        await client.send(data)
            finally:
                await self._events.aclose()
                await self._close()  # the generator may never have begun, and then closing it does nothing
        if boundary.gone:
            return
        last = b"" if boundary.problem is None else event(boundary.problem.body)
        await send({"type": "http.response.body", "body": last, "more_body": False})


class _KeptAlive:
    """Sends data, and a comment whenever ``silence`` seconds passed without any."""

    __slots__ = ("_commenting", "_last", "_lock", "_loop", "_send", "_silence", "_timer")

    def __init__(self, send: Send, silence: float) -> None:
        self._send = send
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._last = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._commenting: asyncio.Task[None] | None = None

    def __enter__(self) -> _KeptAlive:  # noqa: PYI034 - private and final
        self._timer = self._loop.call_later(self._silence, self._look)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._commenting is not None:
            self._commenting.cancel()

    async def send(self, data: bytes) -> None:
        """Send some of the body."""
        async with self._lock:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._last = self._loop.time()

    def _look(self) -> None:
        left = self._last + self._silence - self._loop.time()
        if left <= 0:
            self._commenting = self._loop.create_task(self.send(COMMENT))
            left = self._silence
        self._timer = self._loop.call_later(left, self._look)
