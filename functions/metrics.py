"""``GET /v1/metrics``: how the gateway has been doing: requests, errors by kind, latency, tokens, cost, breakers, queue."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from starlette.responses import Response

from functions.endpoints import Endpoint, Parameter, blueprint
from functions.http import Call, endpoint
from functions.periods import iso, span
from functions.queue_view import queue_report
from functions.rendering import NO_STORE, json_response, usd
from functions.scopes import project_of
from shared.alerts import Alert
from shared.core.limits import Use
from shared.health_book import HealthReport
from shared.metrics import Summary


async def get_metrics(call: Call) -> Response:
    """Show a time range of all instances, and this instance's breakers and calls in flight."""
    gateway = call.gateway
    seconds = span(call.query("time_range"), name="time_range", default="1h")
    model, project = call.query("model"), project_of(call)
    report = await gateway.metrics.report(seconds, model=model, project=project)
    registry, health = gateway.catalog.current, gateway.health.report(gateway.clock.monotonic())
    shown = {
        name: measured
        for name, measured in health.items()
        if name in registry.deployments and model in {None, registry.deployments[name].model}
    }
    body = {
        "object": "metrics",
        "time_range": call.query("time_range") or "1h",
        "start": iso(report.start),
        "end": iso(report.end),
        "model": model,
        "project": project,
        **_summary(report.total),
        "models": {name: _summary(summary) for name, summary in report.models.items()},
        "step_seconds": report.step_seconds,
        "series": [{"start": iso(point.start), **_summary(point.summary)} for point in report.series],
        "breakers": {name: _breaker(measured) for name, measured in shown.items()},
        "queue": {
            "in_flight": sum(measured.in_flight for measured in shown.values()),
            "by_deployment": {name: measured.in_flight for name, measured in shown.items() if measured.in_flight},
            **await queue_report(gateway, seconds, project),
        },
    }
    if call.caller.admin:
        body["limits"] = [_use(use) for use in gateway.limits.report()]
        body["alerts"] = [_alert(alert) for alert in await gateway.alerts.feed()]
        body["ledger"] = {"overruns": gateway.ledger.overruns}
    return json_response(body, headers=[NO_STORE])


def _use(use: Use) -> dict[str, Any]:
    return {"subject": use.limited.subject, "per_minute": use.what, "used": use.used, "limit": use.limit}


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "budget": alert.budget,
        "period": alert.period,
        "threshold": alert.threshold,
        "limit_usd": usd(alert.limit),
        "spent_usd": usd(alert.spent),
        "hard": alert.hard,
        "raised_at": iso(alert.raised_at),
        "delivery": alert.delivery.value,
    }


def _summary(summary: Summary) -> dict[str, Any]:
    found = asdict(summary)
    latency, first_content, cost = found.pop("latency"), found.pop("first_content"), found.pop("cost")
    return {
        **found,
        "latency_ms": latency,
        "first_content_ms": first_content,
        "cost_usd": usd(cost),
        "cost_nano_usd": cost,
    }


def _breaker(measured: HealthReport) -> dict[str, Any]:
    health = measured.health
    return {
        "state": health.breaker.value,
        "admits_in_seconds": round(health.admits_in, 3),
        "cooling": health.cooling,
        "disabled": health.disabled,
        "success_rate": round(health.success_rate, 4),
        "last_failure": measured.last_failure,
    }


ENDPOINTS: Final = (
    Endpoint(
        name="get_metrics",
        method="GET",
        path="/v1/metrics",
        handler=get_metrics,
        summary="Requests, errors, latency, tokens, cost, breakers and queue",
        tag="Accounting",
        parameters=(
            Parameter("time_range", "A span such as 15m, 1h or 7d; 1h when absent."),
            Parameter("model", "Only this model."),
            Parameter("project", "Only this project. Keys other than the administrator's see their own only."),
        ),
        answers="The sums of the range, by model and over time; breakers and calls in flight of this instance; what runs "
        "in the background on all of them, and how many of the range's chains (of its last day at most) have finished. "
        "The administrator also sees limits and alerts.",
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
