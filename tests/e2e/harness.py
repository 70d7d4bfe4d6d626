"""Starts ``python -m local.host`` as a user would, in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30
SETTINGS = ("SWITCHYARD_", "AZURE_", "OPENAI_", "ANTHROPIC_", "HF_", "GITHUB_", "COHERE_", "OLLAMA_", "VLLM_", "LLAMACPP_")
"""What the machine's own environment must not decide."""


@dataclass
class Host:
    """A running host."""

    url: str
    lines: str
    folder: Path
    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession

    @property
    def key(self) -> str:
        """The administrator's key."""
        return (self.folder / ".switchyard" / "admin-key").read_text().strip()

    async def call(self, method: str, path: str, json: Any = None) -> tuple[int, Any]:
        """Return status and JSON."""
        headers = {"authorization": f"Bearer {self.key}"}
        async with self.session.request(method, self.url + path, json=json, headers=headers) as response:
            return response.status, await response.json()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 30)


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of a user who has set nothing but ``settings``."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    shipped = {"SWITCHYARD_CATALOG": str(ROOT / "catalog" / "models.yaml")}
    return own | {"PYTHONPATH": str(ROOT), "PORT": "0"} | shipped | settings


async def start(folder: Path, settings: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Start the host in ``folder``."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "local.host",
        cwd=folder,
        env=environment(**settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@contextlib.asynccontextmanager
async def hosting(folder: Path, **settings: str) -> AsyncIterator[Host]:
    """Run the host until the block is left."""
    process = await start(folder, settings)
    assert process.stdout is not None
    lines = ""
    try:
        async with asyncio.timeout(START_SECONDS):
            while "curl" not in lines and (line := await process.stdout.readline()):
                lines += line.decode()
            lines += (await process.stdout.readline()).decode()
        found = re.search(r"http://[\d.]+:\d+", lines)
        assert found, (lines, (await process.communicate())[1])
        async with aiohttp.ClientSession() as session:
            yield Host(found[0], lines, folder, process, session)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
