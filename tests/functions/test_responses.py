"""Responses over HTTP as OpenAI's own SDK sees them: whole, streamed, continued, and kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import openai
import orjson
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI
from pydantic import BaseModel

from functions import gateway as holder
from functions import streaming
from shared.responses import Responses
from tests.functions.harness import Edge
from tests.stores.conftest import Weather, WeatheredTables

PATH = "/v1/responses"
HELLO: dict[str, Any] = {"model": "small", "input": "Hello"}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Train(BaseModel):
    """What structured output is asked to look like."""

    name: str
    wheels: int


def sdk(edge: Edge, headers: dict[str, str] | None = None) -> AsyncOpenAI:
    """Return OpenAI's client for a running edge."""
    key = (headers or edge.headers)["authorization"].removeprefix("Bearer ")
    return AsyncOpenAI(base_url=edge.url + "/v1", api_key=key, max_retries=0)


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[AsyncOpenAI]:
    """Return the administrator's client."""
    async with sdk(edge) as found:
        yield found


def events_of(body: bytes) -> list[dict[str, Any]]:
    """Return a stream's events; each is named by its type."""
    found = []
    for block in body.decode().strip().split("\n\n"):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        value = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        found.append(value)
    return found


# ---- whole -----------------------------------------------------------------------------------------------------------


async def test_an_answer_is_a_whole_response(edge: Edge, client: AsyncOpenAI) -> None:
    """With its text, its usage, who gave it; headers as chat's."""
    edge.simulator.script({"answer": "one two three"})
    raw = await client.responses.with_raw_response.create(**HELLO, metadata={"a": "b"}, instructions="Count")
    response = raw.parse()

    assert ("one two three", "completed", {"a": "b"}, "Count") == (
        response.output_text,
        response.status,
        response.metadata,
        response.instructions,
    )
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert "north/small" == raw.headers["x-switchyard-deployment"]
    nano = response.usage.input_tokens * 1_000 + response.usage.output_tokens * 2_000
    assert round(float(raw.headers["x-switchyard-cost-usd"]) * 1e9) == nano
    assert response.model_extra is not None
    assert raw.headers["x-request-id"] == response.model_extra["switchyard"]["request_id"]
    (sent,) = edge.sent()
    assert not {"metadata", "store", "input", "instructions"} & set(sent.parameters)


async def test_azures_client_works_by_changing_its_endpoint(edge: Edge) -> None:
    """Under both of Azure's paths, old and new."""
    async with AsyncAzureOpenAI(
        azure_endpoint=edge.url, api_key=edge.admin, api_version="2025-04-01-preview", max_retries=0
    ) as azure:
        made = await azure.responses.create(**HELLO)
        kept = await azure.responses.retrieve(made.id)
        listed = await azure.responses.input_items.list(made.id)
        await azure.responses.delete(made.id)
    reply = await edge.post("/openai/v1/responses", HELLO)

    assert made == kept
    assert len(listed.data) == 1
    assert (200, "response") == (reply.status, reply.json["object"])


async def test_an_answer_cut_by_its_limit_is_incomplete(client: AsyncOpenAI) -> None:
    """And says why."""
    response = await client.responses.create(**HELLO, max_output_tokens=2)

    assert response.incomplete_details is not None
    assert ("incomplete", "max_output_tokens") == (response.status, response.incomplete_details.reason)


async def test_tools_make_the_round(edge: Edge, client: AsyncOpenAI) -> None:
    """The model calls, the application answers, with and without the conversation being kept here."""
    asked: Any = [{"role": "user", "content": "Weather in Rome?"}]
    first = await client.responses.create(model="big", input=asked, tools=[WEATHER], tool_choice="required")
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert ("get_weather", {"city"}) == (call.name, set(orjson.loads(call.arguments)))
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    kept = await client.responses.create(model="big", previous_response_id=first.id, input=[output], tools=[WEATHER])
    sent_again: Any = [*asked, *[item.model_dump() for item in first.output], output]
    alone = await client.responses.create(model="big", input=sent_again, tools=[WEATHER], store=False)

    assert kept.output_text
    assert kept.output_text == alone.output_text
    assert len(edge.sent()) == 3


async def test_structured_output_is_parsed(client: AsyncOpenAI) -> None:
    """By the SDK, from a schema that a chat model obeyed."""
    response = await client.responses.parse(model="big", input="A train", text_format=Train)

    assert isinstance(response.output_parsed, Train)


async def test_a_providers_refusal_names_the_callers_field(edge: Edge, client: AsyncOpenAI) -> None:
    """Who sends Responses need not know chat."""
    edge.simulator.script({"faults": [{"kind": "context_length_exceeded", "times": 9}]})
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(**HELLO)

    assert ("context_length_exceeded", "input") == (caught.value.code, caught.value.param)


# ---- streamed --------------------------------------------------------------------------------------------------------


