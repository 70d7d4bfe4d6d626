"""``/v1/keys``: virtual keys, for administrators. A token is shown once, by the answer to the request that made it."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from functions.endpoints import Access, Endpoint, blueprint
from functions.http import Call, endpoint
from functions.periods import iso
from functions.rendering import NO_STORE, json_response
from functions.schemas_keys import KeyRequest, KeyRotation, KeyUpdate
from functions.validation import Schema
from shared.core.access import DEFAULT_ROLES, Role
from shared.core.errors import InvalidRequestError
from shared.keys import Changes, VirtualKey

KEY: Final = Schema(KeyRequest, "KeyRequest")
UPDATE: Final = Schema(KeyUpdate, "KeyUpdate")
ROTATION: Final = Schema(KeyRotation, "KeyRotation")

DEFAULT_OVERLAP: Final = 3_600.0


async def create_key(call: Call) -> Response:
    """Make a key and show its token."""
    body = call.json()
    KEY.check(body)
    given = _changes(body)
    made = await call.gateway.keys.create(project=body["project"], **{"name": body["name"], **given})
    return json_response({**_view(call, made.key), "key": made.token.reveal()}, status=201, headers=[NO_STORE])


async def list_keys(call: Call) -> Response:
    """List every key, without its tokens."""
    keys = await call.gateway.keys.list()
    return json_response({"object": "list", "data": [_view(call, key) for key in keys]}, headers=[NO_STORE])


async def get_key(call: Call) -> Response:
    """Show one key, without its tokens."""
    return json_response(_view(call, await call.gateway.keys.get(call.path("id"))), headers=[NO_STORE])


async def update_key(call: Call) -> Response:
    """Change some of a key's fields."""
    body = call.json()
    UPDATE.check(body)
    changes = _changes(body)
    if not changes:
        message = "Name at least one field to change."
        raise InvalidRequestError(message, param="name", code="missing_required_parameter")
    key = await call.gateway.keys.update(call.path("id"), expected_version=body.get("expected_version"), **changes)
    return json_response(_view(call, key), headers=[NO_STORE])


async def rotate_key(call: Call) -> Response:
    """Make a new token for a key and show it."""
    body = call.json() if call.body else {}
    ROTATION.check(body)
    made = await call.gateway.keys.rotate(call.path("id"), overlap=body.get("overlap_seconds", DEFAULT_OVERLAP))
    return json_response({**_view(call, made.key), "key": made.token.reveal()}, headers=[NO_STORE])


async def revoke_key(call: Call) -> Response:
    """Disable a key for good."""
    key = await call.gateway.keys.revoke(call.path("id"))
    return json_response({**_view(call, key), "deleted": True}, headers=[NO_STORE])


def _changes(body: dict[str, Any]) -> Changes:
    """Return a body's fields as the store takes them: null is the value a key has when nothing is said."""
    made: Changes = {}
    for name in ("name", "expires_at", "requests_per_minute", "tokens_per_minute"):
        if name in body:
            made[name] = body[name]
    if "models" in body:
        made["models"] = None if body["models"] is None else frozenset(body["models"])
    if "budgets" in body:
        made["budgets"] = tuple(dict.fromkeys(body["budgets"] or ()))
    if "roles" in body:
        made["roles"] = frozenset(map(Role, body["roles"])) if body["roles"] else DEFAULT_ROLES
    if "tags" in body:
        made["tags"] = body["tags"] or {}
    return made


def _view(call: Call, key: VirtualKey) -> dict[str, Any]:
    now = call.gateway.clock.now()
    alive = [token for token in key.tokens if token.ends_at is None or token.ends_at > now]
    return {
        "object": "key",
        "id": key.key_id,
        "name": key.name,
        "project": key.project,
        "models": None if key.models is None else sorted(key.models),
        "budgets": list(key.budgets),
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "roles": sorted(key.roles),
        "tags": dict(key.tags),
        "created_at": iso(key.created_at),
        "expires_at": _iso(key.expires_at),
        "disabled": key.disabled,
        "version": key.version,
        "tokens": [{"created_at": iso(token.created_at), "ends_at": _iso(token.ends_at)} for token in alive],
    }


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else iso(seconds)


ENDPOINTS: Final = (
    Endpoint(
        name="create_key",
        method="POST",
        path="/v1/keys",
        handler=create_key,
        summary="Make a virtual key",
        tag="Keys",
        access=Access.ADMIN,
        body=KEY,
        status=201,
        answers="The key with its token in `key`: the only time it is shown.",
    ),
    Endpoint(
        name="list_keys",
        method="GET",
        path="/v1/keys",
        handler=list_keys,
        summary="List virtual keys",
        tag="Keys",
        access=Access.ADMIN,
        answers="Every key, also revoked ones, without tokens.",
    ),
    Endpoint(
        name="get_key",
        method="GET",
        path="/v1/keys/{id}",
        handler=get_key,
        summary="Show a virtual key",
        tag="Keys",
        access=Access.ADMIN,
        answers="The key, without its tokens.",
    ),
    Endpoint(
        name="update_key",
        method="PATCH",
        path="/v1/keys/{id}",
        handler=update_key,
        summary="Change a virtual key",
        tag="Keys",
        access=Access.ADMIN,
        body=UPDATE,
        answers="The changed key. Other instances see the change within 2 seconds.",
    ),
    Endpoint(
        name="rotate_key",
        method="POST",
        path="/v1/keys/{id}/rotate",
        handler=rotate_key,
        summary="Give a virtual key a new token",
        tag="Keys",
        access=Access.ADMIN,
        body=ROTATION,
        body_required=False,
        answers="The key with its new token in `key`: the only time it is shown. Earlier tokens end after the overlap.",
    ),
    Endpoint(
        name="revoke_key",
        method="DELETE",
        path="/v1/keys/{id}",
        handler=revoke_key,
        summary="Revoke a virtual key",
        tag="Keys",
        access=Access.ADMIN,
        answers="The revoked key. Other instances refuse all its tokens within 2 seconds; running streams come to their end.",
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
