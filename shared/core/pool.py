"""What all instances know of their deployments together: the entries of a shared row, and how they meet an instance's breaker.

An `Entry` is what the row says of one deployment; `Shared` is what an instance remembers of it beside its own `Breaker`. An
instance *speaks* (`spoken`: the entry as it should be, given what the instance learnt) and *listens* (`heard`: the breaker as
it should be, given the entry). Both may be repeated without effect, so an answer from the store that got lost does no harm.

Order comes from the entry's ``epoch``, which grows with every opening and closing, never from comparing clocks: an instance
that closes a breaker names the epoch it knew before its probe began, and is not believed if there is a later one. Ends of
pauses are written as a length and a wall clock; a reader counts the length from when it first saw it, and uses the wall clocks
only as far as they may be wrong (`SKEW`). So a pause can last too long by at most its own length and `SKEW`; never too short.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from shared.core.breaker import NEW, Breaker, closed
from shared.core.health import BreakerState

SKEW: Final = 300.0
"""Seconds by which the clocks of two instances may differ."""

PROBE_LEASE: Final = 10.0
"""Seconds an instance may probe for all others before it has to say that it still does."""

MAX_DISABLED: Final = 3_600.0
"""Seconds for which a deployment that is gone, or refuses our key, is left alone by all: then one asks if it was mended."""

NEARLY: Final = 0.5
"""Seconds by which two pauses may differ and still be the same one."""

STRIKES: Final = 5
"""Failures in a row over all instances that open a breaker though no instance alone has seen enough."""

SELDOM: Final = 1.0
"""Seconds without a call after which an instance's next failure is a strike: those that call more often find out alone."""

MUTED: Final = 60.0
"""Seconds for which an instance whose opening others disproved tells them of no other: it may be the one that is sick."""

_STRUCK_PAUSE: Final = 5.0
_STRIKES_KEPT: Final = SKEW + 30.0
_MEMORY: Final = 60.0
"""Seconds after which a measured call counts half."""
_NEW: Final = 10.0
_OLD: Final = 60.0
"""Seconds: averages are written once in ``_NEW`` when they move, once in ``_OLD`` when they don't."""
_MOVE: Final = 0.1
"""The share by which a latency has moved when it is worth a write."""
_MAX_CALLS: Final = 50.0
"""Calls that an average remembers at most: many more would make it slow to follow."""


class Pending(StrEnum):
    """What an instance has learnt and not yet said."""

    NOTHING = "nothing"
    OPENED = "opened"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Averages:
    """Means over recent calls of all instances: a share and milliseconds. ``calls`` is their weight as of ``at`` (wall)."""

    success_rate: float = 1.0
    latency_ms: float | None = None
    first_content_ms: float | None = None
    calls: float = 0.0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Sums over one instance's calls that are not yet in the averages."""

    calls: int = 0
    successes: int = 0
    latency_ms: float = 0.0
    first_contents: int = 0
    first_content_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Entry:
    """What the row says of one deployment. Wall clocks are those of whoever wrote them.

    ``pause`` and ``until`` are the opening's, ``cool`` and ``cool_until`` those of the pause the provider asked for. ``cools``
    grows with each such pause, so that a reader can tell two that end at the same second of differing clocks.
    ``lease`` grows with each lease (and its renewals), so that a reader can tell a new one from an old one. ``strikes`` are
    failures of instances that call seldom, since the latest success of anybody who knew of them; ``struck`` is the last one's.
    """

    epoch: int = 0
    open: bool = False
    pause: float = 0.0
    until: float = 0.0
    openings: int = 0
    disabled: str | None = None
    prober: str = ""
    lease: int = 0
    lease_until: float = 0.0
    cool: float = 0.0
    cool_until: float = 0.0
    cools: int = 0
    strikes: int = 0
    struck: float = 0.0
    averages: Averages = Averages()


SILENT: Final = Entry()


