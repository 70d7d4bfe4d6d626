"""What batches need to know of the endpoints: `shared.batching.Wire` on the table of their works."""

from __future__ import annotations

from typing import Any

from functions.background_fields import refuse_background_fields
from functions.http import new_request_id
from functions.problems import problem_of, unexpected_problem
from functions.work import Stored
from functions.works import WORKS
from shared.core.chat import InferenceRequest
from shared.core.errors import GatewayError
from shared.core.records import Caller
from shared.executor import Answer
from shared.gateway import Gateway


class Endpoints:
    """Reads lines' bodies and shows their answers as the endpoint of the batch does."""

    async def read(self, gateway: Gateway, caller: Caller, path: str, body: dict[str, Any]) -> InferenceRequest:
        """Return the request a body stands for; raise a `GatewayError` that names the field."""
        refuse_background_fields(body, how="a batch has its own")
        return await WORKS[path].read(Stored(gateway, caller), body)

    def render(self, path: str, answer: Answer, body: dict[str, Any], latency_ms: int) -> dict[str, Any]:
        """Return what the endpoint answers with."""
        return WORKS[path].render(answer, body, latency_ms)

    def problem(self, error: GatewayError) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of an error."""
        problem = problem_of(error)
        return problem.status, problem.body

    def unexpected(self, request_id: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of a bug."""
        problem = unexpected_problem(request_id)
        return problem.status, problem.body

    def request_id(self) -> str:
        """Return a new request id."""
        return new_request_id()
