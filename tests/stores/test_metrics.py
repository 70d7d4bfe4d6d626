"""Metrics: what all instances did, by the minute, merged; nothing counted twice, nothing lost in an outage of minutes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from shared.core.chat import Usage
from shared.core.errors import InvalidRequestError
from shared.core.records import AttemptRecord, RequestRecord
from shared.metrics import Metrics
from shared.metrics import series as series_module
from shared.ports import Action, Entity, Op, Tables
from tests.fakes import FakeClock

Record = Callable[..., RequestRecord]
Attempt = Callable[..., AttemptRecord]


@pytest.fixture
def metrics(tables: Tables, clock: FakeClock) -> Metrics:
    """Return the metrics of one instance."""
    return Metrics(tables, clock, "one")


@pytest.fixture
def other(tables: Tables, clock: FakeClock) -> Metrics:
    """Return the metrics of another instance on the same store."""
    return Metrics(tables, clock, "two")


async def test_requests_are_counted(metrics: Metrics, record: Record, attempt: Attempt) -> None:
    """Requests, attempts, fallbacks, errors by kind, tokens, cost and what of it is unknown."""
    failed = attempt(1, deployment="azure/small", model="small", outcome="rate_limited", usage=None, cost=0)
    metrics.observe(record(attempts=(failed, attempt(2))))
    metrics.observe(
        record(outcome="timeout", attempts=(attempt(1, outcome="timeout", cost=None), attempt(2, outcome="timeout")))
    )

    report = await metrics.report(60)

    total = report.total
    assert (total.requests, total.attempts, total.fallbacks) == (2, 4, 1)
    assert (total.errors, total.attempt_errors) == ({"timeout": 1}, {"rate_limited": 1, "timeout": 2})
    assert (total.input_tokens, total.output_tokens) == (300, 60)
    assert (total.cost, total.cost_unknown, total.error_rate) == (2 * 1_234, 1, 0.5)
    assert {name: (model.requests, model.attempts) for name, model in report.models.items()} == {
        "large": (2, 3),
        "small": (0, 1),
    }


async def test_quantiles_are_of_the_answers(metrics: Metrics, record: Record) -> None:
    """Within 1%; a failure's duration is not an answer's latency."""
    for number in range(1, 1_001):
        metrics.observe(record(duration_ms=float(number), first_content_ms=number / 10))
    metrics.observe(record(outcome="timeout", duration_ms=90_000.0))

    latency, first = (await metrics.report(60)).total.latency, (await metrics.report(60)).total.first_content

    assert latency.p50 == pytest.approx(500, rel=0.011)
    assert latency.p95 == pytest.approx(950, rel=0.011)
    assert latency.p99 == pytest.approx(990, rel=0.011)
    assert (latency.mean, latency.count) == (500.5, 1_000)
    assert first.p50 == pytest.approx(50, rel=0.011)


async def test_all_instances_are_one(metrics: Metrics, other: Metrics, record: Record, clock: FakeClock) -> None:
    """A report of any instance is of all: theirs once written, ours at once, nothing twice."""
    reports = []
    for minute in range(5):
        for number in range(10):
            metrics.observe(record(duration_ms=100.0 + minute))
            other.observe(record(duration_ms=200.0 + number))
        if minute % 2:
            await metrics.flush()
        await other.flush()
        reports.append(await metrics.report(600))
        clock.seconds += 60
    await metrics.flush()

    assert [report.total.requests for report in reports] == [20, 40, 60, 80, 100]
    ours, theirs = await metrics.report(600), await other.report(600)
    assert ours == theirs
    assert ours.total.latency.count == 100
    assert [point.summary.requests for point in ours.series if point.summary.requests] == [20] * 5


async def test_a_report_is_of_its_time_and_filter(metrics: Metrics, record: Record, clock: FakeClock) -> None:
    """The last seconds to the minute, over midnight, of one model or project."""
    clock.seconds = 86_400 - clock.epoch % 86_400 - 90  # a minute and a half before midnight
    for number in range(4):
        metrics.observe(record(model=f"m{number % 2}", project=f"p{number // 2}"))
        await metrics.flush()
        clock.seconds += 60

    assert (await metrics.report(80)).total.requests == 1
    assert (await metrics.report(3_600)).total.requests == 4
    assert (await metrics.report(3_600, model="large")).total.requests == 0
    assert (await metrics.report(3_600, model="m1", project="p1")).total.requests == 1
    assert sorted((await metrics.report(3_600, project="p1")).models) == ["large", "m0", "m1"]


async def test_a_series_has_every_step(metrics: Metrics, record: Record, clock: FakeClock) -> None:
    """Empty minutes are there as zeros; long ranges have longer steps; the points add up to the total."""
    metrics.observe(record())
    await metrics.flush()
    clock.seconds += 3 * 3_600
    metrics.observe(record())

    for seconds, step in (
        (60, 60),
        (3 * 3_600, 60),
        (4 * 3_600, 300),
        (86_400, 900),
        (7 * 86_400, 3_600),
        (31 * 86_400, 21_600),
    ):
        report = await metrics.report(seconds)
        assert report.step_seconds == step
        assert 1 <= len(report.series) <= series_module.MAX_POINTS + 2
        assert [b.start - a.start for a, b in zip(report.series, report.series[1:], strict=False)] == [step] * (
            len(report.series) - 1
        )
        assert sum(point.summary.requests for point in report.series) == report.total.requests == (1 if seconds == 60 else 2)


async def test_writing_needs_nobody_to_ask_for_it(metrics: Metrics, other: Metrics, record: Record) -> None:
    """What was observed reaches the others by itself, and then nothing is left running."""
    metrics.observe(record())
    assert metrics._task is not None
    await metrics._task

    assert (await other.report(60)).total.requests == 1


async def test_what_is_written_is_forgotten(metrics: Metrics, other: Metrics, record: Record, clock: FakeClock) -> None:
    """A process that runs for days keeps the current minute only, and still reports all of them."""
    for _ in range(200):
        metrics.observe(record())
        await metrics.flush()
        assert len(metrics._minutes) == 1
        clock.seconds += 60
    await metrics.flush()

    assert metrics._minutes == {}
    assert (await metrics.report(86_400)).total.requests == 200
    assert (await other.report(86_400)).total.requests == 200


async def test_an_outage_loses_nothing(
    metrics: Metrics, other: Metrics, record: Record, clock: FakeClock, weather: Any
) -> None:
    """What could not be written is written when the store is back."""
    weather.down = True
    for _ in range(5):
        metrics.observe(record())
        assert not await metrics.flush()
        clock.seconds += 60
    weather.down = False
    await metrics.aclose()

    assert (await other.report(600)).total.requests == 5
    assert len(metrics._minutes) <= 1


async def test_an_answer_that_is_lost_counts_once(metrics: Metrics, other: Metrics, record: Record, weather: Any) -> None:
    """A write that happened but could not be acknowledged is repeated without counting twice."""
    weather.down = weather.after = True
    metrics.observe(record())
    assert not await metrics.flush()
    weather.down = False
    metrics.observe(record())
    assert await metrics.flush()

    assert (await other.report(60)).total.requests == 2


async def test_memory_is_bounded(metrics: Metrics, record: Record, clock: FakeClock, weather: Any) -> None:
    """In a long outage the oldest minutes are given up; models nobody has heard of are counted together."""
    weather.down = True
    for minute in range(100):
        for number in range(400 if minute == 99 else 1):
            metrics.observe(record(model=None, attempts=(), original_model=f"made-up-{number}"))
        clock.seconds += 60

    assert len(metrics._minutes) == series_module.MAX_MINUTES
    weather.down = False
    report = await metrics.report(120)
    assert report.total.requests == 401
    assert len(report.models) == series_module.MAX_CELLS + 1
    assert report.models[series_module.OTHER].requests == 100


async def test_many_models_are_written_in_parts(metrics: Metrics, other: Metrics, record: Record) -> None:
    """A minute that needs more than one row, with names of any alphabet, comes back whole."""
    for number in range(290):
        for duration in range(60):
            metrics.observe(record(attempts=(), model=f"🔀{number}" * 20, duration_ms=1.1**duration))
    assert await metrics.flush()

    report = await other.report(60)

    assert (report.total.requests, len(report.models)) == (290 * 60, 290)
    assert report == await metrics.report(60)


async def test_odd_values_harm_nobody(metrics: Metrics, other: Metrics, record: Record, attempt: Attempt) -> None:
    """A clock set back, half an emoji, a model's name of a megabyte: counted, and written."""
    metrics.observe(record(duration_ms=-5.0, first_content_ms=math.nan, model="\ud83d"))
    metrics.observe(record(model="x" * 1_000_000, attempts=(attempt(usage=Usage(10**30), cost=10**30),)))
    assert await metrics.flush()

    report = await other.report(60)

    assert report.total.requests == 2
    assert report.total.latency.count == 1
    assert max(map(len, report.models)) == 128


