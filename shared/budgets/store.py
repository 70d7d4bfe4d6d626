"""The budgets of this gateway: changed one at a time, read from a snapshot that is never old."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from shared.budgets.checks import ID, changed, drafted
from shared.budgets.cover import Snapshot, UnknownBudgetError
from shared.budgets.rows import HEAD, PARTITION, TABLE, StoredBudget, entity_of, stored_budget
from shared.core.budgets import Budget, Cycle, Scope, ScopeKind
from shared.core.errors import ConflictError, InvalidRequestError, NotFoundError, StorageUnavailableError
from shared.core.records import Caller
from shared.ports import Action, Clock, Entity, EntityChangedError, EntityExistsError, EntityNotFoundError, Op, Tables

MAX_AGE: Final = 5.0
"""Seconds: the longest a change made by another process goes unseen while the store answers."""
REFRESH_AFTER: Final = 2.0
"""From this age on the snapshot is read again beside the calls, so that they need not wait for it."""
GRACE: Final = 60.0
"""Seconds that what was known stays good while the store does not answer."""
PATIENCE: Final = 1.0
"""Seconds a call waits for a store that is slow, as long as something is known."""
RETRY_AFTER: Final = 1.0
"""Seconds between two attempts to reach a store that did not answer."""
MAX_BUDGETS: Final = 10_000

_TRIES: Final = 30
_PAUSE: Final = 0.05
_RECHECK_AFTER: Final = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _State:
    """What was read: all budgets, and the ETag of the head row ("": there is none yet)."""

    snapshot: Snapshot
    etag: str = ""


@dataclass(frozen=True, slots=True)
class _Change:
    """A change to write: the new budget from what is stored now. ``token`` tells it from everybody else's."""

    budget_id: str
    token: str
    make: Callable[[Snapshot], StoredBudget]
    """Return the row to write; raise a `GatewayError` to refuse."""


