"""The items of a Responses conversation: their ids, and the chat messages they stand for. Pure.

An item is OpenAI's: a message, a call of a tool, what the tool returned, or what a model thought. Every item has an id that
begins with its response's own, so that an id alone tells which response has the item.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from shared.core.errors import InvalidRequestError

Json = Mapping[str, Any]
Message = dict[str, Any]

RESPONSE: Final = "resp_"
REFERENCE: Final = "item_reference"
INPUTS: Final = 0x80000
"""The number of a response's first input item; output items are numbered from 0."""

PREFIXES: Final[Mapping[str, str]] = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
"""Every kind of item there can be here, and what its ids begin with."""

_NAME: Final = re.compile(r"[a-z]+_(?P<response>[0-9a-f]{32})[0-9a-f]{5}")


def kind_of(item: Json) -> str | None:
    """Return the kind of an item: messages need not say it, and neither need references."""
    kind = item.get("type")
    if kind is None:
        return "message" if "role" in item else REFERENCE if "id" in item else None
    return kind if isinstance(kind, str) else None


def item_id(kind: str, response_id: str, number: int) -> str:
    """Return the id of a response's item."""
    return f"{PREFIXES[kind]}_{response_id.removeprefix(RESPONSE)}{number:05x}"


def response_of(item: str) -> str | None:
    """Return the id of the response that has an item of this id, None for ids that are not ours."""
    found = _NAME.fullmatch(item)
    return None if found is None else RESPONSE + found["response"]


def references_of(given: object) -> dict[int, str]:
    """Return the ids of the items that an input only refers to, by their places."""
    items = given if isinstance(given, list) else ()
    return {index: item["id"] for index, item in enumerate(items) if kind_of(item) == REFERENCE}


def items_of(given: str | Sequence[Json], response_id: str, *, referred: Mapping[int, Json] | None = None) -> list[Message]:
    """Return an input as items, whole: each with its kind, its id and its status. ``referred`` are those it refers to."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    found = referred or {}
    return [dict(found[place]) if place in found else _item(item, response_id, place) for place, item in enumerate(given)]


def _item(item: Json, response_id: str, place: int) -> Message:
    kind = kind_of(item) or ""
    whole = {name: value for name, value in item.items() if value is not None}
    whole["type"] = kind
    whole.setdefault("id", item_id(kind, response_id, INPUTS + place))
    if kind == "reasoning":
        whole.setdefault("summary", [])
        return whole
    whole.setdefault("status", "completed")
    if kind == "message" and isinstance(whole["content"], str):
        text = whole["content"]
        part: Message = {"type": "input_text", "text": text}
        if whole["role"] == "assistant":
            part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        whole["content"] = [part]
    return whole


# ---- to chat ---------------------------------------------------------------------------------------------------------


def messages_of(items: Sequence[Json], *, known: int = 0) -> list[Message]:
    """Return the chat messages of a conversation; errors name the items after the first ``known`` as ``input[i]``."""
    turns = _Turns()
    for number, item in enumerate(items):
        place = f"input[{number - known}]" if number >= known else "previous_response_id"
        _READERS[item["type"]](turns, item, place)
    if turns.unanswered:
        call_id = next(iter(turns.unanswered))
        message = (
            f"The conversation has no output for the call {call_id[:80]!r}. Send a `function_call_output` with its `call_id`."
        )
        _refuse(message, "input", code="missing_tool_output")
    return [message for turn in turns.turns for message in turn]


class _Turns:
    """Messages so far, each with what its tool calls returned: chat wants that right behind the calls."""

    __slots__ = ("_calls", "turns", "unanswered")

    def __init__(self) -> None:
        self.turns: list[list[Message]] = []
        self.unanswered: dict[str, None] = {}
        self._calls: dict[str, list[Message]] = {}

    def add(self, message: Message) -> None:
        """Add a message that is a turn of its own."""
        self.turns.append([message])

    def say(self, text: str) -> None:
        """Add what the assistant said: to the calls it made in the same breath, if it has said nothing there."""
        last = self._last_assistant()
        if last is not None and last["content"] is None:
            last["content"] = text
        else:
            self.add({"role": "assistant", "content": text})

    def call(self, call_id: str, tool_call: Message) -> None:
        """Add a call the assistant made: to what it said just before."""
        last = self._last_assistant()
        if last is None:
            last = {"role": "assistant", "content": None}
            self.add(last)
        last.setdefault("tool_calls", []).append(tool_call)
        self._calls[call_id] = self.turns[-1]
        self.unanswered[call_id] = None

    def answer(self, call_id: str, content: Any, place: str) -> None:
        """Add what a call returned."""
        if call_id not in self.unanswered:
            known = call_id in self._calls
            said = "has its output already" if known else "is of no call in this conversation: send that before its output"
            _refuse(f"`{place}.call_id` is {call_id[:80]!r}, which {said}.", f"{place}.call_id")
        del self.unanswered[call_id]
        self._calls[call_id].append({"role": "tool", "tool_call_id": call_id, "content": content})

    def _last_assistant(self) -> Message | None:
        """Return the assistant's message if nobody has said anything since."""
        if not self.turns or len(self.turns[-1]) > 1:
            return None
        (message,) = self.turns[-1]
        return message if message["role"] == "assistant" else None


