"""The application settings: what Terraform sets, what the code reads, and what the example for one machine says agree."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from shared.core.errors import ConfigurationError
from shared.settings import load
from tests.infra import terraform_text as terraform

ROOT = Path(__file__).resolve().parents[2]

ONE_MACHINE = {
    "HOST": "the local host's address",
    "PORT": "the local host's port",
    "SWITCHYARD_UPSTREAM": "a simulator runs on one machine only: the package has none",
    "SWITCHYARD_TELEMETRY": "the connection string chooses Azure Monitor by itself",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "as above; who has a collector sets it in `app_settings`",
    "OTEL_SDK_DISABLED": "as above",
}
"""Read, and not Terraform's to set."""

PLATFORM = {
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": "the Functions host: Application Insights by identity",
    "AZURE_CLIENT_ID": "azure-identity: which user-assigned identity",
    "AzureWebJobsStorage__accountName": "the Functions host's storage, by identity …",
    "AzureWebJobsStorage__credential": "… of all three …",
    "AzureWebJobsStorage__clientId": "… or the host does not start",
    "AzureFunctionsJobHost__extensions__durableTask__storageProvider__type": "overrides host.json",
    "AzureFunctionsJobHost__extensions__durableTask__storageProvider__connectionStringName": "overrides host.json",
    "DURABLE_TASK_SCHEDULER_CONNECTION_STRING": "host.json: the scheduler",
    "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "the Functions host: largest body",
    "PYTHON_ENABLE_INIT_INDEXING": "the Functions worker: streams",
    "TASKHUB_NAME": "host.json: the task hub",
}
"""Read by what our code runs in: who, and what for."""

ALWAYS = {
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "AZURE_CLIENT_ID",
    "AzureWebJobsStorage__accountName",
    "AzureWebJobsStorage__clientId",
    "AzureWebJobsStorage__credential",
    "PYTHON_ENABLE_INIT_INDEXING",
    "SWITCHYARD_ADMIN_KEY",
    "SWITCHYARD_STORAGE",
    "TASKHUB_NAME",
}
"""Without one of these the app does not start, does not stream, or can't be administered: no condition may leave one out."""

EXAMPLE_ONLY = {
    "FUNCTIONS_WORKER_RUNTIME": "Flex Consumption has it in the app's functionAppConfig, and refuses the setting",
    "AzureWebJobsStorage": "the emulator has no identities",
    "AZURE_OPENAI_API_KEY": "in Azure the app's identity opens Azure OpenAI",
}

REFUSED = re.compile(
    "WEBSITE_(RUN_FROM_PACKAGE|CONTENT.*|SKIP_CONTENTSHARE_VALIDATION|VNET_ROUTE_ALL|DNS_SERVER|NODE_DEFAULT_VERSION"
    "|MAX_DYNAMIC_APPLICATION_SCALE_OUT|USE_PLACEHOLDER_DOTNETISOLATED|MOUNT_ENABLED)"
    "|FUNCTIONS_(EXTENSION_VERSION|WORKER_RUNTIME(_VERSION)?|WORKER_PROCESS_COUNT|WORKER_DYNAMIC_CONCURRENCY_ENABLED"
    "|MAX_HTTP_CONCURRENCY)|ENABLE_ORYX_BUILD|SCM_DO_BUILD_DURING_DEPLOYMENT|AzureWebJobsStorage|AzureWebJobsDashboard"
)
"""What Flex Consumption refuses or ignores, and the connection strings that would win over the identity."""


def _read() -> set[str]:
    """Return every environment name that settings.py and what it calls ask for."""
    names = set()
    for place in ("shared/settings.py", "shared/catalog/infrastructure.py"):
        path = ROOT / place
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.fullmatch(r"[A-Z][A-Z0-9_]*_[A-Z0-9_]+|HOST|PORT", node.value)
            ):
                names.add(node.value)
    return names


