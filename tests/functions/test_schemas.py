"""Schemas judge anything at all, quickly, and leave it as it came."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from functions.chat_completions import CHAT
from functions.completions import COMPLETION
from functions.description import ENDPOINTS
from functions.embeddings import EMBEDDINGS
from functions.endpoints import Endpoint
from functions.inference import budget_of
from functions.periods import moment, span
from functions.rendering import usd, usd_text
from functions.validation import field_name
from shared.core.errors import InvalidRequestError
from shared.core.requirements import chat_requirements, embeddings_requirements

NAMES = sorted(
    {
        name
        for schema in (CHAT, COMPLETION, EMBEDDINGS)
        for name in schema.adapter.json_schema(ref_template="{model}").get("properties", {})
    }
    | {"role", "content", "type", "text", "image_url", "url", "function", "name", "arguments", "tool_calls", "parameters"}
)
WORDS = st.sampled_from(["user", "assistant", "tool", "text", "image_url", "function", "auto", "none", "json_schema", "", "x"])
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
KEYS = st.sampled_from(NAMES) | st.text(max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
BODIES = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=8)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(BODIES)
def test_any_body_is_taken_or_refused_and_never_changed(body: dict[str, Any]) -> None:
    """No value makes a schema fail otherwise; and what passes can be read for its requirements."""
    before = copy.deepcopy(body)
    for schema, read in ((CHAT, chat_requirements), (COMPLETION, chat_requirements), (EMBEDDINGS, embeddings_requirements)):
        with contextlib.suppress(InvalidRequestError):
            schema.check(body)
            read(body)
    assert before == body


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_messages_are_taken_or_refused_with_their_place(messages: Any) -> None:
    """A refusal names messages, or something in them."""
    refused: InvalidRequestError | None = None
    try:
        CHAT.check({"messages": messages})
    except InvalidRequestError as error:
        refused = error

    assert refused is None or (refused.param or "").startswith("messages")
    assert refused is None or len(refused.message) < 500


def test_a_key_of_any_length_does_not_make_a_message_of_any_length() -> None:
    """What the caller sent is repeated in part only."""
    with pytest.raises(InvalidRequestError) as refused:
        CHAT.check({"messages": [{"role": "user", "content": "x"}], "metadata": {"k" * 1_000_000: 1}})

    assert len(refused.value.message) < 300


def test_every_schema_describes_itself() -> None:
    """What parses is what /openapi.json shows."""
    for row in ENDPOINTS:
        if isinstance(row, Endpoint) and row.body is not None:
            assert row.body.adapter.json_schema()


def test_fields_are_written_as_openai_writes_them() -> None:
    """Tags that chose between shapes are not part of the name."""
    assert "messages[2].content[0].image_url.url" == field_name(
        ("messages", 2, "~user", "content", "~list", 0, "~image_url", "image_url", "url")
    )


@pytest.mark.parametrize(
    ("dollars", "nano"),
    [(None, None), (0, 0), (0.01, 10_000_000), (1e-9, 1), (1.5e-9, 1), (0.1 + 0.2, 300_000_000), (2, 2 * 10**9)],
)
def test_a_budget_is_never_stretched(dollars: float | None, nano: int | None) -> None:
    """USD to nano-USD, rounded down."""
    assert nano == budget_of(dollars)


@pytest.mark.parametrize("dollars", [float("nan"), float("inf"), -1, 1e9])
def test_an_absurd_budget_is_refused(dollars: float) -> None:
    """Also where no JSON could carry it."""
    with pytest.raises(InvalidRequestError):
        budget_of(dollars)


@pytest.mark.parametrize(
    ("nano", "text"), [(0, "0"), (1, "0.000000001"), (420_000, "0.00042"), (10**9, "1"), (12_345_678_901, "12.345678901")]
)
def test_costs_are_shown_exactly(nano: int, text: str) -> None:
    """The header is a decimal, not a float's idea of one."""
    assert text == usd_text(nano)
    assert usd(nano) == float(text)


def test_an_unknown_cost_stays_unknown() -> None:
    """None is not 0."""
    assert usd(None) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, 3_600), ("90m", 5_400), ("1h", 3_600), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_spans(text: str | None, seconds: int) -> None:
    """A number and a unit."""
    assert seconds == span(text, name="time_range", default="1h")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 5.0),
        ("1970-01-02", 86_400.0),
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("0001-01-01T00:00:00+23:59", 0.0),
        ("9999-12-31T23:59:59-23:59", 253_402_300_799.0),
    ],
)
def test_moments(text: str | None, seconds: float) -> None:
    """Dates and moments, UTC unless they say otherwise; the far past and future are no error."""
    assert seconds == moment(text, name="start", default=5.0)
