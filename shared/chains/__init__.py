"""Chains: work that nobody waits for, kept in the store with every attempt claimed by one owner."""

from __future__ import annotations

from shared.chains.rows import Chain, Claim, ClaimState, Kind, State
from shared.chains.store import Chains, Queue

__all__ = ["Chain", "Chains", "Claim", "ClaimState", "Kind", "Queue", "State"]
