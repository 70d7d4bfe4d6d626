"""Responses that are kept: as they ended, or, for one answered in the background, as its chain says."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Final

from functions.problems import problem_of
from functions.rendering import usd
from shared.chain_outcomes import answer_of, error_of
from shared.chains import Chain, State
from shared.core import responses_object
from shared.core.errors import GatewayError, InvalidRequestError, NotFoundError, StorageUnavailableError
from shared.core.records import Caller
from shared.core.responses import rename_param
from shared.core.responses_events import answered
from shared.gateway import Gateway
from shared.responses import KEPT_DAYS, Kept

logger = logging.getLogger("switchyard.edge")

UNBEGUN_SECONDS: Final = 60.0
"""A background response that has no chain after so long never gets one: whoever made it has died between the two."""


async def find(gateway: Gateway, caller: Caller, response_id: str) -> Kept | None:
    """Return a response as it is now, None if the caller has none of that id."""
    kept = await gateway.responses.visible(response_id, caller)
    if kept is None or kept.ended or not kept.background:
        return kept
    return await as_it_is(gateway, kept, await gateway.chains.find(kept.id))


async def get(gateway: Gateway, caller: Caller, response_id: str) -> Kept:
    """Return a response as it is now; raise `NotFoundError`, also for one of another project."""
    kept = await find(gateway, caller, response_id)
    if kept is None:
        message = (
            f"Response with id {response_id[:80]!r} not found. Responses made with `store` are kept for {KEPT_DAYS} days, and "
            "seen by their own project."
        )
        raise NotFoundError(message, param="response_id", code="response_not_found")
    return kept


async def as_it_is(gateway: Gateway, kept: Kept, chain: Chain | None) -> Kept:
    """Return a background response as its chain says; write its end down, so that later turns can build on it."""
    if chain is None:
        if gateway.clock.now() - kept.created_at < UNBEGUN_SECONDS:
            return kept
        lost = {"type": "server_error", "message": "The response was never begun. Send the request again."}
        response = responses_object.failed(kept.response, lost)
    elif not chain.state.ended:
        return replace(kept, response={**kept.response, "status": chain.state.value})
    else:
        response = await _ended(gateway, kept, chain)
    ended = replace(kept, response=response, ended=True)
    try:
        await gateway.responses.end(ended)
    except StorageUnavailableError as error:  # the chain is there to be asked again
        logger.warning("The end of %s could not be written down: %s", kept.id, error.message)
    return ended


async def _ended(gateway: Gateway, kept: Kept, chain: Chain) -> dict[str, Any]:
    told = {"request_id": chain.request_id, "attempts": chain.attempts, "cost_usd": usd(chain.cost)}
    if chain.state is State.CANCELLED:
        return {**responses_object.cancelled(kept.response), "switchyard": told}
    if chain.state is State.FAILED:
        return {**responses_object.failed(kept.response, error_object(error_of(chain))), "switchyard": told}
    answer = await answer_of(gateway, chain)
    more = {"switchyard": {**told, "model": answer.model, "deployment": answer.deployment}}
    return answered(kept.response, answer.completion.payload, at=chain.ended_at or gateway.clock.now(), more=more)


def error_object(error: GatewayError) -> dict[str, Any]:
    """Return OpenAI's error object, in the words of Responses."""
    found: dict[str, Any] = problem_of(rename_param(error)).body["error"]
    return found


async def keep(gateway: Gateway, kept: Kept, items: list[dict[str, Any]]) -> dict[str, Any]:
    """Keep a response that has ended; return it as it may be shown. What can't be kept says so: ``store`` is false then."""
    try:
        await gateway.responses.keep(kept, items)
    except StorageUnavailableError as error:
        logger.warning("The response %s could not be kept: %s", kept.id, error.message)
        return {**kept.response, "store": False}
    return kept.response


def page_limit(text: str | None) -> int:
    """Return how many items a page has; raise `InvalidRequestError`."""
    if text is None:
        return 20
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:4]) <= 100 and len(text) <= 3):  # noqa: PLR2004 - 100 has 3
        message = "`limit` must be a whole number from 1 to 100."
        raise InvalidRequestError(message, param="limit", code="invalid_value")
    return int(text)
