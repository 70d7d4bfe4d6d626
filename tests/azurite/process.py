"""Azurite, the emulator of Azure Storage, as a process: for tests, kill runs and benchmarks.

It is installed here, from package-lock.json, the first time it is needed. A machine without Node can't run it; then this says
so and the tests fail: what was not tried is not known to work.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import signal
import socket
import subprocess
import tempfile
import time
from email.utils import formatdate
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tests import node_package

HERE = Path(__file__).resolve().parent
MAIN = HERE / "node_modules" / "azurite" / "dist" / "src" / "table" / "main.js"
ACCOUNT = "devstoreaccount1"
# Not a secret: Microsoft publishes it, and it is the same in every emulator.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
SAVING = HERE / "saving.cjs"
START_SECONDS = 30.0
STOP_SECONDS = 15.0


class Azurite:
    """One emulator on a free port of loopback. ``folder`` None keeps everything in memory: gone with the process.

    With a folder it can be killed and started again on the same port; see `kill` for what that loses.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen = False
        self.url = f"http://127.0.0.1:{self._port}/{ACCOUNT}"
        self.setting = f"azurite:{self.url}"
        """What SWITCHYARD_STORAGE would be."""

    @property
    def pid(self) -> int:
        """Return the process's number; raise `RuntimeError` when it does not run."""
        if self._process is None:
            message = "Azurite is not running."
            raise RuntimeError(message)
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it answers. Raise `RuntimeError` when it does not."""
        install()
        command = ["node", "--require", str(SAVING), str(MAIN), "--tableHost", "127.0.0.1", "--tablePort", str(self._port)]
        command += ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
        command += ["--inMemoryPersistence"] if self._folder is None else ["--location", str(self._folder)]
        output = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=output, stdout=output, stderr=output, cwd=tempfile.gettempdir())  # noqa: S603
        deadline = time.monotonic() + START_SECONDS
        while not _listens(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                message = f"Azurite did not start. Try it by hand: {' '.join(command)}"
                raise RuntimeError(message)
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Let it write what it holds to its folder, and end. May be called twice."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash would.

        The emulator writes its folder now and then: a kill loses what came after. Table Storage itself does not lose what it
        has acknowledged, so a test of that waits until something written last is in the folder (`holds`), or stops instead.
        """
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it answer nothing, connections standing, until `thaw`."""
        self._process_signal(signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """Let it go on."""
        self._process_signal(signal.SIGCONT)
        self._frozen = False

    def holds(self, text: str) -> bool:
        """Say whether a text is saved in the folder; so is then whatever was written before it."""
        return self._folder is not None and any(text in saved.read_text() for saved in self._folder.glob("*.json"))

    def clear(self) -> None:
        """Delete every table."""
        for table in json.loads(_ask("GET", f"{self.url}/Tables"))["value"]:
            _ask("DELETE", f"{self.url}/Tables('{table['TableName']}')")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _process_signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if self._frozen:
            process.send_signal(signal.SIGCONT)
            self._frozen = False
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def install() -> None:
    """Install the pinned version unless it is here; raise `RuntimeError` when that can't be done. Processes take turns."""
    node_package.install(HERE, "azurite", "it runs against Azurite, a Node program")


def _ask(method: str, url: str) -> bytes:
    """Send one signed request, without what the gateway's own adapter does."""
    date = formatdate(usegmt=True)
    text = f"{date}\n/{ACCOUNT}{urlsplit(url).path}"
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), "sha256")).decode()
    headers = {
        "x-ms-date": date,
        "Authorization": f"SharedKeyLite {ACCOUNT}:{signature}",
        "Accept": "application/json",
    }
    with urlopen(Request(url, method=method, headers=headers), timeout=10) as response:  # noqa: S310 - loopback
        return bytes(response.read())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
