"""Chat over HTTP as an application sees it."""

from __future__ import annotations

import asyncio

from tests.functions.harness import Edge

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}


async def test_an_answer_says_who_gave_it_and_what_it_cost(edge: Edge) -> None:
    """Every answer's headers name the request, the model, the deployment, the attempts and the cost."""
    reply = await edge.post(CHAT, HELLO)

    assert reply.status == 200
    assert reply.json["object"] == "chat.completion"
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["x-switchyard-model"] == "small"
    assert reply.headers["x-switchyard-deployment"] == "north/small"
    assert reply.headers["x-switchyard-attempts"] == "1"
    assert reply.headers["x-switchyard-simulated"] == "true"
    usage = reply.json["usage"]
    nano = usage["prompt_tokens"] * 1_000 + usage["completion_tokens"] * 2_000
    assert round(float(reply.headers["x-switchyard-cost-usd"]) * 1e9) == nano


async def test_request_ids_are_unique_and_in_order(edge: Edge) -> None:
    """They sort by when the request began."""
    ids = [(await edge.post(CHAT, HELLO)).headers["x-request-id"] for _ in range(3)]

    assert 3 == len(set(ids))
    assert sorted(ids, key=lambda one: one[:14]) == ids


async def test_a_failing_deployment_is_not_the_callers_problem(edge: Edge) -> None:
    """Another deployment answers, and the headers say that it took two attempts."""
    edge.simulator.script({"profile": "south", "faults": ["server_error"]})
    reply = await edge.post(CHAT, {**HELLO, "model": "big"})

    assert reply.status == 200
    assert reply.headers["x-switchyard-attempts"] == "2"
    assert reply.headers["x-switchyard-deployment"] == "north/big"


async def test_a_providers_400_reaches_the_caller_with_its_code(edge: Edge) -> None:
    """What no candidate can take is the caller's to mend."""
    edge.simulator.script({"faults": [{"kind": "context_length_exceeded", "times": 9}]})
    reply = await edge.post(CHAT, HELLO)

    assert (400, "context_length_exceeded") == (reply.status, reply.error["code"])


async def test_when_nobody_answers_the_sdk_is_told_not_to_try_again(edge: Edge) -> None:
    """503 with what was tried, no provider's raw body, no retry."""
    edge.simulator.script({"rates": {"bad_gateway_html": 1.0}})
    reply = await edge.post(CHAT, HELLO)

    assert (503, "all_attempts_failed") == (reply.status, reply.error["code"])
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["x-switchyard-simulated"] == "true"
    assert "html" not in reply.error["message"].lower()
    assert "test-credential" not in reply.body.decode()


async def test_everybody_throttled_is_a_429_with_the_soonest_return(edge: Edge) -> None:
    """retry-after in whole seconds, and in milliseconds."""
    edge.simulator.script({"faults": [{"kind": "rate_limited_s", "retry_after_s": 7, "times": 9}]})
    reply = await edge.post(CHAT, HELLO)

    assert (429, "rate_limit_exceeded") == (reply.status, reply.error["code"])
    assert 6 <= int(reply.headers["retry-after"]) <= 7
    assert int(reply.headers["retry-after-ms"]) <= 7_000


async def test_azures_path_decides_over_the_body(edge: Edge) -> None:
    """A deployment in the path is the model, whatever the body says."""
    reply = await edge.post("/openai/deployments/small/chat/completions?api-version=2024-10-21", {**HELLO, "model": "big"})

    assert reply.headers["x-switchyard-model"] == "small"


async def test_many_at_once_are_all_answered(edge: Edge) -> None:
    """Two hundred, half of them streamed, over a slow upstream."""
    edge.simulator.script({"latency_ms": 100, "answer": "x"})
    replies = await asyncio.gather(*(edge.post(CHAT, {**HELLO, "stream": bool(number % 2)}) for number in range(200)))

    assert {200} == {reply.status for reply in replies}
    assert all(reply.body.endswith(b"data: [DONE]\n\n") for reply in replies[1::2])
    assert (await edge.get("/v1/usage")).json["data"][0]["requests"] == 200


async def test_switchyards_own_fields_never_reach_a_provider(edge: Edge) -> None:
    """They steer the route and are left out of what is sent; OpenAI's fields go through untouched."""
    own = {
        "task_type": "summarization",
        "model_preferences": {"objective": "cost"},
        "budget_limit": 1,
        "priority": "high",
    }
    reply = await edge.post(CHAT, {**HELLO, **own, "user": "u", "seed": 5, "max_tokens": 9})
    (sent,) = edge.sent()

    assert reply.status == 200
    assert {"user", "seed", "messages"} <= set(sent.parameters)
    assert not set(own) & set(sent.parameters)
