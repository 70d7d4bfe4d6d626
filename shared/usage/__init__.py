"""The usage log: every attempt once, every request with its decision, and what they add up to."""

from __future__ import annotations

from shared.usage.log import DamagedUsageError, UsageLog
from shared.usage.report import GroupBy, UsageQuery, UsageReport, UsageRow
from shared.usage.rollups import RolledUp
from shared.usage.rows import StoredAttempt, StoredRequest

__all__ = [
    "DamagedUsageError",
    "GroupBy",
    "RolledUp",
    "StoredAttempt",
    "StoredRequest",
    "UsageLog",
    "UsageQuery",
    "UsageReport",
    "UsageRow",
]
