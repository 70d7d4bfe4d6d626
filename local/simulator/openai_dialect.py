"""OpenAI's protocol and Azure's variety of it: which call, which errors, which headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from local.simulator.faults import FaultKind
from local.simulator.openai_chat import answer_chat
from local.simulator.openai_other import answer_completions, answer_embeddings, answer_models
from local.simulator.protocol import Answer, Event, Problem, Received, RefusedError, refuse

_CALLS: Final[Mapping[str, Callable[[Received], Answer]]] = {
    "chat": answer_chat,
    "embeddings": answer_embeddings,
    "completions": answer_completions,
    "models": answer_models,
}

_RATE = Problem(429, "requests", "rate_limit_exceeded", "Rate limit reached for requests (simulated).")
_K = FaultKind

_PROBLEMS: Final[Mapping[FaultKind, Problem]] = {
    _K.RATE_LIMITED_S: _RATE,
    _K.RATE_LIMITED_MS: _RATE,
    _K.RATE_LIMITED_DATE: _RATE,
    _K.RATE_LIMITED_NONE: _RATE,
    _K.INSUFFICIENT_QUOTA: Problem(
        429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota, please check your plan."
    ),
    _K.SERVER_ERROR: Problem(500, "server_error", None, "The server had an error while processing your request."),
    _K.UNAVAILABLE: Problem(503, "server_error", None, "The engine is currently overloaded, please try again later."),
    _K.GATEWAY_TIMEOUT: Problem(504, "server_error", None, "The upstream request timed out."),
    _K.OVERLOADED: Problem(529, "overloaded_error", "overloaded", "Overloaded."),
    _K.REQUEST_TIMEOUT: Problem(408, "timeout", "timeout", "The operation was timed out."),
    _K.UNAUTHORIZED: Problem(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    _K.FORBIDDEN: Problem(403, "permission_error", "forbidden", "You are not allowed to use this model."),
    _K.DEPLOYMENT_NOT_FOUND: Problem(
        404, "invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it.", "model"
    ),
    _K.GONE: Problem(410, "invalid_request_error", "gone", "This service has been retired."),
    _K.INVALID_REQUEST: Problem(
        400, "invalid_request_error", "invalid_value", "Invalid value for 'messages[0].content' (simulated).", "messages"
    ),
    _K.CONTEXT_LENGTH: Problem(
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
        "messages",
    ),
    _K.CONTENT_FILTER: Problem(
        400, "invalid_request_error", "content_policy_violation", "Your request was rejected by the safety system.", "prompt"
    ),
}

_FILTERED: Final = {
    "hate": {"filtered": False, "severity": "safe"},
    "self_harm": {"filtered": False, "severity": "safe"},
    "sexual": {"filtered": False, "severity": "safe"},
    "violence": {"filtered": True, "severity": "medium"},
}
_AZURE_RATE = Problem(
    429, "", "429", "Requests to the ChatCompletions_Create Operation have exceeded the call rate limit of your tier."
)
_AZURE: Final[Mapping[FaultKind, Problem]] = {
    _K.RATE_LIMITED_S: _AZURE_RATE,
    _K.RATE_LIMITED_MS: _AZURE_RATE,
    _K.RATE_LIMITED_DATE: _AZURE_RATE,
    _K.RATE_LIMITED_NONE: _AZURE_RATE,
    _K.UNAUTHORIZED: Problem(
        401, "", "401", "Access denied due to invalid subscription key or wrong API endpoint. Provide a valid key."
    ),
    _K.FORBIDDEN: Problem(403, "", "403", "Access denied due to Virtual Network/Firewall rules."),
    _K.DEPLOYMENT_NOT_FOUND: Problem(404, "", "DeploymentNotFound", "The API deployment for this resource does not exist."),
    _K.SERVER_ERROR: Problem(500, "", "InternalServerError", "The server had an error while processing your request."),
    _K.UNAVAILABLE: Problem(503, "", "ServiceUnavailable", "Service unavailable, please try again later."),
    _K.REQUEST_TIMEOUT: Problem(408, "", "Timeout", "The operation was timeout."),
    _K.CONTENT_FILTER: Problem(
        400,
        "",
        "content_filter",
        "The response was filtered due to the prompt triggering the content management policy.",
        "prompt",
        {
            "status": 400,
            "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": _FILTERED},
        },
    ),
}


class OpenAIDialect:
    """OpenAI's protocol; with ``azure`` also Azure OpenAI's api-version, errors, filter results and headers."""

    def __init__(self, *, azure: bool = False) -> None:
        self.name = "azure" if azure else "openai"
        self._azure = azure

    def answer(self, received: Received) -> Answer:
        """Answer the call. Raise `RefusedError`."""
        self._check_access(received)
        if received.operation not in _CALLS:
            refuse(f"There is no {received.operation} here.", code="unknown_url")
        deployed = received.settings.models
        if deployed is not None and received.operation != "models" and received.model not in deployed:
            raise RefusedError(self.fault_problem(FaultKind.DEPLOYMENT_NOT_FOUND, received))
        return _CALLS[received.operation](received)

    def error_body(self, problem: Problem) -> dict[str, Any]:
        """Render OpenAI's error object; Azure leaves out what it does not know."""
        if self._azure and not problem.type:
            error: dict[str, Any] = {"code": problem.code, "message": problem.message}
            return {"error": {**error, **({"param": problem.param, "type": None} if problem.extra else {}), **problem.extra}}
        return {
            "error": {
                "message": problem.message,
                "type": problem.type,
                "param": problem.param,
                "code": problem.code,
                **problem.extra,
            }
        }

    def error_event(self, problem: Problem) -> Event:
        """Render an error as one ``data:`` event."""
        return Event("error", self.error_body(problem))

    def headers(self, received: Received) -> dict[str, str]:
        """Return request id, rate limits and, of Azure, region and deployment."""
        left = 9_999 - received.seq % 100
        headers = {
            "x-request-id": f"req_sim{received.seq:08d}",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-limit-tokens": "2000000",
            "x-ratelimit-remaining-tokens": str(left * 200),
            "x-ratelimit-reset-tokens": "1s",
        }
        if not self._azure:
            return {**headers, "openai-processing-ms": "1", "openai-version": "2020-10-01"}
        azure = {
            "apim-request-id": f"apim-sim{received.seq:08d}",
            "x-ms-region": "Simulated Region",
            "x-ms-deployment-name": quote(received.model),
            "azureml-model-session": "simulator",
        }
        return {**headers, **azure}

    def fault_problem(self, kind: FaultKind, received: Received) -> Problem:
        """Word a scripted error as this provider does."""
        del received
        problem = _AZURE.get(kind) if self._azure else None
        return problem or _PROBLEMS[kind]

    def _check_access(self, received: Received) -> None:
        wanted = received.settings.require_key
        headers = received.headers
        bearer = headers.get("authorization", "").removeprefix("Bearer").strip()
        if not (bearer or (self._azure and headers.get("api-key"))) and (self._azure if wanted is None else wanted):
            raise RefusedError(self.fault_problem(FaultKind.UNAUTHORIZED, received))
        if received.deployment is not None and not received.query.get("api-version"):
            raise RefusedError(Problem(404, "", "404", "Resource not found"))
