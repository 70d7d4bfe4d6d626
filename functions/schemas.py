"""The other request bodies: legacy completions, embeddings, feedback, registration."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Required

from pydantic import ConfigDict, Discriminator, Field, Tag, with_config
from typing_extensions import TypedDict

from functions.schemas_chat import OPEN, Sampling, Text, text_or_list
from functions.schemas_own import OwnFields

JsonObject = dict[str, Any]
CLOSED: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


def input_tag(value: object) -> str:
    """Return the tag of an embeddings input: text, texts, tokens or lists of tokens."""
    if not isinstance(value, list):
        return "~text"
    first = value[0] if value else ""
    if isinstance(first, list):
        return "~batches"
    return "~tokens" if isinstance(first, int) else "~texts"


Prompt = Annotated[
    Annotated[str, Tag("~text")] | Annotated[list[str], Field(min_length=1, max_length=128), Tag("~list")],
    Discriminator(text_or_list),
]


@with_config(OPEN)
class CompletionRequest(Sampling, total=False):
    """The seed's completion request and OpenAI's legacy one in one: a prompt, and Switchyard's fields."""

    prompt: Required[Prompt]
    echo: bool | None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None
    best_of: Annotated[int, Field(ge=1, le=20)] | None
    suffix: str | None


EmbeddingsInput = Annotated[
    Annotated[Text, Tag("~text")]
    | Annotated[list[Text], Field(min_length=1, max_length=2048), Tag("~texts")]
    | Annotated[Tokens, Tag("~tokens")]
    | Annotated[list[Tokens], Field(max_length=2048), Tag("~batches")],
    Discriminator(input_tag),
]


@with_config(OPEN)
class EmbeddingsRequest(OwnFields, total=False):
    """OpenAI's embeddings request with Switchyard's optional fields."""

    model: Text | None
    input: Required[EmbeddingsInput]
    dimensions: Annotated[int, Field(ge=1)] | None
    encoding_format: Literal["float", "base64"] | None
    user: str | None


@with_config(CLOSED)
class FeedbackRequest(TypedDict, total=False):
    """What a person thought of an answer, from 1 (bad) to 5 (good)."""

    request_id: Required[Annotated[str, Field(min_length=1, max_length=128)]]
    rating: Required[Annotated[int, Field(ge=1, le=5)]]
    feedback: Annotated[str, Field(max_length=4_000)] | None


@with_config(OPEN)
class ModelDocument(TypedDict, total=False):
    """A model as the catalog describes one; the catalog's own validation judges it, whole."""

    expected_version: Annotated[
        int | None, Field(ge=0, description="Refuse with 409 unless the registration's version is this one.")
    ]


@with_config(OPEN)
class RouteRequest(TypedDict, total=False):
    """The body of the request to plan: a chat (``messages``), a completion (``prompt``) or embeddings (``input``)."""

    model: Text | None
    messages: list[JsonObject]
    prompt: Prompt
    input: EmbeddingsInput