@dataclass(frozen=True, slots=True)
class Shared:
    """What an instance remembers of a deployment's entry; times are its own monotonic seconds.

    ``epoch``, ``lease`` and ``cool_mark`` (its ``cools`` and ``cool_until``) say which state of the entry was last heard,
    ``open`` whether the breaker was open in it. ``cool_end`` is the end of the provider's pause as heard: who hears of it late
    waits too long, so what is still to be told is decided by ``cool_told``, the end this instance told last. ``own_until`` is
    the end of the pause this instance's own failures caused: others' successes don't shorten it. ``granted_until`` is the end
    of this instance's own lease to probe.
    ``strikes`` are not yet in the row; ``warned`` is True while there are some in it, ``cleared`` when a call went well since.
    Until ``muted_until`` it keeps its openings to itself: others have just found the deployment well.
    """

    epoch: int = 0
    open: bool = False
    pending: Pending = Pending.NOTHING
    own_until: float = 0.0
    lease: int = 0
    lease_end: float = 0.0
    granted_until: float = 0.0
    cool_mark: tuple[int, float] = (0, 0.0)
    cool_end: float = 0.0
    cool_told: float = 0.0
    strikes: int = 0
    warned: bool = False
    cleared: bool = False
    muted_until: float = 0.0


UNSHARED: Final = Shared()


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on both clocks of an instance, and its name."""

    monotonic: float
    wall: float
    instance: str


# ---- speaking --------------------------------------------------------------------------------------------------------


def spoken(entry: Entry, breaker: Breaker, shared: Shared, at: Moment) -> Entry:
    """Return the entry with what this instance has learnt since it last spoke. The same entry when that is nothing new."""
    muted = shared.muted_until > at.monotonic
    if shared.pending is Pending.OPENED and not muted:
        entry = _opened(entry, breaker, shared, at)
    elif shared.pending is Pending.CLOSED and entry.open and entry.epoch == shared.epoch:
        entry = replace(entry, epoch=shared.epoch + 1, open=False, openings=0, disabled=None, prober="", lease_until=0.0)
    if not entry.open and ((shared.strikes and not muted) or shared.cleared):
        entry = _struck(entry, breaker, shared, at)
    return _cooled(entry, breaker, shared, at)


def _struck(entry: Entry, breaker: Breaker, shared: Shared, at: Moment) -> Entry:
    # If an answer of the store is lost, strikes count twice: that opens a little early, and whoever doubts it tries once.
    if shared.cleared:
        return replace(entry, strikes=0, struck=0.0) if entry.strikes else entry
    counts = abs(at.wall - entry.struck) <= _STRIKES_KEPT
    strikes = shared.strikes + (entry.strikes if counts else 0)
    if strikes < STRIKES:
        return replace(entry, strikes=strikes, struck=at.wall)
    tripped = replace(breaker, open_until=at.monotonic + _STRUCK_PAUSE, openings=1, disabled=None)
    return _opened(entry, tripped, shared, at)


def _opened(entry: Entry, breaker: Breaker, shared: Shared, at: Moment) -> Entry:
    pause = breaker.open_until - at.monotonic
    if breaker.disabled is not None:
        pause = min(pause, MAX_DISABLED)
    if pause <= 0:
        return entry  # the store was away for longer than it lasted
    probed = entry.open and entry.prober == at.instance
    if entry.open and not probed and pause <= _left(entry.pause, entry.until, at) + NEARLY:
        return entry  # others have said so: the same news
    return replace(
        entry,
        epoch=max(entry.epoch, shared.epoch) + 1,
        open=True,
        pause=pause,
        until=at.wall + pause,
        openings=max(breaker.openings, entry.openings),
        disabled=breaker.disabled,
        prober="",
        lease_until=0.0,
        strikes=0,
        struck=0.0,
    )


def _cooled(entry: Entry, breaker: Breaker, shared: Shared, at: Moment) -> Entry:
    if not news_of_cooling(breaker, shared, at.monotonic):
        return entry
    pause = breaker.open_until - at.monotonic
    if _cool_mark(entry) != shared.cool_mark:
        # Of a pause it has not heard of it can't tell since when others wait: it says its own, and none is shortened.
        pause = max(pause, _left(entry.cool, entry.cool_until, at))
    # Rounded as in the row's text: else the same pause would be heard anew when it is read there, and counted from then.
    cool_until = round(at.wall + pause, 3)
    return replace(entry, cool=pause, cool_until=cool_until, cools=max(entry.cools, shared.cool_mark[0]) + 1)


def news_of_cooling(breaker: Breaker, shared: Shared, now: float) -> bool:
    """Say whether the provider asked this instance for a longer pause than it has told of."""
    return breaker.cooling and breaker.asked_until > max(now, shared.cool_told + NEARLY)


def claimed(entry: Entry, shared: Shared, at: Moment) -> Entry | None:
    """Return the entry with this instance as the prober (again), or None when somebody else is, or nobody may be."""
    held = entry.prober not in ("", at.instance)
    if (
        not entry.open
        or entry.epoch != shared.epoch
        or (held and (entry.lease != shared.lease or shared.lease_end > at.monotonic))
    ):
        return None
    return replace(entry, prober=at.instance, lease=entry.lease + 1, lease_until=at.wall + PROBE_LEASE)


def folded(averages: Averages, sample: Sample, wall: float) -> Averages:
    """Return the averages with a sample's calls in them."""
    if sample.calls == 0:
        return averages
    before = averages.calls * 0.5 ** (max(0.0, wall - averages.at) / _MEMORY)
    return Averages(
        success_rate=_mean(averages.success_rate, before, sample.successes, sample.calls) or 0.0,
        latency_ms=_mean(averages.latency_ms, before, sample.latency_ms, sample.successes),
        first_content_ms=_mean(averages.first_content_ms, before, sample.first_content_ms, sample.first_contents),
        calls=min(_MAX_CALLS, before + sample.calls),
        at=wall,
    )


