"""Publishing, with stand-ins for the Azure CLI and Terraform, and a loopback server for the endpoint."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy.__main__ import main
from deploy.target import OUTPUTS

ROOT = Path(__file__).resolve().parents[2]

# What `az` was asked, a line for each call; it refuses what `refused` names, tells the app which package it got, and then does
# what `afterwards` says.
AZ = """#!/bin/sh
cd "$(dirname "$0")"
echo $$ > running
printf '%s\\t' "$@" >> asked
echo >> asked
for part in "$@"; do
  if [ -f refused ] && [ "$part" = "$(cat refused)" ]; then echo "Please run 'az login' to setup account." >&2; exit 1; fi
  if [ "$before" = --src ]; then printf '%s' "$(basename "$part" .zip)" > served; fi
  before=$part
done
if [ "$1" = functionapp ] && [ -f afterwards ]; then . ./afterwards; fi
"""
TERRAFORM = """#!/bin/sh
cat "$(dirname "$0")/outputs"
"""


@dataclass(slots=True)
class Azure:
    """The stand-ins, and a function app that serves the package it was sent."""

    home: Path
    endpoint: str
    root: Path
    starting: list[int] = field(default_factory=list)
    """Statuses it answers before it is up; 0 is no HTTP."""

    def calls(self) -> list[list[str]]:
        """Return what the Azure CLI was asked."""
        log = self.home / "asked"
        return [line.rstrip("\t").split("\t") for line in log.read_text().splitlines()] if log.exists() else []

    def run(self, *arguments: str) -> int:
        """Run the tool."""
        return main(["--root", str(self.root), *arguments])

    def change(self, text: str) -> None:
        """Change the code."""
        (self.root / "shared" / "one.py").write_text(text)


def _tool(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """Start the app; put the stand-ins first on PATH."""
    home, root = tmp_path / "bin", tmp_path / "tree"
    home.mkdir()
    (root / "shared").mkdir(parents=True)
    (root / "infra" / "terraform").mkdir(parents=True)
    for name, text in {".funcignore": "infra\n.*\n", "function_app.py": "", "host.json": "{}", "requirements.txt": ""}.items():
        (root / name).write_text(text)

    class App(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served = home / "served"
            status = found.starting.pop(0) if found.starting else 200 if served.exists() else 404
            if status == 0:
                self.wfile.write(b"nonsense\r\n")
                return
            body = json.dumps({"status": "alive", "build": served.read_text()} if status == 200 else {}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), App) as server:
        found = Azure(home, f"http://127.0.0.1:{server.server_address[1]}", root)
        found.change("first")
        values = {"subscription_id": "sub", "resource_group_name": "rg", "function_app_name": "app", "extra_requirements": []}
        outputs = {name: {"value": values.get(name, found.endpoint)} for name in OUTPUTS}
        (home / "outputs").write_text(json.dumps(outputs))
        _tool(home / "az", AZ)
        _tool(home / "terraform", TERRAFORM)
        monkeypatch.setenv("PATH", str(home), prepend=":")
        monkeypatch.setattr("deploy.health._PAUSE", 0.01)
        monkeypatch.setattr("deploy.publish._PAUSE", 600)  # the stand-in ends by itself
        monkeypatch.setattr("deploy.publish._ASK_AGAIN", 0.01)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def test_publishing_sends_the_package_and_waits_until_it_serves(azure: Azure, capsys: pytest.CaptureFixture[str]) -> None:
    """Where Terraform says, built remotely, and well only when the endpoint answers from that very package."""
    azure.starting = [404, 503, 0, 404]

    assert 0 == azure.run("publish")
    said = capsys.readouterr().out
    build = (azure.home / "served").read_text()
    sent = azure.calls()[-1]

    assert ["functionapp", "deployment", "source", "config-zip", "--build-remote", "true"] == sent[:6]
    assert {"--subscription": "sub", "--resource-group": "rg", "--name": "app"}.items() <= dict(
        zip(sent[6::2], sent[7::2], strict=False)
    ).items()
    assert "answers 503" in said
    assert "something that is not ours" in said
    assert f"{build} serves at {azure.endpoint}" in said


def test_going_back_publishes_the_package_before(azure: Azure, capsys: pytest.CaptureFixture[str]) -> None:
    """The command is printed after each publication, and `rollback` does the same."""
    assert 0 == azure.run("publish")
    first = (azure.home / "served").read_text()
    assert "no earlier package" in capsys.readouterr().out
    azure.change("second")
    assert 0 == azure.run("publish")
    assert first != (azure.home / "served").read_text()
    assert (
        f"To go back: .venv/bin/python -m deploy publish --package .switchyard/packages/{first}.zip" in capsys.readouterr().out
    )

    assert 0 == azure.run("rollback")
    assert first == (azure.home / "served").read_text()


def test_only_the_last_packages_are_kept(azure: Azure) -> None:
    """Those that served among them: making packages must not push out the one to go back to."""
    assert 0 == azure.run("publish")
    first = (azure.home / "served").read_text()
    for number in range(8):
        azure.change(str(number))
        assert 0 == azure.run("package")

    kept = {path.stem for path in (azure.root / ".switchyard" / "packages").glob("*.zip")}
    assert first in kept
    assert len(kept) == 6


def test_a_package_that_does_not_come_up_says_how_to_go_back(azure: Azure, capsys: pytest.CaptureFixture[str]) -> None:
    """The command is told, and `rollback` does it: the one to go back to is not the one before the last that served."""
    assert 0 == azure.run("publish")
    first = (azure.home / "served").read_text()
    azure.change("second")
    azure.starting = [500] * 100_000

    assert 1 == azure.run("publish", "--patience", "0.2")
    said = capsys.readouterr().err
    assert "is not well after" in said
    assert "answers 500" in said
    assert f"packages/{first}.zip" in said

    azure.starting = []
    assert first != (azure.home / "served").read_text()
    assert 0 == azure.run("rollback")
    assert first == (azure.home / "served").read_text()


def test_failed_attempts_do_not_push_out_what_served(azure: Azure) -> None:
    """However many there were, and on however many apps, the way back leads to it."""
    assert 0 == azure.run("publish")
    first = (azure.home / "served").read_text()
    azure.starting = [500] * 100_000
    for number in range(8):
        azure.change(str(number))
        assert 1 == azure.run("publish", "--patience", "0")

    azure.starting = []
    assert 0 == azure.run("rollback")
    assert first == (azure.home / "served").read_text()


def test_what_the_azure_cli_thinks_of_the_app_does_not_count(
    azure: Azure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It looks for half a minute, at an address that may be closed; then it fails, although the app has it, or never ends."""
    monkeypatch.setattr("deploy.publish._PAUSE", 0.01)
    (azure.home / "afterwards").write_text("sleep 600\n")
    assert 0 == azure.run("publish")
    assert not Path("/proc", (azure.home / "running").read_text().strip()).exists()

    azure.starting = [503] * 100_000
    for says, told in (
        ("Deployment was successful but the app appears to be unhealthy.", "is not well after"),
        ("Status Code: 403, BlobUploadFailedException", "did not take the package"),
    ):
        (azure.home / "afterwards").write_text(f"echo '{says}' >&2; exit 1\n")
        assert 1 == azure.run("publish", "--patience", "0")
        printed = capsys.readouterr()
        assert says in printed.out + printed.err
        assert told in printed.err


