"""Requests and tokens per minute, over all instances: for keys, projects and deployments."""

from __future__ import annotations

from shared.core.limits import Limited
from shared.limits.store import UNLIMITED, Admission, RateLimits, Ticket

__all__ = ["UNLIMITED", "Admission", "Limited", "RateLimits", "Ticket"]
