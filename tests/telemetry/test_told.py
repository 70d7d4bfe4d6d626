"""What telemetry is told of requests, whichever way they go: each once, in its place, at the cost that is in the usage log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from shared.background import start
from shared.background.beginning import launch
from shared.core import semconv
from shared.core.chat import InferenceRequest
from shared.core.errors import BudgetExceededError, InvalidRequestError, StorageUnavailableError
from shared.core.failures import Failed, FailureKind
from shared.core.records import LOST, SUCCEEDED
from shared.core.registry import Registry
from shared.core.telemetry import TraceContext
from shared.core.traceparent import parse
from shared.executor import ask, complete, open_stream
from shared.ledger import RecoveredSession
from shared.recovery import recover
from shared.tracing import SERVED, Served, serving
from tests.chains.inline import InlineEngine
from tests.chains.test_background import REQUEST as CHAINED
from tests.chains.test_background import new, run
from tests.executor.conftest import CALLER, Bench
from tests.executor.test_recovery import REQUEST, die_in_mid_call
from tests.executor.test_spending import budget
from tests.fakes import FakeClock, Hang, RecordingTelemetry, Told, answer, chunks, registry, request, texts

Make = Callable[[Registry], Bench]
CALLERS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CANARY = "the canary sings at 5"
PAID = 20_000


@pytest.fixture
def telling(bench: Make) -> Callable[..., tuple[Bench, RecordingTelemetry]]:
    """Return a maker of gateways that tell, and of what they told."""

    def make(*deployments: str, content: bool = False) -> tuple[Bench, RecordingTelemetry]:
        telemetry = RecordingTelemetry(content=content)
        made = bench(registry(*(deployments or ("a/sol", "b/luna"))))
        made.gateway = replace(made.gateway, telemetry=telemetry)
        return made, telemetry

    return make


Telling = Callable[..., tuple[Bench, RecordingTelemetry]]


def only(telemetry: RecordingTelemetry) -> Told:
    """Return the one request that was told."""
    (told,) = telemetry.told
    return told


async def used(it: Bench, told: Told) -> int | None:
    """Return what a told request costs by the usage log."""
    await it.gateway.usage.flush()
    stored = await it.gateway.usage.find(told.record.request_id)
    assert stored is not None
    return stored.record.cost


async def test_an_answer_is_told_once_in_its_callers_trace(telling: Telling) -> None:
    """The edge says which request a task serves, and where: its span is that place, its attempt is under it."""
    it, telemetry = telling()
    place = telemetry.trace(CALLERS)

    with serving(Served("req_1", place)):
        await complete(it.gateway, CALLER, request(), request_id="req_1")

    told = only(telemetry)
    asked, attempt = told.spans
    assert (place, "b7ad6b7169203331") == (asked.context, asked.context.parent_id)
    assert (place.trace_id, place.span_id) == (attempt.context.trace_id, attempt.context.parent_id)
    assert PAID == telemetry.total(semconv.COST_SPENT) == await used(it, told)
    assert 1 == telemetry.total(semconv.REQUESTS, outcome=SUCCEEDED)
    assert (10, 5) == (
        telemetry.total(semconv.TOKENS, token_type="input"),
        telemetry.total(semconv.TOKENS, token_type="output"),
    )


async def test_a_request_of_no_edge_has_a_trace_of_its_own(telling: Telling) -> None:
    """A probe, or a task that serves another request by now: never under somebody else's span."""
    it, telemetry = telling()
    other = telemetry.trace(CALLERS)

    with serving(Served("req_other", other)):
        await complete(it.gateway, CALLER, request(), request_id="req_1")

    trace = only(telemetry).trace
    assert trace is not None
    assert other.trace_id != trace.trace_id
    assert trace.parent_id is None


async def test_a_fallback_is_told(telling: Telling) -> None:
    """From where, to where, why; both attempts, one request; the failed one cost nothing."""
    it, telemetry = telling()
    it.provider.script("a/sol", Failed(FailureKind.SERVER_ERROR, CANARY, status=500))

    await complete(it.gateway, CALLER, request(), request_id="req_1")

    assert 1 == telemetry.total(semconv.FALLBACKS, deployment_from="a/sol", deployment_to="b/luna", error_type="server_error")
    assert ["a/sol", "b/luna"] == [one.attributes[semconv.DEPLOYMENT] for one in only(telemetry).spans[1:]]
    assert telemetry.total(semconv.COST_SPENT) == await used(it, only(telemetry))


