"""Who calls: the admin key and virtual keys.

A virtual key is ``sk-sw-`` and 32 random bytes. Only its SHA-256 is stored, and it is found by that hash alone: no text of a
caller ever becomes part of a key, and a database that leaks holds nothing to call with. Its public name, the ``key_id``, is
``key_`` and the hash's first 12 digits.

Look-ups are remembered: a revoked or disabled key stops within `CACHE_SECONDS` everywhere (at once in the process that
revoked it). Only while the store does not answer, a key that was good stays good for `GRACE_SECONDS`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from shared.core.errors import InvalidRequestError, NotFoundError, StorageUnavailableError
from shared.core.fields import Fields
from shared.core.records import Caller
from shared.core.registry import Secret
from shared.ports import Clock, Entity, EntityChangedError, Tables, Value

TABLE: Final = "keys"
PARTITION: Final = "keys"
PREFIX: Final = "sk-sw-"
RANDOM_BYTES: Final = 32

CACHE_SECONDS: Final = 5.0
"""The longest a change made by another process goes unseen."""
GRACE_SECONDS: Final = 60.0
"""How long a key that was good stays good while the store does not answer."""
MAX_CACHED: Final = 10_000
MAX_MODELS: Final = 200

ADMIN: Final = Caller(key_id="admin", project="admin", admin=True, name="admin")

_TOKEN: Final = re.compile(r"sk-sw-[A-Za-z0-9_-]{40,128}")
_KEY_ID: Final = re.compile(r"key_[0-9a-f]{12}")
_PROJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ID_DIGITS: Final = 12
_MAX_NAME: Final = 100
_MAX_MODEL_NAME: Final = 256
_REVOKE_TRIES: Final = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VirtualKey:
    """A key as it may be shown: everything but the key. Times are seconds since the epoch; ``models`` None is all models."""

    key_id: str
    name: str
    project: str
    created_at: float
    expires_at: float | None = None
    disabled: bool = False
    models: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made, with its token: the only time it can be had."""

    key: VirtualKey
    token: Secret


@dataclass(frozen=True, slots=True)
class _Known:
    """What the last look-up of a token found; ``key`` None is that there is none."""

    key: VirtualKey | None
    looked_up: float


