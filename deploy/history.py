"""The last packages that were made here, so that the one before can be published again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

KEPT: Final = 5
"""Packages that are kept. Each is about half a megabyte."""


@dataclass(frozen=True, slots=True)
class Published:
    """A package that was seen to serve."""

    build: str
    app: str


class History:
    """A folder with `BUILD.zip` for each package, and `published.json`: what served where, oldest first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._list = folder / "published.json"

    def path(self, build: str) -> Path:
        """Return where a package is kept."""
        return self._folder / f"{build}.zip"

    def published(self, app: str) -> list[str]:
        """Return the packages that served as an app and are still here, oldest first."""
        return [one.build for one in self._read() if one.app == app and self.path(one.build).is_file()]

    def previous(self, app: str, build: str | None) -> str | None:
        """Return the package that served before ``build``; before the last one, if that is None."""
        builds = self.published(app)
        if build is None:
            return builds[-2] if len(builds) > 1 else None
        return next((one for one in reversed(builds) if one != build), None)

    def add(self, build: str, app: str) -> None:
        """Write down that a package serves."""
        now = Published(build, app)
        kept = [*(one for one in self._read() if one != now), now][-KEPT * 4 :]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._list.write_text(json.dumps([asdict(one) for one in kept], indent=1), encoding="utf-8")
        self.forget()

    def forget(self) -> None:
        """Delete old packages: neither among the last that were made nor among the last that served."""
        needed = {one.build for one in self._read()[-KEPT:]}
        for path in sorted(self._folder.glob("*.zip"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            if path.stem not in needed:
                path.unlink()

    def _read(self) -> list[Published]:
        try:
            return [Published(**one) for one in json.loads(self._list.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
