"""The registry: what can be called, where, at which price. An immutable snapshot with look-ups.

A *provider* is a vendor's API with credentials; a *model* is the weights with their capabilities; a *deployment* is a model at
a provider, with its own endpoint, price, limits and breaker: what is called. Health is not here: see `shared.core.health`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from shared.core.chat import Objective
from shared.core.errors import ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ALIAS_DEPTH: Final = 8

UNRESOLVED: Final = "@Microsoft.KeyVault("
"""How a setting begins that Azure could not read from Key Vault: the app is handed the reference itself, which is no secret."""


class Secret:
    """A credential that does not show itself: not in a repr, a log, a trace or a comparison of records."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the credential, for the one place that sends it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


class ProviderKind(StrEnum):
    """Which protocol a provider speaks: the key of the adapters' table."""

    AZURE_OPENAI = "azure_openai"
    OPENAI_COMPATIBLE = "openai_compatible"
    ANTHROPIC = "anthropic"


class Auth(StrEnum):
    """How a provider wants its credential."""

    BEARER = "bearer"
    API_KEY = "api_key"  # Azure's ``api-key`` header
    X_API_KEY = "x_api_key"  # Anthropic's
    ENTRA = "entra"  # a token from azure-identity for ``entra_scope``
    NONE = "none"


class Lifecycle(StrEnum):
    """Where a model is in its life at its provider."""

    PREVIEW = "preview"
    GENERAL = "ga"
    LEGACY = "legacy"
    DEPRECATED = "deprecated"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect, to the first content of a stream, between its events, and for a whole attempt."""

    connect: float = 5.0
    first_content: float = 20.0
    idle: float = 30.0
    whole: float = 90.0


@dataclass(frozen=True, slots=True)
class Provider:
    """A vendor's API. ``base_url`` has no trailing slash; ``api_version`` (Azure) selects the dated paths, None the v1 ones.

    ``unavailable`` says why nothing here can be called (a missing credential, switched off); None when it can.
    ``unsupported_parameters`` are wire fields this API refuses or ignores: requests that send one go elsewhere.
    """

    name: str
    kind: ProviderKind
    base_url: str
    auth: Auth = Auth.BEARER
    credential: Secret | None = None
    entra_scope: str = "https://ai.azure.com/.default"
    api_version: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    semconv_name: str = ""
    unsupported_parameters: frozenset[str] = frozenset()
    unavailable: str | None = None


@dataclass(frozen=True, slots=True)
class LifecycleFacts:
    """When a model retires at its provider, with where and when that was read. Retirement dates move both ways."""

    stage: Lifecycle = Lifecycle.GENERAL
    retires_on: date | None = None
    source: str = ""
    read_on: date | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """The weights as the catalog names them.

    ``capabilities`` are features (see `Capability`), ``tasks`` what it is suited for. ``quality`` is 0..1, ``latency_ms`` the
    typical time to an answer until measured. ``reasoning`` models take ``max_completion_tokens`` and refuse the parameters in
    ``unsupported_parameters``. ``auto`` says whether the router may choose it for ``auto``. ``image_tokens`` is the most that
    one picture is billed, None when that is not known.
    """

    name: str
    capabilities: frozenset[str]
    tasks: tuple[str, ...] = ()
    context_window: int | None = None
    max_output_tokens: int | None = None
    image_tokens: int | None = None
    dimensions: int | None = None
    quality: float = 0.5
    latency_ms: float = 1000.0
    reasoning: bool = False
    unsupported_parameters: frozenset[str] = frozenset()
    lifecycle: LifecycleFacts = field(default_factory=LifecycleFacts)
    auto: bool = True
    description: str = ""


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per million tokens, and ``request`` in USD per call.

    None means the kind is not priced apart: cache reads and writes then cost as input, reasoning as output.
    """

    input: Decimal
    output: Decimal = Decimal(0)
    cache_read: Decimal | None = None
    cache_creation: Decimal | None = None
    reasoning: Decimal | None = None
    request: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class RateTier:
    """Rates for the *whole* request once its input is longer than ``above_input_tokens``."""

    above_input_tokens: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Price:
    """What a deployment costs from a date on, with where and when that was read.

    ``service_tiers`` maps a tier named in the provider's answer (``priority``, ``flex``) to its own rates.
    """

    effective_from: date
    rates: Rates
    tiers: tuple[RateTier, ...] = ()
    service_tiers: Mapping[str, Rates] = field(default_factory=dict)
    source: str = ""
    read_on: date | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """The provider's quota of a deployment; None is unknown."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model at a provider: what is called. ``id`` is ``provider/name`` unless the catalog names it.

    ``target`` is the name sent to the provider. Lower ``priority`` goes first; ``weight`` shares traffic among equals.
    ``prices`` are oldest first; empty means the price is not known. ``provisioned`` capacity is kept for high priority first.
    ``unavailable`` says why it can't be called; None when it can. ``lifecycle`` is the model's life at this provider, None the
    model's own: the same weights retire on other days elsewhere.
    """

    id: str
    model: str
    provider: str
    target: str
    region: str | None = None
    priority: int = 1
    weight: int = 1
    limits: Limits = field(default_factory=Limits)
    prices: tuple[Price, ...] = ()
    timeouts: Timeouts | None = None
    provisioned: bool = False
    base_url: str | None = None
    unavailable: str | None = None
    lifecycle: LifecycleFacts | None = None


