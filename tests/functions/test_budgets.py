"""``/v1/budgets`` through the real edge: what is shown and where the money stands, who may see it, what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.core.budgets import Cycle, period_of
from shared.ledger import AccountKey, rows
from shared.ports import Action, Entity, Op
from tests.functions.harness import Edge

CHAT = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
GOOD: dict[str, Any] = {
    "id": "shop",
    "name": "The shop",
    "scope": {"kind": "project", "name": "shop"},
    "limit_usd": "12.50",
    "cycle": "month",
    "time_zone": "Europe/Berlin",
}


async def put(edge: Edge, budget: str, period: str, *, spent: int, held: int) -> None:
    """Write what the ledger would say about an account."""
    head = {"limit": 1, "spent": spent, "reserved": held, "open": 0}
    partition = rows.account_partition(AccountKey(budget, period))
    await edge.gateway.tables.table(rows.TABLE).transact([Op(Action.UPSERT, Entity(partition, rows.HEAD, head))])


def current(cycle: Cycle = Cycle.MONTH, zone: str = "Europe/Berlin", back: int = 0) -> str:
    """Return the key of the current period, or of one before it."""
    period = period_of(cycle, zone, datetime.now(UTC).timestamp())
    for _ in range(back):
        assert period.start is not None
        period = period_of(cycle, zone, period.start - 1)
    return period.key


# ---- what is shown ---------------------------------------------------------------------------------------------------


async def test_a_budget_is_made_shown_changed_and_disabled(edge: Edge) -> None:
    """All its fields, its amounts as USD and as integers; versions; the row stays."""
    made = await edge.post("/v1/budgets", {**GOOD, "thresholds": [0.9, 0.5], "at_end": "clamp"})
    assert made.status == 201
    body = made.json
    assert ("budget", "shop", "The shop", 12.5, 12_500_000_000) == (
        body["object"],
        body["id"],
        body["name"],
        body["limit_usd"],
        body["limit_nano_usd"],
    )
    assert {"kind": "project", "name": "shop"} == body["scope"]
    assert ("month", "Europe/Berlin", True, None, [0.5, 0.9], "clamp", 64, 0.8, None, True, 1) == tuple(
        body[name]
        for name in (
            *("cycle", "time_zone", "hard", "parent", "thresholds", "at_end", "floor_tokens", "downgrade_at"),
            *("webhook_host", "enabled", "version"),
        )
    )
    assert current() == body["period"]["key"]
    assert (0.0, 0, 0.0, 0, 12.5, 12_500_000_000) == tuple(
        body[f"{name}_{unit}"] for name in ("spent", "held", "left") for unit in ("usd", "nano_usd")
    )
    assert made.headers["cache-control"] == "no-store"

    changed = await edge.call("PATCH", "/v1/budgets/shop", json={"limit_usd": 20, "expected_version": 1})
    assert (200, 20.0, 2) == (changed.status, changed.json["limit_usd"], changed.json["version"])
    stale = await edge.call("PATCH", "/v1/budgets/shop", json={"limit_usd": 30, "expected_version": 1})
    assert (409, "expected_version", "false") == (stale.status, stale.error["param"], stale.headers["x-should-retry"])
    again = await edge.post("/v1/budgets", GOOD)
    assert (409, "id") == (again.status, again.error["param"])

    gone = await edge.call("DELETE", "/v1/budgets/shop")
    assert (200, True, False) == (gone.status, gone.json["deleted"], gone.json["enabled"])
    assert (await edge.get("/v1/budgets/shop")).json == {k: v for k, v in gone.json.items() if k != "deleted"}
    assert ["shop"] == [each["id"] for each in (await edge.get("/v1/budgets")).json["data"]]


async def test_spent_and_held_are_shown_apart(edge: Edge) -> None:
    """What is settled, what may yet be, what is left."""
    await edge.post("/v1/budgets", GOOD)
    await put(edge, "shop", current(), spent=2_000_000_001, held=500_000_000)
    body = (await edge.get("/v1/budgets/shop")).json

    assert (2_000_000_001, 500_000_000, 9_999_999_999) == tuple(body[f"{name}_nano_usd"] for name in ("spent", "held", "left"))
    assert (2.000000001, 0.5, 9.999999999) == tuple(body[f"{name}_usd"] for name in ("spent", "held", "left"))
    listed = (await edge.get("/v1/budgets")).json["data"]
    assert [{name: value for name, value in body.items() if name != "previous"}] == listed


async def test_a_period_that_ended_with_money_held_is_shown_beside_the_new_one(edge: Edge) -> None:
    """Each has its own; a past one can be asked for by its name."""
    await edge.post("/v1/budgets", GOOD)
    past = current(back=1)
    await put(edge, "shop", past, spent=12_000_000_000, held=400_000_000)
    await put(edge, "shop", current(), spent=1, held=2)
    body = (await edge.get("/v1/budgets/shop")).json
    then = (await edge.get(f"/v1/budgets/shop?period={past}")).json

    assert (current(), 1, 2) == (body["period"]["key"], body["spent_nano_usd"], body["held_nano_usd"])
    assert (past, 12_000_000_000, 400_000_000) == tuple(
        (body["previous"] | {"key": body["previous"]["period"]["key"]})[name]
        for name in ("key", "spent_nano_usd", "held_nano_usd")
    )
    assert (past, 12_000_000_000, 400_000_000, 100_000_000) == (
        then["period"]["key"],
        *(then[f"{name}_nano_usd"] for name in ("spent", "held", "left")),
    )
    assert then["period"]["end"] == body["period"]["start"]
    assert "previous" not in then


async def test_a_total_has_one_period(edge: Edge) -> None:
    """Without bounds, without one before."""
    await edge.post("/v1/budgets", {**GOOD, "cycle": "total"})
    body = (await edge.get("/v1/budgets/shop")).json
    assert {"key": "total", "start": None, "end": None} == body["period"]
    assert "previous" not in body


async def test_a_period_is_in_its_zone(edge: Edge) -> None:
    """October in Berlin begins in September's last hours and is an hour longer."""
    await edge.post("/v1/budgets", GOOD)
    period = (await edge.get("/v1/budgets/shop?period=2026-10")).json["period"]
    assert {"key": "2026-10", "start": "2026-09-30T22:00:00.000Z", "end": "2026-10-31T23:00:00.000Z"} == period


