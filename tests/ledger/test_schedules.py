"""Schedules that once went wrong, or would if the ledger were a little other than it is: see `tests.ledger.schedules`."""

from __future__ import annotations

import pytest

from tests.ledger.schedules import SCHEDULES, played


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_ends_well(schedule: str) -> None:
    """Nothing is overspent, lost, charged twice or held for ever; every charge is what was told, and its usage is written."""
    assert [] == played(schedule)
