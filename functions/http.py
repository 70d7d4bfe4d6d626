"""Request → plain values → one use case → response: what every HTTP trigger does, in one wrapper.

The wrapper gives the request its id, finds out who calls (default deny), reads the body under the cap, stops the work of a
client that has gone, and renders every error. Ids, and everything else under ``x-switchyard-``, are ours: what a client sends
under those names is not read.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from starlette.requests import Request
from starlette.responses import Response

from functions.bodies import parse_object, read_body
from functions.clients import ClientGoneError, ClientWatch
from functions.endpoints import ALLOWED, AnyEndpoint, Endpoint, Handler, PublicEndpoint, Trigger
from functions.engine import engine_of
from functions.gateway import current
from functions.problems import Problem, logged, problem_of, unexpected_problem
from functions.rendering import RawHeaders, Rendered, empty_response, problem_response
from shared.core import ids
from shared.core.access import Identity
from shared.core.errors import (
    AllAttemptsFailedError,
    AuthenticationError,
    ConfigurationError,
    GatewayError,
    InvalidRequestError,
    PermissionDeniedError,
)
from shared.core.records import Caller
from shared.gateway import Gateway
from shared.ports import ChainEngine
from shared.settings import Settings
from shared.tracing import Served, serving

logger = logging.getLogger("switchyard.edge")

CLIENT_CLOSED: Final = 499
"""Nobody receives it; logs and proxies know it as "client closed request"."""

MAX_TOKEN: Final = 16 * 1024
"""Entra tokens of people in many groups have several thousand characters."""
INFERENCE: Final = frozenset({"Inference", "Responses"})
"""The tags of endpoints whose callers wait for a model."""
ANONYMOUS: Final = Identity(Caller(key_id="anonymous", project="default", name="anonymous"))
EXPOSED: Final = (
    b"x-request-id, x-switchyard-model, x-switchyard-deployment, x-switchyard-attempts, x-switchyard-cost-usd, "
    b"x-switchyard-simulated, retry-after, retry-after-ms, x-should-retry, idempotent-replayed, x-ratelimit-limit-requests, "
    b"x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, "
    b"x-ratelimit-reset-tokens, ratelimit, ratelimit-policy, location, preference-applied, x-switchyard-chain"
)

_READ: Final = frozenset(
    {
        b"authorization",
        b"api-key",
        b"x-api-key",
        b"content-length",
        b"origin",
        b"accept",
        b"idempotency-key",
        b"prefer",
        b"content-type",
        b"traceparent",
    }
)
"""The only headers of a client that mean anything here. Forwarding headers and our own names are not among them."""


@dataclass(frozen=True, slots=True)
class PublicCall:
    """One request to a public endpoint."""

    request: Request
    request_id: str


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request, as handlers take it."""

    request: Request
    request_id: str
    gateway: Gateway
    caller: Caller
    body: bytes
    headers: dict[bytes, bytes]
    chain_engine: ChainEngine | None = None

    @property
    def engine(self) -> ChainEngine:
        """The engine of chains; only rows that say ``durable`` have one."""
        if self.chain_engine is None:
            message = "This host runs no chains."
            raise ConfigurationError(message)
        return self.chain_engine

    def json(self) -> dict[str, Any]:
        """Return the body's JSON object; raise `InvalidRequestError`."""
        return parse_object(self.body)

    def query(self, name: str) -> str | None:
        """Return a query parameter, None when it is absent or empty."""
        return self.request.query_params.get(name) or None

    def path(self, name: str) -> str:
        """Return a path parameter, "" when the route has none of that name."""
        return str(self.request.path_params.get(name, ""))

    @property
    def accept(self) -> str:
        """What the client wants to be answered in, in lower case."""
        return self.headers.get(b"accept", b"").decode("latin-1").lower()


