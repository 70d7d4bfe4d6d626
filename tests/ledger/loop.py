"""An asyncio event loop whose time is a number: it jumps to the next timer, never waits, and gives the same run every time.

Real asyncio code runs on it unchanged (tasks, `asyncio.timeout`, events, generators). Every callback belongs to whoever's
context it was made in; a `Gate` in that context can hold all of an instance's callbacks back (a frozen process: time goes on
without it) or drop them for ever (a killed one: not even its ``finally`` blocks run).
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import warnings
from asyncio import base_events, events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

MOST_STEPS = 1_000_000
"""A seed takes some ten thousand, the spending of a large budget some hundred thousand."""
EPOCH = 1_795_000_000.0
"""The wall clock when a simulation begins: in November 2026."""


class DeadlockError(Exception):
    """Nothing is ready and nothing is scheduled, but somebody still waits; or there is no end of what is ready."""


class Gate:
    """Whether an instance's code may run at the moment."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = False
        self.dead = False
        self.context = copy_context()
        self.context.run(_GATE.set, self)
        self._held: deque[events.Handle] = deque()

    @property
    def shut(self) -> bool:
        """Whether nothing of it runs."""
        return self.frozen or self.dead

    def hold(self, handle: events.Handle) -> None:
        """Keep a callback until the thaw; a dead instance's never comes."""
        if not self.dead:
            self._held.append(handle)

    def kill(self) -> None:
        """End it as SIGKILL does."""
        self.dead = True
        self._held.clear()

    def thaw(self) -> deque[events.Handle]:
        """Let it go on; return what has waited, in the order it came."""
        self.frozen = False
        held, self._held = self._held, deque()
        return held


_GATE: ContextVar[Gate | None] = ContextVar("gate", default=None)


class VirtualLoop(base_events.BaseEventLoop):
    """The loop. The ready queue is first in, first out; timers run in the order of their times."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual = 0.0
        self._steps = 0
        self.errors: list[str] = []
        self._ready: deque[events.Handle]
        self._scheduled: list[asyncio.TimerHandle]
        self._stopping: bool
        self._tasks: list[asyncio.Task[Any]] = []
        self.set_exception_handler(self._note)
        self.set_task_factory(self._make)

    def time(self) -> float:
        """Return virtual seconds."""
        return self._virtual

    def _make(self, _: asyncio.AbstractEventLoop, coroutine: Any, context: Context | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=self, context=context)
        self._tasks.append(task)
        if len(self._tasks) > 4_000:  # finished ones need not be kept
            self._tasks = [each for each in self._tasks if not each.done()]
        return task

    def run_in(self, gate: Gate, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task that belongs to an instance."""
        task: asyncio.Task[T] = gate.context.run(self.create_task, coroutine)
        return task

    def at(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        """Call back at a time, for the world: no gate holds it."""
        self.call_at(when, callback, *args, context=_OUTSIDE)

    def thaw(self, gate: Gate) -> None:
        """Let a frozen instance go on."""
        self._ready.extend(gate.thaw())

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0].cancelled():
            heapq.heappop(scheduled)
        if not ready and not self._stopping:
            if not scheduled:
                message = f"nothing is left to happen at {self._virtual:.3f} s, and somebody waits"
                raise DeadlockError(message)
            self._virtual = max(self._virtual, scheduled[0].when())
        while scheduled and scheduled[0].when() <= self._virtual:
            ready.append(heapq.heappop(scheduled))
        self._steps += len(ready)
        if self._steps > MOST_STEPS:
            message = f"{MOST_STEPS} steps, and no end at {self._virtual:.3f} s: something goes round in circles"
            raise DeadlockError(message)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.cancelled():
                continue
            gate: Gate | None = handle._context.get(_GATE)  # type: ignore[attr-defined]
            if gate is not None and gate.shut:
                gate.hold(handle)
            else:
                handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: cancelled timers leave the heap when their time comes."""

    def _write_to_self(self) -> None:
        """Do nothing: nobody waits in a selector."""

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(f"{context.get('message')}: {error!r}")

    def bury(self) -> None:
        """Take apart what never ran to its end, as unheard as a killed process; then close the loop."""
        self.set_exception_handler(lambda *_: None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a ``finally`` may want to start something, which can't be any more
            for task in self._tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    with contextlib.suppress(RuntimeError):
                        task.get_coro().close()
        self._ready.clear()
        self._scheduled.clear()
        self.close()


_OUTSIDE = Context()
"""The world's own context: no gate in it."""


class SimClock:
    """`Clock` of one instance: the loop's time, a wall clock that is off by ``skew`` seconds, seeded chance."""

    def __init__(self, loop: VirtualLoop, *, skew: float, random: Random) -> None:
        self._loop = loop
        self.skew = skew
        self.draw = random.random

    def now(self) -> float:
        """Return the wall clock."""
        return EPOCH + self._loop.time() + self.skew

    def monotonic(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
