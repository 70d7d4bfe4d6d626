"""OpenAI's chat as Anthropic's Messages: the body sent, checked by the SDK's own types, and what is refused instead."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from anthropic.types import message_create_params
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from shared.adapters.providers.anthropic import url
from shared.adapters.providers.anthropic_wire import render
from shared.core.chat import Json, Operation
from shared.core.failures import Failed, FailureKind
from shared.core.registry import ProviderKind
from tests.providers.conftest import call

PARAMS: TypeAdapter[Any] = TypeAdapter(message_create_params.MessageCreateParams)
NOT_IN_THE_SDK = {"temperature", "top_p", "top_k"}  # newer models refuse them, so newer SDKs leave them out
HELLO = [{"role": "user", "content": "Hello"}]
USER = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]


def rendered(payload: Json, **others: Any) -> bytes | Failed:
    """Render a call to Anthropic."""
    return render(call(payload, kind=ProviderKind.ANTHROPIC, **others))


def sent(payload: Json, **others: Any) -> dict[str, Any]:
    """Return the body that a payload becomes, after the SDK's types have approved of it."""
    found = rendered({"messages": HELLO, **payload}, **others)
    assert isinstance(found, bytes), found
    body: dict[str, Any] = orjson.loads(found)
    PARAMS.validate_python(body)
    known = set(message_create_params.MessageCreateParamsStreaming.__annotations__)
    known |= set(message_create_params.MessageCreateParamsBase.__annotations__)
    assert set(body) <= known | NOT_IN_THE_SDK
    return body


def extra(payload: Json, **others: Any) -> dict[str, Any]:
    """Return what a payload adds to the least there can be."""
    body = sent(payload, **others)
    assert body.pop("model") == "target-model"
    assert body.pop("max_tokens") == 4096
    assert body.pop("messages") == USER
    return body


FUNCTION = {"name": "f", "description": "Does.", "parameters": {"type": "object", "properties": {"a": {}}}, "strict": True}
TOOLS = [{"type": "function", "function": FUNCTION}]
TOOL = {"name": "f", "description": "Does.", "input_schema": FUNCTION["parameters"], "strict": True}
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}