async def test_a_stream_is_put_together_by_the_sdk(edge: Edge, client: AsyncOpenAI) -> None:
    """Event by event, to the same response that is kept."""
    edge.simulator.script({"answer": "one two three"})
    async with client.responses.stream(model="small", input="Hello") as stream:
        seen = [event.type async for event in stream]
        final = await stream.get_final_response()
    kept = await client.responses.retrieve(final.id)

    assert ("response.created", "response.in_progress", "response.completed") == (seen[0], seen[1], seen[-1])
    assert "one two three" == final.output_text == kept.output_text
    assert kept.model_extra is not None
    assert kept.model_extra["switchyard"]["cost_usd"] > 0


async def test_streamed_calls_and_structured_output(client: AsyncOpenAI) -> None:
    """The SDK parses both as they come."""
    async with client.responses.stream(model="big", input="Weather?", tools=[WEATHER], tool_choice="required") as stream:
        async for _ in stream:
            pass
        (call,) = (await stream.get_final_response()).output
    async with client.responses.stream(model="big", input="A train", text_format=Train) as stream:
        parsed = (await stream.get_final_response()).output_parsed

    assert call.type == "function_call"
    assert {"city"} == set(orjson.loads(call.arguments))
    assert isinstance(parsed, Train)


async def test_a_stream_has_named_events_and_no_done(edge: Edge) -> None:
    """As OpenAI sends them: numbered from 0, the last one with everything."""
    reply = await edge.post(PATH, {**HELLO, "stream": True})
    found = events_of(reply.body)

    assert reply.headers["content-type"].startswith("text/event-stream")
    assert list(range(len(found))) == [one["sequence_number"] for one in found]
    assert b"[DONE]" not in reply.body
    assert "small" == reply.headers["x-switchyard-model"]
    assert (await edge.get(f"{PATH}/{found[0]['response']['id']}")).json == found[-1]["response"]


async def test_a_stream_that_breaks_off_ends_with_a_failed_response(edge: Edge, client: AsyncOpenAI) -> None:
    """What came stands, and is kept as failed: it can't be continued."""
    edge.simulator.script({"faults": ["cut_mid_stream"]})
    last = None
    async for event in await client.responses.create(**HELLO, stream=True):
        last = event
    assert last is not None
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert ("failed", "server_error") == (last.response.status, last.response.error.code)
    assert last.response.output_text
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(**HELLO, previous_response_id=last.response.id)

    assert "previous_response_not_completed" == caught.value.code


async def test_an_error_before_any_content_is_a_status(edge: Edge) -> None:
    """Nothing is committed before the first content."""
    edge.simulator.script({"rates": {"server_error": 1.0}})
    reply = await edge.post(PATH, {**HELLO, "stream": True})

    assert (503, "all_attempts_failed") == (reply.status, reply.error["code"])


