"""Faults of answers and clients under a hard budget: usage that is missing or too high, disconnects, replays (22, 36, 37)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from functions import gateway as holder
from shared.bootstrap import open_gateway
from shared.core.records import SUCCEEDED
from shared.ledger import IntentState
from tests.faults.money import CHAT, INPUT, MAX_TOKENS, OUTPUT, PAYING, ask, budget, chat, settled
from tests.functions.harness import CATALOG, SETTINGS, Edge

CATALOG_TEXT = Path(CATALOG).read_text()
DEAR = {"prompt_tokens": 10, "completion_tokens": 5_000, "total_tokens": 5_010}


@asynccontextmanager
async def a_provider_that_bills(usage: dict[str, int]) -> AsyncIterator[str]:
    """Serve one answer, with this usage, to whatever is asked."""

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
        body = {"id": "x", "object": "chat.completion", "created": 1, "model": "small", "choices": [choice], "usage": usage}
        return web.json_response(body)

    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await runner.cleanup()


async def test_22_usage_above_the_estimate_is_charged_in_full_and_told(
    edge: Edge, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The provider is believed, the books say so, the log and the metrics raise the alarm, and the next call is refused."""
    async with a_provider_that_bills(DEAR) as url:
        catalog = tmp_path / "models.yaml"
        catalog.write_text(CATALOG_TEXT.replace("http://north.invalid/v1", url))
        honest = await open_gateway(replace(SETTINGS, catalog=str(catalog), storage=f"sqlite:{tmp_path}/s.db"), environment={})
        there = replace(edge, gateway=honest)
        holder.use(honest)
        try:
            name = await budget(there, "0.01")
            key = await there.key(PAYING)
            reply = await ask(there, key)
            found = await settled(there, name)

            cost = 10 * INPUT + 5_000 * OUTPUT
            assert (200, [cost], cost) == (reply.status, found.charges, found.spent)
            assert cost > 0.01 * 1e9
            assert "overrun" in caplog.text
            assert 1 == (await there.get("/v1/metrics")).json["ledger"]["overruns"]
            assert 429 == (await ask(there, key)).status
        finally:
            holder.use(edge.gateway)
            await honest.aclose()


@pytest.mark.parametrize("stream", [False, True])
async def test_22_a_missing_usage_is_charged_its_bound_and_flagged(edge: Edge, stream: bool) -> None:  # noqa: FBT001
    """Nobody knows what it cost: what was held is charged, and the usage is marked as not exact."""
    name = await budget(edge)
    key = await edge.key(PAYING)
    edge.simulator.script({"faults": ["usage_missing"]})
    reply = await ask(edge, key, stream=stream)
    found = await settled(edge, name)
    stored = (await edge.get(f"/v1/requests/{reply.headers['x-request-id']}")).json
    usage = (await edge.get(f"/v1/usage?project={PAYING}")).json

    assert 200 == reply.status
    assert MAX_TOKENS * OUTPUT < found.spent == found.attempts[0].estimate
    assert found.spent == usage["total"]["cost_nano_usd"]
    assert not usage["exact"]
    assert 1 == usage["total"]["underestimates"]
    assert SUCCEEDED == stored["outcome"]


# ---- 36 ------------------------------------------------------------------------------------------------------------------


async def leave(edge: Edge, headers: dict[str, str], body: dict[str, Any], *, after: float = 0.0, sent: int = 0) -> None:
    """Ask, and be gone before the answer: ``after`` so many seconds, when providers are busy with ``sent`` calls."""

    async def ask() -> None:
        async with leaving.post(edge.url + CHAT, json=body, headers=headers) as response:
            await response.read()

    async with aiohttp.ClientSession() as leaving, asyncio.timeout(60):
        asking = asyncio.create_task(ask())
        await asyncio.sleep(after)
        while edge.simulator.counters["active"] < sent:
            await asyncio.sleep(0.01)
        assert asking.cancel()
        await asyncio.wait([asking])
        while edge.mounted.in_flight or (sent and edge.simulator.counters["active"]):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