@pytest.mark.parametrize("period", ["2026-13", "2026", "2026-11-23", "2026-W48", "total", "x", "9999-12", "0001-01", "٢٠٢٦-10"])
async def test_a_period_the_budget_does_not_have_is_refused(edge: Edge, period: str) -> None:
    """By name, with an example."""
    await edge.post("/v1/budgets", GOOD)
    reply = await edge.get(f"/v1/budgets/shop?period={period}")
    assert (400, "period") == (reply.status, reply.error["param"])
    assert current() in reply.error["message"]


async def test_a_list_is_read_page_by_page(edge: Edge) -> None:
    """In the order of the ids."""
    for name in "cab":
        await edge.post("/v1/budgets", {**GOOD, "id": name})
    first = (await edge.get("/v1/budgets?limit=2")).json
    second = (await edge.get("/v1/budgets?limit=2&after=b")).json
    assert (["a", "b"], True) == ([each["id"] for each in first["data"]], first["has_more"])
    assert (["c"], False) == ([each["id"] for each in second["data"]], second["has_more"])
    for wrong in ("0", "-1", "201", "x", "1e9", "9" * 5000):
        assert (await edge.get(f"/v1/budgets?limit={wrong}")).error["param"] == "limit"


# ---- who sees what ---------------------------------------------------------------------------------------------------


