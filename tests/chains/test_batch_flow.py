"""The orchestrator of a batch, driven as its engine does: begun again with the same results whenever something has happened."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from functions import batch_flow
from functions.chain_flow import CANCEL

BEGAN = 1_795_000_000.0
GIVEN = {"version": 1, "id": "batch_1", "width": 2, "expires_at": BEGAN + 86_400, "webhook": False}
Answer = Callable[["World", str, dict[str, Any]], tuple[float, Any]]
"""What an activity gives, and after how many seconds."""


@dataclass
class Task:
    """Something the flow waits for."""

    is_completed: bool = False
    result: Any = None
    of: list[Task] = field(default_factory=list)

    def cancel(self) -> None:
        """Wait for it no more."""


class NewInputError(Exception):
    """The flow begins anew."""


@dataclass
class World:
    """What has happened so far: the results of activities and timers in the order of their being asked for, and the clock."""

    answer: Answer
    now: float = BEGAN
    began: float = BEGAN
    happened: list[tuple[int, Any, float]] = field(default_factory=list)
    due: list[tuple[float, int, Any]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    open: int = 0
    most: int = 0
    histories: list[int] = field(default_factory=list)
    cancel_at: float | None = None

    def run(self, given: dict[str, Any]) -> Any:
        """Run the flow to its end, through all its new beginnings."""
        while True:
            self.happened, self.due, self.open, scheduled, self.began = [], [], 0, 0, self.now
            for _ in range(10_000):
                context = Context(self, given, scheduled)
                try:
                    ended, value = context.play()
                except NewInputError as new:
                    assert not self.due, "it began anew with work under way"
                    self.histories.append(len(self.happened))
                    given = new.args[0]
                    break
                if ended:
                    self.histories.append(len(self.happened))
                    return value
                scheduled = context.count
                self.happen()
            else:
                pytest.fail("it does not end")

    def schedule(self, number: int, name: str, given: dict[str, Any]) -> None:
        """Take an activity on."""
        self.asked.append((name, given))
        seconds, result = self.answer(self, name, given)
        self.open += name == "run_slice"
        self.most = max(self.most, self.open)
        heapq.heappush(self.due, (self.now + seconds, number, result))

    def happen(self) -> None:
        """Let the next thing happen."""
        assert self.due, "nothing is under way"
        if self.cancel_at is not None and self.cancel_at <= self.due[0][0]:
            self.now, self.cancel_at = self.cancel_at, None
            self.happened.append((-1, None, self.now))
            return
        self.now, number, result = heapq.heappop(self.due)
        self.open -= isinstance(result, dict) and "due" in result
        self.happened.append((number, result, self.now))


class Context:
    """One replay: everything that was asked before is asked again, and has the same results."""

    def __init__(self, world: World, given: dict[str, Any], scheduled: int) -> None:
        self.world, self.given, self.scheduled = world, given, scheduled
        self.count = 0
        self.tasks: dict[int, Task] = {}
        self.cancelled = Task()
        self.moment = world.began
        self.instance_id = "batch_1"

    @property
    def current_utc_datetime(self) -> datetime:
        """Return the clock's time."""
        return datetime.fromtimestamp(self.moment, UTC)

    def get_input(self) -> Any:
        """Return what it was started with."""
        return self.given

    def _task(self, name: str, given: dict[str, Any]) -> Task:
        task = self.tasks[self.count] = Task()
        if self.count >= self.scheduled:
            self.world.schedule(self.count, name, given)
        self.count += 1
        return task

    def call_activity_with_retry(self, name: str, retry_options: Any, input_: Any = None) -> Task:
        """Return an activity."""
        assert retry_options == "retry"
        return self._task(name, input_)

    def create_timer(self, fire_at: datetime) -> Task:
        """Return a timer."""
        return self._task("timer", {"seconds": fire_at.timestamp() - self.moment})

    def wait_for_external_event(self, name: str) -> Task:
        """Return the event."""
        assert name == CANCEL
        return self.cancelled

    def task_any(self, activities: list[Any]) -> Task:
        """Return a wait for the first of them."""
        return Task(of=activities)

    def task_all(self, activities: list[Any]) -> Task:
        """Fail: the flow has no use for it."""
        raise AssertionError(activities)

    def set_custom_status(self, status: Any) -> None:
        """Do nothing."""

    def continue_as_new(self, input_: Any) -> None:
        """Take the new input."""
        self.given = input_
        self.renewed = True

    def play(self) -> tuple[bool, Any]:
        """Replay what has happened; return whether the flow has ended, and with what."""
        self.renewed = False
        flow = batch_flow.batch(self, retry="retry", tell_retry="retry")
        waiting, value, events = Task(), None, iter(self.world.happened)
        try:
            waiting = next(flow)
            while True:
                while not (waiting.is_completed or any(one.is_completed for one in waiting.of)):
                    number, result, self.moment = next(events, (-2, None, 0.0))
                    if number == -2:
                        return False, None
                    task = self.cancelled if number == -1 else self.tasks[number]
                    task.is_completed, task.result = True, result
                waiting = flow.send(waiting.result)
        except StopIteration as stop:
            value = stop.value
        if self.renewed:
            raise NewInputError(self.given)
        return True, value


