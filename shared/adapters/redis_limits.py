"""Rate limits in Redis: one script decides for all subjects of a request at once, by the clock of Redis.

The same rule as in an exact row, whatever the limit's size (`shared.core.limits`): a guard over the last minute, here in steps
of a quarter of a second, and a bucket of the whole limit. One hash for each limit, gone two minutes after its last use. The
keys share a hash tag, so that a cluster keeps them together, as a script needs.

Redis is never required: not answered within `WAIT_SECONDS`, the caller is told so, and Redis is left alone for
`PAUSE_SECONDS`, so that a frozen one does not hold up every request.

A URL with a user and no password (`rediss://OBJECT-ID@host:10000/0`) is logged in to with Entra tokens, as Azure Managed Redis
takes them: the user is the object id of the process's identity, the password its token. Redis ends a connection with the token
that opened it, so a new token is a new client; the one before it finishes what it has begun.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from shared.core.errors import ConfigurationError
from shared.core.limits import Gauge, Limited, Standing, Verdict, What
from shared.ports import TransportError

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.ports import Clock, TokenSource

PREFIX: Final = "{switchyard}:limit:"
WAIT_SECONDS: Final = 0.2
PAUSE_SECONDS: Final = 1.0
SCOPE: Final = "https://redis.azure.com/.default"
"""What tokens for Azure Managed Redis are asked for."""
MAX_CONNECTIONS: Final = 8
"""A call holds one for well under a millisecond; more wait their turn rather than connect."""

_KINDS: Final[tuple[What, ...]] = ("requests", "tokens")

_log = logging.getLogger(__name__)

_ADMIT: Final = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local tick = math.floor(now * 4)
local found, refused, longest = {}, 0, 0
for number, key in ipairs(KEYS) do
  local base = (number - 1) * 5
  local limit, burst, cap = tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2]), tonumber(ARGV[base + 3])
  local amount, need = tonumber(ARGV[base + 4]), tonumber(ARGV[base + 5])
  local rate = limit / 60
  local level, at, total, late, newest, ticks = 0, now, 0, 0, 0, {}
  local fields = redis.call('HGETALL', key)
  for index = 1, #fields, 2 do
    local name, value = fields[index], tonumber(fields[index + 1])
    if name == 'level' then level = value
    elseif name == 'at' then at = value
    elseif tonumber(name) <= tick - 242 then redis.call('HDEL', key, name)
    else
      total = total + value
      if tonumber(name) == tick - 241 then late = late + value end
      table.insert(ticks, {tonumber(name), value})
      if value > 0 then newest = math.max(newest, tonumber(name)) end
    end
  end
  level = math.max(0, level - math.max(0, now - at) * rate)
  local wait = math.max(0, (level + need - burst) / rate)
  if wait < 0.000001 then wait = 0 end
  local excess = total + amount - cap
  if cap == limit and level + amount <= 1.000001 then excess = excess - late end
  if excess > 0 then
    table.sort(ticks, function(a, b) return a[1] < b[1] end)
    for _, one in ipairs(ticks) do
      if excess > 0 then
        excess = excess - one[2]
        wait = math.max(wait, math.min(60, (one[1] + 242) / 4 - now))
      end
    end
  end
  if wait > longest then longest = wait; refused = number end
  found[number] = {key=key, level=level, amount=amount, total=total, newest=newest, limit=limit, burst=burst}
end
local told = {}
for _, one in ipairs(found) do
  if refused == 0 then
    one.level, one.total = one.level + one.amount, one.total + one.amount
    if one.amount > 0 then one.newest = tick end
    redis.call('HSET', one.key, 'level', one.level, 'at', string.format('%.6f', now))
    redis.call('HINCRBY', one.key, tick, one.amount)
    redis.call('EXPIRE', one.key, 121)
  end
  local room = math.min(one.burst - one.level, one.limit - one.total)
  local reset = math.max(one.level * 60 / one.limit, math.min(60, (one.newest + 242) / 4 - now))
  table.insert(told, math.max(0, math.floor(room + 0.000001)))
  table.insert(told, tostring(math.max(0, reset)))
end
return {refused, tostring(longest), tick, unpack(told)}
"""

_CREDIT: Final = """
for number, key in ipairs(KEYS) do
  local amount = tonumber(ARGV[number + 1])
  if redis.call('HEXISTS', key, ARGV[1]) == 1 then
    redis.call('HINCRBY', key, ARGV[1], -amount)
    local level = tonumber(redis.call('HGET', key, 'level')) - amount
    redis.call('HSET', key, 'level', math.max(0, level))
  end
end
return 1
"""


