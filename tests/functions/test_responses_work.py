"""Responses as lines of a batch: read and shown without an HTTP call."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import Response

from functions.work import Stored
from functions.works import WORKS
from shared.core.errors import InvalidRequestError
from shared.core.records import Caller
from shared.executor import complete
from tests.functions.harness import Edge

WORK = WORKS["/v1/responses"]
CALLER = Caller(key_id="k", project="default")


async def test_a_line_is_answered_and_its_response_is_not_kept(edge: Edge) -> None:
    """Whoever keeps the batch keeps its answers; shown again, it has the same id."""
    body: dict[str, Any] = {"model": "small", "input": "Hello", "metadata": {"a": "b"}}
    request = await WORK.read(Stored(edge.gateway, CALLER), body)
    answer = await complete(edge.gateway, CALLER, request, request_id="req_1")
    shown = WORK.render(answer, body, 5)
    response = Response.model_validate(shown)

    assert ("completed", {"a": "b"}, False) == (response.status, response.metadata, shown["store"])
    assert response.output_text
    assert response.id == WORK.render(answer, body, 5)["id"]
    assert await edge.gateway.responses.find(response.id) is None


@pytest.mark.parametrize(
    ("more", "param"), [({"stream": True}, "stream"), ({"background": True}, "background"), ({"input": 5}, "input")]
)
async def test_what_a_line_can_not_ask_for_is_named(edge: Edge, more: dict[str, Any], param: str) -> None:
    """Nobody waits for it, so there is nobody to stream to."""
    with pytest.raises(InvalidRequestError) as caught:
        await WORK.read(Stored(edge.gateway, CALLER), {"model": "small", "input": "Hello", **more})

    assert param == caught.value.param


async def test_a_line_may_continue_what_is_kept(edge: Edge) -> None:
    """Its own project's only."""
    made = (await edge.post("/v1/responses", {"model": "small", "input": "Hello"}, headers=await edge.key("default"))).json
    body = {"model": "small", "input": "And?", "previous_response_id": made["id"]}
    request = await WORK.read(Stored(edge.gateway, CALLER), body)

    assert ["user", "assistant", "user"] == [message["role"] for message in request.payload["messages"]]
    with pytest.raises(InvalidRequestError):
        await WORK.read(Stored(edge.gateway, Caller(key_id="k", project="other")), body)
