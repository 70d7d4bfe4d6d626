"""Each scripted fault, as a client sees it on the wire: these tests read sockets, not objects."""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientSession
from openai import AsyncAzureOpenAI

from local.simulator import Fault, FaultKind, Simulator
from local.simulator.openai_dialect import _PROBLEMS
from local.simulator.plans import _DEAD, _SHAPED

CHAT = "/p/v1/chat/completions"
MESSAGES = "/a/v1/messages"
CLAUDE = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


async def wire(simulator: Simulator, *, path: str = CHAT, stream: bool = False, wait: float = 10.0) -> tuple[list[bytes], str]:
    """Send one request on a raw socket; return the pieces as they came, and how it ended: eof, reset or silence."""
    reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
    body = json.dumps({**BODY, "stream": stream, "max_tokens": 60}).encode()
    headers = "".join(f"{name}: {value}\r\n" for name, value in {**CLAUDE, "content-length": len(body)}.items())
    writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n".encode() + body)
    pieces: list[bytes] = []
    ending = "silence"
    try:
        async with asyncio.timeout(wait):
            while piece := await reader.read(65536):
                pieces.append(piece)
        ending = "eof"
    except TimeoutError:
        ending = "silence"
    except ConnectionResetError:
        ending = "reset"
    writer.transport.abort()
    return pieces, ending


async def events(http: ClientSession, path: str = CHAT) -> list[str]:
    """Return the data of each event of a streamed answer."""
    async with http.post(path, json={**BODY, "stream": True, "max_tokens": 60}, headers=CLAUDE) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        lines = (await response.text()).splitlines()
    return [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]


def test_every_fault_is_performed() -> None:
    """Each kind of fault has one place where it is made."""
    special = {FaultKind.OK, FaultKind.HANG_AFTER_HEADERS, FaultKind.REDIRECT, FaultKind.BAD_GATEWAY_HTML}
    assert set(FaultKind) == {*_PROBLEMS, *_SHAPED, *_DEAD, *special}


STATUSES = {
    "rate_limited_none": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "bad_gateway_html": 502,
    "unavailable": 503,
    "gateway_timeout": 504,
    "overloaded": 529,
    "request_timeout": 408,
    "unauthorized": 401,
    "forbidden": 403,
    "deployment_not_found": 404,
    "gone": 410,
    "invalid_request": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "redirect": 307,
}


@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/z/openai/deployments/d/chat/completions?api-version=1"])
@pytest.mark.parametrize("fault", STATUSES)
async def test_statuses(simulator: Simulator, http: ClientSession, path: str, fault: str) -> None:
    """An error status comes with the protocol's error object, costs nothing and is logged under its name."""
    simulator.script({"faults": [fault]})
    headers = {**CLAUDE, "api-key": "k"}
    async with http.post(path, json={**BODY, "max_tokens": 9}, headers=headers, allow_redirects=False) as response:
        text = await response.text()
    expected = 400 if (fault, path) == ("insufficient_quota", MESSAGES) else STATUSES[fault]
    assert expected == response.status
    if response.content_type == "application/json":
        assert json.loads(text)["error"]["message"]
    attempt = simulator.log()[0]
    assert (attempt.fault, attempt.status, attempt.outcome) == (fault, expected, "failed")
    assert attempt.billed.input_tokens == 0


async def test_retry_hints(simulator: Simulator, http: ClientSession) -> None:
    """The four kinds of 429 give seconds, milliseconds, a date and nothing; 503 gives seconds."""
    kinds = ["rate_limited_s", "rate_limited_ms", "rate_limited_date", "rate_limited_none", "unavailable"]
    simulator.script({"faults": [{"kind": kind, "retry_after_s": 7} for kind in kinds]})
    hints = []
    for _ in kinds:
        async with http.post(CHAT, json=BODY) as response:
            hints.append((response.headers.get("retry-after"), response.headers.get("retry-after-ms")))
    date = hints.pop(2)[0]
    assert hints == [("7", None), ("7", "7000"), (None, None), ("7", None)]
    assert 5 <= parsedate_to_datetime(date or "").timestamp() - time.time() <= 8


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "ending", "head"),
    [
        ("hang_before_headers", "silence", False),
        ("hang_after_headers", "silence", True),
        ("hang_mid_stream", "silence", True),
        ("reset_before_headers", "reset", False),
        ("close_before_headers", "eof", False),
        ("reset_mid_stream", "reset", True),
        ("cut_mid_stream", "eof", True),
        ("ends_mid_stream", "eof", True),
    ],
)
async def test_connections(simulator: Simulator, fault: str, ending: str, head: bool, stream: bool) -> None:  # noqa: FBT001
    """Connections hang, are reset or close where the script says: before the head, after it, or in the middle."""
    simulator.script({"faults": [fault]})
    pieces, ended = await wire(simulator, stream=stream, wait=0.6 if ending == "silence" else 10)
    received = b"".join(pieces)
    assert ended == ending
    assert head == received.startswith(b"HTTP/1.1 200")
    assert b"[DONE]" not in received
    half_way = fault.endswith("mid_stream")
    assert half_way == (b"simulated" in received or b"chatcmpl" in received)


