"""What instances tell each other of a deployment: openings by all, pauses never shorter, closings only with newer evidence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.core.breaker import NEW, Breaker, admit, failed
from shared.core.failures import FailureKind
from shared.core.health import BreakerState
from shared.core.pool import (
    MAX_DISABLED,
    PROBE_LEASE,
    SILENT,
    SKEW,
    STRIKES,
    UNSHARED,
    Averages,
    Entry,
    Moment,
    Pending,
    Sample,
    Shared,
    claimed,
    folded,
    heard,
    moved,
    spoken,
)
from shared.core.pool_row import MAX_TEXT, entries_of, text_of

WALL = 1_795_000_000.0
OPENED = replace(UNSHARED, pending=Pending.OPENED)


def at(seconds: float, instance: str = "a", *, skew: float = 0.0) -> Moment:
    """A moment on an instance's clocks; its wall clock may be wrong, its monotonic clock begins anywhere."""
    return Moment(seconds + 100.0 * ord(instance[0]), WALL + seconds + skew, instance)


def opened(now: float, kind: FailureKind = FailureKind.SERVER_ERROR) -> Breaker:
    """A breaker that three failures opened."""
    breaker = NEW
    for _ in range(3):
        breaker = failed(breaker, kind, now=now)
    return breaker


def row_opened(skew: float = 0.0) -> Entry:
    """What instance a says of an opening at 0."""
    return spoken(SILENT, opened(at(0).monotonic), OPENED, at(0, skew=skew))


def throttled(seconds: float, moment: Moment) -> Breaker:
    """A breaker whose provider asked for a pause."""
    return failed(NEW, FailureKind.RATE_LIMITED, now=moment.monotonic, retry_after=seconds)


def test_nothing_learnt_is_nothing_said() -> None:
    """The very same entry comes back, so that nothing is written."""
    assert spoken(SILENT, NEW, UNSHARED, at(0)) is SILENT
    entry = row_opened()
    assert spoken(entry, NEW, UNSHARED, at(1, "b")) is entry


def test_an_opening_is_obeyed_by_those_who_hear_of_it() -> None:
    """For as long as the opening's pause, counted from when they hear of it at most."""
    entry = row_opened()
    assert (1, True, 5.0) == (entry.epoch, entry.open, entry.pause)
    breaker, shared = heard(entry, NEW, UNSHARED, at(2, "b"))
    assert BreakerState.OPEN is breaker.state
    assert at(2, "b").monotonic + 5 == breaker.open_until
    assert (1, True) == (shared.epoch, shared.open)
    assert (breaker, shared) == heard(entry, breaker, shared, at(4, "b"))


def test_the_same_news_by_many_is_one_opening() -> None:
    """Fifty instances that open at once don't double the pause fifty times."""
    entry = row_opened()
    assert entry is spoken(entry, opened(at(0.2, "b").monotonic), OPENED, at(0.2, "b"))
    assert 1 == entry.epoch


@pytest.mark.parametrize("skew", [-SKEW, 0.0, SKEW])
def test_clocks_that_are_wrong_never_shorten_a_pause_and_lengthen_it_by_itself_at_most(skew: float) -> None:
    """The length is counted from when it is first seen; the writer's wall clock only bounds what is long past."""
    entry = spoken(SILENT, throttled(60, at(0)), UNSHARED, at(0, skew=skew))
    for seen in (0.0, 2.0, 59.0):
        breaker, _ = heard(entry, NEW, UNSHARED, at(seen, "b"))
        assert 60 - seen <= breaker.open_until - at(seen, "b").monotonic <= 60
        assert breaker.cooling
    breaker, _ = heard(entry, NEW, UNSHARED, at(60 + 2 * SKEW, "b"))
    assert BreakerState.CLOSED is breaker.state


@given(
    pauses=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 50), st.floats(1, 100)), min_size=1, max_size=6),
    skews=st.tuples(*[st.floats(-SKEW / 2, SKEW / 2)] * 3),
)
@example(pauses=[("a", 1, 1), ("b", 0, 1)], skews=(0, 1, 0))  # two pauses whose ends are the same by differing clocks
@example(pauses=[("a", 0, 2), ("b", 0, 1), ("a", 1, 1), ("a", 1, 2)], skews=(0, 0, 0))  # heard of late, as if it were longer
def test_a_providers_pause_is_never_shortened_by_any_order_of_tellers(
    pauses: list[tuple[str, float, float]], skews: tuple[float, float, float]
) -> None:
    """Whoever listens waits until the latest end anybody was told, whatever the clocks say, give or take half a second."""
    entry, states = SILENT, dict.fromkeys("abcd", (NEW, UNSHARED))
    moments = {name: dict(zip("abc", skews, strict=True)).get(name, 0.0) for name in "abcd"}
    latest = 0.0
    for name, when, pause in sorted(pauses, key=lambda one: one[1]):
        now = at(when, name, skew=moments[name])
        breaker, shared = states[name]
        breaker = failed(breaker, FailureKind.RATE_LIMITED, now=now.monotonic, retry_after=pause)
        entry = spoken(entry, breaker, shared, now)
        states[name] = heard(entry, breaker, shared, now)
        latest = max(latest, when + pause)
        states["d"] = heard(entry, *states["d"], at(when, "d"))
        fresh, _ = heard(entry, NEW, UNSHARED, at(when, "e"))
        assert min(states["d"][0].open_until - at(0, "d").monotonic, fresh.open_until - at(0, "e").monotonic) >= latest - 0.6


