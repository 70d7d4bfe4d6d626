"""The beginning and the end of a batch."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from shared.batches import Batch, Counts, Part, Status
from shared.batching.preparing import first_problems
from shared.core.completion_events import delivery_of, event_of
from shared.core.errors import ConflictError, InvalidRequestError, NotFoundError, StorageUnavailableError
from shared.core.ids import instance_id
from shared.core.records import Caller
from shared.files import File, NewFile
from shared.gateway import Gateway
from shared.ports import ChainEngine

ORCHESTRATOR: Final = "run_batch"
VERSION: Final = 1
WIDTH: Final = 4
"""Slices at once: while the last lines of one are waited for, others go on. How many lines are in flight is for each process's
`shared.traffic` to say."""
MAX_FILE_BYTES: Final = 512 * 1024 * 1024
FIRST_LINES: Final = 2_000
"""Lines looked at before a batch is made, for one that is right."""
OUTPUT_SECONDS: Final = 30 * 86_400.0
UNSTARTED_SECONDS: Final = 30.0
OVERDUE_SECONDS: Final = 3 * 3600.0
"""After its window a batch has this long to end; then its engine has lost it."""
_AT_ONCE: Final = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewBatch:
    """What a batch is to be. ``seconds`` is the completion window's length, ``window`` how the caller put it."""

    id: str
    endpoint: str
    input_file: str
    window: str
    seconds: float
    webhook: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class NotToldError(Exception):
    """A webhook was not taken; the engine tries again."""


# ---- the beginning ---------------------------------------------------------------------------------------------------


async def start(gateway: Gateway, engine: ChainEngine, caller: Caller, new: NewBatch) -> Batch:
    """Store a batch and have the engine run it; raise `InvalidRequestError` when its file can't be used.

    With the id of a batch that is there, that one is returned. Once the batch is stored it will run: if the engine does not
    answer now, `sweep` starts it.
    """
    batch = await gateway.batches.find(new.id)
    if batch is None:
        await _check_file(gateway, caller, new)
        now = gateway.clock.now()
        batch = Batch(
            new.id,
            caller,
            new.endpoint,
            new.input_file,
            new.window,
            created_at=now,
            expires_at=now + new.seconds,
            version=VERSION,
            engine=engine.name,
            webhook=new.webhook,
            metadata=new.metadata,
        )
        batch = await gateway.batches.create(batch)
    elif batch.caller.key_id != caller.key_id:
        message = "There is another batch of this id."
        raise ConflictError(message)
    if batch.status is Status.VALIDATING:
        try:
            await _launch(engine, batch)
        except StorageUnavailableError as error:
            _log.warning("The batch %s will be started later: %s", batch.id, error.message)
    return batch


async def _check_file(gateway: Gateway, caller: Caller, new: NewBatch) -> None:
    try:
        file = await gateway.files.get(new.input_file, project=None if caller.admin else caller.project)
    except NotFoundError as error:
        raise _refusal(error.message, "file_not_found") from None
    if file.purpose != "batch":
        message = f"The file {file.id} was uploaded for `{file.purpose:.40}`. Upload it with the purpose `batch`."
        raise _refusal(message, "invalid_purpose")
    if file.size > MAX_FILE_BYTES:
        message = f"The file has {file.size} bytes; a batch takes at most {MAX_FILE_BYTES}. Split it."
        raise _refusal(message, "file_too_large")
    problems = await first_problems(gateway, file.id, new.endpoint, most=FIRST_LINES)
    if problems:
        message = f"No line of the file can be run. {problems[0].message}"
        raise _refusal(message, problems[0].code)


def _refusal(message: str, code: str) -> InvalidRequestError:
    return InvalidRequestError(message, param="input_file_id", code=code)


async def _launch(engine: ChainEngine, batch: Batch) -> None:
    given = {
        "version": batch.version,
        "id": batch.id,
        "width": WIDTH,
        "expires_at": batch.expires_at,
        "webhook": batch.webhook is not None,
    }
    await engine.start(ORCHESTRATOR, instance_id(batch.id, batch.created_at), given)


async def cancel(gateway: Gateway, engine: ChainEngine, batch_id: str) -> Batch:
    """Ask a batch to end: lines in flight are waited for, others are not begun. Twice is as good as once.

    Raise `ConflictError` when it has ended otherwise, `NotFoundError`, `StorageUnavailableError`.
    """
    now = gateway.clock.now()

    def cancelling(one: Batch) -> Batch:
        return one.become(Status.CANCELLING, now) if one.status in {Status.VALIDATING, Status.IN_PROGRESS} else one

    batch = await gateway.batches.change(batch_id, cancelling)
    if batch.status.ended and batch.status is not Status.CANCELLED:
        message = f"The batch {batch.id} can't be cancelled any more: it is {batch.status.value}."
        raise ConflictError(message, code=f"batch_{batch.status.value}")
    if batch.status is Status.CANCELLING:
        try:
            await engine.cancel(instance_id(batch.id, batch.created_at))
        except StorageUnavailableError as error:
            _log.warning("The batch %s learns later that it is cancelled: %s", batch.id, error.message)
    return batch


