"""The FunctionApp's HTTP triggers as one ASGI application and its timers as tasks: the Functions host, on one machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

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

logger = logging.getLogger("switchyard.host")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Handler = Callable[[Request], Awaitable[Response]]

FULL_WAIT_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class HttpFunction:
    """An HTTP trigger: ``route`` begins with a slash."""

    name: str
    route: str
    methods: tuple[str, ...]
    handler: Handler


@dataclass(frozen=True, slots=True)
class TimerFunction:
    """A timer trigger."""

    name: str
    schedule: Schedule
    run: Callable[[Any], Awaitable[None]]


def functions_of(app: func.FunctionApp) -> tuple[list[HttpFunction], list[TimerFunction]]:
    """Return the app's HTTP and timer functions. May be asked once per app: the library builds them anew each time."""
    http: list[HttpFunction] = []
    timers: list[TimerFunction] = []
    for function in app.get_functions():
        trigger, name = function.get_trigger(), str(function.get_function_name())
        if isinstance(trigger, HttpTrigger):
            methods = tuple(str(getattr(method, "value", method)).upper() for method in trigger.methods or ("GET", "POST"))
            http.append(HttpFunction(name, "/" + (trigger.route or name), methods, function.get_user_function()))
        elif isinstance(trigger, TimerTrigger):
            timers.append(TimerFunction(name, parse_schedule(trigger.schedule), function.get_user_function()))
    return http, timers


class Mounted:
    """The ASGI application. Beyond ``max_in_flight`` requests at once it answers 503 without looking at more."""

    def __init__(self, functions: Iterable[HttpFunction], *, max_in_flight: int) -> None:
        ordered = sorted(functions, key=lambda function: specificity(function.route))
        self._exact: dict[tuple[str, str], Handler] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Handler]] = []
        for function in ordered:
            for method in function.methods:
                if "{" in function.route:
                    self._patterns.append((method, path_pattern(function.route), function.handler))
                else:
                    self._exact[method, function.route] = function.handler
        self._max_in_flight = max_in_flight
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


async def run_timers(timers: Iterable[TimerFunction]) -> None:
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
                    task = asyncio.ensure_future(timer.run(SimpleNamespace(past_due=False)))
                    running[timer.name] = task
                    task.add_done_callback(partial(_ended, running, timer.name))
    finally:
        for task in list(running.values()):
            task.cancel()


def _ended(running: dict[str, asyncio.Task[None]], name: str, task: asyncio.Task[None]) -> None:
    running.pop(name, None)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the timer %s failed: %s", name, error, exc_info=error)
