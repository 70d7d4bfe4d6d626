"""Virtual keys: who holds one, what it may do, and how it is rotated and revoked."""

from __future__ import annotations

from shared.keys.fields import Changes, Grants, Token, VirtualKey
from shared.keys.lookups import CACHE_SECONDS, GRACE_SECONDS, MAX_CACHED
from shared.keys.store import ADMIN, MAX_OVERLAP, Keys, NewKey

__all__ = [
    "ADMIN",
    "CACHE_SECONDS",
    "GRACE_SECONDS",
    "MAX_CACHED",
    "MAX_OVERLAP",
    "Changes",
    "Grants",
    "Keys",
    "NewKey",
    "Token",
    "VirtualKey",
]
