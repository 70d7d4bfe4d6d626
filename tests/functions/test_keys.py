"""``/v1/keys``: what administrators do with keys, what everybody else may not, and what a revoked key's stream does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from yarl import URL

from functions.description import ENDPOINTS
from functions.endpoints import Access, Endpoint
from functions.http import MAX_TOKEN
from shared.core.access import Identity, Role
from shared.core.errors import StorageUnavailableError
from shared.core.records import Caller
from tests.functions.harness import Edge

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
JWT = "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl"


async def make(edge: Edge, **fields: Any) -> dict[str, Any]:
    """Make a key as the administrator; return its view, with the token in `key`."""
    reply = await edge.post("/v1/keys", {"name": "app", "project": "shop"} | fields)
    assert reply.status == 201, reply.body
    found: dict[str, Any] = reply.json
    return found


async def asks(edge: Edge, token: str) -> int:
    """Return the status of a chat with a token."""
    return (await edge.post(CHAT, HELLO, headers={"api-key": token})).status


# ---- what a key is -----------------------------------------------------------------------------------------------------


async def test_a_key_is_bound_changed_and_shown(edge: Edge) -> None:
    """What is given comes back, what is not named stays, null takes away; never a token."""
    edge.gateway.keys._budget_exists = exists
    given = {
        "budgets": ["team", "team", "other"],
        "requests_per_minute": 60,
        "tokens_per_minute": 90_000,
        "roles": ["viewer", "member"],
        "tags": {"cost_center": "4711"},
        "models": ["small"],
    }
    made = await make(edge, **given)
    path = f"/v1/keys/{made['id']}"
    changed = await edge.call("PATCH", path, json={"requests_per_minute": None, "tags": {"team": "x"}, "expected_version": 1})
    shown = await edge.get(path)
    stale = await edge.call("PATCH", path, json={"name": "late", "expected_version": 1})

    token = made.pop("key")
    assert made | given | {"budgets": ["team", "other"], "roles": ["member", "viewer"]} == made
    assert changed.json == made | {"requests_per_minute": None, "tags": {"team": "x"}, "version": 2}
    assert changed.json == shown.json
    assert (409, "version_mismatch", "expected_version") == (stale.status, stale.error["code"], stale.error["param"])
    assert token.encode() not in changed.body + shown.body + (await edge.get("/v1/keys")).body
    for reply in (changed, shown):
        assert reply.headers["cache-control"] == "no-store"


async def test_a_key_is_rotated(edge: Edge) -> None:
    """The new token is shown once; both are good in the overlap, under one id."""
    made = await make(edge)
    first = (await edge.post(f"/v1/keys/{made['id']}/rotate", {"overlap_seconds": 60})).json
    second = (await edge.call("POST", f"/v1/keys/{made['id']}/rotate")).json
    tokens = [made["key"], first["key"], second["key"]]

    assert len(set(tokens)) == 3
    assert made["id"] == first["id"] == second["id"]
    assert [200, 200, 200] == [await asks(edge, token) for token in tokens]
    assert [False, False, True] == [token["ends_at"] is None for token in second["tokens"]]
    last = (await edge.post(f"/v1/keys/{made['id']}/rotate", {"overlap_seconds": 0})).json
    assert [401, 401, 401] == [await asks(edge, token) for token in tokens]
    assert len(last["tokens"]) == 1
    assert (await edge.call("DELETE", f"/v1/keys/{made['id']}")).status == 200
    assert 401 == await asks(edge, last["key"])
    refused = await edge.post(f"/v1/keys/{made['id']}/rotate", {})
    assert (409, "key_revoked") == (refused.status, refused.error["code"])


async def exists(budget: str) -> bool:
    """Say that every budget exists but `gone`."""
    return budget != "gone"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"project": None}, "project"),
    ({"project": ""}, "project"),
    ({"project": 5}, "project"),
    ({"budgets": [f"budget-{number}" for number in range(5_000)]}, "budgets"),
    ({"budgets": ["gone"]}, "budgets"),
    ({"budgets": ["a b"]}, "budgets"),
    ({"budgets": [5]}, "budgets[0]"),
    ({"budgets": "team"}, "budgets"),
    ({"requests_per_minute": 0}, "requests_per_minute"),
    ({"requests_per_minute": -1}, "requests_per_minute"),
    ({"requests_per_minute": True}, "requests_per_minute"),
    ({"requests_per_minute": 1.0}, "requests_per_minute"),
    ({"tokens_per_minute": 10**30}, "tokens_per_minute"),
    ({"tokens_per_minute": "60"}, "tokens_per_minute"),
    ({"roles": ["root"]}, "roles[0]"),
    ({"roles": []}, "roles"),
    ({"roles": "admin"}, "roles"),
    ({"tags": {"a": 1}}, "tags.a"),
    ({"tags": {"a": "b\n"}}, "tags"),
    ({"tags": {f"tag{number}": "x" for number in range(17)}}, "tags"),
    ({"tags": ["a"]}, "tags"),
    ({"expires_at": True}, "expires_at"),
    ({"expires_at": 5}, "expires_at"),
    ({"expires_at": 10**30}, "expires_at"),
    ({"models": []}, "models"),
    ({"name": None}, "name"),
    ({"name": "\x00"}, "name"),
    ({"admin": True}, "admin"),
    ({"key_id": "key_000000000000"}, "key_id"),
    ({"key": "sk-sw-mine"}, "key"),
    ({"disabled": False}, "disabled"),
]


async def test_a_wrong_field_is_refused_by_name(edge: Edge) -> None:
    """In a new key and in a change; nothing is made or changed. Without a project there is no key."""
    edge.gateway.keys._budget_exists = exists
    made = await make(edge)
    path = f"/v1/keys/{made['id']}"
    for fields, param in WRONG:
        new = await edge.post("/v1/keys", {"name": "app", "project": "shop"} | fields)
        change = await edge.call("PATCH", path, json=fields)
        for reply in (new, change):
            assert (400, param) == (reply.status, reply.error["param"]), (fields, reply.body)
    bound_to_nothing = await edge.post("/v1/keys", {"name": "app"})
    for body, param in (({}, "name"), ({"project": "bank"}, "project"), ({"expected_version": 0}, "expected_version")):
        reply = await edge.call("PATCH", path, json=body)
        assert (400, param) == (reply.status, reply.error["param"])

    assert (400, "project") == (bound_to_nothing.status, bound_to_nothing.error["param"])
    assert [made["id"]] == [key["id"] for key in (await edge.get("/v1/keys")).json["data"]]
    assert 1 == (await edge.get(path)).json["version"]


@pytest.mark.parametrize("value", ["-1", "true", '"60"', "null", "NaN", "1e999", "2592001", "[]"])
async def test_a_wrong_overlap_is_refused(edge: Edge, value: str) -> None:
    """By name, unless it is no JSON at all; nothing is rotated."""
    made = await make(edge)
    reply = await edge.call("POST", f"/v1/keys/{made['id']}/rotate", data=f'{{"overlap_seconds": {value}}}'.encode())

    assert reply.status == 400
    assert reply.error["param"] == "overlap_seconds"
    assert 200 == await asks(edge, made["key"])


@pytest.mark.parametrize(
    "name", ["x", "key_", "key_00000000000g", "key_0000000000000", "key_%00", "key_' or 1=1", "admin", "🔑"]
)
async def test_a_malformed_id_is_refused_by_name(edge: Edge, name: str) -> None:
    """400 for what can be no id, 404 for one that is unknown, whatever is asked."""
    for method, tail in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")):
        for path, status in ((f"/v1/keys/{name}{tail}", 400), (f"/v1/keys/key_000000000000{tail}", 404)):
            reply = await edge.call(method, path, json={"name": "x"} if method == "PATCH" else {})
            assert (status, "key_id") == (reply.status, reply.error["param"]), (method, path, reply.body)


# ---- who may ----------------------------------------------------------------------------------------------------------

MAY = {
    Role.VIEWER: {Access.VIEWER},
    Role.MEMBER: {Access.VIEWER, Access.MEMBER},
    Role.ADMIN: {Access.VIEWER, Access.MEMBER, Access.ADMIN},
}
READS = {"list_models", "get_model", "get_usage", "get_metrics", "get_request", "get_health", "list_budgets", "get_budget"}
ASKS = {
    "create_chat_completion",
    "create_completion",
    "create_embeddings",
    "plan_request",
    "submit_feedback",
    "create_response",
}
WORKS = {"cancel_chain", "delete_chain", "cancel_response", "delete_response", "create_batch", "cancel_batch"}
FILES = {"create_file", "delete_file"}


@pytest.mark.parametrize("role", list(Role))
async def test_each_role_reaches_its_routes(edge: Edge, role: Role) -> None:
    """Every route for every role: 403 exactly where the table does not let it in."""
    headers = {"api-key": (await make(edge, roles=[role.value]))["key"]}
    rows = [row for row in ENDPOINTS if isinstance(row, Endpoint)]
    for row in rows:
        path = row.path.replace("{*id}", "nothing").replace("{id}", "nothing").replace("{model}", "nothing")
        reply = await edge.call(row.method, path, data=b"{", headers=headers)
        assert (reply.status == 403) == (row.least not in MAY[role]), (row.name, reply.status, reply.body)


def test_what_each_route_needs_is_decided_here_too() -> None:
    """Reading is for viewers, asking for members; keys, and every other change to the gateway, for administrators."""
    needs: dict[Access, set[str]] = {access: set() for access in Access}
    for row in ENDPOINTS:
        if isinstance(row, Endpoint):
            needs[row.least].add(row.name)

    assert needs[Access.VIEWER] >= READS
    assert {name for name in needs[Access.ADMIN] if name.endswith("_key") or name == "list_keys"} == {
        *("create_key", "list_keys", "get_key", "update_key", "rotate_key", "revoke_key")
    }
    changes = {row.name for row in ENDPOINTS if isinstance(row, Endpoint) and row.method != "GET"}
    members = {name for name in changes if name not in needs[Access.ADMIN]}
    assert members == ASKS | WORKS | FILES
    assert not any("budget" in name or "key" in name or "model" in name or "project" in name for name in members)


async def test_a_viewer_sees_its_own_project_only(edge: Edge) -> None:
    """And asks nothing."""
    member, viewer = await make(edge), await make(edge, roles=["viewer"])
    stranger = await make(edge, roles=["viewer"], project="bank")
    reply = await edge.post(CHAT, HELLO, headers={"api-key": member["key"]})
    request = f"/v1/requests/{reply.headers['x-request-id']}"

    assert 403 == await asks(edge, viewer["key"])
    assert [200, 404] == [(await edge.get(request, headers={"api-key": one["key"]})).status for one in (viewer, stranger)]
    for path in ("/v1/usage", "/v1/metrics"):
        assert 200 == (await edge.get(path, headers={"api-key": viewer["key"]})).status
        assert 403 == (await edge.get(f"{path}?project=shop", headers={"api-key": stranger["key"]})).status


async def test_nobody_raises_their_own_role(edge: Edge) -> None:
    """Not by a change to their key, a new key, or a rotation; an administrator's key may, until it is revoked."""
    for role in ("viewer", "member"):
        made = await make(edge, roles=[role])
        headers = {"api-key": made["key"]}
        for method, path, body in (
            ("PATCH", f"/v1/keys/{made['id']}", {"roles": ["admin"]}),
            ("POST", "/v1/keys", {"name": "boss", "project": "shop", "roles": ["admin"]}),
            ("POST", f"/v1/keys/{made['id']}/rotate", {}),
            ("GET", f"/v1/keys/{made['id']}", None),
        ):
            assert 403 == (await edge.call(method, path, json=body, headers=headers)).status
        for spoof in ({"x-switchyard-roles": "admin"}, {"x-ms-client-principal": "admin"}):
            assert 403 == (await edge.get("/v1/keys", headers=headers | spoof)).status
    boss = await make(edge, roles=["admin"])
    assert 200 == (await edge.get("/v1/keys", headers={"api-key": boss["key"]})).status
    await edge.call("PATCH", f"/v1/keys/{boss['id']}", json={"roles": None})
    assert 403 == (await edge.get("/v1/keys", headers={"api-key": boss["key"]})).status


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/v1/keys/",
            "//v1/keys",
            "/v1//keys",
            "/V1/KEYS",
            "/v1/%6beys",
            "/v1/keys%2f",
            "/v1/models/../keys",
            "/v1/keys?x=/docs",
        ),
        *("/v1/keys#/docs", "/v1/keys;/docs", "/docs/../v1/keys", "/openapi.json/../v1/keys", "/v1/health/live/../../keys"),
    ],
)
async def test_no_spelling_of_a_path_goes_round_the_check(edge: Edge, path: str) -> None:
    """CVE-2026-49468, CVE-2026-48710: what decides is the row of the handler that runs, not the text of the path."""
    member = {"api-key": (await make(edge))["key"]}
    url = URL(edge.url + path, encoded=True)
    for headers, expected in (({}, {401}), ({"host": "x/docs?"}, {400, 401}), (member, {403, 404})):
        async with edge.session.get(url, headers=headers) as response:
            body = await response.read()
        assert response.status in expected, (path, response.status)
        assert b"key_" not in body


