"""The stage of a kill run: the store and how it is frozen or restarted, the provider, the processes and how they die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tests.azurite.process import Azurite
from tests.bench.money.plan import BILLED, Plan
from tests.bench.process import Process

READY_SECONDS = 60.0
END_SECONDS = 45.0


class Stage(Protocol):
    """A store that can be troubled."""

    setting: str

    async def freeze(self, seconds: float) -> None:
        """Let it answer no write for so long."""
        ...

    async def restart(self) -> bool:
        """End it and start it again over what it holds; False where there is no process to end."""
        ...


class SqliteStage:
    """One file that all processes share."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "kill-run.db"
        self.setting = f"sqlite:{self._path}"

    async def freeze(self, seconds: float) -> None:
        """Hold the lock that every write needs."""
        await asyncio.to_thread(self._hold, seconds)

    async def restart(self) -> bool:
        """There is nothing to restart."""
        return False

    def _hold(self, seconds: float) -> None:
        with contextlib.closing(sqlite3.connect(self._path, timeout=10, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")


class AzuriteStage:
    """The emulator, with a folder."""

    def __init__(self, azurite: Azurite) -> None:
        self._azurite = azurite
        self.setting = azurite.setting

    async def freeze(self, seconds: float) -> None:
        """Stop the process; its connections stand."""
        self._azurite.freeze()
        await asyncio.sleep(seconds)
        self._azurite.thaw()

    async def restart(self) -> bool:
        """End it under load, so that connections break with answers owed; let it write its folder, as the service would have.

        The emulator writes every five seconds: a SIGKILL would lose what it has acknowledged, which Table Storage does not.
        """
        await asyncio.to_thread(self._azurite.stop)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(self._azurite.start)
        return True


@contextlib.contextmanager
def stage(store: str, folder: Path) -> Iterator[Stage]:
    """Set up the store of that name in a folder."""
    if store == "sqlite":
        yield SqliteStage(folder)
        return
    (folder / "azurite").mkdir()
    azurite = Azurite(folder / "azurite")
    try:
        yield AzuriteStage(azurite.start())
    finally:
        azurite.kill()


class Cast:
    """The provider and the worker processes of one run."""

    def __init__(self, plan: Plan, path: Path) -> None:
        self._plan = plan
        self._path = path
        self._folder = path.parent
        self._count = 0
        self.provider: Process | None = None
        self.workers: list[Process] = []
        self.kills = 0

    async def open(self) -> None:
        """Start the provider and the workers; return when all are at work."""
        command = [sys.executable, "-m", "tests.bench.money.provider", str(self._plan.provider)]
        command += [str(self._folder / BILLED), str(self._plan.call)]
        self.provider = Process("provider", command, folder=self._folder)
        await asyncio.to_thread(self.provider.until_listening, self._plan.provider)
        (self._folder / BILLED).touch()
        for _ in range(self._plan.processes):
            self.start()
        await self.ready()

    def start(self) -> None:
        """Start one more worker process."""
        self._count += 1
        name = f"w{self._count}"
        command = [sys.executable, "-m", "tests.bench.money.worker", str(self._path), name]
        self.workers.append(Process(name, command, folder=self._folder))

    async def ready(self) -> None:
        """Return when every worker process is at work; raise `RuntimeError` when one does not get there."""
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        for worker in self.workers:
            while not (self._folder / f"{worker.name}.ready").exists():
                if asyncio.get_running_loop().time() > deadline:
                    message = f"{worker.name} did not start:\n{worker.tail()}"
                    raise RuntimeError(message)
                await asyncio.sleep(0.02)

    def kill(self, place: int) -> None:
        """Kill a worker process and put a new one in its place."""
        worker = self.workers.pop(place % len(self.workers))
        os.kill(worker.pid, signal.SIGKILL)
        worker.stop()
        self.kills += 1
        self.start()

    async def pause(self, place: int, seconds: float) -> None:
        """Stop a worker process for so long: recovery takes it for dead, and then it comes back."""
        worker = self.workers[place % len(self.workers)]
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            os.kill(worker.pid, signal.SIGCONT)

    async def close(self) -> list[str]:
        """Let the workers end in order; return the last words of those that ended otherwise."""
        await asyncio.gather(*(asyncio.to_thread(worker.stop, END_SECONDS) for worker in self.workers))
        said = [f"{worker.name}: {worker.tail()}" for worker in self.workers if "Traceback" in worker.tail(60)]
        self.workers.clear()
        return said

    def end(self) -> None:
        """End whatever still runs, at once."""
        for process in [*self.workers, *([self.provider] if self.provider is not None else [])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.stop()
        self.workers.clear()
