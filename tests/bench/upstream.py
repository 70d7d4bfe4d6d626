"""The mock upstream of the benchmarks: compiled when a run begins, stopped when it ends."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.process import Process, free_port

SOURCE = Path(__file__).with_name("upstream.c")


class Upstream:
    """A running mock upstream. ``url`` is what a provider's base URL would be."""

    def __init__(self, port: int) -> None:
        self._root = f"http://127.0.0.1:{port}"
        self.url = f"{self._root}/v1"

    def configure(self, **keys: float) -> None:
        """Set latency, size, chunks and gap; what is not named goes back to its default."""
        self._get("/_set?" + "&".join(f"{key}={value}" for key, value in keys.items()))

    def zero(self) -> None:
        """Zero the counters."""
        self._get("/_zero")

    def stats(self) -> dict[str, int]:
        """Return the counters: requests, streams, aborted, inflight, peak."""
        return {key: int(value) for key, value in self._get("/_stats").items()}

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self._root + path, timeout=5) as answer:  # noqa: S310  # our own loopback
            found: dict[str, Any] = json.load(answer)
        return found


@contextlib.contextmanager
def upstream(cores: str = "") -> Iterator[Upstream]:
    """Compile and run the mock upstream on a free port."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        message = "The mock upstream is written in C: install a compiler (cc, gcc or clang)."
        raise SystemExit(message)
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as folder:
        binary = Path(folder) / "upstream"
        subprocess.run([compiler, "-O2", "-o", str(binary), str(SOURCE)], check=True, timeout=60)
        port = free_port()
        process = Process("upstream", [str(binary), str(port)], folder=Path(folder), cores=cores)
        try:
            process.until_listening(port)
            yield Upstream(port)
        finally:
            process.stop()
