"""SWITCHYARD_DEPLOYMENTS: what Terraform deployed becomes deployments of the catalog's models, without a line of YAML."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shared.catalog import CatalogSource, Loaded, load
from shared.catalog.findings import CatalogError
from shared.catalog.infrastructure import SETTING
from shared.core.registry import Auth, Deployment
from shared.ports import Tables
from tests.catalog_samples import ENVIRONMENT, GOOD, changed, problems, save
from tests.fakes import FakeClock

NORTH, SOUTH = "https://north.openai.azure.com", "https://south.openai.azure.com"
UPLIFT = changed(("weight: 3\n", "weight: 3\n        uplift: {eu: 1.2, us: 1.1, source: list}\n"))


def deployed(name: str = "large", model: str = "large", sku: str = "GlobalStandard", capacity: object = 10) -> dict[str, Any]:
    """Return a deployment as Terraform writes one."""
    return {"name": name, "model": model, "sku": sku, "capacity": capacity}


def account(
    region: str, endpoint: str, *deployments: Mapping[str, Any], provider: str = "azure", priority: int = 1
) -> dict[str, Any]:
    """Return an account as Terraform writes one."""
    return {"provider": provider, "region": region, "endpoint": endpoint, "priority": priority, "deployments": [*deployments]}


TWO_REGIONS = (
    account("swedencentral", NORTH, deployed(), deployed("large-provisioned", sku="GlobalProvisionedManaged", capacity=5)),
    account("eastus2", SOUTH, deployed(capacity=20), priority=2),
)


def environment(*accounts: object, **more: str) -> dict[str, str]:
    """Return an environment with the setting and no endpoint of the provider."""
    return {"VENDOR_KEY": "vendor-key-1", SETTING: json.dumps(accounts), **more}


def loaded(*accounts: object, text: str = GOOD, **more: str) -> Loaded:
    """Return what a catalog and accounts make."""
    return load(text, source="catalog.yaml", environment=environment(*accounts, **more))


def of_model(found: Loaded, model: str = "large") -> dict[str, Deployment]:
    """Return a model's deployments by name."""
    return {one.id: one for one in found.registry.by_model[model]}


def input_rate(found: Loaded, name: str) -> Decimal | None:
    """Return a deployment's newest price of input, None when it has none."""
    prices = found.registry.deployments[name].prices
    return prices[-1].rates.input if prices else None


def test_every_deployment_of_every_region_is_one_of_the_model() -> None:
    """Under the name that is called, at its account's address; its limit is the capacity's, and reserved capacity has none."""
    found = of_model(loaded(*TWO_REGIONS))
    expected = {
        "azure/large-provisioned@swedencentral": ("large-provisioned", "swedencentral", NORTH, None, True),
        "azure/large@swedencentral": ("large", "swedencentral", NORTH, 10_000, False),
        "azure/large@eastus2": ("large", "eastus2", SOUTH, 20_000, False),
        "vendor/large": ("large", None, None, None, False),
    }
    assert expected == {
        name: (one.target, one.region, one.base_url, one.limits.tokens_per_minute, one.provisioned)
        for name, one in found.items()
    }
    assert [None] * 4 == [one.unavailable for one in found.values()]


def test_reserved_capacity_first_then_the_regions_then_the_others() -> None:
    """The vendor that came after the catalog's row comes after everything that stands for it now."""
    second = account("eastus2", SOUTH, deployed(), deployed("p", sku="DataZoneProvisionedManaged"), priority=2)
    found = of_model(loaded(TWO_REGIONS[0], second))
    assert {
        "azure/large-provisioned@swedencentral": 1,
        "azure/p@eastus2": 2,
        "azure/large@swedencentral": 3,
        "azure/large@eastus2": 4,
        "vendor/large": 5,
    } == {name: one.priority for name, one in found.items()}


def test_equals_share_by_capacity() -> None:
    """Two regions of one priority: the weight is the row's, times the capacity."""
    found = of_model(loaded(account("eastus2", SOUTH, deployed(capacity=20)), account("westus3", NORTH, deployed())))
    assert {"azure/large@eastus2": (1, 60), "azure/large@westus3": (1, 30), "vendor/large": (2, 1)} == {
        name: (one.priority, one.weight) for name, one in found.items()
    }


def test_the_cheaper_way_first_within_a_region() -> None:
    """Global, then the data zone, then the region alone."""
    kinds = {"Standard": "a", "DataZoneStandard": "b", "GlobalStandard": "c", "ProvisionedManaged": "d"}
    found = of_model(loaded(account("eastus2", SOUTH, *(deployed(name, sku=sku) for sku, name in kinds.items())), text=UPLIFT))
    assert ["d", "c", "b", "a"] == [one.target for one in sorted(found.values(), key=lambda one: one.priority)[:4]]