def _catalog() -> set[str]:
    """Return every name the shipped catalog refers to."""
    text = (ROOT / "catalog" / "models.yaml").read_text(encoding="utf-8")
    return set(re.findall(r"(?<!\$)\$\{(\w+)", text))


def _set() -> set[str]:
    """Return every name Terraform can set by itself."""
    named: set[str] = set()
    for local in terraform.locals_named("settings_"):
        named |= terraform.settings(terraform.expression(local))
    return named | {name for name in terraform.strings(terraform.expression("secret_settings")) if name.isupper()}


def _merged(local: str) -> set[str]:
    """Return the local values that a local value is made of, whatever their depth."""
    inner = set(re.findall(r"local\.(\w*settings_\w+)", terraform.expression(local)))
    return inner.union(*map(_merged, inner))


def test_every_setting_the_code_reads_can_be_set_by_terraform() -> None:
    """Each has its variable or its resource; what belongs to one machine says so."""
    unset = {name for name in _read() if name.startswith(("SWITCHYARD_", "OTEL_", "APPLICATIONINSIGHTS_"))} - _set()

    assert unset <= ONE_MACHINE.keys()
    assert not ONE_MACHINE.keys() & _set()


def test_nothing_is_set_that_nothing_reads() -> None:
    """A misspelt name would be set for ever, and do nothing."""
    assert set() == _set() - _read() - _catalog() - PLATFORM.keys()
    assert PLATFORM.keys() <= _set(), "and no row here is left over"


@pytest.mark.parametrize("name", sorted(ALWAYS))
def test_what_the_app_cannot_do_without_depends_on_nothing(name: str) -> None:
    """It stands in a map of its own, not behind a question mark or an `if`."""
    if name == "SWITCHYARD_ADMIN_KEY":
        assert f'["{name}"]' in terraform.expression("secret_settings").split("?")[0]
        return
    home = next(
        local for local in terraform.locals_named("settings_") if name in terraform.settings(terraform.expression(local))
    )
    before = re.split(rf'"?\b{name}\b"?\s*=', terraform.expression(home))[0]
    assert "?" not in before
    assert home in _merged("app_settings")


def test_a_secret_that_azure_could_not_read_is_none() -> None:
    """Azure then hands over the reference itself: a key that anybody could guess who knows the vault's name."""
    for name in ("SWITCHYARD_ADMIN_KEY", "SWITCHYARD_WEBHOOK_SECRET"):
        with pytest.raises(ConfigurationError, match=f"could not read {name} from Key Vault"):
            load({name: "@Microsoft.KeyVault(SecretUri=https://kv-x.vault.azure.net/secrets/a-key)"})


def test_flex_consumption_takes_every_setting() -> None:
    """None that it refuses, and no connection string beside the identity's three."""
    assert [] == sorted(name for name in _set() if REFUSED.fullmatch(name))


def test_the_example_for_one_machine_has_the_same_names() -> None:
    """It names nothing that neither the code nor the host reads, and leaves out nothing that the host can't do without."""
    values = json.loads((ROOT / "local.settings.example.json").read_text(encoding="utf-8"))["Values"]

    assert set() == values.keys() - _read() - _catalog() - PLATFORM.keys() - EXAMPLE_ONLY.keys()
    in_azure_only = {
        name for name in ALWAYS if name.startswith(("AzureWebJobsStorage", "APPLICATIONINSIGHTS", "AZURE_CLIENT_ID"))
    }
    assert values.keys() >= ALWAYS - in_azure_only
    assert not EXAMPLE_ONLY.keys() & _set()


def test_every_credential_of_the_catalog_can_be_put_into_the_key_vault() -> None:
    """`provider_key_versions` takes each name that the catalog has for a key."""
    accepted = re.search(r'can\(regex\("(\^\[A-Z\][^"]*)", name\)\)', terraform.text())
    assert accepted
    credentials = {name for name in _catalog() if name.endswith(("KEY", "TOKEN", "SECRET"))}
    assert len(credentials) > 4
    assert [] == [name for name in sorted(credentials) if not re.fullmatch(accepted.group(1), name)]