def test_a_first_deployment_waits_until_the_app_may_write_to_its_storage(
    azure: Azure, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its role takes minutes to spread, and until then nothing is taken; what else is refused is not tried again."""
    early = "Status Code: 400, Details: InaccessibleStorageException: BlobUploadFailedException: 403"
    refusing = AZ.replace(
        "for part",
        f'if [ "$1" = functionapp ] && ! [ -f twice ]; then\n'
        f'  mv once twice || touch once\n  echo "{early}" >&2\n  exit 1\nfi\nfor part',
        1,
    )
    _tool(azure.home / "az", refusing)
    assert 0 == azure.run("publish")
    sent = [call for call in azure.calls() if call[0] == "functionapp"]
    assert 3 == len(sent)
    assert sent[0] == sent[2]
    assert 2 == capsys.readouterr().out.count("may not write to its storage yet")

    azure.change("second")
    _tool(azure.home / "az", AZ.replace("for part", 'if [ "$1" = functionapp ]; then exit 1; fi\nfor part', 1))
    assert 1 == azure.run("publish")
    assert 4 == len([call for call in azure.calls() if call[0] == "functionapp"])


def test_one_that_was_stopped_in_the_middle_can_be_taken_back(azure: Azure) -> None:
    """Ctrl-C says what is not known, and `rollback` leads to what served before."""
    assert 0 == azure.run("publish")
    first = (azure.home / "served").read_text()
    azure.change("second")
    azure.starting = [500] * 100_000
    (azure.home / "afterwards").write_text("touch waiting; sleep 600\n")

    command = [sys.executable, "-m", "deploy", "--root", str(azure.root), "publish"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job hands on that it is ignored
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        signal.signal(signal.SIGINT, before)
        try:
            deadline = time.monotonic() + 120
            while not (azure.home / "waiting").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=120)
        finally:
            running.kill()

    assert 1 == running.returncode
    assert "Stopped. Azure may go on" in said
    assert f"packages/{first}.zip" in said
    azure.starting = []
    (azure.home / "afterwards").unlink()
    assert first != (azure.home / "served").read_text()
    assert 0 == azure.run("rollback")
    assert first == (azure.home / "served").read_text()


def test_a_file_that_is_no_package_is_not_sent(azure: Azure, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as GitHub's artifact, which has the package in it; a package is known by what it holds, not by its name."""
    assert 0 == azure.run("publish")
    build = (azure.home / "served").read_text()
    package = azure.root / ".switchyard" / "packages" / f"{build}.zip"
    sent = len(azure.calls())
    artifact = azure.root / "package.zip"
    with zipfile.ZipFile(artifact, "w") as outer:
        outer.write(package, package.name)

    for archive, why in (
        (artifact, "unpack that"),
        (azure.root / "host.json", "no package"),
        (azure.root / "none", "There is no"),
    ):
        assert 1 == azure.run("publish", "--package", str(archive))
        assert why in capsys.readouterr().err
    assert sent == len(azure.calls())

    azure.starting = [503]
    renamed = package.rename(azure.root / "renamed.zip")
    _tool(azure.home / "az", "#!/bin/sh\n")
    assert 0 == azure.run("publish", "--package", str(renamed))
    assert f"{build} serves at" in capsys.readouterr().out
    assert package.is_file(), "and it is kept here, to go back to"


def test_the_old_package_answering_is_not_the_new_one_serving(azure: Azure, capsys: pytest.CaptureFixture[str]) -> None:
    """An app that keeps its old code, although the deployment said it went well, is found out."""
    assert 0 == azure.run("publish")
    first = (azure.home / "served").read_text()
    azure.change("second")
    _tool(azure.home / "az", "#!/bin/sh\n")

    assert 1 == azure.run("publish", "--patience", "0.2")
    assert f"package {first} still answers" in capsys.readouterr().err


def test_what_is_missing_is_said(azure: Azure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """No login, nothing applied, no tool: each with what to do, before anything is sent."""
    (azure.home / "refused").write_text("get-access-token")
    assert 1 == azure.run("publish")
    assert "`az login` first" in capsys.readouterr().err
    assert [["account", "get-access-token", "--subscription", "sub", "--output", "none"]] == azure.calls()

    for outputs, why in (("{}", "has no output subscription_id, resource_group_name"), ("[command]/bin/terraform", "no JSON")):
        (azure.home / "outputs").write_text(outputs)
        assert 1 == azure.run("publish")
        assert why in capsys.readouterr().err

    (azure.root / ".switchyard" / "packages" / "published.json").write_text("[{")
    assert 1 == azure.run("package")
    assert "published.json can't be read: delete it" in capsys.readouterr().err

    monkeypatch.setenv("PATH", str(azure.root))
    assert 1 == azure.run("health")
    assert "`terraform` is not installed" in capsys.readouterr().err


def test_the_workflow_connects_terraform_to_its_state(azure: Azure) -> None:
    """The backend is written beside the configuration, variables as they are given; what is missing or fails is said."""
    script = azure.root / "deploy" / "connect.sh"
    script.parent.mkdir()
    shutil.copy(Path(__file__).resolve().parents[2] / "deploy" / "connect.sh", script)
    _tool(azure.home / "terraform", '#!/bin/sh\necho "$@" > "$(dirname "$0")/asked"\n')
    given = {"TFSTATE_RESOURCE_GROUP": "rg", "TFSTATE_STORAGE_ACCOUNT": "st", "TFVARS": 'environment = "$(touch oops)"'}

    done = subprocess.run([script], env={**os.environ, **given}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "TFSTATE_CONTAINER" in done.stderr

    subprocess.run([script, "-force-copy"], env={**os.environ, **given, "TFSTATE_CONTAINER": "tfstate"}, check=True)
    folder = azure.root / "infra" / "terraform"
    assert 'backend "azurerm" {}' in (folder / "backend_override.tf").read_text()
    assert 'environment = "$(touch oops)"\n' == (folder / "environment.auto.tfvars").read_text()
    asked = (azure.home / "asked").read_text()
    assert "-backend-config=container_name=tfstate -backend-config=key=switchyard.tfstate" in asked
    assert "use_azuread_auth=true -force-copy" in asked

    given.pop("TFVARS")
    _tool(azure.home / "terraform", "#!/bin/sh\nexit 1\n")
    environment = {**os.environ, **given, "TFSTATE_CONTAINER": "tfstate"}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert 1 == done.returncode
    assert "Not connected" in done.stderr
    assert "oops" in (folder / "environment.auto.tfvars").read_text(), "what is not given stays as it was"
