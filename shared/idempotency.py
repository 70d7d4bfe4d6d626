"""Answers kept under a caller's ``Idempotency-Key``: the same key and body are answered once and billed once.

The first call inserts a row, which only one can do; its answer is put beside it when it is whole. Who comes with the same key
gets that answer; while it is not there yet, a conflict that says when to come back; with another body, a conflict for good.
What was not answered well is forgotten, so that it can be tried again. Rows are found by a hash of caller and key alone.

Calls that may *join* do work that is found by an id which follows from the key (`functions.idempotent.chain_id`): made twice it
is still one. So nobody waits for a first call that may be dead: the second goes the same way, and finds or makes the same work.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from shared.core.errors import ConflictError, InvalidRequestError, StorageUnavailableError
from shared.core.fields import Fields
from shared.ports import (
    MAX_TRANSACTION,
    Action,
    Clock,
    Entity,
    EntityChangedError,
    EntityExistsError,
    EntityNotFoundError,
    EntityTable,
    Op,
    Tables,
    Value,
)

TABLE: Final = "idempotency"
HEADER: Final = "Idempotency-Key"
KEPT_SECONDS: Final = 24 * 3600.0
ABANDONED_SECONDS: Final = 600.0
"""After which a call whose answer has not come is taken for dead, with its process."""
ASK_AGAIN_SECONDS: Final = 1.0
PRUNE_SECONDS: Final = 300.0
PRUNED_AT_ONCE: Final = 8
"""Partitions that one run of `Idempotency.prune` looks through; the clock says which. Run every `PRUNE_SECONDS`, it comes round
in under three hours. All 256 every time would be most of what an idle gateway asks of its store, and read every answer kept."""
MAX_ANSWER: Final = 3_000_000
"""Bytes of the largest answer that is kept: what fits into one transaction."""

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_CHUNK: Final = 60_000
_CHUNKS_IN_ROW: Final = 15
_PARTITIONS: Final = tuple(f"{number:02x}" for number in range(256))
_TRIES: Final = 5


class InFlightError(ConflictError):
    """A call with the same key is being answered; ``retry_after`` says when to ask again."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer as it was sent: status, headers as pairs, body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Begun:
    """A call that is the first with its key, and must be ended by `Idempotency.keep` or `Idempotency.release`."""

    partition: str
    row: str
    etag: str
    properties: dict[str, Value]


