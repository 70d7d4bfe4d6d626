"""The local host's part: dispatching, shedding, timers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from functions.paths import path_pattern, specificity
from local import protocol
from local.mounting import TimerFunction, run_timers
from local.schedule import parse_schedule
from tests.functions.harness import SETTINGS, Edge, functions, running

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}


async def test_what_does_not_exist_is_404_in_openais_shape(edge: Edge) -> None:
    """With a hint where to look."""
    for path in ("/", "/v1", "/v1/nothing", "/v2/chat/completions", "/v1/models/../keys/x/y"):
        reply = await edge.get(path)
        assert (404, "not_found") == (reply.status, reply.error["code"]), path


async def test_a_wrong_method_is_405_and_says_which_are_right(edge: Edge) -> None:
    """Also for paths with parameters."""
    chat, models = await edge.get(CHAT), await edge.call("PATCH", "/v1/models/small")

    assert (405, "POST") == (chat.status, chat.headers["allow"])
    assert (405, "DELETE, GET, POST, PUT") == (models.status, models.headers["allow"])


async def test_a_method_nobody_serves_is_405(edge: Edge) -> None:
    """TRACE reflects nothing."""
    reply = await edge.call("TRACE", CHAT)

    assert (405, "method_not_allowed") == (reply.status, reply.error["code"])


async def test_head_is_get_without_the_body(edge: Edge) -> None:
    """What load balancers ask."""
    reply = await edge.call("HEAD", "/v1/health/live", headers={})

    assert (200, b"") == (reply.status, reply.body)


async def test_beyond_the_cap_requests_are_shed(edge: Edge) -> None:
    """Quickly, with 503 and when to come back; what was admitted is answered."""
    del edge
    async with running(replace(SETTINGS, max_in_flight=5)) as small:
        small.simulator.script({"latency_ms": 300})
        replies = await asyncio.gather(*(small.post(CHAT, HELLO) for _ in range(20)))

    assert 5 == sum(reply.status == 200 for reply in replies)
    shed = next(reply for reply in replies if reply.status == 503)
    assert "overloaded" == shed.error["code"]
    assert "1" == shed.headers["retry-after"]
    assert 0 == small.mounted.in_flight


async def test_a_bug_is_a_500_that_tells_nothing_but_its_id(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The stack is in the log under the request id; the caller learns the id."""

    def broken(*_: object, **__: object) -> None:
        message = "secret detail"
        raise ZeroDivisionError(message)

    monkeypatch.setattr("functions.chat_completions.complete", broken)
    reply = await edge.post(CHAT, HELLO)

    assert (500, "internal_error") == (reply.status, reply.error["code"])
    assert b"secret" not in reply.body
    assert reply.headers["x-request-id"] in reply.error["message"]
    assert reply.headers["x-request-id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("route", "path", "found"),
    [
        ("/v1/models/{*id}", "/v1/models/org/name", {"id": "org/name"}),
        ("/v1/models/{*id}", "/v1/models/", {"id": ""}),
        ("/v1/keys/{id}", "/v1/keys/a/b", None),
        ("/openai/deployments/{model}/embeddings", "/openai/deployments/x.y/embeddings", {"model": "x.y"}),
    ],
)
def test_routes_match_as_the_functions_host_matches_them(route: str, path: str, found: dict[str, str] | None) -> None:
    """One segment, or the rest."""
    match = path_pattern(route).fullmatch(path)

    assert found == (match and match.groupdict())


def test_the_more_specific_route_goes_first() -> None:
    """A literal beats a parameter, a parameter beats the rest."""
    routes = ["/{*path}", "/v1/{id}", "/v1/models", "/v1/{*rest}"]

    assert ["/v1/models", "/v1/{id}", "/v1/{*rest}", "/{*path}"] == sorted(routes, key=specificity)


