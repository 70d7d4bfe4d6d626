"""The programs this tool calls: Terraform, the Azure CLI, pip. Each missing one is said in words."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy.errors import DeployError

_GET: Final = {
    "az": "Install the Azure CLI (https://aka.ms/azure-cli), then `az login`.",
    "terraform": "Install Terraform 1.11 or newer (https://developer.hashicorp.com/terraform/install).",
}


def ask(program: str, *arguments: str, otherwise: str) -> str:
    """Run a program and return what it printed; raise `DeployError` with its own words and ``otherwise`` when it fails."""
    done = _run([program, *arguments], capture=True)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-800:]
        message = f"{otherwise}\n`{program} {' '.join(arguments)}` said: {said or 'nothing'}"
        raise DeployError(message)
    return done.stdout


def show(program: str, *arguments: str, otherwise: str) -> None:
    """Run a program that speaks for itself; raise `DeployError` when it fails."""
    done = _run([program, *arguments], capture=False)
    if done.returncode != 0:
        message = f"{otherwise} (`{program}` ended with {done.returncode})"
        raise DeployError(message)


def _run(command: Sequence[str], *, capture: bool) -> subprocess.CompletedProcess[str]:
    found = command[0] if Path(command[0]).is_absolute() else shutil.which(command[0])
    if found is None:
        message = f"`{command[0]}` is not installed, or not on PATH. {_GET.get(command[0], '')}".rstrip()
        raise DeployError(message)
    return subprocess.run([found, *command[1:]], capture_output=capture, text=True, check=False, stdin=subprocess.DEVNULL)
