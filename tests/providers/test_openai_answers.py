"""OpenAI's wire: what comes back, whole and streamed. Pure."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from shared.adapters.providers.http_provider import read_events
from shared.adapters.providers.openai_wire import Stream, parse, read_usage
from shared.adapters.providers.reply import Reply
from shared.core.chat import Chunk, Completion, Operation, Usage
from shared.core.failures import Failed, FailureKind
from shared.core.sse import Decoder, encode
from tests.providers.conftest import call

K = FailureKind
OK = Reply(200, {"content-type": "application/json; charset=utf-8", "x-request-id": "req-7"}, now=1_795_000_000.0)
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


# ---- whole answers ---------------------------------------------------------------------------------------------------


def answer(**changes: Any) -> dict[str, Any]:
    """Return a whole answer as OpenAI documents it."""
    message = {"role": "assistant", "content": "Hi.", "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    payload = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-5-2025-08-07",
        "choices": [choice],
        "usage": USAGE,
    }
    return {**payload, **changes}


def parsed(payload: Any, reply: Reply = OK, **others: Any) -> Completion | Failed:
    """Parse a reply; bytes are taken as they are."""
    body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    return parse(call(**others), reply, body)


def test_a_whole_answer_passes_through() -> None:
    """The payload is the provider's; model, usage, finish reason and request id are read from it."""
    payload = answer(service_tier="priority", system_fingerprint="fp", prompt_filter_results=[{"prompt_index": 0}])
    found = parsed(payload)
    assert isinstance(found, Completion)
    assert payload == found.payload
    ChatCompletion.model_validate(found.payload)
    assert (found.response_model, found.finish_reason) == ("gpt-5-2025-08-07", "stop")
    assert found.usage == Usage(9, 4, service_tier="priority")
    assert found.headers == {"x-request-id": "req-7"}


def test_azures_headers_are_kept() -> None:
    """Who answered after a spillover, and what is left of the limits; nothing else, cookies least of all."""
    kept = {"x-ms-spillover-from-deployment": "ptu", "x-ratelimit-remaining-tokens": "7", "apim-request-id": "a"}
    found = parsed(answer(), Reply(200, {"content-type": "application/json", "set-cookie": "s", **kept}))
    assert isinstance(found, Completion)
    assert kept == found.headers


@pytest.mark.parametrize(
    "changes",
    [
        {"error": None},
        {"usage": None},
        {"model": None},
        {
            "choices": [
                {"message": {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, "finish_reason": "tool_calls"}
            ]
        },
        {"choices": [{"message": {"content": "x"}, "content_filter_results": {"error": {"code": "content_filter_error"}}}]},
        {"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]},
        {"statusCode": 1, "detail": "a field of the vendor's own"},
    ],
)
def test_answers_with_gaps_are_answers(changes: dict[str, Any]) -> None:
    """Unknown fields, missing usage, a content filter that did not run: the caller still has an answer."""
    assert isinstance(parsed(answer(**changes)), Completion)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", K.BAD_RESPONSE),
        (b"not json", K.BAD_RESPONSE),
        (b"\xff\xfe", K.BAD_RESPONSE),
        (b"null", K.BAD_RESPONSE),
        (b"[]", K.BAD_RESPONSE),
        (b'"text"', K.BAD_RESPONSE),
        (b'{"choices": [{"message"', K.BAD_RESPONSE),
        (b'{"choices": NaN}', K.BAD_RESPONSE),
        (b"[" * 100_000, K.BAD_RESPONSE),
        (b"{}", K.EMPTY_RESPONSE),
        (b'{"choices": null}', K.EMPTY_RESPONSE),
        (b'{"choices": []}', K.EMPTY_RESPONSE),
        (b'{"choices": {"a": 1}}', K.BAD_RESPONSE),
        (b'{"choices": ["text"]}', K.BAD_RESPONSE),
        (b'{"choices": [{}]}', K.BAD_RESPONSE),
        (b'{"choices": [{"message": "text"}]}', K.BAD_RESPONSE),
        (b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}', K.RATE_LIMITED),
        (b'{"error": {"message": "slow down", "code": 429}}', K.RATE_LIMITED),
        (b'{"error": {"message": "slow down", "code": "429"}}', K.RATE_LIMITED),
        (b'{"error": {"message": "?"}}', K.SERVER_ERROR),
        (b'{"error": "model is loading"}', K.SERVER_ERROR),
        (b'{"error": ["a", "b"]}', K.SERVER_ERROR),
        (b'{"error": {"message": ' + b"[" * 500 + b"]" * 500 + b"}}", K.SERVER_ERROR),
        (b'{"object": "error", "message": "too long", "code": 400}', K.INVALID_REQUEST),
        (b'{"statusCode": 401, "message": "Access denied"}', K.UNAUTHORIZED),
        (b'{"detail": "Not Found"}', K.SERVER_ERROR),
    ],
)
def test_what_is_no_answer(body: bytes, kind: FailureKind) -> None:
    """A 200 is believed only if an answer is in it; an error in it is the error it is."""
    found = parsed(body)
    assert isinstance(found, Failed)
    assert kind == found.kind
    assert found.status == 200
    assert found.provider_request_id == "req-7"