async def test_36_no_new_attempt_for_a_client_that_left(edge: Edge, stream: bool) -> None:  # noqa: FBT001
    """The first provider fails after the client has gone: nobody else is asked; what was sent is charged and noted."""
    name = await budget(edge)
    key = await edge.key(PAYING)
    edge.simulator.script([{"profile": "south", "latency_ms": 20_000, "faults": [{"kind": "server_error", "times": 9}]}])
    await leave(edge, key, chat(model="big", stream=stream), sent=1)
    found = await settled(edge, name)
    usage = (await edge.get(f"/v1/usage?project={PAYING}")).json["total"]

    assert ["south"] == [attempt.profile for attempt in edge.sent()]
    assert [found.attempts[0].estimate] == found.charges
    assert ({"cancelled": 1}, found.spent) == (usage["errors"], usage["cost_nano_usd"])


async def test_36_a_client_that_leaves_before_the_money_is_held_costs_nothing(edge: Edge) -> None:
    """A hundred that hang up at once leave no hold, no charge that was not sent, and nothing in flight."""
    name = await budget(edge)
    key = await edge.key(PAYING)
    edge.simulator.script({"latency_ms": 20_000})
    await asyncio.gather(*[leave(edge, key, chat(), after=0.001 * (1 + number % 40)) for number in range(100)])
    found = await settled(edge, name)
    usage = (await edge.get(f"/v1/usage?project={PAYING}")).json["total"]

    assert len(edge.sent()) == sum(charge > 0 for charge in found.charges)
    assert found.spent == usage["cost_nano_usd"]
    assert {IntentState.DONE, IntentState.VOID} >= found.states
    assert 0 == (await edge.get("/v1/metrics")).json["queue"]["in_flight"]


# ---- 37 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_37_a_replay_is_the_same_answer_and_costs_nothing(edge: Edge, stream: bool) -> None:  # noqa: FBT001
    """Same body: the first answer, also when the budget is used up by now; another body: 409; running: 409."""
    name = await budget(edge, "0.001")
    key = {**await edge.key(PAYING), "idempotency-key": "k-1"}
    one = await ask(edge, key, stream=stream)
    while (await ask(edge, {**key, "idempotency-key": f"k{len(edge.sent())}"})).status == 200:
        pass
    sent = len(edge.sent())
    again = await ask(edge, key, stream=stream)
    other = await ask(edge, key, "Another question", stream=stream)
    found = await settled(edge, name)

    assert (200, one.body, "true") == (again.status, again.body, again.headers["idempotent-replayed"])
    assert (409, "idempotency_key_reused") == (other.status, other.error["code"])
    assert sent == len(edge.sent()) == sum(row.state is IntentState.DONE for row in found.attempts)


async def test_37_a_running_call_is_a_409_and_charged_once(edge: Edge) -> None:
    """Ten at once with one key: one is asked and charged, the others are told to come back."""
    name = await budget(edge)
    key = {**await edge.key(PAYING), "idempotency-key": "k-1"}
    edge.simulator.script({"latency_ms": 300})
    replies = await asyncio.gather(*[ask(edge, key) for _ in range(10)])
    found = await settled(edge, name)

    assert [200, *[409] * 9] == sorted(reply.status for reply in replies)
    assert {"idempotency_in_progress"} == {reply.error["code"] for reply in replies if reply.status == 409}
    assert 1 == len(edge.sent()) == len(found.attempts)


async def test_37_a_refusal_is_not_kept(edge: Edge) -> None:
    """A call that no budget covered may be repeated with its key once there is money."""
    name = await budget(edge, "0.000001")
    key = {**await edge.key(PAYING), "idempotency-key": "k-1"}
    refused = await ask(edge, key)
    assert 200 == (await edge.call("PATCH", f"/v1/budgets/{name}", json={"limit_usd": 1})).status

    assert (429, "insufficient_quota", "false") == (refused.status, refused.error["code"], refused.headers["x-should-retry"])
    assert 200 == (await ask(edge, key)).status
