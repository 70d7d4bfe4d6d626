"""``Prefer: respond-async`` and ``wait=N``: a request that nobody waits for, and its answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from openai import AsyncOpenAI

from functions.prefer import preferences
from local.mounting import Mounted
from tests.functions.harness import ADMIN_KEY, Edge, Reply, functions, serving

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
ASYNC = {**ADMIN, "prefer": "respond-async"}
PATIENT = {**ADMIN, "prefer": "respond-async, wait=60"}


async def result(edge: Edge, location: str) -> Reply:
    """Return what a chain came to."""
    async with asyncio.timeout(60):
        while (reply := await edge.get(location)).status == 202:
            await asyncio.sleep(0.02)
    return reply


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["respond-async"], {"respond-async": ""}),
        (["Respond-ASYNC , Wait = 10"], {"respond-async": "", "wait": "10"}),
        (["wait=10; foo=bar;, respond-async;x"], {"wait": "10", "respond-async": ""}),
        (["foo", 'respond-async=""', 'wait="10"'], {"foo": "", "respond-async": "", "wait": "10"}),
        (["wait=1, wait=2", "WAIT=3"], {"wait": "1"}),
        (['foo="a, respond-async; \\"b", bar'], {"foo": 'a, respond-async; "b', "bar": ""}),
        (['foo="never closed, respond-async'], {}),
        (["", ",,", "=1, ;a, a b, (x)", "\tok\t"], {"ok": ""}),
    ],
)
def test_preferences_are_read_as_rfc_7240_writes_them(lines: list[str], found: dict[str, str]) -> None:
    """Any case, several headers, lists, parameters, quoted words; the first counts; what is not well written is left out."""
    assert found == preferences(lines)


def test_a_long_header_takes_no_time() -> None:
    """What is hard for a careless expression: quotes that never close, blanks without end."""
    for line in ('"' * 60_000, 'a="\\' * 20_000, "a" + " " * 60_000, "a;" * 30_000, ' \t"' * 20_000):
        preferences([line])


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        (CHAT, HELLO, "chat.completion"),
        ("/openai/v1/chat/completions", HELLO, "chat.completion"),
        ("/openai/deployments/small/chat/completions", {"messages": HELLO["messages"]}, "chat.completion"),
        ("/v1/completions", {"model": "small", "prompt": "Hello"}, "text_completion"),
        ("/v1/embeddings", {"model": "vectors", "input": "Hello"}, "list"),
        ("/openai/deployments/vectors/embeddings", {"input": "Hello"}, "list"),
    ],
)
async def test_the_answer_is_where_the_location_says(edge: Edge, path: str, body: dict[str, Any], kind: str) -> None:
    """202 at once, then the endpoint's own answer with the headers of an interactive one."""
    reply = await edge.post(path, body, headers=ASYNC)

    assert (202, "respond-async") == (reply.status, reply.headers["preference-applied"])
    assert f"/v1/chains/{reply.json['id']}" == reply.headers["location"]
    assert int(reply.headers["retry-after"]) >= 1
    assert ("chain", "small" if kind != "list" else "vectors") == (reply.json["object"], reply.json["model"])

    answer = await result(edge, reply.headers["location"])
    assert (200, kind) == (answer.status, answer.json["object"])
    assert ("1", reply.json["id"]) == (answer.headers["x-switchyard-attempts"], answer.headers["x-switchyard-chain"])
    assert answer.headers["x-switchyard-deployment"].startswith("north/")
    assert float(answer.headers["x-switchyard-cost-usd"]) > 0
    assert 1 == len(edge.sent())


async def test_the_legacy_answer_is_whole(edge: Edge) -> None:
    """The seed's fields are those of an interactive answer, tokens too."""
    body = {"model": "small", "prompt": "Hello", "echo": True}
    later = await edge.post("/v1/completions", body, headers=PATIENT)
    now = await edge.post("/v1/completions", body)

    told = {"response", "model_used", "tokens_used", "cost", "usage", "choices"}
    assert {name: now.json[name] for name in told} == {name: later.json[name] for name in told}


async def test_with_wait_the_answer_itself_comes_when_it_is_ready_in_time(edge: Edge) -> None:
    """200 with the answer, and the headers of an interactive one."""
    reply = await edge.post(CHAT, HELLO, headers=PATIENT)

    assert (200, "chat.completion") == (reply.status, reply.json["object"])
    assert "respond-async, wait=60" == reply.headers["preference-applied"]
    assert "north/small" == reply.headers["x-switchyard-deployment"]