async def test_callers_read_what_covers_them_and_change_nothing(edge: Edge) -> None:
    """Another project's budget is not found; where alerts go is not shown."""
    await edge.post("/v1/budgets", GOOD)
    await edge.post("/v1/budgets", {**GOOD, "id": "bank", "scope": {"kind": "project", "name": "bank"}})
    await edge.post("/v1/budgets", {**GOOD, "id": "all", "scope": {"kind": "organization"}})
    shop = await edge.key("shop")

    assert ["all", "shop"] == [each["id"] for each in (await edge.get("/v1/budgets", headers=shop)).json["data"]]
    assert (await edge.get("/v1/budgets/shop", headers=shop)).status == 200
    assert (await edge.get("/v1/budgets/shop/forecast", headers=shop)).status == 200
    for path in ("/v1/budgets/bank", "/v1/budgets/nothing", "/v1/budgets/bank/forecast"):
        reply = await edge.get(path, headers=shop)
        assert (404, "not_found") == (reply.status, reply.error["code"])
    for method, path in (("POST", "/v1/budgets"), ("PATCH", "/v1/budgets/shop"), ("DELETE", "/v1/budgets/shop")):
        assert (await edge.call(method, path, json=GOOD, headers=shop)).status == 403
    assert (await edge.get("/v1/budgets/shop")).json["enabled"]


# ---- what is refused -------------------------------------------------------------------------------------------------

WRONG: list[tuple[str, bytes]] = [
    *(("limit_usd", f'"limit_usd": {text}'.encode()) for text in ("-1", "0", "-0.0", "1e30", "1" + "0" * 30, "1e-10")),
    *(("limit_usd", f'"limit_usd": {text}'.encode()) for text in ("NaN", "Infinity", "-Infinity", "1e999")),
    *(("limit_usd", f'"limit_usd": {text}'.encode()) for text in ("0.0000000001", "1.0000000000000000000001", "null", "true")),
    *(("limit_usd", f'"limit_usd": "{text}"'.encode()) for text in ("NaN", "inf", "-5", "1e30", "0.0000000001", "", "abc")),
    ("limit_usd", b'"limit_usd": 100000000.00000000001'),  # as a float this would be a round number
    ("limit_usd", b'"limit_usd": [1]'),
    ("cycle", b'"cycle": "fortnight"'),
    *(("time_zone", f'"time_zone": "{text}"'.encode()) for text in ("Mars/Olympus", "", "../../etc/passwd", "\\u0000")),
    ("time_zone", b'"time_zone": "' + b"x" * 1000 + b'"'),
    ("parent", b'"parent": "nobody"'),
    ("parent", b'"parent": "shop"'),
    ("scope.kind", b'"scope": {"kind": "galaxy"}'),
    ("scope.name", b'"scope": {"kind": "key", "name": "a/b\\\\c#d?e"}'),
    ("scope.name", b'"scope": {"kind": "model", "name": "\\u0000"}'),
    ("scope.kind", b'"scope": {"name": "x"}'),
    ("id", b'"id": "a/b\\\\c#d?e|f~g"'),
    ("id", b'"id": "\\u0000"'),
    ("thresholds[0]", b'"thresholds": [1.5]'),
    ("thresholds[1]", b'"thresholds": [0.5, 0]'),
    ("floor_tokens", b'"floor_tokens": 0'),
    ("webhook", b'"webhook": "https://169.254.169.254/metadata"'),
    ("webhook", b'"webhook": "http://localhost/"'),
    ("colour", b'"colour": 1'),
]


@pytest.mark.parametrize(("param", "text"), WRONG)
async def test_bad_input_is_a_400_that_names_the_field(edge: Edge, param: str, text: bytes) -> None:
    """And nothing is made."""
    name = text.split(b'"')[1]
    good = [
        (b"name", b'"name": "x"'),
        (b"scope", b'"scope": {"kind": "organization"}'),
        (b"limit_usd", b'"limit_usd": 1'),
        (b"cycle", b'"cycle": "day"'),
        (b"id", b'"id": "shop"'),
    ]
    body = b"{" + b", ".join([*(line for key, line in good if key != name), text]) + b"}"
    reply = await edge.call("POST", "/v1/budgets", data=body)

    assert (400, param) == (reply.status, reply.error["param"])
    assert [] == (await edge.get("/v1/budgets")).json["data"]


