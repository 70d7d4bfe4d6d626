"""A few thousand malformed requests at everything that has to do with money: never a 500, always OpenAI's error."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from tests.faults.money import CHAT, PAYING, ask, budget, chat, over, settled
from tests.functions.harness import Edge, Reply

SEED = 20_261_123
EACH = 450
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**63), 10**18, 1.5, -0.0, 1e-10, 1e300, "", " ", "a", "shop", "total",
    "month", "organization",
    "0x10", "1e5", "-1", "NaN", "\0", "a/b", "a\\b#c?d", "😀", "ü", "~", "|", "..", "%2F", "x" * 300, "null",
    [], [None], ["a"], [[]], [1, "a"], {}, {"a": 1}, {"kind": "project"}, {"kind": "project", "name": "a"}, {"kind": [1]},
)  # fmt: skip
RAW = (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"a": NaN}', b'{"limit_usd": 1e999}', b'{"a":1}{"b":2}', b"{'a': 1}",
       b'{"limit_usd": 0.1, "limit_usd": -5}', b'{"\\ud800": 1}', b"[" * 3_000, b'{"a":' * 3_000)  # fmt: skip
BUDGET: dict[str, Any] = {
    "id": "b1", "name": "b", "scope": {"kind": "project", "name": "shop"}, "limit_usd": 5, "cycle": "month", "time_zone": "UTC",
    "hard": True, "parent": None, "thresholds": [0.5], "at_end": "reject", "downgrade_at": 0.8, "floor_tokens": 8,
    "webhook": None, "enabled": True,
}  # fmt: skip
KEY: dict[str, Any] = {
    "name": "k", "project": "shop", "models": ["small"], "budgets": [], "requests_per_minute": 60, "tokens_per_minute": 1000,
    "roles": ["member"], "tags": {"a": "b"}, "expires_at": None,
}  # fmt: skip
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/budgets"): BUDGET,
    ("PATCH", "/v1/budgets/{id}"): {**BUDGET, "expected_version": 1},
    ("POST", "/v1/keys"): KEY,
    ("PATCH", "/v1/keys/{id}"): {**KEY, "expected_version": 1},
    ("POST", "/v1/keys/{id}/rotate"): {"overlap_seconds": 5},
    ("PUT", "/v1/projects/{id}"): {"requests_per_minute": 60, "tokens_per_minute": 1000},
    ("POST", CHAT): {**chat(), "budget_limit": 0.5, "priority": "high", "task_type": None, "model_preferences": {}},
}
QUERIES: dict[str, tuple[str, ...]] = {
    "/v1/usage": ("group_by", "start", "end", "project", "key", "model", "deployment", "provider", "task", "operation", "tag"),
    "/v1/usage/suggestions": ("start", "end", "project", "baseline"),
    "/v1/budgets": ("limit", "after"),
    "/v1/budgets/{id}": ("period",),
    "/v1/budgets/{id}/forecast": (),
    "/v1/keys/{id}": (),
    "/v1/projects": (),
    "/v1/metrics": ("time_range", "model", "project"),
}
TEXTS = ("", "0", "-1", "1e9", "9" * 400, "total", "2026-11", "2026-W48", "2026-02-30", "2026-11-23T25:00:00Z", "0001-01-01",
    "now",
         "9999-12-31T23:59:59.999999Z", "nan", "inf", "day,day", ",,,", "tag:", "tag:a", "tag:" + "x" * 500, "a:b", ":", "😀",
         "\0",
         "' or 1 eq 1", "../..", "$filter=x", "%", "a" * 3_000, "1h", "-1h", "1" * 50 + "d", "project,key", "small",
         "٣")  # fmt: skip

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge() -> AsyncIterator[Edge]:
    """Return one running edge with something in it."""
    async with over("memory:") as found:
        await found.post("/v1/budgets", {**BUDGET, "limit_usd": 1_000, "scope": {"kind": "bound"}})
        yield found


def check(reply: Reply, said: object) -> None:
    """Assert that a request was answered or refused, and in OpenAI's shape."""
    assert reply.status < 500, (said, reply.body)
    assert reply.status not in {301, 302, 307, 308}, said
    if reply.status >= 400 and reply.body:
        assert reply.error["message"], said
        assert reply.error["type"], said
        assert len(reply.error["message"]) < 2_000, said


def spoilt(dice: random.Random, body: dict[str, Any]) -> bytes:
    """Return a body with some of it wrong."""
    if dice.random() < 0.05:
        return dice.choice(RAW)
    made = dict(body)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        name = dice.choice([*made, "colour"])
        match dice.randrange(4):
            case 0:
                made.pop(name, None)
            case 1 if isinstance(made.get(name), dict):
                made[name] = {**made[name], dice.choice(("kind", "name", "a", "objective")): dice.choice(VALUES)}
            case 2 if isinstance(made.get(name), list):
                made[name] = [*made[name], dice.choice(VALUES)] * dice.choice((1, 1, 40))
            case _:
                made[name] = dice.choice(VALUES)
    text = json.dumps(made).encode()
    return text[: dice.randrange(len(text))] if dice.random() < 0.05 else text


def path_of(dice: random.Random, path: str, key: str) -> str:
    """Return a path with an id that exists, or does not, or can't."""
    other = quote(str(dice.choice(VALUES))[:200], safe="")
    return path.replace("{id}", dice.choice(("b1", key, other, other)))


@pytest.mark.parametrize("what", BODIES, ids=" ".join)
async def test_no_body_is_a_500(edge: Edge, what: tuple[str, str]) -> None:
    """Wrong types, missing and unknown fields, cut and doubled JSON, under every method."""
    dice = random.Random(f"{SEED}{what}")
    key = str((await edge.post("/v1/keys", {"name": "k", "project": "shop"})).json["id"])
    for _ in range(EACH):
        method, path, body = what[0], path_of(dice, what[1], key), spoilt(dice, BODIES[what])
        check(await edge.call(method, path, data=body), (method, path, body))


@pytest.mark.parametrize("path", QUERIES)
async def test_no_query_is_a_500(edge: Edge, path: str) -> None:
    """Moments that are none, groups that are none, numbers of 400 digits; doubled and unknown parameters; as CSV too."""
    dice = random.Random(f"{SEED}{path}")
    for _ in range(EACH // 3):
        names = [dice.choice([*QUERIES[path], "colour", "limit"]) for _ in range(dice.choice((0, 1, 1, 2, 3)))]
        text = "&".join(f"{name}={quote(dice.choice(TEXTS), safe=dice.choice(('', '%')))}" for name in names)
        headers = {**edge.headers, "accept": dice.choice(("text/csv", "application/json", "*/*", "text/html;q=nonsense"))}
        at = f"{path_of(dice, path, 'key_000000000000')}?{text}"
        check(await edge.call(dice.choice(("GET", "GET", "GET", "HEAD", "DELETE")), at, headers=headers), at)


async def test_the_money_is_in_order_after_all_that(edge: Edge) -> None:
    """A call is held, charged and shown as if nothing had been, and no budget has spent what nobody asked for."""
    listed = (await edge.get("/v1/budgets?limit=200")).json["data"]
    for each in listed:
        await edge.call("DELETE", f"/v1/budgets/{each['id']}")
    name = await budget(edge)
    assert 200 == (await ask(edge, await edge.key(PAYING))).status
    found = await settled(edge, name)

    assert 1 == len(found.attempts)
    assert 0 < found.spent
