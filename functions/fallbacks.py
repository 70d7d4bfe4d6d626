"""What answers when no endpoint does: preflights of browsers, and everything that does not exist, in OpenAI's shape."""

from __future__ import annotations

import re
from typing import Final

from starlette.responses import Response

from functions.description import ENDPOINTS as KNOWN
from functions.endpoints import AnyEndpoint, Endpoint, PublicEndpoint, blueprint
from functions.gateway import current
from functions.http import Call, PublicCall, cors_headers, endpoint
from functions.paths import path_pattern
from functions.problems import INVALID_REQUEST, error_body
from functions.rendering import empty_response, json_response
from shared.core.errors import NotFoundError

_METHODS: Final = b"GET, POST, PUT, DELETE, OPTIONS"
_MAX_AGE: Final = b"600"
_HEADERS: Final = b"authorization, api-key, x-api-key, content-type"


async def preflight(call: PublicCall) -> Response:
    """Tell a browser whether a page of its origin may call; nothing is allowed unless the operator configured origins."""
    gateway = await current()
    headers = dict(call.request.scope["headers"])
    allowed = cors_headers(gateway.settings.cors_origins, headers.get(b"origin"))
    response = empty_response()
    if allowed:
        response.raw_headers.extend(allowed)
        response.raw_headers.append((b"access-control-allow-methods", _METHODS))
        response.raw_headers.append((b"access-control-max-age", _MAX_AGE))
        asked = headers.get(b"access-control-request-headers", _HEADERS)  # SDKs send headers of their own, x-stainless-…
        response.raw_headers.append((b"access-control-allow-headers", asked))
    return response


async def not_found(call: Call) -> Response:
    """Say that there is nothing here; or, of a path that exists, which methods it takes."""
    path, method = call.request.scope["path"], call.request.method
    methods = sorted({row.method for row in KNOWN for pattern in _patterns(row) if pattern.fullmatch(path)})
    if not methods:
        message = f"There is nothing at {method} {path[:200]}. GET /docs lists what there is."
        raise NotFoundError(message)
    message = f"{path[:200]} takes {' or '.join(methods)}, not {method}."
    body = error_body(message, kind=INVALID_REQUEST, param=None, code="method_not_allowed")
    return json_response(body, status=405, headers=[(b"allow", ", ".join(methods).encode())])


def _patterns(row: AnyEndpoint) -> list[re.Pattern[str]]:
    paths = (row.path, *row.aliases) if isinstance(row, Endpoint) else (row.path,)
    return [path_pattern(path) for path in paths]


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    PublicEndpoint(
        name="preflight",
        method="OPTIONS",
        path="/{*path}",
        handler=preflight,
        summary="Answer a browser's preflight",
        tag="Description",
        listed=False,
    ),
    *(
        Endpoint(
            name=f"not_found_{method.lower()}",
            method=method,
            path="/{*path}",
            handler=not_found,
            summary="Nothing is here",
            tag="Description",
        )
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH")
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
