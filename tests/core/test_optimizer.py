"""Suggestions: cheaper, as good, allowed, priced; and never a saving that the same tokens would not have made."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.chat import Usage
from shared.core.optimizer import Traffic, against_baseline, suggestions
from shared.core.registry import (
    Deployment,
    Lifecycle,
    LifecycleFacts,
    Model,
    Price,
    Provider,
    ProviderKind,
    Rates,
    RateTier,
    Registry,
)

DAY = date(2026, 11, 23)
CHAT = frozenset({"chat"})
SAME = Usage(1_000_000, 100_000)
USED = Traffic("code", "large", requests=100, calls=100, tokens=SAME, cost=10_000_000_000)


def priced(dollars: int | None, **changes: Any) -> tuple[Price, ...]:
    """Return a price of so many dollars a million tokens, in and out."""
    return () if dollars is None else (Price(date(2026, 1, 1), Rates(Decimal(dollars), Decimal(dollars)), **changes),)


def registry(*models: Model, prices: dict[str, tuple[Price, ...]], **changes: Any) -> Registry:
    """Return a registry with a deployment for each model."""
    provider = Provider("p", ProviderKind.OPENAI_COMPATIBLE, "http://127.0.0.1:9/v1")
    deployments = {
        model.name: Deployment(f"p/{model.name}", model.name, "p", model.name, prices=prices[model.name], **changes)
        for model in models
    }
    return Registry("test", {"p": provider}, {model.name: model for model in models}, deployments)


LARGE = Model("large", CHAT, ("code",), quality=0.8)
SMALL = Model("small", CHAT, ("code",), quality=0.8)
BETTER = Model("better", CHAT, ("code",), quality=0.9)


def test_the_cheapest_model_that_is_as_good_is_suggested() -> None:
    """The saving is what was paid less what the same tokens cost there."""
    found = suggestions(
        [USED],
        registry(LARGE, SMALL, BETTER, prices={"large": priced(9), "small": priced(2), "better": priced(1)}),
        day=DAY,
    )

    assert [(one.to_model, one.cost_now, one.cost_then, one.saving) for one in found] == [
        ("better", 10_000_000_000, 1_100_000_000, 8_900_000_000)
    ]
    assert found[0].requests == 100
    assert "quality 0.9, now 0.8" in found[0].why


@pytest.mark.parametrize(
    "other",
    [
        replace(SMALL, quality=0.79),
        replace(SMALL, tasks=("summary",)),
        replace(SMALL, capabilities=frozenset({"embeddings"})),
        replace(SMALL, capabilities=frozenset({"chat", "embeddings"})),
        replace(SMALL, unsupported_parameters=frozenset({"temperature"})),
        replace(SMALL, context_window=40_000),
        replace(SMALL, lifecycle=LifecycleFacts(Lifecycle.DEPRECATED)),
        replace(SMALL, lifecycle=LifecycleFacts(retires_on=DAY)),
    ],
)
def test_a_model_that_could_not_stand_in_is_not_suggested(other: Model) -> None:
    """Not as good, not suited, not able, without room, or on its way out: none of these is worth any saving."""
    prices = {"large": priced(9), "small": priced(1)}

    assert suggestions([USED], registry(LARGE, other, prices=prices), day=DAY) == []
    assert suggestions([USED], registry(LARGE, SMALL, prices=prices), day=DAY) != []


def test_what_is_not_known_leads_to_nothing() -> None:
    """No price, traffic with unknown cost, a model that is gone, nothing spent, or a deployment that can't be called."""
    cheap = {"large": priced(9), "small": priced(1)}
    both = registry(LARGE, SMALL, prices=cheap)

    assert suggestions([USED], registry(LARGE, SMALL, prices={**cheap, "small": ()}), day=DAY) == []
    assert suggestions([replace(USED, unknown=1)], both, day=DAY) == []
    assert suggestions([replace(USED, model="gone")], both, day=DAY) == []
    assert suggestions([replace(USED, cost=0)], both, day=DAY) == []
    assert suggestions([USED], registry(LARGE, SMALL, prices=cheap, unavailable="no key"), day=DAY) == []


def test_only_models_the_caller_may_use_are_suggested() -> None:
    """A key that is kept to some models hears of no other."""
    both = registry(LARGE, SMALL, BETTER, prices={"large": priced(9), "small": priced(2), "better": priced(1)})

    assert [one.to_model for one in suggestions([USED], both, day=DAY, allowed=frozenset({"large", "small"}))] == ["small"]
    assert suggestions([USED], both, day=DAY, allowed=frozenset({"large"})) == []


def test_prices_by_length_see_the_average_request_and_fees_every_call() -> None:
    """A million tokens over a hundred calls are short calls; what a call costs by itself is paid a hundred times."""
    dear = RateTier(200_000, Rates(Decimal(1_000), Decimal(1_000)))
    fee = Price(date(2026, 1, 1), Rates(Decimal(1), Decimal(1), request=Decimal("0.01")), (dear,))

    found = suggestions([USED], registry(LARGE, SMALL, prices={"large": priced(9), "small": (fee,)}), day=DAY)

    assert [one.cost_then for one in found] == [1_100_000_000 + 100 * 10_000_000]


def test_a_smaller_window_is_said() -> None:
    """A model with less room, but plenty for these requests, is suggested with that in its reason."""
    large, small = replace(LARGE, context_window=1_000_000), replace(SMALL, context_window=128_000)

    found = suggestions([USED], registry(large, small, prices={"large": priced(9), "small": priced(1)}), day=DAY)

    assert "smaller (128,000 tokens)" in found[0].why


def test_savings_against_a_baseline() -> None:
    """What was paid is set against one model's price for the same tokens; what can't be compared is left out, and counted."""
    both = registry(LARGE, SMALL, prices={"large": priced(9), "small": priced(2)})
    cheap = Traffic("code", "small", 10, 10, SAME, 2_200_000_000)
    unknown = replace(cheap, requests=3, unknown=1)

    found = against_baseline([cheap, unknown], both, "large", day=DAY)

    assert found is not None
    assert (found.requests, found.left_out, found.cost_now, found.cost_then) == (10, 3, 2_200_000_000, 9_900_000_000)
    assert found.saving == 7_700_000_000
    assert against_baseline([cheap], registry(LARGE, SMALL, prices={"large": (), "small": ()}), "large", day=DAY) is None
    assert against_baseline([cheap], both, "nobody", day=DAY) is None


@given(
    tokens=st.tuples(*[st.integers(0, 10**9)] * 5),
    calls=st.integers(1, 10**6),
    cost=st.integers(0, 10**15),
    prices=st.tuples(*[st.integers(0, 100)] * 3),
)
def test_a_suggestion_always_saves(tokens: Any, calls: int, cost: int, prices: tuple[int, ...]) -> None:
    """Savings are positive, never over the cost, largest first, one for each task and model."""
    names = ("large", "small", "better")
    known = registry(LARGE, SMALL, BETTER, prices=dict(zip(names, map(priced, prices), strict=True)))
    traffic = [Traffic(task, name, calls, calls, Usage(*tokens), cost) for name in names for task in ("code", "other")]

    found = suggestions(traffic, known, day=DAY)

    assert all(0 < one.saving <= one.cost_now for one in found)
    assert [one.saving for one in found] == sorted((one.saving for one in found), reverse=True)
    assert len({(one.task, one.from_model) for one in found}) == len(found)
    assert all(known.models[one.to_model].quality >= known.models[one.from_model].quality for one in found)
