"""Plays the Durable Functions host for one orchestration: performs its actions and writes its history, in virtual time.

The handler that azure-functions-durable makes of an orchestrator takes the whole history and returns all actions there have
ever been. The host compares them with the history, schedules what is new, and appends what happens. Here the world is a
`Script`, so a history that was cut anywhere goes on exactly as the whole one did.
"""

from __future__ import annotations

import heapq
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from azure.durable_functions import Orchestrator  # type: ignore[import-untyped]
from azure.durable_functions.models.history.HistoryEventType import (  # type: ignore[import-untyped]
    HistoryEventType as Kind,
)

from functions.chain_flow import CANCEL
from tests.chains.scripts import BEGAN, Script

Event = dict[str, Any]

NOTICES: Final = 0.5
"""Seconds after which an attempt notices that its chain was cancelled."""


@dataclass
class Open:
    """Something scheduled that has not ended: an atomic action, or the pause before an activity is tried again."""

    action: Event
    at: float
    tries: int = 1
    pausing: bool = False


@dataclass
class Book:
    """What a history says of its actions."""

    taken: int = 0
    open: dict[int, Open] = field(default_factory=dict)
    to_pause: list[Open] = field(default_factory=list)
    to_repeat: list[Open] = field(default_factory=list)
    next_id: int = 0
    cancelled: bool = False

    def enter(self, event: Event, actions: list[Event]) -> None:
        """Take an event in."""
        match Kind(event["EventType"]):
            case Kind.TASK_SCHEDULED | Kind.TIMER_CREATED:
                self._schedule(event, actions)
            case Kind.TASK_COMPLETED:
                del self.open[event["TaskScheduledId"]]
            case Kind.TASK_FAILED:
                self.to_pause.append(self.open.pop(event["TaskScheduledId"]))
            case Kind.TIMER_FIRED:
                fired = self.open.pop(event["TimerId"])
                if fired.pausing and fired.tries < fired.action["retryOptions"]["maxNumberOfAttempts"]:
                    self.to_repeat.append(fired)
            case Kind.EVENT_RAISED:
                self.cancelled = True

    def _schedule(self, event: Event, actions: list[Event]) -> None:
        at = _seconds(event["Timestamp"])
        if event["EventType"] == Kind.TIMER_CREATED and self.to_pause:
            failed = self.to_pause.pop(0)
            opened = Open(failed.action, at, failed.tries, pausing=True)
        elif event["EventType"] == Kind.TASK_SCHEDULED and self.to_repeat:
            paused = self.to_repeat.pop(0)
            opened = Open(paused.action, at, paused.tries + 1)
        else:
            opened = Open(actions[self.taken], at)
            self.taken += 1
        self.open[event["EventId"]] = opened
        self.next_id = event["EventId"] + 1


@dataclass(frozen=True)
class End:
    """How an orchestration ended, and the history that led there."""

    output: Any
    actions: list[Event]
    history: list[Event]

    @property
    def attempts(self) -> list[str]:
        """The deployments that were asked, in order."""
        return [one["input"]["candidate"]["deployment"] for one in called(self.actions, "attempt_chain")]

    @property
    def outcome(self) -> str | None:
        """How the flow ended; None when it was cancelled."""
        given = called(self.actions, "end_chain")[0]["input"]
        return None if given["outcome"] is None else str(given["outcome"]["ended"])


def asked(actions: list[Event]) -> list[Event]:
    """Return actions without what may still change of them: that a timer was cancelled."""
    return [{name: value for name, value in action.items() if name != "isCanceled"} for action in actions]


def called(actions: list[Event], activity: str) -> list[Event]:
    """Return the calls of an activity."""
    return [action for action in actions if action.get("functionName") == activity]


