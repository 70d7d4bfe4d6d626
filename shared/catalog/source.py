"""The catalog in use: the file and the registered models over it, reloaded while requests are served.

A registry is an immutable snapshot. A change that is wrong changes nothing: the last good snapshot serves on, `problems` says
what is wrong, and one log line is written per change.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import orjson

from shared.catalog.archive import Archive, ArchivedCatalog
from shared.catalog.findings import CatalogError
from shared.catalog.loading import Loaded, load
from shared.catalog.overlay import MAX_DOCUMENT, Overlay, OverlayStore, RegisteredModel
from shared.catalog.watch import UnreadableError, WatchedFile
from shared.core.errors import ConfigurationError, ConflictError, InvalidRequestError, NotFoundError, StorageUnavailableError

if TYPE_CHECKING:
    from shared.core.chat import Json
    from shared.core.registry import Registry
    from shared.ports import Clock, Tables

LOOK_EVERY: Final = 0.25
"""Seconds between looks at the file."""
POLL_EVERY: Final = 2.0
"""Seconds between looks at what other instances registered."""
_WRITE_ATTEMPTS: Final = 8
_KEPT_REGISTRIES: Final = 8
_TOLD: Final = 5

_log = logging.getLogger("switchyard.catalog")


@dataclass(frozen=True, slots=True)
class _Applied:
    """The snapshot that serves, and what it was made from."""

    loaded: Loaded
    text: str
    overlay: Mapping[str, Json] = field(default_factory=dict)
    revision: int = 0


class CatalogSource:
    """One process's catalog.

    ``environment`` is read again at every reload. ``simulator_url`` sends every provider's calls to the simulator there.
    Nothing is read before the first `refresh` or `current`, which raise `ConfigurationError` if there is no good catalog yet.
    """

    def __init__(
        self,
        path: str,
        *,
        environment: Mapping[str, str],
        tables: Tables,
        clock: Clock,
        simulator_url: str | None = None,
    ) -> None:
        self._environment = environment
        self._simulator_url = simulator_url
        self._clock = clock
        self._file = WatchedFile(path)
        self._store = OverlayStore(tables)
        self._archive = Archive(tables)
        self._overlay = Overlay()
        self._applied: _Applied | None = None
        self._newest: str | None = None
        self._problems: tuple[str, ...] = ()
        self._kept = ""
        self._unreachable = False
        self._look_at = -inf
        self._poll_at = -inf
        self._registries: dict[str, Registry] = {}

    # ---- reading -----------------------------------------------------------------------------------------------------

    @property
    def current(self) -> Registry:
        """Return the registry to serve with, after a look at the file if the last one is a quarter of a second ago."""
        return self._fresh().loaded.registry

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with a newer catalog that therefore does not serve; empty when all is well."""
        self._fresh()
        return self._problems

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a person should look at in the catalog that serves."""
        return self._fresh().loaded.warnings

    def _fresh(self) -> _Applied:
        now = self._clock.monotonic()
        if self._applied is None or now >= self._look_at:
            self._look_at = now + LOOK_EVERY
            self._look()
        if self._applied is None:
            message = f"There is no usable catalog at {self._file.path}."
            raise ConfigurationError(message, problems=self._problems)
        return self._applied

    def _look(self) -> None:
        try:
            text = self._file.poll()
        except UnreadableError as error:
            self._tell((str(error),))
            if self._applied is None:
                raise ConfigurationError(str(error), problems=[str(error)]) from error
            return
        if text is not None:
            self._newest = text
            self._rebuild()
        elif self._applied is None and self._newest is not None:
            self._rebuild()

    # ---- building ----------------------------------------------------------------------------------------------------

    def _rebuild(self) -> None:
        """Make a new snapshot of the newest text, or, while that is broken, put newly registered models over the good one."""
        good = self._applied.text if self._applied is not None and self._applied.revision != self._overlay.revision else None
        failure: ConfigurationError | None = None
        for text in dict.fromkeys((self._newest, good)):
            if text is None:
                continue
            try:
                applied, left_out = self._load(text)
            except ConfigurationError as error:
                failure = failure or error
            else:
                announced = self._accept(applied)
                self._tell((*(failure.problems if failure is not None else ()), *left_out), announced=announced)
                return
        if failure is not None:
            self._tell(failure.problems)
            if self._applied is None:
                raise failure

    def _load(self, text: str) -> tuple[_Applied, tuple[str, ...]]:
        """Return the snapshot of a text with the registered models, and the problems of those that had to be left out.

        A registered model that does not fit the file is left out, unless it is being served: then the file's change would
        take something away that works, and is refused.
        """
        documents, revision = self._overlay.documents(), self._overlay.revision
        try:
            return _Applied(self._parse(text, documents), text, documents, revision), ()
        except CatalogError as error:
            served = self._applied.overlay if self._applied is not None else {}
            if not error.registered or not error.registered.isdisjoint(served):
                raise
            kept = {name: document for name, document in documents.items() if name not in error.registered}
            return _Applied(self._parse(text, kept), text, kept, revision), error.problems

    def _parse(self, text: str, overlay: Mapping[str, Json], *, source: str | None = None) -> Loaded:
        return load(
            text,
            source=source or self._file.path,
            environment=self._environment,
            overlay=overlay,
            simulator_url=self._simulator_url,
        )

    def _accept(self, applied: _Applied) -> bool:
        """Serve with a snapshot; log it and return True if it decides differently from the one before."""
        before = self._applied.loaded.registry.version if self._applied is not None else None
        self._applied = applied
        registry = applied.loaded.registry
        self._remember(registry)
        if registry.version == before:
            return False
        facts = {"catalog_version": registry.version, "catalog_before": before, "catalog_source": self._file.path}
        _log.info("catalog %s serves (%d models)", registry.version, len(registry.models), extra=facts)
        if warnings := applied.loaded.warnings:
            more = f" … and {len(warnings) - _TOLD} more" if len(warnings) > _TOLD else ""
            _log.warning("catalog %s: %s%s", registry.version, "; ".join(warnings[:_TOLD]), more, extra=facts)
        return True

    def _tell(self, problems: tuple[str, ...], *, announced: bool = False) -> None:
        """Keep the problems for `problems`, and log them once; so too that there are none any more, unless announced."""
        if problems and problems != self._problems:
            more = f" … and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
            serving = self._applied.loaded.registry.version if self._applied is not None else "none"
            facts = {"catalog_problems": problems, "catalog_version": serving, "catalog_source": self._file.path}
            _log.error("catalog refused, %s serves: %s%s", serving, "; ".join(problems[:_TOLD]), more, extra=facts)
        elif self._problems and not problems and not announced and self._applied is not None:
            version = self._applied.loaded.registry.version
            facts = {"catalog_version": version, "catalog_source": self._file.path}
            _log.info("catalog is well again, %s serves on", version, extra=facts)
        self._problems = problems

    def _remember(self, registry: Registry) -> None:
        self._registries.pop(registry.version, None)
        self._registries[registry.version] = registry
        while len(self._registries) > _KEPT_REGISTRIES:
            del self._registries[next(iter(self._registries))]

    # ---- what other instances do -------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Take over what other instances registered, and store the catalog's text; does nothing within two seconds.

        A store that does not answer changes nothing. Raise `ConfigurationError` if there is no good catalog yet.
        """
        now = self._clock.monotonic()
        if now < self._poll_at:
            return
        self._poll_at = now + POLL_EVERY
        try:
            await self._poll()
            await self._keep(self._fresh())
            self._unreachable = False
        except StorageUnavailableError:
            if not self._unreachable:
                _log.warning("the store does not answer: registered models may be out of date on this instance")
            self._unreachable = True
            self._fresh()

    async def _poll(self) -> None:
        if await self._store.revision() != self._overlay.revision:
            self._take(await self._store.read())

    def _take(self, overlay: Overlay) -> None:
        if overlay.revision > self._overlay.revision:
            self._overlay = overlay
            if self._newest is not None:
                self._rebuild()

    async def _keep(self, applied: _Applied) -> None:
        version = applied.loaded.registry.version
        if version == self._kept:
            return
        catalog = ArchivedCatalog(
            text=applied.text,
            source=self._file.path,
            overlay=applied.overlay,
            references=applied.loaded.references,
            simulated=self._simulator_url is not None,
        )
        if not await self._archive.keep(version, catalog, at=self._clock.now()):
            _log.warning("catalog %s is too large to be stored: its decisions can't be replayed later", version)
        self._kept = version

    async def at_version(self, version: str) -> Registry | None:
        """Return the registry of a version, as it decided then; None if that catalog was never stored."""
        if (known := self._registries.get(version)) is not None:
            return known
        kept = await self._archive.find(version)
        if kept is None:
            return None
        try:
            loaded = load(
                kept.text,
                source=kept.source,
                environment=kept.environment(self._environment),
                overlay=kept.overlay,
                simulator_url=(self._simulator_url or "http://archived.invalid") if kept.simulated else None,
            )
        except ConfigurationError as error:
            _log.warning("catalog %s can't be read by this release: %s", version, "; ".join(error.problems[:_TOLD]))
            return None
        self._remember(loaded.registry)
        return loaded.registry

    # ---- registration ------------------------------------------------------------------------------------------------

    async def register(self, name: str, document: Json, *, expected_version: int | None = None) -> RegisteredModel:
        """Add a model, or a new version of one; serve with it at once, here, and within two seconds elsewhere.

        ``document`` is a model entry of the catalog with its deployments; it replaces a model of the file. Raise
        `InvalidRequestError` with every problem if the whole catalog would not be right with it, and `ConflictError` if
        ``expected_version`` (0: not registered) is not the registered one.
        """
        plain = _plain(document)
        return await self._write(name, plain, expected_version)

    async def remove(self, name: str, *, expected_version: int | None = None) -> RegisteredModel:
        """Take a registered model back; the file's own entry of that name serves again, if there is one.

        Raise `NotFoundError` if it is not registered, `ConflictError` if something in the catalog needs it.
        """
        return await self._write(name, None, expected_version)

    async def versions(self, name: str) -> tuple[RegisteredModel, ...]:
        """Return every version of a registered model, oldest first; a removal is a version without a document."""
        return await self._store.versions(name)

    async def _write(self, name: str, document: Json | None, expected_version: int | None) -> RegisteredModel:
        applied = self._fresh()
        for _ in range(_WRITE_ATTEMPTS):
            overlay = await self._store.read()
            _check_version(name, overlay, expected_version)
            if document is None and not overlay.version_of(name):
                raise NotFoundError(_not_registered(name, applied.loaded.registry), param="model")
            self._check(name, document, overlay, text=applied.text)
            try:
                written = await self._store.write(overlay, name, document, at=self._clock.now())
            except ConflictError:
                continue  # somebody registered in between: what was checked is no longer what would be served
            self._take(written)
            return written.models[name]
        message = "Other models are being registered at this moment; try again."
        raise ConflictError(message)

    def _check(self, name: str, document: Json | None, overlay: Overlay, *, text: str) -> None:
        documents = overlay.documents()
        documents.pop(name, None)
        if document is not None:
            documents[name] = document
        source = PurePath(self._file.path).name  # the caller is told the problems: never where the file is
        try:
            try:
                self._parse(text, documents, source=source)
            except CatalogError as error:
                # Others that are wrong already must not stop this one.
                if not error.registered or name in error.registered:
                    raise
                others = {key: value for key, value in documents.items() if key not in error.registered}
                self._parse(text, others, source=source)
        except ConfigurationError as error:
            problems = "; ".join(error.problems)
            if document is None:
                message = f"The model `{name}` can't be removed, the catalog needs it: {problems}"
                raise ConflictError(message, param="model") from error
            message = f"The model `{name}` can't be registered: {problems}"
            raise InvalidRequestError(message, param="model", code="invalid_model") from error


def _plain(document: Json) -> dict[str, Any]:
    """Return the document as it will be read back from the store."""
    try:
        content = orjson.dumps(dict(document))
    except TypeError as error:
        message = "A model's document must be a JSON object."
        raise InvalidRequestError(message, param="model", code="invalid_model") from error
    if len(content) > MAX_DOCUMENT:
        message = f"A model's document can't be over {MAX_DOCUMENT} bytes; this one has {len(content)}."
        raise InvalidRequestError(message, param="model", code="invalid_model")
    plain: dict[str, Any] = orjson.loads(content)
    return plain


def _check_version(name: str, overlay: Overlay, expected: int | None) -> None:
    registered = overlay.version_of(name)
    if expected is None or expected == registered:
        return
    what = f"is at version {registered}" if registered else "is not registered"
    message = f"The model `{name}` {what}, version {expected} was expected; read it again and repeat the change."
    raise ConflictError(message, param="version")


def _not_registered(name: str, registry: Registry) -> str:
    if name in registry.models:
        return f"The model `{name}` stands in the catalog's file, not among the registered ones; remove it there."
    return f"There is no registered model `{name}`."
