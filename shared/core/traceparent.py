"""W3C Trace Context's ``traceparent``: read it, write it, and find a request's place in the trace it names.

Whether a trace is told is decided by its id alone, as OpenTelemetry's ``TraceIdRatioBased`` sampler does it: every service that
sees the trace and has the same ratio decides alike. The caller's flag is not asked: hosts that sample their own telemetry, such
as the Functions host, send 00 for traces that are wanted here.
"""

from __future__ import annotations

import re
from typing import Final

from shared.core.telemetry import TraceContext

_FORMAT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_FORBIDDEN_VERSION: Final = "ff"
_SAMPLED: Final = 0x01
_HALF: Final = 1 << 64
"""Spans have as many ids. Sampling looks at a trace id's lower half, which is random in every version of the standard."""


def parse(traceparent: str) -> TraceContext | None:
    """Return the place the header names, with its flag; None when it is not valid. Later versions are read as version 00."""
    found = _FORMAT.fullmatch(traceparent.strip())
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == _FORBIDDEN_VERSION or trace == _NO_TRACE or span == _NO_SPAN or (version == "00" and more is not None):
        return None
    return TraceContext(trace, span, sampled=bool(int(flags, 16) & _SAMPLED))


def render(context: TraceContext) -> str:
    """Return the header that puts what comes next under this place."""
    return f"00-{context.trace_id}-{context.span_id}-{'01' if context.sampled else '00'}"


def begin(traceparent: str | None, entropy: int, ratio: float) -> TraceContext:
    """Return the place of what begins now: under the caller's, or in a trace of its own when no valid one is named.

    ``entropy`` is 192 random bits, for new ids; ``ratio`` is the share of traces that are told, from 0 to 1.
    """
    caller = parse(traceparent) if traceparent else None
    span = f"{(entropy % _HALF) or 1:016x}"
    trace = f"{((entropy >> 64) % (_HALF * _HALF)) or 1:032x}" if caller is None else caller.trace_id
    return TraceContext(trace, span, None if caller is None else caller.span_id, is_sampled(trace, ratio))


def is_sampled(trace_id: str, ratio: float) -> bool:
    """Say whether a trace is told where ``ratio`` of all are."""
    return int(trace_id, 16) % _HALF < round(ratio * _HALF)
