"""What a caller asks and what a model answers, as plain frozen values.

The wire format of the outside is OpenAI's: ``payload`` is that JSON object, with every field the caller sent except
Switchyard's own. What the router may know about a request is `Requirements`: numbers and names, never a prompt, so that it
can be stored with every request and replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

Json = Mapping[str, Any]

AUTO: Final = "auto"
"""The model name that leaves the choice to the router; also what an absent ``model`` means."""


TASKS: Final = frozenset(
    {
        "code-generation",
        "summarization",
        "conversation",
        "reasoning",
        "extraction",
        "classification",
        "translation",
        "creative-writing",
        "question-answering",
        "embeddings",
        # the first catalog format's other names
        "text-generation",
        "code",
        "code-completion",
        "analysis",
    }
)
"""The tasks every catalog knows. A rule may name others; callers then say them in ``task_type``."""


class Operation(StrEnum):
    """What is called; the values are OpenTelemetry's ``gen_ai.operation.name``."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"


class Capability(StrEnum):
    """A feature a model has and a request may need. Catalogs may name others; these are the ones requests are read for."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    TOOLS = "tools"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    VISION = "vision"
    AUDIO_INPUT = "audio_input"
    AUDIO_OUTPUT = "audio_output"
    FILE_INPUT = "file_input"
    LOGPROBS = "logprobs"
    REASONING = "reasoning"
    WEB_SEARCH = "web_search"
    PREDICTION = "prediction"


class Objective(StrEnum):
    """What the router optimises among models that can all do the work."""

    COST = "cost"
    QUALITY = "quality"
    LATENCY = "latency"
    BALANCED = "balanced"


class Priority(StrEnum):
    """How urgent a request is: high may use reserved capacity first, low leaves it to others."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class FinishReason(StrEnum):
    """Why a model stopped, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@dataclass(frozen=True, slots=True)
class ModelPreferences:
    """The caller's wishes about who answers (``model_preferences``). ``objective`` None leaves it to the catalog."""

    preferred_models: tuple[str, ...] = ()
    exclude_models: tuple[str, ...] = ()
    exclude_providers: tuple[str, ...] = ()
    objective: Objective | None = None
    min_quality: float | None = None
    max_latency_ms: float | None = None
    regions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Requirements:
    """All that routing may look at in a request. Holds no text of the caller.

    ``input_tokens`` is the expected size of the input, ``input_tokens_bound`` a sound upper bound (for worst-case prices) of
    all but its ``images``, whose size depends on the model, and of what is ``unsized``: documents, recordings, whatever is only
    named, of which nobody but the provider knows how long it is. ``prediction_bound`` bounds the tokens of an output the caller
    predicts: those that do not come true are billed on top of the answer.
    ``max_output_tokens`` is per choice and None when the caller set no limit; ``n`` is the number of choices.
    ``budget_limit`` is the most the whole request may cost, in nano-USD.
    ``subject`` is who sticky experiments assign: a stable opaque string.
    ``parameters`` are the names of the top-level wire fields sent, so that a candidate that can't honour one can be left out.
    ``surcharged`` are the fields whose value makes providers bill what no price list has.
    """

    operation: Operation
    model: str
    task: str
    task_given: bool = False
    capabilities: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()
    surcharged: frozenset[str] = frozenset()
    input_tokens: int = 0
    input_tokens_bound: int = 0
    images: int = 0
    unsized: bool = False
    prediction_bound: int = 0
    max_output_tokens: int | None = None
    n: int = 1
    stream: bool = False
    preferences: ModelPreferences = field(default_factory=ModelPreferences)
    priority: Priority = Priority.NORMAL
    service_tier: str | None = None
    budget_limit: int | None = None
    subject: str = ""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One request as the use cases take it: OpenAI's wire fields untouched, and what routing needs to know of them."""

    payload: Json
    requirements: Requirements


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one attempt, as inclusive totals, which is OpenTelemetry's way.

    Cache reads and writes are part of ``input_tokens``, ``cache_creation_long`` (kept for an hour) is part of
    ``cache_creation``, reasoning is part of ``output_tokens``. ``service_tier`` is the
    tier the provider says it billed. ``exact`` is False when the provider never reported and the numbers are what was seen
    going by: an underestimate.
    """

    input_tokens: int
    output_tokens: int = 0
    cache_read: int = 0
    cache_creation: int = 0
    reasoning: int = 0
    service_tier: str | None = None
    exact: bool = True
    cache_creation_long: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer in OpenAI's shape (``chat.completion`` or an embeddings ``list``), with what was read from it."""

    payload: dict[str, Any]
    usage: Usage | None
    response_model: str
    finish_reason: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Response headers of the provider worth keeping: its request id and rate-limit headers, names in lower case."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One event of a streamed answer, in OpenAI's ``chat.completion.chunk`` shape.

    ``content`` is True once the event carries something the caller can use (text, a tool call, a refusal, a finish reason):
    the first such event commits the gateway to this provider. ``text_length`` counts the characters of output in it.
    """

    payload: dict[str, Any]
    content: bool = False
    text_length: int = 0
    usage: Usage | None = None
    finish_reason: str | None = None
    response_model: str | None = None
