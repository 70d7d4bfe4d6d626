"""One line of a batch: asked like any other request, then answered, refused, or to be tried again later."""

from __future__ import annotations

import logging
from typing import Any, Final, Protocol

from shared.batches import Batch
from shared.batches.lines import Line, Result, Spent, answered
from shared.batches.slices import Later
from shared.core.chat import InferenceRequest, Priority
from shared.core.errors import (
    AllAttemptsFailedError,
    GatewayError,
    OverloadedError,
    RateLimitError,
    StorageUnavailableError,
)
from shared.core.records import Caller
from shared.executor import Answer, Refused, ask
from shared.gateway import Gateway
from shared.tracing import Served, serving

MAX_PASSES: Final = 5
"""How often a line is tried that nobody could answer; one that has to wait for its turn is tried until the window is over."""
FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 600.0
"""Seconds between passes: four times longer each time."""
OK: Final = 200

_WAITS: Final = (RateLimitError, OverloadedError, StorageUnavailableError)
"""Nobody was asked, or nobody had room: that is no failure of the line."""

_log = logging.getLogger(__name__)


class Wire(Protocol):
    """What the edge knows of the endpoints: bodies, answers, errors, and ids of requests."""

    async def read(self, gateway: Gateway, caller: Caller, path: str, body: dict[str, Any]) -> InferenceRequest:
        """Return the request a body stands for; raise a `GatewayError` that names the field."""
        ...

    def render(self, path: str, answer: Answer, body: dict[str, Any], latency_ms: int) -> dict[str, Any]:
        """Return what the endpoint answers with."""
        ...

    def problem(self, error: GatewayError) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of an error."""
        ...

    def unexpected(self, request_id: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of a bug."""
        ...

    def request_id(self) -> str:
        """Return a new request id."""
        ...


class Asking:
    """Asks the lines of a run, and remembers which models have to be left alone for a while."""

    def __init__(self, gateway: Gateway, batch: Batch, wire: Wire) -> None:
        self._gateway = gateway
        self._batch = batch
        self._wire = wire
        self._pauses: dict[str, float] = {}

    def pause_of(self, line: Line) -> float:
        """Return until when the model of a line is to be left alone (epoch seconds)."""
        return self._pauses.get(_model(line), 0.0)

    async def ask(self, line: Line, before: Later | None) -> Result | Later:
        """Ask a line."""
        gateway, batch, wire = self._gateway, self._batch, self._wire
        spent = Spent() if before is None else before.spent
        request_id, began = wire.request_id(), gateway.clock.monotonic()
        body = line.body if line.body.get("priority") else {**line.body, "priority": Priority.LOW.value}
        # Each line is a trace of its own: a batch may have many thousands.
        with serving(Served(request_id, gateway.telemetry.trace(None))):
            try:
                request = await wire.read(gateway, batch.caller, batch.endpoint, body)
                asked = await ask(gateway, batch.caller, request, request_id=request_id)
            except GatewayError as error:
                asked = Refused(error, 0)
        spent = spent.plus(asked.cost)
        if isinstance(asked, Answer):
            latency = round((gateway.clock.monotonic() - began) * 1000)
            shown = wire.render(batch.endpoint, asked, body, latency)
            return answered(batch.id, line, _response(OK, request_id, shown), spent, asked.completion.usage)
        if (later := self._later(line, asked.error, 0 if before is None else before.passes, spent)) is not None:
            return later
        status, shown = wire.problem(asked.error)
        return answered(batch.id, line, _response(status, request_id, shown), spent, None)

    def _later(self, line: Line, error: GatewayError, passes: int, spent: Spent) -> Later | None:
        """Return when to try a line again, None when its error is final."""
        if not isinstance(error, (*_WAITS, AllAttemptsFailedError)):
            return None
        waits = isinstance(error, _WAITS)
        if not waits and passes + 1 >= MAX_PASSES:
            return None
        now = self._gateway.clock.now()
        pause = min(FIRST_PAUSE * 4.0 ** min(passes, MAX_PASSES), LONGEST_PAUSE)
        if error.retry_after is not None:
            pause = max(error.retry_after, 0.1) if waits else max(error.retry_after, pause)
        if isinstance(error, RateLimitError):
            self._pauses[_model(line)] = now + pause
        return Later(passes if waits else passes + 1, now + pause * (1 + 0.2 * self._gateway.clock.draw()), spent)

    def failed(self, line: Line, error: BaseException) -> Result:
        """Return the result of a line that ended in a bug."""
        request_id = self._wire.request_id()
        _log.error("%s: line %d of %s failed by a bug", request_id, line.number, self._batch.id, exc_info=error)
        status, shown = self._wire.unexpected(request_id)
        return answered(self._batch.id, line, _response(status, request_id, shown), Spent(unpriced=True), None)


def _model(line: Line) -> str:
    model = line.body.get("model")
    return model if isinstance(model, str) else ""


def _response(status: int, request_id: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": request_id, "body": body}
