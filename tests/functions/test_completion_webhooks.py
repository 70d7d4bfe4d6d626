"""``webhook_url``: who is told that background work has ended, and who may not be."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from openai import OpenAI

from functions import gateway as holder
from shared.chain_outcomes import NotDeliveredError, notify
from shared.core.completion_events import delivery_of
from shared.core.registry import Secret
from tests.contracts.loopback import OK, Server, answering, serving
from tests.functions.harness import ADMIN_KEY, SETTINGS, Edge, running

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
ASYNC = {"authorization": f"Bearer {ADMIN_KEY}", "prefer": "respond-async, wait=60"}
SECRET = "canary-webhook-secret"
LISTED = replace(SETTINGS, webhook_hosts=("127.0.0.1", "hooks.example.com", "10.0.0.8"), webhook_secret=Secret(SECRET))


@pytest.fixture
async def hooked() -> AsyncIterator[Edge]:
    """Return an edge that may tell some hosts."""
    async with running(LISTED) as found:
        yield found


async def told(server: Server) -> bytes:
    """Return what a receiver was told first."""
    async with asyncio.timeout(60):
        while not server.requests:
            await asyncio.sleep(0.02)
    return server.requests[0]


async def test_an_end_is_told_once_and_signed(hooked: Edge) -> None:
    """The receiver can check who tells it, with OpenAI's own SDK; the chain says where it told, and no more."""
    async with serving(answering(OK)) as server:
        reply = await hooked.post(CHAT, {**HELLO, "webhook_url": server.url + "?token=canary"}, headers=ASYNC)
        head, _, body = (await told(server)).partition(b"\r\n\r\n")
        assert 1 == len(server.requests)

    name = reply.headers["x-switchyard-chain"]
    headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])}
    OpenAI(api_key="unused", webhook_secret=SECRET).webhooks.verify_signature(body, headers)
    assert re.search(rb'"type":"chain.completed".*"data":\{"id":"%b"\}' % name.encode(), body)
    assert delivery_of(name, "completed") == headers["webhook-id"] == headers["x-switchyard-delivery"]
    (shown,) = (await hooked.get("/v1/chains")).json["data"]
    assert "127.0.0.1" == shown["webhook_host"]
    assert "canary" not in str(shown)
    assert [set(HELLO)] == [set(sent.parameters) - {"max_tokens", "max_completion_tokens", "stream"} for sent in hooked.sent()]


async def test_a_receiver_that_does_not_listen_is_told_again_under_the_same_id(hooked: Edge) -> None:
    """The activity fails, which makes the engine try again; the answer is there all the same."""
    refusing = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    async with serving(answering(refusing)) as server:
        reply = await hooked.post(CHAT, {**HELLO, "webhook_url": server.url}, headers=ASYNC)
        await told(server)
        with pytest.raises(NotDeliveredError):
            await notify(hooked.gateway, {"id": reply.headers["x-switchyard-chain"]})
        ids = [re.findall(rb"webhook-id: (\S+)", request, re.IGNORECASE) for request in server.requests]

    assert 200 == reply.status
    assert ids[0] == ids[-1]
    assert len(ids) >= 2


async def test_a_host_that_is_no_longer_listed_is_not_told(hooked: Edge) -> None:
    """What was allowed when it was asked for is checked again when it is called."""
    async with serving(answering(OK)) as server:
        reply = await hooked.post(CHAT, {**HELLO, "webhook_url": server.url}, headers=ASYNC)
        await told(server)
        async with running(replace(LISTED, webhook_hosts=("hooks.example.com",))) as other:
            narrowed = replace(hooked.gateway, webhook=other.gateway.webhook)
            holder.use(hooked.gateway)
            with pytest.raises(NotDeliveredError, match="SWITCHYARD_WEBHOOK_HOSTS"):
                await notify(narrowed, {"id": reply.headers["x-switchyard-chain"]})
        assert 1 == len(server.requests)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://10.0.0.8/x", "private"),
        ("https://169.254.169.254/metadata", "SWITCHYARD_WEBHOOK_HOSTS"),
        ("https://[::1]/x", "SWITCHYARD_WEBHOOK_HOSTS"),
        ("https://evil.example.com/x", "SWITCHYARD_WEBHOOK_HOSTS"),
        ("https://hooks.example.com:8443/x", "SWITCHYARD_WEBHOOK_HOSTS"),
        ("http://hooks.example.com:443/x", "https"),
        ("https://user:secret@hooks.example.com/x", "credentials"),
        ("https://hooks.example.com@10.0.0.8/x", "credentials"),
        ("file:///etc/passwd", "URL"),
        ("", "empty"),
        ("https://hooks.example.com/" + "x" * 1_024, "1024"),
    ],
)
async def test_what_may_not_be_told_is_refused_by_name(hooked: Edge, url: str, said: str) -> None:
    """Private addresses, hosts that are not listed, credentials: 400 naming the field, repeating no secret, storing nothing."""
    reply = await hooked.post(CHAT, {**HELLO, "webhook_url": url}, headers=ASYNC)

    assert (400, "webhook_url") == (reply.status, reply.error["param"])
    assert said in reply.error["message"]
    assert "secret@" not in reply.error["message"]
    assert [] == (await hooked.get("/v1/chains")).json["data"]


async def test_without_the_setting_the_refusal_names_it(edge: Edge) -> None:
    """The operator has to list hosts first."""
    reply = await edge.post(CHAT, {**HELLO, "webhook_url": "https://hooks.example.com/x"}, headers=ASYNC)

    assert (400, "webhook_url", "webhooks_not_configured") == (reply.status, reply.error["param"], reply.error["code"])
    assert "SWITCHYARD_WEBHOOK_HOSTS" in reply.error["message"]
