"""Who a route leaves out, with the reason; and what its candidates cost."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from shared.core.chat import Operation
from shared.core.health import BreakerState, DeploymentHealth
from shared.core.registry import Alias, Lifecycle, LifecycleFacts, RoutingPolicy
from shared.core.route import ReasonCode
from shared.core.router import output_bound
from tests.routing_fakes import (
    DAY,
    ask,
    deployment,
    dropped,
    model,
    order,
    provider,
    registry,
    route_of,
)

OPEN = DeploymentHealth(breaker=BreakerState.OPEN, admits_in=9.0)


# ---- who is left out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "model_facts", "deployment_facts", "request_facts"),
    [
        (ReasonCode.OPERATION, {"capabilities": frozenset({"embeddings"})}, {}, {}),
        (ReasonCode.UNAVAILABLE, {}, {"unavailable": "set ACME_KEY"}, {}),
        (ReasonCode.RETIRED, {"lifecycle": LifecycleFacts(retires_on=DAY)}, {}, {}),
        (ReasonCode.RETIRED, {"lifecycle": LifecycleFacts(Lifecycle.RETIRED)}, {}, {}),
        (ReasonCode.CAPABILITY, {}, {}, {"capabilities": frozenset({"vision"})}),
        (ReasonCode.PARAMETER, {"unsupported_parameters": frozenset({"seed"})}, {}, {"parameters": frozenset({"seed"})}),
        (ReasonCode.CONTEXT_WINDOW, {"context_window": 1_000}, {}, {"input_tokens": 1_200}),
        (ReasonCode.CONTEXT_WINDOW, {"context_window": 1_000}, {}, {"input_tokens": 600, "max_output_tokens": 500}),
        (ReasonCode.OUTPUT_LIMIT, {"max_output_tokens": 500}, {}, {"max_output_tokens": 501}),
        (ReasonCode.EXCLUDED, {}, {}, {"wishes": {"exclude_models": ("a",)}}),
        (ReasonCode.EXCLUDED, {}, {}, {"wishes": {"exclude_models": ("fast",)}}),
        (ReasonCode.EXCLUDED, {}, {}, {"wishes": {"exclude_providers": ("acme",)}}),
        (ReasonCode.EXCLUDED, {}, {}, {"wishes": {"exclude_providers": ("openai_compatible",)}}),
        (ReasonCode.MIN_QUALITY, {"quality": 0.79}, {}, {"wishes": {"min_quality": 0.8}}),
        (ReasonCode.MAX_LATENCY, {"latency_ms": 501}, {}, {"wishes": {"max_latency_ms": 500}}),
        (ReasonCode.REGION, {}, {"region": "westus"}, {"wishes": {"regions": ("eastus",)}}),
        (ReasonCode.REGION, {}, {}, {"wishes": {"regions": ("eastus",)}}),
        (ReasonCode.BUDGET, {}, {"usd": "1"}, {"max_output_tokens": 600, "budget_limit": 999_999}),
        (ReasonCode.UNKNOWN_PRICE, {}, {"usd": None}, {"budget_limit": 10**12}),
    ],
)
def test_every_filter_has_its_reason(
    code: ReasonCode, model_facts: dict[str, Any], deployment_facts: dict[str, Any], request_facts: dict[str, Any]
) -> None:
    """One fact that does not fit leaves a deployment out, named or not, and the route says which."""
    catalog = registry(
        deployment("a1", "a", **deployment_facts), models=(model("a", **model_facts),), aliases=(Alias("fast", ("a",)),)
    )
    route = route_of(ask("a", **request_facts), catalog)
    assert {"a1": code} == dropped(route)
    assert () == route.candidates
    assert route.note


@pytest.mark.parametrize(
    ("model_facts", "deployment_facts", "request_facts"),
    [
        ({"lifecycle": LifecycleFacts(retires_on=date(2026, 11, 2))}, {}, {}),
        ({"capabilities": frozenset({"chat", "json_schema"})}, {}, {"capabilities": frozenset({"json_object"})}),
        ({"reasoning": True}, {}, {"capabilities": frozenset({"reasoning"})}),
        ({"unsupported_parameters": frozenset({"seed"})}, {}, {"parameters": frozenset({"stop"})}),
        ({"context_window": 1_000}, {}, {"input_tokens": 1_100}),
        ({"context_window": None}, {}, {"input_tokens": 10**7}),
        ({"max_output_tokens": 500}, {}, {"max_output_tokens": 500}),
        ({"quality": 0.8}, {}, {"wishes": {"min_quality": 0.8}}),
        ({"latency_ms": 500}, {}, {"wishes": {"max_latency_ms": 500}}),
        ({}, {"region": "East US"}, {"wishes": {"regions": ("eastus",)}}),
        ({}, {"usd": "1"}, {"max_output_tokens": 600, "budget_limit": 1_000_000}),
        ({}, {"usd": None}, {}),
    ],
)
def test_what_fits_exactly_is_kept(
    model_facts: dict[str, Any], deployment_facts: dict[str, Any], request_facts: dict[str, Any]
) -> None:
    """Every limit includes its own value."""
    catalog = registry(deployment("a1", "a", **deployment_facts), models=(model("a", **model_facts),))
    assert ["a1"] == order(route_of(ask("a", **request_facts), catalog))


def test_a_provider_s_own_limits_count_too() -> None:
    """What its API refuses, and what keeps all of it from being called."""
    refuses = provider("acme", unsupported_parameters=frozenset({"seed"}))
    catalog = registry(deployment("a1", "a"), providers=(refuses,))
    assert {"a1": ReasonCode.PARAMETER} == dropped(route_of(ask("a", parameters=frozenset({"seed"})), catalog))
    off = registry(deployment("a1", "a"), providers=(provider("acme", unavailable="set ACME_KEY"),))
    assert "set ACME_KEY" == route_of(ask("a"), off).dropped[0].reason.detail


def test_a_measured_latency_decides_before_the_catalog_s() -> None:
    """In both directions."""
    catalog = registry(deployment("a1", "a"), models=(model("a", latency_ms=100),))
    request = ask("a", wishes={"max_latency_ms": 500})
    assert {"a1": ReasonCode.MAX_LATENCY} == dropped(route_of(request, catalog, {"a1": DeploymentHealth(latency_ms=800.0)}))


def test_a_key_s_models_bound_every_route() -> None:
    """A key that may not use the model named gets no fallback either; aliases stand for their models."""
    catalog = registry(
        *(deployment(f"{name}1", name) for name in "abc"),
        aliases=(Alias("fast", ("b",)),),
        policy=RoutingPolicy(fallbacks={"a": ("b",)}),
    )
    assert [] == order(route_of(ask("a"), catalog, allowed=frozenset({"b"})))
    assert ["a1"] == order(route_of(ask("a"), catalog, allowed=frozenset({"a"})))
    assert ["b1"] == order(route_of(ask("fast"), catalog, allowed=frozenset({"fast"})))
    assert ["b1"] == order(route_of(ask(), catalog, allowed=frozenset({"fast"})))
    assert ["a1", "b1", "c1"] == order(route_of(ask(), catalog, allowed=frozenset({"auto"})))
    assert [] == order(route_of(ask("a"), catalog, allowed=frozenset({"auto"})))
    assert [] == order(route_of(ask("a"), catalog, allowed=frozenset()))


def test_a_route_has_at_most_so_many_candidates() -> None:
    """The rest is noted, and cut after health has spoken."""
    catalog = registry(
        *(deployment(f"a{number}", "a", priority=number) for number in range(1, 5)),
        policy=RoutingPolicy(max_candidates=2),
    )
    route = route_of(ask("a"), catalog, {"a1": OPEN})
    assert ["a2", "a3"] == order(route)
    assert {"a4": ReasonCode.BEYOND_LIMIT, "a1": ReasonCode.BEYOND_LIMIT} == dropped(route)


# ---- money -----------------------------------------------------------------------------------------------------------


def test_costs_are_those_of_the_request() -> None:
    """Expected: the input and 500 tokens of output for each choice. Worst: the bound and all the output there can be."""
    catalog = registry(deployment("a1", "a", usd="1"))
    (candidate,) = route_of(ask("a", n=2), catalog).candidates
    assert (100 + 2 * 500) * 1_000 == candidate.expected_cost
    assert (400 + 2 * 8_000) * 1_000 == candidate.worst_cost
    (short,) = route_of(ask("a", max_output_tokens=30), catalog).candidates
    assert (100 + 30) * 1_000 == short.expected_cost
    assert (400 + 30) * 1_000 == short.worst_cost


def test_output_without_a_limit_is_bounded_by_the_model_or_the_default() -> None:
    """With a cost limit, by the smaller of the two: it is sent along with the request."""
    policy = RoutingPolicy(default_max_output_tokens=4_096)
    roomy, endless = model("a", max_output_tokens=100_000), model("b", max_output_tokens=None)
    assert 100_000 == output_bound(ask(), roomy, policy)
    assert 4_096 == output_bound(ask(), endless, policy)
    assert 4_096 == output_bound(ask(budget_limit=1), roomy, policy)
    assert 1_000 == output_bound(ask(budget_limit=1), model("c", max_output_tokens=1_000), policy)
    assert 70 == output_bound(ask(budget_limit=1, max_output_tokens=70), roomy, policy)
    assert 0 == output_bound(ask(operation=Operation.EMBEDDINGS), roomy, policy)
