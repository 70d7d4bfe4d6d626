"""The table of costs: what is counted in it is counted in the code, and the runbook shows what it gives."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from deploy import costs
from functions import timers
from functions.surface import registered
from tests.infra import terraform_text as terraform

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.mark.parametrize("example", sorted(COSTS.examples))
def test_examples_are_those_of_terraform(example: str) -> None:
    """Memory and instances kept ready are what the tfvars say; over zones, what Azure keeps for each group."""
    text = (ROOT / "infra" / "terraform" / "examples" / f"{example}.tfvars").read_text(encoding="utf-8")
    memory = re.search(r"^instance_memory_mb\s*=\s*(\d+)", text, re.MULTILINE)
    ready = re.search(r"^always_ready\s*=\s*{ http = (\d+) }", text, re.MULTILINE)
    http = int(ready[1] if ready else 0)
    zones = re.search(r"^zone_redundant\s*=\s*true", text, re.MULTILINE)
    row = COSTS.examples[example]

    assert memory
    assert Decimal(row["memory_gb"]) == Decimal(memory[1]) / 1024
    assert row["ready"] == (max(http, 2) + 2 * (len(_groups()) - 1) if zones else http)
    assert (row["endpoints"] > 0) == bool(re.search(r"^private_networking\s*=\s*true", text, re.MULTILINE))


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
