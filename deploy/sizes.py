"""What the packages weigh that Azure installs: wheels for its Linux, found without installing them."""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy import programs
from deploy.errors import DeployError
from deploy.package import requirements

AIM: Final = 40_000_000
"""Bytes of wheels; a cold start reads what is imported from where they were unpacked."""

# The Functions host's Debian 12: glibc 2.36. Older tags are taken as well, newest first, as pip on that machine would.
_PLATFORMS: Final = ("manylinux_2_36_x86_64", "manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64")
_PLATFORMS_OLD: Final = ("manylinux2014_x86_64", "manylinux_2_5_x86_64", "manylinux1_x86_64")


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package as it would be installed; ``size`` in bytes, as downloaded."""

    name: str
    version: str
    size: int


def resolve(root: Path, *, extra: tuple[str, ...] = ()) -> list[Wheel]:
    """Resolve requirements.txt with its constraints for the Functions host; return the wheels, heaviest first.

    Needs the package index. Raise `DeployError` when a requirement has no wheel for that machine.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "requirements.txt").write_bytes(requirements(root, extra))
        (folder / "constraints.txt").write_bytes((root / "constraints.txt").read_bytes())
        report = folder / "report.json"
        programs.ask(
            sys.executable,
            *("-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--disable-pip-version-check"),
            *("--only-binary", ":all:", "--implementation", "cp", "--python-version", "3.11", "--target", str(folder / "none")),
            *(part for tag in (*_PLATFORMS, *_PLATFORMS_OLD) for part in ("--platform", tag)),
            *("--report", str(report), "-r", str(folder / "requirements.txt")),
            otherwise="The requirements can't be resolved for Azure's machines.",
        )
        found: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    wheels = [Wheel(one["metadata"]["name"], one["metadata"]["version"], _bytes(one["download_info"]["url"])) for one in found]
    return sorted(wheels, key=lambda wheel: -wheel.size)


def _bytes(url: str) -> int:
    """Ask for a wheel's size without its content."""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://")).stat().st_size
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the package index's own link
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            return int(answer.headers["content-length"])
    except OSError as error:
        message = f"The package index does not say how large {url.rsplit('/', 1)[-1]} is: {error}"
        raise DeployError(message) from error