async def test_a_restart_in_the_same_minute_adds(tables: Tables, clock: FakeClock, record: Record) -> None:
    """A process that comes back under the same name does not write over what its predecessor counted."""
    for _ in range(3):
        one = Metrics(tables, clock, "host/1:8000")
        one.observe(record())
        await one.aclose()
        clock.seconds += 0.5

    assert (await Metrics(tables, clock, "host/1:8000").report(60)).total.requests == 3


async def test_a_damaged_row_is_left_out(
    metrics: Metrics, other: Metrics, tables: Tables, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    """And reported in the log."""
    metrics.observe(record())
    await metrics.flush()
    good = await anext(tables.table("metrics").query("2026-11-18"))
    for number, text in enumerate(
        ["", "{}", "[1]", "[{}]", '[{"model":"a","project":"b"}]', str(good.properties["cells00"])[:-9]]
    ):
        broken = Entity("2026-11-18", f"{good.row[:4]}~broken~{number}", {"cells00": text})
        await tables.table("metrics").transact([Op(Action.UPSERT, broken)])
    await tables.table("metrics").transact(
        [Op(Action.UPSERT, Entity("2026-11-18", good.row[:4] + "~broken~9", {"cells00": 5}))]
    )

    assert (await other.report(60)).total.requests == 1
    assert caplog.text.count("damaged") == 7


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, 32 * 86_400])
async def test_a_range_that_makes_no_sense_is_refused(metrics: Metrics, seconds: float) -> None:
    """The parameter is named as the caller knows it."""
    with pytest.raises(InvalidRequestError) as refusal:
        await metrics.report(seconds)
    assert refusal.value.param == "time_range"


