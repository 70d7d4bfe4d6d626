"""Anthropic's answers as OpenAI's: reply → `Completion | Failed`, events → `Chunk | Failed`. Pure.

Thinking is given as ``reasoning_content`` (text) and ``thinking_blocks`` (signed, as Anthropic wants them back in a
conversation with tools; `anthropic_messages` takes them from an assistant's message). Usage is given as inclusive totals:
Anthropic's ``input_tokens`` leaves out what was read from and written to the prompt cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from shared.adapters.providers.anthropic_messages import Block
from shared.adapters.providers.classification import bad_response, failed, unusable
from shared.adapters.providers.reply import NO_ERROR_BODY, Reply, count, dump_text, load_object, read_error, word
from shared.core.chat import Chunk, Completion, FinishReason, Json, Usage
from shared.core.failures import Failed, FailureKind
from shared.core.sse import ServerSentEvent
from shared.ports import Call

FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}
"""Anthropic's stop reasons in OpenAI's words; one that is not known is taken as a stop."""

EMPTY_STOPS: Final = frozenset({"end_turn", None})
"""Stop reasons that do not explain an answer without content: such an answer is a failure, not an answer."""


def parse(call: Call, reply: Reply, body: bytes) -> Completion | Failed:
    """Return the whole answer in OpenAI's shape, or why it is none."""
    payload = load_object(body)
    refusal = unusable(call, reply, payload)
    if refusal is not None or payload is None:
        return refusal or bad_response(call, reply, "the answer is not a JSON object")
    blocks = payload.get("content")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        return bad_response(call, reply, "the answer has no list of content blocks")
    reason = word(payload.get("stop_reason"))
    if not blocks and reason in EMPTY_STOPS:
        return bad_response(call, reply, "the answer is empty", FailureKind.EMPTY_RESPONSE)
    message = _message(blocks)
    if message is None:
        return bad_response(call, reply, "the answer has a content block that makes no sense")
    usage = read_usage(payload.get("usage"))
    finish = FINISH_REASONS.get(reason or "", FinishReason.STOP)
    model = word(payload.get("model")) or call.deployment.target
    answer: dict[str, Any] = {
        "id": word(payload.get("id")) or call.request_id,
        "object": "chat.completion",
        "created": int(reply.now),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish.value}],
    }
    if usage is not None:
        answer["usage"] = render_usage(usage)
        if usage.service_tier is not None:
            answer["service_tier"] = usage.service_tier
    return Completion(answer, usage, model, finish.value, reply.kept)


def _message(blocks: list[Block]) -> dict[str, Any] | None:
    """Return OpenAI's message; None when a block lacks its text. Blocks of kinds nobody asked for are left out."""
    texts: list[str] = []
    thoughts: list[str] = []
    thinking_blocks: list[Block] = []
    calls: list[Block] = []
    for block in blocks:
        kind = word(block.get("type"))
        if kind == "text":
            texts.append(block.get("text"))  # type: ignore[arg-type]  # checked below, all at once
        elif kind == "tool_use":
            calls.append(_tool_call(block, dump_text(block.get("input") or {})))
        elif kind in {"thinking", "redacted_thinking"}:
            thinking_blocks.append(block)
            thoughts.append(block.get("thinking") or "")
    arguments = [call["function"]["arguments"] for call in calls]
    if not all(isinstance(text, str) for text in (*texts, *thoughts, *arguments)):
        return None
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None, "refusal": None}
    if not texts and not calls:
        message["content"] = ""
    if calls:
        message["tool_calls"] = calls
    if thinking_blocks:
        message["reasoning_content"] = "".join(thoughts)
        message["thinking_blocks"] = thinking_blocks
    return message


def _tool_call(block: Json, arguments: str | None) -> Block:
    function = {"name": word(block.get("name")) or "", "arguments": arguments}
    return {"id": word(block.get("id")) or "", "type": "function", "function": function}


def read_usage(usage: Any) -> Usage | None:
    """Return Anthropic's usage as inclusive totals, None when it makes no sense."""
    if not isinstance(usage, dict):
        return None
    fresh, output = count(usage.get("input_tokens")), count(usage.get("output_tokens"))
    if fresh is None or output is None:
        return None
    read = count(usage.get("cache_read_input_tokens")) or 0
    created = count(usage.get("cache_creation_input_tokens")) or 0
    lives = usage.get("cache_creation")
    long_lived = count(lives.get("ephemeral_1h_input_tokens")) if isinstance(lives, dict) else None
    details = usage.get("output_tokens_details")
    thinking = count(details.get("thinking_tokens")) if isinstance(details, dict) else None
    return Usage(
        input_tokens=fresh + read + created,
        output_tokens=output,
        cache_read=read,
        cache_creation=created,
        reasoning=min(thinking or 0, output),
        service_tier=word(usage.get("service_tier")),
        cache_creation_long=min(long_lived or 0, created),
    )


