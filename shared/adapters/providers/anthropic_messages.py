"""OpenAI's ``messages`` → Anthropic's ``system`` and ``messages``.

What Anthropic's Messages has no place for raises `UntranslatableError` and goes to another candidate; it is never left out,
with these exceptions, which carry no content: a participant's ``name``, an image's ``detail``, and empty text (Anthropic
refuses it). System and developer messages go to ``system`` wherever they stand. Consecutive messages of one role become one
turn, so that the results of parallel tool calls arrive together, as Anthropic demands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

import orjson

from shared.core.chat import Json

Block = dict[str, Any]

_SYSTEM_ROLES: Final = ("system", "developer")
IMAGE_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_DATA_URL: Final = re.compile(r"data:([a-zA-Z0-9.+-]+/[a-zA-Z0-9.+-]+)(?:;[a-zA-Z0-9=_.-]+)*?;base64,", re.IGNORECASE)


class UntranslatableError(Exception):
    """Something in the request has no counterpart. ``param`` is its place in OpenAI's terms; the message is ours."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def translate(messages: Any) -> tuple[list[Block], list[Block]]:
    """Return Anthropic's system blocks and its messages."""
    system: list[Block] = []
    turns: list[Block] = []
    if not isinstance(messages, list):
        message = "`messages` must be a list."
        raise UntranslatableError(message, "messages")
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role in _SYSTEM_ROLES:
            system.extend(_parts(message.get("content"), place, _TEXT_PARTS))
            continue
        translator = _ROLES.get(role) if isinstance(role, str) else None
        if translator is None:
            _refuse(f"The role `{role}`", place + ".role")
        _append(turns, "assistant" if role == "assistant" else "user", translator(message, place))
    if not turns or turns[0]["role"] != "user":
        _refuse("A conversation that does not begin with a user's message", "messages")
    return system, turns


def _append(turns: list[Block], role: str, blocks: list[Block]) -> None:
    if not blocks:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"].extend(blocks)
    else:
        turns.append({"role": role, "content": blocks})


def _refuse(what: str, param: str) -> NoReturn:
    message = f"{what} has no counterpart in Anthropic's Messages API."
    raise UntranslatableError(message, param)


# ---- messages by role ------------------------------------------------------------------------------------------------


def _user(message: Json, place: str) -> list[Block]:
    blocks = _parts(message.get("content"), place, _USER_PARTS)
    if not blocks:
        _refuse("A user's message without content", place + ".content")
    return blocks


def _assistant(message: Json, place: str) -> list[Block]:
    for name in ("function_call", "audio"):
        if message.get(name) is not None:
            _refuse(f"`{name}`", f"{place}.{name}")
    blocks = [block for block in _list(message, "thinking_blocks", place) if isinstance(block, dict)]
    content = message.get("content")
    blocks += _parts(content, place, _TEXT_PARTS) if content is not None else []
    refusal = message.get("refusal")
    if refusal:
        blocks.append({"type": "text", "text": str(refusal)})
    for index, call in enumerate(_list(message, "tool_calls", place)):
        blocks.append(_tool_use(call, f"{place}.tool_calls[{index}]"))
    return blocks


def _tool(message: Json, place: str) -> list[Block]:
    call_id = message.get("tool_call_id")
    if not isinstance(call_id, str):
        _refuse("A tool's message without `tool_call_id`", place + ".tool_call_id")
    block: Block = {"type": "tool_result", "tool_use_id": call_id}
    content = message.get("content")
    if isinstance(content, str):
        block["content"] = content
    elif content is not None:
        block["content"] = _parts(content, place, _USER_PARTS)
    return [block]


_ROLES: Final[Mapping[str, Callable[[Json, str], list[Block]]]] = {
    "user": _user,
    "assistant": _assistant,
    "tool": _tool,
}


def _list(message: Json, name: str, place: str) -> list[Any]:
    value = message.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        _refuse(f"`{name}` that is not a list", f"{place}.{name}")
    return value