def open_redis(url: str, clock: Clock, *, tokens: TokenSource | None = None) -> RedisLimits:
    """Open the backend; connects at the first request. ``url``: ``redis://…``, ``rediss://…`` (TLS) or ``unix://…``.

    ``tokens`` log in where the URL names a user and no password.
    Raise `ConfigurationError` when the URL can't be used or the redis package is not installed.
    """
    try:
        from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415  # an optional extra: only who sets the URL needs it
    except ImportError as error:
        message = "SWITCHYARD_REDIS is set but the redis package is not installed: pip install -r requirements-redis.txt"
        raise ConfigurationError(message, problems=[message]) from error

    def connect(token: str | None) -> Redis:
        pool = BlockingConnectionPool.from_url(
            address,
            socket_timeout=WAIT_SECONDS,
            socket_connect_timeout=WAIT_SECONDS,
            max_connections=MAX_CONNECTIONS,
            timeout=WAIT_SECONDS,
            **({} if token is None else {"username": user, "password": token}),
        )
        return Redis.from_pool(pool)

    try:
        address, user = (url, None) if tokens is None else _without_user(url)
        return RedisLimits(connect, clock, tokens=None if user is None else tokens)
    except ValueError as error:
        message = "SWITCHYARD_REDIS must be a URL such as redis://host:6379/0 or rediss://:password@host:6380/0"
        raise ConfigurationError(message, problems=[message]) from error


def _without_user(url: str) -> tuple[str, str | None]:
    """Split off a user without a password; None when there is no such: who has a password needs no token."""
    parts = urlsplit(url)
    if not parts.username or parts.password is not None:
        return url, None
    if parts.scheme == "redis" and parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
        message = "SWITCHYARD_REDIS has a user without a password, so a token would be sent: use rediss://, which encrypts it"
        raise ConfigurationError(message, problems=[message])
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), unquote(parts.username)


class RedisLimits:
    """`LimitBackend` over Redis. ``connect`` opens a client with a token, or with what the URL says."""

    def __init__(self, connect: Callable[[str | None], Redis], clock: Clock, *, tokens: TokenSource | None = None) -> None:
        self._connect = connect
        self._clock = clock
        self._tokens = tokens
        self._token: str | None = None
        self._client = connect(None)
        self._before: Redis | None = None
        self._admit = self._client.register_script(_ADMIT)
        self._credit = self._client.register_script(_CREDIT)
        self._away_until = float("-inf")

    async def admit(self, limits: Sequence[Limited], tokens: int) -> Verdict | None:
        """Count one request against all limits, or none; None when Redis does not answer. Never raises."""
        asked: list[tuple[int, What, Gauge]] = []
        keys: list[str] = []
        arguments: list[float] = []
        for place, limited in enumerate(limits):
            for what in _KINDS:
                limit = limited.limit(what)
                if limit is None:
                    continue
                gauge = Gauge(limit)
                amount = 1 if what == "requests" else gauge.charge(tokens)
                asked.append((place, what, gauge))
                keys.append(_key(limited, what))
                arguments += (limit, gauge.burst, gauge.cap, amount, gauge.need(amount))
        answer = await self._call(self._admit, keys, arguments)
        return None if answer is None else _verdict(answer, asked)

    async def credit(self, limits: Sequence[Limited], *, requests: int, tokens: int, tick: int) -> None:
        """Take back part of what was counted. Never raises."""
        amounts: dict[What, int] = {"requests": requests, "tokens": tokens}
        pairs = [
            (_key(limited, what), amounts[what])
            for limited in limits
            for what in _KINDS
            if limited.limit(what) is not None and amounts[what]
        ]
        if pairs:
            await self._call(self._credit, [key for key, _ in pairs], [tick, *(amount for _, amount in pairs)])

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        if self._before is not None:
            await self._before.aclose()

    async def _call(self, script: Any, keys: list[str], arguments: Sequence[float]) -> list[Any] | int | None:
        from redis.exceptions import RedisError  # noqa: PLC0415  # as above

        now = self._clock.monotonic()
        if now < self._away_until:
            return None
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                client = await self._logged_in()
                answer: list[Any] | int = await script(keys=keys, args=list(arguments), client=client)
        except (RedisError, TransportError, OSError, TimeoutError) as error:
            self._away_until = self._clock.monotonic() + PAUSE_SECONDS
            _log.debug("Redis did not answer: %s", type(error).__name__)
            return None
        return answer

    async def _logged_in(self) -> Redis:
        """Return the client that has the present token; raise `TransportError` when there is none."""
        if self._tokens is None:
            return self._client
        token = await self._tokens.token(SCOPE)
        if token != self._token:
            finished, self._before = self._before, self._client
            self._client, self._token = self._connect(token), token
            if finished is not None:
                await finished.aclose()
        return self._client


def _key(limited: Limited, what: What) -> str:
    return f"{PREFIX}{limited.subject}:{what}"


def _verdict(answer: list[Any] | int, asked: list[tuple[int, What, Gauge]]) -> Verdict | None:
    if not isinstance(answer, list) or len(answer) != 3 + 2 * len(asked):
        return None
    refused, wait, tick, *told = answer
    standings = tuple(
        Standing(what, gauge.limit, int(remaining), float(reset))
        for (_, what, gauge), remaining, reset in zip(asked, told[::2], told[1::2], strict=True)
    )
    if not refused:
        return Verdict(tick=int(tick), standings=standings)
    place, what, _ = asked[int(refused) - 1]
    mine = tuple(standing for (owner, _, _), standing in zip(asked, standings, strict=True) if owner == place)
    return Verdict(refused=place, what=what, retry_after=float(wait), tick=int(tick), standings=mine)
