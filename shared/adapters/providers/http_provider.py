"""The one way to call a provider: render → send → parse. What differs is a `WireProtocol`, a record of pure functions.

Time limits are kept here: the transport is given connect, head and idle limits; the whole attempt has one deadline. The
limit on the first content of a stream is the executor's, which alone knows what it has passed on. Nothing is retried here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from shared.adapters.providers.classification import (
    FIRST_REFUSAL,
    bad_response,
    failed,
    from_transport,
    timed_out,
    unusable,
)
from shared.adapters.providers.reply import Reply, load_object
from shared.core.chat import Chunk, Completion
from shared.core.failures import Failed
from shared.core.registry import Auth
from shared.core.sse import Decoder, EventTooLargeError, ServerSentEvent
from shared.ports import (
    Call,
    HttpRequest,
    HttpResponse,
    HttpTransport,
    ResponseTooLargeError,
    TokenSource,
    TransportError,
)

MAX_BODY: Final = 16 * 1024 * 1024
"""Bytes a whole answer may have."""
MAX_ERROR_BODY: Final = 1024 * 1024
MAX_STREAM: Final = 256 * 1024 * 1024
"""Bytes a whole stream may have: some 250 for each token of the longest answer there is, eight times over."""
DRAIN: Final = 0.1
"""Seconds to wait for the end of a stream that has said it is complete, so that its connection can be used again."""
USER_AGENT: Final = "switchyard"


class StreamReader(Protocol):
    """What a protocol makes of a stream's events."""

    done: bool

    def feed(self, event: ServerSentEvent) -> Chunk | Failed | None:
        """Return what the event means, None when it means nothing to a caller."""
        ...

    def finish(self) -> Failed | None:
        """Say that the stream has ended; return why it is incomplete, None if it is complete."""
        ...


@dataclass(frozen=True, slots=True)
class WireProtocol:
    """A provider protocol as pure functions.

    ``headers`` are sent unless the provider's row in the catalog names the same ones; ``reader`` makes what reads one stream.
    """

    url: Callable[[Call], str]
    render: Callable[[Call], bytes | Failed]
    parse: Callable[[Call, Reply, bytes], Completion | Failed]
    reader: Callable[[Call, Reply], StreamReader]
    headers: Mapping[str, str]


AUTH_HEADERS: Final[Mapping[Auth, tuple[str, str]]] = {
    Auth.BEARER: ("authorization", "Bearer "),
    Auth.API_KEY: ("api-key", ""),
    Auth.X_API_KEY: ("x-api-key", ""),
    Auth.ENTRA: ("authorization", "Bearer "),
}
"""The header that carries the credential, and what stands before it. `Auth.NONE` has none."""


