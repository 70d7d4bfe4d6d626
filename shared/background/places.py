"""Where a chain stands in a trace: written down when it begins, so that it is told as one whichever processes work on it."""

from __future__ import annotations

from dataclasses import replace

from shared.chains import Chain
from shared.core import traceparent
from shared.core.fields import Fields
from shared.core.telemetry import TraceContext
from shared.gateway import Gateway
from shared.tracing import Served


def place_out(place: TraceContext | None) -> dict[str, str]:
    """Return a place as it is kept in a chain's facts; nothing when nothing is told."""
    if place is None:
        return {}
    parent = {} if place.parent_id is None else {"trace_caller": place.parent_id}
    return {"traceparent": traceparent.render(place), **parent}


def served_of(gateway: Gateway, chain: Chain) -> Served:
    """Return the request a chain is and its place, a new one if none was kept, as of chains begun while nothing was told."""
    facts = Fields(chain.facts)
    kept = traceparent.parse(facts.find_text("traceparent") or "")
    if kept is None:
        return Served(chain.request_id, gateway.telemetry.trace(None))
    return Served(chain.request_id, replace(kept, parent_id=facts.find_text("trace_caller")))