async def test_cut_stream_is_billed_for_what_was_sent(simulator: Simulator) -> None:
    """A broken stream bills the input and the tokens that went out, fewer than the whole answer's."""
    simulator.script({"faults": [{"kind": "cut_mid_stream", "after_events": 2}, {"kind": "cut_mid_stream"}, "no_done"]})
    for _ in range(3):
        await wire(simulator, stream=True)
    two, three, all_of_it = (attempt.billed for attempt in simulator.log())
    assert two.input_tokens == three.input_tokens == all_of_it.input_tokens == 6
    assert 0 < two.output_tokens < three.output_tokens < all_of_it.output_tokens


async def test_clean_end_is_not_a_cut(simulator: Simulator) -> None:
    """ends_mid_stream finishes the HTTP body, cut_mid_stream does not."""
    simulator.script({"faults": ["ends_mid_stream", "cut_mid_stream"]})
    clean, _ = await wire(simulator, stream=True)
    cut, _ = await wire(simulator, stream=True)
    assert b"".join(clean).endswith(b"0\r\n\r\n")
    assert not b"".join(cut).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("fault", ["garbage", "truncated_json", "wrong_content_type"])
async def test_unreadable_bodies(simulator: Simulator, http: ClientSession, fault: str) -> None:
    """A 200 whose body cannot be read as JSON; the provider bills it all the same."""
    simulator.script({"faults": [fault]})
    async with http.post(CHAT, json=BODY) as response:
        assert response.status == 200
        assert (response.content_type == "text/html") == (fault == "wrong_content_type")
        with pytest.raises(ValueError, match=r"."):
            json.loads(await response.read())
    assert simulator.log()[0].billed.output_tokens > 0


@pytest.mark.parametrize("fault", ["garbage", "truncated_json"])
async def test_unreadable_events(simulator: Simulator, http: ClientSession, fault: str) -> None:
    """A stream one of whose events is not JSON."""
    simulator.script({"faults": [fault]})
    async with http.post(CHAT, json={**BODY, "stream": True}) as response:
        last = (await response.read()).strip().split(b"\n\n")[-1]
    with pytest.raises(ValueError, match=r"."):
        json.loads(last.removeprefix(b"data:"))


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_errors_inside_200(simulator: Simulator, http: ClientSession, path: str) -> None:
    """The error is the body, the stream's first event, or an event after some content."""
    simulator.script({"faults": ["error_in_body", "error_first_event", "error_mid_stream"]})
    async with http.post(path, json={**BODY, "max_tokens": 60}, headers=CLAUDE) as response:
        assert response.status == 200
        assert "error" in await response.json()
    first = await events(http, path)
    assert ["error" in json.loads(event) for event in first] == [True]
    middle = await events(http, path)
    assert ["error" in json.loads(event) for event in middle] == [*[False] * (len(middle) - 1), True]
    assert len(middle) > 3
    assert [0, 0] == [attempt.billed.input_tokens for attempt in simulator.log()[:2]]


async def test_missing_ends(simulator: Simulator, http: ClientSession) -> None:
    """no_done lacks only the terminator; a good stream has it."""
    simulator.script({"faults": [None, "no_done", None, "no_done"]})
    good, bad = await events(http), await events(http)
    assert good[-1] == "[DONE]"
    assert "[DONE]" not in bad
    assert len(bad) == len(good) - 1
    good, bad = await events(http, MESSAGES), await events(http, MESSAGES)
    assert json.loads(good[-1])["type"] == "message_stop"
    assert json.loads(bad[-1])["type"] == "message_delta"


