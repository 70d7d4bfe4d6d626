"""``GET /metrics``: what Prometheus reads, as its own parsers do, and who sees what of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from functions import gateway as holder
from shared.core.chat import Operation, Usage
from shared.core.exposition import Family, Kind, render
from shared.core.records import SUCCEEDED, AttemptRecord, RequestRecord
from shared.metrics import Metrics
from tests.fakes import FakeClock
from tests.functions.harness import Edge, Reply, running

OPENMETRICS = {"accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"}
STRANGE = 'a\\n"c\nd\u2028ü'


def record(number: int, *, project: str = "shop", outcome: str = SUCCEEDED, asked: str = "fast") -> RequestRecord:
    """Return a request: one that fell back, or one that nobody answered."""
    failed = AttemptRecord(1, "south/big", "big", "south", 0.0, 100.0, "rate_limited", status=429, cost=0)
    asked_for = RequestRecord(
        f"req_{number}", "key", project, Operation.CHAT, asked, "", False, 0.0, 9.0, outcome, (failed,), cost=0
    )
    if outcome != SUCCEEDED:
        return asked_for
    answered = AttemptRecord(
        2, "north/small", "small", "north", 0.0, 400.0, SUCCEEDED, usage=Usage(100, 20), cost=140_001, first_content_ms=70.0
    )
    return replace(
        asked_for,
        duration_ms=500.0 + number,
        attempts=(failed, answered),
        model="small",
        deployment="north/small",
        first_content_ms=170.0,
        cost=140_001,
    )


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    """Return the running edge; another instance has counted three requests, the last of a model somebody made up."""
    async with running() as found:
        clock = FakeClock()
        counted = Metrics(found.gateway.tables, clock, "another")
        counted.observe(record(1))
        counted.observe(record(2, project=STRANGE))
        counted.observe(record(3, outcome="all_attempts_failed", asked="x" * 50))
        await counted.aclose()
        clock.seconds += 120
        found.gateway = replace(found.gateway, metrics=Metrics(found.gateway.tables, clock, "this"))
        holder.use(found.gateway)
        yield found


def samples(reply: Reply) -> dict[str, list[Sample]]:
    """Return what the text says, by the samples' names, as Prometheus's parser for its form reads it."""
    assert 200 == reply.status
    text = reply.body.decode()
    openmetrics = reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    parse: Any = parse_openmetrics if openmetrics else parse_text  # half typed
    families = parse(text)
    found: dict[str, list[Sample]] = {}
    for family in families:
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


@pytest.mark.parametrize("headers", [{}, OPENMETRICS])
async def test_both_forms_are_read_and_say_the_same(edge: Edge, headers: dict[str, str]) -> None:
    """Counts, tokens, US dollars exactly, latencies as histograms, by model and project, whatever those are called."""
    reply = await edge.get("/metrics", headers={**edge.headers, **headers})
    found = samples(reply)

    assert {
        ("small", "shop", SUCCEEDED): 1,
        ("small", STRANGE, SUCCEEDED): 1,
        ("(unknown)", "shop", "all_attempts_failed"): 1,
    } == {
        (one.labels["model"], one.labels["project"], one.labels["outcome"]): one.value
        for one in found["switchyard_requests_total"]
        if one.value
    }
    assert 3 == sum(one.value for one in found["switchyard_attempt_errors_total"])
    assert 2 == sum(one.value for one in found["switchyard_fallbacks_total"])
    assert 240 == sum(one.value for one in found["switchyard_tokens_total"])
    assert [0.000140001] * 2 == [one.value for one in found["switchyard_cost_usd_total"] if one.value]
    buckets = {
        one.labels["le"]: one.value
        for one in found["switchyard_request_duration_seconds_bucket"]
        if one.labels["project"] == "shop"
    }
    assert {"0.25": 0, "1.0": 1, "+Inf": 1}.items() <= buckets.items()
    assert [0.501] == [one.value for one in found["switchyard_request_duration_seconds_sum"] if one.labels["project"] == "shop"]
    assert {0.17} == {one.value for one in found["switchyard_time_to_first_content_seconds_sum"]}
    assert {"queued", "running", "waiting", "other"} == {one.labels["state"] for one in found["switchyard_queue_chains"]}
    assert "no-store" == reply.headers["cache-control"]


async def test_how_things_stand(edge: Edge) -> None:
    """Breakers of this instance; budgets in US dollars."""
    made = await edge.post(
        "/v1/budgets",
        {"name": "all", "scope": {"kind": "project", "name": "shop"}, "limit_usd": 12.5, "cycle": "month"},
    )
    answered = await edge.post("/v1/chat/completions", {"model": "small", "messages": [{"role": "user", "content": "Hi"}]})
    assert [201, 200] == [made.status, answered.status]
    found = samples(await edge.get("/metrics"))

    assert [({"deployment": "north/small", "model": "small", "provider": "north"}, 0)] == [
        (one.labels, one.value) for one in found["switchyard_breaker_state"]
    ]
    assert [({"budget": made.json["id"], "cycle": "month", "project": "shop"}, 12.5)] == [
        (one.labels, one.value) for one in found["switchyard_budget_limit_usd"]
    ]
    assert [0] == [one.value for one in found["switchyard_budget_spent_usd"]]


async def test_a_key_sees_its_own_project(edge: Edge) -> None:
    """And the budgets that its calls are charged to; without a key there is nothing to see."""
    budget = {"name": "other", "scope": {"kind": "project", "name": "bank"}, "limit_usd": 1, "cycle": "month"}
    assert 201 == (await edge.post("/v1/budgets", budget)).status
    key = await edge.key()
    found = samples(await edge.get("/metrics", headers=key))

    assert {"shop"} == {one.labels["project"] for one in found["switchyard_requests_total"]}
    assert "switchyard_budget_limit_usd" not in found
    assert 403 == (await edge.get("/metrics?project=bank", headers=key)).status
    assert 401 == (await edge.get("/metrics", headers={})).status
    narrowed = samples(await edge.get("/metrics?project=shop"))
    assert {"shop"} == {one.labels["project"] for one in narrowed["switchyard_requests_total"]}


async def test_an_unused_gateway_can_be_scraped() -> None:
    """Nothing was counted: still a text that parses."""
    async with running() as fresh:
        found = samples(await fresh.get("/metrics", headers={**fresh.headers, **OPENMETRICS}))
    assert "switchyard_requests_total" not in found
    assert 1 == len(found["switchyard_counted_until_timestamp_seconds"])


@pytest.mark.parametrize("openmetrics", [True, False])
def test_texts_are_escaped(openmetrics: bool) -> None:  # noqa: FBT001 - a parameter of a test
    """Back come the label and the help that went in."""
    family = Family("a", Kind.GAUGE, 'says "\\" and\nmore')
    family.add({"name": STRANGE}, 1.5)
    (read,) = (parse_openmetrics if openmetrics else parse_text)(render([family], openmetrics=openmetrics))

    assert ({"name": STRANGE}, 1.5) == (read.samples[0].labels, read.samples[0].value)
    assert 'says "\\" and\nmore' == read.documentation
