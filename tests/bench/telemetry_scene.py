"""The scene of a telemetry run: a gateway that tells a loopback Application Insights, providers that fail by script, callers.

What callers were told, what providers received, what the gateway wrote down and what its budgets say is kept in `Books`: the
truth that queries over the telemetry are held to.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp

from local.simulator import Attempt, Simulator, start_simulator
from shared import gauges
from shared.adapters.tables import open_tables
from shared.adapters.telemetry.pipeline import Pace, Pipeline
from shared.core import semconv
from shared.core.health import BreakerState
from shared.core.records import RequestRecord
from shared.core.registry import Secret
from shared.core.semconv import Instrument
from shared.core.telemetry import Destination, TelemetryOptions
from shared.settings import Settings
from shared.usage import rows as usage_rows
from tests.bench.process import Process, free_port
from tests.bench.spend import requests_in
from tests.bench.targets import KEY, switchyard
from tests.functions.harness import running
from tests.telemetry.ingestion import Envelope, Ingestion

CATALOG: Final = Path(__file__).with_name("telemetry.yaml")
AT_ONCE: Final = 16
LOOK_SECONDS: Final = 0.1
SETTLED_SECONDS: Final = 300.0
EXPORT_SECONDS: Final = 0.5
PATIENCE: Final = 90.0
PACE: Final = Pace(first=0.2, look=0.2, send=0.5)
"""Of telling, in this process: what a test need not wait for."""
PAUSE: Final = 0.1
"""Seconds between requests while providers are down."""
REFUSED: Final = 8
BACKGROUND: Final = 4
BACKGROUND_MS: Final = 1_500
"""How long what is done in the background takes: long enough to be told of."""
TINY: Final = "tiny"
MODELS: Final = ("main", "main", "spare", "main", "claude", "main", "vectors", "main", "spare", "main")
FAULTS: Final[Mapping[str, Sequence[dict[str, Any] | None]]] = {
    "east": (None, None, {"kind": "rate_limited_s", "retry_after_s": 0.1}, None, None, {"kind": "server_error"}, None, None),
    "west": (None, None, None, {"kind": "hang_before_headers"}, None, {"kind": "overloaded", "retry_after_s": 0.1}, None),
    "reserve": (None, None, None, None, {"kind": "server_error"}, None, {"kind": "invalid_request"}),
    "last": (None, None, {"kind": "cut_mid_stream"}, None, {"kind": "content_filter"}),
}
"""What each provider's attempts meet, in turn."""
DOWN: Final = ("east", "last")
"""Providers that are down for a while: one of a model's two regions, and all that another model has."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway: where it is, its administrator's key, and how it is made to tell how its budgets stand.

    ``tell`` returns once heads count all that is settled, and budgets are told as they are then.
    """

    url: str
    admin: str
    simulator: Simulator
    session: aiohttp.ClientSession
    tell: Callable[[], Awaitable[None]]
    told: Callable[[], Iterable[Envelope]]
    """What has come to the ingestion endpoint."""
    tell_now: Callable[[], Awaitable[None]] | None = None
    """Has it tell how budgets and queues stand at this moment, where that is possible."""

    async def call(self, method: str, path: str, body: Any = None, *, key: str = "", **headers: str) -> tuple[int, Any]:
        """Return status and JSON; of a stream, its text."""
        sent = {"authorization": f"Bearer {key or self.admin}", **headers}
        async with self.session.request(method, self.url + path, json=body, headers=sent) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.startswith(("{", "[")) else text


@dataclass(slots=True)
class Books:
    """What is true of a run. Money is nano-USD; ``keys`` are the ids of the keys by project."""

    began: datetime
    ended: datetime
    half: datetime
    """A moment between two requests, about half way."""
    statuses: Counter[int] = field(default_factory=Counter)
    keys: dict[str, list[str]] = field(default_factory=dict)
    records: list[RequestRecord] = field(default_factory=list)
    usage: list[dict[str, Any]] = field(default_factory=list)
    """``GET /v1/usage`` by project, key, model and deployment."""
    total: dict[str, Any] = field(default_factory=dict)
    budgets: dict[str, dict[str, Any]] = field(default_factory=dict)
    received: list[Attempt] = field(default_factory=list)
    open_seen: dict[str, list[datetime]] = field(default_factory=dict)
    """Deployment → when the gateway said that its breaker was open."""


