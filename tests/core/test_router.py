"""The router: who is asked, in which order, and why; who is not, and why not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings

from shared.core.bounds import input_bound
from shared.core.chat import Objective, Operation, Priority
from shared.core.errors import ModelNotFoundError
from shared.core.health import BreakerState, DeploymentHealth
from shared.core.pricing import expected, price_on, worst_case
from shared.core.ranking import balanced
from shared.core.registry import Alias, Arm, Experiment, RoutingPolicy, RoutingRule
from shared.core.route import Assignment, ReasonCode
from shared.core.router import output_bound, plan
from tests.routing_fakes import (
    ask,
    deployment,
    dropped,
    model,
    order,
    registry,
    route_of,
    situations,
)

OPEN = DeploymentHealth(breaker=BreakerState.OPEN, admits_in=9.0)
PAUSED = DeploymentHealth(breaker=BreakerState.OPEN, admits_in=30.0, cooling=True)
BRIEFLY = DeploymentHealth(breaker=BreakerState.OPEN, admits_in=1.0, cooling=True)


# ---- a model that is named -------------------------------------------------------------------------------------------


def test_a_named_model_is_asked_at_all_its_deployments_and_nobody_else() -> None:
    """A name is a promise: other models answer only if the catalog says they may."""
    catalog = registry(deployment("a1", "a"), deployment("a2", "a", priority=2), deployment("b1", "b"))
    route = route_of(ask("a"), catalog)
    assert ["a1", "a2"] == order(route)
    assert ReasonCode.NAMED == route.candidates[0].reasons[0].code
    assert {} == dropped(route)


def test_an_unknown_name_is_refused() -> None:
    """Nothing is guessed."""
    with pytest.raises(ModelNotFoundError) as caught:
        route_of(ask("nobody"), registry(deployment("a1", "a")))
    assert "model" == caught.value.param


def test_a_retired_name_says_what_became_of_it() -> None:
    """Its note reaches whoever still uses it, with an answer and without."""
    alias = Alias("old", ("a",), retired=True, note="Use a.")
    assert "old is retired. Use a." == route_of(ask("old"), registry(deployment("a1", "a"), aliases=(alias,))).note
    with pytest.raises(ModelNotFoundError, match=r"Use a\."):
        route_of(ask("old"), registry(deployment("b1", "b"), aliases=(alias,)))


def test_an_alias_stands_for_its_targets_in_order_and_then_come_the_fallbacks() -> None:
    """Fallbacks are those of the alias and of each model it stands for, each once."""
    catalog = registry(
        *(deployment(f"{name}1", name) for name in "abcd"),
        aliases=(Alias("fast", ("b", "a")),),
        policy=RoutingPolicy(fallbacks={"fast": ("d",), "b": ("c", "a")}),
    )
    route = route_of(ask("fast"), catalog)
    assert ["b1", "a1", "d1", "c1"] == order(route)
    codes = [candidate.reasons[0].code for candidate in route.candidates]
    assert [ReasonCode.ALIASED, ReasonCode.ALIASED, ReasonCode.FALLBACK, ReasonCode.FALLBACK] == codes


def test_a_fallback_may_be_an_alias_and_one_that_does_not_exist_is_noted() -> None:
    """A catalog that names what is not there does not break requests; the route says so."""
    catalog = registry(
        deployment("a1", "a"),
        deployment("b1", "b"),
        aliases=(Alias("other", ("b",)),),
        policy=RoutingPolicy(fallbacks={"a": ("ghost", "other")}),
    )
    route = route_of(ask("a"), catalog)
    assert ["a1", "b1"] == order(route)
    assert {"ghost": ReasonCode.UNAVAILABLE} == dropped(route)


# ---- a model's deployments -------------------------------------------------------------------------------------------


def test_the_lower_priority_number_goes_first() -> None:
    """Whatever the weights and the draw say."""
    catalog = registry(deployment("second", "a", priority=2, weight=9), deployment("first", "a", priority=1))
    assert ["first", "second"] == order(route_of(ask("a"), catalog, draw=0.99))


def test_equals_share_by_weight() -> None:
    """Over all draws each place goes to those left in proportion to their weights."""
    catalog = registry(deployment("one", "a", weight=1), deployment("two", "a", weight=2), deployment("five", "a", weight=5))
    draws = [(number + 0.5) / 800 for number in range(800)]
    orders = [order(route_of(ask("a"), catalog, draw=draw)) for draw in draws]
    assert {"one": 100, "two": 200, "five": 500} == Counter(found[0] for found in orders)
    second = Counter(found[1] for found in orders if found[0] == "five")
    assert second["two"] == pytest.approx(500 * 2 / 3, abs=2)


def test_weight_zero_is_asked_last() -> None:
    """It takes no share but is better than no answer."""
    catalog = registry(deployment("zero", "a", weight=0), deployment("one", "a"))
    assert all(["one", "zero"] == order(route_of(ask("a"), catalog, draw=draw)) for draw in (0.0, 0.5, 0.999))


def test_a_deployment_that_fails_gets_less_of_the_share() -> None:
    """At half the success rate it is a fourth of its weight; it never falls to nothing."""
    catalog = registry(deployment("bad", "a"), deployment("good", "a"))
    half = {"bad": DeploymentHealth(success_rate=0.5)}
    assert ["bad", "good"] == order(route_of(ask("a"), catalog, half, draw=0.19))
    assert ["good", "bad"] == order(route_of(ask("a"), catalog, half, draw=0.21))
    assert ["bad", "good"] == order(route_of(ask("a"), catalog, {"bad": DeploymentHealth(success_rate=0.0)}, draw=0.002))


@pytest.mark.parametrize(
    ("priority", "expected_order"),
    [
        (Priority.HIGH, ["reserved", "shared"]),
        (Priority.NORMAL, ["shared", "reserved"]),
        (Priority.LOW, ["shared", "reserved"]),
    ],
)
def test_reserved_capacity_is_for_urgent_requests_first(priority: Priority, expected_order: list[str]) -> None:
    """Urgent requests use it before everything else; normal ones where its priority number puts it."""
    catalog = registry(deployment("reserved", "a", provisioned=True, priority=2), deployment("shared", "a"))
    assert expected_order == order(route_of(ask("a", priority=priority), catalog))


def test_requests_that_can_wait_leave_reserved_capacity_to_others() -> None:
    """Even when its priority number puts it first."""
    catalog = registry(deployment("reserved", "a", provisioned=True), deployment("shared", "a", priority=2))
    assert ["shared", "reserved"] == order(route_of(ask("a", priority=Priority.LOW), catalog))
    assert ["reserved", "shared"] == order(route_of(ask("a"), catalog))


# ---- health ----------------------------------------------------------------------------------------------------------


def test_those_that_rest_come_after_those_that_answer() -> None:
    """First who admits calls, then pauses the providers asked for, soonest first, then breakers that failures opened."""
    catalog = registry(
        *(deployment(f"a{number}", "a", priority=number) for number in range(1, 5)),
        deployment("b1", "b"),
        policy=RoutingPolicy(fallbacks={"a": ("b",)}),
    )
    route = route_of(ask("a"), catalog, {"a1": OPEN, "a2": PAUSED, "a3": BRIEFLY})
    assert ["a4", "b1", "a3", "a2", "a1"] == order(route)
    assert [0.0, 0.0, 1.0, 30.0, 9.0] == [candidate.not_before for candidate in route.candidates]
    assert [False, False, False, False, True] == [candidate.last_resort for candidate in route.candidates]
    assert ReasonCode.LAST_RESORT == route.candidates[-1].reasons[-1].code


def test_a_breaker_whose_cooldown_is_over_keeps_its_place() -> None:
    """It admits a call: that call is how it is found to have recovered."""
    catalog = registry(deployment("a1", "a"), deployment("a2", "a", priority=2))
    ready = DeploymentHealth(breaker=BreakerState.OPEN, admits_in=0.0)
    route = route_of(ask("a"), catalog, {"a1": ready})
    assert ["a1", "a2"] == order(route)
    assert not route.candidates[0].last_resort


def test_a_disabled_deployment_is_left_out_until_its_pause_is_over() -> None:
    """A refused key needs a person; now and then one call finds out whether one came."""
    catalog = registry(deployment("a1", "a"), deployment("a2", "a"))
    refused = DeploymentHealth(breaker=BreakerState.OPEN, admits_in=200.0, disabled="unauthorized")
    assert {"a1": ReasonCode.DISABLED} == dropped(route_of(ask("a"), catalog, {"a1": refused}))
    over = DeploymentHealth(breaker=BreakerState.OPEN, admits_in=0.0, disabled="unauthorized")
    assert {} == dropped(route_of(ask("a"), catalog, {"a1": over}))
    unknown = DeploymentHealth(disabled="switched off by the operator")
    assert {"a1": ReasonCode.DISABLED} == dropped(route_of(ask("a"), catalog, {"a1": unknown}))


# ---- auto ------------------------------------------------------------------------------------------------------------

RULE = RoutingRule("conversation", ("c", "b"), ("a",))


def test_auto_follows_the_tasks_rule_and_then_the_objective() -> None:
    """Preferred in their order, then the fallbacks, then every other model by the objective."""
    catalog = registry(
        *(deployment(f"{name}1", name, usd=price) for name, price in zip("abcde", "12351", strict=True)),
        rules=(RULE,),
        policy=RoutingPolicy(objective=Objective.COST),
    )
    route = route_of(ask(), catalog)
    assert ["c1", "b1", "a1", "e1", "d1"] == order(route)
    assert "conversation" == route.rule
    assert "cost" == route.objective
    assert [
        ReasonCode.RULE_PREFERRED,
        ReasonCode.RULE_PREFERRED,
        ReasonCode.RULE_FALLBACK,
        ReasonCode.OBJECTIVE,
        ReasonCode.OBJECTIVE,
    ] == [candidate.reasons[0].code for candidate in route.candidates]


def test_a_rule_can_keep_to_its_own_models() -> None:
    """The others are then left out, and say so."""
    catalog = registry(
        *(deployment(f"{name}1", name) for name in "abcd"), rules=(RoutingRule("conversation", ("a",), others=False),)
    )
    route = route_of(ask(), catalog)
    assert ["a1"] == order(route)
    assert {"b1": ReasonCode.NOT_AUTO, "c1": ReasonCode.NOT_AUTO, "d1": ReasonCode.NOT_AUTO} == dropped(route)


def test_the_caller_s_preferred_models_come_before_the_rule() -> None:
    """In the order given; a name that stands for nothing is noted."""
    catalog = registry(*(deployment(f"{name}1", name) for name in "abcd"), rules=(RULE,))
    route = route_of(ask(wishes={"preferred_models": ("d", "ghost")}), catalog)
    assert ["d1", "c1", "b1", "a1"] == order(route)
    assert ReasonCode.PREFERRED_BY_CALLER == route.candidates[0].reasons[0].code
    assert {"ghost": ReasonCode.UNAVAILABLE} == dropped(route)


def test_a_caller_who_states_an_objective_gets_it() -> None:
    """The rule's order was the operator's guess at it; the caller's preferred models still come first."""
    catalog = registry(
        *(deployment(f"{name}1", name, usd=price) for name, price in zip("abcd", "4321", strict=True)), rules=(RULE,)
    )
    assert ["d1", "c1", "b1", "a1"] == order(route_of(ask(wishes={"objective": Objective.COST}), catalog))
    wishes = {"objective": Objective.COST, "preferred_models": ("a",)}
    assert ["a1", "d1", "c1", "b1"] == order(route_of(ask(wishes=wishes), catalog))


