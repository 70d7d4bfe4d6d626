"""Feedback: one rating per request and caller, the latest wins, added up by model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.core.errors import InvalidRequestError, NotFoundError, StorageUnavailableError
from shared.core.records import Caller, RequestRecord
from shared.feedback import Feedback, FeedbackRow
from shared.ports import Action, Entity, Op, Tables
from shared.usage import UsageLog
from tests.fakes import FakeClock

Record = Callable[..., RequestRecord]


@pytest.fixture
def usage(tables: Tables, clock: FakeClock) -> UsageLog:
    """Return an empty usage log."""
    return UsageLog(tables, clock)


@pytest.fixture
def feedback(tables: Tables, usage: UsageLog, clock: FakeClock) -> Feedback:
    """Return feedback over that log."""
    return Feedback(tables, usage, clock)


@pytest.fixture
def known(usage: UsageLog, record: Record) -> Callable[..., str]:
    """Return a maker of requests that are in the log."""

    def make(**changes: Any) -> str:
        one = record(**changes)
        usage.record(one)
        return one.request_id

    return make


async def report(feedback: Feedback, clock: FakeClock, **filters: str) -> list[FeedbackRow]:
    """Return the ratings of the last day."""
    return await feedback.report(clock.now() - 86_400, clock.now(), **filters)


async def test_ratings_add_up_by_model(feedback: Feedback, clock: FakeClock, known: Callable[..., str]) -> None:
    """The model that answered is what was rated."""
    for rating in (5, 4, 1):
        await feedback.record(known(), rating, "fine")
    await feedback.record(known(model="small"), 2)

    assert await report(feedback, clock) == [
        FeedbackRow("large", 3, 10 / 3, {1: 1, 4: 1, 5: 1}),
        FeedbackRow("small", 1, 2.0, {2: 1}),
    ]


async def test_the_latest_rating_of_a_caller_wins(feedback: Feedback, clock: FakeClock, known: Callable[..., str]) -> None:
    """Also days later; another caller's is another one."""
    request_id = known()
    ann, bob = Caller("key_a", "search"), Caller("key_b", "search")
    await feedback.record(request_id, 1, "bad", caller=ann)
    await feedback.record(request_id, 3, caller=bob)
    asked = clock.now()
    clock.seconds += 3 * 86_400
    await feedback.record(request_id, 5, "I was wrong", caller=ann)

    assert await feedback.report(asked, asked) == [FeedbackRow("large", 2, 4.0, {3: 1, 5: 1})]


async def test_a_project_rates_its_own_requests(feedback: Feedback, clock: FakeClock, known: Callable[..., str]) -> None:
    """To another project a request does not exist; an admin may rate any."""
    request_id = known(project="search")
    with pytest.raises(NotFoundError):
        await feedback.record(request_id, 1, caller=Caller("key_c", "shop"))
    await feedback.record(request_id, 4, caller=Caller("admin", "admin", admin=True))

    assert [row.count for row in await report(feedback, clock, project="search")] == [1]
    assert await report(feedback, clock, project="shop") == []


@pytest.mark.parametrize("request_id", ["req_1", "nonsense", "req_01ARYZ6S410000000000000000", "🔀/#?", "\ud83d"])
async def test_a_request_nobody_made_can_not_be_rated(feedback: Feedback, request_id: str) -> None:
    """Unknown and malformed ids are not found."""
    with pytest.raises(NotFoundError):
        await feedback.record(request_id, 5)


@pytest.mark.parametrize("rating", [0, 6, -1, 2**80, True, 4.0, 4.5, "5", None])
async def test_a_rating_is_1_to_5(feedback: Feedback, known: Callable[..., str], rating: Any) -> None:
    """Anything else is refused by name."""
    with pytest.raises(InvalidRequestError) as refusal:
        await feedback.record(known(), rating)
    assert refusal.value.param == "rating"


@pytest.mark.parametrize("text", ["x" * 4_001, 5, "half an emoji \ud83d", ["x"]])
async def test_a_text_that_can_not_be_kept_is_refused(feedback: Feedback, known: Callable[..., str], text: Any) -> None:
    """Up to 4,000 characters of Unicode."""
    with pytest.raises(InvalidRequestError) as refusal:
        await feedback.record(known(), 5, text)
    assert refusal.value.param == "feedback"


async def test_the_longest_text_is_kept(feedback: Feedback, tables: Tables, known: Callable[..., str]) -> None:
    """4,000 emoji, with controls and all, for a caller whose id could not be a key."""
    text = "🔀" * 3_999 + "\x00"
    await feedback.record(known(), 5, text, caller=Caller("odd/id#?", "search"))

    assert [row.properties["feedback"] async for row in tables.table("feedback").query("2026-11-18")] == [text]


async def test_a_damaged_row_is_left_out(
    feedback: Feedback, tables: Tables, clock: FakeClock, known: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """And reported in the log."""
    await feedback.record(known(), 5)
    await tables.table("feedback").transact([Op(Action.UPSERT, Entity("2026-11-18", "x", {"rating": "5"}))])

    assert [row.count for row in await report(feedback, clock)] == [1]
    assert "damaged" in caplog.text


async def test_a_store_that_does_not_answer_is_said(feedback: Feedback, known: Callable[..., str], weather: Any) -> None:
    """A rating that could not be kept is an error, not a thank you."""
    weather.down = True
    with pytest.raises(StorageUnavailableError):
        await feedback.record(known(), 5)
