"""Every check of infra/terraform that needs no Azure: format, schema, validate, test, security rules.

    make infra

`terraform` itself runs on a copy, so that nothing of it stays in the tree. Its providers come from the registry; where a folder
with tfcheck.py, tfstub.py and the providers' schema lies beside the repository (`SWITCHYARD_TERRAFORM_TOOLS`, default
../shared/terraform) they are stood in for by that schema, and nothing is downloaded. What can't be run here is said in one line
that begins with NOT CHECKED, and is no failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.infra.stand_ins import started

ROOT: Final = Path(__file__).resolve().parents[2]
TREE: Final = Path("infra/terraform")
COPIED: Final = ("infra", "catalog", "host.json", "local.settings.example.json", "requirements-redis.txt")
CHECKOV: Final = ROOT / ".venv-checkov" / "bin" / "checkov"
TOOLS: Final = Path(os.environ.get("SWITCHYARD_TERRAFORM_TOOLS") or ROOT.parent / "shared" / "terraform")
SCHEMA: Final = TOOLS / "azurerm-schema.json.gz"
NO_REGISTRY: Final = ("could not connect to", "Failed to query available provider packages", "no such host")

NO_STAND_INS: Final[Mapping[str, str]] = {}

INSTALL_TERRAFORM: Final = "install Terraform 1.11 or newer: https://developer.hashicorp.com/terraform/install"


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found: ``well``, or not, or (None) that it could not be run here, with why."""

    name: str
    well: bool | None
    text: str
    seconds: float = 0.0


def main() -> int:
    """Run everything, two at a time; print what was found; return the exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        checks = (lambda: _terraform(work), lambda: [_schema(), _security()])
        with ThreadPoolExecutor(len(checks)) as pool:
            found = [result for some in pool.map(_call, checks) for result in some]
    for result in found:
        _print(result)
    return 1 if any(result.well is False for result in found) else 0


def _call(check: Callable[[], list[Result]]) -> list[Result]:
    return check()


def _print(result: Result) -> None:
    if result.well is None:
        print(f"NOT CHECKED: {result.name}. {result.text}")
        return
    print(f"{'ok' if result.well else 'FAILED':<8}{result.name} ({result.seconds:.1f} s)")
    if not result.well:
        print("\n".join(line for line in result.text.splitlines() if not line.endswith("... pass")))


def _terraform(work: Path) -> list[Result]:
    """Format, init, validate and test, on a copy of the tree, each only if the one before went well."""
    terraform = shutil.which("terraform")
    if terraform is None:
        return [Result("terraform fmt, validate and test", None, f"To check them, {INSTALL_TERRAFORM}")]
    results = [_run("terraform fmt", [terraform, "fmt", "-check", "-recursive", "-diff", str(ROOT / TREE)])]
    tree = _copied(work)
    command = [terraform, f"-chdir={tree}"]
    providers = started(TOOLS / "tfstub.py", SCHEMA, tree, work) if SCHEMA.is_file() else nullcontext(NO_STAND_INS)
    with providers as leading_there:
        own = {"TF_DATA_DIR": str(work / "data"), "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
        environment = {**os.environ, **own, **leading_there}
        init = _run("terraform init", [*command, "init", "-backend=false", "-input=false", "-no-color"], environment)
        if not init.well and any(sign in init.text for sign in NO_REGISTRY):
            text = "Terraform's registry can't be reached from here, and it has the providers."
            return [*results, Result("terraform validate and test", None, text)]
        results.append(init)
        for action in ("validate", "test"):
            if results[-1].well:
                results.append(_run(f"terraform {action}", [*command, action, "-no-color"], environment))
        for example in sorted((tree / "examples").glob("*.tfvars")):
            if results[-1].well:
                told = ["test", "-no-color", "-filter=tests/examples.tftest.hcl", f"-var-file=examples/{example.name}"]
                results.append(_run(f"terraform test, {example.name}", [*command, *told], environment))
    return results


def _copied(work: Path) -> Path:
    """Copy what the configuration is made of, without anybody's state, plans or values."""
    left_out = shutil.ignore_patterns(
        ".terraform", ".terraform.lock.hcl", "*.tfstate*", "*.auto.tfvars", "terraform.tfvars", "*.tfplan"
    )
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, work / name, ignore=left_out)
        elif source.is_file():
            shutil.copy(source, work / name)
    return work / TREE


def _schema() -> Result:
    """Hold every resource, argument, block and reference against the providers' schema."""
    if not SCHEMA.is_file():
        text = (
            "`terraform validate` covers most of it; point SWITCHYARD_TERRAFORM_TOOLS to the folder with tfcheck.py to run it."
        )
        return Result("tfcheck", None, text)
    return _run("tfcheck", [sys.executable, str(TOOLS / "tfcheck.py"), str(SCHEMA), str(ROOT / TREE), "--strict"])


def _security() -> Result:
    """Hold the tree against checkov's rules for Azure; those that are skipped stand with their reasons in its settings."""
    if not CHECKOV.is_file():
        return Result("checkov", None, "`make infra` installs it.")
    settings = str(ROOT / TREE / ".checkov.yaml")
    return _run(
        "checkov", [str(CHECKOV), "--config-file", settings, "-d", str(ROOT / TREE)], {**os.environ, "LOG_LEVEL": "ERROR"}
    )


def _run(name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Result:
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL)
    return Result(name, done.returncode == 0, (done.stdout + done.stderr).strip(), time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