def test_another_name_of_the_task_finds_its_rule() -> None:
    """The seed says code and analysis where rules say code-generation and reasoning."""
    catalog = registry(deployment("a1", "a"), deployment("b1", "b"), rules=(RoutingRule("code-generation", ("b",)),))
    assert "code-generation" == route_of(ask(task="code"), catalog).rule
    assert route_of(ask(task="summarization"), catalog).rule is None


def test_models_said_to_suit_the_task_come_before_others() -> None:
    """Named for it, then those for any text, then those named for something else; each by the objective."""
    catalog = registry(
        *(deployment(f"{name}1", name, usd=price) for name, price in zip("abc", "123", strict=True)),
        models=(
            model("a", tasks=("code-generation",)),
            model("b", tasks=("text-generation",)),
            model("c", tasks=("summarization",)),
        ),
        policy=RoutingPolicy(objective=Objective.COST),
    )
    assert ["c1", "b1", "a1"] == order(route_of(ask(task="summarization"), catalog))
    stated = ask(task="summarization", wishes={"objective": Objective.COST})
    assert ["b1", "c1", "a1"] == order(route_of(stated, catalog))


def test_auto_leaves_out_models_that_are_not_for_it_unless_somebody_names_them() -> None:
    """A rule or the caller naming one is the choice that ``auto: false`` asks for."""
    models = (model("a", auto=False),)
    catalog = registry(deployment("a1", "a"), deployment("b1", "b"), models=models)
    assert {"a1": ReasonCode.NOT_AUTO} == dropped(route_of(ask(), catalog))
    assert ["a1", "b1"] == order(route_of(ask(wishes={"preferred_models": ("a",)}), catalog))
    ruled = registry(deployment("a1", "a"), models=models, rules=(RoutingRule("conversation", ("a",)),))
    assert ["a1"] == order(route_of(ask(), ruled))


