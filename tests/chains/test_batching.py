"""Batches over real stores, a scripted provider and virtual time: slices that change hands, wait, expire, are lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from functions.batch_wire import Endpoints
from shared import batching
from shared.batches import Batch, Status
from shared.batches.slices import LEASE_SECONDS
from shared.batching import preparing, running
from shared.core.errors import InvalidRequestError
from shared.core.failures import Failed, FailureKind
from shared.core.ids import instance_id
from shared.core.records import Caller
from shared.core.registry import Registry
from shared.files import NewFile
from shared.gateway import Gateway
from tests.executor.conftest import Bench
from tests.fakes import FakeClock, answer, registry

CALLER = Caller(key_id="key_batch", project="nightly")
CHAT = "/v1/chat/completions"
SOL = "azure/sol"
Make = Callable[[Registry], Bench]


@dataclass
class Engine:
    """Takes note of what is started and cancelled."""

    name: str = "durable"

    def __post_init__(self) -> None:
        self.started: list[tuple[str, str]] = []
        self.cancelled: list[str] = []

    async def start(self, orchestrator: str, instance: str, given: Any) -> None:
        """Take note."""
        assert instance.startswith(given["id"] + "-")
        self.started.append((orchestrator, instance))

    async def cancel(self, instance: str) -> None:
        """Take note."""
        self.cancelled.append(instance)


def patient(clock: FakeClock) -> None:
    """Have virtual time pass slowly enough for the store's threads to do in it what they would in real time."""

    async def sleep(seconds: float) -> None:
        clock.seconds += seconds
        await asyncio.sleep(0.0005)

    clock.sleep = sleep  # type: ignore[method-assign]


@pytest.fixture
def desk(bench: Make) -> Bench:
    """Return a gateway with one deployment."""
    made = bench(registry(SOL))
    patient(made.clock)
    return made


def line(name: str, **body: Any) -> dict[str, Any]:
    """Return a line of an input file."""
    asked = {"model": "sol", "messages": [{"role": "user", "content": name}], "max_tokens": 10} | body
    return {"custom_id": name, "method": "POST", "url": CHAT, "body": asked}


async def made(gateway: Gateway, lines: list[dict[str, Any]], seconds: float = 86_400.0, caller: Caller = CALLER) -> Batch:
    """Store a file and make a batch of it."""

    async def content() -> AsyncIterator[bytes]:
        yield b"".join(json.dumps(one).encode() + b"\n" for one in lines)

    file = await gateway.files.create(content(), lambda: NewFile(CALLER.project, "in.jsonl", "batch"))
    new = batching.NewBatch("batch_0123456789", CHAT, file.id, "24h", seconds)
    return await batching.start(gateway, Engine(), caller, new)


async def prepared(gateway: Gateway, batch: Batch) -> Batch:
    """Do the preparation."""
    while (await batching.prepare(gateway, {"id": batch.id}))["state"] == "more":
        pass
    return await gateway.batches.get(batch.id)


async def run(gateway: Gateway, batch: Batch, number: int = 0) -> dict[str, Any]:
    """Run a slice once."""
    return await batching.run_slice(gateway, {"id": batch.id, "slice": number}, Endpoints())


async def ended(desk: Bench, batch: Batch) -> Batch:
    """Run what is left of a batch, waiting as long as slices say, and end it."""
    for number in range(batch.cursor.slices):
        while (done := await run(desk.gateway, batch, number))["state"] == "later":
            desk.clock.seconds += max(0.0, done["due"] - desk.clock.now())
    await batching.end(desk.gateway, {"id": batch.id})
    return await desk.gateway.batches.get(batch.id)


async def results(gateway: Gateway, file_id: str | None) -> list[dict[str, Any]]:
    """Return the lines of a batch's file."""
    if file_id is None:
        return []
    file = await gateway.files.get(file_id)
    content = b"".join([piece async for piece in gateway.batches.output(file)])
    assert len(content) == file.size
    return [json.loads(one) for one in content.splitlines()]


