"""Where the same traffic would have cost less: cheaper models of equal or better declared quality, and savings on a baseline.

What is assumed is said in `ASSUMPTIONS`: another model is taken to need as many tokens, which its own tokenizer and its own
manner of answering may belie. A price that is not known, or traffic whose cost is not, leads to no suggestion. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

from shared.core import pricing
from shared.core.chat import Operation, Usage
from shared.core.fitness import Fact, facts_of
from shared.core.registry import Lifecycle, Model, Price, Registry

ASSUMPTIONS: Final = (
    "The other model needs as many input and output tokens, and as many of them come from its cache.",
    "Quality is what the catalog declares: try the other model on your own requests before you switch.",
    "Requests are of average length where prices depend on length.",
)
LEAST_SHARE: Final = 0.01
"""Savings under this share of the cost are not worth the change."""
_ROOM: Final = 4
"""A smaller context window will do when the average request fits it so many times."""
_LEAVING: Final = frozenset({Lifecycle.LEGACY, Lifecycle.DEPRECATED, Lifecycle.RETIRED})


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one model was used for in one task. ``calls`` are attempts, ``unknown`` those whose cost (nano-USD) is not known."""

    task: str
    model: str
    requests: int
    calls: int
    tokens: Usage
    cost: int
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Another model for a task, and what the same traffic would have cost on it, in nano-USD."""

    task: str
    from_model: str
    to_model: str
    to_deployment: str
    requests: int
    cost_now: int
    cost_then: int
    why: str

    @property
    def saving(self) -> int:
        """What it would have saved."""
        return self.cost_now - self.cost_then


@dataclass(frozen=True, slots=True)
class Baseline:
    """What traffic has cost, and what it would have on one model, in nano-USD. ``left_out`` requests can't be compared."""

    model: str
    requests: int
    left_out: int
    cost_now: int
    cost_then: int

    @property
    def saving(self) -> int:
        """What was saved; negative when the baseline would have been cheaper."""
        return self.cost_then - self.cost_now


def suggestions(
    traffic: Iterable[Traffic], registry: Registry, *, day: date, allowed: frozenset[str] | None = None
) -> list[Suggestion]:
    """Return the cheapest fitting model for each task and model in use, the largest saving first.

    ``allowed`` are the models the caller may use, None all. One suggestion for each task and model, so savings add up.
    """
    found = [_best(one, registry, day, allowed) for one in traffic]
    return sorted((one for one in found if one is not None), key=lambda one: (-one.saving, one.task, one.from_model))


def against_baseline(traffic: Iterable[Traffic], registry: Registry, model: str, *, day: date) -> Baseline | None:
    """Return what traffic would have cost on one model; None when that has no known price now."""
    facts = [fact for fact in facts_of(registry, day).by_model.get(model, ()) if fact.barred is None]
    requests = left_out = now = then = 0
    priced = False
    for one in traffic:
        costs = [cost for fact in facts if (cost := _cost(fact, one, day)) is not None]
        priced = priced or bool(costs)
        if one.unknown or not costs or not _comparable(registry.models.get(one.model), registry.models[model]):
            left_out += one.requests
            continue
        requests, now, then = requests + one.requests, now + one.cost, then + min(costs)
    return Baseline(model, requests, left_out, now, then) if priced else None


def _best(one: Traffic, registry: Registry, day: date, allowed: frozenset[str] | None) -> Suggestion | None:
    current = registry.models.get(one.model)
    if current is None or one.unknown or one.calls <= 0 or one.cost <= 0:
        return None
    options: list[tuple[int, str, Fact]] = []
    for name, facts in facts_of(registry, day).by_model.items():
        if name == one.model or (allowed is not None and name not in allowed):
            continue
        for fact in facts:
            cost = _cost(fact, one, day) if _fits(one, current, fact) else None
            if cost is not None:
                options.append((cost, fact.id, fact))
    if not options:
        return None
    cost, _, fact = min(options, key=lambda option: option[:2])
    if one.cost - cost < max(1, one.cost * LEAST_SHARE):
        return None
    why = _why(one, current, fact.model)
    return Suggestion(one.task, one.model, fact.model.name, fact.id, one.requests, one.cost, cost, why)


def _comparable(current: Model | None, other: Model) -> bool:
    """Return whether one model's answers could stand for the other's: vectors of two models never can."""
    embeds = Operation.EMBEDDINGS.value
    return current is not None and embeds not in current.capabilities and embeds not in other.capabilities


def _fits(one: Traffic, current: Model, fact: Fact) -> bool:
    """Return whether a deployment may take what a model was asked: it can all that one can, and is declared as good."""
    other = fact.model
    lifecycle = fact.deployment.lifecycle or other.lifecycle
    return (
        fact.barred is None
        and _comparable(current, other)
        and lifecycle.stage not in _LEAVING
        and other.quality >= current.quality
        and (one.task in other.tasks or one.task not in current.tasks)
        and current.capabilities <= fact.capabilities
        and other.unsupported_parameters <= current.unsupported_parameters
        and _has_room(
            other.context_window, current.context_window, (one.tokens.input_tokens + one.tokens.output_tokens) // one.calls
        )
        and _has_room(other.max_output_tokens, current.max_output_tokens, one.tokens.output_tokens // one.calls)
    )


def _has_room(other: int | None, current: int | None, average: int) -> bool:
    return other is None or (current is not None and other >= current) or other >= _ROOM * average


def _cost(fact: Fact, one: Traffic, day: date) -> int | None:
    """Return what traffic would cost at a deployment; None when its price is not known."""
    price = pricing.price_on(fact.deployment.prices, day)
    if price is None:
        return None
    calls = max(1, one.calls)
    rates = pricing.rates_for(price, one.tokens.input_tokens // calls, None)
    if rates is None:
        return None
    # The rates of an average request for all of them: the tiers must not see the sum.
    flat = Price(price.effective_from, replace(rates, request=rates.request * calls))
    return pricing.cost(flat, replace(one.tokens, service_tier=None))


def _why(one: Traffic, current: Model, other: Model) -> str:
    better = "as good" if other.quality == current.quality else "better"
    reasons = [
        f"declared {better} (quality {other.quality:g}, now {current.quality:g})",
        "with every capability of the one in use",
    ]
    if one.task in other.tasks:
        reasons.append(f"suited for {one.task}")
    if other.context_window is not None and other.context_window < (current.context_window or other.context_window + 1):
        reasons.append(f"its context window is smaller ({other.context_window:,} tokens), many times an average request here")
    return f"{other.name} is {', '.join(reasons)}."
