"""Money: exact to the nano-dollar, rounded up once, never zero by accident."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.chat import Usage
from shared.core.pricing import cost, expected, nano, price_on, usd, worst_case
from shared.core.registry import Price, Rates, RateTier

DAY = date(2026, 11, 1)


def rates(plain_input: str, output: str, **others: str) -> Rates:
    """Rates from decimal text."""
    return Rates(Decimal(plain_input), Decimal(output), **{name: Decimal(text) for name, text in others.items()})


def price(base: Rates, tiers: tuple[RateTier, ...] = (), **service_tiers: Rates) -> Price:
    """A price from the first of November."""
    return Price(DAY, base, tiers, service_tiers)


LUNA = price(
    rates("0.10", "0.50", cache_read="0.01", cache_creation="0.125"),
    (RateTier(272_000, rates("0.20", "0.75", cache_read="0.02", cache_creation="0.25")),),
    priority=rates("0.20", "1.00", cache_read="0.02", cache_creation="0.25"),
)


def test_a_million_tokens_cost_the_listed_rate() -> None:
    """The unit is USD per million tokens."""
    plain = price(rates("0.10", "0.50"))
    assert 100_000_000 == cost(plain, Usage(1_000_000, 0))
    assert 500_000_000 == cost(plain, Usage(0, 1_000_000))


def test_input_kinds_are_priced_apart_and_counted_once() -> None:
    """Cache reads and writes are part of the input total, not on top of it."""
    usage = Usage(input_tokens=1000, output_tokens=10, cache_read=600, cache_creation=300)
    assert 100 * 100 + 600 * 10 + 300 * 125 + 10 * 500 == cost(LUNA, usage)


def test_kinds_without_a_rate_of_their_own_cost_as_the_whole_does() -> None:
    """No cache rate means input rate; no reasoning rate means output rate. Never free."""
    plain = price(rates("2", "10"))
    usage = Usage(100, 50, cache_read=60, cache_creation=20, reasoning=40)
    assert cost(plain, Usage(100, 50)) == cost(plain, usage)
    dear = price(rates("2", "10", reasoning="30"))
    assert 100 * 2000 + 10 * 10_000 + 40 * 30_000 == cost(dear, usage)


def test_a_fraction_of_a_nano_dollar_is_rounded_up_once() -> None:
    """Rounding happens on the sum: two halves make one, not two."""
    odd = price(rates("0.0005", "0.0005"))
    assert 1 == cost(odd, Usage(1, 0))
    assert 1 == cost(odd, Usage(1, 1))
    assert 2 == cost(odd, Usage(2, 1))


def test_long_context_reprices_the_whole_request_just_above_its_threshold() -> None:
    """At the threshold the base rates hold, one token above everything is dearer."""
    assert 272_000 * 100 + 500 == cost(LUNA, Usage(272_000, 1))
    assert 272_001 * 200 + 750 == cost(LUNA, Usage(272_001, 1))


def test_the_highest_tier_reached_counts_whatever_the_order() -> None:
    """Two tiers in any order give the same."""
    low, high = RateTier(10, rates("2", "0")), RateTier(100, rates("3", "0"))
    for tiers in ((low, high), (high, low)):
        tiered = price(rates("1", "0"), tiers)
        assert [10 * 1000, 50 * 2000, 101 * 3000] == [cost(tiered, Usage(tokens)) for tokens in (10, 50, 101)]


def test_the_tier_the_provider_billed_decides_and_an_unlisted_one_is_unknown() -> None:
    """Priority is dearer; a tier nobody priced is None, not the base price."""
    assert 100 * 200 + 1000 == cost(LUNA, Usage(100, 1, service_tier="priority"))
    assert 100 * 100 + 500 == cost(LUNA, Usage(100, 1, service_tier="default"))
    assert cost(LUNA, Usage(100, 1, service_tier="flex")) is None


def test_long_context_at_a_special_tier_takes_the_dearer_of_each_rate() -> None:
    """Neither surcharge is lost when both apply."""
    assert 300_000 * 200 + 1000 == cost(LUNA, Usage(300_000, 1, service_tier="priority"))


def test_what_is_cached_for_an_hour_costs_twice_the_input() -> None:
    """Of the tokens written, those; the others at the list's rate."""
    usage = Usage(1000, 0, cache_creation=300, cache_creation_long=200)
    assert 700 * 100 + 100 * 125 + 200 * 200 == cost(LUNA, usage)
    assert 1000 * 200 == cost(LUNA, Usage(1000, 0, cache_creation=1000, cache_creation_long=5000))


