"""What Terraform deployed, laid over the catalog: ``SWITCHYARD_DEPLOYMENTS``.

    [{"provider": "azure_openai", "region": "swedencentral", "endpoint": "https://NAME.openai.azure.com", "priority": 1,
      "deployments": [{"name": "gpt-5-mini", "model": "gpt-5-mini", "sku": "GlobalStandard", "capacity": 100}]}]

The catalog says what a model is and costs at a provider, this setting where it is: each of the catalog's rows of such a
provider becomes one deployment per entry of its model, ``PROVIDER/NAME@REGION``. Rows with a ``base_url`` of their own stay as
they are. The rows of models that are not deployed are listed, unavailable, with what to add to the tfvars. A deployment whose
model or provider the catalog lacks is told by `catalog check` and stops nobody. Unset, nothing changes.

- **Order**: provisioned capacity of every region first, because it is paid for whether it is used or not; then the regions by
  ``priority``; within one the cheaper SKU. Equals share by capacity. Whoever came after the row in the catalog still does.
- **Limits**: a standard SKU's unit is 1,000 tokens a minute. How many requests go with a unit differs by model and moves, so
  it is not guessed: Azure says so when it is too many. Provisioned capacity has no limit in tokens; it says when it is full.
- **Prices** are the row's, which are the global ones, times its ``uplift`` for a data zone or a region. An uplift that is not
  in the catalog leaves the price unknown, and a budget refuses it. Tokens on provisioned capacity count at the global
  pay-as-you-go price although Azure bills hours for it: that is what they would have cost; at zero no budget would bind, and
  one project could use up what all of them reserved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.catalog.fields import Count, Name, Positive, Slug, Url
from shared.catalog.findings import suggestion

if TYPE_CHECKING:
    from shared.catalog.findings import Findings, Path

SETTING: Final = "SWITCHYARD_DEPLOYMENTS"
MAX_TEXT: Final = 256 * 1024
_TOKENS_PER_UNIT: Final = 1000
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_HIDDEN: Final = "https://archived.invalid"
"""Stands for an endpoint in what is kept: addresses have no part in decisions."""


@dataclass(frozen=True, slots=True)
class Sku:
    """What a deployment type means here. ``scope`` is where prompts are processed: ``global``, ``zone`` or ``regional``."""

    scope: str
    provisioned: bool = False


SKUS: Final[Mapping[str, Sku]] = MappingProxyType(
    {
        "GlobalProvisionedManaged": Sku("global", provisioned=True),
        "DataZoneProvisionedManaged": Sku("zone", provisioned=True),
        "ProvisionedManaged": Sku("regional", provisioned=True),
        "GlobalStandard": Sku("global"),
        "DataZoneStandard": Sku("zone"),
        "Standard": Sku("regional"),
    }
)
"""In the order they are asked within one region: what is paid for already, then the cheaper first."""

ZONES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "centralus", "eastus", "eastus2", "northcentralus", "southcentralus", "westcentralus", "westus", "westus2",
                "westus3",
            ),
            "us",
        ),
        **dict.fromkeys(
            (
                "austriaeast", "belgiumcentral", "denmarkeast", "francecentral", "germanywestcentral", "italynorth",
                "northeurope", "polandcentral", "spaincentral", "swedencentral", "westeurope",
            ),
            "eu",
        ),
    }
)  # fmt: skip
"""The data zone a region belongs to; a data-zone SKU elsewhere has no price that is known."""


class _Part(BaseModel):
    """Fields that are not known are told and ignored: the infrastructure may be a release ahead of the code."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class DeployedModel(_Part):
    """A model deployment of an account. The limits are told where they are not those that follow from the capacity."""

    name: Name
    model: Name
    sku: Name
    capacity: Positive
    tokens_per_minute: Positive | None = None
    requests_per_minute: Positive | None = None


