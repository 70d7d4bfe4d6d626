"""The transport against servers that behave: what is sent, what comes back, how connections are kept, proxies."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import pytest

from shared.adapters.transport import open_transport
from shared.ports import (
    ConnectError,
    DisconnectedError,
    HttpRequest,
    HttpTransport,
    ResponseTooLargeError,
    TransportTimeoutError,
)
from tests.contracts.loopback import CHUNKED, OK, Reader, Server, Writer, answering, ask, post, serving, until

# ---- what works ------------------------------------------------------------------------------------------------------


async def test_answer(transport: HttpTransport) -> None:
    """Status, headers with names in lower case, and the body arrive; the request goes out as given, with no header added."""
    async with serving(answering(OK)) as server:
        response = await transport.send(post(server.url, b'{"a": 1}', authorization="Bearer k"), connect=2, head=2)

        assert (200, "7", b"ok") == (response.status, response.headers["x-request-id"], await response.read(2))
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        assert b'{"a": 1}' == body
        names = {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
        assert {b"host", b"content-type", b"content-length", b"authorization"} == names


async def test_no_header_is_added_to_a_bare_request(transport: HttpTransport) -> None:
    """A body without a content type stays without one."""
    async with serving(answering(OK)) as server:
        await transport.send(HttpRequest("POST", server.url, {}, b"x"), connect=2, head=2)

        assert b"content-type" not in server.requests[0].lower()


async def test_connection_is_used_again(transport: HttpTransport) -> None:
    """Requests one after the other share a connection, whole or streamed."""
    async with serving(answering(CHUNKED, b"2\r\nok\r\n0\r\n\r\n")) as server:
        assert b"ok" == await ask(transport, server.url)
        response = await transport.send(post(server.url), connect=2, head=2)
        assert [b"ok"] == [part async for part in response.chunks(1)]
        await response.aclose()
        await response.aclose()
        assert b"ok" == await ask(transport, server.url)

        assert 1 == server.connections


async def test_chunks_come_as_they_are_sent(transport: HttpTransport) -> None:
    """A streamed body is passed on piece by piece, not gathered."""
    go = asyncio.Event()

    async def handler(server: Server, reader: Reader, writer: Writer) -> None:
        await server.receive(reader)
        writer.write(CHUNKED + b"3\r\none\r\n")
        await go.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        await reader.read()

    async with serving(handler) as server:
        response = await transport.send(post(server.url), connect=2, head=2)
        chunks = response.chunks(2)

        assert b"one" == await anext(chunks)
        go.set()
        assert [b"two"] == [part async for part in chunks]


async def test_compressed_answer_is_inflated(transport: HttpTransport) -> None:
    """Compression is undone, and the cap counts what comes out of it."""
    packed = gzip.compress(b"x" * 100_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with serving(answering(head + packed)) as server:
        response = await transport.send(post(server.url), connect=2, head=2)
        assert b"x" * 100_000 == await response.read(100_000)

        response = await transport.send(post(server.url), connect=2, head=2)
        with pytest.raises(ResponseTooLargeError):
            await response.read(99_999)


async def test_redirect_is_an_answer(transport: HttpTransport) -> None:
    """A redirect is not followed: our credentials go where the catalog says and nowhere else."""
    moved = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with serving(answering(moved)) as server:
        response = await transport.send(post(server.url), connect=2, head=2)

        assert (307, 1) == (response.status, len(server.requests))


async def test_cookies_are_not_kept(transport: HttpTransport) -> None:
    """What one request was given is not sent with the next, which may be another caller's."""
    sticky = OK.replace(b"X-Request-Id: 7", b"Set-Cookie: session=1; Path=/")
    async with serving(answering(sticky)) as server:
        await ask(transport, server.url)
        await ask(transport, server.url)

        assert b"cookie" not in server.requests[1].lower()


async def test_early_answer(transport: HttpTransport) -> None:
    """An answer that comes before the request was read is read, and its connection, on which the rest waits, not used again."""
    refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"

    async def handler(server: Server, reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refused if server.connections == 1 else OK)
        await asyncio.sleep(5)

    async with serving(handler) as server:
        response = await transport.send(post(server.url, b"x" * 20_000_000), connect=2, head=2)

        assert (413, b"no") == (response.status, await response.read(100))
        assert b"ok" == await ask(transport, server.url)
        assert 2 == server.connections


