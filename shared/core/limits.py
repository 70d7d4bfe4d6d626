"""Rate limits as arithmetic: how much of a minute's limit is used, and an instance's share of the rest.

A limit of L a minute lets L through at once where nothing was used in the last minute, for requests and for tokens alike:

- a guard over the last 60 seconds decides: never more than 1.04 L in any of them, however bursts and large requests fall. The
  slack is for demand at exactly L whose pace is not quite even. What was counted is kept a quarter of a second longer: of two
  bursts a minute apart, the first may have been answered late and the second at once. Where L is too small for a slack, a
  request that finds the bucket empty, as demand at an even pace does, has not to wait for this quarter;
- a leaking bucket of L (GCRA; it leaks L / 60 a second) keeps the slack out of what goes at once: L, not 1.04 L.

Where instances count together without asking each other (`Share`), what one does not know of the others is bounded by how much
all may take between two exchanges: a bucket of L / 10, or a quarter of what is left of the minute where that is more (less in
a crowd of more than ten).

A caller is told what would go at once (``remaining``) and when it will be all of L again (``reset``).

A request whose tokens are more than the whole limit is charged as the limit: it waits for an idle minute, not for ever.

Times are seconds of one clock that never goes back; amounts are requests or tokens.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

MINUTE: Final = 60.0
LATE: Final = 0.25
"""Seconds by which a store's answer may be later than the time at which it counted: nobody waits longer for one."""
SLACK: Final = 1.04
"""What the guard lets pass in the worst minute."""
BURST_PART: Final = 10
LEAST_BURST: Final = 5
"""The bucket of instances that don't ask each other: a tenth of the limit, or five where that is more."""
SPEND_PART: Final = 0.25
"""How much of what is left of a minute they may take between two exchanges. News is up to two intervals old: with more than a
quarter, what is taken before it is heard of would go beyond the limit."""
SPEND_CROWD: Final = 10
"""From how many instances on it is less, in proportion: what many draw lots for is a matter of chance."""
EXACT_UP_TO: Final = 300
"""Requests a minute up to which a limit is kept exactly, in one row for all instances: five a second."""
EXACT_TOKENS_UP_TO: Final = 60_000
"""The same for a subject that has a limit of tokens only."""
INTERVAL: Final = 1.0
"""Seconds between two exchanges of counters."""

_KEPT: Final = MINUTE + LATE
_MAX_ENTRIES: Final = 600
_STEPS: Final = 30
_UNSEEN: Final = 0.5
"""How old, in intervals, the others' counters are on average when they are read."""
_MEMORY: Final = 0.5
"""Weight of the newest interval in the smoothed rates."""

What = Literal["requests", "tokens"]
Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Limited:
    """Whose limits count: ``subject`` such as "key:key_abc", "project:shop", "deployment:azure/x". None is no limit."""

    subject: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @property
    def exact(self) -> bool:
        """Say whether the limit is so small that counters exchanged each second would be too coarse."""
        if self.requests_per_minute is not None:
            return self.requests_per_minute <= EXACT_UP_TO
        return self.tokens_per_minute is not None and self.tokens_per_minute <= EXACT_TOKENS_UP_TO

    def limit(self, what: What) -> int | None:
        """Return the limit of one kind."""
        return self.requests_per_minute if what == "requests" else self.tokens_per_minute


@dataclass(frozen=True, slots=True)
class Use:
    """What a subject has used of one limit in the last minute, as far as this instance knows."""

    limited: Limited
    what: What
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How one limit stands: what a caller is told of it.

    ``remaining`` would go at once, ``reset`` is the seconds until all of the limit would; ``used`` is that of the last minute.
    """

    what: What
    limit: int
    remaining: int
    reset: float
    used: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a store of limits decided. ``refused`` is the place in the limits asked for, None when all admit.

    ``tick`` is what a credit names, ``standings`` are those after the decision.
    """

    refused: int | None = None
    what: What | None = None
    retry_after: float = 0.0
    tick: int = 0
    standings: tuple[Standing, ...] = ()


