"""Usage: every attempt is written down once, whatever the store does, and adds up."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.adapters.tables import open_tables
from shared.core import ids
from shared.core.chat import Operation, Usage
from shared.core.errors import InvalidRequestError, StorageUnavailableError
from shared.core.records import AttemptRecord, RequestRecord
from shared.ports import Action, Entity, Op, Tables
from shared.usage import UsageLog, UsageQuery, UsageRow
from shared.usage import log as log_module
from shared.usage.rows import place_of
from tests.fakes import FakeClock

Record = Callable[..., RequestRecord]
Attempt = Callable[..., AttemptRecord]
DAY = 86_400.0


def always(*group_by: str, **filters: Any) -> UsageQuery:
    """Return a query over all times."""
    return UsageQuery(0, math.inf, group_by, **filters)


async def total(log: UsageLog) -> UsageRow:
    """Return the sum of everything."""
    found = await log.report(always())
    return found[0] if found else UsageRow()


# ---- writing and finding ---------------------------------------------------------------------------------------------


async def test_a_record_is_found_at_once_and_after_it_was_written(log: UsageLog, record: Record) -> None:
    """A request can be looked up the moment it has ended, and is afterwards exactly what was recorded."""
    one = record()
    log.record(one)

    waiting = await log.find(one.request_id)
    await log.flush()
    stored = await log.find(one.request_id)

    assert waiting is not None
    assert (waiting.record, waiting.pending) == (one, True)
    assert stored is not None
    assert (stored.record, stored.pending) == (one, False)
    assert stored.trace == one.trace


async def test_everything_in_a_record_comes_back(log: UsageLog, record: Record, attempt: Attempt) -> None:
    """No field is lost: not one of a failed attempt, of a stream, of a simulated or an unknown cost."""
    one = record(
        operation=Operation.EMBEDDINGS,
        stream=True,
        outcome="interrupted",
        attempts=(
            attempt(1, outcome="rate_limited", status=429, usage=None, cost=0, message="Slow down 🐌", region="eastus"),
            attempt(2, cost=None, exact=False, first_content_ms=12.5, response_model="large-2026", usage=Usage(1, exact=False)),
            attempt(3, provider_request_id="abc-1", status=None),
        ),
        first_content_ms=99.5,
        cost=None,
        exact=False,
        simulated=True,
        model=None,
        deployment=None,
        trace={"nested": [{"a": None, "b": [1, 2.5, "ü"]}], "empty": {}},
    )
    log.record(one)
    await log.flush()

    stored = await log.find(one.request_id)

    assert stored is not None
    assert stored.record == one


async def test_writing_needs_nobody_to_ask_for_it(log: UsageLog, record: Record) -> None:
    """Records reach the store by themselves, and then nothing is left running."""
    log.record(record())
    task = log._task
    assert task is not None
    await task

    assert (await total(log)).requests == 1
    log.record(record())
    assert log._task is not task
    await log.aclose()


def test_a_record_outside_any_loop_waits_for_one(clock: FakeClock, record: Record) -> None:
    """Recording never raises; a later loop writes what an earlier one, or none, has left."""
    tables = open_tables("memory:")
    log = UsageLog(tables, clock)
    log.record(record())

    async def interrupted() -> None:
        log.record(record())  # and the loop is gone before it was written

    async def later() -> UsageRow:
        log.record(record())
        await log.flush()
        found = await total(log)
        await tables.aclose()
        return found

    asyncio.run(interrupted())

    assert asyncio.run(later()).requests == 3


async def test_closing_writes_what_waits(log: UsageLog, record: Record) -> None:
    """Nothing that was taken is left behind at a normal end."""
    taken = [record() for _ in range(2_345)]
    for one in taken:
        log.record(one)
    await log.aclose()

    assert (await total(log)).requests == 2_345
    assert all([await log.find(one.request_id) is not None for one in taken[::97]])
    assert log.dropped == 0


async def test_transactions_are_full_but_never_too_large(log: UsageLog, weather: Any, record: Record) -> None:
    """Records that wait together are written together, at most a hundred rows at a time."""
    for _ in range(900):
        log.record(record())
    await log.flush()

    assert max(weather.sizes) <= 100
    assert weather.writes <= 900 / 100 + 2 * 4 + 1


# ---- once ------------------------------------------------------------------------------------------------------------


async def test_a_request_recorded_twice_counts_once(log: UsageLog, record: Record, tables: Tables, clock: FakeClock) -> None:
    """While it waits, after it was written, and by another process."""
    one, two = record(), record()
    log.record(one)
    log.record(one)
    await log.flush()
    log.record(one)
    log.record(two)
    await log.flush()
    other = UsageLog(tables, clock)
    other.record(two)
    await other.flush()

    found = await total(log)
    assert (found.requests, found.attempts, found.cost) == (2, 2, 2_468)
    assert (log.duplicates, other.duplicates) == (2, 1)
    assert (log.dropped, other.dropped) == (0, 0)


async def test_an_answer_that_is_lost_counts_once(log: UsageLog, weather: Any, record: Record) -> None:
    """The store wrote, but could not say so: the retry finds the rows and doubles nothing."""
    log.record(record())
    await log.flush()
    weather.down = weather.after = True
    for _ in range(50):
        log.record(record())
    with pytest.raises(StorageUnavailableError):
        await log.flush()
    weather.down = False
    await log.flush()

    found = await total(log)
    assert (found.requests, found.attempts) == (51, 51)
    assert log.dropped == 0


async def test_a_store_that_does_not_answer_is_asked_again(
    log: UsageLog, weather: Any, record: Record, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Records wait through an outage, with longer and longer pauses, and are all written afterwards."""
    log.record(record())
    await log.flush()
    clock.slept.clear()
    weather.down = True
    for _ in range(30):
        log.record(record())
    for _ in range(200):
        await asyncio.sleep(0)
    assert "wait for the store" in caplog.text
    weather.down = False
    assert log._task is not None
    await log._task

    assert (await total(log)).requests == 31
    assert clock.slept[1:4] == sorted(clock.slept[1:4])
    assert max(clock.slept) <= log_module.MAX_BACKOFF_SECONDS


