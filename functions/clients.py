"""A client that has gone: noticing it, and stopping the work that nobody waits for any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import TracebackType

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

PATIENCE: Final = 0.05
"""Seconds before watching begins: most requests that end sooner never pay for it."""


class ClientGoneError(Exception):
    """The client closed its connection: there is nobody to answer."""


class ClientWatch:
    """Cancels the current task when the client disconnects, and turns that cancellation into `ClientGoneError`.

    Use as a context manager around the work, after the body was read: from then on the server's receive channel has only the
    disconnect left to say. A cancellation that comes from elsewhere (a shutdown) passes through as what it is.
    """

    __slots__ = ("_gone", "_receive", "_task", "_timer", "_watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._start)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._gone and task is not None:
            task.uncancel()
            if kind is asyncio.CancelledError:
                raise ClientGoneError from None

    def _start(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._task is not None:
            self._gone = True
            self._task.cancel()
