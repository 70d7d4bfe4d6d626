"""Why nobody can serve a request: one sentence to act on, and the error that fits it."""

from __future__ import annotations

from typing import Any

import pytest

from shared.core.chat import Operation
from shared.core.errors import (
    AllAttemptsFailedError,
    GatewayError,
    InvalidRequestError,
    ModelNotFoundError,
    PermissionDeniedError,
)
from shared.core.health import BreakerState, DeploymentHealth
from shared.core.refusal import _BLAMES
from shared.core.registry import Lifecycle, LifecycleFacts, Registry
from shared.core.route import ReasonCode
from shared.core.router import no_candidate_error
from tests.routing_fakes import ask, deployment, model, registry, route_of


def refusal(catalog: Registry, request: Any, **situation: Any) -> GatewayError:
    """The error for a route that must be empty."""
    route = route_of(request, catalog, **situation)
    assert () == route.candidates
    error = no_candidate_error(route, request)
    assert route.note == error.message
    return error


@pytest.mark.parametrize(
    ("request_facts", "param", "code"),
    [
        ({"input_tokens": 10**6}, "messages", "context_length_exceeded"),
        ({"capabilities": frozenset({"tools"})}, "tools", "unsupported_capability"),
        ({"capabilities": frozenset({"json_schema"})}, "response_format", "unsupported_capability"),
        ({"capabilities": frozenset({"vision"})}, "messages", "unsupported_capability"),
        ({"parameters": frozenset({"model", "seed"})}, "seed", "unsupported_parameter"),
        ({"max_output_tokens": 9_000, "parameters": frozenset({"max_tokens"})}, "max_tokens", "invalid_value"),
        (
            {"max_output_tokens": 9_000, "parameters": frozenset({"max_completion_tokens"})},
            "max_completion_tokens",
            "invalid_value",
        ),
        ({"wishes": {"regions": ("mars",)}}, "model_preferences", "no_candidate"),
        ({"wishes": {"min_quality": 0.99}}, "model_preferences", "no_candidate"),
        ({"wishes": {"max_latency_ms": 1}}, "model_preferences", "no_candidate"),
        ({"wishes": {"exclude_models": ("a",)}}, "model_preferences", "no_candidate"),
        ({"budget_limit": 1}, "budget_limit", "no_candidate"),
        ({"operation": Operation.EMBEDDINGS}, "model", "unsupported_operation"),
    ],
)
def test_the_caller_s_own_demands_are_a_bad_request(request_facts: dict[str, Any], param: str, code: str) -> None:
    """Naming the field at fault."""
    catalog = registry(deployment("a1", "a"), models=(model("a", unsupported_parameters=frozenset({"seed"})),))
    error = refusal(catalog, ask("a", **request_facts))
    assert isinstance(error, InvalidRequestError)
    assert (param, code) == (error.param, error.code)


def test_a_long_input_is_called_that_for_embeddings_too() -> None:
    """Their field has another name."""
    facts = {"capabilities": frozenset({"embeddings"}), "context_window": 10}
    catalog = registry(deployment("e1", "e"), models=(model("e", **facts),))
    error = refusal(catalog, ask("e", operation=Operation.EMBEDDINGS, input_tokens=900))
    assert "input" == error.param


def test_missing_credentials_say_what_to_set() -> None:
    """Whoever runs it can act on the message; the caller may come back."""
    catalog = registry(
        deployment("a1", "a", unavailable="ACME_KEY is not set"), deployment("a2", "a", unavailable="BOLT_KEY is not set")
    )
    error = refusal(catalog, ask("a"))
    assert isinstance(error, AllAttemptsFailedError)
    assert "ACME_KEY is not set" in error.message
    assert "BOLT_KEY is not set" in error.message


def test_what_would_fit_but_is_unavailable_is_blamed_before_what_does_not_fit() -> None:
    """Setting its credential is what would help, not another request."""
    catalog = registry(
        deployment("a1", "a", unavailable="ACME_KEY is not set"),
        deployment("b1", "b"),
        models=(model("a", capabilities=frozenset({"chat", "tools"})),),
    )
    error = refusal(catalog, ask(capabilities=frozenset({"tools"})))
    assert isinstance(error, AllAttemptsFailedError)
    assert "ACME_KEY" in error.message


def test_a_key_that_may_not_use_the_model_is_forbidden() -> None:
    """Not told that it is unavailable."""
    error = refusal(registry(deployment("a1", "a")), ask("a"), allowed=frozenset({"b"}))
    assert isinstance(error, PermissionDeniedError)
    assert "a" in error.message


def test_a_retired_model_is_not_found() -> None:
    """With its date."""
    catalog = registry(deployment("a1", "a"), models=(model("a", lifecycle=LifecycleFacts(Lifecycle.RETIRED)),))
    assert isinstance(refusal(catalog, ask("a")), ModelNotFoundError)


def test_a_disabled_deployment_is_unavailable() -> None:
    """The health that disabled it is quoted."""
    disabled = DeploymentHealth(breaker=BreakerState.OPEN, admits_in=60.0, disabled="unauthorized")
    error = refusal(registry(deployment("a1", "a")), ask("a"), health={"a1": disabled})
    assert isinstance(error, AllAttemptsFailedError)
    assert "unauthorized" in error.message


def test_a_catalog_without_such_models_says_so() -> None:
    """Nothing was even considered."""
    error = refusal(registry(deployment("a1", "a")), ask(operation=Operation.EMBEDDINGS, task="embeddings"))
    assert isinstance(error, AllAttemptsFailedError)
    assert "embeddings" in error.message


def test_many_details_are_cut() -> None:
    """A message stays readable however large the catalog."""
    catalog = registry(*(deployment(f"a{number}", "a", unavailable=f"KEY_{number} is not set") for number in range(20)))
    message = refusal(catalog, ask("a")).message
    assert "(and 17 more)" in message
    assert 300 > len(message)


def test_every_reason_to_drop_can_be_blamed() -> None:
    """A reason that were missing here would be an internal error for a caller."""
    taken = {
        ReasonCode.NAMED,
        ReasonCode.ALIASED,
        ReasonCode.PREFERRED_BY_CALLER,
        ReasonCode.RULE_PREFERRED,
        ReasonCode.RULE_FALLBACK,
        ReasonCode.FALLBACK,
        ReasonCode.EXPERIMENT,
        ReasonCode.OBJECTIVE,
        ReasonCode.PRIORITY,
        ReasonCode.LAST_RESORT,
        ReasonCode.BEYOND_LIMIT,  # only ever beside candidates
    }
    assert set(ReasonCode) - taken == set(_BLAMES)
