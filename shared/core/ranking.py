"""In which order equals are asked: models by the objective, a model's deployments by priority and weight.

The objective's scores, lower first:

- cost: the expected cost in nano-USD; an unknown price is last.
- quality: the catalog's quality, highest first.
- latency: milliseconds, measured where there are calls, else the catalog's figure.
- balanced: 0.4 x (1 - quality) + 0.4 x cost + 0.2 x latency, where cost is the number of decades above 1 micro-USD out of six,
  and latency the number of decades above 100 ms out of two, both held between 0 and 1. Each model's score depends on nothing
  but itself, so adding a model to the catalog never swaps two others.

Before the score come how well the catalog says the model suits the task, and whether most of its calls fail. For a caller who
states the objective, a model that is for anything suits as well as one named for the task: the best is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from math import inf, log10
from typing import Final

from shared.core.chat import Objective, Priority
from shared.core.fitness import Demands, Fact, expected_cost, latency_of
from shared.core.health import HealthSnapshot
from shared.core.pricing import usd
from shared.core.registry import Model
from shared.core.route import Reason, ReasonCode

QUALITY_SHARE: Final = 0.4
COST_SHARE: Final = 0.4
LATENCY_SHARE: Final = 0.2
_COST_FLOOR: Final = 1_000.0  # nano-USD
_COST_DECADES: Final = 6.0
_LATENCY_FLOOR: Final = 100.0  # milliseconds
_LATENCY_DECADES: Final = 2.0

FAILING_BELOW: Final = 0.5
"""A model whose first deployment succeeds less often than this stands behind every other of equal suitability."""

LEAST_SUCCESS: Final = 0.05
"""The least success rate a deployment's share is reckoned with: a trickle of calls has to find out that it is back."""

GENERAL_TASK: Final = "text-generation"
"""A model that names this task is for anything, though a model that names the very task suits it better."""

_SYNONYMS: Final = (
    ("code-generation", "code", "code-completion"),
    ("reasoning", "analysis"),
)
_SAME_TASK: Final = {name: group for group in _SYNONYMS for name in group}


def names_of_task(task: str) -> tuple[str, ...]:
    """Return the task's name and then the other names catalogs have for it."""
    return (task, *(name for name in _SAME_TASK.get(task, ()) if name != task))


def suits(model: Model, names: Sequence[str]) -> int:
    """Return how well a model suits a task: 0 named for it (or for nothing in particular), 1 for anything, 2 for others."""
    tasks = model.tasks
    if not tasks:
        return 0
    for name in names:
        if name in tasks:
            return 0
    return 1 if GENERAL_TASK in tasks else 2


# ---- models by objective ---------------------------------------------------------------------------------------------


def _by_cost(fact: Fact, demands: Demands) -> float:
    cost = expected_cost(fact, demands)
    return inf if cost is None else cost


def _by_quality(fact: Fact, _: Demands) -> float:
    return -fact.model.quality


def _by_latency(fact: Fact, demands: Demands) -> float:
    return latency_of(fact, demands.health)


def balanced(*, quality: float, cost: int | None, latency_ms: float) -> float:
    """Return the balanced score, 0 the best and 1 the worst; an unknown cost counts as the dearest."""
    dear = 1.0 if cost is None else min(1.0, log10(max(cost, _COST_FLOOR) / _COST_FLOOR) / _COST_DECADES)
    slow = min(1.0, log10(max(latency_ms, _LATENCY_FLOOR) / _LATENCY_FLOOR) / _LATENCY_DECADES)
    return QUALITY_SHARE * (1.0 - quality) + COST_SHARE * dear + LATENCY_SHARE * slow


def _by_balance(fact: Fact, demands: Demands) -> float:
    return balanced(
        quality=fact.model.quality,
        cost=expected_cost(fact, demands),
        latency_ms=latency_of(fact, demands.health),
    )