async def test_empty_choices(simulator: Simulator, http: ClientSession) -> None:
    """No choice, no content block and no vector, whole and streamed."""
    simulator.script({"faults": [{"kind": "empty_choices", "times": 5}]})
    async with http.post(CHAT, json=BODY) as response:
        assert (await response.json())["choices"] == []
    async with http.post("/p/v1/embeddings", json={"model": "m", "input": "x"}) as response:
        assert (await response.json())["data"] == []
    async with http.post(MESSAGES, json={**BODY, "max_tokens": 9}, headers=CLAUDE) as response:
        assert (await response.json())["content"] == []
    assert await events(http) == ["[DONE]"]
    kinds = [json.loads(event)["type"] for event in await events(http, MESSAGES)]
    assert kinds == ["message_start", "message_delta", "message_stop"]


@pytest.mark.parametrize("stream", [False, True])
async def test_huge_body(simulator: Simulator, http: ClientSession, stream: bool) -> None:  # noqa: FBT001
    """The body is as long as the script says, and stops when the client has had enough."""
    simulator.script({"faults": [{"kind": "huge_body", "size_bytes": 200_000}, {"kind": "huge_body"}]})
    async with http.post(CHAT, json={**BODY, "stream": stream}) as response:
        assert 200_000 < len(await response.read()) < 200_100
    async with http.post(CHAT, json={**BODY, "stream": stream}) as response:
        await response.content.readexactly(100_000)
        response.close()
    await _until(lambda: simulator.log()[1].disconnected)


async def test_usage_missing(simulator: Simulator, http: ClientSession) -> None:
    """The answer is whole, usage is nowhere, and it is billed nevertheless."""
    simulator.script({"faults": [{"kind": "usage_missing", "times": 4}]})
    async with http.post(CHAT, json=BODY) as response:
        assert "usage" not in await response.text()
    async with http.post(MESSAGES, json={**BODY, "max_tokens": 60}, headers=CLAUDE) as response:
        assert "usage" not in await response.text()
    for path in (CHAT, MESSAGES):
        assert all("usage" not in event for event in await events(http, path))
    assert all(attempt.billed.output_tokens > 0 for attempt in simulator.log())
    assert {"answered"} == {attempt.outcome for attempt in simulator.log()}


async def test_filtered_output(simulator: Simulator, http: ClientSession) -> None:
    """The finish reason says that the output was filtered, whole and streamed."""
    simulator.script({"faults": [{"kind": "filtered_output", "times": 4}]})
    async with http.post(CHAT, json=BODY) as response:
        assert (await response.json())["choices"][0]["finish_reason"] == "content_filter"
    assert any("content_filter" in event for event in await events(http))
    async with http.post(MESSAGES, json={**BODY, "max_tokens": 60}, headers=CLAUDE) as response:
        assert (await response.json())["stop_reason"] == "refusal"
    assert any("refusal" in event for event in await events(http, MESSAGES))


@pytest.mark.parametrize("stream", [False, True])
async def test_emoji_is_split_between_segments(simulator: Simulator, stream: bool) -> None:  # noqa: FBT001
    """Some piece is not UTF-8 by itself, and all of them together are."""
    simulator.script({"faults": ["emoji_split"]})
    pieces, ended = await wire(simulator, stream=stream)
    assert ended == "eof"
    assert any(_is_broken_utf8(piece) for piece in pieces)
    text = b"".join(pieces)
    if not stream:
        assert "🙂🚂👩‍🔧" in text.decode()


async def test_every_byte_alone_is_the_same_stream(simulator: Simulator, http: ClientSession) -> None:
    """Cutting the stream at every byte changes nothing in it; nor does dripping."""
    simulator.script({"faults": [None, "split_every_byte", {"kind": "slow_drip", "delay_ms": 0}]})
    good, split, dripped = await events(http), await events(http), await events(http)
    texts = [[_delta(event) for event in each] for each in (good, split, dripped)]
    assert texts[0] == texts[1] == texts[2]


async def test_slow_drip_takes_its_time(simulator: Simulator) -> None:
    """A dripping body comes a byte at a time, for as long as someone listens."""
    simulator.script({"faults": [{"kind": "slow_drip", "delay_ms": 20}]})
    pieces, ended = await wire(simulator, stream=True, wait=0.3)
    assert ended == "silence"
    assert 1 < len(pieces) < 40