def test_limits_that_are_told_win() -> None:
    """So do the row's own requests per minute, which no capacity says."""
    text = changed(("weight: 3\n", "weight: 3\n        limits: {requests_per_minute: 7}\n"))
    told = {**deployed("told"), "tokens_per_minute": 5, "requests_per_minute": 6}
    found = of_model(loaded(account("eastus2", SOUTH, told, deployed("untold")), text=text))
    assert [(6, 5), (7, 10_000)] == [
        (found[f"azure/{name}@eastus2"].limits.requests_per_minute, found[f"azure/{name}@eastus2"].limits.tokens_per_minute)
        for name in ("told", "untold")
    ]


@pytest.mark.parametrize(
    ("region", "sku", "expected"),
    [
        ("swedencentral", "GlobalStandard", "2.10"),
        ("swedencentral", "DataZoneStandard", "2.520"),
        ("eastus2", "DataZoneStandard", "2.310"),
        ("swedencentral", "ProvisionedManaged", "2.10"),
        ("japaneast", "DataZoneStandard", None),
        ("swedencentral", "Standard", None),
        ("swedencentral", "Tomorrow", None),
    ],
)
def test_a_price_is_the_rows_with_the_uplift_of_its_place(region: str, sku: str, expected: str | None) -> None:
    """An uplift the catalog does not give leaves it unknown, which is told, and never the global price or zero."""
    found = loaded(account(region, SOUTH, deployed(sku=sku)), text=UPLIFT)
    rate = input_rate(found, f"azure/large@{region}")
    assert expected == (None if rate is None else str(rate))
    assert (expected is None) == any("its price is not known" in warning for warning in found.warnings)


def test_an_uplift_is_of_every_rate_and_says_where_it_was_read() -> None:
    """Also above a size, and of a service tier."""
    price = "{from: 2026-09-01, input: 1, cached_input: .5, output: 8, source: other, read_on: 2026-09-02,"
    price += " tiers: [{above_input_tokens: 9, input: 2, output: 9}], service_tiers: {flex: {input: .1, output: 1}}}"
    text = UPLIFT.replace("{from: 2026-09-01, input: 2.10, output: 8, source: list}", price)
    found = loaded(account("eastus2", SOUTH, deployed(sku="DataZoneStandard")), text=text)
    one = found.registry.deployments["azure/large@eastus2"].prices[-1]
    assert ("1.1", "0.55", "8.8") == (str(one.rates.input), str(one.rates.cache_read), str(one.rates.output))
    assert ("2.2", "0.11") == (str(one.tiers[0].rates.input), str(one.service_tiers["flex"].input))
    assert ("the price list", "2026-09-27") == (one.source, str(one.read_on))


def test_what_is_not_deployed_is_listed_with_what_to_add() -> None:
    """A model that is retired, or switched off in the file, keeps that reason."""
    row = "      - provider: azure\n        prices: []\n"
    text = changed(
        (
            "  small:\n    capabilities: [chat]\n    deployments:\n",
            f"  small:\n    capabilities: [chat]\n    deployments:\n{row}",
        )
    )
    found = loaded(account("eastus2", SOUTH, deployed()), text=text).registry.deployments["azure/small"].unavailable
    assert found is not None
    assert 'add { model = "small", version = "…", sku = "GlobalStandard", capacity = … }' in found
    assert "openai_regions" in found
    for more, reason in (("lifecycle: {stage: retired}", "retired"), ("enabled: false", "switched off in the catalog")):
        kept = text.replace("        prices: []\n", f"        prices: []\n        {more}\n")
        assert reason == loaded(account("eastus2", SOUTH), text=kept).registry.deployments["azure/small"].unavailable


def test_a_deployment_the_file_switched_off_stays_off() -> None:
    """Deploying a model does not overrule its row: what the row says but for its place stays."""
    text = changed(("weight: 3\n", "enabled: false\n        disabled_reason: not yet\n"))
    assert "not yet" == of_model(loaded(*TWO_REGIONS, text=text))["azure/large@eastus2"].unavailable


