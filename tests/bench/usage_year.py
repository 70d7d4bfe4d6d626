"""How long reports take over a year of usage at a million requests a day, from roll-ups as such traffic would have made them.

    python -m tests.bench.usage_year [--days 365] [--requests 1000000] [--keys 100] [--open-minutes 40]

What is assumed: every key has a project, a cost centre and a team; it uses three tasks, each of which is answered by one of two
deployments, with one in fifty calls failing over to a second: so the cells of a day are about ``keys x 3 x 2``, each in every
hour. The roll-ups of each day are made by the code that makes them from requests, in the store's own format; the last minutes,
which no roll-up covers yet, are requests one by one. Prints, for each report, the best of three times, the rows read, and
whether its sums are what was put in.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from shared.adapters.tables import open_tables
from shared.core import ids
from shared.core.chat import Operation, Usage
from shared.core.records import AttemptRecord, RequestRecord
from shared.ports import Action, Entity, Op, Tables
from shared.usage import UsageLog, UsageQuery, rows
from shared.usage.cells import COUNTS, Cell, Dims, texts_of
from shared.usage.days import Days, DayState, RollUp
from shared.usage.rollups import TABLE
from tests.bench.tables import table

DAY: Final = 86_400
TOKEN: Final = "0" * 28
GOAL: Final = 1.0
TASKS: Final = ("conversation", "code-generation", "summarization")
DEPLOYMENTS: Final = (
    ("azure/large-eastus", "large", "azure"),
    ("azure/large-westus", "large", "azure"),
    ("openai/small", "small", "openai"),
)


@dataclass(frozen=True)
class Wall:
    """The real clock, at a moment of one's choice."""

    moment: float

    def now(self) -> float:
        """Return the moment."""
        return self.moment

    def monotonic(self) -> float:
        """Return the moment."""
        return self.moment

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def draw(self) -> float:
        """Return no chance at all."""
        return 0.5


def all_dims(keys: int) -> list[Dims]:
    """Return what the requests of a day are told apart by."""
    found = []
    for key in range(keys):
        tags = orjson.dumps({"cost_center": f"cc-{key % 20:02}", "team": f"team-{key % 40:02}"}).decode()
        for number, task in enumerate(TASKS):
            for place in (0, 1):
                deployment, model, provider = DEPLOYMENTS[(key + number + place) % 3]
                dims = Dims(f"key_{key:012x}", f"project-{key % 10}", model, deployment, provider, task, "chat", tags)
                found.append(dims)
    return found


