"""Which engine a trigger was handed: Durable Functions' client as the worker gives it, or a local host's engine itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.ports import ChainEngine


class Engines:
    """Makes engines of what bindings give, one for each text. ``functions.chains`` says how, so that it alone knows Durable."""

    __slots__ = ("_made", "_make")

    def __init__(self) -> None:
        self._made: dict[str, ChainEngine] = {}
        self._make: Callable[[str], ChainEngine] | None = None

    def use(self, make: Callable[[str], ChainEngine]) -> None:
        """Make engines this way from now on."""
        self._make = make

    def engine_of(self, client: object) -> ChainEngine:
        """Return the engine of what a binding gave; a local host gives the engine itself."""
        if not isinstance(client, str):
            return client  # type: ignore[return-value]  # the local host's: it is one
        known = self._made.get(client)
        if known is None:
            if self._make is None:
                message = "functions.chains has not been imported"
                raise RuntimeError(message)
            known = self._made[client] = self._make(client)
        return known


ENGINES: Final = Engines()
"""The Functions worker gives handlers no place to keep what they share, so this is it."""

engine_of = ENGINES.engine_of
