"""OpenAI's Responses over chat models, the way in: a Responses body → a chat body. Pure.

Every provider is asked by chat. What chat has no place for is refused by name (`InvalidRequestError`); it is never left out,
with these exceptions, which change no answer: reasoning of earlier turns (chat models do not want it back), the wish for a
summary of it, and ``max_tool_calls``, which bounds tools that are not to be had here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from shared.core.errors import GatewayError, InvalidRequestError
from shared.core.responses_items import messages_of

Json = Mapping[str, Any]

SAME: Final = (
    "model",
    "stream",
    "temperature",
    "top_p",
    "top_logprobs",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "service_tier",
    "task_type",
    "model_preferences",
    "budget_limit",
    "priority",
)
"""Fields that chat calls the same; the last four are Switchyard's own."""

LOGPROBS: Final = "message.output_text.logprobs"
INCLUDABLE: Final = (LOGPROBS, "reasoning.encrypted_content", "message.input_image.image_url")
"""What ``include`` may ask for: the rest is what tools of OpenAI's own return. A picture's URL is always shown, and reasoning
is never encrypted: there is none to leave out."""

UNSUPPORTED: Final[Mapping[str, str]] = {
    "conversation": "Conversations are not kept here: continue a response with `previous_response_id`.",
    "prompt": "Prompt templates are not kept here: send the text as `instructions` and `input`.",
    "context_management": "Nothing is compacted here: send a shorter `input`.",
    "moderation": "Nothing is moderated here: ask a moderation model first.",
    "background_options": "Background responses begin as soon as they can: leave it out.",
    "access_programs": "Leave it out.",
    "image": "Leave it out.",
}
"""Fields of OpenAI's that can't be honoured, and what to do instead."""

TOOLS: Final = ("function", "custom")
"""The kinds of tools chat models call. The others run at OpenAI."""


def chat_body(body: Json, items: Sequence[Json], *, known: int = 0) -> dict[str, Any]:
    """Return the chat body of a Responses body, whose shape has been checked.

    ``items`` is the whole conversation (`shared.core.responses_items.items_of`), of which the first ``known`` were there
    before. Raise `InvalidRequestError` that names the field of what chat models can't do.
    """
    _refuse_unsupported(body)
    chat: dict[str, Any] = {name: body[name] for name in SAME if body.get(name) is not None}
    messages = messages_of(items, known=known)
    if not messages:
        _refuse("`input` holds reasoning alone: nothing that could be answered.", "input", code="invalid_value")
    if instructions := body.get("instructions"):
        messages.insert(0, {"role": "system", "content": instructions})
    chat["messages"] = messages
    if (limit := body.get("max_output_tokens")) is not None:
        chat["max_completion_tokens"] = limit
    if effort := (body.get("reasoning") or {}).get("effort"):
        chat["reasoning_effort"] = effort
    if LOGPROBS in (body.get("include") or ()) or chat.get("top_logprobs"):
        chat["logprobs"] = True
    return {**chat, **_text(body.get("text") or {}), **_tools(body)}


def _refuse_unsupported(body: Json) -> None:
    for name, advice in UNSUPPORTED.items():
        if body.get(name) is not None:
            _refuse(f"`{name}` is not supported. {advice}", name)
    for index, name in enumerate(body.get("include") or ()):
        if name not in INCLUDABLE:
            known = ", ".join(INCLUDABLE)
            _refuse(f"`include[{index}]` is {name[:60]!r}, which can't be had here. Known: {known}.", f"include[{index}]")
    if body.get("truncation") == "auto":
        _refuse("`truncation` must be disabled: nothing is dropped here. Send a shorter `input`.", "truncation")
    if (body.get("stream_options") or {}).get("include_obfuscation"):
        _refuse("`stream_options.include_obfuscation` is not supported. Leave it out.", "stream_options.include_obfuscation")
    if body.get("stream_options") is not None and not body.get("stream"):
        _refuse("`stream_options` is only allowed when `stream` is true.", "stream_options", code="invalid_value")


