"""``GET /v1/health``: which models can answer, in the seed's shape. ``GET /v1/health/live``: that the process answers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from starlette.responses import Response

from functions.catalog_view import Situation, success_rate, unavailable
from functions.endpoints import Endpoint, PublicEndpoint, blueprint
from functions.http import Call, PublicCall, endpoint
from functions.periods import iso
from functions.queue_view import queue_summary
from functions.rendering import NO_STORE, json_response
from shared.background import DURABLE
from shared.core.registry import Deployment


def _build() -> dict[str, str]:
    """Return the name of the package this runs from. A tree that was not published has none."""
    try:
        return {"build": (Path(__file__).resolve().parents[1] / "build.txt").read_text(encoding="utf-8").strip()}
    except OSError:
        return {}


ALIVE: Final = {"status": "alive", **_build()}
"""Read once: the file comes with the package, and a package is never changed in place."""


async def live(call: PublicCall) -> Response:
    """Say that the process answers, and from which package. Costs nothing and opens nothing."""
    del call
    return json_response(ALIVE, headers=[NO_STORE])


async def get_health(call: Call) -> Response:
    """Say which models can answer and how they have been doing on this instance."""
    gateway = call.gateway
    mono, now = gateway.clock.monotonic(), gateway.clock.now()
    situation = Situation(gateway.catalog.current, gateway.health.report(mono), datetime.fromtimestamp(now, UTC).date())
    models = {
        name: _model(situation, situation.registry.by_model.get(name, ()), since=now - mono)
        for name in situation.registry.models
        if call.caller.models is None or name in call.caller.models
    }
    problems = gateway.catalog.problems
    able = sum(model["available"] for model in models.values())
    status = "unhealthy" if not able else "degraded" if problems or _struggling(situation) else "healthy"
    body: dict[str, Any] = {
        "status": status,
        "models": models,
        "services": {
            "router": "active",
            "optimizer": "active",
            "metrics": "active",
            "catalog": "newer file refused" if problems else "active",
            "upstream": "simulator" if gateway.settings.simulated else "providers",
            "chains": _engine(call),
        },
        "queue": await queue_summary(gateway),
        "registry_version": situation.registry.version,
    }
    if problems and call.caller.admin:
        body["catalog_problems"] = list(problems)
    return json_response(body, headers=[NO_STORE])


def _engine(call: Call) -> str:
    """Say what runs chains here: one machine's engine forgets them at its process's end."""
    if call.chain_engine is None:
        return "off"
    return "durable" if call.chain_engine.name == DURABLE else "in this process"


def _struggling(situation: Situation) -> bool:
    return any(report.health.breaker.value != "closed" for report in situation.health.values())


def _model(situation: Situation, deployments: tuple[Deployment, ...], *, since: float) -> dict[str, Any]:
    reasons = [unavailable(situation, deployment) for deployment in deployments]
    able = any(reason is None for reason in reasons)
    calls = [
        report.last_call_at
        for one in deployments
        if (report := situation.health.get(one.id)) is not None and report.last_call_at is not None
    ]
    return {
        "available": able,
        "success_rate": success_rate(situation, deployments),
        "last_check": iso(since + max(calls)) if calls else None,
        "reason": None if able else next((reason for reason in reasons if reason), "it has no deployment"),
        "breakers": {
            one.id: situation.health[one.id].health.breaker.value for one in deployments if one.id in situation.health
        },
    }


ENDPOINTS: Final = (
    Endpoint(
        name="get_health",
        method="GET",
        path="/v1/health",
        handler=get_health,
        summary="Which models can answer",
        tag="Health",
        answers="The seed's `status, models, services`; and how much runs in the background, some seconds old at most.",
        durable=True,
    ),
    PublicEndpoint(
        name="live",
        method="GET",
        path="/v1/health/live",
        handler=live,
        summary="The process answers, and from which package",
        tag="Health",
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
