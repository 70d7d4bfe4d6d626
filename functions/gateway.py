"""The one way the edge reaches the gateway: opened on first use from the environment, or handed in by a host or a test."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shared.gateway import Gateway


class Holder:
    """Holds the process's gateway. A gateway belongs to the event loop it was opened in; another loop opens its own."""

    __slots__ = ("_given", "_loop", "_opening")

    def __init__(self) -> None:
        self._given: Gateway | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[Gateway] | None = None

    def use(self, gateway: Gateway | None) -> None:
        """Answer with this gateway from now on; None goes back to opening one from the environment."""
        self._given = gateway

    async def current(self) -> Gateway:
        """Return the gateway; raise `ConfigurationError` when the environment does not make one."""
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        failed = self._opening is not None and self._opening.done() and self._opening.exception() is not None
        if self._opening is None or self._loop is not loop or failed:
            self._loop = loop
            self._opening = loop.create_task(_open())
        # shielded: the first caller going away must not take the gateway from the others
        return await asyncio.shield(self._opening)


async def _open() -> Gateway:
    from shared import bootstrap, settings  # noqa: PLC0415 - adapters are loaded when the first request needs them

    environment = dict(os.environ)
    return await bootstrap.open_gateway(settings.load(environment), environment=environment)


HOLDER: Final = Holder()
"""The Functions worker gives handlers no place to keep what they share, so this is it."""

use = HOLDER.use
current = HOLDER.current
