"""The decision trace: plain, small, silent about the caller, and enough to decide the same again."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings

from shared.core.chat import Objective
from shared.core.health import DeploymentHealth, HealthSnapshot
from shared.core.registry import RoutingPolicy
from shared.core.router import plan
from shared.core.trace import record, replay
from tests.routing_fakes import DAY, ask, deployment, model, registry, situations


def written(situation: dict[str, Any]) -> str:
    """The trace of a situation's plan, as it is stored."""
    return json.dumps(record(**situation, route=plan(**situation)), allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(situations)
def test_a_recorded_decision_replays_to_the_same_route(situation: dict[str, Any]) -> None:
    """Through JSON, over any registry, health and request: every candidate, reason, cost and note."""
    assert plan(**situation) == replay(json.loads(written(situation)), situation["registry"])


def test_a_trace_shows_who_was_asked_and_why_others_were_not() -> None:
    """Deployments left out for the same reason share one entry."""
    catalog = registry(deployment("a1", "a"), deployment("b1", "b"), deployment("b2", "b"), models=(model("b", quality=0.1),))
    situation = {
        "requirements": ask(wishes={"min_quality": 0.4, "objective": Objective.COST}),
        "registry": catalog,
        "health": HealthSnapshot({"a1": DeploymentHealth(latency_ms=12.5), "elsewhere": DeploymentHealth()}),
        "day": DAY,
        "draw": 0.5,
        "allowed": None,
    }
    trace = json.loads(written(situation))
    assert [["a1", ["objective"], 600_000, 8_400_000]] == trace["candidates"]
    assert [["min_quality", "b has quality 0.1, at least 0.4 was asked for", ["b1", "b2"]]] == trace["dropped"]
    assert {"a1": [1.0, 12.5]} == trace["health"]
    assert "test" == trace["registry"]


def test_a_trace_is_small() -> None:
    """Under 4 KiB with 30 deployments that were all measured; a long list of candidates left out is one entry."""
    deployments = [deployment(f"provider-{number % 3}/model-{number}", f"model-{number}") for number in range(30)]
    catalog = registry(*deployments, policy=RoutingPolicy(max_candidates=8))
    health = {one.id: DeploymentHealth(success_rate=0.987654321, latency_ms=1234.56789012345) for one in deployments}
    situation = {
        "requirements": ask(),
        "registry": catalog,
        "health": HealthSnapshot(health),
        "day": DAY,
        "draw": 0.123456789,
        "allowed": None,
    }
    assert 4_096 > len(written(situation))