# ---- bounds ----------------------------------------------------------------------------------------------------------


async def test_memory_is_bounded(
    log: UsageLog, weather: Any, record: Record, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a long outage traces are given up first, then whole records; both are counted, and the log says so loudly."""
    monkeypatch.setattr(log_module, "MAX_TRACES", 10)
    monkeypatch.setattr(log_module, "MAX_PENDING", 20)
    weather.down = True
    made = [record() for _ in range(30)]
    for one in made:
        log.record(one)

    assert (log.dropped, log.dropped_traces) == (10, 10)
    assert [r.levelno for r in caplog.records if "full" in r.message] == [logging.ERROR] * 4  # the 1st, 2nd, 4th and 8th
    weather.down = False
    await log.flush()
    assert (await total(log)).requests == 20
    without = await log.find(made[15].request_id)
    assert without is not None
    assert without.trace["truncated"] is True


async def test_closing_gives_up_in_the_end(
    log: UsageLog, weather: Any, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that stays away does not keep a process from ending; what is lost is counted."""
    weather.down = True
    log.record(record())
    await log.aclose()

    assert log.dropped == 1
    assert "1 usage records are lost" in caplog.text


@pytest.mark.parametrize("letter", ["a", "ü", "🔀", '"'])
@pytest.mark.parametrize("size", [29_990, 30_000, 61_000, 170_000])
async def test_a_large_trace_is_split(log: UsageLog, record: Record, letter: str, size: int) -> None:
    """A trace that needs more than one property comes back whole."""
    one = record(trace={"note": letter * size})
    log.record(one)
    await log.flush()

    stored = await log.find(one.request_id)

    assert stored is not None
    assert stored.trace == one.trace
    assert (log.dropped, (await total(log)).requests) == (0, 1)


@pytest.mark.parametrize(
    "trace",
    [{"note": "a" * 5_000_000}, {"note": "🔀" * 400_000}, {"note": {1, 2}}, {"note": "\ud83d"}, {"note": 2**80}],
)
async def test_a_trace_that_can_not_be_kept_is_marked(log: UsageLog, record: Record, trace: dict[str, Any]) -> None:
    """A huge trace, or one that is not JSON, is replaced by a mark; the request and its attempts are kept."""
    one = record(trace=trace)
    log.record(one)
    await log.flush()

    stored = await log.find(one.request_id)

    assert stored is not None
    assert stored.trace["truncated"] is True
    assert stored.attempts == one.attempts


async def test_broken_values_are_mended_and_harm_nobody(log: UsageLog, record: Record, attempt: Attempt) -> None:
    """A provider may report anything: numbers over 64 bits, half an emoji, texts of a megabyte, NaN. All is accounted."""
    odd = record(
        original_model="x" * 1_000_000,
        duration_ms=math.nan,
        attempts=(
            attempt(1, usage=Usage(10**30, -(10**30)), cost=10**30, message="\ud83d" * 100_000),
            attempt(2, response_model="🔀" * 500_000, provider_request_id="\x00"),
        ),
    )
    for one in (record(), odd, record()):
        log.record(one)
    await log.flush()

    stored = await log.find(odd.request_id)
    assert stored is not None
    assert stored.attempts[0].cost == 2**63 - 1
    assert stored.attempts[0].usage == Usage(2**63 - 1, 1 - 2**63)
    assert math.isnan(stored.record.duration_ms)
    assert stored.attempts[1].provider_request_id == "\x00"
    assert stored.trace == odd.trace
    assert ((await total(log)).requests, (await total(log)).attempts) == (3, 4)
    assert log.dropped == 0


async def test_what_is_no_record_is_dropped_alone(log: UsageLog, record: Record) -> None:
    """A record of wrong types is counted as lost and keeps nobody else from being written."""
    for one in (record(), record(attempts=(None,)), record(project=object()), record()):
        log.record(one)
    await log.flush()

    assert (await total(log)).requests == 2
    assert log.dropped == 2


async def test_more_attempts_than_a_property_holds(log: UsageLog, record: Record, attempt: Attempt) -> None:
    """A request with hundreds of attempts is one row of many properties, written whole, and once."""
    one = record(attempts=tuple(attempt(number) for number in range(1, 251)))
    for _ in range(2):
        log.record(one)
        log.record(record())
        await log.flush()

    stored = await log.find(one.request_id)
    assert stored is not None
    assert stored.record == one
    assert (await total(log)).attempts == 252
    assert log.duplicates == 1


@pytest.mark.parametrize("request_id", ["req_1", "", "a/b#c?", "🔀", "\ud83d", "x" * 5_000])
async def test_an_id_that_is_not_ours_is_accounted_too(log: UsageLog, record: Record, request_id: str) -> None:
    """It has no time of its own, but its request has."""
    one = record(request_id=request_id)
    log.record(one)
    await log.flush()

    assert (await log.report(always("day")))[0].group == {"day": "2026-11-18"}
    assert await log.report(UsageQuery(0, one.started_at)) == []
    assert await log.find(request_id) is not None
    assert (log.dropped, [a.request_id for a in [x async for x in log.rows(0, math.inf)]]) == (
        0,
        [request_id.encode("utf-8", "replace").decode()],
    )


async def test_too_much_for_a_row_is_cut_until_it_fits(log: UsageLog, record: Record, attempt: Attempt) -> None:
    """A request that is too long loses its trace and the ends of its texts, never an attempt or an amount."""
    many = tuple(attempt(number, message="x" * 10_000) for number in range(1, 201))
    one = record(attempts=many, trace={"note": "a" * 300_000})
    log.record(one)
    await log.flush()

    stored = await log.find(one.request_id)

    assert stored is not None
    assert stored.trace["truncated"] is True
    assert [(found.number, found.cost, found.usage) for found in stored.attempts] == [
        (made.number, made.cost, made.usage) for made in many
    ]
    assert log.dropped == 0


# ---- reports ---------------------------------------------------------------------------------------------------------


async def test_a_report_adds_up(log: UsageLog, record: Record, attempt: Attempt) -> None:
    """Requests count where they were answered, attempts where they were made; what is unknown is counted, never zero."""
    failed = attempt(1, deployment="azure/small", model="small", outcome="rate_limited", usage=None, cost=0)
    log.record(record(attempts=(failed, attempt(2))))
    log.record(
        record(project="shop", outcome="interrupted", attempts=(attempt(1, cost=None, exact=False, outcome="interrupted"),))
    )
    log.record(record(outcome="no_candidate", attempts=(), model=None, deployment=None, original_model="unheard-of", cost=0))

    rows = {row.group["model"]: row for row in await log.report(always("model"))}

    assert set(rows) == {"large", "small", "unheard-of"}
    large = rows["large"]
    assert (large.requests, large.attempts, large.errors) == (2, 2, {"interrupted": 1})
    assert (large.input_tokens, large.output_tokens) == (200, 40)
    assert (large.cache_read, large.cache_creation, large.reasoning) == (100, 10, 14)
    assert (large.cost, large.cost_unknown, large.underestimates, large.exact) == (1_234, 1, 1, False)
    assert (rows["small"].requests, rows["small"].attempts) == (0, 1)
    assert rows["small"].attempt_errors == {"rate_limited": 1}
    assert (rows["small"].cost, rows["small"].exact) == (0, True)
    assert rows["unheard-of"] == UsageRow({"model": "unheard-of"}, requests=1, errors={"no_candidate": 1})


async def test_a_report_filters_and_groups(log: UsageLog, record: Record, clock: FakeClock) -> None:
    """By each dimension alone and by several together, ordered by their values."""
    for number, (project, task) in enumerate([("a", "x"), ("a", "y"), ("b", "x")] * 2):
        log.record(record(project=project, task=task, key_id=f"key_{number}"))
        clock.seconds += 3_600

    by = {name: [row.group[name] for row in await log.report(always(name))] for name in ("project", "task", "provider")}
    both = [(tuple(row.group.values()), row.requests) for row in await log.report(always("project", "task"))]
    hours = [row.group["hour"] for row in await log.report(always("hour"))]

    assert by == {"project": ["a", "b"], "task": ["x", "y"], "provider": ["azure"]}
    assert both == [(("a", "x"), 2), (("a", "y"), 2), (("b", "x"), 2)]
    assert len(hours) == 6
    assert hours[0] == "2026-11-18T11"
    assert [row.requests for row in await log.report(always("key", project="b"))] == [1, 1]
    assert (await log.report(always(model="large", task="x", operation="chat", provider="azure")))[0].attempts == 4
    assert await log.report(always(deployment="elsewhere")) == []


async def test_a_report_is_of_its_time(log: UsageLog, record: Record, clock: FakeClock) -> None:
    """From the start, up to but without the end, over the turns of days, whenever it was written."""
    moments = []
    for _ in range(6):
        moments.append(clock.now())
        log.record(record())
        clock.seconds += DAY / 2

    sums = await log.report(UsageQuery(moments[1], moments[4], ("day",)))
    assert sum(row.requests for row in sums) == 3
    assert sum(row.attempts for row in sums) == 3
    assert len({row.group["day"] for row in sums}) == 2
    assert [await log.report(UsageQuery(at, at)) for at in moments] == [[]] * 6
    assert len([row async for row in log.rows(moments[2], moments[5])]) == 3


async def test_a_question_that_makes_no_sense_is_refused(log: UsageLog) -> None:
    """The message names what can be asked."""
    with pytest.raises(InvalidRequestError, match="project") as refusal:
        await log.report(always("colour"))
    assert refusal.value.param == "group_by"
    for start, end in ((2.0, 1.0), (math.nan, 1.0), (0.0, math.nan)):
        with pytest.raises(InvalidRequestError):
            await log.report(UsageQuery(start, end))


async def test_a_damaged_row_is_left_out_and_reported(
    log: UsageLog, tables: Tables, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows that somebody broke do not hide the others, count not even in part, and are not passed over in silence."""
    good = record()
    log.record(good)
    await log.flush()
    plain = {"outcome": "succeeded", "attempts": [{"outcome": "succeeded", "cost": 1, "exact": True}]}
    for broken in (
        {"json00": "{"},
        {"json00": 5},
        {"json00": "[]"},
        {"json00": '{"attempts": [1]}'},
        {"json00": json.dumps({**plain, "outcome": 5})},
        {"json00": json.dumps({**plain, "attempts": [*plain["attempts"], {"outcome": "succeeded", "cost": "much"}]})},
        {"json00": json.dumps({**plain, "attempts": [{"outcome": "succeeded", "usage": {"input_tokens": "many"}}]})},
        {"json00": json.dumps({**plain, "attempts": [{"outcome": "succeeded", "usage": 5}]})},
        {},
    ):
        caplog.clear()
        one = record()
        place = place_of(one.request_id)
        await tables.table("usage").transact([Op(Action.UPSERT, Entity(place.partition, place.request, broken))])

        found = await total(log)

        assert (found.requests, found.attempts) == (1, 1), broken
        assert [row.request_id async for row in log.rows(0, math.inf)] == [good.request_id]
        assert caplog.text.count("damaged") == 2
        with pytest.raises(StorageUnavailableError, match="damaged"):
            await log.find(one.request_id)
        await tables.table("usage").transact([Op(Action.DELETE, Entity(place.partition, place.request, etag="*"))])


async def test_a_request_nobody_made_is_not_found(log: UsageLog) -> None:
    """Unknown ids are no error."""
    assert await log.find(ids.request_id(1e9, 1)) is None
    assert await log.find("nonsense") is None


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.one_of(st.none(), st.integers(0, 10**12))), max_size=40))
async def test_the_sum_of_the_groups_is_the_sum_of_the_attempts(made: list[tuple[int, int, int | None]]) -> None:
    """Whatever was recorded, every grouping adds up to the nano-dollar."""
    clock = FakeClock()
    tables = open_tables("memory:")
    log = UsageLog(tables, clock)
    for number, (project, attempts, cost) in enumerate(made):
        tries = tuple(
            AttemptRecord(n, f"d{n}", f"m{n % 2}", "p", clock.now(), 1.0, "succeeded", cost=cost)
            for n in range(1, attempts + 1)
        )
        log.record(
            RequestRecord(
                ids.request_id(clock.now(), number), "k", f"p{project}", Operation.CHAT, "auto", "t", False, clock.now(), 1.0,
                "succeeded", tries,
            )
        )  # fmt: skip
        clock.seconds += 10_000

    for group in ("project", "model", "day", "deployment"):
        rows = await log.report(always(group))
        assert sum(row.cost for row in rows) == sum((cost or 0) * attempts for _, attempts, cost in made)
        assert sum(row.cost_unknown for row in rows) == sum(attempts for _, attempts, cost in made if cost is None)
        assert sum(row.requests for row in rows) == len(made)
    await log.aclose()
    await tables.aclose()
