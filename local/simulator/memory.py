"""Prompt caching: what a profile has seen before, so that cached tokens are reported as providers report them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict


class PromptMemory:
    """Remembers the newest prompt prefixes by hash; never their text."""

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._seen: OrderedDict[bytes, int] = OrderedDict()

    def meet(self, profile: str, prefix: str) -> bool:
        """Return whether that profile has met the prefix before; it is remembered from now on."""
        key = hashlib.blake2b(f"{profile}\n{prefix}".encode(errors="replace"), digest_size=16).digest()
        known = key in self._seen
        self._seen[key] = 1
        self._seen.move_to_end(key)
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        return known

    def clear(self) -> None:
        """Forget everything."""
        self._seen.clear()
