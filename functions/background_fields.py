"""The own fields that only background work has: whom to tell of its end, and how long it may take."""

from __future__ import annotations

from typing import Any, Final

from functions.schemas_own import DEADLINE, WEBHOOK
from shared.core.chain import DEFAULT_DEADLINE
from shared.core.errors import InvalidRequestError
from shared.core.webhooks import WebhookRefusedError, target_of
from shared.gateway import Gateway

BACKGROUND_FIELDS: Final = (WEBHOOK, DEADLINE)


def check_webhook(gateway: Gateway, url: str | None) -> str | None:
    """Return the URL background work tells its end, None for none.

    Raise `InvalidRequestError` naming ``webhook_url`` unless it is https on a host the operator lists, and not at a private
    address. Whether its name resolves to one is checked when it is called, as is everything else again.
    """
    if url is None:
        return None
    if gateway.webhook is None:
        message = f"`{WEBHOOK}` can't be used: the operator has not set SWITCHYARD_WEBHOOK_HOSTS, so no host may be told."
        raise InvalidRequestError(message, param=WEBHOOK, code="webhooks_not_configured")
    try:
        target_of(url, gateway.settings.webhook_hosts)
    except WebhookRefusedError as error:
        message = f"`{WEBHOOK}` {error}."
        raise InvalidRequestError(message, param=WEBHOOK, code="invalid_value") from None
    return url


def deadline_of(body: dict[str, Any]) -> float:
    """Return how many seconds background work may take; its schema has checked the field."""
    asked = body.get(DEADLINE)
    return DEFAULT_DEADLINE if asked is None else float(asked)


def refuse_background_fields(body: dict[str, Any], *, how: str = "send `Prefer: respond-async`") -> None:
    """Refuse the fields of background work in a request that is answered at once; ``how`` says what to do instead."""
    for name in BACKGROUND_FIELDS:
        if body.get(name) is not None:
            message = f"`{name}` is for what runs in the background: {how}, or leave it out."
            raise InvalidRequestError(message, param=name, code="unsupported_parameter")
