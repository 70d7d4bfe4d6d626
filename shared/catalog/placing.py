"""Puts the catalog's rows where the infrastructure is: see `shared.catalog.infrastructure` for the rules and their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from shared.catalog.crosscheck import KEYLESS, auth_order, deployment_id
from shared.catalog.draft import PlacedDeployment
from shared.catalog.findings import suggestion
from shared.catalog.infrastructure import SETTING, SKUS, ZONES, Infrastructure, Placement
from shared.catalog.schema import DeploymentEntry, RatesEntry
from shared.core.registry import Lifecycle

if TYPE_CHECKING:
    from shared.catalog.crosscheck import MissingNames
    from shared.catalog.draft import Draft
    from shared.catalog.findings import Findings, Path
    from shared.catalog.references import References
    from shared.catalog.schema import PriceEntry, UpliftEntry

_RATES: Final = ("input", "output", "cached_input", "cache_write", "reasoning", "per_request")


def place(draft: Draft, infrastructure: Infrastructure, references: References, findings: Findings) -> None:
    """Replace the rows of the deployed providers in ``draft`` by one per deployment that there is."""
    known = _known(draft, infrastructure, findings)
    for provider, endpoint in infrastructure.endpoints().items():
        if provider in draft.providers:
            _address(draft, provider, endpoint, references)
            _check_key(draft, provider, infrastructure, findings)
            mine = [one for one in known if one.account.provider == provider]
            _Placing(draft, provider, references.missing, findings).place(mine)
    _check_names(draft, findings)


def _known(draft: Draft, infrastructure: Infrastructure, findings: Findings) -> list[Placement]:
    """Return the placements of models and providers that the catalog has; the others are told, and stop nobody."""
    known = []
    for index, account in enumerate(infrastructure.accounts):
        if account.provider not in draft.provider_names:
            near = suggestion(account.provider, sorted(draft.provider_names))
            message = f"the catalog has no provider `{account.provider}`{near}, so nothing of this account is used"
            findings.warn((SETTING, index, "provider"), message)
    for one in infrastructure.placements():
        model = one.deployed.model
        if one.account.provider not in draft.provider_names:
            continue
        if model not in draft.model_names:
            near = suggestion(model, sorted(draft.model_names))
            message = f"the catalog has no model `{model}`{near}, so this deployment is not used: describe it under `models:`"
            findings.warn((*one.path, "model"), message)
            continue
        if one.sku is None:
            message = f"`{one.deployed.sku}` is not a known deployment type ({', '.join(SKUS)}), so its price is not known"
            findings.warn((*one.path, "sku"), message)
        known.append(one)
    return known


def _address(draft: Draft, provider: str, endpoint: str, references: References) -> None:
    """Give a provider whose address is not set that of its first account."""
    if references.missing.pop(("providers", provider, "base_url"), None) is not None:
        draft.providers[provider] = draft.providers[provider].model_copy(update={"base_url": endpoint})


def _check_key(draft: Draft, provider: str, infrastructure: Infrastructure, findings: Findings) -> None:
    entry = draft.providers[provider]
    endpoints = {account.endpoint for account in infrastructure.accounts if account.provider == provider}
    if len(endpoints) > 1 and entry.api_key is not None and not KEYLESS.isdisjoint(auth_order(entry)):
        message = (
            f"is one key, and there are {len(endpoints)} accounts: leave it unset, and the app's identity opens all of them"
        )
        findings.warn(("providers", provider, "api_key"), message)


def _check_names(draft: Draft, findings: Findings) -> None:
    seen: dict[str, Path] = {}
    for placed in draft.deployments:
        identity = deployment_id(placed)
        first = seen.setdefault(identity, placed.path)
        if first is not placed.path and SETTING in (first[0], placed.path[0]):
            # A registered model gives way, and is left out: a problem of the setting lets no gateway open.
            path = min(placed.path, first, key=lambda path: (path[1] not in findings.registered, path[0] != SETTING))
            findings.problem(path, f"`{identity}` is already a deployment; give one of the two another name")


@dataclass(frozen=True, slots=True)
class _Placing:
    """One provider's rows and deployments. ``missing`` are the endpoints the environment does not give."""

    draft: Draft
    provider: str
    missing: MissingNames
    findings: Findings

    def place(self, placements: Sequence[Placement]) -> None:
        by_model: dict[str, list[Placement]] = {}
        for one in placements:
            by_model.setdefault(one.deployed.model, []).append(one)
        rows = [placed for placed in self.draft.deployments if self._is_row(placed)]
        templates = {placed.model: placed for placed in reversed(rows)}
        result: list[PlacedDeployment] = []
        for placed in self.draft.deployments:
            if not self._is_row(placed):
                result.append(self._after(placed, templates.get(placed.model), by_model.get(placed.model, ())))
            elif placed.model not in by_model:
                result.append(self._absent(placed))
            elif templates[placed.model] is placed:
                result += self._placed(placed, by_model[placed.model])
        for model, found in by_model.items():
            if model not in templates:
                result += self._unlisted(model, found)
        self.draft.deployments = result

    def _is_row(self, placed: PlacedDeployment) -> bool:
        """Tell whether it says what a model is at the provider and not where: its own address would be another resource."""
        entry = placed.entry
        return entry.provider == self.provider and entry.base_url is None and (*placed.path, "base_url") not in self.missing

    def _after(
        self, placed: PlacedDeployment, template: PlacedDeployment | None, placements: Sequence[Placement]
    ) -> PlacedDeployment:
        """Keep whoever came after the row after all that took its place."""
        more = len({one.rank for one in placements}) - 1
        if template is None or more < 1 or placed.entry.priority <= template.entry.priority:
            return placed
        entry = placed.entry.model_copy(update={"priority": placed.entry.priority + more})
        return PlacedDeployment(placed.path, placed.model, entry)

    def _absent(self, placed: PlacedDeployment) -> PlacedDeployment:
        """Say what to add to the tfvars, unless there is another reason not to call it, or it was registered by hand."""
        model = self.draft.models.get(placed.model)
        lives = (placed.entry.lifecycle, model.lifecycle if model is not None else None)
        retired = any(life is not None and life.stage is Lifecycle.RETIRED for life in lives)
        if retired or not placed.entry.enabled or placed.model in self.findings.registered:
            return placed
        example = f'{{ model = "{placed.model}", version = "…", sku = "GlobalStandard", capacity = … }}'
        reason = f"not deployed: add {example} to a region's deployments in openai_regions of your tfvars, and apply"
        entry = placed.entry.model_copy(update={"enabled": False, "disabled_reason": reason})
        return PlacedDeployment(placed.path, placed.model, entry)

    def _unlisted(self, model: str, placements: Sequence[Placement]) -> list[PlacedDeployment]:
        message = (
            f"the catalog has no row of `{self.provider}` for `{model}`, so its price is not known: add it under `models:`"
        )
        self.findings.warn((*placements[0].path, "model"), message)
        row = DeploymentEntry(provider=self.provider, prices=[])
        return self._placed(PlacedDeployment(placements[0].path, model, row), placements)

    def _placed(self, row: PlacedDeployment, placements: Sequence[Placement]) -> list[PlacedDeployment]:
        ranks = sorted({one.rank for one in placements})
        return [
            PlacedDeployment(one.path, row.model, self._entry(row.entry, one, row.entry.priority + ranks.index(one.rank)))
            for one in sorted(placements, key=lambda one: one.rank)
        ]

    def _entry(self, row: DeploymentEntry, one: Placement, priority: int) -> DeploymentEntry:
        limits = {"tokens_per_minute": one.tokens_per_minute}
        if one.deployed.requests_per_minute is not None:
            limits["requests_per_minute"] = one.deployed.requests_per_minute
        return row.model_copy(
            update={
                "name": one.name,
                "target": one.deployed.name,
                "region": one.account.region,
                "base_url": one.account.endpoint,
                "priority": priority,
                "weight": row.weight * one.deployed.capacity,
                "limits": row.limits.model_copy(update=limits),
                "provisioned": one.provisioned,
                "prices": self._prices(row, one),
            }
        )

    def _prices(self, row: DeploymentEntry, one: Placement) -> list[PriceEntry]:
        sku = one.sku
        if sku is None:
            return []
        if sku.provisioned or sku.scope == "global":
            return row.prices
        place = "regional" if sku.scope == "regional" else ZONES.get(one.account.region)
        factor: Decimal | None = getattr(row.uplift, place) if place is not None and row.uplift is not None else None
        if factor is None or row.uplift is None:
            if row.prices:
                what = "the region" if place == "regional" else "its data zone"
                message = f"the catalog has no `uplift` of `{one.deployed.model}` for {what}, so its price is not known"
                self.findings.warn((*one.path, "sku"), message)
            return []
        return [_times(price, factor, row.uplift) for price in row.prices]


def _times(price: PriceEntry, factor: Decimal, uplift: UpliftEntry) -> PriceEntry:
    return price.model_copy(
        update={
            **_scaled(price, factor),
            "tiers": [tier.model_copy(update=_scaled(tier, factor)) for tier in price.tiers],
            "service_tiers": {
                name: rates.model_copy(update=_scaled(rates, factor)) for name, rates in price.service_tiers.items()
            },
            "source": uplift.source,
            "read_on": uplift.read_on,
        }
    )


def _scaled(rates: RatesEntry, factor: Decimal) -> dict[str, Decimal]:
    given = {name: getattr(rates, name) for name in _RATES}
    return {name: rate * factor for name, rate in given.items() if rate is not None}
