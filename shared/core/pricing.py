"""What tokens cost: rates × usage → integer nano-USD, rounded up once.

Rates are Decimal USD per million tokens; all sums are integers, so an amount is exact until its one rounding. A price that is
not known is ``None`` at the caller, never zero here.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Final

from shared.core.chat import Usage
from shared.core.registry import Price, Rates

NANO_PER_USD: Final = 1_000_000_000

# A rate of 1 USD per million tokens is 1,000 nano-USD per token. Rates keep nine decimals as integers, so
# tokens × scaled rate is in units of 10⁻⁶ nano-USD.
_RATE_SCALE: Final = 10**9
_UNITS_PER_NANO: Final = 10**6

STANDARD_TIERS: Final = frozenset({None, "", "auto", "default", "standard", "scale"})
"""Service tiers a provider may report that bill at the base rates."""

LONG_CACHE_WRITE: Final = 2
"""Anthropic, the only one who reports such tokens, bills twice the input rate for what stays cached for an hour."""


def price_on(prices: tuple[Price, ...], day: date) -> Price | None:
    """Return the price in force on a day: the latest whose date has come; None when there is none."""
    in_force = None
    for price in prices:
        if price.effective_from <= day and (in_force is None or price.effective_from >= in_force.effective_from):
            in_force = price
    return in_force


def cost(price: Price, usage: Usage) -> int | None:
    """Return what a usage costs in nano-USD; None when it was billed at a service tier whose rates are not known."""
    rates = rates_for(price, usage.input_tokens, usage.service_tier)
    if rates is None:
        return None
    cached = min(usage.cache_read, usage.input_tokens)
    written = min(usage.cache_creation, usage.input_tokens - cached)
    kept = min(usage.cache_creation_long, written)
    reasoning = min(usage.reasoning, usage.output_tokens)
    return _rounded_up(
        rates,
        plain_input=usage.input_tokens - cached - written,
        cached=cached,
        written=written - kept,
        kept=kept,
        plain_output=usage.output_tokens - reasoning,
        reasoning=reasoning,
    )


def worst_case(price: Price, *, input_tokens: int, output_tokens: int, n: int = 1) -> int:
    """Return the most a call can cost in nano-USD, given sound upper bounds of its tokens.

    Takes the dearest rates it could be billed at: long-context tiers its input may reach, every service tier, cache writes.
    """
    sizes = [0, *(tier.above_input_tokens + 1 for tier in price.tiers if input_tokens > tier.above_input_tokens)]
    reachable = (rates_for(price, size, tier) for size in sizes for tier in (None, *price.service_tiers))
    return max(
        _rounded_up(dearest(rates), plain_input=input_tokens, plain_output=output_tokens * n)
        for rates in reachable
        if rates is not None
    )


def expected(price: Price, *, input_tokens: int, output_tokens: int) -> int:
    """Return what a call is likely to cost in nano-USD: base rates, no cache."""
    return cost(price, Usage(input_tokens=input_tokens, output_tokens=output_tokens)) or 0


def usd(nano: int) -> float:
    """Return nano-USD as a float of USD, for rendering only."""
    return nano / NANO_PER_USD


def nano(usd_amount: Decimal) -> int:
    """Return USD as nano-USD, rounded down: a limit of the caller's is never stretched."""
    return int(usd_amount * NANO_PER_USD)


def rates_for(price: Price, input_tokens: int, service_tier: str | None) -> Rates | None:
    """Return the rates a call of that size is billed at; None for a service tier the price does not list."""
    rates = price.rates
    reached = 0
    for tier in price.tiers:
        if input_tokens > tier.above_input_tokens >= reached:
            rates, reached = tier.rates, tier.above_input_tokens
    if service_tier in STANDARD_TIERS:
        return rates
    special = price.service_tiers.get(service_tier or "")
    if special is None or rates is price.rates:
        return special
    # Long context at a special tier: no list gives the product, so neither surcharge may be lost.
    return Rates(
        input=max(special.input, rates.input),
        output=max(special.output, rates.output),
        cache_read=_dearer(special.cache_read, rates.cache_read),
        cache_creation=_dearer(special.cache_creation, rates.cache_creation),
        reasoning=_dearer(special.reasoning, rates.reasoning),
        request=max(special.request, rates.request),
    )


def _dearer(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else max(one, other)


def dearest(rates: Rates) -> Rates:
    """Return rates at which every token costs what its dearest kind does."""
    cached = (rates.cache_read or rates.input, rates.cache_creation or rates.input)
    return Rates(
        input=max(rates.input, *cached), output=max(rates.output, rates.reasoning or rates.output), request=rates.request
    )


def _rounded_up(
    rates: Rates, *, plain_input: int, plain_output: int, cached: int = 0, written: int = 0, kept: int = 0, reasoning: int = 0
) -> int:
    units = (
        plain_input * _scaled(rates.input)
        + cached * _scaled(rates.input if rates.cache_read is None else rates.cache_read)
        + written * _scaled(rates.input if rates.cache_creation is None else rates.cache_creation)
        + kept * LONG_CACHE_WRITE * _scaled(rates.input)
        + plain_output * _scaled(rates.output)
        + reasoning * _scaled(rates.output if rates.reasoning is None else rates.reasoning)
    )
    return -(-units // _UNITS_PER_NANO) + -int(-rates.request * NANO_PER_USD)


def _scaled(rate: Decimal) -> int:
    return int(rate * _RATE_SCALE)