class Idempotency:
    """The kept answers of this gateway. ``make_token`` gives a new name for each call."""

    def __init__(self, tables: Tables, clock: Clock, *, make_token: Callable[[], str] = lambda: secrets.token_hex(8)) -> None:
        self._table: EntityTable = tables.table(TABLE)
        self._clock = clock
        self._make_token = make_token

    async def begin(self, caller: str, key: str, request: bytes, *, joins: bool = False) -> Begun | KeptAnswer:
        """Return the answer that is kept, or take note that this call will make it.

        ``request`` is everything that must be the same: path and body. ``joins`` says that this call may be made beside
        another that joins: the last one is then the one whose answer is kept.

        Raise `InvalidRequestError` for a key that is none, `ConflictError` for one that was used with another request,
        `InFlightError` while the first call is being answered.
        """
        if _KEY.fullmatch(key) is None:
            message = f"`{HEADER}` must be 1 to 255 printable ASCII characters without spaces, such as a UUID."
            raise InvalidRequestError(message, param=HEADER, code="invalid_idempotency_key")
        digest = hashlib.sha256(f"{caller}\0{key}".encode()).hexdigest()
        partition, row = digest[:2], digest[2:]
        properties: dict[str, Value] = {
            "state": "running",
            "request": hashlib.sha256(request).hexdigest(),
            "at": self._clock.now(),
            "token": self._make_token(),
            "joins": joins,
        }
        for _ in range(_TRIES):
            try:
                return Begun(partition, row, await self._table.insert(Entity(partition, row, properties)), properties)
            except EntityExistsError:
                found = await self._found(partition, row, properties)
                if found is not None:
                    return found
            except StorageUnavailableError:  # it may have landed: then nobody else would ever end the call
                found = await self._found(partition, row, properties)
                if found is None:
                    raise
                return found
        message = f"Calls with this `{HEADER}` come too fast one after the other. Try again."
        raise InFlightError(message, code="idempotency_in_progress", retry_after=ASK_AGAIN_SECONDS)

    async def _found(self, partition: str, row: str, properties: dict[str, Value]) -> Begun | KeptAnswer | None:
        """Return what a row that is there means; None when it has gone meanwhile."""
        entity = await self._table.get(partition, row)
        if entity is None:
            return None
        kept = Fields(entity.properties)
        if kept.find_text("token") == properties["token"]:
            return Begun(partition, row, entity.etag, properties)
        age = self._clock.now() - kept.number("at")
        running = kept.text("state") == "running"
        if age >= (ABANDONED_SECONDS if running else KEPT_SECONDS):
            return await self._taken_over(entity, properties)
        if kept.text("request") != properties["request"]:
            message = f"This `{HEADER}` was used with another request. Take a new key for a new request."
            raise ConflictError(message, param=HEADER, code="idempotency_key_reused")
        if running and kept.flag("joins") and properties["joins"]:
            return await self._taken_over(entity, properties)
        if running:
            message = f"A request with this `{HEADER}` is being answered. Ask again in a moment."
            raise InFlightError(message, code="idempotency_in_progress", retry_after=ASK_AGAIN_SECONDS)
        if kept.flag("too_large"):
            message = f"The answer to this `{HEADER}` was given, and is too large to be kept. Take a new key to ask again."
            raise ConflictError(message, param=HEADER, code="idempotent_answer_too_large")
        return await self._answer(entity, kept)

    async def _taken_over(self, entity: Entity, properties: dict[str, Value]) -> Begun | None:
        """Make a row this call's; None when somebody else was faster."""
        try:
            etag = await self._table.replace(Entity(entity.partition, entity.row, properties, entity.etag))
        except (EntityChangedError, EntityNotFoundError):
            return None
        return Begun(entity.partition, entity.row, etag, properties)

    async def _answer(self, entity: Entity, kept: Fields) -> KeptAnswer:
        lines = kept.text("headers").split("\n") if kept.text("headers") else []
        body = [
            properties[name]
            async for part in self._table.query(entity.partition, start=f"{entity.row}~", end=f"{entity.row}~~")
            for properties in (part.properties,)
            for name in sorted(properties)
        ]
        pairs = [line.partition(": ") for line in lines]
        return KeptAnswer(
            kept.whole("status"),
            tuple((name, value) for name, _, value in pairs),
            # After the end of this answer there may be the rest of a longer one that had the key before.
            b"".join(part for part in body if isinstance(part, bytes))[: kept.whole("size")],
        )

    async def keep(self, begun: Begun, answer: KeptAnswer) -> None:
        """Keep the answer; raise `StorageUnavailableError`. One whose call was taken for dead is left to who came after."""
        fits = len(answer.body) <= MAX_ANSWER
        properties: dict[str, Value] = {
            **begun.properties,
            "state": "done",
            "status": answer.status,
            "headers": "\n".join(f"{name}: {value}" for name, value in answer.headers),
            "too_large": not fits,
            "size": len(answer.body),
        }
        ops = [Op(Action.REPLACE, Entity(begun.partition, begun.row, properties, begun.etag))]
        if fits:
            ops += [Op(Action.UPSERT, part) for part in _parts(begun, answer.body)]
        try:
            await self._table.transact(ops)
        except (EntityChangedError, EntityNotFoundError):
            return
        except StorageUnavailableError:  # once more does no harm: the ETag tells whether it landed
            with contextlib.suppress(EntityChangedError, EntityNotFoundError):
                await self._table.transact(ops)

    async def release(self, begun: Begun) -> None:
        """Forget the call: it was not answered well, and may be tried again. Raise `StorageUnavailableError`."""
        try:
            await self._table.delete(begun.partition, begun.row, begun.etag)
        except (EntityChangedError, EntityNotFoundError):
            return

    async def prune(self) -> int:
        """Delete what is kept no longer in some of the partitions; return how many rows. For a timer: see `PRUNED_AT_ONCE`."""
        now, deleted = self._clock.now(), 0
        first = int(now / PRUNE_SECONDS) * PRUNED_AT_ONCE
        for number in range(first, first + PRUNED_AT_ONCE):
            partition = _PARTITIONS[number % len(_PARTITIONS)]
            gone = False
            doomed: list[Entity] = []
            async for entity in self._table.query(partition):
                if "~" not in entity.row:
                    gone = Fields(entity.properties).number("at") < now - KEPT_SECONDS
                if gone:
                    doomed.append(entity)
            for at in range(0, len(doomed), MAX_TRANSACTION):
                await self._forget(doomed[at : at + MAX_TRANSACTION])
            deleted += len(doomed)
        return deleted

    async def _forget(self, doomed: Sequence[Entity]) -> None:
        """Delete rows, some of which somebody else may be deleting as well, or using again: those stay."""
        try:
            await self._table.transact([Op(Action.DELETE, Entity(one.partition, one.row, etag=one.etag)) for one in doomed])
        except (EntityChangedError, EntityNotFoundError):
            for one in doomed:
                with contextlib.suppress(EntityChangedError, EntityNotFoundError):
                    await self._table.delete(one.partition, one.row, one.etag)


def _parts(begun: Begun, body: bytes) -> Sequence[Entity]:
    size = _CHUNK * _CHUNKS_IN_ROW
    return [
        Entity(
            begun.partition,
            f"{begun.row}~{at // size:02}",
            {
                f"b{start // _CHUNK:02}": body[at : at + size][start : start + _CHUNK]
                for start in range(0, min(size, len(body) - at), _CHUNK)
            },
        )
        for at in range(0, len(body), size)
    ]
