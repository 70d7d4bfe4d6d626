"""The use cases: an answer if anybody can give one, every attempt written down once, however the request ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from shared.core.chat import Chunk, Usage
from shared.core.errors import (
    AllAttemptsFailedError,
    ConfigurationError,
    DeadlineExceededError,
    GatewayError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    StorageUnavailableError,
    StreamInterruptedError,
)
from shared.core.failures import Failed, FailureKind
from shared.core.health import BreakerState
from shared.core.records import SUCCEEDED
from shared.core.registry import FailoverPolicy, Registry, Timeouts
from shared.executor import AnswerStream, ask, complete, open_stream, outcome_name, plan_route, probe
from tests.executor.conftest import CALLER, Bench
from tests.fakes import Hang, answer, chunks, registry, request, texts

K = FailureKind
Make = Callable[[Registry], Bench]
SHORT = FailoverPolicy(backoff=1, max_wait=5, timeouts=Timeouts(first_content=0.05, whole=0.05))


def failed(kind: FailureKind, **facts: object) -> Failed:
    """A provider's failure."""
    return Failed(kind, f"it was {kind}", **facts)  # type: ignore[arg-type]  # facts are fields of Failed


async def stream_of(bench: Bench) -> AnswerStream:
    """Open a stream."""
    return await open_stream(bench.gateway, CALLER, request(stream=True), request_id="req_1")


async def test_an_answer_names_who_gave_it_and_what_it_cost(bench: Make) -> None:
    """Ten tokens in, five out, at one and two dollars a million."""
    one = bench(registry("azure/sol"))
    got = await complete(one.gateway, CALLER, request(), request_id="req_1")
    assert ("azure/sol", "sol", 1, 10 * 1000 + 5 * 2000) == (got.deployment, got.model, got.attempts, got.cost)
    record = one.record
    assert ("req_1", "key_test", "shop", SUCCEEDED, 20_000) == (
        record.request_id,
        record.key_id,
        record.project,
        record.outcome,
        record.cost,
    )
    assert [(1, SUCCEEDED, Usage(10, 5), True)] == [(a.number, a.outcome, a.usage, a.exact) for a in record.attempts]


async def test_a_failure_is_mended_by_the_next_and_both_are_written_down(bench: Make) -> None:
    """The failed attempt costs nothing when the provider does not charge for it."""
    one = bench(registry("azure/sol", "openai/sol"))
    one.provider.script("azure/sol", failed(K.SERVER_ERROR, status=500))
    one.provider.script("openai/sol", failed(K.SERVER_ERROR, status=500))
    got = await complete(one.gateway, CALLER, request(), request_id="req_1")
    assert 3 == got.attempts
    assert [0, 0, 20_000] == [attempt.cost for attempt in one.record.attempts]
    assert [1, 2, 3] == [attempt.number for attempt in one.record.attempts]
    assert [500, 500, None] == [attempt.status for attempt in one.record.attempts]


async def test_an_attempt_that_may_have_been_billed_is_an_underestimate_not_free(bench: Make) -> None:
    """A reset after sending: the input at least may have been read."""
    one = bench(registry("azure/sol", "openai/luna"))
    one.provider.script("azure/sol", failed(K.DISCONNECTED))
    got = await complete(one.gateway, CALLER, request(), request_id="req_1")
    first = one.record.attempts[0]
    assert (10 * 1000, False, False) == (first.cost, first.exact, one.record.exact)
    assert 10 * 1000 + 20_000 == got.cost


async def test_an_unknown_price_is_unknown_not_zero(bench: Make) -> None:
    """One attempt without a price makes the sum unknown."""
    one = bench(registry("azure/sol", "openai/luna", prices={"azure/sol": ()}))
    got = await complete(one.gateway, CALLER, request(), request_id="req_1")
    assert got.cost is None
    assert one.record.cost is None


async def test_an_answer_without_usage_is_marked(bench: Make) -> None:
    """A provider that reports nothing still leaves a trace of what went in."""
    one = bench(registry("azure/sol"))
    one.provider.script("azure/sol", answer(usage=None))
    await complete(one.gateway, CALLER, request(), request_id="req_1")
    assert Usage(10, 0, exact=False) == one.record.attempts[0].usage
    assert not one.record.exact


async def test_a_hang_is_cut_at_its_timeout_and_another_answers(bench: Make) -> None:
    """Whole and streamed alike; the hanging call is closed."""
    one = bench(registry("azure/sol", "openai/luna", failover=SHORT))
    one.provider.script("azure/sol", Hang(), Hang())
    got = await complete(one.gateway, CALLER, request(), request_id="req_1")
    assert ("openai/luna", "timeout") == (got.deployment, one.record.attempts[0].outcome)
    stream = await stream_of(one)
    assert "Hello" == texts([chunk async for chunk in stream])
    assert "openai/luna" == stream.deployment
    assert ["azure/sol", "azure/sol"] == one.provider.closed_early


