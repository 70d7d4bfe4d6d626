"""The same port over Microsoft's SDK: the reference that the gateway's own adapter is held against, in tests and benchmarks.

Nothing is repeated here either: what the tests see is the service's first answer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.pipeline.policies import AsyncRetryPolicy
from azure.data.tables import EdmType, EntityProperty, TableTransactionError, TransactionOperation, UpdateMode
from azure.data.tables.aio import TableClient, TableServiceClient

from shared.adapters.tables import rules
from shared.adapters.tables.azure_account import EMULATOR_ACCOUNT, EMULATOR_KEY
from shared.core.errors import StorageUnavailableError
from shared.ports import (
    Action,
    Entity,
    EntityChangedError,
    EntityExistsError,
    EntityNotFoundError,
    Op,
    Value,
)

_Result = TypeVar("_Result")
_NO_ETAG: Final = "W/\"datetime'1601-01-01T00%3A00%3A00.0000000Z'\""
_OPERATIONS: Final = {
    Action.INSERT: TransactionOperation.CREATE,
    Action.REPLACE: TransactionOperation.UPDATE,
    Action.UPSERT: TransactionOperation.UPSERT,
    Action.DELETE: TransactionOperation.DELETE,
}
_MEANINGS: Final = {
    "EntityAlreadyExists": EntityExistsError,
    "UpdateConditionNotSatisfied": EntityChangedError,
    "ResourceNotFound": EntityNotFoundError,
}


class SdkTables:
    """The emulator's tables over azure-data-tables."""

    def __init__(self, url: str) -> None:
        connection = (
            f"DefaultEndpointsProtocol=http;AccountName={EMULATOR_ACCOUNT};AccountKey={EMULATOR_KEY};TableEndpoint={url};"
        )
        self._service = TableServiceClient.from_connection_string(connection, retry_policy=AsyncRetryPolicy.no_retries())
        self._closed = False
        self._running = 0

    def table(self, name: str) -> SdkTable:
        """Return the table of that name."""
        return SdkTable(self._service.get_table_client(rules.check_table(name)), self)

    @contextmanager
    def use(self) -> Iterator[None]:
        """Hold the client open; refuse what comes after closing."""
        if self._closed:
            message = "The store is closed."
            raise StorageUnavailableError(message)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def aclose(self) -> None:
        """Close the client once nothing runs. May be called twice."""
        if not self._closed:
            self._closed = True
            while self._running:
                await asyncio.sleep(0.01)
            await self._service.close()


