"""A Responses body → the conversation it continues and the chat that answers it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import orjson

from functions.inference import inference_request
from functions.rendering import usd
from functions.responses_kept import find
from functions.schemas_responses import ResponseRequest
from functions.validation import Schema
from functions.work import Asking, Work
from shared.core import responses_object
from shared.core.chat import InferenceRequest
from shared.core.errors import InvalidRequestError
from shared.core.requirements import chat_requirements
from shared.core.responses import chat_body
from shared.core.responses_events import answered
from shared.core.responses_items import RESPONSE as PREFIX
from shared.core.responses_items import items_of, references_of, response_of
from shared.core.responses_object import CONTINUABLE
from shared.executor import Answer
from shared.responses import MAX_CONVERSATION

RESPONSE: Final = Schema(ResponseRequest, "ResponseRequest")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks for. ``items`` is the whole conversation, ``chat`` the body that a chat model is asked with."""

    items: list[dict[str, Any]]
    chat: dict[str, Any]
    request: InferenceRequest


async def understood(asking: Asking, body: dict[str, Any], response_id: str) -> Asked:
    """Return what a body asks for that `RESPONSE` has checked; raise `InvalidRequestError` that names the field."""
    earlier = await _earlier(asking, body)
    referred = await _referred(asking, body["input"], earlier)
    items = [*earlier, *items_of(body["input"], response_id, referred=referred)]
    chat = chat_body(body, items, known=len(earlier))
    return Asked(items, chat, inference_request(asking, chat, chat_requirements))


async def _earlier(asking: Asking, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the conversation up to and with the previous response."""
    name = body.get("previous_response_id")
    if name is None:
        return []
    found = await find(asking.gateway, asking.caller, name)
    if found is None:
        message = f"Previous response with id {name[:80]!r} not found. Only responses made with `store` can be continued."
        _refuse(message, "previous_response_id", code="previous_response_not_found")
    if found.response["status"] not in CONTINUABLE:
        message = f"The response {name[:80]!r} is {found.response['status']}: only one that was answered can be continued."
        _refuse(message, "previous_response_id", code="previous_response_not_completed")
    items = [*await asking.gateway.responses.items(name), *found.response["output"]]
    if len(orjson.dumps(items)) > MAX_CONVERSATION:
        message = "The conversation is too long to be continued. Begin a new one, with a summary of this one as its `input`."
        _refuse(message, "previous_response_id", code="conversation_too_long")
    return items


async def _referred(asking: Asking, given: object, earlier: list[dict[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """Return the items that an input refers to, by their places in it."""
    references = references_of(given)
    if not references:
        return {}
    known: dict[str, Mapping[str, Any]] = {item["id"]: item for item in earlier if "id" in item}
    asked: set[str] = set()
    for place, name in references.items():
        owner = response_of(name)
        if name not in known and owner is not None and owner not in asked:
            asked.add(owner)
            known.update(await _items_by_id(asking, owner))
        if name not in known:
            message = f"Item with id {name[:80]!r} not found. Items are kept with the responses made with `store`."
            _refuse(message, f"input[{place}].id", code="item_not_found")
    return {place: known[name] for place, name in references.items()}


async def _items_by_id(asking: Asking, response_id: str) -> dict[str, Mapping[str, Any]]:
    found = await find(asking.gateway, asking.caller, response_id)
    if found is None:
        return {}
    return {item["id"]: item for item in (*await asking.gateway.responses.items(found.id), *found.response["output"])}


def _refuse(message: str, param: str, *, code: str) -> NoReturn:
    raise InvalidRequestError(message, param=param, code=code)


def told(answer: Answer) -> dict[str, Any]:
    """Return what a response says of how it came about: what a chat's headers say, which a stored one has not."""
    return {
        "switchyard": {
            "request_id": answer.request_id,
            "model": answer.model,
            "deployment": answer.deployment,
            "attempts": answer.attempts,
            "cost_usd": usd(answer.cost),
        }
    }


# ---- bodies that are stored and answered later -----------------------------------------------------------------------


async def read(asking: Asking, body: dict[str, Any]) -> InferenceRequest:
    """Check a body that is answered later, and return the request it stands for."""
    RESPONSE.check(body)
    for name in ("background", "stream"):
        if body.get(name):
            message = f"`{name}` can't be true here: the answer is waited for by nobody. Leave it out."
            raise InvalidRequestError(message, param=name, code="unsupported_parameter")
    return (await understood(asking, body, PREFIX + "0" * 32)).request


def render(answer: Answer, body: dict[str, Any], latency_ms: int) -> dict[str, Any]:
    """Return the response object. It is not kept: whoever stored the body keeps its answer."""
    del latency_ms
    now = time.time()
    begun = responses_object.begun(body, responses_object.id_of(answer.request_id), now, stored=False)
    return answered(begun, answer.completion.payload, at=now, more=told(answer))


WORK: Final = Work("/v1/responses", read, render)
