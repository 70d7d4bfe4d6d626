"""Serve on one machine what Azure Functions serves in the cloud: ``python -m local.host``.

Mounts the FunctionApp's triggers on uvicorn and runs its timers. Without any provider credential it starts the simulator in the
same process, and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvicorn
import uvloop

from functions import gateway as holder
from functions.surface import registered
from local.durable import Keeper, LocalEngine
from local.mounting import Mounted, functions_of, run_timers
from local.protocol import GuardedProtocol
from local.schedule import parse_schedule
from shared import bootstrap
from shared import settings as settings_module
from shared.catalog import load
from shared.core.errors import ConfigurationError
from shared.settings import SIMULATOR, Settings
from shared.tracing import SERVED

if TYPE_CHECKING:
    from types import FrameType

    from shared.core.registry import Registry
    from shared.gateway import Gateway

ADMIN_KEY_FILE: Final = Path(".switchyard/admin-key")
BACKLOG: Final = 4096
OPEN_FILES: Final = 65_536
KEEP_ALIVE_SECONDS: Final = 75
GRACE_SECONDS: Final = 30
OFTEN: Final = parse_schedule("*/10 * * * * *")
"""How often the timer runs here, where a run costs nothing: each chore is then done as soon as it is due."""
ACTIVITY_GRACE_SECONDS: Final = 10.0
"""What runs in the background has this long to end, of the time that requests have."""


class Server(uvicorn.Server):
    """uvicorn, leaving the process alive after a signal, so that what is pending can be written down."""

    stopped_at: float | None = None
    """When the signal came, by the loop's clock."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop serving."""
        if self.stopped_at is None:
            self.stopped_at = asyncio.get_running_loop().time()
        super().handle_exit(sig, frame)

    @property
    def grace_left(self) -> float:
        """Seconds that are left to end what runs."""
        waited = 0.0 if self.stopped_at is None else asyncio.get_running_loop().time() - self.stopped_at
        return max(0.0, min(ACTIVITY_GRACE_SECONDS, GRACE_SECONDS - waited))

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop serving on SIGINT and SIGTERM; a second one stops at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def admin_key(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the administrator's key and how a shell command gets it; make a file with a new one at the first start."""
    if given := environment.get("SWITCHYARD_ADMIN_KEY"):
        return given, "$SWITCHYARD_ADMIN_KEY"
    ADMIN_KEY_FILE.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        handle = os.open(ADMIN_KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write("sk-sw-admin-" + secrets.token_urlsafe(32) + "\n")
    return ADMIN_KEY_FILE.read_text().strip(), f"$(cat {ADMIN_KEY_FILE})"


def registry_of(settings: Settings, environment: Mapping[str, str]) -> Registry:
    """Read the catalog; raise `ConfigurationError` with every problem in it."""
    try:
        text = Path(settings.catalog).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"The catalog {settings.catalog} can't be read ({error}). SWITCHYARD_CATALOG names it."
        raise ConfigurationError(message, problems=[message]) from error
    return load(text, source=settings.catalog, environment=environment).registry


def live_providers(registry: Registry) -> list[str]:
    """Return the providers that can be called: switched on, with their credentials, and with a deployment."""
    able = {one.provider for one in registry.deployments.values() if one.unavailable is None}
    return [name for name in registry.providers if name in able and registry.providers[name].unavailable is None]


@contextlib.asynccontextmanager
async def upstream(settings: Settings, environment: Mapping[str, str]) -> AsyncIterator[tuple[Settings, str]]:
    """Start the simulator if it is asked for, or if no provider can be called; yield settings, and a line that says which."""
    live = live_providers(registry_of(settings, environment)) if settings.upstream is None else []
    if live:
        yield settings, f"providers: {', '.join(live)}"
        return
    if settings.upstream not in {None, SIMULATOR}:
        yield settings, f"providers: all replaced by the simulator at {settings.upstream}"
        return
    from local.simulator import start_simulator  # noqa: PLC0415 - only needed when nothing else answers

    why = "SWITCHYARD_UPSTREAM=simulator" if settings.upstream else "no provider credentials were found"
    async with await start_simulator() as simulator:
        said = f"providers: none; answers come from the SIMULATOR ({why})"
        yield replace(settings, upstream=simulator.url), said


def raise_file_limit() -> None:
    """Let the process hold as many connections as the system permits: each request takes two of its files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listen(settings: Settings) -> socket.socket:
    """Return the listening socket; raise `ConfigurationError` when the address can't be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        message = f"Can't listen on {settings.host}:{settings.port} ({error.strerror}). Set HOST and PORT to a free address."
        raise ConfigurationError(message, problems=[message]) from error


def greeting(address: str, key: str, said: str) -> str:
    """Return the first lines printed: where it is, where the key is, who answers, and a command to try."""
    body = '{"model": "auto", "messages": [{"role": "user", "content": "Say hello in one sentence."}]}'
    where = key if key.startswith("$SWITCHYARD") else str(ADMIN_KEY_FILE)
    return (
        f"Switchyard serves on {address}  (try it in a browser: {address}/docs)\n"
        f"admin key: {where}\n"
        f"{said}\n"
        "background work (responses, batches, respond-async) runs in this process only and is forgotten when it ends\n\n"
        f"curl {address}/v1/chat/completions -H \"authorization: Bearer {key}\" -H 'content-type: application/json' \\\n"
        f"  -d '{body}'\n\n"
    )


async def serve(environment: dict[str, str]) -> None:
    """Serve until a signal; then finish what is in flight, write what is pending, and return."""
    raise_file_limit()
    environment["SWITCHYARD_ADMIN_KEY"], key = admin_key(environment)
    settings = settings_module.load(environment)
    with listen(settings) as listener:
        async with upstream(settings, environment) as (chosen, said):
            opened = await bootstrap.open_gateway(chosen, environment=environment)
            try:
                await _serve(opened, listener, greeting(_address(listener), key, said))
            finally:
                holder.use(None)
                await opened.aclose()


async def _serve(opened: Gateway, listener: socket.socket, lines: str) -> None:
    holder.use(opened)
    functions = functions_of(registered())
    engine = LocalEngine(functions)
    mounted = Mounted(functions.http, max_in_flight=opened.settings.max_in_flight, engine=engine)
    server = Server(
        uvicorn.Config(
            mounted,
            loop="uvloop",
            http=GuardedProtocol,
            ws="none",
            proxy_headers=False,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    timers = [replace(timer, schedule=OFTEN) for timer in functions.timers]
    ticking = asyncio.create_task(run_timers(timers, engine))
    keeping = asyncio.create_task(Keeper(engine, opened).run())
    holder.tune_collector()
    sys.stdout.write(lines)
    sys.stdout.flush()
    try:
        await server.serve(sockets=[listener])
    finally:
        ticking.cancel()
        await engine.aclose(server.grace_left)
        keeping.cancel()
        await asyncio.wait((ticking, keeping))


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - shown, not bound
    return f"http://{shown}:{port}"


def _mark(record: logging.LogRecord) -> bool:
    """Have a line say which request it belongs to."""
    served = SERVED.get()
    record.request_id = "-" if served is None else served.request_id
    return True


def main() -> int:
    """Serve; return the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s [%(request_id)s]: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(_mark)
    logging.getLogger("switchyard.catalog").setLevel(logging.INFO)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(dict(os.environ)))
    except ConfigurationError as error:
        problems = "".join(f"\n  - {problem}" for problem in error.problems)
        sys.stderr.write(f"{error.message}{problems}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
