"""The ledger: holds what a call may cost before it is sent, settles what it did cost, on any number of instances.

    hold = await ledger.reserve(Intent(request_id, attempt, facts), accounts, amount)
    …send…
    ledger.settle(hold, charged)      or      ledger.void(hold)

See `shared.ledger.rows` for what is stored, docs/ledger.md for why it can't overspend.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from shared.core.budgets import Account, Balance
from shared.core.errors import StorageUnavailableError
from shared.ledger import rows
from shared.ledger.corrections import LateSettlement, conclude, correct
from shared.ledger.journal import SessionLostError
from shared.ledger.policy import DEFAULT_POLICY, LedgerPolicy
from shared.ledger.recovery import RecoveredSession, Recovery
from shared.ledger.retention import prune
from shared.ledger.session import Session
from shared.ports import Clock, Tables
from shared.tracing import serve_nobody

MAX_SESSIONS_LOST: Final = 5
"""How often a reservation begins anew because its session was lost under way."""
CLOSING_SECONDS: Final = 5.0
MAX_AMOUNT: Final = 10**15
"""Nano-USD: a million dollars, the most one attempt counts for where nothing is refused. Rows can't hold just any number, and
what one caller asks for (``max_tokens`` has no end) must not keep the rows of others from being written."""
MAX_SEEN: Final = 10_000
"""Accounts whose balance is remembered after their lease has ended."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Intent:
    """What is about to be sent: attempt ``attempt`` of a request, and facts about it that recovery writes down."""

    request_id: str
    attempt: int
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Hold:
    """Money held for one attempt. ``amount`` may be less than was asked for if less was said to do."""

    intent: Intent
    amount: int
    accounts: tuple[Account, ...]
    session: Session
    at: float
    ended: bool = False

    @property
    def hard(self) -> bool:
        """Say whether one of its budgets must not be exceeded."""
        return any(account.hard for account in self.accounts)


@dataclass(slots=True)
class _OpenRequest:
    """A request whose usage is not written yet: when it began, and where its attempts are."""

    began_at: float
    sessions: list[Session] = field(default_factory=list)


