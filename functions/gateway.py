"""The one way the edge reaches the gateway: opened on first use from the environment, or handed in by a host or a test."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from typing import TYPE_CHECKING, Final

from shared.core.errors import GatewayError
from shared.gauges import tell_breakers
from shared.tracing import serve_nobody

if TYPE_CHECKING:
    from shared.gateway import Gateway

logger = logging.getLogger("switchyard.edge")

REFRESH_SECONDS: Final = 2.0
GC_THRESHOLDS: Final = (50_000, 20, 100)
"""Requests make few cycles: the collector's default of 700 allocations costs a tenth of the throughput."""


class Holder:
    """Holds the process's gateway. A gateway belongs to the event loop it was opened in; another loop opens its own.

    Every `REFRESH_SECONDS` a request also starts taking over what other instances registered; no request waits for that.
    """

    __slots__ = ("_given", "_loop", "_opening", "_refresh_at", "_refreshing")

    def __init__(self) -> None:
        self._given: Gateway | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[Gateway] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._refresh_at = float("-inf")

    def use(self, gateway: Gateway | None) -> None:
        """Answer with this gateway from now on; None goes back to opening one from the environment."""
        self._given = gateway
        if self._refreshing is not None:
            self._refreshing.cancel()
            self._refreshing = None

    async def current(self) -> Gateway:
        """Return the gateway; raise `ConfigurationError` when the environment does not make one."""
        gateway = self._given if self._given is not None else await self._opened()
        now = time.monotonic()
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_SECONDS
            self._refreshing = asyncio.create_task(_refresh(gateway))
        return gateway

    async def _opened(self) -> Gateway:
        loop, opening = asyncio.get_running_loop(), self._opening
        failed = opening is not None and opening.done() and (opening.cancelled() or opening.exception() is not None)
        if opening is None or self._loop is not loop or failed:
            self._loop = loop
            self._opening = opening = loop.create_task(_open())
        # shielded: the first caller going away must not take the gateway from the others
        return await asyncio.shield(opening)


async def _refresh(gateway: Gateway) -> None:
    tell_breakers(gateway)
    try:
        await gateway.catalog.refresh()
    except GatewayError as error:
        logger.warning("the catalog could not be refreshed: %s", error)


async def _open() -> Gateway:
    from shared import bootstrap, settings  # noqa: PLC0415 - adapters are loaded when the first request needs them

    serve_nobody()
    environment = dict(os.environ)
    gateway = await bootstrap.open_gateway(settings.load(environment), environment=environment)
    tune_collector()
    return gateway


def tune_collector() -> None:
    """Leave what was made at the start alone, and look for cycles less often than Python does by itself."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


HOLDER: Final = Holder()
"""The Functions worker gives handlers no place to keep what they share, so this is it."""

use = HOLDER.use
current = HOLDER.current
