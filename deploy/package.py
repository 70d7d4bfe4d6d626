"""The package: what Azure is sent, as one zip file. The same tree gives the same bytes."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy import ignore
from deploy.errors import DeployError

BUILD_FILE: Final = "build.txt"
"""Holds the package's name; `GET /v1/health/live` answers with it, so that one can see which package serves."""

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_READABLE: Final = 0o100644 << 16
_NAME_LENGTH: Final = 12


@dataclass(frozen=True, slots=True)
class Package:
    """Files by their path in the zip, sorted; ``build`` names exactly these contents."""

    files: dict[str, bytes]
    build: str

    @property
    def size(self) -> int:
        """Return the bytes of its files, before compression."""
        return sum(map(len, self.files.values()))

    def write(self, path: Path) -> int:
        """Write the zip file; return its bytes. Times and rights are fixed, so that only contents make a difference."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, content in {**self.files, BUILD_FILE: f"{self.build}\n".encode()}.items():
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.external_attr, entry.compress_type, entry.create_system = _READABLE, zipfile.ZIP_DEFLATED, 3
                archive.writestr(entry, content)
        unfinished.replace(path)
        return path.stat().st_size

    def listing(self) -> list[tuple[str, int, int]]:
        """Return what lies at its top: name, files in it, bytes of those."""
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for name, content in self.files.items():
            top = name.split("/", 1)[0] + ("/" if "/" in name else "")
            counts[top] += 1
            sizes[top] += len(content)
        return [(top, counts[top], sizes[top]) for top in sorted(counts)]


def collect(root: Path, *, extra_requirements: Iterable[str] = ()) -> Package:
    """Read what `.funcignore` leaves of a tree, with the extras' requirements merged into requirements.txt.

    Raise `DeployError` when something is missing, or is a link: a link's target may lie outside of the tree.
    """
    rules = _rules(root)
    files = {name: path.read_bytes() for name, path in sorted(_walk(root, rules)) if name != BUILD_FILE}
    missing = [name for name in ("function_app.py", "host.json", "requirements.txt") if name not in files]
    if missing:
        message = f"{root} has no {', '.join(missing)}, or .funcignore leaves it out: it is no function app to publish."
        raise DeployError(message)
    files["requirements.txt"] = requirements(root, extra_requirements)
    return Package(files, _name(files))


def build_of(archive: Path) -> str:
    """Return the name of a package that was made before; raise `DeployError` when a file is none."""
    try:
        with zipfile.ZipFile(archive) as packed:
            return packed.read(BUILD_FILE).decode().strip()
    except FileNotFoundError:
        message = f"There is no {archive}."
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        message = (
            f"{archive} is no package: it has no {BUILD_FILE}. GitHub's artifact is a zip with the package in it: unpack that."
        )
    raise DeployError(message)


def requirements(root: Path, extra: Iterable[str] = ()) -> bytes:
    """Return requirements.txt with the lines of other requirement files, so that the remote build reads one file only."""
    text = (root / "requirements.txt").read_text(encoding="utf-8")
    for name in extra:
        path = root / name
        if path.parent != root or not path.is_file():
            message = f"There is no {name} beside requirements.txt: Terraform's output `extra_requirements` asks for it."
            raise DeployError(message)
        lines = path.read_text(encoding="utf-8").splitlines()
        text = "\n".join([text.rstrip("\n"), *(line for line in lines if not line.startswith(("-r ", "-c ")))]) + "\n"
    return text.encode()


def _rules(root: Path) -> tuple[ignore.Rule, ...]:
    try:
        return ignore.parse((root / ".funcignore").read_text(encoding="utf-8"))
    except OSError as error:
        message = f"{root} has no .funcignore: without it tests, tools and local secrets would be published."
        raise DeployError(message) from error


def _walk(root: Path, rules: tuple[ignore.Rule, ...], folder: str = "") -> Iterator[tuple[str, Path]]:
    with os.scandir(root / folder) as found:
        entries = list(found)
    for entry in entries:
        name = f"{folder}/{entry.name}" if folder else entry.name
        if ignore.ignored(name, rules, folder=entry.is_dir(follow_symlinks=False)):
            continue
        if entry.is_symlink():
            message = f"{name} is a link: put the file itself there, or add it to .funcignore."
            raise DeployError(message)
        if entry.is_dir():
            yield from _walk(root, rules, name)
        else:
            yield name, Path(entry.path)


def _name(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:_NAME_LENGTH]
