"""The whole edge in one process: the mounted FunctionApp on a loopback server, over the simulator and stores in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import IO, Any

import aiohttp
import orjson
import uvicorn
from uvicorn.server import ServerState

from functions import gateway as holder
from functions.surface import registered
from local.durable import LocalEngine
from local.mounting import Functions, Mounted, functions_of
from local.protocol import GuardedProtocol
from local.simulator import Attempt, Simulator, start_simulator
from shared.bootstrap import open_gateway
from shared.core.registry import Secret
from shared.gateway import Gateway
from shared.settings import Settings

ADMIN_KEY = "test-admin-key-0123456789"
CATALOG = str(Path(__file__).with_name("catalog.yaml"))


@cache
def functions() -> Functions:
    """Return the app's triggers; an app may be asked for them once."""
    return functions_of(registered())


@dataclass
class Edge:
    """A running gateway, and how to call it."""

    url: str
    gateway: Gateway
    simulator: Simulator
    mounted: Mounted
    session: aiohttp.ClientSession
    engine: LocalEngine
    admin: str = ADMIN_KEY
    headers: dict[str, str] = field(default_factory=lambda: {"authorization": f"Bearer {ADMIN_KEY}"})

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        data: bytes | IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Call with the admin key unless ``headers`` say otherwise."""
        sent = self.headers if headers is None else headers
        async with self.session.request(method, self.url + path, json=json, data=data, headers=sent) as response:
            body = await response.read()
            return Reply(response.status, body, {name.lower(): value for name, value in response.headers.items()})

    async def post(self, path: str, json: Any, *, headers: dict[str, str] | None = None) -> Reply:
        """Post JSON."""
        return await self.call("POST", path, json=json, headers=headers)

    async def get(self, path: str, *, headers: dict[str, str] | None = None) -> Reply:
        """Get."""
        return await self.call("GET", path, headers=headers)

    async def key(self, project: str = "shop", models: frozenset[str] | None = None) -> dict[str, str]:
        """Return the headers of a new virtual key."""
        made = await self.gateway.keys.create("test", project, models=models)
        return {"authorization": f"Bearer {made.token.reveal()}"}

    def sent(self) -> list[Attempt]:
        """Return what providers received, as the simulator logged it."""
        return self.simulator.log()


@dataclass(frozen=True)
class Reply:
    """A whole response."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        """Its JSON."""
        return orjson.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """Its error object, which is OpenAI's and complete."""
        assert list(self.json) == ["error"]
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


SETTINGS = Settings(catalog=CATALOG, storage="memory:", admin_key=Secret(ADMIN_KEY), port=0)


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve on a free port with uvicorn's own protocol; without its main loop, which takes 0.2 s to notice the end."""
    config, state = uvicorn.Config(app, http=GuardedProtocol, ws="none", lifespan="off", log_config=None), ServerState()
    config.load()

    def protocol() -> asyncio.Protocol:
        return GuardedProtocol(config=config, server_state=state, app_state={})

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=5)


@contextlib.asynccontextmanager
async def running(
    settings: Settings = SETTINGS,
    *,
    around: Callable[[Mounted], Any] | None = None,
    environment: Callable[[str], Mapping[str, str]] | None = None,
) -> AsyncIterator[Edge]:
    """Run everything until the block is left; ``around`` may put another ASGI application around the mounted one.

    ``environment`` takes the simulator's URL: providers are then called at the addresses it gives, as without a simulator.
    """
    async with await start_simulator() as simulator:
        if environment is None:
            settings = replace(settings, upstream=simulator.url)
        gateway = await open_gateway(settings, environment={} if environment is None else environment(simulator.url))
        holder.use(gateway)
        engine = LocalEngine(functions())
        mounted = Mounted(functions().http, max_in_flight=settings.max_in_flight, engine=engine)
        try:
            async with serving(mounted if around is None else around(mounted)) as url, aiohttp.ClientSession() as session:
                yield Edge(url, gateway, simulator, mounted, session, engine)
        finally:
            await engine.aclose()
            holder.use(None)
            await gateway.aclose()
