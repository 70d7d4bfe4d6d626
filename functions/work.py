"""What every endpoint that asks a model can do with a stored body: read it into a request, and show its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from shared.core.chat import InferenceRequest
from shared.core.records import Caller
from shared.executor import Answer
from shared.gateway import Gateway


class Asking(Protocol):
    """Who asks: an HTTP call, or a body that was stored."""

    @property
    def gateway(self) -> Gateway: ...  # noqa: D102
    @property
    def caller(self) -> Caller: ...  # noqa: D102
    def path(self, name: str) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Stored:
    """A body that was stored: whose it is."""

    gateway: Gateway
    caller: Caller

    def path(self, name: str) -> str:
        """Return "": a model named in the path was put into the body when it was stored."""
        del name
        return ""


@dataclass(frozen=True, slots=True)
class Work:
    """An endpoint's two halves. ``path`` is OpenAI's (``/v1/chat/completions``).

    ``read`` checks a body and returns the request it stands for, or raises a `GatewayError` that names the field. ``render``
    takes the answer, the body it answers, and how long it took in milliseconds, and returns what the endpoint answers with.
    """

    path: str
    read: Callable[[Asking, dict[str, Any]], Awaitable[InferenceRequest]]
    render: Callable[[Answer, dict[str, Any], int], dict[str, Any]]
