"""Prometheus's text: metrics as lines, in the format 0.0.4 and in OpenMetrics 1.0."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Final

TOTAL: Final = "_total"

Labels = Mapping[str, str]
Number = int | float | Decimal


class Kind(StrEnum):
    """Prometheus's types that occur here."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(slots=True)
class Family:
    """A metric with its samples: the suffix of each one's name, its labels, its value. A counter's name has no ``_total``."""

    name: str
    kind: Kind
    help: str
    samples: list[tuple[str, Labels, Number]] = field(default_factory=list)

    def add(self, labels: Labels, value: Number) -> None:
        """Add a counter's or gauge's value."""
        self.samples.append((TOTAL if self.kind is Kind.COUNTER else "", labels, value))

    def observe(self, labels: Labels, bounds: Sequence[float], counts: Sequence[int], *, count: int, total: float) -> None:
        """Add a histogram: how many values of ``count`` do not exceed each bound, and the sum of all."""
        for bound, seen in zip((*bounds, math.inf), (*counts, count), strict=True):
            self.samples.append(("_bucket", {**labels, "le": _number(float(bound))}, seen))
        self.samples += [("_sum", labels, total), ("_count", labels, count)]


def render(families: Iterable[Family], *, openmetrics: bool) -> str:
    """Return the text of some families; those without samples are left out."""
    lines = [line for family in families if family.samples for line in _lines(family, openmetrics=openmetrics)]
    return "\n".join([*lines, "# EOF", ""] if openmetrics else [*lines, ""])


def _lines(family: Family, *, openmetrics: bool) -> Iterator[str]:
    # In the old format a counter's samples are named as its family is.
    name = family.name + TOTAL if family.kind is Kind.COUNTER and not openmetrics else family.name
    yield f"# HELP {name} {_escaped(family.help, quotes=openmetrics)}"
    yield f"# TYPE {name} {family.kind.value}"
    for suffix, labels, value in family.samples:
        inner = ",".join([f'{label}="{_escaped(text, quotes=True)}"' for label, text in labels.items()])
        yield f"{family.name}{suffix}{f'{{{inner}}}' if inner else ''} {_number(value)}"


def _escaped(text: str, *, quotes: bool) -> str:
    clean = text.encode("utf-8", "replace").decode().replace("\\", "\\\\").replace("\n", "\\n").replace("\r", " ")
    return clean.replace('"', '\\"') if quotes else clean


def _number(value: Number) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return str(value) if not isinstance(value, float) or math.isfinite(value) else "+Inf"
