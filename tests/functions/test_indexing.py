"""The app can be indexed by the Functions worker: what it checks, checked here."""

from __future__ import annotations

import inspect
import json
import re
import typing
from pathlib import Path

import pytest
from azurefunctions.extensions.base import (  # type: ignore[import-untyped]
    HttpV2FeatureChecker,
    RequestTrackerMeta,
    ResponseTrackerMeta,
)

from function_app import app
from local.mounting import functions_of
from tests.functions.harness import functions

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = functions_of(app)
HTTP, TIMERS = FUNCTIONS.http, FUNCTIONS.timers


def test_streaming_is_switched_on() -> None:
    """The worker streams when the extension was imported."""
    assert HttpV2FeatureChecker.http_v2_enabled()


@pytest.mark.parametrize("function", HTTP, ids=lambda function: function.name)
def test_a_handler_takes_the_extensions_request_and_returns_its_response(function: typing.Any) -> None:
    """One handler annotated otherwise stops the whole app from being indexed."""
    hints = typing.get_type_hints(function.handler)
    returned = hints.pop("return")

    assert [name for name, hint in hints.items() if RequestTrackerMeta.check_type(hint)] == ["request"]
    assert ["request"] == list(inspect.signature(function.handler).parameters)
    assert ResponseTrackerMeta.check_type(returned)
    assert inspect.iscoroutinefunction(function.handler)


def test_no_handler_uses_the_other_programming_model() -> None:
    """func.HttpRequest or func.HttpResponse anywhere would break streaming everywhere."""
    sources = [ROOT / "function_app.py", *(ROOT / "functions").rglob("*.py")]
    assert not [path.name for path in sources if re.search(r"func\.Http(Request|Response)", path.read_text())]


def test_routes_leave_the_hosts_own_paths_alone() -> None:
    """Routes that begin with admin or runtime are refused by the host."""
    assert not [function.route for function in HTTP if re.match(r"/(admin|runtime)\b", function.route)]


def test_the_local_host_serves_the_same() -> None:
    """What runs on one machine is what runs on Azure."""
    here = {(function.name, function.route, function.methods) for function in functions()[0]}

    assert here == {(function.name, function.route, function.methods) for function in HTTP}
    assert {timer.name for timer in TIMERS} == {timer.name for timer in functions()[1]}


def test_functions_have_names_of_their_own() -> None:
    """A name taken twice is an error at indexing."""
    names = [function.name for function in HTTP] + [timer.name for timer in TIMERS]
    assert len(names) == len(set(names))


def test_timers_have_schedules() -> None:
    """Probes, pending writes, recovery, roll-ups and alerts run without a request."""
    assert {"probe_deployments", "write_pending", "recover_ledger", "raise_alerts", "roll_up_usage"} == {
        timer.name for timer in TIMERS
    }


def test_the_host_serves_at_the_root_and_has_durable_ready() -> None:
    """OpenAI's paths begin with /v1, and the bundle is new enough for the next issue."""
    host = json.loads((ROOT / "host.json").read_text())

    assert host["extensions"]["http"]["routePrefix"] == ""
    assert host["extensionBundle"]["version"].startswith("[4.32")


def test_local_settings_have_what_the_worker_needs() -> None:
    """Without init indexing every streamed request hangs on Python 3.11."""
    values = json.loads((ROOT / "local.settings.example.json").read_text())["Values"]

    assert values["PYTHON_ENABLE_INIT_INDEXING"] == "1"
    assert values["FUNCTIONS_WORKER_RUNTIME"] == "python"
