"""Who may call what."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from functions.description import ENDPOINTS
from functions.endpoints import Access, Endpoint, PublicEndpoint
from shared.core.access import Role
from tests.functions.harness import SETTINGS, Edge, running

PUBLIC = {"/v1/health/live", "/openapi.json", "/docs"}
CHAT = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}

ROUTES = [
    (row.method, re.sub(r"\{\*?\w+\}", "x", path))
    for row in ENDPOINTS
    for path in ((row.path, *row.aliases) if isinstance(row, Endpoint) else (row.path,))
]


def test_the_public_endpoints_are_these() -> None:
    """A new public endpoint is a decision, made here too."""
    assert {row.path for row in ENDPOINTS if isinstance(row, PublicEndpoint)} == PUBLIC


async def test_every_route_refuses_a_call_without_a_known_key(edge: Edge) -> None:
    """Default deny: no key, an unknown one, another scheme — 401 in OpenAI's shape, whatever the body."""
    for method, path in [*ROUTES, ("GET", "/nowhere"), ("PATCH", "/v1/models"), ("POST", "/openai/v1/nowhere")]:
        for headers in ({}, {"authorization": "Bearer sk-sw-unknown"}, {"authorization": "Basic eDp5"}, {"api-key": "x"}):
            reply = await edge.call(method, path, data=b"{", headers=headers)
            if path in PUBLIC:
                assert reply.status == 200, path
            else:
                assert (401, True) == (reply.status, bool(reply.error["code"])), (method, path, headers)
                assert reply.headers["www-authenticate"] == "Bearer"
                assert reply.headers["x-request-id"].startswith("req_")


async def test_administration_is_the_administrators(edge: Edge) -> None:
    """A virtual key gets 403 from every admin route."""
    headers = await edge.key()
    admin = [row for row in ENDPOINTS if isinstance(row, Endpoint) and row.access is Access.ADMIN]

    assert {"create_key", "list_keys", "revoke_key", "register_model", "replace_model", "remove_model"} <= {
        row.name for row in admin
    }
    for row in admin:
        reply = await edge.call(row.method, re.sub(r"\{\*?\w+\}", "x", row.path), json={}, headers=headers)
        assert (403, "permission_denied") == (reply.status, reply.error["code"]), row.name


async def test_viewers_read_reports_and_no_prompts_or_answers(edge: Edge) -> None:
    """What holds them is for members; where it stands is for everybody of its project."""
    made, member = await edge.gateway.keys.create("test", "shop", roles=frozenset({Role.VIEWER})), await edge.key("shop")
    viewer = {"authorization": f"Bearer {made.token.reveal()}"}
    response = (await edge.post("/v1/responses", {"model": "small", "input": "Hello"}, headers=member)).json["id"]
    accepted = await edge.post("/v1/chat/completions", CHAT, headers={**member, "prefer": "respond-async"})
    held = [f"/v1/responses/{response}", f"/v1/responses/{response}/input_items", accepted.headers["location"]]

    assert [403] * 4 == [(await edge.get(path, headers=viewer)).status for path in [*held, "/v1/files/file-1/content"]]
    assert 200 == (await edge.get("/v1/chains", headers=viewer)).status


@pytest.mark.parametrize("header", ["authorization", "Authorization", "api-key", "x-api-key"])
async def test_a_key_may_come_in_any_of_the_three_headers(edge: Edge, header: str) -> None:
    """OpenAI's, Azure's and Anthropic's clients each have their own."""
    value = f"Bearer {edge.admin}" if header.lower() == "authorization" else edge.admin
    assert (await edge.post("/v1/chat/completions", CHAT, headers={header: value})).status == 200


async def test_a_revoked_key_is_refused(edge: Edge) -> None:
    """It stops at once where it was revoked."""
    made = (await edge.post("/v1/keys", {"name": "app", "project": "shop"})).json
    headers = {"api-key": made["key"]}

    assert (await edge.post("/v1/chat/completions", CHAT, headers=headers)).status == 200
    assert (await edge.call("DELETE", f"/v1/keys/{made['id']}")).status == 200
    assert (await edge.post("/v1/chat/completions", CHAT, headers=headers)).status == 401