async def test_a_cycle_is_a_400_that_names_the_parent(edge: Edge) -> None:
    """Nobody can be their own grandparent."""
    await edge.post("/v1/budgets", {**GOOD, "id": "a"})
    await edge.post("/v1/budgets", {**GOOD, "id": "b", "parent": "a"})
    for parent in ("a", "b"):
        reply = await edge.call("PATCH", "/v1/budgets/a", json={"parent": parent})
        assert (400, "parent") == (reply.status, reply.error["param"])
    assert (await edge.get("/v1/budgets/a")).json["parent"] is None


@pytest.mark.parametrize("change", [{"cycle": "day"}, {"scope": {"kind": "organization"}}, {"time_zone": "UTC"}, {"id": "x"}])
async def test_what_the_money_is_kept_under_can_not_be_changed(edge: Edge, change: dict[str, Any]) -> None:
    """Such a field is refused by name."""
    await edge.post("/v1/budgets", GOOD)
    reply = await edge.call("PATCH", "/v1/budgets/shop", json=change)
    assert (400, *change) == (reply.status, reply.error["param"])


@pytest.mark.parametrize("name", ["nothing", "%2e%2e", "a%5Cb", "a%23b", "%F0%9F%94%80", "x" * 2000, "~head", "a%00b", "'--"])
async def test_what_is_not_there_is_a_404(edge: Edge, name: str) -> None:
    """Also under names no store could hold."""
    for method in ("GET", "PATCH", "DELETE"):
        reply = await edge.call(method, f"/v1/budgets/{name}", json={"limit_usd": 1})
        assert (404, "not_found") == (reply.status, reply.error["code"])


# ---- the forecast ----------------------------------------------------------------------------------------------------


async def test_a_forecast_says_what_it_is_made_of(edge: Edge) -> None:
    """Without a past there is no telling; a total has no end to tell of."""
    await edge.post("/v1/budgets", {**GOOD, "scope": {"kind": "organization"}})
    await put(edge, "shop", current(), spent=7, held=0)
    assert (await edge.post("/v1/chat/completions", CHAT)).status == 200
    body = (await edge.get("/v1/budgets/shop/forecast")).json
    today = datetime.now(UTC).date()

    assert ("budget.forecast", current(), 7) == (body["object"], body["period"]["key"], body["spent_nano_usd"])
    assert body["history"]["first_day"] in {today.isoformat(), (today - timedelta(days=1)).isoformat()}
    assert body["history"]["daily_nano_usd"][-1] > 0
    assert (None, 7, None, None) == tuple(
        body["forecast"][name] for name in ("expected_nano_usd", "low_nano_usd", "high_nano_usd", "backtest_error")
    )
    await edge.post("/v1/budgets", {**GOOD, "id": "total", "cycle": "total"})
    assert (await edge.get("/v1/budgets/total/forecast")).json["forecast"] is None


async def test_a_forecast_adds_up_what_the_budget_covers(edge: Edge) -> None:
    """Its own scope, budgets below it, keys that are bound to it; nobody else's."""
    await edge.post("/v1/budgets", {**GOOD, "id": "team", "scope": {"kind": "bound"}})
    await edge.post("/v1/budgets", {**GOOD, "id": "shop", "parent": "team"})
    await edge.post("/v1/budgets", {**GOOD, "id": "bank", "scope": {"kind": "project", "name": "bank"}})
    made = (await edge.post("/v1/keys", {"name": "b", "project": "other", "budgets": ["team"]})).json
    bound = {"authorization": f"Bearer {made['key']}"}
    for headers in (await edge.key("shop"), bound, await edge.key("bank")):
        assert (await edge.post("/v1/chat/completions", CHAT, headers=headers)).status == 200

    async def today(name: str) -> int:
        total: int = sum((await edge.get(f"/v1/budgets/{name}/forecast")).json["history"]["daily_nano_usd"])
        return total

    one = await today("shop")
    assert one > 0
    assert (one, 2 * one) == (await today("bank"), await today("team"))
