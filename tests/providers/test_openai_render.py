"""OpenAI's wire: what is sent, and where to. Pure."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from shared.adapters.providers import PROTOCOLS, azure_openai, openai_compatible
from shared.adapters.providers.openai_wire import render
from shared.core.chat import Json, Operation
from shared.core.failures import Failed, FailureKind
from shared.core.registry import ProviderKind
from tests.providers.conftest import MakeCall, call

HELLO = [{"role": "user", "content": "Hello"}]


def sent(payload: Json, **others: Any) -> dict[str, Any]:
    """Return the body that a payload becomes, without what is always the same."""
    found = render(call({"messages": HELLO, **payload}, **others))
    assert isinstance(found, bytes)
    body: dict[str, Any] = orjson.loads(found)
    assert body.pop("model") == "target-model"
    assert body.pop("messages") == HELLO
    return body


REASONING = {"reasoning": True, "unsupported_parameters": frozenset({"temperature", "top_p", "n", "logprobs"})}


@pytest.mark.parametrize(
    ("payload", "others", "expected"),
    [
        ({"model": "auto"}, {}, {}),
        (
            {"seed": 7, "n": 3, "tools": [{"x": 1}], "vendor_field": {"a": None}},
            {},
            {"seed": 7, "n": 3, "tools": [{"x": 1}], "vendor_field": {"a": None}},
        ),
        ({"task_type": "chat", "model_preferences": {}, "budget_limit": 1, "priority": "high"}, {}, {}),
        ({"max_tokens": 5}, {}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {}, {"max_tokens": 5}),
        ({"max_tokens": 5}, {"reasoning": True}, {"max_completion_tokens": 5}),
        ({"max_completion_tokens": 5}, {"reasoning": True}, {"max_completion_tokens": 5}),
        ({"max_tokens": 9, "max_completion_tokens": 5}, {"reasoning": True}, {"max_completion_tokens": 5}),
        ({"max_tokens": 3, "max_completion_tokens": 5}, {}, {"max_tokens": 3}),
        ({"max_tokens": None, "max_completion_tokens": 5}, {}, {"max_tokens": 5}),
        ({"max_tokens": 3, "max_completion_tokens": None}, {}, {"max_tokens": 3}),
        ({"temperature": 1, "top_p": 1.0, "n": 1, "logprobs": False}, REASONING, {}),
        ({"temperature": None}, REASONING, {}),
        ({"temperature": 0.2}, REASONING, {"temperature": 0.2}),
        ({"temperature": 1}, {}, {"temperature": 1}),
        ({"stream": True}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        (
            {"stream_options": {"include_usage": False, "include_obfuscation": False}},
            {"stream": True},
            {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        ),
        ({"stream_options": None}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stream": False}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {}, {}),
        ({}, {"stream": True, "unsupported_parameters": frozenset({"stream_options"})}, {"stream": True}),
    ],
)
def test_what_is_sent(payload: Json, others: dict[str, Any], expected: dict[str, Any]) -> None:
    """Fields pass through untouched, except the few that the module's docstring names."""
    assert expected == sent(payload, **others)


@pytest.mark.parametrize(
    ("payload", "refused", "expected"),
    [
        ({"max_tokens": 5}, "max_completion_tokens", {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, "max_completion_tokens", {"max_tokens": 5}),
        ({"max_tokens": 5}, "temperature", {"max_completion_tokens": 5}),
    ],
)
def test_a_vendor_that_knows_only_max_tokens(payload: Json, refused: str, expected: dict[str, Any]) -> None:
    """A reasoning model on Ollama: the limit must not get lost under a name it ignores."""
    assert expected == sent(payload, reasoning=True, unsupported_parameters=frozenset({refused}))


@pytest.mark.parametrize("kind", list(ProviderKind))
def test_a_payload_nested_too_deep_to_be_written_is_refused(kind: ProviderKind) -> None:
    """It can be read, so it can come this far; it must not end as an exception."""
    deep: Any = {}
    for _ in range(600):
        deep = {"type": "object", "properties": {"a": deep}}
    payload = {"messages": HELLO, "tools": [{"type": "function", "function": {"name": "f", "parameters": deep}}]}
    found = PROTOCOLS[kind].render(call(payload, kind=kind))
    assert isinstance(found, Failed)
    assert found.kind is FailureKind.INVALID_REQUEST


def test_rendering_leaves_the_payload_alone() -> None:
    """The same payload is rendered again for the next candidate."""
    payload = {
        "model": "auto",
        "messages": HELLO,
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"x": 1},
        "priority": "low",
    }
    before = orjson.dumps(payload)
    render(call(payload, stream=True, reasoning=True))
    assert before == orjson.dumps(payload)


def test_embeddings_are_sent_as_they_are() -> None:
    """Nothing of chat is added to an embeddings request."""
    found = render(call({"model": "x", "input": ["a"], "dimensions": 3}, operation=Operation.EMBEDDINGS))
    assert isinstance(found, bytes)
    assert orjson.loads(found) == {"model": "target-model", "input": ["a"], "dimensions": 3}


@pytest.mark.parametrize(
    ("kind", "base_url", "version", "expected"),
    [
        (ProviderKind.OPENAI_COMPATIBLE, "https://api.openai.com/v1", None, "https://api.openai.com/v1/chat/completions"),
        (ProviderKind.OPENAI_COMPATIBLE, "http://localhost:11434/v1/", None, "http://localhost:11434/v1/chat/completions"),
        (
            ProviderKind.AZURE_OPENAI,
            "https://r.openai.azure.com",
            None,
            "https://r.openai.azure.com/openai/v1/chat/completions",
        ),
        (
            ProviderKind.AZURE_OPENAI,
            "https://r.openai.azure.com/",
            None,
            "https://r.openai.azure.com/openai/v1/chat/completions",
        ),
        (
            ProviderKind.AZURE_OPENAI,
            "https://r.openai.azure.com/openai/v1/",
            None,
            "https://r.openai.azure.com/openai/v1/chat/completions",
        ),
        (
            ProviderKind.AZURE_OPENAI,
            "https://r.openai.azure.com/openai",
            None,
            "https://r.openai.azure.com/openai/v1/chat/completions",
        ),
        (
            ProviderKind.AZURE_OPENAI,
            "https://r.openai.azure.com/openai/v1",
            "2024-10-21",
            "https://r.openai.azure.com/openai/deployments/target-model/chat/completions?api-version=2024-10-21",
        ),
    ],
)
def test_addresses(kind: ProviderKind, base_url: str, version: str | None, expected: str, make_call: MakeCall) -> None:
    """Azure's resource, with or without the path its portal shows; everybody else's base as it is."""
    url = azure_openai.url if kind is ProviderKind.AZURE_OPENAI else openai_compatible.url
    assert expected == url(make_call(kind=kind, base_url=base_url, api_version=version))
