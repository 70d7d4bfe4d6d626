"""The FunctionApp's HTTP triggers as one ASGI application and its timers as tasks: the Functions host, on one machine.

Orchestrators and activities are found here too; `local.durable` runs them. A function bound to a durable client is handed the
engine itself in its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from azure.functions.decorators.http import HttpTrigger
from azure.functions.decorators.timer import TimerTrigger
from starlette.requests import Request
from starlette.responses import Response

from functions.paths import path_pattern, specificity
from functions.problems import SERVER_ERROR, error_body
from functions.rendering import json_response
from local.schedule import Schedule, parse_schedule

if TYPE_CHECKING:
    import re

    import azure.functions as func

    from shared.ports import ChainEngine

logger = logging.getLogger("switchyard.host")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Handler = Callable[..., Awaitable[Response]]
"""Takes a request; that of a function bound to a durable client also the engine, by the binding's name."""
Orchestrator = Callable[[Any], Any]
"""Takes a context and is a generator of what it waits for."""
Activity = Callable[[Any], Awaitable[Any]]
"""Takes and returns JSON."""

FULL_WAIT_SECONDS: Final = 1
DURABLE_CLIENT: Final = "durableClient"


@dataclass(frozen=True, slots=True)
class HttpFunction:
    """An HTTP trigger: ``route`` begins with a slash, ``client`` is the parameter that takes the engine, if there is one."""

    name: str
    route: str
    methods: tuple[str, ...]
    handler: Handler
    client: str | None = None

    def bound(self, engine: ChainEngine | None) -> Handler:
        """Return the handler as a function of its request alone."""
        return self.handler if self.client is None else partial(self.handler, **{self.client: engine})


@dataclass(frozen=True, slots=True)
class TimerFunction:
    """A timer trigger. ``client`` is the parameter that takes the engine, if there is one."""

    name: str
    schedule: Schedule
    run: Callable[..., Awaitable[None]]
    client: str | None = None

    def bound(self, engine: ChainEngine | None) -> Callable[[Any], Awaitable[None]]:
        """Return the timer's function as one of its request alone."""
        return self.run if self.client is None else partial(self.run, **{self.client: engine})


class Functions(NamedTuple):
    """An app's functions by their triggers; orchestrators and activities by their names."""

    http: list[HttpFunction]
    timers: list[TimerFunction]
    orchestrators: dict[str, Orchestrator]
    activities: dict[str, Activity]


def functions_of(app: func.FunctionApp) -> Functions:
    """Return the app's functions. May be asked once per app: the library builds them anew each time."""
    found = Functions([], [], {}, {})
    for function in app.get_functions():
        trigger, name, run = function.get_trigger(), str(function.get_function_name()), function.get_user_function()
        if isinstance(trigger, HttpTrigger):
            methods = tuple(str(getattr(method, "value", method)).upper() for method in trigger.methods or ("GET", "POST"))
            found.http.append(HttpFunction(name, "/" + (trigger.route or name), methods, run, _client(function)))
        elif isinstance(trigger, TimerTrigger):
            found.timers.append(TimerFunction(name, parse_schedule(trigger.schedule), run, _client(function)))
        else:
            _add_durable(found, name, function)
    return found


def _client(function: func.Function) -> str | None:
    """Return the parameter of a function's durable client."""
    return next((str(binding.name) for binding in function.get_bindings() if binding.type == DURABLE_CLIENT), None)


def _add_durable(found: Functions, name: str, function: func.Function) -> None:
    # Told by the triggers' names, so that nothing but `functions.chains` needs the library that makes them.
    trigger: Any = function.get_trigger()
    run: Any = function.get_user_function()
    match getattr(trigger, "type", None):
        case "orchestrationTrigger":
            found.orchestrators[trigger.orchestration or name] = run.orchestrator_function
        case "activityTrigger":
            found.activities[trigger.activity or name] = _activity(run, str(trigger.name))
        case other:
            message = f"the local host does not know what {name}'s trigger, {other}, is"
            raise TypeError(message)


def _activity(run: Callable[..., Awaitable[Any]], parameter: str) -> Activity:
    async def performed(given: Any) -> Any:
        return await run(**{parameter: given})

    return performed


class Mounted:
    """The ASGI application. Beyond ``max_in_flight`` requests at once it answers 503 without looking at more.

    ``engine`` runs what goes on in the background.
    """

    def __init__(self, functions: Iterable[HttpFunction], *, max_in_flight: int, engine: ChainEngine | None = None) -> None:
        ordered = sorted(functions, key=lambda function: specificity(function.route))
        self._exact: dict[tuple[str, str], Handler] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Handler]] = []
        for function in ordered:
            for method in function.methods:
                if "{" in function.route:
                    self._patterns.append((method, path_pattern(function.route), function.bound(engine)))
                else:
                    self._exact[method, function.route] = function.bound(engine)
        self._max_in_flight = max_in_flight
        self.engine = engine
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        if self.in_flight >= self._max_in_flight:
            await _full()(scope, receive, send)
            return
        self.in_flight += 1
        try:
            handler = self._exact.get((scope["method"], scope["path"])) or self._find(scope)
            response = await handler(Request(scope, receive, send)) if handler is not None else _not_allowed()
            await response(scope, receive, send)
        finally:
            self.in_flight -= 1

    def _find(self, scope: Scope) -> Handler | None:
        method, path = scope["method"], scope["path"]
        if method == "HEAD":
            method = "GET"  # the server leaves the body out
        if (handler := self._exact.get((method, path.rstrip("/")))) is not None:
            return handler
        for known, pattern, found in self._patterns:
            if known == method and (match := pattern.fullmatch(path)) is not None:
                scope["path_params"] = match.groupdict()
                return found
        return None


def _full() -> Response:
    message = f"This instance has as many requests as it can carry. Try again in {FULL_WAIT_SECONDS} s."
    body = error_body(message, kind=SERVER_ERROR, param=None, code="overloaded")
    wait = str(FULL_WAIT_SECONDS).encode()
    return json_response(body, status=503, headers=[(b"retry-after", wait), (b"retry-after-ms", wait + b"000")])


def _not_allowed() -> Response:
    body = error_body("This method is not served here.", kind="invalid_request_error", param=None, code="method_not_allowed")
    return json_response(body, status=405)


async def run_timers(timers: Iterable[TimerFunction], engine: ChainEngine | None = None) -> None:
    """Run timer functions at their times until cancelled; one that still runs is not started again beside itself."""
    known = list(timers)
    running: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            now = datetime.now(UTC)
            await asyncio.sleep(1 - now.microsecond / 1_000_000)
            moment = datetime.now(UTC)
            for timer in known:
                if timer.name not in running and timer.schedule.due(moment):
                    task = asyncio.ensure_future(timer.bound(engine)(SimpleNamespace(past_due=False)))
                    running[timer.name] = task
                    task.add_done_callback(partial(_ended, running, timer.name))
    finally:
        for task in list(running.values()):
            task.cancel()


def _ended(running: dict[str, asyncio.Task[None]], name: str, task: asyncio.Task[None]) -> None:
    running.pop(name, None)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the timer %s failed: %s", name, error, exc_info=error)
