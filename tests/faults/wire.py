"""A wire between the gateway and the emulator, on which requests meet with what a test has in mind for them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum, auto

import aiohttp
from aiohttp import web
from yarl import URL

from tests.azurite.process import ACCOUNT, Azurite

_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection"})


class Fate(StrEnum):
    """What becomes of a request to the store."""

    PASS = auto()
    BUSY = auto()  # 503 ServerBusy: it has done nothing
    BROKEN = auto()  # 500: nobody knows
    DROP = auto()  # never arrives, and the connection is lost
    LOSE = auto()  # is done, and the answer is lost


@dataclass(frozen=True)
class Asked:
    """A request to the store."""

    method: str
    path: str
    body: bytes

    @property
    def writes(self) -> bool:
        """Say whether it changes anything."""
        return self.method != "GET"

    def writes_to(self, partition: bytes) -> bool:
        """Say whether it is a transaction on partitions that begin so, such as ``s~`` and ``b~`` of the ledger."""
        return self.path.endswith("$batch") and b"ledger" in self.body and b'"PartitionKey":"' + partition in self.body


Judge = Callable[[Asked], Fate]
Meddle = Callable[[Asked], Awaitable[None]]


class Wire:
    """Passes requests on as ``judge`` says, after ``meddle`` has done what it will; remembers what was answered."""

    def __init__(self, target: Azurite, session: aiohttp.ClientSession) -> None:
        self._target = target.url.removesuffix(f"/{ACCOUNT}")
        self._session = session
        self.judge: Judge = lambda _asked: Fate.PASS
        self.meddle: Meddle | None = None
        self.setting = ""
        self.met: list[Fate] = []
        """What requests met with that did not simply pass."""
        self.answers: list[bytes] = []

    def conflicts(self, status: int) -> int:
        """Count the answers that say 409 or 412, inside transactions too."""
        return sum(f"HTTP/1.1 {status}".encode() in answer for answer in self.answers)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request."""
        asked = Asked(request.method, request.path, await request.read())
        fate = self.judge(asked)
        if fate is not Fate.PASS:
            self.met.append(fate)
        if fate in {Fate.BUSY, Fate.BROKEN}:
            code, status = ("ServerBusy", 503) if fate is Fate.BUSY else ("InternalError", 500)
            return web.json_response({"odata.error": {"code": code, "message": {"value": code}}}, status=status)
        if fate is not Fate.DROP:
            if self.meddle is not None:
                await self.meddle(asked)
            headers = {name: value for name, value in request.headers.items() if name.lower() not in _OURS}
            url = URL(self._target + request.raw_path, encoded=True)
            async with self._session.request(asked.method, url, data=asked.body, headers=headers) as response:
                body = await response.read()
            self.answers.append(f"HTTP/1.1 {response.status}\r\n".encode() + body)
        if fate in {Fate.DROP, Fate.LOSE}:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        kept = {name: value for name, value in response.headers.items() if name.lower() not in _OURS}
        return web.Response(status=response.status, body=body, headers=kept)


@contextlib.asynccontextmanager
async def wired(target: Azurite) -> AsyncIterator[Wire]:
    """Put a wire before the emulator until the block is left."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        wire = Wire(target, session)
        runner = web.ServerRunner(web.Server(wire.handle, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        wire.setting = f"azurite:http://127.0.0.1:{runner.addresses[0][1]}/{ACCOUNT}"
        try:
            yield wire
        finally:
            await runner.cleanup()


def first(fate: Fate, when: Callable[[Asked], bool], *, times: int = 1) -> Judge:
    """Let the first requests of a kind meet with a fate, and all others pass."""
    left = times

    def judge(asked: Asked) -> Fate:
        nonlocal left
        if left and when(asked):
            left -= 1
            return fate
        return Fate.PASS

    return judge