@pytest.mark.parametrize(
    ("payload", "others", "expected"),
    [
        ({}, {}, {}),
        ({"model": "auto", "stream": False, "n": 1, "logprobs": None, "temperature": 1, "top_p": 1}, {}, {}),
        ({"task_type": "x", "metadata": {"a": "b"}, "prompt_cache_key": "k"}, {}, {}),
        ({"temperature": 0.2, "top_p": 0.5}, {}, {"temperature": 0.2, "top_p": 0.5}),
        ({"stop": "a"}, {}, {"stop_sequences": ["a"]}),
        ({"stop": ["a", "b"]}, {}, {"stop_sequences": ["a", "b"]}),
        ({"stream_options": {"include_usage": True}}, {"stream": True}, {"stream": True}),
        ({"user": "u"}, {}, {"metadata": {"user_id": "u"}}),
        ({"user": "u", "safety_identifier": "s" * 300}, {}, {"metadata": {"user_id": "s" * 256}}),
        ({"service_tier": "auto"}, {}, {"service_tier": "auto"}),
        ({"service_tier": "default"}, {}, {"service_tier": "standard_only"}),
        ({"service_tier": "flex"}, {}, {"service_tier": "standard_only"}),
        ({"tools": TOOLS}, {}, {"tools": [TOOL]}),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            {},
            {"tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]},
        ),
        ({"tools": TOOLS, "tool_choice": "auto"}, {}, {"tools": [TOOL], "tool_choice": {"type": "auto"}}),
        ({"tools": TOOLS, "tool_choice": "required"}, {}, {"tools": [TOOL], "tool_choice": {"type": "any"}}),
        (
            {"tools": TOOLS, "tool_choice": "none", "parallel_tool_calls": False},
            {},
            {"tools": [TOOL], "tool_choice": {"type": "none"}},
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}},
            {},
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}},
        ),
        (
            {"tools": TOOLS, "parallel_tool_calls": False},
            {},
            {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        ({"tools": TOOLS, "parallel_tool_calls": True}, {}, {"tools": [TOOL]}),
        ({"tools": [], "tool_choice": "auto"}, {}, {}),
        ({"response_format": {"type": "text"}}, {}, {}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}},
            {},
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        ),
        ({"reasoning_effort": "none"}, {}, {}),
        ({"reasoning_effort": "none"}, {"reasoning": True}, {"thinking": {"type": "disabled"}}),
        ({"reasoning_effort": "minimal"}, {}, {"output_config": {"effort": "low"}}),
        (
            {"reasoning_effort": "high"},
            {"reasoning": True},
            {"output_config": {"effort": "high"}, "thinking": {"type": "adaptive"}},
        ),
        (
            {"reasoning_effort": "high", "tools": TOOLS, "tool_choice": "required"},
            {"reasoning": True},
            {"output_config": {"effort": "high"}, "tools": [TOOL], "tool_choice": {"type": "any"}},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}, "top_k": 5},
            {},
            {"thinking": {"type": "enabled", "budget_tokens": 1024}, "top_k": 5},
        ),
    ],
)
def test_fields(payload: Json, others: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each field of OpenAI's becomes its counterpart; defaults and advice add nothing."""
    assert expected == extra(payload, **others)


@pytest.mark.parametrize(
    ("payload", "most", "expected"),
    [
        ({}, None, 4096),
        ({}, 64_000, 64_000),
        ({"max_tokens": 5}, 64_000, 5),
        ({"max_completion_tokens": 6}, None, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, None, 5),
        ({"max_tokens": None}, None, 4096),
    ],
)
def test_max_tokens(payload: Json, most: int | None, expected: int) -> None:
    """Anthropic insists on a limit: the caller's, else the model's most, else 4096."""
    assert sent(payload, max_output_tokens=most)["max_tokens"] == expected


def test_a_conversation_with_tools_images_and_files() -> None:
    """System and developer go to `system`, results of parallel calls become one turn, images and files become sources."""
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": "Look:", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0=", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.test/a.jpg"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
            ],
        },
        {
            "role": "assistant",
            "content": "Wait.",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
                {"id": "t2", "type": "function", "function": {"name": "g", "arguments": ""}},
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "one"},
        {"role": "tool", "tool_call_id": "t2", "content": [{"type": "text", "text": "two"}]},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": [{"type": "text", "text": "So."}, {"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "🌍"},
    ]
    body = sent({"messages": messages})
    cached = {"cache_control": {"type": "ephemeral"}}
    assert body["system"] == [{"type": "text", "text": "Be kind."}, {"type": "text", "text": "Be brief.", **cached}]
    png = {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look:", **cached},
                {"type": "image", "source": png},
                {"type": "image", "source": {"type": "url", "url": "https://example.test/a.jpg"}},
                {"type": "document", "source": pdf, "title": "a.pdf"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Wait."},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
                {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "two"}]},
                {"type": "text", "text": "And?"},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "So."}, {"type": "text", "text": "No."}]},
        {"role": "user", "content": [{"type": "text", "text": "🌍"}]},
    ]


def test_thinking_goes_back_as_it_came() -> None:
    """Signed blocks stand before the tool calls they led to."""
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    call_ = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = {
        "role": "assistant",
        "content": None,
        "thinking_blocks": [thinking],
        "reasoning_content": "hm",
        "tool_calls": [call_],
    }
    body = sent({"messages": [*HELLO, turn, {"role": "tool", "tool_call_id": "t1", "content": None}]})
    assert body["messages"][1]["content"] == [thinking, {"type": "tool_use", "id": "t1", "name": "f", "input": {}}]


