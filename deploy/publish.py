"""Publishing: the zip goes to the function app, Azure builds it there, and the endpoint is asked until the package serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deploy import health, programs
from deploy.errors import DeployError
from deploy.history import History
from deploy.package import build_of
from deploy.target import Target

Say = Callable[[str], None]

_LONGEST: Final = 1800.0
"""Seconds after which the Azure CLI is no longer waited for; it gives a build 15 minutes by itself."""

_PAUSE: Final = 5.0
_TAKEN: Final = ("Deployment was successful", "host key", "host url", "/admin/host/status", "still on-going")
"""What the Azure CLI says when the app has the package and only its own look at the app failed, which it takes by the app's own
address, half a minute long. Ours is the one that counts: it asks where callers do, and is patient."""

_EARLY: Final = ("InaccessibleStorageException", "BlobUploadFailedException")
"""What it says when the app may not write to its storage: after a first `terraform apply` its role takes minutes to spread."""
_ASK_AGAIN = 20.0


def publish(archive: Path, target: Target, history: History, *, patience: float = health.PATIENCE, say: Say = print) -> None:
    """Send a package and wait until it serves.

    Raise `DeployError` when it is refused or does not serve in time, with the command that brings the one before back.
    """
    build = build_of(archive)
    logged_in(target)
    before = history.previous(target.app, build)
    history.keep(archive, build)
    history.add(build, target.app, served=False)  # first: whatever ends this run, `rollback` knows what was sent
    say(f"Publishing {build} to {target.app}; Azure installs its requirements, which takes some minutes …")
    try:
        send(archive, target, build=build, patience=patience, say=say)
        health.wait(target.endpoint, build=build, patience=patience, say=say)
    except DeployError as error:
        message = f"{error}\n{_way_back(before)}"
        raise DeployError(message) from error
    except KeyboardInterrupt as error:
        message = (
            f"Stopped. Azure may go on with {build}: `.venv/bin/python -m deploy health` says what serves.\n{_way_back(before)}"
        )
        raise DeployError(message) from error
    history.add(build, target.app, served=True)
    say(f"{build} serves at {target.endpoint}")
    say(_way_back(before))


def send(archive: Path, target: Target, *, build: str, patience: float, say: Say = print) -> None:
    """Hand a package to the function app, to be built there; raise `DeployError` when the app does not take it.

    While the app may not write to its storage yet it is tried again, for ``patience`` seconds. The Azure CLI is not waited for
    once the package serves: some releases never end where the app's own address is closed.
    """
    deadline = time.monotonic() + patience
    code, said = _handed(archive, target, build)
    while code and any(words in said for words in _EARLY) and time.monotonic() + _ASK_AGAIN < deadline:
        say("  The app may not write to its storage yet: roles take minutes to spread. Trying again …")
        time.sleep(_ASK_AGAIN)
        code, said = _handed(archive, target, build)
    if code == 0 or code is None:
        return
    if any(words in said for words in _TAKEN):
        say(f"  The app has the package, and the Azure CLI found it not well yet: {said}")
        return
    message = (
        f"{target.app} did not take the package: the portal shows why, under Deployment Center, Logs. Soon after the first "
        f"`terraform apply` its roles may not have spread yet: try again in some minutes.\n`az` ended with {code} and said: "
        f"{said or 'nothing'}"
    )
    raise DeployError(message)


def _handed(archive: Path, target: Target, build: str) -> tuple[int | None, str]:
    """Let the Azure CLI do it once; return its exit code, None when it was stopped, and its words."""
    fresh = health.serving(target.endpoint) != build
    return programs.run_until(
        lambda: fresh and health.serving(target.endpoint) == build,
        "az",
        *("functionapp", "deployment", "source", "config-zip", "--build-remote", "true"),
        *("--subscription", target.subscription, "--resource-group", target.resource_group, "--name", target.app),
        *("--src", str(archive), "--only-show-errors", "--output", "none"),
        limit=_LONGEST,
        pause=_PAUSE,
    )


def logged_in(target: Target) -> None:
    """See that the Azure CLI may talk to the subscription now; raise `DeployError` otherwise. The token is not printed."""
    programs.ask(
        "az",
        *("account", "get-access-token", "--subscription", target.subscription, "--output", "none"),
        otherwise=f"The Azure CLI has no access to subscription {target.subscription}: `az login` first, "
        "with --tenant if it is in another directory.",
    )


def _way_back(before: str | None) -> str:
    if before is None:
        return "To go back: no earlier package of this app is kept here; check out the earlier commit and `make deploy`."
    return f"To go back: .venv/bin/python -m deploy publish --package .switchyard/packages/{before}.zip"
