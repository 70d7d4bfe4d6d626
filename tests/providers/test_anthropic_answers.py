"""Anthropic's answers as OpenAI's, whole and streamed; checked by the OpenAI SDK's types."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from anthropic.types import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from shared.adapters.providers.anthropic_answer import FINISH_REASONS, Stream, parse
from shared.adapters.providers.http_provider import read_events
from shared.adapters.providers.reply import Reply
from shared.core.chat import Chunk, Completion, Usage
from shared.core.failures import Failed, FailureKind
from shared.core.registry import ProviderKind
from shared.core.sse import Decoder, encode
from tests.providers.conftest import call

K = FailureKind
OK = Reply(200, {"content-type": "application/json", "request-id": "req-7"}, now=1_795_000_000.9)
USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 3,
    "cache_read_input_tokens": 5,
    "output_tokens": 8,
    "output_tokens_details": {"thinking_tokens": 2},
    "service_tier": "priority",
}
TOTALS = Usage(18, 8, cache_read=5, cache_creation=3, reasoning=2, service_tier="priority")
THINKING = {"type": "thinking", "thinking": "hm", "signature": "s"}
TOOL_USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1, "🌍"]}}


HOUR = {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2}


def answer(*blocks: Any, **changes: Any) -> dict[str, Any]:
    """Return an answer as Anthropic documents it."""
    payload = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": list(blocks)}
    return {**payload, "stop_reason": "end_turn", "stop_sequence": None, "usage": USAGE, **changes}


def deep(levels: int) -> Any:
    """Return lists in lists."""
    return [deep(levels - 1)] if levels else {}


def parsed(payload: Any, reply: Reply = OK) -> Completion | Failed:
    """Parse a reply; bytes are taken as they are."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return parse(call(kind=ProviderKind.ANTHROPIC), reply, body)


def message_of(found: Completion | Failed) -> dict[str, Any]:
    """Return the message, after OpenAI's SDK has approved of the whole."""
    assert isinstance(found, Completion), found
    ChatCompletion.model_validate(found.payload, strict=True)
    message: dict[str, Any] = found.payload["choices"][0]["message"]
    return message


def test_a_whole_answer() -> None:
    """Text, thinking and tool calls; inclusive totals; OpenAI's words for why it stopped."""
    payload = answer(
        THINKING, {"type": "text", "text": "Hi "}, {"type": "text", "text": "there."}, TOOL_USE, stop_reason="tool_use"
    )
    Message.model_validate(payload)
    found = parsed(payload)
    assert message_of(found) == {
        "role": "assistant",
        "content": "Hi there.",
        "refusal": None,
        "reasoning_content": "hm",
        "thinking_blocks": [THINKING],
        "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":[1,"🌍"]}'}}],
    }
    assert isinstance(found, Completion)
    assert (found.finish_reason, found.response_model, found.usage) == ("tool_calls", "claude-x", TOTALS)
    assert found.headers == {"request-id": "req-7"}
    assert found.payload["created"] == 1_795_000_000
    assert found.payload["service_tier"] == "priority"
    assert found.payload["usage"] == {
        "prompt_tokens": 18,
        "completion_tokens": 8,
        "total_tokens": 26,
        "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


@pytest.mark.parametrize("reason", [*FINISH_REASONS, "something_new"])
def test_stop_reasons(reason: str) -> None:
    """Each has OpenAI's word; a new one is a stop."""
    found = parsed(answer({"type": "text", "text": "x"}, stop_reason=reason))
    assert isinstance(found, Completion)
    assert found.finish_reason == FINISH_REASONS.get(reason, "stop")


def test_every_stop_reason_of_the_sdk_is_known() -> None:
    """One that Anthropic adds must be decided."""
    annotation = Message.model_fields["stop_reason"].annotation
    reasons = {value for part in getattr(annotation, "__args__", ()) for value in getattr(part, "__args__", ())}
    assert reasons == set(FINISH_REASONS)


@pytest.mark.parametrize(
    ("payload", "content"),
    [
        (answer(TOOL_USE, stop_reason="tool_use"), None),
        (answer(stop_reason="refusal"), ""),
        (answer(stop_reason="max_tokens"), ""),
        (answer(THINKING, stop_reason="max_tokens"), ""),
        (answer({"type": "something_new"}, {"type": "text", "text": "x"}), "x"),
        (answer({"type": "text", "text": "x"}, usage=None), "x"),
        (answer({"type": "text", "text": "x"}, usage={"input_tokens": -1}), "x"),
    ],
)
def test_answers_with_gaps_are_answers(payload: dict[str, Any], content: str | None) -> None:
    """Refusals and spent limits are answers; so are those whose usage is missing."""
    assert message_of(parsed(payload))["content"] == content


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"", K.BAD_RESPONSE),
        (b"[]", K.BAD_RESPONSE),
        ({}, K.BAD_RESPONSE),
        (answer(content=None), K.BAD_RESPONSE),
        (answer("text"), K.BAD_RESPONSE),
        (answer({"type": "text", "text": None}), K.BAD_RESPONSE),
        (answer({"type": "text"}), K.BAD_RESPONSE),
        (answer({"type": "thinking", "thinking": 7}), K.BAD_RESPONSE),
        (answer({**TOOL_USE, "input": deep(300)}), K.BAD_RESPONSE),
        (answer(), K.EMPTY_RESPONSE),
        (answer(stop_reason=None), K.EMPTY_RESPONSE),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, K.OVERLOADED),
    ],
)
def test_what_is_no_answer(payload: Any, kind: FailureKind) -> None:
    """A 200 is believed only if an answer is in it."""
    found = parsed(payload)
    assert isinstance(found, Failed)
    assert kind == found.kind


