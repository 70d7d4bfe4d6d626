"""``durabletask``'s engine in this process: its backend in memory and its worker, joined without a port between them.

As they come, the backend listens on every address of the machine, keeps each instance for ever and a sleeping thread for each
timer, and the worker performs activities in threads. Here they talk by calling each other; instances are dropped when they
end; timers and activities are the host's event loop's. Pinned to durabletask 1.12: some of what is replaced has no public name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, cast

import grpc  # type: ignore[import-untyped]
import orjson
from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as wire
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend, OrchestrationInstance
from durabletask.worker import ConcurrencyOptions, TaskHubGrpcWorker, _AsyncWorkerManager
from google.protobuf.wrappers_pb2 import StringValue  # type: ignore[import-untyped]

from local.mounting import Activity, Orchestrator
from local.replay import orchestrated

logger = logging.getLogger("switchyard.engine")
of_library = logging.getLogger("switchyard.engine.durabletask")
of_library.setLevel(logging.ERROR)  # what it tells of its own steps is of no use to anybody else

THREADS: Final = 64
MAX_ACTIVITIES: Final = 100
"""Performed at once, as host.json says for Azure."""
MAX_HISTORY: Final = 10_000_000
"""Events of an instance. A larger history is refused and its instance hangs, so that must not happen."""
LATE: Final = 0.002
"""Seconds that timers fire late, so that none fires early by a loop's rounding."""

Ended = Callable[[str, str | None], None]
"""Told of every instance that has ended, and why, if it failed. Called in any thread."""


class RefusedError(Exception):
    """The backend refused a call."""


class Backend(InMemoryOrchestrationBackend):
    """The backend, in this process only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Ended) -> None:
        super().__init__(max_history_size=MAX_HISTORY)
        self._loop = loop
        self._ended = ended

    def start(self) -> NoReturn:
        """Refuse to listen: nobody outside this process may reach an engine that asks nobody who they are."""
        message = "this backend is called, not connected to"
        raise NotImplementedError(message)

    def CompleteOrchestratorTask(  # noqa: N802 - the wire's name
        self, request: wire.OrchestratorResponse, context: grpc.ServicerContext
    ) -> wire.CompleteTaskResponse:
        """Take in what an orchestrator did; forget the instance if it has ended."""
        done = super().CompleteOrchestratorTask(request, context)
        with self._lock:
            instance = self._instances.get(request.instanceId)
            if instance is None or not self._is_terminal_status(instance.status):
                return done
            del self._instances[request.instanceId]
            self._state_waiters.pop(request.instanceId, None)
        failed = instance.failure_details
        self._ended(request.instanceId, None if failed is None else f"{failed.errorType}: {failed.errorMessage}")
        return done

    def _process_create_timer_action(self, instance: OrchestrationInstance, action: wire.OrchestratorAction) -> None:
        fire_at = action.createTimer.fireAt.ToDatetime(tzinfo=UTC)
        instance.history.append(helpers.new_timer_created_event(action.id, fire_at))
        delay = max(0.0, (fire_at - datetime.now(UTC)).total_seconds()) + LATE
        fire = (self._fire, instance.instance_id, action.id, fire_at)
        self._loop.call_soon_threadsafe(self._loop.call_later, delay, *fire)

    def _fire(self, instance_id: str, timer: int, fire_at: datetime) -> None:
        with self._lock:
            instance = self._instances.get(instance_id)
            if instance is not None:
                instance.pending_events.append(helpers.new_timer_fired_event(timer, fire_at))
                self._enqueue_orchestration(instance_id)


class _Asked:
    """What a servicer sees of who asks: in gRPC, the other end of a connection."""

    __slots__ = ("_active",)

    def __init__(self) -> None:
        self._active = True

    def is_active(self) -> bool:
        return self._active

    def time_remaining(self) -> None:
        return None

    def cancel(self) -> None:
        self._active = False

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        message = f"{code.name}: {details}"
        raise RefusedError(message)


class _Stream:
    """Work items as they come, until cancelled."""

    __slots__ = ("_asked", "_items")

    def __init__(self, backend: Backend, request: wire.GetWorkItemsRequest) -> None:
        self._asked = _Asked()
        self._items = backend.GetWorkItems(request, cast("grpc.ServicerContext", self._asked))

    def __iter__(self) -> Iterator[wire.WorkItem]:
        return self._items

    def cancel(self) -> None:
        self._asked.cancel()


class _Channel:
    """Stands in for a gRPC channel: a call is a call of the backend's method."""

    __slots__ = ("_backend",)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def unary_unary(self, path: str, **_: object) -> Callable[..., Any]:
        method = getattr(self._backend, path.rpartition("/")[2])

        def call(request: object, **_: object) -> Any:
            return method(request, _Asked())

        return call

    def unary_stream(self, path: str, **_: object) -> Callable[..., Any]:
        del path  # there is only one that the worker asks for

        def call(request: wire.GetWorkItemsRequest, **_: object) -> _Stream:
            return _Stream(self._backend, request)

        return call


