"""Let a gateway tell Application Insights of scripted requests; hold every query of the workbook to what really happened.

    python -m tests.bench.telemetry_run [--count 1000] [--in-process]

Starts the local host with a store of its own, the simulator as every provider, and the real exporter of Azure Monitor pointed
to a loopback ingestion endpoint; makes requests of several projects, keys and models, whole, streamed, in the background too,
while providers refuse, fail, hang and cut streams, one region goes down and a budget runs out. What was ingested becomes the
rows of a Log Analytics workspace, every query in infra/terraform/queries runs over them, and what it gives is compared with
callers' answers, the providers' own log, the usage log, GET /v1/usage and the ledger. Prints a table, and exits with 1 on any
difference.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.bench import telemetry_scene as scene
from tests.bench.tables import table
from tests.bench.targets import ROOT
from tests.bench.telemetry_checks import Finding
from tests.bench.telemetry_scene import Books
from tests.bench.telemetry_states import States, made_up, points
from tests.kusto import rows
from tests.kusto.official import Analysis, analyse
from tests.kusto.query import run
from tests.kusto.scope import Table
from tests.kusto.values import Row
from tests.telemetry.ingestion import Ingestion

QUERIES: Final = ROOT / "infra" / "terraform" / "queries"
SHOWN: Final = 110
MANY: Final = "1000000"


@dataclass(frozen=True, slots=True)
class Workspace:
    """What was ingested, and the queries as the language service reads them."""

    queries: Mapping[str, Analysis]
    tables: Mapping[str, Table]
    ended: datetime

    def ask(self, name: str, *, now: datetime | None = None) -> Sequence[Row]:
        """Return what a query gives; a variant of it is named ``query@variant``."""
        return run(self.queries[name], self.tables, now or self.ended).rows


def texts() -> dict[str, str]:
    """Return every query by its file's name."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(QUERIES.glob("*.kql"))}


def setting(text: str, name: str, value: str) -> str:
    """Return a query with one of its ``let`` lines replaced, as Terraform does it; raise `ValueError` without such a line."""
    changed, count = re.subn(rf"^let {name} = .*;$", f"let {name} = {value};", text, flags=re.MULTILINE)
    if count != 1:
        message = f"There is no single line `let {name} = …;`."
        raise ValueError(message)
    return changed


def asked() -> dict[str, str]:
    """Return every query as it is, and some with settings of the workbook or of alerts."""
    queries = texts()
    return {
        **queries,
        "cost_by_project@alpha": setting(queries["cost_by_project"], "in_project", '"alpha"'),
        "latency_compared@minute": setting(queries["latency_compared"], "since", "ago(1m)"),
        "alert_breakers@minute": setting(queries["alert_breakers"], "least_minutes", "1"),
        "alert_error_rate@many": setting(queries["alert_error_rate"], "least_requests", MANY),
        "alert_latency@many": setting(queries["alert_latency"], "least_requests", MANY),
    }


async def play(folder: Path, count: int, *, in_process: bool) -> tuple[Books, dict[str, Table]]:
    """Make the run; return what is true of it, and what a workspace holds of it."""
    with Ingestion() as ingestion:
        start = scene.in_process if in_process else scene.as_process
        running: AbstractAsyncContextManager[scene.Gateway] = start(folder, ingestion)
        async with running as gateway:
            books = await scene.play(gateway, count)
        books.ended = datetime.now(UTC)
        books.records = await scene.records(folder)
        return books, rows.tables(ingestion.envelopes) | made_up(books.ended)


def findings(read: Mapping[str, Analysis], books: Books, tables: Mapping[str, Table]) -> dict[str, list[Finding]]:
    """Return what every query gives beside what is true. ``read`` is what was `asked`, as the language service reads it.

    Raise `ValueError` for a query that is wrong, or that nobody checks.
    """
    checks = States(points(tables["AppMetrics"])).checks()
    if missing := set(texts()) ^ set(checks):
        message = f"Not both a query and a check: {', '.join(sorted(missing))}."
        raise ValueError(message)
    workspace = Workspace(read, tables, books.ended)
    return {name: list(check(workspace.ask, books)) for name, check in sorted(checks.items())}


def differences(found: Mapping[str, Sequence[Finding]]) -> list[str]:
    """Return what differs, as sentences."""
    return [
        f"{name}, {finding.what}: found {finding.found!r}, true is {finding.true!r}"
        for name, every in found.items()
        for finding in every
        if not finding.holds
    ]


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(description="Hold the workbook's queries to a real run.")
    parser.add_argument("--count", type=int, default=1_000, help="requests")
    parser.add_argument("--in-process", action="store_true", help="without a process of the host's own")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        books, tables = asyncio.run(play(Path(folder), options.count, in_process=options.in_process))
    print(f"{len(books.records):,} requests: {dict(books.statuses)}; {len(books.received):,} attempts received by providers")
    print("rows: " + ", ".join(f"{name} {len(held.rows):,}" for name, held in tables.items()))
    found = findings(analyse(asked()), books, tables)
    lines = [
        [name, finding.what, f"{finding.found}"[:SHOWN], "" if finding.holds else "NOT SO"]
        for name, every in found.items()
        for finding in every
    ]
    table("Queries", ("query", "compared", "found", ""), lines)
    wrong = differences(found)
    print("\n" + ("\n".join(wrong) or "Every query gives what is true."))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