async def test_interim_answers_are_passed_over(transport: HttpTransport) -> None:
    """What a server says before its answer (1xx) is not the answer."""
    async with serving(answering(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", OK)) as server:
        assert b"ok" == await ask(transport, server.url)


async def test_get_and_head(transport: HttpTransport) -> None:
    """GET has no body and no length; HEAD's answer has none either, whatever its length says."""
    async with serving(answering(OK.removesuffix(b"ok"))) as server:
        response = await transport.send(HttpRequest("HEAD", server.url, {}), connect=2, head=2)
        assert b"" == await response.read(10)
    async with serving(answering(OK)) as server:
        response = await transport.send(HttpRequest("GET", server.url + "?a=b#c", {}), connect=2, head=2)
        assert b"ok" == await response.read(10)

        assert server.requests[0].startswith(b"GET /v1/chat/completions?a=b HTTP/1.1\r\n")
        assert b"content-length" not in server.requests[0].lower()


async def test_a_thousand_at_once(transport: HttpTransport) -> None:
    """A thousand requests are in flight together and all are answered."""
    everyone = asyncio.Event()

    async def handler(server: Server, reader: Reader, writer: Writer) -> None:
        await server.receive(reader)
        if len(server.requests) == 1000:
            everyone.set()
        await everyone.wait()
        writer.write(OK)
        await reader.read()

    async with serving(handler) as server:
        answers = await asyncio.gather(*(ask(transport, server.url, connect=30, head=30) for _ in range(1000)))

        assert [b"ok"] * 1000 == answers
        assert 1000 == server.connections


# ---- the connection's life -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [[], [CHUNKED, b"3\r\none\r\n"]])
async def test_cancelling_closes_the_providers_socket(transport: HttpTransport, sent: list[bytes]) -> None:
    """When the caller is gone, before the head or in the stream, the provider is told at once by the closed connection."""
    async with serving(answering(*sent, then="hang")) as server:
        task = asyncio.create_task(ask(transport, server.url, head=30))
        await until(lambda: len(server.requests) == 1)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        await until(lambda: server.open == 0)


@pytest.mark.parametrize("how", ["generator", "response"])
async def test_leaving_a_stream_drops_the_connection(transport: HttpTransport, how: str) -> None:
    """Closing the chunks, or the response, half-way closes the connection."""
    async with serving(answering(CHUNKED, b"3\r\none\r\n", then="hang")) as server:
        response = await transport.send(post(server.url), connect=2, head=2)
        chunks = response.chunks(2)
        assert b"one" == await anext(chunks)
        await (chunks.aclose() if how == "generator" else response.aclose())

        await until(lambda: server.open == 0)


async def test_nothing_is_sent_twice(transport: HttpTransport) -> None:
    """A kept connection that the server closes on the next request is an error, for GET as well: repeating is not ours."""
    seen = 0

    async def handler(server: Server, reader: Reader, writer: Writer) -> None:
        nonlocal seen
        await server.receive(reader)
        writer.write(OK)
        await reader.read(1)
        seen += 1

    async with serving(handler) as server:
        for method in ("POST", "GET"):
            await ask(transport, server.url)
            with pytest.raises(DisconnectedError):
                await transport.send(HttpRequest(method, server.url, {}), connect=2, head=2)

        assert (2, 2) == (seen, server.connections)


async def test_connection_closed_while_idle_is_not_used(transport: HttpTransport) -> None:
    """A kept connection that the server has closed meanwhile is replaced, and the request succeeds."""
    async with serving(answering(OK, then="close")) as server:
        assert b"ok" == await ask(transport, server.url)
        await until(lambda: server.open == 0)
        await asyncio.sleep(0.02)

        assert b"ok" == await ask(transport, server.url)


async def test_limit() -> None:
    """Above the limit a request waits for a connection; that is connecting, and nothing was sent."""
    transport = open_transport(limit=1, trust_env=False)
    async with serving(answering(then="hang")) as server:
        first = asyncio.create_task(ask(transport, server.url, head=30))
        await until(lambda: len(server.requests) == 1)
        with pytest.raises(TransportTimeoutError) as caught:
            await ask(transport, server.url, connect=0.05)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

        assert not caught.value.sent
        assert 1 == server.connections
    await transport.aclose()


async def test_closing() -> None:
    """Closing drops every connection, may be done twice, and ends the transport; one never used closes too."""
    transport = open_transport(trust_env=False)
    async with serving(answering(OK)) as server:
        await ask(transport, server.url)
        await transport.aclose()
        await transport.aclose()
        await until(lambda: server.open == 0)
        with pytest.raises(ConnectError):
            await ask(transport, server.url)
    await open_transport().aclose()


# ---- proxies ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return an environment without proxies."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


async def test_proxy_of_the_environment(environment: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY is asked for the whole URL, HTTPS_PROXY for a tunnel; the proxy's own credentials go to the proxy."""
    async with serving(answering(OK)) as plain, serving(answering(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")) as tunnel:
        for name, server in (("HTTP_PROXY", plain), ("HTTPS_PROXY", tunnel)):
            address = server.url.removesuffix("/v1/chat/completions")
            environment.setenv(name, address.replace("http://", "http://user:word@"))
        transport = open_transport()

        assert b"ok" == await ask(transport, "http://switchyard.invalid/v1")
        with pytest.raises(ConnectError, match="proxy refused the tunnel with status 407"):
            await ask(transport, "https://switchyard.invalid/v1")
        assert plain.requests[0].startswith(b"POST http://switchyard.invalid/v1 HTTP/1.1\r\n")
        assert tunnel.requests[0].startswith(b"CONNECT switchyard.invalid:443 HTTP/1.1\r\n")
        for server in (plain, tunnel):
            assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk" in server.requests[0]
        await transport.aclose()


async def test_no_proxy(environment: pytest.MonkeyPatch) -> None:
    """NO_PROXY is honoured, and without ``trust_env`` the environment is not looked at."""
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with serving(answering(OK)) as server:
        blind, seeing = open_transport(trust_env=False), open_transport()
        assert b"ok" == await ask(blind, server.url)
        with pytest.raises(ConnectError, match="HTTP_PROXY"):
            await ask(seeing, server.url)
        await seeing.aclose()
        environment.setenv("NO_PROXY", "127.0.0.1")
        seeing = open_transport()
        assert b"ok" == await ask(seeing, server.url)
        await blind.aclose()
        await seeing.aclose()


async def test_netrc_is_not_read(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A netrc file adds no credentials to what the catalog says."""
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login me password word\n")
    file.chmod(0o600)
    environment.setenv("NETRC", str(file))
    transport = open_transport()
    async with serving(answering(OK)) as server:
        await ask(transport, server.url)

        assert b"authorization" not in server.requests[0].lower()
    await transport.aclose()
