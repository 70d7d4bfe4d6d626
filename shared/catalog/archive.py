"""Every catalog that was ever used, by registry version, in the table ``catalogs``: a stored decision can be replayed.

Kept are the text, the registered models and which environment names were set; never a credential or an address.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from shared.pieces import CAPACITY, gather, spread
from shared.ports import Entity, EntityExistsError

if TYPE_CHECKING:
    from shared.core.chat import Json
    from shared.ports import Tables

TABLE: Final = "catalogs"
_PARTITION: Final = "catalog"
_STAND_IN: Final = "https://archived.invalid"
"""Stands for a credential or address that was set then and isn't now; nothing is ever called with it."""


@dataclass(frozen=True, slots=True)
class ArchivedCatalog:
    """All that made a registry, but for the secrets. ``references`` is `shared.catalog.loading.Loaded`'s."""

    text: str
    source: str
    overlay: Mapping[str, Json]
    references: Mapping[str, str | None]
    simulated: bool

    def environment(self, now: Mapping[str, str]) -> dict[str, str]:
        """Return an environment that makes the same registry again: what was set then, credentials as they are now."""
        return {
            name: value or now.get(name, "").strip() or _STAND_IN
            for name, value in self.references.items()
            if value is not None
        }


class Archive:
    """Catalogs by version."""

    def __init__(self, tables: Tables) -> None:
        self._table = tables.table(TABLE)

    async def keep(self, version: str, catalog: ArchivedCatalog, *, at: float) -> bool:
        """Store a catalog, unless that version is there; return False if it is too large to be stored."""
        content = zlib.compress(
            orjson.dumps(
                {
                    "text": catalog.text,
                    "source": catalog.source,
                    "overlay": dict(catalog.overlay),
                    "references": dict(catalog.references),
                    "simulated": catalog.simulated,
                }
            )
        )
        if len(content) > CAPACITY:
            return False
        with suppress(EntityExistsError):  # the same version is the same catalog
            await self._table.insert(Entity(_PARTITION, version, {"kept_at": at, **spread(content)}))
        return True

    async def find(self, version: str) -> ArchivedCatalog | None:
        """Return the catalog of a registry version, or None."""
        if not version.isalnum():
            return None
        row = await self._table.get(_PARTITION, version)
        if row is None:
            return None
        kept: dict[str, Any] = orjson.loads(zlib.decompress(gather(row.properties)))
        return ArchivedCatalog(
            text=kept["text"],
            source=kept["source"],
            overlay=kept["overlay"],
            references=kept["references"],
            simulated=kept["simulated"],
        )
