"""The log of every request received: what it asked, which fault it met, what it was billed, how it ended."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

CREDENTIALS: Final = ("authorization", "api-key", "x-api-key", "cookie", "proxy-authorization")
"""Headers that the log reduces to the fact that they were there."""

OF_INTEREST: Final = (
    "x-request-id", "x-ms-client-request-id", "idempotency-key", "traceparent", "tracestate", "user-agent", "accept",
    "content-type", "anthropic-version", "anthropic-beta", "openai-organization", "openai-project", "x-github-api-version",
    "x-ms-spillover-deployment", "x-forwarded-for", "host",
)  # fmt: skip


@dataclass(slots=True)
class Billed:
    """Tokens this attempt was charged for, as inclusive totals; all 0 when the provider refused before running the model."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read: int = 0
    cache_creation: int = 0
    reasoning: int = 0


@dataclass(slots=True)
class Attempt:
    """One request as it was received.

    ``outcome`` is in_flight, answered (harmless faults too), failed (a scripted fault), refused (the request's own fault),
    disconnected (the client left first) or closed (the simulator was stopped). ``at`` is in seconds of 1970.
    """

    seq: int
    at: float
    profile: str
    protocol: str
    operation: str
    method: str
    path: str
    model: str = ""
    stream: bool = False
    fault: str | None = None
    status: int | None = None
    outcome: str = "in_flight"
    disconnected: bool = False
    duration_ms: float = 0.0
    events_sent: int = 0
    body_bytes: int = 0
    parameters: tuple[str, ...] = ()
    billed: Billed = field(default_factory=Billed)
    headers: Mapping[str, str] = field(default_factory=dict)
    credentials: tuple[str, ...] = ()
    request_id: str = ""


class AttemptLog:
    """The newest attempts, and counters over all of them since the last reset."""

    def __init__(self, limit: int) -> None:
        self._attempts: deque[Attempt] = deque(maxlen=limit)
        self._seq = 0
        self._counts = _Counts()

    def open(self, attempt: Attempt) -> Attempt:
        """Give the attempt its number and keep it; it is in flight until `close`."""
        self._seq += 1
        attempt.seq = self._seq
        self._attempts.append(attempt)
        self._counts.opened(attempt)
        return attempt

    def close(self, attempt: Attempt, outcome: str) -> None:
        """Record how the attempt ended."""
        attempt.outcome = outcome
        attempt.disconnected = outcome == "disconnected"
        self._counts.closed(attempt)

    def since(self, seq: int) -> list[Attempt]:
        """Return the kept attempts numbered above ``seq``, oldest first."""
        newest_first = []
        for attempt in reversed(self._attempts):
            if attempt.seq <= seq:
                break
            newest_first.append(attempt)
        return newest_first[::-1]

    def counters(self) -> dict[str, Any]:
        """Return the totals since the last reset; they also count attempts that the log no longer keeps."""
        return self._counts.report()

    def clear(self) -> None:
        """Forget attempts and totals. Attempts still running are not counted again; numbers go on."""
        self._attempts.clear()
        self._counts = _Counts(self._counts.generation + 1, first=self._seq + 1)


class _Counts:
    def __init__(self, generation: int = 0, *, first: int = 1) -> None:
        self.generation = generation
        self._first = first
        self._requests = self._streams = self._active = self._peak = 0
        self._by: dict[str, Counter[str]] = {name: Counter() for name in ("profile", "model", "fault", "status", "outcome")}
        self._billed: Counter[str] = Counter()

    def opened(self, attempt: Attempt) -> None:
        self._requests += 1
        self._active += 1
        self._peak = max(self._peak, self._active)
        self._by["profile"][attempt.profile] += 1

    def closed(self, attempt: Attempt) -> None:
        if attempt.seq < self._first:
            return
        self._active -= 1
        self._streams += attempt.stream
        self._by["model"][attempt.model] += 1
        self._by["fault"][attempt.fault or "none"] += 1
        self._by["status"][str(attempt.status or "none")] += 1
        self._by["outcome"][attempt.outcome] += 1
        self._billed.update({name: getattr(attempt.billed, name) for name in Billed.__slots__})

    def report(self) -> dict[str, Any]:
        totals = {"requests": self._requests, "streams": self._streams, "active": self._active, "peak_active": self._peak}
        by = {f"by_{name}": dict(counter) for name, counter in self._by.items()}
        return {**totals, **by, "billed": dict(self._billed)}


def headers_of_interest(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the request headers worth a test's while; never a credential's value."""
    return {name: headers[name] for name in OF_INTEREST if name in headers}


def credentials_present(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the credential headers that were sent with something in them."""
    return tuple(name for name in CREDENTIALS if headers.get(name))