def test_auto_considers_only_models_of_the_operation() -> None:
    """Embeddings models are no news to whoever wants to chat."""
    catalog = registry(
        deployment("a1", "a"), deployment("e1", "e"), models=(model("e", capabilities=frozenset({"embeddings"})),)
    )
    assert ["a1"] == order(route_of(ask(), catalog))
    assert {} == dropped(route_of(ask(), catalog))
    route = route_of(ask(operation=Operation.EMBEDDINGS, task="embeddings"), catalog)
    assert ["e1"] == order(route)


@pytest.mark.parametrize(
    ("objective", "expected_order"),
    [
        (Objective.COST, ["cheap", "mid", "best", "unknown"]),
        (Objective.QUALITY, ["best", "mid", "unknown", "cheap"]),
        (Objective.LATENCY, ["mid", "cheap", "unknown", "best"]),
    ],
)
def test_each_objective_orders_by_its_own_figure(objective: Objective, expected_order: list[str]) -> None:
    """An unknown price is the dearest; a measured latency replaces the catalog's."""
    catalog = registry(
        deployment("unknown", "u", usd=None),
        deployment("best", "b", usd="9"),
        deployment("mid", "m", usd="2"),
        deployment("cheap", "c", usd="1"),
        models=(
            model("u", quality=0.6, latency_ms=700),
            model("b", quality=0.9, latency_ms=900),
            model("m", quality=0.8, latency_ms=5000),
            model("c", quality=0.5, latency_ms=500),
        ),
        policy=RoutingPolicy(objective=objective),
    )
    assert expected_order == order(route_of(ask(), catalog, {"mid": DeploymentHealth(latency_ms=100.0)}))


