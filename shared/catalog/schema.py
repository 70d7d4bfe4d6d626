"""The catalog's format: what each entry may say. docs live beside the fields; `catalog/models.yaml` is the example.

Entries are checked one by one (see `shared.catalog.draft`), so that a mistake in one hides no mistake in another.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from shared.catalog.fields import (
    AuthOrder,
    Count,
    Credential,
    Day,
    Factor,
    HeaderName,
    Kind,
    Milliseconds,
    Money,
    Name,
    Names,
    ObjectiveName,
    Positive,
    Seconds,
    Share,
    Slug,
    Stage,
    Text,
    Truth,
    Url,
    Wait,
)
from shared.core.registry import Lifecycle


class Entry(BaseModel):
    """What all entries share: no unknown field, no conversion, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ProviderEntry(Entry):
    """A vendor's API. ``auth`` may be a list: the first way that has its credential is taken (``[api_key, entra]``)."""

    kind: Kind
    base_url: Url | None = None
    auth: AuthOrder | None = None
    api_key: Credential | None = None
    api_version: Name | None = None
    entra_scope: Text | None = None
    headers: dict[HeaderName, Credential] = Field(default_factory=dict)
    semconv_name: Name | None = None
    unsupported_parameters: list[Name] = Field(default_factory=list)
    enabled: Truth = True
    disabled_reason: Text | None = None


class SourceEntry(Entry):
    """A page that prices or dates are read from, named once: ``source: NAME`` then stands for it and for ``read_on``."""

    where: Text
    read_on: Day


class LifecycleEntry(Entry):
    """Where a model is in its life. A date without a source is a rumour: both it and the day it was read are required."""

    stage: Stage = Lifecycle.GENERAL
    retires_on: Day | None = None
    source: Text | None = None
    read_on: Day | None = None


class RatesEntry(Entry):
    """USD per million tokens; ``per_request`` is USD per call."""

    input: Money
    output: Money | None = None
    cached_input: Money | None = None
    cache_write: Money | None = None
    reasoning: Money | None = None
    per_request: Money | None = None


class TierEntry(RatesEntry):
    """Rates of the whole request once its input is longer than this."""

    above_input_tokens: Positive


class PriceEntry(RatesEntry):
    """What a deployment costs from a day on. ``read_on`` may be left to a named source."""

    effective_from: Day = Field(alias="from")
    tiers: list[TierEntry] = Field(default_factory=list)
    service_tiers: dict[Name, RatesEntry] = Field(default_factory=dict)
    source: Text
    read_on: Day | None = None


class UpliftEntry(Entry):
    """How much dearer a model is where prompts stay in a data zone or a region: factors on ``prices``, the global ones.

    A factor that is not given is not known: a deployment there has no price then (see `shared.catalog.infrastructure`).
    """

    eu: Factor | None = None
    us: Factor | None = None
    regional: Factor | None = None
    source: Text
    read_on: Day | None = None


class LimitsEntry(Entry):
    """The provider's quota of a deployment."""

    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    concurrency: Positive | None = None


class TimeoutsEntry(Entry):
    """Seconds; what is not given is the policy's."""

    connect_s: Seconds | None = None
    first_content_s: Seconds | None = None
    idle_s: Seconds | None = None
    whole_s: Seconds | None = None


class DeploymentEntry(Entry):
    """A model at a provider. ``prices: []`` says that the price is not known, so a budget refuses it."""

    provider: Name
    name: Name | None = None
    target: Name | None = None
    region: Slug | None = None
    base_url: Url | None = None
    priority: Count = 1
    weight: Count = 1
    limits: LimitsEntry = Field(default_factory=LimitsEntry)
    timeouts: TimeoutsEntry | None = None
    provisioned: Truth = False
    prices: list[PriceEntry]
    uplift: UpliftEntry | None = None
    lifecycle: LifecycleEntry | None = None
    enabled: Truth = True
    disabled_reason: Text | None = None


class ModelEntry(Entry):
    """The weights. ``auto`` (may the router choose it unasked) is true for a model that is generally available.

    ``image_tokens`` is the most that its provider bills for one picture: limits on money count with it, or with 75,000.
    """

    capabilities: list[Name] = Field(min_length=1)
    tasks: list[Name] = Field(default_factory=list)
    context_window: Positive | None = None
    max_output_tokens: Positive | None = None
    image_tokens: Positive | None = None
    dimensions: Positive | None = None
    quality: Share = 0.5
    latency_ms: Milliseconds = 1000.0
    reasoning: Truth = False
    unsupported_parameters: list[Name] = Field(default_factory=list)
    lifecycle: LifecycleEntry | None = None
    auto: Truth | None = None
    description: Text = ""


class AliasEntry(Entry):
    """A name clients may send for a model, or for several in order."""

    to: Names = Field(min_length=1)
    retired: Truth = False
    note: Text = ""


class RuleEntry(Entry):
    """Which models serve a task, in which order."""

    task: Name
    preferred_models: Names = Field(default_factory=list)
    fallback_models: Names = Field(default_factory=list)
    objective: ObjectiveName | None = None
    others: Truth = True


class ArmEntry(Entry):
    """A branch of an experiment."""

    name: Name | None = None
    model: Name
    weight: Count = 1


class ExperimentEntry(Entry):
    """A sticky A/B test."""

    name: Name
    arms: list[ArmEntry] = Field(min_length=1)
    tasks: Names = Field(default_factory=list)
    models: Names = Field(default_factory=list)
    enabled: Truth = True


class PolicyEntry(Entry):
    """Bounds of a request's whole chain; what is not given keeps its default (see `shared.core.registry`)."""

    objective: ObjectiveName | None = None
    deadline_s: Seconds | None = None
    max_attempts: Positive | None = None
    retries: Count | None = None
    backoff_s: Wait | None = None
    max_backoff_s: Wait | None = None
    max_wait_s: Wait | None = None
    content_filter_fallback: Truth | None = None
    default_max_output_tokens: Positive | None = None
    max_candidates: Positive | None = None
    timeouts: TimeoutsEntry | None = None


class CostEntry(Entry):
    """The first format's price: USD per thousand tokens."""

    input: Money
    output: Money | None = None


class FlatModelEntry(Entry):
    """The first format's model: one provider, one price, tasks called capabilities."""

    provider: Name
    capabilities: list[Name] = Field(min_length=1)
    cost_per_1k_tokens: CostEntry
    max_tokens: Positive | None = None
    dimensions: Positive | None = None
    latency_ms: Milliseconds = 1000.0
    quality_score: Share = 0.5


SECTIONS = (
    "custom_capabilities",
    "sources",
    "providers",
    "models",
    "aliases",
    "routing_rules",
    "fallbacks",
    "experiments",
    "policy",
)
"""What may stand at the top of a catalog."""
