"""What a simulated model says: a pure function of the model, the prompt and a seed.

Nothing here knows a wire format. A token is four characters, so that counts look like real ones and add up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from local.simulator.schema import example
from local.simulator.script import draw

CHARACTERS_PER_TOKEN: Final = 4
EMOJI: Final = "🙂🚂👩‍🔧"

_CODE: Final = re.compile(
    r"```|\bdef \b|\bclass \w+[:({]|\b(?:code|function|program|script|algorithm|implement|refactor|unit test|sql|regex"
    r"|python|javascript|typescript|rust|golang|java)\b",
    re.IGNORECASE,
)
_SENTENCES: Final = (
    "No model was asked: the words are made up on this machine, and the same request is given the same words again.",
    "Every number beside it, tokens and times alike, is counted as a provider would count it.",
    "Point the catalog at a real provider and the same request will be answered in earnest.",
    "It is long enough to be streamed in several pieces, and short enough to be read at a glance.",
    "Ask for tools, a JSON schema or embeddings and they are answered in their proper shape as well.",
    "A script can make the next answer late, broken or missing, so that failover can be watched at work.",
)
_COMMON: Final = frozenset(
    {"get", "set", "list", "find", "fetch", "make", "call", "the", "and", "for", "with", "from", "current", "tool"}
    | {"function", "value", "data", "create", "update", "send"}
)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call, and the schema of its arguments."""

    name: str
    parameters: Any


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model made: its id, the tool, its arguments as JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Ask:
    """What one request asks, whatever protocol it came in.

    ``tool_choice`` is auto, none, required or a tool's name; ``answers_tool`` says that the conversation ends with a tool's
    result. ``schema`` is set for structured output ({} is any object). ``reasoning`` is how many tokens are thought before the
    first word. ``text`` replaces what the model would say.
    """

    model: str
    prompt: str
    input_tokens: int
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    seed: str = "0"
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    parallel: bool = True
    answers_tool: bool = False
    schema: Any = None
    reasoning: int = 0
    words: int = 0
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model answered. ``finish`` is stop, length or tool_calls; ``output_tokens`` includes ``reasoning``."""

    text: str
    finish: str
    output_tokens: int
    reasoning: int = 0
    tool_calls: tuple[ToolCall, ...] = ()
    stop_sequence: str | None = None
    pieces: tuple[str, ...] = field(default=())


def tokens(text: str) -> int:
    """Count the tokens of a text."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def reply(ask: Ask, index: int = 0) -> Reply:
    """Answer what was asked; ``index`` tells the choices of one request apart."""
    calls = () if ask.text is not None else _tool_calls(ask, index)
    if calls:
        spent = sum(tokens(call.name + call.arguments) + 4 for call in calls)
        return Reply("", "tool_calls", spent + ask.reasoning, ask.reasoning, calls)
    text, finish, stop_sequence = _stopped(_text(ask, index), ask.stop)
    reasoning = ask.reasoning
    if ask.max_tokens is not None and tokens(text) + reasoning > ask.max_tokens:
        # A reasoning model that has thought its allowance away says nothing at all.
        reasoning = min(reasoning, ask.max_tokens)
        text, finish, stop_sequence = text[: (ask.max_tokens - reasoning) * CHARACTERS_PER_TOKEN], "length", None
    return Reply(text, finish, tokens(text) + reasoning, reasoning, (), stop_sequence, split_words(text))


def split_words(text: str) -> tuple[str, ...]:
    """Cut a text into the pieces a stream sends: a word with the blanks after it."""
    return tuple(re.findall(r"\s*\S{1,12}\s?|\s+", text))


def _stopped(text: str, stops: tuple[str, ...]) -> tuple[str, str, str | None]:
    places = [(at, stop) for stop in stops if stop and (at := text.find(stop)) >= 0]
    if not places:
        return text, "stop", None
    at, stop = min(places)
    return text[:at], "stop", stop


def _text(ask: Ask, index: int) -> str:
    if ask.text is not None:
        return ask.text
    if ask.schema is not None:
        return _json_text(ask)
    opening = f"This is a simulated answer of model {ask.model}"
    about = _first_words(ask.prompt)
    lines = [f"{opening} to “{about}”." if about else f"{opening} to an empty prompt."]
    if ask.answers_tool:
        lines = [f"{opening}: the tool returned “{about}”."]
    if _CODE.search(ask.prompt) and not ask.answers_tool:
        lines.append(_code(ask))
    shift = int(draw(f"{ask.seed}/{ask.model}/{ask.prompt}/{index}") * len(_SENTENCES))
    lines += [_SENTENCES[shift], _SENTENCES[(shift + 1) % len(_SENTENCES)]]
    text = " ".join(lines) if len(lines) == 3 else "\n\n".join(lines)  # noqa: PLR2004 - no code: one paragraph
    return _of_length(text, ask.words) if ask.words else text


def _of_length(text: str, words: int) -> str:
    filler = f"{text} {' '.join(_SENTENCES)} ".split()
    return " ".join((filler * (words // len(filler) + 1))[:words])


def _first_words(prompt: str, count: int = 10) -> str:
    words = prompt[:500].split()
    return " ".join(words[:count]) + ("…" if len(words) > count else "")


def _code(ask: Ask) -> str:
    words = [word for word in re.findall(r"[a-z]{4,}", ask.prompt[:300].lower()) if not _CODE.search(word)]
    name = "_".join([word for word in words if word not in {"write", "that", "this", "please", "with"}][:3]) or "solve"
    return (
        f'```python\ndef {name}(values: list[int]) -> list[int]:\n    """Stand in for the real thing: simulated by '
        f'{ask.model}."""\n    return sorted(values)\n```'
    )


def _json_text(ask: Ask) -> str:
    if not ask.schema:
        made: Any = {"answer": f"simulated by {ask.model}", "prompt": _first_words(ask.prompt)}
    else:
        made = example(ask.schema, prompt=ask.prompt)
    return orjson.dumps(made, default=str).decode()


def _tool_calls(ask: Ask, index: int) -> tuple[ToolCall, ...]:
    chosen = _chosen_tools(ask)
    return tuple(
        ToolCall(
            id=f"call_sim{int(draw(f'{ask.seed}/{ask.prompt}/{tool.name}/{index}/{place}') * 16**12):012x}",
            name=tool.name,
            arguments=_arguments(tool, ask.prompt),
        )
        for place, tool in enumerate(chosen)
    )


def _chosen_tools(ask: Ask) -> list[Tool]:
    if not ask.tools or ask.tool_choice == "none":
        return []
    named = [tool for tool in ask.tools if tool.name == ask.tool_choice]
    if named:
        return named
    mentioned = [tool for tool in ask.tools if not ask.answers_tool and _mentions(ask.prompt, tool.name)]
    if ask.tool_choice == "required" and not mentioned:
        mentioned = list(ask.tools[:1])
    return mentioned if ask.parallel else mentioned[:1]


def _mentions(prompt: str, name: str) -> bool:
    """Return whether the prompt names the tool, or one of the telling words that the name is made of."""
    text = prompt.lower()
    parts = re.findall(r"[a-z]{3,}", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    return name.lower() in text or any(part in text for part in parts if part not in _COMMON)


def _arguments(tool: Tool, prompt: str) -> str:
    made = example(tool.parameters if isinstance(tool.parameters, Mapping) else {"type": "object"}, prompt=prompt)
    return orjson.dumps(made if isinstance(made, dict) else {}, default=str).decode()
