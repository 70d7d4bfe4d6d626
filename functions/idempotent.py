"""``Idempotency-Key`` on every POST that can bill: the answer to a key is made once and given again.

A key stands for a path and a body; other headers (``Prefer`` too) are no part of the request: whoever comes again with the key
gets what the first call was answered with, be it a 200 or the 202 of a chain.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from typing import Final

from starlette.responses import Response

from functions.endpoints import Handler, Parameter
from functions.http import Call
from functions.rendering import RawHeaders, Rendered
from functions.streaming import EventStream
from shared.core.errors import GatewayError, StorageUnavailableError
from shared.idempotency import MAX_ANSWER, Begun, Idempotency, KeptAnswer

logger = logging.getLogger("switchyard.edge")

REPLAYED: Final = (b"idempotent-replayed", b"true")
KEPT: Final = frozenset({200, 202})
"""The statuses of answers that are given again."""
_OURS: Final = frozenset({b"content-length"})
"""Headers that are made anew for an answer given again."""


KEY: Final = Parameter(
    "Idempotency-Key", "The same key and body are answered once, and billed once, for 24 hours.", place="header"
)
"""How endpoints describe it."""


def chain_id(prefix: str, call: Call) -> str:
    """Return the id of the background work a call asks for: ``chain_…``, ``resp_…``, ``batch_…``.

    With an ``Idempotency-Key`` it follows from the caller, the key and the request: whoever tries again, whatever was lost,
    finds the work that is there. Another caller's same key is other work, and so is the same key with another request once
    the key itself is forgotten.
    """
    key = call.headers.get(b"idempotency-key")
    if key is None:
        return prefix + secrets.token_hex(16)
    seed = b"\0".join((call.caller.key_id.encode(), key, _request_of(call)))
    return prefix + hashlib.sha256(seed).hexdigest()[:32]


def _request_of(call: Call) -> bytes:
    """Return everything that must be the same when a key is used again."""
    return call.request.url.path.encode() + b"\0" + call.body


def never(call: Call) -> bool:
    """Say of every call that it may not be made beside another with its key."""
    del call
    return False


def always(call: Call) -> bool:
    """Say of every call that it may: it only starts work under its `chain_id`."""
    del call
    return True


def idempotent(handler: Handler, *, joins: Callable[[Call], bool] = never) -> Handler:
    """Return a handler that gives a call with an ``Idempotency-Key`` the answer the first one with that key got.

    ``joins`` says whether a call only starts work under its `chain_id`: then one with the same key never waits for another,
    which may have died, but goes the same way and finds or makes the same work.
    """

    async def answered(call: Call) -> Response:
        key = call.headers.get(b"idempotency-key")
        return await (handler(call) if key is None else _once(call, handler, key.decode("latin-1"), joins=joins(call)))

    return answered


async def _once(call: Call, handler: Handler, key: str, *, joins: bool) -> Response:
    kept = call.gateway.idempotency
    begun = await kept.begin(call.caller.key_id, key, _request_of(call), joins=joins)
    if isinstance(begun, KeptAnswer):
        headers: RawHeaders = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in begun.headers]
        return Rendered(begun.body, status=begun.status, headers=[*headers, REPLAYED])
    record = _Record(kept, begun)
    try:
        response = await handler(call)
    except BaseException as error:
        if not (joins and _may_have_begun(error)):
            await record.forget()
        raise
    if isinstance(response, EventStream):
        response.record(record.events, record.end)
        record.headers = response.raw_headers
    elif response.status_code in KEPT:
        await record.keep(bytes(response.body), response.raw_headers, status=response.status_code)
    else:
        await record.forget()
    return response


def _may_have_begun(error: BaseException) -> bool:
    """Say whether background work may be under way although its call failed: then its key stays taken, and joins it."""
    return isinstance(error, StorageUnavailableError) or not isinstance(error, GatewayError)


class _Record:
    """Takes an answer down while it is being sent."""

    def __init__(self, kept: Idempotency, begun: Begun) -> None:
        self._kept = kept
        self._begun = begun
        self._parts: list[bytes] = []
        self._size = 0
        self._whole = False
        self.headers: RawHeaders = []

    async def events(self, source: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Pass a stream on, and take it down."""
        async for data in source:
            self._size += len(data)
            if self._size <= MAX_ANSWER:
                self._parts.append(data)
            yield data
        self._whole = True

    async def end(self) -> None:
        """Keep a stream that came to its end, forget one that did not."""
        if self._whole:
            body = b"".join(self._parts)
            await self.keep(body if self._size <= MAX_ANSWER else bytes(self._size), self.headers)
        else:
            await self.forget()

    async def keep(self, body: bytes, headers: RawHeaders, *, status: int = 200) -> None:
        """Keep an answer. That it can't be kept is no reason not to give it."""
        pairs = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers if name not in _OURS)
        try:
            await self._kept.keep(self._begun, KeptAnswer(status, pairs, body))
        except StorageUnavailableError as error:
            logger.warning("An answer could not be kept under its Idempotency-Key: %s", error.message)

    async def forget(self) -> None:
        """Let the key be used again, also when this call is being cancelled."""
        with contextlib.suppress(StorageUnavailableError):
            await asyncio.shield(self._kept.release(self._begun))
