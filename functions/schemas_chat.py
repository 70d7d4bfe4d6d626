"""OpenAI's chat request as types that parse it and describe it.

They are typed dictionaries, because validation then costs least and the caller's object is passed on as it came: nothing is
coerced, and fields that are not named here go through untouched. Tags that begin with ``~`` choose between shapes and are
left out of the field names in messages.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Required

from pydantic import ConfigDict, Discriminator, Field, Tag, with_config
from typing_extensions import TypedDict

from functions.schemas_own import OwnFields

OPEN: Final = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

Text = Annotated[str, Field(min_length=1)]
PositiveInt = Annotated[int, Field(ge=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
JsonObject = dict[str, Any]


def text_or_list(value: object) -> str:
    """Return the tag of a value that is text or a list; what is neither is judged as text."""
    return "~list" if isinstance(value, list) else "~text"


def text_or_object(value: object) -> str:
    """Return the tag of a value that is text or an object; what is neither is judged as text."""
    return "~object" if isinstance(value, dict) else "~text"


@with_config(OPEN)
class ImageUrl(TypedDict, total=False):
    """Where an image is: a URL, or ``data:`` with base64."""

    url: Required[Text]
    detail: Literal["auto", "low", "high", "original"] | None


@with_config(OPEN)
class TextPart(TypedDict, total=False):
    """Text."""

    type: Required[Literal["text"]]
    text: Required[str]


@with_config(OPEN)
class ImagePart(TypedDict, total=False):
    """An image to look at."""

    type: Required[Literal["image_url"]]
    image_url: Required[ImageUrl]


@with_config(OPEN)
class AudioData(TypedDict, total=False):
    """Base64 audio and its format."""

    data: Required[Text]
    format: Required[Text]


@with_config(OPEN)
class AudioPart(TypedDict, total=False):
    """Audio to listen to."""

    type: Required[Literal["input_audio"]]
    input_audio: Required[AudioData]


@with_config(OPEN)
class FilePart(TypedDict, total=False):
    """A file to read."""

    type: Required[Literal["file"]]
    file: Required[JsonObject]


@with_config(OPEN)
class RefusalPart(TypedDict, total=False):
    """What the assistant refused, in an earlier turn."""

    type: Required[Literal["refusal"]]
    refusal: Required[str]


def _part_tag(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return f"~{kind}" if isinstance(kind, str) else None


PART_TYPES: Final = ("text", "image_url", "input_audio", "file", "refusal")

Part = Annotated[
    Annotated[TextPart, Tag("~text")]
    | Annotated[ImagePart, Tag("~image_url")]
    | Annotated[AudioPart, Tag("~input_audio")]
    | Annotated[FilePart, Tag("~file")]
    | Annotated[RefusalPart, Tag("~refusal")],
    Discriminator(_part_tag),
]

Content = Annotated[
    Annotated[str, Tag("~text")] | Annotated[list[Part], Field(min_length=1), Tag("~list")],
    Discriminator(text_or_list),
]


@with_config(OPEN)
class CalledFunction(TypedDict, total=False):
    """The function a model called, and its arguments as JSON text."""

    name: Required[Text]
    arguments: Required[str]


@with_config(OPEN)
class ToolCall(TypedDict, total=False):
    """A call the model asked for in an earlier turn."""

    id: Required[str]
    type: Literal["function", "custom"]
    function: CalledFunction
    custom: JsonObject


@with_config(OPEN)
class InstructionMessage(TypedDict, total=False):
    """Instructions of the application."""

    role: Required[Literal["system", "developer"]]
    content: Required[Content]
    name: str | None


@with_config(OPEN)
class UserMessage(TypedDict, total=False):
    """What the user says."""

    role: Required[Literal["user"]]
    content: Required[Content]
    name: str | None


@with_config(OPEN)
class AssistantMessage(TypedDict, total=False):
    """What the model answered in an earlier turn."""

    role: Required[Literal["assistant"]]
    content: Content | None
    refusal: str | None
    name: str | None
    tool_calls: list[ToolCall] | None
    function_call: CalledFunction | None


@with_config(OPEN)
class ToolMessage(TypedDict, total=False):
    """What a tool returned."""

    role: Required[Literal["tool"]]
    content: Required[Content]
    tool_call_id: Required[str]


@with_config(OPEN)
class FunctionMessage(TypedDict, total=False):
    """What a function returned (OpenAI's older form)."""

    role: Required[Literal["function"]]
    content: Required[str | None]
    name: Required[str]


ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")


def _role_tag(value: object) -> str | None:
    role = value.get("role") if isinstance(value, dict) else None
    if role == "system" or role == "developer":  # noqa: PLR1714 - a set would hash whatever the caller sent
        return "~instruction"
    return f"~{role}" if isinstance(role, str) else None


Message = Annotated[
    Annotated[InstructionMessage, Tag("~instruction")]
    | Annotated[UserMessage, Tag("~user")]
    | Annotated[AssistantMessage, Tag("~assistant")]
    | Annotated[ToolMessage, Tag("~tool")]
    | Annotated[FunctionMessage, Tag("~function")],
    Discriminator(_role_tag),
]


@with_config(OPEN)
class FunctionDefinition(TypedDict, total=False):
    """A function the model may call. ``parameters`` is a JSON schema."""

    name: Required[Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]]
    description: str | None
    parameters: JsonObject | None
    strict: bool | None


