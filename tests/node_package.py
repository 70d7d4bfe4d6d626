"""Programs for Node.js that tests need: installed where their package.json lies, from its package-lock.json, once."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import subprocess
import tempfile
from pathlib import Path


def install(folder: Path, package: str, use: str) -> None:
    """Install the pinned version of a package unless it is here; raise `RuntimeError` when that can't be done.

    ``use`` says what it is for, in the message a machine without Node gets. Processes take turns.
    """
    with (Path(tempfile.gettempdir()) / f"switchyard-{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        here = installed(folder, package) == pinned(folder, package)
        for program in ["node"] if here else ["node", "npm"]:
            if shutil.which(program) is None:
                message = f"This needs {program}: {use}. Install Node.js 22, or 20."
                raise RuntimeError(message)
        if here:
            return
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0 or installed(folder, package) != pinned(folder, package):
            message = f"{package} can't be installed. `npm ci` in tests/{folder.name} said: {done.stderr.strip()[-500:]}"
            raise RuntimeError(message)


def pinned(folder: Path, package: str) -> str:
    """Return the version that package.json names."""
    return str(json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"][package])


def installed(folder: Path, package: str) -> str | None:
    """Return the version that is installed, None when there is none."""
    with contextlib.suppress(OSError):
        return str(json.loads((folder / "node_modules" / package / "package.json").read_text(encoding="utf-8"))["version"])
    return None
