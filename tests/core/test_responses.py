"""Responses → chat: what is asked of a chat model, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from shared.core.errors import InvalidRequestError
from shared.core.responses import chat_body, rename_param
from shared.core.responses_items import INPUTS, item_id, items_of, messages_of, references_of, response_of

NAME = "resp_" + "ab" * 16
WEATHER: dict[str, Any] = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}


def chat(body: dict[str, Any]) -> dict[str, Any]:
    """Return the chat body of a Responses body that begins a conversation."""
    return chat_body(body, items_of(body["input"], NAME))


def refused(body: dict[str, Any]) -> InvalidRequestError:
    """Return the refusal of a body."""
    with pytest.raises(InvalidRequestError) as caught:
        chat({"input": "Hi", **body})
    return caught.value


def call(call_id: str, name: str = "weather") -> dict[str, Any]:
    """Return the item of a call."""
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": "{}"}


def output(call_id: str, text: str = "sunny") -> dict[str, Any]:
    """Return the item of what a call returned."""
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def test_a_text_is_a_users_message_after_the_instructions() -> None:
    """The shortest request there is."""
    asked = chat({"model": "small", "input": "Hi", "instructions": "Be brief"})

    expected = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]
    assert {"model": "small", "messages": expected} == asked


def test_every_field_with_a_counterpart_gets_there_by_its_name_in_chat() -> None:
    """What only concerns keeping (metadata, store) stays here: OpenAI's chat refuses metadata without its own store."""
    body = {
        "model": "big",
        "input": "Hi",
        "max_output_tokens": 9,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {
            "verbosity": "low",
            "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
        },
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "name": "weather"},
        "parallel_tool_calls": False,
        "temperature": 0.5,
        "top_p": 0.25,
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "service_tier": "flex",
        "metadata": {"a": "b"},
        "store": True,
        "truncation": "disabled",
        "max_tool_calls": 3,
        "task_type": "reasoning",
        "budget_limit": 1,
        "webhook_url": "https://example.com/",
        "deadline_seconds": 60,
        "background": True,
    }

    expected = {
        "model": "big",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_completion_tokens": 9,
        "reasoning_effort": "low",
        "verbosity": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "temperature": 0.5,
        "top_p": 0.25,
        "logprobs": True,
        "top_logprobs": 2,
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "service_tier": "flex",
        "task_type": "reasoning",
        "budget_limit": 1,
    }
    assert expected == chat(body)


def test_what_is_about_tools_is_left_out_where_there_are_none() -> None:
    """Chat refuses it there; Responses do not."""
    asked = chat({"input": "Hi", "tools": [], "tool_choice": "auto", "parallel_tool_calls": True})

    assert {"messages"} == set(asked)


def test_custom_tools_and_allowed_tools_take_chats_shape() -> None:
    """Chat nests what Responses have flat."""
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}
    body = {
        "input": "Hi",
        "tools": [WEATHER, {"type": "custom", "name": "patch", "format": grammar}],
        "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "patch"}]},
    }
    asked = chat(body)

    inner = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /a/"}}
    assert {"type": "custom", "custom": {"name": "patch", "format": inner}} == asked["tools"][1]
    allowed = {"mode": "required", "tools": [{"type": "custom", "custom": {"name": "patch"}}]}
    assert {"type": "allowed_tools", "allowed_tools": allowed} == asked["tool_choice"]


def test_calls_join_what_was_said_and_outputs_stand_behind_their_calls() -> None:
    """Whatever the order in which parallel outputs come; reasoning is not sent back."""
    items: list[dict[str, Any]] = [
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "summary": []},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Let me "}, {"type": "output_text", "text": "see."}]},
        call("a"),
        call("b"),
        output("b", "rain"),
        {"role": "user", "content": "Quick!"},
        output("a"),
    ]
    messages = messages_of(items_of(items, NAME))

    assert ["user", "assistant", "tool", "tool", "user"] == [message["role"] for message in messages]
    assert "Let me see." == messages[1]["content"]
    assert ["a", "b"] == [made["id"] for made in messages[1]["tool_calls"]]
    assert [("b", "rain"), ("a", "sunny")] == [(one["tool_call_id"], one["content"]) for one in messages[2:4]]


