"""The emulator as a process: it says what it needs, keeps its folder, and goes when it is told to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.azurite import process
from tests.azurite.process import Azurite
from tests.node_package import installed, pinned


def test_without_node_the_tests_fail_and_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is skipped: what was not tried is not known to work."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(RuntimeError, match=r"This needs node.*Install Node\.js"):
        Azurite().start()


def test_the_installed_version_is_the_pinned_one() -> None:
    """What runs is what package.json says."""
    process.install()

    assert installed(process.HERE, "azurite") == pinned(process.HERE, "azurite")


def test_it_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """A stopped, killed or frozen emulator leaves no process behind, and none runs twice."""
    emulator = Azurite(tmp_path)
    for end in (emulator.stop, emulator.kill):
        emulator.start()
        pid = emulator.pid
        emulator.freeze()
        end()
        end()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="not running"):
        assert emulator.pid
