"""Dynamically registered models, kept as versions in the table ``catalogoverlay``.

All rows are in one partition, so that a registration is one transaction:

    head                      revision: goes up with every registration; its ETag guards all writes
    model-<hex>               the newest version of a model (``removed`` marks one that was taken back)
    version-<hex>-00000001    every version there ever was

``<hex>`` is the model's name: names may hold characters that row keys can't.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from shared.core.errors import StorageUnavailableError
from shared.pieces import gather, spread
from shared.ports import Action, Entity, Op

if TYPE_CHECKING:
    from shared.core.chat import Json
    from shared.ports import EntityTable, Tables

TABLE: Final = "catalogoverlay"
MAX_DOCUMENT: Final = 256 * 1024
_PARTITION: Final = "overlay"
_HEAD: Final = "head"
_READ_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """One version of a registered model. ``document`` None says that this version removed it.

    ``registered_at`` is seconds since the epoch.
    """

    name: str
    version: int
    document: Json | None
    registered_at: float


@dataclass(frozen=True, slots=True)
class Overlay:
    """Everything registered, at one revision. ``etag`` is the head's, "" before the first registration."""

    revision: int = 0
    etag: str = ""
    models: Mapping[str, RegisteredModel] = field(default_factory=dict)

    def documents(self) -> dict[str, Json]:
        """Return the documents of the models that are registered now."""
        return {name: model.document for name, model in self.models.items() if model.document is not None}

    def version_of(self, name: str) -> int:
        """Return the version of a model that is registered now; 0 when it is not."""
        model = self.models.get(name)
        return model.version if model is not None and model.document is not None else 0


class OverlayStore:
    """The rows of the table as values."""

    def __init__(self, tables: Tables) -> None:
        self._table: EntityTable = tables.table(TABLE)

    async def revision(self) -> int:
        """Return the newest revision; 0 when nothing was ever registered."""
        return _integer(await self._table.get(_PARTITION, _HEAD), "revision")

    async def read(self) -> Overlay:
        """Return everything registered, as of one revision."""
        for _ in range(_READ_ATTEMPTS):
            head = await self._table.get(_PARTITION, _HEAD)
            models = {}
            async for row in self._table.query(_PARTITION, start="model-", end="model."):
                model = _model(row)
                models[model.name] = model
            revision = _integer(head, "revision")
            if revision == await self.revision():
                return Overlay(revision, head.etag if head is not None else "", models)
        message = "Models are being registered faster than they can be read; try again."
        raise StorageUnavailableError(message)

    async def write(self, overlay: Overlay, name: str, document: Json | None, *, at: float) -> Overlay:
        """Add a version of a model (None removes it) to what was read as ``overlay``, and return the result.

        Raise `EntityChangedError` or `EntityExistsError` when somebody else has registered something since.
        """
        before = overlay.models.get(name)
        model = RegisteredModel(name, (before.version if before is not None else 0) + 1, document, at)
        head = Entity(_PARTITION, _HEAD, {"revision": overlay.revision + 1}, overlay.etag)
        key = name.encode().hex()
        properties = {
            "name": name,
            "version": model.version,
            "removed": document is None,
            "registered_at": at,
            **spread(b"" if document is None else orjson.dumps(document)),
        }
        etags = await self._table.transact(
            [
                Op(Action.REPLACE if overlay.etag else Action.INSERT, head),
                Op(Action.UPSERT, Entity(_PARTITION, f"model-{key}", properties)),
                Op(Action.INSERT, Entity(_PARTITION, f"version-{key}-{model.version:08}", properties)),
            ]
        )
        return Overlay(overlay.revision + 1, etags[0], {**overlay.models, name: model})

    async def versions(self, name: str) -> tuple[RegisteredModel, ...]:
        """Return every version of a model, oldest first."""
        key = name.encode().hex()
        rows = self._table.query(_PARTITION, start=f"version-{key}-", end=f"version-{key}.")
        return tuple([_model(row) async for row in rows])


def _model(row: Entity) -> RegisteredModel:
    content = gather(row.properties)
    document: dict[str, Any] | None = orjson.loads(content) if content and not row.properties.get("removed") else None
    at = row.properties.get("registered_at", 0.0)
    return RegisteredModel(
        name=str(row.properties.get("name", "")),
        version=_integer(row, "version"),
        document=document,
        registered_at=float(at) if isinstance(at, int | float) else 0.0,
    )


def _integer(row: Entity | None, name: str) -> int:
    value = row.properties.get(name) if row is not None else None
    return value if isinstance(value, int) else 0
