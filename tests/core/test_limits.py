"""The arithmetic of rate limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.limits import Gauge, Limited, Share, Standing, duration, headers_of, spend_of, weight_of
from tests.bench.limits_world import worst_minute


@given(
    st.integers(1, 400),
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 500)), max_size=150),
    st.booleans(),
)
def test_no_minute_is_over_the_cap(limit: int, asked: list[tuple[float, int]], single: bool) -> None:  # noqa: FBT001  # an example's
    """However requests come and whatever their size, no 60 s hold more than 1.04 times the limit (or the limit)."""
    gauge = Gauge(limit)
    now = 1000.0
    times, amounts = [], []
    for pause, size in asked:
        now += pause
        amount = 1 if single else gauge.charge(size)
        if gauge.wait(amount, now) <= 0:
            gauge.add(amount, now)
            times.append(now)
            amounts.append(amount)
    assert max(limit, int(limit * 1.04)) >= worst_minute(times, amounts, window=59.999)


@pytest.mark.parametrize("limit", [1, 2, 10, 30, 60, 300])
def test_even_demand_gets_all_of_the_limit(limit: int) -> None:
    """Requests spread evenly at exactly the limit are all admitted."""
    gauge = Gauge(limit)
    times = [1000 + number * 60 / limit + 0.001 * number for number in range(3 * limit)]
    for time in times:
        assert gauge.wait(1, time) <= 1e-6, time
        gauge.add(1, time)


@pytest.mark.parametrize("limit", [1, 3, 10, 40, 60, 300])
def test_an_idle_minute_lets_all_of_the_limit_through_at_once(limit: int) -> None:
    """From rest the limit goes at once and not one more, and what remains is counted down to none."""
    gauge = Gauge(limit)
    told = []
    while gauge.wait(1, 1000.0) == 0.0:
        gauge.add(1, 1000.0)
        told.append(gauge.standing("requests", 1000.0).remaining)
    assert list(range(limit))[::-1] == told


@given(st.integers(1, 400), st.lists(st.tuples(st.floats(0, 20), st.integers(1, 40)), max_size=100))
def test_what_remains_really_goes(limit: int, asked: list[tuple[float, int]]) -> None:
    """Whatever was before, as many as ``remaining`` says fit at once; at most the slack more do."""
    gauge = Gauge(limit)
    now = 1000.0
    for pause, size in asked:
        now += pause
        if gauge.wait(gauge.charge(size), now) <= 0:
            gauge.add(gauge.charge(size), now)
    said = gauge.standing("requests", now).remaining
    went = 0
    while gauge.wait(1, now) == 0.0:
        gauge.add(1, now)
        went += 1
    assert said <= went <= said + gauge.cap - limit


def test_the_reset_is_when_all_of_the_limit_goes_again() -> None:
    """A minute (and a quarter of a second) after the last request, not before; what was taken back is not waited for."""
    gauge = Gauge(40)
    assert Standing("requests", 40, 40, 0.0) == gauge.standing("requests", 1000.0)
    gauge.add(1, 1000.0)
    taken_back = gauge.add(1, 1010.0)
    assert Standing("requests", 40, 38, 50.25, 2) == gauge.standing("requests", 1020.0)
    gauge.credit(1, taken_back)
    assert Standing("requests", 40, 39, 40.25, 1) == gauge.standing("requests", 1020.0)
    assert 39 == gauge.standing("requests", 1060.2).remaining
    assert Standing("requests", 40, 40, 0.0) == gauge.standing("requests", 1060.25)


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 40)), max_size=60))
def test_nobody_waits_longer_than_a_minute(asked: list[tuple[float, int]]) -> None:
    """No wait is told that clients would not follow: OpenAI's goes by none of more than a minute."""
    gauge = Gauge(40)
    now = 1000.0003
    for pause, size in asked:
        now += pause
        assert gauge.wait(size, now) <= 60.0
        if gauge.wait(size, now) <= 0:
            gauge.add(size, now)
        assert gauge.standing("requests", now).reset <= 60.0


def test_waiting_as_long_as_told_is_enough() -> None:
    """After the wait that was told, the request fits."""
    gauge = Gauge(30)
    now = 1000.0
    for _ in range(200):
        wait = gauge.wait(1, now)
        now += wait + 0.002
        assert gauge.wait(1, now) == 0.0
        gauge.add(1, now)


def test_a_request_larger_than_the_limit_waits_for_an_idle_minute() -> None:
    """It is charged as the limit: admitted from rest, and then nothing for a minute."""
    gauge = Gauge(1000)
    assert 1000 == gauge.charge(16_000)
    assert 0.0 == gauge.wait(1000, 1000.0)
    gauge.add(1000, 1000.0)
    assert 0 < gauge.wait(100, 1001.0) <= 60
    assert 0.0 == gauge.wait(1000, 1060.26)


def test_a_credit_gives_room_back() -> None:
    """What is credited can be used again, and what is too late changes nothing."""
    gauge = Gauge(1000)
    tick = gauge.add(900, 1000.0)
    assert gauge.wait(200, 1000.1) > 0
    gauge.credit(850, tick)
    assert 0.0 == gauge.wait(40, 1000.1)
    assert 950 == gauge.standing("tokens", 1000.1).remaining
    gauge.level(1070.0)
    gauge.credit(50, tick)
    assert 1000 == gauge.standing("tokens", 1070.0).remaining


