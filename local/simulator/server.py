"""The simulator's server: requests in, attempts logged, plans performed; and the control calls under ``/_sim/``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Final, Self

import orjson
from aiohttp import web

from local.simulator.answers import EMOJI
from local.simulator.anthropic_dialect import AnthropicDialect
from local.simulator.attempts import Attempt, AttemptLog, Billed, credentials_present, headers_of_interest
from local.simulator.faults import HARMLESS, Fault, FaultKind, ScriptError
from local.simulator.memory import PromptMemory
from local.simulator.openai_dialect import OpenAIDialect
from local.simulator.paths import Target, find_target
from local.simulator.plans import Case, Plan, fault_plan, fault_plan_without_answer, good_plan, needs_answer, problem_plan
from local.simulator.protocol import Answer, Dialect, Problem, Received, RefusedError, refuse
from local.simulator.script import Script, Settings, draw
from local.simulator.wire import perform

_DEEPEST: Final = 100
_MAX_BODY: Final = 64 * 1024 * 1024
_DIALECTS: Final[Mapping[str, Dialect]] = {
    "openai": OpenAIDialect(),
    "azure": OpenAIDialect(azure=True),
    "anthropic": AnthropicDialect(),
}
_NOTHING_HERE: Final = Problem(404, "invalid_request_error", "unknown_url", "There is nothing at this path (simulator).")


class Simulator:
    """A running simulator. Use `start_simulator`; close it with `aclose`, or use it as an async context manager."""

    def __init__(self, *, log_limit: int) -> None:
        self._script = Script()
        self._log = AttemptLog(log_limit)
        self._memory = PromptMemory()
        self._closing = asyncio.Event()
        self._runner: web.ServerRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The base URL without a profile: ``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def counters(self) -> dict[str, Any]:
        """Totals since the last reset: requests, active, by profile, model, fault, status and outcome, tokens billed."""
        return {**self._log.counters(), "faults_pending": self._script.pending()}

    def script(self, document: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Apply a script, the same document that ``POST /_sim/script`` takes. Raise `ScriptError`."""
        self._script.apply(document)

    def log(self, since: int = 0) -> list[Attempt]:
        """Return the attempts numbered above ``since``, oldest first."""
        return self._log.since(since)

    def reset(self) -> None:
        """Forget script, log, counters and prompt caches."""
        self._script.clear()
        self._log.clear()
        self._memory.clear()

    async def serve(self, port: int) -> None:
        """Listen on loopback. Raise OSError when the port is taken."""
        server = web.Server(self._handle, handler_cancellation=True, access_log=None, keepalive_timeout=75.0)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        self._runner = runner
        self.port = int(runner.addresses[0][1])

    async def aclose(self) -> None:
        """Stop listening, let go of hanging requests, drop every connection. May be called twice."""
        self._closing.set()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path.startswith("/_sim/"):
            return await self._control(request, path.removeprefix("/_sim/"))
        target = find_target(path)
        if target is None or request.method not in {"GET", "POST"}:
            return _json(_DIALECTS["openai"].error_body(_NOTHING_HERE), status=_NOTHING_HERE.status)
        attempt = self._log.open(_new_attempt(request, target))
        started = time.monotonic()
        outcome = "failed"
        try:
            response, outcome = await self._attempt(request, target, attempt)
        except asyncio.CancelledError:
            outcome = "closed" if self._closing.is_set() else "disconnected"
            raise
        except ConnectionError:
            # aiohttp finds out for itself, quietly, when it tries to send this.
            outcome = "disconnected"
            return web.Response()
        else:
            return response
        finally:
            attempt.duration_ms = (time.monotonic() - started) * 1000
            self._log.close(attempt, outcome)

    async def _attempt(self, request: web.BaseRequest, target: Target, attempt: Attempt) -> tuple[web.StreamResponse, str]:
        dialect = _DIALECTS[target.dialect]
        try:
            payload, attempt.body_bytes = await _payload(request)
        except RefusedError as refused:
            plan = problem_plan(dialect, refused.problem)
            return await self._perform(request, plan, attempt, {}, Billed()), "refused"
        received = self._received(request, target, attempt, payload)
        attempt.model = received.model[:200]
        attempt.stream = payload.get("stream") is True
        attempt.parameters = tuple(sorted(payload))
        headers = dialect.headers(received)
        attempt.request_id = headers.get("x-request-id") or headers.get("request-id", "")
        fault = None
        if request.method == "POST":
            fault = self._script.take(target.profile, received.model, received.settings.seed)
        await _wait(received)
        plan, billed, outcome = _plan(received, dialect, fault)
        attempt.fault = fault.kind.value if fault is not None and outcome != "refused" else None
        return await self._perform(request, plan, attempt, headers, billed), outcome

    async def _perform(
        self, request: web.BaseRequest, plan: Plan, attempt: Attempt, headers: Mapping[str, str], billed: Billed
    ) -> web.StreamResponse:
        return await perform(request, plan, headers=headers, attempt=attempt, billed=billed, closing=self._closing)

    def _received(self, request: web.BaseRequest, target: Target, attempt: Attempt, payload: dict[str, Any]) -> Received:
        model = target.deployment or str(payload.get("model") or "")
        return Received(
            seq=attempt.seq,
            at=attempt.at,
            profile=target.profile,
            operation=target.operation,
            query=request.query,
            headers=request.headers,
            payload=payload,
            settings=self._script.settings(target.profile, model),
            memory=self._memory,
            deployment=target.deployment,
            azure=target.dialect == "azure",
        )

    async def _control(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        if (request.method, name) == ("GET", "log"):
            return self._log_response(request)
        if (request.method, name) == ("POST", "reset"):
            self.reset()
            return _json({"ok": True})
        if (request.method, name) != ("POST", "script"):
            return _json({"error": "GET /_sim/log?since=N, POST /_sim/script, POST /_sim/reset"}, status=404)
        try:
            document = orjson.loads(await _body(request))
            self.script(document if isinstance(document, list) else [document])
        except (ScriptError, orjson.JSONDecodeError, RefusedError) as error:
            return _json({"error": str(error)}, status=400)
        return _json({"ok": True, "faults_pending": self._script.pending()})

    def _log_response(self, request: web.BaseRequest) -> web.StreamResponse:
        since = request.query.get("since", "0")
        if not since.isascii() or not since.isdigit():
            return _json({"error": "'since' must be an attempt's number"}, status=400)
        attempts = self.log(int(since))
        newest = attempts[-1].seq if attempts else int(since)
        return _json({"attempts": [asdict(item) for item in attempts], "next": newest, "counters": self.counters})


async def start_simulator(port: int = 0, *, log_limit: int = 10_000) -> Simulator:
    """Start a simulator on loopback in the running event loop; port 0 takes a free one.

    ``log_limit`` is how many attempts the log keeps. Raise OSError when the port is taken.
    """
    simulator = Simulator(log_limit=log_limit)
    await simulator.serve(port)
    return simulator


def _new_attempt(request: web.BaseRequest, target: Target) -> Attempt:
    return Attempt(
        seq=0,
        at=time.time(),
        profile=target.profile,
        protocol=target.dialect,
        operation=target.operation,
        method=request.method,
        path=request.path,
        headers=headers_of_interest(request.headers),
        credentials=credentials_present(request.headers),
    )


def _plan(received: Received, dialect: Dialect, fault: Fault | None) -> tuple[Plan, Billed, str]:
    """Return what to send, the full answer's bill and the outcome. A request that a provider would refuse meets no fault."""
    if fault is not None and not needs_answer(fault.kind):
        return fault_plan_without_answer(received, dialect, fault, time.time()), Billed(), "failed"
    if fault is not None and fault.kind is FaultKind.EMOJI_SPLIT:
        received = _with_emoji(received)
    try:
        answer: Answer = dialect.answer(received)
    except RefusedError as refused:
        return problem_plan(dialect, refused.problem), Billed(), "refused"
    if fault is None:
        return good_plan(received, answer), answer.billed, "answered"
    outcome = "answered" if fault.kind in HARMLESS else "failed"
    return fault_plan(Case(received, dialect, answer, fault)), answer.billed, outcome


def _with_emoji(received: Received) -> Received:
    text = received.settings.answer or f"Simulated {EMOJI} with characters of many bytes {EMOJI} — 終わり."
    settings = {name: getattr(received.settings, name) for name in Settings.__slots__} | {"answer": text}
    values = {name: getattr(received, name) for name in Received.__slots__} | {"settings": Settings(**settings)}
    return Received(**values)


async def _wait(received: Received) -> None:
    settings = received.settings
    jitter = settings.jitter_ms * draw(f"{settings.seed}/jitter/{received.seq}") if settings.jitter_ms else 0.0
    if settings.latency_ms or jitter:
        await asyncio.sleep((settings.latency_ms + jitter) / 1000)


async def _payload(request: web.BaseRequest) -> tuple[dict[str, Any], int]:
    """Return the body as a JSON object, and its size. Raise `RefusedError`."""
    if request.method == "GET":
        return {}, 0
    body = await _body(request)
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        refuse(f"We could not parse the JSON body of your request: {error}.")
    if body.count(b"[") + body.count(b"{") > _DEEPEST and _nesting(payload) > _DEEPEST:
        refuse("We could not parse the JSON body of your request: it is nested too deeply.")
    if not isinstance(payload, dict):
        refuse("We could not parse the JSON body of your request: it must be an object.")
    return payload, len(body)


def _nesting(document: object) -> int:
    """Return how deeply arrays and objects are nested, without recursion."""
    level, depth = [document], 0
    while level := [item for item in level if isinstance(item, list | dict)]:
        depth += 1
        level = [item for parent in level for item in (parent.values() if isinstance(parent, dict) else parent)]
    return depth


async def _body(request: web.BaseRequest) -> bytes:
    received = bytearray()
    try:
        async for block in request.content.iter_any():
            received += block
            if len(received) > _MAX_BODY:
                raise RefusedError(Problem(413, "invalid_request_error", None, "The request body is too large."))
    except web.RequestPayloadError:
        refuse("The request body is broken.")
    return bytes(received)


def _json(document: Mapping[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json")
