"""Entra tokens: fetched once for all who wait, kept until shortly before they expire."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from shared.adapters.entra import EntraTokens, default_credential
from shared.ports import ConnectError

SCOPE = "https://ai.azure.com/.default"


@dataclass(frozen=True)
class FakeToken:
    """What azure-identity returns."""

    token: str
    expires_on: int


@dataclass
class FakeCredential:
    """Gives numbered tokens that live an hour; waits and fails as it is told."""

    clock: list[float]
    asked: list[str] = field(default_factory=list)
    failure: BaseException | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    async def get_token(self, *scopes: str) -> FakeToken:
        """Return the next token."""
        self.asked.extend(scopes)
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return FakeToken(f"token-{len(self.asked)}", int(self.clock[0]) + 3600)

    async def close(self) -> None:
        """Remember it."""
        self.closed = True


@pytest.fixture
def clock() -> list[float]:
    """Return a clock that is moved by hand."""
    return [1000.0]


@pytest.fixture
def credential(clock: list[float]) -> FakeCredential:
    """Return a credential that answers at once."""
    made = FakeCredential(clock)
    made.gate.set()
    return made


@pytest.fixture
def tokens(credential: FakeCredential, clock: list[float]) -> EntraTokens:
    """Return the source under test."""
    return EntraTokens(lambda: credential, now=lambda: clock[0])


async def test_a_token_is_kept_until_five_minutes_before_it_expires(
    tokens: EntraTokens, credential: FakeCredential, clock: list[float]
) -> None:
    """Two fetches in an hour and a bit, not one per request."""
    assert await tokens.token(SCOPE) == "token-1"
    clock[0] += 3299
    assert await tokens.token(SCOPE) == "token-1"
    clock[0] += 2
    assert await tokens.token(SCOPE) == "token-2"
    assert credential.asked == [SCOPE, SCOPE]


async def test_scopes_have_their_own_tokens(tokens: EntraTokens) -> None:
    """A token for one resource is none for another."""
    assert await tokens.token("a") == "token-1"
    assert await tokens.token("b") == "token-2"
    assert await tokens.token("a") == "token-1"


async def test_callers_at_the_same_time_share_one_fetch(tokens: EntraTokens, credential: FakeCredential) -> None:
    """A thousand requests at start are one request to Entra; one that leaves takes nothing from the others."""
    credential.gate.clear()
    waiting = [asyncio.create_task(tokens.token(SCOPE)) for _ in range(1000)]
    while not credential.asked:
        await asyncio.sleep(0)
    waiting[0].cancel()
    credential.gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == ["token-1"] * 999
    assert credential.asked == [SCOPE]


async def test_no_token_is_a_connection_that_was_never_made(tokens: EntraTokens, credential: FakeCredential) -> None:
    """The message names the kind of failure, never what azure-identity says; the next caller tries again."""
    credential.failure = RuntimeError("client secret canary in tenant 1234")
    with pytest.raises(ConnectError, match="RuntimeError") as caught:
        await tokens.token(SCOPE)
    assert "canary" not in str(caught.value)
    credential.failure = None
    assert await tokens.token(SCOPE) == "token-2"


async def test_a_token_that_still_lives_serves_while_entra_is_down(
    tokens: EntraTokens, credential: FakeCredential, clock: list[float]
) -> None:
    """Renewal begins five minutes early so that a short outage is not felt."""
    await tokens.token(SCOPE)
    credential.failure = RuntimeError("down")
    clock[0] += 3400
    assert await tokens.token(SCOPE) == "token-1"
    clock[0] += 190
    with pytest.raises(ConnectError):
        await tokens.token(SCOPE)


async def test_closing_closes_the_credential(tokens: EntraTokens, credential: FakeCredential) -> None:
    """And ends what is being fetched."""
    await tokens.token(SCOPE)
    credential.gate.clear()
    waiting = asyncio.create_task(tokens.token("other"))
    while "other" not in credential.asked:
        await asyncio.sleep(0)
    await tokens.aclose()
    assert credential.closed
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await tokens.aclose()


async def test_closing_what_was_never_used_imports_nothing() -> None:
    """A process without Entra pays nothing for it."""
    await EntraTokens(lambda: pytest.fail("no credential is needed")).aclose()


async def test_a_credential_that_cannot_be_made_is_tried_again(credential: FakeCredential) -> None:
    """A broken environment is told as such and does not stick."""
    made: list[FakeCredential | None] = [None, credential]

    def make() -> FakeCredential:
        found = made.pop(0)
        if found is None:
            message = "no package"
            raise ImportError(message)
        return found

    tokens = EntraTokens(make)
    with pytest.raises(ConnectError, match="ImportError"):
        await tokens.token(SCOPE)
    assert await tokens.token(SCOPE) == "token-1"


async def test_the_real_credential_has_the_shape_we_use() -> None:
    """azure-identity's asynchronous chain can be made and closed."""
    credential = await asyncio.to_thread(default_credential)
    assert callable(credential.get_token)
    await credential.close()