def test_observing_outside_any_loop(clock: FakeClock, tables: Tables, record: Record) -> None:
    """Never raises; a later loop reports it."""
    metrics = Metrics(tables, clock, "one")
    metrics.observe(record())

    async def later() -> int:
        metrics.observe(record())
        await metrics.aclose()
        return (await metrics.report(60)).total.requests

    assert asyncio.run(later()) == 2


async def test_the_day_so_far_is_the_same_at_every_instance(
    metrics: Metrics, other: Metrics, clock: FakeClock, record: Record
) -> None:
    """Only minutes that are over and written: no instance knows more of its own than others, so nobody's counters go back."""
    metrics.observe(record())
    other.observe(record(project="bank"))
    assert {} == (await metrics.today()).cells

    clock.seconds += 90 - clock.now() % 60  # half a minute into the next one
    await metrics.flush()
    await other.flush()
    metrics.observe(record())
    mine, theirs = await metrics.today(), await other.today()

    assert {("large", "search"): 1, ("large", "bank"): 1} == {key: cell.counts["requests"] for key, cell in mine.cells.items()}
    assert mine.until == theirs.until
    assert {key: cell.to_plain() for key, cell in mine.cells.items()} == {
        key: cell.to_plain() for key, cell in theirs.cells.items()
    }


async def test_the_day_so_far_grows_until_midnight(tables: Tables, record: Record) -> None:
    """Its last minute is counted before the sums begin anew; a new process says the same as one that read as it went."""
    clock, counting = FakeClock(), FakeClock()
    metrics = Metrics(tables, clock, "reading")
    midnight = (clock.now() // 86_400 + 1) * 86_400
    seen = []
    for moment in [*range(-6 * 3_600, 0, 600), -30]:
        counting.seconds = midnight + moment - counting.epoch
        counted = Metrics(tables, counting, "counting")
        counted.observe(record())
        await counted.aclose()
        clock.seconds = midnight + moment + 90 - clock.epoch
        read = [await one.today() for one in (metrics, Metrics(tables, clock, "fresh"))]
        seen.append([sum(cell.counts["requests"] for cell in totals.cells.values()) for totals in read])

    assert [[number, number] for number in range(1, 38)] == seen
    assert midnight == (await metrics.today()).until
    clock.seconds += 60
    assert (midnight + 60, {}) == ((await metrics.today()).until, (await metrics.today()).cells)


async def test_what_was_written_late_is_counted(metrics: Metrics, tables: Tables, clock: FakeClock, record: Record) -> None:
    """An instance could not write for an hour."""
    then = FakeClock()
    clock.seconds += 3_600
    assert {} == (await metrics.today()).cells

    late = Metrics(tables, then, "late")
    late.observe(record())
    await late.aclose()
    clock.seconds += 60
    assert 1 == len((await metrics.today()).cells)
