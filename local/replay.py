"""One orchestrator on ``durabletask``, seen through the context of azure-functions-durable 1.x that it was written for.

What differs, and is bridged here: in 1.x nothing is scheduled before it is yielded, the result of a failed task *is* its
exception, a cancelled timer never completes, and times know their zone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from types import GeneratorType
from typing import Any, Protocol

from durabletask import task

Inner = task.Task[Any]


class Retry(Protocol):
    """How often an activity is tried: ``azure.durable_functions.RetryOptions``."""

    @property
    def first_retry_interval_in_milliseconds(self) -> int: ...  # noqa: D102
    @property
    def max_number_of_attempts(self) -> int: ...  # noqa: D102


class Task:
    """Something an orchestrator waits for; ``begin`` schedules it, once it is yielded."""

    __slots__ = ("_begin", "inner")

    def __init__(self, begin: Callable[[], Inner]) -> None:
        self._begin = begin
        self.inner: Inner | None = None

    def begun(self) -> Inner:
        """Schedule it if that has not happened; return durabletask's own."""
        if self.inner is None:
            self.inner = self._begin()
        return self.inner

    @property
    def is_completed(self) -> bool:
        """Say whether it has ended, well or not."""
        return self.inner is not None and self.inner.is_complete

    @property
    def result(self) -> Any:
        """What came of it: a value, or the exception it failed with; None as long as it has not ended."""
        if not self.is_completed or self.inner is None:
            return None
        return self.inner.get_exception() if self.inner.is_failed else self.inner.get_result()


class Timer(Task):
    """A timer."""

    __slots__ = ("_cancelled",)

    def __init__(self, begin: Callable[[], Inner]) -> None:
        super().__init__(begin)
        self._cancelled = False

    @property
    def is_completed(self) -> bool:
        """Say whether it has fired."""
        return not self._cancelled and super().is_completed

    def cancel(self) -> None:
        """Keep it from firing; raise `ValueError` when it has fired."""
        if self.is_completed:
            message = "Cannot cancel a completed task."
            raise ValueError(message)
        self._cancelled = True
        if isinstance(self.inner, task.CancellableTask):
            self.inner.cancel()


class Any_(Task):  # noqa: N801 - `Any` is taken
    """Whichever of several tasks ends first: its result is that task."""

    __slots__ = ("_children",)

    def __init__(self, children: list[Task]) -> None:
        super().__init__(lambda: task.when_any([child.begun() for child in children]))
        self._children = children

    @property
    def result(self) -> Any:
        """The task that ended first."""
        first = super().result
        return next((child for child in self._children if child.inner is first), None) if first is not None else None


class Context:
    """`functions.chain_flow.Context` on durabletask's context."""

    def __init__(self, context: task.OrchestrationContext, given: Any) -> None:
        self._context = context
        self._given = given

    @property
    def instance_id(self) -> str:
        """The instance's id."""
        return self._context.instance_id

    @property
    def current_utc_datetime(self) -> datetime:
        """When what is being replayed happened."""
        return self._context.current_utc_datetime.replace(tzinfo=UTC)

    def get_input(self) -> Any:
        """Return what the instance was started with."""
        return self._given

    def call_activity(self, name: str, input_: Any = None) -> Task:
        """Have an activity performed once."""
        return Task(lambda: self._context.call_activity(name, input=input_))

    def call_activity_with_retry(self, name: str, retry_options: Retry, input_: Any = None) -> Task:
        """Have an activity performed, again and again if it fails."""
        policy = task.RetryPolicy(
            first_retry_interval=timedelta(milliseconds=retry_options.first_retry_interval_in_milliseconds),
            max_number_of_attempts=retry_options.max_number_of_attempts,
        )
        return Task(lambda: self._context.call_activity(name, input=input_, retry_policy=policy))

    def create_timer(self, fire_at: datetime) -> Timer:
        """Return a timer."""
        return Timer(lambda: self._context.create_timer(fire_at))

    def wait_for_external_event(self, name: str) -> Task:
        """Return what ends when an event of that name is raised."""
        return Task(lambda: self._context.wait_for_external_event(name))

    def task_any(self, activities: list[Task]) -> Task:
        """Return what ends with the first of some tasks."""
        return Any_(list(activities))

    def task_all(self, activities: list[Task]) -> Task:
        """Return what ends when all of some tasks have; its result are theirs."""
        children = list(activities)
        return Task(lambda: task.when_all([child.begun() for child in children]))

    def set_custom_status(self, status: Any) -> None:
        """Say what the instance is doing."""
        self._context.set_custom_status(status)

    def continue_as_new(self, input_: Any) -> None:
        """Begin again with another input and no history. Events that nobody has waited for yet are kept."""
        self._context.continue_as_new(input_, save_events=True)


def orchestrated(orchestrator: Callable[[Any], Any]) -> Callable[[task.OrchestrationContext, Any], Any]:
    """Return an orchestrator of 1.x as one of durabletask's."""

    def run(context: task.OrchestrationContext, given: Any) -> Generator[Inner, Any, Any]:
        flow = orchestrator(Context(context, given))
        if not isinstance(flow, GeneratorType):
            return flow
        try:
            step = next(flow)
            while True:
                try:
                    yield step.begun()
                except Exception as error:  # noqa: BLE001 - the flow's to judge, whatever it is
                    step = flow.throw(error)
                else:
                    step = flow.send(step.result)
        except StopIteration as stop:
            return stop.value

    return run