def test_the_balanced_score_is_the_documented_sum() -> None:
    """0.4 for quality, 0.4 for the decades of cost above a micro-dollar of six, 0.2 for those of latency of two."""
    assert 0.0 == balanced(quality=1.0, cost=1_000, latency_ms=100)
    assert 1.0 == pytest.approx(balanced(quality=0.0, cost=10**9, latency_ms=10_000))
    assert 0.4 * 0.25 + 0.4 * 0.5 + 0.2 * 0.5 == pytest.approx(balanced(quality=0.75, cost=10**6, latency_ms=1_000))
    assert balanced(quality=1.0, cost=None, latency_ms=100) == balanced(quality=1.0, cost=10**12, latency_ms=1)


def test_a_model_whose_calls_mostly_fail_stands_behind_its_equals() -> None:
    """However cheap it is; a model that suits the task less is still no equal."""
    catalog = registry(
        deployment("cheap", "c", usd="1"),
        deployment("dear", "d", usd="5"),
        deployment("unsuited", "u", usd="1"),
        models=(model("u", tasks=("translation",)),),
        policy=RoutingPolicy(objective=Objective.COST),
    )
    failing = {"cheap": DeploymentHealth(success_rate=0.4)}
    assert ["dear", "cheap", "unsuited"] == order(route_of(ask(), catalog, failing))


# ---- experiments -----------------------------------------------------------------------------------------------------

ARMS = (Arm("control", "a"), Arm("new", "b"))


def test_an_experiment_puts_its_arm_first_and_is_recorded() -> None:
    """Subjects stick, both arms get some, and the rest of the route follows."""
    catalog = registry(deployment("a1", "a"), deployment("b1", "b"), experiments=(Experiment("x", ARMS),))
    routes = [route_of(ask(subject=f"user-{number}"), catalog, draw=0.3) for number in range(40)]
    firsts = {route.candidates[0].model for route in routes}
    assert {"a", "b"} == firsts
    for number, route in enumerate(routes):
        assert route.assignment is not None
        assert route.candidates[0].model == route.assignment.model
        assert ReasonCode.EXPERIMENT == route.candidates[0].reasons[0].code
        assert route == route_of(ask(subject=f"user-{number}"), catalog, draw=0.3)
        assert {"a1", "b1"} == set(order(route))


