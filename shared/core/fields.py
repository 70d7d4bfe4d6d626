"""Stored rows read back with their types checked: what a row lacks or has wrong is a `ValueError` that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn


class Fields:
    """Typed look-ups in a row's properties. A name that is not there is None in the ``find_`` look-ups."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def names(self) -> list[str]:
        """Return the names that are there."""
        return list(self._values)

    def text(self, name: str) -> str:
        """Return a text that must be there."""
        found = self.find_text(name)
        return _missing(name) if found is None else found

    def whole(self, name: str) -> int:
        """Return an integer that must be there."""
        found = self.find_whole(name)
        return _missing(name) if found is None else found

    def number(self, name: str) -> float:
        """Return a number that must be there."""
        found = self.find_number(name)
        return _missing(name) if found is None else found

    def flag(self, name: str) -> bool:
        """Return a boolean; one that is not there is False."""
        found = self._values.get(name, False)
        return found if isinstance(found, bool) else _wrong(name, "a boolean")

    def find_text(self, name: str) -> str | None:
        """Return a text, or None."""
        found = self._values.get(name)
        return found if found is None or isinstance(found, str) else _wrong(name, "text")

    def find_whole(self, name: str) -> int | None:
        """Return an integer, or None."""
        found = self._values.get(name)
        if found is None or (isinstance(found, int) and not isinstance(found, bool)):
            return found
        return _wrong(name, "an integer")

    def find_number(self, name: str) -> float | None:
        """Return a number, or None."""
        found = self._values.get(name)
        if found is None or (isinstance(found, int | float) and not isinstance(found, bool)):
            return found
        return _wrong(name, "a number")

    def find_fields(self, name: str) -> Fields | None:
        """Return the fields of an object within, or None."""
        found = self._values.get(name)
        if found is None:
            return None
        return Fields(found) if isinstance(found, Mapping) else _wrong(name, "an object")

    def find_texts(self, name: str) -> tuple[str, ...] | None:
        """Return a list of texts, or None."""
        found = self._values.get(name)
        if found is None:
            return None
        if isinstance(found, list | tuple) and all(isinstance(one, str) for one in found):
            return tuple(found)
        return _wrong(name, "a list of texts")


def _missing(name: str) -> NoReturn:
    message = f"{name} is missing"
    raise ValueError(message)


def _wrong(name: str, kind: str) -> NoReturn:
    message = f"{name} is not {kind}"
    raise ValueError(message)
