"""The meter: the price list's own sums, faster."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.meter import meter
from shared.core.pricing import expected, worst_case
from shared.core.registry import Price, Rates, RateTier
from tests.routing_fakes import DAY

rates = st.builds(
    lambda one, two, write, think, call: Rates(
        Decimal(one) / 1000,
        Decimal(two) / 1000,
        cache_creation=None if write is None else Decimal(write) / 1000,
        reasoning=None if think is None else Decimal(think) / 1000,
        request=Decimal(call) / 10**10,
    ),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.one_of(st.none(), st.integers(0, 10**6)),
    st.one_of(st.none(), st.integers(0, 10**6)),
    st.integers(0, 10**9),
)
prices = st.builds(
    Price,
    effective_from=st.just(DAY),
    rates=rates,
    tiers=st.lists(st.builds(RateTier, st.integers(0, 3_000), rates), max_size=2).map(tuple),
    service_tiers=st.dictionaries(st.sampled_from(["priority", "flex"]), rates, max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(prices, st.integers(0, 4_000), st.integers(0, 4_000), st.integers(1, 3))
def test_a_meter_agrees_with_the_price_list_to_the_nano_dollar(price: Price, sent: int, answered: int, choices: int) -> None:
    """Expected and worst, through every tier."""
    made = meter(price)
    assert expected(price, input_tokens=sent, output_tokens=answered) == made.expected(sent, answered)
    worst = worst_case(price, input_tokens=sent, output_tokens=answered, n=choices)
    assert worst == made.worst_case(sent, answered * choices)