@pytest.mark.parametrize(
    ("schedule", "moment", "due"),
    [
        ("*/30 * * * * *", datetime(2026, 11, 22, 10, 0, 30, tzinfo=UTC), True),
        ("*/30 * * * * *", datetime(2026, 11, 22, 10, 0, 31, tzinfo=UTC), False),
        ("0 0 9-17 * * 1-5", datetime(2026, 11, 23, 9, 0, 0, tzinfo=UTC), True),
        ("0 0 9-17 * * 1-5", datetime(2026, 11, 22, 9, 0, 0, tzinfo=UTC), False),  # a Sunday
        ("5,10 30/10 * 1 * *", datetime(2026, 11, 1, 3, 50, 10, tzinfo=UTC), True),
    ],
)
def test_schedules_are_read_as_the_functions_host_reads_them(schedule: str, moment: datetime, due: bool) -> None:  # noqa: FBT001
    """Six fields, seconds first, Sunday is 0."""
    assert due == parse_schedule(schedule).due(moment)


@pytest.mark.parametrize("text", ["", "* * * * *", "61 * * * * *", "x * * * * *", "5-1 * * * * *"])
def test_a_schedule_that_makes_no_sense_is_refused(text: str) -> None:
    """Better at the start than never firing."""
    with pytest.raises(ValueError):  # noqa: PT011 - int() words some of them
        parse_schedule(text)


async def test_a_timer_that_fails_is_run_again_and_never_beside_itself() -> None:
    """Its error is logged; a slow one skips a beat."""
    runs: list[float] = []

    async def failing(_: Any) -> None:
        runs.append(asyncio.get_running_loop().time())
        message = "broken"
        raise RuntimeError(message)

    ticking = asyncio.create_task(run_timers([TimerFunction("failing", parse_schedule("* * * * * *"), failing)]))
    await asyncio.sleep(2.2)
    ticking.cancel()
    await asyncio.wait((ticking,))

    assert 2 <= len(runs) <= 3


async def test_the_apps_timers_run(edge: Edge) -> None:
    """Probes and pending writes work on the gateway in use."""
    await edge.post(CHAT, HELLO)
    for timer in functions().timers:
        await timer.bound(edge.engine)(SimpleNamespace(past_due=False))

    assert edge.gateway.health.report(edge.gateway.clock.monotonic())["north/small"].last_failure is None


async def test_a_head_that_never_ends_is_not_waited_for(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that says nothing, and one that drips, are closed; one that is served in time is not."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    port = int(edge.url.rsplit(":", 1)[1])
    silent, _silent = await asyncio.open_connection("127.0.0.1", port)
    drip, drop = await asyncio.open_connection("127.0.0.1", port)
    drop.write(b"GET /v1/health/live HTTP/1.1\r\nhost: x\r\nx-slow: ")
    good, ask = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):
        ask.write(b"GET /v1/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b'{"status":"alive"}' in await good.readuntil(b"}")
        await asyncio.sleep(0.15)

    assert b"HTTP/1.1 408" in await asyncio.wait_for(silent.read(), 1)
    assert b"HTTP/1.1 408" in await asyncio.wait_for(drip.read(), 1)
    for writer in (_silent, drop, ask):
        writer.close()
        await writer.wait_closed()


async def test_an_endless_head_is_refused(edge: Edge) -> None:
    """One endless header, or endless headers: the connection is closed after 64 KiB, and nothing is kept of it."""
    for line in (b"a" * 16, b"x-head: value\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(edge.url.rsplit(":", 1)[1]))
        writer.write(b"GET /v1/health/live HTTP/1.1\r\nhost: x\r\nx-long: b")
        sent = 0
        with contextlib.suppress(ConnectionError):  # what it had not read yet is answered by a reset
            while not reader.at_eof() and sent < 10_000_000:
                writer.write(line * 1_000)
                await writer.drain()
                sent += 16_000
                await asyncio.sleep(0)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        assert sent < 10_000_000
