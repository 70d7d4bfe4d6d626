"""A changed file serves within a second; a broken one changes nothing and says what is wrong."""

from __future__ import annotations

import logging
import os
import zlib
from pathlib import Path

import pytest

from shared.adapters.tables import open_tables
from shared.catalog import CatalogSource
from shared.catalog.source import LOOK_EVERY
from shared.core.errors import ConfigurationError
from shared.ports import Tables
from tests.catalog_samples import ENVIRONMENT, GOOD, changed, save
from tests.fakes import FakeClock

HEAVIER = changed(("weight: 3", "weight: 4"))
BROKEN = changed(("weight: 3", "weight: -4"))


def weight(source: CatalogSource) -> int:
    """Return the number that the tests change."""
    return source.current.deployments["azure/large"].weight


def test_a_change_serves_after_the_next_look(source: CatalogSource, path: Path, clock: FakeClock) -> None:
    """And not before: between looks a request costs nothing."""
    first = source.current
    save(path, HEAVIER)
    clock.seconds += LOOK_EVERY * 0.9
    assert first is source.current
    clock.seconds += LOOK_EVERY * 0.2
    assert 4 == weight(source)
    assert LOOK_EVERY < 1


def test_without_a_change_the_snapshot_is_the_same_object(source: CatalogSource, clock: FakeClock) -> None:
    """Whatever was compiled for a registry stays valid."""
    first = source.current
    for _ in range(20):
        clock.seconds += 1
        assert first is source.current


def test_an_atomic_rename_is_seen(source: CatalogSource, path: Path, tmp_path: Path, clock: FakeClock) -> None:
    """Also long after the last change, with the size and time of the file before: the inode is another."""
    for _ in range(12):
        assert 3 == weight(source)
        clock.seconds += 1
    before = path.stat()
    new = tmp_path / "new.yaml"
    new.write_text(HEAVIER, encoding="utf-8")
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(path)
    clock.seconds += 1
    assert 4 == weight(source)


def test_a_second_write_within_the_clock_tick_is_seen(source: CatalogSource, path: Path, clock: FakeClock) -> None:
    """Same size, same time, same inode: after a change the content is compared for a while."""
    assert 3 == weight(source)
    before = path.stat()
    save(path, HEAVIER)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.seconds += 1
    assert 4 == weight(source)


def test_a_broken_file_leaves_the_old_snapshot_serving(source: CatalogSource, path: Path, clock: FakeClock) -> None:
    """`problems` says what is wrong until it is mended."""
    first = source.current
    assert () == source.problems
    save(path, BROKEN)
    clock.seconds += 1
    assert first is source.current
    assert [f"{path}:25: models.large.deployments[0].weight: must be 0 or more"] == list(source.problems)
    save(path, HEAVIER)
    clock.seconds += 1
    assert () == source.problems
    assert 4 == weight(source)


@pytest.mark.parametrize("spoil", ["delete", "directory", "not utf-8", "empty", "half"])
def test_whatever_happens_to_the_file_the_old_snapshot_serves(
    source: CatalogSource, path: Path, clock: FakeClock, spoil: str
) -> None:
    """Gone, replaced by a folder, of bytes, emptied, half written: each is said, and mended by mending the file."""
    first = source.current
    path.unlink()
    if spoil == "directory":
        path.mkdir()
    elif spoil != "delete":
        path.write_bytes({"not utf-8": b"models: \xff", "empty": b"", "half": GOOD.encode()[:700]}[spoil])
    clock.seconds += 1
    assert first is source.current
    assert source.problems[0].startswith(str(path))
    if spoil == "directory":
        path.rmdir()
    save(path, GOOD)
    clock.seconds += 1
    assert () == source.problems
    assert first.version == source.current.version


def test_the_environment_is_read_again_with_a_touch(
    source: CatalogSource, path: Path, clock: FakeClock, environment: dict[str, str]
) -> None:
    """A rotated credential serves without a restart, though the registry's version is the same."""
    first = source.current
    environment["VENDOR_KEY"] = "rotated"
    os.utime(path, ns=(1, 1))
    clock.seconds += 1
    secret = source.current.providers["vendor"].credential
    assert secret is not None
    assert ("rotated", first.version) == (secret.reveal(), source.current.version)


