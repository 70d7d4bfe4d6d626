"""Processes under measurement: started, watched by their CPU and memory in /proc, and stopped by their id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 2**20


def free_port() -> int:
    """Return a port nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds so far and resident MiB now, of a process and its children."""

    cpu: float
    rss: float


class Process:
    """A server that runs until it is stopped; what it prints goes to a file in ``folder``."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        env: Mapping[str, str] | None = None,
        cores: str = "",
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        pinned = ["taskset", "-c", cores] if cores and shutil.which("taskset") else []
        with self.log.open("ab") as log:
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                [*pinned, *command],
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def cost(self) -> Cost:
        """Return what the process and its children have used."""
        cpu = rss = 0.0
        for pid in family(self.pid):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            cpu += (int(fields[11]) + int(fields[12])) / TICK
            rss += int(fields[21]) * PAGE / MIB
        return Cost(cpu, rss)

    def until_listening(self, port: int, within: float = 60) -> None:
        """Return when the port accepts; raise SystemExit with the log's end when the process dies or stays away."""
        give_up = time.monotonic() + within
        while time.monotonic() < give_up and self._process.poll() is None:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.005)
        self.stop()
        message = f"{self.name} does not listen on port {port}:\n{self.tail()}"
        raise SystemExit(message)

    def tail(self, lines: int = 15) -> str:
        """Return the end of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, within: float = 10) -> None:
        """Ask it to end, and end it when it does not."""
        self._process.terminate()
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found
