"""What the server and the protocols say to each other: a request received, an answer ready to send, a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import orjson

from local.simulator.attempts import Billed
from local.simulator.faults import FaultKind
from local.simulator.memory import PromptMemory
from local.simulator.script import Settings


@dataclass(frozen=True, slots=True)
class Received:
    """One request, its body parsed. ``seq`` numbers it; ``deployment`` comes from Azure's path; ``at`` is seconds of 1970."""

    seq: int
    at: float
    profile: str
    operation: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    payload: dict[str, Any]
    settings: Settings
    memory: PromptMemory
    deployment: str | None = None
    azure: bool = False

    @property
    def model(self) -> str:
        """The deployment in the path, or the model in the body."""
        return self.deployment or str(self.payload.get("model") or "")


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event, carrying ``tokens`` of output.

    ``part`` says which it is: open, start, content, stop, finish, usage, end or error.

    ``payload`` None is OpenAI's ``[DONE]``.
    """

    part: str
    payload: dict[str, Any] | None
    name: str | None = None
    tokens: int = 0

    def encode(self, end: str = "\n") -> bytes:
        """Return the event's bytes, its lines ended by ``end``."""
        name = f"event: {self.name}{end}".encode() if self.name else b""
        data = b"[DONE]" if self.payload is None else orjson.dumps(self.payload)
        return name + b"data: " + data + 2 * end.encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer: a body, or the events of a stream; and what it is billed."""

    billed: Billed
    body: dict[str, Any] = field(default_factory=dict)
    events: tuple[Event, ...] | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as protocols word it. ``extra`` goes into OpenAI's error object as it is."""

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class RefusedError(Exception):
    """The request itself is wrong: a provider would answer it with this problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def refuse(message: str, *, param: str | None = None, code: str | None = None) -> NoReturn:
    """Refuse the request for a bad field, with 400."""
    raise RefusedError(Problem(400, "invalid_request_error", code, message, param))


class Dialect(Protocol):
    """A provider's protocol: pure functions from what was received to what is sent."""

    name: str

    def answer(self, received: Received) -> Answer:
        """Answer the request. Raise `RefusedError` when a provider would refuse it."""
        ...

    def error_body(self, problem: Problem) -> dict[str, Any]:
        """Render an error response's body."""
        ...

    def error_event(self, problem: Problem) -> Event:
        """Render an error inside a stream."""
        ...

    def headers(self, received: Received) -> dict[str, str]:
        """Return the provider's own response headers, names in lower case."""
        ...

    def fault_problem(self, kind: FaultKind, received: Received) -> Problem:
        """Return how this provider words a scripted fault that is an HTTP error."""
        ...
