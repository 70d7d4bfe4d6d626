"""What the store in one SQLite file must do beside the contract: files, other processes, kills and full disks."""

from __future__ import annotations

import asyncio
import math
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from shared.adapters.tables import open_tables
from shared.core.errors import ConfigurationError, StorageUnavailableError
from shared.ports import Action, Entity, EntityTable, Op, Value

ROOT = Path(__file__).resolve().parents[2]

VALUES: dict[str, Value] = {"text": "🔀", "whole": 2**63 - 1, "double": float("inf"), "yes": True, "bytes": b"\x00"}


async def rows(table: EntityTable) -> list[str]:
    """Return the keys of the partition."""
    return [entity.row async for entity in table.query("p")]


async def test_a_file_is_there_after_closing(tmp_path: Path) -> None:
    """A store opened again holds what was written, its ETags still good; nothing but the one file is left."""
    path = tmp_path / "state.db"
    first = open_tables(f"sqlite:{path}")
    etag = await first.table("contract").insert(Entity("p", "r", VALUES))
    await first.aclose()

    assert [file.name for file in tmp_path.iterdir()] == ["state.db"]  # noqa: ASYNC240 - a test may wait for a disk

    second = open_tables(f"sqlite:{path}")
    assert await second.table("contract").get("p", "r") == Entity("p", "r", VALUES, etag)
    assert await second.table("contract").replace(Entity("p", "r", {}, etag)) != etag
    await second.aclose()


async def test_the_sign_of_zero_is_kept() -> None:
    """A file keeps a double to the bit; the emulator does not, so the contract can't ask for it."""
    store = open_tables("memory:")
    await store.table("contract").insert(Entity("p", "r", {"x": -0.0}))

    found = await store.table("contract").get("p", "r")

    assert found is not None
    assert math.copysign(1, float(found.properties["x"])) == -1
    await store.aclose()


async def test_memory_is_private() -> None:
    """Two stores in memory share nothing."""
    first, second = open_tables("memory:"), open_tables("memory:")
    await first.table("contract").insert(Entity("p", "r"))

    assert await second.table("contract").get("p", "r") is None
    await asyncio.gather(first.aclose(), second.aclose())


WRITER = """
import asyncio, sys
from shared.adapters.tables import open_tables
from shared.ports import Entity

async def write(table, lane):
    n = 0
    while True:
        row = f"{lane}-{n:06}"
        await table.insert(Entity("p", row, {"n": n}))
        sys.stdout.write(row + "\\n")
        sys.stdout.flush()
        n += 1

async def main():
    table = open_tables(sys.argv[1]).table("contract")
    await asyncio.gather(*[write(table, lane) for lane in range(8)])

asyncio.run(main())
"""


async def test_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """A process killed in the middle of writing leaves every row it was told of, and a store that opens."""
    url = f"sqlite:{tmp_path / 'state.db'}"
    process = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True, cwd=ROOT)  # noqa: S603, ASYNC220
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(500)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    process.stdout.close()
    process.wait(10)

    store = open_tables(url)
    stored = await rows(store.table("contract"))
    await store.aclose()

    assert set(acknowledged) <= set(stored)
    assert len(acknowledged) >= 500


async def test_another_process_that_holds_the_file_is_waited_for(tmp_path: Path) -> None:
    """A write waits for another connection's transaction and then succeeds; a read does not wait at all."""
    path = tmp_path / "state.db"
    store = open_tables(f"sqlite:{path}")
    await store.table("contract").insert(Entity("p", "first"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    write = asyncio.ensure_future(store.table("contract").insert(Entity("p", "second")))
    assert await rows(store.table("contract")) == ["first"]
    assert not write.done()
    other.execute("ROLLBACK")
    await write

    assert await rows(store.table("contract")) == ["first", "second"]
    other.close()
    await store.aclose()


async def test_a_file_that_is_held_for_good_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the lock does not come in time the caller hears of it, and the store works again afterwards."""
    monkeypatch.setattr("shared.adapters.tables.worker.BUSY_SECONDS", 0.05)
    path = tmp_path / "state.db"
    store = open_tables(f"sqlite:{path}")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StorageUnavailableError, match="Another process"):
        await store.table("contract").insert(Entity("p", "r"))
    other.execute("ROLLBACK")
    other.close()
    await store.table("contract").insert(Entity("p", "r"))

    assert await rows(store.table("contract")) == ["r"]
    await store.aclose()


async def test_a_full_disk_is_unavailable_and_heals(tmp_path: Path) -> None:
    """A write that finds no room fails alone with its group, leaves nothing half done, and works once there is room."""
    store = open_tables(f"sqlite:{tmp_path / 'state.db'}")
    table = store.table("contract")
    await table.insert(Entity("p", "before"))
    await store._writer.do(lambda c: c.execute("PRAGMA max_page_count = 12").fetchone(), writes=False)  # type: ignore[attr-defined]

    filler: dict[str, Value] = {"x": "a" * 30_000}
    outcomes = await asyncio.gather(
        *[table.transact([Op(Action.INSERT, Entity("p", f"{n}{half}", filler)) for half in "ab"]) for n in range(4)],
        return_exceptions=True,
    )
    assert any(isinstance(outcome, StorageUnavailableError) for outcome in outcomes)
    assert "before" in await rows(table)

    await store._writer.do(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone(), writes=False)  # type: ignore[attr-defined]
    await table.insert(Entity("p", "after"))
    stored = await rows(table)
    for n, outcome in enumerate(outcomes):
        assert (f"{n}a" in stored, f"{n}b" in stored) == ((isinstance(outcome, list),) * 2)
    assert "after" in stored
    await store.aclose()


async def test_a_damaged_row_is_an_error_of_the_store(tmp_path: Path) -> None:
    """A row that somebody edited by hand is reported, not half read; the rows beside it can still be had."""
    path = tmp_path / "state.db"
    store = open_tables(f"sqlite:{path}")
    for row in ("a", "b"):
        await store.table("contract").insert(Entity("p", row, {"n": 1}))
    with sqlite3.connect(path) as other:
        other.execute("""UPDATE entities SET properties = '{"n":' WHERE "row" = 'a'""")
    other.close()

    with pytest.raises(StorageUnavailableError, match="damaged"):
        await store.table("contract").get("p", "a")
    assert await store.table("contract").get("p", "b") is not None
    await store.aclose()


@pytest.mark.parametrize("url", ["", "sqlite:", "sqlite", "redis://x", "memory", "https://account.table.core.windows.net"])
def test_a_store_nobody_knows_is_the_operators_mistake(url: str) -> None:
    """The message names the setting."""
    with pytest.raises(ConfigurationError, match="SWITCHYARD_STORAGE"):
        open_tables(url)


def test_a_path_that_can_not_be_opened_is_the_operators_mistake(tmp_path: Path) -> None:
    """A folder, a file in place of a folder and a file of another kind are refused at start."""
    (tmp_path / "text").write_text("This is not a database, but long enough to be looked at as one. " * 20)
    for path in (tmp_path, tmp_path / "text" / "state.db", tmp_path / "text"):
        with pytest.raises(ConfigurationError, match="SWITCHYARD_STORAGE"):
            open_tables(f"sqlite:{path}")
