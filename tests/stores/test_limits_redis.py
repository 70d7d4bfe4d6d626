"""Rate limits in a real Redis: the same rules, one script for all subjects, and the tables when it is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from shared.adapters.clock import SystemClock
from shared.adapters.redis_limits import RedisLimits, open_redis
from shared.adapters.tables import open_tables
from shared.core.errors import ConfigurationError
from shared.limits import Limited, RateLimits
from shared.ports import Tables
from tests.stores.redis_process import RedisProcess

KEY = Limited("key:key_abc", 60, 10_000)
PROJECT = Limited("project:shop", 3)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    """Return a running Redis."""
    with RedisProcess() as process:
        yield process


@pytest.fixture
async def redis(server: RedisProcess) -> AsyncIterator[RedisLimits]:
    """Return the backend over an empty Redis."""
    backend = open_redis(server.url, SystemClock())
    await backend._client.flushall()
    yield backend
    await backend.aclose()


@pytest.fixture
async def tables() -> AsyncIterator[Tables]:
    """Return a store in memory."""
    store = open_tables("memory:")
    yield store
    await store.aclose()


async def test_all_or_nothing(redis: RedisLimits, tables: Tables) -> None:
    """A refusal by the second subject uses nothing of the first up, and names who refused and for how long."""
    limits = RateLimits(tables, SystemClock(), "one", backend=redis)
    admissions = [await limits.admit((KEY, PROJECT), tokens=10) for _ in range(5)]
    assert [True, True, True, False, False] == [one.allowed for one in admissions]
    assert PROJECT == admissions[-1].refused_by
    assert "requests" == admissions[-1].what
    assert 0 < admissions[-1].retry_after <= 60
    assert ("x-ratelimit-remaining-requests", "0") in admissions[-1].headers
    admission = await limits.admit((KEY,), tokens=10)
    assert ("x-ratelimit-remaining-requests", "56") in admission.headers
    assert ("x-ratelimit-remaining-tokens", "9960") in admission.headers
    assert [] == [entity async for entity in tables.table("limits").query("counters")]


async def test_a_burst_over_several_instances(redis: RedisLimits, server: RedisProcess, tables: Tables) -> None:
    """However many ask at once through two connections, exactly the limit goes."""
    second = open_redis(server.url, SystemClock())
    both = [RateLimits(tables, SystemClock(), name, backend=backend) for name, backend in (("a", redis), ("b", second))]
    limited = Limited("key:burst", 30)
    admissions = await asyncio.gather(*(both[number % 2].admit((limited,), tokens=0) for number in range(40)))
    assert 30 == sum(one.allowed for one in admissions)
    await second.aclose()


@pytest.mark.parametrize("limited", [Limited("key:small", 40), Limited("key:large", 600)])
async def test_all_of_the_limit_goes_at_once(redis: RedisLimits, tables: Tables, limited: Limited) -> None:
    """Whatever its size: what remains is counted down to none, then a refusal says why and for how long."""
    limits = RateLimits(tables, SystemClock(), "one", backend=redis)
    limit = limited.requests_per_minute or 0
    admissions = []
    for _ in range(0, limit + limit // 10 + 10, 8):  # as many as there are connections: none waits for one
        admissions += await asyncio.gather(*(limits.admit((limited,), tokens=1) for _ in range(8)))
    told = [int(dict(one.headers)["x-ratelimit-remaining-requests"]) for one in admissions]
    allowed = [left for left, one in zip(told, admissions, strict=True) if one.allowed]
    assert set(range(limit)) == set(allowed)
    assert limit <= len(allowed) <= limit * 1.04
    refusal = next(one for one in admissions if not one.allowed)
    assert "requests" == refusal.what
    assert 0 < refusal.retry_after <= 60


async def test_all_tokens_of_the_limit_go_at_once(redis: RedisLimits, tables: Tables) -> None:
    """The same for tokens: nine tenths in one request, and the last tenth in the next."""
    limits = RateLimits(tables, SystemClock(), "one", backend=redis)
    limited = Limited("key:tokens", None, 10_000)
    first = await limits.admit((limited,), tokens=9000)
    assert "1000" == dict(first.headers)["x-ratelimit-remaining-tokens"]
    assert "1m0s" == dict(first.headers)["x-ratelimit-reset-tokens"]
    assert not (await limits.admit((limited,), tokens=2500)).allowed
    second = await limits.admit((limited,), tokens=1000)
    assert second.allowed
    assert "0" == dict(second.headers)["x-ratelimit-remaining-tokens"]


async def test_tokens_come_back(redis: RedisLimits, tables: Tables) -> None:
    """A settlement credits what was not used; a release credits the request too."""
    limits = RateLimits(tables, SystemClock(), "one", backend=redis)
    first = await limits.admit((KEY,), tokens=20_000)
    assert not (await limits.admit((KEY,), tokens=1000)).allowed
    limits.settle(first.ticket, 100)
    await limits.flush()
    second = await limits.admit((KEY,), tokens=50)
    assert second.allowed
    limits.release(second.ticket)
    await limits.flush()
    third = await limits.admit((KEY,), tokens=0)
    assert ("x-ratelimit-remaining-requests", "58") in third.headers
    assert ("x-ratelimit-remaining-tokens", "9900") in third.headers


async def test_what_is_kept_goes_away(redis: RedisLimits) -> None:
    """Every key of the script expires, and holds a field for each second of the last minute at most."""
    await redis.admit((KEY,), 10)
    keys = [key async for key in redis._client.scan_iter()]
    assert 2 == len(keys)
    for key in keys:
        assert 0 < await redis._client.ttl(key) <= 121


async def test_a_redis_that_stops_is_replaced_by_the_tables(
    redis: RedisLimits, server: RedisProcess, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    """Frozen and killed, it refuses nobody and holds nobody up; one line in the log; it is used again when it is back."""
    limits = RateLimits(tables, SystemClock(), "one", backend=redis)
    limited = Limited("key:steady", 300)
    assert (await limits.admit((limited,), tokens=0)).allowed
    server.freeze()
    loop = asyncio.get_running_loop()
    with caplog.at_level(logging.WARNING):
        began = loop.time()
        for _ in range(200):
            assert (await limits.admit((limited,), tokens=0)).allowed
        assert loop.time() - began < 30.0  # were each held up for the quarter second that the first one is, it would be 50
        server.thaw()
        server.stop()
        assert (await limits.admit((limited,), tokens=0)).allowed
    assert 1 == len([record for record in caplog.records if "Redis" in record.message])
    server.start()
    await asyncio.sleep(1.1)
    admission = await limits.admit((limited,), tokens=0)
    assert ("x-ratelimit-remaining-requests", "299") in admission.headers
    for row in limits._rows.values():
        await row.flush()
        await row.aclose()


async def test_a_bad_url_is_said_at_once() -> None:
    """What is no URL of a Redis is a configuration error that names the setting."""
    with pytest.raises(ConfigurationError, match="SWITCHYARD_REDIS"):
        open_redis("http://example.com", SystemClock())
