"""Stores of tables, chosen by the setting SWITCHYARD_STORAGE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.adapters.tables.azure import AzureTables
from shared.adapters.tables.azure_account import account_url, emulator_url
from shared.adapters.tables.sqlite import SqliteTables
from shared.core.errors import ConfigurationError

if TYPE_CHECKING:
    from shared.ports import Clock, HttpTransport, Tables, TokenSource

__all__ = ["open_tables"]


def open_tables(
    url: str, *, transport: HttpTransport | None = None, tokens: TokenSource | None = None, clock: Clock | None = None
) -> Tables:
    """Open the store; raise `ConfigurationError` for a setting that names none.

    - ``sqlite:PATH``: one file, made with its folders, at once, so that a path that can't be used is known at the start.
    - ``memory:``: private, gone at close.
    - ``https://ACCOUNT.table.core.windows.net``: Table Storage, with Entra tokens; needs transport, tokens and clock.
    - ``azurite:``, ``azurite:http://127.0.0.1:PORT/devstoreaccount1``: its emulator, here; needs transport and clock.

    Transport and tokens stay their owner's: close the store first.
    """
    kind, colon, path = url.partition(":")
    if colon and kind == "sqlite" and path:
        return SqliteTables(path)
    if url == "memory:":
        return SqliteTables(None)
    emulator = emulator_url(url)
    account = emulator or account_url(url)
    if account is None:
        message = (
            "SWITCHYARD_STORAGE must be sqlite:PATH, memory:, azurite: (the emulator on this machine), "
            "azurite:http://127.0.0.1:PORT/devstoreaccount1 or https://ACCOUNT.table.core.windows.net."
        )
        raise ConfigurationError(message, problems=[message])
    if transport is None or clock is None or (tokens is None and emulator is None):
        message = (
            "SWITCHYARD_STORAGE: Table Storage is reached over the gateway's transport, clock and Entra tokens: pass them too."
        )
        raise ConfigurationError(message, problems=[message])
    return AzureTables(account, transport=transport, tokens=None if emulator else tokens, clock=clock)
