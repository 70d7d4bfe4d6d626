"""Browsers: nothing is allowed unless the operator configured origins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.functions.harness import SETTINGS, Edge, running

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
ORIGIN = {"origin": "https://app.example.com"}
PREFLIGHT = {
    **ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}


async def test_off_by_default(edge: Edge) -> None:
    """No header that would let a page read an answer, on none of them."""
    asked = await edge.call("OPTIONS", CHAT, headers=PREFLIGHT)
    answered = await edge.post(CHAT, HELLO, headers=edge.headers | ORIGIN)

    assert 204 == asked.status
    for reply in (asked, answered):
        assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("allowed", [("https://app.example.com",), ("*",)])
async def test_an_allowed_origin_may_call_and_read(allowed: tuple[str, ...]) -> None:
    """The preflight passes; the answer and errors are readable, our headers among them."""
    async with running(replace(SETTINGS, cors_origins=allowed)) as edge:
        asked = await edge.call("OPTIONS", CHAT, headers=PREFLIGHT)
        answered = await edge.post(CHAT, HELLO, headers=edge.headers | ORIGIN)
        streamed = await edge.post(CHAT, {**HELLO, "stream": True}, headers=edge.headers | ORIGIN)
        refused = await edge.post(CHAT, HELLO, headers=ORIGIN)

    assert "x-stainless-lang" in asked.headers["access-control-allow-headers"]
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert (200, 200, 401) == (answered.status, streamed.status, refused.status)
    for reply in (asked, answered, streamed, refused):
        assert reply.headers["access-control-allow-origin"] == "https://app.example.com"
        assert reply.headers["vary"] == "Origin"
    assert "x-switchyard-cost-usd" in answered.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answered.headers


async def test_another_origin_is_not_allowed() -> None:
    """Also not one that only begins alike."""
    async with running(replace(SETTINGS, cors_origins=("https://app.example.com",))) as edge:
        for origin in ("https://evil.example", "https://app.example.com.evil.example", "null"):
            reply = await edge.call("OPTIONS", CHAT, headers={**PREFLIGHT, "origin": origin})
            assert not [name for name in reply.headers if name.startswith("access-control")]
