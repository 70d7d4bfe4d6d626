"""The bodies of ``/v1/budgets``. What a value may be is judged in one place, `shared.budgets.checks`; here is its shape."""

from __future__ import annotations

from typing import Annotated, Any, Required

from pydantic import Field, WithJsonSchema, with_config
from typing_extensions import TypedDict

from functions.schemas import CLOSED

Amount = Annotated[
    Any,
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}),
    Field(description='USD for each period, a number or text such as "12.50": at most nine decimals, nothing is rounded.'),
]
Cycle = Annotated[str, Field(json_schema_extra={"enum": ["day", "week", "month", "total"]})]
AtEnd = Annotated[
    str,
    Field(
        json_schema_extra={"enum": ["reject", "downgrade", "clamp"]},
        description="`reject`; `downgrade` to cheaper models from `downgrade_at` on; `clamp` answers to what is left.",
    ),
]
Kind = Annotated[str, Field(json_schema_extra={"enum": ["organization", "project", "key", "model", "bound"]})]
Share = Annotated[float, Field(gt=0, le=1)]


@with_config(CLOSED)
class BudgetScope(TypedDict, total=False):
    """Whose calls a budget covers; ``bound`` are only the keys that name it, and budgets below it."""

    kind: Required[Kind]
    name: Annotated[str | None, Field(max_length=256, description="The project, the key's id, or the model.")]


@with_config(CLOSED)
class _Changeable(TypedDict, total=False):
    hard: Annotated[bool, Field(description="Never exceeded. Otherwise it only tells.")]
    parent: Annotated[str | None, Field(description="A budget whose limit covers this one's calls as well.")]
    thresholds: Annotated[
        list[Share], Field(max_length=10, description="Shares of the limit that raise an alert, once a period each.")
    ]
    at_end: AtEnd
    downgrade_at: Share
    floor_tokens: Annotated[int, Field(ge=1, le=1_000_000, description="`clamp` shortens no answer below this.")]
    webhook: Annotated[str | None, Field(max_length=1_024, description="An https URL of a listed host, told of alerts.")]
    enabled: bool


@with_config(CLOSED)
class BudgetRequest(_Changeable, total=False):
    """A new budget."""

    id: Annotated[str, Field(max_length=63, description="Chosen by you, so that asking twice makes one; made up when absent.")]
    name: Required[Annotated[str, Field(min_length=1, max_length=100)]]
    scope: Required[BudgetScope]
    limit_usd: Required[Amount]
    cycle: Required[Cycle]
    time_zone: Annotated[str, Field(max_length=64, description="Where its days begin, such as Europe/Berlin; UTC when absent.")]


@with_config(CLOSED)
class BudgetChange(_Changeable, total=False):
    """What to change about a budget. Its scope, cycle and time zone stay: its money is kept under them."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    limit_usd: Amount
    expected_version: Annotated[int, Field(ge=1, description="Refuse with 409 unless the budget's version is this one.")]
