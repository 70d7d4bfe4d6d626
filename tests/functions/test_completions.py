"""The seed's completion endpoint: both shapes in one object."""

from __future__ import annotations

from tests.functions.harness import Edge

PATH = "/v1/completions"


async def test_the_seeds_fields_and_openais_are_in_one_object(edge: Edge) -> None:
    """Whoever reads either shape finds it whole."""
    edge.simulator.script({"answer": "sorted(values)"})
    reply = await edge.post(PATH, {"prompt": "Write a Python function to sort a list", "task_type": "code-generation"})
    body = reply.json

    assert body["model_used"] == "big"
    assert body["response"] == "sorted(values)"
    assert body["choices"] == [{"text": "sorted(values)", "index": 0, "logprobs": None, "finish_reason": "stop"}]
    assert body["request_id"] == reply.headers["x-request-id"]
    assert body["tokens_used"]["total"] == body["usage"]["total_tokens"] > 0
    assert body["cost"] == float(reply.headers["x-switchyard-cost-usd"])
    assert isinstance(body["latency_ms"], int)
    assert body["metadata"]["task"] == "code-generation"
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")


async def test_a_prompt_without_a_task_is_routed_by_what_it_says(edge: Edge) -> None:
    """The detector chooses the rule."""
    reply = await edge.post(PATH, {"prompt": "Write a Python function that sorts a list"})

    assert reply.json["metadata"]["task"] == "code-generation"


async def test_the_task_embeddings_embeds_the_prompt(edge: Edge) -> None:
    """The seed's own case: no chat model is asked, sampling fields are left out."""
    body = {"prompt": "Convert this", "task_type": "embeddings", "temperature": 0.7, "max_tokens": 5}
    reply = await edge.post(PATH, body)

    assert reply.json["model_used"] == "vectors"
    assert reply.json["response"].startswith("[")
    assert reply.json["data"][0]["object"] == "embedding"
    assert reply.json["cost"] > 0
    assert {"model", "input"} == set(edge.sent()[0].parameters)


async def test_several_prompts_are_several_requests_and_one_bill(edge: Edge) -> None:
    """Each prompt has a record of its own; tokens, attempts and cost are added up."""
    reply = await edge.post(PATH, {"model": "small", "prompt": ["a", "b", "c"], "max_tokens": 5})
    ids = reply.json["metadata"]["request_ids"]
    stored = [(await edge.get(f"/v1/requests/{one}")).json for one in ids]

    assert 3 == len(set(ids)) == len(edge.sent()) == len(reply.json["choices"])
    assert ids[0] == reply.headers["x-request-id"]
    assert reply.headers["x-switchyard-attempts"] == "3"
    assert sum(one["cost_nano_usd"] for one in stored) == round(reply.json["cost"] * 1e9)


async def test_one_failing_prompt_fails_the_request(edge: Edge) -> None:
    """There is no half answer."""
    edge.simulator.script({"faults": [None, {"kind": "invalid_request", "times": 1}, None]})
    reply = await edge.post(PATH, {"model": "small", "prompt": ["a", "b", "c"]})

    assert reply.status == 400
    assert edge.mounted.in_flight == 0


async def test_log_probabilities_come_in_the_legacy_shape(edge: Edge) -> None:
    """Chat's tokens become the four lists of old."""
    edge.simulator.script({"answer": "ab cd"})
    reply = await edge.post(PATH, {"model": "big", "prompt": "x", "logprobs": 2, "echo": True})
    logprobs = reply.json["choices"][0]["logprobs"]

    assert logprobs is not None
    assert logprobs["text_offset"][0] == 1  # after the echoed prompt
    assert "".join(logprobs["tokens"]) == "ab cd"
    assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == len(logprobs["top_logprobs"])


async def test_an_unknown_price_is_shown_as_unknown(edge: Edge) -> None:
    """null, never 0; and the header is absent."""
    reply = await edge.post(PATH, {"model": "unpriced", "prompt": "x"})

    assert reply.status == 200
    assert reply.json["cost"] is None
    assert "x-switchyard-cost-usd" not in reply.headers