def new_request_id() -> str:
    """Return a request id: time-ordered, and not to be guessed."""
    return ids.request_id(time.time(), int.from_bytes(os.urandom(ids.RANDOM_BITS // 8)))


class Boundary:
    """Where exceptions end: leaving the block by one turns it into a `Problem`, and logs it by the table's level.

    This is the edge's only catch-all. What is not a `GatewayError` is a bug: logged with its stack, shown as a 500 that names
    the request id and nothing else. Cancellation passes through.
    """

    __slots__ = ("attempts", "gone", "problem", "request_id")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.problem: Problem | None = None
        self.gone = False
        self.attempts: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if error is None:
            return False
        if isinstance(error, GatewayError):
            self.problem = problem_of(error)
            if isinstance(error, AllAttemptsFailedError):
                self.attempts = len(error.failures)
            logger.log(self.problem.level, "%s %s", self.request_id, logged(error))
        elif isinstance(error, ClientGoneError):
            self.gone = True
        elif isinstance(error, Exception):
            self.problem = unexpected_problem(self.request_id)
            logger.error("%s failed by a bug", self.request_id, exc_info=error)
        else:
            return False
        return True

    def response(self) -> Rendered:
        """Return the answer to a request that did not succeed."""
        if self.problem is None:
            return empty_response(CLIENT_CLOSED)
        response = problem_response(self.problem)
        if self.attempts is not None:
            response.raw_headers.append((b"x-switchyard-attempts", b"%d" % self.attempts))
        return response


def endpoint(row: AnyEndpoint) -> Trigger:
    """Return the trigger of an endpoint: the one place where a request becomes a `Call` and an error an answer."""
    return _public(row) if isinstance(row, PublicEndpoint) else _authenticated(row)


def _public(row: PublicEndpoint) -> Trigger:
    async def trigger(request: Request) -> Response:
        request_id = new_request_id()
        response: Response | None = None
        with serving(Served(request_id)), Boundary(request_id) as boundary:
            response = await row.handler(PublicCall(request, request_id))
        return _finish(response or boundary.response(), request_id, ())

    return trigger


def _authenticated(row: Endpoint) -> Trigger:
    handler = _counted(row.handler) if row.tag in INFERENCE and row.method == "POST" else row.handler
    # A mistyped filter must not show everything as if it were filtered.
    known = frozenset(parameter.name for parameter in row.parameters) if row.method == "GET" and row.parameters else None

    async def answered(request: Request, client: object = None) -> Response:
        request_id = new_request_id()
        headers = _read_headers(request)
        response: Response | None = None
        marks: RawHeaders = []
        with serving(Served(request_id)) as served, Boundary(request_id) as boundary:
            gateway = await current()
            served.place(gateway.telemetry.trace(_traceparent(headers)))
            marks = _marks(gateway.settings, headers)
            caller = _admit(row, await authenticate(gateway, headers))
            if known is not None and request.scope["query_string"]:
                _check_query(request, known)
            chain_engine = None if client is None else engine_of(client)
            if not row.reads_body:
                response = await handler(Call(request, request_id, gateway, caller, b"", headers, chain_engine))
            else:
                limit, declared = gateway.settings.max_body_bytes, headers.get(b"content-length")
                body = await read_body(request.receive, declared=declared, limit=limit)
                with ClientWatch(request.receive):
                    response = await handler(Call(request, request_id, gateway, caller, body, headers, chain_engine))
        return _finish(response or boundary.response(), request_id, marks)

    async def trigger(request: Request) -> Response:
        return await answered(request)

    async def durable_trigger(request: Request, client: str) -> Response:
        return await answered(request, client)

    return durable_trigger if row.durable else trigger


def _counted(handler: Handler) -> Handler:
    """Return a handler whose calls background work yields to, until they are answered or their stream begins."""

    async def counted(call: Call) -> Response:
        traffic = call.gateway.traffic
        traffic.enter()
        try:
            return await handler(call)
        finally:
            traffic.leave()

    return counted


def _admit(row: Endpoint, identity: Identity) -> Caller:
    """Return who calls, if they have a role that may; raise `PermissionDeniedError`."""
    if identity.roles.isdisjoint(ALLOWED[row.least]):
        has = ", ".join(f"`{role}`" for role in sorted(identity.roles)) or "none"
        message = f"This needs the role `{row.least}`; this key has {has}."
        raise PermissionDeniedError(message)
    return identity.caller


def _marks(settings: Settings, headers: dict[bytes, bytes]) -> RawHeaders:
    """Return the headers of every answer, also of a refusal: what lets a browser read it, and that nothing in it is real."""
    marks = cors_headers(settings.cors_origins, headers.get(b"origin")) if settings.cors_origins else []
    if settings.simulated:
        marks.append((b"x-switchyard-simulated", b"true"))
    return marks


def _check_query(request: Request, known: frozenset[str]) -> None:
    for name in request.query_params:
        if name not in known and name != "api-version":
            message = f"There is no query parameter `{name:.60}` here. Known: {', '.join(sorted(known))}."
            raise InvalidRequestError(message, param=name[:60], code="unknown_parameter")


def _finish(response: Response, request_id: str, more: RawHeaders | tuple[()]) -> Response:
    response.raw_headers.append((b"x-request-id", request_id.encode()))
    response.raw_headers.extend(more)
    return response


def _traceparent(headers: dict[bytes, bytes]) -> str | None:
    found = headers.get(b"traceparent")
    return None if found is None else found.decode("latin-1")


def _read_headers(request: Request) -> dict[bytes, bytes]:
    return {name: value for name, value in request.scope["headers"] if name in _READ}


async def authenticate(gateway: Gateway, headers: dict[bytes, bytes]) -> Identity:
    """Return who calls; raise `AuthenticationError` when that is not known and calls without a key are not allowed."""
    token = _token(headers)
    if token is None:
        if gateway.settings.allow_anonymous:
            return ANONYMOUS
        message = "No API key was sent. Send one as `Authorization: Bearer KEY`, `api-key: KEY` or `x-api-key: KEY`."
        raise AuthenticationError(message, code="missing_api_key")
    identity = await gateway.keys.authenticate(token) if len(token) <= MAX_TOKEN else None
    if identity is None:
        message = "The API key is not known here: it was never issued, it has expired, or it was revoked."
        raise AuthenticationError(message)
    return identity


def _token(headers: dict[bytes, bytes]) -> str | None:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip():
        token = headers.get(b"api-key") or headers.get(b"x-api-key") or b""
    token = token.strip()
    return token.decode("latin-1") if token else None


def cors_headers(allowed: tuple[str, ...], origin: bytes | None) -> RawHeaders:
    """Return what lets a browser page of an allowed origin read the answer; nothing for any other."""
    if origin is None or not ("*" in allowed or origin.decode("latin-1") in allowed):
        return []
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", EXPOSED),
        (b"vary", b"Origin"),
    ]
