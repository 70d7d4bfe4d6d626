"""What a good catalog means."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from shared.catalog import load
from shared.core.chat import Objective
from shared.core.registry import Auth, ProviderKind
from tests.catalog_samples import ENVIRONMENT, GOOD, changed, registry


def test_a_good_catalog_has_no_problem() -> None:
    """All names resolve: models, aliases of models and of aliases, rules, fallbacks, arms."""
    found = registry()
    assert {"large", "small"} == set(found.models)
    assert ("large", "small") == found.resolve("best")
    assert ("small",) == found.rules["conversation"].preferred_models
    assert {"large": ("small",)} == found.policy.fallbacks
    assert [("large", 1), ("small", 9)] == [(arm.model, arm.weight) for arm in found.experiments[0].arms]
    assert Objective.COST is found.policy.objective
    assert 60.0 == found.policy.failover.deadline


def test_deployments_are_in_catalog_order_and_named_after_provider_and_model() -> None:
    """The id is provider/name; what is sent is the target."""
    found = registry()
    assert ["azure/large", "vendor/large", "vendor/small"] == list(found.deployments)
    assert ["azure/large", "vendor/large"] == [deployment.id for deployment in found.by_model["large"]]
    assert "vendor/small-1" == found.deployments["vendor/small"].target
    assert "large" == found.deployments["vendor/large"].target


def test_prices_are_exact_and_oldest_first() -> None:
    """2.10 is the decimal 2.10, never a binary float; a named source stands for its page and day."""
    old, new = registry().deployments["azure/large"].prices
    assert (date(2026, 1, 1), date(2026, 1, 2)) == (old.effective_from, old.read_on)
    assert "2.10" == str(new.rates.input)
    assert ("the price list", date(2026, 9, 27)) == (new.source, new.read_on)


@pytest.mark.parametrize("written", [".000000000000000123", "1e-7", "0.1", "12.345678901234567"])
def test_a_price_keeps_every_digit(written: str) -> None:
    """No digit of a price passes through a float."""
    text = changed(("input: 2.10", f"input: {written}"))
    price = registry(text).deployments["azure/large"].prices[-1]
    assert Decimal(written) == price.rates.input


def test_tiers_and_service_tiers() -> None:
    """A tier is the whole request's rates above a size; a service tier is the provider's word for another price."""
    more = (
        "{from: 2026-09-01, input: 2, cached_input: .2, cache_write: 2.5, output: 8, reasoning: 9, per_request: .01,"
        " source: list, tiers: [{above_input_tokens: 272_000, input: 4, output: 12}],"
        " service_tiers: {priority: {input: 3.5, output: 28}}}"
    )
    text = changed(("{from: 2026-09-01, input: 2.10, output: 8, source: list}", more))
    price = registry(text).deployments["azure/large"].prices[-1]
    assert (Decimal("0.2"), Decimal("2.5"), Decimal(9)) == (
        price.rates.cache_read,
        price.rates.cache_creation,
        price.rates.reasoning,
    )
    assert Decimal("0.01") == price.rates.request
    assert (272_000, Decimal(12)) == (price.tiers[0].above_input_tokens, price.tiers[0].rates.output)
    assert Decimal(28) == price.service_tiers["priority"].output


def test_an_explicit_empty_list_is_an_unknown_price() -> None:
    """`prices: []` says that the price is not known; leaving it out is a mistake."""
    text = changed(("prices: [{from: 2026-09-01, input: .1, output: .4, source: list}]", "prices: []"))
    assert () == registry(text).deployments["vendor/small"].prices


def test_text_stays_text() -> None:
    """YAML 1.1's surprises do not happen: `no` is a name, 2024-10-21 a version, 1.10 not 1.1."""
    text = changed(
        ("    api_key: ${AZURE_KEY}\n", "    api_key: ${AZURE_KEY}\n    api_version: 2024-10-21\n"),
        ("region: swedencentral", "region: no"),
        ("target: vendor/small-1", "target: 1.10"),
    )
    found = registry(text)
    assert "2024-10-21" == found.providers["azure"].api_version
    assert "no" == found.deployments["azure/large"].region
    assert "1.10" == found.deployments["vendor/small"].target


def test_a_resource_pasted_with_its_path_is_the_resource() -> None:
    """The Azure portal shows addresses with and without paths; all mean the resource."""
    for address in ("https://r.example", "https://r.example/", "https://r.example/openai/v1/", "https://r.example/openai"):
        found = registry(environment={**ENVIRONMENT, "AZURE_ENDPOINT": address})
        assert "https://r.example" == found.providers["azure"].base_url


def test_default_auth_by_kind() -> None:
    """Azure takes api-key, or Entra when no key is set; the others their own header."""
    keyed = registry().providers["azure"]
    assert (ProviderKind.AZURE_OPENAI, Auth.API_KEY) == (keyed.kind, keyed.auth)
    keyless = registry(environment={name: value for name, value in ENVIRONMENT.items() if name != "AZURE_KEY"})
    assert (Auth.ENTRA, None, None) == (
        keyless.providers["azure"].auth,
        keyless.providers["azure"].credential,
        keyless.providers["azure"].unavailable,
    )
    assert Auth.BEARER is registry().providers["vendor"].auth


def test_what_a_protocol_can_not_say_is_unsupported_by_the_provider() -> None:
    """The router learns from the provider which fields no model of it can honour."""
    text = changed(("kind: openai_compatible", "kind: anthropic"))
    assert "logit_bias" in registry(text).providers["vendor"].unsupported_parameters


def test_a_retired_deployment_can_not_be_called() -> None:
    """Retirement is per provider: the other deployment of the model stays."""
    life = "lifecycle: {stage: retired, retires_on: 2026-10-01, source: list}"
    found = registry(changed(("        region: swedencentral\n", f"        region: swedencentral\n        {life}\n")))
    assert "retired on 2026-10-01" == found.deployments["azure/large"].unavailable
    assert None is found.deployments["vendor/large"].unavailable


@pytest.mark.parametrize(("stage", "chosen"), [("ga", True), ("preview", False), ("legacy", False), ("deprecated", False)])
def test_only_generally_available_models_are_chosen_unasked(stage: str, *, chosen: bool) -> None:
    """`auto` follows the lifecycle unless the entry says otherwise."""
    text = changed(("    capabilities: [chat]\n", f"    capabilities: [chat]\n    lifecycle: {{stage: {stage}}}\n"))
    assert chosen is registry(text).models["small"].auto
    explicit = text.replace(f"{{stage: {stage}}}\n", f"{{stage: {stage}}}\n    auto: true\n")
    assert registry(explicit).models["small"].auto


def test_the_version_is_the_content() -> None:
    """Same content, same version; any change of meaning is another version, a secret's value is not."""
    version = registry().version
    assert version == registry().version
    assert version != registry(changed(("weight: 3", "weight: 4"))).version
    assert version == registry(environment={**ENVIRONMENT, "AZURE_KEY": "another"}).version
    assert version != registry(environment={**ENVIRONMENT, "VENDOR_KEY": ""}).version


def test_secrets_do_not_show() -> None:
    """Neither the registry's repr nor what is kept about references holds a credential."""
    loaded = load(GOOD, source="catalog.yaml", environment=ENVIRONMENT)
    assert "key-1" not in repr(loaded)
    vendor = loaded.registry.providers["vendor"].credential
    assert vendor is not None
    assert "vendor-key-1" == vendor.reveal()