def test_a_fee_per_request_is_added() -> None:
    """Searches are priced by the call."""
    fee = price(rates("0", "0", request="0.002"))
    assert 2_000_000 == cost(fee, Usage(5, 5))


def test_the_price_in_force_is_the_latest_whose_date_has_come() -> None:
    """A future price waits, and a day before every price has none."""
    old, new = Price(date(2026, 1, 1), rates("1", "1")), Price(date(2026, 6, 1), rates("2", "2"))
    for listed in ((old, new), (new, old)):
        assert old == price_on(listed, date(2026, 5, 31))
        assert new == price_on(listed, date(2026, 6, 1))
        assert price_on(listed, date(2025, 12, 31)) is None
    assert price_on((), DAY) is None


tokens = st.integers(0, 2_000_000)
rate = st.decimals(Decimal(0), Decimal(100), places=4)
rate_sets = st.builds(
    Rates, rate, rate, cache_read=st.none() | rate, cache_creation=st.none() | rate, reasoning=st.none() | rate
)


@settings(max_examples=80)
@given(rate_sets, tokens, tokens, tokens, tokens, tokens)
def test_cost_is_the_exact_sum_rounded_up(
    base: Rates, total: int, cached: int, written: int, output: int, reasoning: int
) -> None:
    """Against exact fractions, for any split of the tokens."""
    cached = min(cached, total)
    written = min(written, total - cached)
    reasoning = min(reasoning, output)
    exact = Fraction(0)
    for count, listed, otherwise in (
        (total - cached - written, base.input, base.input),
        (cached, base.cache_read, base.input),
        (written, base.cache_creation, base.input),
        (output - reasoning, base.output, base.output),
        (reasoning, base.reasoning, base.output),
    ):
        exact += count * Fraction(otherwise if listed is None else listed) * 1000
    assert -(-exact // 1) == cost(price(base), Usage(total, output, cached, written, reasoning))


@settings(max_examples=80)
@given(rate_sets, rate_sets, rate_sets, tokens, st.floats(0, 1), st.floats(0, 1), tokens, st.sampled_from([None, "priority"]))
def test_no_usage_within_the_bounds_costs_more_than_the_worst_case(
    base: Rates, long: Rates, special: Rates, bound: int, share: float, cached: float, output: int, tier: str | None
) -> None:
    """The worst case is a bound: every tier, every kind of token."""
    listed = price(base, (RateTier(100_000, long),), priority=special)
    spent = int(bound * share)
    usage = Usage(spent, output, int(spent * cached), spent - int(spent * cached), output, service_tier=tier)
    paid = cost(listed, usage)
    assert paid is not None
    assert paid <= worst_case(listed, input_tokens=bound, output_tokens=output)


def test_n_choices_multiply_the_output_only() -> None:
    """Input is billed once."""
    plain = price(rates("1", "1"))
    assert 100 * 1000 + 3 * 10 * 1000 == worst_case(plain, input_tokens=100, output_tokens=10, n=3)
    assert 100 * 1000 + 10 * 1000 == expected(plain, input_tokens=100, output_tokens=10)


def test_limits_are_rounded_down_and_shown_as_dollars() -> None:
    """A caller's limit is never stretched."""
    assert 1_500_000_000 == nano(Decimal("1.5"))
    assert 0 == nano(Decimal("0.0000000009"))
    assert 0.25 == usd(250_000_000)
