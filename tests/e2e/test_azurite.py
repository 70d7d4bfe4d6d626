"""The whole product over Table Storage, as its emulator keeps it: hosts as users start them, one store, nothing else shared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from functions.periods import DAY, iso
from local.simulator import Simulator, start_simulator
from shared.bootstrap import open_gateway
from shared.gateway import Gateway
from tests.azurite.process import Azurite
from tests.e2e.harness import Host, hosting
from tests.faults.money import books
from tests.functions.harness import CATALOG, SETTINGS

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
DOCUMENT = {
    "capabilities": ["chat"],
    "tasks": ["conversation"],
    "context_window": 16_000,
    "max_output_tokens": 4_000,
    "quality": 0.5,
    "deployments": [
        {
            "provider": "north",
            "prices": [{"from": "2026-01-01", "input": 1, "output": 2, "source": "t", "read_on": "2026-01-01"}],
        }
    ],
}
SAID = {
    "a key": 2.0,
    "a revoked key": 2.0,
    "a budget": 5.0,
    "a project's limit": 5.0,
    "a registered model": 2.0,
    "an open breaker": 2.0,
}
"""Seconds within which the gateway says that another instance knows."""
SLACK = 6.0
"""What a busy machine may take besides."""


@dataclass
class User:
    """Somebody with a key, at one host."""

    host: Host
    headers: dict[str, str]

    async def ask(self, method: str, path: str, json: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers, their names in lower case."""
        sent = self.headers | headers
        async with self.host.session.request(method, self.host.url + path, json=json, headers=sent) as response:
            body = await response.read()
            return response.status, body, {name.lower(): value for name, value in response.headers.items()}

    async def chat(self, **fields: Any) -> int:
        """Chat; return the status."""
        return (await self.ask("POST", CHAT, HELLO | fields))[0]

    def at(self, host: Host) -> User:
        """Return the same user at another host."""
        return replace(self, host=host)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """Return the providers."""
    async with await start_simulator() as running:
        yield running


@pytest.fixture
def store(azurite: Azurite) -> Azurite:
    """Return the emulator, empty."""
    azurite.clear()
    return azurite


@asynccontextmanager
async def at_host(folder: Path, store: Azurite, simulator: Simulator) -> AsyncIterator[Host]:
    """Run a host over the store."""
    settings = {"SWITCHYARD_CATALOG": CATALOG, "SWITCHYARD_UPSTREAM": simulator.url, "SWITCHYARD_STORAGE": store.setting}
    async with hosting(folder, **settings) as host:
        yield host


@asynccontextmanager
async def beside(store: Azurite, simulator: Simulator) -> AsyncIterator[Gateway]:
    """Return another instance over the store, in this process, to run timers' work at a time of one's choice."""
    gateway = await open_gateway(replace(SETTINGS, storage=store.setting, upstream=simulator.url), environment={})
    try:
        yield gateway
    finally:
        await gateway.aclose()


async def made(host: Host, path: str, body: dict[str, Any], method: str = "POST") -> Any:
    """Make something as the administrator; return what it is."""
    status, found = await host.call(method, path, body)
    assert status in {200, 201}, found
    return found


async def user(host: Host, project: str, **fields: Any) -> User:
    """Return somebody with a new key."""
    key = await made(host, "/v1/keys", {"name": "k", "project": project, **fields})
    return User(host, {"authorization": f"Bearer {key['key']}", "x-key-id": key["id"]})