async def test_slow(simulator: Simulator, http: ClientSession) -> None:
    """A slow answer is late and good."""
    simulator.script({"faults": [{"kind": "slow", "delay_ms": 120}]})
    started = time.monotonic()
    async with http.post(CHAT, json=BODY) as response:
        assert (await response.json())["choices"]
    assert time.monotonic() - started >= 0.12


async def test_odd_events(simulator: Simulator, http: ClientSession) -> None:
    """A stream with everything the format allows carries the same data."""
    simulator.script({"faults": [None, "sse_odd"]})
    good, odd = await events(http), await events(http)
    assert [_delta(event) for event in good] == [_delta(event) for event in odd]


async def test_late_filter_verdicts(simulator: Simulator, azure: AsyncAzureOpenAI) -> None:
    """Between the pieces come choices without a delta; the text is the same."""
    simulator.script({"faults": [None, "async_filter"]})
    texts = []
    for _ in range(2):
        stream = await azure.chat.completions.create(model="m", messages=BODY["messages"], stream=True)
        choices = [chunk.choices[0] async for chunk in stream if chunk.choices]
        texts.append("".join(choice.delta.content or "" for choice in choices if getattr(choice, "delta", None)))
    assert texts[0] == texts[1]
    assert any(getattr(choice, "delta", None) is None for choice in choices)


async def test_dropped_client_is_noticed(simulator: Simulator) -> None:
    """A client that leaves while it is kept waiting is logged as disconnected, and billed for what it was sent."""
    simulator.script({"faults": ["hang_before_headers", "hang_mid_stream"], "chunk_gap_ms": 1})
    for _ in range(2):
        await wire(simulator, stream=True, wait=0.1)
    await _until(lambda: all(attempt.disconnected for attempt in simulator.log()))
    before, middle = simulator.log()
    assert before.billed.input_tokens == 0
    assert middle.billed.input_tokens == 6
    assert 0 < middle.billed.output_tokens < 60


async def test_closing_lets_go_of_hanging_clients(simulator: Simulator) -> None:
    """Stopping the simulator ends hanging requests at once; they are not the client's fault."""
    simulator.script({"faults": ["hang_before_headers"]})
    asking = asyncio.create_task(wire(simulator))
    await _until(lambda: bool(simulator.log()))
    async with asyncio.timeout(30):  # it hangs for good
        await simulator.aclose()
    assert (await asking)[1] in {"eof", "reset"}
    assert not simulator.log()[0].disconnected


async def test_faults_given_as_values(simulator: Simulator, http: ClientSession) -> None:
    """In Python a fault may be a `Fault`; its message replaces the error's text."""
    simulator.script({"faults": [Fault(FaultKind.SERVER_ERROR, message="out of steam")]})
    async with http.post(CHAT, json=BODY) as response:
        assert (await response.json())["error"]["message"] == "out of steam"


async def test_bad_api_use_is_not_a_fault(simulator: Simulator, http: ClientSession) -> None:
    """A request that no provider would take is refused, although a fault was due."""
    simulator.script({"faults": ["garbage"]})
    async with http.post(CHAT, json={"model": "m"}) as response:
        assert response.status == 400
    assert simulator.log()[0].outcome == "refused"


def _delta(event: str) -> str:
    if event == "[DONE]":
        return event
    choices = json.loads(event)["choices"]
    return str(choices[0]["delta"].get("content")) if choices else "usage"


def _is_broken_utf8(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return True
    return False


async def _until(condition: Any, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def test_no_fault_leaks_into_the_next_request(simulator: Simulator, http: aiohttp.ClientSession) -> None:
    """After each kind of fault the next request on the profile is answered."""
    for kind in FaultKind:
        simulator.script({"faults": [{"kind": kind, "size_bytes": 1000, "delay_ms": 0}]})
        try:
            async with http.post(CHAT, json=BODY, timeout=aiohttp.ClientTimeout(0.1), allow_redirects=False) as first:
                await first.read()
        except (aiohttp.ClientError, TimeoutError):
            pass
        async with http.post(CHAT, json=BODY) as second:
            assert (await second.json())["choices"], kind
