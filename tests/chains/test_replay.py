"""The chain's orchestrator on azure-functions-durable's own handler: whatever a history is cut down to, its end is the same.

``histories/`` holds what version 1 of the flow wrote. Chains in Azure have such histories when a new version is deployed, so
these files are never written anew: ``python -m tests.chains.record`` adds those of scripts and versions that have none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from functions.surface import registered
from local.mounting import functions_of
from shared.core import chain
from shared.core.chain import CURRENT, FLOWS, Flow, Plan
from shared.core.failover import Attempt, Ended, Outcome
from tests.chains.player import End, Player, asked, called
from tests.chains.record import FOLDER, in_file
from tests.chains.scripts import SCRIPTS, Script

WHAT_TO_DO = (
    "Chains that began with version {version} would not go on as they began. Leave that version in shared.core.chain.FLOWS as"
    " it was, and functions/chain_flow.py so that it replays this history; make the change a version of its own and CURRENT."
)


@cache
def run_chain() -> Callable[[Any], Any]:
    """Return the orchestrator that the app registers."""
    return functions_of(registered()).orchestrators["run_chain"]


@cache
def played(script: str) -> End:
    """Return a script's end."""
    return Player(run_chain(), next(one for one in SCRIPTS if one.name == script)).play()


def prefixes(history: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield a history cut at each event; the handler needs the first two."""
    yield from (history[:length] for length in range(2, len(history) + 1))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_chain_makes_the_attempts_of_its_script(script: Script) -> None:
    """And ends as the script says, with one call of `end_chain`, and one of `notify_chain` if there is a webhook."""
    end = played(script.name)

    assert script.attempts == tuple(end.attempts)
    assert (None if script.ends is None else script.ends.value) == end.outcome
    assert 1 == len(called(end.actions, "end_chain"))
    assert int(script.webhook) == len(called(end.actions, "notify_chain"))
    assert end.output == "ended"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_every_prefix_of_a_history_replays_to_the_same_actions(script: Script) -> None:
    """The handler is given any beginning of the history: what it wants done is a beginning of what was done in the end."""
    end, player = played(script.name), Player(run_chain(), script)
    for history in prefixes(end.history):
        said = player.replay(history)

        assert asked(said["actions"]) == asked(end.actions)[: len(said["actions"])], len(history)
        assert said["isDone"] == (len(history) == len(end.history))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_history_cut_at_any_event_goes_on_to_the_same_end(script: Script) -> None:
    """The host died after any event, even in the middle of writing an episode down: the end and every action are the same."""
    end, player = played(script.name), Player(run_chain(), script)
    for history in prefixes(end.history):
        again = player.play(history)

        assert again.actions == end.actions, len(history)
        assert again.output == end.output


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_events_come_twice(script: Script) -> None:
    """Durable Functions delivers at least once: a second ``cancel`` and a second result change nothing."""
    end, player = played(script.name), Player(run_chain(), script)
    doubled = [event for event in end.history for _ in range(2 if event["EventType"] in {5, 15} else 1)]
    said = player.replay(doubled)

    assert said["isDone"]
    assert said["actions"] == end.actions


def test_a_wait_of_an_hour_is_a_timer() -> None:
    """It is written down first, so that others see until when the chain waits."""
    end = played("long_wait")
    timers = [action for action in end.actions if "fireAt" in action]

    assert 1 == len(timers)
    assert timers[0]["fireAt"][:19] == called(end.actions, "note_chain")[0]["input"]["status"]["waiting_until"][:19]


def test_a_cancelled_wait_leaves_no_timer() -> None:
    """The timer of an hour does not keep the instance alive."""
    end = played("cancel_in_a_wait")

    assert [True] == [action["isCanceled"] for action in end.actions if "fireAt" in action]


def test_an_activity_is_tried_until_the_store_is_back() -> None:
    """What it raises is no attempt of the chain: the flow does not see it."""
    end = played("store_down")
    failed = [event for event in end.history if event["EventType"] == 6]

    assert 2 * 1 + 1 + 2 + 1 == len(failed)
    assert 2 == len(called(end.actions, "attempt_chain"))


# ---- versions --------------------------------------------------------------------------------------------------------

FILES = sorted(FOLDER.glob("*.json"))


def test_every_script_has_a_history_of_the_current_version() -> None:
    """What chains in flight look like is kept for each version."""
    missing = [script.name for script in SCRIPTS if not in_file(script.name, CURRENT).exists()]

    assert [] == missing, "python -m tests.chains.record"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recorded_histories_still_replay(path: Any) -> None:
    """Every beginning of what an older version wrote leads to the actions that it led to then."""
    kept = json.loads(path.read_text())
    player = Player(run_chain(), SCRIPTS[0], kept["given"])
    what_to_do = WHAT_TO_DO.format(version=kept["given"]["version"])
    for history in prefixes(kept["history"]):
        said = player.replay(history)

        assert asked(said["actions"]) == asked(kept["actions"])[: len(said["actions"])], what_to_do
    assert said["isDone"], what_to_do
    assert said["output"] == kept["output"], what_to_do


def _gives_up(plan: Plan) -> Flow:
    """Be another version of the flow: it asks the last candidate, once."""
    yield Attempt(plan.candidates[-1], 1, plan.policy.deadline)
    return Outcome(Ended.GAVE_UP, attempts=1)


def test_a_chain_ends_with_the_version_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version is deployed while chains are in flight: those go on as they began, new ones begin with the new one."""
    script = next(one for one in SCRIPTS if one.name == "fallback")
    before = played("fallback")
    monkeypatch.setitem(FLOWS, CURRENT + 1, _gives_up)
    monkeypatch.setattr(chain, "CURRENT", CURRENT + 1)
    for history in prefixes(before.history):
        assert Player(run_chain(), script).play(history).actions == before.actions

    newer = Player(run_chain(), script, {**script.given(), "version": CURRENT + 1}).play()
    assert ["two"] == newer.attempts
    assert newer.outcome == Ended.GAVE_UP.value
