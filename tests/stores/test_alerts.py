"""Alerts: one per budget, period and threshold over all instances and crashes, told at least once, never with a secret."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from shared.alerts import CLAIM, LOOK_BACK, MAX_TRIES, Alert, Alerts, Delivery
from shared.budgets import Budgets
from shared.core.budgets import Balance
from shared.core.errors import StorageUnavailableError
from shared.ports import Action, Entity, Op, Tables
from tests.fakes import FakeClock

URL = "https://hooks.example.com/canary-path"
MONTH = "2026-11"


@dataclass
class Money:
    """What the ledger says: spent and held by budget and period, in shares of a dollar."""

    spent: dict[tuple[str, str], int] = field(default_factory=dict)
    held: int = 0
    reads: int = 0

    async def balance(self, budget: str, period: str, limit: int) -> Balance:
        """Return a balance."""
        self.reads += 1
        return Balance(limit, self.spent.get((budget, period), 0), self.held)


@dataclass
class Receiver:
    """What a webhook's receiver got, and what it answers."""

    got: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    problem: str | None = None
    slow: asyncio.Event | None = None

    async def send(self, url: str, payload: Mapping[str, object], *, delivery: str) -> str | None:
        """Take an alert."""
        self.got.append((url, dict(payload), delivery))
        if self.slow is not None:
            await self.slow.wait()
        return self.problem


@pytest.fixture
def money() -> Money:
    """Return an empty ledger."""
    return Money()


@pytest.fixture
def receiver() -> Receiver:
    """Return a receiver that takes everything."""
    return Receiver()


@pytest.fixture
def budgets(tables: Tables, clock: FakeClock) -> Budgets:
    """Return the budgets."""
    return Budgets(tables, clock, webhook_hosts={"hooks.example.com"})


@pytest.fixture
def make(tables: Tables, clock: FakeClock, budgets: Budgets, money: Money, receiver: Receiver) -> Callable[[], Alerts]:
    """Return a maker of instances."""
    return lambda: Alerts(tables, clock, budgets, money.balance, receiver)


@pytest.fixture
def alerts(make: Callable[[], Alerts]) -> Alerts:
    """Return one instance."""
    return make()


async def budget(budgets: Budgets, name: str = "b", **more: Any) -> None:
    """Make a budget of one dollar a month."""
    scope = {"kind": "project", "name": f"p-{name}"}
    await budgets.create({"id": name, "name": name, "scope": scope, "limit_usd": 1, "cycle": "month", "webhook": URL, **more})


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the alerts in the log."""
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("budget_alert ")]
    return [json.loads(line.removeprefix("budget_alert ")) for line in lines]


def brief(alerts: list[Alert]) -> list[tuple[str, float, Delivery]]:
    """Return what matters of alerts."""
    return [(alert.budget, alert.threshold, alert.delivery) for alert in alerts]


async def test_each_threshold_is_told_once(
    alerts: Alerts, budgets: Budgets, money: Money, receiver: Receiver, caplog: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    """As the spending reaches it, and never again in that period, however often it is looked at."""
    await budget(budgets)
    for spent, expected in ((499_999_999, []), (500_000_000, [0.5]), (900_000_000, [0.8]), (999_000_000, [1.0]), (10**9, [])):
        money.spent["b", MONTH] = spent
        assert expected == [alert.threshold for alert in await alerts.check()]
        assert await alerts.check() == []
        clock.seconds += 60

    assert [0.5, 0.8, 1.0] == [payload["threshold"] for _, payload, _ in receiver.got]
    assert [0.5, 0.8, 1.0] == [each["threshold"] for each in logged(caplog)]
    assert [1.0, 0.8, 0.5] == [alert.threshold for alert in await alerts.feed()]
    assert {Delivery.SENT} == {alert.delivery for alert in await alerts.feed()}
    assert [1.0] == [alert.threshold for alert in await alerts.feed(1)]
    assert all(record.levelno == logging.WARNING for record in caplog.records)


async def test_what_is_told_says_what_happened_and_no_secret(
    alerts: Alerts, budgets: Budgets, money: Money, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Amounts, period, scope; the webhook's URL is in the call alone."""
    await budget(budgets, thresholds=[0.25])
    money.spent["b", MONTH], money.held = 250_000_001, 7
    (alert,) = await alerts.check()

    ((url, payload, delivery),) = receiver.got
    assert url == URL
    assert delivery == alert.id == payload["id"]
    assert (0.25, "b", MONTH, 10**9, 250_000_001, 7) == tuple(
        payload[name] for name in ("threshold", "budget", "period", "limit_nano_usd", "spent_nano_usd", "held_nano_usd")
    )
    assert payload["scope"] == {"kind": "project", "name": "p-b"}
    assert payload == logged(caplog)[0]
    assert "canary" not in caplog.text + repr(await alerts.feed()) + repr(payload)


