"""The first format of a catalog → entries of today's.

    models: {NAME: {provider, capabilities: [tasks], cost_per_1k_tokens: {input, output}, max_tokens, …}}

Its ``capabilities`` are what a model is suited for: they become tasks. Everything but an embedding model answers chat. Its
rules mean: the preferred models in order, then the fallback models, then whatever else can do it, the cheapest first.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from shared.catalog.conventions import CONVENTIONAL_PROVIDERS
from shared.catalog.draft import Draft, PlacedDeployment
from shared.catalog.findings import suggestion
from shared.catalog.schema import DeploymentEntry, ModelEntry, PriceEntry, ProviderEntry
from shared.core.chat import Capability, Objective

if TYPE_CHECKING:
    from shared.catalog.findings import Findings
    from shared.catalog.references import References
    from shared.catalog.schema import CostEntry, FlatModelEntry

_SINCE_EVER: Final = date(1970, 1, 1)  # the format has no dates: its price has always been valid
_PER_MILLION: Final = Decimal(1000)
_CHAT_FEATURES: Final = (Capability.CHAT.value, Capability.TOOLS.value, Capability.JSON_OBJECT.value)


def translate(draft: Draft, references: References, findings: Findings) -> None:
    """Add today's entries for every model of the first format to ``draft``."""
    was_flat = draft.is_flat(findings.registered)
    for path, provider in draft.mentions.flat_providers:
        _add_provider(str(path[1]), provider, draft, references, findings=findings)
    for name, flat in draft.flat_models.items():
        embeds = Capability.EMBEDDINGS.value in flat.capabilities
        if flat.cost_per_1k_tokens.output is None and not embeds:
            findings.problem(("models", name, "cost_per_1k_tokens", "output"), "is missing; a chat model charges for output")
        _add_provider(name, flat.provider, draft, references, findings=findings)
        draft.models[name] = _model(flat, embeds=embeds)
        deployment = DeploymentEntry(provider=flat.provider, prices=[_price(flat.cost_per_1k_tokens, findings.source)])
        draft.deployments.append(PlacedDeployment(("models", name), name, deployment))
    if was_flat:
        _drop_unknown_fallbacks(draft, findings)
        if draft.policy.objective is None:
            draft.policy = draft.policy.model_copy(update={"objective": Objective.COST})
        draft.rules = [
            (path, rule if rule.objective else rule.model_copy(update={"objective": Objective.COST}))
            for path, rule in draft.rules
        ]


def _model(flat: FlatModelEntry, *, embeds: bool) -> ModelEntry:
    return ModelEntry(
        capabilities=[Capability.EMBEDDINGS.value] if embeds else list(_CHAT_FEATURES),
        tasks=flat.capabilities,
        context_window=flat.max_tokens,
        dimensions=flat.dimensions,
        quality=flat.quality_score,
        latency_ms=flat.latency_ms,
    )


def _price(cost: CostEntry, source: str) -> PriceEntry:
    return PriceEntry.model_validate(
        {
            "from": _SINCE_EVER.isoformat(),
            "input": str(cost.input * _PER_MILLION),
            "output": None if cost.output is None else str(cost.output * _PER_MILLION),
            "source": f"{PurePath(source).name}: cost_per_1k_tokens",  # callers see it: never where the file is
        }
    )


def _add_provider(model: str, name: str, draft: Draft, references: References, *, findings: Findings) -> None:
    if name in draft.provider_names or "providers" in draft.unread:
        return
    convention = CONVENTIONAL_PROVIDERS.get(name)
    if convention is None:
        known = sorted({*CONVENTIONAL_PROVIDERS, *draft.provider_names})
        message = f"there is no provider of this name{suggestion(name, known)}; describe it under `providers:`"
        findings.problem(("models", model, "provider"), message)
        return
    resolved = references.resolve(dict(convention), ("providers", name))
    draft.providers[name] = ProviderEntry.model_validate(resolved)
    draft.provider_names.add(name)
    draft.conventional.add(name)


def _drop_unknown_fallbacks(draft: Draft, findings: Findings) -> None:
    known = draft.model_names | draft.alias_names
    for index, (path, rule) in enumerate(draft.rules):
        unknown = [name for name in rule.fallback_models if name not in known]
        for name in unknown:
            position = rule.fallback_models.index(name)
            findings.warn((*path, "fallback_models", position), f"there is no model `{name}`; it is left out")
        kept = [name for name in rule.fallback_models if name in known]
        draft.rules[index] = (path, rule.model_copy(update={"fallback_models": kept}))
    # Of rules with mistakes too: mending the mistake must be enough.
    draft.mentions.models = [
        (path, name) for path, name in draft.mentions.models if "fallback_models" not in path or path[0] != "routing_rules"
    ]
