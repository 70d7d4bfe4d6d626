"""What the tests of providers share: calls to made-up deployments, and the simulator behind the real transport."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from local.simulator import Simulator, start_simulator
from shared.adapters.transport import open_transport
from shared.core.chat import Json, Operation
from shared.core.registry import Auth, Deployment, Model, Provider, ProviderKind, Secret, Timeouts
from shared.ports import Call, HttpTransport

MakeCall = Callable[..., Call]

AUTHS: Mapping[ProviderKind, Auth] = {
    ProviderKind.OPENAI_COMPATIBLE: Auth.BEARER,
    ProviderKind.AZURE_OPENAI: Auth.API_KEY,
    ProviderKind.ANTHROPIC: Auth.X_API_KEY,
}


@pytest.fixture
def make_call() -> MakeCall:
    """Return a maker of calls; its keywords are those of `call`."""
    return call


def call(
    payload: Json | None = None,
    *,
    kind: ProviderKind = ProviderKind.OPENAI_COMPATIBLE,
    base_url: str = "https://provider.test/v1",
    stream: bool = False,
    operation: Operation = Operation.CHAT,
    timeouts: Timeouts | None = None,
    **others: Any,
) -> Call:
    """Return a call. ``others`` are fields of its `Model` and its `Provider`."""
    of_model = {name: value for name, value in others.items() if name in Model.__dataclass_fields__}
    of_provider = {name: value for name, value in others.items() if name not in of_model}
    provider = Provider("vendor", kind, base_url, auth=AUTHS[kind], credential=Secret("sk-canary-0123456789"))
    return Call(
        operation=operation,
        payload={"model": "auto", "messages": [{"role": "user", "content": "Hello"}]} if payload is None else payload,
        stream=stream,
        provider=replace(provider, **of_provider),
        model=replace(Model("model", frozenset({"chat"})), **of_model),
        deployment=Deployment("vendor/model", "model", "vendor", "target-model"),
        timeouts=timeouts or Timeouts(connect=10, first_content=30, idle=30, whole=60),
        request_id="req_01JABCDEFGHJKMNPQRSTVWXYZ0",
    )


@pytest_asyncio.fixture
async def simulator() -> AsyncGenerator[Simulator, None]:
    """Run a simulator on a free port for one test."""
    async with await start_simulator() as running:
        yield running


@pytest_asyncio.fixture
async def transport() -> AsyncGenerator[HttpTransport, None]:
    """Open the real transport for one test."""
    opened = open_transport(trust_env=False)
    yield opened
    await opened.aclose()
