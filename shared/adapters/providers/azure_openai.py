"""Azure OpenAI and Foundry: OpenAI's wire on Azure's addresses."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from shared.adapters.providers import openai_wire
from shared.adapters.providers.http_provider import WireProtocol
from shared.adapters.providers.openai_compatible import PATHS
from shared.ports import Call


def url(call: Call) -> str:
    """Return the v1 address, or with an ``api_version`` the dated one that names the deployment in its path.

    ``base_url`` is the resource (``https://NAME.openai.azure.com``), with or without the ``/openai/v1`` the portal shows.
    """
    base = (call.deployment.base_url or call.provider.base_url).rstrip("/")
    resource = base.removesuffix("/v1").removesuffix("/openai")
    path = PATHS[call.operation]
    version = call.provider.api_version
    if version is None:
        return f"{resource}/openai/v1{path}"
    target = quote(call.deployment.target, safe="")
    return f"{resource}/openai/deployments/{target}{path}?api-version={quote(version, safe='')}"


PROTOCOL: Final = WireProtocol(
    url=url,
    render=openai_wire.render,
    parse=openai_wire.parse,
    reader=openai_wire.Stream,
    headers={},
)
