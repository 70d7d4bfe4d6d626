"""``Idempotency-Key`` with ``Prefer: respond-async``: the same key and body are the same chain, whatever gets lost."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import orjson
import pytest

from functions import gateway as holder
from shared.chains import Chain, Chains
from shared.core.errors import StorageUnavailableError
from shared.idempotency import Begun
from tests.functions.harness import ADMIN_KEY, Edge, Reply

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
OTHER = {**HELLO, "temperature": 0.5}
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
NAME = "0b7f1a50-5c9c-4f63-9d0c-3f5b3a1f2c11"
KEY = {**ADMIN, "idempotency-key": NAME}
ASYNC = {**KEY, "prefer": "respond-async"}


async def settled(edge: Edge, path: str) -> Reply:
    """Return what a chain came to."""
    async with asyncio.timeout(60):
        while (reply := await edge.get(path)).status == 202:
            await asyncio.sleep(0.02)
    return reply


def request() -> bytes:
    """Return what `HELLO` is to the store of keys."""
    return CHAT.encode() + b"\0" + orjson.dumps(HELLO)


async def post(edge: Edge, body: object, headers: dict[str, str]) -> Reply:
    """Post exactly these bytes."""
    return await edge.call("POST", CHAT, data=orjson.dumps(body), headers=headers)


async def test_the_same_key_and_body_are_the_same_chain(edge: Edge) -> None:
    """The same 202 with the same Location, also when the chain has ended; billed once."""
    first = await post(edge, HELLO, ASYNC)
    await settled(edge, first.headers["location"])
    again = await post(edge, HELLO, ASYNC)

    assert (202, 202, first.body) == (first.status, again.status, again.body)
    assert first.headers["location"] == again.headers["location"]
    assert (None, "true") == (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"])
    assert 1 == len(edge.sent())


async def test_many_at_once_are_one_chain(edge: Edge) -> None:
    """None is told to wait, none starts another; who waits gets the answer, and it is the same one."""
    edge.simulator.script({"latency_ms": 300})
    patient = {**KEY, "prefer": "respond-async, wait=60"}
    replies = await asyncio.gather(*(post(edge, HELLO, headers) for headers in (ASYNC, patient, patient)))

    chains = {reply.headers.get("x-switchyard-chain") or reply.json["id"] for reply in replies}
    assert {reply.status for reply in replies} <= {200, 202}
    assert 1 == len(chains)
    assert 1 == len((await edge.get("/v1/chains")).json["data"])
    await settled(edge, f"/v1/chains/{chains.pop()}")
    assert 1 == len(edge.sent())


async def test_another_body_under_the_same_key_is_refused(edge: Edge) -> None:
    """No second chain."""
    await post(edge, HELLO, ASYNC)
    other = await post(edge, OTHER, ASYNC)

    assert (409, "idempotency_key_reused", "false") == (other.status, other.error["code"], other.headers["x-should-retry"])
    assert 1 == len((await edge.get("/v1/chains")).json["data"])


async def test_a_key_stands_for_path_and_body_whatever_is_preferred(edge: Edge) -> None:
    """Who comes again without the preference, or with it for the first time, gets what the first call got."""
    first = await post(edge, HELLO, ASYNC)
    without = await post(edge, HELLO, KEY)
    assert (202, first.headers["location"]) == (without.status, without.headers["location"])

    fresh = {**ADMIN, "idempotency-key": "another"}
    answer = await post(edge, HELLO, fresh)
    with_it = await post(edge, HELLO, {**fresh, "prefer": "respond-async"})
    assert (200, 200, answer.body) == (answer.status, with_it.status, with_it.body)
    assert 1 == len((await edge.get("/v1/chains")).json["data"])


async def test_a_key_belongs_to_its_caller(edge: Edge) -> None:
    """Another caller's same key and body are another chain, in the same project too, and nobody reads the other's by it."""
    mine, theirs, foreign = await edge.key("shop"), await edge.key("shop"), await edge.key("bank")
    asked = {"idempotency-key": NAME, "prefer": "respond-async"}
    replies = [await post(edge, HELLO, {**who, **asked}) for who in (mine, theirs, foreign)]

    assert [202] * 3 == [reply.status for reply in replies]
    assert 3 == len({reply.headers["location"] for reply in replies})
    assert 404 == (await edge.get(replies[0].headers["location"], headers=foreign)).status


async def test_a_process_that_died_before_it_started_the_chain_blocks_nobody(edge: Edge) -> None:
    """Its key is taken and nothing is there: the retry makes the chain at once."""
    dead = await edge.gateway.idempotency.begin("admin", NAME, request(), joins=True)
    assert isinstance(dead, Begun)

    assert 202 == (await post(edge, HELLO, ASYNC)).status
    assert 409 == (await post(edge, OTHER, ASYNC)).status


async def test_a_process_that_died_before_it_told_of_the_chain_leaves_it_to_be_found(edge: Edge) -> None:
    """The chain is there and its 202 was never kept: the retry finds it, and it is billed once."""
    first = await post(edge, HELLO, ASYNC)
    await settled(edge, first.headers["location"])
    digest = hashlib.sha256(f"admin\0{NAME}".encode()).hexdigest()
    await edge.gateway.tables.table("idempotency").delete(digest[:2], digest[2:])
    await edge.gateway.idempotency.begin("admin", NAME, request(), joins=True)

    again = await post(edge, HELLO, ASYNC)
    assert (202, first.headers["location"]) == (again.status, again.headers["location"])
    assert 1 == len(edge.sent())


class _Unanswered(Chains):
    """A store that writes a chain and does not say so."""

    async def create(self, chain: Chain, body: bytes, trace: bytes = b"") -> Chain:
        await super().create(chain, body, trace)
        message = "The store did not answer."
        raise StorageUnavailableError(message)


async def test_a_store_that_did_not_answer_leaves_one_chain(edge: Edge) -> None:
    """503, and the key stays taken: the retry finds the chain, another body is refused."""
    holder.use(replace(edge.gateway, chains=_Unanswered(edge.gateway.tables, edge.gateway.clock)))
    assert 503 == (await post(edge, HELLO, ASYNC)).status
    holder.use(edge.gateway)

    assert 409 == (await post(edge, OTHER, ASYNC)).status
    again = await post(edge, HELLO, ASYNC)
    assert 202 == again.status
    assert 1 == len((await edge.get("/v1/chains")).json["data"])
    assert 200 == (await settled(edge, again.headers["location"])).status
    assert 1 == len(edge.sent())


async def test_a_refused_request_gives_its_key_back(edge: Edge) -> None:
    """A 400 started nothing: the key may be used for the request as it should have been."""
    assert 400 == (await post(edge, {**HELLO, "temperature": 9}, ASYNC)).status
    assert 202 == (await post(edge, HELLO, ASYNC)).status


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/batches"])
async def test_a_key_of_10_kilobytes_is_refused_by_name(edge: Edge, path: str) -> None:
    """400 that names the header; nothing is stored."""
    body = {**HELLO, "prompt": "Hello", "input": "Hello"}
    reply = await edge.call("POST", path, data=orjson.dumps(body), headers={**ASYNC, "idempotency-key": "k" * 10_240})

    assert (400, "Idempotency-Key") == (reply.status, reply.error["param"])
    assert [] == (await edge.get("/v1/chains")).json["data"]
