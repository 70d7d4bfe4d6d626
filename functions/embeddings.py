"""``POST /v1/embeddings``: OpenAI's embeddings, also under Azure OpenAI's paths."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from functions.background_fields import refuse_background_fields
from functions.chat_completions import render
from functions.endpoints import Endpoint, blueprint
from functions.http import Call, endpoint
from functions.idempotent import KEY
from functions.inference import answer_headers, inference_request
from functions.prefer import ACCEPTED, PREFER, answering
from functions.rendering import json_response
from functions.schemas import EmbeddingsRequest
from functions.validation import Schema
from functions.work import Asking, Work
from shared.core.chat import InferenceRequest
from shared.core.requirements import embeddings_requirements
from shared.executor import complete

EMBEDDINGS: Final = Schema(EmbeddingsRequest, "EmbeddingsRequest")


async def read(asking: Asking, body: dict[str, Any]) -> InferenceRequest:
    """Check a body and return the request it stands for."""
    EMBEDDINGS.check(body)
    return inference_request(asking, body, embeddings_requirements)


WORK: Final = Work("/v1/embeddings", read, render)


async def create_embeddings(call: Call) -> Response:
    """Turn texts into vectors."""
    body = call.json()
    request = await read(call, body)
    refuse_background_fields(body)
    answer = await complete(call.gateway, call.caller, request, request_id=call.request_id)
    return json_response(answer.completion.payload, headers=answer_headers(answer))


ENDPOINTS: Final = (
    Endpoint(
        name="create_embeddings",
        method="POST",
        path="/v1/embeddings",
        handler=answering(WORK, create_embeddings),
        parameters=(KEY, PREFER),
        also=ACCEPTED,
        summary="Turn texts into vectors",
        tag="Inference",
        body=EMBEDDINGS,
        answers="OpenAI's list of embeddings.",
        aliases=("/openai/v1/embeddings", "/openai/deployments/{model}/embeddings"),
        durable=True,
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
