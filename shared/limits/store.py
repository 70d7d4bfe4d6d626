"""Admission by requests and tokens per minute, over all instances.

Which way a limit is kept is decided by its size: up to 300 requests a minute (or 60,000 tokens, where only tokens are
limited) exactly, in a row of its own (`shared.limits.exact`); above, by counters that instances exchange every second
(`shared.limits.exchange`). Another store may be put in front (`LimitBackend`: Redis); while it does not answer, the tables do.

An admission counts against all its subjects or against none. Nobody waits longer than `WAIT_SECONDS` for a store, and a store
that fails neither opens nor closes the gateway: each instance goes by its even share of the limit.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Final

from shared.core.errors import StorageUnavailableError
from shared.core.limits import LATE, MINUTE, Header, Limited, Standing, Use, Verdict, What, headers_of
from shared.limits.exact import Asking, ExactRow
from shared.limits.exchange import Exchange
from shared.ports import Clock, LimitBackend, Tables

TABLE: Final = "limits"
WAIT_SECONDS: Final = LATE
MAX_ROWS: Final = 10_000
"""Exact rows known in memory; idle ones make room."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Ticket:
    """What an admission counted, to be settled or released once."""

    parts: tuple[tuple[Limited, int], ...] = ()
    """Subjects with the ticks under which they counted."""
    tokens: int = 0
    backend: bool = False
    open: bool = True


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may go. A refusal names the subject and what ran out, and when to come back (seconds)."""

    allowed: bool
    refused_by: Limited | None = None
    what: What | None = None
    retry_after: float = 0.0
    headers: tuple[Header, ...] = ()
    ticket: Ticket | None = None


UNLIMITED: Final = Admission(allowed=True)
"""The admission of a request that nothing limits."""


class RateLimits:
    """The limits as one instance sees them. ``instance`` is unique to the process. To be used from one event loop."""

    def __init__(self, tables: Tables, clock: Clock, instance: str, *, backend: LimitBackend | None = None) -> None:
        self._table = tables.table(TABLE)
        self._clock = clock
        self._instance = instance
        self._backend = backend
        self._rows: dict[str, ExactRow] = {}
        self._exchange = Exchange(self._table, clock, instance)
        self._credits: set[asyncio.Task[None]] = set()
        self._complained_at = float("-inf")

    # ---- a request's way ---------------------------------------------------------------------------------------------

    async def admit(self, subjects: tuple[Limited, ...], *, tokens: int) -> Admission:
        """Count one request of at most ``tokens`` against every subject's limits, or against none. Never raises."""
        for subject in subjects:
            if subject.requests_per_minute is not None or subject.tokens_per_minute is not None:
                break
        else:
            return UNLIMITED
        limited = tuple(one for one in subjects if one.requests_per_minute is not None or one.tokens_per_minute is not None)
        if self._backend is not None:
            verdict = await self._backend.admit(limited, tokens)
            if verdict is not None:
                return self._by_backend(limited, tokens, verdict)
            self._complain()
        return await self._by_tables(limited, tokens)

    def settle(self, ticket: Ticket | None, tokens_used: int) -> None:
        """Say how many tokens a request really used: the rest is given back, what is more is charged. Never waits."""
        self._credit(ticket, requests=0, tokens_used=tokens_used)

    async def charge(self, subjects: tuple[Limited, ...], tokens: int) -> None:
        """Count tokens that were used though nobody had asked for them: what background work took beyond its estimate.

        They count from now on. Nothing is added to a limit that is used up already, or whose requests are. Never raises.
        """
        if tokens > 0:
            admission = await self.admit(subjects, tokens=0)
            self._credit(admission.ticket, requests=1, tokens_used=tokens)

    def release(self, ticket: Ticket | None) -> None:
        """Give everything back: nothing was sent. Never waits."""
        self._credit(ticket, requests=1, tokens_used=0)

    # ---- the end, and people -----------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Write what waits to be written; raise `StorageUnavailableError` when the store does not take it."""
        await asyncio.gather(*self._credits)
        for row in list(self._rows.values()):
            await row.flush()

    async def aclose(self) -> None:
        """Write what waits, if the store takes it, and stop."""
        try:
            async with asyncio.timeout(2.0):
                await self.flush()
        except (StorageUnavailableError, TimeoutError):
            _log.warning("The last rate limit counts were not written: the store does not answer")
        for row in self._rows.values():
            await row.aclose()
        await self._exchange.aclose()
        if self._backend is not None:
            await self._backend.aclose()

    def report(self) -> list[Use]:
        """Return what is used of each limit this instance had requests for lately."""
        found = [Use(row.limited, one.what, one.used, one.limit) for row, one in self._exact_standings()]
        for limited in self._exchange.subjects():
            found += [Use(limited, one.what, one.used, one.limit) for one in self._exchange.standings(limited)]
        return found

    def _exact_standings(self) -> list[tuple[ExactRow, Standing]]:
        return [(row, standing) for row in self._rows.values() for standing in row.standings()]

    # ---- by the tables -----------------------------------------------------------------------------------------------

    async def _by_tables(self, limited: tuple[Limited, ...], tokens: int) -> Admission:
        exact = [one for one in limited if one.exact]
        counted = [one for one in limited if not one.exact]
        if counted and self._exchange.uninformed:
            await self._exchange.news(WAIT_SECONDS)
        for one in counted:  # nothing is counted before everybody in memory agrees
            refused = self._exchange.ask(one, tokens)
            if refused is not None:
                return _refusal(one, Verdict(0, *refused, standings=self._exchange.standings(one)))
        for one in exact:
            certain = self._row(one).refusal(1, tokens)
            if certain is not None:
                return _refusal(one, certain)
        parts: list[tuple[Limited, int]] = []
        standings: list[Standing] = []
        for one in counted:
            verdict = self._exchange.take(one, tokens)
            parts.append((one, verdict.tick))
            standings += verdict.standings
        refusal = await self._ask_rows(exact, tokens, parts, standings) if exact else None
        ticket = Ticket(tuple(parts), tokens)
        if refusal is not None:
            self.release(ticket)
            return refusal
        return Admission(allowed=True, headers=headers_of(standings), ticket=ticket)

    async def _ask_rows(
        self, exact: list[Limited], tokens: int, parts: list[tuple[Limited, int]], standings: list[Standing]
    ) -> Admission | None:
        """Ask all rows at once; add to what was counted. Return the first refusal."""
        rows = [self._row(one) for one in exact]
        asked = [row.ask(1, tokens) for row in rows]
        try:
            await asyncio.wait([one.answer for one in asked], timeout=WAIT_SECONDS)
        except asyncio.CancelledError:
            for row, asking in zip(rows, asked, strict=True):
                row.leave(asking)
            self.release(Ticket(tuple(parts), tokens))
            raise
        refusal: Admission | None = None
        for row, asking in zip(rows, asked, strict=True):
            verdict = _answer(row, asking)
            if verdict.refused is None:
                parts.append((row.limited, verdict.tick))
                standings += verdict.standings
            elif refusal is None:
                refusal = _refusal(row.limited, verdict)
        return refusal

    def _row(self, limited: Limited) -> ExactRow:
        row = self._rows.get(limited.subject)
        if row is not None and row.limited == limited:
            return row
        if len(self._rows) >= MAX_ROWS:
            moment = self._clock.monotonic()
            for name in [name for name, one in self._rows.items() if one.idle and moment - one.used_at > MINUTE]:
                del self._rows[name]
        row = self._rows[limited.subject] = ExactRow(self._table, self._clock, self._instance, limited)
        return row

    # ---- giving back -------------------------------------------------------------------------------------------------

    def _credit(self, ticket: Ticket | None, *, requests: int, tokens_used: int) -> None:
        if ticket is None or not ticket.open:
            return
        ticket.open = False
        for limited, tick in ticket.parts:
            limit = limited.tokens_per_minute
            tokens = 0 if limit is None else min(ticket.tokens, limit) - tokens_used
            if not requests and not tokens:
                continue
            if ticket.backend:
                self._credit_backend(limited, tick, requests, tokens)
            elif limited.exact:
                self._row(limited).credit(tick, requests, tokens)
            else:
                self._exchange.credit(limited, tick, requests, tokens)

    def _credit_backend(self, limited: Limited, tick: int, requests: int, tokens: int) -> None:
        if self._backend is None:
            return
        task = asyncio.ensure_future(self._backend.credit((limited,), requests=requests, tokens=tokens, tick=tick))
        self._credits.add(task)
        task.add_done_callback(self._credits.discard)

    # ---- by the backend ----------------------------------------------------------------------------------------------

    def _by_backend(self, limited: tuple[Limited, ...], tokens: int, verdict: Verdict) -> Admission:
        if verdict.refused is not None:
            return _refusal(limited[verdict.refused], verdict)
        parts = tuple((one, verdict.tick) for one in limited)
        return Admission(allowed=True, headers=headers_of(verdict.standings), ticket=Ticket(parts, tokens, backend=True))

    def _complain(self) -> None:
        now = self._clock.monotonic()
        if now - self._complained_at >= MINUTE:
            self._complained_at = now
            _log.warning("Rate limits are kept in the tables: Redis does not answer")


def _answer(row: ExactRow, asking: Asking) -> Verdict:
    """Return what the row said, or what this instance's share says when it said nothing."""
    verdict = asking.answer.result() if asking.answer.done() else None
    if verdict is None:
        verdict = row.by_share(asking)
        asking.answer.cancel()
    return verdict


def _refusal(limited: Limited, verdict: Verdict) -> Admission:
    standings = [
        replace(one, remaining=0, reset=verdict.retry_after) if one.what == verdict.what else one for one in verdict.standings
    ]
    return Admission(
        allowed=False,
        refused_by=limited,
        what=verdict.what,
        retry_after=verdict.retry_after,
        headers=headers_of(standings),
    )
