"""A budget as a row of the table ``budgets``, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from shared.budgets.checks import ID, time_zone
from shared.core.budgets import MAX_LIMIT, AtEnd, Budget, Cycle, Scope, ScopeKind
from shared.core.errors import InvalidRequestError
from shared.core.fields import Fields
from shared.ports import Entity, Value

TABLE: Final = "budgets"
PARTITION: Final = "budgets"
HEAD: Final = "~head"
"""The row every change replaces by its ETag: two changes are never made of the same state. It sorts after all ids."""


@dataclass(frozen=True, slots=True)
class StoredBudget:
    """A budget and its version, which grows by one with each change. ``token`` names the change that wrote it."""

    budget: Budget
    version: int
    updated_at: float
    token: str
    etag: str = ""


def entity_of(stored: StoredBudget) -> Entity:
    """Return the row."""
    budget = stored.budget
    properties: dict[str, Value] = {
        "name": budget.name,
        "scope_kind": budget.scope.kind.value,
        "scope_name": budget.scope.name,
        "limit": budget.limit,
        "cycle": budget.cycle.value,
        "time_zone": budget.time_zone,
        "hard": budget.hard,
        "thresholds": json.dumps(budget.thresholds),
        "at_end": budget.at_end.value,
        "downgrade_at": budget.downgrade_at,
        "floor_tokens": budget.floor_tokens,
        "enabled": budget.enabled,
        "created_at": budget.created_at,
        "updated_at": stored.updated_at,
        "version": stored.version,
        "token": stored.token,
    }
    if budget.parent is not None:
        properties["parent"] = budget.parent
    if budget.webhook is not None:
        properties["webhook"] = budget.webhook
    return Entity(PARTITION, budget.id, properties, stored.etag)


def stored_budget(entity: Entity) -> StoredBudget:
    """Return the budget in a row; raise `ValueError` when it can't be read: then its limit is not known."""
    row = Fields(entity.properties)
    limit = row.whole("limit")
    if ID.fullmatch(entity.row) is None or not 0 < limit <= MAX_LIMIT:
        message = "its id or limit can't be one"
        raise ValueError(message)
    if not {"hard", "enabled"} <= set(entity.properties):  # a flag that is missing must not switch a limit off
        message = "hard or enabled is missing"
        raise ValueError(message)
    budget = Budget(
        id=entity.row,
        name=row.text("name"),
        scope=Scope(ScopeKind(row.text("scope_kind")), row.text("scope_name")),
        limit=limit,
        cycle=Cycle(row.text("cycle")),
        hard=row.flag("hard"),
        time_zone=_zone(row.text("time_zone")),
        parent=row.find_text("parent"),
        thresholds=_thresholds(row.text("thresholds")),
        at_end=AtEnd(row.text("at_end")),
        downgrade_at=row.number("downgrade_at"),
        floor_tokens=row.whole("floor_tokens"),
        webhook=row.find_text("webhook"),
        enabled=row.flag("enabled"),
        created_at=row.number("created_at"),
    )
    return StoredBudget(budget, row.whole("version"), row.number("updated_at"), row.text("token"), entity.etag)


def _zone(name: str) -> str:
    try:
        return time_zone(name)
    except InvalidRequestError as error:
        raise ValueError(error.message) from None


def _thresholds(text: str) -> tuple[float, ...]:
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(each, int | float) for each in found):
        message = "thresholds is not a list of numbers"
        raise ValueError(message)
    return tuple(map(float, found))
