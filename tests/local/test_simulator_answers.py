"""Made-up answers: values that satisfy schemas, texts that read sensibly, counts that add up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from local.simulator.answers import Ask, Tool, reply, split_words, tokens
from local.simulator.openai_other import vector
from local.simulator.schema import example


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "simulated value"),
        ({"type": "string", "minLength": 20, "maxLength": 21}, "simulated value....."),
        ({"type": "string", "format": "date"}, "2026-01-15"),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 4}, 4),
        ({"type": ["null", "integer"], "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 3, "multipleOf": 5}, 5),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "exclusiveMaximum": 1}, 0),
        ({"type": "number", "minimum": 0, "maximum": 1}, 0.5),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 1),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, []),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]}, {"a": 1, "b": 2}),
        ({"$defs": {"x": {"type": "boolean"}}, "properties": {"y": {"$ref": "#/$defs/x"}}}, {"y": True}),
        ({}, "simulated value"),
        ("not a schema", "simulated value"),
    ],
)
def test_examples(schema: Any, value: Any) -> None:
    """The example of a schema satisfies it."""
    assert value == example(schema)


def test_recursive_schema_ends() -> None:
    """A schema that contains itself yields a finite value."""
    node: dict[str, Any] = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": []}
    assert len(json.dumps(example(node))) < 500
    loop = {"$ref": "#"}
    assert example(loop) == "simulated value"


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}], "$ref": "#"},
        {"properties": {name: {"$ref": "#"} for name in "abcdefghij"}, "required": list("abcdefghij")},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"anyOf": [{"$ref": "#/anyOf/0"}]},
    ],
)
def test_schema_bombs_are_small(schema: Any) -> None:
    """A schema that grows without end is given up, quickly and in little memory."""
    assert len(json.dumps(example(schema))) < 100_000


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 0},
        {"type": "integer", "minimum": 1e308},
        {"type": "number", "minimum": "a", "maximum": None},
        {"type": "array", "prefixItems": 3, "maxItems": "x"},
        {"type": "object", "properties": 7, "required": 7},
        {"type": [3, {}], "enum": {}, "allOf": [3], "anyOf": [[]], "$ref": 7},
    ],
)
def test_broken_schemas_are_borne(schema: Any) -> None:
    """What is not a schema yields something, rather than an exception."""
    json.dumps(example(schema))


def test_prompt_fills_forms() -> None:
    """Free text comes from the names in the prompt."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert example(schema, prompt="Weather in Paris") == {"city": "Paris"}


def test_text_reads_sensibly() -> None:
    """The answer names the model and the prompt's first words; a prompt about code is given a code block."""
    text = reply(Ask("gpt-x", "why is the sky blue " * 9, 4)).text
    assert text.startswith("This is a simulated answer of model gpt-x to “why is the sky blue why is the sky blue…”.")
    assert "```" not in text
    code = reply(Ask("gpt-x", "Write a Python function that sorts trains", 4)).text
    assert "```python\ndef function_sorts_trains" not in code
    assert "```python\ndef sorts_trains(" in code


def test_pieces_spell_the_text() -> None:
    """The pieces of a stream are the text, blanks and all."""
    for text in ("", " a  b\n\n```x\n  y```  ", "wordlongerthantwelveletters", "👩‍🔧 🙂", "\n\n", "a \t"):
        assert text == "".join(split_words(text))


def test_words_sets_the_length() -> None:
    """A script can ask for answers of so many words."""
    assert len(reply(Ask("m", "x", 1, words=500)).text.split()) == 500


def test_tokens_add_up() -> None:
    """Output tokens are the text's, cut to the limit."""
    free = reply(Ask("m", "x", 1))
    assert free.output_tokens == tokens(free.text)
    cut = reply(Ask("m", "x", 1, max_tokens=7))
    assert (7, 28, "length") == (cut.output_tokens, len(cut.text), cut.finish)


@pytest.mark.parametrize(
    ("name", "prompt", "called"),
    [
        ("get_weather", "weather in Rome", True),
        ("getWeather", "what WEATHER", True),
        ("search_web", "hello", False),
        ("get_data", "get the data", False),
        ("get_data", "call get_data now", True),
    ],
)
def test_tools_are_called_when_mentioned(name: str, prompt: str, called: bool) -> None:  # noqa: FBT001
    """A tool is called when the prompt has its name or a telling word of it."""
    assert called == bool(reply(Ask("m", prompt, 1, tools=(Tool(name, None),))).tool_calls)


def test_parallel_calls() -> None:
    """Two mentioned tools are called together, or only the first when parallel calls are off."""
    tools = (Tool("get_weather", None), Tool("get_trains", None))
    both = reply(Ask("m", "weather and trains", 1, tools=tools)).tool_calls
    one = reply(Ask("m", "weather and trains", 1, tools=tools, parallel=False)).tool_calls
    assert ["get_weather", "get_trains"] == [call.name for call in both]
    assert ["get_weather"] == [call.name for call in one]
    assert len({call.id for call in both}) == 2


@pytest.mark.parametrize("text", ["", " ", "\x00", "🙂", "a" * 10_000, "\ud800"])
def test_vectors_have_length_one(text: str) -> None:
    """Any text has a vector of length 1."""
    assert sum(x * x for x in vector(text, 256)) == pytest.approx(1, abs=1e-5)


def test_examples_of_a_real_schema() -> None:
    """What pydantic makes of nested types is satisfied as well."""
    adapter: TypeAdapter[Any] = TypeAdapter(dict[str, list[tuple[int, str | None]]])
    adapter.validate_python(example(adapter.json_schema()))
