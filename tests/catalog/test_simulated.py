"""Under the simulator every provider's calls go to it, and nothing else changes."""

from __future__ import annotations

from shared.catalog import parse
from shared.core.registry import Auth, Registry
from tests.catalog_samples import GOOD, changed

SIMULATOR = "http://127.0.0.1:9999"


def simulated(text: str = GOOD) -> Registry:
    """Return a catalog without any credentials under the simulator."""
    return parse(text, source="catalog.yaml", environment={}, simulator_url=SIMULATOR)


def test_every_protocol_keeps_its_own_root() -> None:
    """OpenAI-compatible addresses end in /v1, Azure's is the resource's root, Anthropic's the API's."""
    anthropic = "  claude:\n    kind: anthropic\n    base_url: https://api.anthropic.com/v1\n    api_key: ${CLAUDE_KEY}\n"
    found = simulated(changed(("models:\n", f"{anthropic}models:\n"))).providers
    assert f"{SIMULATOR}/azure" == found["azure"].base_url
    assert f"{SIMULATOR}/vendor/v1" == found["vendor"].base_url
    assert f"{SIMULATOR}/claude" == found["claude"].base_url


def test_missing_credentials_do_not_matter() -> None:
    """A dummy is sent in the header the provider wants; Entra becomes a key, because nobody asks Entra for a simulator."""
    found = simulated(changed(("kind: azure_openai\n", "kind: azure_openai\n    auth: entra\n")))
    assert all(deployment.unavailable is None for deployment in found.deployments.values())
    assert (Auth.API_KEY, Auth.BEARER) == (found.providers["azure"].auth, found.providers["vendor"].auth)
    secret = found.providers["azure"].credential
    assert secret is not None
    assert "simulated" == secret.reveal()


def test_real_credentials_are_not_sent_to_it() -> None:
    """Also when they are set."""
    environment = {"VENDOR_KEY": "real-key"}
    found = parse(GOOD, source="catalog.yaml", environment=environment, simulator_url=SIMULATOR)
    secret = found.providers["vendor"].credential
    assert secret is not None
    assert "simulated" == secret.reveal()


def test_what_is_switched_off_stays_off() -> None:
    """A disabled provider, a disabled deployment and a retired one are no question of credentials."""
    off = simulated(changed(("    headers: {x-team", "    enabled: false\n    disabled_reason: not now\n    headers: {x-team")))
    assert "not now" == off.deployments["vendor/small"].unavailable
    text = changed(("region: swedencentral", "lifecycle: {stage: retired}"), ("priority: 2", "enabled: false"))
    deployments = simulated(text).deployments
    assert ("retired", "switched off in the catalog") == (
        deployments["azure/large"].unavailable,
        deployments["vendor/large"].unavailable,
    )


def test_a_deployment_with_its_own_address_goes_to_the_simulator_too() -> None:
    """No call leaves the machine."""
    text = changed(("region: swedencentral", "base_url: https://elsewhere.example/v1"))
    assert None is simulated(text).deployments["azure/large"].base_url


def test_simulated_answers_have_their_own_version() -> None:
    """A stored decision says which it was."""
    assert simulated().version != parse(GOOD, source="catalog.yaml", environment={}).version
