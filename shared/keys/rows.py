"""Keys as rows: one for each token, so that a token is found by one look at its own SHA-256.

Every row of a key holds all of its fields. The row of the key's first token is its *home*: it is there as long as the key
is, it alone lists the key's ``tokens``, and every change replaces it by its ETag in the same transaction as the other rows. A
row that has ``home`` is a later token's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.core.access import DEFAULT_ROLES, Role
from shared.core.fields import Fields
from shared.keys.fields import Token, VirtualKey, is_model_name
from shared.ports import Entity, Value

PARTITION: Final = "keys"
_ID_DIGITS: Final = 12
_CHUNK: Final = 15_000
"""Characters of a list of models in one property, which holds 64 KiB."""

_log = logging.getLogger(__name__)


def key_id_of(digest: str) -> str:
    """Return the public name of the key whose first token has this SHA-256."""
    return "key_" + digest[:_ID_DIGITS]


def is_home(entity: Entity) -> bool:
    """Say whether a row is the one that stands for its key."""
    return "home" not in entity.properties


def rows_of(key: VirtualKey, home: str, mark: str, *, etag: str = "") -> list[Entity]:
    """Return the rows of a key, its home first. ``mark`` tells afterwards whose write it was."""
    shared = _properties(key)
    ends = {token.digest: token.ends_at for token in key.tokens}
    listed = json.dumps([[token.digest, token.created_at, token.ends_at] for token in key.tokens])
    first: dict[str, Value] = {**shared, **_end(ends.pop(home, key.created_at)), "tokens": listed, "mark": mark}
    later = [Entity(PARTITION, digest, {**shared, **_end(ends_at), "home": home}) for digest, ends_at in ends.items()]
    return [Entity(PARTITION, home, first, etag), *later]


def read(entity: Entity) -> VirtualKey | None:
    """Return the key in a row. A damaged row is nobody's key: it must not let anybody in, nor keep others from being listed."""
    row = Fields(entity.properties)
    try:
        models = _json(row.find_text("models0") and "".join(_chunks(entity.properties)), list, None)
        if models is not None and not all(map(is_model_name, models)):
            message = "models is not a list of names"
            raise ValueError(message)  # noqa: TRY301 - damaged like any other field
        created_at = row.number("created_at")
        return VirtualKey(
            key_id=row.text("key_id"),
            name=row.text("name"),
            project=row.text("project"),
            created_at=created_at,
            expires_at=row.find_number("expires_at"),
            disabled=row.flag("disabled"),
            models=None if models is None else frozenset(models),
            budgets=tuple(map(_text, _json(row.find_text("budgets"), list, []))),
            requests_per_minute=row.find_whole("requests_per_minute"),
            tokens_per_minute=row.find_whole("tokens_per_minute"),
            roles=frozenset(map(Role, _json(row.find_text("roles"), list, DEFAULT_ROLES))),
            tags={name: _text(text) for name, text in _json(row.find_text("tags"), dict, {}).items()},
            tokens=_tokens(row.find_text("tokens"), Token(entity.row, created_at)) if is_home(entity) else (),
            version=row.find_whole("version") or 1,
        )
    except ValueError as error:
        _log.error("The row of the key %s is damaged and ignored: %s", key_id_of(entity.row), error)
        return None


def end_of(entity: Entity) -> float | None:
    """Return when this row's token ends, None when no rotation has ended it; raise `ValueError` when it can't be read."""
    return Fields(entity.properties).find_number("ends_at")


def _properties(key: VirtualKey) -> dict[str, Value]:
    found: dict[str, Value | None] = {
        "key_id": key.key_id,
        "name": key.name,
        "project": key.project,
        "created_at": key.created_at,
        "disabled": key.disabled,
        "expires_at": key.expires_at,
        "budgets": json.dumps(key.budgets) if key.budgets else None,
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "roles": json.dumps(sorted(key.roles)) if key.roles != DEFAULT_ROLES else None,
        "tags": json.dumps(dict(key.tags), ensure_ascii=False) if key.tags else None,
        "version": key.version,
    }
    if key.models is not None:
        text = json.dumps(sorted(key.models), ensure_ascii=False)
        found |= {f"models{at // _CHUNK}": text[at : at + _CHUNK] for at in range(0, len(text), _CHUNK)}
    return {name: value for name, value in found.items() if value is not None}


def _end(ends_at: float | None) -> dict[str, Value]:
    return {} if ends_at is None else {"ends_at": ends_at}


def _chunks(properties: Mapping[str, Value]) -> Iterator[str]:
    row = Fields(properties)
    number = 0
    while (chunk := row.find_text(f"models{number}")) is not None:
        yield chunk
        number += 1


def _tokens(text: str | None, first: Token) -> tuple[Token, ...]:
    """Return the tokens a home lists; a row from before there was rotation lists none, and has the one of its own."""
    found = []
    for listed in _json(text, list, [[first.digest, first.created_at, None]]):
        if not isinstance(listed, list) or len(listed) != len(Token.__dataclass_fields__):
            message = "tokens is not a list of tokens"
            raise ValueError(message)
        row = Fields(dict(zip(("digest", "created_at", "ends_at"), listed, strict=True)))
        found.append(Token(row.text("digest"), row.number("created_at"), row.find_number("ends_at")))
    return tuple(found)


def _json(text: str | None, kind: type, absent: Any) -> Any:
    if text is None:
        return absent
    found = json.loads(text)
    if not isinstance(found, kind):
        message = f"a {kind.__name__} is something else"
        raise ValueError(message)  # noqa: TRY004 - damaged like any other field
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        message = "a text is something else"
        raise ValueError(message)  # noqa: TRY004 - damaged like any other field
    return value
