"""The request bodies of ``/v1/keys``."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Required

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from functions.schemas_own import Name
from shared.keys import MAX_OVERLAP
from shared.keys.fields import MAX_BUDGETS, MAX_MODELS, MAX_NAME, MAX_PER_MINUTE, MAX_TAG, MAX_TAGS

_CLOSED: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

KeyName = Annotated[str, Field(min_length=1, max_length=MAX_NAME, description="What the key is for.")]
PerMinute = Annotated[int, Field(ge=1, le=MAX_PER_MINUTE)]
BudgetIds = Annotated[list[Annotated[str, Field(min_length=1, max_length=63)]], Field(max_length=MAX_BUDGETS)]
Roles = Annotated[list[Literal["admin", "member", "viewer"]], Field(min_length=1, max_length=3)]
TagName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,31}$")]
Tags = Annotated[dict[TagName, Annotated[str, Field(min_length=1, max_length=MAX_TAG)]], Field(max_length=MAX_TAGS)]


@with_config(_CLOSED)
class KeyGrants(TypedDict, total=False):
    """What a key may be given. In a change, null takes it away again."""

    models: Annotated[
        Annotated[list[Name], Field(min_length=1, max_length=MAX_MODELS)] | None,
        Field(description="The only models it may ask for; absent means all."),
    ]
    budgets: Annotated[
        BudgetIds | None, Field(description="Budgets it is charged to, by id, beside those whose scope covers it.")
    ]
    requests_per_minute: Annotated[PerMinute | None, Field(description="Its own limit; absent means none.")]
    tokens_per_minute: Annotated[PerMinute | None, Field(description="Its own limit; absent means none.")]
    roles: Annotated[
        Roles | None,
        Field(
            description="admin: everything; member (when absent): asks models; viewer: sees its project's usage, asks nothing."
        ),
    ]
    tags: Annotated[Tags | None, Field(description="Written down with its usage, such as `cost_center`.")]
    expires_at: Annotated[float | None, Field(description="Seconds since the epoch; absent means never.")]


@with_config(_CLOSED)
class KeyRequest(KeyGrants, total=False):
    """A new virtual key."""

    name: Required[KeyName]
    project: Required[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Who pays.")]]


@with_config(_CLOSED)
class KeyUpdate(KeyGrants, total=False):
    """What to change about a key; what is left out stays. Its project stays for good: its usage is written under it."""

    name: KeyName
    expected_version: Annotated[int | None, Field(ge=1, description="Refuse with 409 unless the key's version is this one.")]


@with_config(_CLOSED)
class KeyRotation(TypedDict, total=False):
    """How long earlier tokens of a key stay good."""

    overlap_seconds: Annotated[
        float,
        Field(ge=0, le=MAX_OVERLAP, description="0 ends them at once (a token leaked); an hour when absent."),
    ]
