"""Everything beside inference: models, keys, plans, traces, feedback, usage, metrics, health."""

from __future__ import annotations

from typing import Any

from tests.functions.harness import Edge

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
DOCUMENT: dict[str, Any] = {
    "capabilities": ["chat"],
    "context_window": 8_000,
    "quality": 0.5,
    "deployments": [
        {
            "provider": "north",
            "prices": [{"from": "2026-01-01", "input": 1, "output": 1, "source": "test", "read_on": "2026-01-01"}],
        }
    ],
}


async def test_models_are_listed_in_both_shapes(edge: Edge) -> None:
    """OpenAI's list and the seed's, with what the seed showed of each."""
    body = (await edge.get("/v1/models")).json
    small = next(model for model in body["models"] if model["name"] == "small")

    assert body["object"] == "list"
    assert {"id": "small", "object": "model", "created": 0, "owned_by": "north"} in body["data"]
    assert "summarization" in small["capabilities"]
    assert small["cost"] == {"input_per_1k": 0.001, "output_per_1k": 0.002}
    assert ("north", "available", 0.7) == (small["provider"], small["status"], small["quality_score"])
    assert next(model for model in body["models"] if model["name"] == "unpriced")["cost"] is None


async def test_an_alias_says_what_replaced_it(edge: Edge) -> None:
    """A retired name still resolves, and tells."""
    body = (await edge.get("/v1/models/gone")).json

    assert (["small"], True, "small replaces it") == (body["alias_of"], body["retired"], body["note"])


async def test_a_model_is_registered_changed_and_removed(edge: Edge) -> None:
    """Versioned: a second POST conflicts, PUT makes the next version, a stale version is refused; it serves at once."""
    assert (await edge.get("/v1/models/org/new")).status == 404
    made = await edge.post("/v1/models/org/new", DOCUMENT)
    assert (201, 1) == (made.status, made.json["registration"]["version"])
    assert (await edge.post(CHAT, {**HELLO, "model": "org/new"})).headers["x-switchyard-model"] == "org/new"
    assert (await edge.post("/v1/models/org/new", DOCUMENT)).status == 409

    changed = await edge.call("PUT", "/v1/models/org/new", json={**DOCUMENT, "quality": 0.6, "expected_version": 1})
    assert (200, 2, 0.6) == (changed.status, changed.json["registration"]["version"], changed.json["quality_score"])
    stale = await edge.call("PUT", "/v1/models/org/new", json={**DOCUMENT, "expected_version": 1})
    assert (409, "false") == (stale.status, stale.headers["x-should-retry"])
    assert (await edge.get("/v1/models/org/new")).json["registration"]["version"] == 2

    removed = await edge.call("DELETE", "/v1/models/org/new")
    assert (200, True) == (removed.status, removed.json["deleted"])
    assert (await edge.get("/v1/models/org/new")).status == 404
    assert (await edge.call("DELETE", "/v1/models/org/new")).status == 404


async def test_a_wrong_model_is_refused_with_every_problem(edge: Edge) -> None:
    """The catalog's own validation speaks; nothing is registered."""
    wrong = {**DOCUMENT, "quality": 7, "deployments": [{"provider": "nobody", "weight": -1}]}
    reply = await edge.post("/v1/models/new", wrong)

    assert (400, "invalid_model") == (reply.status, reply.error["code"])
    for part in ("quality", "prices", "weight"):
        assert part in reply.error["message"]
    assert (await edge.get("/v1/models/new")).status == 404


async def test_a_key_is_shown_once(edge: Edge) -> None:
    """The token is in the answer that made it, and nowhere after."""
    made = await edge.post("/v1/keys", {"name": "app", "project": "shop", "models": ["small"]})
    token = made.json["key"]
    listed, one = await edge.get("/v1/keys"), await edge.get(f"/v1/keys/{made.json['id']}")

    assert (201, "no-store") == (made.status, made.headers["cache-control"])
    assert token.startswith("sk-sw-")
    assert token.encode() not in listed.body + one.body
    assert ("shop", ["small"], False) == (one.json["project"], one.json["models"], one.json["disabled"])
    assert (await edge.call("DELETE", f"/v1/keys/{made.json['id']}")).json["disabled"] is True


async def test_a_plan_gives_reasons_and_costs_and_runs_nothing(edge: Edge) -> None:
    """Each of the three kinds of body; candidates in order, the dropped with their reason."""
    chat = (await edge.post("/v1/route", {**HELLO, "model": "auto", "task_type": "code-generation", "max_tokens": 100})).json
    prompt = (await edge.post("/v1/route", {"prompt": "Summarize this", "task_type": "summarization"})).json
    vectors = (await edge.post("/v1/route", {"input": "x"})).json

    assert ["big", "big", "small"] == [candidate["model"] for candidate in chat["candidates"]]
    assert chat["candidates"][0]["reasons"][0]["code"] == "rule_preferred"
    assert 0 < chat["candidates"][0]["expected_cost_usd"] <= chat["candidates"][0]["worst_cost_usd"]
    assert ("small", "summarization") == (prompt["model"], prompt["task"])
    assert "vectors" == vectors["model"]
    assert {"sonnet", "unpriced"} <= {dropped["model"] for dropped in chat["dropped"]}
    assert all(dropped["reason"]["code"] for dropped in chat["dropped"])
    assert edge.sent() == []


