"""Use case: requests that nobody waits for. A chain is stored, an engine drives its flow, activities do its work.

    start → the engine's orchestrator → attempt … attempt → end → notify

Activities run at least once. An attempt is claimed in the store between the moment its money is held and the moment it is sent,
so that of all runs of one activity a single one sends; whoever comes after it takes its result, or, if its process died, the
attempt for lost: charged at its bound by the ledger's recovery, and followed by another attempt. Nothing is billed twice, and
nothing that may have been billed is forgotten.
"""

from __future__ import annotations

from shared.background.attempting import Read, attempt
from shared.background.beginning import DURABLE, ORCHESTRATOR, NewChain, cancel, start, wait_for
from shared.background.ending import end, lose, note, sweep

__all__ = [
    "DURABLE",
    "ORCHESTRATOR",
    "NewChain",
    "Read",
    "attempt",
    "cancel",
    "end",
    "lose",
    "note",
    "start",
    "sweep",
    "wait_for",
]
