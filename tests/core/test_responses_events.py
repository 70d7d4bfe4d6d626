"""Chat → Responses: the same items whole and streamed, in events that a client can put together again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from shared.core.responses_events import ResponseEvents, answered
from shared.core.responses_object import begun, cancelled, failed

NAME = "resp_" + "cd" * 16
BEGUN = begun({"model": "small", "input": "Hi", "tools": [{"type": "function", "name": "f"}]}, NAME, 1_000.0)
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def chunks(*deltas: dict[str, Any], finish: str = "stop") -> list[dict[str, Any]]:
    """Return chat chunks with these deltas, the finish reason and the usage."""
    made = [{"model": "m-1", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    return [{"model": "m-1", "choices": [{"delta": {"role": "assistant", "content": ""}}]}, *made, last, {"usage": USAGE}]


def streamed(given: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the events of some chunks, checked one by one, and the response they end with."""
    events = ResponseEvents(BEGUN)
    made = events.begin()
    for chunk in given:
        made += events.feed(chunk)
    made += events.finish(at=1_009.0)
    return check(made), events.response


def check(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return events if the SDK's own types take them, strictly, and they are numbered from 0."""
    for one in made:
        EVENTS.validate_python(one)
    assert list(range(len(made))) == [one["sequence_number"] for one in made]
    return made


def kinds(made: Iterable[dict[str, Any]]) -> list[str]:
    """Return what the events are called, runs of deltas as one."""
    names = [one["type"].removeprefix("response.") for one in made]
    return [name for place, name in enumerate(names) if not place or name != names[place - 1]]


def whole(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    """Return the response to a whole chat completion."""
    payload = {"model": "m-1", "choices": [{"message": message, "finish_reason": finish}], "usage": USAGE}
    return answered(BEGUN, payload, at=1_009.0)


def test_a_text_comes_in_openais_order() -> None:
    """Item, part, deltas, and all of them done again from the inside out."""
    made, response = streamed(chunks({"content": "Hel"}, {"content": "lo"}))

    expected = ["created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.done"]
    assert [*expected, "content_part.done", "output_item.done", "completed"] == kinds(made)
    assert "Hello" == Response.model_validate(response).output_text
    assert whole({"role": "assistant", "content": "Hello"}) == response


def test_the_response_has_all_that_the_sdk_reads() -> None:
    """Usage with its details, the model that answered, times, and what was asked."""
    response = Response.model_validate(whole({"content": "Hello"}))
    assert response.usage is not None

    assert (5, 2, 7, 3, 12) == (
        response.usage.input_tokens,
        response.usage.input_tokens_details.cached_tokens,
        response.usage.output_tokens,
        response.usage.output_tokens_details.reasoning_tokens,
        response.usage.total_tokens,
    )
    assert ("m-1", "completed", 1_000, 1_009) == (
        response.model,
        response.status,
        response.created_at,
        response.completed_at,
    )
    assert ("disabled", "auto", True) == (response.truncation, response.tool_choice, response.parallel_tool_calls)
    assert set(response.model_dump(exclude_unset=True)) >= {"error", "incomplete_details", "metadata", "previous_response_id"}


def test_thoughts_text_and_calls_are_items_in_their_order() -> None:
    """Arguments of two calls may come mixed; each call's are put together."""
    made, response = streamed(
        chunks(
            {"reasoning_content": "Hm"},
            {"content": "Let me see."},
            {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]},
            {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":1}'}}]},
            {"tool_calls": [{"index": 1, "function": {"arguments": "}"}}]},
            finish="tool_calls",
        )
    )

    assert ["reasoning", "message", "function_call", "function_call"] == [item["type"] for item in response["output"]]
    assert [("a", "f", '{"x":1}'), ("b", "g", "{}")] == [
        (item["call_id"], item["name"], item["arguments"]) for item in response["output"][2:]
    ]
    assert {"completed"} == {item["status"] for item in response["output"]}
    done = [one["item"] for one in made if one["type"] == "response.output_item.done"]
    assert response["output"] == done
    message = {
        "reasoning_content": "Hm",
        "content": "Let me see.",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }
    assert whole(message, "tool_calls") == response


def test_a_refusal_is_a_part_of_its_own() -> None:
    """After what was said before it."""
    made, response = streamed(chunks({"content": "Well. "}, {"refusal": "I can't"}, {"refusal": " do that."}))

    (message,) = response["output"]
    assert ["output_text", "refusal"] == [part["type"] for part in message["content"]]
    assert "I can't do that." == message["content"][1]["refusal"]
    assert [0, 1] == sorted({one["content_index"] for one in made if "content_index" in one})
    assert whole({"content": "Well. ", "refusal": "I can't do that."}) == response


def test_custom_tools_have_events_of_their_own() -> None:
    """Free text, not arguments."""
    tool_call = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "patch", "input": "+a"}}
    made, response = streamed(chunks({"tool_calls": [tool_call]}, finish="tool_calls"))

    assert "custom_tool_call_input.done" in kinds(made)
    (item,) = response["output"]
    assert ("custom_tool_call", "+a") == (item["type"], item["input"])


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete(finish: str, reason: str) -> None:
    """The last event says so, and why."""
    made, response = streamed(chunks({"content": "Hel"}, finish=finish))

    assert ("response.incomplete", "incomplete", {"reason": reason}) == (
        made[-1]["type"],
        response["status"],
        response["incomplete_details"],
    )
    assert "incomplete" == response["output"][0]["status"]
    assert whole({"content": "Hel"}, finish) == response


