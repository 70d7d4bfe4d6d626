"""``GET /openapi.json`` and ``GET /docs``: what this gateway can be asked, for programs and for people. No key is needed."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from starlette.responses import Response

from functions import (
    background_chains,
    batches,
    budgets,
    chat_completions,
    completions,
    embeddings,
    feedback,
    files,
    health,
    keys,
    metrics,
    models,
    projects,
    prometheus,
    requests,
    responses,
    routes,
    suggestions,
    usage,
)
from functions.docs_page import page
from functions.endpoints import AnyEndpoint, PublicEndpoint, blueprint
from functions.http import PublicCall, endpoint
from functions.openapi import describe
from functions.rendering import json_response, text_response


async def get_openapi(call: PublicCall) -> Response:
    """Return the OpenAPI 3.1 document."""
    del call
    return json_response(document())


async def get_docs(call: PublicCall) -> Response:
    """Return the document as a page to read and to try."""
    del call
    return text_response(_page(), media_type="text/html", headers=[(b"content-security-policy", _POLICY)])


_POLICY: Final = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'"
)


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document, made once."""
    return describe(ENDPOINTS)


@cache
def _page() -> str:
    return page(document())


_OWN: Final = (
    PublicEndpoint(
        name="get_openapi",
        method="GET",
        path="/openapi.json",
        handler=get_openapi,
        summary="This description, as OpenAPI 3.1",
        tag="Description",
    ),
    PublicEndpoint(
        name="get_docs",
        method="GET",
        path="/docs",
        handler=get_docs,
        summary="This description, as a page",
        tag="Description",
        media_types=("text/html",),
    ),
)

ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    *chat_completions.ENDPOINTS,
    *completions.ENDPOINTS,
    *embeddings.ENDPOINTS,
    *background_chains.ENDPOINTS,
    *routes.ENDPOINTS,
    *responses.ENDPOINTS,
    *requests.ENDPOINTS,
    *feedback.ENDPOINTS,
    *files.ENDPOINTS,
    *batches.ENDPOINTS,
    *models.ENDPOINTS,
    *usage.ENDPOINTS,
    *suggestions.ENDPOINTS,
    *metrics.ENDPOINTS,
    *prometheus.ENDPOINTS,
    *keys.ENDPOINTS,
    *projects.ENDPOINTS,
    *budgets.ENDPOINTS,
    *health.ENDPOINTS,
    *_OWN,
)
"""Every endpoint of the gateway."""

BLUEPRINT: Final = blueprint(_OWN, endpoint)
