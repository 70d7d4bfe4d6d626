"""A price made ready for the hot path: the same sums as `shared.core.pricing`, with the rates already integers.

The router prices every candidate of every request. Turning Decimal rates into integers once per catalog, and not once per
request, is the whole purpose; a property test holds both to the same nano-dollar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shared.core.pricing import NANO_PER_USD

if TYPE_CHECKING:
    from shared.core.registry import Price, Rates

# One USD per million tokens is 10⁹ units per token, and 10⁶ units are one nano-USD: rates of nine decimals stay exact.
_UNITS_PER_RATE: Final = 10**9
_UNITS_PER_NANO: Final = 10**6


@dataclass(frozen=True, slots=True)
class _Line:
    """One set of rates in units per token, plain and at its dearest (cache writes, reasoning), and nano-USD per call."""

    above: int
    input: int
    output: int
    dear_input: int
    dear_output: int
    request: int


@dataclass(frozen=True, slots=True)
class Meter:
    """Prices a call. ``lines`` are the base rates and their long-context tiers, lowest threshold first."""

    lines: tuple[_Line, ...]
    specials: tuple[_Line, ...]

    def expected(self, input_tokens: int, output_tokens: int) -> int:
        """Return what a call is likely to cost in nano-USD: no cache, the standard service tier."""
        line = self.lines[0]
        for tier in self.lines[1:]:
            if input_tokens > tier.above:
                line = tier
        units = input_tokens * line.input + output_tokens * line.output
        return -(-units // _UNITS_PER_NANO) + line.request

    def worst_case(self, input_tokens: int, output_tokens: int) -> int:
        """Return the most a call can cost in nano-USD; ``output_tokens`` are those of all choices together."""
        worst = 0
        for line in (*self.lines, *self.specials):
            if input_tokens > line.above:
                units = input_tokens * line.dear_input + output_tokens * line.dear_output
                worst = max(worst, -(-units // _UNITS_PER_NANO) + line.request)
        return worst


def meter(price: Price) -> Meter:
    """Return the meter of a price."""
    tiers = sorted(price.tiers, key=lambda tier: tier.above_input_tokens)
    return Meter(
        lines=(_line(-1, price.rates), *(_line(tier.above_input_tokens, tier.rates) for tier in tiers)),
        specials=tuple(_line(-1, rates) for rates in price.service_tiers.values()),
    )


def _line(above: int, rates: Rates) -> _Line:
    return _Line(
        above=above,
        input=int(rates.input * _UNITS_PER_RATE),
        output=int(rates.output * _UNITS_PER_RATE),
        dear_input=int(max(rates.input, rates.cache_creation or rates.input) * _UNITS_PER_RATE),
        dear_output=int(max(rates.output, rates.reasoning or rates.output) * _UNITS_PER_RATE),
        request=-int(-rates.request * NANO_PER_USD),
    )
