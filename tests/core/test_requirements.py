"""What a request asks for: read from OpenAI's JSON, never its text, and never an error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.chat import ModelPreferences, Operation, Priority, Requirements
from shared.core.requirements import (
    TOKENS_PER_IMAGE,
    Hints,
    chat_requirements,
    embeddings_requirements,
)


def chat(text: Any = "hello", **fields: Any) -> Requirements:
    """What a chat of one message asks for."""
    return chat_requirements({"model": "m", "messages": [{"role": "user", "content": text}], **fields})


def parts(*given: Any) -> Requirements:
    """What a message of these parts asks for."""
    return chat(list(given))


@pytest.mark.parametrize(
    ("fields", "capabilities"),
    [
        ({}, set()),
        ({"tools": [{"type": "function"}]}, {"tools"}),
        ({"tools": []}, set()),
        ({"tools": None}, set()),
        ({"functions": [{"name": "f"}]}, {"tools"}),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, {"json_schema"}),
        ({"response_format": {"type": "json_object"}}, {"json_object"}),
        ({"response_format": {"type": "text"}}, set()),
        ({"modalities": ["text", "audio"]}, {"audio_output"}),
        ({"modalities": ["text"]}, set()),
        ({"logprobs": True}, {"logprobs"}),
        ({"logprobs": False}, set()),
        ({"top_logprobs": 3}, {"logprobs"}),
        ({"top_logprobs": 0}, set()),
        ({"prediction": {"type": "content", "content": "x"}}, {"prediction"}),
        ({"web_search_options": {}}, {"web_search"}),
        ({"reasoning_effort": "low"}, {"reasoning"}),
        ({"reasoning_effort": "none"}, set()),
    ],
)
def test_fields_that_need_a_capability(fields: dict[str, Any], capabilities: set[str]) -> None:
    """Asking for nothing needs nothing."""
    assert capabilities == chat(**fields).capabilities


@pytest.mark.parametrize(
    ("part", "capability", "sizes"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}, "vision", (1, False)),
        ({"type": "input_audio", "input_audio": {"data": "A" * 100_000}}, "audio_input", (0, True)),
        ({"type": "file", "file": {"file_id": "f"}}, "file_input", (0, True)),
    ],
)
def test_parts_that_need_a_capability(part: dict[str, Any], capability: str, sizes: tuple[int, bool]) -> None:
    """Their data is not read as text: what they are at most is for the model to say."""
    plain, found = parts(), parts(part)
    assert {capability} == found.capabilities
    assert sizes == (found.images, found.unsized)
    assert 0 == found.input_tokens_bound - plain.input_tokens_bound
    if capability == "vision":
        assert TOKENS_PER_IMAGE == found.input_tokens - plain.input_tokens


@pytest.mark.parametrize("part", [{"type": "video_url", "video_url": {"url": "v"}}, {"image": "u"}, {"type": ["text"]}])
def test_a_part_of_a_kind_nobody_knows_may_be_of_any_size(part: dict[str, Any]) -> None:
    """A vendor's own kind can name a film; text cannot."""
    assert parts(part).unsized
    assert not parts({"type": "text", "text": "x"}, {"type": "refusal", "refusal": "x"}, "x").unsized


def test_an_earlier_spoken_answer_is_of_any_size() -> None:
    """It is named by its id."""
    assert chat_requirements({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}).unsized
    assert not chat_requirements({"messages": [{"role": "assistant", "audio": None, "content": "x"}]}).unsized


HOUR = {"type": "ephemeral", "ttl": "1h"}