class Ledger:
    """The ledger of one process, over the store that all share. To be used from one event loop at a time.

    ``usage_until`` tells the moment before which all usage is written down; ``make_name`` gives names no session has had.
    """

    def __init__(
        self,
        tables: Tables,
        clock: Clock,
        instance: str,
        *,
        policy: LedgerPolicy = DEFAULT_POLICY,
        usage_until: Callable[[], float] | None = None,
        make_name: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._table = tables.table(rows.TABLE)
        self._clock = clock
        self._instance = instance
        self._policy = policy
        self._usage_until = usage_until
        self._make_name = make_name
        self._recovery = Recovery(self._table, clock, instance=instance, policy=policy)
        self._session: Session | None = None
        self._draining: list[Session] = []
        self._open: dict[str, _OpenRequest] = {}  # those whose usage is not written, in the order they began
        self._ended: deque[tuple[float, str]] = deque()
        self._seen: dict[rows.AccountKey, Balance] = {}
        self._late: list[LateSettlement] = []
        self._correcting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.overruns = 0

    # ---- the way of a request ----------------------------------------------------------------------------------------

    async def reserve(
        self,
        intent: Intent,
        accounts: tuple[Account, ...],
        amount: int,
        *,
        least: int | None = None,
        wait: float | None = None,
        written: bool = False,
    ) -> Hold:
        """Hold ``amount`` nano-USD (or less, but at least ``least``) on every account, before anything is sent.

        With a hard account, or if it must be ``written``, this returns once the intent is in the store. Otherwise it returns at
        once, and the intent is written soon: a kill within that time loses it. ``wait`` is how long (seconds) to wait for money
        that others hold, None for the policy's. Raise `BudgetExceededError`, or `StorageUnavailableError` when the store did
        not answer in time.
        """
        if amount < 0:
            message = "A reservation can't be below zero."
            raise ValueError(message)
        if intent.request_id not in self._open:
            self._open[intent.request_id] = _OpenRequest(self._clock.now())
        if not written and not any([account.hard for account in accounts]):  # noqa: C419  (a list is faster for the usual none)
            return self._hold_softly(intent, accounts, amount)
        if written:
            amount = min(amount, MAX_AMOUNT) if not any(account.hard for account in accounts) else amount
        deadline = self._clock.monotonic() + (self._policy.wait if wait is None else min(wait, self._policy.wait))
        for _ in range(MAX_SESSIONS_LOST):
            session = self._current()
            session.busy += 1
            try:
                taken = await session.take(accounts, amount, least=amount if least is None else least, deadline=deadline)
                session.prefetch([session.lease(account) for account in accounts])
                return await self._hold(session, intent, accounts, taken, deadline=deadline)
            except SessionLostError:
                continue
            finally:
                session.busy -= 1
        message = "The ledger kept losing its session while it held this request's cost. Try again."
        raise StorageUnavailableError(message, retry_after=1.0)

    def settle(self, hold: Hold, charged: int, *, facts: Mapping[str, Any] | None = None) -> None:
        """Charge what the attempt cost. Never waits and never raises; doing it twice changes nothing."""
        self._end(hold, charged, rows.IntentState.DONE, facts)

    def void(self, hold: Hold, *, facts: Mapping[str, Any] | None = None) -> None:
        """Charge nothing: the provider bills nothing for this outcome, or nothing was sent."""
        self._end(hold, 0, rows.IntentState.VOID, facts)

    def ended(self, request_id: str) -> None:
        """Take note that the request's usage has been given to the usage log."""
        if request_id in self._open:
            self._ended.append((self._clock.now(), request_id))

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def alive(self, session: str) -> bool:
        """Say whether a session may still write: its owner lives, or nobody has found out yet that it does not.

        Raise `StorageUnavailableError`.
        """
        entity = await self._table.get(rows.session_partition(session), rows.FENCE)
        return entity is not None and rows.fence(entity).state is rows.SessionState.OPEN

    async def attempt(self, session: str, request_id: str, attempt: int) -> rows.IntentRow | None:
        """Return what is written about an attempt in the session that held its money. Raise `StorageUnavailableError`."""
        entity = await self._table.get(rows.session_partition(session), rows.intent_row(request_id, attempt))
        return None if entity is None else rows.intent(entity)

    async def conclude(self, session: str, request_id: str, attempt: int, charged: int) -> int:
        """Return what an attempt is charged for good, which is ``charged`` but for one that was settled too late.

        An attempt that recovery charged is not changed after this, whoever comes back. Raise `StorageUnavailableError`.
        """
        row = await self.attempt(session, request_id, attempt)
        if row is None or row.state is not rows.IntentState.CHARGED:
            return charged
        return await conclude(self._table, session, row, charged)

    async def balance(self, budget: str, period: str, limit: int) -> Balance:
        """Return what an account's head says; what this process settled in the last seconds may be missing."""
        key = rows.AccountKey(budget, period)
        entity = await self._table.get(rows.account_partition(key), rows.HEAD)
        if entity is None:
            return Balance(limit)
        head = rows.head(entity)
        self._seen[key] = balance = Balance(limit, head.spent, head.reserved)
        return balance

    def seen(self, budget: str, period: str) -> Balance | None:
        """Return what this process last saw of an account, without asking; None if it never did."""
        key = rows.AccountKey(budget, period)
        leases = [session.leases[key] for session in self._sessions() if key in session.leases]
        latest = max(leases, key=lambda lease: lease.seen_at, default=None)
        return (None if latest is None else latest.seen) or self._seen.get(key)

    # ---- housekeeping ------------------------------------------------------------------------------------------------

    async def recover(self) -> list[RecoveredSession]:
        """Settle dead sessions. For each, write its usage down, then call `finish`. Raise `StorageUnavailableError`."""
        own = frozenset(session.name for session in self._sessions() if not session.lost)
        found = await self._recovery.run(own=own)
        for session in found:
            if session.charged:
                _log.warning(
                    "Recovered the session %s: %d attempts charged at their estimate", session.session, session.charged
                )
        return found

    async def finish(self, session: RecoveredSession) -> None:
        """Forget a recovered session, its usage being written down."""
        await self._recovery.finish(session.session)

    async def prune(self, before_day: str) -> int:
        """Forget the rows of sessions closed before a day (``2026-11-22``); return how many sessions."""
        return await prune(self._table, before_day)

    async def flush(self) -> None:
        """Write what waits, and have the heads count what is settled. Raise `StorageUnavailableError`."""
        for session in self._sessions():
            if not session.lost:
                await session.journal.flush()
                await session.fold()
        await self._correct()

    async def aclose(self) -> None:
        """Settle and give back what can be in a few seconds; what can't is left to recovery. Never raises."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                for _ in range(2):  # what has to be written anew begins another session
                    await self._stop_tending()
                    if self._session is not None:
                        self._retire(self._session)
                    for session in list(self._draining):
                        await self._try_closing(session)
                    with contextlib.suppress(StorageUnavailableError):
                        await self._correct()
        await self._stop_tending()
        for session in self._sessions():
            await session.stop()
        self._session, self._draining = None, []

    async def _stop_tending(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # ---- within ------------------------------------------------------------------------------------------------------

    def _sessions(self) -> list[Session]:
        return [*self._draining, *([self._session] if self._session is not None else [])]

    def _current(self) -> Session:
        """Return the session to write in, a new one if there is none or it has served long enough."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # what the loop before left open is left to recovery
            self._loop, self._session, self._draining, self._task = loop, None, [], None
            self._correcting = asyncio.Lock()
        session = self._session
        if session is not None and (session.lost or session.worn):
            self._retire(session)
            session = None
        if session is None:
            session = self._session = Session(
                self._table,
                self._clock,
                self._make_name(),
                instance=self._instance,
                policy=self._policy,
                usage_until=self._written_until,
            )
        session.used_at = self._clock.monotonic()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._tend(), name="switchyard-ledger")
        return session

    def _retire(self, session: Session) -> None:
        session.draining = True
        self._draining.append(session)
        if self._session is session:
            self._session = None

    def _written_until(self) -> float:
        """Return the moment such that the usage of every request that began before is written, or was never there to be."""
        written = self._clock.now() if self._usage_until is None else self._usage_until()
        while self._ended and (self._usage_until is None or self._ended[0][0] < written):
            request = self._open.pop(self._ended.popleft()[1], None)
            for session in () if request is None else request.sessions:
                session.unwritten -= 1
        oldest = next(iter(self._open.values()), None)
        return written if oldest is None else min(oldest.began_at, written)

    def _wrote(self, request_id: str, session: Session) -> None:
        """Take note that an attempt of a request is, or soon will be, in a session: its usage keeps that one open."""
        request = self._open.get(request_id)
        if request is not None and session not in request.sessions:
            request.sessions.append(session)
            session.unwritten += 1

    def _may_close(self, session: Session) -> bool:
        """Say whether all is done in it, and the usage of its requests written: nobody looks for that in a closed session."""
        self._written_until()
        return session.finished and (self._usage_until is None or not session.unwritten)

    def _hold_softly(self, intent: Intent, accounts: tuple[Account, ...], amount: int) -> Hold:
        amount = min(amount, MAX_AMOUNT)
        session = self._current()
        for account in accounts:
            session.lease(account).take(amount)
        hold = Hold(intent, amount, accounts, session, at=self._clock.now())
        session.holds += 1
        self._wrote(intent.request_id, session)
        row = _row(hold, rows.IntentState.PENDING, 0, None)
        session.journal.put(row.row, row.properties())
        return hold

    async def _hold(
        self, session: Session, intent: Intent, accounts: tuple[Account, ...], amount: int, *, deadline: float
    ) -> Hold:
        """Write the intent of an amount that was taken, and wait until it has landed."""
        hold = Hold(intent, amount, accounts, session, at=self._clock.now())
        session.holds += 1
        self._wrote(intent.request_id, session)
        row = _row(hold, rows.IntentState.PENDING, 0, None)
        if session.lost:
            self._drop(hold)
            raise SessionLostError
        session.journal.put(row.row, row.properties(), urgent=True)
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic()) + self._policy.wait / 4):
                landed = await session.journal.written(row.row)
        except BaseException as error:  # not in time, or the client has gone: nothing was sent
            if session.journal.withdraw(row.row):
                self._drop(hold)
            else:
                self.void(hold)
            if isinstance(error, TimeoutError):
                message = "The ledger did not confirm in time that this request's cost is held. Try again."
                raise StorageUnavailableError(message, retry_after=1.0) from error
            raise
        if not landed:
            self._drop(hold)
            # It may have landed unheard before the session was lost: then recovery charges it, and this takes that back.
            void = replace(row, state=rows.IntentState.VOID, at=self._clock.now())
            self._late.append(LateSettlement(session.name, void, accounts))
            raise SessionLostError
        return hold

    def _drop(self, hold: Hold) -> None:
        """Undo a hold of which nothing is, or ever will be, in the store."""
        hold.ended = True
        hold.session.holds -= 1
        for account in hold.accounts:
            lease = hold.session.holder(account) if not hold.session.lost else None
            if lease is not None:
                lease.give(hold.amount, 0)
                lease.landed(hold.amount, 0)

    def _end(self, hold: Hold, charged: int, state: rows.IntentState, facts: Mapping[str, Any] | None) -> None:
        if hold.ended:
            return
        hold.ended = True
        charged = min(charged, max(MAX_AMOUNT, hold.amount))
        session = hold.session
        session.holds -= 1
        if charged > hold.amount and hold.hard:
            self.overruns += 1
            said = "overrun: attempt %d of %s cost %d nano-USD, %d were held"
            _log.error(said, hold.intent.attempt, hold.intent.request_id, charged, hold.amount)
        row = _row(hold, state, charged, facts, at=self._clock.now())
        late = LateSettlement(session.name, row, hold.accounts)
        if session.lost:
            self._late.append(late)
            return
        leases = [session.holder(account) for account in hold.accounts]
        for lease in leases:
            lease.give(hold.amount, charged)
        session.serve()

        def landed() -> None:
            for lease in leases:
                lease.landed(hold.amount, charged)

        session.journal.put(row.row, row.properties(), landed=landed, lost=lambda: self._late.append(late))

    # ---- the background task -----------------------------------------------------------------------------------------

    async def _tend(self) -> None:
        """Look after the sessions as long as there are any."""
        serve_nobody()
        while self._session is not None or self._draining or self._late:
            await self._clock.sleep(self._policy.tick * (0.75 + self._clock.draw() / 2))
            session = self._session
            if session is not None and (session.lost or session.worn or session.unused):
                self._retire(session)
            for one in self._sessions():
                await one.tend()
            for one in list(self._draining):
                await self._try_closing(one)
            with contextlib.suppress(StorageUnavailableError):
                await self._correct()
            await asyncio.sleep(0)  # a clock that does not really wait must not keep the loop from others

    async def _try_closing(self, session: Session) -> None:
        if session.lost:
            if not session.holds and not session.busy and session.journal.quiet:
                self._let_go(session)
            return
        if not session.holds and not session.busy:
            await session.journal.flush()
        if not self._may_close(session):
            return
        try:
            await session.close()
        except (SessionLostError, StorageUnavailableError):
            if session.lost:
                self._let_go(session)
        else:
            self._let_go(session)

    def _let_go(self, session: Session) -> None:
        """Forget a session, but for what it saw last of its accounts."""
        self._draining.remove(session)
        if len(self._seen) > MAX_SEEN:
            self._seen.clear()
        self._seen.update({key: lease.seen for key, lease in session.leases.items() if lease.seen is not None})

    async def _correct(self) -> None:
        """Correct what came too late, once its session has been recovered."""
        async with self._correcting:  # what is written anew would else be written twice
            settled: set[str] = set()
            for late in list(self._late):
                if late.session not in settled and await self._recovery.recover(late.session) is None:
                    continue
                settled.add(late.session)
                if not await correct(self._table, late):
                    self._write_anew(late)
                self._late.remove(late)

    def _write_anew(self, late: LateSettlement) -> None:
        """Write an attempt of which nothing landed in its own session: it had no hard budget, so nobody waited for it."""
        if late.intent.state is rows.IntentState.VOID:
            return
        session = self._current()
        for account in late.accounts:
            session.holder(account).used += late.intent.charged
        self._wrote(late.intent.request_id, session)
        session.journal.put(
            late.intent.row,
            late.intent.properties(),
            lost=lambda: self._late.append(replace(late, session=session.name)),
        )


def _row(
    hold: Hold, state: rows.IntentState, charged: int, facts: Mapping[str, Any] | None, *, at: float | None = None
) -> rows.IntentRow:
    return rows.IntentRow(
        hold.intent.request_id,
        hold.intent.attempt,
        state,
        hold.amount,
        charged,
        tuple([rows.AccountKey(account.budget, account.period) for account in hold.accounts]),
        orjson.dumps(hold.intent.facts if facts is None else {**hold.intent.facts, **facts}).decode(),
        hold.at if at is None else at,
    )
