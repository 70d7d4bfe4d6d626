"""Alerts to the operator's own endpoints: signed, small, only to listed hosts at public addresses.

The receiver checks ``x-switchyard-signature: t=SECONDS,v1=HEX``, where HEX is the HMAC-SHA256 under the shared secret of
``SECONDS.BODY``, and forgets deliveries it has seen by ``x-switchyard-delivery``: a delivery may come twice.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Final

from shared.core.registry import Secret
from shared.core.webhooks import WebhookRefusedError, target_of
from shared.ports import Clock, HttpRequest, HttpTransport, TransportError

TIMEOUT: Final = 5.0
"""Seconds for the connection, and again for the answer."""
MAX_BODY: Final = 4 * 1024


class Webhook:
    """The sender. ``hosts`` are those it may call.

    ``transport`` must be an HTTP client of its own that admits only what `shared.core.webhooks.may_connect` does: it checks
    each address a name resolves to and connects to those very addresses, so a name that changes its mind gains nothing.
    """

    def __init__(self, transport: HttpTransport, clock: Clock, *, hosts: Collection[str], secret: Secret) -> None:
        self._transport = transport
        self._clock = clock
        self._hosts = frozenset(hosts)
        self._secret = secret

    async def send(self, url: str, payload: Mapping[str, object], *, delivery: str) -> str | None:
        """Post an alert as JSON. Return None when the receiver took it (2xx), else why it did not, without the URL."""
        body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        if len(body) > MAX_BODY:
            return f"the alert is over {MAX_BODY} bytes"
        try:
            target_of(url, self._hosts)  # what was allowed when the budget was made may not be any more
            response = await self._transport.send(self._request(url, body, delivery), connect=TIMEOUT, head=TIMEOUT)
        except WebhookRefusedError as error:
            return f"the webhook {error}"
        except TransportError as error:
            return f"the receiver could not be reached: {type(error).__name__}"
        await response.aclose()
        if HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
            return None
        return f"the receiver answered with status {response.status}"

    def _request(self, url: str, body: bytes, delivery: str) -> HttpRequest:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "switchyard-alerts",
            "x-switchyard-delivery": delivery,
            "x-switchyard-signature": signature(self._secret, int(self._clock.now()), body),
        }
        return HttpRequest("POST", url, headers, body)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def signature(secret: Secret, seconds: int, body: bytes) -> str:
    """Return the header that proves who sent a body, and when."""
    digest = hmac.new(secret.reveal().encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"
