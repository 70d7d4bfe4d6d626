"""A batch's rows, in the table ``batches``.

b~ID        0           the BATCH: who asked for what, until when, and how it ended
open        ID          batches that have not ended
all         TIME~ID     every batch, the newest first; also as ``p~PROJECT``
d~DAY       ID          batches by the day they began
u~FILE      ID          unfinished batches that read a file
i~ID        NNNNNN      a SLICE of the input: where it begins, how many lines it has
h~ID        NNNNNN      digests of a slice's custom_ids, until they have been compared
x~ID        NNNNNN      the lines of a slice whose custom_id an earlier line has
g~ID        NNNNNN      a copy of what a slice has counted, to add up without reading every slice
s~ID~NNNNNN             see `shared.batches.slices`
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import orjson

from shared.core.fields import Fields
from shared.core.records import Caller
from shared.ports import Entity, Value
from shared.stored import caller_in, caller_out, json_in, present, text_of

TABLE: Final = "batches"
HEAD: Final = "0"
OPEN: Final = "open"
ALL: Final = "all"
_END_OF_TIME: Final = 9_999_999_999_999


class Status(StrEnum):
    """Where a batch stands, in OpenAI's words."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Say whether nothing will change it any more."""
        return self in _ENDED


_ENDED: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.EXPIRED, Status.CANCELLED})


class Part(StrEnum):
    """Which of a batch's two files: answers, or what went wrong. The values begin the rows of outcomes."""

    OUTPUT = "o"
    ERRORS = "e"


@dataclass(frozen=True, slots=True)
class Counts:
    """What lines came to; ``failed`` has those that ``expired``.

    ``cost`` is nano-USD over all their attempts; what is not known of ``unpriced`` lines is not in it.
    """

    completed: int = 0
    failed: int = 0
    expired: int = 0
    output_bytes: int = 0
    error_bytes: int = 0
    cost: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = asdict(self), asdict(other)
        return Counts(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def ended(self) -> int:
        """Lines that have an outcome."""
        return self.completed + self.failed


_COUNTED: Final = tuple(one.name for one in fields(Counts))


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the input has been looked through: bytes, lines of the file, requests among them, and slices made of these."""

    offset: int = 0
    line: int = 1
    requests: int = 0
    valid: int = 0
    slices: int = 0
    scanned: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch. Times are seconds since the epoch; ``moments`` is when it came into each status.

    ``engine`` is who runs it: ``durable``, or the name of a local engine, which forgets at its end. ``errors`` are OpenAI's
    objects ``{"code", "message", "param", "line"}``. ``counts`` are final once it has ended.
    """

    id: str
    caller: Caller
    endpoint: str
    input_file: str
    window: str
    created_at: float
    expires_at: float
    version: int = 1
    engine: str = "durable"
    webhook: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    status: Status = Status.VALIDATING
    moments: Mapping[str, float] = field(default_factory=dict)
    cursor: Cursor = Cursor()
    counts: Counts = Counts()
    output_file: str | None = None
    error_file: str | None = None
    errors: tuple[Mapping[str, Any], ...] = ()
    etag: str = ""

    def become(self, status: Status, moment: float) -> Batch:
        """Return the batch in another status."""
        return replace(self, status=status, moments={**self.moments, status.value: moment})


@dataclass(frozen=True, slots=True)
class Progress:
    """A batch with what its lines have come to so far."""

    batch: Batch
    counts: Counts


def partition_of(batch: str) -> str:
    """Return the partition of a batch."""
    return "b~" + batch


def day_of(moment: float) -> str:
    """Return the partition of the batches that began on a day."""
    return "d~" + datetime.fromtimestamp(moment, UTC).date().isoformat()


def listed_in(batch: Batch) -> tuple[str, str]:
    """Return the partitions that list a batch. A project's name may hold what a key can't."""
    return ALL, project_of(batch.caller.project)


def project_of(name: str) -> str:
    """Return the partition of a project's batches."""
    return "p~" + hashlib.sha256(name.encode()).hexdigest()[:32]


def newest_row(batch: Batch) -> str:
    """Return the row of a batch among those of its project: later ones come first."""
    return f"{_END_OF_TIME - round(batch.created_at * 1000):013}~{batch.id}"


def slice_row(number: int) -> str:
    """Return the row of a slice."""
    return f"{number:06}"


def batch_entity(batch: Batch) -> Entity:
    """Return a batch as a row."""
    properties: dict[str, Value | None] = {
        "caller": caller_out(batch.caller),
        "endpoint": batch.endpoint,
        "input_file": batch.input_file,
        "window": batch.window,
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        "version": batch.version,
        "engine": batch.engine,
        "webhook": batch.webhook,
        "metadata": text_of(batch.metadata),
        "status": batch.status.value,
        "moments": text_of(batch.moments),
        "cursor": text_of(asdict(batch.cursor)),
        "counts": text_of(asdict(batch.counts)),
        "output_file": batch.output_file,
        "error_file": batch.error_file,
        "errors": text_of(batch.errors),
    }
    return Entity(partition_of(batch.id), HEAD, present(properties), batch.etag)


def batch_in(entity: Entity) -> Batch:
    """Return the batch in a row; raise `ValueError` when it is damaged."""
    row = Fields(entity.properties)
    cursor, metadata, moments = (Fields(json_in(row.text(name))) for name in ("cursor", "metadata", "moments"))
    return Batch(
        id=entity.partition.removeprefix("b~"),
        caller=caller_in(row.text("caller")),
        endpoint=row.text("endpoint"),
        input_file=row.text("input_file"),
        window=row.text("window"),
        created_at=row.number("created_at"),
        expires_at=row.number("expires_at"),
        version=row.whole("version"),
        engine=row.text("engine"),
        webhook=row.find_text("webhook"),
        metadata={name: metadata.text(name) for name in metadata.names()},
        status=Status(row.text("status")),
        moments={name: moments.number(name) for name in moments.names()},
        cursor=Cursor(
            offset=cursor.whole("offset"),
            line=cursor.whole("line"),
            requests=cursor.whole("requests"),
            valid=cursor.whole("valid"),
            slices=cursor.whole("slices"),
            scanned=cursor.flag("scanned"),
        ),
        counts=counts_in(json_in(row.text("counts"))),
        output_file=row.find_text("output_file"),
        error_file=row.find_text("error_file"),
        errors=tuple(orjson.loads(row.text("errors"))),
        etag=entity.etag,
    )


def counts_in(written: Mapping[str, Any]) -> Counts:
    """Return counts as they were written; raise `ValueError`."""
    read = Fields(written)
    return Counts(**{name: read.find_whole(name) or 0 for name in _COUNTED})