def moved(averages: Averages, sample: Sample, wall: float) -> bool:
    """Say whether a sample is worth a write: it moves the averages and they are not quite new, or they are old."""
    age = wall - averages.at
    if averages.calls == 0 or age >= _OLD or age < -SKEW:
        return True
    if 0 <= age < _NEW:
        return False
    after = folded(averages, sample, wall)
    latency, was = after.latency_ms or 0.0, averages.latency_ms or 0.0
    return abs(after.success_rate - averages.success_rate) > _MOVE / 5 or abs(latency - was) > _MOVE * was


def _mean(old: float | None, weight: float, total: float, count: int) -> float | None:
    if count == 0:
        return old
    return total / count if old is None or weight <= 0 else (old * weight + total) / (weight + count)


# ---- listening -------------------------------------------------------------------------------------------------------


def heard(entry: Entry, breaker: Breaker, shared: Shared, at: Moment, *, doubted: bool = False) -> tuple[Breaker, Shared]:
    """Return this instance's breaker and memory after it has spoken and the entry is stored.

    ``doubted`` says that its own latest calls went well: then an opening by others lets one call through at once, and that
    call's outcome decides, so that one sick instance doesn't shut a deployment for all.
    """
    warned = entry.strikes > 0
    if shared.pending is not Pending.NOTHING or shared.strikes or shared.cleared or shared.warned is not warned:
        shared = replace(shared, pending=Pending.NOTHING, strikes=0, cleared=False, warned=warned)
    if news_of_cooling(breaker, shared, at.monotonic):
        shared = replace(shared, cool_told=breaker.asked_until)
    if entry.epoch != shared.epoch:  # a smaller one: the row was lost, and what it says now counts
        shared = replace(shared, epoch=entry.epoch, open=entry.open, granted_until=0.0)
        if entry.open:
            breaker, shared = _hears_opening(entry, breaker, shared, at, doubted=doubted)
        else:
            breaker, shared = _hears_closing(breaker, shared, at)
    if entry.lease != shared.lease:
        breaker, shared = _hears_lease(entry, breaker, shared, at)
    if _cool_mark(entry) != shared.cool_mark:
        breaker, shared = _hears_cooling(entry, breaker, shared, at)
    return breaker, shared


