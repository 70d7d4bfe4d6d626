"""The description is complete and well formed, and made from what serves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from functions.description import ENDPOINTS, document
from functions.docs_page import page
from functions.endpoints import Endpoint
from functions.schemas_own import OwnFields
from shared.core.wire_support import OWN_FIELDS
from tests.functions.harness import Edge, functions


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for below in value.values():
            yield from _references(below)
    elif isinstance(value, list):
        for below in value:
            yield from _references(below)


def test_it_describes_every_route_that_is_served() -> None:
    """Nothing hidden, nothing invented: the worker's routes and the paths are the same."""
    served = {
        (method, function.route.replace("{*", "{"))
        for function in functions()[0]
        for method in function.methods
        if function.route != "/{*path}"
    }
    described = {(method.upper(), path) for path, operations in document()["paths"].items() for method in operations}

    assert served == described


def test_it_is_openapi() -> None:
    """Version, ids of their own, parameters declared for every placeholder, references that lead somewhere."""
    found = document()
    operations = [(path, operation) for path, methods in found["paths"].items() for operation in methods.values()]
    ids = [operation["operationId"] for _, operation in operations]

    assert found["openapi"] == "3.1.0"
    assert len(ids) == len(set(ids))
    for path, operation in operations:
        declared = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert set(re.findall(r"\{(\w+)\}", path)) == declared
        assert operation["responses"]
        assert all(response["description"] for response in operation["responses"].values())
    for reference in set(_references(found)):
        assert reference.removeprefix("#/components/schemas/") in found["components"]["schemas"], reference


def test_the_schemas_that_parse_are_the_ones_described() -> None:
    """Switchyard's own fields are in the bodies that take them; what is described as ours is what stays here."""
    assert set(OwnFields.__annotations__) == OWN_FIELDS
    schemas = document()["components"]["schemas"]

    for name in ("ChatRequest", "CompletionRequest", "EmbeddingsRequest"):
        assert set(schemas[name]["properties"]) >= OWN_FIELDS
    assert schemas["ChatRequest"]["required"] == ["messages"]
    assert {row.body.name for row in ENDPOINTS if isinstance(row, Endpoint) and row.body} <= set(schemas)


def test_what_is_answered_while_a_chain_is_under_way_is_described() -> None:
    """By those that start one, and by the one that tells of it."""
    paths = document()["paths"]
    starters = [
        operation
        for methods in paths.values()
        for operation in methods.values()
        if any(one["name"] == "Prefer" for one in operation["parameters"])
    ]

    assert starters
    assert all({"200", "202", "409"} <= set(one["responses"]) for one in starters)
    assert {"200", "202", "410"} <= set(paths["/v1/chains/{id}"]["get"]["responses"])


async def test_it_is_served_without_a_key(edge: Edge) -> None:
    """Programs read one, people the other."""
    openapi, docs = await edge.get("/openapi.json", headers={}), await edge.get("/docs", headers={})

    assert openapi.json == document()
    assert docs.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in docs.headers["content-security-policy"]


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No CDN, no font, no image: it works behind any firewall."""
    html = page(document())

    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?https?:""", html)
    for row in ENDPOINTS:
        assert row.path.replace("{*", "{") in html


def test_the_page_escapes_what_it_shows() -> None:
    """A description can not become markup."""
    hostile = document() | {"info": {"title": "<script>x</script>", "description": "<b>", "version": "1"}}

    assert "<script>x" not in page(hostile)
