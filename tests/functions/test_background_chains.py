"""``/v1/chains``: where chains stand, what they came to, cancelling and forgetting them, and who may see them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from functions import background_chains
from shared.chains import Chain, Kind, State
from shared.chains.rows import partition_of
from tests.functions.harness import ADMIN_KEY, Edge, Reply

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
ASYNC = {"prefer": "respond-async"}
THROTTLED = {"faults": [{"kind": "rate_limited_s", "retry_after_s": 3600, "times": 99}]}


async def start(edge: Edge, caller: dict[str, str] | None = None) -> str:
    """Start a chain; return its path."""
    reply = await edge.post(CHAT, HELLO, headers={**(caller or ADMIN), **ASYNC})
    assert reply.status == 202
    return reply.headers["location"]


async def settled(edge: Edge, path: str) -> Reply:
    """Return what a chain came to."""
    async with asyncio.timeout(60):
        while (reply := await edge.get(path)).status == 202:
            await asyncio.sleep(0.02)
    return reply


async def waiting(edge: Edge, path: str) -> Reply:
    """Return a chain that waits."""
    async with asyncio.timeout(60):
        while "waiting_until" not in ((reply := await edge.get(path)).json["detail"] or {}):
            await asyncio.sleep(0.02)
    return reply


async def test_a_chain_that_waits_says_until_when(edge: Edge) -> None:
    """202 with the chain, what it does, and when to look again."""
    edge.simulator.script(THROTTLED)
    path = await start(edge)
    reply = await waiting(edge, path)

    assert (202, path, "in_progress") == (reply.status, reply.headers["location"], reply.json["status"])
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert reply.json["created_at"] <= reply.json["started_at"] < reply.json["deadline_at"]
    assert reply.json["ended_at"] is None
    assert "no-store" == reply.headers["cache-control"]


async def test_cancelling_ends_a_chain_that_waits_and_twice_is_fine(edge: Edge) -> None:
    """200 both times; then its path says 410, which nobody tries again; a third time changes nothing."""
    edge.simulator.script(THROTTLED)
    path = await start(edge)
    await waiting(edge, path)
    first, second = [await edge.post(path + "/cancel", {}) for _ in range(2)]
    gone = await settled(edge, path)
    third = await edge.call("POST", path + "/cancel")

    assert [200, 200, 200] == [first.status, second.status, third.status]
    assert first.json["cancelling"] or first.json["status"] == "cancelled"
    assert (410, "chain_cancelled", "false") == (gone.status, gone.error["code"], gone.headers["x-should-retry"])
    assert ("cancelled", False) == (third.json["status"], third.json["cancelling"])


async def test_cancelling_what_has_ended_changes_nothing(edge: Edge) -> None:
    """The answer stays."""
    path = await start(edge)
    await settled(edge, path)

    assert "completed" == (await edge.post(path + "/cancel", {})).json["status"]
    assert 200 == (await edge.get(path)).status


async def test_a_chain_that_failed_answers_as_the_call_would_have(edge: Edge) -> None:
    """The provider's 400 with its code; asking again is pointless; the list tells why."""
    edge.simulator.script({"faults": [{"kind": "context_length_exceeded", "times": 9}]})
    path = await start(edge)
    reply = await settled(edge, path)

    assert (400, "context_length_exceeded", "false") == (reply.status, reply.error["code"], reply.headers["x-should-retry"])
    assert "1" == reply.headers["x-switchyard-attempts"]
    (shown,) = (await edge.get("/v1/chains?status=failed")).json["data"]
    assert reply.error == shown["error"]


async def test_a_chain_past_its_deadline_says_so(edge: Edge) -> None:
    """It ends by itself, and is not an error of this gateway's."""
    edge.simulator.script(THROTTLED)
    reply = await edge.post(CHAT, {**HELLO, "deadline_seconds": 1}, headers={**ADMIN, **ASYNC})
    failed = await settled(edge, reply.headers["location"])

    assert failed.status in {429, 503, 504}
    assert "false" == failed.headers["x-should-retry"]


async def test_only_what_has_ended_can_be_deleted(edge: Edge) -> None:
    """409 before, then it is forgotten: 404."""
    edge.simulator.script(THROTTLED)
    path = await start(edge)
    await waiting(edge, path)
    early = await edge.call("DELETE", path)
    assert (409, "chain_not_ended") == (early.status, early.error["code"])

    await edge.post(path + "/cancel", {})
    await settled(edge, path)
    deleted = await edge.call("DELETE", path)
    assert (200, True) == (deleted.status, deleted.json["deleted"])
    assert [404] * 3 == [
        (await edge.get(path)).status,
        (await edge.call("DELETE", path)).status,
        (await edge.post(path + "/cancel", {})).status,
    ]