# ---- gateways ------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def in_process(folder: Path, ingestion: Ingestion) -> AsyncIterator[Gateway]:
    """Run the whole edge in this process; what it tells has been told when the block is left."""
    telemetry = TelemetryOptions(
        Destination.AZURE_MONITOR, connection_string=Secret(ingestion.connection_string), metric_interval=EXPORT_SECONDS
    )
    settings = Settings(
        catalog=str(CATALOG), storage=f"sqlite:{folder}/state.db", admin_key=Secret(KEY), port=0, telemetry=telemetry
    )
    async with running(settings) as edge:
        assert isinstance(edge.gateway.telemetry, Pipeline)
        edge.gateway.telemetry._pace = PACE

        async def tell_now() -> None:
            edge.gateway.chains._queue = None  # what it counted some seconds ago
            await gauges.tell(edge.gateway)

        async def tell() -> None:
            await edge.gateway.ledger.flush()
            await tell_now()

        yield Gateway(edge.url, KEY, edge.simulator, edge.session, tell, partial(ingestion.of, "MetricData"), tell_now)


@contextlib.asynccontextmanager
async def as_process(folder: Path, ingestion: Ingestion) -> AsyncIterator[Gateway]:
    """Run ``python -m local.host`` as a user would; it is told to end, and has, when the block is left."""
    async with await start_simulator() as simulator, aiohttp.ClientSession() as session:
        settings = {
            "SWITCHYARD_UPSTREAM": simulator.url,
            "SWITCHYARD_STORAGE": f"sqlite:{folder}/state.db",
            "APPLICATIONINSIGHTS_CONNECTION_STRING": ingestion.connection_string,
            "OTEL_METRIC_EXPORT_INTERVAL": str(round(EXPORT_SECONDS * 1000)),
        }
        recipe = switchyard("", CATALOG, **settings)
        port = free_port()
        process = Process("host", recipe.command(port, folder), folder=folder, env=recipe.env | {"PORT": str(port)})
        try:
            await asyncio.to_thread(process.until_listening, port)
            told = partial(ingestion.of, "MetricData")
            yield Gateway(f"http://127.0.0.1:{port}", KEY, simulator, session, _next_minute, told)
        finally:
            await asyncio.to_thread(process.stop, 60)


async def _next_minute() -> None:
    """Wait until the timer that tells how budgets stand has run, twice: it does so every minute, and heads count in between."""
    await asyncio.sleep((55 - datetime.now(UTC).second) % 60 + 60)


# ---- what happens --------------------------------------------------------------------------------------------------------


