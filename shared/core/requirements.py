"""What a request asks of a model, read from OpenAI's JSON: capabilities, sizes, the names of its fields. Never its text.

Pure and forgiving: a field of an odd type is read as if it were not there, because saying so to the caller is the edge's work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from shared.core.chat import AUTO, Capability, Json, ModelPreferences, Operation, Priority, Requirements
from shared.core.classifier import classify, text_of
from shared.core.wire_support import significant_parameters

BYTES_PER_TOKEN: Final = 4
TOKENS_PER_MESSAGE: Final = 4
"""Role and separators, as chat templates add them."""

TOKENS_PER_IMAGE: Final = 800
"""A picture of common size at high detail. What it can be at most depends on the model: see `shared.core.bounds`."""

TOKENS_PER_FILE: Final = 2_000
"""A document named by its id: its size is not in the request."""

OVERHEAD_BOUND: Final = 256
"""What chat templates put before a conversation: a date, a default system prompt."""
MESSAGE_BOUND: Final = 16
TOOLS_BOUND: Final = 1_024
"""The system prompt that vendors add, and bill, where there are tools: Anthropic's has up to 800 tokens."""

EMBEDDINGS_TASK: Final = "embeddings"


@dataclass(frozen=True, slots=True)
class Hints:
    """Switchyard's own fields, as the edge has read and checked them; ``budget_limit`` in nano-USD.

    ``task_type`` None means the caller did not say: the classifier then decides. ``subject`` is a stable opaque string.
    """

    task_type: str | None = None
    preferences: ModelPreferences = field(default_factory=ModelPreferences)
    budget_limit: int | None = None
    priority: Priority | None = None
    subject: str = ""


NO_HINTS: Final = Hints()


def chat_requirements(payload: Json, *, hints: Hints = NO_HINTS) -> Requirements:
    """Return what a chat request asks for."""
    messages = payload.get("messages")
    capabilities: set[str] = set()
    size = _Size()
    if isinstance(messages, list):
        for message in messages:
            _measure_message(message, size, capabilities)
    for name in payload:
        read = _READERS.get(name)
        if read is not None:
            read(payload[name], size, capabilities)
    return _requirements(payload, hints, operation=Operation.CHAT, size=size, capabilities=frozenset(capabilities))


def embeddings_requirements(payload: Json, *, hints: Hints = NO_HINTS) -> Requirements:
    """Return what an embeddings request asks for. ``input`` is a text, texts, tokens, or lists of tokens."""
    size = _Size()
    _measure_input(payload.get("input"), size)
    return _requirements(payload, hints, operation=Operation.EMBEDDINGS, size=size, capabilities=frozenset())


# ---- sizes -----------------------------------------------------------------------------------------------------------