def _refuse(message: str, param: str, *, code: str = "invalid_value") -> NoReturn:
    raise InvalidRequestError(message, param=param, code=code)


def _read_message(turns: _Turns, item: Json, place: str) -> None:
    role, content = item["role"], item["content"]
    if role == "assistant":
        turns.say("".join([_said(part, f"{place}.content[{index}]") for index, part in enumerate(content)]))
        return
    parts = _ANY_PARTS if role == "user" else _TEXT_PARTS
    turns.add({"role": role, "content": _content(content, f"{place}.content", parts)})


def _said(part: Json, place: str) -> str:
    name = {"output_text": "text", "input_text": "text", "refusal": "refusal"}.get(part["type"])
    if name is None:
        _refuse(f"`{place}.type` is {part['type']!r}, which an assistant can't have said.", f"{place}.type")
    return str(part.get(name) or "")


def _read_function_call(turns: _Turns, item: Json, place: str) -> None:
    del place
    function = {"name": item["name"], "arguments": item["arguments"]}
    turns.call(item["call_id"], {"id": item["call_id"], "type": "function", "function": function})


def _read_custom_call(turns: _Turns, item: Json, place: str) -> None:
    del place
    custom = {"name": item["name"], "input": item["input"]}
    turns.call(item["call_id"], {"id": item["call_id"], "type": "custom", "custom": custom})


def _read_output(turns: _Turns, item: Json, place: str) -> None:
    output = item["output"]
    content = output if isinstance(output, str) else _content(output, f"{place}.output", _TEXT_PARTS)
    turns.answer(item["call_id"], content, place)


def _read_reasoning(turns: _Turns, item: Json, place: str) -> None:
    del turns, item, place  # chat models do not want it back


Reader = Callable[[_Turns, Json, str], None]

_READERS: Final[Mapping[str, Reader]] = {
    "message": _read_message,
    "function_call": _read_function_call,
    "custom_tool_call": _read_custom_call,
    "function_call_output": _read_output,
    "custom_tool_call_output": _read_output,
    "reasoning": _read_reasoning,
}


# ---- parts -----------------------------------------------------------------------------------------------------------

PartReader = Callable[[Json, str], Message]


def _content(parts: Sequence[Json], place: str, readers: Mapping[str, PartReader]) -> Any:
    """Return a message's content: the text alone where there is nothing else, which every vendor understands."""
    found: list[Message] = []
    for index, part in enumerate(parts):
        reader = readers.get(part["type"])
        if reader is None:
            known = ", ".join(name for name in readers if name != "output_text")
            _refuse(
                f"`{place}[{index}].type` is {part['type'][:60]!r}; here it must be one of {known}.", f"{place}[{index}].type"
            )
        found.append(reader(part, f"{place}[{index}]"))
    return found[0]["text"] if len(found) == 1 and found[0]["type"] == "text" else found


def _text(part: Json, place: str) -> Message:
    del place
    return {"type": "text", "text": part["text"]}


def _image(part: Json, place: str) -> Message:
    if part.get("image_url") is None:
        message = (
            f"`{place}.image_url` is required: a URL, or the picture itself as a data URL. Files of OpenAI are not known here."
        )
        _refuse(message, f"{place}.image_url", code="missing_required_parameter")
    image = {"url": part["image_url"]}
    if part.get("detail") is not None:
        image["detail"] = part["detail"]
    return {"type": "image_url", "image_url": image}


def _file(part: Json, place: str) -> Message:
    if part.get("file_url") is not None:
        message = f"`{place}.file_url` is not supported: chat models read no URLs. Send the file itself as `file_data`."
        _refuse(message, f"{place}.file_url", code="unsupported_parameter")
    named = {name: part[name] for name in ("file_data", "file_id", "filename") if part.get(name) is not None}
    if not named.keys() & {"file_data", "file_id"}:
        _refuse(f"`{place}.file_data` is required.", f"{place}.file_data", code="missing_required_parameter")
    return {"type": "file", "file": named}


def _audio(part: Json, place: str) -> Message:
    del place
    return {"type": "input_audio", "input_audio": part["input_audio"]}


_TEXT_PARTS: Final[Mapping[str, PartReader]] = {"input_text": _text, "output_text": _text}
_ANY_PARTS: Final[Mapping[str, PartReader]] = {
    **_TEXT_PARTS,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}
