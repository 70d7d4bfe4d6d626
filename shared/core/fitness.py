"""Whether a deployment can take a request, and if not, why: one check per reason, in one table.

What the catalog says about a deployment on a day is compiled once (`compile_facts`) into `Fact` records, so that a request only
compares numbers and sets. A plan applies those checks of `CHECKS` its request needs; the first that fails is the reason.
What the request asks for is checked before how the deployment is, so "unavailable" means: it would fit, but can't be called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Final

from shared.core.bounds import billed_output, input_bound, is_bounded, output_bound, surcharges
from shared.core.chat import Capability, Operation, Requirements
from shared.core.errors import ModelNotFoundError
from shared.core.health import BreakerState, HealthSnapshot
from shared.core.meter import Meter, meter
from shared.core.pricing import price_on, usd
from shared.core.registry import Deployment, Lifecycle, Model, Price, Provider, Registry, RoutingPolicy
from shared.core.route import Dropped, Reason, ReasonCode

CERTAIN_SHARE: Final = 0.85
"""Input is estimated before it is tokenized, and prose runs up to 15% under the estimate. A deployment is left out for its
context window only when even this share of the estimate does not fit: asking in vain costs one refused call, which failover
mends."""

EXPECTED_OUTPUT_TOKENS: Final = 500
"""What an answer is taken to be long when costs are compared; less when the caller's limit is lower."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What the catalog says about one deployment on one day. ``place`` is its order in the catalog.

    ``standing``, ``beyond`` and ``not_auto`` are reasons that many requests give in the same words.
    """

    place: int
    id: str
    deployment: Deployment
    model: Model
    provider: Provider
    price: Price | None
    meter: Meter | None
    capabilities: frozenset[str]
    refuses: frozenset[str]
    vendors: frozenset[str]
    region: str
    barred: Reason | None
    standing: Reason
    beyond: Dropped
    not_auto: Dropped


@dataclass(frozen=True, slots=True)
class Facts:
    """A registry on a day: its deployments by model, lowest priority number first, and which models do an operation."""

    registry: Registry
    by_model: Mapping[str, tuple[Fact, ...]]
    models: Mapping[Operation, tuple[str, ...]]


class _Same:
    """A cache key that is equal only to itself's subject: registries are immutable, so identity is enough and costs nothing."""

    __slots__ = ("value",)

    def __init__(self, value: Registry) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value


def facts_of(registry: Registry, day: date) -> Facts:
    """Return the compiled facts; cached for the few registries and days in use."""
    return _compiled(_Same(registry), day)


@lru_cache(maxsize=8)
def _compiled(key: _Same, day: date) -> Facts:
    return compile_facts(key.value, day)


def compile_facts(registry: Registry, day: date) -> Facts:
    """Read a registry once for all requests of a day."""
    by_model: dict[str, list[Fact]] = {name: [] for name in registry.models}
    for place, deployment in enumerate(registry.deployments.values()):
        by_model[deployment.model].append(_fact(registry, deployment, place, day))
    operations = {
        operation: tuple(name for name, model in registry.models.items() if operation.value in model.capabilities)
        for operation in Operation
    }
    ordered = {name: tuple(sorted(facts, key=lambda fact: fact.deployment.priority)) for name, facts in by_model.items()}
    return Facts(registry, ordered, operations)


def _fact(registry: Registry, deployment: Deployment, place: int, day: date) -> Fact:
    model = registry.models[deployment.model]
    provider = registry.providers[deployment.provider]
    price = price_on(deployment.prices, day)
    implied = {Capability.JSON_OBJECT.value} if Capability.JSON_SCHEMA in model.capabilities else set()
    if model.reasoning:
        implied.add(Capability.REASONING.value)
    return Fact(
        place=place,
        id=deployment.id,
        deployment=deployment,
        model=model,
        provider=provider,
        price=price,
        meter=None if price is None else meter(price),
        capabilities=model.capabilities | implied,
        refuses=model.unsupported_parameters | provider.unsupported_parameters,
        vendors=frozenset({provider.name, provider.kind.value}),
        region=plain_region(deployment.region or ""),
        barred=_barred(model, provider, deployment, day),
        standing=_standing(deployment),
        beyond=Dropped(deployment.id, model.name, Reason(ReasonCode.BEYOND_LIMIT, _beyond(registry))),
        not_auto=Dropped(deployment.id, model.name, Reason(ReasonCode.NOT_AUTO, f"{model.name} is not for `auto`: name it")),
    )


def _standing(deployment: Deployment) -> Reason:
    reserved = ", provisioned" if deployment.provisioned else ""
    return Reason(ReasonCode.PRIORITY, f"priority {deployment.priority}, weight {deployment.weight}{reserved}")


def _beyond(registry: Registry) -> str:
    return f"the route is full: {registry.policy.max_candidates} candidates"


