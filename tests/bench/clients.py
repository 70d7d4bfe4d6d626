"""What one upstream call costs in a Python process, by HTTP client, and whether cancelling it closes the provider's socket.

    python -m tests.bench.clients [--at 1,16,64,256] [CLIENT...]

Prints CPU microseconds per request and requests per second: the figures of docs/decisions/0001-http-transport.md. Clients that
are not installed are left out and named; to compare all: pip install httpx-aiohttp pyreqwest. The body is sent ready-made and
the answer read but not parsed, so that this is the client alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import uvloop

from shared.adapters.transport import open_transport
from shared.ports import HttpRequest
from tests.bench.client import Target
from tests.bench.tables import median, number, table
from tests.bench.upstream import upstream

Call = Callable[[str], Awaitable[None]]
BODY = b'{"model":"mock","messages":[{"role":"user","content":"hello there"}]}'
HEADERS = {"authorization": "Bearer key", "content-type": "application/json"}


def switchyard() -> Call:
    """Return our transport, on aiohttp's connections, with its deadlines, error table and cap."""
    transport = open_transport(trust_env=False)

    async def call(url: str) -> None:
        response = await transport.send(HttpRequest("POST", url, HEADERS, BODY), connect=5, head=60)
        await response.read(1 << 20)

    return call


def _aiohttp() -> Call:
    aiohttp: Any = importlib.import_module("aiohttp")
    sessions: list[Any] = []

    async def call(url: str) -> None:
        if not sessions:
            connector = aiohttp.TCPConnector(limit=0)
            sessions.append(aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)))
        async with sessions[0].post(url, data=BODY, headers=HEADERS) as response:
            await response.read()

    return call


def _httpx(*, beneath: str = "") -> Call:
    httpx: Any = importlib.import_module("httpx")
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    chosen = {"transport": importlib.import_module(beneath).AiohttpTransport(limits=limits)} if beneath else {"limits": limits}
    client = httpx.AsyncClient(timeout=60, trust_env=False, **chosen)

    async def call(url: str) -> None:
        await client.post(url, content=BODY, headers=HEADERS)

    return call


def _httpx_aiohttp() -> Call:
    return _httpx(beneath="httpx_aiohttp")


def _pyreqwest() -> Call:
    builder: Any = importlib.import_module("pyreqwest.client").ClientBuilder
    client = builder().timeout(timedelta(seconds=60)).build()

    async def call(url: str) -> None:
        response = await client.post(url).headers(HEADERS).body_bytes(BODY).build().send()
        await response.bytes()

    return call


def _raw() -> Call:
    targets: list[Target] = []

    async def call(url: str) -> None:
        if not targets:
            targets.append(Target("raw", url.removesuffix("/chat/completions"), "mock", {"authorization": "Bearer key"}))
        await targets[0].ask(targets[0].request(BODY))

    return call


BARE: Final = "no client: a bare protocol"
CLIENTS: dict[str, Callable[[], Call]] = {
    "switchyard": switchyard,
    "aiohttp as it comes": _aiohttp,
    "pyreqwest": _pyreqwest,
    "httpx-aiohttp": _httpx_aiohttp,
    "httpx": _httpx,
    BARE: _raw,
}
SLOW_ABOVE = 64
"""httpx's pool is searched through for every request: above this it would keep the run for minutes."""


async def measure(call: Call, url: str, at: int, requests: int) -> tuple[float, float]:
    """Return CPU microseconds per request and requests per second."""
    left = requests

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call(url)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(at)))
    return (time.process_time() - cpu) / requests * 1e6, requests / (time.perf_counter() - wall)


async def closes_when_cancelled(call: Call) -> str:
    """Return how long after its task was cancelled the provider sees the connection closed."""
    asked, closed = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        closed.set()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    task = asyncio.ensure_future(call(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat/completions"))
    await asked.wait()
    task.cancel()
    began = time.perf_counter()
    await asyncio.gather(task, return_exceptions=True)
    try:
        await asyncio.wait_for(closed.wait(), 3)
    except TimeoutError:
        return "not within 3 s"
    finally:
        server.close()
    return f"after {(time.perf_counter() - began) * 1000:.1f} ms"


async def run(names: list[str], levels: list[int], rounds: int, url: str) -> None:
    """Measure in turns, so that a busy machine disturbs each client alike, and print."""
    calls: dict[str, dict[int, Call]] = {}
    for name in names:
        try:
            calls[name] = {at: CLIENTS[name]() for at in levels}
        except ImportError as error:
            print(f"left out: {name}: {error}")
    costs: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for turn in range(rounds + 1):
        for name, by_level in calls.items():
            for at, call in by_level.items():
                if name == "httpx" and at > SLOW_ABOVE:
                    continue
                result = await measure(call, url, at, max(1000, at * 3))
                if turn:
                    costs.setdefault((name, at), []).append(result)
    rows = []
    for name in calls:
        cells = [costs.get((name, at), []) for at in levels]
        shown = [
            f"{number(min(c for c, _ in cell))} [{number(median([r for _, r in cell]))}]" if cell else "-" for cell in cells
        ]
        closes = "" if name == BARE else await closes_when_cancelled(CLIENTS[name]())
        rows.append([name, *shown, closes])
    table(
        "CPU microseconds per request, best of rounds [requests/s, median]",
        ["client", *(f"{at} at once" for at in levels), "cancelled: socket closed"],
        rows,
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", default="1,16,64,256", help="how many requests at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gc", type=int, default=0, help="objects between garbage collections (0: Python's own, 700)")
    parser.add_argument("clients", nargs="*", choices=[*CLIENTS, []])
    options = parser.parse_args()
    if options.gc:
        gc.freeze()
        gc.set_threshold(options.gc, 20, 50)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # clients are left open, and would complain
    levels = [int(at) for at in options.at.split(",")]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, garbage collection every {gc.get_threshold()[0]} objects")
    with upstream() as server:
        uvloop.run(run(options.clients or list(CLIENTS), levels, options.rounds, f"{server.url}/chat/completions"))


if __name__ == "__main__":
    main()
