"""What callers thought of an answer: one rating per request and caller, the latest wins."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from shared.core.errors import InvalidRequestError, NotFoundError
from shared.core.fields import Fields
from shared.core.records import Caller
from shared.ports import Action, Clock, Entity, Op, Tables, Value
from shared.usage import UsageLog
from shared.usage.rows import day_of, place_of

TABLE: Final = "feedback"
RATINGS: Final = range(1, 6)
MAX_TEXT: Final = 4_000

_DAYS: Final = "days"
_MAX_MODEL: Final = 256
_SAFE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """The ratings of one model's answers: how many of each, and their mean."""

    model: str
    count: int
    mean: float
    ratings: Mapping[int, int] = field(default_factory=dict)


class Feedback:
    """Ratings, attached to the requests in the usage log."""

    def __init__(self, tables: Tables, usage: UsageLog, clock: Clock) -> None:
        self._table = tables.table(TABLE)
        self._usage = usage
        self._clock = clock

    async def record(self, request_id: str, rating: int, feedback: str | None = None, *, caller: Caller | None = None) -> None:
        """Keep a rating from 1 to 5 and a text of up to 4,000 characters; a caller's second one replaces the first.

        Raise `InvalidRequestError` naming the field, and `NotFoundError` for a request that is not known, or that another
        project made (an admin may rate any).
        """
        _check(request_id, rating, feedback)
        stored = await self._usage.find(request_id)
        if stored is None or not _may_rate(caller, stored.record.project):
            message = "There is no request of that id. It is in the response's header x-request-id."
            raise NotFoundError(message, param="request_id")
        by = "anonymous" if caller is None else caller.key_id
        record = stored.record
        properties: dict[str, Value] = {
            "request_id": request_id,
            "key_id": by,
            "project": record.project,
            "model": (record.model or record.original_model)[:_MAX_MODEL],
            "task": record.task,
            "rating": rating,
            "created_at": self._clock.now(),
        }
        if feedback:
            properties["feedback"] = feedback
        place = place_of(request_id)
        await self._table.transact([Op(Action.UPSERT, Entity(_DAYS, place.day))])
        row = f"{place.name}~{_as_key(by)}"
        await self._table.transact([Op(Action.UPSERT, Entity(place.day, row, properties))])

    async def report(self, start: float, end: float, *, project: str | None = None) -> list[FeedbackRow]:
        """Return the ratings of requests made on the UTC days from ``start`` to ``end`` (inclusive), by model."""
        found: dict[str, Counter[int]] = {}
        async for day in self._table.query(_DAYS, start=day_of(start), end=day_of(end) + "~"):
            async for entity in self._table.query(day.row):
                row = Fields(entity.properties)
                try:
                    model, rating = row.text("model"), row.whole("rating")
                except ValueError as error:
                    _log.error("The feedback row %s is damaged and left out: %s", entity.row, error)
                    continue
                if project is None or row.find_text("project") == project:
                    found.setdefault(model, Counter())[rating] += 1
        return [_row(model, ratings) for model, ratings in sorted(found.items())]


def _row(model: str, ratings: Counter[int]) -> FeedbackRow:
    total = sum(rating * count for rating, count in ratings.items())
    return FeedbackRow(model, ratings.total(), total / ratings.total(), dict(sorted(ratings.items())))


def _check(request_id: object, rating: object, feedback: object) -> None:
    if not isinstance(request_id, str) or not request_id:
        message = "`request_id` must be the id of a request: the response's header x-request-id."
        raise InvalidRequestError(message, param="request_id")
    if not isinstance(rating, int) or isinstance(rating, bool) or rating not in RATINGS:
        message = f"`rating` must be a whole number from {RATINGS[0]} to {RATINGS[-1]}."
        raise InvalidRequestError(message, param="rating")
    if feedback is None:
        return
    if not isinstance(feedback, str) or len(feedback) > MAX_TEXT:
        message = f"`feedback` must be text of at most {MAX_TEXT} characters."
        raise InvalidRequestError(message, param="feedback")
    if any("\ud800" <= letter <= "\udfff" for letter in feedback):
        message = "`feedback` must be Unicode text; it holds half an emoji."
        raise InvalidRequestError(message, param="feedback")


def _may_rate(caller: Caller | None, project: str) -> bool:
    return caller is None or caller.admin or caller.project == project


def _as_key(name: str) -> str:
    return name if _SAFE.fullmatch(name) else hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
