"""What comes too late: a settlement of an attempt that recovery has charged in the meantime.

An attempt has one correction, whoever writes it. Those who would write another one take what the first of them wrote.
"""

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
        if delta:
            await _correct(table, late, stored, delta)
    return True


async def conclude(table: EntityTable, session: str, stored: rows.IntentRow, charged: int) -> int:
    """Make it final what an attempt that recovery charged did cost: ``charged``, unless it was corrected before.

    Return what it is. Who settles it after that changes nothing. Raise `StorageUnavailableError`; to be tried again then.
    """
    late = LateSettlement(session, replace(stored, charged=charged), ())
    return stored.charged + await _correct(table, late, stored, charged - stored.charged)


async def _correct(table: EntityTable, late: LateSettlement, stored: rows.IntentRow, delta: int) -> int:
    """Correct every account by what the first one is, or was, corrected by; return that."""
    for key in stored.accounts:
        delta = await _correct_account(table, key, late, delta)
    return delta


async def _correct_account(table: EntityTable, key: rows.AccountKey, late: LateSettlement, delta: int) -> int:
    partition = rows.account_partition(key)
    intent = late.intent
    row = rows.correction_row(late.session, intent.request_id, intent.attempt)
    while True:
        known = await table.get(partition, row)
        if known is not None:
            return rows.correction(known)
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
        return delta
