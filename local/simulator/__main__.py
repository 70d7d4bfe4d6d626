"""The command: ``python -m local.simulator --port 9300``."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import orjson

from local.simulator.faults import ScriptError
from local.simulator.server import start_simulator


async def _serve(port: int, script: Path | None) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with await start_simulator(port) as simulator:
        if script is not None:
            simulator.script(orjson.loads(script.read_bytes()))  # noqa: ASYNC240 - nothing is served yet
        sys.stdout.write(f"simulator: {simulator.url}/{{profile}}/v1 · control: {simulator.url}/_sim/script, /_sim/log\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> int:
    """Run until interrupted; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m local.simulator", description="A model provider that obeys a script.")
    parser.add_argument("--port", type=int, default=9300, help="0 takes a free port")
    parser.add_argument("--script", type=Path, help="a JSON file, as POST /_sim/script takes it")
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve(arguments.port, arguments.script))
    except (ScriptError, OSError, orjson.JSONDecodeError) as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
