"""The ledger: what calls may cost is held before they are sent, what they cost is settled, in any crash."""

from __future__ import annotations

from shared.ledger.book import Hold, Intent, Ledger
from shared.ledger.policy import DEFAULT_POLICY, LedgerPolicy
from shared.ledger.recovery import RecoveredSession
from shared.ledger.rows import AccountKey, IntentRow, IntentState

__all__ = [
    "DEFAULT_POLICY",
    "AccountKey",
    "Hold",
    "Intent",
    "IntentRow",
    "IntentState",
    "Ledger",
    "LedgerPolicy",
    "RecoveredSession",
]
