"""How a request is laid out in the table ``usage``: one row, which holds it with its attempts and its trace as one JSON text.

A request belongs to the UTC day its id was made. A day is spread over `SHARDS` partitions by the id's last letter, because one
partition of Table Storage takes 2,000 rows a second; more shards would only make transactions smaller. Within a partition rows
are ordered by id and therefore by time: a report asks for just its range of time.

    2026-11-22-5   r~req_01K…       the request: ``json00`` and, if it is long, ``json01`` and so on
    days           2026-11-22       that day has rows; made before the first of them

An id that is not ours has no time: it goes to the day ``undated``, under its hash.

The text is what orjson makes of the record as it is, in one go: this is on every request's way. What it refuses (integers over
64 bits, half an emoji) or what is too long for a row is mended first. JSON has no NaN: a number that is null was none.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from shared.core import ids
from shared.core.chat import Operation, Usage
from shared.core.fields import Fields
from shared.core.records import AttemptRecord, RequestRecord
from shared.ports import Entity

TABLE: Final = "usage"
DAYS: Final = "days"
UNDATED: Final = "undated"
SHARDS: Final = 4

REQUEST: Final = "r~"

_CHUNK: Final = 30_000
"""UTF-16 units of text per property: 60 KB of the 64 that fit."""
_MAX_TEXT: Final = 480_000
"""UTF-16 units of all of a row: 0.96 of the 1 MiB that fits."""
_MAX_TRACE: Final = 360_000
_HEAD: Final = 20_000
_MEND_TO: Final = (4_000, 200, 20)
"""Characters that a text of a request is cut to when it does not fit otherwise."""
_INT64: Final = (1 << 63) - 1

Document = Mapping[str, Any]
"""What a row's text says: the fields of a `RequestRecord`, by name."""


SLOT_SECONDS: Final = 900
"""A day's slots are what is rolled up at once, see `shared.usage.days`."""
SLOTS: Final = 96
_SLOT_MS: Final = SLOT_SECONDS * 1000


class Place(NamedTuple):
    """Where a request's rows are. ``slot`` is the quarter of an hour of its day, -1 for what is undated."""

    day: str
    partition: str
    name: str
    slot: int

    @property
    def request(self) -> str:
        """The key of its row."""
        return REQUEST + self.name


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A request as it was written down. ``pending`` is True while it is not in the store yet."""

    record: RequestRecord
    pending: bool = False

    @property
    def attempts(self) -> tuple[AttemptRecord, ...]:
        """Its attempts, in order."""
        return self.record.attempts

    @property
    def trace(self) -> Mapping[str, Any]:
        """The decision: inputs and route. ``truncated`` in it says that it was too large to keep."""
        return self.record.trace


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """An attempt with what is known of its request."""

    request_id: str
    key_id: str
    project: str
    operation: str
    original_model: str
    task: str
    stream: bool
    simulated: bool
    attempt: AttemptRecord


def place_of(request_id: str) -> Place:
    """Return where the rows of the request with this id are, or would be."""
    try:
        moment = ids.time_of(request_id)
    except ValueError:
        return undated_place(request_id)
    day = day_of(moment)
    return Place(day, f"{day}-{ord(request_id[-1]) % SHARDS}", request_id, round(moment * 1000) // _SLOT_MS % SLOTS)


def undated_place(request_id: str) -> Place:
    """Return where the rows of a request are that can't be with those of its day."""
    digest = hashlib.sha256(request_id.encode("utf-8", "surrogatepass")).hexdigest()
    return Place(UNDATED, UNDATED, digest, -1)


def partitions_of(day: str) -> tuple[str, ...]:
    """Return the partitions of a day (or of what is undated)."""
    return (UNDATED,) if day == UNDATED else tuple(f"{day}-{shard}" for shard in range(SHARDS))


