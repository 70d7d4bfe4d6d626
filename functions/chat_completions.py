"""``POST /v1/chat/completions``: OpenAI's chat, whole and streamed, also under Azure OpenAI's paths."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final

from starlette.responses import Response

from functions import streaming
from functions.background_fields import refuse_background_fields
from functions.endpoints import Endpoint, blueprint
from functions.http import Call, endpoint
from functions.idempotent import KEY
from functions.inference import answer_headers, inference_request
from functions.prefer import ACCEPTED, PREFER, answering
from functions.rendering import json_response, usd
from functions.schemas_chat import ChatRequest
from functions.streaming import DONE, EventStream, event
from functions.validation import Schema
from functions.work import Asking, Work
from shared.core.chat import InferenceRequest
from shared.core.errors import InvalidRequestError
from shared.core.requirements import chat_requirements
from shared.executor import Answer, AnswerStream, complete, open_stream

CHAT: Final = Schema(ChatRequest, "ChatRequest")

Shape = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns a chat chunk into the chunk of the endpoint that was called."""


def as_it_is(payload: dict[str, Any]) -> dict[str, Any]:
    """Return a chat's chunk for a chat."""
    return payload


async def read(asking: Asking, body: dict[str, Any]) -> InferenceRequest:
    """Check a chat's body and return the request it stands for."""
    CHAT.check(body)
    check_stream_options(body)
    return inference_request(asking, body, chat_requirements)


def render(answer: Answer, body: dict[str, Any], latency_ms: int) -> dict[str, Any]:
    """Return the answer as it came: it is OpenAI's already."""
    del body, latency_ms
    return answer.completion.payload


WORK: Final = Work("/v1/chat/completions", read, render)


async def create_chat_completion(call: Call) -> Response:
    """Answer a chat."""
    body = call.json()
    request = await read(call, body)
    refuse_background_fields(body)
    if body.get("stream"):
        return await streamed(call, request)
    answer = await complete(call.gateway, call.caller, request, request_id=call.request_id)
    return json_response(answer.completion.payload, headers=answer_headers(answer))


def check_stream_options(body: dict[str, Any]) -> None:
    """Refuse ``stream_options`` without ``stream``, as OpenAI does."""
    if body.get("stream_options") is not None and not body.get("stream"):
        message = "`stream_options` is only allowed when `stream` is true."
        raise InvalidRequestError(message, param="stream_options", code="invalid_value")


async def streamed(call: Call, request: InferenceRequest, *, shape: Shape = as_it_is) -> Response:
    """Answer streamed: committed to the client once the first content is here, or when waiting has taken long.

    After that an error is an event of the stream.
    """
    options = request.payload.get("stream_options") or {}
    source = StreamSource(open_stream(call.gateway, call.caller, request, request_id=call.request_id))
    stream = await source.wait(streaming.KEEP_ALIVE_SECONDS)
    headers = answer_headers(stream) if stream is not None else []
    events = _events(source, usage_wanted=bool(options.get("include_usage")), shape=shape)
    return EventStream(events, close=source.aclose, request_id=call.request_id, headers=headers)


class StreamSource:
    """An answer that is opening, or open. Closing it stops whichever it is; it must always be closed."""

    __slots__ = ("_opening",)

    def __init__(self, opening: Coroutine[Any, Any, AnswerStream]) -> None:
        self._opening = asyncio.get_running_loop().create_task(opening)

    async def wait(self, seconds: float) -> AnswerStream | None:
        """Return the open stream, None if it is not open within ``seconds``; raise what opening it raises."""
        try:
            await asyncio.wait((self._opening,), timeout=seconds)
        except asyncio.CancelledError:
            await self.aclose()
            raise
        return self._opening.result() if self._opening.done() else None

    async def opened(self) -> AnswerStream:
        """Return the open stream, however long that takes."""
        return await self._opening

    async def aclose(self) -> None:
        """Stop opening, or close the stream."""
        if not self._opening.done():  # waiting for what is done would still cost a turn of the loop before the last byte
            self._opening.cancel()
            await asyncio.wait((self._opening,))
        if not self._opening.cancelled() and self._opening.exception() is None:
            await self._opening.result().aclose()


async def _events(source: StreamSource, *, usage_wanted: bool, shape: Shape) -> AsyncGenerator[bytes, None]:
    """Yield the stream's events, those that came together in one piece: each piece costs a write of its own.

    The chunk with the usage comes last, with what the request cost, to those who asked.
    """
    stream = await source.opened()
    last: dict[str, Any] = {"object": "chat.completion.chunk", "created": int(time.time()), "usage": None}
    async for batch in stream.batches:
        piece: list[bytes] = []
        for chunk in batch:
            payload = chunk.payload
            if chunk.usage is not None and not payload.get("choices"):
                last = payload
                continue
            if not usage_wanted and "usage" in payload:
                payload = {name: value for name, value in payload.items() if name != "usage"}
            piece.append(event(shape(payload)))
        if piece:
            yield b"".join(piece)
    yield event(_summary(stream, shape(last))) + DONE if usage_wanted else DONE


def _summary(stream: AnswerStream, payload: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": stream.request_id,
        "model": stream.model,
        **payload,
        "choices": [],
        "switchyard": {
            "request_id": stream.request_id,
            "model": stream.model,
            "deployment": stream.deployment,
            "attempts": stream.attempts,
            "cost_usd": usd(stream.cost),
        },
    }


ENDPOINTS: Final = (
    Endpoint(
        name="create_chat_completion",
        method="POST",
        path="/v1/chat/completions",
        handler=answering(WORK, create_chat_completion),
        parameters=(KEY, PREFER),
        also=ACCEPTED,
        summary="Answer a chat, whole or streamed",
        tag="Inference",
        body=CHAT,
        answers="OpenAI's `chat.completion`, or a stream of `chat.completion.chunk` events.",
        media_types=("application/json", "text/event-stream"),
        aliases=("/openai/v1/chat/completions", "/openai/deployments/{model}/chat/completions"),
        durable=True,
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