class HttpProvider:
    """A `ModelProvider` for one protocol."""

    __slots__ = ("_now", "_protocol", "_tokens", "_transport")

    def __init__(
        self,
        protocol: WireProtocol,
        transport: HttpTransport,
        tokens: TokenSource,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._protocol = protocol
        self._transport = transport
        self._tokens = tokens
        self._now = now

    async def complete(self, call: Call) -> Completion | Failed:
        """Ask for a whole answer."""
        try:
            async with asyncio.timeout(call.timeouts.whole):
                request = await self._request(call)
                if isinstance(request, Failed):
                    return request
                limits = call.timeouts
                response = await self._transport.send(request, connect=limits.connect, head=limits.whole)
                async with aclosing(response):
                    reply = self._reply(response)
                    body = await _read(response, reply)
            return self._protocol.parse(call, reply, body)
        except TransportError as error:
            return from_transport(call, error)
        except TimeoutError:
            return timed_out(call, f"no whole answer within {call.timeouts.whole:g} s")

    async def stream(self, call: Call) -> AsyncGenerator[list[Chunk | Failed], None]:
        """Ask for a streamed answer; yield what came together as one list. A `Failed` is the last thing in the last one."""
        deadline = asyncio.get_running_loop().time() + call.timeouts.whole
        opened = await self._open(call, deadline)
        if isinstance(opened, Failed):
            yield [opened]
            return
        failure: Failed | None
        try:
            async with aclosing(opened), aclosing(opened.chunks(call.timeouts.idle)) as chunks:
                body = _StreamBody(chunks, deadline, call.timeouts.idle)
                reader = self._protocol.reader(call, self._reply(opened))
                while not (reader.done or body.ended):
                    items = read_events(reader, await body.next_events())
                    if not items:
                        continue
                    yield items
                    if isinstance(items[-1], Failed):
                        return
                failure = reader.finish()
                if failure is None and not body.ended:
                    await _drain(chunks)
        except TransportError as error:
            failure = from_transport(call, error)
        except TimeoutError:
            failure = timed_out(call, f"the stream was not complete within {call.timeouts.whole:g} s")
        if failure is not None:
            yield [failure]

    async def _open(self, call: Call, deadline: float) -> HttpResponse | Failed:
        """Send, and return the response if it is a stream of events; otherwise what it means that it is none."""
        limits = call.timeouts
        try:
            async with asyncio.timeout_at(deadline):
                request = await self._request(call)
                if isinstance(request, Failed):
                    return request
                head = min(limits.first_content, limits.whole)
                response = await self._transport.send(request, connect=limits.connect, head=head)
                reply = self._reply(response)
                if reply.status < FIRST_REFUSAL and reply.content_type in {"text/event-stream", ""}:
                    return response
                async with aclosing(response):
                    return await _no_stream(call, response, reply)
        except TransportError as error:
            return from_transport(call, error)
        except TimeoutError:
            return timed_out(call, f"no answer within {limits.whole:g} s")

    async def _request(self, call: Call) -> HttpRequest | Failed:
        body = self._protocol.render(call)
        if isinstance(body, Failed):
            return body
        provider = call.provider
        headers = dict(self._protocol.headers)
        for name, value in provider.headers.items():
            headers[name.lower()] = value
        headers["content-type"] = "application/json"
        headers["accept"] = "text/event-stream" if call.stream else "application/json"
        headers["user-agent"] = USER_AGENT
        headers["x-request-id"] = call.request_id
        if provider.auth is Auth.ENTRA:
            name, prefix = AUTH_HEADERS[Auth.ENTRA]
            headers[name] = prefix + await self._tokens.token(provider.entra_scope)
        elif provider.auth in AUTH_HEADERS and provider.credential is not None:
            name, prefix = AUTH_HEADERS[provider.auth]
            headers[name] = prefix + provider.credential.reveal().strip()
        return HttpRequest("POST", self._protocol.url(call), headers, body)

    def _reply(self, response: HttpResponse) -> Reply:
        return Reply(response.status, response.headers, self._now())


async def _read(response: HttpResponse, reply: Reply) -> bytes:
    if reply.status < FIRST_REFUSAL:
        return await response.read(MAX_BODY)
    with suppress(TransportError):  # the status alone says enough
        return await response.read(MAX_ERROR_BODY)
    return b""


async def _no_stream(call: Call, response: HttpResponse, reply: Reply) -> Failed:
    payload = load_object(await _read(response, reply))
    if reply.status >= FIRST_REFUSAL:
        return failed(call, reply, None) if payload is None else unusable(call, reply, payload) or failed(call, reply)
    refusal = unusable(call, reply, payload)
    return refusal or bad_response(call, reply, "a stream was asked for and the answer is none")


class _StreamBody:
    """A stream's body as events, under the deadline of the attempt and a cap on its size."""

    __slots__ = ("_chunks", "_deadline", "_decoder", "_idle", "_received", "ended")

    def __init__(self, chunks: AsyncGenerator[bytes, None], deadline: float, idle: float) -> None:
        self._chunks = chunks
        self._deadline = deadline
        self._idle = idle
        self._decoder = Decoder()
        self._received = 0
        self.ended = False

    async def next_events(self) -> list[ServerSentEvent]:
        """Return the events the next bytes complete; at the end, the unfinished last one.

        Raise `TimeoutError` at the deadline, `ResponseTooLargeError` over a cap.
        """
        data = await self._next()
        try:
            if data is None:
                self.ended = True
                return self._decoder.close()
            self._received += len(data)
            if self._received > MAX_STREAM:
                message = "the stream is over the cap"
                raise ResponseTooLargeError(message)
            return self._decoder.feed(data)
        except EventTooLargeError as error:
            message = "an event of the stream is over the cap"
            raise ResponseTooLargeError(message) from error

    async def _next(self) -> bytes | None:
        """Return the next bytes, None at the end.

        The transport watches for silence; a timer of our own is set only when the deadline comes before it would act.
        """
        try:
            if asyncio.get_running_loop().time() + self._idle < self._deadline:
                return await anext(self._chunks)
            async with asyncio.timeout_at(self._deadline):
                return await anext(self._chunks)
        except StopAsyncIteration:
            return None


def read_events(reader: StreamReader, events: list[ServerSentEvent]) -> list[Chunk | Failed]:
    """Return what the events mean, up to the one that ends the stream, well or not."""
    items: list[Chunk | Failed] = []
    for event in events:
        item = reader.feed(event)
        if item is not None:
            items.append(item)
        if reader.done or isinstance(item, Failed):
            break
    return items


async def _drain(chunks: AsyncGenerator[bytes, None]) -> None:
    with suppress(TimeoutError, TransportError, StopAsyncIteration):
        async with asyncio.timeout(DRAIN):
            await anext(chunks)