_SCORES: Final[dict[Objective, Callable[[Fact, Demands], float]]] = {
    Objective.COST: _by_cost,
    Objective.QUALITY: _by_quality,
    Objective.LATENCY: _by_latency,
    Objective.BALANCED: _by_balance,
}


def ranked(models: list[list[Fact]], demands: Demands, *, objective: Objective, task: str) -> list[list[Fact]]:
    """Return models (each its usable deployments) in the order of the objective.

    A model is judged by its first usable deployment: lowest priority number, then catalog order. Chance has no part in it.
    """
    names = names_of_task(task)
    good_enough = 0 if demands.requirements.preferences.objective is None else 1
    score = _SCORES[objective]
    known = demands.health.deployments

    def key(facts: list[Fact]) -> tuple[int, bool, float, int]:
        first = facts[0]
        health = known.get(first.id)
        failing = health is not None and health.success_rate < FAILING_BELOW
        return max(good_enough, suits(first.model, names)), failing, score(first, demands), first.place

    return sorted(models, key=key)


def objective_reason(fact: Fact, demands: Demands, objective: Objective) -> Reason:
    """Say what the objective saw in a candidate."""
    cost = expected_cost(fact, demands)
    money = "price unknown" if cost is None else f"about ${usd(cost):.6f}"
    seen = f"{money}, quality {fact.model.quality:g}, {latency_of(fact, demands.health):.0f} ms"
    return Reason(ReasonCode.OBJECTIVE, f"{objective.value}: {seen}")


# ---- a model's deployments -------------------------------------------------------------------------------------------


def arranged(facts: list[Fact], demands: Demands, draw: float) -> list[Fact]:
    """Return a model's deployments in the order they are asked.

    Reserved capacity goes first to urgent requests and last to those that can wait; then the lower priority number; among
    equals a shuffle by weight. ``facts`` are sorted by priority.
    """
    if len(facts) == 1:
        return facts
    priority = demands.requirements.priority
    if priority is not Priority.NORMAL:
        provisioned_first = priority is Priority.HIGH
        facts = sorted(facts, key=lambda fact: fact.deployment.provisioned is not provisioned_first)
    order: list[Fact] = []
    for _, equals in groupby(facts, key=_rank(priority)):
        order += weighted_order(list(equals), draw, demands.health)
    return order


def _rank(priority: Priority) -> Callable[[Fact], tuple[bool, int]]:
    if priority is Priority.NORMAL:
        return lambda fact: (False, fact.deployment.priority)
    return lambda fact: (fact.deployment.provisioned, fact.deployment.priority)


def weighted_order(facts: list[Fact], draw: float, health: HealthSnapshot) -> list[Fact]:
    """Shuffle by weight: each place goes to one of those left with the odds of its weight.

    One draw decides everything: after a pick, where the draw fell within that pick's share is the draw for the next. A share
    is the weight times the square of the success rate, so a deployment that fails gets less before its breaker opens. Weight 0
    is asked after all others, in catalog order.
    """
    if len(facts) == 1:
        return facts
    known = health.deployments
    shares: list[float] = []
    for fact in facts:
        state = known.get(fact.id)
        success = 1.0 if state is None else max(state.success_rate, LEAST_SUCCESS)
        shares.append(fact.deployment.weight * success * success)
    left = list(range(len(facts)))
    order: list[Fact] = []
    while left:
        picked, draw = _pick(left, shares, draw)
        left.remove(picked)
        order.append(facts[picked])
    return order


def _pick(left: list[int], shares: list[float], draw: float) -> tuple[int, float]:
    total = sum(shares[index] for index in left)
    if total <= 0:
        return left[0], draw
    point = draw * total
    chosen = left[0]
    for index in left:
        if shares[index] <= 0:
            continue
        chosen = index
        if point < shares[index]:
            return index, point / shares[index]
        point -= shares[index]
    # Rounding carried the draw past the end: it belongs to the last share.
    return chosen, 0.0
