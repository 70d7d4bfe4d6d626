"""OpenAI's Batch API from upload to download, as its own SDK uses it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, BadRequestError, ConflictError, NotFoundError
from openai.types import Batch

from local.simulator import FaultKind
from tests.functions.harness import Edge

CHAT: Final = "/v1/chat/completions"
ENDED = frozenset({"completed", "failed", "cancelled", "expired"})


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[AsyncOpenAI]:
    """Return the SDK's client."""
    async with AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=edge.admin, max_retries=0) as found:
        yield found


def asks(name: str, url: str = CHAT, **body: Any) -> bytes:
    """Return a line of an input file."""
    body = {"model": "small", "messages": [{"role": "user", "content": f"Hello {name}"}]} | body
    return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body}).encode()


async def upload(client: AsyncOpenAI, lines: Iterable[bytes], newline: bytes = b"\n") -> str:
    """Upload an input file; return its id."""
    made = await client.files.create(file=("input.jsonl", newline.join(lines) + newline), purpose="batch")
    return made.id


async def ended(client: AsyncOpenAI, batch: Batch) -> Batch:
    """Wait until a batch has ended."""
    async with asyncio.timeout(60):
        while batch.status not in ENDED:
            await asyncio.sleep(0.05)
            batch = await client.batches.retrieve(batch.id)
    return batch


