"""${NAME} and ${NAME:-default}: what is taken from the environment, and what happens when it is not there."""

from __future__ import annotations

import pytest

from shared.catalog import load
from shared.core.registry import Auth
from tests.catalog_samples import ENVIRONMENT, GOOD, changed, problems, registry


def without(*names: str) -> dict[str, str]:
    """Return the environment without some names."""
    return {name: value for name, value in ENVIRONMENT.items() if name not in names}


def test_a_missing_endpoint_makes_its_deployments_unavailable() -> None:
    """It is no error; the reason names the variable."""
    found = registry(environment=without("AZURE_ENDPOINT"))
    reason = "needs AZURE_ENDPOINT, which the environment does not set"
    assert reason == found.providers["azure"].unavailable
    assert reason == found.deployments["azure/large"].unavailable
    assert None is found.deployments["vendor/large"].unavailable


@pytest.mark.parametrize("value", ["", "  ", "\n"])
def test_a_blank_credential_is_a_missing_one(value: str) -> None:
    """An app setting that was left empty is not a key."""
    found = registry(environment={**ENVIRONMENT, "VENDOR_KEY": value})
    assert "needs VENDOR_KEY, which the environment does not set" == found.deployments["vendor/small"].unavailable


def test_a_reference_that_azure_could_not_follow_is_no_key() -> None:
    """Sent as one, it would tell a provider the vault's name; the other deployments serve, and a person is told."""
    found = load(GOOD, source="c.yaml", environment={**ENVIRONMENT, "VENDOR_KEY": "@Microsoft.KeyVault(SecretUri=https://v)"})
    assert "needs VENDOR_KEY, which the environment does not set" == found.registry.deployments["vendor/small"].unavailable
    assert None is found.registry.deployments["azure/large"].unavailable
    assert any("Azure could not read VENDOR_KEY from Key Vault" in warning for warning in found.warnings)


def test_a_missing_header_is_told_with_the_other_names() -> None:
    """Headers carry credentials too: all that is missing is named at once."""
    text = changed(('"${TEAM:-core}"', '"${TEAM}"'))
    found = registry(text, without("VENDOR_KEY"))
    assert "needs VENDOR_KEY and TEAM, which the environment does not set" == found.providers["vendor"].unavailable


def test_a_default_stands_in() -> None:
    """For an unset and for an empty name."""
    assert {"x-team": "core"} == registry().providers["vendor"].headers
    assert {"x-team": "core"} == registry(environment={**ENVIRONMENT, "TEAM": ""}).providers["vendor"].headers
    assert {"x-team": "blue"} == registry(environment={**ENVIRONMENT, "TEAM": "blue"}).providers["vendor"].headers


def test_references_stand_for_numbers_and_truth_too() -> None:
    """What stands in the environment is read as if it stood in the file."""
    text = changed(
        ("weight: 3", "weight: ${WEIGHT:-7}"), ("priority: 2", "enabled: ${VENDOR_ON:-true}"), ("input: .1", "input: '${P}'")
    )
    found = registry(text, {**ENVIRONMENT, "VENDOR_ON": "false", "P": "0.30"})
    assert 7 == found.deployments["azure/large"].weight
    assert "switched off in the catalog" == found.deployments["vendor/large"].unavailable
    assert "0.30" == str(found.deployments["vendor/small"].prices[0].rates.input)


def test_a_value_can_not_add_structure() -> None:
    """A value is text: it is never read as YAML, and never expanded again."""
    text = changed(("the best there is", "'${NOTE}'"))
    note = "x, retired: true} ${AZURE_KEY}"
    found = registry(text, {**ENVIRONMENT, "NOTE": note})
    assert (note, False) == (found.aliases["best"].note, found.aliases["best"].retired)


def test_two_dollars_are_one() -> None:
    """`$${` writes `${`."""
    assert "cost: ${x}" == registry(changed(("the best there is", "'cost: $${x}'"))).aliases["best"].note


def test_auth_takes_the_first_way_that_has_its_credential() -> None:
    """[bearer, none] calls without a key when none is set."""
    text = changed(("    api_key: ${VENDOR_KEY}\n", "    api_key: ${VENDOR_KEY}\n    auth: [bearer, none]\n"))
    keyed, keyless = registry(text).providers["vendor"], registry(text, without("VENDOR_KEY")).providers["vendor"]
    assert (Auth.BEARER, Auth.NONE) == (keyed.auth, keyless.auth)
    assert (None, None) == (keyless.credential, keyless.unavailable)


def test_what_is_kept_about_references_holds_no_secret() -> None:
    """Values of plain settings are kept, credentials and endpoints only as set or not set."""
    loaded = load(GOOD, source="catalog.yaml", environment=without("AZURE_KEY"))
    assert {"AZURE_ENDPOINT": "", "AZURE_KEY": None, "VENDOR_KEY": "", "TEAM": None} == loaded.references


@pytest.mark.parametrize("address", ["res.openai.azure.com", "https://", "https://me:secret@host", "https://host/?key=secret"])
def test_a_wrong_endpoint_is_a_problem_that_does_not_show_it(address: str) -> None:
    """An address may hold a credential by mistake."""
    found = problems(GOOD, {**ENVIRONMENT, "AZURE_ENDPOINT": address})
    assert 1 == len(found)
    assert found[0].startswith("catalog.yaml:7: providers.azure.base_url: must be an address")
    assert "secret" not in found[0]
