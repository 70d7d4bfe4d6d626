"""How busy this process is with callers who wait: what background work yields to."""

from __future__ import annotations


class Traffic:
    """Counts the requests in flight whose callers wait for their answer."""

    __slots__ = ("interactive",)

    def __init__(self) -> None:
        self.interactive = 0