async def test_a_key_asks_only_for_its_models(edge: Edge) -> None:
    """What it may not use it does not see either."""
    headers = await edge.key(models=frozenset({"small"}))

    assert [model["name"] for model in (await edge.get("/v1/models", headers=headers)).json["models"]] == ["small"]
    assert (await edge.post("/v1/chat/completions", CHAT, headers=headers)).status == 200
    assert (await edge.post("/v1/chat/completions", {**CHAT, "model": "big"}, headers=headers)).status == 403
    assert (await edge.get("/v1/models/big", headers=headers)).status == 404


async def test_calls_without_a_key_are_served_only_if_the_operator_says_so() -> None:
    """And then they are attributed to the key `anonymous`; a wrong key is still wrong."""
    async with running(replace(SETTINGS, allow_anonymous=True)) as edge:
        reply = await edge.post("/v1/chat/completions", CHAT, headers={})
        stored = await edge.get(f"/v1/requests/{reply.headers['x-request-id']}")

        assert reply.status == 200
        assert ("anonymous", "default") == (stored.json["key"], stored.json["project"])
        assert (await edge.post("/v1/chat/completions", CHAT, headers={"api-key": "x"})).status == 401
        assert (await edge.get("/v1/keys", headers={})).status == 403


async def test_a_client_can_not_set_what_is_ours(edge: Edge) -> None:
    """Request ids, forwarding headers and our own names are ignored when they come from outside."""
    spoofed = {
        "x-request-id": "req_mine",
        "x-switchyard-cost-usd": "0",
        "x-switchyard-model": "other",
        "x-switchyard-project": "other",
        "x-forwarded-host": "evil.example",
        "forwarded": "host=evil.example",
        "x-forwarded-for": "1.2.3.4",
        "x-original-url": "/v1/keys",
        "x-http-method-override": "DELETE",
    }
    reply = await edge.post("/v1/chat/completions", CHAT, headers=edge.headers | spoofed)

    assert reply.status == 200
    assert reply.headers["x-request-id"] != "req_mine"
    assert reply.headers["x-switchyard-model"] == "small"
    (sent,) = edge.sent()
    assert "evil" not in str(sent)
    assert "1.2.3.4" not in str(sent)


async def test_one_project_does_not_see_anothers_data(edge: Edge) -> None:
    """Usage, metrics, traces and feedback are a project's own."""
    shop, bank = await edge.key("shop"), await edge.key("bank")
    reply = await edge.post("/v1/chat/completions", CHAT, headers=shop)
    request_id = reply.headers["x-request-id"]

    assert (await edge.get(f"/v1/requests/{request_id}", headers=shop)).status == 200
    assert (await edge.get(f"/v1/requests/{request_id}", headers=bank)).status == 404
    assert (await edge.get("/v1/usage", headers=bank)).json["data"] in ([], [row_of_nothing()])
    assert (await edge.get("/v1/usage?project=shop", headers=bank)).status == 403
    assert (await edge.get("/v1/metrics?project=shop", headers=bank)).status == 403
    assert (await edge.get("/v1/metrics", headers=bank)).json["requests"] == 0
    rating = {"request_id": request_id, "rating": 1}
    assert (await edge.post("/v1/feedback", rating, headers=bank)).status == 404
    assert (await edge.post("/v1/feedback", rating, headers=shop)).status == 200


def row_of_nothing() -> dict[str, object]:
    """Return what usage shows when there was none."""
    zeros = ("requests", "attempts", "input_tokens", "output_tokens", "cache_read", "cache_creation", "reasoning")
    return {
        **dict.fromkeys(zeros, 0),
        "errors": {},
        "attempt_errors": {},
        "cost_usd": 0.0,
        "cost_nano_usd": 0,
        "cost_unknown": 0,
        "underestimates": 0,
        "exact": True,
    }
