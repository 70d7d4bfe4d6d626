"""``/v1/keys``: virtual keys, for the administrator. A key's token is shown once, when it is made."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from functions.endpoints import Access, Endpoint, blueprint
from functions.http import Call, endpoint
from functions.periods import iso
from functions.rendering import NO_STORE, json_response
from functions.schemas import KeyRequest
from functions.validation import Schema
from shared.keys import VirtualKey

KEY: Final = Schema(KeyRequest, "KeyRequest")


async def create_key(call: Call) -> Response:
    """Make a key and show its token."""
    body = call.json()
    KEY.check(body)
    models = body.get("models")
    made = await call.gateway.keys.create(
        body["name"],
        body["project"],
        expires_at=body.get("expires_at"),
        models=None if models is None else frozenset(models),
    )
    return json_response({**_view(made.key), "key": made.token.reveal()}, status=201, headers=[NO_STORE])


async def list_keys(call: Call) -> Response:
    """List every key, without its token."""
    keys = await call.gateway.keys.list()
    return json_response({"object": "list", "data": [_view(key) for key in keys]}, headers=[NO_STORE])


async def get_key(call: Call) -> Response:
    """Show one key, without its token."""
    return json_response(_view(await call.gateway.keys.get(call.path("id"))), headers=[NO_STORE])


async def revoke_key(call: Call) -> Response:
    """Disable a key for good."""
    key = await call.gateway.keys.revoke(call.path("id"))
    return json_response({**_view(key), "deleted": True}, headers=[NO_STORE])


def _view(key: VirtualKey) -> dict[str, Any]:
    return {
        "object": "key",
        "id": key.key_id,
        "name": key.name,
        "project": key.project,
        "models": None if key.models is None else sorted(key.models),
        "created_at": iso(key.created_at),
        "expires_at": None if key.expires_at is None else iso(key.expires_at),
        "disabled": key.disabled,
    }


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
        answers="The key, without its token.",
    ),
    Endpoint(
        name="revoke_key",
        method="DELETE",
        path="/v1/keys/{id}",
        handler=revoke_key,
        summary="Revoke a virtual key",
        tag="Keys",
        access=Access.ADMIN,
        answers="The revoked key. Other instances refuse it within seconds.",
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
