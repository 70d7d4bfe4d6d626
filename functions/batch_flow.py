"""The orchestrator of a batch: prepare it, run its slices a few at a time, end it, tell its webhook.

The store knows where a batch stands, so this flow need not remember much: which slices have not been begun, and which are to be
gone on with, and when. Its history stays short, for it begins anew with that after some number of activities.

A change of this file must leave batches in flight as they are: give what it is started with another ``version`` and keep this
flow for those that have version 1.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC
from enum import Enum
from typing import Any, Final

from functions.chain_flow import CANCEL, Context, Orchestration, Task, tell, wait

ROUNDS: Final = 20
"""Activities for each slice at once after which the flow begins anew."""
MOST_LATER: Final = 16
"""For each slice at once: when so many wait to be gone on with, no other is begun."""
LONGEST_WAIT: Final = 600.0
SHORTEST_WAIT: Final = 0.5


class _How(Enum):
    """Why a part of the flow has come to its end."""

    ENDED = "ended"
    WORN = "worn"
    BROKEN = "broken"


_Steps = Generator[Any, Any, _How]


@dataclass(slots=True)
class _State:
    """What is left to do, as the flow is given it and gives it to itself."""

    id: str
    width: int
    slices: int | None
    begun: int
    later: dict[int, float] = field(default_factory=dict)
    activities: int = 0

    @staticmethod
    def of(given: dict[str, Any]) -> _State:
        """Return what was given."""
        later = {int(number): float(due) for number, due in given.get("later", [])}
        return _State(given["id"], given["width"], given.get("slices"), given.get("begun", 0), later)

    def given(self, before: dict[str, Any]) -> dict[str, Any]:
        """Return it as it is given on."""
        later = [[number, due] for number, due in self.later.items()]
        return {**before, "slices": self.slices, "begun": self.begun, "later": later}

    @property
    def worn(self) -> bool:
        """Say whether the history has become long."""
        return self.activities >= ROUNDS * self.width

    def take(self, now: float) -> int | None:
        """Return the slice to run next: one that is due, else one that has not been begun."""
        due = [number for number, at in self.later.items() if at <= now]
        if due:
            number = min(due, key=lambda one: (self.later[one], one))
            del self.later[number]
            return number
        if self.begun < (self.slices or 0) and len(self.later) < MOST_LATER * self.width:
            self.begun += 1
            return self.begun - 1
        return None


def batch(context: Context, *, retry: Any, tell_retry: Any) -> Orchestration:
    """Run a batch to its end. ``retry`` and ``tell_retry`` are how often activities are tried, in the engine's own terms."""
    given = context.get_input()
    if given["version"] != 1:
        message = f"there is no flow of version {given['version']}"
        raise ValueError(message)
    state = _State.of(given)
    how = _How.ENDED
    if state.slices is None:
        how = yield from _prepare(context, state, retry)
    if how is _How.ENDED and state.slices:
        how = yield from _run(context, state, retry)
    if how is _How.WORN:
        context.continue_as_new(state.given(given))
        return None
    context.set_custom_status({"ending": True})
    ended = {"id": state.id, "broken": how is _How.BROKEN}
    status = yield context.call_activity_with_retry("end_batch", retry, ended)
    if given.get("webhook"):
        yield from tell(context, "notify_batch", {"id": state.id}, tell_retry)
    context.set_custom_status({"ended": status})
    return status


def _prepare(context: Context, state: _State, retry: Any) -> _Steps:
    """Have the file looked through. A batch that was stopped meanwhile has no slices to run."""
    while not state.worn:
        context.set_custom_status({"preparing": True})
        state.activities += 1
        done = yield context.call_activity_with_retry("prepare_batch", retry, {"id": state.id})
        if done["state"] != "more":
            state.slices = done["slices"] if done["state"] == "ready" else 0
            return _How.BROKEN if done["state"] == "broken" else _How.ENDED
    return _How.WORN


def _run(context: Context, state: _State, retry: Any) -> _Steps:
    """Run slices, some at a time, until all are done, the batch is stopped or can't go on, or the history is long."""
    cancel = context.wait_for_external_event(CANCEL)
    running: dict[int, Task] = {}
    how: _How | None = None
    while True:
        while how is None and not state.worn and len(running) < state.width:
            number = state.take(_now(context))
            if number is None:
                break
            state.activities += 1
            running[number] = context.call_activity_with_retry("run_slice", retry, {"id": state.id, "slice": number})
        context.set_custom_status({"begun": state.begun, "slices": state.slices, "waiting": len(state.later)})
        if running:
            yield context.task_any(list(running.values()))
            how = _collect(state, running) or how
        elif how is not None:
            return how
        elif not state.later and state.begun >= (state.slices or 0):
            return _How.ENDED
        elif state.worn:
            return _How.WORN
        else:
            yield from _pause(context, state, cancel)


def _collect(state: _State, running: dict[int, Task]) -> _How | None:
    """Take in what has ended; return why nothing more is to be begun, if so."""
    how: _How | None = None
    for number in [number for number, task in running.items() if task.is_completed]:
        done = running.pop(number).result
        match done["state"] if isinstance(done, dict) else "broken":
            case "done":
                continue
            case "later":
                state.later[number] = done["due"]
            case "stopped":
                how = how or _How.ENDED
            case _:
                how = _How.BROKEN
    return how


def _pause(context: Context, state: _State, cancel: Task) -> Generator[Any, Any, None]:
    """Wait until the first slice is to be gone on with; not when the batch is cancelled: a slice then finds that out."""
    state.activities += 1
    pause = min(max(min(state.later.values()) - _now(context), SHORTEST_WAIT), LONGEST_WAIT)
    if cancel.is_completed or not (yield from wait(context, pause, cancel)):
        state.later = dict.fromkeys(state.later, 0.0)


def _now(context: Context) -> float:
    now = context.current_utc_datetime
    return (now if now.tzinfo is not None else now.replace(tzinfo=UTC)).timestamp()
