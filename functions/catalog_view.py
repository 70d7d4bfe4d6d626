"""The registry and its health as callers see them: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

from shared.core.pricing import price_on
from shared.core.registry import Deployment, Price, Registry
from shared.health_book import HealthReport

PER_THOUSAND: Final = Decimal(1000)
FULL: Final = 1.0


@dataclass(frozen=True, slots=True)
class Situation:
    """What there is, how it is doing, and the day that decides prices."""

    registry: Registry
    health: Mapping[str, HealthReport]
    day: date


def openai_view(registry: Registry, name: str) -> dict[str, Any]:
    """Return a model or alias as OpenAI lists one."""
    owners = [deployment.provider for model in registry.resolve(name) for deployment in registry.by_model.get(model, ())]
    return {"id": name, "object": "model", "created": 0, "owned_by": owners[0] if owners else "switchyard"}


def model_view(situation: Situation, name: str) -> dict[str, Any]:
    """Return a model as the seed lists one, with what the catalog knows beyond it."""
    registry = situation.registry
    model, deployments = registry.models[name], registry.by_model.get(name, ())
    first = deployments[0] if deployments else None
    available = any(unavailable(situation, deployment) is None for deployment in deployments)
    return {
        "name": name,
        "provider": first.provider if first is not None else None,
        "capabilities": sorted({*model.capabilities, *model.tasks}),
        "cost": _per_thousand(price_on(first.prices, situation.day) if first is not None else None),
        "status": "available" if available else "unavailable",
        "quality_score": model.quality,
        "latency_ms": model.latency_ms,
        "context_window": model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "dimensions": model.dimensions,
        "auto": model.auto,
        "lifecycle": {
            "stage": model.lifecycle.stage.value,
            "retires_on": model.lifecycle.retires_on and model.lifecycle.retires_on.isoformat(),
        },
        "description": model.description,
        "deployments": [_deployment(situation, deployment) for deployment in deployments],
    }


def unavailable(situation: Situation, deployment: Deployment) -> str | None:
    """Return why a deployment can't be called, None when it can."""
    provider = situation.registry.providers[deployment.provider]
    measured = situation.health.get(deployment.id)
    disabled = measured.health.disabled if measured is not None else None
    return deployment.unavailable or provider.unavailable or disabled


def success_rate(situation: Situation, deployments: tuple[Deployment, ...]) -> float:
    """Return the mean success rate of those that were called; 1.0 when none was."""
    rates = [found.health.success_rate for one in deployments if (found := situation.health.get(one.id)) is not None]
    return round(sum(rates) / len(rates), 4) if rates else FULL


def _deployment(situation: Situation, deployment: Deployment) -> dict[str, Any]:
    measured = situation.health.get(deployment.id)
    price = price_on(deployment.prices, situation.day)
    reason = unavailable(situation, deployment)
    return {
        "id": deployment.id,
        "provider": deployment.provider,
        "region": deployment.region,
        "priority": deployment.priority,
        "weight": deployment.weight,
        "provisioned": deployment.provisioned,
        "status": "available" if reason is None else "unavailable",
        "reason": reason,
        "breaker": measured.health.breaker.value if measured is not None else "closed",
        "success_rate": round(measured.health.success_rate, 4) if measured is not None else None,
        "latency_ms": measured.health.latency_ms if measured is not None else None,
        "cost": _per_thousand(price),
        "price_source": price.source if price is not None else None,
    }


def _per_thousand(price: Price | None) -> dict[str, float] | None:
    if price is None:
        return None
    return {
        "input_per_1k": float(price.rates.input / PER_THOUSAND),
        "output_per_1k": float(price.rates.output / PER_THOUSAND),
    }
