"""Responses in the background: asked for, looked at, cancelled, continued and forgotten, with OpenAI's own SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from aiohttp import web
from openai import AsyncOpenAI
from openai.types.responses import Response

from functions import gateway as holder
from shared.chains import Chain, Chains
from shared.core.registry import Secret
from shared.gateway import Gateway
from shared.responses import day_of, partition_of
from tests.functions.harness import SETTINGS, Edge, running
from tests.functions.test_responses import events_of, sdk

PATH = "/v1/responses"
HELLO: dict[str, Any] = {"model": "small", "input": "Hello"}
BACKGROUND: dict[str, Any] = {**HELLO, "background": True}
LONG = 60.0
"""Seconds: far more than any of this takes, on any machine."""


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[AsyncOpenAI]:
    """Return the administrator's client."""
    async with sdk(edge) as found:
        yield found


async def ended(client: AsyncOpenAI, response: Response) -> Response:
    """Return a response once it has ended."""
    async with asyncio.timeout(LONG):
        while response.status in {"queued", "in_progress"}:
            await asyncio.sleep(0.02)
            response = await client.responses.retrieve(response.id)
    return response


async def test_it_is_queued_at_once_and_answered_later(edge: Edge, client: AsyncOpenAI) -> None:
    """The answer is the one an interactive call gets; it is asked for once."""
    edge.simulator.script({"answer": "one two three", "latency_ms": 50})
    queued = await client.responses.create(**BACKGROUND, metadata={"a": "b"})
    response = await ended(client, queued)

    assert (queued.id, "queued", True) == (response.id, queued.status, queued.background)
    assert ("one two three", "completed", {"a": "b"}) == (response.output_text, response.status, response.metadata)
    assert response.usage is not None
    assert response.model_extra is not None
    assert response.model_extra["switchyard"]["cost_usd"] > 0
    assert "north/small" == response.model_extra["switchyard"]["deployment"]
    assert response == await client.responses.retrieve(queued.id)
    assert len(edge.sent()) == 1


async def test_it_goes_on_where_another_deployment_answers(edge: Edge, client: AsyncOpenAI) -> None:
    """As a chain does."""
    edge.simulator.script({"profile": "south", "faults": ["server_error"]})
    response = await ended(client, await client.responses.create(model="big", input="Hello", background=True))

    assert response.model_extra is not None
    assert ("completed", 2) == (response.status, response.model_extra["switchyard"]["attempts"])


async def test_a_cut_answer_is_incomplete(client: AsyncOpenAI) -> None:
    """Its chain was completed; the response tells what that is worth."""
    response = await ended(client, await client.responses.create(**BACKGROUND, max_output_tokens=2))

    assert "incomplete" == response.status


async def test_a_failure_is_told_with_its_code(edge: Edge, client: AsyncOpenAI) -> None:
    """The response is there, and says why it has no answer."""
    edge.simulator.script({"faults": [{"kind": "context_length_exceeded", "times": 9}]})
    response = await ended(client, await client.responses.create(**BACKGROUND))

    assert response.error is not None
    assert ("failed", "invalid_prompt", "input") == (response.status, response.error.code, response.error.param)
    assert [] == response.output


async def test_a_later_turn_builds_on_it(client: AsyncOpenAI) -> None:
    """Interactive or in the background again."""
    first = await ended(client, await client.responses.create(**BACKGROUND))
    second = await client.responses.create(model="small", input="And?", previous_response_id=first.id)
    third = await client.responses.create(model="small", input="And?", previous_response_id=second.id, background=True)
    items = await client.responses.input_items.list(third.id)

    assert len(items.data) == 5
    assert "completed" == (await ended(client, third)).status


async def test_one_without_an_answer_yet_can_not_be_continued(edge: Edge, client: AsyncOpenAI) -> None:
    """It says where it stands."""
    edge.simulator.script({"faults": [{"kind": "hang_before_headers"}]})
    queued = await client.responses.create(**BACKGROUND)
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(**HELLO, previous_response_id=queued.id)
    await client.responses.cancel(queued.id)

    assert "previous_response_not_completed" == caught.value.code


