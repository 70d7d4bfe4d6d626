"""What was asked and answered, as OpenTelemetry's GenAI conventions write it: messages with a role and parts, as JSON texts.

Only for operators who opted in. Texts are cut so that a message list stays under `MAX_TEXT` characters, the oldest messages
first; pictures, sound and files are named and not told. Headers and keys never come here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.core.chat import Chunk, Json

MAX_TEXT: Final = 8_000
"""Characters of a JSON text: Azure Monitor cuts an attribute off at 8,192."""
_MAX_PARTS: Final = 200
_MAX_WORD: Final = 32
"""Characters of what should be one of a few words: a role, a type, why an answer ended."""
_ROOM: Final = 200
"""Characters of JSON around a message's text."""

_Message = dict[str, Any]


def asked(payload: Json) -> str:
    """Return the messages of a request of any endpoint: the latest that fit, in their order."""
    given = next((payload[name] for name in ("messages", "input", "prompt") if payload.get(name)), None)
    if isinstance(given, list) and all(isinstance(one, Mapping) and "role" in one for one in given):
        return _text([_message(str(one["role"]), _parts(one.get("content"))) for one in given])
    return _text([_message("user", _parts(given))])


def answered(payload: Json) -> str:
    """Return the messages of a whole answer, one for each choice; "" for embeddings."""
    choices = payload.get("choices")
    if not isinstance(choices, list):
        return ""
    found = [one for one in choices if isinstance(one, Mapping)]
    return _text([_choice(_object(one.get("message")), one.get("finish_reason")) for one in found])


class Heard:
    """The text of a streamed answer as it goes by, choice by choice."""

    __slots__ = ("_finished", "_left", "_texts")

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {}
        self._finished: dict[int, str] = {}
        self._left = MAX_TEXT

    def note(self, chunk: Chunk) -> None:
        """Take one event in."""
        for choice in chunk.payload.get("choices") or ():
            index, text = choice.get("index"), _object(choice.get("delta")).get("content")
            index = index if isinstance(index, int) else 0
            if isinstance(text, str) and self._left > 0:
                self._texts.setdefault(index, []).append(text[: self._left])
                self._left -= len(text)
            if isinstance(reason := choice.get("finish_reason"), str):
                self._finished[index] = reason

    def text(self) -> str:
        """Return the messages that were heard."""
        return _text(
            [_choice({"content": "".join(parts)}, self._finished.get(index)) for index, parts in sorted(self._texts.items())]
        )


def _choice(message: Json, finish_reason: object) -> _Message:
    parts = _parts(message.get("content"))
    calls = message.get("tool_calls")
    for call in calls[:_MAX_PARTS] if isinstance(calls, list) else ():
        function = _object(_object(call).get("function"))
        parts.append({"type": "tool_call", "name": str(function.get("name")), "content": str(function.get("arguments"))})
    made = _message("assistant", parts)
    return {**made, "finish_reason": _word(finish_reason)} if isinstance(finish_reason, str) else made


def _message(role: str, parts: list[_Message]) -> _Message:
    return {"role": _word(role), "parts": parts}


def _parts(content: object) -> list[_Message]:
    if isinstance(content, str):
        return [{"type": "text", "content": content}]
    if not isinstance(content, Sequence):
        return []
    return [_part(one) for one in content[:_MAX_PARTS]]


def _part(one: object) -> _Message:
    if isinstance(one, str):
        return {"type": "text", "content": one}
    part = _object(one)
    text = part.get("text")
    return {"type": "text", "content": text} if isinstance(text, str) else {"type": _word(str(part.get("type", "other")))}


def _word(text: str) -> str:
    return text[:_MAX_WORD]


def _object(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}


def _text(messages: list[_Message]) -> str:
    """Return messages as JSON: the latest whole, of the one that does not fit the beginning, of older ones nothing."""
    kept: list[_Message] = []
    left = MAX_TEXT
    for message in reversed(messages):
        left -= _ROOM
        fitting = _fitting(message["parts"], left)
        if fitting:
            kept.append({**message, "parts": fitting})
        if fitting != message["parts"]:
            break
        left -= _length(fitting)
    return json.dumps(kept[::-1], ensure_ascii=False) if kept else ""


def _fitting(parts: list[_Message], left: int) -> list[_Message]:
    """Return the parts that fit into so many characters, the last of them cut."""
    kept: list[_Message] = []
    for part in parts:
        bare = {**part, "content": ""} if "content" in part else part
        left -= _length([bare])
        if left < 0:
            break
        if "content" in part:
            text = _cut(part["content"], left)
            left -= _length(text)
            kept.append({**part, "content": text})
            if text != part["content"]:
                break
        else:
            kept.append(part)
    return kept


def _length(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False))


def _cut(text: str, left: int) -> str:
    """Return as much of a text as is at most so long as JSON."""
    clean = text[: max(0, left)].encode("utf-8", "replace").decode()
    while _length(clean) > max(2, left):
        clean = clean[: len(clean) * 7 // 8]
    return clean
