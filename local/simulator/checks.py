"""Checks of a request's fields, refused as OpenAI refuses them: 400, and the field named."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final, NoReturn

from local.simulator.protocol import Problem, RefusedError, refuse

_REASONING: Final = re.compile(r"^(?:[\w.-]+/)?(?:gpt-5|gpt-6|o\d)(?!.*chat)", re.IGNORECASE)
_WHEN_ASKED: Final = re.compile(r"^(?:[\w.-]+/)?gpt-5\.[1-4]", re.IGNORECASE)
"""Reasoning models whose effort is `none` unless the request says otherwise; until then they sample as others do."""

_NUMBERS: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
_COUNTS: Final[Mapping[str, tuple[int, int]]] = {
    "n": (1, 128),
    "max_tokens": (1, 2_000_000),
    "max_completion_tokens": (1, 2_000_000),
    "top_logprobs": (0, 20),
    "seed": (-(2**63), 2**63 - 1),
    "dimensions": (1, 4096),
}
_FLAGS: Final = ("stream", "parallel_tool_calls")

_REASONING_DEFAULTS: Final[Mapping[str, tuple[Any, ...]]] = {
    "temperature": (1,),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
}
"""What a reasoning model puts up with in these fields; anything else is refused."""


def is_among(value: object, names: Collection[str]) -> bool:
    """Return whether a field's value is one of those words; a value of another type never is."""
    return isinstance(value, str) and value in names


def reasons(model: str) -> bool:
    """Return whether a model of that name thinks before it speaks."""
    return _REASONING.match(model) is not None


def check_fields(payload: Mapping[str, Any]) -> None:
    """Refuse fields of a wrong type or out of range."""
    for name, (low, high) in _NUMBERS.items():
        value = payload.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            _refuse_type(name, "a decimal", value)
        _check_range(name, value, low, high)
    for name, (least, most) in _COUNTS.items():
        value = payload.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            _refuse_type(name, "an integer", value)
        _check_range(name, value, least, most)
    for name in _FLAGS:
        if payload.get(name) is not None and not isinstance(payload[name], bool):
            _refuse_type(name, "a boolean", payload[name])


def check_reasoning(model: str, payload: Mapping[str, Any]) -> None:
    """Refuse what reasoning models refuse; call it for those models only."""
    if payload.get("max_tokens") is not None:
        refuse(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        )
    if _WHEN_ASKED.match(model) and payload.get("reasoning_effort") in {None, "none"}:
        return
    for name, accepted in _REASONING_DEFAULTS.items():
        if payload.get(name) is not None and payload[name] not in accepted:
            refuse(
                f"Unsupported value: '{name}' does not support {payload[name]} with this model.",
                param=name,
                code="unsupported_value",
            )


def check_context(tokens: int, window: int | None) -> None:
    """Refuse a prompt that the model's context window cannot hold."""
    if window is not None and tokens > window:
        message = (
            f"This model's maximum context length is {window} tokens. However, your messages resulted in {tokens} "
            "tokens. Please reduce the length of the messages."
        )
        refuse(message, param="messages", code="context_length_exceeded")


def check_model(payload: Mapping[str, Any], deployment: str | None) -> str:
    """Return the model asked for; refuse a request without one."""
    model = deployment or payload.get("model")
    if not isinstance(model, str) or not model:
        message = "you must provide a model parameter"
        raise RefusedError(Problem(400, "invalid_request_error", None, message, "model"))
    return model


def _refuse_type(name: str, wanted: str, value: object) -> NoReturn:
    kind = {bool: "a boolean", str: "a string", int: "an integer", float: "a decimal", list: "an array"}
    refuse(
        f"Invalid type for '{name}': expected {wanted}, but got {kind.get(type(value), 'an object')} instead.",
        param=name,
        code="invalid_type",
    )


def _check_range(name: str, value: float | None, low: float, high: float) -> None:
    if value is None or low <= value <= high:
        return
    below = value < low
    bound = f"a value >= {low}" if below else f"a value <= {high}"
    message = f"Invalid '{name}': {'integer' if isinstance(value, int) else 'decimal'} out of range. Expected {bound}, but got {value} instead."  # noqa: E501
    code = f"{'integer' if name in _COUNTS else 'decimal'}_{'below_min' if below else 'above_max'}_value"
    refuse(message, param=name, code=code)
