"""The engine of background work on one machine: the orchestrators and activities that Azure runs, in this process.

It forgets at the process's end. So that nobody waits for ever for what it forgot, it says every few seconds in the store that
it lives (`shared.engines`), and ends as lost whatever an engine that is gone had begun: see `Keeper`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from shared import background, batching
from shared.core.errors import ConfigurationError, GatewayError
from shared.engines import BEAT_SECONDS, GONE_SECONDS
from shared.tracing import serve_nobody

if TYPE_CHECKING:
    from local.embedded import Embedded
    from local.mounting import Functions
    from shared.gateway import Gateway

logger = logging.getLogger("switchyard.engine")

REMEMBERED: Final = 10_000
"""Ended instances that are not started again, as Durable Functions would not."""
CANCEL: Final = "cancel"


class LocalEngine:
    """`shared.ports.ChainEngine` in this process. What it needs is imported and started by the first piece of work."""

    def __init__(self, functions: Functions) -> None:
        self.name = f"local-{secrets.token_hex(6)}"
        self._functions = functions
        self._opening: asyncio.Task[Embedded] | None = None
        self._running: set[str] = set()
        self._ended: dict[str, None] = {}

    async def start(self, orchestrator: str, instance: str, given: Mapping[str, object]) -> None:
        """Start an orchestration; one of that instance id that runs or ran already is left alone.

        Raise `ConfigurationError` when ``durabletask`` is not installed.
        """
        embedded = await self._opened()
        if instance in self._running or instance in self._ended:
            return
        embedded.begin(orchestrator, instance, given)
        self._running.add(instance)

    async def cancel(self, instance: str) -> None:
        """Raise the event ``cancel``; nothing happens when the instance is not running."""
        if instance in self._running:
            (await self._opened()).tell(instance, CANCEL)

    async def aclose(self, grace: float = 0.0) -> None:
        """Give running activities ``grace`` seconds to end, then stop. What has not ended is forgotten."""
        if self._opening is not None:
            opening, self._opening = self._opening, None
            with contextlib.suppress(ConfigurationError):
                await (await opening).aclose(grace)

    @property
    def running(self) -> int:
        """How many instances have begun and not ended."""
        return len(self._running)

    async def _opened(self) -> Embedded:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> Embedded:
        serve_nobody()
        try:
            embedded = await asyncio.to_thread(_imported)
        except ImportError as error:
            message = "Background work needs durabletask on one machine: pip install -r requirements-local.txt"
            raise ConfigurationError(message, problems=[message]) from error
        loop = asyncio.get_running_loop()

        def ended(instance: str, failed: str | None) -> None:
            loop.call_soon_threadsafe(self._note_end, instance, failed)

        return embedded(self._functions.orchestrators, self._functions.activities, ended)

    def _note_end(self, instance: str, failed: str | None) -> None:
        if failed is not None:
            logger.error("the orchestration %s failed by a bug: %s", instance, failed)
        self._running.discard(instance)
        self._ended[instance] = None
        if len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]


def _imported() -> type[Embedded]:
    # Some 0.15 s of imports that a host without background work is spared.
    from local.embedded import Embedded  # noqa: PLC0415

    return Embedded


# ---- signs of life ---------------------------------------------------------------------------------------------------


class Keeper:
    """Says in the store that an engine lives, and ends the chains and batches of engines that are gone."""

    def __init__(self, engine: LocalEngine, gateway: Gateway) -> None:
        self._engine = engine
        self._gateway = gateway
        self._place = f"{socket.gethostname()}/{os.getpid()}"
        self._looking = True  # whoever ended an engine's work may have died over it: so every process looks once

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            try:
                await self.step()
            except GatewayError as error:
                logger.warning("the engine could not say that it lives: %s", error)
            await self._gateway.clock.sleep(BEAT_SECONDS)

    async def step(self) -> None:
        """Say that the engine lives; end what is lost. Raise `StorageUnavailableError`."""
        await self._gateway.engines.beat(self._engine.name, self._place)
        if await self._bury():
            self._looking = True
        if self._looking:
            self._looking = not await self._end_lost()

    async def _bury(self) -> int:
        """Forget the engines that are gone: silent for long, or of a process of this machine that is no more."""
        now, buried = self._gateway.clock.now(), 0
        for beat in await self._gateway.engines.beats():
            if beat.name != self._engine.name and (now - beat.at > GONE_SECONDS or _is_dead(beat.place)):
                await self._gateway.engines.bury(beat.name)
                buried += 1
        return buried

    async def _end_lost(self) -> bool:
        """End the chains and batches of engines that are gone; False while that can't be done for one of them yet."""
        living = {self._engine.name, background.DURABLE} | await self._gateway.engines.living()
        lost = [chain async for chain in self._gateway.chains.unfinished() if chain.engine not in living]
        batches = [batch async for batch in self._gateway.batches.unfinished() if batch.engine not in living]
        ended = [await background.lose(self._gateway, chain) for chain in lost]
        ended += [await batching.lose(self._gateway, batch) for batch in batches]
        if ended:
            logger.warning("%d chains and batches were lost with their process; %d are ended", len(ended), sum(ended))
        return all(ended)


def _is_dead(place: str) -> bool:
    """Say whether a process of this machine is gone; of another machine's nothing is known."""
    host, _, process = place.rpartition("/")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
