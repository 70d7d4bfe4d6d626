"""``/v1/chains``: what was asked for with ``Prefer: respond-async``: its answer, where it stands, cancelling and forgetting it.

Background responses are chains too, and have a path of their own: here they are not found.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.responses import Response

from functions.chain_view import PATH, accepted, chain_object, ended
from functions.endpoints import Access, Endpoint, Parameter, blueprint
from functions.http import Call, endpoint
from functions.rendering import NO_STORE, json_response
from functions.scopes import project_of
from functions.works import WORKS
from shared import background
from shared.chains import Chain, Kind, State
from shared.core.errors import ConflictError, InvalidRequestError, NotFoundError

_NAME: Final = re.compile(r"chain_[0-9a-f]{32}")
MAX_LISTED: Final = 100
LISTED: Final = 20
MAX_LOOKED_AT: Final = 2_000
"""Chains that one call looks at for those in a state: the next page goes on from there."""


async def get_chain(call: Call) -> Response:
    """Answer with the result of a chain, or with where it stands."""
    chain = await _find(call, call.path("id"))
    return await ended(call.gateway, chain, WORKS[chain.path]) if chain.state.ended else accepted(call.gateway, chain)


async def list_chains(call: Call) -> Response:
    """List chains, the newest first."""
    limit, state, project, after = _limit(call), _state(call), project_of(call), call.query("after")
    last = None if after is None else await _find(call, after, param="after")
    found: list[Chain] = []
    looked_at, more = 0, False
    async for chain in call.gateway.chains.newest(kind=Kind.ASYNC, project=project, after=last):
        if more := len(found) == limit or looked_at == MAX_LOOKED_AT:
            break
        last, looked_at = chain, looked_at + 1
        if state in {None, chain.state}:
            found.append(chain)
    shown = [chain_object(chain) for chain in found]
    next_after = last.id if more and last is not None else None
    body = {
        "object": "list",
        "data": shown,
        "first_id": found[0].id if found else None,
        "last_id": next_after or (found[-1].id if found else None),
        "has_more": more,
    }
    return json_response(body, headers=[NO_STORE])


async def cancel_chain(call: Call) -> Response:
    """Ask a chain to end. Twice is as good as once, and one that has ended stays as it is."""
    chain = await _find(call, call.path("id"))
    return json_response(chain_object(await background.cancel(call.gateway, call.engine, chain.id)), headers=[NO_STORE])


async def delete_chain(call: Call) -> Response:
    """Forget a chain that has ended, with its request and its answer."""
    chain = await _find(call, call.path("id"))
    if not chain.state.ended:
        message = "The chain has not ended. Cancel it first, with POST to its path and `/cancel`, and delete it when it has."
        raise ConflictError(message, param="id", code="chain_not_ended")
    await call.gateway.chains.delete(chain.id)
    return json_response({"id": chain.id, "object": "chain.deleted", "deleted": True})


async def _find(call: Call, name: str, *, param: str = "id") -> Chain:
    """Return a chain the caller may know of; raise `NotFoundError`, also for one of another project."""
    chain = await call.gateway.chains.find(name) if _NAME.fullmatch(name) else None
    if chain is None or chain.kind is not Kind.ASYNC or not (call.caller.admin or chain.caller.project == call.caller.project):
        message = "No chain of that id is known. They are kept for 30 days; background responses are under /v1/responses."
        raise NotFoundError(message, param=param, code="chain_not_found")
    return chain


def _limit(call: Call) -> int:
    text = call.query("limit") or str(LISTED)
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= MAX_LISTED and len(text) <= len(str(MAX_LISTED))):
        message = f"`limit` must be a whole number from 1 to {MAX_LISTED}."
        raise InvalidRequestError(message, param="limit", code="invalid_value")
    return int(text)


def _state(call: Call) -> State | None:
    asked = call.query("status")
    if asked is None:
        return None
    if asked not in set(State):
        message = f"`status` must be one of {', '.join(State)}."
        raise InvalidRequestError(message, param="status", code="invalid_value")
    return State(asked)


ENDPOINTS: Final = (
    Endpoint(
        name="list_chains",
        method="GET",
        path=PATH,
        handler=list_chains,
        summary="What was asked for with `Prefer: respond-async`, the newest first",
        tag="Background",
        parameters=(
            Parameter("limit", f"1 to {MAX_LISTED}; {LISTED} when absent.", schema={"type": "integer"}),
            Parameter("after", "Only what comes after this id: the last one of the page before."),
            Parameter("status", "Only chains in this state.", schema={"type": "string", "enum": [*State]}),
            Parameter("project", "Only this project. Keys other than the administrator's see their own only."),
        ),
        answers="A list of `chain` objects.",
        aliases=(f"/openai{PATH}",),
    ),
    Endpoint(
        name="get_chain",
        method="GET",
        path=PATH + "/{id}",
        handler=get_chain,
        access=Access.MEMBER,  # it is an answer
        summary="The answer to come",
        tag="Background",
        answers="What the endpoint that was called answers, with its headers. If it failed: the error an interactive call "
        "would have got.",
        also={"202": "It is under way: the `chain` object; `retry-after` says when to look again.", "410": "It was cancelled."},
        aliases=(f"/openai{PATH}/{{id}}",),
    ),
    Endpoint(
        name="cancel_chain",
        method="POST",
        path=PATH + "/{id}/cancel",
        handler=cancel_chain,
        summary="Ask a chain to end",
        tag="Background",
        answers="The `chain` object; `cancelling` is true until it has ended.",
        aliases=(f"/openai{PATH}/{{id}}/cancel",),
        durable=True,
    ),
    Endpoint(
        name="delete_chain",
        method="DELETE",
        path=PATH + "/{id}",
        handler=delete_chain,
        summary="Forget a chain that has ended",
        tag="Background",
        answers="`deleted: true`. A chain that has not ended: 409.",
        aliases=(f"/openai{PATH}/{{id}}",),
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
