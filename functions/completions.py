"""``POST /v1/completions``: the seed's completion and OpenAI's legacy one in one object, answered by chat models.

A prompt becomes a chat with one user message. A list of prompts becomes one request for each, answered side by side.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import orjson
from starlette.responses import Response

from functions.background_fields import refuse_background_fields
from functions.chat_completions import check_stream_options, streamed
from functions.endpoints import Endpoint, blueprint
from functions.http import Call, endpoint, new_request_id
from functions.idempotent import KEY
from functions.inference import answer_headers, inference_request
from functions.legacy_shape import choices_of, legacy_chunk, usage_sum
from functions.prefer import ACCEPTED, PREFER, answering
from functions.rendering import NANO, RawHeaders, json_response, usd_text
from functions.schemas import CompletionRequest
from functions.validation import Schema
from functions.work import Asking, Work
from shared.core import traceparent
from shared.core.chat import InferenceRequest
from shared.core.errors import InvalidRequestError
from shared.core.requirements import chat_requirements, embeddings_requirements
from shared.executor import Answer, complete
from shared.tracing import SERVED, Served, serving

COMPLETION: Final = Schema(CompletionRequest, "CompletionRequest")
SIDE_BY_SIDE: Final = 8
"""Prompts of one request that are answered at the same time."""

_LEGACY_ONLY: Final = frozenset({"prompt", "echo", "suffix", "best_of", "logprobs"})
_NOT_FOR_EMBEDDINGS: Final = frozenset(
    {"max_tokens", "temperature", "top_p", "n", "stop", "seed", "stream", "stream_options", "presence_penalty"}
    | {"frequency_penalty", "logit_bias"}
)


async def create_completion(call: Call) -> Response:
    """Answer one or more prompts."""
    began = time.perf_counter()
    body = call.json()
    COMPLETION.check(body)
    _check_supported(body)
    refuse_background_fields(body)
    prompts = [body["prompt"]] if isinstance(body["prompt"], str) else body["prompt"]
    if body.get("stream"):
        return await _streamed(call, body, prompts)
    requests = [completion_request(call, body, prompt) for prompt in prompts]
    answers = await _answer_all(call, requests)
    rendered = render(answers, prompts, echo=bool(body.get("echo")), latency_ms=round((time.perf_counter() - began) * 1000))
    return json_response(rendered, headers=_headers(answers))


def completion_request(call: Asking, body: dict[str, Any], prompt: str) -> InferenceRequest:
    """Return the chat (or, for the task ``embeddings``, the embeddings) request that a prompt stands for."""
    payload = {name: value for name, value in body.items() if name not in _LEGACY_ONLY}
    if body.get("task_type") == "embeddings":
        payload = {name: value for name, value in payload.items() if name not in _NOT_FOR_EMBEDDINGS}
        return inference_request(call, {**payload, "input": prompt}, embeddings_requirements)
    payload["messages"] = [{"role": "user", "content": prompt}]
    if (logprobs := body.get("logprobs")) is not None:
        payload["logprobs"] = True
        payload["top_logprobs"] = logprobs
    return inference_request(call, payload, chat_requirements)


async def read(asking: Asking, body: dict[str, Any]) -> InferenceRequest:
    """Check the body of a completion that is answered later, and return the request it stands for."""
    COMPLETION.check(body)
    _check_supported(body)
    prompt = body["prompt"]
    if not isinstance(prompt, str):
        if len(prompt) != 1:
            message = "In the background one prompt is answered. Send one request for each."
            raise InvalidRequestError(message, param="prompt", code="unsupported_parameter")
        (prompt,) = prompt
    return completion_request(asking, body, prompt)


def render_one(answer: Answer, body: dict[str, Any], latency_ms: int) -> dict[str, Any]:
    """Return the answer to a completion of one prompt."""
    prompts = [body["prompt"]] if isinstance(body["prompt"], str) else body["prompt"]
    return render([answer], prompts, echo=bool(body.get("echo")), latency_ms=latency_ms)


WORK: Final = Work("/v1/completions", read, render_one)


def _check_supported(body: dict[str, Any]) -> None:
    check_stream_options(body)
    if body.get("suffix"):
        message = "`suffix` is not supported: chat models have no insertion. Put what follows into the prompt."
        raise InvalidRequestError(message, param="suffix", code="unsupported_parameter")
    if (body.get("best_of") or 1) > 1:
        message = "`best_of` above 1 is not supported. Ask for `n` choices and choose among them."
        raise InvalidRequestError(message, param="best_of", code="unsupported_parameter")
    if body["prompt"] == "":
        message = "`prompt` must not be empty."
        raise InvalidRequestError(message, param="prompt", code="invalid_value")


async def _streamed(call: Call, body: dict[str, Any], prompts: list[str]) -> Response:
    if len(prompts) > 1:
        message = "A stream answers one prompt. Send one request for each, or leave `stream` out."
        raise InvalidRequestError(message, param="prompt", code="unsupported_parameter")
    if body.get("task_type") == "embeddings":
        message = "Embeddings can't be streamed. Leave `stream` out."
        raise InvalidRequestError(message, param="stream", code="unsupported_parameter")
    echo = prompts[0] if body.get("echo") else ""
    return await streamed(call, completion_request(call, body, prompts[0]), shape=legacy_chunk(echo))


async def _answer_all(call: Call, requests: list[InferenceRequest]) -> list[Answer]:
    """Return an answer for each request; the first failure stops the others and is raised."""
    if len(requests) == 1:
        return [await complete(call.gateway, call.caller, requests[0], request_id=call.request_id)]
    places = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one(position: int, request: InferenceRequest) -> Answer:
        async with places:
            further = None if position == 0 else _further(call)
            with serving(further):
                request_id = call.request_id if further is None else further.request_id
                return await complete(call.gateway, call.caller, request, request_id=request_id)

    tasks = [asyncio.ensure_future(one(position, request)) for position, request in enumerate(requests)]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _further(call: Call) -> Served:
    """Return a further request of a call, whose span is under that of the first."""
    first = SERVED.get()
    trace = None if first is None or first.trace is None else call.gateway.telemetry.trace(traceparent.render(first.trace))
    return Served(new_request_id(), trace)


def render(answers: list[Answer], prompts: list[str], *, echo: bool, latency_ms: int) -> dict[str, Any]:
    """Return the seed's fields and OpenAI's legacy ones in one object."""
    first, costs = answers[0], [answer.cost for answer in answers]
    embedded = first.completion.payload.get("object") == "list"
    choices = [] if embedded else choices_of(answers, prompts if echo else [""] * len(prompts))
    usage = usage_sum(answers)
    known = [cost for cost in costs if cost is not None]
    body: dict[str, Any] = {
        "id": "cmpl-" + first.request_id.removeprefix("req_"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": first.completion.payload.get("model", first.model),
        "choices": choices,
        "usage": usage,
        "request_id": first.request_id,
        "response": _vector_text(first) if embedded else (choices[0]["text"] if choices else ""),
        "model_used": first.model,
        "tokens_used": {
            "input": usage["prompt_tokens"],
            "output": usage["completion_tokens"],
            "total": usage["total_tokens"],
        },
        "cost": sum(known) / NANO if len(known) == len(costs) else None,
        "latency_ms": latency_ms,
        "metadata": _metadata(answers),
    }
    if embedded:
        body["data"] = [{**answer.completion.payload["data"][0], "index": index} for index, answer in enumerate(answers)]
    return body


def _vector_text(answer: Answer) -> str:
    return orjson.dumps(answer.completion.payload["data"][0]["embedding"]).decode()


def _metadata(answers: list[Answer]) -> dict[str, Any]:
    first = answers[0]
    return {
        "task": first.route.task,
        "deployment": first.deployment,
        "attempts": sum(answer.attempts for answer in answers),
        "finish_reason": first.completion.finish_reason,
        "simulated": first.simulated,
        "request_ids": [answer.request_id for answer in answers],
    }


def _headers(answers: list[Answer]) -> RawHeaders:
    """Return the headers of the first answer, with the attempts and the cost of all."""
    if len(answers) == 1:
        return answer_headers(answers[0])
    left_out = {b"x-switchyard-attempts", b"x-switchyard-cost-usd"}
    headers = [header for header in answer_headers(answers[0]) if header[0] not in left_out]
    headers.append((b"x-switchyard-attempts", b"%d" % sum(answer.attempts for answer in answers)))
    known = [answer.cost for answer in answers if answer.cost is not None]
    if len(known) == len(answers):
        headers.append((b"x-switchyard-cost-usd", usd_text(sum(known)).encode()))
    return headers


ENDPOINTS: Final = (
    Endpoint(
        name="create_completion",
        method="POST",
        path="/v1/completions",
        handler=answering(WORK, create_completion),
        parameters=(KEY, PREFER),
        also=ACCEPTED,
        summary="Complete a prompt",
        tag="Inference",
        body=COMPLETION,
        answers="One object with both shapes: `request_id, response, model_used, tokens_used, cost, latency_ms, metadata` "
        "and OpenAI's legacy `id, object, created, model, choices, usage`; or a stream of `text_completion` events.",
        media_types=("application/json", "text/event-stream"),
        aliases=("/openai/v1/completions", "/openai/deployments/{model}/completions"),
        durable=True,
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
