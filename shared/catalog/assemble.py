"""Checked entries → the registry's values: what can be called, and why what can't be can't."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from shared.catalog.crosscheck import KEYLESS, MissingNames, auth_order, deployment_id
from shared.core.registry import (
    Alias,
    Arm,
    Auth,
    Deployment,
    Experiment,
    FailoverPolicy,
    Lifecycle,
    LifecycleFacts,
    Limits,
    Model,
    Price,
    Provider,
    ProviderKind,
    Rates,
    RateTier,
    Registry,
    RoutingPolicy,
    RoutingRule,
    Secret,
    Timeouts,
)
from shared.core.wire_support import UNSUPPORTED

if TYPE_CHECKING:
    from shared.catalog.draft import Draft, PlacedDeployment
    from shared.catalog.findings import Path
    from shared.catalog.schema import (
        DeploymentEntry,
        LifecycleEntry,
        ModelEntry,
        PolicyEntry,
        PriceEntry,
        ProviderEntry,
        RatesEntry,
        TimeoutsEntry,
    )

_SIMULATED_PATH: Final[Mapping[ProviderKind, str]] = {
    ProviderKind.AZURE_OPENAI: "",
    ProviderKind.OPENAI_COMPATIBLE: "/v1",
    ProviderKind.ANTHROPIC: "",
}
_REDUNDANT_SUFFIXES: Final[Mapping[ProviderKind, tuple[str, ...]]] = {
    # What people paste behind the resource's own address; the adapters add the protocol's paths.
    ProviderKind.AZURE_OPENAI: ("/openai/v1", "/openai"),
    ProviderKind.OPENAI_COMPATIBLE: (),
    ProviderKind.ANTHROPIC: ("/v1",),
}
_SIMULATED_CREDENTIAL: Final = "simulated"


@dataclass(frozen=True, slots=True)
class Assembly:
    """What the registry is made of. ``simulator_url`` None means the real providers."""

    draft: Draft
    missing: MissingNames
    simulator_url: str | None = None

    def registry(self, version: str) -> Registry:
        """Return the registry."""
        draft = self.draft
        providers = {name: self._provider(name, entry) for name, entry in draft.providers.items()}
        models = {name: _model(name, entry, self._lifecycle_of(name, entry)) for name, entry in draft.models.items()}
        policy = _policy(draft.policy)
        deployments: dict[str, Deployment] = {}
        by_model: dict[str, tuple[Deployment, ...]] = dict.fromkeys(models, ())
        for placed in draft.deployments:
            if placed.entry.provider in providers and placed.model in models:
                deployment = self._deployment(placed, providers[placed.entry.provider], models[placed.model], policy=policy)
                deployments[deployment.id] = deployment
                by_model[placed.model] += (deployment,)
        bare = Registry(
            version=version,
            providers=MappingProxyType(providers),
            models=MappingProxyType(models),
            deployments=MappingProxyType(deployments),
            aliases=MappingProxyType(
                {name: Alias(name, tuple(alias.to), alias.retired, alias.note) for name, alias in draft.aliases.items()}
            ),
            policy=policy,
            by_model=MappingProxyType(by_model),
        )
        return self._with_routing(bare)

    def _with_routing(self, bare: Registry) -> Registry:
        """Add what names models through aliases: the router then finds only models in it."""

        def models(names: Sequence[str]) -> tuple[str, ...]:
            known = [name for name in names if name in bare.models or name in bare.aliases]
            return tuple(dict.fromkeys(model for name in known for model in bare.resolve(name)))

        rules = {
            rule.task: RoutingRule(
                rule.task, models(rule.preferred_models), models(rule.fallback_models), rule.objective, rule.others
            )
            for _, rule in self.draft.rules
        }
        experiments = tuple(
            Experiment(
                entry.name,
                tuple(Arm(arm.name or arm.model, model, arm.weight) for arm in entry.arms for model in models([arm.model])[:1]),
                tuple(entry.tasks),
                tuple(entry.models),
                entry.enabled,
            )
            for _, entry in self.draft.experiments
        )
        fallbacks = {name: models(targets) for name, targets in self.draft.fallbacks.items()}
        policy = replace(bare.policy, fallbacks=fallbacks)
        return replace(bare, rules=MappingProxyType(rules), experiments=experiments, policy=policy)

    # ---- providers ---------------------------------------------------------------------------------------------------

    def _provider(self, name: str, entry: ProviderEntry) -> Provider:
        path = ("providers", name)
        order = auth_order(entry)
        usable = [auth for auth in order if auth in KEYLESS or entry.api_key is not None]
        auth = usable[0] if usable else order[0]
        keyed = auth not in KEYLESS and entry.api_key is not None
        provider = Provider(
            name=name,
            kind=entry.kind,
            base_url=_trimmed(entry),
            auth=auth,
            credential=Secret(entry.api_key) if keyed and entry.api_key else None,
            api_version=entry.api_version,
            headers=dict(entry.headers),
            semconv_name=entry.semconv_name or _semconv(name, entry.kind),
            unsupported_parameters=frozenset(entry.unsupported_parameters) | UNSUPPORTED[entry.kind],
            unavailable=self._unavailable(path, entry, keyless=auth in KEYLESS),
        )
        if entry.entra_scope is not None:
            provider = replace(provider, entra_scope=entry.entra_scope)
        return provider if self.simulator_url is None else self._simulated(provider, entry, order)

    def _unavailable(self, path: Path, entry: ProviderEntry, *, keyless: bool) -> str | None:
        if not entry.enabled:
            return entry.disabled_reason or "switched off in the catalog"
        names: list[str] = []
        for place, missing in self.missing.items():
            if place[: len(path)] == path and not (keyless and place[len(path)] == "api_key"):
                names += missing
        return needs(names)

    def _simulated(self, provider: Provider, entry: ProviderEntry, order: tuple[Auth, ...]) -> Provider:
        # A provider the file only names (first format) is served although the real one is gone: its models are the
        # catalog's main ones, and the simulator stands for all of them.
        serves = entry.enabled or provider.name in self.draft.conventional
        auth = Auth.API_KEY if order[0] is Auth.ENTRA else order[0]
        return replace(
            provider,
            base_url=f"{(self.simulator_url or '').rstrip('/')}/{provider.name}{_SIMULATED_PATH[provider.kind]}",
            auth=auth,
            credential=None if auth is Auth.NONE else Secret(_SIMULATED_CREDENTIAL),
            unavailable=None if serves else provider.unavailable,
        )

    def _lifecycle_of(self, name: str, entry: ModelEntry) -> LifecycleFacts:
        """Return a model's lifecycle: its own, else that of the deployment that lives longest."""
        if entry.lifecycle is not None:
            return self._lifecycle(entry.lifecycle)
        lives = [placed.entry.lifecycle for placed in self.draft.deployments if placed.model == name]
        known = [self._lifecycle(life) for life in lives if life is not None and life.retires_on is not None]
        if not known or len(known) < len(lives):
            return LifecycleFacts()
        return max(known, key=lambda life: life.retires_on or date.min)

    # ---- deployments -------------------------------------------------------------------------------------------------

    def _deployment(self, placed: PlacedDeployment, provider: Provider, model: Model, *, policy: RoutingPolicy) -> Deployment:
        entry = placed.entry
        simulated = self.simulator_url is not None
        lifecycle = self._lifecycle(entry.lifecycle) if entry.lifecycle is not None else None
        missing = () if simulated else self.missing.get((*placed.path, "base_url"), ())
        return Deployment(
            id=deployment_id(placed),
            model=placed.model,
            provider=entry.provider,
            target=entry.target or placed.model,
            region=entry.region,
            priority=entry.priority,
            weight=entry.weight,
            limits=Limits(**entry.limits.model_dump()),
            prices=tuple(sorted(map(self._price, entry.prices), key=lambda price: price.effective_from)),
            timeouts=_timeouts(entry.timeouts, policy.failover.timeouts) if entry.timeouts else None,
            provisioned=entry.provisioned,
            base_url=None if simulated else entry.base_url,
            unavailable=_off(entry, lifecycle or model.lifecycle) or provider.unavailable or needs(missing),
            lifecycle=lifecycle,
        )

    # ---- what is dated -----------------------------------------------------------------------------------------------

    def _read(self, source: str | None, read_on: date | None) -> tuple[str, date | None]:
        """Return where and when something was read; the name of a source stands for both."""
        named = self.draft.sources.get(source or "")
        if named is None:
            return source or "", read_on
        return named.where, read_on or named.read_on

    def _lifecycle(self, entry: LifecycleEntry) -> LifecycleFacts:
        return LifecycleFacts(entry.stage, entry.retires_on, *self._read(entry.source, entry.read_on))

    def _price(self, entry: PriceEntry) -> Price:
        source, read_on = self._read(entry.source, entry.read_on)
        tiers = sorted(entry.tiers, key=lambda tier: tier.above_input_tokens)
        return Price(
            effective_from=entry.effective_from,
            rates=_rates(entry),
            tiers=tuple(RateTier(tier.above_input_tokens, _rates(tier)) for tier in tiers),
            service_tiers={name: _rates(rates) for name, rates in entry.service_tiers.items()},
            source=source,
            read_on=read_on,
        )