def test_one_log_line_for_each_change(
    source: CatalogSource, path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Not one for each look, and none with a secret."""
    with caplog.at_level(logging.INFO, logger="switchyard.catalog"):
        for text in (GOOD, HEAVIER, BROKEN, BROKEN + "\n", HEAVIER):
            save(path, text)
            for _ in range(12):
                clock.seconds += 1
                assert source.current
    assert [logging.INFO, logging.INFO, logging.ERROR, logging.INFO] == [record.levelno for record in caplog.records]
    assert "weight: must be 0 or more" in caplog.records[2].getMessage()
    assert "key-1" not in caplog.text
    assert source.current.version == getattr(caplog.records[1], "catalog_version", None)


def test_that_a_broken_file_is_as_it_was_is_logged_once(
    source: CatalogSource, path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The last line is never a refusal that is over; a change that serves is one line, as ever."""
    version = source.current.version
    with caplog.at_level(logging.INFO, logger="switchyard.catalog"):
        for text in (BROKEN, GOOD, GOOD + "\n", BROKEN, None, GOOD + "\n"):
            save(path, text) if text is not None else path.unlink()
            for _ in range(3):
                clock.seconds += 1
                assert source.current
    lines = [record.getMessage() for record in caplog.records]
    second = source.current.version
    again = [f"catalog is well again, {one} serves on" for one in (version, second)]
    assert [True, False, False, True, True, False] == [line.startswith("catalog refused") for line in lines], lines
    assert (again[0], f"catalog {second} serves (2 models)", again[1]) == (lines[1], lines[2], lines[5])


async def test_a_start_with_a_broken_file_is_refused(path: Path, tables: Tables, clock: FakeClock) -> None:
    """There is nothing to serve with; a mended file then starts."""
    save(path, BROKEN)
    source = CatalogSource(str(path), environment=ENVIRONMENT, tables=tables, clock=clock)
    for _ in range(2):
        with pytest.raises(ConfigurationError) as refusal:
            await source.refresh()
        assert "weight: must be 0 or more" in refusal.value.problems[0]
        clock.seconds += 3
    save(path, GOOD)
    clock.seconds += 3
    await source.refresh()
    assert 3 == weight(source)


def test_a_start_without_a_file_says_so(tmp_path: Path, tables: Tables, clock: FakeClock) -> None:
    """The message names the file and the setting."""
    missing = str(tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError) as refusal:
        _ = CatalogSource(missing, environment={}, tables=tables, clock=clock).current
    assert missing in refusal.value.message
    assert "SWITCHYARD_CATALOG" in refusal.value.message


async def test_an_old_registry_is_made_again_from_the_store(
    source: CatalogSource, path: Path, clock: FakeClock, environment: dict[str, str], tables: Tables
) -> None:
    """Also by a process that never saw that catalog, in another environment: what was available then is available in it."""
    save(path, changed(("weight: 3", "weight: ${WEIGHT:-3}")))
    environment |= {"WEIGHT": "5", "VENDOR_KEY": ""}
    await source.refresh()
    old = source.current
    environment |= {"WEIGHT": "6", "VENDOR_KEY": "set-now"}
    del environment["AZURE_KEY"]
    save(path, HEAVIER)
    clock.seconds += 3
    await source.refresh()
    assert 4 == weight(source)
    assert old is await source.at_version(old.version)
    other = CatalogSource(str(path), environment=environment, tables=tables, clock=clock)
    again = await other.at_version(old.version)
    assert again is not None
    assert (old.version, 5) == (again.version, again.deployments["azure/large"].weight)
    assert {name: one.unavailable for name, one in old.deployments.items()} == {
        name: one.unavailable for name, one in again.deployments.items()
    }


async def test_no_credential_is_stored_with_a_catalog(source: CatalogSource, tables: Tables) -> None:
    """The store holds the text with its references, not their values."""
    await source.refresh()
    row = await tables.table("catalogs").get("catalog", source.current.version)
    assert row is not None
    content = zlib.decompress(b"".join(v for k, v in row.properties.items() if k != "chunks" and isinstance(v, bytes)))
    assert b"VENDOR_KEY" in content
    assert b"key-1" not in content


async def test_an_unknown_version_is_none(source: CatalogSource) -> None:
    """So is one that is no version at all."""
    await source.refresh()
    assert None is await source.at_version("0" * 20)
    assert None is await source.at_version("../../etc")


async def test_a_store_that_does_not_answer_stops_nothing(
    path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The file serves, and it is said once."""
    tables = open_tables("memory:")
    await tables.aclose()
    source = CatalogSource(str(path), environment=ENVIRONMENT, tables=tables, clock=clock)
    for _ in range(3):
        await source.refresh()
        clock.seconds += 3
    assert 3 == weight(source)
    assert 1 == sum("the store does not answer" in record.getMessage() for record in caplog.records)
