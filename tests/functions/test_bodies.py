"""Reading a body and noticing that its client has gone, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from functions import bodies
from functions.bodies import read_body
from functions.clients import ClientGoneError, ClientWatch
from shared.core.errors import InvalidRequestError, PayloadTooLargeError


class Channel:
    """A receive channel that says what it was given, and counts; then it is silent until the client leaves."""

    def __init__(self, *parts: bytes, open_end: bool = False) -> None:
        last = len(parts) - 1
        self.messages = [
            {"type": "http.request", "body": part, "more_body": open_end or number < last} for number, part in enumerate(parts)
        ]
        self.received = 0
        self.left = asyncio.Event()

    async def __call__(self) -> MutableMapping[str, Any]:
        """Return the next message."""
        self.received += 1
        if self.messages:
            return self.messages.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}


async def test_parts_are_put_together() -> None:
    """In their order; a body in one part is that part."""
    assert await read_body(Channel(b"ab", b"", b"c"), declared=None, limit=3) == b"abc"
    assert await read_body(Channel(b"abc"), declared=b"3", limit=3) == b"abc"


async def test_a_declared_size_over_the_cap_is_refused_before_anything_is_read() -> None:
    """Not a byte is taken for a body that will be refused, however absurd the number."""
    channel = Channel(b"abcd")
    for declared in (b"4", b"9" * 10_000):
        with pytest.raises(PayloadTooLargeError):
            await read_body(channel, declared=declared, limit=3)
    assert channel.received == 0


async def test_what_comes_is_counted_whatever_was_declared() -> None:
    """A lying Content-Length, or none: the cap holds at the part that passes it."""
    channel = Channel(b"ab", b"cd", b"ef")
    with pytest.raises(PayloadTooLargeError):
        await read_body(channel, declared=b"x", limit=3)
    assert channel.received == 2


async def test_a_client_that_leaves_while_sending_is_gone() -> None:
    """There is nobody to tell that the body was not complete."""
    channel = Channel(b"ab", open_end=True)
    channel.left.set()
    with pytest.raises(ClientGoneError):
        await read_body(channel, declared=None, limit=9)


async def test_a_body_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow sender holds a place for a minute at most."""
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.01)
    with pytest.raises(InvalidRequestError) as refused:
        await read_body(Channel(b"ab", open_end=True), declared=None, limit=9)
    assert refused.value.code == "body_timeout"


async def test_a_watch_ends_the_work_of_a_client_that_left() -> None:
    """And leaves the task as if it had never been cancelled, so that what follows can still wait for things."""
    channel = Channel()
    asyncio.get_running_loop().call_later(0.1, channel.left.set)

    with pytest.raises(ClientGoneError), ClientWatch(channel):
        await asyncio.Event().wait()

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_quick_work_is_never_watched() -> None:
    """The common case pays for a timer only."""
    channel = Channel()
    with ClientWatch(channel):
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)

    assert channel.received == 0


async def test_work_that_ended_is_not_cancelled_by_a_client_that_leaves_later() -> None:
    """The watch ends with its block."""
    channel = Channel()
    with ClientWatch(channel):
        await asyncio.sleep(0.1)
    channel.left.set()
    await asyncio.sleep(0.02)

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