async def test_an_error_after_long_waiting_is_an_event(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status was sent: the response begins, and fails."""
    monkeypatch.setattr(streaming, "KEEP_ALIVE_SECONDS", 0.02)
    edge.simulator.script({"latency_ms": 150, "rates": {"server_error": 1.0}})
    reply = await edge.post(PATH, {**HELLO, "stream": True})

    assert ["response.created", "response.in_progress", "response.failed"] == [one["type"] for one in events_of(reply.body)]


# ---- continued and kept ----------------------------------------------------------------------------------------------


async def test_a_conversation_goes_on_from_what_is_kept(client: AsyncOpenAI) -> None:
    """Every turn before is sent again; instructions are not carried over; deleting one turn does not break the others."""
    first = await client.responses.create(**HELLO, instructions="Be brief")
    second = await client.responses.create(model="small", input="And then?", previous_response_id=first.id)
    await client.responses.delete(first.id)
    third = await client.responses.create(model="small", input="And?", previous_response_id=second.id)
    listed = [item async for item in client.responses.input_items.list(third.id, order="asc", limit=2)]

    assert third.previous_response_id == second.id
    assert ["user", "assistant", "user", "assistant", "user"] == [item.role for item in listed if item.type == "message"]
    assert first.usage is not None
    assert second.usage is not None
    assert third.usage is not None
    assert third.usage.input_tokens > second.usage.input_tokens > first.usage.input_tokens


async def test_items_are_found_by_reference(client: AsyncOpenAI) -> None:
    """Of any response that is kept, not only the previous one."""
    first = await client.responses.create(**HELLO)
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    second = await client.responses.create(model="small", input=[reference, {"role": "user", "content": "Why?"}])
    items = await client.responses.input_items.list(second.id, order="asc")

    assert first.output[0].id == items.data[0].id
    assert "message" == items.data[0].type


async def test_input_items_come_in_pages(edge: Edge, client: AsyncOpenAI) -> None:
    """The newest first, as at OpenAI."""
    given: Any = [{"role": "user", "content": str(number)} for number in range(5)]
    response = await client.responses.create(model="small", input=given)
    newest = await client.responses.input_items.list(response.id, limit=2)
    rest = await client.responses.input_items.list(response.id, limit=9, after=newest.data[-1].id or "")
    both = [item.content[0].text for item in (*newest.data, *rest.data) if item.type == "message"]  # type: ignore[union-attr]

    assert ["4", "3", "2", "1", "0"] == both
    assert (True, False) == (newest.has_more, rest.has_more)
    assert "after" == (await edge.get(f"{PATH}/{response.id}/input_items?after=msg_x")).error["param"]
    assert "limit" == (await edge.get(f"{PATH}/{response.id}/input_items?limit=101")).error["param"]


async def test_what_is_not_stored_is_not_there(edge: Edge, client: AsyncOpenAI) -> None:
    """Neither to be read nor to be continued."""
    response = await client.responses.create(**HELLO, store=False)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(**HELLO, previous_response_id=response.id)

    assert ("previous_response_not_found", "previous_response_id") == (caught.value.code, caught.value.param)
    assert response.model_extra is not None
    assert response.model_extra["store"] is False
    assert len(edge.sent()) == 1


async def test_what_is_deleted_is_gone(client: AsyncOpenAI) -> None:
    """Twice is a 404."""
    response = await client.responses.create(**HELLO)
    await client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.delete(response.id)


async def test_another_projects_response_is_not_there(edge: Edge) -> None:
    """Not to be read, continued, listed, deleted, cancelled, or referred to."""
    mine, others = await edge.key("shop"), await edge.key("else")
    made = (await edge.post(PATH, HELLO, headers=mine)).json
    one = f"{PATH}/{made['id']}"

    tried = [
        await edge.get(one, headers=others),
        await edge.get(one + "/input_items", headers=others),
        await edge.call("DELETE", one, headers=others),
        await edge.post(one + "/cancel", {}, headers=others),
    ]
    assert {(404, "response_not_found")} == {(reply.status, reply.error["code"]) for reply in tried}
    continued = await edge.post(PATH, {**HELLO, "previous_response_id": made["id"]}, headers=others)
    assert (400, "previous_response_not_found") == (continued.status, continued.error["code"])
    referred = await edge.post(PATH, {"model": "small", "input": [{"id": made["output"][0]["id"]}]}, headers=others)
    assert (400, "item_not_found", "input[0].id") == (referred.status, referred.error["code"], referred.error["param"])
    assert (await edge.get(one, headers=mine)).status == 200


async def test_a_kept_response_is_streamed_again(client: AsyncOpenAI) -> None:
    """From any event on."""
    made = await client.responses.create(**HELLO)
    events = [event async for event in await client.responses.retrieve(made.id, stream=True)]
    later = [event async for event in await client.responses.retrieve(made.id, stream=True, starting_after=3)]

    assert events[-1].type == "response.completed"
    assert made.output_text == events[-1].response.output_text
    assert events[4:] == later


async def test_only_background_responses_can_be_cancelled(client: AsyncOpenAI) -> None:
    """The others have ended, or end with their connection."""
    made = await client.responses.create(**HELLO)
    with pytest.raises(openai.BadRequestError):
        await client.responses.cancel(made.id)


# ---- once ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_key_is_answered_once(edge: Edge, stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Whole or streamed, byte for byte."""
    headers = {**edge.headers, "idempotency-key": "k-1"}
    first = await edge.post(PATH, {**HELLO, "stream": stream}, headers=headers)
    again = await edge.post(PATH, {**HELLO, "stream": stream}, headers=headers)

    assert first.body == again.body
    assert "true" == again.headers["idempotent-replayed"]
    assert len(edge.sent()) == 1


async def test_a_stream_that_broke_off_is_not_given_again(edge: Edge) -> None:
    """Whoever tries again gets an answer."""
    headers = {**edge.headers, "idempotency-key": "k-1"}
    edge.simulator.script({"faults": ["cut_mid_stream"]})
    first = await edge.post(PATH, {**HELLO, "stream": True}, headers=headers)
    again = await edge.post(PATH, {**HELLO, "stream": True}, headers=headers)

    assert "response.failed" == events_of(first.body)[-1]["type"]
    assert "response.completed" == events_of(again.body)[-1]["type"]


# ---- a store that does not answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_can_not_be_kept_is_given_and_says_so(edge: Edge, stream: bool) -> None:  # noqa: FBT001 - as above
    """It was paid for; what can't be started without being kept is not started."""
    weather = Weather()
    responses = Responses(WeatheredTables(edge.gateway.tables, weather), edge.gateway.clock)
    holder.use(replace(edge.gateway, responses=responses))
    weather.down = True
    reply = await edge.post(PATH, {**HELLO, "stream": stream})
    refused = await edge.post(PATH, {**HELLO, "background": True, "stream": stream})
    response = events_of(reply.body)[-1]["response"] if stream else reply.json
    weather.down = False

    assert (200, "completed", False) == (reply.status, response["status"], response["store"])
    assert (503, "storage_unavailable") == (refused.status, refused.error["code"])
    assert (await edge.get(f"{PATH}/{response['id']}")).status == 404
    assert [] == [chain async for chain in edge.gateway.chains.newest()]