@pytest.mark.parametrize("leave", [False, True])
async def test_a_stream_is_told_when_it_has_ended(telling: Telling, *, leave: bool) -> None:
    """Not before; with its first content's time; once, also when its client leaves."""
    it, telemetry = telling()
    stream = await open_stream(it.gateway, CALLER, request(stream=True), request_id="req_1")
    assert [] == telemetry.told

    if leave:
        await anext(stream.batches)
    else:
        assert "Hello" == texts([chunk async for chunk in stream])
    await stream.aclose()
    await stream.aclose()

    told = only(telemetry)
    assert ("cancelled" if leave else SUCCEEDED, True) == (told.record.outcome, told.record.stream)
    assert telemetry.total(semconv.COST_SPENT, exact=not leave) == await used(it, told)
    assert semconv.TIME_TO_FIRST_CHUNK in told.spans[1].attributes


async def test_a_refusal_is_told(telling: Telling) -> None:
    """No attempt, no cost, no model: one request, and why."""
    it, telemetry = telling()
    await budget(it, "0.00000001")

    with pytest.raises(BudgetExceededError):
        await complete(it.gateway, CALLER, request(max_output_tokens=100), request_id="req_1")

    told = only(telemetry)
    assert ("over_budget", 1) == (told.record.outcome, len(told.spans))
    assert 1 == telemetry.total(semconv.REQUESTS, outcome="over_budget", error_type="over_budget")


async def test_who_leaves_is_told_as_that(telling: Telling) -> None:
    """A cancelled call was sent, and may be billed."""
    it, telemetry = telling()
    it.provider.script("a/sol", Hang())
    asking = asyncio.create_task(complete(it.gateway, CALLER, request(), request_id="req_1"))
    while not it.provider.asked:
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait((asking,))

    told = only(telemetry)
    assert ("cancelled", "cancelled") == (told.record.outcome, told.spans[1].error)
    assert telemetry.total(semconv.COST_SPENT) == await used(it, told)


@pytest.mark.parametrize("told_at_its_begin", [True, False])
async def test_a_chain_is_one_trace(telling: Telling, *, told_at_its_begin: bool) -> None:
    """Its attempts run in tasks of the engine's, its end may be another process's: all under the span of its beginning.

    One that began while nothing was told has no place, and is told in a trace of its own.
    """
    it, telemetry = telling("a/sol")
    it.provider.script("a/sol", Failed(FailureKind.RATE_LIMITED, "slow", retry_after=600.0))
    engine, place = InlineEngine(it.gateway), telemetry.trace(CALLERS)
    seen: list[Served | None] = []
    inner = it.provider.complete

    async def complete_it(call: Any) -> Any:
        seen.append(SERVED.get())
        return await inner(call)

    it.provider.complete = complete_it  # type: ignore[method-assign]
    ending = engine.activities["end_chain"]

    async def end_twice(given: dict[str, Any]) -> Any:
        return (await asyncio.gather(ending(given), ending(given)))[0]

    engine.activities["end_chain"] = end_twice  # the engine asked again before the first run had ended
    engine.away = True
    with serving(Served(CHAINED, place if told_at_its_begin else None)):
        begun = await start(it.gateway, engine, CALLER, request(max_output_tokens=100), new())
        if not told_at_its_begin:
            await it.gateway.chains.change(begun.id, lambda one: replace(one, facts=without_place(one.facts)))
    engine.away = False
    await launch(engine, begun)  # by the timer, say: of the request nothing is left but the chain's row
    await engine.ended(begun.id)
    chain = await it.gateway.chains.get(begun.id)

    told = only(telemetry)
    span, first, second = told.spans
    assert ("chain chat sol", chain.id) == (span.name, span.attributes[semconv.CHAIN_ID])
    assert told_at_its_begin == (place == span.context)
    assert [False, True] == [first.error is None, second.error is None]
    assert second.start - first.end >= 600
    assert chain.cost == telemetry.total(semconv.COST_SPENT) == await used(it, told)
    assert [CHAINED, CHAINED] == [one.request_id for one in seen if one is not None]
    if told_at_its_begin:
        assert [place, place] == [one.trace for one in seen if one is not None]
        assert place.trace_id == cast("TraceContext", parse(str(chain.facts["traceparent"]))).trace_id


