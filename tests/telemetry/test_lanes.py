"""What waits to be sent is bounded, in batches, tried again, and given up in the end."""

from __future__ import annotations

from collections.abc import Sequence

from shared.adapters.telemetry import lanes
from shared.adapters.telemetry.exporters import Fate, Sent
from shared.adapters.telemetry.lanes import Lane, Pause


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
