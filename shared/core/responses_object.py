"""OpenAI's Responses over chat models, the way out: the response object, from its beginning to its end. Pure.

A response begins as what was asked (`begun`), and ends by `ended`, `failed` or `cancelled`, which return new objects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.core.responses_items import RESPONSE

Json = Mapping[str, Any]
Response = dict[str, Any]

INCOMPLETE: Final[Mapping[str | None, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a response is incomplete, by the reason why the model stopped."""

ENDED: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})
CONTINUABLE: Final = frozenset({"completed", "incomplete"})
"""The statuses of responses that ``previous_response_id`` may name."""

_ECHOED: Final = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
)
_DEFAULTS: Final[Mapping[str, Any]] = {
    "model": "auto",
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "service_tier": "auto",
}


def id_of(request_id: str) -> str:
    """Return the id of the response to a request."""
    return RESPONSE + hashlib.sha256(request_id.encode()).hexdigest()[:32]


def begun(body: Json, response_id: str, created_at: float, *, status: str = "in_progress", stored: bool = True) -> Response:
    """Return the response to a body that nobody has answered yet; ``created_at`` is seconds since the epoch."""
    given = {name: value for name, value in body.items() if value is not None}
    reasoning, text = given.get("reasoning", {}), given.get("text", {})
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(created_at),
        "completed_at": None,
        "status": status,
        "background": given.get("background", False),
        "error": None,
        "incomplete_details": None,
        **{name: given.get(name) for name in _ECHOED},
        **{name: given.get(name, value) for name, value in _DEFAULTS.items()},
        "metadata": given.get("metadata", {}),
        "output": [],
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "store": stored,
        "text": {"format": text.get("format") or {"type": "text"}, "verbosity": text.get("verbosity") or "medium"},
        "tools": [_tool(tool) for tool in given.get("tools", ())],
        "usage": None,
    }


def _tool(tool: Json) -> dict[str, Any]:
    if tool["type"] != "function":
        return dict(tool)
    return {"description": None, "parameters": None, **tool, "strict": bool(tool.get("strict"))}


def ended(response: Json, output: Sequence[Json], facts: Json, *, at: float) -> Response:
    """Return a response that was answered at ``at`` (seconds since the epoch).

    ``facts`` are those of a chat's answer: ``finish_reason``, ``model``, ``usage``, ``service_tier``, each if it is known.
    """
    reason = INCOMPLETE.get(facts.get("finish_reason"))
    return {
        **response,
        "completed_at": int(at) if reason is None else None,
        "status": "completed" if reason is None else "incomplete",
        "incomplete_details": None if reason is None else {"reason": reason},
        "model": facts.get("model") or response["model"],
        "output": list(output),
        "service_tier": facts.get("service_tier") or response["service_tier"],
        "usage": usage_of(facts.get("usage")),
    }


def usage_of(usage: Any) -> dict[str, Any] | None:
    """Return chat's usage in the words of Responses, None for none."""
    if not isinstance(usage, Mapping):
        return None
    of_input, of_output = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    read, written = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    return {
        "input_tokens": read,
        "input_tokens_details": {
            "cached_tokens": of_input.get("cached_tokens") or 0,
            "cache_write_tokens": of_input.get("cache_write_tokens") or 0,
        },
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": of_output.get("reasoning_tokens") or 0},
        "total_tokens": usage.get("total_tokens") or read + written,
    }


def failed(response: Json, error: Json, output: Sequence[Json] = ()) -> Response:
    """Return a response that nobody answered. ``error`` is OpenAI's error object as chat's callers get it."""
    code = _CODES.get(error.get("type") or "", "server_error")
    told = {"code": code, "message": error["message"]}
    told.update({name: error[name] for name in ("type", "param") if error.get(name) is not None})
    return {**response, "status": "failed", "error": told, "output": list(output)}


_CODES: Final[Mapping[str, str]] = {
    "rate_limit_error": "rate_limit_exceeded",
    "insufficient_quota": "rate_limit_exceeded",
    "invalid_request_error": "invalid_prompt",
    "permission_error": "invalid_prompt",
}
"""The codes a failed response can have, which are few, by the types of errors. The message says more."""


def cancelled(response: Json) -> Response:
    """Return a response that was cancelled before anybody had answered."""
    return {**response, "status": "cancelled"}
