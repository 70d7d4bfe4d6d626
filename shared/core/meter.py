"""A price made ready for the hot path: the same sums as `shared.core.pricing`, with the rates already integers.

The router prices every candidate of every request. Turning Decimal rates into integers once per catalog, and not once per
request, is the whole purpose; which rates apply is asked of the price list, and a property test holds both to the nano-dollar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shared.core.pricing import NANO_PER_USD, dearest, rates_for

if TYPE_CHECKING:
    from shared.core.registry import Price, Rates

# One USD per million tokens is 10⁹ units per token, and 10⁶ units are one nano-USD: rates of nine decimals stay exact.
_UNITS_PER_RATE: Final = 10**9
_UNITS_PER_NANO: Final = 10**6


@dataclass(frozen=True, slots=True)
class _Line:
    """Rates for inputs longer than ``above``: units per token of input and output, and nano-USD per call."""

    above: int
    input: int
    output: int
    request: int


@dataclass(frozen=True, slots=True)
class Meter:
    """Prices a call. ``lines`` are the standard rates, lowest threshold first; ``dear`` all that a call could be billed at."""

    lines: tuple[_Line, ...]
    dear: tuple[_Line, ...]

    def expected(self, input_tokens: int, output_tokens: int) -> int:
        """Return what a call is likely to cost in nano-USD: no cache, the standard service tier."""
        line = self.lines[0]
        for tier in self.lines[1:]:
            if input_tokens > tier.above:
                line = tier
        return -(-(input_tokens * line.input + output_tokens * line.output) // _UNITS_PER_NANO) + line.request

    def worst_case(self, input_tokens: int, output_tokens: int) -> int:
        """Return the most a call can cost in nano-USD; ``output_tokens`` are those of all choices together."""
        return max(
            -(-(input_tokens * line.input + output_tokens * line.output) // _UNITS_PER_NANO) + line.request
            for line in self.dear
            if input_tokens > line.above
        )


def meter(price: Price) -> Meter:
    """Return the meter of a price."""
    thresholds = [-1, *sorted({tier.above_input_tokens for tier in price.tiers})]
    standard = [(above, rates_for(price, above + 1, None)) for above in thresholds]
    reachable = [(above, rates_for(price, above + 1, tier)) for above in thresholds for tier in (None, *price.service_tiers)]
    return Meter(
        lines=tuple(_line(above, rates) for above, rates in standard if rates is not None),
        dear=tuple(dict.fromkeys(_line(above, dearest(rates)) for above, rates in reachable if rates is not None)),
    )


def _line(above: int, rates: Rates) -> _Line:
    return _Line(
        above=above,
        input=int(rates.input * _UNITS_PER_RATE),
        output=int(rates.output * _UNITS_PER_RATE),
        request=-int(-rates.request * NANO_PER_USD),
    )