async def test_held_money_is_not_spent(alerts: Alerts, budgets: Budgets, money: Money) -> None:
    """What may be given back raises nothing."""
    await budget(budgets)
    money.held = 10**9
    assert await alerts.check() == []


async def test_the_end_of_a_hard_budget_is_its_last_thousandth(alerts: Alerts, budgets: Budgets, money: Money) -> None:
    """No call costs exactly what is left; a soft budget can be spent to the end and beyond."""
    await budget(budgets, "hard", thresholds=[1])
    await budget(budgets, "soft", thresholds=[1], hard=False)
    money.spent = {("hard", MONTH): 999_000_000, ("soft", MONTH): 999_999_999}
    assert [("hard", 1.0, Delivery.SENT)] == brief(await alerts.check())
    money.spent["soft", MONTH] = 3 * 10**9
    assert [("soft", 1.0, Delivery.SENT)] == brief(await alerts.check())


async def test_a_new_period_begins_anew(alerts: Alerts, budgets: Budgets, money: Money, clock: FakeClock) -> None:
    """And the one that has just ended is still looked at: what was admitted in it settles later."""
    await budget(budgets, thresholds=[0.5])
    clock.seconds = 1_796_083_200 - clock.epoch + 60  # a minute into December
    assert await alerts.check() == []
    money.spent = {("b", MONTH): 10**9, ("b", "2026-12"): 10**9}
    assert [MONTH, "2026-12"] == [alert.period for alert in await alerts.check()]
    clock.seconds += LOOK_BACK
    money.reads = 0
    assert await alerts.check() == []
    assert money.reads == 0


async def test_disabled_and_silent_budgets_raise_nothing(alerts: Alerts, budgets: Budgets, money: Money) -> None:
    """Nor are they read."""
    await budget(budgets, "silent", thresholds=[])
    await budget(budgets, "off", enabled=False)
    money.spent = {("silent", MONTH): 10**9, ("off", MONTH): 10**9}
    assert await alerts.check() == []
    assert money.reads == 0


