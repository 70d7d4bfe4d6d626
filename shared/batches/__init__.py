"""Batches: many requests in one file, answered in the background, each line with exactly one outcome."""

from __future__ import annotations

from shared.batches.rows import Batch, Counts, Part, Progress, Status
from shared.batches.store import Batches

__all__ = ["Batch", "Batches", "Counts", "Part", "Progress", "Status"]
