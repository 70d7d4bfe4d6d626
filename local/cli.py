"""The command line: serve, show the plan for a prompt, price a call, check a catalog, replay a past decision.

    python -m local.cli serve
    python -m local.cli route "Write a Python function to sort a list" [--model auto] [--task TASK] [--explain]
    python -m local.cli price gpt-6-luna --input 1000 --output 200
    python -m local.cli catalog check [FILE]
    python -m local.cli replay REQUEST_ID

Settings are read from the environment, as by the server. Exit codes: 0 well, 1 what was asked about is wrong, 2 bad usage.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from shared import settings as environment_settings
from shared.adapters.clock import SystemClock
from shared.adapters.tables import open_tables
from shared.catalog import load
from shared.catalog.check import check
from shared.catalog.source import CatalogSource
from shared.core import pricing, router, trace
from shared.core.chat import AUTO
from shared.core.errors import ConfigurationError, GatewayError
from shared.core.health import HealthSnapshot
from shared.core.registry import Registry
from shared.core.requirements import Hints, chat_requirements
from shared.core.route import Route
from shared.usage import UsageLog

WELL, WRONG = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    parsed = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = parsed.run
    try:
        return run(parsed)
    except ConfigurationError as error:
        for problem in error.problems or [error.message]:
            print(problem, file=sys.stderr)
    except GatewayError as error:
        print(error.message, file=sys.stderr)
    except BrokenPipeError:  # whoever read the output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WELL
    return WRONG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local.cli", description="Switchyard on the command line.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve on HOST and PORT, as `make run` does")
    serve.set_defaults(run=_serve)

    route = commands.add_parser("route", help="show who would be asked for a prompt, without asking")
    route.add_argument("prompt")
    route.add_argument("--model", default=AUTO, help="a model, an alias, or auto (default)")
    route.add_argument("--task", help="the task, instead of detecting it")
    route.add_argument("--explain", action="store_true", help="every reason, and who was left out")
    route.set_defaults(run=_route)

    price = commands.add_parser("price", help="what a call would cost on each deployment of a model")
    price.add_argument("model")
    price.add_argument("--input", type=_count, default=1000, help="input tokens (default 1000)")
    price.add_argument("--output", type=_count, default=1000, help="output tokens (default 1000)")
    price.set_defaults(run=_price)

    catalog = commands.add_parser("catalog", help="work on the catalog").add_subparsers(required=True, metavar="COMMAND")
    checked = catalog.add_parser("check", help="say everything that is wrong with a catalog file")
    checked.add_argument("file", nargs="?", help="default: the catalog the server uses")
    checked.set_defaults(run=_check)

    replay = commands.add_parser("replay", help="plan a past request again from its trace and compare")
    replay.add_argument("request_id")
    replay.set_defaults(run=_replay)
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        message = f"`{text}` is not a whole number of tokens"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _serve(_: argparse.Namespace) -> int:
    from local import host  # noqa: PLC0415  (the server's imports are not worth their time to the other commands)

    return host.main()


def _check(parsed: argparse.Namespace) -> int:
    path = parsed.file or environment_settings.load(os.environ).catalog
    findings = check(path, os.environ)
    for finding in findings:
        print(finding)
    broken = [finding for finding in findings if "warning:" not in finding]
    if not broken:
        print(f"{path}: the catalog is well.")
    return WRONG if broken else WELL


def _catalog() -> Registry:
    settings = environment_settings.load(os.environ)
    try:
        text = Path(settings.catalog).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{settings.catalog} can't be read: set SWITCHYARD_CATALOG to the catalog file."
        raise ConfigurationError(message) from error
    simulated = settings.simulated
    if not simulated:
        registry = load(text, source=settings.catalog, environment=os.environ).registry
        if any(deployment.unavailable is None for deployment in registry.deployments.values()):
            return registry
        print("No provider credentials are set: shown as `make run` serves it, with the simulator.", file=sys.stderr)
    # Planning calls nobody: that a simulator would stand in for the providers is all that matters here.
    return load(text, source=settings.catalog, environment=os.environ, simulator_url="http://127.0.0.1:9").registry


def _today() -> date:
    return datetime.now(UTC).date()


def _route(parsed: argparse.Namespace) -> int:
    registry = _catalog()
    payload = {"model": parsed.model, "messages": [{"role": "user", "content": parsed.prompt}]}
    requirements = chat_requirements(payload, hints=Hints(task_type=parsed.task))
    route = router.plan(requirements, registry, HealthSnapshot(), day=_today(), draw=0.5)
    print(f"task       {route.task}{'' if parsed.task else ' (detected)'}")
    print(f"objective  {route.objective or '-'}")
    for place, candidate in enumerate(route.candidates, 1):
        cost = _dollars(candidate.expected_cost)
        print(f"{place:>3}. {candidate.deployment:<40} expected {cost:>12}  at worst {_dollars(candidate.worst_cost):>12}")
        if parsed.explain:
            for reason in candidate.reasons:
                print(f"       {reason.code.value}: {reason.detail}" if reason.detail else f"       {reason.code.value}")
    if parsed.explain:
        _print_dropped(route)
    if not route.candidates:
        print(route.note or "nobody can serve this")
    return WELL if route.candidates else WRONG


def _print_dropped(route: Route) -> None:
    if route.dropped:
        print("left out:")
    for dropped in route.dropped:
        print(f"     {dropped.deployment or dropped.model:<40} {dropped.reason.code.value}: {dropped.reason.detail}")


def _price(parsed: argparse.Namespace) -> int:
    registry = _catalog()
    for model in registry.resolve(parsed.model):
        for deployment in registry.by_model.get(model, ()):
            price = pricing.price_on(deployment.prices, _today())
            if price is None:
                print(f"{deployment.id:<40} unknown")
                continue
            amount = pricing.expected(price, input_tokens=parsed.input, output_tokens=parsed.output)
            print(f"{deployment.id:<40} {_dollars(amount):>14}  from {price.effective_from}  {price.source}")
    return WELL


def _dollars(nano: int | None) -> str:
    return "unknown" if nano is None else f"${pricing.usd(nano):.9f}".rstrip("0").rstrip(".")


def _replay(parsed: argparse.Namespace) -> int:
    return asyncio.run(_replayed(parsed.request_id))


async def _replayed(request_id: str) -> int:
    settings = environment_settings.load(os.environ)
    clock = SystemClock()
    tables = open_tables(settings.storage)
    try:
        stored = await UsageLog(tables, clock).find(request_id)
        if stored is None or not stored.trace:
            print(f"{request_id} is not in {settings.storage}, or has no decision to replay.", file=sys.stderr)
            return WRONG
        source = CatalogSource(settings.catalog, environment=os.environ, tables=tables, clock=clock)
        registry = await source.at_version(stored.trace["registry"])
        if registry is None:
            print(f"The catalog of that request (version {stored.trace['registry']}) is no longer kept.", file=sys.stderr)
            return WRONG
        began = time.perf_counter()
        route = trace.replay(stored.trace, registry)
        took = (time.perf_counter() - began) * 1000
    finally:
        await tables.aclose()
    then = [candidate[0] for candidate in stored.trace["candidates"]]
    now = [candidate.deployment for candidate in route.candidates]
    print(f"{request_id}  catalog {stored.trace['registry']}  task {route.task}  planned again in {took:.2f} ms")
    for place, name in enumerate(now, 1):
        print(f"{place:>3}. {name}")
    print("the same plan" if now == then else f"a DIFFERENT plan; then it was: {', '.join(then) or 'nobody'}")
    return WELL if now == then else WRONG


if __name__ == "__main__":
    sys.exit(main())
