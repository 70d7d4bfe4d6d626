"""The command line.

    python -m deploy package                 make the package and say what is in it
    python -m deploy publish                 make it, publish it where Terraform made the app, see that it serves
    python -m deploy publish --package FILE  publish one that was made before
    python -m deploy rollback                publish the one that served before
    python -m deploy health                  say which package serves
    python -m deploy sizes                   say what Azure will install, and what it weighs
    python -m deploy costs                   say what idling and a million requests cost

Exit codes: 0 well, 1 it did not work, 2 bad usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from deploy import costs, health, publish, sizes, target
from deploy.errors import DeployError
from deploy.history import History
from deploy.package import Package, collect

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = Path(".switchyard/packages")
_MB: Final = 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    parsed = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], None] = parsed.run
    try:
        run(parsed)
    except DeployError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or 'This machine'}: {error.strerror or error}. Mend that and run it again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped: nothing was sent.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy", description="Ship Switchyard to Azure.")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    made = commands.add_parser("package", help="make the package and say what is in it")
    made.add_argument(
        "--extra", action="append", default=[], metavar="FILE", help="merge this requirements file, e.g. requirements-redis.txt"
    )
    made.set_defaults(run=_package)

    for name, run, what in (
        ("publish", _publish, "publish the code to the function app Terraform made, and see that it serves"),
        ("rollback", _rollback, "publish the package that served before"),
        ("health", _health, "say which package serves"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("--terraform", type=Path, default=Path("infra/terraform"), help="default: infra/terraform")
        command.add_argument(
            "--patience", type=float, default=health.PATIENCE, help="seconds until it must serve (default 600)"
        )
        if name == "publish":
            command.add_argument("--package", type=Path, help="a package that was made before")
        command.set_defaults(run=run)

    weighed = commands.add_parser("sizes", help="say what Azure will install, and what it weighs (needs the package index)")
    weighed.add_argument("--extra", action="append", default=[], metavar="FILE", help="as for `package`")
    weighed.set_defaults(run=_sizes)

    counted = commands.add_parser("costs", help="say what idling and a million requests cost, from docs/costs.toml")
    counted.set_defaults(run=_costs)
    return parser


def _package(parsed: argparse.Namespace) -> None:
    _make(collect(parsed.root, extra_requirements=parsed.extra), _history(parsed))


def _publish(parsed: argparse.Namespace) -> None:
    aim = target.read(parsed.root / parsed.terraform)
    history = _history(parsed)
    archive: Path = parsed.package or _make(collect(parsed.root, extra_requirements=aim.extra_requirements), history)
    publish.publish(archive, aim, history, patience=parsed.patience)


def _rollback(parsed: argparse.Namespace) -> None:
    aim = target.read(parsed.root / parsed.terraform)
    history = _history(parsed)
    before = history.previous(aim.app, None)
    if before is None:
        message = f"No package that served as {aim.app} before is kept here: check out the earlier commit and `make deploy`."
        raise DeployError(message)
    publish.publish(history.path(before), aim, history, patience=parsed.patience)


def _health(parsed: argparse.Namespace) -> None:
    aim = target.read(parsed.root / parsed.terraform)
    build = health.wait(aim.endpoint, patience=parsed.patience)
    print(f"{aim.endpoint} is alive: package {build or '(unnamed)'}")


def _sizes(parsed: argparse.Namespace) -> None:
    wheels = sizes.resolve(parsed.root, extra=tuple(parsed.extra))
    for wheel in wheels:
        print(f"{wheel.size / _MB:8.2f} MB  {wheel.name} {wheel.version}")
    total = sum(wheel.size for wheel in wheels)
    print(f"{total / _MB:8.2f} MB  {len(wheels)} wheels (aim: under {sizes.AIM / _MB:.0f} MB)")
    if total > sizes.AIM:
        message = "That is more than a cold start should carry."
        raise DeployError(message)


def _costs(parsed: argparse.Namespace) -> None:
    found = costs.read(parsed.root / "docs" / "costs.toml")
    print(costs.prices_table(found), costs.idle_table(found), costs.million_table(found), sep="\n\n")
    print(f"\nIn the background: {costs.background(found)}.")


def _make(package: Package, history: History) -> Path:
    path = history.path(package.build)
    size = package.write(path)
    history.forget()
    for name, count, weight in package.listing():
        print(f"{weight:>10,} bytes  {name}" + (f" ({count} files)" if name.endswith("/") else ""))
    print(f"{package.size:>10,} bytes in {len(package.files)} files; {size:,} zipped: {path}")
    return path


def _history(parsed: argparse.Namespace) -> History:
    return History(parsed.root / PACKAGES)


if __name__ == "__main__":
    sys.exit(main())