@pytest.mark.parametrize(
    "payload",
    [
        {"cache_control": HOUR},
        {"messages": [{"role": "user", "content": "x", "cache_control": HOUR}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": HOUR}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "u", "cache_control": HOUR}]}]},
        {"messages": [{"role": "tool", "content": [{"type": "text", "text": "x", "cache_control": {"ttl": ["1h"]}}]}]},
        {"tools": [{"type": "function", "function": {"name": "f"}, "cache_control": HOUR}]},
    ],
)
def test_a_prompt_that_is_cached_for_an_hour_is_surcharged(payload: dict[str, Any]) -> None:
    """Wherever the mark stands. It is no parameter: who may answer does not depend on it."""
    found = chat_requirements(payload)
    assert {"cache_control.ttl"} == found.surcharged
    assert "cache_control.ttl" not in found.parameters


@pytest.mark.parametrize("mark", [{"type": "ephemeral"}, {"type": "ephemeral", "ttl": "5m"}, {"ttl": None}, None, "1h"])
def test_a_prompt_that_is_cached_for_five_minutes_is_not(mark: Any) -> None:
    """Price lists have that."""
    assert not parts({"type": "text", "text": "x", "cache_control": mark}).surcharged
    assert not chat(cache_control=mark).surcharged


def test_a_predicted_output_is_counted_twice() -> None:
    """It is read, and what does not come true of it is billed as output."""
    found = chat(prediction={"type": "content", "content": "x" * 400})
    assert 400 <= found.prediction_bound
    assert 400 <= found.input_tokens_bound - chat().input_tokens_bound
    assert 0 == chat(prediction=None).prediction_bound


def test_a_conversation_that_used_tools_needs_them() -> None:
    """Its messages make no sense to a model that has none."""
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    found = chat_requirements({"messages": [{"role": "assistant", "content": None, "tool_calls": calls}]})
    assert {"tools"} == found.capabilities


def test_bounds_have_room_for_what_vendors_add() -> None:
    """A system prompt of their own where there are tools, marks around each list of tokens."""
    tool = {"type": "function", "function": {"name": "f"}}
    assert 1_000 <= chat("", tools=[tool]).input_tokens_bound - chat("").input_tokens_bound
    lists = embeddings_requirements({"input": [[1]] * 2_000})
    assert 3 * 2_000 <= lists.input_tokens_bound


def test_sizes_are_bytes_over_four_and_four_a_message() -> None:
    """Expected: rounded up. Bound: no token is shorter than a byte, and every message has its frame."""
    assert 4 + 3 == chat("ninechars").input_tokens
    assert 4 + 3 == chat("äöüßé").input_tokens
    assert 4 == chat("").input_tokens
    assert 9 == chat("ninechars").input_tokens_bound - chat("").input_tokens_bound
    assert 10 == chat("äöüßé").input_tokens_bound - chat("").input_tokens_bound
    two = chat_requirements({"messages": [{"role": "user", "content": "abcd"}] * 2})
    assert 2 * (4 + 1) == two.input_tokens


def test_everything_the_model_reads_is_counted() -> None:
    """Text parts, tools, schemas, the names and arguments of tool calls."""
    long = "x" * 400
    plain = chat("").input_tokens
    assert plain + 100 <= parts({"type": "text", "text": long}).input_tokens
    assert plain + 100 <= chat("", tools=[{"type": "function", "function": {"description": long}}]).input_tokens
    assert plain + 100 <= chat("", response_format={"type": "json_schema", "json_schema": {"title": long}}).input_tokens
    message = {"role": "assistant", "tool_calls": [{"function": {"arguments": long}}]}
    assert plain + 100 <= chat_requirements({"messages": [message]}).input_tokens


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=50), max_size=5))
def test_the_bound_is_never_below_what_is_expected(texts: list[str]) -> None:
    """Nor below the bytes of all text, also with characters that are not valid."""
    found = chat_requirements({"messages": [{"role": "user", "content": text} for text in texts]})
    assert found.input_tokens <= found.input_tokens_bound
    assert sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) <= found.input_tokens_bound


@pytest.mark.parametrize(
    ("value", "expected"),
    [("x" * 8, 2), (["x" * 8, "y" * 8], 4), ([1, 2, 3], 3), ([[1, 2], [3]], 3), (None, 0), ({}, 0), ([], 0)],
)
def test_embeddings_inputs_are_texts_or_tokens(value: Any, expected: int) -> None:
    """Numbers are tokens already."""
    found = embeddings_requirements({"model": "e", "input": value})
    assert (expected, Operation.EMBEDDINGS, "embeddings") == (found.input_tokens, found.operation, found.task)
    assert found.max_output_tokens is None
    assert expected <= found.input_tokens_bound