class _Size:
    """Tokens counted so far: expected, and a bound that no tokenizer passes (no token is shorter than a byte).

    ``images``, ``unsized``, ``prediction`` and ``surcharged`` are what `Requirements` says of them.
    """

    __slots__ = ("bound", "expected", "images", "prediction", "surcharged", "text", "unsized")

    def __init__(self) -> None:
        self.text = 0
        self.images = 0
        self.unsized = False
        self.prediction = 0
        self.surcharged: set[str] = set()
        self.expected = 0
        self.bound = OVERHEAD_BOUND

    def add_text(self, text: str) -> None:
        # An ASCII text, the usual case, is as many bytes as characters: no need to encode it.
        self.text += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))

    def add(self, expected: int, bound: int) -> None:
        self.expected += expected
        self.bound += bound

    def tokens(self) -> int:
        return self.expected + -(-self.text // BYTES_PER_TOKEN)

    def most_tokens(self) -> int:
        return self.bound + self.text


def _measure_message(message: object, size: _Size, capabilities: set[str]) -> None:
    size.add(TOKENS_PER_MESSAGE, MESSAGE_BOUND)
    if not isinstance(message, dict):
        return
    content = message.get("content")
    if isinstance(content, str):
        size.add_text(content)
    elif isinstance(content, list):
        for part in content:
            _measure_part(part, size, capabilities)
    if message.keys() <= _COUNTED:
        return
    _note_cache(message, size)
    for name in message.keys() - _COUNTED:  # names, tool calls, refusals
        _measure_json(message[name], size)
        if name == "audio" and message[name]:
            size.unsized = True  # an earlier answer, named by its id
        if name == "tool_calls" and message[name]:
            capabilities.add(Capability.TOOLS.value)


_COUNTED: Final = frozenset({"role", "content"})


def _measure_part(part: object, size: _Size, capabilities: set[str]) -> None:
    if not isinstance(part, dict):
        _measure_json(part, size)
        return
    kind = part.get("type")
    known = _PARTS.get(kind) if isinstance(kind, str) else None
    if known is None:
        size.unsized = size.unsized or kind not in _TEXT_PARTS  # a vendor's own: a video, say
        _measure_json(part, size)
        return
    capability, expected = known
    capabilities.add(capability)
    size.expected += expected
    if kind == "image_url":
        size.images += 1
    else:
        size.unsized = True
    _note_cache(part, size)


_PARTS: Final[Mapping[str, tuple[str, int]]] = {
    "image_url": (Capability.VISION.value, TOKENS_PER_IMAGE),
    "input_audio": (Capability.AUDIO_INPUT.value, TOKENS_PER_FILE),
    "file": (Capability.FILE_INPUT.value, TOKENS_PER_FILE),
}
"""Content parts that are not text: the capability and the expected tokens. Their data is not measured: no model reads the bytes
of a picture or a recording as text."""

_TEXT_PARTS: Final = ("text", "refusal")  # no set: what a caller sends as a type may not be hashable

_SHORT_LIVES: Final = (None, "5m")
"""How long a prompt may stay cached at the rate that price lists have for writing to a cache."""


def _note_cache(node: Mapping[str, Any], size: _Size) -> None:
    """Note a mark that asks for a part of the prompt to be cached for longer than is priced."""
    mark = node.get("cache_control")
    if isinstance(mark, dict) and mark.get("ttl") not in _SHORT_LIVES:
        size.surcharged.add("cache_control.ttl")


_NODE_BOUND: Final = 6
"""Quotes, a comma, a number's or a literal's characters: what a JSON value takes besides its text."""


def _measure_json(value: object, size: _Size) -> None:
    """Count a JSON value as text: every name and string in it, and a little for each node."""
    waiting = [value]  # a list and not recursion: how deep a caller nests must not matter
    while waiting:
        node = waiting.pop()
        size.add(0, _NODE_BOUND)
        if isinstance(node, str):
            size.add_text(node)
        elif isinstance(node, dict):
            if "cache_control" in node:
                _note_cache(node, size)
            waiting.extend(node.values())
            for name in node:
                size.add_text(name)
        elif isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, (int, float)):
            size.add(1, len(repr(node)))


def _measure_input(value: object, size: _Size) -> None:
    """Count an embeddings request's ``input``: a text, texts, a list of token numbers, or lists of them."""
    if isinstance(value, str):
        size.add_text(value)
        return
    if not isinstance(value, list):
        return
    for item in value:
        if isinstance(item, str):
            size.add_text(item)
            size.add(0, _NODE_BOUND)
        elif isinstance(item, list):
            size.add(len(item), len(item) + _NODE_BOUND)
        else:
            size.add(1, 1)


# ---- the fields that ask for a capability ----------------------------------------------------------------------------

Reader = Callable[[Any, _Size, set[str]], None]


def _read_tools(value: Any, size: _Size, capabilities: set[str]) -> None:
    if isinstance(value, list) and value:
        capabilities.add(Capability.TOOLS.value)
        size.add(0, TOOLS_BOUND)
        _measure_json(value, size)


_FORMATS: Final = {"json_schema": Capability.JSON_SCHEMA.value, "json_object": Capability.JSON_OBJECT.value}


