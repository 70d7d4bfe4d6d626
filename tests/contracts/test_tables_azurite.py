"""Table Storage's adapter against an emulator that dies, freezes, and behind a wire that loses answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shared.adapters.clock import SystemClock
from shared.adapters.tables import open_tables
from shared.adapters.tables.azure_account import HEAD
from shared.adapters.tables.retries import WITHIN
from shared.core.errors import StorageUnavailableError
from shared.ports import Action, Entity, EntityExistsError, EntityTable, HttpTransport, Op
from tests.azurite.process import ACCOUNT, Azurite

SLACK = 20.0
"""Seconds that a busy machine may take besides."""
Ask = Callable[[EntityTable], Awaitable[object]]
READ: Ask = lambda table: table.get("p", "r")  # noqa: E731
INSERT: Ask = lambda table: table.insert(Entity("p", "r", {"tok": "mine"}))  # noqa: E731
TRANSACT: Ask = lambda table: table.transact([Op(Action.INSERT, Entity("p", row)) for row in "rs"])  # noqa: E731


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Azurite]:
    """Return an emulator that a test may do anything to, with a folder to survive in."""
    with Azurite(tmp_path) as running:
        yield running


def opened(setting: str, transport: HttpTransport) -> EntityTable:
    """Return a table."""
    return open_tables(setting, transport=transport, clock=SystemClock()).table("contract")


async def test_an_emulator_that_was_killed_is_found_again(own: Azurite, transport: HttpTransport) -> None:
    """While it is away callers hear so within the bound; once it is back the same store goes on, with what it had saved."""
    table = opened(own.setting, transport)
    etag = await table.insert(Entity("p", "kept", {"n": 1}))
    await asyncio.gather(*[table.get("p", "kept") for _ in range(5)])  # five connections that are about to be dead
    own.stop()

    began = time.monotonic()
    outcomes = await asyncio.gather(READ(table), INSERT(table), TRANSACT(table), return_exceptions=True)
    assert all(isinstance(outcome, StorageUnavailableError) for outcome in outcomes)
    assert time.monotonic() - began < WITHIN + HEAD + SLACK

    await asyncio.to_thread(own.start)
    assert await table.get("p", "kept") == Entity("p", "kept", {"n": 1}, etag)
    await table.replace(Entity("p", "kept", {"n": 2}, etag))
    own.kill()
    await asyncio.to_thread(own.start)
    assert await table.get("p", "kept") is not None
    await table.insert(Entity("p", "after"))


async def test_an_emulator_that_comes_back_in_time_is_not_missed(own: Azurite, transport: HttpTransport) -> None:
    """A write that found nobody listening is sent again and lands, once: nothing had been sent before."""
    table = opened(own.setting, transport)
    await table.insert(Entity("p", "first"))
    own.stop()

    write = asyncio.ensure_future(INSERT(table))
    await asyncio.to_thread(own.start)

    with contextlib.suppress(StorageUnavailableError):  # on a busy machine the start alone takes longer than the bound
        await write
        assert await table.get("p", "r") is not None


async def test_a_frozen_emulator_is_given_up(own: Azurite, transport: HttpTransport) -> None:
    """What gets no answer is an error within the bound, and leaves the store usable; the write may yet have happened."""
    table = opened(own.setting, transport)
    await table.insert(Entity("p", "first"))
    own.freeze()

    began = time.monotonic()
    outcomes = await asyncio.gather(READ(table), INSERT(table), return_exceptions=True)
    took = time.monotonic() - began
    own.thaw()

    assert [type(outcome) for outcome in outcomes] == [StorageUnavailableError] * 2
    assert HEAD <= took < WITHIN + HEAD + SLACK
    assert await table.get("p", "first") is not None
    found = await table.get("p", "r")
    assert found is None or found.properties == {"tok": "mine"}


# ---- answers that get lost ---------------------------------------------------------------------------------------------


class Wire:
    """A proxy before the emulator. While ``lose`` is set it passes requests on and closes instead of passing answers back."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self.lose = False
        self.writes = 0
        self.setting = ""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        upstream, request = await asyncio.open_connection(*self._target)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(65536):
                self.writes += data.startswith((b"POST", b"PUT", b"DELETE"))
                request.write(data)
                answer = await upstream.read(65536)
                if self.lose:
                    break
                writer.write(answer)
        for each in (request, writer):
            each.close()
            with contextlib.suppress(OSError):
                await each.wait_closed()


@pytest.fixture
async def wire(azurite: Azurite) -> AsyncIterator[Wire]:
    """Return the proxy before the shared emulator, emptied."""
    azurite.clear()
    proxy = Wire(azurite.url)
    server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0)
    proxy.setting = f"azurite:http://127.0.0.1:{server.sockets[0].getsockname()[1]}/{ACCOUNT}"
    yield proxy
    server.close()


@pytest.mark.parametrize("write", [INSERT, TRANSACT], ids=["insert", "transaction"])
async def test_a_lost_answer_is_told_by_the_row(wire: Wire, transport: HttpTransport, write: Ask) -> None:
    """The adapter says it does not know, having sent once; the row tells; only the caller's own second send finds it taken."""
    table = opened(wire.setting, transport)
    await table.insert(Entity("p", "first"))
    wire.lose, wire.writes = True, 0

    with pytest.raises(StorageUnavailableError, match="lost"):
        await write(table)

    assert wire.writes == 1
    wire.lose = False
    assert await table.get("p", "r") is not None
    with pytest.raises(EntityExistsError):
        await write(table)


async def test_a_read_outlives_a_lost_answer(wire: Wire, transport: HttpTransport) -> None:
    """Reads are sent again, over a new connection."""
    table = opened(wire.setting, transport)
    await table.insert(Entity("p", "r", {"n": 1}))
    wire.lose = True

    read = asyncio.ensure_future(table.get("p", "r"))
    await asyncio.sleep(0.02)
    wire.lose = False

    assert await read is not None


@pytest.mark.parametrize("beside", [0, 1])
@pytest.mark.parametrize("letter", ["ü", "漢", "🔀"])
async def test_a_long_text_comes_back_whole(azurite: Azurite, transport: HttpTransport, letter: str, beside: int) -> None:
    """Wherever the pieces end in which the emulator reads it: alone and in a transaction."""
    azurite.clear()
    store = open_tables(azurite.setting, transport=transport, clock=SystemClock())
    table = store.table("texts")
    units = len(letter.encode("utf-16-le")) // 2
    for shift in range(4):
        long = {f"t{number}": "x" * shift + letter * (32_000 // units) for number in range(12)}
        other = [Op(Action.INSERT, Entity("p", f"{shift}b"))][:beside]
        await table.transact([Op(Action.INSERT, Entity("p", f"{shift}a", {**long, "at": 1.5, "of": 1 << 60})), *other])
        found = await table.get("p", f"{shift}a")
        assert found is not None
        assert {**long, "at": 1.5, "of": 1 << 60} == found.properties
    await store.aclose()