def without_place(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a chain that began while nothing was told."""
    return {name: value for name, value in facts.items() if not name.startswith("trace")}


async def test_what_a_dead_process_left_is_told_once(bench: Make) -> None:
    """By whoever wrote it down first, at the ledger's amount; not again by who recovers it after that one died over it."""
    dead, one, two = (bench(registry("a/sol")) for _ in range(3))
    telemetry = RecordingTelemetry()
    await budget(dead, "1")
    await die_in_mid_call(dead)
    alive = [replace(each.gateway, telemetry=telemetry) for each in (one, two)]
    for gateway in alive:
        await recover(gateway)
        cast("FakeClock", gateway.ledger._clock).seconds += 400
    first, second = alive

    async def die_over_it(session: RecoveredSession) -> None:
        raise StorageUnavailableError(session.session)

    first.ledger.finish = die_over_it  # type: ignore[method-assign]
    with pytest.raises(StorageUnavailableError):
        await recover(first)
    assert 1 == await recover(second)

    told = only(telemetry)
    assert (REQUEST, LOST, True) == (told.record.request_id, told.record.outcome, told.record.recovered)
    assert 40 * 1000 + 100 * 2000 == telemetry.total(semconv.COST_SPENT, exact=False)
    assert 0 == telemetry.total(semconv.OPERATION_DURATION)


def prompted(*, stream: bool = False) -> InferenceRequest:
    """Return a request whose prompt is the canary."""
    asked = request(stream=stream)
    return replace(asked, payload={"model": "sol", "messages": [{"role": "user", "content": CANARY}]})


@pytest.fixture
async def lines() -> AsyncIterator[list[str]]:
    """Return every line that is logged."""
    kept: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(self.format(record))

    handler = Keep()
    logging.getLogger().addHandler(handler)
    yield kept
    logging.getLogger().removeHandler(handler)


async def test_no_prompt_and_no_answer_is_told_unless_asked_for(telling: Telling, lines: list[str]) -> None:
    """Whole, streamed, and refused by a provider who quotes the prompt: the canary is nowhere."""
    it, telemetry = telling()
    refusal = Failed(FailureKind.INVALID_REQUEST, f"You wrote: {CANARY}", status=400)
    it.provider.script("a/sol", answer(CANARY), chunks(CANARY), refusal)
    it.provider.script("b/luna", refusal)

    await complete(it.gateway, CALLER, prompted(), request_id="req_1")
    async with asyncio.timeout(10):
        stream = await open_stream(it.gateway, CALLER, prompted(stream=True), request_id="req_2")
        assert CANARY == texts([chunk async for chunk in stream])
    with pytest.raises(InvalidRequestError, match=CANARY):
        await complete(it.gateway, CALLER, prompted(), request_id="req_3")
    await ask(it.gateway, CALLER, prompted(), request_id="req_4")

    assert 4 == len(telemetry.told)
    assert [None] * 4 == [one.content for one in telemetry.told]
    assert CANARY not in repr(([one.spans for one in telemetry.told], telemetry.measurements, telemetry.gauges, lines))


async def test_content_is_told_to_operators_who_opted_in(telling: Telling) -> None:
    """Whole, streamed and of a chain, in the conventions' form."""
    it, telemetry = telling(content=True)
    it.provider.script("a/sol", answer(CANARY), chunks(CANARY), answer(CANARY))

    await complete(it.gateway, CALLER, prompted(), request_id="req_1")
    stream = await open_stream(it.gateway, CALLER, prompted(stream=True), request_id="req_2")
    assert CANARY == texts([chunk async for chunk in stream])
    await run(it, body=b'{"model": "sol", "messages": [{"role": "user", "content": "%s"}]}' % CANARY.encode())

    said = f'"parts": [{{"type": "text", "content": "{CANARY}"}}]'
    for told in telemetry.told:
        attributes = told.spans[0].attributes
        assert f'[{{"role": "user", {said}}}]' == attributes[semconv.INPUT_MESSAGES]
        assert f'[{{"role": "assistant", {said}, "finish_reason": "stop"}}]' == attributes[semconv.OUTPUT_MESSAGES]
    assert 3 == len(telemetry.told)