class Player:
    """Plays a script to an orchestrator, from its beginning or from a history that was cut off."""

    def __init__(self, orchestrator: Callable[[Any], Any], script: Script, given: Event | None = None) -> None:
        self._handle = Orchestrator.create(orchestrator)
        self._script = script
        self._given = given or script.given()

    def replay(self, history: list[Event]) -> dict[str, Any]:
        """Return what the handler says to a history, its actions as one flat list."""
        context = {
            "history": history,
            "input": json.dumps(self._given),
            "instanceId": self._given["id"],
            "isReplaying": True,
            "parentInstanceId": None,
            "upperSchemaVersion": 1,
            "upperSchemaVersionNew": 2,
            "maximumShortTimerDuration": "6.00:00:00",
            "longRunningTimerIntervalDuration": "3.00:00:00",
        }
        with warnings.catch_warnings():
            # 1.7 warns of an event that comes before anybody waits for it, and keeps it; and once of input that has no type.
            warnings.filterwarnings("ignore", "Potential duplicate Task completion")
            warnings.filterwarnings("ignore", "azure.functions df_loads was called without expected_type")
            said: dict[str, Any] = json.loads(self._handle(json.dumps(context)))
        said["actions"] = list(_atoms(said["actions"]))
        return said

    def play(self, history: list[Event] | None = None) -> End:
        """Go on from a history to the end."""
        lines = list(history) if history else [_event(Kind.ORCHESTRATOR_STARTED, BEGAN), self._started()]
        while True:
            now = _seconds(lines[-1]["Timestamp"])
            said = self.replay(lines)
            if said["isDone"]:
                return End(said.get("output"), said["actions"], lines)
            book = Book()
            for line in lines:
                book.enter(line, said["actions"])
            for line in _due(book, said["actions"], now):
                lines.append(line)
                book.enter(line, said["actions"])
            lines.append(_event(Kind.ORCHESTRATOR_COMPLETED, now))
            at, happened = self._next(book)
            lines += [_event(Kind.ORCHESTRATOR_STARTED, at), happened]

    def _started(self) -> Event:
        return _event(Kind.EXECUTION_STARTED, BEGAN, Name="run_chain", Input=json.dumps(self._given), Version=None)

    def _next(self, book: Book) -> tuple[float, Event]:
        """Return what happens next in the script's world, and when."""
        coming: list[tuple[float, int, Event]] = []
        for number, opened in book.open.items():
            heapq.heappush(coming, self._ending(number, opened))
        if self._script.cancel_at is not None and not book.cancelled:
            at = BEGAN + self._script.cancel_at
            heapq.heappush(coming, (at, -1, _event(Kind.EVENT_RAISED, at, Name=CANCEL, Input="true")))
        assert coming, "nothing is left to happen, and the orchestration has not ended"
        at, _, happened = coming[0]
        return at, happened

    def _ending(self, number: int, opened: Open) -> tuple[float, int, Event]:
        action = opened.action
        if opened.pausing:
            at = opened.at + action["retryOptions"]["firstRetryIntervalInMilliseconds"] / 1000
            return at, number, _event(Kind.TIMER_FIRED, at, TimerId=number)
        if "fireAt" in action:
            at = _seconds(action["fireAt"])
            return at, number, _event(Kind.TIMER_FIRED, at, TimerId=number)
        if opened.tries <= self._script.broken_store.get(action["functionName"], 0):
            at = opened.at + 0.25
            failed = {"TaskScheduledId": number, "Reason": "StorageUnavailableError", "Details": "The store is away."}
            return at, number, _event(Kind.TASK_FAILED, at, **failed)
        seconds, result = self._performed(action, opened.at)
        at = opened.at + seconds
        return at, number, _event(Kind.TASK_COMPLETED, at, TaskScheduledId=number, Result=json.dumps(result))

    def _performed(self, action: Event, at: float) -> tuple[float, Any]:
        """Return how long an activity takes, and its result."""
        if action["functionName"] != "attempt_chain":
            return 0.05, "ended" if action["functionName"] == "end_chain" else {}
        number = action["input"]["number"]
        seconds = self._script.tries[number - 1].seconds
        cancel = None if self._script.cancel_at is None else BEGAN + self._script.cancel_at + NOTICES - at
        if cancel is not None and cancel < seconds:
            return max(0.0, cancel), {"event": "cancelled"}
        return seconds, self._script.happened(number)


def _atoms(said: Any) -> Iterator[Event]:
    """Yield the actions that schedule something, compound ones taken apart."""
    for action in said:
        if isinstance(action, list):
            yield from _atoms(action)
        elif "compoundActions" in action:
            yield from _atoms(action["compoundActions"])
        elif "externalEventName" not in action:
            yield {**action, "input": json.loads(action["input"])} if isinstance(action.get("input"), str) else action


def _due(book: Book, actions: list[Event], now: float) -> Iterator[Event]:
    """Yield the events of what is to be scheduled now."""
    while book.to_pause:
        yield _event(Kind.TIMER_CREATED, now, EventId=book.next_id)
    while book.to_repeat:
        yield _event(Kind.TASK_SCHEDULED, now, EventId=book.next_id, Name=book.to_repeat[0].action["functionName"])
    while book.taken < len(actions):
        action = actions[book.taken]
        kind = Kind.TIMER_CREATED if "fireAt" in action else Kind.TASK_SCHEDULED
        yield _event(kind, now, EventId=book.next_id, Name=action.get("functionName"))


def _event(kind: Kind, at: float, **more: Any) -> Event:
    stamp = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    return {"EventType": int(kind), "EventId": -1, "IsPlayed": False, "Timestamp": stamp, **more}


def _seconds(stamp: str) -> float:
    moment = datetime.fromisoformat(stamp)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
