"""The batch's orchestrator on azure-functions-durable's own handler: whatever a history is cut down to, its end is the same."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from functions.surface import registered
from local.mounting import functions_of
from tests.chains.player import End, Event, Player, asked, called
from tests.chains.scripts import BEGAN, Script

DEFERRED = 4
"""The slice that is to be gone on with later, once."""


class BatchPlayer(Player):
    """Plays the activities of a batch of so many slices."""

    def __init__(self, slices: int, script: Script) -> None:
        orchestrator = functions_of(registered()).orchestrators["run_batch"]
        given = {"version": 1, "id": "batch_1", "width": 4, "expires_at": BEGAN + 86_400, "webhook": True}
        super().__init__(orchestrator, script, given)
        self._slices = slices

    def _performed(self, action: Event, at: float) -> tuple[float, Any]:
        match action["functionName"]:
            case "prepare_batch":
                return 2.0, {"state": "ready", "slices": self._slices}
            case "run_slice" if action["input"]["slice"] == DEFERRED and at < BEGAN + 500:
                return 1.0, {"state": "later", "due": BEGAN + 500}
            case "run_slice":
                return 1.0 + action["input"]["slice"] % 3, {"state": "done", "due": 0.0}
            case _:
                return 0.5, "completed"


def script(**changes: Any) -> Script:
    """Return a script: of a chain's, only what the engine does counts."""
    return Script("batch", (), (), **changes)


@cache
def played(slices: int, *, broken: bool = False) -> End:
    """Return how a batch of so many slices ends."""
    return BatchPlayer(slices, script(broken_store={"run_slice": 1} if broken else {})).play()


@pytest.mark.parametrize("broken", [False, True])
def test_each_slice_is_asked_for_once(broken: bool) -> None:  # noqa: FBT001 - a table of cases
    """The handler schedules each slice once, however often it is waited for among others, also when the store is away."""
    end = played(25, broken=broken)

    assert "completed" == end.output
    asked_for = [one["input"]["slice"] for one in called(end.actions, "run_slice")]
    assert sorted([*range(25), DEFERRED]) == sorted(asked_for)
    assert [{"id": "batch_1", "broken": False}] == [one["input"] for one in called(end.actions, "end_batch")]
    assert 1 == len(called(end.actions, "notify_batch"))


@pytest.mark.parametrize("broken", [False, True])
def test_every_prefix_goes_on_to_the_same_end(broken: bool) -> None:  # noqa: FBT001 - a table of cases
    """A history that is cut after any event, and goes on, asks for the same and ends the same."""
    whole = played(12, broken=broken)
    player = BatchPlayer(12, script(broken_store={"run_slice": 1} if broken else {}))
    for length in range(2, len(whole.history) + 1):
        said = player.replay(whole.history[:length])
        known = asked(whole.actions)
        assert asked(said["actions"]) == known[: len(asked(said["actions"]))]


def test_a_long_batch_begins_anew() -> None:
    """After some activities the flow gives itself what is left, and nothing is under way then."""
    end = played(300)

    (anew,) = [one for one in end.actions if "functionName" not in one and "fireAt" not in one]
    given = anew["input"]
    assert ("batch_1", 300, 1) == (given["id"], given["slices"], given["version"])
    assert given["begun"] == len(called(end.actions, "run_slice")) < 300
    assert [[DEFERRED, BEGAN + 500]] == given["later"]
    assert [] == called(end.actions, "end_batch")
