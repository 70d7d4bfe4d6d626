"""Small registries to route over: made by hand for examples, by chance for properties."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from random import Random
from typing import Any

from hypothesis import strategies as st

from shared.core.chat import ModelPreferences, Objective, Operation, Priority, Requirements
from shared.core.health import BreakerState, DeploymentHealth, HealthSnapshot
from shared.core.registry import (
    Alias,
    Arm,
    Deployment,
    Experiment,
    Lifecycle,
    LifecycleFacts,
    Model,
    Price,
    Provider,
    ProviderKind,
    Rates,
    RateTier,
    Registry,
    RoutingPolicy,
    RoutingRule,
)
from shared.core.route import ReasonCode, Route
from shared.core.router import plan

DAY = date(2026, 11, 1)
CHAT = frozenset({"chat"})


def provider(name: str = "acme", **facts: Any) -> Provider:
    """A provider that can be called."""
    return Provider(name, facts.pop("kind", ProviderKind.OPENAI_COMPATIBLE), f"https://{name}.example", **facts)


def model(name: str, **facts: Any) -> Model:
    """A chat model with a window of 100,000 tokens."""
    return Model(name, **{"capabilities": CHAT, "context_window": 100_000, "max_output_tokens": 8_000, **facts})


def deployment(name: str, of: str, at: str = "acme", *, usd: str | None = "1", **facts: Any) -> Deployment:
    """A deployment that costs the same for input and output, in USD per million tokens; None is not known."""
    prices = () if usd is None else (Price(date(2026, 1, 1), Rates(Decimal(usd), Decimal(usd))),)
    return Deployment(name, of, at, of, prices=prices, **facts)


def registry(
    *deployments: Deployment,
    models: tuple[Model, ...] = (),
    providers: tuple[Provider, ...] = (),
    **rest: Any,
) -> Registry:
    """A registry of these deployments; models and providers not given are made up."""
    named = {one.name: one for one in models}
    at = {one.name: one for one in providers}
    for one in deployments:
        named.setdefault(one.model, model(one.model))
        at.setdefault(one.provider, provider(one.provider))
    rest["rules"] = {rule.task: rule for rule in rest.get("rules", ())}
    rest["aliases"] = {alias.name: alias for alias in rest.get("aliases", ())}
    return Registry("test", at, named, {one.id: one for one in deployments}, **rest)


def ask(name: str = "auto", *, wishes: dict[str, Any] | None = None, **facts: Any) -> Requirements:
    """A chat request of 100 tokens for a model."""
    given: dict[str, Any] = {
        "operation": Operation.CHAT,
        "task": "conversation",
        "input_tokens": 100,
        "input_tokens_bound": 400,
        "preferences": ModelPreferences(**(wishes or {})),
    }
    return Requirements(model=name, **{**given, **facts})


def route_of(
    requirements: Requirements,
    catalog: Registry,
    health: dict[str, DeploymentHealth] | None = None,
    *,
    day: date = DAY,
    draw: float = 0.0,
    allowed: frozenset[str] | None = None,
) -> Route:
    """Plan it."""
    return plan(requirements, catalog, HealthSnapshot(health or {}), day=day, draw=draw, allowed=allowed)


def order(route: Route) -> list[str]:
    """The deployments of a route."""
    return [candidate.deployment for candidate in route.candidates]


def dropped(route: Route) -> dict[str, ReasonCode]:
    """Why each deployment was left out."""
    return {one.deployment or one.model: one.reason.code for one in route.dropped}


# ---- made by chance --------------------------------------------------------------------------------------------------
# hypothesis draws one seed and a generator makes the rest: building a registry value by value takes a hundred times longer.

MODELS = ("ant", "bee", "cat", "dog", "elk")
PROVIDERS = ("acme", "bolt")
TASKS = ("conversation", "code-generation", "summarization")
NAMES = (*MODELS, "fast", "old", "nobody")
FULL = CHAT | {"tools", "vision", "json_schema"}
FEATURES = (FULL, FULL, CHAT | {"tools"}, FULL | {"embeddings"}, frozenset({"embeddings"}))
LIFE = (*[LifecycleFacts()] * 6, LifecycleFacts(Lifecycle.RETIRED), LifecycleFacts(retires_on=date(2026, 12, 1)))


def some(chance: Random, among: tuple[str, ...], *, least: int = 0) -> tuple[str, ...]:
    """Up to three of them, each once."""
    return tuple(chance.sample(among, chance.randint(least, 3)))


def maybe(chance: Random, value: Any) -> Any:
    """The value, or None."""
    return value if chance.random() < 0.5 else None


def made_price(chance: Random) -> tuple[Price, ...]:
    """A price list: none, one price, or one with a long-context tier and a service tier."""
    if chance.random() < 0.2:
        return ()
    one, two = Decimal(chance.randint(0, 2000)) / 100, Decimal(chance.randint(0, 2000)) / 100
    base = Rates(one, two, cache_creation=maybe(chance, one * 2), reasoning=maybe(chance, two * 2), request=Decimal("0.001"))
    dear = Rates(one * 2, two * 3)
    tiers = (RateTier(1000, dear),) if chance.random() < 0.5 else ()
    return (Price(date(2026, 1, 1), base, tiers, {"priority": dear} if chance.random() < 0.5 else {}),)


def made_model(chance: Random, name: str) -> Model:
    """A model with arbitrary facts."""
    return Model(
        name,
        capabilities=chance.choice(FEATURES),
        tasks=some(chance, (*TASKS, "text-generation")),
        context_window=chance.choice((None, 1_000, 100_000, 100_000)),
        max_output_tokens=chance.choice((None, 500, 8_000, 10_000)),
        quality=chance.random(),
        latency_ms=chance.uniform(1, 10_000),
        unsupported_parameters=chance.choice((frozenset(), frozenset(), frozenset({"logit_bias"}))),
        lifecycle=chance.choice(LIFE),
        auto=chance.random() < 0.85,
    )


def made_deployment(chance: Random, name: str, number: int) -> Deployment:
    """A deployment of a model, somewhere."""
    at = chance.choice(PROVIDERS)
    return Deployment(
        f"{at}/{name}-{number}",
        name,
        at,
        name,
        region=chance.choice((None, "eastus", "West Europe")),
        priority=chance.randint(1, 2),
        weight=chance.randint(0, 3),
        prices=made_price(chance),
        provisioned=chance.random() < 0.3,
        unavailable=chance.choice((*[None] * 6, "set ACME_KEY")),
    )


def made_rule(chance: Random) -> RoutingRule:
    """A rule for some task."""
    return RoutingRule(
        chance.choice(TASKS),
        some(chance, NAMES),
        some(chance, NAMES),
        maybe(chance, chance.choice(list(Objective))),
        chance.random() < 0.7,
    )


def made_experiment(chance: Random, name: str) -> Experiment:
    """An experiment over some models."""
    return Experiment(
        name,
        tuple(Arm(arm, arm, weight) for weight, arm in enumerate(some(chance, NAMES))),
        tasks=chance.choice(((), ("conversation",))),
        models=chance.choice(((), ("ant", "fast"), ("auto",))),
        enabled=chance.random() < 0.8,
    )


def made_registry(chance: Random) -> Registry:
    """A registry of five models with up to three deployments each, aliases, rules and experiments."""
    deployments = [made_deployment(chance, name, number) for name in MODELS for number in range(chance.choice((0, 2, 3, 3)))]
    rules = [made_rule(chance) for _ in range(chance.randint(0, 2))]
    return Registry(
        version="made",
        providers={name: provider(name) for name in PROVIDERS},
        models={name: made_model(chance, name) for name in MODELS},
        deployments={one.id: one for one in deployments},
        aliases={
            "fast": Alias("fast", some(chance, MODELS, least=1)),
            "old": Alias("old", some(chance, MODELS, least=1), retired=True, note="Since 2025."),
        },
        rules={rule.task: rule for rule in rules},
        experiments=tuple(made_experiment(chance, name) for name in some(chance, ("x", "y", "z"))),
        policy=RoutingPolicy(
            objective=chance.choice(list(Objective)),
            fallbacks={name: some(chance, NAMES) for name in some(chance, NAMES)},
            max_candidates=chance.randint(1, 8),
        ),
    )


def made_health(chance: Random) -> DeploymentHealth:
    """How some deployment is doing."""
    return DeploymentHealth(
        success_rate=chance.random(),
        latency_ms=maybe(chance, chance.uniform(1, 10_000)),
        breaker=chance.choice(list(BreakerState)),
        admits_in=chance.choice((0.0, 0.0, 0.5, 30.0)),
        cooling=chance.random() < 0.5,
        disabled=chance.choice((None, None, None, "unauthorized")),
    )


def made_preferences(chance: Random) -> ModelPreferences:
    """What some caller wishes."""
    return ModelPreferences(
        preferred_models=some(chance, NAMES),
        exclude_models=some(chance, NAMES) if chance.random() < 0.3 else (),
        exclude_providers=chance.choice(((), (), (), (), ("bolt",))),
        objective=maybe(chance, chance.choice(list(Objective))),
        min_quality=chance.choice((None, None, 0.3)),
        max_latency_ms=chance.choice((None, None, 5_000.0)),
        regions=chance.choice(((), (), (), (), ("westeurope", "eastus"))),
    )


def made_request(chance: Random) -> Requirements:
    """Some request."""
    return Requirements(
        operation=chance.choice((*[Operation.CHAT] * 7, Operation.EMBEDDINGS)),
        model=chance.choice(("auto", "auto", "ant", "bee", "fast", "old")),
        task=chance.choice((*TASKS, "reasoning")),
        task_given=chance.random() < 0.5,
        capabilities=chance.choice((*[frozenset[str]()] * 4, frozenset({"tools"}), frozenset({"json_object"}))),
        parameters=chance.choice((*[frozenset({"model"})] * 3, frozenset({"model", "logit_bias"}))),
        input_tokens=chance.choice((0, 10, 100, 900, 5_000)),
        input_tokens_bound=chance.randint(0, 20_000),
        max_output_tokens=chance.choice((None, None, None, 1, 400, 9_000)),
        n=chance.randint(1, 3),
        stream=chance.random() < 0.5,
        preferences=made_preferences(chance) if chance.random() < 0.3 else ModelPreferences(),
        priority=chance.choice(list(Priority)),
        service_tier=chance.choice((None, "flex")),
        budget_limit=chance.choice((*[None] * 6, 10**7, 10**9)),
        subject=chance.choice(("", "u1", "u2")),
        images=chance.choice((0, 0, 0, 1, 5)),
        unsized=chance.random() < 0.1,
        prediction_bound=chance.choice((0, 0, 0, 50)),
        surcharged=chance.choice((*[frozenset[str]()] * 9, frozenset({"cache_control.ttl"}))),
    )


def made_situation(seed: int) -> dict[str, Any]:
    """Everything `plan` is given."""
    chance = Random(seed)
    catalog = made_registry(chance)
    return {
        "requirements": made_request(chance),
        "registry": catalog,
        "health": HealthSnapshot({name: made_health(chance) for name in catalog.deployments if chance.random() < 0.5}),
        "day": chance.choice((DAY, date(2026, 12, 1))),
        "draw": chance.random(),
        "allowed": chance.choice((*[None] * 5, frozenset(some(chance, (*NAMES, "auto"), least=1)))),
    }


situations = st.integers(0, 2**32).map(made_situation)
