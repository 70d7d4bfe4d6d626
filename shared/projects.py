"""Limits of projects: requests and tokens per minute over all keys and instances.

Read from a snapshot that is at most `REFRESH_SECONDS` old while there are requests: no request waits for it. That is also how
long a changed limit takes to be in force everywhere. While the store does not answer, what was known stays in force.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from typing import Final

from shared.core.errors import InvalidRequestError, NotFoundError, StorageUnavailableError
from shared.core.fields import Fields
from shared.core.limits import Limited
from shared.ports import Action, Clock, Entity, EntityNotFoundError, Op, Tables, Value

TABLE: Final = "projects"
PARTITION: Final = "limits"
REFRESH_SECONDS: Final = 5.0
MAX_LIMIT: Final = 10**12

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NEVER: Final = float("-inf")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Project:
    """A project's limits per minute; None is no limit."""

    name: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class Projects:
    """The limits of projects. To be used from one event loop at a time."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._table = tables.table(TABLE)
        self._clock = clock
        self._known: dict[str, tuple[Limited, ...]] = {}
        self._read_at = _NEVER
        self._reading: asyncio.Task[None] | None = None

    def limits(self, project: str) -> tuple[Limited, ...]:
        """Return what limits a project, as last read; empty for none. Never waits."""
        now = self._clock.monotonic()
        if now - self._read_at >= REFRESH_SECONDS:
            self._read_at = now
            self._reading = asyncio.get_running_loop().create_task(self._refresh(), name="switchyard-projects")
        return self._known.get(project, ())

    async def put(self, project: Project) -> Project:
        """Set a project's limits; raise `InvalidRequestError` naming the field."""
        if _NAME.fullmatch(project.name) is None:
            message = "A project's name is 1 to 64 letters, digits, `.`, `_` or `-`, a letter or digit first."
            raise InvalidRequestError(message, param="project")
        properties: dict[str, Value] = {"name": project.name}
        for field in ("requests_per_minute", "tokens_per_minute"):
            limit = getattr(project, field)
            if limit is None:
                continue
            if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
                message = f"`{field}` must be a whole number from 1 to {MAX_LIMIT}, or absent for no limit."
                raise InvalidRequestError(message, param=field)
            properties[field] = limit
        await self._table.transact([Op(Action.UPSERT, Entity(PARTITION, project.name, properties))])
        self._read_at = _NEVER
        return project

    async def list(self) -> list[Project]:
        """Return every project that has limits."""
        return [_project(entity) async for entity in self._table.query(PARTITION)]

    async def remove(self, name: str) -> None:
        """Take a project's limits away; raise `NotFoundError`."""
        try:
            await self._table.delete(PARTITION, name)
        except (EntityNotFoundError, InvalidRequestError) as error:
            message = "That project has no limits. GET /v1/projects lists those that do."
            raise NotFoundError(message, param="project") from error
        self._read_at = _NEVER

    async def aclose(self) -> None:
        """Stop reading."""
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _refresh(self) -> None:
        try:
            found = await self.list()
        except StorageUnavailableError as error:
            _log.warning("The limits of projects could not be read; those known stay in force: %s", error.message)
            return
        self._known = {
            one.name: (Limited(f"project:{one.name}", one.requests_per_minute, one.tokens_per_minute),) for one in found
        }


def _project(entity: Entity) -> Project:
    row = Fields(entity.properties)
    try:
        return Project(entity.row, row.find_whole("requests_per_minute"), row.find_whole("tokens_per_minute"))
    except ValueError as error:
        message = f"The limits of the project {entity.row} are damaged: {error}."
        raise StorageUnavailableError(message) from error
