"""What Terraform tells the app becomes the shipped catalog's deployments: both sides are held to one file.

`tests/openai.tftest.hcl` holds the setting that Terraform makes against `openai.deployments.json`; here the same file is loaded
into the registry. Nothing here runs Terraform: `make infra` does.
"""

from __future__ import annotations

import json
import re
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from shared.catalog import Loaded, load
from shared.catalog.infrastructure import SETTING, SKUS
from shared.core.chat import TASKS
from shared.core.health import HealthSnapshot
from shared.core.pricing import price_on
from shared.core.registry import Lifecycle
from shared.core.requirements import Hints, chat_requirements, embeddings_requirements
from shared.core.route import Route
from shared.core.router import plan

ROOT = Path(__file__).parents[2]
TERRAFORM = ROOT / "infra" / "terraform"
TOLD = TERRAFORM / "tests" / "openai.deployments.json"
VARIABLES = (TERRAFORM / "variables.openai.tf").read_text(encoding="utf-8")
DAY = date(2026, 11, 23)
TEMPERATURE = {"temperature": 0.2}
DEFAULTS = "the defaults"
INSTALLATIONS = [DEFAULTS, *sorted(path.name for path in (TERRAFORM / "examples").glob("*.tfvars"))]
TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}


@cache
def loaded(told: str) -> Loaded:
    """Return the shipped catalog in the environment of a function app whose settings are Terraform's."""
    text = (ROOT / "catalog" / "models.yaml").read_text(encoding="utf-8")
    return load(text, source="catalog/models.yaml", environment={SETTING: told})


def rows(block: str) -> list[dict[str, Any]]:
    """Return the deployments listed in a block of Terraform, one on each line, as the app is told of them."""
    found = [dict(re.findall(r'(\w+)\s*=\s*"?([\w.-]+)"?', line)) for line in block.splitlines() if "model" in line]
    assert found
    return [
        {"name": row["model"], "model": row["model"], "sku": "GlobalStandard", "capacity": int(row["capacity"])}
        for row in found
    ]


