"""What was asked and answered, for operators who opted in: bounded, whole JSON, and nothing that is no text."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.chat import Chunk
from shared.core.content import MAX_TEXT, Heard, answered, asked
from tests.fakes import answer, chunks

TEXTS = st.text(st.characters(codec=None), max_size=30) | st.integers(1, 20_000).map(lambda size: '"' * size)
CONTENTS = TEXTS | st.none() | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}) | st.text(max_size=3))


def said(role: str, *texts: str, **more: Any) -> dict[str, Any]:
    """Return a message."""
    return {"role": role, "parts": [{"type": "text", "content": text} for text in texts], **more}


def test_messages_are_told_with_their_roles() -> None:
    """Texts, and parts of texts; of what is no text only what it is."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    parts = [{"type": "text", "text": "what is"}, picture]
    payload = {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": parts}]}

    system, user = json.loads(asked(payload))
    assert said("system", "be brief") == system
    assert [{"type": "text", "content": "what is"}, {"type": "image_url"}] == user["parts"]
    assert "AAAA" not in asked(payload)


def test_other_endpoints_bodies_are_one_message() -> None:
    """Embeddings' input, the legacy prompt, a response's input; items with roles are messages."""
    assert [said("user", "a", "b")] == json.loads(asked({"input": ["a", "b"]}))
    assert [said("user", "a")] == json.loads(asked({"prompt": "a"}))
    assert [said("user", "a")] == json.loads(asked({"input": [{"role": "user", "content": "a"}]}))


def test_answers_are_told_choice_by_choice() -> None:
    """With why they ended; calls of tools by name and arguments; a stream as if it had been whole."""
    call = {"type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    called = {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    heard = Heard()
    for one in chunks("Hello"):
        assert isinstance(one, Chunk)
        heard.note(one)

    assert [said("assistant", "Hello", finish_reason="stop")] == json.loads(answered(answer().payload))
    assert json.loads(heard.text()) == json.loads(answered(answer().payload))
    (told,) = json.loads(answered(called))
    assert [{"type": "tool_call", "name": "look", "content": '{"at": 1}'}] == told["parts"]
    assert "" == answered({"object": "list", "data": []})


def test_the_latest_messages_are_kept() -> None:
    """Of a long conversation its end; of the message that does not fit its beginning."""
    messages = [{"role": "user", "content": f"{number:04}" * 1_000} for number in range(10)]
    kept = json.loads(asked({"messages": messages}))

    assert "0009" * 1_000 == kept[-1]["parts"][0]["content"]
    assert 2 == len(kept)
    assert ("0008" * 1_000).startswith(kept[0]["parts"][0]["content"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": CONTENTS}), max_size=80))
def test_it_is_bounded_and_json_whatever_was_sent(messages: list[dict[str, Any]]) -> None:
    """Half emojis, quotes that take two characters each, many parts."""
    for text in (asked({"messages": messages}), answered({"choices": [{"message": one} for one in messages]})):
        assert len(text) <= MAX_TEXT
        assert text == "" or isinstance(json.loads(text), list)
        text.encode()


def test_long_streams_are_bounded() -> None:
    """However many choices and chunks."""
    heard = Heard()
    for number in range(3_000):
        heard.note(Chunk({"choices": [{"index": number % 3, "delta": {"content": '"\\' * 10}}]}))

    assert len(heard.text()) <= MAX_TEXT
    assert isinstance(json.loads(heard.text()), list)


def test_an_answer_that_makes_no_sense_is_told_as_far_as_it_does() -> None:
    """It was paid for and its caller gets it: that the operator wants to read along must not fail it."""
    heard = Heard()
    for index in (None, [1], "0", 1):
        heard.note(Chunk({"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": "s" * 9_000}]}))

    assert ["aaa", "a"] == [one["parts"][0]["content"] for one in json.loads(heard.text())]
    senseless: tuple[Any, ...] = (True, 5, {"function": {}}, [None, 3, {"function": 3}])
    for calls in senseless:
        whole = {"choices": [{"message": {"content": "a", "tool_calls": calls}, "finish_reason": "s" * 9_000}]}
        (told,) = json.loads(answered(whole))
        assert "a" == told["parts"][0]["content"]
        assert len(answered(whole)) <= MAX_TEXT
