"""The part that does I/O, over a transport that obeys a script: headers, limits, and what happens to the connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

import pytest

from shared.adapters.providers import http_provider, providers
from shared.core.chat import Chunk, Completion
from shared.core.failures import Failed, FailureKind
from shared.core.registry import Auth, ProviderKind, Secret, Timeouts
from shared.ports import Call, DisconnectedError, HttpRequest, HttpResponse
from tests.providers.conftest import call

K = FailureKind
ANSWER = b'{"choices":[{"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}'
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


@dataclass
class FakeResponse:
    """A response with a scripted body; an exception in it is raised at its place."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    body: tuple[bytes | Exception, ...] = (ANSWER,)
    closed: bool = False
    read_to_the_end: bool = False

    async def read(self, limit: int) -> bytes:
        """Return the body."""
        whole = b""
        for piece in self.body:
            if isinstance(piece, Exception):
                raise piece
            whole += piece
        assert len(whole) <= limit
        return whole

    async def chunks(self, idle: float) -> AsyncGenerator[bytes, None]:
        """Yield the pieces."""
        assert idle > 0
        for piece in self.body:
            if isinstance(piece, Exception):
                raise piece
            yield piece
        self.read_to_the_end = True

    async def aclose(self) -> None:
        """Remember it."""
        self.closed = True


@dataclass
class FakeTransport:
    """Gives the one response and keeps the request."""

    response: FakeResponse
    sent: list[HttpRequest] = field(default_factory=list)
    limits: tuple[float, float] = (0, 0)

    async def send(self, request: HttpRequest, *, connect: float, head: float) -> HttpResponse:
        """Return the response."""
        self.sent.append(request)
        self.limits = (connect, head)
        return self.response

    async def aclose(self) -> None:
        """Hold nothing."""


class Tokens:
    """A source with one token."""

    async def token(self, scope: str) -> str:
        """Return it."""
        return f"token for {scope}"

    async def aclose(self) -> None:
        """Hold nothing."""


def stream_of(*body: bytes | Exception, content_type: str = "text/event-stream") -> FakeResponse:
    """Return a response that streams."""
    return FakeResponse(headers={"content-type": content_type} if content_type else {}, body=body)


async def collect(response: FakeResponse, call: Call) -> tuple[list[Chunk | Failed], FakeTransport]:
    """Read a stream to its end."""
    transport = FakeTransport(response)
    provider = providers(transport, Tokens())[call.provider.kind]
    return [item async for batch in provider.stream(call) for item in batch], transport


async def headers_of(call: Call) -> Mapping[str, str]:
    """Return the headers a call is sent with."""
    transport = FakeTransport(FakeResponse())
    await providers(transport, Tokens())[call.provider.kind].complete(call)
    return transport.sent[0].headers


@pytest.mark.parametrize(
    ("kind", "auth", "expected"),
    [
        (ProviderKind.OPENAI_COMPATIBLE, Auth.BEARER, {"authorization": "Bearer key"}),
        (ProviderKind.OPENAI_COMPATIBLE, Auth.NONE, {}),
        (ProviderKind.AZURE_OPENAI, Auth.API_KEY, {"api-key": "key"}),
        (ProviderKind.AZURE_OPENAI, Auth.BEARER, {"authorization": "Bearer key"}),
        (ProviderKind.AZURE_OPENAI, Auth.ENTRA, {"authorization": "Bearer token for scope"}),
        (ProviderKind.ANTHROPIC, Auth.X_API_KEY, {"x-api-key": "key"}),
        (ProviderKind.ANTHROPIC, Auth.ENTRA, {"authorization": "Bearer token for scope"}),
    ],
)
async def test_credentials(kind: ProviderKind, auth: Auth, expected: dict[str, str]) -> None:
    """Each way to authenticate has its header; a line end at the end of a key, as secret files have it, is left out."""
    headers = await headers_of(call(kind=kind, auth=auth, credential=Secret("key\n"), entra_scope="scope"))
    assert expected == {name: headers[name] for name in ("authorization", "api-key", "x-api-key") if name in headers}


async def test_headers() -> None:
    """The catalog's headers are sent in lower case and win over the protocol's own, not over what the exchange needs."""
    headers = await headers_of(
        call(kind=ProviderKind.ANTHROPIC, headers={"Anthropic-Version": "2030-01-01", "X-Team": "a", "Content-Type": "x"})
    )
    assert headers["anthropic-version"] == "2030-01-01"
    assert headers["x-team"] == "a"
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"] == "req_01JABCDEFGHJKMNPQRSTVWXYZ0"
    assert headers["accept"] == "application/json"
    assert all(name == name.lower() for name in headers)


async def test_every_kind_has_a_provider() -> None:
    """The table is complete."""
    assert set(providers(FakeTransport(FakeResponse()), Tokens())) == set(ProviderKind)


async def test_limits_of_the_head() -> None:
    """A whole answer's head comes when the answer is made; a stream's must come within the first-content limit."""
    limits = Timeouts(connect=1, first_content=2, idle=3, whole=9)
    transport = FakeTransport(FakeResponse())
    await providers(transport, Tokens())[ProviderKind.OPENAI_COMPATIBLE].complete(call(timeouts=limits))
    assert transport.limits == (1, 9)
    _, transport = await collect(stream_of(EVENT, END), call(timeouts=limits, stream=True))
    assert transport.limits == (1, 2)