class Keys:
    """The keys of this gateway. ``make_token`` gives at least that many random bytes as URL-safe text."""

    def __init__(
        self,
        tables: Tables,
        clock: Clock,
        admin_key: Secret | None,
        *,
        make_token: Callable[[int], str] = secrets.token_urlsafe,
    ) -> None:
        self._table = tables.table(TABLE)
        self._clock = clock
        self._admin = None if admin_key is None else _digest(admin_key.reveal())
        self._make_token = make_token
        self._good: dict[str, _Known] = {}
        self._bad: dict[str, _Known] = {}

    # ---- who is it ---------------------------------------------------------------------------------------------------

    async def authenticate(self, token: str) -> Caller | None:
        """Return who holds this token, or None when nobody does, or not any more.

        Raise `StorageUnavailableError` when the store does not answer and the token is not known from the last minute.
        """
        digest = _digest(token)
        if self._admin is not None and hmac.compare_digest(digest, self._admin):
            return ADMIN
        if _TOKEN.fullmatch(token) is None:  # can't be one of ours: no look-up, and nothing for a flood to fill
            return None
        key = await self._find(digest)
        if key is None or key.disabled or (key.expires_at is not None and key.expires_at <= self._clock.now()):
            return None
        return Caller(key_id=key.key_id, project=key.project, name=key.name, models=key.models)

    async def _find(self, digest: str) -> VirtualKey | None:
        moment = self._clock.monotonic()
        known = self._good.get(digest) or self._bad.get(digest)
        if known is not None and moment - known.looked_up < CACHE_SECONDS:
            return known.key
        try:
            entity = await self._table.get(PARTITION, digest)
        except StorageUnavailableError:
            if known is not None and known.key is not None and moment - known.looked_up < GRACE_SECONDS:
                return known.key
            raise
        key = None if entity is None else _read(entity)
        self._remember(digest, _Known(key, moment))
        return key

    def _remember(self, digest: str, known: _Known) -> None:
        """Keep a look-up, unless a later one is kept already; the oldest makes room.

        Good and bad ones are apart, so that a flood of bad tokens evicts no good one.
        """
        kept, other = (self._bad, self._good) if known.key is None else (self._good, self._bad)
        before = kept.pop(digest, None) or other.pop(digest, None)
        if before is not None and before.looked_up >= known.looked_up:
            known, kept = before, self._bad if before.key is None else self._good
        if len(kept) >= MAX_CACHED:
            del kept[next(iter(kept))]
        kept[digest] = known

    # ---- administration ----------------------------------------------------------------------------------------------

    async def create(
        self,
        name: str,
        project: str,
        *,
        expires_at: float | None = None,
        models: frozenset[str] | None = None,
    ) -> NewKey:
        """Make a key. ``expires_at`` is seconds since the epoch; ``models`` are those it may ask for, None for all.

        Raise `InvalidRequestError` naming the field.
        """
        moment = self._clock.now()
        self._check(name, project, expires_at, models)
        while True:
            token = PREFIX + self._make_token(RANDOM_BYTES)
            digest = _digest(token)
            if await self._row(_key_id(digest)) is None:  # a name must be nobody else's, also 2^24 keys from now
                break
        key = VirtualKey(
            key_id=_key_id(digest),
            name=name,
            project=project,
            created_at=moment,
            expires_at=None if expires_at is None else float(expires_at),
            models=models,
        )
        await self._table.insert(Entity(PARTITION, digest, _properties(key)))
        self._bad.pop(digest, None)
        return NewKey(key, Secret(token))

    async def list(self) -> list[VirtualKey]:
        """Return every key, also revoked and expired ones, the oldest first. Never a token."""
        keys = [key async for entity in self._table.query(PARTITION) if (key := _read(entity)) is not None]
        return sorted(keys, key=lambda key: (key.created_at, key.key_id))

    async def get(self, key_id: str) -> VirtualKey:
        """Return one key; raise `NotFoundError`."""
        entity = await self._row(key_id)
        key = None if entity is None else _read(entity)
        if key is None:
            raise _unknown()
        return key

    async def revoke(self, key_id: str) -> VirtualKey:
        """Disable a key for good and return it; its row stays, so that its usage keeps a name. Raise `NotFoundError`."""
        for _ in range(_REVOKE_TRIES):
            entity = await self._row(key_id)
            key = None if entity is None else _read(entity)
            if entity is None or key is None:
                raise _unknown()
            revoked = replace(key, disabled=True)
            try:
                await self._table.replace(Entity(PARTITION, entity.row, _properties(revoked), entity.etag))
            except EntityChangedError:
                continue
            self._good.pop(entity.row, None)
            self._remember(entity.row, _Known(revoked, self._clock.monotonic()))
            return revoked
        message = "The key kept changing while it was revoked. Try again."
        raise StorageUnavailableError(message)

    async def _row(self, key_id: str) -> Entity | None:
        if _KEY_ID.fullmatch(key_id) is None:
            return None
        start = key_id.removeprefix("key_")
        async for entity in self._table.query(PARTITION, start=start, end=start + "g", limit=1):
            return entity
        return None

    def _check(self, name: str, project: str, expires_at: float | None, models: frozenset[str] | None) -> None:
        if not isinstance(name, str) or not 1 <= len(name) <= _MAX_NAME or not name.isprintable() or name.isspace():
            message = f"`name` must be 1 to {_MAX_NAME} printable characters."
            raise InvalidRequestError(message, param="name")
        if not isinstance(project, str) or _PROJECT.fullmatch(project) is None:
            message = "`project` must be 1 to 64 letters, digits, `.`, `_` or `-`, a letter or digit first."
            raise InvalidRequestError(message, param="project")
        if expires_at is not None and not _is_later(expires_at, self._clock.now()):
            message = "`expires_at` must be a moment to come, in seconds since the epoch."
            raise InvalidRequestError(message, param="expires_at")
        if models is not None and not (1 <= len(models) <= MAX_MODELS and all(map(_is_model_name, models))):
            message = f"`models` must be 1 to {MAX_MODELS} model names; leave it out to allow all."
            raise InvalidRequestError(message, param="models")


def _is_later(moment: object, now: float) -> bool:
    latest = 253_402_300_799  # the end of the year 9999
    return isinstance(moment, int | float) and not isinstance(moment, bool) and now < moment <= latest


def _is_model_name(name: object) -> bool:
    return isinstance(name, str) and 1 <= len(name) <= _MAX_MODEL_NAME and name.isprintable()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _key_id(digest: str) -> str:
    return "key_" + digest[:_ID_DIGITS]


def _unknown() -> NotFoundError:
    return NotFoundError("There is no key of that id. GET /v1/keys lists those that exist.", param="key_id")


def _properties(key: VirtualKey) -> dict[str, Value]:
    found: dict[str, Value] = {
        "key_id": key.key_id,
        "name": key.name,
        "project": key.project,
        "created_at": key.created_at,
        "disabled": key.disabled,
    }
    if key.expires_at is not None:
        found["expires_at"] = key.expires_at
    if key.models is not None:
        text = json.dumps(sorted(key.models), ensure_ascii=False)
        for at in range(0, len(text), _MODELS_CHUNK):
            found[f"models{at // _MODELS_CHUNK}"] = text[at : at + _MODELS_CHUNK]
    return found


_MODELS_CHUNK: Final = 15_000


def _read(entity: Entity) -> VirtualKey | None:
    """Return the key in a row. A damaged row is nobody's key: it must not let anybody in, nor keep others from being listed."""
    row = Fields(entity.properties)
    try:
        text = "".join(row.text(name) for name in sorted(entity.properties) if name.startswith("models"))
        models = json.loads(text) if text else None
        if models is not None and not (isinstance(models, list) and all(map(_is_model_name, models))):
            message = "models is not a list of names"
            raise ValueError(message)  # noqa: TRY301 - damaged like any other field
        return VirtualKey(
            key_id=row.text("key_id"),
            name=row.text("name"),
            project=row.text("project"),
            created_at=row.number("created_at"),
            expires_at=row.find_number("expires_at"),
            disabled=row.flag("disabled"),
            models=None if models is None else frozenset(models),
        )
    except ValueError as error:
        _log.error("The row of the key %s is damaged and ignored: %s", _key_id(entity.row), error)
        return None