@pytest.mark.parametrize(
    ("kinds", "error", "param"),
    [
        ([K.INVALID_REQUEST], InvalidRequestError, "tools"),
        ([K.CONTEXT_LENGTH], InvalidRequestError, "tools"),
        ([K.CONTENT_FILTER], InvalidRequestError, "tools"),
        ([K.SERVER_ERROR] * 3, AllAttemptsFailedError, None),
        ([K.UNAUTHORIZED], AllAttemptsFailedError, None),
        ([K.GONE], AllAttemptsFailedError, None),
    ],
)
async def test_what_nobody_could_mend_reaches_the_caller_as_what_it_is(
    bench: Make, kinds: list[FailureKind], error: type[GatewayError], param: str | None
) -> None:
    """The caller's fault is a 400 with the provider's word for it; everybody else's is a 503."""
    one = bench(registry("azure/sol"))
    one.provider.script("azure/sol", *(failed(kind, param="tools", code="the_code") for kind in kinds))
    with pytest.raises(error) as caught:
        await complete(one.gateway, CALLER, request(), request_id="req_1")
    assert type(caught.value) is error
    assert param == caught.value.param
    assert len(kinds) == len(one.record.attempts)


async def test_throttled_everywhere_is_429_with_the_soonest_time(bench: Make) -> None:
    """And while the pause lasts nobody is called."""
    one = bench(registry("azure/sol", "openai/luna"))
    one.provider.script("azure/sol", failed(K.RATE_LIMITED, retry_after=40))
    one.provider.script("openai/luna", failed(K.RATE_LIMITED, retry_after=30))
    with pytest.raises(RateLimitError) as caught:
        await complete(one.gateway, CALLER, request(), request_id="req_1")
    assert pytest.approx(30) == caught.value.retry_after
    one.clock.seconds += 10
    with pytest.raises(RateLimitError) as caught:
        await complete(one.gateway, CALLER, request(), request_id="req_2")
    assert pytest.approx(20) == caught.value.retry_after
    assert ["throttled"] * 2 == [record.outcome for record in one.written]  # no refusal of ours: alerts must see it
    assert 2 == len(one.provider.asked)
    one.clock.seconds += 21
    assert "openai/luna" == (await complete(one.gateway, CALLER, request(), request_id="req_3")).deployment


async def test_who_comes_back_was_not_failed(bench: Make) -> None:
    """A batch waits until there is room: its tries must not wake anybody."""
    one = bench(registry("azure/sol"))
    one.provider.script("azure/sol", failed(K.RATE_LIMITED, retry_after=40))
    await ask(one.gateway, CALLER, request(), request_id="req_1")
    assert "rate_limited" == one.record.outcome


async def test_a_short_pause_is_waited_out(bench: Make) -> None:
    """The caller gets an answer instead of an error."""
    one = bench(registry("azure/sol"))
    one.provider.script("azure/sol", failed(K.RATE_LIMITED, retry_after=3))
    got = await complete(one.gateway, CALLER, request(), request_id="req_1")
    assert (2, [3]) == (got.attempts, one.clock.slept)


async def test_three_failures_open_the_breaker_and_a_later_probe_closes_it(bench: Make) -> None:
    """The dead primary is not called while its breaker is open; afterwards one call brings it back."""
    one = bench(registry("azure/sol", "openai/luna"))
    one.provider.script("azure/sol", *[failed(K.SERVER_ERROR)] * 3)
    for number in range(5):
        await complete(one.gateway, CALLER, request(), request_id=f"req_{number}")
    assert 3 == sum(call.deployment.id == "azure/sol" for call in one.provider.asked)
    assert BreakerState.OPEN is one.gateway.health.snapshot(one.clock.seconds).of("azure/sol").breaker
    one.clock.seconds += 6
    assert "azure/sol" == (await complete(one.gateway, CALLER, request(), request_id="req_9")).deployment
    assert BreakerState.CLOSED is one.gateway.health.snapshot(one.clock.seconds).of("azure/sol").breaker


async def test_a_lone_deployment_with_an_open_breaker_is_still_asked(bench: Make) -> None:
    """An error would be certain; a call may work."""
    one = bench(registry("azure/sol"))
    one.provider.script("azure/sol", *[failed(K.SERVER_ERROR)] * 3)
    with pytest.raises(AllAttemptsFailedError):
        await complete(one.gateway, CALLER, request(), request_id="req_1")
    assert 1 == (await complete(one.gateway, CALLER, request(), request_id="req_2")).attempts


