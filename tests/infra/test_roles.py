"""The roles of the app's identity: each one for something the code or the platform does, and none wider.

| role | who needs it |
|---|---|
| Storage Table Data Contributor | `shared/adapters/tables/azure.py`: all state |
| Storage Blob Data Owner | the Functions host: its locks and the deployed package |
| Storage Queue Data Contributor | `functions/chains.py` on Durable's Azure Storage backend |
| Durable Task Data Contributor | `functions/chains.py` on Durable Task Scheduler |
| Key Vault Secrets User | the platform, for the Key Vault references in the settings |
| Cognitive Services OpenAI User | `shared/adapters/providers/azure_openai.py` |
| Cognitive Services User | the same adapter, for models that are not OpenAI's |
| Monitoring Metrics Publisher | `shared/adapters/telemetry/azure_monitor.py` |
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.infra import terraform_text as terraform

ROOT = Path(__file__).resolve().parents[2]

OF_THE_APP: dict[str, tuple[str, str]] = {
    "Storage Table Data Contributor": ("shared/adapters/tables/azure_account.py", "https://storage.azure.com"),
    "Storage Blob Data Owner": ("infra/terraform/function_app.tf", "AzureWebJobsStorage__accountName"),
    "Storage Queue Data Contributor": ("infra/terraform/durable.tf", '"AzureStorage"'),
    "Durable Task Data Contributor": ("host.json", '"azureManaged"'),
    "Key Vault Secrets User": ("infra/terraform/key_vault.tf", "@Microsoft.KeyVault("),
    "Cognitive Services OpenAI User": ("catalog/models.yaml", "entra_scope"),
    "Cognitive Services User": ("catalog/models.yaml", "entra_scope"),
    "Monitoring Metrics Publisher": ("shared/adapters/telemetry/azure_monitor.py", "credential"),
}
"""By role: the file that shows the need, and a text in it that goes away with the need."""

OF_OTHERS = {
    "Key Vault Secrets User": "key_vault_reader: whoever administers reads one secret, the administrator's key",
    "Monitoring Metrics Publisher": "api_management: its own identity writes to Application Insights",
    "Monitoring Reader": "grafana: its own identity reads the workspace",
    "Grafana Admin": "grafana: people that are named",
}
"""Roles of other identities than the app's."""


def _app_roles() -> list[str]:
    return [
        role
        for local in terraform.locals_named("roles_")
        for role in re.findall(r'role\s*=\s*"([^"]+)"', terraform.expression(local))
    ]


def test_every_role_of_the_app_is_for_something_it_does() -> None:
    """The table above is whole, and the need still shows in the code."""
    assert OF_THE_APP.keys() == set(_app_roles())
    for role, (place, sign) in OF_THE_APP.items():
        assert sign in (ROOT / place).read_text(encoding="utf-8"), f"{role}: `{sign}` is no longer in {place}"
    for row in re.findall(r"^\| ([A-Z][\w ]+) \|", __doc__ or "", re.MULTILINE):
        assert row in OF_THE_APP


def test_nobody_is_given_more_than_their_part() -> None:
    """No role over everything, none over a whole group or subscription, none by an id that hides its name."""
    everywhere = re.findall(r'role_definition_name\s*=\s*"([^"]+)"', terraform.text())

    assert set(everywhere) <= OF_OTHERS.keys()
    wide = re.compile(r"Owner|Contributor|.*Administrator|User Access.*|.*Officer")
    assert [] == [role for role in [*everywhere, *_app_roles()] if wide.fullmatch(role)]
    assert "role_definition_id" not in terraform.text()
    assert not re.search(r"scope\s*=\s*(data\.azurerm_subscription|\"/subscriptions)", terraform.text())
    group_wide = re.findall(
        r'scope\s*=\s*azurerm_resource_group\.\S+\s*role(?:_definition_name)?\s*=\s*"([^"]+)"', terraform.text()
    )
    assert set(group_wide) <= {"Monitoring Reader"}


def test_who_deploys_may_give_no_role_that_gives_roles() -> None:
    """Whoever can change `main` would own the subscription; Terraform needs none of these (Azure: built-in roles)."""
    condition = (ROOT / "deploy" / "role_condition.txt").read_text(encoding="utf-8")
    owner, access, roles = (
        "8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
        "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9",
        "f58310d9-a9f6-439a-9e8d-f62e7b41a168",
    )

    for action, source in (("write", "Request"), ("delete", "Resource")):
        forbidden = re.search(
            rf"\(\(!\(ActionMatches{{'Microsoft\.Authorization/roleAssignments/{action}'}}\)\) OR "
            rf"\(@{source}\[[\w./]+:RoleDefinitionId\] ForAnyOfAllValues:GuidNotEquals {{(.*?)}}\)\)",
            condition,
        )
        assert forbidden
        assert [owner, access, roles] == forbidden[1].split(", ")
    given = (
        (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8").split('"Role Based Access Control Administrator" "/sub')[1]
    )
    assert '--condition "$(cat deploy/role_condition.txt)"' in given[:200]


def test_the_app_waits_for_its_roles() -> None:
    """It reads its package and its secrets with them when it starts."""
    app = terraform.text().split('resource "azapi_resource" "function_app"')[1].split("\nresource ")[0]
    assert "azurerm_role_assignment.app" in app.split("depends_on")[1]