def with_part(part: Any) -> dict[str, Any]:
    """Return a payload whose one message has that part."""
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        *(
            ({name: 1.5 if name != "n" else 2}, name)
            for name in ("n", "seed", "logprobs", "presence_penalty", "logit_bias", "prediction")
        ),
        ({"temperature": 1.01}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"verbosity": "low"}, "verbosity"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"reasoning_effort": "vast"}, "reasoning_effort"),
        ({"reasoning_effort": ["low"]}, "reasoning_effort"),
        ({"service_tier": "gold"}, "service_tier"),
        ({"service_tier": ["flex"]}, "service_tier"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": "f"}, "tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "maybe"}, "tool_choice"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "only"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "first"}, *HELLO]}, "messages"),
        ({"messages": ["text"]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "messages[0].content"),
        ({"messages": [*HELLO, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
        ({"messages": [*HELLO, {"role": "assistant", "function_call": {"name": "f"}}]}, "messages[1].function_call"),
        ({"messages": [*HELLO, {"role": "assistant", "tool_calls": 7}]}, "messages[1].tool_calls"),
        ({"messages": [*HELLO, {"role": "assistant", "tool_calls": [{"type": "custom"}]}]}, "messages[1].tool_calls[0]"),
        (
            {"messages": [*HELLO, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1"}}]}]},
            "messages[1].tool_calls[0].function.arguments",
        ),
        (with_part("text"), "messages[0].content[0]"),
        (with_part({"type": "input_audio", "input_audio": {}}), "messages[0].content[0]"),
        (with_part({"type": ["text"], "text": "x"}), "messages[0].content[0]"),
        (with_part({"type": "text", "text": None}), "messages[0].content[0].text"),
        (with_part({"type": "image_url", "image_url": {"url": "ftp://x"}}), "messages[0].content[0].image_url"),
        (
            with_part({"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,AA"}}),
            "messages[0].content[0].image_url",
        ),
        (with_part({"type": "image_url", "image_url": None}), "messages[0].content[0].image_url"),
        (with_part({"type": "file", "file": {"file_id": "file-1"}}), "messages[0].content[0].file"),
        (
            with_part({"type": "file", "file": {"file_data": "data:text/plain;base64,AA"}}),
            "messages[0].content[0].file.file_data",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused_before_anything_is_sent(payload: Json, param: str) -> None:
    """The field at fault is named, so that the caller knows if no other candidate can take it."""
    found = rendered({"messages": HELLO, **payload})
    assert isinstance(found, Failed)
    assert (found.kind, found.param, found.status) == (FailureKind.INVALID_REQUEST, param, None)


def test_embeddings_are_refused() -> None:
    """Anthropic has none."""
    assert isinstance(rendered({"input": "x"}, operation=Operation.EMBEDDINGS), Failed)


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1/", "https://api.anthropic.com/v1/messages"),
        ("https://r.services.ai.azure.com/anthropic", "https://r.services.ai.azure.com/anthropic/v1/messages"),
    ],
)
def test_addresses(base_url: str, expected: str) -> None:
    """Direct, and on Foundry."""
    assert expected == url(call(kind=ProviderKind.ANTHROPIC, base_url=base_url))


NAMES = [
    "role",
    "content",
    "type",
    "text",
    "image_url",
    "url",
    "file",
    "file_data",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "id",
    "tool_call_id",
    "messages",
    "tools",
    "tool_choice",
    "response_format",
    "json_schema",
    "schema",
    "stop",
    "temperature",
    "reasoning_effort",
    "service_tier",
    "user",
    "thinking_blocks",
]
TEXTS = st.sampled_from(["user", "assistant", "tool", "system", "text", "image_url", "file", "function", "", "{}", "data:a"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=15,
)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.sampled_from(NAMES), values, max_size=5), st.lists(values, max_size=3))
def test_no_payload_can_break_it(payload: dict[str, Any], messages: list[Any]) -> None:
    """Whatever a caller sends, it is a body or a refusal, never an exception."""
    for odd in (payload, {**payload, "messages": messages}, {**payload, "messages": [*HELLO, *messages]}):
        found = rendered(odd)
        assert isinstance(found, Failed) or orjson.loads(found)["model"] == "target-model"