async def test_the_deadline_is_504(bench: Make) -> None:
    """Time spent on the first candidate is not given to the second."""
    one = bench(registry("azure/sol", "openai/luna", failover=replace(SHORT, deadline=0.0)))
    with pytest.raises(DeadlineExceededError):
        await complete(one.gateway, CALLER, request(), request_id="req_1")
    assert "deadline_exceeded" == one.record.outcome


async def test_an_unknown_model_is_told_and_written_down(bench: Make) -> None:
    """No attempt is made."""
    one = bench(registry("azure/sol"))
    with pytest.raises(ModelNotFoundError):
        await complete(one.gateway, CALLER, request("moon"), request_id="req_1")
    assert ("refused", ()) == (one.record.outcome, one.record.attempts)


async def test_a_client_that_leaves_cancels_the_call_and_leaves_a_record(bench: Make) -> None:
    """The call to the provider is closed; what it may have cost is written down as an underestimate."""
    one = bench(registry("azure/sol", "openai/luna"))
    one.provider.script("azure/sol", Hang())
    task = asyncio.create_task(complete(one.gateway, CALLER, request(), request_id="req_1"))
    while not one.provider.asked:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ["azure/sol"] == one.provider.closed_early
    assert ("cancelled", 10_000, False) == (one.record.outcome, one.record.cost, one.record.exact)
    assert 0 == one.gateway.health.report(one.clock.seconds)["azure/sol"].in_flight


async def test_a_stream_passes_every_event_on_and_costs_what_it_reports(bench: Make) -> None:
    """The role comes first, the usage last."""
    one = bench(registry("azure/sol"))
    stream = await stream_of(one)
    events = [chunk async for chunk in stream]
    await stream.aclose()
    assert [chunk.payload for chunk in chunks("Hello") if isinstance(chunk, Chunk)] == [event.payload for event in events]
    assert 20_000 == stream.cost
    assert (SUCCEEDED, 20_000, True) == (one.record.outcome, one.record.cost, one.record.exact)


@pytest.mark.parametrize("kind", [K.RATE_LIMITED, K.SERVER_ERROR, K.BAD_RESPONSE, K.DISCONNECTED, K.OVERLOADED])
async def test_a_stream_that_breaks_before_its_first_content_falls_over(bench: Make, kind: FailureKind) -> None:
    """Even after a 200 and the role: the caller sees one clean stream, from the other."""
    one = bench(registry("azure/sol", "openai/luna"))
    role = chunks("")[0]
    one.provider.script("azure/sol", [role, failed(kind)])
    stream = await stream_of(one)
    assert "Hello" == texts([chunk async for chunk in stream])
    assert ("openai/luna", 2) == (stream.deployment, stream.attempts)
    assert [kind.value, SUCCEEDED] == [attempt.outcome for attempt in one.record.attempts]


async def test_a_stream_that_ends_without_content_is_asked_for_again(bench: Make) -> None:
    """An empty 200 is no answer."""
    one = bench(registry("azure/sol"))
    one.provider.script("azure/sol", [chunks("")[0]])
    assert "Hello" == texts([chunk async for chunk in await stream_of(one)])
    assert ["empty_response", SUCCEEDED] == [attempt.outcome for attempt in one.record.attempts]


async def test_a_stream_cut_after_content_is_an_error_and_an_underestimate(bench: Make) -> None:
    """Nothing is retried, nothing is silent, and what went by is charged."""
    one = bench(registry("azure/sol", "openai/luna"))
    one.provider.script("azure/sol", [*chunks("Hello")[:6], failed(K.DISCONNECTED)])
    stream = await stream_of(one)
    got = []
    with pytest.raises(StreamInterruptedError):
        async for chunk in stream:
            got.append(chunk)  # noqa: PERF401  (what came before the error is the point)
    assert "Hello" == texts(got)
    attempt = one.record.attempts[0]
    assert ("interrupted", Usage(10, 2, exact=False), False) == (attempt.outcome, attempt.usage, one.record.exact)
    assert 1 == len(one.provider.asked)
    assert 10_000 + 2 * 2000 == stream.cost


async def test_a_failure_in_one_packet_with_the_first_content_is_the_callers_after_the_content(bench: Make) -> None:
    """Content commits, also when the cut came with it: nobody else is asked, and the text is passed on before the error."""
    one = bench(registry("azure/sol", "openai/luna"))
    one.provider.script("azure/sol", [[*_events(chunks("Hello")[:3]), failed(K.DISCONNECTED)]])
    stream = await stream_of(one)
    assert "He" == texts(await anext(stream.batches))
    with pytest.raises(StreamInterruptedError):
        await anext(stream.batches)
    assert (1, "interrupted") == (len(one.provider.asked), one.record.attempts[0].outcome)


