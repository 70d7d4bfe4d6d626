"""Responses as server-sent events: while they are being answered, and again from what is kept."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any, Final

import orjson

from functions.chat_completions import StreamSource
from functions.problems import logged
from functions.rendering import RawHeaders, usd
from functions.responses_kept import as_it_is, error_object
from functions.streaming import EventStream
from shared import background
from shared.chains import State
from shared.core.errors import GatewayError
from shared.core.responses_events import ResponseEvents
from shared.executor import AnswerStream
from shared.gateway import Gateway
from shared.responses import Kept

logger = logging.getLogger("switchyard.edge")

FIRST_LOOK: Final = 0.1
LONGEST_LOOK: Final = 2.0
"""Seconds between two looks at what is being answered in the background."""

Keep = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Keeps a response that has ended; returns it as it may be shown."""


class BrokenOffError(Exception):
    """The stream has told its client that the answer failed, and must not be taken for an answer."""


class ResponseStream(EventStream):
    """A stream of which a failure is the last event, and then no answer to be given again under an ``Idempotency-Key``."""

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        close: Callable[[], Awaitable[None]],
        request_id: str,
        headers: RawHeaders,
    ) -> None:
        async def closed() -> None:
            await events.aclose()
            await close()

        self._raw = events
        super().__init__(_calm(events), close=closed, request_id=request_id, headers=headers)

    def record(
        self, events: Callable[[AsyncGenerator[bytes, None]], AsyncGenerator[bytes, None]], end: Callable[[], Awaitable[None]]
    ) -> None:
        """Have the events pass through ``events``, which sees how they end, and await ``end`` when the stream is over."""
        super().record(lambda _: _calm(events(self._raw)), end)


async def _calm(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        async for data in events:
            yield data
    except BrokenOffError:
        return
    finally:
        await events.aclose()


def encode(events: Iterable[dict[str, Any]]) -> bytes:
    """Return events as OpenAI sends them: each is named by its type."""
    return b"".join([b"event: %b\ndata: %b\n\n" % (one["type"].encode(), orjson.dumps(one)) for one in events])


async def live(gateway: Gateway, source: StreamSource, response: dict[str, Any], keep: Keep) -> AsyncGenerator[bytes, None]:
    """Yield the events of a response while it is being answered; keep it when it has ended."""
    events = ResponseEvents(response)
    yield encode(events.begin())
    try:
        stream = await source.opened()
        async for batch in stream.batches:
            if made := [one for chunk in batch for one in events.feed(chunk.payload)]:
                yield encode(made)
    except GatewayError as error:
        told = error_object(error)
        logger.warning("%s broke off: %s", response["id"], logged(error))
        last = events.fail(told)
        await keep(events.response)
        yield encode(last)
        raise BrokenOffError from error
    last = events.finish(at=gateway.clock.now(), more=_told(stream))
    last[-1]["response"] = await keep(events.response)
    yield encode(last)


def _told(stream: AnswerStream) -> dict[str, Any]:
    return {
        "switchyard": {
            "request_id": stream.request_id,
            "model": stream.model,
            "deployment": stream.deployment,
            "attempts": stream.attempts,
            "cost_usd": usd(stream.cost),
        }
    }


async def followed(gateway: Gateway, kept: Kept, *, after: int = -1) -> AsyncGenerator[bytes, None]:
    """Yield the events of a kept response that are numbered above ``after``; of one being answered, until it has ended."""
    async for made in _followed(gateway, kept):
        if shown := [one for one in made if one["sequence_number"] > after]:
            yield encode(shown)


async def _followed(gateway: Gateway, kept: Kept) -> AsyncGenerator[Iterable[dict[str, Any]], None]:
    status = "queued" if kept.background else "in_progress"
    events = ResponseEvents({**kept.response, "status": status, **_UNANSWERED})
    yield [events.lifecycle(name) for name in (["created", "queued"] if kept.background else ["created"])]
    begun = False
    if kept.background and not kept.ended:
        async for now in _looks(gateway, kept):
            kept = now
            if not begun and kept.response["status"] != "queued":
                begun = True
                yield [_in_progress(events)]
    if not begun:
        yield [_in_progress(events)]
    yield events.replay(kept.response)


_UNANSWERED: Final[dict[str, Any]] = {
    "completed_at": None,
    "error": None,
    "incomplete_details": None,
    "output": [],
    "usage": None,
}


def _in_progress(events: ResponseEvents) -> dict[str, Any]:
    events.response["status"] = "in_progress"
    return events.lifecycle("in_progress")


async def _looks(gateway: Gateway, kept: Kept) -> AsyncGenerator[Kept, None]:
    """Yield a background response as it is, again and again, until it has ended."""
    pause = FIRST_LOOK
    while True:
        chain = await gateway.chains.find(kept.id)
        kept = await as_it_is(gateway, kept, chain)
        yield kept
        if kept.ended:
            return
        if chain is None or chain.state is State.QUEUED:
            await gateway.clock.sleep(pause)
        else:
            await background.wait_for(gateway, kept.id, LONGEST_LOOK)
        pause = min(pause * 1.5, LONGEST_LOOK)