@cache
def deployments_of(name: str) -> list[dict[str, Any]]:
    """Return what an example deploys in each of its regions: the defaults where it lists nothing."""
    text = "" if name == DEFAULTS else (TERRAFORM / "examples" / name).read_text(encoding="utf-8")
    listed = re.findall(r"^openai_deployments = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    return rows(*(listed or re.findall(r"\n  default = \[\n(.*?)\n  \]", VARIABLES, re.DOTALL)))


def installed(name: str) -> Loaded:
    """Return the registry of an installation with an example's models."""
    account = {"provider": "azure_openai", "region": "swedencentral", "endpoint": "https://a.openai.azure.com", "priority": 1}
    return loaded(json.dumps([{**account, "deployments": deployments_of(name)}]))


def route(found: Loaded, task: str, fields: dict[str, Any]) -> Route:
    """Return the plan of a small request."""
    hints = Hints(task_type=task)
    if task == "embeddings":
        requirements = embeddings_requirements({"model": "auto", "input": "text"}, hints=hints)
    else:
        messages = [{"role": "user", "content": "Hello"}]
        requirements = chat_requirements({"model": "auto", "messages": messages, **fields}, hints=hints)
    return plan(requirements, found.registry, HealthSnapshot(), day=DAY, draw=0.5)


def test_terraforms_own_test_holds_the_setting_against_the_file() -> None:
    """Otherwise this file would prove nothing about Terraform."""
    tests = (TERRAFORM / "tests" / "openai.tftest.hcl").read_text(encoding="utf-8")
    assert f'local.settings_openai.{SETTING} == jsonencode(jsondecode(file("tests/{TOLD.name}")))' in tests


def test_what_terraform_tells_are_the_deployments_of_the_registry() -> None:
    """Every one of them, in the order of reserved capacity and regions, each with a price, and nothing to warn of."""
    found = loaded(TOLD.read_text(encoding="utf-8"))
    assert () == found.warnings
    mini = [
        (one.priority, one.id.partition("/")[2], one.limits.tokens_per_minute, one.limits.requests_per_minute)
        for one in found.registry.by_model["gpt-5-mini"]
        if one.unavailable is None
    ]
    assert [
        (1, "gpt-5-mini-provisioned@swedencentral", None, None),
        (2, "gpt-5-mini@swedencentral", 100_000, None),
        (3, "gpt-5-mini-global@eastus2", 50_000, None),
        (4, "gpt-5-mini@eastus2", 200_000, 500),
    ] == mini
    available = [
        one for one in found.registry.deployments.values() if one.unavailable is None and one.provider == "azure_openai"
    ]
    told = json.loads(TOLD.read_text(encoding="utf-8"))
    assert sum(len(account["deployments"]) for account in told) == len(available)
    for one in available:
        assert price_on(one.prices, DAY) is not None, one.id
        assert one.base_url in {account["endpoint"] for account in told}
        assert one.base_url is not None
        assert f"-{one.region}-" in one.base_url
    zone = price_on(found.registry.deployments["azure_openai/gpt-5-mini@eastus2"].prices, DAY)
    assert zone is not None
    assert (Decimal("0.275"), Decimal("2.2"), Decimal("0.0275")) == (zone.rates.input, zone.rates.output, zone.rates.cache_read)


@pytest.mark.parametrize("name", INSTALLATIONS)
def test_what_is_deployed_is_what_a_new_subscription_may_deploy(name: str) -> None:
    """First-party, generally available, priced, and known to the catalog."""
    found = installed(name)
    assert () == found.warnings
    for row in deployments_of(name):
        one = found.registry.deployments[f"azure_openai/{row['model']}@swedencentral"]
        lifecycle = one.lifecycle or found.registry.models[row["model"]].lifecycle
        assert (None, Lifecycle.GENERAL) == (one.unavailable, lifecycle.stage)
        assert price_on(one.prices, DAY) is not None


@pytest.mark.parametrize("name", INSTALLATIONS)
@pytest.mark.parametrize(
    "fields", [{}, TEMPERATURE, TOOLS, {**TEMPERATURE, **TOOLS}], ids=["plain", "temperature", "tools", "both"]
)
def test_what_is_deployed_leaves_no_request_without_a_model(name: str, fields: dict[str, Any]) -> None:
    """Whatever the task, and with what clients usually send."""
    for task in sorted(TASKS):
        candidates = route(installed(name), task, fields).candidates
        assert candidates, task
        assert all(one.worst_cost is not None for one in candidates)


def test_every_alias_of_the_catalog_is_served_by_the_default_deployments() -> None:
    """`fast`, `cheap`, `smart`, `embeddings`, and the retired names that clients still send."""
    registry = installed(DEFAULTS).registry
    deployed = {row["model"] for row in deployments_of(DEFAULTS)}
    for name in registry.aliases:
        models = registry.resolve(name)
        reachable = {*models, *(to for model in (name, *models) for to in registry.policy.fallbacks.get(model, ()))}
        assert reachable & deployed, name


def test_terraform_takes_the_deployment_types_the_registry_knows() -> None:
    """One it does not know would have no price."""
    (listed,) = re.findall(r"contains\(\[([^\]]*)\], one\.sku\)", VARIABLES)
    assert set(SKUS) == set(re.findall(r'"(\w+)"', listed))


def test_the_defaults_have_a_price_in_both_data_zones() -> None:
    """Whoever has to keep prompts in the EU or the US changes the SKU and nothing else."""
    some = [{**row, "sku": "DataZoneStandard"} for row in deployments_of(DEFAULTS)]
    account = {"provider": "azure_openai", "endpoint": "https://a.openai.azure.com", "deployments": some}
    found = loaded(json.dumps([{**account, "region": "swedencentral"}, {**account, "region": "eastus2"}])).registry
    globally = installed(DEFAULTS).registry.deployments
    for row in some:
        base = price_on(globally[f"azure_openai/{row['model']}@swedencentral"].prices, DAY)
        for region in ("swedencentral", "eastus2"):
            price = price_on(found.deployments[f"azure_openai/{row['model']}@{region}"].prices, DAY)
            assert price is not None
            assert base is not None
            assert price.rates.input > base.rates.input
