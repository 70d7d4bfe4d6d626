"""How a request is laid out in the table ``usage``: one row for it, one per attempt, one for its trace, written together.

A request belongs to the UTC day its id was made. A day is spread over `SHARDS` partitions by the id's last letter, because one
partition of Table Storage takes 2,000 rows a second and a request is three; the whole account takes 20,000, so more shards
would only make transactions smaller. Within a partition the kinds are apart, each ordered by id and therefore by time: a
report reads attempts without dragging traces along, and asks for just its range of time.

    2026-11-22-5   a~req_01K…~001   an attempt
                   r~req_01K…       the request
                   t~req_01K…       its trace
    days           2026-11-22       that day has rows; made before the first of them

An id that is not ours has no time: it goes to the day ``undated``, under its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import orjson

from shared.core import ids
from shared.core.chat import Operation, Usage
from shared.core.fields import Fields
from shared.core.records import AttemptRecord, RequestRecord
from shared.ports import Entity, Value

TABLE: Final = "usage"
DAYS: Final = "days"
UNDATED: Final = "undated"
SHARDS: Final = 8

ATTEMPT: Final = "a~"
REQUEST: Final = "r~"
TRACE: Final = "t~"

_CHUNK: Final = 30_000
"""UTF-16 units of trace per property: 60 KB of the 64 that fit."""
_MAX_TRACE: Final = 360_000
_HEAD: Final = 20_000
_INT64: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request's rows are."""

    day: str
    partition: str
    name: str

    @property
    def request(self) -> str:
        """The key of its row."""
        return REQUEST + self.name

    @property
    def trace(self) -> str:
        """The key of its trace."""
        return TRACE + self.name

    @property
    def attempts(self) -> tuple[str, str]:
        """The range of its attempts."""
        return f"{ATTEMPT}{self.name}~", f"{ATTEMPT}{self.name}~~"


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
        digest = hashlib.sha256(request_id.encode("utf-8", "surrogatepass")).hexdigest()
        return Place(UNDATED, UNDATED, digest)
    day = day_of(moment)
    return Place(day, f"{day}-{ord(request_id[-1]) % SHARDS}", request_id)


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


def entities(record: RequestRecord, place: Place) -> list[Entity]:
    """Return the rows of a request: its attempts, itself, its trace."""
    common: dict[str, Value] = {
        "request_id": record.request_id,
        "key_id": record.key_id,
        "project": record.project,
        "operation": str(record.operation),
        "original_model": record.original_model,
        "task": record.task,
        "stream": record.stream,
        "simulated": record.simulated,
        "requested_at": record.started_at,
    }
    found = [
        Entity(place.partition, f"{ATTEMPT}{place.name}~{number:03}", {**common, **_attempt(attempt)})
        for number, attempt in enumerate(record.attempts, 1)
    ]
    found.append(Entity(place.partition, place.request, {**common, **_request(record)}))
    if record.trace:
        found.append(Entity(place.partition, place.trace, _trace(record.trace)))
    return found


def _request(record: RequestRecord) -> dict[str, Value]:
    found: dict[str, Value | None] = {
        "duration_ms": record.duration_ms,
        "outcome": record.outcome,
        "model": record.model,
        "deployment": record.deployment,
        "provider": record.attempts[-1].provider if record.attempts else None,
        "first_content_ms": record.first_content_ms,
        "cost": record.cost,
        "exact": record.exact,
        "attempts": len(record.attempts),
    }
    return _present(found)


def _attempt(attempt: AttemptRecord) -> dict[str, Value]:
    found: dict[str, Value | None] = {
        "number": attempt.number,
        "deployment": attempt.deployment,
        "model": attempt.model,
        "provider": attempt.provider,
        "region": attempt.region,
        "started_at": attempt.started_at,
        "duration_ms": attempt.duration_ms,
        "first_content_ms": attempt.first_content_ms,
        "outcome": attempt.outcome,
        "status": attempt.status,
        "cost": attempt.cost,
        "exact": attempt.exact,
        "response_model": attempt.response_model,
        "provider_request_id": attempt.provider_request_id,
        "message": attempt.message,
    }
    usage = attempt.usage
    if usage is not None:
        found["input_tokens"] = usage.input_tokens
        found["output_tokens"] = usage.output_tokens
        found["cache_read"] = usage.cache_read
        found["cache_creation"] = usage.cache_creation
        found["reasoning"] = usage.reasoning
        found["service_tier"] = usage.service_tier
        found["usage_exact"] = usage.exact
    return _present(found)