async def play(gateway: Gateway, count: int) -> Books:
    """Make that many requests, of every kind, more while providers are down; return what is true, but for records."""
    now = datetime.now(UTC)
    books = Books(now, now, now)
    keys = await _set_up(gateway, books)
    looking = asyncio.create_task(_look(gateway, books))
    ordinary = count - REFUSED - BACKGROUND
    try:
        await _ordinary(gateway, books, keys, range(ordinary // 2))
        await asyncio.sleep(0.05)
        books.half = datetime.now(UTC)
        await _ordinary(gateway, books, keys, range(ordinary // 2, ordinary))
        await _providers_down(gateway, books, keys["alpha"][0])
        await _over_budget(gateway, books, keys[TINY][0])
        await _in_background(gateway, books, keys["beta"][0])
        await _close(gateway, books)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    return books


async def _set_up(gateway: Gateway, books: Books) -> dict[str, list[str]]:
    """Make the budgets and keys; return the keys' tokens by project."""
    for name, scope, limit, cycle, hard in (
        ("everything", {"kind": "organization"}, "5", "month", True),
        ("alpha-daily", {"kind": "project", "name": "alpha"}, "0.0001", "day", False),
        ("tiny-ever", {"kind": "project", "name": TINY}, "0.000000050", "total", True),
    ):
        body = {"id": name, "name": name, "scope": scope, "limit_usd": limit, "cycle": cycle, "hard": hard}
        body |= {"time_zone": "Asia/Tokyo"} if cycle == "day" else {}
        assert (await gateway.call("POST", "/v1/budgets", body))[0] == 201
    tokens: dict[str, list[str]] = {}
    for project in ("alpha", "alpha", "beta", TINY):
        status, made = await gateway.call("POST", "/v1/keys", {"name": "caller", "project": project})
        assert status == 201, made
        tokens.setdefault(project, []).append(made["key"])
        books.keys.setdefault(project, []).append(made["id"])
    return tokens


def _body(number: int, model: str, *, stream: bool) -> dict[str, Any]:
    if model == "vectors":
        return {"model": model, "input": f"Question {number}"}
    body = {"model": model, "messages": [{"role": "user", "content": f"Question {number}"}], "max_tokens": 64}
    return body | {"stream": True} if stream else body


async def _ask(gateway: Gateway, books: Books, number: int, *, model: str, key: str) -> None:
    stream = number % 3 == 0 and model != "vectors"
    path = "/v1/embeddings" if model == "vectors" else "/v1/chat/completions"
    status, _ = await gateway.call("POST", path, _body(number, model, stream=stream), key=key)
    books.statuses[status] += 1


async def _ordinary(gateway: Gateway, books: Books, keys: Mapping[str, list[str]], numbers: range) -> None:
    """Requests of several projects, keys and models while a region fails now and then."""
    for profile, faults in FAULTS.items():
        queue = list(itertools.islice(itertools.cycle(faults), 2 * len(numbers)))
        gateway.simulator.script({"profile": profile, "faults": queue, "latency_ms": 5, "jitter_ms": 5, "words": 12})
    callers = [*keys["alpha"], *keys["beta"]]
    left: Iterator[int] = iter(numbers)

    async def caller() -> None:
        for number in left:
            await _ask(gateway, books, number, model=MODELS[number % len(MODELS)], key=callers[number % len(callers)])

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))


async def _providers_down(gateway: Gateway, books: Books, key: str) -> None:
    """Let providers answer nothing until telemetry says that their breakers are open, then let them answer."""
    for profile in FAULTS:
        gateway.simulator.script({"profile": profile, "faults": ["server_error"] * 10_000 if profile in DOWN else []})
    numbers = itertools.count()
    async with asyncio.timeout(PATIENCE):
        while not set(DOWN) <= {name.partition("/")[0] for name in _told_open(gateway)}:
            await _ask(gateway, books, next(numbers), model="main", key=key)
            await _ask(gateway, books, next(numbers), model="claude", key=key)
            await asyncio.sleep(PAUSE)
    for profile in DOWN:
        gateway.simulator.script({"profile": profile, "faults": []})


def _told_open(gateway: Gateway) -> set[str]:
    opened = gauges.BREAKER_VALUES[BreakerState.OPEN]
    return {properties[semconv.DEPLOYMENT] for properties, value in _told(gateway, semconv.BREAKER) if value == opened}


def _told(gateway: Gateway, instrument: Instrument) -> list[tuple[Mapping[str, str], float]]:
    """Return the properties and values of a gauge that have come to the ingestion endpoint."""
    every = [envelope["data"]["baseData"] for envelope in gateway.told()]
    return [
        (data["properties"], data["metrics"][0]["value"]) for data in every if data["metrics"][0]["name"] == instrument.name
    ]


async def _over_budget(gateway: Gateway, books: Books, key: str) -> None:
    """Requests that a hard budget does not cover."""
    for number in range(REFUSED):
        await _ask(gateway, books, number, model="claude", key=key)


async def _in_background(gateway: Gateway, books: Books, key: str) -> None:
    """Requests that nobody waits for; while they are under way, that is told."""
    gateway.simulator.script({"profile": "reserve", "latency_ms": BACKGROUND_MS})
    begun = []
    for number in range(BACKGROUND):
        body = _body(number, "spare", stream=False)
        status, made = await gateway.call("POST", "/v1/chat/completions", body, key=key, prefer="respond-async")
        assert status == 202, made
        begun.append(made["id"])
    if gateway.tell_now is not None:
        await gateway.tell_now()
    async with asyncio.timeout(PATIENCE):
        while gateway.tell_now is not None and not any(value for _, value in _told(gateway, semconv.QUEUE_DEPTH)):
            await asyncio.sleep(LOOK_SECONDS)
        for chain in begun:
            while (answer := await gateway.call("GET", f"/v1/chains/{chain}", key=key))[0] == 202:
                await asyncio.sleep(LOOK_SECONDS)
            books.statuses[answer[0]] += 1


async def _look(gateway: Gateway, books: Books) -> None:
    """Note when a breaker is open, as administrators see it."""
    while True:
        _, metrics = await gateway.call("GET", "/v1/metrics")
        for name, breaker in metrics["breakers"].items():
            if breaker["state"] == "open":
                books.open_seen.setdefault(name, []).append(datetime.now(UTC))
        await asyncio.sleep(LOOK_SECONDS)


async def _close(gateway: Gateway, books: Books) -> None:
    """Wait until all is written down and the budgets have been told; note what usage and budgets say."""
    async with asyncio.timeout(SETTLED_SECONDS):
        while not books.budgets or any(budget["held_nano_usd"] for budget in books.budgets.values()):
            await gateway.tell()  # again while a call that has its answer is still being settled
            books.budgets = await _budgets(gateway)
    await gateway.tell()
    _, usage = await gateway.call("GET", "/v1/usage?group_by=project,key,model,deployment")
    books.usage, books.total = usage["data"], usage["total"]
    books.received = gateway.simulator.log()


async def _budgets(gateway: Gateway) -> dict[str, dict[str, Any]]:
    _, found = await gateway.call("GET", "/v1/budgets")
    return {budget["id"]: budget for budget in found["data"]}


async def records(folder: Path) -> list[RequestRecord]:
    """Return what the gateway wrote down, once it has ended."""
    tables = open_tables(f"sqlite:{folder}/state.db")
    try:
        return [usage_rows.stored_request(document).record async for document in requests_in(tables)]
    finally:
        await tables.aclose()
