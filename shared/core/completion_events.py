"""What a webhook is told when background work has ended: events in the shape of OpenAI's webhook events. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

NAMES: Final[Mapping[str, str]] = {"async": "chain", "chain": "chain", "response": "response", "batch": "batch"}
"""What events call each kind of work: that of ``Prefer: respond-async`` is a chain, as its path says."""


def event_of(kind: str, name: str, state: str, at: float) -> dict[str, Any]:
    """Return the event that tells of an end: ``response.completed``, ``chain.failed``, ``batch.cancelled`` and so on.

    ``name`` is the id of what has ended, ``state`` how, ``at`` when (seconds since the epoch). The same end always gives the
    same event, also when it is told again: receivers forget what they have seen by its id.
    """
    return {
        "object": "event",
        "id": delivery_of(name, state),
        "type": f"{NAMES[kind]}.{state}",
        "created_at": int(at),
        "data": {"id": name},
    }


def delivery_of(name: str, state: str) -> str:
    """Return the id of the event that tells of an end, which is also its delivery's."""
    return "evt_" + hashlib.sha256(f"{name}|{state}".encode()).hexdigest()[:32]
