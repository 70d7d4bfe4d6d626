"""A bare pass-through: the same server and the same HTTP client as Switchyard, and no logic. What a Python gateway can reach.

    BENCH_UPSTREAM=http://… uvicorn tests.bench.passthrough:app --loop uvloop --http httptools

The request's bytes go to the upstream as they came, and the answer comes back as it is: nothing is parsed, no key is checked,
nothing is chosen, priced or recorded.
"""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from shared.adapters.transport import open_transport
from shared.ports import HttpRequest, HttpResponse

URL = os.environ.get("BENCH_UPSTREAM", "http://127.0.0.1:9100/v1") + "/chat/completions"
HEADERS = {"authorization": "Bearer upstream", "content-type": "application/json"}
LIMIT = 32 * 2**20
transport = open_transport(trust_env=False)


async def chat(request: Request) -> Response:
    """Pass one request on."""
    answer = await transport.send(HttpRequest("POST", URL, HEADERS, await request.body()), connect=5, head=600)
    kind = answer.headers.get("content-type", "application/json")
    if kind.startswith("text/event-stream"):
        return StreamingResponse(pieces(answer), answer.status, media_type=kind)
    return Response(await answer.read(LIMIT), answer.status, media_type=kind)


async def pieces(answer: HttpResponse) -> AsyncIterator[bytes]:
    """Yield a stream's pieces as they come."""
    async for piece in answer.chunks(600):
        yield piece


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
gc.collect()
gc.freeze()
gc.set_threshold(50_000, 20, 100)  # as Switchyard's own host has it
