"""What the use cases need of the world: Protocols of one to six methods. Adapters implement them, tests replace them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from shared.core.access import Identity
from shared.core.chat import Chunk, Completion, Json, Operation
from shared.core.errors import ConflictError, InvalidRequestError, NotFoundError
from shared.core.failures import Failed
from shared.core.limits import Limited, Verdict
from shared.core.records import RequestRecord
from shared.core.registry import Deployment, Model, Provider, Timeouts
from shared.core.telemetry import Content, Measurement, TraceContext

# ---- providers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt: what to send to which deployment, and how long to wait for it.

    ``payload`` is OpenAI's object as the caller sent it; the adapter puts in the deployment's own model name and translates
    what its provider names differently. ``max_output_tokens`` is set when the gateway must bound an unbounded request.
    """

    operation: Operation
    payload: Json
    stream: bool
    provider: Provider
    model: Model
    deployment: Deployment
    timeouts: Timeouts
    request_id: str


class ModelProvider(Protocol):
    """One protocol that model providers speak. Failures are values; only cancellation is raised."""

    async def complete(self, call: Call) -> Completion | Failed:
        """Ask for a whole answer (chat or embeddings), for at most ``call.timeouts.whole`` seconds."""
        ...

    def stream(self, call: Call) -> AsyncGenerator[list[Chunk | Failed], None]:
        """Ask for a streamed answer; yield the events that came together as one list, never an empty one, none held back.

        A `Failed` is always the very last event; an end without one is a complete answer. Closing the generator, or cancelling
        it, closes the connection to the provider.
        """
        ...


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request to a provider, ready to send."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None


class HttpResponse(Protocol):
    """A response whose head has arrived. Use as an async context manager: leaving it early drops the connection."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""

    async def read(self, limit: int) -> bytes:
        """Return the whole body; raise `ResponseTooLargeError` above ``limit`` bytes."""
        ...

    def chunks(self, idle: float) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes; raise `TransportTimeoutError` after ``idle`` seconds of silence."""
        ...

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, drop it otherwise. May be called twice."""
        ...


class HttpTransport(Protocol):
    """The process's one HTTP client. It never retries, never follows redirects, never adds headers of its own."""

    async def send(self, request: HttpRequest, *, connect: float, head: float) -> HttpResponse:
        """Send and wait for the response's head, at most ``head`` seconds after the connection stands.

        Raise a `TransportError`.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


class TransportError(Exception):
    """The exchange broke at the HTTP level or below. The message is ours and holds no URL."""


class ConnectError(TransportError):
    """No connection: the name does not resolve, refused, no route. Nothing was sent."""


class TlsError(TransportError):
    """The TLS handshake or the certificate failed. Nothing was sent."""


class TransportTimeoutError(TransportError):
    """A time limit passed. ``sent`` says whether the request may have reached the provider."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class DisconnectedError(TransportError):
    """The connection was lost, or what came was not HTTP, after the request was sent."""


class ResponseTooLargeError(TransportError):
    """The body is over the cap."""


class TokenSource(Protocol):
    """Entra tokens."""

    async def token(self, scope: str) -> str:
        """Return a bearer token for ``scope``; raise `TransportError` when none can be had."""
        ...

    async def aclose(self) -> None:
        """Close what it holds."""
        ...


class TokenVerifier(Protocol):
    """Somebody else's tokens, judged here: Entra ID's in place of keys."""

    async def verify(self, token: str) -> Identity | None:
        """Return whom a token stands for, None when it is not good.

        Raise `StorageUnavailableError` when that can't be told, because the keys to judge it by could not be had.
        """
        ...

    async def aclose(self) -> None:
        """Give up what is being fetched."""
        ...


# ---- storage ---------------------------------------------------------------------------------------------------------

Value = str | int | float | bool | bytes
"""A property's value: text, 64-bit integer, double, boolean, binary."""


@dataclass(frozen=True, slots=True)
class Entity:
    """A row, in Table Storage's terms. ``etag`` is "" until it has been stored."""

    partition: str
    row: str
    properties: Mapping[str, Value] = field(default_factory=dict)
    etag: str = ""


