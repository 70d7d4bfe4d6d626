"""A provider that writes down what it truly bills, at the moment it answers; whether the caller still lives does not matter.

    python -m tests.bench.money.provider PORT LOG SECONDS

A line of JSON asks {id, attempt, bound}; a line of JSON answers {billed}, or {void: true}, or the connection is cut and the
caller does not know. Of 100 calls 8 are void, 6 are cut (half of these are billed), the others cost a fifth of their bound to
all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
from functools import partial

VOID = 0.08
CUT = 0.06


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, log: int, seconds: float) -> None:
    """Answer one call."""
    with contextlib.suppress(ConnectionError, ValueError):
        call = json.loads(await reader.readline())
        await asyncio.sleep(seconds * random.uniform(0.5, 1.5))
        chance = random.random()
        billed = int(call["bound"] * random.uniform(0.2, 1.0))
        if chance < VOID or (chance < VOID + CUT and random.random() < 0.5):
            billed = 0
        if billed:
            line = {"id": call["id"], "attempt": call["attempt"], "billed": billed}
            os.write(log, json.dumps(line).encode() + b"\n")
        if chance < VOID:
            writer.write(b'{"void":true}\n')
        elif chance >= VOID + CUT:
            writer.write(b'{"billed":%d}\n' % billed)
        await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def main() -> None:
    """Serve until told to end."""
    port, path, seconds = sys.argv[1:]
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    server = await asyncio.start_server(partial(answer, log=log, seconds=float(seconds)), "127.0.0.1", int(port))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
