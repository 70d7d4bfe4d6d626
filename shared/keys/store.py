"""Who calls: the admin key, virtual keys, and Entra tokens where the operator allows them.

A virtual key's token is ``sk-sw-`` and 32 random bytes. Only its SHA-256 is stored, and it is found by that hash alone: no text
of a caller ever becomes part of a key, and a database that leaks holds nothing to call with. The key's public name, the
``key_id``, is ``key_`` and the first 12 digits of its first token's hash; rotating gives it further tokens and keeps the name.

What is changed about a key (revoked, rotated, other budgets) is seen at once in the process that changed it, and within
`CACHE_SECONDS` in every other. Only while the store does not answer, a key that was good stays good for `GRACE_SECONDS`.
Who may call is decided when a request arrives: a stream that runs when its key is revoked runs to its end, and is paid for.
"""

from __future__ import annotations

import builtins
import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Unpack

from shared.core.access import Identity, Role
from shared.core.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    StorageUnavailableError,
)
from shared.core.records import Caller
from shared.core.registry import Secret
from shared.keys.fields import Changes, Grants, Token, VirtualKey, check
from shared.keys.lookups import Lookups
from shared.keys.rows import PARTITION, is_home, key_id_of, read, rows_of
from shared.ports import (
    Action,
    Clock,
    Entity,
    EntityChangedError,
    EntityExistsError,
    EntityNotFoundError,
    Op,
    Tables,
    TokenVerifier,
)

TABLE: Final = "keys"
PREFIX: Final = "sk-sw-"
RANDOM_BYTES: Final = 32

ADMIN: Final = Identity(Caller(key_id="admin", project="admin", admin=True, name="admin"), frozenset({Role.ADMIN}))

MAX_OVERLAP: Final = 30 * 86_400
"""Seconds that a token may outlive its rotation."""
MAX_LIVE_TOKENS: Final = 4
"""Tokens of one key that may be good at once: each is a row with all of the key's fields, and they change together."""

_TOKEN: Final = re.compile(r"sk-sw-[A-Za-z0-9_-]{40,128}")
_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_KEY_ID: Final = re.compile(r"key_[0-9a-f]{12}")
_CHANGE_TRIES: Final = 10
_SENDS: Final = 3
_SEND_PAUSE: Final = 0.1

BudgetExists = Callable[[str], Awaitable[bool]]


