"""The app can be indexed by the Functions worker: what it checks, checked here."""

from __future__ import annotations

import inspect
import json
import re
import typing
from pathlib import Path

import azure.functions as func
import pytest
from azurefunctions.extensions.base import (  # type: ignore[import-untyped]
    HttpV2FeatureChecker,
    RequestTrackerMeta,
    ResponseTrackerMeta,
)

from function_app import app
from functions.surface import registered
from local.embedded import MAX_ACTIVITIES
from local.mounting import functions_of
from tests.functions.harness import functions

ROOT = Path(__file__).resolve().parents[2]
EVERY: list[typing.Any] = list(registered().get_functions())
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

    assert ["request"] == [name for name, hint in hints.items() if RequestTrackerMeta.check_type(hint)]
    assert ["request", *([function.client] if function.client else [])] == list(inspect.signature(function.handler).parameters)
    assert ResponseTrackerMeta.check_type(returned)
    assert inspect.iscoroutinefunction(function.handler)


@pytest.mark.parametrize("function", EVERY, ids=lambda function: str(function.get_function_name()))
def test_parameters_are_what_the_bindings_give(function: typing.Any) -> None:
    """The worker refuses a function whose parameters are not its bindings' or whose annotations a binding does not know."""
    registry: typing.Any = func.get_binding_registry()  # type: ignore[no-untyped-call]  # the library is half typed
    handler = function.get_user_function()
    bindings = {binding.name: binding.type for binding in function.get_bindings() if binding.name != "$return"}
    hints = typing.get_type_hints(handler)

    assert set(bindings) == set(inspect.signature(handler).parameters)
    for name, kind in bindings.items():
        if kind != "httpTrigger" and name in hints:  # HTTP is the extension's; see above
            assert registry.get(kind).check_input_type_annotation(hints[name]), (name, kind, hints[name])


def test_every_kind_of_function_is_there() -> None:
    """HTTP, with and without the durable client, timers, orchestrators and activities."""
    kinds = {function.get_trigger().type for function in EVERY}

    assert {"httpTrigger", "timerTrigger", "orchestrationTrigger", "activityTrigger"} == kinds
    assert {"client"} == {one.client for one in HTTP if one.client} | {one.client for one in TIMERS if one.client}
    assert all(inspect.isgeneratorfunction(run) or callable(run) for run in FUNCTIONS.orchestrators.values())


def test_no_handler_uses_the_other_programming_model() -> None:
    """func.HttpRequest or func.HttpResponse anywhere would break streaming everywhere."""
    sources = [ROOT / "function_app.py", *(ROOT / "functions").rglob("*.py")]
    assert not [path.name for path in sources if re.search(r"func\.Http(Request|Response)", path.read_text())]


def test_routes_leave_the_hosts_own_paths_alone() -> None:
    """Routes that begin with admin or runtime are refused by the host."""
    assert not [function.route for function in HTTP if re.match(r"/(admin|runtime)\b", function.route)]


def test_the_local_host_serves_the_same() -> None:
    """What runs on one machine is what runs on Azure."""
    here = {(function.name, function.route, function.methods) for function in functions().http}

    assert here == {(function.name, function.route, function.methods) for function in HTTP}
    assert {timer.name for timer in TIMERS} == {timer.name for timer in functions().timers}
    assert set(FUNCTIONS.orchestrators) == set(functions().orchestrators)
    assert set(FUNCTIONS.activities) == set(functions().activities)


def test_functions_have_names_of_their_own() -> None:
    """A name taken twice is an error at indexing."""
    names = [function.get_function_name() for function in EVERY]
    assert len(names) == len(set(names))


def test_one_timer_runs_once_a_minute() -> None:
    """Azure bills each run, and each timer function for an instance of its own: an idle gateway must cost next to nothing."""
    (timer,) = TIMERS
    assert ("keep_house", 1) == (timer.name, len(timer.schedule.fields[0]))


HOST = json.loads((ROOT / "host.json").read_text())
DURABLE = HOST["extensions"]["durableTask"]
OVERRIDE = "AzureFunctionsJobHost__extensions__durableTask__storageProvider__"


def test_the_host_serves_at_the_root() -> None:
    """OpenAI's paths begin with /v1."""
    assert HOST["extensions"]["http"]["routePrefix"] == ""


def test_background_work_is_kept_by_the_durable_task_scheduler() -> None:
    """The managed backend needs a bundle that has it; which hub is an app setting, so that deployments do not share one."""
    assert {"type": "azureManaged", "connectionStringName": "DURABLE_TASK_SCHEDULER_CONNECTION_STRING"} == DURABLE[
        "storageProvider"
    ]
    assert DURABLE["hubName"] == "%TASKHUB_NAME%"
    assert HOST["extensionBundle"]["version"].startswith("[4.32")


def test_an_activity_has_the_time_of_the_slowest_model() -> None:
    """Half an hour, and as many at once as on one machine."""
    assert HOST["functionTimeout"] == "00:30:00"
    assert DURABLE["maxConcurrentActivityFunctions"] == MAX_ACTIVITIES


def test_what_callers_wrote_is_not_traced() -> None:
    """Inputs and outputs of functions stay out of the host's log."""
    assert DURABLE["tracing"]["traceInputsAndOutputs"] is False


def test_local_settings_have_what_the_worker_needs() -> None:
    """Without init indexing every streamed request hangs on Python 3.11."""
    values = json.loads((ROOT / "local.settings.example.json").read_text())["Values"]

    assert values["PYTHON_ENABLE_INIT_INDEXING"] == "1"
    assert values["FUNCTIONS_WORKER_RUNTIME"] == "python"


def test_an_app_setting_switches_to_azure_storage() -> None:
    """As the example for the Functions host on one machine does: the host lets app settings override its file, part by part."""
    values = json.loads((ROOT / "local.settings.example.json").read_text())["Values"]

    assert values[OVERRIDE + "type"] == "AzureStorage"
    assert values[OVERRIDE + "connectionStringName"] == "AzureWebJobsStorage"
    assert re.fullmatch("[A-Za-z][A-Za-z0-9]{2,44}", values["TASKHUB_NAME"])  # what Azure Storage takes as a hub
