"""Every field of OpenAI's chat has its place: the SDK's own list is the measure."""

from __future__ import annotations

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from shared.core.registry import ProviderKind
from shared.core.wire_support import (
    ANTHROPIC_ADVISORY,
    ANTHROPIC_NATIVE,
    ANTHROPIC_TRANSLATED,
    HARMLESS_DEFAULTS,
    OWN_FIELDS,
    UNSUPPORTED,
    is_harmless,
    significant_parameters,
)

SETS = (ANTHROPIC_TRANSLATED, ANTHROPIC_ADVISORY, UNSUPPORTED[ProviderKind.ANTHROPIC])


def openai_fields() -> frozenset[str]:
    """Return every field the SDK knows."""
    return frozenset(CompletionCreateParamsStreaming.__annotations__)


def test_every_openai_field_is_translated_advisory_or_unsupported() -> None:
    """A field that OpenAI adds must be decided for Anthropic: nothing is dropped in silence."""
    assert openai_fields() == frozenset().union(*SETS) & openai_fields()
    assert not frozenset().union(*SETS) - openai_fields()


def test_no_field_is_in_two_sets() -> None:
    """One decision for each field."""
    everything = [*SETS, ANTHROPIC_NATIVE, OWN_FIELDS]
    assert sum(map(len, everything)) == len(frozenset().union(*everything))


def test_every_kind_has_a_row() -> None:
    """A new kind of provider needs one."""
    assert set(UNSUPPORTED) == set(ProviderKind)
    assert set(HARMLESS_DEFAULTS) <= openai_fields()


@pytest.mark.parametrize(
    ("name", "value", "harmless"),
    [
        ("temperature", 1, True),
        ("temperature", 1.0, True),
        ("temperature", 0, False),
        ("anything", None, True),
        ("anything", 0, False),
        ("n", 1, True),
        ("n", 2, False),
        ("logit_bias", {}, True),
        ("tools", [{}], False),
        ("response_format", {"type": "text"}, True),
    ],
)
def test_harmless_values(name: str, value: object, *, harmless: bool) -> None:
    """A value that says what would happen anyway asks for nothing."""
    assert harmless == is_harmless(name, value)


def test_significant_parameters() -> None:
    """What the router must find a candidate for: no defaults, no nulls, nothing of Switchyard's own."""
    payload = {"model": "auto", "seed": 7, "n": 1, "logprobs": None, "task_type": "chat", "stream": False}
    assert significant_parameters(payload) == {"model", "seed"}
