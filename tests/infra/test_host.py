"""host.json says how the host runs; Terraform provisions what it names."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from tests.infra import terraform_text as terraform

ROOT = Path(__file__).resolve().parents[2]
HOST: dict[str, Any] = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))
DURABLE = HOST["extensions"]["durableTask"]


def test_the_names_host_json_refers_to_are_set() -> None:
    """`%NAME%` and the connection's name are application settings that Terraform sets."""
    durable = terraform.settings(terraform.expression("settings_durable"))

    assert DURABLE["hubName"].strip("%") in durable
    assert DURABLE["storageProvider"]["connectionStringName"] in durable
    names = set(re.findall(r"%(\w+)%", json.dumps(HOST)))
    assert names <= durable


def test_the_other_storage_overrides_what_host_json_says() -> None:
    """Same path, same spelling: the host takes an override it does not know for a setting of somebody else."""
    overrides = [
        name
        for name in terraform.settings(terraform.expression("settings_durable"))
        if name.startswith("AzureFunctionsJobHost__")
    ]

    assert 2 == len(overrides)
    for name in overrides:
        place: Any = HOST
        for part in name.split("__")[1:]:
            place = place[part]
        assert isinstance(place, str)


def test_the_scheduler_is_reached_with_an_identity() -> None:
    """Durable Task Scheduler, from a bundle that has it, and a connection without a key."""
    assert "azureManaged" == DURABLE["storageProvider"]["type"]
    lowest = re.match(r"\[(\d+)\.(\d+)\.", HOST["extensionBundle"]["version"])
    assert lowest
    assert (4, 32) <= (int(lowest[1]), int(lowest[2]))
    connection = terraform.expression("settings_durable")
    assert ["Endpoint=", "Authentication=ManagedIdentity", "ClientID="] == re.findall(
        r"Endpoint=|Authentication=\w+|ClientID=", connection
    )


def test_the_host_lets_the_app_decide_how_much_it_carries() -> None:
    """An instance takes as many requests as the app does, and the scale controller's number is below that."""
    http = HOST["extensions"]["http"]
    concurrency = int(re.findall(r'variable "http_concurrency" {[^}]*?default\s*=\s*(\d+)', terraform.text())[0])

    assert concurrency <= http["maxConcurrentRequests"] <= http["maxOutstandingRequests"]
    assert http["dynamicThrottlesEnabled"] is False


def test_a_second_plan_does_not_hang_on_what_azure_answers_of_the_site() -> None:
    """Azure returns most of siteConfig as null, which azapi leaves alone; what it does return is never compared."""
    returned = {
        *("acrUseManagedIdentityCreds", "alwaysOn", "clusteringEnabled", "functionAppScaleLimit", "http20Enabled"),
        *("linuxFxVersion", "minimumElasticInstanceCount", "numberOfWorkers", "webJobsEnabled"),
    }
    app = terraform.text().split('resource "azapi_resource" "function_app"')[1].split("\nresource ")[0]
    sent = set(re.findall(r"^ {10}(\w+)\s*=", app.split("siteConfig = merge(")[1], re.MULTILINE))

    assert "appSettings" in sent
    assert returned & sent == set(re.findall(r"body\.properties\.siteConfig\.(\w+)", app))


def test_probes_ask_paths_that_exist() -> None:
    """The route prefix is empty, as in the paths that Front Door and API Management ask for."""
    assert "" == HOST["extensions"]["http"]["routePrefix"]
    probed = set(re.findall(r'"(/v1/health[\w/]*)"', terraform.text()))
    assert probed <= {"/v1/health/live"}
    assert '"/v1/health/live"' in (ROOT / "functions" / "health.py").read_text(encoding="utf-8")


def test_terraform_makes_every_table_the_code_uses_and_no_other() -> None:
    """The code would make a missing one by itself, outside of Terraform's sight: `destroy` and `plan` would not know it."""
    used = set()
    for path in (ROOT / "shared").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "TABLE":
                assert isinstance(node.value, ast.Constant), path
                used.add(node.value.value)
    assert len(used) > 15
    assert used == set(terraform.strings(terraform.expression("tables")))


def test_the_runtime_is_the_one_the_code_is_written_for() -> None:
    """Python's version in Terraform, in the linters' settings and in the workflow."""
    runtime = re.search(r'name\s*=\s*"python"\s*version\s*=\s*"([\d.]+)"', terraform.text())
    assert runtime
    assert f'python_version = "{runtime[1]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    checked = re.search(r"python: \[(.+?)\]", (ROOT / ".github" / "workflows" / "check.yml").read_text(encoding="utf-8"))
    assert checked
    assert f'"{runtime[1]}"' in checked[1].split(", ")
    assert f'"{runtime[1]}"' in (ROOT / "deploy" / "sizes.py").read_text(encoding="utf-8")
