"""What receivers are told when background work has ended."""

from __future__ import annotations

import pytest
from openai.types.webhooks import BatchCompletedWebhookEvent, ResponseCompletedWebhookEvent, ResponseFailedWebhookEvent

from shared.chains.rows import Kind
from shared.core.completion_events import NAMES, delivery_of, event_of


def test_an_event_is_in_the_shape_of_openai() -> None:
    """Type, moment in whole seconds, and the id of what has ended."""
    event = event_of("async", "chain_1", "failed", 1_700_000_000.9)

    assert {
        "object": "event",
        "id": delivery_of("chain_1", "failed"),
        "type": "chain.failed",
        "created_at": 1_700_000_000,
        "data": {"id": "chain_1"},
    } == event


@pytest.mark.parametrize(
    ("event", "kind", "state"),
    [
        (ResponseCompletedWebhookEvent, "response", "completed"),
        (ResponseFailedWebhookEvent, "response", "failed"),
        (BatchCompletedWebhookEvent, "batch", "completed"),
    ],
)
def test_the_sdk_reads_it(event: type[ResponseCompletedWebhookEvent], kind: str, state: str) -> None:
    """What OpenAI has events for too is in its own types."""
    assert "it_1" == event.model_validate(event_of(kind, "it_1", state, 1.0), strict=True).data.id


def test_an_end_is_told_under_one_id() -> None:
    """The same end again is the same event; another end, or the end of something else, is another."""
    assert delivery_of("resp_1", "completed") == delivery_of("resp_1", "completed")
    ids = {delivery_of(name, state) for name in ("resp_1", "resp_2") for state in ("completed", "failed")}
    assert 4 == len(ids)


def test_every_kind_of_chain_has_a_name() -> None:
    """Else its end could not be told."""
    assert NAMES.keys() >= {kind.value for kind in Kind}