async def read(client: AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """Download a file of results."""
    if file_id is None:
        return []
    content = await client.files.content(file_id)
    return [json.loads(line) for line in content.text.splitlines()]


async def run(client: AsyncOpenAI, lines: Iterable[bytes], newline: bytes = b"\n") -> Batch:
    """Upload lines and run them to their end."""
    file_id = await upload(client, lines, newline)
    return await ended(client, await client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h"))


async def test_a_batch_from_upload_to_download(client: AsyncOpenAI, edge: Edge) -> None:
    """Every line is answered once, in order, with its own request id; counts, usage and cost add up."""
    names = [f"line-{number}" for number in range(230)]

    file_id = await upload(client, [asks(name) for name in names])
    made = await client.batches.create(
        input_file_id=file_id, endpoint=CHAT, completion_window="24h", metadata={"for": "a test"}
    )
    batch = await ended(client, made)
    results = await read(client, batch.output_file_id)

    assert batch.status == "completed"
    assert batch.metadata == {"for": "a test"}
    assert batch.request_counts is not None
    assert (230, 230, 0) == (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed)
    assert batch.error_file_id is None
    assert names == [one["custom_id"] for one in results]
    assert {200} == {one["response"]["status_code"] for one in results}
    assert 230 == len({one["response"]["request_id"] for one in results})
    assert "chat.completion" == results[0]["response"]["body"]["object"]
    assert batch.usage is not None
    assert batch.usage.input_tokens == sum(one["response"]["body"]["usage"]["prompt_tokens"] for one in results)
    cost = sum(one["switchyard"]["cost_nano_usd"] for one in results)
    assert cost == (await edge.get(f"/v1/batches/{batch.id}")).json["switchyard"]["cost_nano_usd"] > 0
    assert 230 == len(edge.sent())


async def test_bad_lines_are_told_and_good_lines_run(client: AsyncOpenAI) -> None:
    """What is wrong with a line stands in the error file, with its number; a BOM, CRLF and empty lines are no mistakes."""
    lines = [
        b"\xef\xbb\xbf" + asks("first"),
        b"",
        asks("second"),
        b'{"custom_id": "broken", ',
        b"[1]",
        b'{"method": "POST", "url": "/v1/chat/completions", "body": {}}',
        asks("elsewhere", "/v1/embeddings"),
        asks("first"),
        asks("no model", model="nobody"),
        asks("no messages", messages=[]),
        asks("streams", stream=True),
        asks("dear", budget_limit=0.0),
        asks("last"),
    ]

    batch = await run(client, lines, b"\r\n")
    good, bad = await read(client, batch.output_file_id), await read(client, batch.error_file_id)

    assert "completed" == batch.status
    assert ["first", "second", "last"] == [one["custom_id"] for one in good]
    told = [(one["custom_id"], (one["error"] or one["response"]["body"]["error"])["code"]) for one in bad]
    assert told == [
        (None, "invalid_json_line"),
        (None, "invalid_json_line"),
        (None, "invalid_custom_id"),
        ("elsewhere", "invalid_url"),
        ("first", "duplicate_custom_id"),
        ("no model", "model_not_found"),
        ("no messages", "invalid_value"),
        ("streams", "unsupported_value"),
        ("dear", "no_candidate"),
    ]
    assert [4, 5, 6, 7, 8, 11] == [one["error"]["line"] for one in bad if one["error"]]
    assert "Line 4" in bad[0]["error"]["message"]
    assert "line 1" in bad[4]["error"]["message"]


async def test_the_broken_line_17(client: AsyncOpenAI) -> None:
    """A broken line 17 is told by its number, and the other lines run."""
    lines = [asks(str(number)) for number in range(1, 31)]
    lines[16] = lines[16][:-20]

    batch = await run(client, lines)
    (bad,) = await read(client, batch.error_file_id)

    assert batch.request_counts is not None
    assert (30, 29, 1) == (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed)
    assert "Line 17 " in bad["error"]["message"]


async def test_a_failing_provider_fails_only_its_lines(client: AsyncOpenAI, edge: Edge) -> None:
    """A provider's 400 is the line's own; a provider that is throttled is waited for."""
    edge.simulator.script(
        {
            "profile": "north",
            "faults": [
                {"kind": FaultKind.CONTENT_FILTER.value},
                {"kind": FaultKind.RATE_LIMITED_S.value, "retry_after_s": 0.3},
            ],
        }
    )

    batch = await run(client, [asks(str(number)) for number in range(12)])
    good, bad = await read(client, batch.output_file_id), await read(client, batch.error_file_id)

    assert "completed" == batch.status
    assert 11 == len(good)
    assert [400] == [one["response"]["status_code"] for one in bad]


async def test_cancelling_in_mid_run(client: AsyncOpenAI, edge: Edge) -> None:
    """A cancelled batch keeps what is done; cancelling twice is as good as once, and what is over can't be cancelled."""
    edge.simulator.script({"profile": "north", "latency_ms": 400})
    file_id = await upload(client, [asks(str(number)) for number in range(2000)])
    batch = await client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
    async with asyncio.timeout(60):
        while batch.request_counts is None or not batch.request_counts.completed:
            await asyncio.sleep(0.05)
            batch = await client.batches.retrieve(batch.id)
    with pytest.raises(ConflictError):
        await client.files.delete(file_id)

    first = await client.batches.cancel(batch.id)
    second = await client.batches.cancel(batch.id)
    batch = await ended(client, second)
    results = await read(client, batch.output_file_id)

    assert "cancelling" == first.status
    assert "cancelled" == batch.status
    assert "cancelled" == (await client.batches.cancel(batch.id)).status
    assert batch.request_counts is not None
    assert 0 < len(results) == batch.request_counts.completed < 2000
    assert len(edge.sent()) == len(results)
    assert (await client.files.delete(file_id)).deleted

    done = await run(client, [asks("one")])
    with pytest.raises(ConflictError) as refused:
        await client.batches.cancel(done.id)
    assert "completed" in str(refused.value)


async def test_what_can_be_told_at_once_is_400(client: AsyncOpenAI, edge: Edge) -> None:
    """A batch whose file or fields can't be used is never made."""
    good = await upload(client, [asks("one")])
    kept = await client.files.create(file=("notes.txt", b"hello"), purpose="user_data")
    blank = await upload(client, [b"", b" "])
    broken = await upload(client, [b"{", b"nothing"])
    made = {"input_file_id": good, "endpoint": CHAT, "completion_window": "24h"}

    for change, param, said in (
        ({"input_file_id": "file-unknown"}, "input_file_id", "no file"),
        ({"input_file_id": kept.id}, "input_file_id", "purpose"),
        ({"input_file_id": blank}, "input_file_id", "no request"),
        ({"input_file_id": broken}, "input_file_id", "Line 1"),
        ({"endpoint": "/v1/nothing"}, "endpoint", "one of"),
        ({"completion_window": "100h"}, "completion_window", "72h"),
        ({"completion_window": "soon"}, "completion_window", "hours"),
        ({"webhook_url": "https://10.0.0.1/x"}, "webhook_url", "webhook_url"),
        ({"priority": "low"}, "priority", "known field"),
        ({"metadata": {"k": "v" * 600}}, "metadata.k", "512"),
    ):
        reply = await edge.post("/v1/batches", made | change)
        assert (400, param) == (reply.status, reply.error["param"]), reply.json
        assert said in reply.error["message"]
    assert [] == (await client.batches.list()).data


async def test_lists_and_projects(client: AsyncOpenAI, edge: Edge) -> None:
    """Batches are listed page by page, the newest first; a key sees those of its project only."""
    made = [(await run(client, [asks(str(number))])).id for number in range(3)]

    assert made[::-1] == [batch.id async for batch in client.batches.list(limit=2)]
    assert {made[0]} == {batch.id async for batch in client.batches.list(after=made[1])}
    with pytest.raises(BadRequestError):
        await client.batches.list(after="batch_unknown")
    other = AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=(await edge.key())["authorization"][7:], max_retries=0)
    async with other:
        assert [] == (await other.batches.list()).data
        for asked in (other.batches.retrieve(made[0]), other.batches.cancel(made[0])):
            with pytest.raises(NotFoundError):
                await asked


async def test_a_key_names_one_batch(client: AsyncOpenAI, edge: Edge) -> None:
    """With the same Idempotency-Key the same batch is found, whatever became of the first answer."""
    file_id = await upload(client, [asks("one")])
    body = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    headers = {**edge.headers, "idempotency-key": "the-same-key-0001"}

    first = await edge.call("POST", "/v1/batches", json=body, headers=headers)
    second = await edge.call("POST", "/v1/batches", json=body, headers=headers)

    assert (200, 200) == (first.status, second.status)
    assert first.json["id"] == second.json["id"]
    assert [first.json["id"]] == [batch.id async for batch in client.batches.list()]
    await ended(client, await client.batches.retrieve(first.json["id"]))
    assert 1 == len(edge.sent())


async def test_other_endpoints_and_azures_client(client: AsyncOpenAI, edge: Edge) -> None:
    """Embeddings and responses can be batched too, and Azure's client finds batches at its own paths."""
    for path, body in (
        ("/v1/embeddings", {"model": "vectors", "input": "a text"}),
        ("/v1/completions", {"prompt": "Hello"}),
        ("/v1/responses", {"model": "small", "input": "Hello"}),
        ("/chat/completions", {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}),
    ):
        line = {"custom_id": "one", "method": "POST", "url": path, "body": body}
        file_id = await upload(client, [json.dumps(line).encode()])
        made = await client.batches.create(input_file_id=file_id, endpoint=path, completion_window="1h")  # type: ignore[arg-type]  # the SDK knows one
        batch = await ended(client, made)
        assert (path, None) == (path, batch.error_file_id)
        (result,) = await read(client, batch.output_file_id)
        assert 200 == result["response"]["status_code"]
    azure = AsyncAzureOpenAI(azure_endpoint=edge.url, api_key=edge.admin, api_version="2024-10-21", max_retries=0)
    async with azure:
        assert batch.id == (await azure.batches.retrieve(batch.id)).id
        assert 4 == len((await azure.batches.list()).data)


async def test_deleting_the_output_deletes_the_results(client: AsyncOpenAI, edge: Edge) -> None:
    """Results are kept with the batch, and go with their file."""
    batch = await run(client, [asks("one"), b"broken"])
    assert batch.output_file_id is not None

    await client.files.delete(batch.output_file_id)

    left = [row.row async for row in edge.gateway.tables.table("batches").query(f"s~{batch.id}~000000")]
    assert ["0", "e~00001~00000"] == left
    with pytest.raises(NotFoundError):
        await client.files.content(batch.output_file_id)
    assert 1 == len(await read(client, batch.error_file_id))