def test_an_answer_of_nothing_has_an_empty_message() -> None:
    """Clients read ``output_text``."""
    _, response = streamed(chunks())

    assert "" == Response.model_validate(response).output_text
    assert ["message"] == [item["type"] for item in response["output"]]


def test_log_probabilities_come_with_their_text() -> None:
    """In the deltas, and together at the end."""
    token = {"token": "H", "logprob": -0.5, "bytes": [72], "top_logprobs": []}
    chunk = {"choices": [{"delta": {"content": "H"}, "logprobs": {"content": [token]}}]}
    made, response = streamed([chunk, chunk])

    assert [[token], [token]] == [one["logprobs"] for one in made if one["type"] == "response.output_text.delta"]
    assert [token, token] == response["output"][0]["content"][0]["logprobs"]


def test_citations_are_in_the_text_they_belong_to() -> None:
    """Chat nests them, Responses do not."""
    inner = {"start_index": 0, "end_index": 1, "title": "t", "url": "https://example.com/"}
    message = {"content": "A", "annotations": [{"type": "url_citation", "url_citation": inner}]}

    (item,) = whole(message)["output"]
    assert [{"type": "url_citation", **inner}] == item["content"][0]["annotations"]
    assert "annotations" not in item


def test_what_came_before_a_failure_stands() -> None:
    """The last event has it, and why it ended."""
    events = ResponseEvents(BEGUN)
    made = events.begin()
    for chunk in chunks({"content": "Hel"})[:2]:
        made += events.feed(chunk)
    made += events.fail({"message": "Cut off.", "type": "server_error", "param": None, "code": "stream_interrupted"})

    last = check(made)[-1]
    assert "response.failed" == last["type"]
    assert ("failed", "server_error", "Cut off.") == (
        last["response"]["status"],
        last["response"]["error"]["code"],
        last["response"]["error"]["message"],
    )
    assert "Hel" == last["response"]["output"][0]["content"][0]["text"]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("rate_limit_error", "rate_limit_exceeded"),
        ("invalid_request_error", "invalid_prompt"),
        ("server_error", "server_error"),
    ],
)
def test_a_failed_response_has_one_of_openais_codes(kind: str, code: str) -> None:
    """Which are few; the message says more."""
    response = failed(BEGUN, {"message": "No.", "type": kind, "param": "input", "code": "x"})

    assert (code, "input") == (response["error"]["code"], response["error"]["param"])
    Response.model_validate(response)


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_a_kept_response_gives_its_events_again(finish: str) -> None:
    """The same items and the same end; every text in one piece."""
    message: dict[str, Any] = {
        "reasoning_content": "Hm",
        "content": "Hello",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    response = whole(message, finish)
    events = ResponseEvents(BEGUN)
    made = check([*events.begin(), *events.replay(response)])
    first, _ = streamed(chunks({**message, "tool_calls": [{**message["tool_calls"][0], "index": 0}]}, finish=finish))

    assert response == made[-1]["response"]
    assert sorted(kinds(first)) == sorted(kinds(made))


def test_a_cancelled_response_ends_its_stream() -> None:
    """OpenAI has no event of that name; the response in the last one says what happened."""
    events = ResponseEvents(BEGUN)
    (last,) = events.replay(cancelled(BEGUN))

    assert ("response.failed", "cancelled") == (last["type"], last["response"]["status"])


def test_a_message_is_done_when_a_call_begins_and_another_follows_it() -> None:
    """Items do not overlap, but for calls, which end with the answer."""
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    made, response = streamed(chunks({"content": "One."}, {"tool_calls": [call]}, {"content": "Two."}))

    places = [one["type"].removeprefix("response.output_item.") for one in made if "output_item" in one["type"]]
    assert ["added", "done", "added", "added", "done", "done"] == places
    assert ["message", "function_call", "message"] == [item["type"] for item in response["output"]]
    assert "One.Two." == Response.model_validate(response).output_text


def test_a_call_begins_once_its_name_is_known() -> None:
    """Some vendors send it late, or give the call no id; arguments that came before are not lost."""
    parts = [{"arguments": '{"x"'}, {"name": "f", "arguments": ":1"}, {"arguments": "}"}]
    made, response = streamed(chunks(*[{"tool_calls": [{"index": 0, "function": part}]} for part in parts]))

    deltas = [one["delta"] for one in made if one["type"] == "response.function_call_arguments.delta"]
    assert ['{"x":1', "}"] == deltas
    (item,) = response["output"]
    assert ("f", '{"x":1}') == (item["name"], item["arguments"])
    assert item["call_id"].startswith("call_")