async def test_with_wait_that_is_too_short_the_location_comes(edge: Edge) -> None:
    """202 after that time; the answer is there later."""
    edge.simulator.script({"latency_ms": 3_000})
    reply = await edge.post(CHAT, HELLO, headers={**ADMIN, "prefer": "respond-async; wait=0, wait=1"})

    assert (202, "respond-async, wait=1") == (reply.status, reply.headers["preference-applied"])
    assert 200 == (await result(edge, reply.headers["location"])).status


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("respond-async, wait=soon", "respond-async"),
        ("respond-async, wait=-1", "respond-async"),
        ("respond-async, wait=99999", "respond-async, wait=200"),
        ("return=minimal, respond-async, wait=0", "respond-async, wait=0"),
        ("wait=10", None),
        ("respond-async=yes", None),
        ("handling=lenient", None),
        (";;;", None),
    ],
)
async def test_preferences_that_are_none_are_ignored(edge: Edge, prefer: str, applied: str | None) -> None:
    """What can't be granted changes nothing, and the answer says what was."""
    reply = await edge.post(CHAT, HELLO, headers={**ADMIN, "prefer": prefer})

    assert applied == reply.headers.get("preference-applied")
    assert reply.status in ({200} if applied is None else {200, 202})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {**HELLO, "stream": True}),
        ("/v1/completions", {"model": "small", "prompt": ["one", "two"]}),
    ],
)
async def test_what_can_not_wait_is_answered_at_once(edge: Edge, path: str, body: dict[str, Any]) -> None:
    """A stream, and several prompts: the preference is not applied, which is no error."""
    reply = await edge.post(path, body, headers=ASYNC)

    assert (200, None) == (reply.status, reply.headers.get("preference-applied"))


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"messages": []}, 400, "messages"),
        ({"model": "nobody"}, 404, "model"),
        ({"temperature": 9}, 400, "temperature"),
        ({"deadline_seconds": 0}, 400, "deadline_seconds"),
        ({"deadline_seconds": 259_201}, 400, "deadline_seconds"),
        ({"webhook_url": "https://hooks.example.com/x"}, 400, "webhook_url"),
        ({"webhook_url": 7}, 400, "webhook_url"),
    ],
)
async def test_what_is_wrong_with_a_request_is_said_at_once(
    edge: Edge, change: dict[str, Any], status: int, param: str
) -> None:
    """No 202 for what can't be answered: nothing is stored."""
    reply = await edge.post(CHAT, {**HELLO, **change}, headers=ASYNC)

    assert (status, param) == (reply.status, reply.error["param"])
    assert [] == (await edge.get("/v1/chains")).json["data"]


@pytest.mark.parametrize("field", [{"webhook_url": "https://hooks.example.com/x"}, {"deadline_seconds": 60}])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, HELLO),
        (CHAT, {**HELLO, "stream": True}),
        ("/v1/completions", {"model": "small", "prompt": "Hello"}),
        ("/v1/embeddings", {"model": "vectors", "input": "Hello"}),
    ],
)
async def test_fields_of_background_work_are_refused_without_it(
    edge: Edge, path: str, body: dict[str, Any], field: dict[str, Any]
) -> None:
    """They would mean nothing: 400 that names the field and the header, and nothing is sent."""
    reply = await edge.post(path, {**body, **field})

    assert (400, *field) == (reply.status, reply.error["param"])
    assert "respond-async" in reply.error["message"]
    assert [] == edge.sent()


async def test_a_host_without_an_engine_answers_at_once(edge: Edge) -> None:
    """The plain call needs none, and the preference is not applied."""
    mounted = Mounted(functions().http, max_in_flight=8)
    async with serving(mounted) as url:
        plain = await replace(edge, url=url).post(CHAT, HELLO)
        preferred = await replace(edge, url=url).post(CHAT, HELLO, headers=ASYNC)
        health = await replace(edge, url=url).get("/v1/health")

    assert (200, 200, None) == (plain.status, preferred.status, preferred.headers.get("preference-applied"))
    assert "off" == health.json["services"]["chains"]


async def test_own_fields_never_reach_a_provider(edge: Edge) -> None:
    """Not from a chain either."""
    body = {**HELLO, "deadline_seconds": 60, "budget_limit": 1.0, "priority": "low"}
    assert 200 == (await edge.post(CHAT, body, headers=PATIENT)).status

    (sent,) = edge.sent()
    assert set(HELLO) <= set(sent.parameters) <= {*HELLO, "max_tokens", "max_completion_tokens", "stream"}


async def test_without_the_preference_a_throttled_call_is_told_when_to_come_back(edge: Edge) -> None:
    """429 with ``retry-after``; with it the call hands itself over and waits."""
    edge.simulator.script({"faults": [{"kind": "rate_limited_s", "retry_after_s": 2, "times": 1}]})
    reply = await edge.post(CHAT, HELLO)
    assert (429, True) == (reply.status, int(reply.headers["retry-after"]) >= 1)

    assert 200 == (await edge.post(CHAT, HELLO, headers=PATIENT)).status


async def test_the_client_going_away_does_not_stop_the_chain(edge: Edge) -> None:
    """Whoever waited and left finds the answer."""
    edge.simulator.script({"latency_ms": 1_000})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await edge.post(CHAT, HELLO, headers=PATIENT)

    (chain,) = (await edge.get("/v1/chains")).json["data"]
    assert 200 == (await result(edge, f"/v1/chains/{chain['id']}")).status
    assert 1 == len(edge.sent())


async def test_the_sdk_asks_and_fetches(edge: Edge) -> None:
    """With ``extra_headers`` and the raw response."""
    async with AsyncOpenAI(base_url=edge.url + "/v1", api_key=ADMIN_KEY, max_retries=0) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="small",
            messages=[{"role": "user", "content": "Hello"}],
            extra_headers={"Prefer": "respond-async"},
            extra_body={"deadline_seconds": 600},
        )
        assert 202 == raw.status_code
        await result(edge, raw.headers["location"])
        later = await client.get(raw.headers["location"].removeprefix("/v1"), cast_to=object)
        inside = await client.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "Hello"}], extra_headers={"Prefer": "respond-async, wait=60"}
        )

    assert isinstance(later, dict)
    assert inside.choices[0].message.content == later["choices"][0]["message"]["content"]