def test_parameters_are_the_fields_that_ask_for_something() -> None:
    """What equals OpenAI's default, null, and Switchyard's own fields need nobody to honour them."""
    found = chat(temperature=0.5, top_p=1, seed=None, logit_bias={"5": 1}, task_type="x", stream=False)
    assert {"model", "messages", "temperature", "logit_bias"} == found.parameters


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, None),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20}, 20),
        ({"max_tokens": 30, "max_completion_tokens": 20}, 20),
        ({"max_tokens": None}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": "10"}, None),
    ],
)
def test_the_limit_on_the_answer_is_the_smaller_of_both_names(fields: dict[str, Any], limit: int | None) -> None:
    """Odd values are the edge's to refuse."""
    assert limit == chat(**fields).max_output_tokens


@pytest.mark.parametrize(
    ("fields", "hinted", "priority"),
    [
        ({}, None, Priority.NORMAL),
        ({"service_tier": "priority"}, None, Priority.HIGH),
        ({"service_tier": "flex"}, None, Priority.LOW),
        ({"service_tier": "default"}, None, Priority.NORMAL),
        ({"service_tier": "flex"}, Priority.HIGH, Priority.HIGH),
        ({"service_tier": 7}, None, Priority.NORMAL),
    ],
)
def test_priority_is_what_the_caller_says_or_the_service_tier_means(
    fields: dict[str, Any], hinted: Priority | None, priority: Priority
) -> None:
    """Switchyard's own field wins."""
    assert priority == chat_requirements({"messages": [], **fields}, hints=Hints(priority=hinted)).priority


def test_the_task_is_given_or_detected() -> None:
    """And it is known which."""
    found = chat("Write a Python function")
    assert ("code-generation", False) == (found.task, found.task_given)
    given = chat_requirements({"messages": []}, hints=Hints(task_type="reasoning"))
    assert ("reasoning", True) == (given.task, given.task_given)


def test_hints_are_taken_over() -> None:
    """As the edge has checked them."""
    hints = Hints(preferences=ModelPreferences(min_quality=0.5), budget_limit=7, subject="s")
    found = chat_requirements({"messages": [], "stream": True, "n": 3}, hints=hints)
    assert (0.5, 7, "s") == (found.preferences.min_quality, found.budget_limit, found.subject)
    assert (True, 3, "auto") == (found.stream, found.n, found.model)


def test_the_subject_is_no_name() -> None:
    """The caller's end user sticks to an arm as a hash; nobody given is nobody."""
    assert "" == chat().subject
    one = chat(user="anna@example.com").subject
    assert one == chat(user="anna@example.com").subject
    assert one != chat(user="bert@example.com").subject
    assert "anna" not in one
    assert one == chat(safety_identifier="anna@example.com").subject


def test_no_text_of_the_caller_is_kept() -> None:
    """A canary in every place where text can stand is nowhere in what is stored."""
    canary = "canary-7f3a"
    payload = {
        "model": "m",
        "messages": [
            {"role": "system", "content": canary},
            {"role": "user", "content": [{"type": "text", "text": canary}], "name": canary},
        ],
        "tools": [{"type": "function", "function": {"name": canary}}],
        "user": canary,
        "metadata": {canary: canary},
        "prediction": {"type": "content", "content": canary},
    }
    assert canary not in repr(chat_requirements(payload))


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
FIELDS = (
    "model",
    "messages",
    "tools",
    "response_format",
    "n",
    "max_tokens",
    "stream",
    "user",
    "service_tier",
    "modalities",
    "input",
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=5))
def test_odd_content_is_never_an_error(payload: dict[str, Any]) -> None:
    """Saying what is wrong is the edge's work."""
    assert 0 <= chat_requirements(payload).input_tokens
    assert 0 <= embeddings_requirements(payload).input_tokens


def test_depth_does_not_matter() -> None:
    """A schema nested ten thousand deep is counted like any other."""
    deep: dict[str, Any] = {}
    for _ in range(10_000):
        deep = {"items": deep}
    assert 10_000 < chat(tools=[deep]).input_tokens
