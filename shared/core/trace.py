"""The decision trace: what `plan` was given and what it made of it, as plain JSON values; and plan() again from that.

It holds no text of the caller: requirements are numbers and names. Of health it keeps what routing reads, of the deployments
that were considered. The catalog is named by its version; whoever replays finds that version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import date
from enum import StrEnum
from itertools import chain
from typing import Any, Final

from shared.core.chat import ModelPreferences, Objective, Operation, Priority, Requirements
from shared.core.health import BreakerState, DeploymentHealth, HealthSnapshot
from shared.core.registry import Registry
from shared.core.route import Route
from shared.core.router import plan

VERSION: Final = 1


def record(
    requirements: Requirements,
    registry: Registry,
    health: HealthSnapshot,
    *,
    day: date,
    draw: float,
    allowed: frozenset[str] | None,
    route: Route,
) -> dict[str, Any]:
    """Return the inputs and the outcome of a plan, ready for `json.dumps`.

    ``dropped`` groups deployments by reason: ``[code, detail, [deployment, …]]``; ``candidates`` are ``[deployment, [code, …],
    expected cost, worst cost]``, costs in nano-USD.
    """
    dropped: dict[tuple[str, str], list[str]] = {}
    for one in route.dropped:
        dropped.setdefault((one.reason.code.value, one.reason.detail), []).append(one.deployment or one.model)
    written: dict[str, Any] = {
        "v": VERSION,
        "registry": registry.version,
        "day": day.isoformat(),
        "draw": draw,
        "requirements": _requirements_out(requirements),
        "health": _health_out(route, health),
        "candidates": [
            [one.deployment, [reason.code.value for reason in one.reasons], one.expected_cost, one.worst_cost]
            for one in route.candidates
        ],
        "dropped": [[code, detail, names] for (code, detail), names in dropped.items()],
        "objective": route.objective,
        "rule": route.rule,
    }
    if allowed is not None:
        written["allowed"] = sorted(allowed)
    if route.assignment is not None:
        written["experiment"] = [route.assignment.experiment, route.assignment.arm, route.assignment.model]
    if route.note:
        written["note"] = route.note
    return written


def replay(trace: Mapping[str, Any], registry: Registry) -> Route:
    """Return the route that the recorded inputs give with a registry: the same one, if it is the recorded version.

    Raise `ValueError` or `KeyError` for what `record` did not write.
    """
    allowed = trace.get("allowed")
    return plan(
        _requirements_in(trace["requirements"]),
        registry,
        HealthSnapshot({name: _health_in(values) for name, values in trace["health"].items()}),
        day=date.fromisoformat(trace["day"]),
        draw=trace["draw"],
        allowed=None if allowed is None else frozenset(allowed),
    )


# ---- requirements ----------------------------------------------------------------------------------------------------

_DEFAULTS: Final = {
    field.name: field.default for field in fields(Requirements) if field.default is not MISSING and field.name != "preferences"
}
_PREFERENCES: Final = {field.name: field.default for field in fields(ModelPreferences)}
_NO_PREFERENCES: Final = ModelPreferences()


def _requirements_out(requirements: Requirements) -> dict[str, Any]:
    """Return the fields that differ from their defaults, sets as sorted lists."""
    written: dict[str, Any] = {
        "operation": requirements.operation.value,
        "model": requirements.model,
        "task": requirements.task,
    }
    for name, default in _DEFAULTS.items():
        value = getattr(requirements, name)
        if value != default:
            written[name] = _plain(value)
    if requirements.preferences != _NO_PREFERENCES:
        written["preferences"] = {
            name: _plain(value)
            for name, default in _PREFERENCES.items()
            if (value := getattr(requirements.preferences, name)) != default
        }
    return written


def _plain(value: object) -> object:
    match value:
        case frozenset():
            return sorted(value)
        case tuple():
            return list(value)
        case StrEnum():
            return value.value
        case _:
            return value


def _requirements_in(written: Mapping[str, Any]) -> Requirements:
    values = dict(written)
    preferences: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.get("preferences", {}).items()
    }
    if "objective" in preferences:
        preferences["objective"] = Objective(preferences["objective"])
    for name in ("capabilities", "parameters", "surcharged"):
        values[name] = frozenset(values.get(name, ()))
    values["operation"] = Operation(values["operation"])
    values["priority"] = Priority(values.get("priority", Priority.NORMAL))
    values["preferences"] = ModelPreferences(**preferences)
    return Requirements(**values)


# ---- health ----------------------------------------------------------------------------------------------------------


def _health_out(route: Route, health: HealthSnapshot) -> dict[str, list[Any]]:
    """Return what routing read, by deployment; the breaker's part only when it is not simply closed."""
    known = health.deployments
    if not known:
        return {}
    written: dict[str, list[Any]] = {}
    considered = chain((one.deployment for one in route.candidates), (one.deployment for one in route.dropped))
    for deployment in considered:
        state = known.get(deployment)
        if state is None:
            continue
        values: list[Any] = [state.success_rate, state.latency_ms]
        if state.breaker is not BreakerState.CLOSED or state.admits_in or state.cooling or state.disabled is not None:
            values += [state.breaker.value, state.admits_in, state.cooling, state.disabled]
        written[deployment] = values
    return written


def _health_in(values: list[Any]) -> DeploymentHealth:
    success_rate, latency_ms, *rest = values
    if not rest:
        return DeploymentHealth(success_rate=success_rate, latency_ms=latency_ms)
    state, admits_in, cooling, disabled = rest
    return DeploymentHealth(
        success_rate=success_rate,
        latency_ms=latency_ms,
        breaker=BreakerState(state),
        admits_in=admits_in,
        cooling=cooling,
        disabled=disabled,
    )
