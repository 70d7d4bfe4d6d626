"""The orchestrator of a chain: the pure failover flow, driven by replay.

The engine calls this generator again from its beginning whenever something has happened, and gives it the same results as
before: so it may use nothing but what it is given, its context's clock, and the results of its activities.

What a change of the flow would do to chains in flight is kept from them by `shared.core.chain.FLOWS`; what a change of *this*
file would, by `tests/chains/histories`.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from shared.core.chain import (
    FLOWS,
    Cancelled,
    attempt_out,
    happened_in,
    outcome_out,
    plan_in,
)
from shared.core.failover import Event, Outcome, Succeeded, Wait, Waited

CANCEL: Final = "cancel"
NOTED_SECONDS: Final = 2.0
"""Waits longer than this are written down, so that others see what the chain waits for."""


class Task(Protocol):
    """Something an orchestrator waits for."""

    @property
    def is_completed(self) -> bool: ...  # noqa: D102
    @property
    def result(self) -> Any: ...  # noqa: D102


class Timer(Task, Protocol):
    """A durable timer."""

    def cancel(self) -> None: ...  # noqa: D102


class Context(Protocol):
    """What an orchestrator asks of its engine: a part of azure-functions-durable's context, by its names."""

    @property
    def instance_id(self) -> str: ...  # noqa: D102
    @property
    def current_utc_datetime(self) -> datetime: ...  # noqa: D102
    def get_input(self) -> Any: ...  # noqa: D102
    def call_activity_with_retry(self, name: str, retry_options: Any, input_: Any = None) -> Task: ...  # noqa: D102
    def create_timer(self, fire_at: datetime) -> Timer: ...  # noqa: D102
    def wait_for_external_event(self, name: str) -> Task: ...  # noqa: D102
    def task_any(self, activities: list[Any]) -> Task: ...  # noqa: D102
    def task_all(self, activities: list[Any]) -> Task: ...  # noqa: D102
    def set_custom_status(self, status: Any) -> None: ...  # noqa: D102
    def continue_as_new(self, input_: Any) -> None: ...  # noqa: D102


Orchestration = Generator[Any, Any, Any]


def chain(context: Context, *, retry: Any, tell_retry: Any) -> Orchestration:
    """Drive a chain to its end. ``retry`` and ``tell_retry`` are how often activities are tried, in the engine's own terms."""
    given = context.get_input()
    outcome = yield from _drive(context, given, retry)
    broken = isinstance(outcome, str)
    ended = {"id": given["id"], "broken": broken, "outcome": None}
    if isinstance(outcome, Outcome):
        ended["outcome"] = outcome_out(outcome)
    context.set_custom_status({"ending": True})
    state = yield context.call_activity_with_retry("end_chain", retry, ended)
    if given.get("webhook"):
        yield from tell(context, "notify_chain", {"id": given["id"]}, tell_retry)
    context.set_custom_status({"ended": state})
    return state


def tell(context: Context, activity: str, given: dict[str, Any], retry: Any) -> Orchestration:
    """Have a receiver outside told; that it does not listen changes nothing about what it would have been told."""
    try:
        yield context.call_activity_with_retry(activity, retry, given)
    except Exception:  # noqa: BLE001 - the engine raises plain ones when it has given up trying
        context.set_custom_status({"webhook": "gave up"})


def _drive(context: Context, given: dict[str, Any], retry: Any) -> Generator[Any, Any, Outcome | str | None]:
    """Perform the flow's steps; return its outcome, None when it was cancelled, or why it can't go on."""
    flow = FLOWS[given["version"]](plan_in(given["plan"]))
    began = datetime.fromtimestamp(given["began"], UTC)
    cancel = context.wait_for_external_event(CANCEL)
    event: Event | None = None
    while True:
        try:
            step = next(flow) if event is None else flow.send(event)
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome
        if cancel.is_completed:
            return None
        if isinstance(step, Wait):
            if not (yield from wait(context, step.seconds, cancel, note=("note_chain", given["id"], retry))):
                return None
            event = Waited(_at(context, began))
            continue
        context.set_custom_status({"attempt": step.number, "deployment": step.candidate.deployment})
        asked = {"id": given["id"], **attempt_out(step)}
        happened = yield context.call_activity_with_retry("attempt_chain", retry, asked)
        if happened["event"] == "broken":
            return str(happened["event"])
        ended = happened_in(happened, _at(context, began))
        if isinstance(ended, Cancelled) or (cancel.is_completed and not isinstance(ended, Succeeded)):
            return None
        event = ended


def wait(
    context: Context, seconds: float, cancel: Task, *, note: tuple[str, str, Any] | None = None
) -> Generator[Any, Any, bool]:
    """Wait, or until the cancel event; say whether the wait came to its end. A long one is noted by an activity."""
    due = context.current_utc_datetime + timedelta(seconds=seconds)
    status = {"waiting_until": due.isoformat()}
    context.set_custom_status(status)
    if note is not None and seconds > NOTED_SECONDS:
        activity, name, retry = note
        yield context.call_activity_with_retry(activity, retry, {"id": name, "status": status})
        if cancel.is_completed:
            return False
    timer = context.create_timer(due)
    yield context.task_any([timer, cancel])
    if cancel.is_completed:
        if not timer.is_completed:
            timer.cancel()
        return False
    return True


def _at(context: Context, began: datetime) -> float:
    now = context.current_utc_datetime
    if now.tzinfo is None:
        now = now.replace(tzinfo=UTC)
    return max(0.0, (now - began).total_seconds())
