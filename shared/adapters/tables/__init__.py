"""Stores of tables, chosen by the setting SWITCHYARD_STORAGE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.adapters.tables.sqlite import SqliteTables
from shared.core.errors import ConfigurationError

if TYPE_CHECKING:
    from shared.ports import Tables

__all__ = ["open_tables"]


def open_tables(url: str) -> Tables:
    """Open the store: ``sqlite:PATH`` (one file, made with its folders) or ``memory:`` (private, gone at close).

    Opens the file at once, so that a path that can't be used is a `ConfigurationError` when the gateway starts.
    """
    kind, colon, path = url.partition(":")
    if colon and kind == "sqlite" and path:
        return SqliteTables(path)
    if url == "memory:":
        return SqliteTables(None)
    message = "SWITCHYARD_STORAGE must be sqlite:PATH or memory:."
    raise ConfigurationError(message, problems=[message])