class _Manager(_AsyncWorkerManager):
    """Runs work items, and stops when it is told to, not up to a second later."""

    _stopping: asyncio.Event | None = None

    async def run(self) -> None:
        """Run until `shutdown`; then wait for the items that run."""
        self._stopping = asyncio.Event()
        running, stopping = asyncio.ensure_future(super().run()), asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        stopping.cancel()
        await asyncio.wait((running, stopping))

    def shutdown(self) -> None:
        """Stop."""
        super().shutdown()
        if self._stopping is not None:
            self._stopping.set()


class Worker(TaskHubGrpcWorker):
    """The worker, with activities on the host's event loop."""

    def __init__(self, backend: Backend, activities: Mapping[str, Activity], loop: asyncio.AbstractEventLoop) -> None:
        options = ConcurrencyOptions(maximum_thread_pool_workers=THREADS)
        super().__init__(
            channel=cast("grpc.Channel", _Channel(backend)),
            concurrency_options=options,
            logger=of_library,
            emit_trace_spans=False,
        )
        self._async_worker_manager = _Manager(options, of_library)
        self._backend = backend
        self._activities = activities
        self._loop = loop
        self._slots = asyncio.Semaphore(MAX_ACTIVITIES)
        self._accepting = True
        self.performing: set[asyncio.Task[None]] = set()

    def take_no_more(self) -> None:
        """Begin no further activity."""
        self._accepting = False

    def _execute_activity(self, req: wire.ActivityRequest, stub: Any, completionToken: Any) -> None:  # noqa: N803 - its name
        del stub, completionToken
        self._loop.call_soon_threadsafe(self._begin, req)

    def _begin(self, asked: wire.ActivityRequest) -> None:
        if self._accepting:
            performing = self._loop.create_task(self._perform(asked))
            self.performing.add(performing)
            performing.add_done_callback(self.performing.discard)

    async def _perform(self, asked: wire.ActivityRequest) -> None:
        answer = wire.ActivityResponse(instanceId=asked.orchestrationInstance.instanceId, taskId=asked.taskId)
        async with self._slots:
            if not self._accepting:
                return
            try:
                given = orjson.loads(asked.input.value) if asked.input.value else None
                answer.result.CopyFrom(StringValue(value=orjson.dumps(await self._activities[asked.name](given)).decode()))
            except Exception as error:  # noqa: BLE001 - the engine tries again, whatever it was
                logger.warning("the activity %s failed: %s", asked.name, type(error).__name__)
                answer.failureDetails.CopyFrom(
                    wire.TaskFailureDetails(errorType=type(error).__name__, errorMessage=str(error) or "failed")
                )
        self._backend.CompleteActivityTask(answer, cast("grpc.ServicerContext", _Asked()))


class Embedded:
    """A running engine. Belongs to the event loop it was made in."""

    def __init__(self, orchestrators: Mapping[str, Orchestrator], activities: Mapping[str, Activity], ended: Ended) -> None:
        self._loop = asyncio.get_running_loop()
        self._backend = Backend(self._loop, ended)
        self._worker = Worker(self._backend, activities, self._loop)
        for name, orchestrator in orchestrators.items():
            run = orchestrated(orchestrator)
            run.__name__ = name
            self._worker.add_orchestrator(run)
        self._worker.start()  # type: ignore[no-untyped-call]

    def begin(self, orchestrator: str, instance: str, given: Mapping[str, object]) -> None:
        """Start an instance; raise `RefusedError` when it is there."""
        text = StringValue(value=orjson.dumps(given).decode())
        request = wire.CreateInstanceRequest(instanceId=instance, name=orchestrator, input=text)
        self._backend.StartInstance(request, cast("grpc.ServicerContext", _Asked()))

    def tell(self, instance: str, event: str) -> None:
        """Raise an event; nothing happens when the instance is not there: it may have ended a moment ago."""
        request = wire.RaiseEventRequest(instanceId=instance, name=event, input=StringValue(value="true"))
        with contextlib.suppress(RefusedError):
            self._backend.RaiseEvent(request, cast("grpc.ServicerContext", _Asked()))

    @property
    def size(self) -> int:
        """How many instances are kept."""
        return len(self._backend._instances)  # noqa: SLF001 - ours

    async def aclose(self, grace: float) -> None:
        """Give activities ``grace`` seconds to end, cancel the rest, and stop every thread."""
        self._worker.take_no_more()
        if self._worker.performing:
            await asyncio.wait(set(self._worker.performing), timeout=grace)
        for performing in list(self._worker.performing):
            performing.cancel()
        if self._worker.performing:
            await asyncio.wait(set(self._worker.performing), timeout=1.0)
        await asyncio.to_thread(self._worker.stop)
        self._backend.stop()