@pytest.mark.parametrize(
    ("status", "error_type", "kind"),
    [
        (400, "invalid_request_error", K.INVALID_REQUEST),
        (401, "authentication_error", K.UNAUTHORIZED),
        (402, "billing_error", K.QUOTA_EXHAUSTED),
        (403, "permission_error", K.UNAUTHORIZED),
        (404, "not_found_error", K.DEPLOYMENT_NOT_FOUND),
        (413, "request_too_large", K.INVALID_REQUEST),
        (429, "rate_limit_error", K.RATE_LIMITED),
        (500, "api_error", K.SERVER_ERROR),
        (504, "timeout_error", K.TIMEOUT),
        (529, "overloaded_error", K.OVERLOADED),
    ],
)
def test_errors(status: int, error_type: str, kind: FailureKind) -> None:
    """By status, and the same by type alone when the error comes inside a stream."""
    error = {"type": "error", "error": {"type": error_type, "message": "x"}}
    found = parsed(error, Reply(status, {"content-type": "application/json"}))
    assert isinstance(found, Failed)
    assert kind == found.kind
    assert [kind] == [item.kind for item in read(encode(orjson.dumps(error), "error")) if isinstance(item, Failed)]


# ---- streams ---------------------------------------------------------------------------------------------------------


def event(kind: str, **fields: Any) -> bytes:
    """Return one event as Anthropic documents it."""
    return encode(orjson.dumps({"type": kind, **fields}), kind)


def start(index: int, **block: Any) -> bytes:
    """Return the start of a block."""
    return event("content_block_start", index=index, content_block=block)


def delta(index: int, kind: str, **fields: Any) -> bytes:
    """Return a piece of a block."""
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


MESSAGE_START = event("message_start", message=answer(stop_reason=None, usage={**USAGE, "output_tokens": 1}))
PING = event("ping")
STOP_0 = event("content_block_stop", index=0)
MESSAGE_DELTA = event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 8})
MESSAGE_STOP = event("message_stop")
TEXT = (start(0, type="text", text=""), delta(0, "text_delta", text="Hi "), PING, delta(0, "text_delta", text="🌍"), STOP_0)
TOOLS = (
    start(1, type="tool_use", id="t1", name="f", input={}),
    delta(1, "input_json_delta", partial_json=""),
    delta(1, "input_json_delta", partial_json='{"a":'),
    delta(1, "input_json_delta", partial_json="1}"),
    event("content_block_stop", index=1),
    start(2, type="tool_use", id="t2", name="g", input={}),
    event("content_block_stop", index=2),
)
THOUGHTS = (
    start(0, type="thinking", thinking="", signature=""),
    delta(0, "thinking_delta", thinking="h"),
    delta(0, "thinking_delta", thinking="m"),
    delta(0, "signature_delta", signature="s"),
    STOP_0,
)
END = (MESSAGE_DELTA, MESSAGE_STOP)


