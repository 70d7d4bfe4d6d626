"""Where to publish: what Terraform made, read from its outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy import programs
from deploy.errors import DeployError

OUTPUTS: Final = {
    "subscription_id": "subscription",
    "resource_group_name": "resource_group",
    "function_app_name": "app",
    "endpoint": "endpoint",
    "extra_requirements": "extra_requirements",
}
"""Terraform's outputs this tool needs, by the field each becomes."""


@dataclass(frozen=True, slots=True)
class Target:
    """One function app, where its callers find it, and which extras its settings need."""

    subscription: str
    resource_group: str
    app: str
    endpoint: str
    extra_requirements: tuple[str, ...] = ()


def read(folder: Path) -> Target:
    """Return what `terraform output` says in a folder; raise `DeployError` when nothing has been applied there."""
    printed = programs.ask(
        "terraform",
        f"-chdir={folder}",
        "output",
        "-json",
        "-no-color",
        otherwise=f"Terraform's outputs can't be read in {folder}: `terraform init` there, or `deploy/connect.sh` where the "
        "state is shared.",
    )
    try:
        outputs = json.loads(printed)
    except ValueError as error:
        message = (
            f"`terraform output -json` in {folder} printed no JSON: is `terraform` on PATH Terraform itself, without a wrapper?"
        )
        raise DeployError(message) from error
    return parse(outputs, folder)


def parse(outputs: Mapping[str, Mapping[str, Any]], folder: Path) -> Target:
    """Turn the JSON of `terraform output -json` into a target."""
    missing = [name for name in OUTPUTS if name not in outputs]
    if missing:
        message = (
            f"Terraform in {folder} has no output {', '.join(missing)}. Nothing has been applied yet, or the backend or "
            "workspace is another environment's, or the last apply was of an older version: `terraform apply`."
        )
        raise DeployError(message)
    values = {field: outputs[name]["value"] for name, field in OUTPUTS.items()}
    return Target(**{**values, "extra_requirements": tuple(values["extra_requirements"])})
