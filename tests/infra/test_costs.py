"""The table of costs: what is counted in it is counted in the code, and the runbook shows what it gives."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from deploy import costs
from functions import timers
from functions.surface import registered
from tests.infra import terraform_text as terraform

ROOT = Path(__file__).resolve().parents[2]
TASK_SCHEDULED = 4
COSTS = costs.read(ROOT / "docs" / "costs.toml")


def _runs_a_minute(schedule: str) -> Decimal:
    second, minute, *rest = schedule.split()
    assert ["*"] * 4 == rest
    seconds = Decimal(60) / int(second.removeprefix("*/")) if second.startswith("*/") else Decimal(1)
    return seconds / int(minute.removeprefix("*/")) if minute.startswith("*/") else seconds


def test_the_runbook_shows_the_costs_as_computed() -> None:
    """Replace what stands under `<!-- generated: costs … -->` in docs/runbook.md by the output of `python -m deploy costs`."""
    page = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    for table in (costs.idle_table(COSTS), costs.million_table(COSTS), costs.prices_table(COSTS)):
        assert table in page


def test_timers_are_counted_as_they_run() -> None:
    """Each run is billed for a second at least: a timer more often is a bill that grows while nobody calls."""
    schedules = re.findall(r"schedule=(\w+)", (ROOT / "functions" / "timers.py").read_text(encoding="utf-8"))

    assert COSTS.uses["timer_runs_a_minute"] == sum((_runs_a_minute(getattr(timers, name)) for name in schedules), Decimal(0))


def _groups() -> set[str]:
    """Return what Azure scales apart: all HTTP functions, all of Durable, and each other function."""
    shared = {"httpTrigger": "http", "orchestrationTrigger": "durable", "activityTrigger": "durable"}
    triggers = {str(one.get_function_name()): one.get_trigger() for one in registered().get_functions()}
    return {shared.get(str(trigger.type), name) for name, trigger in triggers.items() if trigger}


def _alert_rules() -> tuple[int, int]:
    """Return how many rules over logs there are by default, every five minutes and less often: the prices' two classes."""
    fixed, budgets = terraform.expression("alert_rules").split("for percent in")
    percents = re.search(r"budget_percents\s*=\s*optional\(set\(number\), \[([\d, ]+)\]", terraform.text())
    assert percents
    every = [
        *re.findall(r'every\s*=\s*"(\w+)"', fixed),
        *re.findall(r'every\s*=\s*"(\w+)"', budgets) * len(percents[1].split(",")),
    ]
    assert set(every) <= {"PT5M", "PT15M", "PT1H"}
    return every.count("PT5M"), len(every) - every.count("PT5M")


def _availability_test(tfvars: str) -> tuple[int, int]:
    """Return from how many places an example is tested, and how many seconds lie between two tests."""
    places, seconds = re.findall(
        r"locations\s*=\s*optional\(list\(string\), (\[.*?\])\)\s*every_seconds\s*=.*?(\d+)", terraform.text()
    )[0]
    given = re.search(r"^availability_test\s*=\s*{ (\w+) = (\w+) }", tfvars, re.MULTILINE)
    if given and given[1] == "enabled":
        return 0, int(seconds)
    return places.count('"') // 2, int(given[2] if given else seconds)


@pytest.mark.parametrize("example", sorted(COSTS.examples))
def test_examples_are_those_of_terraform(example: str) -> None:
    """Memory, alerts, tests and instances kept ready are what the tfvars say; over zones, what Azure keeps for each group."""
    text = (ROOT / "infra" / "terraform" / "examples" / f"{example}.tfvars").read_text(encoding="utf-8")
    memory = re.search(r"^instance_memory_mb\s*=\s*(\d+)", text, re.MULTILINE)
    ready = re.search(r"^always_ready\s*=\s*{ http = (\d+) }", text, re.MULTILINE)
    http = int(ready[1] if ready else 0)
    zones = re.search(r"^zone_redundant\s*=\s*true", text, re.MULTILINE)
    row = COSTS.examples[example]

    assert memory
    assert Decimal(row["memory_gb"]) == Decimal(memory[1]) / 1024
    assert row["ready"] == (max(http, 2) + 2 * (len(_groups()) - 1) if zones else http)
    assert (row["alerts_often"], row["alerts_seldom"]) == ((0, 0) if "alerts_enabled    = false" in text else _alert_rules())
    assert (row["test_places"], row["test_seconds"]) == _availability_test(text)
    assert (row["endpoints"] > 0) == bool(re.search(r"^private_networking\s*=\s*true", text, re.MULTILINE))


def test_the_actions_of_a_chain_are_those_of_its_history() -> None:
    """One for its start, two for each activity, one that begins and one that is done; telling a webhook comes on top."""
    history = json.loads((ROOT / "tests" / "chains" / "histories" / "v1_success.json").read_text(encoding="utf-8"))["history"]
    scheduled = [event for event in history if event["EventType"] == TASK_SCHEDULED and event["Name"] != "notify_chain"]

    assert COSTS.uses["actions_a_chain"] == 1 + 2 * len(scheduled)
    assert costs.background(COSTS) in (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")


def test_the_price_of_logs_is_the_one_the_workbook_takes() -> None:
    """The variable's default and the table say the same."""
    default = re.search(r'variable "log_price_usd_per_gb" {.*?default\s*=\s*([\d.]+)', terraform.text(), re.DOTALL)
    assert default
    assert Decimal(default[1]) == Decimal(COSTS.prices["logs"]["usd"])


def test_every_price_says_where_it_is_from() -> None:
    """And when it was read; one that could not be read has no number, not zero."""
    for name, price in COSTS.prices.items():
        assert price["source"], name
        assert ("usd" in price) == ("read_on" in price), name