async def sweep(gateway: Gateway, engine: ChainEngine) -> int:
    """Start batches that were stored and never started, cancel again those that did not hear it; return how many."""
    touched, now = 0, gateway.clock.now()
    async for batch in gateway.batches.unfinished():
        if batch.engine != engine.name:
            continue
        if now - batch.expires_at > OVERDUE_SECONDS:
            touched += await lose(gateway, batch)
        elif batch.status is Status.VALIDATING and now - batch.created_at > UNSTARTED_SECONDS:
            await _launch(engine, batch)
            touched += 1
        elif batch.status is Status.CANCELLING:
            await engine.cancel(instance_id(batch.id, batch.created_at))
            touched += 1
    return touched


# ---- the end ---------------------------------------------------------------------------------------------------------


async def end(gateway: Gateway, given: Mapping[str, Any]) -> str:
    """Write a batch's end down and make its files; return its status. Twice is as good as once."""
    batch = await gateway.batches.get(given["id"])
    if batch.status.ended:
        return batch.status.value
    if given.get("broken"):
        message = "Something went wrong inside the gateway. The lines that are done are in the output file."
        return (await _end(gateway, batch, Status.FAILED, ("internal_error", message))).status.value
    now = gateway.clock.now()
    await gateway.batches.change(
        batch.id, lambda one: one.become(Status.FINALIZING, now) if one.status is Status.IN_PROGRESS else one
    )
    return (await _end(gateway, batch, None, None)).status.value


async def lose(gateway: Gateway, batch: Batch) -> bool:
    """End a batch whose engine has forgotten it: what is done can be downloaded. Return True."""
    message = (
        "The process that ran this was stopped, and the engine of one machine forgets its work at its end. The lines that are "
        "done are in the output file; send the others again."
    )
    await _end(gateway, batch, Status.FAILED, ("batch_lost", message))
    with contextlib.suppress(NotToldError, StorageUnavailableError):  # no engine is left to try again
        await notify(gateway, {"id": batch.id})
    return True


async def _end(gateway: Gateway, batch: Batch, status: Status | None, error: tuple[str, str] | None) -> Batch:
    counts = await _sum(gateway, batch)
    output = await _file(gateway, batch, Part.OUTPUT, counts.output_bytes) if counts.completed else None
    errors = await _file(gateway, batch, Part.ERRORS, counts.error_bytes) if counts.failed else None
    now = gateway.clock.now()
    told = () if error is None else ({"code": error[0], "message": error[1], "param": None, "line": None},)

    def ended(one: Batch) -> Batch:
        return replace(
            one.become(status or _status(one, counts), now),
            counts=counts,
            output_file=None if output is None else output.id,
            error_file=None if errors is None else errors.id,
            errors=(*one.errors, *told),
        )

    return await gateway.batches.change(batch.id, ended)


def _status(batch: Batch, counts: Counts) -> Status:
    if counts.expired:
        return Status.EXPIRED
    return Status.COMPLETED if batch.cursor.scanned and counts.ended >= batch.cursor.requests else Status.CANCELLED


async def _sum(gateway: Gateway, batch: Batch) -> Counts:
    """Add up what slices came to, and keep whoever may still run one from adding to it."""
    total = Counts()
    for start_at in range(0, batch.cursor.slices, _AT_ONCE):
        numbers = range(start_at, min(start_at + _AT_ONCE, batch.cursor.slices))
        for head in await asyncio.gather(*(gateway.batches.slices.seal(batch.id, number) for number in numbers)):
            total += Counts() if head is None else head.counts
    return total


async def _file(gateway: Gateway, batch: Batch, part: Part, size: int) -> File:
    kind = "output" if part is Part.OUTPUT else "error"
    new = NewFile(batch.caller.project, f"{batch.id}_{kind}.jsonl", "batch_output", OUTPUT_SECONDS)
    return await gateway.files.add_composed(new, file_id=file_of(batch.id, part), size=size, batch=batch.id)


def file_of(batch_id: str, part: Part) -> str:
    """Return the id of a batch's file of that kind: the same whenever it is made."""
    return "file-" + hashlib.sha256(f"{batch_id}|{part.value}".encode()).hexdigest()[:32]


async def notify(gateway: Gateway, given: Mapping[str, Any]) -> None:
    """Tell a batch's webhook that it has ended. Raise `NotToldError`: then the engine tries again."""
    batch = await gateway.batches.get(given["id"])
    if batch.webhook is None or gateway.webhook is None:
        return
    status = batch.status.value
    event = event_of("batch", batch.id, status, batch.moments.get(status, gateway.clock.now()))
    problem = await gateway.webhook.send(batch.webhook, event, delivery=delivery_of(batch.id, status))
    if problem is not None:
        raise NotToldError(problem)
