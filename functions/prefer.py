"""``Prefer: respond-async`` and ``wait=N`` (RFC 7240): a request that becomes a chain instead of being waited for.

A preference is a wish: what is not known, not well written or can't be granted is ignored, and ``Preference-Applied`` says what
was granted. ``wait`` alone changes nothing. A stream, and several prompts in one request, are answered at once as ever, and so
is everything on a host that runs no chains.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.responses import Response

from functions.background_fields import check_webhook, deadline_of
from functions.chain_view import accepted, ended
from functions.endpoints import Handler, Parameter
from functions.http import Call
from functions.idempotent import chain_id, idempotent
from functions.rendering import RawHeaders
from functions.schemas_own import WEBHOOK
from functions.work import Work
from shared import background
from shared.background import NewChain
from shared.chains import Kind

MAX_WAIT: Final = 200
"""Seconds: the platform ends a call after 230."""
PREFER: Final = Parameter(
    "Prefer",
    f"`respond-async`: 202 with the `Location` of the answer to come. With `wait=N` (up to {MAX_WAIT} seconds) the answer "
    "itself, if it is there by then.",
    place="header",
)
"""How endpoints describe it."""
ACCEPTED: Final = {"202": "With `Prefer: respond-async`: the `chain` object, and the `Location` of the answer to come."}

_ITEM: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*+"?)++')
_HEAD: Final = re.compile(
    r"""\s*(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]++)\s*(?:=\s*(?P<value>"(?:[^"\\]|\\.)*+"|[^\s;"]*+)\s*)?(?:;|$)"""
)
_ESCAPED: Final = re.compile(r"\\(.)")
_SECONDS: Final = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Async:
    """What was asked for, as far as it is granted. ``wait`` is seconds, None when it was not said."""

    wait: int | None = None

    @property
    def applied(self) -> RawHeaders:
        """The headers that say what was granted."""
        granted = b"respond-async" if self.wait is None else b"respond-async, wait=%d" % self.wait
        return [(b"preference-applied", granted)]


def preferences(lines: Iterable[str]) -> dict[str, str]:
    """Return the preferences in some ``Prefer`` headers, names in lower case; of one that comes twice the first counts."""
    found: dict[str, str] = {}
    for line in lines:
        for item in _ITEM.findall(line):
            head = _HEAD.match(item)
            if head is not None:
                found.setdefault(head["name"].lower(), _plain(head["value"] or ""))
    return found


def _plain(value: str) -> str:
    return _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value


def asked(call: Call, body: dict[str, Any]) -> Async | None:
    """Return what a request prefers, None when it is to be answered at once."""
    if b"prefer" not in call.headers or call.chain_engine is None or body.get("stream") or _has_several_prompts(body):
        return None
    found = preferences(call.request.headers.getlist("prefer"))
    if found.get("respond-async") != "":  # it has no value; one that has is another preference, and not known
        return None
    wait = _SECONDS.fullmatch(found.get("wait", ""))
    return Async(None if wait is None else min(int(wait[0]), MAX_WAIT))


def _has_several_prompts(body: dict[str, Any]) -> bool:
    prompt = body.get("prompt")
    return isinstance(prompt, list) and len(prompt) > 1


def is_async(call: Call) -> bool:
    """Say whether a request becomes a chain."""
    return b"prefer" in call.headers and asked(call, call.json()) is not None


def answering(work: Work, handler: Handler) -> Handler:
    """Return the handler of an endpoint that bills: once per ``Idempotency-Key``, in the background if that is preferred."""

    async def answered(call: Call) -> Response:
        if b"prefer" in call.headers:
            body = call.json()
            if (preferred := asked(call, body)) is not None:
                return await _in_background(call, work, body, preferred)
        return await handler(call)

    return idempotent(answered, joins=is_async)


async def _in_background(call: Call, work: Work, body: dict[str, Any], preferred: Async) -> Response:
    """Start a chain, or find the one that this request has started before; answer with its result if it comes in time."""
    gateway = call.gateway
    request = await work.read(call, body)
    if named := call.path("model"):  # Azure's way: whoever reads the stored body has no path
        body = {**body, "model": named}
    new = NewChain(
        id=chain_id("chain_", call),
        request_id=call.request_id,
        kind=Kind.ASYNC,
        path=work.path,
        body=orjson.dumps(body),
        deadline=deadline_of(body),
        webhook=check_webhook(gateway, body.get(WEBHOOK)),
    )
    chain = await background.start(gateway, call.engine, call.caller, request, new)
    if preferred.wait and not chain.state.ended:
        chain = await background.wait_for(gateway, chain.id, preferred.wait)
    response = await ended(gateway, chain, work) if preferred.wait and chain.state.ended else accepted(gateway, chain)
    response.raw_headers.extend(preferred.applied)
    return response
