"""The README's examples work as printed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.catalog.check import check

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PATIENCE = 60.0


@dataclass(frozen=True)
class Running:
    """A host with its own folder: where it listens, and where its state lies."""

    port: int
    folder: Path

    def adapted(self, example: str) -> str:
        """Return an example with this host's port."""
        return example.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serve as `make run` does, from an empty folder, with nothing of this machine's credentials."""
    folder = tmp_path_factory.mktemp("readme")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PORT": str(port),
        "SWITCHYARD_CATALOG": str(ROOT / "catalog" / "models.yaml"),
    }
    process = subprocess.Popen([sys.executable, "-m", "local.host"], cwd=folder, env=environment)
    try:
        _wait_until_live(port, process)
        yield Running(port, folder)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def _wait_until_live(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, "the host ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/health/live", timeout=2):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    pytest.fail("the host did not come up")


def example(name: str) -> str:
    """Return the code block under `<!-- example: name -->`."""
    found = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, name
    return found.group(1)


def pasted(command: str, folder: Path) -> str:
    """Return what a pasted curl line prints: by curl itself, or, where there is none, by doing what its words say."""
    if shutil.which("curl"):
        shell = ["sh", "-c", command]
        return subprocess.run(shell, cwd=folder, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    key = (folder / ".switchyard" / "admin-key").read_text(encoding="utf-8").strip()
    words = iter(shlex.split(command.replace("$(cat .switchyard/admin-key)", key).replace("\\\n", " "))[1:])
    url, headers, body = next(words), {}, b""
    for flag in words:
        value = next(words)
        if flag == "-H":
            name, _, text = value.partition(": ")
            headers[name] = text
        else:
            assert flag == "-d", flag
            body = value.encode()
    request = urllib.request.Request(url, body, headers)  # noqa: S310  (a loopback address of our own)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310  (as above)
        return str(answer.read().decode())


def test_the_curl_example_is_answered(host: Running) -> None:
    """As pasted into a shell in the folder the host was started in."""
    printed = pasted(host.adapted(example("curl")), host.folder)
    assert "sort_list" in printed
    assert '"object":"chat.completion"' in printed


def test_the_budget_example_makes_a_budget(host: Running) -> None:
    """The budget as printed is made, and shows what is spent and held apart."""
    made = json.loads(pasted(host.adapted(example("budget")), host.folder))

    assert ("shop", 0, 0) == (made["name"], made["spent_nano_usd"], made["held_nano_usd"])


def test_the_sdk_example_prints_an_answer(host: Running) -> None:
    """As saved into a file and run."""
    script = host.folder / "example.py"
    script.write_text(host.adapted(example("sdk")), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=host.folder, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert "gpt-6-luna" in done.stdout


@pytest.mark.parametrize(("name", "said"), [("background", "completed "), ("batch", '"custom_id":"Faro"')])
def test_the_examples_of_background_work_print_answers(host: Running, name: str, said: str) -> None:
    """As saved into a file and run."""
    script = host.folder / f"{name}.py"
    script.write_text(host.adapted(example(name)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=host.folder, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert said in done.stdout


def test_the_vendor_in_the_readme_is_a_catalog(tmp_path: Path) -> None:
    """Its rows alone are well: a file of them can be served."""
    path = tmp_path / "catalog.yaml"
    path.write_text(example("catalog"), encoding="utf-8")

    assert [] == check(str(path), {"ACME_API_KEY": "secret"})


@pytest.mark.parametrize("target", ["run", "test", "check", "bench", "fmt"])
def test_every_make_target_the_docs_name_exists(target: str) -> None:
    """The Makefile knows it."""
    assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_in_the_docs_lead_somewhere(page: str) -> None:
    """Relative links name files that exist."""
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{page}: {target}"
