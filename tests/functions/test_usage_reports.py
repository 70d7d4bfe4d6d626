"""Usage at the edge: grouped and filtered by anything, allocated to the nano-dollar, and where it could be less."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import pytest

from shared.core import ids
from shared.core.chat import Operation, Usage
from shared.core.records import AttemptRecord, RequestRecord
from shared.ports import Entity
from shared.usage.days import CLOSE_AFTER
from tests.functions.harness import Edge

DAY = 86_400.0


def used(edge: Edge, number: int, *, ago: float = 10.0, **changes: Any) -> RequestRecord:
    """Return a request of some project that began a while ago: a failed attempt of 5 nano-USD, and one that answered."""
    moment = edge.gateway.clock.now() - ago
    attempt = AttemptRecord(
        number=1,
        deployment="south/big",
        model="big",
        provider="south",
        started_at=moment,
        duration_ms=1.0,
        outcome="succeeded",
        usage=Usage(1_000, 500),
        cost=6_000_000,
    )
    record = RequestRecord(
        request_id=ids.request_id(moment, number),
        key_id="key_shop",
        project="shop",
        operation=Operation.CHAT,
        original_model="big",
        task="conversation",
        stream=False,
        started_at=moment,
        duration_ms=1.0,
        outcome="succeeded",
        attempts=(replace(attempt, outcome="server_error", cost=5, usage=Usage(1)), replace(attempt, number=2)),
        model="big",
        deployment="south/big",
        billed=6_000_000,
    )
    return replace(record, **changes)


async def put(edge: Edge, *records: RequestRecord) -> None:
    """Write requests down."""
    for record in records:
        edge.gateway.usage.record(record)
    await edge.gateway.usage.flush()


OPS, RESEARCH = {"cost_center": "ops"}, {"cost_center": "=research"}


async def test_every_nano_dollar_is_allocated_once(edge: Edge) -> None:
    """By cost centre, what has none in a row of its own; the rows are the total. A filter takes one of them."""
    await put(edge, *(used(edge, number, tags=tags) for number, tags in enumerate((OPS, OPS, RESEARCH, {}, {"team": "a"}))))
    path = "/v1/usage?group_by=tag:cost_center"

    body = (await edge.get(path)).json
    table = await edge.get(path, headers=edge.headers | {"accept": "text/csv"})

    costs = {row["tag:cost_center"]: row["cost_nano_usd"] for row in body["data"]}
    assert costs == {None: 12_000_010, "ops": 12_000_010, "=research": 6_000_005}
    assert sum(costs.values()) == body["total"]["cost_nano_usd"] == 5 * 6_000_005
    assert (body["total"]["billed_nano_usd"], body["exact"], body["damaged_rows"]) == (30_000_000, True, 0)
    lines = list(csv.DictReader(io.StringIO(table.body.decode())))
    assert [line["tag:cost_center"] for line in lines] == ["(untagged)", "'=research", "ops"]
    assert [line["billed_usd"] for line in lines] == ["0.012", "0.006", "0.012"]
    assert (await edge.get("/v1/usage?tag=cost_center:ops")).json["total"]["requests"] == 2
    assert (await edge.get("/v1/usage?tag=cost_center:")).json["total"]["requests"] == 2
    assert (await edge.get("/v1/usage?tag=cost_center:&tag=team:a")).json["total"]["requests"] == 1


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("key", "key_shop"),
        ("project", "shop"),
        ("model", "big"),
        ("deployment", "south/big"),
        ("provider", "south"),
        ("task", "conversation"),
        ("operation", "chat"),
    ],
)
async def test_usage_by_anything(edge: Edge, name: str, label: str) -> None:
    """Every dimension groups and filters, in JSON and CSV."""
    await put(edge, used(edge, 1))

    grouped = (await edge.get(f"/v1/usage?group_by={name},day,hour&{name}={label}")).json["data"]
    other = (await edge.get(f"/v1/usage?{name}=other")).json

    assert [(row[name], row["requests"], row["attempts"], row["hour"][:10] == row["day"]) for row in grouped] == [
        (label, 1, 2, True)
    ]
    assert (other["data"], other["total"]["cost_nano_usd"]) == ([], 0)


async def test_roll_ups_answer_as_the_rows_did(edge: Edge) -> None:
    """A timer's work changes no report, at any grouping."""
    await put(edge, *(used(edge, number, ago=2 * DAY + number * 3_000, tags=OPS) for number in range(30)), used(edge, 99))
    paths = [f"/v1/usage?group_by={name}" for name in ("day", "hour", "tag:cost_center", "model,hour", "key")]
    end = "&end=" + (await edge.get("/v1/usage")).json["end"].replace("+", "%2B")

    before = [(await edge.get(path + end)).json for path in paths]
    done = await edge.gateway.usage.roll_up(edge.gateway.clock.now() + CLOSE_AFTER)
    after = [(await edge.get(path + end)).json for path in paths]

    assert done.slots > 0
    assert after == before
    assert before[0]["total"]["requests"] == 31


