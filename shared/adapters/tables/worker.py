"""One thread with one SQLite connection, which does everything queued in one go and then tells every caller at once.

Writes that wait together are committed together: one flush of the file pays for all of them. Each is still atomic on its own
(a statement, or a savepoint), and callers hear of it only after the commit.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Final

from shared.core.errors import GatewayError, StorageUnavailableError

MAX_GROUP: Final = 512
"""Jobs in one commit: enough to share its cost, few enough that nobody waits long."""

BUSY_SECONDS: Final = 10.0
"""How long to wait for another process's write before the store counts as unavailable."""

TURN_SECONDS: Final = 0.002
"""How long to wait, more or less, before asking again for another process's turn to end."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Job:
    """Work for the thread. A write returns nothing and may raise a `GatewayError` without touching the others' work."""

    run: Callable[[sqlite3.Connection], Any]
    reply: asyncio.Future[Any]
    writes: bool
    outcome: Any = None
    failure: GatewayError | None = None


@dataclass(slots=True, eq=False)
class _Stop:
    reply: asyncio.Future[Any]


@dataclass(slots=True, eq=False)
class Worker:
    """The thread and its queue. The connection belongs to the thread once `start` was called."""

    connection: sqlite3.Connection
    name: str
    _queue: SimpleQueue[Job | _Stop] = field(default_factory=SimpleQueue)
    _closed: bool = False

    def start(self) -> None:
        """Start the thread. It is a daemon: a process that dies without `aclose` loses only what nobody was told of."""
        threading.Thread(target=self._serve, name=self.name, daemon=True).start()

    async def do(self, run: Callable[[sqlite3.Connection], Any], *, writes: bool) -> Any:
        """Have the thread do this; return its outcome or raise its failure."""
        if self._closed:
            message = "The store is closed."
            raise StorageUnavailableError(message)
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.put(Job(run, reply, writes))
        return await reply

    async def aclose(self) -> None:
        """Let the thread do what is queued, close the connection and end. May be called twice."""
        if self._closed:
            return
        self._closed = True
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.put(_Stop(reply))
        await reply

    def _serve(self) -> None:
        stop: _Stop | None = None
        while stop is None:
            jobs, stop = self._take()
            writes = [job for job in jobs if job.writes]
            reads = [job for job in jobs if not job.writes]
            if writes:
                commit(self.connection, writes)
            _tell(writes)
            for job in reads:
                _try(self.connection, job)
            _tell(reads)
        self.connection.close()
        _in_loop(stop.reply, lambda: _resolve([Job(_nothing, stop.reply, writes=False)]))

    def _take(self) -> tuple[list[Job], _Stop | None]:
        jobs: list[Job] = []
        item = self._queue.get()
        while True:
            if isinstance(item, _Stop):
                return jobs, item
            jobs.append(item)
            if len(jobs) >= MAX_GROUP:
                return jobs, None
            try:
                item = self._queue.get_nowait()
            except Empty:
                return jobs, None


def commit(connection: sqlite3.Connection, jobs: Iterable[Job]) -> None:
    """Do the writes in one transaction. When the file itself fails, all of them have failed."""
    try:
        _begin(connection)
        for job in jobs:
            try:
                job.run(connection)
            except GatewayError as error:
                job.failure = error
        connection.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - the edge of the thread: it must live, and every caller must hear
        failure = unavailable(error)
        for job in jobs:
            job.failure = StorageUnavailableError(failure.message, retry_after=failure.retry_after)
        _roll_back(connection)


def _begin(connection: sqlite3.Connection) -> None:
    """Wait for this process's turn to write, asking often: SQLite's own waiting grows to 100 ms, while turns take a few."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(TURN_SECONDS * (0.5 + random.random()))
        else:
            return


def unavailable(error: Exception) -> StorageUnavailableError:
    """Return what callers are told of a fault of SQLite's."""
    if not isinstance(error, sqlite3.Error):
        _log.error("The store's thread met a fault of its own", exc_info=error)
    code = getattr(error, "sqlite_errorname", type(error).__name__)
    return StorageUnavailableError(_ADVICE.get(code, f"The store did not answer ({code})."), retry_after=1.0)


_ADVICE: Final = {
    "SQLITE_FULL": "The store's disk is full. Free some space; nothing else is needed.",
    "SQLITE_BUSY": "Another process holds the store. Try again.",
    "SQLITE_READONLY": "The store's file can't be written. Check its permissions.",
    "SQLITE_CORRUPT": "The store's file is damaged. Restore it from a copy.",
    "SQLITE_NOTADB": "The store's file is not a SQLite database.",
}


def _try(connection: sqlite3.Connection, job: Job) -> None:
    try:
        job.outcome = job.run(connection)
    except GatewayError as error:
        job.failure = error
    except Exception as error:  # noqa: BLE001 - as in `commit`
        job.failure = unavailable(error)


def _roll_back(connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        _log.exception("The store could not be rolled back")


def _tell(jobs: list[Job]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        by_loop.setdefault(job.reply.get_loop(), []).append(job)
    for told in by_loop.values():
        _in_loop(told[0].reply, lambda told=told: _resolve(told))  # type: ignore[misc]


def _in_loop(reply: asyncio.Future[Any], callback: Callable[[], None]) -> None:
    try:
        reply.get_loop().call_soon_threadsafe(callback)
    except RuntimeError:
        _log.debug("Nobody is there to be told: the loop was closed")


def _resolve(jobs: list[Job]) -> None:
    for job in jobs:
        if job.reply.done():  # the caller was cancelled
            continue
        if job.failure is not None:
            job.reply.set_exception(job.failure)
        else:
            job.reply.set_result(job.outcome)


def _nothing(_: sqlite3.Connection) -> None:
    return
