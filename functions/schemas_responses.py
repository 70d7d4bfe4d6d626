"""OpenAI's Responses request as types that parse it and describe it, in the manner of `functions.schemas_chat`.

What is at the top is closed: chat's fields that Responses do not have would otherwise be dropped without a word.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Required

from pydantic import ConfigDict, Discriminator, Field, Tag, with_config
from typing_extensions import TypedDict

from functions.schemas_chat import OPEN, AudioData, JsonObject, PositiveInt, Text, text_or_list, text_or_object
from functions.schemas_own import OwnFields
from shared.core.responses_items import kind_of

CLOSED: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
MAX_ITEMS: Final = 10_000

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
Id = Annotated[str, Field(min_length=1, max_length=256)]


@with_config(OPEN)
class InputText(TypedDict, total=False):
    """Text: what is asked, or what was answered in an earlier turn."""

    type: Required[Literal["input_text", "output_text"]]
    text: Required[str]


@with_config(OPEN)
class InputImage(TypedDict, total=False):
    """An image to look at: a URL, or ``data:`` with base64."""

    type: Required[Literal["input_image"]]
    image_url: Text | None
    file_id: str | None
    detail: Literal["auto", "low", "high", "original"] | None


@with_config(OPEN)
class InputFile(TypedDict, total=False):
    """A file to read."""

    type: Required[Literal["input_file"]]
    file_data: Text | None
    file_id: Text | None
    file_url: str | None
    filename: str | None


@with_config(OPEN)
class InputAudio(TypedDict, total=False):
    """Audio to listen to."""

    type: Required[Literal["input_audio"]]
    input_audio: Required[AudioData]


@with_config(OPEN)
class Refusal(TypedDict, total=False):
    """What the assistant refused, in an earlier turn."""

    type: Required[Literal["refusal"]]
    refusal: Required[str]


def _type_tag(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return f"~{kind}" if isinstance(kind, str) else None


def _part_tag(value: object) -> str | None:
    tag = _type_tag(value)
    return "~input_text" if tag == "~output_text" else tag


Part = Annotated[
    Annotated[InputText, Tag("~input_text")]
    | Annotated[InputImage, Tag("~input_image")]
    | Annotated[InputFile, Tag("~input_file")]
    | Annotated[InputAudio, Tag("~input_audio")]
    | Annotated[Refusal, Tag("~refusal")],
    Discriminator(_part_tag),
]

Content = Annotated[
    Annotated[str, Tag("~text")] | Annotated[list[Part], Field(min_length=1), Tag("~list")],
    Discriminator(text_or_list),
]


@with_config(OPEN)
class MessageItem(TypedDict, total=False):
    """What somebody said."""

    type: Literal["message"] | None
    id: Id | None
    role: Required[Literal["user", "assistant", "system", "developer"]]
    content: Required[Content]


@with_config(OPEN)
class FunctionCallItem(TypedDict, total=False):
    """A call of a function that the model asked for."""

    type: Required[Literal["function_call"]]
    id: Id | None
    call_id: Required[Id]
    name: Required[Name]
    arguments: Required[str]


@with_config(OPEN)
class CustomCallItem(TypedDict, total=False):
    """A call of a custom tool that the model asked for."""

    type: Required[Literal["custom_tool_call"]]
    id: Id | None
    call_id: Required[Id]
    name: Required[Name]
    input: Required[str]


@with_config(OPEN)
class OutputItem(TypedDict, total=False):
    """What a tool returned."""

    type: Required[Literal["function_call_output", "custom_tool_call_output"]]
    id: Id | None
    call_id: Required[Id]
    output: Required[Content]


@with_config(OPEN)
class ReasoningItem(TypedDict, total=False):
    """What a model thought in an earlier turn. It is kept, and not sent to a model again."""

    type: Required[Literal["reasoning"]]
    id: Id | None
    summary: list[JsonObject] | None
    content: list[JsonObject] | None
    encrypted_content: str | None


@with_config(OPEN)
class ItemReference(TypedDict, total=False):
    """An item of an earlier response, by its id."""

    type: Literal["item_reference"] | None
    id: Required[Id]


def _item_tag(value: object) -> str | None:
    kind = kind_of(value) if isinstance(value, dict) else None
    if kind is None:
        return None
    return "~function_call_output" if kind == "custom_tool_call_output" else f"~{kind}"


Item = Annotated[
    Annotated[MessageItem, Tag("~message")]
    | Annotated[FunctionCallItem, Tag("~function_call")]
    | Annotated[OutputItem, Tag("~function_call_output")]
    | Annotated[CustomCallItem, Tag("~custom_tool_call")]
    | Annotated[ReasoningItem, Tag("~reasoning")]
    | Annotated[ItemReference, Tag("~item_reference")],
    Discriminator(_item_tag),
]

Input = Annotated[
    Annotated[str, Field(min_length=1), Tag("~text")]
    | Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS), Tag("~list")],
    Discriminator(text_or_list),
]


@with_config(CLOSED)
class FunctionTool(TypedDict, total=False):
    """A function the model may call. ``parameters`` is a JSON schema."""

    type: Required[Literal["function"]]
    name: Required[Name]
    description: str | None
    parameters: JsonObject | None
    strict: bool | None


@with_config(CLOSED)
class CustomTool(TypedDict, total=False):
    """A tool that takes free text."""

    type: Required[Literal["custom"]]
    name: Required[Name]
    description: str | None
    format: JsonObject | None


@with_config(OPEN)
class OtherTool(TypedDict, total=False):
    """A tool of OpenAI's own, refused by name."""

    type: Required[str]


