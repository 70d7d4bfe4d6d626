"""Which of OpenAI's chat fields each provider protocol can honour, and which values ask for nothing.

Read by the catalog (what a provider's ``unsupported_parameters`` default to), by the router (a candidate that can't honour a
field that was sent is not a candidate) and by the adapters (which translate, or refuse before sending). For a protocol that is
not OpenAI's every field is in exactly one of three sets: translated, advisory, unsupported. Nothing is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shared.core.registry import ProviderKind

OWN_FIELDS: Final = frozenset({"task_type", "model_preferences", "budget_limit", "priority", "webhook_url", "deadline_seconds"})
"""Switchyard's own fields: they steer the gateway and never go to a provider."""

HARMLESS_DEFAULTS: Final[Mapping[str, tuple[Any, ...]]] = {
    "temperature": (1,),
    "top_p": (1,),
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto",),
    "store": (False,),
    "stream": (False,),
    "stop": ([], ""),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("auto",),
    "function_call": ("auto",),
    "verbosity": ("medium",),
    "metadata": ({},),
    "user": ("",),
}
"""Values that equal what OpenAI does when the field is absent: they may be left out where a model refuses the field.
Null means the same for every field."""

ANTHROPIC_TRANSLATED: Final = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "stream",
        "stream_options", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "user",
        "safety_identifier", "service_tier",
    }
)  # fmt: skip
"""OpenAI's fields that have a counterpart in Anthropic's Messages."""

ANTHROPIC_ADVISORY: Final = frozenset({"metadata", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"})
"""OpenAI's fields that change neither the answer nor what the caller may rely on: tags for OpenAI's own dashboards, and hints
where to look for a cached prompt. They are left out on Anthropic's wire; requests that send them stay welcome there."""

ANTHROPIC_NATIVE: Final = frozenset({"cache_control", "container", "inference_geo", "speed", "thinking", "top_k"})
"""Anthropic's own fields, which pass through when a caller sends them (with ``extra_body``)."""

UNSUPPORTED: Final[Mapping[ProviderKind, frozenset[str]]] = {
    ProviderKind.OPENAI_COMPATIBLE: frozenset(),  # each vendor's row in the catalog says what it refuses
    ProviderKind.AZURE_OPENAI: frozenset({"web_search_options"}),
    ProviderKind.ANTHROPIC: frozenset(
        {
            "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "modalities",
            "moderation", "n", "prediction", "presence_penalty", "seed", "store", "top_logprobs", "verbosity",
            "web_search_options",
        }
    ),
}  # fmt: skip
"""Fields a protocol can't honour at all, whatever the model."""


def is_harmless(name: str, value: Any) -> bool:
    """Say whether a field's value asks for nothing beyond what happens when the field is absent."""
    return value is None or value in HARMLESS_DEFAULTS.get(name, ())


def significant_parameters(payload: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the top-level fields that ask for something: what a candidate must be able to honour."""
    return frozenset(name for name, value in payload.items() if name not in OWN_FIELDS and not is_harmless(name, value))
