"""Switchyard's own fields of a request: what to do, who may answer, how much it may cost, how urgent it is.

They are read here and never reach a provider.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from shared.core.chain import MAX_DEADLINE, MIN_DEADLINE
from shared.core.webhooks import MAX_URL

WEBHOOK: Final = "webhook_url"
DEADLINE: Final = "deadline_seconds"

Name = Annotated[str, Field(min_length=1, max_length=256)]
Names = Annotated[list[Name], Field(max_length=64)]


@with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class Preferences(TypedDict, total=False):
    """Wishes about who answers. An empty object changes nothing."""

    preferred_models: Annotated[Names | None, Field(description="Models to ask first, in this order.")]
    exclude_models: Annotated[Names | None, Field(description="Models never to ask.")]
    exclude_providers: Annotated[Names | None, Field(description="Providers never to ask.")]
    objective: Annotated[
        Literal["cost", "quality", "latency", "balanced"] | None,
        Field(description="What to optimise among the models that can do the work."),
    ]
    min_quality: Annotated[float, Field(ge=0, le=1)] | None
    max_latency_ms: Annotated[float, Field(gt=0)] | None
    regions: Annotated[Names | None, Field(description="Only deployments in these regions.")]


MAX_BUDGET_USD: Final = 1_000_000


@with_config(ConfigDict(extra="allow", strict=True, allow_inf_nan=False))
class OwnFields(TypedDict, total=False):
    """The fields Switchyard adds to OpenAI's requests; an OpenAI SDK sends them with ``extra_body``."""

    task_type: Annotated[Name | None, Field(description="What the request is for; detected when absent.")]
    model_preferences: Preferences | None
    budget_limit: Annotated[
        Annotated[float, Field(ge=0, le=MAX_BUDGET_USD)] | None,
        Field(description="The most this request may cost, in USD. Candidates that could cost more are left out."),
    ]
    priority: Annotated[
        Literal["high", "normal", "low"] | None,
        Field(description="How urgent it is: high may use reserved capacity first."),
    ]
    webhook_url: Annotated[
        Annotated[str, Field(min_length=1, max_length=MAX_URL)] | None,
        Field(description="Background work only: an https URL of a listed host, told when it has ended."),
    ]
    deadline_seconds: Annotated[
        Annotated[float, Field(ge=MIN_DEADLINE, le=MAX_DEADLINE)] | None,
        Field(description="Background work only: how long it may take, at most 259200 (three days); a day when absent."),
    ]