class Action(StrEnum):
    """What an operation of a transaction does."""

    INSERT = "insert"
    REPLACE = "replace"  # only if the stored ETag is the entity's
    UPSERT = "upsert"
    DELETE = "delete"  # only if the stored ETag is the entity's; "*" deletes whatever is there


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of a transaction."""

    action: Action
    entity: Entity


class EntityExistsError(ConflictError):
    """An insert found the row taken."""


class EntityChangedError(ConflictError):
    """A conditional write found another ETag."""


class EntityNotFoundError(NotFoundError):
    """A conditional write or delete found no row."""


class InvalidEntityError(InvalidRequestError):
    """Table Storage could not hold this: a key, a name, a value or a size outside its limits. Says which limit."""


MAX_TRANSACTION = 100


class EntityTable(Protocol):
    """One table of rows under (partition, row), each with an ETag that changes with every write.

    Errors: `EntityExistsError`, `EntityChangedError`, `EntityNotFoundError`, `InvalidEntityError`, and
    `StorageUnavailableError` when the store did not answer. A transaction (1 to 100 operations, one partition, each row
    once) happens wholly or not at all.
    """

    async def get(self, partition: str, row: str) -> Entity | None:
        """Return the row, or None."""
        ...

    def query(
        self, partition: str, *, start: str = "", end: str | None = None, limit: int | None = None
    ) -> AsyncGenerator[Entity, None]:
        """Yield rows with ``start <= row < end`` in the order of their row keys."""
        ...

    async def insert(self, entity: Entity) -> str:
        """Store a new row; return its ETag."""
        ...

    async def replace(self, entity: Entity) -> str:
        """Store over the row whose ETag is the entity's; return the new ETag."""
        ...

    async def delete(self, partition: str, row: str, etag: str = "*") -> None:
        """Delete the row."""
        ...

    async def transact(self, ops: Sequence[Op]) -> list[str]:
        """Do all or nothing; return the new ETags ("" for deletes)."""
        ...


class Tables(Protocol):
    """The store that holds the tables."""

    def table(self, name: str) -> EntityTable:
        """Return the table of that name, made at its first write. Names: 3 to 63 letters and digits, a letter first."""
        ...

    async def aclose(self) -> None:
        """Write what is pending and close."""
        ...


# ---- rate limits -----------------------------------------------------------------------------------------------------


class LimitBackend(Protocol):
    """Another store of rate limits than the tables, asked instead of them as long as it answers. It never raises."""

    async def admit(self, limits: Sequence[Limited], tokens: int) -> Verdict | None:
        """Count one request of ``tokens`` against all limits, or against none; None when the backend does not answer."""
        ...

    async def credit(self, limits: Sequence[Limited], *, requests: int, tokens: int, tick: int) -> None:
        """Take back part of what was counted under a verdict's tick; lost when the backend does not answer."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


# ---- chains ----------------------------------------------------------------------------------------------------------


class ChainEngine(Protocol):
    """What runs chains: Durable Functions, or what stands in for it on one machine.

    ``name`` is "durable" for an engine that never forgets, and a name of its own for one that forgets at its process's end.
    """

    name: str

    async def start(self, orchestrator: str, instance: str, given: Mapping[str, object]) -> None:
        """Start an orchestration; one of that instance id that runs already is left alone. Raise `StorageUnavailableError`."""
        ...

    async def cancel(self, instance: str) -> None:
        """Raise the event ``cancel``; nothing happens when the instance is not running. Raise `StorageUnavailableError`."""
        ...


# ---- time ------------------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """Time and chance, so that tests can own them."""

    def now(self) -> float:
        """Return the wall clock: seconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def draw(self) -> float:
        """Return chance: a number from 0 up to but not including 1."""
        ...


# ---- telemetry -------------------------------------------------------------------------------------------------------


class Telemetry(Protocol):
    """Where what happened is told. Nothing here blocks, and nothing raises: telling must never fail a request."""

    content: bool
    """Whether prompts and answers may be told: the operator opted in."""

    def trace(self, traceparent: str | None) -> TraceContext | None:
        """Return the place of a request that begins now, under the caller's span if it named one; None when nothing is told."""
        ...

    def ended(self, record: RequestRecord, trace: TraceContext | None, content: Content | None = None) -> None:
        """Tell of a request that has ended, once: its spans under ``trace``, if there is one, and its measurements."""
        ...

    def gauge(self, measurements: Sequence[Measurement]) -> None:
        """Take the latest values of gauges; each is told again until another comes."""
        ...

    async def aclose(self) -> None:
        """Tell what is pending, for a few seconds at most."""
        ...