async def test_an_answer_that_is_being_deleted_is_not_found(edge: Edge) -> None:
    """Who has read the chain and then finds no answer behind it gets a 404, and no 500."""
    path = await start(edge)
    assert 200 == (await settled(edge, path)).status
    table, partition = edge.gateway.tables.table("chains"), partition_of(path.rpartition("/")[2])
    for row in [entity.row async for entity in table.query(partition) if entity.row != "0"]:
        await table.delete(partition, row)

    assert 404 == (await edge.get(path)).status


async def test_projects_see_their_own(edge: Edge) -> None:
    """Another project's chain is not found, listed, cancelled or deleted; the administrator sees all, or one project's."""
    shop, other = await edge.key("shop"), await edge.key("other")
    path = await start(edge, shop)
    await settled(edge, path)

    assert 200 == (await edge.get(path, headers=await edge.key("shop"))).status
    for method, tail in (("GET", ""), ("POST", "/cancel"), ("DELETE", "")):
        assert 404 == (await edge.call(method, path + tail, headers=other)).status
    counts = [
        len((await edge.get("/v1/chains" + query, headers=who)).json["data"])
        for query, who in (("", shop), ("", other), ("", ADMIN), ("?project=other", ADMIN), ("?project=shop", ADMIN))
    ]
    assert [1, 0, 1, 0, 1] == counts
    assert 403 == (await edge.get("/v1/chains?project=shop", headers=other)).status


async def test_the_list_comes_in_pages(edge: Edge) -> None:
    """The newest first; ``after`` goes on where a page ended; states filter."""
    paths = [await start(edge) for _ in range(3)]
    for path in paths:
        await settled(edge, path)
    first = (await edge.get("/v1/chains?limit=2")).json
    rest = (await edge.get(f"/v1/chains?limit=2&after={first['last_id']}&status=completed")).json

    assert [path.rpartition("/")[2] for path in reversed(paths)] == [one["id"] for one in first["data"] + rest["data"]]
    assert (True, False) == (first["has_more"], rest["has_more"])
    assert [] == (await edge.get("/v1/chains?status=cancelled")).json["data"]


async def test_a_rare_state_is_searched_for_page_by_page(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call looks at so many chains and no more; the next goes on from there, until all were looked at."""
    monkeypatch.setattr(background_chains, "MAX_LOOKED_AT", 2)
    edge.simulator.script({"faults": [{"kind": "context_length_exceeded", "times": 1}]})
    paths = [await start(edge)]
    await settled(edge, paths[0])
    paths += [await start(edge) for _ in range(3)]
    for path in paths:
        await settled(edge, path)

    pages = []
    query = "/v1/chains?status=failed"
    while True:
        page = (await edge.get(query)).json
        pages.append([one["id"] for one in page["data"]])
        if not page["has_more"]:
            break
        query = f"/v1/chains?status=failed&after={page['last_id']}"
    assert [[], [paths[0].rpartition("/")[2]]] == pages


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=9" + "9" * 5_000, "limit"),
        ("limit=x", "limit"),
        ("limit=²", "limit"),
        ("status=done", "status"),
        ("after=chain_nobody", "after"),
        ("state=failed", "state"),
    ],
)
async def test_queries_are_checked(edge: Edge, query: str, param: str) -> None:
    """A mistyped filter must not show everything as if it were filtered."""
    reply = await edge.get("/v1/chains?" + query)

    assert (404 if param == "after" else 400, param) == (reply.status, reply.error["param"])


@pytest.mark.parametrize("name", ["chain_0000", "nobody", "chain_..%2F..", "chain_a'b", "chain_" + "x" * 2_000, "chain_%00"])
async def test_ids_that_are_none_are_not_found(edge: Edge, name: str) -> None:
    """Whatever they look like."""
    assert 404 == (await edge.get(f"/v1/chains/{name}")).status


async def test_responses_have_a_path_of_their_own(edge: Edge) -> None:
    """A background response is a chain too, and no answer of this endpoint: not found, not listed."""
    path = await start(edge)
    await settled(edge, path)
    chain: Chain = await edge.gateway.chains.get(path.rpartition("/")[2])
    for name in ("resp_" + "1" * 32, "chain_" + "1" * 32):
        made = replace(chain, id=name, kind=Kind.RESPONSE, state=State.COMPLETED, etag="")
        await edge.gateway.chains.create(made, b"{}", b"")

    assert [404, 404] == [(await edge.get(f"/v1/chains/{name}")).status for name in ("resp_" + "1" * 32, "chain_" + "1" * 32)]
    assert 1 == len((await edge.get("/v1/chains")).json["data"])