async def test_cancelling_twice_is_as_good_as_once(edge: Edge, client: AsyncOpenAI) -> None:
    """While it runs it ends; afterwards it stays as it is."""
    edge.simulator.script({"faults": [{"kind": "hang_before_headers"}]})
    queued = await client.responses.create(**BACKGROUND)
    async with asyncio.timeout(LONG):
        while not edge.sent():
            await asyncio.sleep(0.02)
    first = await ended(client, await client.responses.cancel(queued.id))
    again = await client.responses.cancel(queued.id)

    assert ("cancelled", "cancelled") == (first.status, again.status)
    assert [] == again.output


async def test_cancelling_what_has_ended_changes_nothing(client: AsyncOpenAI) -> None:
    """The answer is there and stays."""
    response = await ended(client, await client.responses.create(**BACKGROUND))

    assert response == await client.responses.cancel(response.id)


async def test_deleting_one_that_runs_cancels_it(edge: Edge, client: AsyncOpenAI) -> None:
    """Nothing of it is left, its chain neither."""
    edge.simulator.script({"faults": [{"kind": "hang_before_headers"}]})
    queued = await client.responses.create(**BACKGROUND)
    async with asyncio.timeout(LONG):
        while True:
            try:
                await client.responses.delete(queued.id)
                break
            except openai.ConflictError:
                await asyncio.sleep(0.1)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(queued.id)

    assert await edge.gateway.chains.find(queued.id) is None


async def test_its_stream_follows_it_to_its_end(edge: Edge, client: AsyncOpenAI) -> None:
    """Created, queued, in progress, then all that came of it; whoever lost the connection goes on from any event."""
    edge.simulator.script({"answer": "one two three", "latency_ms": 100})
    events = [event async for event in await client.responses.create(**BACKGROUND, stream=True)]
    last = events[-1]
    assert last.type == "response.completed"
    later = [event async for event in await client.responses.retrieve(last.response.id, stream=True, starting_after=2)]

    assert ["response.created", "response.queued", "response.in_progress"] == [event.type for event in events[:3]]
    assert list(range(len(events))) == [event.sequence_number for event in events]
    assert "one two three" == last.response.output_text
    assert events[3:] == later