def read(*pieces: bytes) -> list[Chunk | Failed]:
    """Read a stream to its end, in the pieces given."""
    stream, decoder = Stream(call(stream=True, kind=ProviderKind.ANTHROPIC), OK), Decoder()
    items: list[Chunk | Failed] = []
    for piece in pieces:
        items += read_events(stream, decoder.feed(piece))
        if stream.done or (items and isinstance(items[-1], Failed)):
            break
    if not (items and isinstance(items[-1], Failed)):
        failure = stream.finish()
        items += [] if failure is None else [failure]
    return items


def chunks_of(*pieces: bytes) -> list[Chunk]:
    """Return the chunks of a stream that must be complete, after OpenAI's SDK has approved of them."""
    items = read(*pieces)
    chunks = [item for item in items if isinstance(item, Chunk)]
    assert items == chunks
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.payload, strict=True)
    return chunks


def deltas(chunks: list[Chunk]) -> list[dict[str, Any]]:
    """Return the deltas that say something."""
    return [choice["delta"] for chunk in chunks for choice in chunk.payload["choices"] if choice["delta"]]


@pytest.mark.parametrize(
    ("lives", "expected"),
    [(HOUR, 2), ({**HOUR, "ephemeral_1h_input_tokens": 9}, 3), ({"ephemeral_1h_input_tokens": "x"}, 0), (7, 0)],
)
def test_what_is_cached_for_an_hour_is_told_apart(lives: Any, expected: int) -> None:
    """It is dearer; whole and streamed; never more than was written at all."""
    usage = {**USAGE, "cache_creation": lives}
    found = parsed(answer({"type": "text", "text": "x"}, usage=usage))
    assert isinstance(found, Completion)
    streamed = chunks_of(event("message_start", message=answer(stop_reason=None, usage=usage)), *TEXT, *END)
    assert replace(TOTALS, cache_creation_long=expected) == found.usage == streamed[-1].usage


def test_a_stream_of_text() -> None:
    """Role, text, finish reason, usage: content is marked and counted; the totals are those of the whole answer."""
    chunks = chunks_of(MESSAGE_START, *TEXT, *END)
    assert deltas(chunks) == [{"role": "assistant", "content": ""}, {"content": "Hi "}, {"content": "🌍"}]
    assert [c.content for c in chunks] == [False, True, True, True, False]
    assert [c.text_length for c in chunks] == [0, 3, 1, 0, 0]
    assert [c.finish_reason for c in chunks] == [None, None, None, "stop", None]
    assert chunks[-1].payload["choices"] == []
    assert chunks[-1].payload["usage"]["total_tokens"] == 26
    assert chunks[-1].usage == chunks[-2].usage == TOTALS
    assert {c.payload["id"] for c in chunks} == {"msg_1"}
    assert {c.response_model for c in chunks} == {"claude-x"}


def test_a_stream_of_tool_calls() -> None:
    """Calls are numbered from 0 whatever blocks stand between; their arguments come in pieces that add up to JSON."""
    chunks = chunks_of(MESSAGE_START, *TEXT, *TOOLS, *END)
    calls = [c for d in deltas(chunks) for c in d.get("tool_calls", ())]
    assert calls == [
        {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": "1}"}},
        {"index": 1, "id": "t2", "type": "function", "function": {"name": "g", "arguments": ""}},
        {"index": 1, "function": {"arguments": "{}"}},
    ]