def _barred(model: Model, provider: Provider, deployment: Deployment, day: date) -> Reason | None:
    lifecycle = deployment.lifecycle or model.lifecycle
    if lifecycle.retires_on is not None and lifecycle.retires_on <= day:
        return Reason(ReasonCode.RETIRED, f"{model.name} was retired at {provider.name} on {lifecycle.retires_on.isoformat()}")
    if lifecycle.stage is Lifecycle.RETIRED:
        return Reason(ReasonCode.RETIRED, f"{model.name} is retired at {provider.name}")
    why = deployment.unavailable or provider.unavailable
    return None if why is None else Reason(ReasonCode.UNAVAILABLE, why)


def plain_region(name: str) -> str:
    """Return a region's name as comparisons take it: `East US 2` and `eastus2` are one place."""
    return name.replace(" ", "").casefold()


# ---- the request's side ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Demands:
    """A request as the checks take it. ``allowed`` are the models the key may use, None all."""

    requirements: Requirements
    operation: str
    health: HealthSnapshot
    allowed: frozenset[str] | None
    excluded: frozenset[str]
    vendors: frozenset[str]
    regions: frozenset[str]
    certain_input: int
    output_tokens: int
    policy: RoutingPolicy


def demands_of(
    requirements: Requirements, registry: Registry, health: HealthSnapshot, *, allowed: frozenset[str] | None
) -> Demands:
    """Return what a request asks of a deployment, with the names it uses resolved to models."""
    wishes = requirements.preferences
    embeds = requirements.operation is Operation.EMBEDDINGS
    limit = requirements.max_output_tokens
    return Demands(
        requirements=requirements,
        operation=requirements.operation.value,
        health=health,
        allowed=allowed,
        excluded=models_named(wishes.exclude_models, registry) if wishes.exclude_models else frozenset(),
        vendors=frozenset(wishes.exclude_providers),
        regions=frozenset(map(plain_region, wishes.regions)) if wishes.regions else frozenset(),
        certain_input=int(requirements.input_tokens * CERTAIN_SHARE),
        output_tokens=0 if embeds else requirements.n * min(limit or EXPECTED_OUTPUT_TOKENS, EXPECTED_OUTPUT_TOKENS),
        policy=registry.policy,
    )


def models_named(names: tuple[str, ...] | frozenset[str], registry: Registry) -> frozenset[str]:
    """Return the models that names and aliases stand for; names that stand for none are left out."""
    return frozenset(model for name in names for model in stands_for(name, registry))


def stands_for(name: str, registry: Registry) -> tuple[str, ...]:
    """Return the models a name stands for, the first one first; none when it stands for none."""
    try:
        return registry.resolve(name)
    except ModelNotFoundError:
        return ()


def expected_cost(fact: Fact, demands: Demands) -> int | None:
    """Return what the request is likely to cost there in nano-USD; None when the price is not known."""
    if fact.meter is None:
        return None
    return fact.meter.expected(demands.requirements.input_tokens, demands.output_tokens)


def worst_cost(fact: Fact, demands: Demands) -> int | None:
    """Return the most the request can cost there in nano-USD; None when nobody knows: see `is_bounded`."""
    requirements = demands.requirements
    if fact.meter is None or not is_bounded(requirements, fact.price):
        return None
    bound = output_bound(requirements, fact.model, demands.policy)
    return fact.meter.worst_case(input_bound(requirements, fact.model), billed_output(requirements, bound))


def latency_of(fact: Fact, health: HealthSnapshot) -> float:
    """Return milliseconds to an answer: measured, else the catalog's figure."""
    known = health.deployments.get(fact.id)
    if known is None or known.latency_ms is None:
        return fact.model.latency_ms
    return known.latency_ms


# ---- the checks ------------------------------------------------------------------------------------------------------

Check = Callable[[Fact, Demands], Reason | None]


def _operation(fact: Fact, demands: Demands) -> Reason | None:
    if demands.operation in fact.capabilities:
        return None
    return Reason(ReasonCode.OPERATION, f"{fact.model.name} does not do {demands.operation}")


def _allowed(fact: Fact, demands: Demands) -> Reason | None:
    if demands.allowed is None or fact.model.name in demands.allowed:
        return None
    return Reason(ReasonCode.NOT_ALLOWED, f"this key may not use {fact.model.name}")


def _excluded(fact: Fact, demands: Demands) -> Reason | None:
    if fact.model.name in demands.excluded:
        return Reason(ReasonCode.EXCLUDED, f"exclude_models leaves {fact.model.name} out")
    if not demands.vendors.isdisjoint(fact.vendors):
        return Reason(ReasonCode.EXCLUDED, f"exclude_providers leaves {fact.provider.name} out")
    return None


