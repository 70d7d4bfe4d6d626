"""How a chain ended, as whoever asks for it is shown: its answer, or the error an interactive call would have raised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from shared.chains import Chain, Kind
from shared.core import errors
from shared.core.chat import Completion, FinishReason
from shared.core.completion_events import delivery_of, event_of
from shared.core.errors import GatewayError
from shared.core.fields import Fields
from shared.core.route import Route
from shared.executor import Answer
from shared.gateway import Gateway
from shared.usage.rows import attempt_in

CUT_OFF: Final = frozenset({FinishReason.LENGTH.value, FinishReason.CONTENT_FILTER.value})


class NotDeliveredError(Exception):
    """A webhook was not taken; the engine tries again."""


def error_out(error: GatewayError, code: str | None) -> dict[str, Any]:
    """Return an error as it is stored; ``code`` replaces its own."""
    return {
        "class": type(error).__name__,
        "message": error.message,
        "param": error.param,
        "code": code or error.code,
        "retry_after": error.retry_after,
    }


def error_of(chain: Chain) -> GatewayError:
    """Return why a chain failed, as the error that an interactive call would have raised."""
    written = Fields(chain.error or {"class": "GatewayError", "message": "It failed."})
    kind = getattr(errors, written.text("class"), GatewayError)
    message, code = written.text("message"), written.find_text("code")
    error: GatewayError
    if kind is errors.BudgetExceededError:
        error = errors.BudgetExceededError(message, budget="")
    elif kind in {errors.AllAttemptsFailedError, errors.DeadlineExceededError}:
        error = kind(message, retry_after=written.find_number("retry_after"))
    elif kind is errors.RateLimitError:
        error = errors.RateLimitError(message, retry_after=written.find_number("retry_after"))
    else:
        error = kind(message, param=written.find_text("param"))
    error.code = code or error.code
    return error


async def answer_of(gateway: Gateway, chain: Chain) -> Answer:
    """Return the answer of a chain that was completed."""
    number = chain.answer or 0
    claim = await gateway.chains.claim(chain.id, number)
    facts = Fields(claim.answer or {} if claim is not None else {})
    record = Fields((claim.record if claim is not None else None) or {})
    payload = orjson.loads(await gateway.chains.answer(chain.id, number))
    model = record.find_text("model") or ""
    usage = None if claim is None or claim.record is None else attempt_in(Fields(claim.record)).usage
    completion = Completion(
        payload, usage, facts.find_text("response_model") or model, finish_reason=facts.find_text("finish_reason")
    )
    return Answer(
        chain.request_id,
        completion,
        Route(str(chain.facts.get("task", "")), ()),
        model=model,
        deployment=record.find_text("deployment") or "",
        attempts=chain.attempts,
        cost=chain.cost,
        simulated=gateway.settings.simulated,
    )


async def _state_told(gateway: Gateway, chain: Chain) -> str:
    """Return how a chain ended in the words of its kind: a response that was cut off by its limit or a filter is incomplete."""
    if chain.kind is Kind.RESPONSE and chain.answer is not None:
        claim = await gateway.chains.claim(chain.id, chain.answer)
        if claim is not None and (claim.answer or {}).get("finish_reason") in CUT_OFF:
            return "incomplete"
    return chain.state.value


async def notify(gateway: Gateway, given: Mapping[str, Any]) -> None:
    """Tell a chain's webhook that it has ended. Raise `NotDeliveredError`: then the engine tries again."""
    chain = await gateway.chains.find(given["id"])
    if chain is None or chain.webhook is None or gateway.webhook is None:  # deleted meanwhile: nobody is told
        return
    state = await _state_told(gateway, chain)
    event = event_of(chain.kind.value, chain.id, state, chain.ended_at or gateway.clock.now())
    problem = await gateway.webhook.send(chain.webhook, event, delivery=delivery_of(chain.id, state))
    if problem is not None:
        raise NotDeliveredError(problem)
