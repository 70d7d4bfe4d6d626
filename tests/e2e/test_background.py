"""Background work on one machine: it runs, it ends with its process, and the next process says so."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from local.simulator import start_simulator
from tests.e2e.harness import Host, hosting

CHAT = "/v1/chat/completions"
HELLO = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Hello"}]}
PATIENCE = 90


async def begun(host: Host) -> str:
    """Send a request that nobody waits for; return where its answer will be."""
    headers = {"authorization": f"Bearer {host.key}", "prefer": "respond-async"}
    async with host.session.post(host.url + CHAT, json=HELLO, headers=headers) as response:
        assert 202 == response.status, await response.text()
        return response.headers["location"]


async def ended(host: Host, path: str) -> tuple[int, Any]:
    """Return what a chain came to."""
    async with asyncio.timeout(PATIENCE):
        while (found := await host.call("GET", path))[0] == 202:
            await asyncio.sleep(0.1)
    return found


async def test_work_in_the_background_is_answered_and_a_stop_is_quiet(tmp_path: Path) -> None:
    """The engine starts with the first piece of work, says nothing of itself, and stops with the process."""
    async with hosting(tmp_path) as host:
        status, answer = await ended(host, await begun(host))
        code = await host.stop()
        assert host.process.stderr is not None
        said = (await host.process.stderr.read()).decode().splitlines()

    assert (200, "chat.completion") == (status, answer["object"])
    assert "this process only" in host.lines
    assert (0, []) == (code, [line for line in said if "switchyard.catalog" not in line])


async def test_a_stop_gives_what_runs_its_time_and_the_rest_is_lost(tmp_path: Path) -> None:
    """SIGTERM while an attempt hangs: the process ends in time, the next one says that the work is lost."""
    async with await start_simulator() as simulator:
        simulator.script({"faults": ["hang_before_headers"]})
        async with hosting(tmp_path, SWITCHYARD_UPSTREAM=simulator.url) as host:
            path = await begun(host)
            async with asyncio.timeout(PATIENCE):
                while not simulator.log():
                    await asyncio.sleep(0.05)
            code = await host.stop()
        async with hosting(tmp_path, SWITCHYARD_UPSTREAM=simulator.url) as host:
            status, answer = await ended(host, path)

    assert 0 == code
    assert (503, "chain_lost") == (status, answer["error"]["code"])


async def test_a_kill_loses_what_waited(tmp_path: Path) -> None:
    """SIGKILL while every provider asks for an hour's patience: the next process ends what will never go on."""
    async with await start_simulator() as simulator:
        simulator.script({"faults": [{"kind": "rate_limited_s", "retry_after_s": 3600, "times": 1000}]})
        async with hosting(tmp_path, SWITCHYARD_UPSTREAM=simulator.url) as host:
            path = await begun(host)
            async with asyncio.timeout(PATIENCE):
                while "waiting_until" not in ((await host.call("GET", path))[1]["detail"] or {}):
                    await asyncio.sleep(0.05)
            await host.stop(signal.SIGKILL)
        async with hosting(tmp_path, SWITCHYARD_UPSTREAM=simulator.url) as host:
            status, answer = await ended(host, path)

    assert (503, "chain_lost") == (status, answer["error"]["code"])
