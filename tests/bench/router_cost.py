"""What a decision costs in processor time: requirements, plan and trace, over a registry of 80 deployments.

python tests/bench/router_cost.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from shared.core.chat import Objective
from shared.core.health import DeploymentHealth, HealthSnapshot
from shared.core.registry import Alias, RoutingRule
from shared.core.requirements import chat_requirements
from shared.core.router import plan
from shared.core.trace import record
from tests.routing_fakes import DAY, ask, deployment, model, registry

MODELS: Final = [f"model-{number}" for number in range(40)]
CATALOG: Final = registry(
    *(deployment(f"{at}/{name}", name, at, weight=weight) for name in MODELS for at, weight in (("acme", 1), ("bolt", 2))),
    models=tuple(model(name, quality=0.5 + place / 100) for place, name in enumerate(MODELS)),
    aliases=(Alias("fast", ("model-1", "model-2")),),
    rules=(RoutingRule("conversation", ("model-3", "model-4"), ("model-5",)),),
)
HEALTH: Final = HealthSnapshot({name: DeploymentHealth(latency_ms=500.0) for name in CATALOG.deployments})
CHAT: Final = {
    "model": "model-1",
    "messages": [
        {"role": "system", "content": "You are helpful."},
        {"role": "user", "content": "Write a haiku about the sea in autumn"},
    ],
    "temperature": 0.7,
    "max_tokens": 200,
}


def microseconds(work: Callable[[], object], rounds: int = 7, times: int = 1_000) -> float:
    """Return the best of some rounds, in microseconds of processor time for each call."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(times):
            work()
        best = min(best, time.process_time() - began)
    return best / times * 1e6


def main() -> None:
    """Print the table."""
    situation: dict[str, Any] = {"registry": CATALOG, "health": HEALTH, "day": DAY, "draw": 0.3}
    requests = {
        "a model": ask("model-1"),
        "an alias": ask("fast"),
        "auto": ask(),
        "auto, objective and budget": ask(wishes={"objective": Objective.COST, "min_quality": 0.6}, budget_limit=10**9),
    }
    print(f"{'requirements of a small chat':36}{microseconds(lambda: chat_requirements(CHAT)):8.1f} us")
    for name, request in requests.items():
        plan_cost = microseconds(lambda request=request: plan(request, **situation))  # type: ignore[misc]
        print(f"{'plan: ' + name:36}{plan_cost:8.1f} us")
        route = plan(request, **situation)
        trace_cost = microseconds(
            lambda request=request, route=route: record(request, **situation, allowed=None, route=route)  # type: ignore[misc]
        )
        print(f"{'record: ' + name:36}{trace_cost:8.1f} us")


if __name__ == "__main__":
    main()