def _region(fact: Fact, demands: Demands) -> Reason | None:
    if fact.region in demands.regions:
        return None
    where = f"is in {fact.deployment.region}" if fact.region else "names no region"
    return Reason(ReasonCode.REGION, f"{fact.id} {where}")


def _capability(fact: Fact, demands: Demands) -> Reason | None:
    needed = demands.requirements.capabilities
    if needed <= fact.capabilities:
        return None
    missing = ", ".join(f"`{name}`" for name in sorted(needed - fact.capabilities))
    return Reason(ReasonCode.CAPABILITY, f"{fact.model.name} lacks {missing}")


def _parameter(fact: Fact, demands: Demands) -> Reason | None:
    sent = demands.requirements.parameters
    if fact.refuses.isdisjoint(sent):
        return None
    refused = ", ".join(f"`{name}`" for name in sorted(fact.refuses & sent))
    return Reason(ReasonCode.PARAMETER, f"{fact.model.name} at {fact.provider.name} does not take {refused}")


def _context(fact: Fact, demands: Demands) -> Reason | None:
    window = fact.model.context_window
    if window is None or demands.certain_input + (demands.requirements.max_output_tokens or 0) <= window:
        return None
    asked = demands.requirements.max_output_tokens
    output = "" if asked is None else f" and {asked} of output"
    size = f"about {demands.requirements.input_tokens} tokens of input{output}"
    return Reason(ReasonCode.CONTEXT_WINDOW, f"{fact.model.name} holds {window} tokens, the request has {size}")


def _output(fact: Fact, demands: Demands) -> Reason | None:
    most = fact.model.max_output_tokens
    asked = demands.requirements.max_output_tokens
    if most is None or asked is None or asked <= most:
        return None
    return Reason(ReasonCode.OUTPUT_LIMIT, f"{fact.model.name} writes at most {most} tokens, {asked} were asked for")


def _quality(fact: Fact, demands: Demands) -> Reason | None:
    least = demands.requirements.preferences.min_quality or 0.0
    if fact.model.quality >= least:
        return None
    return Reason(
        ReasonCode.MIN_QUALITY, f"{fact.model.name} has quality {fact.model.quality:g}, at least {least:g} was asked for"
    )


def _latency(fact: Fact, demands: Demands) -> Reason | None:
    most = demands.requirements.preferences.max_latency_ms
    latency = latency_of(fact, demands.health)
    if most is None or latency <= most:
        return None
    return Reason(ReasonCode.MAX_LATENCY, f"{fact.id} takes about {latency:.0f} ms, at most {most:g} were asked for")


def _budget(fact: Fact, demands: Demands) -> Reason | None:
    worst = worst_cost(fact, demands)
    limit = demands.requirements.budget_limit or 0
    if worst is None:
        return Reason(ReasonCode.UNKNOWN_PRICE, f"{fact.id} {_unbounded(fact, demands)}, so it can't be held to budget_limit")
    if worst <= limit:
        return None
    return Reason(ReasonCode.BUDGET, f"{fact.id} could cost up to ${usd(worst):.6f}, over the limit of ${usd(limit):.6f}")


def _unbounded(fact: Fact, demands: Demands) -> str:
    if fact.price is None:
        return "has no known price"
    if surcharged := surcharges(demands.requirements):
        return f"may bill other prices than are known for `{min(surcharged)}`"
    return "has no known price at the service_tier that was asked for"


def _callable(fact: Fact, demands: Demands) -> Reason | None:
    if fact.barred is not None:
        return fact.barred
    known = demands.health.deployments.get(fact.id)
    if known is None or known.disabled is None:
        return None
    if known.breaker is not BreakerState.CLOSED and known.admits_in <= 0:
        return None  # its pause is over: one call may find out whether somebody has mended it
    return Reason(ReasonCode.DISABLED, f"{fact.id} is switched off until somebody looks at it: {known.disabled}")


Needed = Callable[[Demands], object]

CHECKS: Final[tuple[tuple[Check, Needed], ...]] = (
    (_operation, lambda _: True),
    (_allowed, lambda demands: demands.allowed is not None),
    (_excluded, lambda demands: demands.excluded or demands.vendors),
    (_region, lambda demands: demands.regions),
    (_capability, lambda demands: demands.requirements.capabilities),
    (_parameter, lambda demands: demands.requirements.parameters),
    (_context, lambda _: True),
    (_output, lambda demands: demands.requirements.max_output_tokens is not None),
    (_quality, lambda demands: demands.requirements.preferences.min_quality is not None),
    (_latency, lambda demands: demands.requirements.preferences.max_latency_ms is not None),
    (_callable, lambda _: True),
    (_budget, lambda demands: demands.requirements.budget_limit is not None),
)
"""Every check with the demand that makes it needed, in the order in which reasons are given."""


def checks_for(demands: Demands) -> tuple[Check, ...]:
    """Return the checks a request needs."""
    return tuple(check for check, needed in CHECKS if needed(demands))