async def test_no_token_is_in_a_log_or_an_error(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    """CVE-2024-9606, CVE-2025-11203: not of good keys, not of wrong ones, not in health, metrics or a refusal."""
    caplog.set_level("DEBUG")
    made = await make(edge, models=["big"])
    rotated = (await edge.post(f"/v1/keys/{made['id']}/rotate", {})).json
    wrong = ["sk-sw-" + "canary" * 8, JWT, "canary-" * 3]
    seen = b""
    for token in (made["key"], rotated["key"], *wrong):
        for path in ("/v1/health", "/v1/metrics", "/v1/usage", "/v1/keys"):
            seen += (await edge.get(path, headers={"api-key": token})).body
        seen += (await edge.post(CHAT, HELLO, headers={"authorization": f"Bearer {token}"})).body
    seen += (await edge.get("/v1/keys")).body + (await edge.get("/v1/health")).body

    for token in (made["key"], rotated["key"], edge.admin, *wrong):
        assert token.encode() not in seen
        assert token[6:] not in caplog.text


async def test_a_running_stream_outlives_its_key(edge: Edge) -> None:
    """It was admitted: it runs to its end and is written down; the next request is refused at once."""
    made = await make(edge)
    edge.simulator.script({"answer": "one two three four five six", "chunk_gap_ms": 30})
    headers = {"api-key": made["key"]}
    async with edge.session.post(edge.url + CHAT, json=HELLO | {"stream": True}, headers=headers) as response:
        first = await response.content.readuntil(b"\n\n")
        assert 200 == (await edge.call("DELETE", f"/v1/keys/{made['id']}")).status
        assert 401 == await asks(edge, made["key"])
        rest = await response.content.read()
    await asyncio.sleep(0)
    stored = await edge.get(f"/v1/requests/{response.headers['x-request-id']}")

    assert b"one" in first + rest
    assert rest.endswith(b"data: [DONE]\n\n")
    assert ("succeeded", made["id"]) == (stored.json["outcome"], stored.json["key"])


# ---- tokens of Entra ID ----------------------------------------------------------------------------------------------


class Verifier:
    """Knows some tokens, and who was asked about."""

    def __init__(self) -> None:
        self.known: dict[str, Identity] = {}
        self.asked: list[str] = []
        self.down = False

    async def verify(self, token: str) -> Identity | None:
        """Look up."""
        self.asked.append(token)
        if self.down:
            message = "The keys could not be fetched."
            raise StorageUnavailableError(message, code="identity_provider_unavailable", retry_after=15)
        return self.known.get(token)

    async def aclose(self) -> None:
        """Do nothing."""


def entra(*roles: Role) -> Identity:
    """Return somebody of Entra's."""
    return Identity(Caller("entra:99999999-8888-7777-6666-555555555555", "shop", admin=Role.ADMIN in roles), frozenset(roles))


async def test_an_entra_token_is_taken_in_place_of_a_key(edge: Edge) -> None:
    """In any of the three headers, however long; usage is its bearer's; what looks like a key is never asked about."""
    verifier = edge.gateway.keys._verifier = Verifier()
    long = f"{JWT}{'A' * 6_000}"
    verifier.known = {JWT: entra(Role.MEMBER), long: entra(Role.ADMIN)}
    replies = [
        await edge.post(CHAT, HELLO, headers=headers) for headers in ({"authorization": f"Bearer {JWT}"}, {"api-key": JWT})
    ]
    stored = await edge.get(f"/v1/requests/{replies[0].headers['x-request-id']}", headers={"authorization": f"bearer {long}"})

    assert [200, 200] == [reply.status for reply in replies]
    assert ("entra:99999999-8888-7777-6666-555555555555", "shop") == (stored.json["key"], stored.json["project"])
    assert 403 == (await edge.get("/v1/keys", headers={"api-key": JWT})).status
    assert 200 == (await edge.get("/v1/keys", headers={"api-key": long})).status
    verifier.asked.clear()
    for token in ("sk-sw-" + "a" * 43, "x", "eyJx.y", "eyJa.b.c.d", "eyJ" + "a" * MAX_TOKEN + ".b.c", edge.admin + "x"):
        assert 401 == await asks(edge, token)
    assert verifier.asked == []


async def test_an_entra_token_without_a_role_may_do_nothing(edge: Edge) -> None:
    """403 everywhere, not 401: it is known, and told what it lacks."""
    verifier = edge.gateway.keys._verifier = Verifier()
    verifier.known = {JWT: entra()}
    for path in ("/v1/models", "/v1/usage", "/v1/keys", "/nowhere"):
        reply = await edge.get(path, headers={"api-key": JWT})
        assert (403, "permission_denied") == (reply.status, reply.error["code"])
    assert 403 == await asks(edge, JWT)


async def test_without_the_providers_keys_it_is_503(edge: Edge) -> None:
    """With a time to come back; keys of our own go on working."""
    verifier = edge.gateway.keys._verifier = Verifier()
    verifier.down = True
    reply = await edge.post(CHAT, HELLO, headers={"api-key": JWT})

    assert (503, "identity_provider_unavailable", "15") == (reply.status, reply.error["code"], reply.headers["retry-after"])
    assert 200 == await asks(edge, edge.admin)


async def test_where_entra_is_not_set_up_its_tokens_are_unknown(edge: Edge) -> None:
    """401, as any other text."""
    assert 401 == await asks(edge, JWT)