def test_a_call_after_an_output_is_a_turn_of_its_own() -> None:
    """One call, its output, the next: as vendors that give every call the same id need it."""
    items = [{"role": "user", "content": "?"}, call("a"), output("a"), call("a"), output("a", "rain")]
    messages = messages_of(items_of(items, NAME))

    assert ["user", "assistant", "tool", "assistant", "tool"] == [message["role"] for message in messages]
    assert ["sunny", "rain"] == [message["content"] for message in messages if message["role"] == "tool"]


def test_pictures_files_and_recordings_become_chats_parts() -> None:
    """And text alone stays text, which every vendor understands."""
    content = [
        {"type": "input_text", "text": "See"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    ]
    (message,) = messages_of(items_of([{"role": "user", "content": content}], NAME))

    expected = [
        {"type": "text", "text": "See"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    ]
    assert expected == message["content"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [WEATHER, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"type": "file_search", "vector_store_ids": []}]}, "tools[0].type"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0].type"),
        ({"tools": [{"type": "mcp"}]}, "tools[0].type"),
        ({"tools": [{"type": "computer_use_preview"}]}, "tools[0].type"),
        ({"tools": [WEATHER], "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["message.output_text.logprobs", "file_search_call.results"]}, "include[1]"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"input": [output("x")]}, "input[0].call_id"),
        ({"input": [call("x"), output("x"), output("x")]}, "input[2].call_id"),
        ({"input": [call("x")]}, "input"),
        ({"input": [{"type": "reasoning", "summary": []}], "instructions": "Think"}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "input[0].content[0].image_url"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}]}, "input[0].content[0].file_url"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].file_data"),
        ({"input": [{"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}]}, "input[0].content[0].type"),
        (
            {"input": [{"role": "system", "content": [{"type": "input_image", "image_url": "u"}]}]},
            "input[0].content[0].type",
        ),
    ],
)
def test_what_chat_can_not_do_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    """Nothing is dropped in silence."""
    assert param == refused(body).param


def test_items_are_named_from_the_first_new_one() -> None:
    """What is wrong is in this request, not in the conversation before it."""
    items = items_of([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, output("x")], NAME)
    with pytest.raises(InvalidRequestError) as caught:
        messages_of(items, known=2)

    assert "input[0].call_id" == caught.value.param


def test_an_items_id_tells_its_response() -> None:
    """Ours are found by their ids alone; others are kept as they came."""
    (first, second) = items_of([{"role": "user", "content": "a"}, {"role": "user", "content": "b", "id": "msg_mine"}], NAME)

    assert item_id("message", NAME, INPUTS) == first["id"]
    assert NAME == response_of(first["id"])
    assert "msg_mine" == second["id"]
    assert response_of("msg_mine") is None


def test_a_reference_stands_for_its_item() -> None:
    """With or without saying that it is one."""
    given = [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_2"}, {"role": "user", "content": "c"}]
    items: list[dict[str, Any]] = [
        {"type": "message", "role": "user", "id": name, "content": []} for name in ("msg_1", "msg_2")
    ]

    assert {0: "msg_1", 1: "msg_2"} == references_of(given)
    assert items == items_of(given, NAME, referred=dict(enumerate(items)))[:2]


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        ("messages[3].content", "input"),
        ("max_tokens", "max_output_tokens"),
        ("tools[0].function.parameters", "tools[0].parameters"),
        ("model", "model"),
        (None, None),
    ],
)
def test_errors_name_the_callers_fields(param: str | None, expected: str | None) -> None:
    """Whoever sends Responses need not know chat."""
    assert expected == rename_param(InvalidRequestError("No.", param=param)).param