def day_of(moment: float) -> str:
    """Return the UTC day of a moment."""
    return _day(int(moment // 86_400))


@lru_cache(maxsize=64)
def _day(days: int) -> str:
    return datetime.fromtimestamp(days * 86_400, UTC).date().isoformat()


# ---- to rows ---------------------------------------------------------------------------------------------------------


def text_of(record: RequestRecord) -> str:
    """Return a record as a row's text; raise `TypeError`, `ValueError` or `AttributeError` for what is no record."""
    for attempt in record.attempts:
        if type(attempt) is not AttemptRecord:
            message = "An attempt of it is none."
            raise TypeError(message)
    try:
        data = orjson.dumps(record)
    except TypeError:
        return _mended(record)
    text = data.decode()
    # Bytes are never fewer than UTF-16 units.
    return text if len(data) <= _CHUNK or _units(text) <= _MAX_TEXT else _mended(record)


def entity(text: str, place: Place) -> Entity:
    """Return the row of a request with this text."""
    return Entity(place.partition, place.request, properties_of(text))


def fits(text: str) -> bool:
    """Return whether a row can hold a text."""
    return _units(text) <= _MAX_TEXT


def properties_of(text: str) -> dict[str, str]:
    """Return a row's properties that hold a text."""
    if len(text) <= _CHUNK // 2:
        return {"json00": text}
    step = _CHUNK if text.isascii() else _CHUNK // 2
    return {f"json{at // step:02}": text[at : at + step] for at in range(0, len(text), step)}


def _units(text: str) -> int:
    return len(text) if text.isascii() else 2 * len(text)


def _mended(record: RequestRecord) -> str:
    """Return the text of a record with what can't be kept made to fit: a provider may send numbers and texts of any size."""
    trace = orjson.Fragment(_trace(record.trace))
    for limit in _MEND_TO:
        mended = {one.name: _fitting(getattr(record, one.name), limit) for one in fields(record) if one.name != "trace"}
        text = orjson.dumps({**mended, "trace": trace}).decode()
        if _units(text) <= _MAX_TEXT:
            return text
        trace = orjson.Fragment(b'{"truncated":true,"reason":"the request is too long"}')
    message = "It has too many attempts for a row."
    raise ValueError(message)


def _trace(trace: Mapping[str, Any]) -> str:
    try:
        text = orjson.dumps(trace, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError as error:
        return orjson.dumps({"truncated": True, "reason": f"not JSON: {type(error).__name__}"}).decode()
    if _units(text) > _MAX_TRACE:
        return orjson.dumps({"truncated": True, "characters": len(text), "head": text[:_HEAD]}).decode()
    return text


def _fitting(value: object, limit: int) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()[:limit]
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-_INT64, min(value, _INT64))
    if isinstance(value, tuple):
        return [_fitting(one, limit) for one in value]
    if isinstance(value, Mapping):
        return {_fitting(name, limit): _fitting(one, limit) for name, one in value.items()}
    if is_dataclass(value):
        return {one.name: _fitting(getattr(value, one.name), limit) for one in fields(value)}
    return value


# ---- from rows -------------------------------------------------------------------------------------------------------


def document(row: Entity) -> Document:
    """Return what a row says; raise `ValueError` when it says nothing that could be a request."""
    return document_in(text_in(row))


def text_in(row: Entity) -> str:
    """Return the text that a row holds; raise `ValueError` when it holds none."""
    properties = Fields(row.properties)
    return "".join([properties.text(name) for name in sorted(row.properties)])


def document_in(text: str) -> Document:
    """Return what a row's text says; raise `ValueError` as `document` does."""
    found = orjson.loads(text)
    if not isinstance(found, dict) or not isinstance(found.get("attempts"), list):
        message = "it is not a request"
        raise ValueError(message)  # noqa: TRY004 - the row is wrong, not a caller's type
    if not all(isinstance(attempt, dict) for attempt in found["attempts"]):
        message = "an attempt is not an object"
        raise ValueError(message)
    return found


def stored_request(found: Document) -> StoredRequest:
    """Return the request that a row's document is; raise `ValueError` when it can't be one."""
    row = Fields(found)
    trace = found.get("trace")
    if not isinstance(trace, dict):
        message = "the trace is not an object"
        raise ValueError(message)  # noqa: TRY004 - as above
    record = RequestRecord(
        request_id=row.text("request_id"),
        key_id=row.text("key_id"),
        project=row.text("project"),
        operation=Operation(row.text("operation")),
        original_model=row.text("original_model"),
        task=row.text("task"),
        stream=row.flag("stream"),
        started_at=_number(row, "started_at"),
        duration_ms=_number(row, "duration_ms"),
        outcome=row.text("outcome"),
        attempts=tuple(attempt_in(Fields(attempt)) for attempt in found["attempts"]),
        model=row.find_text("model"),
        deployment=row.find_text("deployment"),
        first_content_ms=row.find_number("first_content_ms"),
        cost=row.find_whole("cost"),
        exact=row.flag("exact"),
        simulated=row.flag("simulated"),
        billed=row.find_whole("billed"),
        recovered=row.flag("recovered"),
        chain=row.find_text("chain"),
        tags=tags_in(found.get("tags")),
        trace=trace,
    )
    return StoredRequest(record)


def stored_attempts(found: Document) -> list[StoredAttempt]:
    """Return the attempts of the request that a row's document is; raise `ValueError` when it can't be one."""
    record = stored_request(found).record
    return [
        StoredAttempt(
            request_id=record.request_id,
            key_id=record.key_id,
            project=record.project,
            operation=record.operation.value,
            original_model=record.original_model,
            task=record.task,
            stream=record.stream,
            simulated=record.simulated,
            attempt=attempt,
        )
        for attempt in record.attempts
    ]


def attempt_in(row: Fields) -> AttemptRecord:
    """Return the attempt that a row's fields tell; raise `ValueError` when they can't be one."""
    return AttemptRecord(
        number=row.whole("number"),
        deployment=row.text("deployment"),
        model=row.text("model"),
        provider=row.text("provider"),
        started_at=_number(row, "started_at"),
        duration_ms=_number(row, "duration_ms"),
        outcome=row.text("outcome"),
        region=row.find_text("region"),
        status=row.find_whole("status"),
        first_content_ms=row.find_number("first_content_ms"),
        usage=usage_in(row),
        cost=row.find_whole("cost"),
        exact=row.flag("exact"),
        response_model=row.find_text("response_model"),
        provider_request_id=row.find_text("provider_request_id"),
        message=row.find_text("message"),
        semconv_name=row.find_text("semconv_name"),
    )


def tags_in(found: object) -> Mapping[str, str]:
    """Return what a row says its tags are; raise `ValueError` for what are none. Rows from before there were any have none."""
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        message = "the tags are not texts by name"
        raise ValueError(message)
    return found


def usage_in(attempt: Fields) -> Usage | None:
    """Return the usage that an attempt's fields tell; raise `ValueError` when they can't be one."""
    row = attempt.find_fields("usage")
    if row is None:
        return None
    return Usage(
        input_tokens=row.whole("input_tokens"),
        output_tokens=row.whole("output_tokens"),
        cache_read=row.whole("cache_read"),
        cache_creation=row.whole("cache_creation"),
        reasoning=row.whole("reasoning"),
        service_tier=row.find_text("service_tier"),
        exact=row.flag("exact"),
    )


def _number(row: Fields, name: str) -> float:
    found = row.find_number(name)
    return math.nan if found is None else found
