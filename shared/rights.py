"""What a caller may do: by its key as it is now, and how much in a minute."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from shared.core.chat import Requirements
from shared.core.errors import InvalidRequestError, NotFoundError
from shared.core.limits import Limited
from shared.core.records import Caller
from shared.gateway import Gateway

USUAL_OUTPUT: Final = 256
"""Tokens of output a request without a limit counts for against tokens per minute, until it has ended."""


async def caller_now(gateway: Gateway, caller: Caller) -> Caller | None:
    """Return who asked a while ago, with what its key may do by now; None when the key is no longer good.

    Raise `StorageUnavailableError`.
    """
    try:
        key = await gateway.keys.get(caller.key_id)
    except (NotFoundError, InvalidRequestError):
        return caller  # the administrator, or whom an identity provider vouched for: nothing is kept of them here
    if key.disabled or (key.expires_at is not None and gateway.clock.now() >= key.expires_at):
        return None
    return replace(
        caller,
        models=key.models,
        budgets=key.budgets,
        requests_per_minute=key.requests_per_minute,
        tokens_per_minute=key.tokens_per_minute,
        tags=key.tags,
    )


def limits_of(gateway: Gateway, caller: Caller) -> tuple[Limited, ...]:
    """Return the limits per minute that a caller's requests count against: its project's, and its key's own."""
    limited = [*gateway.projects.limits(caller.project)]
    if caller.requests_per_minute is not None or caller.tokens_per_minute is not None:
        limited.append(Limited(f"key:{caller.key_id}", caller.requests_per_minute, caller.tokens_per_minute))
    return tuple(limited)


def tokens_of(requirements: Requirements) -> int:
    """Return the tokens a request counts for until it is known how many it used."""
    return requirements.input_tokens + (requirements.max_output_tokens or USUAL_OUTPUT) * requirements.n