class Gauge:
    """What is used of one limit. Mutable: it lives on the path of every request."""

    __slots__ = ("_at", "_entries", "_level", "burst", "cap", "limit", "rate", "total")

    def __init__(self, limit: int, *, slack: float = SLACK) -> None:
        self.limit = limit
        self.rate = limit / MINUTE
        self.burst = float(limit)
        self.cap = _cap(limit, slack)
        self.total = 0
        self._level = 0.0
        self._at = 0.0
        self._entries: dict[int, int] = {}  # milliseconds → amount, the oldest first

    def level(self, now: float) -> float:
        """Return what is in the bucket, and let the last minute's oldest entries go."""
        if now > self._at:
            self._level = max(0.0, self._level - (now - self._at) * self.rate)
            self._at = now
            self._forget(now)
        return self._level

    def charge(self, amount: int) -> int:
        """Return what a request of this size is charged at: at most the limit."""
        return min(amount, self.limit, self.cap)

    def need(self, amount: int) -> float:
        """Return the room in the bucket that a request asks for: half of one smaller than the limit is room for any size."""
        return float(amount) if self.burst >= self.limit else min(float(amount), max(1.0, self.burst / 2))

    def wait(self, amount: int, now: float) -> float:
        """Return the seconds until ``amount`` fits; 0.0 is now. At most a minute: OpenAI's clients go by no longer one."""
        over = self.level(now) + self.need(amount) - self.burst
        wait = over / self.rate if over > 1e-9 else 0.0  # noqa: PLR2004  # what floats lose
        return max(wait, self.guard(amount, now))

    def guard(self, amount: int, now: float, *, unseen: float = 0.0) -> float:
        """Do so by the last minute alone. ``unseen`` is what others have probably used meanwhile."""
        level = self.level(now)
        excess = self.total + unseen + amount - self.cap
        if excess > 0 and self.cap == self.limit and level + amount <= 1 + 1e-6:
            excess -= self.expiring(now, LATE)
        return self._expiry(excess, now) if excess > 0 else 0.0

    def add(self, amount: int, now: float, *, grain: int = 1) -> int:
        """Count ``amount``; return the tick under which it can be taken back. ``grain``: milliseconds counted as one."""
        self._level = self.level(now) + amount
        tick = math.ceil(now * 1000 / grain) * grain
        self._entries[tick] = self._entries.get(tick, 0) + amount
        self.total += amount
        if len(self._entries) > _MAX_ENTRIES:
            self._merge()
        return tick

    def credit(self, amount: int, tick: int) -> None:
        """Take back part of what was counted under ``tick`` (a negative amount counts more)."""
        found = tick if tick in self._entries else next((later for later in self._entries if later >= tick), None)
        if found is None:
            return  # it has left the minute, and the bucket
        self._level = max(0.0, self._level - amount)
        self._entries[found] -= amount
        self.total -= amount

    def limit_to(self, instances: int) -> None:
        """Keep to an even share of the limit, never less than one a minute."""
        self.rate = max(1.0, self.limit / instances) / MINUTE
        self.burst = float(self.limit) if instances == 1 else max(1.0, _burst(self.limit) / instances)
        self.cap = max(1, self.limit // instances)

    def fill(self) -> None:
        """Leave no room for a burst: who joins a busy crowd begins without one."""
        self._level = max(self._level, self.burst)

    def believe(self, total: int, now: float) -> None:
        """Take somebody's word for what was used in the last minute: what is more than is known was used evenly."""
        self.level(now)
        missing = total - self.total
        if missing <= 0:
            return
        for step in range(_STEPS):
            tick = math.ceil((now - MINUTE * (_STEPS - 1 - step) / _STEPS) * 1000)
            amount = missing * (step + 1) // _STEPS - missing * step // _STEPS
            self._entries[tick] = self._entries.get(tick, 0) + amount
        self._entries = dict(sorted(self._entries.items()))
        self.total = total

    def standing(self, what: What, now: float) -> Standing:
        """Return what a caller is told."""
        room = min(self.burst - self.level(now), float(self.limit - self.total))
        return Standing(what, self.limit, _whole(room), self.reset(now), self.total)

    def reset(self, now: float) -> float:
        """Return the seconds until nothing is used: when the newest of the minute has left it, and the bucket is empty."""
        leaked = self.level(now) / self.rate
        newest = next((tick for tick, amount in reversed(self._entries.items()) if amount > 0), None)
        return max(0.0, leaked if newest is None else max(leaked, min(MINUTE, newest / 1000 + _KEPT - now)))

    def expiring(self, now: float, within: float) -> int:
        """Return what leaves the last minute in the next seconds."""
        until = (now + within - _KEPT) * 1000
        gone = 0
        for tick, amount in self._entries.items():
            if tick > until:
                break
            gone += amount
        return gone

    def text(self) -> str:
        """Render for a row: the level, its time, and the entries as distances from each other."""
        before = 0
        flat: list[int] = []
        for tick, amount in self._entries.items():
            flat += (tick - before, amount)
            before = tick
        return json.dumps([round(self._level, 3), round(self._at, 3), flat], separators=(",", ":"))

    def load(self, text: str) -> None:
        """Read what `text` rendered, whatever the limit was then; raise ValueError."""
        try:
            level, at, flat = json.loads(text)
            self._level, self._at = float(level), float(at)
            tick = 0
            self._entries = {}
            for distance, amount in zip(flat[::2], flat[1::2], strict=True):
                tick += int(distance)
                self._entries[tick] = int(amount)
        except (TypeError, KeyError) as error:
            message = "not a gauge"
            raise ValueError(message) from error
        self.total = sum(self._entries.values())

    def _forget(self, now: float) -> None:
        until = (now - _KEPT) * 1000
        while self._entries:
            tick = next(iter(self._entries))
            if tick > until:
                return
            self.total -= self._entries.pop(tick)

    def _merge(self) -> None:
        """Make one of every two entries, at the later's time: never forgotten too early."""
        ticks = list(self._entries)
        amounts = list(self._entries.values())
        if len(ticks) % 2:
            ticks.append(ticks[-1])
            amounts.append(0)
        self._entries = dict(zip(ticks[1::2], map(sum, zip(amounts[::2], amounts[1::2], strict=True)), strict=True))

    def _expiry(self, excess: float, now: float) -> float:
        for tick, amount in self._entries.items():
            excess -= amount
            if excess <= 0:
                return min(MINUTE, max(0.0, tick / 1000 + _KEPT - now))
        return MINUTE


def _whole(room: float) -> int:
    return max(0, math.floor(room + 1e-6))  # what floats lose


def _cap(limit: int, slack: float = SLACK) -> int:
    return max(limit, math.floor(limit * slack + 1e-9))


def _burst(limit: int) -> float:
    return max(limit / BURST_PART, float(min(limit, LEAST_BURST)))


class Share:
    """One instance's part in a limit that many instances count together, telling each other their counts every second.

    Between two exchanges the instance may take its share, by demand, of what is free; where that is less than one request, it
    draws lots for it. So the instances together take what is free, and no more, without asking each other. Where there is
    nobody else, all of the limit is free at once.
    """

    __slots__ = ("_grant", "_granted_at", "_history", "_others", "_spend", "_taken", "_unseen", "_weight", "gauge", "used")

    GRAIN: Final = 250

    def __init__(self, limit: int) -> None:
        self.gauge = Gauge(limit)
        self._spend = 0.0
        self._join()
        self.used = 0
        """All that this instance ever took: what it tells the others."""
        self._history: deque[tuple[float, int]] = deque([(-math.inf, 0)])  # what was used by when
        self._others = 0.0  # what the others take in a second
        self._unseen = 0.0
        self._weight = 1.0
        self._grant = math.inf
        self._granted_at = 0.0
        self._taken = 0

    def wait(self, amount: int, now: float, draw: float) -> float:
        """Return the seconds until it makes sense to ask again; 0.0 is take it now. ``draw`` is chance."""
        if self._grant == math.inf:
            return self.gauge.wait(amount, now)
        wait = self.gauge.guard(amount, now, unseen=self._unseen)
        if wait > 0.0:
            return wait
        late = max(0.0, now - self._granted_at - INTERVAL)
        left = self._grant + late * self.gauge.rate * self._weight - self._taken
        if amount <= left:
            return 0.0
        if self._taken == 0 and self._plenty(amount, now):
            return 0.0  # nobody draws lots for the first
        if draw < left / amount:
            return 0.0
        self._grant = min(self._grant, self._taken)  # one lot in an interval
        return max(0.05, self._granted_at + INTERVAL - now)

    def _plenty(self, amount: int, now: float) -> bool:
        gauge = self.gauge
        half_empty = gauge.level(now) + self._unseen + max(gauge.burst / 2, gauge.need(amount)) <= gauge.burst
        return half_empty and gauge.total + self._unseen + amount + gauge.burst / 2 <= gauge.cap

    def take(self, amount: int, now: float) -> int:
        """Count what was admitted; return the tick under which it can be credited."""
        self.used += amount
        self._taken += amount
        return self.gauge.add(amount, now, grain=self.GRAIN)

    def credit(self, amount: int, tick: int) -> None:
        """Take back part of what was taken."""
        self.used -= amount
        self._taken = max(0, self._taken - amount)
        self.gauge.credit(amount, tick)

    def remember(self, now: float) -> None:
        """Keep what was used by now, so that `lately` can be told."""
        self._history.append((now, self.used))
        while self._history[1][0] < now - MINUTE:
            self._history.popleft()

    @property
    def lately(self) -> int:
        """What this instance took in the last minute."""
        return self.used - self._history[0][1]

    def standing(self, what: What, now: float) -> Standing:
        """Return what a caller is told: what would go at once if it asked all instances, by their demand."""
        gauge = self.gauge
        if self._grant == math.inf:
            return gauge.standing(what, now)
        free = gauge.cap - gauge.total - self._unseen
        room = min(free, max(gauge.burst - gauge.level(now) - self._unseen, self._spend * free))
        return Standing(what, gauge.limit, _whole(room), gauge.reset(now), gauge.total)

    def exchange(self, others: int, weight: float, now: float, *, elapsed: float, spend: float = 0.0) -> None:
        """Learn what the others took in the last ``elapsed`` seconds; ``weight`` is this instance's part of the demand.

        ``spend`` is the part of the minute's rest that may go beyond the bucket (`spend_of`).
        """
        self._join()
        self._spend = spend
        gauge = self.gauge
        if others:
            gauge.add(others, now, grain=self.GRAIN)
        self._others += _MEMORY * (max(0, others) / max(elapsed, 1e-3) - self._others)
        self._unseen = self._others * _UNSEEN * INTERVAL
        free = gauge.cap - gauge.total + gauge.expiring(now, INTERVAL) - self._unseen
        bucket = gauge.burst - gauge.level(now) + gauge.rate * INTERVAL - self._unseen
        self._renew(weight * max(0.0, min(free, max(bucket, self._spend * free))), weight, now)

    def alone(self, now: float) -> None:
        """Learn that there is nobody else: all of the limit is this instance's, as in a row of its own."""
        self._others = self._unseen = 0.0
        self.gauge.burst, self.gauge.cap = float(self.gauge.limit), _cap(self.gauge.limit)
        self._renew(math.inf, 1.0, now)

    def isolate(self, instances: int, now: float) -> None:
        """Go on without news of the others: take an even share of the limit."""
        self._unseen = self._spend = 0.0
        self._join()
        self._renew(self.gauge.rate * INTERVAL / instances, 1 / instances, now)

    def fill(self) -> None:
        """Begin in a busy crowd, without a burst."""
        self._join()
        self.gauge.fill()

    def _join(self) -> None:
        """Count with others: what the estimate is off by uses the slack."""
        limit = self.gauge.limit
        self.gauge.burst, self.gauge.cap = _burst(limit), limit - 3 * math.isqrt(limit) // 4

    def _renew(self, grant: float, weight: float, now: float) -> None:
        self._grant, self._weight, self._granted_at, self._taken = grant, weight, now, 0


def spend_of(instances: int) -> float:
    """Return how much of the minute's rest so many instances may take between two exchanges, once the demand is known."""
    return SPEND_PART * min(1.0, SPEND_CROWD / instances)


def weight_of(own: float, others: float, instances: int) -> float:
    """Return this instance's part of a demand; somebody new gets a little, as others may begin in the same second."""
    floor = 1.0 / (4 * instances) if instances > 1 else 1.0
    if own + others <= 0.0:
        return min(1.0, 4.0 / (instances + 3))
    return max(floor, own / (own + others))


# ---- headers ---------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Render as OpenAI does: "20ms", "1s", "6m0s", "1h0m0s"; parts of a second only below a minute, rounded up."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms" if seconds > 0 else "0s"
    if seconds < MINUTE:
        return f"{math.ceil(seconds * 1000) / 1000:g}s"
    whole = math.ceil(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


_POLICIES: Final = {"requests": "rpm", "tokens": "tpm"}


def headers_of(standings: Iterable[Standing]) -> tuple[Header, ...]:
    """Render the tightest standing of each kind: OpenAI's six headers and the two of the IETF's draft 10."""
    tightest: dict[What, Standing] = {}
    for standing in standings:
        known = tightest.get(standing.what)
        if known is None or standing.remaining * known.limit < known.remaining * standing.limit:
            tightest[standing.what] = standing
    shown: Sequence[Standing] = [tightest[what] for what in ("requests", "tokens") if what in tightest]
    headers: list[Header] = []
    for kind in ("limit", "remaining"):
        headers += ((f"x-ratelimit-{kind}-{one.what}", str(getattr(one, kind))) for one in shown)
    headers += ((f"x-ratelimit-reset-{one.what}", duration(one.reset)) for one in shown)
    if shown:
        policies = ", ".join(f'"{_POLICIES[one.what]}";q={one.limit};w={int(MINUTE)}' for one in shown)
        state = ", ".join(f'"{_POLICIES[one.what]}";r={one.remaining};t={math.ceil(one.reset)}' for one in shown)
        headers += (("ratelimit-policy", policies), ("ratelimit", state))
    return tuple(headers)