def cells_of(dims: list[Dims], requests: int, draw: random.Random) -> dict[tuple[int, Dims], Cell]:
    """Return a day's cells by the hour: so many requests over all."""
    share = requests // (24 * len(dims))
    found = {}
    for hour in range(24):
        for one in dims:
            many = max(1, share + draw.randrange(-share // 4, share // 4 + 1))
            failed = many // 50
            numbers = (
                many,
                many + failed,
                many * 800,
                many * 250,
                many * 100,
                0,
                0,
                many * 1_234_567,
                0,
                0,
                many * 1_200_000,
                0,
            )
            found[hour, one] = Cell(list(numbers), {"rate_limit_exceeded": 1}, {"rate_limited": failed})
    return found


def of_the_day(hourly: dict[tuple[int, Dims], Cell]) -> dict[tuple[int, Dims], Cell]:
    """Return the cells without their hours."""
    found: dict[tuple[int, Dims], Cell] = {}
    for (_, dims), cell in hourly.items():
        found.setdefault((0, dims), Cell()).merge(cell)
    return found


async def write_year(tables: Tables, first: int, options: argparse.Namespace) -> list[int]:
    """Write the roll-ups of all days but the last; return the sum of all their numbers. A day is as it was a week before."""
    draw, dims, totals = random.Random(1), all_dims(options.keys), [0] * len(COUNTS)
    usage, rolled = tables.table(rows.TABLE), tables.table(TABLE)
    week = []
    for _ in range(7):
        hourly = cells_of(dims, options.requests, draw)
        whole = of_the_day(hourly)
        sums = [sum(numbers) for numbers in zip(*(cell.counts for cell in whole.values()), strict=True)]
        week.append((sums, texts_of(whole, hours=False, damaged=0), texts_of(hourly, hours=True, damaged=0)))
    for number in range(options.days):
        day = rows.day_of(first + number * DAY)
        sums, of_day, by_hour = week[number % 7]
        totals = [before + one for before, one in zip(totals, sums, strict=True)]
        for partition, texts in ((f"d~{day[:4]}", of_day), (f"h~{day[:7]}", by_hour)):
            for part, text in enumerate(texts):
                await rolled.insert(Entity(partition, f"{day}~{TOKEN}~{part:02}", rows.properties_of(text)))
        slots = {slot: RollUp(TOKEN, 1) for slot in range(rows.SLOTS)}
        state = DayState(day, slots, whole=RollUp(TOKEN, len(of_day)), hourly=RollUp(TOKEN, len(by_hour)))
        await Days(rolled).change(state)
        await usage.transact([Op(Action.UPSERT, Entity(rows.DAYS, day))])
    return totals


def open_requests(end: float, options: argparse.Namespace) -> Iterator[RequestRecord]:
    """Yield the requests that no roll-up covers yet."""
    dims, number = all_dims(options.keys), options.requests * options.open_minutes // 1_440
    for place in range(number):
        moment, one = end - options.open_minutes * 60 * (1 - place / number), dims[place % len(dims)]
        attempt = AttemptRecord(
            1, one.deployment, one.model, one.provider, moment, 900.0, "succeeded", usage=Usage(800, 250), cost=7
        )
        yield RequestRecord(
            ids.request_id(moment, place),
            one.key,
            one.project,
            Operation.CHAT,
            "auto",
            one.task,
            False,
            moment,
            900.0,
            "succeeded",
            (attempt,),
            model=one.model,
            deployment=one.deployment,
            cost=7,
            billed=7,
            tags=orjson.loads(one.tags),
            trace={"candidates": ["x" * 60] * 12},
        )


async def measure(log: UsageLog, query: UsageQuery) -> tuple[float, float, Any]:
    """Return the best of three times of a report, of the clock and of all threads' CPU, and the report."""
    best, best_cpu, report = float("inf"), float("inf"), None
    for _ in range(3):
        began, cpu = time.perf_counter(), time.process_time()
        report = await log.summary(query)
        best, best_cpu = min(best, time.perf_counter() - began), min(best_cpu, time.process_time() - cpu)
    return best, best_cpu, report


async def run(options: argparse.Namespace) -> int:
    """Build the year, ask, print; return 1 when a report took more CPU than the goal, or its sum is wrong."""
    first = 1_767_225_600  # 2026-01-01
    end = first + options.days * DAY
    with tempfile.TemporaryDirectory() as folder:
        tables = open_tables(f"sqlite:{folder}/year.db")
        log = UsageLog(tables, Wall(end + options.open_minutes * 60.0))
        began = time.perf_counter()
        totals = await write_year(tables, first, options)
        for record in open_requests(end + options.open_minutes * 60.0, options):
            log.record(record)
            if len(log._pending) >= 4_000:
                await log.flush()
        await log.flush()
        seconds = time.perf_counter() - began
        print(
            f"{options.days} days of {totals[0] // options.days:,} requests, {options.keys * 6} cells: made in {seconds:.0f} s"
        )
        year = UsageQuery(first, end)
        month = replace(year, start=end - 30 * DAY)
        questions = {
            "a year, all of it": year,
            "a year by model": replace(year, group_by=("model",)),
            "a year by day": replace(year, group_by=("day",)),
            "a year by cost centre": replace(year, group_by=("tag:cost_center",)),
            "a year by project, model and day": replace(year, group_by=("project", "model", "day")),
            "a year of one project by task": replace(year, group_by=("task",), project="project-3"),
            "a year of one key by day": replace(year, group_by=("day",), key="key_000000000007"),
            "a month by hour": replace(month, group_by=("hour",)),
            "a month by key and day": replace(month, group_by=("key", "day")),
            "a month of one cost centre by hour": replace(month, group_by=("hour",), tags=(("cost_center", "cc-07"),)),
            f"the last {options.open_minutes} minutes (no roll-up yet)": UsageQuery(end, end + DAY, ("model",)),
            "a year and these minutes by model": UsageQuery(first, end + DAY, ("model",)),
        }
        found, failed = [], False
        for name, query in questions.items():
            seconds, cpu, report = await measure(log, query)
            right = query != year or [getattr(report.total, name) for name in COUNTS] == totals
            failed = failed or cpu > GOAL or not right
            found.append(
                (
                    name,
                    f"{seconds:.3f} s",
                    f"{cpu:.3f} s",
                    f"{report.scanned:,}",
                    f"{len(report.rows):,}",
                    f"{report.total.requests:,}",
                )
            )
        table("Usage reports", ("report", "best of 3", "CPU", "rows read", "groups", "requests"), found)
        await tables.aclose()
    return int(failed)


def main() -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description="Reports over a year of usage.")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--requests", type=int, default=1_000_000, help="a day")
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--open-minutes", type=int, default=40)
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
