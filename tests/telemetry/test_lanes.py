"""What waits to be sent is bounded, in batches, tried again, and given up in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shared.adapters.telemetry import console, lanes
from shared.adapters.telemetry.exporters import Exporters, Fate, Sent
from shared.adapters.telemetry.happened import Ended, LogLine
from shared.adapters.telemetry.lanes import Lane, Pause
from shared.adapters.telemetry.telling import Telling
from shared.core.telemetry import Destination as Where
from shared.core.telemetry import TelemetryOptions, TraceContext
from tests.fakes import FakeClock
from tests.telemetry.scenes import request


class Destination:
    """Takes batches, or does what it is told to."""

    def __init__(self) -> None:
        self.fate = Sent()
        self.batches: list[list[int]] = []

    def __call__(self, batch: Sequence[int]) -> Sent:
        """Take a batch."""
        self.batches.append(list(batch))
        return self.fate


def test_what_waits_is_sent_in_batches_and_in_order() -> None:
    """A batch ends at its bound of items, or of bytes."""
    destination = Destination()
    lane = Lane(destination)
    for number in range(lanes.BATCH + 2):
        assert lane.add(number, 10)
    assert lane.add(999, lanes.BATCH_BYTES)
    assert lane.add(1000, 10)

    while lane.flush(0.0) is not None:
        pass

    assert [lanes.BATCH, 3, 1] == [len(batch) for batch in destination.batches]
    assert [*range(lanes.BATCH + 2), 999, 1000] == [item for batch in destination.batches for item in batch]


def test_there_is_no_place_beyond_the_bounds() -> None:
    """Neither for too many items nor for too large ones; what was sent makes place."""
    lane = Lane(Destination())
    assert lane.add(0, lanes.BOUND_BYTES)
    assert not lane.add(1, 1)
    assert lane.flush(0.0) is not None
    assert all(lane.add(number, 1) for number in range(lanes.BOUND))
    assert not lane.add(1, 1)
    assert 2 == lane.turned_away


def test_a_batch_is_tried_again_after_growing_pauses_and_then_given_up() -> None:
    """Its order is kept; a new batch starts with the same patience."""
    destination = Destination()
    destination.fate = Sent(Fate.LATER, "no answer")
    lane = Lane(destination)
    lane.add(1, 1)
    lane.add(2, 1)
    now, pauses = 0.0, []
    while lane:
        assert lane.flush(now) is not None
        assert lane.flush(lane.pause.until - 0.001) is None or not lane
        pauses.append(lane.pause.until - now)
        now = lane.pause.until

    assert [[1, 2]] * lanes.TRIES == destination.batches
    assert [5.0, 10.0, 20.0, 40.0, 80.0, 160.0] == pauses
    assert 2 == lane.given_up
    lane.add(3, 1)
    assert lane.flush(now) is not None
    assert 1 == len(lane), "a new batch is not given up at once"


def test_what_a_destination_asks_for_is_heeded_within_reason() -> None:
    """Its pause where it is longer than ours, and five minutes at the most."""
    pause = Pause()
    pause.told(Sent(Fate.LATER, "429", 30.0), 100.0)
    assert 130.0 == pause.until
    pause.told(Sent(Fate.LATER, "429", 7_200.0), 130.0)
    assert 430.0 == pause.until
    pause.told(Sent(), 430.0)
    pause.told(Sent(Fate.LATER, "500"), 430.0)
    assert 435.0 == pause.until


def test_steady_requests_keep_neither_metrics_nor_lines_waiting() -> None:
    """While spans are sent, more of them come, for hours: the rest is told all the same, and metrics in their time."""
    clock = FakeClock()
    sent: list[str] = []

    def spans(batch: Sequence[Any]) -> Sent:
        del batch
        assert len(sent) < 20, "it does not end"
        sent.append("spans")
        clock.seconds += 70
        telling.take(Ended(request(), TraceContext("1" * 32, "1" * 16)))
        return Sent()

    def others(name: str) -> Callable[[Any], Sent]:
        def send(_: Any) -> Sent:
            sent.append(name)
            return Sent()

        return send

    preferences = console.open_exporters().metric_exporter
    exporters = Exporters(spans, others("metrics"), others("lines"), preferences, delta=False, close=lambda: None)
    telling = Telling(TelemetryOptions(Where.CONSOLE), clock, "i", exporters=exporters, gauges=lambda _: [])
    telling.take(LogLine(0.0, 30, "switchyard", "a line"))
    for _ in range(lanes.BATCH + 1):
        telling.take(Ended(request(), TraceContext("1" * 32, "1" * 16)))
    telling.send()
    assert ["spans", "metrics", "spans", "metrics", "lines"] == sent

    sent.clear()
    telling.send(last=True)
    telling.close()
    assert ["metrics", "spans"] == sent[:2], "a backlog of spans may take longer than there is time for"