def _present(found: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in found.items() if value is not None}


def _trace(trace: Mapping[str, Any]) -> dict[str, Value]:
    try:
        text = orjson.dumps(trace, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError as error:
        text = orjson.dumps({"truncated": True, "reason": f"not JSON: {type(error).__name__}"}).decode()
    if _units(text) > _MAX_TRACE:
        text = orjson.dumps({"truncated": True, "characters": len(text), "head": text[:_HEAD]}).decode()
    step = _CHUNK if text.isascii() else _CHUNK // 2
    return {f"json{at // step:02}": text[at : at + step] for at in range(0, len(text), step)}


def _units(text: str) -> int:
    return len(text) if text.isascii() else 2 * len(text)


def mended(entity: Entity) -> Entity:
    """Return the row with what Table Storage can't hold made to fit: a provider may send numbers and texts of any size."""
    return Entity(entity.partition, entity.row, {name: _mended(value) for name, value in entity.properties.items()})


def _mended(value: Value) -> Value:
    if isinstance(value, str):
        text = value.encode("utf-8", "replace").decode()
        return text[:_CHUNK] if text.isascii() else text[: _CHUNK // 2]
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-_INT64, min(value, _INT64))
    return value


# ---- from rows -------------------------------------------------------------------------------------------------------


def stored_request(request: Entity, attempts: list[Entity], trace: Entity | None) -> StoredRequest:
    """Return the request from its rows; raise `ValueError` when they can't be one."""
    row = Fields(request.properties)
    record = RequestRecord(
        request_id=row.text("request_id"),
        key_id=row.text("key_id"),
        project=row.text("project"),
        operation=Operation(row.text("operation")),
        original_model=row.text("original_model"),
        task=row.text("task"),
        stream=row.flag("stream"),
        started_at=row.number("requested_at"),
        duration_ms=row.number("duration_ms"),
        outcome=row.text("outcome"),
        attempts=tuple(stored_attempt(entity).attempt for entity in attempts),
        model=row.find_text("model"),
        deployment=row.find_text("deployment"),
        first_content_ms=row.find_number("first_content_ms"),
        cost=row.find_whole("cost"),
        exact=row.flag("exact"),
        simulated=row.flag("simulated"),
        trace={} if trace is None else _read_trace(trace),
    )
    return StoredRequest(record)


def stored_attempt(entity: Entity) -> StoredAttempt:
    """Return the attempt in a row; raise `ValueError` when there is none."""
    row = Fields(entity.properties)
    attempt = AttemptRecord(
        number=row.whole("number"),
        deployment=row.text("deployment"),
        model=row.text("model"),
        provider=row.text("provider"),
        started_at=row.number("started_at"),
        duration_ms=row.number("duration_ms"),
        outcome=row.text("outcome"),
        region=row.find_text("region"),
        status=row.find_whole("status"),
        first_content_ms=row.find_number("first_content_ms"),
        usage=_usage(row),
        cost=row.find_whole("cost"),
        exact=row.flag("exact"),
        response_model=row.find_text("response_model"),
        provider_request_id=row.find_text("provider_request_id"),
        message=row.find_text("message"),
    )
    return StoredAttempt(
        request_id=row.text("request_id"),
        key_id=row.text("key_id"),
        project=row.text("project"),
        operation=row.text("operation"),
        original_model=row.text("original_model"),
        task=row.text("task"),
        stream=row.flag("stream"),
        simulated=row.flag("simulated"),
        attempt=attempt,
    )


def _usage(row: Fields) -> Usage | None:
    input_tokens = row.find_whole("input_tokens")
    if input_tokens is None:
        return None
    return Usage(
        input_tokens=input_tokens,
        output_tokens=row.whole("output_tokens"),
        cache_read=row.whole("cache_read"),
        cache_creation=row.whole("cache_creation"),
        reasoning=row.whole("reasoning"),
        service_tier=row.find_text("service_tier"),
        exact=row.flag("usage_exact"),
    )


def _read_trace(entity: Entity) -> Mapping[str, Any]:
    found = orjson.loads("".join(_chunks(entity)))
    if not isinstance(found, dict):
        message = "the trace is not an object"
        raise ValueError(message)  # noqa: TRY004 - the row is wrong, not a caller's type
    return found


def _chunks(entity: Entity) -> Iterator[str]:
    for name in sorted(entity.properties):
        yield Fields(entity.properties).text(name)