def test_a_row_with_an_address_of_its_own_stays() -> None:
    """It is another resource than Terraform's, whether its address is set or not."""
    text = changed(("region: swedencentral\n", "name: mine\n        base_url: ${MINE}\n"))
    own = of_model(loaded(*TWO_REGIONS, text=text, MINE="https://mine.example"))
    assert "https://mine.example" == own["azure/mine"].base_url
    assert (
        "needs MINE, which the environment does not set" == of_model(loaded(*TWO_REGIONS, text=text))["azure/mine"].unavailable
    )


def test_a_registered_model_that_is_not_deployed_by_terraform_stays() -> None:
    """Who registers one by name knows of a deployment that Terraform does not."""
    document = {"capabilities": ["chat"], "deployments": [{"provider": "azure", "target": "by-hand", "prices": []}]}
    found = load(GOOD, source="c", environment=environment(*TWO_REGIONS), overlay={"hand": document, "large": {**document}})
    assert ["azure/hand"] == [one.id for one in found.registry.by_model["hand"]]
    assert None is found.registry.deployments["azure/hand"].unavailable
    assert NORTH == found.registry.providers["azure"].base_url
    assert 3 == len(found.registry.by_model["large"])


def test_a_registered_model_gives_way_to_a_deployment_of_its_name() -> None:
    """Whoever applied a new region did not see it: it is to blame, so that it is left out and the gateway opens."""
    document = {"capabilities": ["chat"], "deployments": [{"provider": "azure", "name": "large@eastus2", "prices": []}]}
    with pytest.raises(CatalogError, match="azure/large@eastus2") as refused:
        load(GOOD, source="c", environment=environment(*TWO_REGIONS), overlay={"hand": document})
    assert {"hand"} == refused.value.registered


def test_a_model_the_catalog_does_not_know_stops_nobody() -> None:
    """It is told, as are a provider, a deployment type and a field that are not known; everything else serves."""
    odd = {**deployed("odd", "larg"), "colour": "blue"}
    found = loaded(
        account("eastus2", SOUTH, deployed(), odd, deployed("t", sku="GlobalTomorrow")),
        account("westus", NORTH, deployed(), provider="azur"),
    )
    assert {"azure/large@eastus2", "azure/t@eastus2", "vendor/large"} == set(of_model(found))
    at = f"environment: {SETTING}"
    assert f"{at}[0].deployments[1].colour: is not known to this release and is ignored" in found.warnings
    told = (
        "the catalog has no model `larg` (did you mean `large`?), so this deployment is not used: describe it under `models:`"
    )
    assert f"{at}[0].deployments[1].model: {told}" in found.warnings
    told = "the catalog has no provider `azur` (did you mean `azure`?), so nothing of this account is used"
    assert f"{at}[1].provider: {told}" in found.warnings
    assert any(warning.startswith(f"{at}[0].deployments[2].sku: `GlobalTomorrow` is not") for warning in found.warnings)


