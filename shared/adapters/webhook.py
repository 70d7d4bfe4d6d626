"""Messages to the operator's own endpoints, of alerts and of work that has ended: signed, small, only to listed hosts.

Receivers check one of two signatures, and forget deliveries they have seen, since a delivery may come twice:

- ``x-switchyard-signature: t=SECONDS,v1=HEX``: the HMAC-SHA256 under the shared secret of ``SECONDS.BODY``;
- ``webhook-signature: v1,BASE64``: that of ``ID.SECONDS.BODY``, with ``webhook-id`` and ``webhook-timestamp``, as Standard
  Webhooks has it and OpenAI's SDKs check it (``client.webhooks.unwrap``). A secret ``whsec_…`` is base64 of the key there.

``x-switchyard-delivery`` and ``webhook-id`` are the delivery's id.
"""

from __future__ import annotations

import base64
import binascii
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
ENCODED: Final = "whsec_"


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
        """Post a message as JSON. Return None when the receiver took it (2xx), else why it did not, without the URL."""
        body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        if len(body) > MAX_BODY:
            return f"the message is over {MAX_BODY} bytes"
        try:
            target_of(url, self._hosts)  # what was allowed when it was asked for may not be any more
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
        now = int(self._clock.now())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "switchyard-webhooks",
            "x-switchyard-delivery": delivery,
            "x-switchyard-signature": signature(self._secret, now, body),
            "webhook-id": delivery,
            "webhook-timestamp": str(now),
            "webhook-signature": standard_signature(self._secret, delivery, now, body),
        }
        return HttpRequest("POST", url, headers, body)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def signature(secret: Secret, seconds: int, body: bytes) -> str:
    """Return the header that proves who sent a body, and when."""
    digest = hmac.new(secret.reveal().encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


def standard_signature(secret: Secret, delivery: str, seconds: int, body: bytes) -> str:
    """Return the same proof as Standard Webhooks has it."""
    digest = hmac.new(_key(secret.reveal()), f"{delivery}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def _key(secret: str) -> bytes:
    if secret.startswith(ENCODED):
        try:
            return base64.b64decode(secret.removeprefix(ENCODED), validate=True)
        except binascii.Error:  # not base64 after all: then it is what it says
            return secret.encode()
    return secret.encode()
