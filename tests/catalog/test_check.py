"""The command that checks a catalog."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.catalog.check import check, main
from tests.catalog_samples import changed

WARNED = changed(("tasks: [conversation]", "tasks: [conversatoin]"))


def test_a_good_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is found, and that is said."""
    assert [] == check(str(path), {})
    assert 0 == main([str(path)], {})
    assert f"{path}: the catalog is well.\n" == capsys.readouterr().out


def test_warnings_do_not_fail(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are marked as such."""
    path.write_text(WARNED, encoding="utf-8")
    (warning,) = check(str(path), {})
    assert f"warning: {path}:17: models.large.tasks[0]: no rule and no request knows the task `conversatoin`" in warning
    assert "did you mean `conversation`?" in warning
    assert 0 == main([str(path)], {})
    assert f"{warning}\n" == capsys.readouterr().out


def test_problems_fail(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each on a line of its own, with its place."""
    path.write_text(changed(("weight: 3", "weight: -3"), ("fast: small", "fast: fast")), encoding="utf-8")
    found = check(str(path), {})
    assert [25, 39] == [int(line.removeprefix(str(path)).split(":")[1]) for line in found]
    assert 1 == main([str(path)], {})
    assert "".join(f"{line}\n" for line in found) == capsys.readouterr().out


def test_every_problem_of_one_deployment_is_found(path: Path) -> None:
    """Its form and what it refers to, in one go."""
    path.write_text(
        changed(
            ("- provider: azure\n        region: swedencentral\n        weight: 3", "- provider: nope\n        weight: -3")
        ),
        encoding="utf-8",
    )
    found = [line.partition(": ")[2] for line in check(str(path), {})]
    place = "models.large.deployments[0]"
    assert [
        f"{place}.provider: there is no provider `nope`; describe it under `providers:`",
        f"{place}.weight: must be 0 or more",
    ] == found


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Is a problem like any other."""
    (found,) = check(str(tmp_path / "none.yaml"), {})
    assert "can't be read: No such file or directory" in found
