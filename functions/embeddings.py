"""``POST /v1/embeddings``: OpenAI's embeddings, also under Azure OpenAI's paths."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from functions.endpoints import Endpoint, blueprint
from functions.http import Call, endpoint
from functions.idempotent import KEY, idempotent
from functions.inference import answer_headers, inference_request
from functions.rendering import json_response
from functions.schemas import EmbeddingsRequest
from functions.validation import Schema
from shared.core.requirements import embeddings_requirements
from shared.executor import complete

EMBEDDINGS: Final = Schema(EmbeddingsRequest, "EmbeddingsRequest")


async def create_embeddings(call: Call) -> Response:
    """Turn texts into vectors."""
    body = call.json()
    EMBEDDINGS.check(body)
    request = inference_request(call, body, embeddings_requirements)
    answer = await complete(call.gateway, call.caller, request, request_id=call.request_id)
    return json_response(answer.completion.payload, headers=answer_headers(answer))


ENDPOINTS: Final = (
    Endpoint(
        name="create_embeddings",
        method="POST",
        path="/v1/embeddings",
        handler=idempotent(create_embeddings),
        parameters=(KEY,),
        summary="Turn texts into vectors",
        tag="Inference",
        body=EMBEDDINGS,
        answers="OpenAI's list of embeddings.",
        aliases=("/openai/v1/embeddings", "/openai/deployments/{model}/embeddings"),
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