def render_usage(usage: Usage) -> dict[str, Any]:
    """Return a usage in OpenAI's words."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_creation},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


class Stream:
    """Anthropic's events as OpenAI's chunks, one after the other. ``done`` once ``message_stop`` has come."""

    __slots__ = ("_bare", "_base", "_call", "_reply", "_some", "_stop", "_thinking", "_tools", "_usage", "done")

    def __init__(self, call: Call, reply: Reply) -> None:
        self._call = call
        self._reply = reply
        self._base: dict[str, Any] = {
            "id": call.request_id,
            "object": "chat.completion.chunk",
            "created": int(reply.now),
            "model": call.deployment.target,
        }
        self._usage: dict[str, Any] = {}
        self._tools: dict[Any, int] = {}  # block index → index of the tool call
        self._bare: set[int] = set()  # block indexes of tool calls whose arguments have not begun
        self._thinking: dict[Any, Block] = {}  # block index → the thinking block as it grows
        self._some = False
        self._stop: str | None = None
        self.done = False

    def feed(self, event: ServerSentEvent) -> Chunk | Failed | None:
        """Return what the event means; None when it means nothing to a caller (ping, and kinds to come)."""
        payload = load_object(event.data)
        if payload is None:
            return bad_response(self._call, self._reply, "the stream has an event that is not a JSON object")
        kind = payload.get("type")
        if kind == "error" or event.event == "error":
            return failed(self._call, self._reply, read_error(payload) or NO_ERROR_BODY)
        handler = _EVENTS.get(kind) if isinstance(kind, str) else None
        return handler(self, payload) if handler is not None else None

    def finish(self) -> Failed | None:
        """Say that the stream has ended: None if it was complete, which ``message_stop`` alone says."""
        if self.done:
            return None
        what = "the stream ended before the answer was complete"
        return bad_response(self._call, self._reply, what, FailureKind.DISCONNECTED)

    def _chunk(self, delta: dict[str, Any], *, text: str = "", content: bool = True) -> Chunk:
        self._some = self._some or content
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        payload = {**self._base, "choices": [choice]}
        return Chunk(payload, content, len(text), response_model=self._base["model"])

    def _message_start(self, payload: Json) -> Chunk | None:
        message = _object(payload.get("message"))
        self._base["id"] = word(message.get("id")) or self._base["id"]
        self._base["model"] = word(message.get("model")) or self._base["model"]
        self._usage.update(_object(message.get("usage")))
        return self._chunk({"role": "assistant", "content": ""}, content=False)

    def _block_start(self, payload: Json) -> Chunk | None:
        block, index = _object(payload.get("content_block")), _index(payload)
        kind = word(block.get("type"))
        if kind == "tool_use":
            position = self._tools[index] = len(self._tools)
            given = dump_text(block["input"]) if block.get("input") else None
            if given is None:
                self._bare.add(index)
            return self._chunk({"tool_calls": [{"index": position, **_tool_call(block, given or "")}]})
        if kind in {"thinking", "redacted_thinking"}:
            self._thinking[index] = dict(block)
        text = block.get("text") if kind == "text" else None
        return self._chunk({"content": text}, text=text) if isinstance(text, str) and text else None

    def _block_delta(self, payload: Json) -> Chunk | None:
        delta, index = _object(payload.get("delta")), _index(payload)
        text = delta.get("text")
        if isinstance(text, str):
            return self._chunk({"content": text}, text=text, content=bool(text))
        part = delta.get("partial_json")
        if isinstance(part, str) and part and index in self._tools:
            self._bare.discard(index)
            return self._arguments(index, part)
        thought = delta.get("thinking")
        if isinstance(thought, str) and thought:
            block = self._thinking.setdefault(index, {"type": "thinking"})
            block["thinking"] = f"{block.get('thinking') or ''}{thought}"
            return self._chunk({"reasoning_content": thought}, text=thought)
        signature = delta.get("signature")
        if isinstance(signature, str) and index in self._thinking:
            self._thinking[index]["signature"] = signature
        return None

    def _block_stop(self, payload: Json) -> Chunk | None:
        index = _index(payload)
        if index in self._bare:  # a call without arguments: nothing has come, and OpenAI's clients parse what they get
            self._bare.discard(index)
            return self._arguments(index, "{}")
        block = self._thinking.pop(index, None)
        return None if block is None else self._chunk({"thinking_blocks": [block]}, content=False)

    def _arguments(self, index: int, part: str) -> Chunk:
        call = {"index": self._tools[index], "function": {"arguments": part}}
        return self._chunk({"tool_calls": [call]}, text=part)

    def _message_delta(self, payload: Json) -> Chunk | Failed | None:
        self._usage.update({k: v for k, v in _object(payload.get("usage")).items() if v is not None})
        reason = word(_object(payload.get("delta")).get("stop_reason"))
        if reason is None:
            return None
        if not self._some and reason in EMPTY_STOPS:
            return bad_response(self._call, self._reply, "the answer is empty", FailureKind.EMPTY_RESPONSE)
        self._stop = FINISH_REASONS.get(reason, FinishReason.STOP).value
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": self._stop}
        return Chunk(
            payload={**self._base, "choices": [choice]},
            content=True,
            usage=read_usage(self._usage),
            finish_reason=self._stop,
            response_model=self._base["model"],
        )

    def _message_stop(self, _payload: Json) -> Chunk | Failed | None:
        self.done = True
        if self._stop is None and not self._some:
            return bad_response(self._call, self._reply, "the answer is empty", FailureKind.EMPTY_RESPONSE)
        usage = read_usage(self._usage)
        if usage is None:
            return None
        payload = {**self._base, "choices": [], "usage": render_usage(usage)}
        if usage.service_tier is not None:
            payload["service_tier"] = usage.service_tier
        return Chunk(payload, usage=usage, response_model=self._base["model"])


_EVENTS: Final[Mapping[str, Callable[[Stream, Json], Chunk | Failed | None]]] = {
    "message_start": Stream._message_start,  # noqa: SLF001  (the table belongs to the class)
    "content_block_start": Stream._block_start,  # noqa: SLF001
    "content_block_delta": Stream._block_delta,  # noqa: SLF001
    "content_block_stop": Stream._block_stop,  # noqa: SLF001
    "message_delta": Stream._message_delta,  # noqa: SLF001
    "message_stop": Stream._message_stop,  # noqa: SLF001
}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _index(payload: Json) -> int:
    index = payload.get("index")
    return index if isinstance(index, int) else 0
