"""The most a call can cost: sound for every model, and one rule for all limits on money."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.simulator.openai_chat import count_tokens
from shared.catalog import load
from shared.core.bounds import FILE_BOUND, IMAGE_BOUND, SURCHARGED, WINDOW_BOUND, billed_output, input_bound
from shared.core.chat import Usage
from shared.core.pricing import cost, worst_case
from shared.core.registry import Price, Rates
from shared.core.requirements import chat_requirements
from shared.core.route import ReasonCode
from tests.routing_fakes import ask, deployment, dropped, model, order, registry, route_of

PATH = Path(__file__).parents[2] / "catalog" / "models.yaml"
SHIPPED = load(PATH.read_text(encoding="utf-8"), source=PATH.name, environment={}).registry
PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


@pytest.mark.parametrize(
    ("facts", "asked", "expected"),
    [
        ({}, {}, 0),
        ({}, {"images": 2}, 2 * IMAGE_BOUND),
        ({"image_tokens": 1_500}, {"images": 2}, 3_000),
        ({"context_window": 128_000}, {"images": 2}, 128_000),
        ({"context_window": 1_000_000}, {"unsized": True}, 1_000_000),
        ({"context_window": 1_000_000}, {"unsized": True, "images": 30}, 1_000_000),
        ({"context_window": 8_192}, {"unsized": True}, FILE_BOUND),
        ({}, {"unsized": True}, WINDOW_BOUND),
    ],
)
def test_pictures_and_documents_are_bound_by_the_model(facts: dict[str, Any], asked: dict[str, Any], expected: int) -> None:
    """A picture by what the model says or the most known, all that nobody can size by the context window."""
    made = model("a", **{"context_window": None, **facts})
    assert 400 + expected == input_bound(ask(**asked), made)


def test_the_larger_bound_leaves_no_candidate_out() -> None:
    """What fits is judged by what is expected."""
    catalog = registry(deployment("a1", "a"), models=(model("a", context_window=8_192),))
    assert ["a1"] == order(route_of(ask("a", images=3, unsized=True), catalog))


# ---- OpenAI's formulas -----------------------------------------------------------------------------------------------


def tiles(width: int, height: int) -> int:
    """How many tiles a picture has after it was scaled into 2048 square, then to a shortest side of 768."""
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    return ceil(max(1, round(width * scale)) / 512) * ceil(max(1, round(height * scale)) / 512)


def patches(width: int, height: int, most: int) -> int:
    """How many patches a picture has, of which no more are taken."""
    return min(most, ceil(width / 32) * ceil(height / 32))


TILED = {"gpt-4o": (85, 170), "gpt-4o-mini": (2_833, 5_667), "gpt-4.1": (85, 170), "gpt-5": (70, 140), "o1": (75, 150)}
# The most patches and tokens for each; where the latter is not known, the most there is.
PATCHED = {
    "gpt-4.1-mini": (1_536, 1.62),
    "gpt-4.1-nano": (1_536, 2.46),
    "o4-mini": (1_536, 1.72),
    "gpt-5-mini": (1_536, 1.62),
    "gpt-5-nano": (1_536, 2.46),
    "gpt-5.4": (10_000, 1.2),
    "gpt-5.4-mini": (10_000, 1.62),
    "gpt-5.4-nano": (10_000, 2.46),
    "gpt-5.5": (10_000, 1.2),
    "gpt-5.6-terra": (30_000, 2.46),
    "gpt-6-luna": (30_000, 2.46),
    "gpt-6-astra": (30_000, 1.2),
}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 65_535), st.integers(1, 65_535))
def test_no_picture_passes_the_bound_of_a_model_in_the_catalog(width: int, height: int) -> None:
    """By OpenAI's own arithmetic, of any size and form."""
    asked = replace(chat_requirements({"messages": [{"role": "user", "content": [PICTURE]}]}), input_tokens_bound=0)
    for name, (base, tile) in TILED.items():
        assert base + tile * tiles(width, height) <= input_bound(asked, SHIPPED.models[name])
    for name, (most, rate) in PATCHED.items():
        assert ceil(rate * patches(width, height, most)) <= input_bound(asked, SHIPPED.models[name])


# ---- the simulator's counting ----------------------------------------------------------------------------------------

part = st.one_of(
    st.text(max_size=80).map(lambda text: {"type": "text", "text": text}),
    st.just(PICTURE),
    st.just({"type": "file", "file": {"file_id": "f"}}),
    st.just({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
)
call = st.builds(lambda name, text: {"id": "1", "function": {"name": name, "arguments": text}}, st.text(), st.text())
message = st.one_of(
    st.builds(lambda content: {"role": "user", "content": content}, st.one_of(st.text(), st.lists(part, max_size=5))),
    st.builds(lambda calls: {"role": "assistant", "content": None, "tool_calls": calls}, st.lists(call, max_size=3)),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(message, max_size=5), st.text(max_size=50), st.integers(1, 3), st.integers(1, 1_000))
def test_what_the_simulator_bills_is_within_the_bound(messages: list[Any], predicted: str, choices: int, limit: int) -> None:
    """Its input as it counts it, and output to the limit with nothing of the prediction come true, at what it costs."""
    prediction = {"type": "content", "content": predicted}
    asked = chat_requirements({"messages": messages, "n": choices, "max_tokens": limit, "prediction": prediction})
    made, price = model("a"), Price(date(2026, 1, 1), Rates(Decimal(1), Decimal(4), cache_creation=Decimal("1.25")))
    billed = Usage(count_tokens(messages), choices * limit + len(predicted.encode("utf-8", "surrogatepass")))
    assert billed.input_tokens <= input_bound(asked, made)
    assert billed.output_tokens <= billed_output(asked, limit)
    worst = worst_case(price, input_tokens=input_bound(asked, made), output_tokens=billed_output(asked, limit))
    assert (cost(price, billed) or 0) <= worst


# ---- one rule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"service_tier": "priority"}, "service_tier"),
        ({"surcharged": frozenset({"cache_control.ttl"})}, "cache_control.ttl"),
        *(({"parameters": frozenset({name})}, name) for name in sorted(SURCHARGED)),
    ],
)
def test_what_has_no_bound_is_held_to_no_budget_limit(asked: dict[str, Any], why: str) -> None:
    """A caller's own limit refuses what a hard budget refuses, and says why; without one it goes through, its worst unknown."""
    catalog = registry(deployment("a1", "a", usd="1"))
    (candidate,) = route_of(ask("a", **asked), catalog).candidates
    assert candidate.worst_cost is None
    route = route_of(ask("a", budget_limit=10**12, **asked), catalog)
    assert {"a1": ReasonCode.UNKNOWN_PRICE} == dropped(route)
    assert why in route.dropped[0].reason.detail
    assert ["a1"] == order(route_of(ask("a", budget_limit=10**12, service_tier="flex"), catalog))
