"""Performing a plan on a connection: the simulator's only writes to the network."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from socket import SO_LINGER, SOL_SOCKET
from typing import Final

from aiohttp import web

from local.simulator.attempts import Attempt, Billed
from local.simulator.plans import Charge, Ending, Part, Plan

_NO_LINGER: Final = struct.pack("ii", 1, 0)


async def perform(
    request: web.BaseRequest,
    plan: Plan,
    *,
    headers: Mapping[str, str],
    attempt: Attempt,
    billed: Billed,
    closing: asyncio.Event,
) -> web.StreamResponse:
    """Send the plan. ``attempt`` learns status, events sent and what is billed, also when the client leaves half-way."""
    if plan.wait_s:
        await asyncio.sleep(plan.wait_s)
    attempt.status = plan.status
    attempt.billed = billed if plan.charge is Charge.ALL else Billed()
    if plan.status is None:
        return await _end(request, plan, web.Response(), closing)
    all_headers = {**headers, **plan.headers}
    if _is_simple(plan):
        (part,) = plan.parts
        return web.Response(status=plan.status, headers=all_headers, body=part.data)
    response = web.StreamResponse(status=plan.status, headers=all_headers)
    response.content_length = plan.length
    attempt.billed = _sent(billed, 0, plan.charge)
    await response.prepare(request)
    spent = 0
    async for part in _paced(plan):
        await response.write(part.data)
        spent += part.tokens
        attempt.events_sent += part.events
        attempt.billed = _sent(billed, spent, plan.charge)
    if plan.charge is Charge.ALL:
        attempt.billed = billed
    return await _end(request, plan, response, closing)


def _is_simple(plan: Plan) -> bool:
    return plan.length is not None and plan.ending is Ending.COMPLETE and not plan.separate and not plan.gap_s


def _sent(billed: Billed, spent: int, charge: Charge) -> Billed:
    """Return the bill of a stream that stops here."""
    if charge is Charge.NOTHING:
        return Billed()
    return Billed(
        billed.input_tokens,
        min(spent, billed.output_tokens),
        billed.cache_read,
        billed.cache_creation,
        min(billed.reasoning, spent),
    )


async def _paced(plan: Plan) -> AsyncIterator[Part]:
    """Yield the parts when they are due. Parts due at the same time are joined, unless the plan wants each written alone.

    Each part's time is counted from the first, so that a thousand streams at once are late in their events, not in their ends;
    and a stream without gaps is as cheap as a whole answer.
    """
    clock = asyncio.get_running_loop().time
    started = clock()
    waiting: list[Part] = []
    for place, part in enumerate(plan.parts):
        early = started + place * plan.gap_s - clock()
        if (early > 0 or plan.separate) and waiting:
            yield _joined(waiting)
            waiting = []
        if early > 0 or plan.separate:
            # Yielding to the loop lets the bytes leave before the next write joins them.
            await asyncio.sleep(plan.gap_s if plan.separate else early)
        waiting.append(part)
    if waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    return Part(b"".join(part.data for part in parts), sum(part.tokens for part in parts), sum(part.events for part in parts))


async def _end(
    request: web.BaseRequest, plan: Plan, response: web.StreamResponse, closing: asyncio.Event
) -> web.StreamResponse:
    if plan.ending is Ending.COMPLETE:
        return response
    if plan.ending is Ending.HANG:
        await closing.wait()
    if plan.linger_s:
        await asyncio.sleep(plan.linger_s)
    _drop(request, reset=plan.ending is Ending.RESET)
    return response


def _drop(request: web.BaseRequest, *, reset: bool) -> None:
    transport = request.transport
    if transport is None:
        return
    if reset:
        sock = transport.get_extra_info("socket")
        if sock is not None:
            # With no linger time the kernel answers with RST instead of FIN.
            sock.setsockopt(SOL_SOCKET, SO_LINGER, _NO_LINGER)
    transport.abort()
