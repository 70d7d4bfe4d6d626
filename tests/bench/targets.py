"""What is measured, and how each is started: the upstream itself, the bare pass-through, Switchyard, the LiteLLM proxy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.client import Target
from tests.bench.process import Process, free_port

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
KEY = "sk-bench-7f3a9c51e08d4b26"
LITELLM = "1.109.1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "switchyard-bench"


@dataclass(slots=True)
class Running:
    """A target that answers, with the process behind it (None for the upstream itself)."""

    target: Target
    process: Process | None
    cold_start: float = 0.0
    """Seconds from the process's start to its first answer."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to start a gateway: a command for a port, its environment, and what to ask it."""

    name: str
    command: Callable[[int, Path], list[str]]
    env: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    port_variable: str = ""

    def launch(self, folder: Path, cores: str = "") -> Running:
        """Start it; return once it listens."""
        port = free_port()
        env = self.env | ({self.port_variable: str(port)} if self.port_variable else {})
        home = folder / f"{self.name}-{port}"
        home.mkdir()
        env = {key: value.replace("{home}", str(home)) for key, value in env.items()}
        process = Process(self.name, self.command(port, home), folder=home, env=env, cores=cores)
        process.until_listening(port, within=120)
        return Running(Target(self.name, f"http://127.0.0.1:{port}/v1", "mock", self.headers), process)

    def start(self, folder: Path, cores: str = "") -> Running:
        """Start it and wait for its first answer; raise SystemExit with its log when none comes within two minutes."""
        running = self.launch(folder, cores)
        assert running.process is not None
        try:
            running.cold_start = first_answer(running.target, running.process)
        except BaseException:
            running.process.stop()
            raise
        return running


def first_answer(target: Target, process: Process, within: float = 120) -> float:
    """Return seconds from the process's start to its first answer to a chat request."""
    request = urllib.request.Request(  # noqa: S310  # our own loopback
        f"{target.url}/chat/completions", target.body(), {"content-type": "application/json", **target.headers}
    )
    problem: object = "no answer"
    while time.monotonic() - process.started < within:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # our own loopback
                if answer.status == 200:  # OK
                    return time.monotonic() - process.started
        except urllib.error.HTTPError as error:
            problem = error.read()[:500].decode(errors="replace")
        except OSError as error:
            problem = error
        time.sleep(0.01)
    message = f"{target.name} gave no answer in {within:.0f} s ({problem}):\n{process.tail()}"
    raise SystemExit(message)


def passthrough(upstream: str) -> Recipe:
    """Return the bare pass-through."""
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning", "--lifespan", "off"]

    def command(port: int, _: Path) -> list[str]:
        return [
            sys.executable,
            "-m",
            "uvicorn",
            "tests.bench.passthrough:app",
            "--app-dir",
            str(ROOT),
            "--port",
            str(port),
            *options,
        ]

    return Recipe("pass-through", command, {"BENCH_UPSTREAM": upstream, "PYTHONPATH": str(ROOT)})


def switchyard(upstream: str, catalog: Path | None = None, **extra: str) -> Recipe:
    """Return Switchyard with everything on: keys, routing, prices, usage and traces into SQLite."""
    env = {
        "SWITCHYARD_CATALOG": str(catalog or HERE / "catalog.yaml"),
        "SWITCHYARD_STORAGE": "sqlite:{home}/state.db",
        "SWITCHYARD_ADMIN_KEY": KEY,
        "BENCH_UPSTREAM": upstream,
        "BENCH_UPSTREAM_KEY": "upstream",
        "HOST": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
        **extra,
    }
    headers = {"authorization": f"Bearer {KEY}"}
    return Recipe("switchyard", lambda _, __: [sys.executable, "-m", "local.host"], env, headers, "PORT")


UNPINNED: Final = "certifi litellm-proxy-extras"
"""What LiteLLM pins more tightly than a package index that lags a few weeks behind can serve: taken as the index has it."""

REQUIREMENTS: Final = """
import importlib.metadata as metadata, sys
from packaging.requirements import Requirement
for line in metadata.requires("litellm"):
    wanted = Requirement(line)
    if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", "proxy")):
        extras = "[" + ",".join(wanted.extras) + "]" if wanted.extras else ""
        print(wanted.name if wanted.name in sys.argv[1:] else f"{wanted.name}{extras}{wanted.specifier}")
"""


def install_litellm(folder: Path) -> str:
    """Install the LiteLLM proxy into an environment of its own; return what pip said when it could not."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)

    def pip(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(folder / "bin" / "pip"), "install", "-q", *words]
        return subprocess.run(command, check=False, timeout=900, capture_output=True, text=True)

    done = pip(f"litellm[proxy]=={LITELLM}")
    if done.returncode:
        pip("--no-deps", f"litellm=={LITELLM}")
        pip("packaging")
        python = str(folder / "bin" / "python")
        listed = subprocess.run([python, "-c", REQUIREMENTS, *UNPINNED.split()], check=False, capture_output=True, text=True)
        wanted = folder / "requirements.txt"
        wanted.write_text(listed.stdout)
        done = pip("-r", str(wanted))
        if done.returncode:
            (folder / "bin" / "litellm").unlink(missing_ok=True)
    return done.stderr.strip()[-300:]


def litellm(upstream: str, *, install: bool) -> Recipe | str:
    """Return the LiteLLM proxy, installed into a cache folder and never into this project, or why it is left out."""
    folder = CACHE / f"litellm-{LITELLM}"
    program = folder / "bin" / "litellm"
    if not program.exists():
        if not install:
            return "LiteLLM is left out: not installed yet. --with-litellm installs it into a cache folder (some 600 MB)."
        problem = install_litellm(folder)
        if not program.exists():
            return f"LiteLLM is left out: pip could not install it: {problem}"
    env = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "DISABLE_ADMIN_UI": "True",
        "NO_DOCS": "True",
    }

    def command(port: int, home: Path) -> list[str]:
        config = home / "config.yaml"
        params = f"{{model: openai/gpt-4o-mini, api_base: '{upstream}', api_key: upstream}}"
        config.write_text(
            f"model_list:\n  - {{model_name: mock, litellm_params: {params}}}\n"
            "litellm_settings: {request_timeout: 600, set_verbose: false, json_logs: true}\n"
            f"general_settings: {{master_key: {KEY}, disable_spend_logs: true}}\n"
        )
        return [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]

    return Recipe("litellm", command, env, {"authorization": f"Bearer {KEY}"})