class Account(_Part):
    """A provider's account in a region. Lower ``priority`` is asked first."""

    provider: Slug
    region: Slug
    endpoint: Url
    priority: Count = 1
    deployments: list[DeployedModel] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Placement:
    """One deployed model, and where the setting says so."""

    path: Path
    account: Account
    deployed: DeployedModel

    @property
    def sku(self) -> Sku | None:
        """Return what its SKU means, None when that is not known."""
        return SKUS.get(self.deployed.sku)

    @property
    def provisioned(self) -> bool:
        """Say whether the capacity is reserved and paid by the hour."""
        return self.sku is not None and self.sku.provisioned

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Return what orders it among the placements of its model; equals share the traffic."""
        order = list(SKUS).index(self.deployed.sku) if self.sku is not None else len(SKUS)
        return (not self.provisioned, self.account.priority, order)

    @property
    def name(self) -> str:
        """Return the deployment's name in the registry."""
        return f"{self.deployed.name}@{self.account.region}"

    @property
    def tokens_per_minute(self) -> int | None:
        """Return the limit the capacity stands for, None where there is none."""
        if self.deployed.tokens_per_minute is not None or self.provisioned:
            return self.deployed.tokens_per_minute
        return self.deployed.capacity * _TOKENS_PER_UNIT


@dataclass(frozen=True, slots=True)
class Infrastructure:
    """The accounts there are."""

    accounts: tuple[Account, ...]

    def placements(self) -> tuple[Placement, ...]:
        """Return every deployed model, in the setting's order."""
        return tuple(
            Placement((SETTING, place, "deployments", index), account, deployed)
            for place, account in enumerate(self.accounts)
            for index, deployed in enumerate(account.deployments)
        )

    def endpoints(self) -> dict[str, str]:
        """Return the endpoint of each provider's first account: that of the lowest priority number."""
        ordered = sorted(self.accounts, key=lambda account: account.priority)
        return {account.provider: account.endpoint for account in reversed(ordered)}

    def facts(self) -> str:
        """Return all of it but the addresses, so that it can be kept, compared and read again."""
        accounts = [{**account.model_dump(mode="json"), "endpoint": _HIDDEN} for account in self.accounts]
        return json.dumps(accounts, sort_keys=True, separators=(",", ":"))


def read_infrastructure(environment: Mapping[str, str], findings: Findings) -> Infrastructure | None:
    """Return what the setting says; None when it is not set, or wrong, which is noted in ``findings``."""
    text = environment.get(SETTING, "").strip()
    if not text:
        return None
    try:
        if len(text) > MAX_TEXT:
            findings.problem((SETTING,), f"is longer than {MAX_TEXT} characters; take it from Terraform's output")
            return None
        tree = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        findings.problem((SETTING,), f"is not valid JSON ({place}); take it from Terraform's output, or unset it")
        return None
    if not isinstance(tree, list):
        findings.problem((SETTING,), 'must be a list of accounts: [{"provider": …, "region": …, "endpoint": …, …}]')
        return None
    accounts = [_account((SETTING, place), value, findings) for place, value in enumerate(tree)]
    return None if None in accounts else Infrastructure(tuple(account for account in accounts if account is not None))


def _account(path: Path, value: object, findings: Findings) -> Account | None:
    try:
        account = Account.model_validate(value)
    except ValidationError as error:
        findings.invalid(path, error.errors(include_url=False, include_input=False), fields=list(Account.model_fields))
        return None
    address = urlsplit(account.endpoint)
    if address.scheme != "https" and address.hostname not in _LOOPBACK:
        findings.problem((*path, "endpoint"), "must begin with https://: prompts and tokens are sent there")
        return None
    _unknown(path, value, Account, findings)
    given: Sequence[Any] = value["deployments"] if isinstance(value, Mapping) and "deployments" in value else ()
    for index, deployed in enumerate(given):
        _unknown((*path, "deployments", index), deployed, DeployedModel, findings)
    return account


def _unknown(path: Path, value: object, kind: type[_Part], findings: Findings) -> None:
    for name in value if isinstance(value, Mapping) else ():
        if name not in kind.model_fields:
            near = suggestion(str(name), list(kind.model_fields))
            findings.warn((*path, str(name)), f"is not known to this release and is ignored{near}")
