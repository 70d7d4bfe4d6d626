"""``/v1/responses``: OpenAI's Responses over chat models, whole, streamed and in the background, and those that are kept."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.responses import Response

from functions import streaming
from functions.background_fields import check_webhook, deadline_of, refuse_background_fields
from functions.chat_completions import StreamSource
from functions.endpoints import Access, Endpoint, Parameter, blueprint
from functions.http import Call, endpoint
from functions.idempotent import KEY, chain_id, idempotent
from functions.inference import answer_headers
from functions.rendering import NO_STORE, json_response
from functions.responses_asked import RESPONSE, Asked, told, understood
from functions.responses_kept import as_it_is, find, get, keep, page_limit
from functions.responses_streams import ResponseStream, followed, live
from functions.schemas_own import WEBHOOK
from shared import background
from shared.background import NewChain
from shared.chains import Chain, Kind
from shared.core import responses_object
from shared.core.errors import ConflictError, GatewayError, InvalidRequestError, StorageUnavailableError
from shared.core.responses import rename_param
from shared.core.responses_events import answered
from shared.core.responses_items import RESPONSE as PREFIX
from shared.executor import complete, open_stream
from shared.responses import Kept

CANCEL_SECONDS: Final = 10.0
"""How long a cancelled response is waited for: an attempt that is running looks every second."""
CHAT: Final = "/v1/chat/completions"


# ---- asking ----------------------------------------------------------------------------------------------------------


async def create_response(call: Call) -> Response:
    """Answer, or have it answered in the background."""
    body = call.json()
    RESPONSE.check(body)
    if body.get("background"):
        return await _in_background(call, body)
    refuse_background_fields(body, how="set `background` to true")
    response_id = responses_object.id_of(call.request_id)
    asked = await understood(call, body, response_id)
    begun = responses_object.begun(body, response_id, call.gateway.clock.now(), stored=body.get("store") is not False)
    try:
        return await (_streamed(call, asked, begun) if body.get("stream") else _whole(call, asked, begun))
    except GatewayError as error:
        rename_param(error)
        raise


async def _whole(call: Call, asked: Asked, begun: dict[str, Any]) -> Response:
    answer = await complete(call.gateway, call.caller, asked.request, request_id=call.request_id)
    response = answered(begun, answer.completion.payload, at=call.gateway.clock.now(), more=told(answer))
    return json_response(await _keep(call, asked, response), headers=answer_headers(answer))


async def _streamed(call: Call, asked: Asked, begun: dict[str, Any]) -> Response:
    source = StreamSource(open_stream(call.gateway, call.caller, asked.request, request_id=call.request_id))
    stream = await source.wait(streaming.KEEP_ALIVE_SECONDS)
    headers = answer_headers(stream) if stream is not None else []

    async def kept(response: dict[str, Any]) -> dict[str, Any]:
        return await _keep(call, asked, response)

    events = live(call.gateway, source, begun, kept)
    return ResponseStream(events, close=source.aclose, request_id=call.request_id, headers=headers)


async def _keep(call: Call, asked: Asked, response: dict[str, Any]) -> dict[str, Any]:
    if not response["store"]:
        return response
    kept = Kept(response["id"], call.caller.project, call.caller.key_id, call.gateway.clock.now(), response, ended=True)
    return await keep(call.gateway, kept, asked.items)


async def _in_background(call: Call, body: dict[str, Any]) -> Response:
    """Start a chain, or find the one that this request has started before; answer with the response as it is now."""
    gateway = call.gateway
    if body.get("store") is False:
        message = "`background` needs `store`: what nobody waits for must be kept. Leave `store` out."
        raise InvalidRequestError(message, param="background", code="invalid_value")
    webhook = check_webhook(gateway, body.get(WEBHOOK))
    response_id = chain_id(PREFIX, call)
    asked = await understood(call, body, response_id)
    now = gateway.clock.now()
    begun = responses_object.begun(body, response_id, now, status="queued")
    new = Kept(response_id, call.caller.project, call.caller.key_id, now, begun, background=True)
    kept = await gateway.responses.keep(new, asked.items)
    chain = await _start(call, body, asked, kept, webhook)
    kept = kept if kept.ended else await as_it_is(gateway, kept, chain)
    if body.get("stream"):
        return _stream(call, kept)
    return json_response(kept.response, headers=[NO_STORE])


async def _start(call: Call, body: dict[str, Any], asked: Asked, kept: Kept, webhook: str | None) -> Chain:
    chain = NewChain(
        id=kept.id,
        request_id=call.request_id,
        kind=Kind.RESPONSE,
        path=CHAT,
        body=orjson.dumps({name: value for name, value in asked.chat.items() if name != "stream"}),
        deadline=deadline_of(body),
        webhook=webhook,
    )
    try:
        return await background.start(call.gateway, call.engine, call.caller, asked.request, chain)
    except StorageUnavailableError:
        raise  # it may have begun: then it is found by its key, or by its id
    except GatewayError as error:
        if b"idempotency-key" not in call.headers:  # else another call of that key may be beginning the same response
            await call.gateway.responses.delete(kept.id)
        rename_param(error)
        raise


def _stream(call: Call, kept: Kept, *, after: int = -1) -> Response:
    async def nothing() -> None:
        """Nothing is open: what runs in the background goes on without a listener."""

    events = followed(call.gateway, kept, after=after)
    return ResponseStream(events, close=nothing, request_id=call.request_id, headers=[])


def _joins(call: Call) -> bool:
    """Say whether a request only starts a chain."""
    return call.json().get("background") is True


# ---- what is kept ----------------------------------------------------------------------------------------------------


async def get_response(call: Call) -> Response:
    """Answer with a response as it is now, or with its events."""
    kept = await get(call.gateway, call.caller, call.path("id"))
    stream, after = _flag(call, "stream"), _starting_after(call)
    if stream:
        return _stream(call, kept, after=-1 if after is None else after)
    if after is not None:
        message = "`starting_after` is only allowed when `stream` is true."
        raise InvalidRequestError(message, param="starting_after", code="invalid_value")
    return json_response(kept.response, headers=[NO_STORE])


async def delete_response(call: Call) -> Response:
    """Forget a response with its conversation. One that is being answered is cancelled first."""
    gateway = call.gateway
    kept = await get(gateway, call.caller, call.path("id"))
    if kept.background:
        chain = await gateway.chains.find(kept.id)
        if chain is not None and not chain.state.ended:
            await background.cancel(gateway, call.engine, kept.id)
            chain = await background.wait_for(gateway, kept.id, CANCEL_SECONDS)
            if not chain.state.ended:
                message = "The response is being cancelled. Delete it again when it has ended."
                raise ConflictError(message, param="response_id", code="response_not_ended", retry_after=1.0)
        if chain is not None:
            await gateway.chains.delete(kept.id)
    await gateway.responses.delete(kept.id)
    return json_response({"id": kept.id, "object": "response", "deleted": True})


async def cancel_response(call: Call) -> Response:
    """Cancel a background response. Twice is as good as once, and one that has ended stays as it is."""
    gateway = call.gateway
    kept = await get(gateway, call.caller, call.path("id"))
    if not kept.background:
        message = "Only responses made with `background` can be cancelled. To cancel another one, close its connection."
        raise InvalidRequestError(message, param="response_id", code="response_not_in_background")
    if not kept.ended:
        await background.cancel(gateway, call.engine, kept.id)
        await background.wait_for(gateway, kept.id, CANCEL_SECONDS)
        kept = await find(gateway, call.caller, kept.id) or kept
    return json_response(kept.response, headers=[NO_STORE])


async def list_input_items(call: Call) -> Response:
    """List the conversation that a response answers: the newest item first, unless it is asked for otherwise."""
    kept = await get(call.gateway, call.caller, call.path("id"))
    limit, order, after = page_limit(call.query("limit")), call.query("order") or "desc", call.query("after")
    if order not in {"asc", "desc"}:
        message = "`order` must be asc or desc."
        raise InvalidRequestError(message, param="order", code="invalid_value")
    items = await call.gateway.responses.items(kept.id)
    if order == "desc":
        items.reverse()
    if after is not None:
        place = next((number for number, item in enumerate(items) if item.get("id") == after), None)
        if place is None:
            message = f"`after` is {after[:80]!r}, which is no item of this response."
            raise InvalidRequestError(message, param="after", code="invalid_value")
        items = items[place + 1 :]
    shown = items[:limit]
    body = {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > limit,
    }
    return json_response(body, headers=[NO_STORE])


def _flag(call: Call, name: str) -> bool:
    text = (call.query(name) or "false").lower()
    if text not in {"true", "false"}:
        message = f"`{name}` must be true or false."
        raise InvalidRequestError(message, param=name, code="invalid_value")
    return text == "true"


def _starting_after(call: Call) -> int | None:
    text = call.query("starting_after")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):  # noqa: PLR2004 - digits: far more events than there are
        message = "`starting_after` must be the `sequence_number` of an event."
        raise InvalidRequestError(message, param="starting_after", code="invalid_value")
    return int(text)


# ---- the rows --------------------------------------------------------------------------------------------------------

_PATH: Final = "/v1/responses"
_ONE: Final = "/v1/responses/{id}"
_TAG: Final = "Responses"
_INCLUDE: Final = (
    Parameter("include", "Accepted and without effect: everything there is, is shown."),
    Parameter("include[]", "The same."),
)


def _aliases(path: str) -> tuple[str, ...]:
    """Return Azure OpenAI's paths."""
    return (f"/openai{path}", f"/openai{path.removeprefix('/v1')}")