@pytest.mark.parametrize(("content_type", "good"), [("text/html", False), ("", True), ("application/problem+json", True)])
def test_content_types(content_type: str, *, good: bool) -> None:
    """A page is no answer, even one that would parse."""
    assert isinstance(parsed(answer(), Reply(200, {"content-type": content_type})), Completion) == good


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, Usage(9, 4)),
        ({"prompt_tokens": 9, "total_tokens": 9}, Usage(9)),
        (
            USAGE
            | {
                "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(9, 4, cache_read=5, cache_creation=2, reasoning=3),
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 4,
                "total_tokens": 20,
                "completion_tokens_details": {"reasoning_tokens": 7},
            },
            Usage(9, 11, reasoning=7),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 50}, Usage(9, 41, reasoning=37)),
        (USAGE | {"prompt_cache_hit_tokens": 5}, Usage(9, 4, cache_read=5)),
        (USAGE | {"prompt_tokens_details": {"cached_tokens": 99, "cache_write_tokens": 9}}, Usage(9, 4, cache_read=9)),
        (USAGE | {"prompt_tokens_details": None, "completion_tokens_details": 7}, Usage(9, 4)),
        (USAGE | {"completion_tokens_details": {"reasoning_tokens": -1}}, Usage(9, 4)),
        ({"prompt_tokens": -9, "completion_tokens": 4}, None),
        ({"prompt_tokens": 2**63, "completion_tokens": 4}, None),
        ({"prompt_tokens": True, "completion_tokens": 4}, None),
        ({"prompt_tokens": 9.5, "completion_tokens": 4}, None),
        ({"prompt_tokens": "9", "completion_tokens": 4}, None),
        ({}, None),
        (None, None),
        ("many", None),
    ],
)
def test_usage(usage: Any, expected: Usage | None) -> None:
    """Inclusive totals; nonsense is not reported at all, so that it is flagged rather than billed."""
    assert expected == read_usage({"usage": usage})


