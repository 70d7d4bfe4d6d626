"""Where a request's CPU goes inside Switchyard: the application, driven in this process, with a provider that answers at once.

    python -m tests.bench.inside [--requests 5000] [--stream] [--top 40]

No sockets and no HTTP client: what is measured is our own code, from the server's call to the last byte handed back, and the
usage written behind it. Prints CPU microseconds per request (of all threads; best of several runs, so that a busy machine does
little harm), then the share of each module and the functions that cost most, by cProfile.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import os
import pstats
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import uvloop

from function_app import app
from functions import gateway as holder
from functions.chat_completions import CHAT
from local.mounting import Mounted, functions_of
from shared import bootstrap, settings
from shared.adapters.providers import providers
from shared.gateway import Gateway
from shared.ports import HttpRequest, HttpResponse
from tests.bench.client import Target
from tests.bench.tables import table
from tests.bench.targets import HERE, KEY, ROOT

ANSWER: Final = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"mock","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"' + b"lorem " * 50 + b'"},"finish_reason":"stop"}],"usage":{"prompt_tokens":24,'
    b'"completion_tokens":75,"total_tokens":99}}'
)
EVENT: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":'
    b'[{"index":0,"delta":{"content":"lorem "},"finish_reason":null}]}\n\n'
)
LAST: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":'
    b'[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":'
    b'1700000000,"model":"mock","choices":[],"usage":{"prompt_tokens":24,"completion_tokens":20,"total_tokens":44}}\n\n'
    b"data: [DONE]\n\n"
)
EVENTS: Final = 20


class Instant:
    """A transport whose provider answers at once."""

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream

    async def send(self, request: HttpRequest, *, connect: float, head: float) -> HttpResponse:
        """Answer."""
        del request, connect, head
        return _Canned(stream=self._stream)

    async def aclose(self) -> None:
        """Close nothing."""


class _Canned:
    status = 200

    def __init__(self, *, stream: bool) -> None:
        kind = "text/event-stream" if stream else "application/json"
        self.headers: Mapping[str, str] = {"content-type": kind, "x-request-id": "req_mock"}

    async def read(self, limit: int) -> bytes:
        del limit
        return ANSWER

    async def chunks(self, idle: float) -> AsyncGenerator[bytes, None]:
        del idle
        for _ in range(EVENTS):
            yield EVENT
        yield LAST

    async def aclose(self) -> None:
        return


class Driver:
    """Calls the application as a server does."""

    def __init__(self, application: Mounted, gateway: Gateway, *, stream: bool) -> None:
        self._application = application
        self._gateway = gateway
        target = Target("inside", "http://127.0.0.1/v1", "mock")
        self._body = target.body(stream=stream)
        self._headers = [
            (b"host", b"127.0.0.1"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self._body)),
            (b"authorization", b"Bearer " + KEY.encode()),
        ]
        self.failed = 0

    async def ask(self) -> None:
        """Send one request through."""
        path = "/v1/chat/completions"
        scope: MutableMapping[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
            "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": self._headers,
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "state": {},
        }  # fmt: skip
        unread = [{"type": "http.request", "body": self._body, "more_body": False}]

        async def receive() -> MutableMapping[str, Any]:
            return unread.pop() if unread else await asyncio.get_running_loop().create_future()

        async def send(message: MutableMapping[str, Any]) -> None:
            self.failed += message.get("status", 200) != 200  # OK

        await self._application(scope, receive, send)

    async def many(self, requests: int, at_once: int = 16) -> tuple[float, float]:
        """Send requests, some at once; return CPU microseconds for each: of all threads, and of the event loop's."""
        left = requests

        async def worker() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await self.ask()
                await asyncio.sleep(0)  # nothing here waits, so the tasks behind the requests would never have their turn

        began, here = time.process_time(), time.thread_time()
        await asyncio.gather(*(worker() for _ in range(at_once)))
        await self._gateway.usage.flush()
        return (time.process_time() - began) / requests * 1e6, (time.thread_time() - here) / requests * 1e6


async def opened(folder: Path, storage: str, *, stream: bool) -> Gateway:
    """Open a gateway with everything on, whose provider answers at once."""
    environment = {
        "SWITCHYARD_CATALOG": str(HERE / "catalog.yaml"),
        "SWITCHYARD_STORAGE": storage.replace("{folder}", str(folder)),
        "SWITCHYARD_ADMIN_KEY": KEY,
        "BENCH_UPSTREAM": "http://127.0.0.1:9/v1",
        "BENCH_UPSTREAM_KEY": "upstream",
    }
    gateway = await bootstrap.open_gateway(settings.load(environment), environment=environment)
    return replace(gateway, providers=providers(Instant(stream=stream), gateway.tokens))


async def measure(options: argparse.Namespace, folder: Path) -> None:
    """Measure and print."""
    gateway = await opened(folder, options.storage, stream=options.stream)
    holder.use(gateway)
    driver = Driver(Mounted(functions_of(app)[0], max_in_flight=10_000), gateway, stream=options.stream)
    await driver.many(500)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    whole, loop = zip(*[await driver.many(options.requests // 10) for _ in range(10)], strict=True)
    kind = f"streamed ({EVENTS} events)" if options.stream else "whole"
    print(
        f"{min(whole):.0f} µs of CPU per {kind} request inside Switchyard, {min(loop):.0f} of them in the event loop's thread"
    )
    print(f"{checked() * 1e6:.0f} µs of them check a small chat's body (25 is the budget)")
    profile = cProfile.Profile()
    profile.enable()
    await driver.many(options.requests // 5)
    profile.disable()
    if driver.failed:
        print(f"{driver.failed} requests were not answered with 200", file=sys.stderr)
    show(pstats.Stats(profile), options.requests // 5, options.top)
    holder.use(None)
    await gateway.aclose()


def checked() -> float:
    """Return the seconds that one check of a small chat's body takes: the best of many, which is what the code costs."""
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]
    body = {"model": "auto", "messages": turns, "temperature": 0.5}
    best = 1.0
    for _ in range(2000):
        began = time.perf_counter()
        CHAT.check(body)
        best = min(best, time.perf_counter() - began)
    return best


def show(stats: pstats.Stats, requests: int, top: int) -> None:
    """Print where the time went: by module, then by function."""
    entries: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = stats.stats  # type: ignore[attr-defined]
    total = sum(entry[2] for entry in entries.values())
    modules: Counter[str] = Counter()
    for (file, _, _), entry in entries.items():
        modules[short(file)] += entry[2]  # type: ignore[assignment]  # seconds
    rows = [[name, f"{seconds / total:.1%}"] for name, seconds in modules.most_common(25)]
    table("By module (own time)", ["module", "share"], rows)
    ordered = sorted(entries.items(), key=lambda item: item[1][3], reverse=True)[:top]
    table(
        "By function (with all it calls)",
        ["function", "share", "own", "calls per request"],
        [
            [f"{short(file)}:{line} {name}", f"{entry[3] / total:.1%}", f"{entry[2] / total:.1%}", f"{entry[1] / requests:.1f}"]
            for (file, line, name), entry in ordered
        ],
    )


def short(file: str) -> str:
    """Return a file's name without the folders before the project or the library."""
    name = file.removeprefix(f"{ROOT}{os.sep}")
    return name.rsplit("site-packages/", 1)[-1].rsplit("/lib/python3.11/", 1)[-1]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--storage", default="sqlite:{folder}/state.db", help="such as memory:")
    parser.add_argument("--top", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="switchyard-inside-") as folder:
        uvloop.run(measure(options, Path(folder)))


if __name__ == "__main__":
    main()