def _refuse(message: str, param: str, *, code: str = "unsupported_parameter") -> NoReturn:
    raise InvalidRequestError(message, param=param, code=code)


def _text(text: Json) -> dict[str, Any]:
    found: dict[str, Any] = {}
    shape = text.get("format")
    if shape is not None and shape["type"] == "json_schema":
        schema = {name: value for name, value in shape.items() if name != "type" and value is not None}
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif shape is not None and shape["type"] != "text":
        found["response_format"] = {"type": shape["type"]}
    if text.get("verbosity") is not None:
        found["verbosity"] = text["verbosity"]
    return found


# ---- tools -----------------------------------------------------------------------------------------------------------


def _tools(body: Json) -> dict[str, Any]:
    choice, tools = body.get("tool_choice"), body.get("tools") or ()
    for index, tool in enumerate(tools):
        if tool["type"] not in TOOLS:
            message = (
                f"`tools[{index}].type` is {tool['type'][:60]!r}. Only tools that your application runs are supported: "
                f"{', '.join(TOOLS)}. Tools that OpenAI runs can't be called here."
            )
            _refuse(message, f"tools[{index}].type", code="unsupported_value")
    if not tools:
        if choice not in (None, "auto", "none"):
            _refuse("`tool_choice` asks for a tool, and there are no `tools`.", "tool_choice", code="invalid_value")
        return {}  # chat refuses what is about tools where there are none
    found: dict[str, Any] = {"tools": [_tool(tool) for tool in tools]}
    if choice is not None:
        found["tool_choice"] = choice if isinstance(choice, str) else _choice(choice, tools)
    if body.get("parallel_tool_calls") is not None:
        found["parallel_tool_calls"] = body["parallel_tool_calls"]
    return found


def _tool(tool: Json) -> dict[str, Any]:
    kind = tool["type"]
    inner = {name: value for name, value in tool.items() if name != "type" and value is not None}
    shape = inner.get("format")
    if kind == "custom" and shape is not None and shape.get("type") == "grammar":
        grammar = {name: shape[name] for name in ("syntax", "definition") if name in shape}
        inner["format"] = {"type": "grammar", "grammar": grammar}
    return {"type": kind, kind: inner}


def _choice(choice: Json, tools: Sequence[Json]) -> dict[str, Any]:
    kind = choice["type"]
    if kind == "allowed_tools":
        allowed = [_named(one, f"tool_choice.tools[{index}]", tools) for index, one in enumerate(choice.get("tools") or ())]
        return {"type": kind, kind: {"mode": choice.get("mode") or "auto", "tools": allowed}}
    return _named(choice, "tool_choice", tools)


def _named(choice: Json, place: str, tools: Sequence[Json]) -> dict[str, Any]:
    kind, name = choice.get("type"), choice.get("name")
    if kind not in TOOLS:
        message = f"`{place}.type` must be one of {', '.join(TOOLS)}: other tools can't be called here."
        _refuse(message, f"{place}.type", code="unsupported_value")
    if not any(tool["type"] == kind and tool["name"] == name for tool in tools):
        _refuse(f"`{place}.name` must be the name of one of the `tools`.", f"{place}.name", code="invalid_value")
    return {"type": kind, kind: {"name": name}}


# ---- errors ----------------------------------------------------------------------------------------------------------

_PARAMS: Final[Mapping[str, str]] = {
    "messages": "input",
    "response_format": "text.format",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "logprobs": "include",
}


def rename_param(error: GatewayError) -> GatewayError:
    """Let an error that names a field of chat name the field of Responses it was made from; return it."""
    if error.param is not None:
        field = error.param.replace("[", ".").partition(".")[0]
        error.param = _PARAMS.get(field, error.param.replace(".function.", ".").replace(".custom.", "."))
    return error