def test_a_gauge_survives_its_row() -> None:
    """What is rendered reads back; what is not a gauge is a ValueError."""
    gauge = Gauge(60)
    for number in range(5):
        gauge.add(1, 1000.0 + number)
    read = Gauge(60)
    read.load(gauge.text())
    assert gauge.text() == read.text()
    assert 5 == read.total
    for text in ("", "[]", "{}", "[1,2,[3]]", '[1,2,["a",1]]', "null"):
        with pytest.raises(ValueError, match=r"\w"):
            read.load(text)


def test_a_long_minute_is_kept_short() -> None:
    """More than 600 entries are merged, and none is forgotten too early."""
    gauge = Gauge(1_000_000)
    for number in range(5000):
        gauge.add(1, 1000.0 + number / 100)
    assert 5000 == gauge.total
    assert len(gauge.text()) < 8_000
    gauge.level(1061.0)
    assert gauge.total >= 5000 - 101


def test_a_share_takes_its_part_only() -> None:
    """With fifty instances of equal demand, one takes a fiftieth of what is free."""
    for spend, least, most in ((0.0, 600 // 50, 750 // 50), (0.25, 1450 // 50, 1500 // 50)):
        share = Share(6000)
        share.exchange(0, 1 / 50, 1000.0, elapsed=1.0, spend=spend)
        taken = 0
        while share.wait(1, 1000.0, 0.999) == 0.0:
            share.take(1, 1000.0)
            taken += 1
        assert least <= taken <= most


def test_a_share_without_company_is_all_of_the_limit() -> None:
    """A single instance lets the limit go at once; from the moment there is another, what is left goes by parts."""
    share = Share(600)
    share.alone(1000.0)
    assert 600 == share.standing("requests", 1000.0).remaining
    for _ in range(500):
        assert 0.0 == share.wait(1, 1000.0, 0.999)
        share.take(1, 1000.0)
    assert 100 == share.standing("requests", 1000.0).remaining
    share.exchange(0, 1.0, 1001.0, elapsed=1.0, spend=spend_of(2))
    assert Standing("requests", 600, 20, 59.25, 500) == share.standing("requests", 1001.0)
    share.alone(1002.0)
    assert 100 == share.standing("requests", 1002.0).remaining
    for _ in range(100):
        share.take(1, 1002.0)
    assert 0 == share.standing("requests", 1002.0).remaining
    assert share.wait(25, 1002.0, 0.999) > 50


def test_a_share_tells_what_the_crowd_lets_go() -> None:
    """What remains is what would go at once: the bucket's tenth, or a quarter of the minute's rest once the demand is known."""
    share = Share(600)
    share.exchange(0, 0.25, 1000.0, elapsed=1.0)
    assert 60 == share.standing("requests", 1000.0).remaining
    share.exchange(100, 0.25, 1001.0, elapsed=1.0, spend=spend_of(4))
    assert 600 // 5 * 0.75 < share.standing("requests", 1001.0).remaining <= 125


def test_lots_are_drawn_for_less_than_one() -> None:
    """A share of 0.1 requests admits one in about seven draws, and one lot is drawn in an interval."""

    def admitted(draw: float) -> bool:
        share = Share(301)
        share.gauge.level(1000.0)
        share.fill()
        share.exchange(0, 0.02, 1000.2, elapsed=1.0)
        first = share.wait(1, 1000.5, draw) == 0.0
        if not first:
            assert share.wait(1, 1000.5, 0.0) > 0.0
        return first

    assert 80 <= sum(admitted(number / 1000) for number in range(1000)) <= 160


def test_weights_add_up() -> None:
    """Busy instances share by demand; a single one takes all; in an idle crowd somebody new gets a little."""
    assert 0.75 == weight_of(30, 10, 2)
    assert 1.0 == weight_of(5, 0, 1)
    assert 4 / 53 == weight_of(0, 0, 50)
    assert 1 / 200 == weight_of(0, 100, 50)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.02, "20ms"), (1, "1s"), (1.5, "1.5s"), (59.9996, "60s"), (60, "1m0s"), (360, "6m0s"), (3661, "1h1m1s")],
)
def test_durations_are_openais(seconds: float, text: str) -> None:
    """Durations read as OpenAI writes them."""
    assert text == duration(seconds)


def test_headers_tell_the_tightest() -> None:
    """Of several subjects each kind shows the one with the least left, in OpenAI's headers and in the IETF draft's."""
    assert (
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-limit-tokens", "1000"),
        ("x-ratelimit-remaining-requests", "1"),
        ("x-ratelimit-remaining-tokens", "500"),
        ("x-ratelimit-reset-requests", "59s"),
        ("x-ratelimit-reset-tokens", "30s"),
        ("ratelimit-policy", '"rpm";q=60;w=60, "tpm";q=1000;w=60'),
        ("ratelimit", '"rpm";r=1;t=59, "tpm";r=500;t=30'),
    ) == headers_of(
        [
            Standing("requests", 600, 100, 50.0),
            Standing("requests", 60, 1, 59.0),
            Standing("tokens", 1000, 500, 30.0),
        ]
    )
    assert () == headers_of([])


def test_small_limits_are_exact() -> None:
    """Up to five requests a second, or 60,000 tokens a minute where only tokens are limited."""
    assert Limited("key:a", 300).exact
    assert not Limited("key:a", 301, 10).exact
    assert Limited("key:a", None, 60_000).exact
    assert not Limited("key:a", None, 60_001).exact