@dataclass(frozen=True, slots=True)
class Alias:
    """A public name that stands for a route: the first target first, the others as its allowed fallbacks.

    ``retired`` names say in ``note`` what replaced them and since when.
    """

    name: str
    targets: tuple[str, ...]
    retired: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """For a task: these models first, in order, then those. ``objective`` orders whatever else is capable, after them.

    ``others`` False keeps the route to the models named.
    """

    task: str
    preferred_models: tuple[str, ...] = ()
    fallback_models: tuple[str, ...] = ()
    objective: Objective | None = None
    others: bool = True


@dataclass(frozen=True, slots=True)
class Arm:
    """A branch of an experiment: the model it puts first, and its share."""

    name: str
    model: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Experiment:
    """A sticky A/B test. ``tasks`` and ``models`` (original model) select requests.

    No tasks are all tasks; no models are requests for ``auto``, because a model that a caller names is a promise.
    """

    name: str
    arms: tuple[Arm, ...]
    tasks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class FailoverPolicy:
    """Bounds for the whole chain of one request, in seconds and counts.

    ``max_wait`` is the longest the flow waits for a cooldown when nothing else is left. ``content_filter_fallback`` permits
    asking another vendor after a content filter. ``retries`` is how often one deployment is asked again in the chain.
    """

    deadline: float = 120.0
    max_attempts: int = 6
    retries: int = 2
    backoff: float = 0.25
    max_backoff: float = 4.0
    max_wait: float = 5.0
    content_filter_fallback: bool = False
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """How the router chooses when nothing more specific says so.

    ``fallbacks`` maps a model to the models a request that names it may fall back to. ``default_max_output_tokens`` bounds the
    worst-case price of a request that sets no limit on a model that has none, and of one that sets only a ``budget_limit``.
    """

    objective: Objective = Objective.BALANCED
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default_max_output_tokens: int = 4096
    max_candidates: int = 8
    failover: FailoverPolicy = field(default_factory=FailoverPolicy)


@dataclass(frozen=True, slots=True)
class Registry:
    """One immutable version of everything that can be called. ``version`` is a hash of the catalog and its overlay."""

    version: str
    providers: Mapping[str, Provider]
    models: Mapping[str, Model]
    deployments: Mapping[str, Deployment]
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    rules: Mapping[str, RoutingRule] = field(default_factory=dict)
    experiments: tuple[Experiment, ...] = ()
    policy: RoutingPolicy = field(default_factory=RoutingPolicy)
    by_model: Mapping[str, tuple[Deployment, ...]] = field(default_factory=dict)
    """Deployments of each model, in catalog order. Filled by `Registry.build`."""

    def find_alias(self, name: str) -> Alias | None:
        """Return the alias of that name, or None."""
        return self.aliases.get(name)

    def resolve(self, name: str) -> tuple[str, ...]:
        """Return the models a name stands for, the first one first; raise `ModelNotFoundError` when it stands for none."""
        found = tuple(dict.fromkeys(self._expand(name, 0)))
        if not found:
            message = f"The model `{name:.60}` does not exist. GET /v1/models lists those that do."
            raise ModelNotFoundError(message, param="model", code="model_not_found")
        return found

    def _expand(self, name: str, depth: int) -> Iterator[str]:
        if name in self.models:
            yield name
        elif depth < MAX_ALIAS_DEPTH and (alias := self.aliases.get(name)) is not None:
            for target in alias.targets:
                yield from self._expand(target, depth + 1)

    def tasks(self) -> frozenset[str]:
        """Return every task some rule or model names."""
        named = {task for model in self.models.values() for task in model.tasks}
        return frozenset(named | set(self.rules))