def test_arguments_that_come_with_the_start_of_the_call_are_kept() -> None:
    """Anthropic streams them; servers like it may not."""
    chunks = chunks_of(MESSAGE_START, start(0, **TOOL_USE), STOP_0, *END)
    assert [c["function"]["arguments"] for d in deltas(chunks) for c in d.get("tool_calls", ())] == ['{"a":[1,"🌍"]}']


def test_a_stream_of_thinking() -> None:
    """Thoughts come as they are thought; the signed block follows whole, to be sent back."""
    chunks = chunks_of(MESSAGE_START, *THOUGHTS, *TOOLS, *END)
    thought = deltas(chunks)[1:4]
    assert thought == [{"reasoning_content": "h"}, {"reasoning_content": "m"}, {"thinking_blocks": [THINKING]}]


WHOLE = b"".join((MESSAGE_START, *THOUGHTS, *TEXT, *TOOLS, *END))


@settings(deadline=None)
@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_chunks(cuts: list[int]) -> None:
    """Also through characters and names."""
    cuts = sorted(cuts)
    pieces = [WHOLE[a:b] for a, b in zip([0, *cuts], [*cuts, len(WHOLE)], strict=True)]
    assert read(WHOLE) == read(*pieces)


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ((), K.DISCONNECTED),
        ((MESSAGE_START, *TEXT), K.DISCONNECTED),
        ((MESSAGE_START, *TEXT, MESSAGE_DELTA), K.DISCONNECTED),
        ((MESSAGE_START, *END), K.EMPTY_RESPONSE),
        ((MESSAGE_STOP,), K.EMPTY_RESPONSE),
        ((MESSAGE_START, b"data: [DONE]\n\n"), K.BAD_RESPONSE),
        ((MESSAGE_START, b"data: {\n\n"), K.BAD_RESPONSE),
        ((event("error", error={"type": "overloaded_error", "message": "x"}),), K.OVERLOADED),
        ((MESSAGE_START, *TEXT, event("error", error={"type": "rate_limit_error"})), K.RATE_LIMITED),
        ((MESSAGE_START, b"event: error\ndata: {}\n\n"), K.SERVER_ERROR),
    ],
)
def test_incomplete_streams(pieces: tuple[bytes, ...], kind: FailureKind) -> None:
    """`message_stop` alone says that an answer is complete; a failure is the last item."""
    items = read(*pieces)
    assert [item.kind for item in items if isinstance(item, Failed)] == [kind]
    assert isinstance(items[-1], Failed)


def test_events_of_kinds_to_come_are_skipped() -> None:
    """Anthropic promises new ones."""
    new = event("something_new", data=1)
    assert deltas(chunks_of(MESSAGE_START, new, *TEXT, delta(0, "new_delta", x=1), *END)) == deltas(
        chunks_of(MESSAGE_START, *TEXT, *END)
    )


def test_a_refusal_in_a_stream_is_a_finish_reason() -> None:
    """As OpenAI's content filter on output."""
    refusal = event("message_delta", delta={"stop_reason": "refusal"}, usage={"output_tokens": 1})
    assert [c.finish_reason for c in chunks_of(MESSAGE_START, refusal, MESSAGE_STOP)] == [None, "content_filter", None]


NAMES = [
    "type",
    "index",
    "delta",
    "content_block",
    "message",
    "usage",
    "text",
    "id",
    "name",
    "input",
    "stop_reason",
    "error",
    "partial_json",
    "thinking",
    "model",
    "content",
]
KINDS = [
    *[
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "tool_use",
    ],
    "text",
]
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(KINDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=15,
)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), values, max_size=5), max_size=5), st.sampled_from(KINDS))
def test_no_json_can_break_the_reader(objects: list[dict[str, Any]], kind: str) -> None:
    """Whatever comes as events or an answer, the result is chunks, an answer or a failure, never an exception."""
    items = read(*(encode(orjson.dumps({"type": kind, **value})) for value in objects))
    assert all(isinstance(item, (Chunk, Failed)) for item in items)
    for value in objects:
        assert isinstance(parsed(value), (Completion, Failed))
        assert isinstance(parsed({"content": [value], "usage": value}), (Completion, Failed))
