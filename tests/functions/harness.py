"""The whole edge in one process: the mounted FunctionApp on a loopback server, over the simulator and stores in memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import IO, Any

import aiohttp
import orjson
import uvicorn

from functions import gateway as holder
from local.mounting import HttpFunction, Mounted, TimerFunction, functions_of
from local.simulator import Attempt, Simulator, start_simulator
from shared.bootstrap import open_gateway
from shared.core.registry import Secret
from shared.gateway import Gateway
from shared.settings import Settings

ADMIN_KEY = "test-admin-key-0123456789"
CATALOG = str(Path(__file__).with_name("catalog.yaml"))


@cache
def functions() -> tuple[list[HttpFunction], list[TimerFunction]]:
    """Return the app's triggers; an app may be asked for them once."""
    from function_app import app  # noqa: PLC0415

    return functions_of(app)


class Server(uvicorn.Server):
    """uvicorn without signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to pytest."""
        yield


@dataclass
class Edge:
    """A running gateway, and how to call it."""

    url: str
    gateway: Gateway
    simulator: Simulator
    mounted: Mounted
    session: aiohttp.ClientSession
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
async def running(settings: Settings = SETTINGS) -> AsyncIterator[Edge]:
    """Run everything until the block is left."""
    async with await start_simulator() as simulator:
        gateway = await open_gateway(replace(settings, upstream=simulator.url), environment={})
        holder.use(gateway)
        mounted = Mounted(functions()[0], max_in_flight=settings.max_in_flight)
        config = uvicorn.Config(mounted, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
        server, listener = Server(config), socket.create_server(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            async with aiohttp.ClientSession() as session:
                yield Edge(url, gateway, simulator, mounted, session)
        finally:
            server.should_exit = True
            await serving
            listener.close()
            holder.use(None)
            await gateway.aclose()
