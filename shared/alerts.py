"""Alerts: a budget's spending crossed a threshold. Told once per budget, period and threshold, over all instances and crashes.

| row of the partition ``alerts`` | what |
|---|---|
| ``a~BUDGET~PERIOD~THRESHOLD`` | that it was told: who inserts it, tells it |
| ``f~…`` | the feed, the newest first |
| ``p~ID`` | what is not told yet: who may try until when, how often it was tried |

All three are inserted in one transaction; whoever inserted them logs the alert and calls the webhook. If that instance dies,
its claim on the ``p`` row runs out and the next check on any instance takes over. So the log line and the webhook come at least
once, and twice only around a crash or a lost answer; the id is the same, and the receiver tells by it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol

from shared.budgets import Budgets
from shared.core.budgets import Balance, Budget, Scope, ScopeKind, period_of
from shared.core.errors import StorageUnavailableError
from shared.core.fields import Fields
from shared.ports import Action, Clock, Entity, EntityChangedError, EntityExistsError, EntityNotFoundError, Op, Tables, Value

TABLE: Final = "alerts"
PARTITION: Final = "alerts"
CLAIM: Final = 60.0
"""Seconds one instance has to tell an alert, before another may take over: much more than a webhook may take."""
MAX_TRIES: Final = 10
MAX_PAUSE: Final = 3_600.0
LOOK_BACK: Final = 3_600.0
"""Seconds for which a period that ended is still looked at: what was admitted in it may settle later."""
MAX_FEED: Final = 1_000

_LAST: Final = 9_999_999_999_999
_MAX_KNOWN: Final = 50_000
_AT_ONCE: Final = 16
_UNITS: Final = 10_000
"""A share of the limit in integers: thresholds have at most four decimals."""
_EXHAUSTED: Final = 9_990
"""A hard budget is never spent to its last nano-dollar: 99.9 % of it is all of it."""

_log = logging.getLogger("switchyard.alerts")

ReadBalance = Callable[[str, str, int], Awaitable[Balance]]


class Delivery(StrEnum):
    """How far the telling is."""

    PENDING = "pending"
    LOGGED = "logged"  # there is no webhook to call
    SENT = "sent"
    FAILED = "failed"  # given up, after `MAX_TRIES`


class WebhookSender(Protocol):
    """Where alerts go."""

    async def send(self, url: str, payload: Mapping[str, object], *, delivery: str) -> str | None:
        """Send one; return None when it was taken, else why not."""
        ...


@dataclass(frozen=True, slots=True)
class Alert:
    """A threshold that was crossed. Amounts are nano-USD at that moment; ``raised_at`` is seconds since the epoch."""

    id: str
    budget: str
    name: str
    scope: Scope
    period: str
    threshold: float
    limit: int
    spent: int
    held: int
    hard: bool
    raised_at: float
    delivery: Delivery = Delivery.PENDING


@dataclass(frozen=True, slots=True)
class _Pending:
    """A ``p`` row that this instance has claimed. ``place`` is the row of the feed."""

    alert: Alert
    place: str
    tries: int
    logged: bool
    etag: str


class Alerts:
    """The alerts of this gateway. ``balance`` reads what a budget has spent in a period: `Ledger.balance`."""

    def __init__(
        self,
        tables: Tables,
        clock: Clock,
        budgets: Budgets,
        balance: ReadBalance,
        webhook: WebhookSender | None = None,
    ) -> None:
        self._table = tables.table(TABLE)
        self._clock = clock
        self._budgets = budgets
        self._balance = balance
        self._webhook = webhook
        self._known: set[tuple[str, str, float]] = set()

    async def check(self) -> list[Alert]:
        """Look at every budget, tell what is new and what others left untold; return what this call raised.

        For a timer, each minute, on any instance. Raise `StorageUnavailableError`; the next check goes on where it ended.
        """
        budgets = {each.budget.id: each.budget for each in await self._budgets.list()}
        watched = [budget for budget in budgets.values() if budget.enabled and budget.thresholds]
        raised: list[_Pending] = []
        for start in range(0, len(watched), _AT_ONCE):
            found = await asyncio.gather(*(self._look(budget) for budget in watched[start : start + _AT_ONCE]))
            raised += [pending for each in found for pending in each]
        told = await self._tell_all(raised, budgets)
        await self._tell_all(await self._left_behind(), budgets)
        return told

    async def feed(self, limit: int = 100) -> list[Alert]:
        """Return the latest alerts, the newest first."""
        found: list[Alert] = []
        async for entity in self._table.query(PARTITION, start="f~", end="f~~", limit=min(limit, MAX_FEED)):
            alert = _read(entity)
            if alert is not None:
                found.append(alert)
        return found

    # ---- looking -----------------------------------------------------------------------------------------------------

    async def _look(self, budget: Budget) -> list[_Pending]:
        """Raise what a budget's spending has crossed, in this period and in one that has just ended."""
        now = self._clock.now()
        periods = {period_of(budget.cycle, budget.time_zone, moment).key for moment in (now - LOOK_BACK, now)}
        raised: list[_Pending] = []
        for period in sorted(periods):
            waiting = [each for each in budget.thresholds if (budget.id, period, each) not in self._known]
            if not waiting:
                continue
            balance = await self._balance(budget.id, period, budget.limit)
            for threshold in waiting:
                if _reached(budget, balance, threshold):
                    raised += await self._raise(_alert(budget, balance, period, threshold, now))
        return raised

    async def _raise(self, alert: Alert) -> Iterable[_Pending]:
        """Insert the alert; nothing is returned when somebody else did."""
        once = f"a~{alert.budget}~{alert.period}~{alert.threshold:.4f}"
        place = f"f~{_LAST - int(alert.raised_at * 1000):013d}~{alert.id}"
        pending = _Pending(alert, place, 0, logged=False, etag="")
        ops = [
            Op(Action.INSERT, Entity(PARTITION, once, {"id": alert.id})),
            Op(Action.INSERT, Entity(PARTITION, place, _properties(alert))),
            Op(Action.INSERT, self._claimed(pending)),
        ]
        try:
            etags = await self._table.transact(ops)
        except EntityExistsError:
            self._remember(alert)
            return ()
        self._remember(alert)
        return (replace(pending, etag=etags[2]),)

    def _remember(self, alert: Alert) -> None:
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known.add((alert.budget, alert.period, alert.threshold))

    # ---- telling -----------------------------------------------------------------------------------------------------

    async def _left_behind(self) -> list[_Pending]:
        """Claim what nobody is telling: the claim of who tried has run out."""
        now = self._clock.now()
        found = [entity async for entity in self._table.query(PARTITION, start="p~", end="p~~")]
        claimed = []
        for entity in found:
            row = Fields(entity.properties)
            place = row.find_text("place") or ""
            if (row.find_number("until") or 0.0) > now:
                continue
            alert = await self._in_feed(place)
            if alert is None:
                _log.error("The alert %s is damaged and can't be told.", entity.row)
                await self._drop(entity)
                continue
            pending = _Pending(alert, place, row.find_whole("tries") or 0, row.flag("logged"), entity.etag)
            mine = await self._replace(self._claimed(pending))
            if mine is not None:
                claimed.append(replace(pending, etag=mine))
        return claimed

    async def _in_feed(self, place: str) -> Alert | None:
        entity = await self._table.get(PARTITION, place) if place else None
        return None if entity is None else _read(entity)

    def _claimed(self, pending: _Pending, seconds: float = CLAIM) -> Entity:
        properties: dict[str, Value] = {
            "place": pending.place,
            "tries": pending.tries,
            "logged": pending.logged,
            "until": self._clock.now() + seconds,
        }
        return Entity(PARTITION, f"p~{pending.alert.id}", properties, pending.etag)

    async def _tell_all(self, waiting: Sequence[_Pending], budgets: Mapping[str, Budget]) -> list[Alert]:
        told: list[Alert] = []
        for start in range(0, len(waiting), _AT_ONCE):
            some = waiting[start : start + _AT_ONCE]
            told += await asyncio.gather(*(self._tell(each, budgets.get(each.alert.budget)) for each in some))
        return told

    async def _tell(self, pending: _Pending, budget: Budget | None) -> Alert:
        """Log it once and call the webhook; write down how that went."""
        if not pending.logged:
            _log.warning("budget_alert %s", json.dumps(payload(pending.alert), ensure_ascii=False))
        url = None if budget is None else budget.webhook
        if url is None or self._webhook is None:
            return await self._done(pending, Delivery.LOGGED)
        problem = await self._webhook.send(url, payload(pending.alert), delivery=pending.alert.id)
        if problem is None:
            return await self._done(pending, Delivery.SENT)
        tried = replace(pending, tries=pending.tries + 1, logged=True)
        level = logging.ERROR if tried.tries >= MAX_TRIES else logging.WARNING
        _log.log(level, "The webhook of alert %s failed, try %d of %d: %s", pending.alert.id, tried.tries, MAX_TRIES, problem)
        if tried.tries >= MAX_TRIES:
            return await self._done(tried, Delivery.FAILED)
        await self._replace(self._claimed(tried, min(MAX_PAUSE, CLAIM * 2.0**tried.tries)))
        return pending.alert

    async def _done(self, pending: _Pending, delivery: Delivery) -> Alert:
        told = replace(pending.alert, delivery=delivery)
        ops = [
            Op(Action.DELETE, Entity(PARTITION, f"p~{told.id}", etag=pending.etag)),
            Op(Action.UPSERT, Entity(PARTITION, pending.place, _properties(told))),
        ]
        try:
            await self._table.transact(ops)
        except (EntityChangedError, EntityNotFoundError):
            pass  # another instance took over while we were slow, and writes down how it went
        except StorageUnavailableError:
            _log.warning("It could not be written down that alert %s was told: it may be told again.", told.id)
        return told

    async def _replace(self, entity: Entity) -> str | None:
        try:
            return await self._table.replace(entity)
        except (EntityChangedError, EntityNotFoundError):
            return None

    async def _drop(self, entity: Entity) -> None:
        try:
            await self._table.delete(PARTITION, entity.row, entity.etag)
        except (EntityChangedError, EntityNotFoundError):
            return