def test_a_pause_read_back_from_the_row_is_the_one_that_was_told() -> None:
    """Whoever told of it does not take it for another and wait for its whole length anew."""
    told = at(0.123456789)
    breaker = throttled(60, told)
    entry = spoken(SILENT, breaker, UNSHARED, told)
    breaker, shared = heard(entry, breaker, UNSHARED, told)
    (read,) = entries_of(text_of({"a/b": entry}, told.wall)).values()
    assert told.monotonic + 60 == heard(read, breaker, shared, at(30))[0].open_until


def test_only_one_instance_gets_the_lease_and_a_dead_ones_runs_out() -> None:
    """The second waits for the lease to end, and may then have it."""
    entry = row_opened()
    b, c = heard(entry, NEW, UNSHARED, at(1, "b")), heard(entry, NEW, UNSHARED, at(1, "c"))
    taken = claimed(entry, b[1], at(7, "b"))
    assert taken is not None
    assert "b" == taken.prober
    breaker, shared = heard(taken, *b, at(7, "b"))
    assert at(7, "b").monotonic + PROBE_LEASE == shared.granted_until
    assert claimed(taken, c[1], at(7, "c")) is None
    breaker, shared = heard(taken, *c, at(7, "c"))
    assert at(7, "c").monotonic + PROBE_LEASE == breaker.open_until
    assert claimed(taken, shared, at(7.1 + PROBE_LEASE, "c")) is not None
    assert claimed(SILENT, UNSHARED, at(0)) is None


def test_a_lease_on_an_older_opening_is_no_lease() -> None:
    """Whoever has not heard of the latest opening has to wait for its pause first."""
    entry = row_opened()
    _, shared = heard(entry, NEW, UNSHARED, at(1, "b"))
    assert claimed(replace(entry, epoch=2), shared, at(9, "b")) is None


def test_a_good_probe_closes_for_all_and_an_older_success_does_not() -> None:
    """A closing names the opening it knew; a later opening stands."""
    entry = row_opened()
    _, b = heard(entry, NEW, UNSHARED, at(1, "b"))
    good = spoken(entry, NEW, replace(b, pending=Pending.CLOSED), at(8, "b"))
    assert (2, False) == (good.epoch, good.open)
    later = replace(entry, epoch=3)
    assert later is spoken(later, NEW, replace(b, pending=Pending.CLOSED), at(8, "b"))
    waiting, c = heard(entry, NEW, UNSHARED, at(1, "c"))
    closed, c = heard(good, waiting, c, at(9, "c"))
    assert (BreakerState.CLOSED, at(9, "c").monotonic, False) == (closed.state, closed.closed_at, c.open)


def test_a_failed_probe_opens_again_for_longer_for_all() -> None:
    """The cooldown doubles once with each probe, not with each instance."""
    entry = row_opened()
    b = heard(entry, NEW, UNSHARED, at(0, "b"))
    taken = claimed(entry, b[1], at(6, "b"))
    assert taken is not None
    breaker, shared = heard(taken, *b, at(6, "b"))
    breaker = failed(admit(breaker, at(6, "b").monotonic)[0], FailureKind.SERVER_ERROR, now=at(6, "b").monotonic)
    again = spoken(taken, breaker, replace(shared, pending=Pending.OPENED), at(6, "b"))
    assert (2, True, 10.0, "") == (again.epoch, again.open, again.pause, again.prober)


def test_ones_own_pause_is_served_though_others_see_it_well() -> None:
    """A sick instance goes on resting; nobody's success shortens what its own failures taught it."""
    own = replace(OPENED, own_until=at(5).monotonic)
    entry = row_opened()
    breaker, shared = heard(entry, opened(at(0).monotonic), own, at(0))
    well = replace(entry, epoch=2, open=False)
    breaker, shared = heard(well, breaker, shared, at(1))
    assert (BreakerState.OPEN, at(5).monotonic) == (breaker.state, breaker.open_until)
    assert not shared.open


def test_who_just_succeeded_doubts_and_tries_once() -> None:
    """One call goes through at once; the rest wait for its outcome."""
    breaker, shared = heard(row_opened(), NEW, UNSHARED, at(1, "b"), doubted=True)
    assert at(1, "b").monotonic == breaker.open_until
    assert shared.granted_until > at(1, "b").monotonic
    probing, _ = admit(breaker, at(1, "b").monotonic)
    worse = failed(probing, FailureKind.SERVER_ERROR, now=at(1.2, "b").monotonic)
    entry = row_opened()
    assert entry is spoken(entry, worse, replace(shared, pending=Pending.OPENED), at(1.2, "b"))