async def test_a_stream_that_is_left_does_not_stop_it(edge: Edge, client: AsyncOpenAI) -> None:
    """Nobody needs to listen."""
    edge.simulator.script({"latency_ms": 300})
    stream = await client.responses.create(**BACKGROUND, stream=True)
    first = await anext(aiter(stream))
    await stream.close()
    assert first.type == "response.created"

    assert "completed" == (await ended(client, first.response)).status


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_key_finds_the_same_response(edge: Edge, stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Many at once, and one after the other: one id, one bill."""
    headers = {**edge.headers, "idempotency-key": "k-1"}
    body = {**BACKGROUND, "stream": stream}
    replies = await asyncio.gather(*(edge.post(PATH, body, headers=headers) for _ in range(4)))
    replies.append(await edge.post(PATH, body, headers=headers))

    assert {200} == {reply.status for reply in replies}
    ids = {events_of(reply.body)[0]["response"]["id"] if stream else reply.json["id"] for reply in replies}
    assert len(ids) == 1
    async with sdk(edge) as client:
        await ended(client, await client.responses.retrieve(ids.pop()))
    assert len(edge.sent()) == 1


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"store": False}, "background"),
        ({"webhook_url": "https://example.com/hook"}, "webhook_url"),
        ({"deadline_seconds": 0}, "deadline_seconds"),
        ({"background": False, "deadline_seconds": 60}, "deadline_seconds"),
        ({"background": False, "webhook_url": "https://example.com/hook"}, "webhook_url"),
        ({"model": "gone-for-good"}, "model"),
    ],
)
async def test_what_can_not_be_begun_is_refused_at_once(edge: Edge, more: dict[str, Any], param: str) -> None:
    """And nothing of it is kept."""
    reply = await edge.post(PATH, {**BACKGROUND, **more})

    assert reply.status in {400, 404}
    assert param == reply.error["param"] or reply.status == 404
    assert [] == [chain async for chain in edge.gateway.chains.newest()]
    day = day_of(edge.gateway.clock.now())
    assert [] == [entity async for entity in edge.gateway.tables.table("responses").query(day)]


async def test_a_webhook_is_told_of_the_end() -> None:
    """On a listed host; any other, and a private address whatever is listed, is refused."""
    told: asyncio.Queue[Any] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        told.put_nowait(await request.json())
        return web.Response()

    receiver = web.Application()
    receiver.router.add_post("/hook", take)
    runner = web.AppRunner(receiver)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    settings = replace(SETTINGS, webhook_hosts=("127.0.0.1", "10.0.0.1"), webhook_secret=Secret("s" * 32))
    async with running(settings) as edge:
        tried = [
            await edge.post(PATH, {**BACKGROUND, "webhook_url": url})
            for url in ("https://elsewhere.example.com/", "https://10.0.0.1/", "not a url")
        ]
        made = await edge.post(PATH, {**BACKGROUND, "webhook_url": f"http://127.0.0.1:{port}/hook"})
        async with asyncio.timeout(LONG):
            event = await told.get()
    await runner.cleanup()

    assert {(400, "webhook_url")} == {(reply.status, reply.error["param"]) for reply in tried}
    assert ("response.completed", made.json["id"]) == (event["type"], event["data"]["id"])


async def test_another_projects_background_response_is_not_there(edge: Edge) -> None:
    """Nor can it be cancelled."""
    mine, others = await edge.key("shop"), await edge.key("else")
    made = (await edge.post(PATH, BACKGROUND, headers=mine)).json

    assert (await edge.get(f"{PATH}/{made['id']}", headers=others)).status == 404
    assert (await edge.post(f"{PATH}/{made['id']}/cancel", {}, headers=others)).status == 404
    async with sdk(edge, mine) as client:
        assert "completed" == (await ended(client, await client.responses.retrieve(made["id"]))).status


async def test_one_that_was_never_begun_has_failed(edge: Edge, client: AsyncOpenAI) -> None:
    """Whoever made it died between keeping it and starting its chain: nobody waits for it for ever."""
    response = await ended(client, await client.responses.create(**BACKGROUND))
    table = edge.gateway.tables.table("responses")
    head = await table.get(partition_of(response.id), "0")
    assert head is not None
    torn = {**head.properties, "ended": False, "created_at": edge.gateway.clock.now() - 3_600}
    await table.replace(replace(head, properties=torn))
    await edge.gateway.chains.delete(response.id)

    assert "failed" == (await client.responses.retrieve(response.id)).status


class _AtOnce(Chains):
    """Lets the first two calls look for a chain at the same moment."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway.tables, gateway.clock)
        self._looked = 0
        self._both = asyncio.Event()

    async def find(self, chain_id: str) -> Chain | None:
        """Look when the other one does."""
        found = await super().find(chain_id)
        self._looked += 1
        if self._looked == 2:
            self._both.set()
        await self._both.wait()
        return found


async def test_a_call_that_is_refused_leaves_another_of_its_key_alone(edge: Edge) -> None:
    """Both see no chain; one makes it, the other is over the limit: the response is there, and answered."""
    made = await edge.gateway.keys.create("test", "shop", requests_per_minute=1)
    mine = {"authorization": f"Bearer {made.token.reveal()}"}
    holder.use(replace(edge.gateway, chains=_AtOnce(edge.gateway)))
    async with asyncio.timeout(LONG):
        replies = await asyncio.gather(
            *(edge.post(PATH, BACKGROUND, headers={**mine, "idempotency-key": "one"}) for _ in range(2))
        )
    holder.use(edge.gateway)

    assert [200, 429] == sorted(reply.status for reply in replies)
    name = next(reply.json["id"] for reply in replies if reply.status == 200)
    async with sdk(edge, mine) as client:
        assert "completed" == (await ended(client, await client.responses.retrieve(name))).status