def all_well(slices: int) -> Answer:
    """Return a world in which everything goes well."""

    def answered(world: World, name: str, given: dict[str, Any]) -> tuple[float, Any]:
        del world
        table: dict[str, tuple[float, Any]] = {
            "prepare_batch": (1.0, {"state": "ready", "slices": slices}),
            "end_batch": (1.0, "completed"),
            "notify_batch": (1.0, None),
            "timer": (given.get("seconds", 0.0), None),
        }
        return table.get(name) or (3.0 + given["slice"] % 5, {"state": "done", "due": 0.0})

    return answered


def ran(world: World) -> list[int]:
    """Return the slices that were run."""
    return [given["slice"] for name, given in world.asked if name == "run_slice"]


def test_every_slice_is_run_once_and_few_at_a_time() -> None:
    """Slices are run in order, never more than the width at once; the history stays short however many there are."""
    world = World(all_well(500))

    assert "completed" == world.run(GIVEN)
    assert list(range(500)) == ran(world)
    assert 2 == world.most
    assert len(world.histories) > 10
    assert max(world.histories) <= 2 * batch_flow.ROUNDS + 2
    assert ("end_batch", {"id": "batch_1", "broken": False}) == world.asked[-1]


def test_a_slice_is_gone_on_with_when_it_says() -> None:
    """What is deferred is run again when it is due, also after a new beginning, and holds up nothing else."""
    tries: dict[int, list[float]] = {}
    well = all_well(60)

    def answered(world: World, name: str, given: dict[str, Any]) -> tuple[float, Any]:
        if name != "run_slice" or given["slice"] not in {0, 7}:
            return well(world, name, given)
        seen = tries.setdefault(given["slice"], [])
        seen.append(world.now)
        return 2.0, {"state": "done" if len(seen) == 3 else "later", "due": world.now + 5000.0}

    world = World(answered)
    assert "completed" == world.run(GIVEN)
    assert set(range(60)) == set(ran(world))
    for seen in tries.values():
        assert 3 == len(seen)
        assert all(5000 <= after - before <= 5010 for before, after in pairwise(seen))


def test_when_all_are_throttled_few_slices_are_begun() -> None:
    """When every slice has to wait, no more are begun than are worth remembering."""

    def answered(world: World, name: str, given: dict[str, Any]) -> tuple[float, Any]:
        if name == "run_slice" and world.now < BEGAN + 7200:
            return 1.0, {"state": "later", "due": BEGAN + 7200}
        return all_well(400)(world, name, given)

    world = World(answered)
    assert "completed" == world.run(GIVEN)
    early = ran(world)[: 16 * 2 + 2]
    assert list(range(400)) == sorted(set(ran(world)))
    assert len(ran(world)) <= 400 + len(early)


def test_a_cancelled_batch_does_not_wait() -> None:
    """A cancel event ends the wait for a slice, which then finds that it is to stop; no other is begun."""

    def answered(world: World, name: str, given: dict[str, Any]) -> tuple[float, Any]:
        if name == "run_slice":
            state = "later" if world.now < BEGAN + 100 else "stopped"
            return 1.0, {"state": state, "due": BEGAN + 80_000}
        return all_well(400)(world, name, given)

    world = World(answered, cancel_at=BEGAN + 120)
    world.run(GIVEN)
    assert "end_batch" == world.asked[-1][0]
    assert world.now < BEGAN + 130


@pytest.mark.parametrize("wrong", [{"event": "broken", "state": "broken"}, RuntimeError("gave up")])
def test_a_batch_that_can_not_go_on_is_ended(wrong: Any) -> None:
    """A slice that fails by a bug, or that the engine gave up, ends the batch, once what is under way has ended."""

    def answered(world: World, name: str, given: dict[str, Any]) -> tuple[float, Any]:
        bad = name == "run_slice" and given["slice"] == 3
        return (1.0, wrong) if bad else all_well(50)(world, name, given)

    world = World(answered)
    world.run(GIVEN)
    assert ("end_batch", {"id": "batch_1", "broken": True}) == world.asked[-1]
    assert len(ran(world)) < 10


def test_a_file_that_takes_long_to_look_through() -> None:
    """Preparation goes on through new beginnings; a batch that is stopped in it runs nothing; then its webhook is told."""
    steps = 0

    def answered(world: World, name: str, given: dict[str, Any]) -> tuple[float, Any]:
        nonlocal steps
        if name == "prepare_batch":
            steps += 1
            return 20.0, {"state": "more" if steps < 100 else "stopped", "slices": 9}
        return all_well(9)(world, name, given)

    world = World(answered)
    world.run({**GIVEN, "webhook": True})
    assert (100, []) == (steps, ran(world))
    assert ["end_batch", "notify_batch"] == [name for name, _ in world.asked[-2:]]
    assert max(world.histories) <= 2 * batch_flow.ROUNDS + 2


def test_a_flow_of_another_version_is_not_run() -> None:
    """What a later release started is not run by this one."""
    with pytest.raises(ValueError, match="version 2"):
        World(all_well(1)).run({**GIVEN, "version": 2})