@pytest.mark.parametrize(
    ("data", "good"),
    [
        ([{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}], True),
        ([{"object": "embedding", "index": 0, "embedding": "AAAA"}], True),
        ([], False),
        ([{"index": 0}], False),
        (None, False),
    ],
)
def test_embeddings(data: Any, *, good: bool) -> None:
    """Vectors as numbers or base64, with the tokens of the input."""
    payload = {"object": "list", "data": data, "model": "e", "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    found = parsed(payload, operation=Operation.EMBEDDINGS)
    assert isinstance(found, Completion) == good
    if isinstance(found, Completion):
        assert data == found.payload["data"]
        assert found.usage == Usage(3)


# ---- streams ---------------------------------------------------------------------------------------------------------


def chunk(delta: Any = None, finish: str | None = None, **changes: Any) -> bytes:
    """Return one event of a stream as OpenAI documents it."""
    choices = [] if delta is None else [{"index": changes.pop("index", 0), "delta": delta, "finish_reason": finish}]
    payload = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5-2025", "choices": choices}
    return encode(orjson.dumps({**payload, **changes}))


START = chunk({"role": "assistant", "content": ""})
HI = chunk({"content": "Hi 🌍"})
STOP = chunk({}, "stop")
LAST = chunk(usage=USAGE)
DONE = b"data: [DONE]\n\n"


def read(*pieces: bytes) -> list[Chunk | Failed]:
    """Read a stream to its end, in the pieces given."""
    stream, decoder = Stream(call(stream=True), Reply(200, {}, 0.0)), Decoder()
    items: list[Chunk | Failed] = []
    for piece in pieces:
        items += read_events(stream, decoder.feed(piece))
        if stream.done or (items and isinstance(items[-1], Failed)):
            break
    else:
        items += read_events(stream, decoder.close())
    if not (items and isinstance(items[-1], Failed)):
        failure = stream.finish()
        items += [] if failure is None else [failure]
    return items


def kinds(items: list[Chunk | Failed]) -> list[FailureKind]:
    """Return the failures."""
    return [item.kind for item in items if isinstance(item, Failed)]


def test_a_stream() -> None:
    """Role, text, finish reason, usage, end: content is marked and counted, and every chunk is OpenAI's."""
    items = read(START, HI, STOP, LAST, DONE)
    assert kinds(items) == []
    chunks = [item for item in items if isinstance(item, Chunk)]
    assert [c.content for c in chunks] == [False, True, True, False]
    assert [c.text_length for c in chunks] == [0, 4, 0, 0]
    assert [c.finish_reason for c in chunks] == [None, None, "stop", None]
    assert [c.usage for c in chunks] == [None, None, None, Usage(9, 4)]
    assert {c.response_model for c in chunks} == {"gpt-5-2025"}
    for c in chunks:
        ChatCompletionChunk.model_validate(c.payload)


WHOLE_STREAM = b": comment\n\n" + START + HI + STOP + LAST + DONE


@settings(deadline=None)
@given(st.lists(st.integers(0, len(WHOLE_STREAM)), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_chunks(cuts: list[int]) -> None:
    """Also through the emoji and through [DONE]."""
    cuts = sorted(cuts)
    pieces = [WHOLE_STREAM[a:b] for a, b in zip([0, *cuts], [*cuts, len(WHOLE_STREAM)], strict=True)]
    assert read(WHOLE_STREAM) == read(*pieces)


@pytest.mark.parametrize(
    ("delta", "content", "length"),
    [
        ({"content": "abc"}, True, 3),
        ({"content": ""}, False, 0),
        ({"content": None}, False, 0),
        ({"refusal": "no"}, True, 2),
        ({"reasoning_content": "hm"}, True, 2),
        ({"reasoning": "hm"}, True, 2),
        ({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}]}, True, 0),
        ({"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}, {"function": None}, 7]}, True, 4),
        ({"tool_calls": []}, False, 0),
        ({"function_call": {"name": "f"}}, True, 0),
        ({"audio": {"data": "AAAA"}}, True, 0),
        ({"role": "assistant"}, False, 0),
        ({}, False, 0),
        ("odd", False, 0),
    ],
)
def test_what_counts_as_content(delta: Any, length: int, *, content: bool) -> None:
    """The first event a caller can use commits the gateway; nothing else does."""
    first = read(chunk(delta))[0]
    assert isinstance(first, Chunk)
    assert (content, length) == (first.content, first.text_length)


AZURE_FIRST = chunk(model="", prompt_filter_results=[{"prompt_index": 0, "content_filter_results": {}}])
FILTERED = {"index": 0, "content_filter_results": {"hate": {}}, "content_filter_offsets": {}}
AZURE_FILTER = encode(orjson.dumps({"id": "", "object": "", "created": 0, "model": "", "choices": [FILTERED]}))


@pytest.mark.parametrize(
    "pieces",
    [
        (AZURE_FIRST, START, HI, AZURE_FILTER, STOP, AZURE_FILTER, LAST, DONE),
        (START, HI, STOP, LAST),  # a vendor that leaves [DONE] out
        (START, HI, STOP, AZURE_FILTER),
        (START, HI, chunk({}, "content_filter"), DONE),
        (START, STOP, DONE),
        (START, HI, DONE),
        (START, HI, STOP, DONE, b"data: garbage after the end\n\n"),
        (START, HI, STOP, b"data: [DONE]"),
        (START, HI, STOP, b"data:  [DONE] \n\n"),
        (
            chunk({"content": "a"}, index=0),
            chunk({"content": "b"}, index=1),
            chunk({}, "stop", index=1),
            chunk({}, "stop", index=0),
        ),
        (START, chunk({"content": "a"}, "stop", error=None)),
    ],
)
def test_complete_streams(pieces: tuple[bytes, ...]) -> None:
    """Azure's filter events, vendors without [DONE], several choices, an unfinished last line: all complete."""
    items = read(*pieces)
    assert kinds(items) == []
    assert any(isinstance(item, Chunk) and item.content for item in items)


@pytest.mark.parametrize("choices", [b"", b'"choices": null,', b'"choices": [],'])
def test_every_chunk_has_a_list_of_choices(choices: bytes) -> None:
    """Whoever reads chunks need not look first."""
    first = read(encode(b"{" + choices + b'"usage": {"prompt_tokens": 1}}'))[0]
    assert isinstance(first, Chunk)
    assert first.payload["choices"] == []


def test_every_choice_has_a_delta() -> None:
    """Azure's late filter verdicts have none, and clients read it of every choice; the verdict itself stays."""
    late = read(START, AZURE_FILTER)[1]
    assert isinstance(late, Chunk)
    assert late.payload["choices"] == [{**FILTERED, "delta": {}}]
    assert not late.content


def test_azures_verdict_on_the_prompt_travels_with_the_first_event_that_has_choices() -> None:
    """Many clients read `choices[0]` of every event; nothing of what Azure says is lost."""
    first, *others = read(AZURE_FIRST, START, HI, STOP, DONE)
    assert isinstance(first, Chunk)
    assert first.payload["choices"]
    assert first.payload["prompt_filter_results"]
    assert not first.content
    assert not any("prompt_filter_results" in item.payload for item in others if isinstance(item, Chunk))


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ((), K.DISCONNECTED),
        ((START,), K.DISCONNECTED),
        ((START, HI), K.DISCONNECTED),
        ((START, HI, HI[:-20]), K.BAD_RESPONSE),
        ((chunk({"content": "a"}, index=0), chunk({"content": "b"}, index=1), chunk({}, "stop", index=1)), K.DISCONNECTED),
        ((DONE,), K.EMPTY_RESPONSE),
        ((START, DONE), K.EMPTY_RESPONSE),
        ((AZURE_FIRST, LAST, DONE), K.EMPTY_RESPONSE),
        ((START, b"data: garbage\n\n"), K.BAD_RESPONSE),
        ((START, b"data: []\n\n"), K.BAD_RESPONSE),
        ((START, b"data: 7\n\n"), K.BAD_RESPONSE),
        ((START, b'data: {"choices": "no"}\n\n'), K.BAD_RESPONSE),
        ((START, b'data: {"choices": [7]}\n\n'), K.BAD_RESPONSE),
        ((b'data: {"error": {"message": "x", "code": "rate_limit_exceeded"}}\n\n',), K.RATE_LIMITED),
        ((b'data: {"error": {"message": "x", "type": "too_many_requests", "code": null}}\n\n',), K.RATE_LIMITED),
        ((START, b'event: error\ndata: {"message": "x"}\n\n'), K.SERVER_ERROR),
        ((START, HI, b'data: {"error": {"message": "x", "code": "content_filter"}}\n\n'), K.CONTENT_FILTER),
        ((START, HI, chunk({"content": ""}, "error", error={"code": 502, "message": "x"})), K.SERVER_ERROR),
        ((START, b'data: {"error": "busy"}\n\n'), K.SERVER_ERROR),
        ((b"<html>502</html>",), K.DISCONNECTED),
    ],
)
def test_incomplete_streams(pieces: tuple[bytes, ...], kind: FailureKind) -> None:
    """A failure is the last item, and only one comes, whatever follows it."""
    assert [kind] == kinds(read(*pieces))
    items = read(*pieces, HI, HI) if kind not in {K.DISCONNECTED, K.BAD_RESPONSE} else read(*pieces)
    assert isinstance(items[-1], Failed)
    assert kinds(items) == [kind]


NAMES = [
    "choices",
    "delta",
    "message",
    "index",
    "finish_reason",
    "error",
    "code",
    "usage",
    "tool_calls",
    "function",
    "content",
    "model",
    "prompt_tokens",
    "innererror",
    "object",
    "type",
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(json_values)
def test_no_json_can_break_the_reader(value: Any) -> None:
    """Whatever a provider sends as an event or an answer, the result is a chunk, an answer or a failure, never an exception."""
    event = encode(orjson.dumps(value))
    assert all(isinstance(item, (Chunk, Failed)) for item in read(event, event, DONE))
    assert isinstance(parsed(value), (Completion, Failed))
    assert isinstance(parsed(value, Reply(400, {})), Failed)
    assert isinstance(parsed({"choices": [value], "usage": value}), (Completion, Failed))
    assert all(
        isinstance(item, (Chunk, Failed))
        for item in read(encode(orjson.dumps({"choices": [{"delta": value, "index": value}]})))
    )