def texts(found: list[dict[str, Any]]) -> list[str]:
    """Return what was answered."""
    return [one["response"]["body"]["choices"][0]["message"]["content"] for one in found]


async def test_a_run_that_was_taken_for_dead_writes_nothing_more(desk: Bench) -> None:
    """Once another run has taken a slice, what the first one has is not written, and it sends no further line."""
    gateway = desk.gateway
    batch = await prepared(gateway, await made(gateway, [line("one"), line("two")]))
    frozen, thawed = asyncio.Event(), asyncio.Event()
    slow = FakeClock(seconds=desk.clock.seconds)

    async def stuck(_: float) -> None:
        frozen.set()
        await thawed.wait()

    slow.sleep = stuck  # type: ignore[assignment,method-assign]
    desk.provider.script(SOL, answer("by the first"), answer("by the first"))
    first = asyncio.create_task(run(replace(gateway, clock=slow), batch))
    await frozen.wait()
    while len(desk.provider.asked) < 2:
        await asyncio.sleep(0.001)
    assert "later" == (await run(gateway, batch))["state"]
    desk.clock.seconds += LEASE_SECONDS

    second = await run(gateway, batch)
    thawed.set()
    late = await first
    batch = await ended(desk, batch)

    assert "done" == second["state"]
    assert "later" == late["state"]
    assert ["Hello", "Hello"] == texts(await results(gateway, batch.output_file))
    assert 4 == len(desk.provider.asked)
    assert 2 == batch.counts.completed
    assert 0 == gateway.traffic.background


async def test_a_throttled_line_waits_as_long_as_its_provider_says(desk: Bench) -> None:
    """A Retry-After of an hour is waited for by the engine, however often, and the line is then answered."""
    throttled = Failed(FailureKind.RATE_LIMITED, "slow down", status=429, retry_after=3600.0)
    desk.provider.script(SOL, *[throttled] * 8)
    batch = await prepared(desk.gateway, await made(desk.gateway, [line("one")]))

    first = await run(desk.gateway, batch)
    assert "later" == first["state"]
    assert first["due"] - desk.clock.now() > 3000
    batch = await ended(desk, batch)

    assert (Status.COMPLETED, 1, 0) == (batch.status, batch.counts.completed, batch.counts.failed)


async def test_what_nobody_can_answer_fails_after_some_passes(desk: Bench) -> None:
    """A line that all providers fail is tried in several passes; then it is an error, and all it cost is counted."""
    unknown = Failed(FailureKind.TIMEOUT, "too late")
    desk.provider.script(SOL, *[unknown] * 200)
    batch = await prepared(desk.gateway, await made(desk.gateway, [line("one")]))

    batch = await ended(desk, batch)
    (bad,) = await results(desk.gateway, batch.error_file)

    assert (Status.COMPLETED, 0, 1) == (batch.status, batch.counts.completed, batch.counts.failed)
    assert bad["response"]["status_code"] in {503, 504}
    assert 5 == len(desk.written)
    assert bad["switchyard"]["cost_nano_usd"] == sum(record.cost or 0 for record in desk.written) > 0


async def test_outcomes_cost_what_usage_says(desk: Bench) -> None:
    """What a line cost before it succeeded, in an earlier pass, is part of its outcome's cost."""
    desk.provider.script(SOL, *[Failed(FailureKind.DISCONNECTED, "gone")] * 9)
    batch = await prepared(desk.gateway, await made(desk.gateway, [line("one")]))

    batch = await ended(desk, batch)
    (good,) = await results(desk.gateway, batch.output_file)

    total = sum(record.cost or 0 for record in desk.written)
    assert len(desk.written) > 1
    assert total == good["switchyard"]["cost_nano_usd"] == batch.counts.cost > answer().usage.input_tokens * 1000  # type: ignore[union-attr]  # it has one