async def test_what_is_odd_is_logged_where_nobody_checks_the_catalog(
    path: Path, tables: Tables, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, by the process that serves with it."""
    there = environment(account("eastus2", SOUTH, deployed("odd", "larg")))
    source = CatalogSource(str(path), environment=there, tables=tables, clock=clock)
    for _ in range(3):
        await source.refresh()
        clock.seconds += 3
    assert 1 == sum("the catalog has no model `larg`" in record.getMessage() for record in caplog.records)


def test_a_model_without_a_row_at_the_provider_has_no_price() -> None:
    """It can be called, and a budget refuses it."""
    found = loaded(account("eastus2", SOUTH, deployed("small", "small")))
    one = found.registry.deployments["azure/small@eastus2"]
    assert ((), None, "eastus2") == (one.prices, one.unavailable, one.region)
    assert any("has no row of `azure` for `small`" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("[{", "is not valid JSON (line 1, column 3); take it from Terraform's output, or unset it"),
        ("[" * 5000, "is not valid JSON"),
        ("{}", "must be a list of accounts"),
        ('["x"]', "[0]: must be a mapping of fields"),
        (json.dumps([account("eastus2", "http://south.example", deployed())]), "[0].endpoint: must begin with https://"),
        (json.dumps([account("eastus2", "https://me:secret@host", deployed())]), "[0].endpoint: must be an address"),
        (json.dumps([account("East US", SOUTH, deployed())]), "[0].region: must be lower-case letters"),
        (json.dumps([account("eastus2", SOUTH, deployed(capacity=0))]), "[0].deployments[0].capacity: must be 1 or more"),
        (
            json.dumps([account("eastus2", SOUTH, deployed(capacity=1.5))]),
            "[0].deployments[0].capacity: must be a whole number",
        ),
        (json.dumps([{"provider": "azure"}]), "[0].region: is missing; add it"),
        (json.dumps([account("eastus2", SOUTH, deployed(), deployed())]), "`azure/large@eastus2` is already a deployment"),
    ],
)
def test_what_can_not_be_meant_is_a_problem_of_the_setting(value: str, expected: str) -> None:
    """It names the setting and the place, and shows no address."""
    found = problems(GOOD, {**ENVIRONMENT, SETTING: value})
    assert any(line.startswith(f"environment: {SETTING}") and expected in line for line in found), found
    assert "secret" not in "".join(found)


def test_everything_wrong_is_told_at_once() -> None:
    """The file's mistakes and the setting's."""
    assert 2 == len(problems(changed(("weight: 3", "weight: -3")), {**ENVIRONMENT, SETTING: "{}"}))


@pytest.mark.parametrize("value", ["", "  ", "[]"])
def test_without_it_nothing_changes(value: str) -> None:
    """Neither a deployment nor the version."""
    found = load(GOOD, source="c", environment={**ENVIRONMENT, SETTING: value})
    without = load(GOOD, source="c", environment=ENVIRONMENT)
    assert (without.registry.version, without.references) == (found.registry.version, found.references)
    assert without.registry.deployments.keys() == found.registry.deployments.keys()


def test_an_account_on_this_machine_needs_no_https() -> None:
    """A test's provider is on loopback."""
    assert (
        "http://127.0.0.1:8/x"
        == of_model(loaded(account("here", "http://127.0.0.1:8/x/", deployed())))["azure/large@here"].base_url
    )


def test_the_setting_alone_is_enough() -> None:
    """The provider's endpoint is that of the first region, and Entra opens it; one key for two accounts is told."""
    auth = changed(("api_key: ${AZURE_KEY}\n", "api_key: ${AZURE_KEY}\n    auth: [api_key, entra]\n"))
    provider = loaded(*reversed(TWO_REGIONS), text=auth).registry.providers["azure"]
    assert (NORTH, Auth.ENTRA, None) == (provider.base_url, provider.auth, provider.unavailable)
    assert () == loaded(*TWO_REGIONS, text=auth).warnings
    (told,) = loaded(*TWO_REGIONS, text=auth, AZURE_KEY="one-key").warnings
    assert "catalog.yaml:8: providers.azure.api_key: is one key, and there are 2 accounts" in told


def test_the_simulator_stands_for_every_region() -> None:
    """No call leaves the machine."""
    found = load(GOOD, source="c", environment=environment(*TWO_REGIONS), simulator_url="http://127.0.0.1:1")
    assert {None} == {one.base_url for one in found.registry.deployments.values()}
    assert 4 == len(found.registry.by_model["large"])


def test_it_is_part_of_the_version_but_for_addresses_and_spaces() -> None:
    """What decides differently is another registry."""
    version = loaded(*TWO_REGIONS).registry.version
    elsewhere = [{**one, "endpoint": "https://other.example"} for one in TWO_REGIONS]
    assert version == loaded(*elsewhere).registry.version
    assert (
        version
        == load(GOOD, source="c", environment=environment() | {SETTING: json.dumps(TWO_REGIONS, indent=2)}).registry.version
    )
    larger = {**TWO_REGIONS[1], "deployments": [deployed(capacity=21)]}
    assert 3 == len({version, loaded(TWO_REGIONS[0], larger).registry.version, loaded().registry.version})


async def test_it_is_read_again_and_a_past_registry_is_made_again(
    path: Path, tables: Tables, clock: FakeClock, open_source: Callable[[], CatalogSource]
) -> None:
    """A decision is replayed with the regions of its day, by a process that never had them, and no address was kept."""
    there = environment(*TWO_REGIONS)
    source = CatalogSource(str(path), environment=there, tables=tables, clock=clock)
    await source.refresh()
    old = source.current
    row = await tables.table("catalogs").get("catalog", old.version)
    assert row is not None
    there[SETTING] = json.dumps([TWO_REGIONS[1]])
    save(path, changed(("weight: 3", "weight: 4")))
    clock.seconds += 1
    assert {"azure/large@eastus2", "vendor/large"} == {one.id for one in source.current.by_model["large"]}
    again = await open_source().at_version(old.version)
    assert again is not None
    assert old.version == again.version
    assert [(one.id, one.priority, one.prices, one.limits) for one in old.deployments.values()] == [
        (one.id, one.priority, one.prices, one.limits) for one in again.deployments.values()
    ]
    assert {"https://archived.invalid", None} == {one.base_url for one in again.deployments.values()}