def _tool_use(call: Any, place: str) -> Block:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        _refuse("A call of a tool that is no function", place)
    arguments = function.get("arguments") or "{}"
    try:
        value = orjson.loads(arguments)
    except (orjson.JSONDecodeError, TypeError):
        value = None
    if not isinstance(value, dict):
        _refuse("A tool call whose arguments are not a JSON object", place + ".function.arguments")
    return {"type": "tool_use", "id": call.get("id") or "", "name": function.get("name") or "", "input": value}


# ---- content parts ---------------------------------------------------------------------------------------------------


def _parts(content: Any, place: str, translators: Mapping[str, Callable[[Json, str], Block | None]]) -> list[Block]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if content is None:
        return []
    if not isinstance(content, list):
        _refuse("Content that is neither text nor a list of parts", place + ".content")
    return list(_translate_parts(content, place, translators))


def _translate_parts(
    parts: list[Any], place: str, translators: Mapping[str, Callable[[Json, str], Block | None]]
) -> Iterable[Block]:
    for index, part in enumerate(parts):
        where = f"{place}.content[{index}]"
        kind = part.get("type") if isinstance(part, dict) else None
        translator = translators.get(kind) if isinstance(kind, str) else None
        if translator is None:
            _refuse(f"A content part of type `{kind}` here", where)
        block = translator(part, where)
        if block is not None:
            yield _with_cache_control(block, part)


def _with_cache_control(block: Block, part: Json) -> Block:
    """Keep a mark where a cached prompt may end: Anthropic's own, or OpenAI's explicit breakpoint."""
    if isinstance(part.get("cache_control"), dict):
        block["cache_control"] = part["cache_control"]
    elif isinstance(part.get("prompt_cache_breakpoint"), dict):
        block["cache_control"] = {"type": "ephemeral"}
    return block


def _text(part: Json, place: str) -> Block | None:
    text = part.get("text")
    if not isinstance(text, str):
        _refuse("A text part without text", place + ".text")
    return {"type": "text", "text": text} if text else None


def _refusal(part: Json, place: str) -> Block | None:
    return _text({"text": part.get("refusal")}, place)


def _image(part: Json, place: str) -> Block:
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    where = place + ".image_url"
    if not isinstance(url, str):
        _refuse("An image without a URL", where)
    if url[:8].lower().startswith(("https://", "http://")):
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type, data = _read_data_url(url, where)
    if media_type not in IMAGE_TYPES:
        _refuse(f"An image of type `{media_type}`", where)
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _file(part: Json, place: str) -> Block:
    file = part.get("file")
    file = file if isinstance(file, dict) else {}
    data_url = file.get("file_data")
    if not isinstance(data_url, str):
        _refuse("A file that is not sent as `file_data`", place + ".file")
    if not data_url[:5].lower().startswith("data:"):
        data_url = "data:application/pdf;base64," + data_url  # OpenAI takes bare base64 of a PDF, too
    media_type, data = _read_data_url(data_url, place + ".file.file_data")
    if media_type != "application/pdf":
        _refuse(f"A file of type `{media_type}`", place + ".file.file_data")
    block: Block = {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}}
    if isinstance(file.get("filename"), str):
        block["title"] = file["filename"]
    return block


def _read_data_url(url: str, place: str) -> tuple[str, str]:
    match = _DATA_URL.match(url)
    if match is None:
        _refuse("A URL that is neither http(s) nor base64 data", place)
    media_type = match.group(1).lower()
    return ("image/jpeg" if media_type == "image/jpg" else media_type), url[match.end() :]


_TEXT_PARTS: Final[Mapping[str, Callable[[Json, str], Block | None]]] = {"text": _text, "refusal": _refusal}
_USER_PARTS: Final[Mapping[str, Callable[[Json, str], Block | None]]] = {
    "text": _text,
    "image_url": _image,
    "file": _file,
}