async def test_what_the_window_leaves_no_time_for_expires(desk: Bench) -> None:
    """At the window's end lines without an outcome are errors; what is done stays."""
    batch = await prepared(desk.gateway, await made(desk.gateway, [line(str(number)) for number in range(120)], 3600.0))
    assert "done" == (await run(desk.gateway, batch))["state"]
    desk.clock.seconds += 3600

    assert "done" == (await run(desk.gateway, batch, 1))["state"]
    batch = await ended(desk, batch)
    expired = await results(desk.gateway, batch.error_file)

    assert (Status.EXPIRED, 100, 20, 20) == (batch.status, batch.counts.completed, batch.counts.failed, batch.counts.expired)
    assert [str(number) for number in range(100, 120)] == [one["custom_id"] for one in expired]
    assert {"batch_expired"} == {one["error"]["code"] for one in expired}
    assert 100 == len(desk.provider.asked)


async def test_custom_ids_are_compared_across_slices(desk: Bench) -> None:
    """A custom_id that an earlier line has is an error that names both lines, wherever they are; the first one runs."""
    lines = [line(str(number)) for number in range(1, 251)]
    lines[239], lines[120] = line("5"), line("5")
    batch = await prepared(desk.gateway, await made(desk.gateway, lines))

    batch = await ended(desk, batch)
    bad = await results(desk.gateway, batch.error_file)

    assert [121, 240] == [one["error"]["line"] for one in bad]
    assert all("line 5" in one["error"]["message"] for one in bad)
    assert 248 == batch.counts.completed == len(desk.provider.asked)


