"""What comes too late: a settlement of an attempt that recovery has charged in the meantime."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shared.core.budgets import Account
from shared.core.errors import StorageUnavailableError
from shared.ledger import rows
from shared.ledger.journal import CONFLICTS
from shared.ports import Action, Entity, EntityTable, Op


@dataclass(frozen=True, slots=True)
class LateSettlement:
    """An attempt's end that its own session could not write any more."""

    session: str
    intent: rows.IntentRow
    accounts: tuple[Account, ...]


async def correct(table: EntityTable, late: LateSettlement) -> bool:
    """Correct what recovery charged to what the attempt really cost, once; False when no row of it ever landed.

    What counts is what the row says: an attempt that was settled before its session was lost is left alone. The session must
    have been recovered. Raise `StorageUnavailableError`; to be tried again then.
    """
    entity = await table.get(rows.session_partition(late.session), late.intent.row)
    if entity is None:
        return False
    stored = rows.intent(entity)
    if stored.state is rows.IntentState.PENDING:
        message = f"The session {late.session} has not been recovered yet."
        raise StorageUnavailableError(message)
    if stored.state is rows.IntentState.CHARGED:
        delta = late.intent.charged - stored.charged
        for key in stored.accounts:
            await _correct_account(table, key, late, delta)
    return True


async def _correct_account(table: EntityTable, key: rows.AccountKey, late: LateSettlement, delta: int) -> None:
    partition = rows.account_partition(key)
    intent = late.intent
    row = rows.correction_row(late.session, intent.request_id, intent.attempt)
    while delta:
        if await table.get(partition, row) is not None:
            return
        found = await table.get(partition, rows.HEAD)
        head = rows.Head(0) if found is None else rows.head(found)
        after = replace(head, spent=head.spent + delta)
        ops = [
            Op(Action.INSERT, Entity(partition, row, {"delta": delta, "at": intent.at, "facts": intent.facts})),
            Op(Action.INSERT if found is None else Action.REPLACE, after.entity(key)),
        ]
        try:
            await table.transact(ops)
        except CONFLICTS:
            continue
        return