async def test_a_damaged_row_makes_a_report_inexact(edge: Edge) -> None:
    """What can't be read is counted beside the sums."""
    await put(edge, used(edge, 1), used(edge, 5))
    table = edge.gateway.tables.table("usage")
    days = [entity.row async for entity in table.query("days")]
    rows = [row for day in days for shard in range(4) async for row in table.query(f"{day}-{shard}")]
    await table.replace(Entity(rows[0].partition, rows[0].row, {"json00": "{}"}, rows[0].etag))

    body = (await edge.get("/v1/usage")).json

    assert (body["total"]["requests"], body["damaged_rows"], body["exact"]) == (1, 1, False)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("tag=ops", "tag"),
        ("tag=:ops", "tag"),
        (f"tag=a:{'x' * 300}", "tag"),
        ("group_by=tag:", "group_by"),
        (f"group_by=tag:{'x' * 300}", "group_by"),
        ("group_by=tags", "group_by"),
    ],
)
async def test_a_tag_that_is_none_is_refused(edge: Edge, query: str, param: str) -> None:
    """Bad input is a 400 that names the parameter."""
    reply = await edge.get(f"/v1/usage?{query}")

    assert (reply.status, reply.error["param"]) == (400, param)


# ---- suggestions -----------------------------------------------------------------------------------------------------


TWIN = {
    "capabilities": ["chat", "tools", "json_object", "json_schema", "vision", "logprobs"],
    "context_window": 16_000,
    "quality": 0.9,
    "deployments": [
        {
            "provider": "north",
            "prices": [{"from": "2026-01-01", "input": 1, "output": 2, "source": "t", "read_on": "2026-01-01"}],
        }
    ],
}
"""As good as the big model, and able to do as much."""


async def test_suggestions_price_the_callers_own_traffic(edge: Edge) -> None:
    """Ten times 1,001 tokens in and 500 out, at 1 and 2 dollars a million; and what all of it would have cost on a baseline."""
    assert (await edge.post("/v1/models/twin", TWIN)).status == 201
    await put(edge, *(used(edge, number) for number in range(10)), *(used(edge, 100, project="bank"),))
    shop, bank = await edge.key("shop"), await edge.key("bank")

    body = (await edge.get("/v1/usage/suggestions?baseline=sonnet", headers=shop)).json

    (found,) = body["data"]
    assert (found["task"], found["from_model"], found["to_model"], found["requests"]) == ("conversation", "big", "twin", 10)
    assert (found["cost_now_nano_usd"], found["cost_then_nano_usd"]) == (60_000_050, 20_010_000)
    assert body["saving_nano_usd"] == found["saving_nano_usd"] == 39_990_050
    assert body["assumptions"]
    assert body["baseline"]["cost_then_nano_usd"] == 10 * (1_001 * 3_000 + 500 * 15_000)
    assert [one["requests"] for one in (await edge.get("/v1/usage/suggestions", headers=bank)).json["data"]] == [1]
    assert [one["requests"] for one in (await edge.get("/v1/usage/suggestions")).json["data"]] == [11]
    assert (await edge.get("/v1/usage/suggestions?project=bank", headers=shop)).status == 403


async def test_suggestions_keep_to_what_a_key_may_use(edge: Edge) -> None:
    """A key kept to one model hears of no other, also not as a baseline."""
    assert (await edge.post("/v1/models/twin", TWIN)).status == 201
    await put(edge, used(edge, 1))
    narrow = await edge.key("shop", frozenset({"big"}))

    assert (await edge.get("/v1/usage/suggestions", headers=narrow)).json["data"] == []
    reply = await edge.get("/v1/usage/suggestions?baseline=twin", headers=narrow)
    assert (reply.status, reply.error["param"]) == (400, "baseline")


async def test_a_baseline_without_a_price_is_said(edge: Edge) -> None:
    """Nothing is made up: the amounts are null."""
    await put(edge, used(edge, 1))

    found = (await edge.get("/v1/usage/suggestions?baseline=unpriced")).json["baseline"]

    assert (found["model"], found["cost_then_usd"], found["saving_nano_usd"]) == ("unpriced", None, None)
