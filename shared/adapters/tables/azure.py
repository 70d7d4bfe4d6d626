"""Tables in Azure Table Storage, or in its emulator Azurite, over the process's HTTP client.

The service's SDK does the same for many times the processor time (tests/bench/tables_cost.py): it is the reference that the
tests hold this against, not a dependency. What is sent again is in `retries`; what is on the wire, in `azure_wire`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, NoReturn, TypeVar

from shared.adapters.tables import azure_wire, rules
from shared.adapters.tables.azure_account import Account
from shared.adapters.tables.azure_wire import Answer, Draft
from shared.core.errors import GatewayError, StorageUnavailableError
from shared.ports import (
    Action,
    Clock,
    Entity,
    EntityChangedError,
    EntityExistsError,
    EntityNotFoundError,
    HttpTransport,
    InvalidEntityError,
    Op,
    TokenSource,
)

PAGE_ROWS: Final = 1000
"""The service's own bound."""

_Read = TypeVar("_Read")
_SUCCESS: Final = range(200, 300)


class AzureTables:
    """The tables of one account. ``tokens`` None is the emulator. The transport stays its owner's."""

    def __init__(self, url: str, *, transport: HttpTransport, tokens: TokenSource | None, clock: Clock) -> None:
        self._account = Account(url, transport=transport, tokens=tokens, clock=clock)

    def table(self, name: str) -> AzureTable:
        """Return the table of that name."""
        return AzureTable(rules.check_table(name), self._account)

    async def aclose(self) -> None:
        """Wait for what is on its way; refuse what comes after. May be called twice."""
        await self._account.aclose()


class AzureTable:
    """One table; see `shared.ports.EntityTable`.

    A write that raises `StorageUnavailableError` may have happened, and may still happen a little later. Any other error is
    about this very write, and it did not happen.
    """

    def __init__(self, name: str, account: Account) -> None:
        self._name = name
        self._account = account

    async def get(self, partition: str, row: str) -> Entity | None:
        """Return the row, or None."""
        rules.check_keys(partition, row)
        answer = await self._read(azure_wire.get(self._name, partition, row))
        if answer.code:
            return None
        return _readable(azure_wire.entity, answer)

    async def query(
        self, partition: str, *, start: str = "", end: str | None = None, limit: int | None = None
    ) -> AsyncGenerator[Entity, None]:
        """Yield rows with ``start <= row < end``, page by page: no snapshot is held between pages."""
        rules.check_bounds(partition, start, end)
        left = limit
        after: tuple[str, str] | None = None
        if end is not None and end <= start:
            return
        while left is None or left > 0:
            size = PAGE_ROWS if left is None else min(PAGE_ROWS, left)
            draft = azure_wire.page(self._name, (partition, start, end), size, after)
            answer = await self._read(draft)
            if answer.code:
                return
            rows = _readable(azure_wire.entities, answer)
            for entity in rows:
                yield entity
            after = azure_wire.following(answer.headers)
            if after is None:
                return
            if left is not None:
                left -= len(rows)

    async def insert(self, entity: Entity) -> str:
        """Store a new row; return its ETag."""
        rules.check_entity(entity)
        return (await self._write([Op(Action.INSERT, entity)]))[0]

    async def replace(self, entity: Entity) -> str:
        """Store over the row whose ETag is the entity's; return the new ETag."""
        rules.check_condition(Action.REPLACE, entity.etag)
        rules.check_entity(entity)
        return (await self._write([Op(Action.REPLACE, entity)]))[0]

    async def delete(self, partition: str, row: str, etag: str = "*") -> None:
        """Delete the row."""
        rules.check_condition(Action.DELETE, etag)
        rules.check_keys(partition, row)
        await self._write([Op(Action.DELETE, Entity(partition, row, etag=etag))])

    async def transact(self, ops: Sequence[Op]) -> list[str]:
        """Do all or nothing; return the new ETags ("" for deletes)."""
        rules.check_transaction(ops)
        return await self._write(ops)

    async def _read(self, draft: Draft) -> Answer:
        """Return an answer that is the row or rows, or that there is nothing."""
        with self._account.use():
            answer = await self._account.ask(draft, repeatable=True)
        if answer.status not in _SUCCESS and answer.code not in azure_wire.NOTHING:
            raise _unexpected(answer)
        return answer

    async def _write(self, ops: Sequence[Op]) -> list[str]:
        draft = self._draft(ops)
        with self._account.use():
            answer = await self._account.ask(draft, repeatable=False)
            if answer.code == azure_wire.TABLE_NOT_FOUND:  # so it did not happen
                await self._create()
                answer = await self._account.ask(draft, repeatable=False)
        if answer.status not in _SUCCESS:
            _refuse(self._name, ops, answer)
        etags = list(answer.etags) if len(ops) > 1 else [answer.headers.get("etag", "")]
        if [bool(etag) for etag in etags] != [op.action is not Action.DELETE for op in ops]:
            message = "The store's answer to a write can't be read: it may have happened."
            raise StorageUnavailableError(message)
        return etags

    def _draft(self, ops: Sequence[Op]) -> Draft:
        if len(ops) == 1:
            return azure_wire.write(self._name, ops[0])
        # The boundary is new and random: no text that a caller had stored can hold it.
        return azure_wire.batch(self._account.url, self._name, ops, secrets.token_hex(16))

    async def _create(self) -> None:
        """Make the table, or find that somebody just has."""
        answer = await self._account.ask(azure_wire.create(self._name), repeatable=True)
        if answer.status not in _SUCCESS and answer.code != "TableAlreadyExists":
            raise _unexpected(answer)


def _readable(read: Callable[[bytes], _Read], answer: Answer) -> _Read:
    try:
        return read(answer.body)
    except ValueError as error:
        message = "The store's answer can't be read: it holds what Table Storage does not write."
        raise StorageUnavailableError(message) from error


_MEANINGS: Final[dict[str, tuple[type[GatewayError], str]]] = {
    "EntityAlreadyExists": (EntityExistsError, "There is a row {row} in {table} already."),
    "UpdateConditionNotSatisfied": (EntityChangedError, "The row {row} in {table} has changed. Read it again."),
    "ConditionNotMet": (EntityChangedError, "The row {row} in {table} has changed. Read it again."),
    "ResourceNotFound": (EntityNotFoundError, "There is no row {row} in {table}."),
    "EntityNotFound": (EntityNotFoundError, "There is no row {row} in {table}."),
    "EntityTooLarge": (InvalidEntityError, "The row {row} is too large for Table Storage."),
    "PropertyValueTooLarge": (InvalidEntityError, "A property of the row {row} is too large for Table Storage."),
    "RequestBodyTooLarge": (InvalidEntityError, "This is too large for Table Storage."),
    "ContentLengthExceeded": (InvalidEntityError, "This is too large for Table Storage."),
}


def _refuse(table: str, ops: Sequence[Op], answer: Answer) -> NoReturn:
    """Raise what the answer means, in the words all adapters use."""
    meaning = _MEANINGS.get(answer.code)
    if meaning is None:
        raise _unexpected(answer)
    error, words = meaning
    row = ops[min(answer.index, len(ops) - 1)].entity.row
    raise error(words.format(row=row, table=table))


def _unexpected(answer: Answer) -> StorageUnavailableError:
    advice = {
        401: " Check that the gateway's identity may use this storage account.",
        403: " Give the gateway's identity the role Storage Table Data Contributor on the account.",
    }.get(answer.status, "")
    return StorageUnavailableError(f"The store refused with {answer.status} {answer.code}.{advice}")