async def test_many_instances_tell_it_once(
    make: Callable[[], Alerts], budgets: Budgets, money: Money, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever inserts the row tells."""
    for number in range(20):
        await budget(budgets, f"b{number}")
        money.spent[f"b{number}", MONTH] = 10**9
    instances = [make() for _ in range(5)]
    raised = await asyncio.gather(*(each.check() for each in instances))
    raised += await asyncio.gather(*(each.check() for each in instances))

    assert 60 == sum(map(len, raised)) == len(receiver.got) == len({delivery for _, _, delivery in receiver.got})
    assert len(logged(caplog)) == 60
    assert len(await instances[0].feed(1000)) == 60


async def test_an_instance_that_dies_is_replaced(
    make: Callable[[], Alerts], budgets: Budgets, money: Money, receiver: Receiver, clock: FakeClock
) -> None:
    """After its claim has run out another one tells, under the same id."""
    await budget(budgets, thresholds=[0.5])
    money.spent["b", MONTH] = 10**9
    receiver.slow = asyncio.Event()
    dying, other = make(), make()
    task = asyncio.ensure_future(dying.check())
    while not receiver.got:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    receiver.slow = None
    await other.check()
    assert len(receiver.got) == 1
    assert brief(await other.feed()) == [("b", 0.5, Delivery.PENDING)]
    clock.seconds += CLAIM
    await asyncio.gather(other.check(), make().check())

    assert len(receiver.got) == 2
    assert receiver.got[0] == receiver.got[1]
    assert brief(await other.feed()) == [("b", 0.5, Delivery.SENT)]
    clock.seconds += CLAIM
    await other.check()
    assert len(receiver.got) == 2


async def test_a_receiver_that_fails_is_asked_again_and_then_given_up(
    alerts: Alerts, budgets: Budgets, money: Money, receiver: Receiver, caplog: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    """Ever later, so many times; the alert itself is logged once."""
    await budget(budgets, thresholds=[0.5])
    money.spent["b", MONTH] = 10**9
    receiver.problem = "the receiver answered with status 500"
    tries: list[int] = []
    for minute in range(600):
        await alerts.check()
        if len(receiver.got) > len(tries):
            tries.append(minute)
        clock.seconds += 60

    assert len(tries) == MAX_TRIES
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert gaps == sorted(gaps)
    assert (2, 60) == (gaps[0], gaps[-1])
    assert brief(await alerts.feed()) == [("b", 0.5, Delivery.FAILED)]
    assert len(logged(caplog)) == 1
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1


async def test_without_a_webhook_it_is_logged(
    alerts: Alerts, budgets: Budgets, money: Money, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """And in the feed."""
    await budget(budgets, thresholds=[0.5], webhook=None)
    money.spent["b", MONTH] = 10**9
    assert brief(await alerts.check()) == [("b", 0.5, Delivery.LOGGED)]
    assert (0, 1) == (len(receiver.got), len(logged(caplog)))


@pytest.mark.parametrize("after", [True, False])
async def test_an_outage_loses_no_alert(
    make: Callable[[], Alerts],
    budgets: Budgets,
    money: Money,
    receiver: Receiver,
    weather: Any,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    *,
    after: bool,
) -> None:
    """Whether the write that raised it was lost, or only its answer: it is told once."""
    await budget(budgets, thresholds=[0.5])
    money.spent["b", MONTH] = 10**9
    alerts = make()
    everything = await budgets.list()

    async def remembered() -> Any:
        return everything

    monkeypatch.setattr(budgets, "list", remembered)
    weather.after, weather.down = after, True
    with pytest.raises(StorageUnavailableError):
        await alerts.check()
    weather.down = False
    assert receiver.got == []
    for each in (alerts, make()):
        await each.check()
        clock.seconds += CLAIM
        await each.check()

    assert len(receiver.got) == 1
    assert brief(await alerts.feed()) == [("b", 0.5, Delivery.SENT)]


async def test_a_damaged_alert_is_left_out(
    alerts: Alerts, budgets: Budgets, money: Money, tables: Tables, caplog: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    """The others are shown and told."""
    await budget(budgets, thresholds=[0.5, 0.6])
    money.spent["b", MONTH] = 10**9
    await alerts.check()
    table = tables.table("alerts")
    first = await anext(table.query("alerts", start="f~", end="f~~"))
    await table.transact([Op(Action.UPSERT, Entity("alerts", first.row, {**first.properties, "spent": "x"}))])
    await table.transact([Op(Action.UPSERT, Entity("alerts", "p~alr_x", {"place": first.row, "until": 0.0}))])
    clock.seconds += 60
    await alerts.check()

    assert len(await alerts.feed()) == 1
    assert "damaged" in caplog.text
    assert [] == [row async for row in table.query("alerts", start="p~", end="p~~")]
