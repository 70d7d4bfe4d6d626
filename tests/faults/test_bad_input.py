"""Bad input of money, through the edge: each is a 4xx that names the field, nothing is lost, nothing is a 500."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from shared.core.budgets import MAX_ACCOUNTS
from tests.faults.money import CHAT, ask, budget, chat, over, settled
from tests.functions.harness import Edge, Reply

AMOUNTS = [
    "-1",
    "0",
    "-0.0",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e30",
    "1" + "0" * 30,
    "1e999",
    '"NaN"',
    '"-1"',
    "true",
    "[]",
    "{}",
]
FORBIDDEN = [
    "/",
    "\\",
    "#",
    "?",
    "%",
    "|",
    "~",
    " ",
    "\t",
    "\n",
    "\r",
    "\0",
    "\x1f",
    "\x7f",
    "\x85",
    "\u2028",
    "\u202e",
    "'",
    '"',
]
OUTSIDE = ["ü", "日本", "😀", "..", "../../etc", "%2F", "%00", "a" * 5_000, "$batch", "'; DROP TABLE keys; --", "{id}", "*"]
NAMES = [*(f"a{one}b" for one in FORBIDDEN), *OUTSIDE]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge() -> AsyncIterator[Edge]:
    """Return one running edge for the whole file."""
    async with over("memory:") as found:
        yield found


def refused(reply: Reply, param: str, *statuses: int) -> None:
    """Assert that this is a refusal that names the field."""
    assert reply.status in (statuses or (400,)), reply.body
    assert reply.error["param"] == param, reply.body
    assert reply.error["message"]
    assert len(reply.error["message"]) < 1_000


# ---- amounts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [*AMOUNTS, "null", "1e-10", "0.0000000001", "1.0000000001", "123456789.1234567891"])
async def test_an_amount_that_is_none_is_no_budget(edge: Edge, amount: str) -> None:
    """Negative, zero, not a number, 10^30, fractions of a nano-dollar: refused in a new budget and in a change of one."""
    before = (await edge.get("/v1/budgets")).json
    made = await edge.call("POST", "/v1/budgets", data=_budget(f'"limit_usd": {amount}'))
    refused(made, "limit_usd")
    assert before == (await edge.get("/v1/budgets")).json
    name = await budget(edge, "3", scope={"kind": "bound"})
    refused(await edge.call("PATCH", f"/v1/budgets/{name}", data=b'{"limit_usd": %s}' % amount.encode()), "limit_usd")
    shown = (await edge.get(f"/v1/budgets/{name}")).json
    assert (1, 3_000_000_000) == (shown["version"], shown["limit_nano_usd"])


@pytest.mark.parametrize("amount", [*AMOUNTS, "1e-10", "0.0000000001", '"1"'])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings"])
async def test_an_amount_that_is_none_limits_no_request(edge: Edge, amount: str, path: str) -> None:
    """The same as a request's own limit: nothing is sent. Less than a nano-dollar covers nothing."""
    sent = len(edge.sent())
    model = b"vectors" if path == "/v1/embeddings" else b"small"
    body = b'{"model": "%s", "prompt": "x", "input": "x", "messages": [{"role": "user", "content": "x"}], "budget_limit": %s}'
    reply = await edge.call("POST", path, data=body % (model, amount.encode()))
    refused(reply, "budget_limit")
    assert sent == len(edge.sent())


@pytest.mark.parametrize("field", ["requests_per_minute", "tokens_per_minute"])
@pytest.mark.parametrize("amount", ["-1", "0", "NaN", "1e30", "1" + "0" * 30, "1.5", '"5"', "true", "[]"])
@pytest.mark.parametrize("path", ["/v1/keys", "/v1/projects/bad"])
async def test_a_limit_that_is_none_is_refused(edge: Edge, field: str, amount: str, path: str) -> None:
    """Of a key and of a project."""
    key = b'"name": "x", "project": "p", ' if path == "/v1/keys" else b""
    method = "POST" if path == "/v1/keys" else "PUT"
    reply = await edge.call(method, path, data=b'{%s"%s": %s}' % (key, field.encode(), amount.encode()))
    refused(reply, field)
    assert "bad" not in [each["id"] for each in (await edge.get("/v1/projects")).json["data"]]