async def test_preparation_goes_on_where_it_was(desk: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is looked through in steps; a step that runs twice, also at once with another, finds the same."""
    monkeypatch.setattr(preparing, "STEP_SECONDS", 0.0)
    gateway = desk.gateway
    batch = await made(gateway, [line(str(number)) for number in range(250)])
    assert "more" == (await batching.prepare(gateway, {"id": batch.id}))["state"]

    monkeypatch.setattr(preparing, "STEP_SECONDS", 20.0)
    monkeypatch.setattr(preparing, "_FLUSH_SLICES", 1)
    told = await asyncio.gather(*(batching.prepare(gateway, {"id": batch.id}) for _ in range(3)))
    batch = await gateway.batches.get(batch.id)

    assert [{"state": "ready", "slices": 3}] * 3 == told
    assert (250, 250, 3) == (batch.cursor.requests, batch.cursor.valid, batch.cursor.slices)
    assert [0, 1, 2] == [(await gateway.batches.slices.index(batch.id, number)).number for number in range(3)]
    assert 250 == (await ended(desk, batch)).counts.completed


async def test_too_many_lines(desk: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of more lines than a batch may have fails as a whole, and says so."""
    monkeypatch.setattr(preparing, "MAX_LINES", 150)
    batch = await prepared(desk.gateway, await made(desk.gateway, [line(str(number)) for number in range(300)]))

    assert Status.FAILED is batch.status
    assert ["too_many_lines"] == [one["code"] for one in batch.errors]
    assert not await desk.gateway.batches.uses(batch.input_file)


async def test_a_run_ends_in_time_and_another_goes_on(desk: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run begins no more lines after its time; the next one asks only what has no outcome."""
    batch = await prepared(desk.gateway, await made(desk.gateway, [line(str(number)) for number in range(60)]))
    monkeypatch.setattr(running, "RUN_SECONDS", 0.2)
    first = await run(desk.gateway, batch)
    before = len(desk.provider.asked)
    monkeypatch.setattr(running, "RUN_SECONDS", 1e6)
    batch = await ended(desk, batch)

    assert "later" == first["state"]
    assert before < 60 == len(desk.provider.asked) == batch.counts.completed


async def test_a_cancelled_batch_begins_no_line(desk: Bench) -> None:
    """Cancelling twice is as good as once; slices that are run afterwards send nothing."""
    engine = Engine()
    batch = await prepared(desk.gateway, await made(desk.gateway, [line(str(number)) for number in range(150)]))
    await run(desk.gateway, batch)

    for _ in range(2):
        assert Status.CANCELLING is (await batching.cancel(desk.gateway, engine, batch.id)).status
    assert "stopped" == (await run(desk.gateway, batch, 1))["state"]
    batch = await ended(desk, batch)

    assert (Status.CANCELLED, 100, 0) == (batch.status, batch.counts.completed, batch.counts.failed)
    assert [instance_id(batch.id, batch.created_at)] * 2 == engine.cancelled
    assert 100 == len(desk.provider.asked)


async def test_a_key_that_was_revoked_asks_no_more(desk: Bench) -> None:
    """What a key may do is looked up for every run: lines of one that was revoked are errors, and cost nothing."""
    key = (await desk.gateway.keys.create("nightly", CALLER.project)).key
    caller = Caller(key_id=key.key_id, project=CALLER.project)
    batch = await prepared(desk.gateway, await made(desk.gateway, [line(str(number)) for number in range(120)], caller=caller))
    await run(desk.gateway, batch)
    await desk.gateway.keys.revoke(key.key_id)

    batch = await ended(desk, batch)
    bad = await results(desk.gateway, batch.error_file)

    assert (Status.COMPLETED, 100, 20) == (batch.status, batch.counts.completed, batch.counts.failed)
    assert {"invalid_api_key"} == {one["error"]["code"] for one in bad}
    assert 100 == len(desk.provider.asked)


async def test_a_lost_batch_keeps_what_is_done(desk: Bench) -> None:
    """A batch whose engine forgot it fails and says why; its results can be downloaded, and no run adds to them."""
    batch = await prepared(desk.gateway, await made(desk.gateway, [line(str(number)) for number in range(150)]))
    await run(desk.gateway, batch)
    (before,) = await desk.gateway.batches.progress()
    assert 100 == before.counts.completed

    assert await batching.lose(desk.gateway, batch)
    lost = await desk.gateway.batches.get(batch.id)

    assert Status.FAILED is lost.status
    assert ["batch_lost"] == [one["code"] for one in lost.errors]
    assert 100 == len(await results(desk.gateway, lost.output_file))
    assert "stopped" == (await run(desk.gateway, batch, 1))["state"]
    assert [] == await desk.gateway.batches.progress()


async def test_what_was_stored_and_not_started_is_started(desk: Bench) -> None:
    """A batch that its engine never got is given to it by the sweep; one that is overdue is lost."""
    engine = Engine()
    batch = await made(desk.gateway, [line("one")])
    assert 0 == await batching.sweep(desk.gateway, engine)
    desk.clock.seconds += 60
    assert 1 == await batching.sweep(desk.gateway, engine)
    assert [("run_batch", instance_id(batch.id, batch.created_at))] == engine.started
    desk.clock.seconds += 5 * 86_400

    assert 1 == await batching.sweep(desk.gateway, engine)
    assert Status.FAILED is (await desk.gateway.batches.get(batch.id)).status


async def test_another_projects_file_can_not_be_batched(desk: Bench) -> None:
    """A file of another project is as unknown as one that never was."""
    batch = await made(desk.gateway, [line("one")])
    stranger = Caller(key_id="key_other", project="other")
    new = batching.NewBatch("batch_other", CHAT, batch.input_file, "24h", 86_400.0)

    with pytest.raises(InvalidRequestError) as refused:
        await batching.start(desk.gateway, Engine(), stranger, new)
    assert "input_file_id" == refused.value.param


async def test_callers_who_wait_go_first(desk: Bench) -> None:
    """While somebody waits, few lines are in flight and they begin one after the other; when nobody does, more."""
    traffic, clock = desk.gateway.traffic, desk.clock
    quiet = traffic.width(clock)
    traffic.enter()
    began = clock.monotonic()
    for _ in range(5):
        await traffic.turn(clock)

    assert clock.monotonic() - began > 4.9 * 0.012
    assert traffic.width(clock) <= quiet
    for _ in range(20):
        traffic.felt(0.5)
    assert 2 == traffic.width(clock)
    traffic.leave()
    for _ in range(5):
        traffic.done()
    clock.seconds += 1
    for _ in range(2000):
        await traffic.turn(clock)
        traffic.done()
    assert traffic.width(clock) > 50