@with_config(OPEN)
class FunctionTool(TypedDict, total=False):
    """A tool that is a function."""

    type: Required[Literal["function"]]
    function: Required[FunctionDefinition]


@with_config(OPEN)
class CustomTool(TypedDict, total=False):
    """A tool that takes free text."""

    type: Required[Literal["custom"]]
    custom: Required[JsonObject]


Tool = Annotated[
    Annotated[FunctionTool, Tag("~function")] | Annotated[CustomTool, Tag("~custom")],
    Discriminator(_part_tag),
]


@with_config(OPEN)
class NamedToolChoice(TypedDict, total=False):
    """The tool the model must call."""

    type: Required[Literal["function", "custom", "allowed_tools"]]
    function: JsonObject
    custom: JsonObject
    allowed_tools: JsonObject


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("~text")] | Annotated[NamedToolChoice, Tag("~object")],
    Discriminator(text_or_object),
]


@with_config(OPEN)
class JsonSchemaFormat(TypedDict, total=False):
    """A named JSON schema the answer must obey."""

    name: Required[Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]]
    description: str | None
    schema: JsonObject
    strict: bool | None


@with_config(OPEN)
class ResponseFormat(TypedDict, total=False):
    """The shape of the answer's text."""

    type: Required[Literal["text", "json_object", "json_schema"]]
    json_schema: JsonSchemaFormat


@with_config(OPEN)
class StreamOptions(TypedDict, total=False):
    """How to stream. ``include_usage`` asks for a last chunk with the tokens used, and what the request cost."""

    include_usage: bool | None


Stop = Annotated[
    Annotated[str, Tag("~text")] | Annotated[list[str], Field(max_length=4), Tag("~list")],
    Discriminator(text_or_list),
]


@with_config(OPEN)
class Sampling(OwnFields, total=False):
    """What chat and legacy completions share."""

    model: Text | None
    stream: bool | None
    stream_options: StreamOptions | None
    max_tokens: PositiveInt | None
    temperature: Annotated[float, Field(ge=0, le=2)] | None
    top_p: Annotated[float, Field(ge=0, le=1)] | None
    n: Annotated[int, Field(ge=1, le=128)] | None
    stop: Stop | None
    seed: int | None
    presence_penalty: Penalty | None
    frequency_penalty: Penalty | None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None
    user: str | None


@with_config(OPEN)
class ChatRequest(Sampling, total=False):
    """OpenAI's chat request with Switchyard's optional fields. Fields not listed are passed on to the provider."""

    messages: Required[Annotated[list[Message], Field(min_length=1)]]
    max_completion_tokens: PositiveInt | None
    tools: Annotated[list[Tool], Field(max_length=128)] | None
    tool_choice: ToolChoice | None
    parallel_tool_calls: bool | None
    response_format: ResponseFormat | None
    logprobs: bool | None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None
    modalities: list[Literal["text", "audio"]] | None
    audio: JsonObject | None
    prediction: JsonObject | None
    web_search_options: JsonObject | None
    reasoning_effort: Text | None
    service_tier: Text | None
    store: bool | None
    metadata: dict[str, str] | None
    safety_identifier: str | None
    prompt_cache_key: str | None