async def test_a_plan_nobody_can_serve_says_why(edge: Edge) -> None:
    """No candidates is an answer here, not an error."""
    reply = await edge.post("/v1/route", {**HELLO, "budget_limit": 0.000001})

    assert reply.status == 200
    assert reply.json["candidates"] == []
    assert "budget" in {dropped["reason"]["code"] for dropped in reply.json["dropped"]}


async def test_a_request_explains_itself_afterwards(edge: Edge) -> None:
    """Every attempt, what it cost, and the decision."""
    edge.simulator.script({"profile": "south", "faults": ["server_error"]})
    reply = await edge.post(CHAT, {**HELLO, "model": "big"})
    stored = (await edge.get(f"/v1/requests/{reply.headers['x-request-id']}")).json

    assert ["server_error", "succeeded"] == [attempt["outcome"] for attempt in stored["attempts"]]
    assert ["south/big", "north/big"] == [attempt["deployment"] for attempt in stored["attempts"]]
    assert stored["cost_usd"] == float(reply.headers["x-switchyard-cost-usd"])
    assert ("admin", "big", "chat") == (stored["key"], stored["original_model"], stored["operation"])
    assert stored["trace"]
    assert "Hello" not in str(stored)


async def test_feedback_comes_as_query_or_json(edge: Edge) -> None:
    """The seed sent query parameters."""
    request_id = (await edge.post(CHAT, HELLO)).headers["x-request-id"]
    query = await edge.call("POST", f"/v1/feedback?request_id={request_id}&rating=5&feedback=good")
    body = await edge.post("/v1/feedback", {"request_id": request_id, "rating": 4})

    assert {"status": "feedback recorded"} == query.json == body.json
    wrong = await edge.call("POST", f"/v1/feedback?request_id={request_id}&rating=good")
    assert (400, "rating") == (wrong.status, wrong.error["param"])
    assert (await edge.call("POST", "/v1/feedback?request_id=req_unknown&rating=5")).status == 404


async def test_usage_adds_up_as_json_and_csv(edge: Edge) -> None:
    """By model and day; a cost that is not known is counted, not guessed."""
    await edge.post(CHAT, HELLO)
    await edge.post(CHAT, {**HELLO, "model": "unpriced"})
    rows = (await edge.get("/v1/usage?group_by=model,day")).json["data"]
    csv = await edge.get("/v1/usage?group_by=model", headers=edge.headers | {"accept": "text/csv"})

    assert {"small": (1, True), "unpriced": (1, False)} == {row["model"]: (row["requests"], row["exact"]) for row in rows}
    assert csv.headers["content-type"] == "text/csv; charset=utf-8"
    lines = csv.body.decode().split("\r\n")
    assert lines[0].startswith("model,requests,attempts,input_tokens")
    assert ["small", "unpriced", ""] == [line.split(",")[0] for line in lines[1:]]
    assert (await edge.get("/v1/usage?model=small")).json["data"][0]["requests"] == 1


async def test_metrics_show_requests_errors_latency_and_breakers(edge: Edge) -> None:
    """What happened a moment ago is in them."""
    await edge.post(CHAT, HELLO)
    edge.simulator.script({"faults": [{"kind": "server_error", "times": 3}]})
    await edge.post(CHAT, HELLO)
    body = (await edge.get("/v1/metrics?time_range=15m")).json

    assert body["requests"] == 2
    assert body["attempt_errors"]["server_error"] >= 1
    assert body["latency_ms"]["p50"] > 0
    assert body["latency_ms"]["p99"] >= body["latency_ms"]["p95"] >= body["latency_ms"]["p50"]
    assert body["cost_usd"] > 0
    assert "north/small" in body["breakers"]
    assert body["queue"]["in_flight"] == 0
    assert (await edge.get("/v1/metrics?model=big")).json["requests"] == 0


async def test_health_has_the_seeds_shape(edge: Edge) -> None:
    """Every model, available or not and why, and when it was last called."""
    await edge.post(CHAT, HELLO)
    body = (await edge.get("/v1/health")).json

    assert body["status"] == "healthy"
    assert {"router", "optimizer", "metrics"} <= set(body["services"])
    assert (True, 1.0) == (body["models"]["small"]["available"], body["models"]["small"]["success_rate"])
    assert body["models"]["small"]["last_check"].endswith("Z")
    assert body["models"]["big"]["last_check"] is None


async def test_liveness_costs_nothing(edge: Edge) -> None:
    """No key, no store."""
    reply = await edge.get("/v1/health/live", headers={})

    assert (200, {"status": "alive"}) == (reply.status, reply.json)