class Budgets:
    """The budgets of this gateway.

    ``webhook_hosts`` are those alerts may be sent to (see `shared.core.webhooks`); ``make_id`` gives a new name each time.
    """

    def __init__(
        self,
        tables: Tables,
        clock: Clock,
        *,
        webhook_hosts: Collection[str] = (),
        make_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._table = tables.table(TABLE)
        self._clock = clock
        self._hosts = frozenset(webhook_hosts)
        self._make_id = make_id
        self._state: _State | None = None
        self._read_at = 0.0
        self._begun = 0  # readings, and writes that were answered, in their order
        self._adopted = 0
        self._failed_at = -RETRY_AFTER
        self._refreshing: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    # ---- the hot path ------------------------------------------------------------------------------------------------

    def current(self, caller: Caller, model: str) -> tuple[Budget, ...] | None:
        """Return what `applying` would, if that is known without waiting; None when it must be asked. Costs about 1 µs."""
        state = self._state
        if state is None:
            return None
        age = self._clock.monotonic() - self._read_at
        if age >= REFRESH_AFTER:
            if age >= MAX_AGE and not self._excused(age):
                return None
            self._refresh_beside()
        return state.snapshot.remembered(caller, model)

    async def applying(self, caller: Caller, model: str) -> tuple[Budget, ...]:
        """Return the enabled budgets a call is charged to, sorted by id; at most `MAX_ACCOUNTS`.

        Raise `PermissionDeniedError` when there are more, or when the key is bound to one that does not exist, and
        `StorageUnavailableError` when nothing recent enough is known.
        """
        snapshot = await self._recent()
        try:
            return snapshot.applying(caller, model)
        except UnknownBudgetError:
            if self._clock.monotonic() - self._read_at < _RECHECK_AFTER:  # a wrong key must not make us read at every call
                raise
        await self._wait_for_refresh()  # it may have been made a moment ago, elsewhere
        return (await self._recent()).applying(caller, model)

    async def covering(self, caller: Caller) -> tuple[StoredBudget, ...]:
        """Return the enabled budgets that some call of this caller is charged to, sorted by id."""
        return (await self._recent()).covering(caller)

    async def below(self, budget_id: str) -> tuple[Budget, ...]:
        """Return a budget and those under it: whose calls it is charged for. Empty when there is none of that id."""
        return (await self._recent()).below(budget_id)

    async def _recent(self) -> Snapshot:
        """Return a snapshot that may be judged by; wait for one if need be."""
        state, age = self._state, self._clock.monotonic() - self._read_at
        if state is not None and age < MAX_AGE:
            return state.snapshot
        if state is None or not self._excused(age):
            await self._wait_for_refresh()
        state, age = self._state, self._clock.monotonic() - self._read_at
        if state is None or age >= GRACE:
            message = "The budgets can't be read: the store does not answer. Try again in a moment."
            raise StorageUnavailableError(message, retry_after=RETRY_AFTER)
        return state.snapshot

    def _excused(self, age: float) -> bool:
        """Say whether the store was asked a moment ago and did not answer, so that what is known must do."""
        return age < GRACE and self._clock.monotonic() - self._failed_at < RETRY_AFTER

    async def _wait_for_refresh(self) -> None:
        task = self._refresh_beside()
        known = self._state is not None and self._clock.monotonic() - self._read_at < GRACE
        done, _ = await asyncio.wait({task}, timeout=PATIENCE if known else None)
        if not done:
            self._failed_at = self._clock.monotonic()

    def _refresh_beside(self) -> asyncio.Task[None]:
        """Start reading, unless somebody does already."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.ensure_future(self._try_refresh())
        return self._refreshing

    async def _try_refresh(self) -> None:
        if self._clock.monotonic() - self._failed_at < RETRY_AFTER:
            return
        try:
            await self._refresh()
        except StorageUnavailableError as error:
            self._failed_at = self._clock.monotonic()
            _log.warning("The budgets could not be read again: %s", error.message)

    async def _refresh(self) -> None:
        """Read what changed: one row tells whether anything did. Raise `StorageUnavailableError`."""
        moment = self._clock.monotonic()
        self._begun += 1
        order = self._begun
        head = await self._table.get(PARTITION, HEAD)
        state = self._state
        etag = "" if head is None else head.etag
        if state is None or state.etag != etag:
            state = _State(await self._read(), etag)
        self._adopt(state, moment, order)

    def _adopt(self, state: _State, moment: float, order: int) -> None:
        """Take over what held at ``moment``, unless what is known was begun later: a slow reading undoes no write."""
        if order > self._adopted:
            self._state, self._read_at, self._adopted = state, moment, order

    async def _read(self) -> Snapshot:
        found: list[StoredBudget] = []
        damaged: dict[str, str] = {}
        async for entity in self._table.query(PARTITION, end=HEAD):
            try:
                found.append(stored_budget(entity))
            except ValueError as error:
                damaged[entity.row] = entity.etag
                _log.error("The budget %s is damaged, so every call is refused until it is disabled: %s", entity.row, error)
        return Snapshot(found, damaged)

    async def aclose(self) -> None:
        """Stop reading."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refreshing

    # ---- administration ----------------------------------------------------------------------------------------------

    async def create(self, fields: Mapping[str, Any]) -> StoredBudget:
        """Make a budget of the fields the API has (``name``, ``scope``, ``limit_usd``, ``cycle`` …; ``id`` may be chosen).

        Raise `InvalidRequestError` naming the field at fault, `ConflictError` when the id is taken.
        """
        chosen = fields.get("id")
        if chosen is not None and (not isinstance(chosen, str) or ID.fullmatch(chosen) is None):
            message = "`id` must be 1 to 63 lower-case letters, digits, `-` or `_`, a letter or digit first."
            raise InvalidRequestError(message, param="id", code="invalid_value")
        token, moment = self._make_id(), self._clock.now()
        rest = {name: value for name, value in fields.items() if name != "id"}
        budget = drafted(rest, id=chosen or f"bud_{self._make_id()}", created_at=moment, hosts=self._hosts)

        def make(snapshot: Snapshot) -> StoredBudget:
            if budget.id in snapshot.budgets or budget.id in snapshot.damaged:
                message = f"There is a budget {budget.id} already; disabled ones keep their id too."
                raise ConflictError(message, param="id")
            if len(snapshot.budgets) >= MAX_BUDGETS:
                message = f"There are {MAX_BUDGETS} budgets already, which is the most there may be."
                raise InvalidRequestError(message, code="too_many_budgets")
            _with(snapshot, made).check(budget)
            return made

        made = StoredBudget(budget, 1, moment, token)
        return await self._write(_Change(budget.id, token, make))

    async def update(self, budget_id: str, fields: Mapping[str, Any], *, expected_version: int | None = None) -> StoredBudget:
        """Change some fields of a budget.

        Raise `InvalidRequestError` naming the field at fault, `NotFoundError`, and `ConflictError` when ``expected_version``
        is not the stored one.
        """
        token = self._make_id()

        def make(snapshot: Snapshot) -> StoredBudget:
            before = _existing(snapshot, budget_id)
            if expected_version is not None and before.version != expected_version:
                message = f"The budget is at version {before.version}, not {expected_version}: read it again."
                raise ConflictError(message, param="expected_version")
            after = changed(before.budget, fields, hosts=self._hosts)
            made = replace(before, budget=after, version=before.version + 1, updated_at=self._clock.now(), token=token)
            if (after.parent, after.enabled) != (before.budget.parent, before.budget.enabled):
                _with(snapshot, made).check(after)
            return made

        return await self._write(_Change(budget_id, token, make))

    async def delete(self, budget_id: str) -> StoredBudget:
        """Disable a budget and return it: its row and its money stay. Raise `NotFoundError`.

        A row that can't be read is replaced by a disabled budget that covers nothing.
        """
        token = self._make_id()

        def make(snapshot: Snapshot) -> StoredBudget:
            etag = snapshot.damaged.get(budget_id)
            before = _existing(snapshot, budget_id) if etag is None else _repaired(budget_id, etag, self._clock.now())
            after = replace(before.budget, enabled=False)
            return replace(before, budget=after, version=before.version + 1, updated_at=self._clock.now(), token=token)

        return await self._write(_Change(budget_id, token, make))

    async def get(self, budget_id: str) -> StoredBudget:
        """Return a budget as it is stored now; raise `NotFoundError`."""
        await self._refresh()
        return _existing((await self._recent()), budget_id)

    async def list(self) -> list[StoredBudget]:
        """Return every budget as it is stored now, also disabled ones, sorted by id."""
        await self._refresh()
        budgets = (await self._recent()).budgets
        return [budgets[name] for name in sorted(budgets)]

    async def _write(self, change: _Change) -> StoredBudget:
        """Make a change of what is stored, however often it must be read again."""
        async with self._writing:
            for number in range(_TRIES):
                await self._refresh()
                state = self._state or _State(Snapshot())
                landed = state.snapshot.budgets.get(change.budget_id)
                if landed is not None and landed.token == change.token:
                    return landed  # an earlier attempt, whose answer was lost
                with contextlib.suppress(EntityChangedError, EntityExistsError, EntityNotFoundError):
                    return await self._attempt(change, state)
                await self._clock.sleep(_PAUSE * 2.0 ** min(number, 4) * self._clock.draw())
        message = "Others keep changing budgets at the same time. Nothing was changed: try again."
        raise StorageUnavailableError(message, retry_after=1.0)

    async def _attempt(self, change: _Change, state: _State) -> StoredBudget:
        made = change.make(state.snapshot)
        moment = self._clock.monotonic()
        head = Entity(PARTITION, HEAD, {"token": change.token}, state.etag)
        ops = [_op(head), _op(entity_of(made))]
        try:
            etags = await self._table.transact(ops)
        except StorageUnavailableError:
            self._read_at = min(self._read_at, moment - MAX_AGE)  # it may have landed: nobody is judged without a look
            await self._find(change)
            return made
        made = replace(made, etag=etags[1])
        self._begun += 1
        self._adopt(_State(_with(state.snapshot, made), etags[0]), moment, self._begun)
        return made

    async def _find(self, change: _Change) -> None:
        """Return if a write that was not answered landed; raise `StorageUnavailableError` when that can't be told."""
        row = await self._table.get(PARTITION, change.budget_id)
        if row is None or row.properties.get("token") != change.token:
            message = "The store did not answer: the change may or may not have been made. Read the budget before trying again."
            raise StorageUnavailableError(message)


def _op(entity: Entity) -> Op:
    return Op(Action.REPLACE if entity.etag else Action.INSERT, entity)


def _with(snapshot: Snapshot, made: StoredBudget) -> Snapshot:
    """Return a snapshot in which one budget is as it was made."""
    damaged = {name: etag for name, etag in snapshot.damaged.items() if name != made.budget.id}
    return Snapshot({**snapshot.budgets, made.budget.id: made}.values(), damaged)


def _existing(snapshot: Snapshot, budget_id: str) -> StoredBudget:
    stored = snapshot.budgets.get(budget_id)
    if stored is None:
        message = "There is no budget of that id. GET /v1/budgets lists those that exist."
        raise NotFoundError(message, param="id")
    return stored


def _repaired(budget_id: str, etag: str, moment: float) -> StoredBudget:
    nothing = Budget(budget_id, "(its row was damaged)", Scope(ScopeKind.BOUND), 1, Cycle.TOTAL, created_at=moment)
    return StoredBudget(nothing, 0, moment, "", etag)
