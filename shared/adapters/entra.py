"""Entra tokens from azure-identity: managed identity in Azure, a developer's login on a machine.

azure-identity is imported when the first token is asked for, in a thread: a process that uses keys never pays for it, and one
that uses tokens does not stand still meanwhile.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from shared.ports import ConnectError

EARLY: Final = 300.0
"""Seconds before its expiry from which on a token is fetched anew."""
LAST_MOMENT: Final = 30.0
"""Seconds before its expiry up to which a token still serves when no new one can be had."""
FETCH_TIMEOUT: Final = 30.0


class AccessToken(Protocol):
    """What azure-identity returns: a token and when it expires, in seconds since the epoch."""

    @property
    def token(self) -> str:
        """Return the bearer token."""
        ...

    @property
    def expires_on(self) -> int:
        """Return its expiry."""
        ...


class Credential(Protocol):
    """The part of azure-identity's asynchronous credentials that is used."""

    async def get_token(self, *scopes: str) -> AccessToken:
        """Return a token for the scopes."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class _Held:
    token: str
    expires_on: float


def default_credential() -> Credential:
    """Return azure-identity's chain of credentials; slow, so call it in a thread."""
    identity: Any = importlib.import_module("azure.identity.aio")
    credential: Credential = identity.DefaultAzureCredential()
    return credential


def blocking_credential() -> object:
    """Return the same chain for a library that asks for tokens in a thread of its own; slow."""
    identity: Any = importlib.import_module("azure.identity")
    credential: object = identity.DefaultAzureCredential()
    return credential


class EntraTokens:
    """A `TokenSource`: one token per scope, kept until shortly before it expires; callers at the same time share one fetch."""

    def __init__(
        self,
        make_credential: Callable[[], Credential] = default_credential,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._make_credential = make_credential
        self._now = now
        self._credential: asyncio.Task[Credential] | None = None
        self._held: dict[str, _Held] = {}
        self._fetches: dict[str, asyncio.Task[_Held]] = {}

    async def token(self, scope: str) -> str:
        """Return a bearer token for ``scope``; raise `ConnectError` when none can be had. One caller's leaving stops nobody."""
        held = self._held.get(scope)
        if held is not None and held.expires_on - self._now() > EARLY:
            return held.token
        fetch = self._fetches.get(scope)
        if fetch is None:
            fetch = self._fetches[scope] = asyncio.create_task(self._fetch(scope))
            fetch.add_done_callback(lambda task: self._settle(scope, task))
        try:
            return (await asyncio.shield(fetch)).token
        except ConnectError:
            if held is not None and held.expires_on - self._now() > LAST_MOMENT:
                return held.token
            raise

    async def aclose(self) -> None:
        """Close the credential and give up what is being fetched."""
        fetches = list(self._fetches.values())
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)
        made, self._credential = self._credential, None
        if made is not None and not made.cancelled() and made.done() and made.exception() is None:
            await made.result().close()

    def _settle(self, scope: str, task: asyncio.Task[_Held]) -> None:
        self._fetches.pop(scope, None)
        if not task.cancelled() and task.exception() is None:
            self._held[scope] = task.result()

    async def _fetch(self, scope: str) -> _Held:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                credential = await self._open()
                found = await credential.get_token(scope)
        except Exception as error:  # noqa: BLE001  (the edge to azure-identity: whatever it raises, there is no token)
            kind = type(error).__name__  # never its message, which can hold tenant and client ids
            message = f"No Entra token could be had ({kind}); check the identity and its role."
            raise ConnectError(message) from None
        return _Held(found.token, float(found.expires_on))

    async def _open(self) -> Credential:
        if self._credential is None or (self._credential.done() and self._credential.exception() is not None):
            self._credential = asyncio.create_task(asyncio.to_thread(self._make_credential))
        return await asyncio.shield(self._credential)