class SdkTable:
    """One table; see `shared.ports.EntityTable`."""

    def __init__(self, client: TableClient, tables: SdkTables) -> None:
        self._client = client
        self._tables = tables

    async def get(self, partition: str, row: str) -> Entity | None:
        """Return the row, or None."""
        rules.check_keys(partition, row)
        try:
            with self._tables.use():
                return _entity(await self._client.get_entity(partition, row))
        except HttpResponseError as error:
            if error.status_code == 404:
                return None
            raise _translated(error, row) from error

    async def query(
        self, partition: str, *, start: str = "", end: str | None = None, limit: int | None = None
    ) -> AsyncGenerator[Entity, None]:
        """Yield rows with ``start <= row < end``."""
        rules.check_bounds(partition, start, end)
        if limit == 0 or (end is not None and end <= start):
            return
        condition = "PartitionKey eq @partition and RowKey ge @start" + ("" if end is None else " and RowKey lt @end")
        parameters = {"partition": partition, "start": start, "end": end}
        seen = 0
        try:
            async for found in self._client.query_entities(
                condition, parameters=parameters, results_per_page=min(limit or 1000, 1000)
            ):
                yield _entity(found)
                seen += 1
                if seen == limit:
                    return
        except HttpResponseError as error:
            if error.status_code != 404:
                raise _translated(error, "") from error

    async def insert(self, entity: Entity) -> str:
        """Store a new row; return its ETag."""
        rules.check_entity(entity)
        sent = _fields(entity)
        return str((await self._made(lambda: self._client.create_entity(sent), entity.row))["etag"])

    async def replace(self, entity: Entity) -> str:
        """Store over the row whose ETag is the entity's; return the new ETag."""
        rules.check_condition(Action.REPLACE, entity.etag)
        rules.check_entity(entity)
        sent = _fields(entity)
        found = await self._made(
            lambda: self._client.update_entity(sent, mode=UpdateMode.REPLACE, **_condition(entity.etag)), entity.row
        )
        return str(found["etag"])

    async def delete(self, partition: str, row: str, etag: str = "*") -> None:
        """Delete the row. The SDK's own method calls the absence of a row a success, so a transaction of one is sent."""
        rules.check_condition(Action.DELETE, etag)
        rules.check_keys(partition, row)
        await self.transact([Op(Action.DELETE, Entity(partition, row, etag=etag))])

    async def transact(self, ops: Sequence[Op]) -> list[str]:
        """Do all or nothing; return the new ETags ("" for deletes)."""
        rules.check_transaction(ops)
        sent: Any = [_operation(op) for op in ops]
        try:
            found = await self._made(lambda: self._client.submit_transaction(sent), "")
        except (EntityExistsError, EntityChangedError, EntityNotFoundError) as error:
            cause = error.__cause__
            index = cause.index if isinstance(cause, TableTransactionError) else 0
            message = f"The row {ops[index].entity.row}."
            raise type(error)(message) from cause
        return ["" if op.action is Action.DELETE else str(each["etag"]) for op, each in zip(ops, found, strict=True)]

    async def _made(self, send: Callable[[], Awaitable[_Result]], row: str) -> _Result:
        """Send, and once more after making the table."""
        with self._tables.use():
            return await self._made_within(send, row)

    async def _made_within(self, send: Callable[[], Awaitable[_Result]], row: str) -> _Result:
        try:
            return await send()
        except AzureError as error:
            if _code(error) != "TableNotFound":
                raise _translated(error, row) from error
        try:
            await self._client.create_table()
        except AzureError as error:
            if _code(error) != "TableAlreadyExists":
                raise _translated(error, row) from error
        try:
            return await send()
        except AzureError as error:
            raise _translated(error, row) from error


def _code(error: AzureError) -> str:
    found = re.search(r'"code":\s*"(\w+)"', str(error))  # not every method of the SDK reads it out
    code = getattr(error, "error_code", None) or (found and found[1])
    return str(getattr(code, "value", code))


def _translated(error: AzureError, row: str) -> Exception:
    kind = _MEANINGS.get(_code(error))
    return StorageUnavailableError(f"The store did not answer: {_code(error)}") if kind is None else kind(f"The row {row}.")


def _condition(etag: str) -> dict[str, Any]:
    if etag == "*":
        return {}
    return {"etag": etag if etag.startswith("W/") else _NO_ETAG, "match_condition": MatchConditions.IfNotModified}


def _operation(op: Op) -> tuple[Any, ...]:
    options: dict[str, Any] = {}
    if op.action in {Action.REPLACE, Action.DELETE}:
        options = _condition(op.entity.etag)
    if op.action in {Action.REPLACE, Action.UPSERT}:
        options["mode"] = UpdateMode.REPLACE
    return _OPERATIONS[op.action], _fields(op.entity), options


def _fields(entity: Entity) -> dict[str, Any]:
    fields: dict[str, Any] = {name: _property(value) for name, value in entity.properties.items()}
    return {"PartitionKey": entity.partition, "RowKey": entity.row, **fields}


def _property(value: Value) -> Any:
    return EntityProperty(value, EdmType.INT64) if isinstance(value, int) and not isinstance(value, bool) else value


def _entity(found: Any) -> Entity:
    properties = {
        name: value.value if isinstance(value, EntityProperty) else value
        for name, value in found.items()
        if name not in {"PartitionKey", "RowKey"}
    }
    return Entity(found["PartitionKey"], found["RowKey"], properties, found.metadata["etag"])
