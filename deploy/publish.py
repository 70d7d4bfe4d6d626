"""Publishing: the zip goes to the function app, Azure builds it there, and the endpoint is asked until the package serves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deploy import health, programs
from deploy.errors import DeployError
from deploy.history import History
from deploy.package import build_of
from deploy.target import Target

Say = Callable[[str], None]


def publish(archive: Path, target: Target, history: History, *, patience: float = health.PATIENCE, say: Say = print) -> None:
    """Send a package and wait until it serves.

    Raise `DeployError` when it is refused or does not serve in time, with the command that brings the one before back.
    """
    build = build_of(archive)
    logged_in(target)
    before = history.previous(target.app, build)
    say(f"Publishing {build} to {target.app}; Azure installs its requirements, which takes some minutes …")
    try:
        send(archive, target)
        health.wait(target.endpoint, build=build, patience=patience, say=say)
    except DeployError as error:
        history.add(build, target.app, served=False)
        message = f"{error}\n{_way_back(before)}"
        raise DeployError(message) from error
    history.add(build, target.app, served=True)
    say(f"{build} serves at {target.endpoint}")
    say(_way_back(before))


def send(archive: Path, target: Target) -> None:
    """Hand a package to the function app, to be built there."""
    programs.show(
        "az",
        *("functionapp", "deployment", "source", "config-zip", "--build-remote", "true"),
        *("--subscription", target.subscription, "--resource-group", target.resource_group, "--name", target.app),
        *("--src", str(archive), "--only-show-errors", "--output", "none"),
        otherwise=f"{target.app} did not take the package: the portal shows why, under Deployment Center, Logs. Soon after the "
        "first `terraform apply` its roles may not have spread yet: try again in some minutes",
    )


def logged_in(target: Target) -> None:
    """See that the Azure CLI may talk to the subscription; raise `DeployError` otherwise."""
    programs.ask(
        "az",
        *("account", "show", "--subscription", target.subscription, "--output", "none"),
        otherwise=f"The Azure CLI has no access to subscription {target.subscription}: `az login` first.",
    )


def _way_back(before: str | None) -> str:
    if before is None:
        return "To go back: no earlier package of this app is kept here; check out the earlier commit and `make deploy`."
    return f"To go back: .venv/bin/python -m deploy publish --package .switchyard/packages/{before}.zip"
