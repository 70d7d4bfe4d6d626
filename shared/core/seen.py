"""What an answer that is passed on event by event has shown so far."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shared.core.chat import Chunk, Usage


@dataclass(slots=True)
class Seen:
    """What went by in a stream: the usage the provider reported, or at least the length of the text."""

    usage: Usage | None = None
    text_length: int = 0
    response_model: str | None = None

    def note(self, chunk: Chunk) -> None:
        """Take one event in."""
        self.text_length += chunk.text_length
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.response_model is not None:
            self.response_model = chunk.response_model

    def partial(self) -> Seen:
        """Return the same for a stream that did not come to its end: what was reported so far is an underestimate."""
        return replace(self, usage=None if self.usage is None else replace(self.usage, exact=False))
