"""The programs this tool calls: Terraform, the Azure CLI, pip. Each missing one is said in words."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deploy.errors import DeployError

_GET: Final = {
    "az": "Install the Azure CLI (https://aka.ms/azure-cli), then `az login`.",
    "terraform": "Install Terraform 1.11 or newer (https://developer.hashicorp.com/terraform/install).",
}


_SAID: Final = 1500
"""Characters of a program's own words that are passed on, the last ones."""


def ask(program: str, *arguments: str, otherwise: str) -> str:
    """Run a program and return what it printed; raise `DeployError` with its own words and ``otherwise`` when it fails."""
    command = [_found(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-_SAID:]
        message = f"{otherwise}\n`{program} {' '.join(arguments)}` said: {said or 'nothing'}"
        raise DeployError(message)
    return done.stdout


def run_until(enough: Callable[[], bool], program: str, *arguments: str, limit: float, pause: float) -> tuple[int | None, str]:
    """Run a program until it ends, ``enough`` says so, or ``limit`` seconds are over; return its exit code and its words.

    The code is None when it was stopped. ``enough`` is asked each ``pause`` seconds.
    """
    command = [_found(program), *arguments]
    deadline = time.monotonic() + limit
    # Words go to a file: a pipe that nobody empties would hold it up. A session of its own: `az` is a script with a child.
    with tempfile.TemporaryFile() as said:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
        try:
            while not _ended(running, pause) and not enough() and time.monotonic() < deadline:
                pass
            code = running.poll()
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGTERM)
                running.wait()
        said.seek(0)
        return code, said.read().decode(errors="replace").strip()[-_SAID:]


def _ended(running: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        running.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _found(program: str) -> str:
    found = program if Path(program).is_absolute() else shutil.which(program)
    if found is None:
        message = f"`{program}` is not installed, or not on PATH. {_GET.get(program, '')}".rstrip()
        raise DeployError(message)
    return found