async def test_a_complete_stream_is_read_to_its_end_and_closed() -> None:
    """So that the connection can be used again."""
    response = stream_of(EVENT, END)
    items, _ = await collect(response, call(stream=True))
    assert [type(item) for item in items] == [Chunk, Chunk]
    assert response.closed
    assert response.read_to_the_end


async def test_a_provider_that_does_not_end_after_done_is_left() -> None:
    """The answer is complete; what follows is not waited for."""
    response = stream_of(EVENT, END, b": more", b": and more")
    items, _ = await collect(response, call(stream=True))
    assert [type(item) for item in items] == [Chunk, Chunk]
    assert response.closed
    assert not response.read_to_the_end


@pytest.mark.parametrize(
    ("response", "kind", "before"),
    [
        (stream_of(EVENT, DisconnectedError("lost")), K.DISCONNECTED, 1),
        (stream_of(EVENT), K.DISCONNECTED, 1),
        (stream_of(), K.DISCONNECTED, 0),
        (stream_of(EVENT, b"data: " + b"x" * 5_000_000), K.RESPONSE_TOO_LARGE, 1),
        (stream_of(ANSWER, content_type="application/json"), K.BAD_RESPONSE, 0),
        (stream_of(b'{"error":{"code":"rate_limit_exceeded"}}', content_type="application/json"), K.RATE_LIMITED, 0),
        (stream_of(b"<html>", content_type="text/html; charset=utf-8"), K.BAD_RESPONSE, 0),
        (FakeResponse(500, {}, (DisconnectedError("lost"),)), K.SERVER_ERROR, 0),
        (FakeResponse(429, {"content-type": "text/event-stream"}, (b"busy",)), K.RATE_LIMITED, 0),
        (FakeResponse(302, {"location": "http://elsewhere"}, (b"",)), K.BAD_RESPONSE, 0),
    ],
)
async def test_streams_that_fail(response: FakeResponse, kind: FailureKind, before: int) -> None:
    """One failure, last, and the connection is given up."""
    items, _ = await collect(response, call(stream=True))
    assert [type(item) for item in items] == [Chunk] * before + [Failed]
    last = items[-1]
    assert isinstance(last, Failed)
    assert kind == last.kind
    assert response.closed


async def test_a_stream_without_a_content_type_is_read() -> None:
    """Some local servers send none."""
    items, _ = await collect(stream_of(EVENT, END, content_type=""), call(stream=True))
    assert [type(item) for item in items] == [Chunk, Chunk]


async def test_a_stream_has_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless stream of small events is cut."""
    monkeypatch.setattr(http_provider, "MAX_STREAM", 10 * len(EVENT))
    items, _ = await collect(stream_of(*[EVENT] * 20), call(stream=True))
    assert len(items) == 11
    last = items[-1]
    assert isinstance(last, Failed)
    assert last.kind is K.RESPONSE_TOO_LARGE


async def test_events_that_came_together_travel_together() -> None:
    """One list for each piece of the body that completes an event: nothing is held back, no list is empty."""
    response = stream_of(EVENT + EVENT, EVENT[:9], EVENT[9:] + END)
    stream = providers(FakeTransport(response), Tokens())[ProviderKind.OPENAI_COMPATIBLE].stream(call(stream=True))
    assert [len(batch) async for batch in stream] == [2, 2]


async def test_leaving_a_stream_closes_the_response() -> None:
    """The transport then drops the connection."""
    response = stream_of(EVENT, EVENT, END)
    stream = providers(FakeTransport(response), Tokens())[ProviderKind.OPENAI_COMPATIBLE].stream(call(stream=True))
    await anext(stream)
    await stream.aclose()
    assert response.closed


async def test_a_refusal_whose_body_breaks_is_still_a_refusal() -> None:
    """The status alone says enough."""
    response = FakeResponse(429, {"retry-after": "7"}, (DisconnectedError("lost"),))
    provider = providers(FakeTransport(response), Tokens())[ProviderKind.OPENAI_COMPATIBLE]
    found = await provider.complete(call())
    assert isinstance(found, Failed)
    assert (found.kind, found.retry_after) == (K.RATE_LIMITED, 7)
    assert response.closed


async def test_what_a_protocol_cannot_carry_is_never_sent() -> None:
    """Whole or streamed, nothing leaves the machine."""
    bad = call({"messages": [{"role": "user", "content": "x"}], "n": 2}, kind=ProviderKind.ANTHROPIC)
    transport = FakeTransport(FakeResponse())
    provider = providers(transport, Tokens())[ProviderKind.ANTHROPIC]
    found = await provider.complete(bad)
    streamed = [item async for batch in provider.stream(bad) for item in batch]
    assert isinstance(found, Failed)
    assert (found.kind, found.param) == (K.INVALID_REQUEST, "n")
    assert streamed == [found]
    assert transport.sent == []


async def test_a_whole_answer() -> None:
    """The shortest way through."""
    provider = providers(FakeTransport(FakeResponse()), Tokens())[ProviderKind.OPENAI_COMPATIBLE]
    assert isinstance(await provider.complete(call()), Completion)