@pytest.mark.parametrize(
    ("experiment", "request_facts", "takes_part"),
    [
        (Experiment("x", ARMS), {"name": "auto"}, True),
        (Experiment("x", ARMS), {"name": "c"}, False),
        (Experiment("x", ARMS, models=("c",)), {"name": "c"}, True),
        (Experiment("x", ARMS, models=("c",)), {"name": "auto"}, False),
        (Experiment("x", ARMS, tasks=("translation",)), {"name": "auto"}, False),
        (Experiment("x", ARMS, tasks=("conversation",)), {"name": "auto"}, True),
        (Experiment("x", ARMS, enabled=False), {"name": "auto"}, False),
        (Experiment("x", ()), {"name": "auto"}, False),
        (Experiment("x", ARMS), {"name": "auto", "wishes": {"preferred_models": ("c",)}}, False),
        (Experiment("x", (Arm("only", "e"),)), {"name": "auto"}, False),
        (Experiment("x", (Arm("only", "ghost"),)), {"name": "auto"}, False),
    ],
)
def test_who_takes_part_in_an_experiment(experiment: Experiment, request_facts: dict[str, Any], *, takes_part: bool) -> None:
    """Its tasks and models select; a model named by the caller is kept unless the experiment lists it."""
    catalog = registry(
        *(deployment(f"{name}1", name) for name in "abce"),
        models=(model("e", capabilities=frozenset({"embeddings"})),),
        experiments=(experiment,),
    )
    assert takes_part == (route_of(ask(**request_facts), catalog).assignment is not None)


def test_without_a_subject_chance_assigns() -> None:
    """The draw that is recorded decides, so a replay gives the same arm."""
    catalog = registry(deployment("a1", "a"), deployment("b1", "b"), experiments=(Experiment("x", ARMS),))
    arms = {route_of(ask(), catalog, draw=number / 40).assignment for number in range(40)}
    assert {Assignment("x", "control", "a"), Assignment("x", "new", "b")} == arms


# ---- whatever the catalog --------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(situations)
def test_every_route_is_sound(situation: dict[str, Any]) -> None:
    """Nobody twice, nobody forgotten, healthy before resting before broken, prices those of the price list."""
    route = plan(**situation)
    catalog, requirements, known = situation["registry"], situation["requirements"], situation["health"]
    names = order(route)
    left_out = [one.deployment for one in route.dropped if one.deployment]
    assert len(names) + len(left_out) == len({*names, *left_out})
    assert len(names) <= catalog.policy.max_candidates
    assert bool(names) or bool(route.note)
    if ReasonCode.BEYOND_LIMIT in dropped(route).values():
        assert catalog.policy.max_candidates == len(names)
    if requirements.model == "auto":
        able = {one.name for one in catalog.models.values() if requirements.operation.value in one.capabilities}
        considered = {one.id for one in catalog.deployments.values() if one.model in able}
        assert considered <= {*names, *left_out}
    rests = [0 if not candidate.not_before else 2 if candidate.last_resort else 1 for candidate in route.candidates]
    assert sorted(rests) == rests
    for candidate in route.candidates:
        assert candidate.not_before == max(0.0, known.of(candidate.deployment).admits_in)
        price = price_on(catalog.deployments[candidate.deployment].prices, situation["day"])
        if price is None or requirements.surcharged:
            assert candidate.worst_cost is None
            assert requirements.budget_limit is None
            continue
        bound = output_bound(requirements, catalog.models[candidate.model], catalog.policy)
        assert candidate.worst_cost == worst_case(
            price,
            input_tokens=input_bound(requirements, catalog.models[candidate.model]),
            output_tokens=bound + requirements.prediction_bound,
            n=requirements.n,
        )
        output = min(requirements.max_output_tokens or 500, 500) * requirements.n if bound else 0
        assert candidate.expected_cost == expected(price, input_tokens=requirements.input_tokens, output_tokens=output)
        assert requirements.budget_limit is None or candidate.worst_cost <= requirements.budget_limit


@settings(max_examples=30, deadline=None)
@given(situations)
def test_the_same_inputs_give_the_same_route(situation: dict[str, Any]) -> None:
    """Also from a registry that was built anew: nothing hides in a cache."""
    again = {
        **situation,
        "registry": type(situation["registry"])(
            **{name: getattr(situation["registry"], name) for name in type(situation["registry"]).__slots__}
        ),
    }
    assert plan(**situation) == plan(**again)
