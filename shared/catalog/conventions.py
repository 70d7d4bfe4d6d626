"""The providers a catalog of the first format names without describing them, by the environment names everybody uses."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

_AZURE: Final[Mapping[str, Any]] = {
    "kind": "azure_openai",
    "base_url": "${AZURE_OPENAI_ENDPOINT}",
    "api_key": "${AZURE_OPENAI_API_KEY}",
    "auth": ["api_key", "entra"],
}
_HUGGING_FACE: Final[Mapping[str, Any]] = {
    "kind": "openai_compatible",
    "base_url": "https://router.huggingface.co/v1",
    "api_key": "${HF_TOKEN}",
    "semconv_name": "hugging_face",
}
_OLLAMA: Final[Mapping[str, Any]] = {
    "kind": "openai_compatible",
    "base_url": "${OLLAMA_BASE_URL}/v1",
    "auth": "none",
    "semconv_name": "ollama",
}

CONVENTIONAL_PROVIDERS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "azure_openai": _AZURE,
        "openai": {"kind": "openai_compatible", "base_url": "https://api.openai.com/v1", "api_key": "${OPENAI_API_KEY}"},
        "anthropic": {"kind": "anthropic", "base_url": "https://api.anthropic.com", "api_key": "${ANTHROPIC_API_KEY}"},
        "huggingface": _HUGGING_FACE,
        "hugging_face": _HUGGING_FACE,
        "cohere": {
            "kind": "openai_compatible",
            "base_url": "https://api.cohere.ai/compatibility/v1",
            "api_key": "${COHERE_API_KEY}",
        },
        "github_models": {
            "kind": "openai_compatible",
            "base_url": "https://models.github.ai/inference",
            "api_key": "${GITHUB_TOKEN}",
            "enabled": False,
            "disabled_reason": "GitHub Models was shut down on 2026-07-30 and answers 410",
        },
        "local": _OLLAMA,
        "ollama": _OLLAMA,
        "vllm": {
            "kind": "openai_compatible",
            "base_url": "${VLLM_BASE_URL}/v1",
            "api_key": "${VLLM_API_KEY}",
            "auth": ["bearer", "none"],
        },
    }
)