async def no_budgets(_budget: str) -> bool:
    """Say that there is no such budget: what holds until somebody who knows the budgets is asked."""
    return False


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key with a token that was just made: the only time it can be had."""

    key: VirtualKey
    token: Secret


class Keys:
    """The keys of this gateway.

    ``make_token`` gives at least that many random bytes as URL-safe text. ``budget_exists`` is asked about every budget that a
    key is bound to. ``verifier`` judges tokens that are not ours; None refuses them.
    """

    def __init__(
        self,
        tables: Tables,
        clock: Clock,
        admin_key: Secret | None,
        *,
        make_token: Callable[[int], str] = secrets.token_urlsafe,
        budget_exists: BudgetExists = no_budgets,
        verifier: TokenVerifier | None = None,
    ) -> None:
        self._table = tables.table(TABLE)
        self._clock = clock
        self._admin = None if admin_key is None else _digest(admin_key.reveal())
        self._make_token = make_token
        self._budget_exists = budget_exists
        self._verifier = verifier
        self._lookups = Lookups(self._table, clock)

    async def aclose(self) -> None:
        """Give up what is being looked up, and close the verifier."""
        await self._lookups.aclose()
        if self._verifier is not None:
            await self._verifier.aclose()

    # ---- who is it ---------------------------------------------------------------------------------------------------

    async def authenticate(self, token: str) -> Identity | None:
        """Return who holds this token, or None when nobody does, or not any more.

        Raise `StorageUnavailableError` when the store (or, for an Entra token, the identity provider) does not answer and the
        token is not known from the last minute.
        """
        digest = _digest(token)
        if self._admin is not None and hmac.compare_digest(digest, self._admin):
            return ADMIN
        if _TOKEN.fullmatch(token) is not None:
            held = await self._lookups.find(digest)
            return held.identity if held is not None and self._clock.now() < held.until else None
        if self._verifier is not None and _JWT.fullmatch(token) is not None:
            return await self._verifier.verify(token)
        return None  # can't be anybody's: no look-up, and nothing for a flood to fill

    # ---- administration ----------------------------------------------------------------------------------------------

    async def create(self, name: str, project: str, **grants: Unpack[Grants]) -> NewKey:
        """Make a key.

        Raise `InvalidRequestError` naming the field. When `StorageUnavailableError` is raised a key may have been made whose
        token nobody has: it is in the list, and can be revoked or rotated.
        """
        moment = self._clock.now()
        await self._check({"name": name, "project": project, **grants})
        token, digest = await self._new_token()
        key = VirtualKey(
            key_id=key_id_of(digest), name=name, project=project, created_at=moment, tokens=(Token(digest, moment),), **grants
        )
        if not await self._write(key, digest, etag=""):
            message = "The key could not be made. Try again."
            raise StorageUnavailableError(message)
        self._lookups.learn(key)
        return NewKey(key, token)

    async def list(self) -> builtins.list[VirtualKey]:
        """Return every key, also revoked and expired ones, the oldest first. Never a token."""
        homes = [read(entity) async for entity in self._table.query(PARTITION) if is_home(entity)]
        return sorted((key for key in homes if key is not None), key=lambda key: (key.created_at, key.key_id))

    async def get(self, key_id: str) -> VirtualKey:
        """Return one key; raise `NotFoundError`, or `InvalidRequestError` for what can be no key's id."""
        return (await self._home(key_id))[1]

    async def update(self, key_id: str, *, expected_version: int | None = None, **changes: Unpack[Changes]) -> VirtualKey:
        """Change some fields of a key and leave the others as they are, also those that somebody else changes meanwhile.

        Raise `InvalidRequestError` naming the field, `NotFoundError`, and `ConflictError` when the key is revoked or its
        version is not the expected one.
        """
        await self._check(changes)
        if "project" in changes:
            message = "`project` can't be changed: the key's usage is written down under it. Make another key."
            raise InvalidRequestError(message, param="project", code="invalid_value")

        def changed(key: VirtualKey) -> VirtualKey:
            _refuse_revoked(key)
            if expected_version is not None and key.version != expected_version:
                message = f"The key is at version {key.version}, not {expected_version}: look at it again."
                raise ConflictError(message, param="expected_version", code="version_mismatch")
            return replace(key, **changes)

        return await self._change(key_id, changed)

    async def rotate(self, key_id: str, *, overlap: float) -> NewKey:
        """Give a key a new token; every earlier one ends after ``overlap`` seconds, or when it was to end already.

        Raise `InvalidRequestError` naming the field, `NotFoundError`, and `ConflictError` when the key is revoked or expired,
        or has too many tokens that are still good.
        """
        if not isinstance(overlap, int | float) or isinstance(overlap, bool) or not 0 <= overlap <= MAX_OVERLAP:
            message = f"`overlap_seconds` must be a number from 0 to {MAX_OVERLAP}."
            raise InvalidRequestError(message, param="overlap_seconds", code="invalid_value")
        await self._home(key_id)
        token, digest = await self._new_token()
        dropped: builtins.list[str] = []

        def rotated(key: VirtualKey) -> VirtualKey:
            moment = self._clock.now()
            _refuse_revoked(key)
            if key.expires_at is not None and key.expires_at <= moment:
                message = "The key has expired. Give it a later `expires_at` before it is rotated."
                raise ConflictError(message, param="expires_at", code="key_expired")
            ending = [replace(old, ends_at=_earlier(old.ends_at, moment + overlap)) for old in key.tokens]
            # A token that ends this very moment stays listed once more, so that its own row is told.
            alive = tuple(
                old for old, was in zip(ending, key.tokens, strict=True) if was.ends_at is None or was.ends_at > moment
            )
            if sum(old.ends_at is None or old.ends_at > moment for old in alive) >= MAX_LIVE_TOKENS:
                message = (
                    f"{MAX_LIVE_TOKENS} tokens of this key are good already. Wait for one to end, or rotate without overlap."
                )
                raise ConflictError(message, param="overlap_seconds", code="too_many_tokens")
            dropped[:] = {old.digest for old in key.tokens} - {old.digest for old in alive}
            return replace(key, tokens=(*alive, Token(digest, moment)))

        key = await self._change(key_id, rotated)
        await self._sweep(key, dropped)
        return NewKey(key, token)

    async def revoke(self, key_id: str) -> VirtualKey:
        """Disable a key for good, with every token of it, and return it; its row stays, so that its usage keeps a name.

        Raise `NotFoundError`, or `InvalidRequestError` for what can be no key's id.
        """
        return await self._change(key_id, lambda key: replace(key, disabled=True))

    # ---- rows --------------------------------------------------------------------------------------------------------

    async def _check(self, given: Mapping[str, object]) -> None:
        check(given, now=self._clock.now())
        budgets = given.get("budgets", ())
        for budget in budgets if isinstance(budgets, tuple) else ():
            if not await self._budget_exists(budget):
                message = f"`budgets` names {budget}, and there is no such budget. GET /v1/budgets lists them."
                raise InvalidRequestError(message, param="budgets", code="unknown_budget")

    async def _new_token(self) -> tuple[Secret, str]:
        while True:
            token = PREFIX + self._make_token(RANDOM_BYTES)
            digest = _digest(token)
            if await self._first(key_id_of(digest)) is None:  # a name must be nobody else's, also 2^24 keys from now
                return Secret(token), digest

    async def _change(self, key_id: str, make: Callable[[VirtualKey], VirtualKey]) -> VirtualKey:
        """Read, change and write a key, again and again until nobody else wrote in between."""
        for _ in range(_CHANGE_TRIES):
            home, key = await self._home(key_id)
            changed = replace(make(key), version=key.version + 1)
            if await self._write(changed, home.row, etag=home.etag):
                self._lookups.learn(changed)
                return changed
        message = "The key kept changing while it was written. Try again."
        raise StorageUnavailableError(message)

    async def _write(self, key: VirtualKey, home: str, *, etag: str) -> bool:
        """Write every row of a key at once over the home of that ETag ("" for a new one); say whether that was still there.

        A write that is not answered is sent again as it is: it lands once at most, and the mark tells whether it was ours.
        """
        mark = self._make_token(RANDOM_BYTES)
        first, *later = rows_of(key, home, mark, etag=etag)
        ops = [Op(Action.REPLACE if etag else Action.INSERT, first), *(Op(Action.UPSERT, row) for row in later)]
        for sent in range(1, _SENDS + 1):
            try:
                await self._table.transact(ops)
            except (EntityChangedError, EntityExistsError, EntityNotFoundError):
                stored = await self._table.get(PARTITION, home) if sent > 1 else None
                return stored is not None and stored.properties.get("mark") == mark
            except StorageUnavailableError:
                if sent == _SENDS:
                    raise
                await self._clock.sleep(_SEND_PAUSE * sent)
            else:
                break
        return True

    async def _sweep(self, key: VirtualKey, digests: builtins.list[str]) -> None:
        """Delete the rows of tokens that have ended. What stays behind lets nobody in: it holds when it ended."""
        for digest in digests:
            if key_id_of(digest) != key.key_id:
                try:
                    await self._table.delete(PARTITION, digest)
                except (EntityNotFoundError, StorageUnavailableError):
                    continue

    async def _home(self, key_id: str) -> tuple[Entity, VirtualKey]:
        if _KEY_ID.fullmatch(key_id) is None:
            message = "A key's id is `key_` and 12 hexadecimal digits, as GET /v1/keys lists it."
            raise InvalidRequestError(message, param="key_id", code="invalid_value")
        entity = await self._first(key_id)
        key = read(entity) if entity is not None and is_home(entity) else None
        if entity is None or key is None or key.key_id != key_id:
            message = "There is no key of that id."
            raise NotFoundError(message, param="key_id")
        return entity, key

    async def _first(self, key_id: str) -> Entity | None:
        start = key_id.removeprefix("key_")
        async for entity in self._table.query(PARTITION, start=start, end=start + "g", limit=1):
            return entity
        return None


def _refuse_revoked(key: VirtualKey) -> None:
    if key.disabled:
        message = "The key is revoked for good. Make a new one."
        raise ConflictError(message, param="key_id", code="key_revoked")


def _earlier(ends_at: float | None, moment: float) -> float:
    return moment if ends_at is None else min(ends_at, moment)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
