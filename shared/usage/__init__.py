"""The usage log: every attempt once, every request with its decision, and what they add up to."""

from __future__ import annotations

from shared.usage.log import UsageLog
from shared.usage.report import GroupBy, UsageQuery, UsageRow
from shared.usage.rows import StoredAttempt, StoredRequest

__all__ = ["GroupBy", "StoredAttempt", "StoredRequest", "UsageLog", "UsageQuery", "UsageRow"]