def needs(names: Sequence[str]) -> str | None:
    """Say which environment variables are missing; None when none is."""
    unique = tuple(dict.fromkeys(names))
    if not unique:
        return None
    return f"needs {' and '.join(unique)}, which the environment does not set"


def _off(entry: DeploymentEntry, lifecycle: LifecycleFacts) -> str | None:
    if not entry.enabled:
        return entry.disabled_reason or "switched off in the catalog"
    if lifecycle.stage is Lifecycle.RETIRED:
        return f"retired on {lifecycle.retires_on}" if lifecycle.retires_on else "retired"
    return None


def _trimmed(entry: ProviderEntry) -> str:
    address = entry.base_url or ""
    for suffix in _REDUNDANT_SUFFIXES[entry.kind]:
        address = address.removesuffix(suffix).rstrip("/")
    return address


def _semconv(name: str, kind: ProviderKind) -> str:
    return "azure.ai.openai" if kind is ProviderKind.AZURE_OPENAI else name


def _model(name: str, entry: ModelEntry, lifecycle: LifecycleFacts) -> Model:
    return Model(
        name=name,
        capabilities=frozenset(entry.capabilities),
        tasks=tuple(entry.tasks),
        context_window=entry.context_window,
        max_output_tokens=entry.max_output_tokens,
        image_tokens=entry.image_tokens,
        dimensions=entry.dimensions,
        quality=entry.quality,
        latency_ms=entry.latency_ms,
        reasoning=entry.reasoning,
        unsupported_parameters=frozenset(entry.unsupported_parameters),
        lifecycle=lifecycle,
        auto=entry.auto if entry.auto is not None else lifecycle.stage is Lifecycle.GENERAL,
        description=entry.description,
    )


def _rates(entry: RatesEntry) -> Rates:
    return Rates(
        input=entry.input,
        output=entry.output if entry.output is not None else Decimal(0),
        cache_read=entry.cached_input,
        cache_creation=entry.cache_write,
        reasoning=entry.reasoning,
        request=entry.per_request if entry.per_request is not None else Decimal(0),
    )


def _timeouts(entry: TimeoutsEntry | None, default: Timeouts) -> Timeouts:
    if entry is None:
        return default
    given = entry.model_dump(exclude_none=True)
    return replace(default, **{name.removesuffix("_s"): value for name, value in given.items()})


def _policy(entry: PolicyEntry) -> RoutingPolicy:
    given = entry.model_dump(exclude_none=True, exclude={"timeouts"})
    routing = {name: given.pop(name) for name in ("objective", "default_max_output_tokens", "max_candidates") if name in given}
    failover = FailoverPolicy(
        timeouts=_timeouts(entry.timeouts, Timeouts()), **{name.removesuffix("_s"): value for name, value in given.items()}
    )
    return RoutingPolicy(failover=failover, **routing)
