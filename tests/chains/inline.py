"""The smallest engine there can be: it performs an orchestration's steps one after the other, in this event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from functions.chain_flow import CANCEL, chain
from shared import background
from shared.background import Read
from shared.chain_outcomes import NotDeliveredError, notify
from shared.core.chat import InferenceRequest
from shared.core.errors import StorageUnavailableError
from shared.core.records import Caller
from shared.gateway import Gateway
from shared.ports import Clock
from tests.fakes import request

Activity = Callable[[dict[str, Any]], Awaitable[Any]]


async def read_chat(gateway: Gateway, caller: Caller, path: str, body: dict[str, Any]) -> InferenceRequest:
    """Read any body as the chat request that tests send."""
    del gateway, caller, path
    return request(body["model"], max_output_tokens=body.get("max_tokens"))


@dataclass
class Step:
    """What an orchestration waits for."""

    is_completed: bool = False
    result: Any = None
    activity: str | None = None
    given: Any = None
    due: datetime | None = None
    of: list[Step] = field(default_factory=list)

    def cancel(self) -> None:
        """Wait for it no more."""
        self.is_completed = True


class InlineContext:
    """One orchestration's context."""

    def __init__(self, instance: str, given: Mapping[str, Any], clock: Clock) -> None:
        self.instance_id = instance
        self.given = dict(given)
        self.clock = clock
        self.cancelled = Step()
        self.status: Any = None

    @property
    def current_utc_datetime(self) -> datetime:
        """Return the clock's time."""
        return datetime.fromtimestamp(self.clock.now(), UTC)

    def get_input(self) -> Any:
        """Return what it was started with."""
        return self.given

    def call_activity_with_retry(self, name: str, retry_options: Any, input_: Any = None) -> Step:
        """Return a call."""
        del retry_options
        return Step(activity=name, given=input_)

    def create_timer(self, fire_at: datetime) -> Step:
        """Return a timer."""
        return Step(due=fire_at)

    def wait_for_external_event(self, name: str) -> Step:
        """Return the one event there is."""
        assert name == CANCEL
        return self.cancelled

    def task_any(self, activities: list[Any]) -> Step:
        """Return a wait for the first."""
        return Step(of=activities)

    def task_all(self, activities: list[Any]) -> Step:
        """Chains wait for one thing at a time."""
        raise NotImplementedError

    def set_custom_status(self, status: Any) -> None:
        """Take it."""
        self.status = status

    def continue_as_new(self, input_: Any) -> None:
        """Chains end."""
        raise NotImplementedError


class InlineEngine:
    """`shared.ports.ChainEngine`. ``tries`` is how often an activity that raises is tried."""

    name = "inline"

    def __init__(self, gateway: Gateway, *, read: Read = read_chat, tries: int = 5) -> None:
        self.activities: dict[str, Activity] = {
            "attempt_chain": lambda given: background.attempt(gateway, given, read),
            "note_chain": lambda given: background.note(gateway, given),
            "end_chain": lambda given: background.end(gateway, given),
            "notify_chain": lambda given: notify(gateway, given),
        }
        self.clock = gateway.clock
        self.tries = tries
        self.away = False
        self.started: dict[str, InlineContext] = {}
        self.running: dict[str, asyncio.Task[Any]] = {}

    async def start(self, orchestrator: str, instance: str, given: Mapping[str, object]) -> None:
        """Start it, once."""
        if self.away:
            message = "the engine is away"
            raise StorageUnavailableError(message)
        assert orchestrator == background.ORCHESTRATOR
        if instance not in self.running:
            self.started[instance] = context = InlineContext(instance, given, self.clock)
            self.running[instance] = self.running[str(given["id"])] = asyncio.get_running_loop().create_task(self._run(context))

    async def cancel(self, instance: str) -> None:
        """Raise the event."""
        if instance in self.started:
            self.started[instance].cancelled.is_completed = True

    async def ended(self, instance: str) -> Any:
        """Return what an orchestration returned."""
        return await asyncio.wait_for(self.running[instance], 60)

    async def _run(self, context: InlineContext) -> Any:
        flow = chain(context, retry=None, tell_retry=None)
        result: Any = None
        while True:
            try:
                step = flow.send(result)
            except StopIteration as stop:
                return stop.value
            result = await self._performed(step)

    async def _performed(self, step: Step) -> Any:
        if step.activity is not None:
            return await self._tried(step.activity, step.given)
        timer, cancelled = step.of
        while not cancelled.is_completed and timer.due is not None:
            left = (timer.due - datetime.fromtimestamp(self.clock.now(), UTC)) / timedelta(seconds=1)
            if left <= 0:
                timer.is_completed = True
                break
            await self.clock.sleep(min(left, 1.0))
        return None

    async def _tried(self, activity: str, given: Any) -> Any:
        for tries in range(self.tries):
            try:
                return await self.activities[activity](given)
            except (StorageUnavailableError, NotDeliveredError):
                if tries == self.tries - 1:
                    raise
                await asyncio.sleep(0.01)
        return None
