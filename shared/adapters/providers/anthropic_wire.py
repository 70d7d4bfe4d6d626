"""Anthropic's Messages from OpenAI's chat: `Call` → body. The way back is in `anthropic_answer`.

Every field of OpenAI's is translated, or known to be advisory, or refused before anything is sent (the three sets are in
`shared.core.wire_support`): the refusal is a `Failed` of kind INVALID_REQUEST, so that a candidate that can honour it is asked.

Decisions worth knowing:

- ``temperature`` above 1 is refused, not clamped: it would be another request. A temperature or top_p of 1 is the default
  and is left out, because newer models refuse the field itself.
- ``max_tokens`` is required there: the caller's, else the model's most, else `DEFAULT_MAX_TOKENS`.
- ``response_format: json_schema`` becomes ``output_config.format``. ``json_object`` has no counterpart.
- ``reasoning_effort`` becomes ``output_config.effort`` (minimal is low), with adaptive thinking on reasoning models unless a
  tool is forced, which excludes thinking; ``none`` switches thinking off.
- ``service_tier``: default and flex ask for standard capacity, the others for the best there is; the answer's tier is billed.
"""

from __future__ import annotations

from typing import Any, Final

from shared.adapters.providers.anthropic_messages import Block, UntranslatableError, translate
from shared.adapters.providers.classification import dump_body, refused
from shared.core.chat import Json, Operation
from shared.core.failures import Failed
from shared.core.registry import ProviderKind
from shared.core.wire_support import (
    ANTHROPIC_ADVISORY,
    ANTHROPIC_NATIVE,
    ANTHROPIC_TRANSLATED,
    OWN_FIELDS,
    UNSUPPORTED,
    is_harmless,
)
from shared.ports import Call

DEFAULT_MAX_TOKENS: Final = 4096
MAX_USER_ID: Final = 256
EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
TIERS: Final = {"auto": "auto", "default": "standard_only", "flex": "standard_only", "priority": "auto", "scale": "auto"}
TOOL_CHOICES: Final = {"auto": "auto", "required": "any", "none": "none"}
_ACCEPTED: Final = ANTHROPIC_TRANSLATED | ANTHROPIC_ADVISORY | ANTHROPIC_NATIVE | OWN_FIELDS


def render(call: Call) -> bytes | Failed:
    """Return the body to send, or why this request can't be sent to Anthropic."""
    if call.operation is not Operation.CHAT:
        return refused("Anthropic has no embeddings.", "model")
    payload = call.payload
    try:
        _refuse_others(payload)
        system, messages = translate(payload.get("messages"))
        body: dict[str, Any] = {
            "model": call.deployment.target,
            "max_tokens": _max_tokens(call),
            "messages": messages,
            **({"system": system} if system else {}),
            **({"stream": True} if call.stream else {}),
            **_sampling(payload),
            **_tools(payload),
            **_output_config(call),
            **_account(payload),
        }
    except UntranslatableError as error:
        return refused(str(error), error.param)
    for name in ANTHROPIC_NATIVE & payload.keys():
        body[name] = payload[name]
    return dump_body(body)


def _refuse_others(payload: Json) -> None:
    for name in payload.keys() - _ACCEPTED:
        if not is_harmless(name, payload[name]):
            known = name in UNSUPPORTED[ProviderKind.ANTHROPIC]
            message = f"`{name}` has no counterpart in Anthropic's Messages API." if known else f"`{name}` is not known."
            raise UntranslatableError(message, name)


def _max_tokens(call: Call) -> int:
    asked = [call.payload.get(name) for name in ("max_completion_tokens", "max_tokens")]
    limits = [limit for limit in asked if isinstance(limit, int)]
    return min(limits) if limits else call.model.max_output_tokens or DEFAULT_MAX_TOKENS


def _sampling(payload: Json) -> dict[str, Any]:
    found: dict[str, Any] = {}
    temperature = payload.get("temperature")
    if not is_harmless("temperature", temperature):
        if not isinstance(temperature, (int, float)) or temperature > 1:
            message = "Anthropic's temperature ends at 1."
            raise UntranslatableError(message, "temperature")
        found["temperature"] = temperature
    if not is_harmless("top_p", payload.get("top_p")):
        found["top_p"] = payload["top_p"]
    stop = payload.get("stop")
    if stop:
        found["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    return found


def _tools(payload: Json) -> dict[str, Any]:
    tools = payload.get("tools")
    if not tools:
        return {}
    if not isinstance(tools, list):
        message = "`tools` must be a list."
        raise UntranslatableError(message, "tools")
    found: dict[str, Any] = {"tools": [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]}
    choice = _tool_choice(payload.get("tool_choice"))
    if payload.get("parallel_tool_calls") is False:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    if choice is not None:
        found["tool_choice"] = choice
    return found


def _tool(tool: Any, place: str) -> Block:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type", "function") == "function" else None
    if not isinstance(function, dict):
        message = "Only tools of type `function` have a counterpart in Anthropic's Messages API."
        raise UntranslatableError(message, place)
    block: Block = {
        "name": function.get("name"),
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    if function.get("description"):
        block["description"] = function["description"]
    if function.get("strict"):
        block["strict"] = True
    if isinstance(tool.get("cache_control"), dict):
        block["cache_control"] = tool["cache_control"]
    return block


def _tool_choice(choice: Any) -> Block | None:
    if choice is None:
        return None
    if isinstance(choice, str) and choice in TOOL_CHOICES:
        return {"type": TOOL_CHOICES[choice]}
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        return {"type": "tool", "name": function["name"]}
    message = "This form of `tool_choice` has no counterpart in Anthropic's Messages API."
    raise UntranslatableError(message, "tool_choice")


def _output_config(call: Call) -> dict[str, Any]:
    payload = call.payload
    config: dict[str, Any] = {}
    found: dict[str, Any] = {}
    schema = _schema(payload.get("response_format"))
    if schema is not None:
        config["format"] = {"type": "json_schema", "schema": schema}
    effort = payload.get("reasoning_effort")
    if effort == "none":
        found.update({"thinking": {"type": "disabled"}} if call.model.reasoning else {})
    elif effort is not None:
        if not isinstance(effort, str) or effort not in EFFORTS:
            message = "This `reasoning_effort` has no counterpart in Anthropic's Messages API."
            raise UntranslatableError(message, "reasoning_effort")
        config["effort"] = EFFORTS[effort]
        if call.model.reasoning and payload.get("tool_choice") in (None, "auto", "none"):
            found["thinking"] = {"type": "adaptive"}
    if config:
        found["output_config"] = config
    return found


def _schema(response_format: Any) -> Any:
    if is_harmless("response_format", response_format):
        return None
    wanted = response_format if isinstance(response_format, dict) else {}
    described = wanted.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if wanted.get("type") != "json_schema" or not isinstance(schema, dict):
        message = "Only `text` and `json_schema` response formats have a counterpart in Anthropic's Messages API."
        raise UntranslatableError(message, "response_format")
    return schema


def _account(payload: Json) -> dict[str, Any]:
    """Return who is served and on which tier. ``safety_identifier`` is what replaced ``user`` at OpenAI."""
    found: dict[str, Any] = {}
    user = payload.get("safety_identifier") or payload.get("user")
    if isinstance(user, str) and user:
        found["metadata"] = {"user_id": user[:MAX_USER_ID]}
    tier = payload.get("service_tier")
    if tier is not None:
        if not isinstance(tier, str) or tier not in TIERS:
            message = f"The service tier `{tier}` has no counterpart in Anthropic's Messages API."
            raise UntranslatableError(message, "service_tier")
        found["service_tier"] = TIERS[tier]
    return found
