"""The handlers as the Functions worker calls them, without the worker.

The worker serves the extension's own FastAPI application with one route for everything. That route leaves the request for the
invocation, which runs in a task of its own with the route's parameters from the host, and sends whatever response it returns.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from azurefunctions.extensions.base import RequestTrackerMeta  # type: ignore[import-untyped]
from azurefunctions.extensions.http.fastapi import WebApp  # type: ignore[import-untyped]
from starlette.requests import Request
from starlette.responses import Response

from functions.engine import engine_of
from functions.paths import path_pattern, specificity
from local.mounting import Mounted
from tests.functions.harness import Edge, functions, running

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}


def worker(mounted: Mounted) -> Any:
    """Return the application that the worker would serve."""
    routes = sorted(functions().http, key=lambda function: specificity(function.route))
    known = [(function.methods, path_pattern(function.route), function.bound(mounted.engine)) for function in routes]
    web, synchronizer = WebApp(), RequestTrackerMeta.get_synchronizer()

    async def catch_all(request: Request) -> Response:
        for methods, pattern, handler in known:
            if request.method in methods and (match := pattern.fullmatch(request.scope["path"])):
                synchronizer.sync_route_params(request, match.groupdict())
                return await asyncio.ensure_future(handler(request))
        return Response(status_code=404)

    catch_all.__annotations__ = {"request": Request, "return": Response}
    web.route(catch_all)
    return web.get_app()


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    """Return the edge behind the worker's application."""
    async with running(around=worker) as found:
        yield found


async def test_whole_answers_pass_with_their_headers(edge: Edge) -> None:
    """What a handler returns is sent as it is."""
    reply = await edge.post(CHAT, HELLO)

    assert reply.status == 200
    assert reply.json["object"] == "chat.completion"
    assert reply.headers["x-switchyard-model"] == "small"
    assert reply.headers["x-request-id"].startswith("req_")


async def test_streams_come_as_they_are_made(edge: Edge) -> None:
    """The first event is here while the provider still speaks."""
    edge.simulator.script({"faults": ["hang_mid_stream"]})
    async with edge.session.post(edge.url + CHAT, json={**HELLO, "stream": True}, headers=edge.headers) as response:
        assert (await response.content.readline()).startswith(b"data:")
        assert edge.simulator.counters["active"] == 1


async def test_route_parameters_come_from_the_host(edge: Edge) -> None:
    """Also the rest of a path, with its slashes."""
    assert (await edge.get("/v1/models/small")).json["id"] == "small"
    assert (await edge.get("/v1/models/org/none")).error["code"] == "model_not_found"
    reply = await edge.post("/openai/deployments/small/chat/completions", {"messages": HELLO["messages"]})
    assert reply.headers["x-switchyard-model"] == "small"


async def test_refusals_are_openais(edge: Edge) -> None:
    """Without a key, with a broken body, at a path that does not exist."""
    assert (await edge.post(CHAT, HELLO, headers={})).error["code"] == "missing_api_key"
    assert (await edge.call("POST", CHAT, data=b"{")).error["code"] == "invalid_json"
    assert (await edge.get("/nowhere")).error["code"] == "not_found"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_upstream_call(edge: Edge, stream: bool) -> None:  # noqa: FBT001
    """The watch works on the worker's channel too."""
    edge.simulator.script({"faults": ["hang_mid_stream"]})
    async with aiohttp.ClientSession() as leaving:
        with pytest.raises(TimeoutError):
            async with (
                asyncio.timeout(0.4),
                leaving.post(edge.url + CHAT, json={**HELLO, "stream": stream}, headers=edge.headers) as response,
            ):
                await response.read()
    for _ in range(200):
        if edge.sent()[0].disconnected:
            break
        await asyncio.sleep(0.01)

    assert edge.sent()[0].disconnected


BINDING = {
    "taskHubName": "switchyard",
    "creationUrls": {
        "createNewInstancePostUri": "http://localhost:7071/runtime/webhooks/durabletask/orchestrators/{functionName}"
    },
    "managementUrls": {"id": "INSTANCEID", "statusQueryGetUri": "http://localhost:7071/instances/INSTANCEID"},
    "rpcBaseUrl": "http://127.0.0.1:17071/durabletask/",
}
"""What the host hands to a parameter that is bound to a durable client, as text."""


def test_a_durable_clients_text_makes_an_engine_that_never_forgets() -> None:
    """The same one for the same text: it is the same in every call."""
    text = json.dumps(BINDING)

    assert engine_of(text).name == "durable"
    assert engine_of(text) is engine_of(text)