def test_strikes_of_many_open_and_a_success_clears_them() -> None:
    """Five instances that each saw one failure know together what none knows alone."""
    entry = SILENT
    for number in range(STRIKES - 1):
        entry = spoken(entry, NEW, replace(UNSHARED, strikes=1), at(number * 0.1))
    assert (STRIKES - 1, False) == (entry.strikes, entry.open)
    assert 0 == spoken(entry, NEW, replace(UNSHARED, cleared=True), at(1)).strikes
    assert 1 == spoken(entry, NEW, replace(UNSHARED, strikes=1), at(600)).strikes
    tripped = spoken(entry, NEW, replace(UNSHARED, strikes=1), at(1))
    assert (True, 5.0, 0) == (tripped.open, tripped.pause, tripped.strikes)
    assert heard(entry, NEW, UNSHARED, at(1, "b"))[1].warned


def test_what_is_gone_is_asked_again_after_an_hour() -> None:
    """A row outlives every process: nothing in it may hold for ever."""
    gone = failed(NEW, FailureKind.GONE, now=at(0).monotonic)
    entry = spoken(SILENT, gone, OPENED, at(0))
    assert (MAX_DISABLED, "gone") == (entry.pause, entry.disabled)


def test_a_row_that_was_lost_begins_anew_and_openings_are_still_heard() -> None:
    """Nobody waits for an epoch that will not come."""
    known = Shared(epoch=40, open=True)
    assert heard(SILENT, NEW, known, at(0))[1].epoch == 0
    assert 41 == spoken(SILENT, opened(at(0).monotonic), replace(OPENED, epoch=40), at(0)).epoch


def test_averages_weigh_calls_and_forget_them() -> None:
    """Half the weight is gone in a minute; a clock that is behind forgets nothing and breaks nothing."""
    first = folded(Averages(), Sample(10, 10, 10_000.0), WALL)
    assert (1.0, 1000.0, None, 10.0) == (first.success_rate, first.latency_ms, first.first_content_ms, first.calls)
    second = folded(first, Sample(5, 0), WALL + 60)
    assert (1000.0, 10.0) == (second.latency_ms, second.calls)
    assert pytest.approx(0.5) == second.success_rate
    assert folded(first, Sample(10, 0), WALL - 300).success_rate == pytest.approx(0.5)
    assert folded(first, Sample(), WALL) is first


def test_averages_are_written_when_they_move_and_seldom_otherwise() -> None:
    """Fifty instances must not write a row a second to say that all is well."""
    known = folded(Averages(), Sample(10, 10, 10_000.0), WALL)
    same, worse = Sample(1, 1, 1_000.0), Sample(5, 2, 2_000.0)
    assert moved(Averages(), same, WALL)
    assert [False, False, True] == [moved(known, same, WALL + seconds) for seconds in (5, 30, 61)]
    assert [False, True, True] == [moved(known, worse, WALL + seconds) for seconds in (5, 30, 61)]


entries = st.builds(
    Entry,
    epoch=st.integers(0, 1000),
    open=st.booleans(),
    pause=st.floats(0, 1e6).map(lambda one: round(one, 3)),
    disabled=st.none() | st.text(max_size=20),
    prober=st.text(max_size=20),
    cool_until=st.just(WALL),
    averages=st.builds(Averages, latency_ms=st.none() | st.integers(0, 10**6).map(float), at=st.just(WALL)),
)


@given(st.dictionaries(st.text(max_size=30), entries, max_size=8))
def test_a_row_reads_as_it_was_written(written: dict[str, Entry]) -> None:
    """Names may hold anything."""
    assert written == entries_of(text_of(written, WALL))


def test_a_row_never_outgrows_what_the_store_takes_and_keeps_what_is_open() -> None:
    """Averages are given up before openings; what is long past is left out."""
    many = {f"provider/model-{number}": Entry(averages=Averages(at=WALL + number)) for number in range(2_000)}
    many["the/one"] = Entry(epoch=1, open=True)
    text = text_of(many, WALL)
    assert len(text) <= MAX_TEXT
    assert "the/one" in entries_of(text)
    assert "provider/model-1999" in entries_of(text)
    assert "{}" == text_of({"old/one": Entry(epoch=4, averages=Averages(at=WALL - 90_000))}, WALL)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"a":1}',
        '{"a":{"epoch":"1"}}',
        '{"a":{"open":1}}',
        '{"a":{"pause":NaN}}',
        '{"a":{"pause":true}}',
        '{"a":{"averages":[]}}',
        '{"a":{"prober":null}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_row_is_told_from_a_good_one(text: str) -> None:
    """Whatever is in it, it is an error of one kind."""
    with pytest.raises(ValueError, match=r".+"):
        entries_of(text)


def test_what_a_newer_version_adds_is_passed_over() -> None:
    """Instances of two versions share a row during a deployment."""
    assert {"a/b": Entry(epoch=2)} == entries_of('{"a/b":{"epoch":2,"colour":"red"}}')
    assert math.isfinite(entries_of('{"a/b":{"pause":1e300}}')["a/b"].pause)
