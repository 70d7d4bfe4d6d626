"""Which request the running task serves: what logs are marked with, and where spans belong."""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

    from shared.core.telemetry import TraceContext


@dataclass(frozen=True, slots=True)
class Served:
    """A request, and its place in a trace; ``trace`` is None when nothing is told."""

    request_id: str
    trace: TraceContext | None = None


SERVED: Final[ContextVar[Served | None]] = ContextVar("served", default=None)
"""Set by the edge at a request's begin, and by activities; None outside of both."""


def serve_nobody() -> None:
    """Say that the running task goes on when the request that started it has ended: its first statement."""
    SERVED.set(None)


class serving:  # noqa: N801  (reads as what it does: `with serving(served)`)
    """Let the block, and the tasks it starts, serve a request; None leaves things as they are. Entering returns this."""

    __slots__ = ("_served", "_token")

    def __init__(self, served: Served | None) -> None:
        self._served = served
        self._token: Token[Served | None] | None = None

    def __enter__(self) -> Self:
        if self._served is not None:
            self._token = SERVED.set(self._served)
        return self

    def place(self, trace: TraceContext | None) -> None:
        """Say where the request's trace goes on, as soon as that is known."""
        if self._served is not None and trace is not None:
            SERVED.set(Served(self._served.request_id, trace))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._token is not None:
            SERVED.reset(self._token)
