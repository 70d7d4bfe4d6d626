"""Two regions that Terraform deployed, each at its own address: what callers see, and where a request goes when one fails."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from shared.catalog.infrastructure import SETTING
from tests.functions.harness import SETTINGS, Edge, running

CATALOG = str(Path(__file__).parents[2] / "catalog" / "models.yaml")
DEPLOYED = {"model": "gpt-5-mini", "name": "gpt-5-mini", "sku": "GlobalStandard", "capacity": 100}
RESERVED = {"model": "gpt-5-mini", "name": "gpt-5-mini-provisioned", "sku": "GlobalProvisionedManaged", "capacity": 15}


def two_regions(simulator: str) -> Mapping[str, str]:
    """Return an environment in which the simulator is two accounts, by path."""
    accounts = [
        {
            "provider": "azure_openai",
            "region": region,
            "priority": priority,
            "endpoint": f"{simulator}/{region}",
            "deployments": some,
        }
        for region, priority, some in (("swedencentral", 1, [DEPLOYED, RESERVED]), ("eastus2", 2, [DEPLOYED]))
    ]
    return {SETTING: json.dumps(accounts), "AZURE_OPENAI_API_KEY": "a-key-that-opens-both"}


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    """Return the edge with the shipped catalog over two regions."""
    async with running(replace(SETTINGS, catalog=CATALOG), environment=two_regions) as found:
        yield found


async def asked(edge: Edge) -> tuple[str | None, str | None]:
    """Return which deployment answered OpenAI's client, and after how many attempts."""
    async with AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=edge.admin, max_retries=0) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="gpt-5-mini", messages=[{"role": "user", "content": "Hello"}]
        )
        assert raw.parse().choices[0].message.content
        return raw.headers.get("x-switchyard-deployment"), raw.headers.get("x-switchyard-attempts")


async def test_a_request_goes_from_reserved_capacity_to_the_next_region(edge: Edge) -> None:
    """Full capacity spills within the region; a region that is down is left for the other, at the other's address."""
    assert ("azure_openai/gpt-5-mini-provisioned@swedencentral", "1") == await asked(edge)
    edge.simulator.script({"profile": "swedencentral", "model": "gpt-5-mini-provisioned", "faults": ["rate_limited_ms"]})
    assert ("azure_openai/gpt-5-mini@swedencentral", "2") == await asked(edge)
    edge.simulator.script({"profile": "swedencentral", "faults": [{"kind": "server_error", "times": 9}]})
    assert "azure_openai/gpt-5-mini@eastus2" == (await asked(edge))[0]
    last = edge.sent()[-1]
    assert ("eastus2", "gpt-5-mini") == (last.profile, last.model)


async def test_models_list_every_region_and_what_is_not_deployed(edge: Edge) -> None:
    """With its place, its price, and what to add to the tfvars."""
    listed = {model["name"]: model for model in (await edge.get("/v1/models")).json["models"]}
    places = [(one["id"], one["region"], one["provisioned"], one["status"]) for one in listed["gpt-5-mini"]["deployments"]]
    assert [
        ("azure_openai/gpt-5-mini-provisioned@swedencentral", "swedencentral", True, "available"),
        ("azure_openai/gpt-5-mini@swedencentral", "swedencentral", False, "available"),
        ("azure_openai/gpt-5-mini@eastus2", "eastus2", False, "available"),
        ("openai/gpt-5-mini", None, False, "unavailable"),
    ] == places
    (azure, _) = listed["gpt-5.1"]["deployments"]
    assert "openai_regions" in azure["reason"]
