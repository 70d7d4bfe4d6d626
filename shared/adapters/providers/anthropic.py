"""Anthropic's Messages API, direct or on Foundry (``https://NAME.services.ai.azure.com/anthropic``)."""

from __future__ import annotations

from typing import Final

from shared.adapters.providers import anthropic_answer, anthropic_wire
from shared.adapters.providers.http_provider import WireProtocol
from shared.ports import Call


def url(call: Call) -> str:
    """Return the address; ``base_url`` may end in ``/v1`` or leave it out."""
    base = (call.deployment.base_url or call.provider.base_url).rstrip("/")
    return base.removesuffix("/v1") + "/v1/messages"


PROTOCOL: Final = WireProtocol(
    url=url,
    render=anthropic_wire.render,
    parse=anthropic_answer.parse,
    reader=anthropic_answer.Stream,
    headers={"anthropic-version": "2023-06-01"},
)
