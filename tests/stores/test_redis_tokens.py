"""Logging in to Redis with tokens of an identity, as Azure Managed Redis wants it: a real Redis, its users, no passwords."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from shared.adapters import redis_limits
from shared.adapters.redis_limits import PAUSE_SECONDS, SCOPE, RedisLimits, open_redis
from shared.core.errors import ConfigurationError
from shared.core.limits import Limited
from shared.ports import ConnectError
from tests.fakes import FakeClock
from tests.stores.redis_process import RedisProcess

IDENTITY = "aaaaaaaa-1111-2222-3333-444444444444"
KEY = Limited("key:abc", 60)


class Tokens:
    """A source whose token is set, or has none."""

    def __init__(self) -> None:
        self.held: str | None = "first"
        self.asked: list[str] = []

    async def token(self, scope: str) -> str:
        """Return the token."""
        self.asked.append(scope)
        if self.held is None:
            message = "No Entra token could be had"
            raise ConnectError(message)
        return self.held

    async def aclose(self) -> None:
        """Hold nothing."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine take its time: here it is told who may log in, not how fast Redis is."""
    monkeypatch.setattr(redis_limits, "WAIT_SECONDS", 10.0)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    """Return a running Redis."""
    with RedisProcess() as process:
        yield process


@pytest.fixture
async def admin(server: RedisProcess) -> AsyncIterator[Redis]:
    """Return a client that may do all, on an empty Redis that knows the identity by its first token."""
    client = Redis.from_url(server.url)
    await client.flushall()
    await client.acl_setuser(IDENTITY, enabled=True, passwords=["+first"], keys=["*"], commands=["+@all"], reset=True)
    yield client
    await client.aclose()


@pytest.fixture
async def opened(server: RedisProcess, admin: Redis) -> AsyncIterator[tuple[RedisLimits, Tokens, FakeClock]]:
    """Return the backend that logs in as the identity."""
    assert await admin.ping()
    tokens, clock = Tokens(), FakeClock()
    backend = open_redis(server.url.replace("//", f"//{IDENTITY}@"), clock, tokens=tokens)
    yield backend, tokens, clock
    await backend.aclose()


async def test_the_identity_logs_in_with_its_token(opened: tuple[RedisLimits, Tokens, FakeClock]) -> None:
    """The user is the one of the URL, the password a token for Redis; requests are counted."""
    backend, tokens, _ = opened
    verdict = await backend.admit((KEY,), 0)
    assert verdict is not None
    assert 59 == verdict.standings[0].remaining
    assert IDENTITY == await backend._client.acl_whoami()
    assert {SCOPE} == set(tokens.asked)


async def test_a_new_token_takes_over(opened: tuple[RedisLimits, Tokens, FakeClock], admin: Redis) -> None:
    """When the token changes and the old one ends with its connections, no request goes uncounted."""
    backend, tokens, _ = opened
    assert await backend.admit((KEY,), 0) is not None
    await admin.acl_setuser(IDENTITY, enabled=True, passwords=["+second"])
    tokens.held = "second"
    verdicts = await asyncio.gather(*(backend.admit((KEY,), 0) for _ in range(8)))
    assert None not in verdicts
    await admin.acl_setuser(IDENTITY, enabled=True, passwords=["-first"])
    left = []
    for held in ("third", "fourth", "fifth"):  # the client before the one before is closed
        await admin.acl_setuser(IDENTITY, enabled=True, passwords=[f"+{held}"])
        await admin.client_kill_filter(user=IDENTITY)  # as Azure does when a token ends
        tokens.held = held
        verdict = await backend.admit((KEY,), 0)
        assert verdict is not None
        left.append(verdict.standings[0].remaining)
    assert [60 - 1 - 8 - 1, 49, 48] == left


async def test_without_a_token_the_caller_is_told(opened: tuple[RedisLimits, Tokens, FakeClock]) -> None:
    """No token, or a wrong one, is a Redis that does not answer: nothing is raised, and it is asked again after the pause."""
    backend, tokens, clock = opened
    for held in (None, "wrong"):
        tokens.held = held
        assert await backend.admit((KEY,), 0) is None
        clock.seconds += PAUSE_SECONDS
    tokens.held = "first"
    assert await backend.admit((KEY,), 0) is not None


@pytest.mark.usefixtures("admin")
async def test_a_password_needs_no_token(server: RedisProcess) -> None:
    """Who writes a password into the URL logs in with that."""
    tokens = Tokens()
    backend = open_redis(server.url.replace("//", f"//{IDENTITY}:first@"), FakeClock(), tokens=tokens)
    assert await backend.admit((KEY,), 0) is not None
    assert IDENTITY == await backend._client.acl_whoami()
    assert [] == tokens.asked
    await backend.aclose()


async def test_a_token_is_never_sent_in_the_clear() -> None:
    """Without TLS, and to another machine, is a configuration error that says what to write."""
    with pytest.raises(ConfigurationError, match="rediss://"):
        open_redis(f"redis://{IDENTITY}@redis.example.com:10000/0", FakeClock(), tokens=Tokens())
    backend = open_redis(f"rediss://{IDENTITY}@redis.example.com:10000/0", FakeClock(), tokens=Tokens())
    await backend.aclose()
