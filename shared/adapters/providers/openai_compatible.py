"""OpenAI's protocol as its many vendors speak it. A vendor is a row of the catalog; what they share is here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.adapters.providers import openai_wire
from shared.adapters.providers.http_provider import WireProtocol
from shared.core.chat import Operation
from shared.ports import Call

PATHS: Final[Mapping[Operation, str]] = {
    Operation.CHAT: "/chat/completions",
    Operation.EMBEDDINGS: "/embeddings",
}


def url(call: Call) -> str:
    """Return the address; ``base_url`` ends in ``/v1`` or whatever the vendor has in its place."""
    return (call.deployment.base_url or call.provider.base_url).rstrip("/") + PATHS[call.operation]


PROTOCOL: Final = WireProtocol(
    url=url,
    render=openai_wire.render,
    parse=openai_wire.parse,
    reader=openai_wire.Stream,
    headers={},
)