# ---- trees and zones ----------------------------------------------------------------------------------------------------


async def test_a_cycle_is_refused_wherever_it_would_close(edge: Edge) -> None:
    """Of one, of two, of eight; and calls below are charged to each once."""
    names = [await budget(edge, scope={"kind": "bound"})]
    for _ in range(7):
        names.append(await budget(edge, scope={"kind": "bound"}, parent=names[-1]))
    for end in names:
        refused(await edge.call("PATCH", f"/v1/budgets/{names[0]}", json={"parent": end}), "parent")
    made = (await edge.post("/v1/keys", {"name": "k", "project": "deep", "budgets": [names[-1]]})).json
    assert 200 == (await ask(edge, {"authorization": f"Bearer {made['key']}"})).status
    assert {1} == {len((await settled(edge, name)).attempts) for name in names}


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", " ", "utc ", "Europe/Berlin\0", "../UTC", "/etc/localtime", "localtime",
                                  "Factory", "+01:00", "Europe", "😀", "x" * 65, 1, None, ["UTC"]])  # fmt: skip
async def test_a_time_zone_that_does_not_exist_is_refused(edge: Edge, zone: object) -> None:
    """Nothing on the disk is looked for under its name, and no budget is made."""
    body = {"name": "z", "scope": {"kind": "organization"}, "limit_usd": 1, "cycle": "day", "id": "zone", "time_zone": zone}
    refused(await edge.post("/v1/budgets", body), "time_zone")
    assert 404 == (await edge.get("/v1/budgets/zone")).status


# ---- keys and budgets ----------------------------------------------------------------------------------------------------


async def test_a_key_bound_to_nothing_is_refused(edge: Edge) -> None:
    """To a budget that is not there; to one that went, its other limits stay; to an empty list, it is bound to none."""
    refused(await edge.post("/v1/keys", {"name": "k", "project": "p", "budgets": ["nothing"]}), "budgets")
    made = (await edge.post("/v1/keys", {"name": "k", "project": "p", "budgets": []})).json
    refused(await edge.call("PATCH", f"/v1/keys/{made['id']}", json={"budgets": ["nothing"]}), "budgets")
    shown = (await edge.get(f"/v1/keys/{made['id']}")).json
    assert (1, []) == (shown["version"], shown["budgets"])
    assert 200 == (await ask(edge, {"authorization": f"Bearer {made['key']}"})).status


async def test_five_thousand_budgets_on_a_key_are_refused(edge: Edge) -> None:
    """With the most there may be named."""
    for method, path, more in (("POST", "/v1/keys", {"name": "k", "project": "p"}), ("PATCH", "/v1/keys/key_0", {})):
        reply = await edge.call(method, path, json={**more, "budgets": [f"b{number}" for number in range(5_000)]})
        refused(reply, "budgets")
        assert str(MAX_ACCOUNTS) in reply.error["message"]


async def test_five_thousand_budgets_on_a_request_are_refused(edge: Edge) -> None:
    """The one too many is not made, by its scope or above another; and those that are there go on covering calls."""
    fields = {"name": "b", "scope": {"kind": "project", "name": "many"}, "limit_usd": 1, "cycle": "total"}
    statuses = [(await edge.post("/v1/budgets", {**fields, "id": f"many{number}"})) for number in range(MAX_ACCOUNTS + 3)]
    assert [201] * MAX_ACCOUNTS + [400] * 3 == [reply.status for reply in statuses]
    assert str(MAX_ACCOUNTS) in statuses[-1].error["message"]
    assert 200 == (await ask(edge, await edge.key("many"))).status