def _read_format(value: Any, size: _Size, capabilities: set[str]) -> None:
    kind = value.get("type") if isinstance(value, dict) else None
    capability = _FORMATS.get(kind) if isinstance(kind, str) else None
    if capability is not None:
        capabilities.add(capability)
        _measure_json(value, size)


def _read_modalities(value: Any, _: _Size, capabilities: set[str]) -> None:
    if isinstance(value, list) and "audio" in value:
        capabilities.add(Capability.AUDIO_OUTPUT.value)


def _read_prediction(value: Any, size: _Size, capabilities: set[str]) -> None:
    if value is not None:
        capabilities.add(Capability.PREDICTION.value)
        alone = _Size()
        _measure_json(value, alone)
        size.prediction = alone.most_tokens()
        size.add(alone.tokens(), alone.most_tokens())


def _read_cache_control(value: Any, size: _Size, _: set[str]) -> None:
    _note_cache({"cache_control": value}, size)


def _read_effort(value: Any, _: _Size, capabilities: set[str]) -> None:
    if value not in (None, "none"):
        capabilities.add(Capability.REASONING.value)


def _asks_for(capability: Capability) -> Reader:
    def read(value: Any, _: _Size, capabilities: set[str]) -> None:
        if value is not None and value is not False and value != 0:
            capabilities.add(capability.value)

    return read


_READERS: Final[Mapping[str, Reader]] = {
    "tools": _read_tools,
    "functions": _read_tools,
    "response_format": _read_format,
    "modalities": _read_modalities,
    "logprobs": _asks_for(Capability.LOGPROBS),
    "top_logprobs": _asks_for(Capability.LOGPROBS),
    "prediction": _read_prediction,
    "cache_control": _read_cache_control,
    "reasoning_effort": _read_effort,
    "web_search_options": _asks_for(Capability.WEB_SEARCH),
}


# ---- the rest --------------------------------------------------------------------------------------------------------

_TIERS: Final = {"priority": Priority.HIGH, "flex": Priority.LOW}


def _requirements(
    payload: Json, hints: Hints, *, operation: Operation, size: _Size, capabilities: frozenset[str]
) -> Requirements:
    model = payload.get("model")
    tier = payload.get("service_tier")
    tier = tier if isinstance(tier, str) else None
    return Requirements(
        operation=operation,
        model=model if isinstance(model, str) and model else AUTO,
        task=hints.task_type or _task(payload, operation),
        task_given=hints.task_type is not None,
        capabilities=capabilities,
        parameters=significant_parameters(payload),
        surcharged=frozenset(size.surcharged),
        input_tokens=size.tokens(),
        input_tokens_bound=size.most_tokens(),
        images=size.images,
        unsized=size.unsized,
        prediction_bound=size.prediction,
        max_output_tokens=_output_limit(payload) if operation is Operation.CHAT else None,
        n=_positive(payload.get("n")) or 1,
        stream=payload.get("stream") is True,
        preferences=hints.preferences,
        priority=hints.priority or _TIERS.get(tier or "", Priority.NORMAL),
        service_tier=tier,
        budget_limit=hints.budget_limit,
        subject=hints.subject or _subject(payload),
    )


def _task(payload: Json, operation: Operation) -> str:
    return EMBEDDINGS_TASK if operation is Operation.EMBEDDINGS else classify(text_of(payload)).task


def _output_limit(payload: Json) -> int | None:
    """Return the limit on the answer. Callers that send both names mean the smaller."""
    one, other = _positive(payload.get("max_completion_tokens")), _positive(payload.get("max_tokens"))
    return other if one is None else one if other is None else min(one, other)


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _subject(payload: Json) -> str:
    """Return who sticky experiments assign: a hash of the caller's end user, whose name is nobody's business here."""
    user = payload.get("safety_identifier") or payload.get("user")
    if not isinstance(user, str) or not user:
        return ""
    return sha256(user.encode("utf-8", "surrogatepass")).hexdigest()[:16]
