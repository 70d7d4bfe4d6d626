"""The last packages that were made here, so that the one before can be published again."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from deploy.errors import DeployError

KEPT: Final = 5
"""Packages that are kept, of each app. Each is about half a megabyte."""


@dataclass(frozen=True, slots=True)
class Published:
    """A package that was sent to an app; ``served`` when it was seen to serve there."""

    build: str
    app: str
    served: bool = True


class History:
    """A folder with `BUILD.zip` for each package, and `published.json`: what was sent where, oldest first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._list = folder / "published.json"

    def path(self, build: str) -> Path:
        """Return where a package is kept."""
        return self._folder / f"{build}.zip"

    def keep(self, archive: Path, build: str) -> None:
        """Keep a package that was made elsewhere: without it here, `rollback` would go to the one before that."""
        path = self.path(build)
        if not path.is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".part")
            shutil.copyfile(archive, unfinished)
            unfinished.replace(path)

    def published(self, app: str) -> list[str]:
        """Return the packages that served as an app and are still here, oldest first."""
        return [one.build for one in self._read() if one.app == app and one.served and self.path(one.build).is_file()]

    def previous(self, app: str, build: str | None) -> str | None:
        """Return the package that served before ``build``; before the last that was sent, served or not, if that is None."""
        if build is None:
            build = next((one.build for one in reversed(self._read()) if one.app == app), None)
        return next((one for one in reversed(self.published(app)) if one != build), None)

    def add(self, build: str, app: str, *, served: bool) -> None:
        """Write down that a package was sent, and whether it serves; one that did once stays one to go back to."""
        told = self._read()
        before = [one for one in told if (one.build, one.app) == (build, app)]
        now = Published(build, app, served or any(one.served for one in before))
        kept = _lasting([*(one for one in told if one not in before), now])
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._list.with_suffix(".part")
        unfinished.write_text(json.dumps([asdict(one) for one in kept], indent=1), encoding="utf-8")
        unfinished.replace(self._list)
        self.forget()

    def forget(self) -> None:
        """Delete old packages: not the last that were made, nor those that are written down."""
        needed = {one.build for one in self._read()}
        for path in sorted(self._folder.glob("*.zip"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            if path.stem not in needed:
                path.unlink()

    def _read(self) -> list[Published]:
        try:
            return [Published(**one) for one in json.loads(self._list.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            message = f"{self._list} can't be read: delete it, and publish with `--package` what is to serve."
            raise DeployError(message) from error


def _lasting(told: list[Published]) -> list[Published]:
    """Return, of each app, the last that were sent and the last that served: failed attempts must not push out what works."""
    lasting: set[Published] = set()
    for app in {one.app for one in told}:
        sent = [one for one in told if one.app == app]
        lasting.update(sent[-KEPT:], [one for one in sent if one.served][-KEPT:])
    return [one for one in told if one in lasting]