# ---- names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_a_name_no_store_could_hold_is_refused_by_its_field(edge: Edge, name: str) -> None:
    """Ids, scopes, projects, parents, tags."""
    good: dict[str, Any] = {"name": "x", "scope": {"kind": "organization"}, "limit_usd": 1, "cycle": "total", "hard": False}
    refused(await edge.post("/v1/budgets", {**good, "id": name}), "id")
    refused(await edge.post("/v1/budgets", {**good, "parent": name}), "parent")
    for kind in ("project", "key"):
        refused(await edge.post("/v1/budgets", {**good, "scope": {"kind": kind, "name": name}}), "scope.name")
    refused(await edge.post("/v1/keys", {"name": "k", "project": name}), "project")
    bound = await edge.post("/v1/keys", {"name": "k", "project": "p", "budgets": [name]})
    assert 400 == bound.status
    assert bound.error["param"].startswith("budgets")
    tagged = await edge.post("/v1/keys", {"name": "k", "project": "p", "tags": {name: "x"}})
    assert 400 == tagged.status
    assert tagged.error["param"].startswith("tags")
    assert [] == [each for each in (await edge.get("/v1/keys")).json["data"] if each["tags"] or each["project"] == name]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_a_name_in_a_path_is_not_found(edge: Edge, name: str) -> None:
    """Whatever it is, percent-encoded or twice so: 404, or a 400 that says what such a name looks like."""
    for text in (quote(name, safe=""), quote(quote(name, safe=""), safe="")):
        for path in (f"/v1/budgets/{text}", f"/v1/budgets/{text}/forecast", f"/v1/keys/{text}", f"/v1/requests/{text}"):
            reply = await edge.get(path)
            assert reply.status in {400, 404, 405, 414}, (path, reply.body)
            assert reply.error["message"]
        for method, path in (
            ("DELETE", "/v1/budgets/"),
            ("DELETE", "/v1/keys/"),
            ("DELETE", "/v1/projects/"),
            ("PUT", "/v1/projects/"),
        ):
            reply = await edge.call(method, path + text, json={"requests_per_minute": 5})
            assert reply.status in {400, 404, 405, 414}, (method, path, reply.body)
    assert [] == (await edge.get("/v1/projects")).json["data"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_a_name_asked_for_is_refused_or_found_nowhere(edge: Edge, name: str) -> None:
    """Models asked for, restricted to and budgeted; filters of a report; Idempotency-Keys: never a 500, nothing made up."""
    for field in ("project", "key", "model", "tag", "period", "start"):
        reply = await edge.get(f"/v1/usage?{field}={quote(name, safe='')}")
        assert reply.status in {200, 400}, (field, reply.body)
        assert reply.status == 400 or reply.json["data"] == []
    refused(await edge.post(CHAT, chat(model=name)), "model", 400, 404)
    model = await edge.post("/v1/budgets", {"name": "m", "scope": {"kind": "model", "name": name}, "limit_usd": 1,
                                            "cycle": "total", "id": "odd", "hard": False})  # fmt: skip
    assert model.status in {201, 400, 409}
    key = await edge.post("/v1/keys", {"name": "k", "project": "p", "models": [name]})
    assert key.status in {201, 400}
    held = await edge.post(CHAT, chat(), headers={**edge.headers, "idempotency-key": quote(name, safe="%")[:300]})
    assert held.status == 200 or held.error["param"] == "Idempotency-Key"


@pytest.mark.parametrize("key", ["a/b", "a\\b", "a#b", "a?b", "%2F", "a|b~c", "'", '"', "..", "$batch"])
async def test_an_idempotency_key_of_forbidden_characters_is_a_key(edge: Edge, key: str) -> None:
    """It is only ever looked for by its hash: the same again is a replay, its neighbour is not."""
    headers = {**edge.headers, "idempotency-key": f"{key}!"}
    first, second = await edge.post(CHAT, chat(), headers=headers), await edge.post(CHAT, chat(), headers=headers)
    other = await edge.post(CHAT, chat(), headers={**headers, "idempotency-key": key + "_"})

    assert [None, "true", None] == [reply.headers.get("idempotent-replayed") for reply in (first, second, other)]


def _budget(field: str) -> bytes:
    return b'{"name": "x", "scope": {"kind": "organization"}, "cycle": "total", "hard": false, %s}' % field.encode()