async def within(what: str, holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds, for as long as the gateway says it may take, and some for the machine."""
    began = time.monotonic()
    while not await holds():
        assert time.monotonic() - began < SAID[what] + SLACK, what
        await asyncio.sleep(0.1)


async def test_every_surface(tmp_path: Path, store: Azurite, simulator: Simulator) -> None:
    """What a user can do works, and what was done is in the reports, to the nano-dollar, before and after it is rolled up."""
    async with at_host(tmp_path, store, simulator) as host:
        shop = await user(host, "shop", tags={"cost_center": "42 ü"}, requests_per_minute=100_000)
        budget = {"name": "b", "id": "b", "scope": {"kind": "project", "name": "shop"}, "limit_usd": "0.1", "cycle": "day"}
        await made(host, "/v1/budgets", {**budget, "hard": True, "thresholds": [0.0001]})
        await _asks_everything(shop)

        usage = (await host.call("GET", "/v1/usage?group_by=model"))[1]
        cost = round(sum(row["cost_usd"] for row in usage["data"]) * 1e9)
        assert {"small": 5, "vectors": 1} == {row["model"]: row["requests"] for row in usage["data"]}
        tagged = (await shop.ask("GET", "/v1/usage?group_by=tag:cost_center", accept="text/csv"))[1].decode()
        assert "42 ü" in tagged.splitlines()[1]
        metrics = (await host.call("GET", "/v1/metrics"))[1]
        assert 6 == metrics["requests"]
        assert "healthy" == (await host.call("GET", "/v1/health"))[1]["status"]

        async with beside(store, simulator) as other:
            tomorrow = time.time() + DAY
            await other.alerts.check()
            await other.idempotency.prune()
            await other.ledger.prune(iso(time.time())[:10])
            assert (await other.usage.roll_up(tomorrow)).slots
        assert usage["data"] == (await host.call("GET", "/v1/usage?group_by=model"))[1]["data"]
        assert 1 == len((await host.call("GET", "/v1/metrics"))[1]["alerts"])
        assert 0 == await host.stop()
    async with at_host(tmp_path, store, simulator) as host:
        found = (await host.call("GET", "/v1/budgets/b"))[1]
        assert (cost, 0) == (round(float(found["spent_usd"]) * 1e9), float(found["held_usd"]))


async def _asks_everything(shop: User) -> None:
    """Ask for each kind of answer, twice with one Idempotency-Key; judge one of them, and look it up."""
    status, body, headers = await shop.ask("POST", CHAT, HELLO)
    assert (200, True) == (status, b"chat.completion" in body)
    assert "99999" == headers["x-ratelimit-remaining-requests"]
    request = headers["x-request-id"]

    status, body, _ = await shop.ask("POST", CHAT, {**HELLO, "stream": True})
    assert (200, True) == (status, body.endswith(b"data: [DONE]\n\n"))
    assert 200 == (await shop.ask("POST", "/v1/completions", {"model": "small", "prompt": "Hello", "max_tokens": 50}))[0]
    assert 200 == (await shop.ask("POST", "/v1/embeddings", {"model": "vectors", "input": ["Hello", "there"]}))[0]
    long = {**HELLO, "max_tokens": 2_000, "messages": [{"role": "user", "content": "é" * 2_000}]}
    first, again = [await shop.ask("POST", CHAT, long, **{"idempotency-key": "once"}) for _ in range(2)]
    assert (200, first[1]) == (again[0], again[1])
    assert 200 == (await shop.ask("POST", CHAT, HELLO, **{"idempotency-key": "x" * 255}))[0]

    assert 200 == (await shop.ask("POST", "/v1/feedback", {"request_id": request, "rating": 5, "feedback": "gut 👍"}))[0]
    status, body, _ = await shop.ask("GET", f"/v1/requests/{request}")
    assert (200, True) == (status, b'"succeeded"' in body)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Return a folder for each of two hosts."""
    found = [tmp_path / name for name in "ab"]
    for folder in found:
        folder.mkdir()
    return found


async def test_two_hosts_know_of_each_other(folders: list[Path], store: Azurite, simulator: Simulator) -> None:
    """What happens at one is in force at the other within what is said: keys, budgets, limits, models, breakers."""
    async with (
        at_host(folders[0], store, simulator) as one,
        at_host(folders[1], store, simulator) as two,
    ):
        held, limited, plain = [await user(one, name) for name in ("held", "limited", "plain")]
        for each in (held, limited, plain):
            assert 200 == await each.at(two).chat()
        at_two = plain.at(two)

        budget = {"name": "b", "scope": {"kind": "project", "name": "held"}, "limit_usd": "0.000000001", "cycle": "total"}
        await made(one, "/v1/budgets", {**budget, "hard": True})
        await made(one, "/v1/projects/limited", {"requests_per_minute": 1}, "PUT")
        await made(one, "/v1/models/org/new", DOCUMENT)

        async def refused(who: User, status: int) -> bool:
            return await who.at(two).chat() == status

        async def served() -> bool:
            return await at_two.chat(model="org/new") == 200

        await asyncio.gather(
            within("a budget", lambda: refused(held, 429)),
            within("a project's limit", lambda: refused(limited, 429)),
            within("a registered model", served),
        )
        await made(one, f"/v1/keys/{plain.headers['x-key-id']}", {}, "DELETE")
        await within("a revoked key", lambda: refused(plain, 401))
        assert 401 == await plain.chat()

        await _breaker(one, two, simulator)


async def _breaker(one: Host, two: Host, simulator: Simulator) -> None:
    """Let a deployment fail at one host; the other must leave it alone without having failed itself."""
    at_one = await user(one, "asks")
    at_two = at_one.at(two)
    assert 200 == await at_two.chat(model="big")
    simulator.script({"profile": "south", "faults": [{"kind": "server_error", "times": 50}]})
    for _ in range(6):
        await at_one.chat(model="big")

    async def knows() -> bool:
        await at_two.chat()
        breakers = (await two.call("GET", "/v1/health"))[1]["models"]["big"]["breakers"]
        return any(state != "closed" for state in breakers.values())

    await within("an open breaker", knows)


async def test_one_budget_at_two_hosts_is_never_exceeded(folders: list[Path], store: Azurite, simulator: Simulator) -> None:
    """Asked by both at once until nothing is left: what was answered costs no more than the limit, and most of it is used."""
    limit = 5_000_000  # nano-USD: some fifty answers
    async with (
        at_host(folders[0], store, simulator) as one,
        at_host(folders[1], store, simulator) as two,
    ):
        scope = {"kind": "project", "name": "shop"}
        fields = {"limit_usd": f"{limit / 1e9:.9f}", "cycle": "total", "hard": True, "id": "b"}
        await made(one, "/v1/budgets", {"name": "b", "scope": scope, **fields})
        first = await user(one, "shop")
        billed = 0

        async def spend(who: User) -> None:
            nonlocal billed
            status = 200
            while status == 200:
                status, _, headers = await who.ask("POST", CHAT, HELLO)
                assert status in {200, 429}
                billed += round(float(headers.get("x-switchyard-cost-usd", 0)) * 1e9)

        await asyncio.gather(*(spend(who) for who in [first] * 6 + [first.at(two)] * 6))
        for host in (one, two):
            assert 0 == await host.stop()
    async with beside(store, simulator) as gateway:
        found = await books(gateway.tables, "b")
        assert (billed, 0) == (found.spent, found.held)
        assert 0.8 * limit < found.spent <= limit