def payload(alert: Alert) -> dict[str, Any]:
    """Return what is told about an alert. No secret is part of it."""
    return {
        "object": "budget.alert",
        "id": alert.id,
        "budget": alert.budget,
        "name": alert.name,
        "scope": {"kind": alert.scope.kind.value, "name": alert.scope.name},
        "period": alert.period,
        "threshold": alert.threshold,
        "hard": alert.hard,
        "limit_nano_usd": alert.limit,
        "spent_nano_usd": alert.spent,
        "held_nano_usd": alert.held,
        "raised_at": alert.raised_at,
    }


def _reached(budget: Budget, balance: Balance, threshold: float) -> bool:
    share = round(threshold * _UNITS)
    if budget.hard:
        share = min(share, _EXHAUSTED)
    return balance.spent * _UNITS >= share * budget.limit


def _alert(budget: Budget, balance: Balance, period: str, threshold: float, moment: float) -> Alert:
    name = hashlib.sha256(f"{budget.id}|{period}|{threshold:.4f}".encode()).hexdigest()
    return Alert(
        id=f"alr_{name[:24]}",
        budget=budget.id,
        name=budget.name,
        scope=budget.scope,
        period=period,
        threshold=threshold,
        limit=budget.limit,
        spent=balance.spent,
        held=balance.held,
        hard=budget.hard,
        raised_at=moment,
    )


def _properties(alert: Alert) -> dict[str, Value]:
    return {
        "id": alert.id,
        "budget": alert.budget,
        "name": alert.name,
        "scope_kind": alert.scope.kind.value,
        "scope_name": alert.scope.name,
        "period": alert.period,
        "threshold": alert.threshold,
        "limit": alert.limit,
        "spent": alert.spent,
        "held": alert.held,
        "hard": alert.hard,
        "raised_at": alert.raised_at,
        "delivery": alert.delivery.value,
    }


def _read(entity: Entity) -> Alert | None:
    row = Fields(entity.properties)
    try:
        return Alert(
            id=row.text("id"),
            budget=row.text("budget"),
            name=row.text("name"),
            scope=Scope(ScopeKind(row.text("scope_kind")), row.text("scope_name")),
            period=row.text("period"),
            threshold=row.number("threshold"),
            limit=row.whole("limit"),
            spent=row.whole("spent"),
            held=row.whole("held"),
            hard=row.flag("hard"),
            raised_at=row.number("raised_at"),
            delivery=Delivery(row.text("delivery")),
        )
    except ValueError as error:
        _log.error("The alert in row %s is damaged and left out: %s", entity.row, error)
        return None