ENDPOINTS: Final = (
    Endpoint(
        name="create_response",
        method="POST",
        path=_PATH,
        handler=idempotent(create_response, joins=_joins),
        parameters=(KEY,),
        summary="Answer by OpenAI's Responses, whole, streamed or in the background",
        tag=_TAG,
        body=RESPONSE,
        answers="OpenAI's `response`, or a stream of its events. With `background` its status is `queued` at first; "
        "`webhook_url` is told when it has ended.",
        media_types=("application/json", "text/event-stream"),
        aliases=_aliases(_PATH),
        durable=True,
    ),
    Endpoint(
        name="get_response",
        method="GET",
        path=_ONE,
        handler=get_response,
        access=Access.MEMBER,  # it holds an answer
        parameters=(
            Parameter("stream", "True for its events; of one being answered, until it has ended.", schema={"type": "boolean"}),
            Parameter("starting_after", "Only events numbered above this.", schema={"type": "integer"}),
            Parameter("include_obfuscation", "Accepted and without effect: nothing is obfuscated."),
            *_INCLUDE,
        ),
        summary="A response that is kept, as it is now",
        tag=_TAG,
        answers="The `response`, or a stream of its events.",
        media_types=("application/json", "text/event-stream"),
        aliases=_aliases(_ONE),
    ),
    Endpoint(
        name="delete_response",
        method="DELETE",
        path=_ONE,
        handler=delete_response,
        summary="Forget a response; one that is being answered is cancelled",
        tag=_TAG,
        answers="`deleted: true`.",
        aliases=_aliases(_ONE),
        durable=True,
    ),
    Endpoint(
        name="cancel_response",
        method="POST",
        path=_ONE + "/cancel",
        handler=cancel_response,
        summary="Cancel a background response",
        tag=_TAG,
        answers="The `response`. One that had ended stays as it was.",
        aliases=_aliases(_ONE + "/cancel"),
        durable=True,
    ),
    Endpoint(
        name="list_input_items",
        method="GET",
        path=_ONE + "/input_items",
        handler=list_input_items,
        access=Access.MEMBER,  # it holds prompts
        parameters=(
            Parameter("limit", "1 to 100; 20 when absent.", schema={"type": "integer"}),
            Parameter(
                "order", "`asc` or `desc`, which is the newest first.", schema={"type": "string", "enum": ["asc", "desc"]}
            ),
            Parameter("after", "Only what comes after the item of this id."),
            *_INCLUDE,
        ),
        summary="The conversation a response answers, with that of the responses before it",
        tag=_TAG,
        answers="A list of items.",
        aliases=_aliases(_ONE + "/input_items"),
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
