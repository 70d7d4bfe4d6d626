"""Use case: many requests in one file, answered in the background, each line with exactly one outcome.

    start → the engine's orchestrator → prepare … → run_slice … → end → notify

Activities run at least once: whatever they do can be done again, and a slice's outcomes are written by one run at a time
(`shared.batches.slices`).
"""

from __future__ import annotations

from shared.batching.lifecycle import (
    ORCHESTRATOR,
    NewBatch,
    NotToldError,
    cancel,
    end,
    lose,
    notify,
    start,
    sweep,
)
from shared.batching.preparing import MAX_LINES, prepare
from shared.batching.running import Wire, run_slice

__all__ = [
    "MAX_LINES",
    "ORCHESTRATOR",
    "NewBatch",
    "NotToldError",
    "Wire",
    "cancel",
    "end",
    "lose",
    "notify",
    "prepare",
    "run_slice",
    "start",
    "sweep",
]
