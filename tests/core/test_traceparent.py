"""A request finds its place in the trace its caller names."""

from __future__ import annotations

import random

import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from shared.core.telemetry import TraceContext
from shared.core.traceparent import begin, is_sampled, parse, render

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def test_a_header_is_read_and_written_back() -> None:
    """Both flags survive the way in and out."""
    assert TraceContext(TRACE, SPAN, sampled=True) == parse(f"00-{TRACE}-{SPAN}-01")
    for flags in ("00", "01"):
        header = f"00-{TRACE}-{SPAN}-{flags}"
        read = parse(f" {header} ")
        assert read is not None
        assert header == render(read)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{'٣' * 32}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n-x",
    ],
)
def test_what_the_standard_refuses_starts_a_new_trace(header: str) -> None:
    """A broken header costs the caller its trace, and nothing else."""
    assert parse(header) is None
    assert TraceContext("0" * 31 + "2", "0" * 15 + "3") == begin(header, (2 << 64) + 3, 1.0)


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    """The standard will grow at its end."""
    assert TraceContext(TRACE, SPAN, sampled=False) == parse(f"01-{TRACE}-{SPAN}-02-more")


def test_a_request_stands_under_its_caller() -> None:
    """Its trace is the caller's, its parent the caller's span, its own span new."""
    assert TraceContext(TRACE, f"{7:016x}", SPAN) == begin(f"00-{TRACE}-{SPAN}-00", (9 << 64) + 7, 1.0)


def test_ids_are_never_zero_and_never_too_long() -> None:
    """Zero is not an id; more bits than asked for do no harm."""
    assert TraceContext(f"{1:032x}", f"{1:016x}") == begin(None, 0, 1.0)
    made = begin(None, (1 << 200) - 1, 0.0)
    assert (32, 16, False) == (len(made.trace_id), len(made.span_id), made.sampled)


def test_a_trace_is_told_by_its_id_alone_and_as_opentelemetry_would() -> None:
    """Services beside this one that use the standard sampler keep the same traces, whatever the callers' flags say."""
    chance = random.Random(5)
    for ratio in (0.0, 0.1, 0.5, 1.0):
        sampler = TraceIdRatioBased(ratio)
        for _ in range(200):
            trace = chance.getrandbits(128)
            theirs = sampler.should_sample(None, trace, "any").decision is Decision.RECORD_AND_SAMPLE
            header = f"00-{trace:032x}-{SPAN}-0{chance.randrange(2)}"
            assert theirs is begin(header, 1, ratio).sampled is is_sampled(f"{trace:032x}", ratio)