async def test_a_failure_in_one_packet_with_the_last_content_comes_after_it(bench: Make) -> None:
    """What came together is not lost with its failure."""
    one = bench(registry("azure/sol"))
    events = _events(chunks("Hello"))
    one.provider.script("azure/sol", [*events[:2], [*events[2:6], failed(K.DISCONNECTED)]])
    stream = await stream_of(one)
    got = [texts(await anext(stream.batches)), texts(await anext(stream.batches))]
    assert ["H", "ello"] == got
    with pytest.raises(StreamInterruptedError):
        await anext(stream.batches)


def _events(script: list[Chunk | Failed | Hang]) -> list[Chunk | Failed]:
    return [event for event in script if not isinstance(event, Hang)]


@pytest.mark.parametrize("events_read", [0, 1, 4])
async def test_a_client_that_leaves_a_stream_closes_it_and_pays_for_what_went_by(bench: Make, events_read: int) -> None:
    """Wherever it leaves, even before reading anything."""
    one = bench(registry("azure/sol"))
    one.provider.script("azure/sol", [*chunks("Hello")[:6], Hang()])
    stream = await stream_of(one)
    iterator = aiter(stream)
    for _ in range(events_read):
        await anext(iterator)
    await stream.aclose()
    await stream.aclose()
    assert ["azure/sol"] == one.provider.closed_early
    assert ("cancelled", False) == (one.record.outcome, one.record.exact)
    assert 0 == one.gateway.health.report(one.clock.seconds)["azure/sol"].in_flight


async def test_a_cost_limit_bounds_the_output_and_refuses_what_it_cannot_cover(bench: Make) -> None:
    """The bound the price was computed for is the bound that is sent."""
    one = bench(registry("azure/sol"))
    await complete(one.gateway, CALLER, request(budget_limit=40 * 1000 + 1000 * 2000), request_id="req_1")
    assert 1000 == one.provider.asked[0].payload["max_tokens"]
    with pytest.raises(InvalidRequestError) as caught:
        await complete(one.gateway, CALLER, request(budget_limit=40 * 1000 + 1000 * 2000 - 1), request_id="req_2")
    assert "budget_limit" == caught.value.param


async def test_a_plan_asks_nobody(bench: Make) -> None:
    """It only says who would be asked."""
    one = bench(registry("azure/sol", "openai/luna"))
    route = plan_route(one.gateway, CALLER, request().requirements)
    assert ["azure/sol", "openai/luna"] == [candidate.deployment for candidate in route.candidates]
    assert [] == one.provider.asked
    assert [] == one.written


async def test_a_probe_asks_only_who_is_shut_out_or_silent_and_is_accounted(bench: Make) -> None:
    """Whoever serves is left alone; an open breaker past its cooldown is closed by a good probe."""
    one = bench(registry("azure/sol", "openai/luna", "vllm/mine"))
    one.provider.script("azure/sol", *[failed(K.SERVER_ERROR)] * 3)
    for number in range(3):
        await complete(one.gateway, CALLER, request(), request_id=f"req_{number}")
    names = iter(f"req_probe_{number}" for number in range(10))
    assert {} == await probe(one.gateway, request_id=lambda: next(names))
    one.clock.seconds += 6
    assert {"azure/sol": True} == await probe(one.gateway, request_id=lambda: next(names))
    assert BreakerState.CLOSED is one.gateway.health.snapshot(one.clock.seconds).of("azure/sol").breaker
    assert ("probe", 20_000) == (one.written[-1].key_id, one.written[-1].cost)
    one.clock.seconds += 600
    assert {"azure/sol", "openai/luna"} == set(await probe(one.gateway, request_id=lambda: next(names)))


async def test_a_thousand_requests_at_once_are_each_written_down_once(bench: Make) -> None:
    """With every fifth failing once."""
    one = bench(registry("azure/sol", "openai/luna"))
    one.provider.script("azure/sol", *[failed(K.INVALID_REQUEST) if n % 5 == 0 else answer() for n in range(1000)])
    ids = [f"req_{number}" for number in range(1000)]
    await asyncio.gather(*(complete(one.gateway, CALLER, request(), request_id=name) for name in ids))
    assert sorted(ids) == sorted(record.request_id for record in one.written)
    assert 1200 == sum(len(record.attempts) for record in one.written)
    assert 1000 * 20_000 == sum(record.cost or 0 for record in one.written)


def test_what_is_our_fault_is_not_called_a_refusal() -> None:
    """An alert on failures must see a store that is away, an instance that sheds load, a catalog that is wrong."""
    errors = (
        StorageUnavailableError("away"),
        OverloadedError("full"),
        ConfigurationError("wrong"),
        PermissionDeniedError("no"),
    )
    assert ["storage_unavailable", "overloaded", "misconfigured", "refused"] == [outcome_name(error) for error in errors]
