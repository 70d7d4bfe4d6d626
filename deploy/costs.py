"""What Switchyard costs on Azure: docs/costs.toml, computed. Models' tokens are not in it: the catalog has their prices."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from pathlib import Path
from typing import Any, Final

HOURS: Final = 730
"""Hours of a month, as Azure counts."""

REQUESTS: Final = 1_000_000
AT_ONCE: Final = (1, 20)
"""Requests an instance serves at once, alone and busy: they share the memory that is billed."""

_CENT: Final = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Costs:
    """The table as it is in the file."""

    prices: Mapping[str, Mapping[str, Any]]
    uses: Mapping[str, Decimal]
    examples: Mapping[str, Mapping[str, Any]]

    def usd(self, price: str, amount: Decimal, *, granted: bool = True) -> Decimal:
        """Return what an amount in a month costs, in dollars, after what is free."""
        row = self.prices[price]
        free = row.get("free", 0) if granted else 0
        return Decimal(max(amount - free, Decimal(0)) / int(row["per"]) * Decimal(row["usd"]))


def read(path: Path) -> Costs:
    """Read the file."""
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    return Costs(found["prices"], {name: Decimal(value) for name, value in found["uses"].items()}, found["examples"])


def prices_table(costs: Costs) -> str:
    """Render the list of prices, with where each is from."""
    rows = []
    for price in costs.prices.values():
        if "usd" in price:
            free = f", {price['free']:,} a month free" if "free" in price else ""
            rows.append(
                (
                    price["what"],
                    f"${price['usd']} for {price['per']:,} {price['unit']}{free}",
                    price["source"],
                    str(price["read_on"]),
                )
            )
        else:
            rows.append((price["what"], "unknown", price["source"], ""))
    return _table(("what", "price", "source", "read on"), rows)


def idle(costs: Costs, example: str) -> dict[str, Decimal]:
    """Return what an example costs in a month in which nobody calls, in dollars, by what for."""
    row = costs.examples[example]
    memory, minutes, running = Decimal(row["memory_gb"]), HOURS * 60, max(row["ready"], 1)
    ready, tests = row["ready"] > 0, Decimal(row["test_places"] * HOURS * 3600) / row["test_seconds"]
    runs = costs.uses["timer_runs_a_minute"] * minutes + tests
    busy = runs * costs.uses["least_seconds"] * memory
    alerts = costs.usd("log_alert_often", Decimal(row["alerts_often"])) + costs.usd(
        "log_alert_seldom", Decimal(row["alerts_seldom"])
    )
    leases = costs.uses["host_leases_a_minute"] * minutes * running
    writes = costs.uses["host_writes_a_minute"] * minutes  # of the timer, which runs on one of them
    return {
        "executions": costs.usd("flex_execution", runs, granted=not ready),
        "memory while they run": costs.usd("flex_ready_busy" if ready else "flex_on_demand", busy),
        "always-ready instances": costs.usd("flex_ready_idle", row["ready"] * memory * HOURS * 3600),
        "calls to tables": costs.usd("table_calls", costs.uses["idle_calls_a_minute"] * minutes * running),
        "the host's calls to blobs": costs.usd("blob_other", leases) + costs.usd("blob_write", writes),
        "alert rules": alerts + costs.usd("metric_alert", Decimal(row["test_places"] > 0)),
        "availability tests": costs.usd("web_test", tests),
        "private endpoints": costs.usd("private_endpoint", Decimal(row["endpoints"] * HOURS)),
        "private DNS zones": costs.usd("private_zone", Decimal(row["zones"])),
    }


def idle_table(costs: Costs) -> str:
    """Render what each example costs while nobody calls."""
    found = {example: idle(costs, example) for example in costs.examples}
    lines = next(iter(found.values()))
    rows = [(line, *(_dollars(one[line]) for one in found.values())) for line in lines]
    rows.append(("**a month**", *(f"**{_dollars(sum(one.values(), Decimal(0)))}**" for one in found.values())))
    return _table(("while nobody calls, at most", *(f"{name}.tfvars" for name in found)), rows)


def million(costs: Costs, *, memory_gb: Decimal, at_once: int, ready: bool) -> dict[str, Decimal]:
    """Return what a million requests cost, in dollars, by what for; what is free in a month is not taken off."""
    busy = REQUESTS * costs.uses["seconds_a_request"] / at_once * memory_gb
    return {
        "executions": costs.usd("flex_execution", Decimal(REQUESTS), granted=False),
        "memory": costs.usd("flex_ready_busy" if ready else "flex_on_demand", busy, granted=False),
        "calls to tables": costs.usd("table_calls", REQUESTS * costs.uses["calls_a_request"]),
        "telemetry": costs.usd("logs", REQUESTS * costs.uses["telemetry_bytes"] / 10**9, granted=False),
    }


def million_table(costs: Costs) -> str:
    """Render what a million requests cost, on small instances and on ready ones, alone and many at once."""
    sizes = [(Decimal(row["memory_gb"]), row["ready"] > 0) for row in (costs.examples["smallest"], costs.examples["standard"])]
    columns = [(memory, ready, at_once) for memory, ready in sizes for at_once in AT_ONCE]
    found = [million(costs, memory_gb=memory, at_once=at_once, ready=ready) for memory, ready, at_once in columns]
    heads = [f"{memory} GB{', ready' if ready else ''}, {at_once} at once" for memory, ready, at_once in columns]
    rows = [(line, *(_dollars(one[line]) for one in found)) for line in found[0]]
    rows.append(("**together**", *(f"**{_dollars(sum(one.values(), Decimal(0)))}**" for one in found)))
    return _table((f"a million requests of {costs.uses['seconds_a_request']} seconds", *heads), rows)


def background(costs: Costs) -> str:
    """Say what a thousand requests in the background cost by the scheduler's price list."""
    actions = 1000 * costs.uses["actions_a_chain"]
    return f"a thousand take {actions:,} actions, {_dollars(costs.usd('scheduler', actions))}"


def _dollars(amount: Decimal) -> str:
    return f"${amount.quantize(_CENT, ROUND_UP):,}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    return (
        "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
        .replace("| --- ", "|---")
        .replace("|--- |", "|---|")
    )