def _hears_opening(entry: Entry, breaker: Breaker, shared: Shared, at: Moment, *, doubted: bool) -> tuple[Breaker, Shared]:
    end = at.monotonic + _left(entry.pause, entry.until, at)
    if breaker.cooling and breaker.open_until >= end:
        return breaker, shared  # the provider itself asked for a longer pause, and that one is never overridden
    was_closed = breaker.state is BreakerState.CLOSED
    openings = entry.openings
    if doubted and was_closed:
        shared = replace(shared, granted_until=at.monotonic + PROBE_LEASE)
        end = at.monotonic
        openings = max(0, openings - 1)  # if the call fails, that is the same opening and not one more
    opened = replace(
        breaker,
        state=BreakerState.OPEN,
        cooling=False,
        opened_at=at.monotonic,
        open_until=max(end, shared.own_until, shared.cool_end),
        openings=openings,
        disabled=entry.disabled,
        lease_until=0.0,
        closed_at=None,
    )
    return opened, shared


def _hears_closing(breaker: Breaker, shared: Shared, at: Moment) -> tuple[Breaker, Shared]:
    if breaker.state is BreakerState.CLOSED or breaker.cooling:
        return breaker, shared
    if shared.own_until > at.monotonic:
        until = max(shared.own_until, shared.cool_end)
        rests = replace(breaker, state=BreakerState.OPEN, open_until=until, lease_until=0.0)
        return rests, replace(shared, muted_until=at.monotonic + MUTED)
    if shared.cool_end > at.monotonic:
        cooling = replace(NEW, state=BreakerState.OPEN, cooling=True, opened_at=at.monotonic, open_until=shared.cool_end)
        return cooling, shared
    return closed(breaker, at.monotonic), shared


def _hears_lease(entry: Entry, breaker: Breaker, shared: Shared, at: Moment) -> tuple[Breaker, Shared]:
    end = at.monotonic + max(0.0, min(PROBE_LEASE, entry.lease_until - at.wall + SKEW))
    shared = replace(shared, lease=entry.lease, lease_end=end)
    if entry.prober == at.instance:
        return breaker, replace(shared, granted_until=end)
    if not entry.open or entry.prober == "" or breaker.cooling or breaker.state is not BreakerState.OPEN:
        return breaker, shared
    if shared.granted_until > at.monotonic:
        return breaker, shared
    return replace(breaker, open_until=max(breaker.open_until, end)), shared


def _hears_cooling(entry: Entry, breaker: Breaker, shared: Shared, at: Moment) -> tuple[Breaker, Shared]:
    end = at.monotonic + _left(entry.cool, entry.cool_until, at)
    shared = replace(shared, cool_mark=_cool_mark(entry), cool_end=max(shared.cool_end, end))
    if end <= max(at.monotonic, breaker.open_until if breaker.state is not BreakerState.CLOSED else 0.0):
        return breaker, shared
    if breaker.state is BreakerState.CLOSED:
        breaker = replace(breaker, state=BreakerState.OPEN, cooling=True, opened_at=at.monotonic, closed_at=None)
    return replace(breaker, open_until=end), shared


def _cool_mark(entry: Entry) -> tuple[int, float]:
    """Return what tells a provider's pause from every other; by its end too, as a row that was lost counts from 1 again."""
    return entry.cools, entry.cool_until


def _left(pause: float, until: float, at: Moment) -> float:
    """Return how much of a pause is left for whoever sees it for the first time now; never too little."""
    return max(0.0, min(pause, until - at.wall + SKEW))
