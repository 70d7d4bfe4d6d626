"""What callers see of a chain: where it stands, and, when it has ended, the very answer an interactive call would have got."""

from __future__ import annotations

import math
from typing import Any, Final

import orjson

from functions.inference import answer_headers
from functions.problems import INVALID_REQUEST, error_body, problem_of
from functions.rendering import NO_STORE, RawHeaders, Rendered, json_response, problem_response, usd
from functions.work import Work
from shared.chain_outcomes import answer_of, error_of
from shared.chains import Chain, State
from shared.core.webhooks import host_of
from shared.gateway import Gateway

PATH: Final = "/v1/chains"
GONE: Final = 410
MIN_POLL: Final = 1
MAX_POLL: Final = 60
"""Seconds between two looks that callers are asked to leave."""
_PATIENCE: Final = 10.0
"""A chain is looked at again after a tenth of the time it has taken."""
_SPENT: Final = (b"x-should-retry", b"false")


def chain_object(chain: Chain) -> dict[str, Any]:
    """Return a chain as JSON."""
    return {
        "object": "chain",
        "id": chain.id,
        "status": chain.state.value,
        "endpoint": chain.path,
        "model": chain.facts.get("model"),
        "request_id": chain.request_id,
        "created_at": int(chain.created_at),
        "started_at": None if chain.started_at is None else int(chain.started_at),
        "ended_at": None if chain.ended_at is None else int(chain.ended_at),
        "deadline_at": int(chain.deadline),
        "cancelling": chain.cancelling and not chain.state.ended,
        "detail": dict(chain.status) or None,
        "attempts": chain.attempts,
        "cost_usd": usd(chain.cost),
        "webhook_host": None if chain.webhook is None else host_of(chain.webhook),
        "error": problem_of(error_of(chain)).body["error"] if chain.state is State.FAILED else None,
    }


def accepted(gateway: Gateway, chain: Chain) -> Rendered:
    """Return 202: where the answer will be, and when to look."""
    headers: RawHeaders = [
        (b"location", f"{PATH}/{chain.id}".encode()),
        (b"retry-after", b"%d" % _look_again(chain, gateway.clock.now())),
        NO_STORE,
    ]
    return json_response(chain_object(chain), status=202, headers=headers)


def _look_again(chain: Chain, now: float) -> int:
    return math.ceil(min(MAX_POLL, max(MIN_POLL, (now - chain.created_at) / _PATIENCE)))


async def ended(gateway: Gateway, chain: Chain, work: Work) -> Rendered:
    """Return what a chain that has ended came to: the endpoint's own answer, or the error."""
    match chain.state:
        case State.COMPLETED:
            response = await _completed(gateway, chain, work)
        case State.CANCELLED:
            message = "This chain was cancelled, so it has no answer. Send the request again, with a new Idempotency-Key."
            body = error_body(message, kind=INVALID_REQUEST, param=None, code="chain_cancelled")
            response = json_response(body, status=GONE, headers=[_SPENT, *_attempts(chain)])
        case _:
            response = _failed(gateway, chain)
    response.raw_headers += [(b"x-switchyard-chain", chain.id.encode()), NO_STORE]
    return response


async def _completed(gateway: Gateway, chain: Chain, work: Work) -> Rendered:
    answer = await answer_of(gateway, chain)
    took = (chain.ended_at or chain.created_at) - chain.created_at
    rendered = work.render(answer, orjson.loads(await gateway.chains.body(chain.id)), round(took * 1000))
    return json_response(rendered, headers=answer_headers(answer))


def _failed(gateway: Gateway, chain: Chain) -> Rendered:
    """Return the error an interactive call would have got. Asking the chain again is pointless: it stays failed."""
    error = error_of(chain)
    if error.retry_after is not None:
        left = error.retry_after - (gateway.clock.now() - (chain.ended_at or 0.0))
        error.retry_after = left if left > 0 else None
    response = problem_response(problem_of(error))
    if _SPENT not in response.raw_headers:
        response.raw_headers.append(_SPENT)
    response.raw_headers += _attempts(chain)
    return response


def _attempts(chain: Chain) -> RawHeaders:
    return [(b"x-switchyard-attempts", b"%d" % chain.attempts)]
