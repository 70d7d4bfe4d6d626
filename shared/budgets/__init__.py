"""Budgets: who may spend how much, kept in one partition of the table ``budgets`` and known to every instance.

**How soon a change counts.** A budget that was made, lowered or disabled is in force at once in the process that did it, and
everywhere within `MAX_AGE` (5 s) while the store answers: no call is judged by a snapshot older than that. An instance that
can't reach the store judges by what it last knew for up to `GRACE` (60 s), then refuses every call.

**How changes are kept apart.** Every change replaces the row `HEAD` by its ETag in the transaction that writes the budget, so
what a change was checked against (the parent exists, no cycle, not too deep, not too many) still holds when it lands.
"""

from __future__ import annotations

from shared.budgets.cover import MAX_DEPTH, Snapshot, UnknownBudgetError
from shared.budgets.periods import period_named
from shared.budgets.rows import StoredBudget
from shared.budgets.store import GRACE, MAX_AGE, MAX_BUDGETS, Budgets

__all__ = [
    "GRACE",
    "MAX_AGE",
    "MAX_BUDGETS",
    "MAX_DEPTH",
    "Budgets",
    "Snapshot",
    "StoredBudget",
    "UnknownBudgetError",
    "period_named",
]
