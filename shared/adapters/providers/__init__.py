"""Model providers: one protocol each, chosen by a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.adapters.providers import anthropic, azure_openai, openai_compatible
from shared.adapters.providers.http_provider import HttpProvider, WireProtocol
from shared.core.registry import ProviderKind
from shared.ports import HttpTransport, ModelProvider, TokenSource

PROTOCOLS: Final[Mapping[ProviderKind, WireProtocol]] = {
    ProviderKind.AZURE_OPENAI: azure_openai.PROTOCOL,
    ProviderKind.OPENAI_COMPATIBLE: openai_compatible.PROTOCOL,
    ProviderKind.ANTHROPIC: anthropic.PROTOCOL,
}


def providers(transport: HttpTransport, tokens: TokenSource) -> Mapping[ProviderKind, ModelProvider]:
    """Return the provider of every kind, all over one transport and one source of Entra tokens."""
    return {kind: HttpProvider(protocol, transport, tokens) for kind, protocol in PROTOCOLS.items()}