def _tool_tag(value: object) -> str | None:
    tag = _type_tag(value)
    return tag if tag in {"~function", "~custom", None} else "~other"


Tool = Annotated[
    Annotated[FunctionTool, Tag("~function")] | Annotated[CustomTool, Tag("~custom")] | Annotated[OtherTool, Tag("~other")],
    Discriminator(_tool_tag),
]


@with_config(OPEN)
class NamedToolChoice(TypedDict, total=False):
    """The tool the model must call, or those it may."""

    type: Required[str]
    name: str
    mode: Literal["auto", "required"] | None
    tools: list[JsonObject] | None


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("~text")] | Annotated[NamedToolChoice, Tag("~object")],
    Discriminator(text_or_object),
]


@with_config(CLOSED)
class PlainFormat(TypedDict, total=False):
    """Text, or any JSON object."""

    type: Required[Literal["text", "json_object"]]


@with_config(CLOSED)
class SchemaFormat(TypedDict, total=False):
    """A named JSON schema the answer must obey."""

    type: Required[Literal["json_schema"]]
    name: Required[Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]]
    schema: Required[JsonObject]
    description: str | None
    strict: bool | None


def _format_tag(value: object) -> str | None:
    tag = _type_tag(value)
    return "~text" if tag == "~json_object" else tag


Format = Annotated[
    Annotated[PlainFormat, Tag("~text")] | Annotated[SchemaFormat, Tag("~json_schema")],
    Discriminator(_format_tag),
]


@with_config(CLOSED)
class TextConfig(TypedDict, total=False):
    """The shape of the answer's text."""

    format: Format | None
    verbosity: Literal["low", "medium", "high"] | None


@with_config(CLOSED)
class Reasoning(TypedDict, total=False):
    """How long to think. A summary is a wish: what a model tells of its thoughts is shown as it is."""

    effort: Text | None
    summary: Literal["auto", "concise", "detailed"] | None
    generate_summary: Literal["auto", "concise", "detailed"] | None


@with_config(CLOSED)
class ResponseStreamOptions(TypedDict, total=False):
    """How to stream. Nothing is obfuscated here."""

    include_obfuscation: bool | None


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]


@with_config(CLOSED)
class ResponseRequest(OwnFields, total=False):
    """OpenAI's Responses request with Switchyard's optional fields."""

    model: Text | None
    input: Required[Input]
    instructions: str | None
    previous_response_id: Id | None
    tools: Annotated[list[Tool], Field(max_length=128)] | None
    tool_choice: ToolChoice | None
    parallel_tool_calls: bool | None
    max_tool_calls: PositiveInt | None
    text: TextConfig | None
    reasoning: Reasoning | None
    max_output_tokens: PositiveInt | None
    temperature: Annotated[float, Field(ge=0, le=2)] | None
    top_p: Annotated[float, Field(ge=0, le=1)] | None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None
    include: list[str] | None
    stream: bool | None
    stream_options: ResponseStreamOptions | None
    background: bool | None
    store: bool | None
    metadata: Metadata | None
    user: str | None
    safety_identifier: Annotated[str, Field(max_length=128)] | None
    prompt_cache_key: str | None
    prompt_cache_options: JsonObject | None
    prompt_cache_retention: Text | None
    service_tier: Text | None
    truncation: Literal["auto", "disabled"] | None
    # Known, and refused with what to do instead (`shared.core.responses.UNSUPPORTED`):
    conversation: str | JsonObject | None
    prompt: JsonObject | None
    context_management: list[JsonObject] | None
    moderation: JsonObject | None
    background_options: JsonObject | None
    access_programs: JsonObject | None
    image: JsonObject | None
