"""Which budgets cover a call, and what a tree of budgets may look like. Pure: rows in, budgets out.

A call is covered by the budgets of the organization, its project, its key and its model, by those its key is bound to, and by
every budget above one of these. Reading never loops, whatever is stored: each budget is visited once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NoReturn

from shared.budgets.rows import StoredBudget
from shared.core.budgets import MAX_ACCOUNTS, Budget, Scope, ScopeKind
from shared.core.errors import InvalidRequestError, PermissionDeniedError, StorageUnavailableError
from shared.core.records import Caller

MAX_DEPTH: Final = 8
"""Budgets in one line from the lowest to the highest."""
MAX_REMEMBERED: Final = 20_000

_ORGANIZATION: Final = Scope(ScopeKind.ORGANIZATION)


class UnknownBudgetError(PermissionDeniedError):
    """A key is bound to a budget that is not there: what may it spend? Nothing, until that is put right."""


class Snapshot:
    """All budgets at one moment. ``damaged`` are ids and ETags of rows that can't be read: they could cover anything."""

    __slots__ = ("_by_scope", "_known", "budgets", "damaged", "nothing")

    def __init__(self, stored: Iterable[StoredBudget] = (), damaged: Mapping[str, str] = MappingProxyType({})) -> None:
        self.budgets: Mapping[str, StoredBudget] = MappingProxyType({each.budget.id: each for each in stored})
        self.damaged = damaged
        self.nothing = not self.damaged and not any(each.budget.enabled for each in self.budgets.values())
        self._by_scope: dict[Scope, list[str]] = {}
        self._known: dict[tuple[str, str, tuple[str, ...], str], tuple[Budget, ...]] = {}
        for each in self.budgets.values():
            if each.budget.enabled and each.budget.scope.kind is not ScopeKind.BOUND:
                self._by_scope.setdefault(each.budget.scope, []).append(each.budget.id)

    def remembered(self, caller: Caller, model: str) -> tuple[Budget, ...] | None:
        """Return what `applying` found for such a call before, None when it was not asked."""
        if self.nothing and not caller.budgets:
            return ()
        return self._known.get((caller.key_id, caller.project, caller.budgets, model))

    def applying(self, caller: Caller, model: str) -> tuple[Budget, ...]:
        """Return the enabled budgets a call is charged to, sorted by id.

        Raise `UnknownBudgetError`, `PermissionDeniedError` when there are too many, `StorageUnavailableError` when a budget is
        damaged.
        """
        if self.damaged:
            message = (
                f"The budget {min(self.damaged):.64} can't be read. The administrator can disable it: DELETE /v1/budgets/ID."
            )
            raise StorageUnavailableError(message)
        if len(caller.budgets) > MAX_ACCOUNTS:
            raise _too_many(len(caller.budgets))
        for bound in caller.budgets:
            if bound not in self.budgets:
                message = f"This key is bound to the budget {bound:.64}, which does not exist. Ask the administrator."
                raise UnknownBudgetError(message, code="unknown_budget")
        found = self.closure((*self._scoped(caller, model), *caller.budgets))
        if len(found) > MAX_ACCOUNTS:
            raise _too_many(len(found))
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[caller.key_id, caller.project, caller.budgets, model] = found
        return found

    def covering(self, caller: Caller) -> tuple[StoredBudget, ...]:
        """Return the enabled budgets that some call of this caller is charged to: those it may read."""
        models = (scope.name for scope in self._by_scope if scope.kind is ScopeKind.MODEL)
        allowed = [name for name in models if caller.models is None or name in caller.models]
        starts = [*self._scoped(caller, ""), *caller.budgets]
        for name in allowed:
            starts += self._by_scope[Scope(ScopeKind.MODEL, name)]
        return tuple(self.budgets[each.id] for each in self.closure(starts))

    def below(self, budget_id: str) -> tuple[Budget, ...]:
        """Return a budget and the enabled ones whose calls are charged to it as well."""
        return tuple(
            each.budget
            for each in self.budgets.values()
            if each.budget.id == budget_id or (each.budget.enabled and budget_id in self._line(each.budget.id))
        )

    def closure(self, ids: Iterable[str]) -> tuple[Budget, ...]:
        """Return the enabled budgets among some and above them, sorted by id.

        A disabled budget covers nothing and leads nowhere, but where one stands in the middle of a line, what is above it
        still counts: disabling a budget must lift no limit but its own.
        """
        found: dict[str, Budget] = {}
        for start in ids:
            stored = self.budgets.get(start)
            if stored is None or not stored.budget.enabled:
                continue
            for above in self._line(start):
                budget = self.budgets[above].budget
                if budget.enabled:
                    found[above] = budget
        return tuple(found[name] for name in sorted(found))

    def _line(self, start: str) -> dict[str, None]:
        """Return a budget and all above it, in order; each once, also where the rows make a cycle."""
        line: dict[str, None] = {}
        at: str | None = start
        while at is not None and at in self.budgets and at not in line:
            line[at] = None
            at = self.budgets[at].budget.parent
        return line

    def _scoped(self, caller: Caller, model: str) -> list[str]:
        scopes = (
            _ORGANIZATION,
            Scope(ScopeKind.PROJECT, caller.project),
            Scope(ScopeKind.KEY, caller.key_id),
            Scope(ScopeKind.MODEL, model),
        )
        return [name for scope in scopes for name in self._by_scope.get(scope, ())]

    # ---- what may be stored ------------------------------------------------------------------------------------------

    def check(self, budget: Budget) -> None:
        """Refuse a changed or new budget (this snapshot has it already) that can't stand where it is.

        Raise `InvalidRequestError`: its parent is missing, disabled, below it or too deep; or a call of its scope would be
        charged to more than `MAX_ACCOUNTS`.
        """
        if budget.parent is not None:
            self._check_parent(budget, budget.parent)
        if budget.enabled:
            self._check_count(budget)

    def _check_parent(self, budget: Budget, parent: str) -> None:
        stored = self.budgets.get(parent)
        if stored is None or not stored.budget.enabled:
            state = "does not exist" if stored is None else "is disabled"
            _refuse_parent(f"The budget {parent:.64} {state}: `parent` must name an enabled one.")
        last = list(self._line(budget.id))[-1]
        if self.budgets[last].budget.parent is not None and self.budgets[last].budget.parent in self.budgets:
            _refuse_parent(f"`parent` must not make a cycle: {parent:.64} is the budget itself, or below it.")
        deepest = max(len(self._line(each)) for each in self.budgets if budget.id in self._line(each))
        if deepest > MAX_DEPTH:
            _refuse_parent(f"`parent` makes a line of {deepest} budgets; at most {MAX_DEPTH} may stand above each other.")

    def _check_count(self, budget: Budget) -> None:
        """Refuse what is sure to be too many: for all calls of a scope, and for the budget's own beside each model or holder.

        A key's project and what else it is bound to are not known here; such a call is refused when it comes.
        """
        base = self._by_scope.get(_ORGANIZATION, [])
        affected = [scope for scope, ids in self._by_scope.items() if any(budget.id in self._line(each) for each in ids)]
        if _ORGANIZATION in affected:  # it is part of every other scope's calls
            affected = list(self._by_scope)
        for scope in affected or [Scope(ScopeKind.BOUND)]:
            ids = [*base, *self._by_scope.get(scope, ()), budget.id]
            partners = self._partners(scope) if scope == budget.scope else ()
            for other in ((), *partners):
                count = len(self.closure((*ids, *other)))
                if count > MAX_ACCOUNTS:
                    message = f"A call would be charged to {count} budgets; at most {MAX_ACCOUNTS} may cover one."
                    raise InvalidRequestError(message, param="scope", code="too_many_budgets")

    def _partners(self, scope: Scope) -> Iterable[list[str]]:
        """Return the budgets of each scope that calls of this one may be in as well."""
        holders = {ScopeKind.PROJECT, ScopeKind.KEY}
        kinds = {ScopeKind.MODEL: holders, ScopeKind.PROJECT: {ScopeKind.MODEL}, ScopeKind.KEY: {ScopeKind.MODEL}}
        wanted = kinds.get(scope.kind, set())
        return (ids for other, ids in self._by_scope.items() if other.kind in wanted)


def _refuse_parent(message: str) -> NoReturn:
    raise InvalidRequestError(message, param="parent", code="invalid_value")


def _too_many(count: int) -> PermissionDeniedError:
    message = f"{count} budgets cover this call; at most {MAX_ACCOUNTS} may. The administrator must disable or merge some."
    return PermissionDeniedError(message, code="too_many_budgets")
