"""Table Storage's limits, checked before anything is sent, so that every adapter refuses the same things in the same words.

Sizes are Table Storage's own: text counts as UTF-16. An entity may have 255 properties of which three are the system's
(partition, row, timestamp), and a transaction may carry 4 MiB.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NoReturn

from shared.ports import MAX_TRANSACTION, Action, Entity, InvalidEntityError, Op

MAX_KEY: Final = 1024
MAX_PROPERTY: Final = 64 * 1024
MAX_PROPERTIES: Final = 252
MAX_NAME: Final = 255
MAX_ENTITY: Final = 1024 * 1024
MAX_PAYLOAD: Final = 4 * 1024 * 1024

_INT64: Final = 1 << 63
_TABLE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{2,62}")
_FORBIDDEN_IN_KEY: Final = re.compile("[/\\\\#?\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_FORBIDDEN_IN_BOUND: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_RESERVED: Final = frozenset({"PartitionKey", "RowKey", "Timestamp", "ETag"})
_CONDITIONAL: Final = frozenset({Action.REPLACE, Action.DELETE})


def check_table(name: str) -> str:
    """Return the name as it is stored: Table Storage does not tell upper from lower case."""
    if _TABLE.fullmatch(name) is None or name.lower() == "tables":
        _refuse("A table's name is 3 to 63 letters and digits, a letter first, and not `tables`.")
    return name.lower()


def check_keys(partition: str, row: str) -> None:
    """Refuse keys that can't be stored."""
    _key("partition", partition)
    _key("row", row)


def check_bounds(partition: str, start: str, end: str | None) -> None:
    """Refuse the bounds of a range that could not be asked for. Bounds are not stored: they may hold / and #."""
    check_keys(partition, "")
    for bound in (start, end or ""):
        if _FORBIDDEN_IN_BOUND.search(bound) is not None:
            _refuse("The bound of a range can't hold control characters or half an emoji.")


def check_condition(action: Action, etag: str) -> None:
    """Refuse a conditional write without its condition: it would overwrite what somebody else has written."""
    if action is Action.REPLACE and etag in {"", "*"}:
        _refuse("A replace needs the ETag of the row it read.")
    if action is Action.DELETE and not etag:
        _refuse("A delete needs the ETag of the row it read, or * for whatever is there.")


def check_entity(entity: Entity) -> int:
    """Refuse an entity that can't be stored; return its size in bytes as Table Storage counts it."""
    return _row(entity, _key("partition", entity.partition))


def check_transaction(ops: Sequence[Op]) -> None:
    """Refuse what can't be one transaction: 1 to 100 operations, one partition, each row once, 4 MiB."""
    if not 1 <= len(ops) <= MAX_TRANSACTION:
        _refuse(f"A transaction has 1 to {MAX_TRANSACTION} operations; this one has {len(ops)}.")
    partition = ops[0].entity.partition
    partition_size = _key("partition", partition)
    rows: set[str] = set()
    size = 0
    for op in ops:
        entity = op.entity
        if entity.partition != partition:
            _refuse("A transaction stays in one partition.")
        rows.add(entity.row)
        if op.action in _CONDITIONAL:
            check_condition(op.action, entity.etag)
        if op.action is Action.DELETE:
            _key("row", entity.row)
        else:
            size += _row(entity, partition_size)
    if len(rows) != len(ops):
        _refuse("A transaction can't name a row twice.")
    if size > MAX_PAYLOAD:
        _refuse(f"A transaction can't be over 4 MiB; this one has {size} bytes.")


def _key(what: str, key: str) -> int:
    """Return the bytes of a key that can be stored."""
    if type(key) is not str and not isinstance(key, str):
        _refuse(f"A {what} key is text.")
    if _FORBIDDEN_IN_KEY.search(key) is not None:
        _refuse(f"A {what} key can't hold / \\ # ?, control characters or half an emoji.")
    size = _utf16(key)
    return size if size <= MAX_KEY else _refuse(f"A {what} key can't be over {MAX_KEY} bytes in UTF-16.")


def _row(entity: Entity, partition_size: int) -> int:
    """Return the bytes of an entity that can be stored and whose partition was looked at."""
    size = 4 + partition_size + _key("row", entity.row) + _properties(entity.properties)
    return size if size <= MAX_ENTITY else _refuse(f"An entity can't be over 1 MiB; this one has {size} bytes.")


def _properties(properties: Mapping[str, object]) -> int:
    if len(properties) > MAX_PROPERTIES:
        _refuse(f"An entity has at most {MAX_PROPERTIES} properties; this one has {len(properties)}.")
    size = _names(tuple(properties))
    for name, value in properties.items():
        kind = type(value)
        # Most values are short ASCII texts and doubles; this is on every request's way, so they are looked at here.
        if kind is str and value.isascii() and len(value) <= MAX_PROPERTY // 2:  # type: ignore[attr-defined, arg-type]
            size += 4 + 2 * len(value)  # type: ignore[arg-type]
        elif kind is float:
            size += 8
        else:
            size += _value(name, value)
    return size


@lru_cache(maxsize=256)
def _names(names: tuple[str, ...]) -> int:
    """Return the bytes of the names. Rows of one kind have the same names, so this is looked at once for each kind."""
    for name in names:
        if not (name.isascii() and name.isidentifier()) or len(name) > MAX_NAME or name in _RESERVED:
            _refuse("A property's name is up to 255 letters, digits and _, no digit first, and not a system property's.")
    return sum(8 + 2 * len(name) for name in names)


def _value(name: str, value: object) -> int:
    if isinstance(value, str):
        return _bounded(name, _text(name, value))
    if isinstance(value, bool):
        return 1
    if isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            _refuse(f"The property `{name}` does not fit 64 bits.")
        return 8
    if type(value) is bytes:
        return _bounded(name, len(value)) + 4
    return _refuse(f"The property `{name}` must be text, an integer, a double, a boolean or bytes.")


def _text(name: str, value: str) -> int:
    try:
        return _utf16(value)
    except UnicodeEncodeError:
        return _refuse(f"The property `{name}` holds half an emoji (a lone surrogate).")


def _bounded(name: str, size: int) -> int:
    if size > MAX_PROPERTY:
        _refuse(f"The property `{name}` can't be over 64 KiB; it has {size} bytes.")
    return size + 4


def _utf16(text: str) -> int:
    return 2 * len(text) if text.isascii() else len(text.encode("utf-16-le"))


def _refuse(message: str) -> NoReturn:
    raise InvalidEntityError(message)
