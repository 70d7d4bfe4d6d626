"""The transport against servers that misbehave in every way a provider has, and the table of its errors."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp.http_exceptions import HttpProcessingError

from shared.adapters.transport import ERRORS, translate
from shared.ports import (
    ConnectError,
    DisconnectedError,
    HttpTransport,
    ResponseTooLargeError,
    TlsError,
    TransportError,
    TransportTimeoutError,
)
from tests.contracts.loopback import CHUNKED, OK, Reader, Server, Writer, answering, ask, gather_into, post, serving, until

# ---- what fails ------------------------------------------------------------------------------------------------------


async def test_refused(transport: HttpTransport) -> None:
    """A port nobody listens on is a `ConnectError` whose message holds no address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConnectError) as caught:
            await ask(transport, f"http://127.0.0.1:{port}/")

    assert str(caught.value) == "No connection to the provider: connection refused."


async def test_unknown_host(transport: HttpTransport) -> None:
    """A name that does not resolve is a `ConnectError`."""
    with pytest.raises(ConnectError, match="does not resolve"):
        await ask(transport, "http://switchyard.invalid/")


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/", "http://", "nonsense", "http://127.0.0.1:99999/", "http://me@127.0.0.1/", "http://:word@127.0.0.1/"],
)
async def test_bad_url(transport: HttpTransport, url: str) -> None:
    """A URL that can't be asked is a `ConnectError`, not a stack."""
    with pytest.raises(ConnectError, match="can't be sent"):
        await ask(transport, url)


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb: c", "a\rb", "a\0b"])
async def test_bad_header(transport: HttpTransport, value: str) -> None:
    """A header that would smuggle another line is refused before anything is sent."""
    async with serving(answering(OK)) as server:
        with pytest.raises(ConnectError):
            await transport.send(post(server.url, x=value), connect=2, head=2)

        assert [] == server.requests


async def test_connect_deadline(transport: HttpTransport) -> None:
    """A connection that does not come about is given up after ``connect`` seconds, and nothing was sent."""
    with socket.socket() as full:  # a backlog of one that nobody empties: further handshakes are not answered
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    filler.connect(full.getsockname())
            with pytest.raises(TransportTimeoutError) as caught:
                await ask(transport, f"http://127.0.0.1:{full.getsockname()[1]}/", connect=0.1, head=5)

    assert not caught.value.sent


@pytest.mark.parametrize("drip", [False, True])
async def test_head_deadline(transport: HttpTransport, *, drip: bool) -> None:
    """A provider silent before its head, or dripping it, is given up after ``head`` seconds; the request was sent."""
    head = [b"HTTP/1.1 200 OK\r\n", *(b"X-%d: y\r\n" % n for n in range(5000))] if drip else []
    async with serving(answering(*head, pause=0.02, then="hang")) as server:  # the whole head would take 100 s
        async with asyncio.timeout(30):
            with pytest.raises(TransportTimeoutError) as caught:
                await ask(transport, server.url, connect=60, head=0.1)

        assert caught.value.sent
        await until(lambda: server.open == 0)


async def test_head_deadline_while_sending(transport: HttpTransport) -> None:
    """A provider that does not take the request's body is given up after ``head`` seconds; the rest is not sent to it later."""
    received = 0

    async def handler(_: Server, reader: Reader, writer: Writer) -> None:
        nonlocal received
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.3)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        while part := await reader.read(1 << 20):
            received += len(part)

    async with serving(handler) as server:
        with pytest.raises(TransportTimeoutError) as caught:
            await transport.send(post(server.url, b"x" * 20_000_000), connect=5, head=0.1)

        assert caught.value.sent
        await until(lambda: server.open == 0)
        assert received < 20_000_000


async def test_idle_deadline(transport: HttpTransport) -> None:
    """A stream silent for ``idle`` seconds fails after what came before it, and its connection is dropped."""
    async with serving(answering(CHUNKED + b"3\r\none\r\n", then="hang")) as server:
        response = await transport.send(post(server.url), connect=2, head=2)
        got: list[bytes] = []
        with pytest.raises(TransportTimeoutError) as caught:
            await gather_into(got, response.chunks(0.1))

        assert ([b"one"], True) == (got, caught.value.sent)
        await until(lambda: server.open == 0)


async def test_slow_drip_is_not_idle(transport: HttpTransport) -> None:
    """A slow stream goes on as long as no pause reaches ``idle``, however long it takes in all."""
    async with serving(answering(CHUNKED, *[b"1\r\nx\r\n"] * 17, b"0\r\n\r\n", pause=0.1)) as server:
        response = await transport.send(post(server.url), connect=2, head=2)

        assert b"x" * 17 == b"".join([part async for part in response.chunks(1.5)])


async def test_hang_in_a_whole_body(transport: HttpTransport) -> None:
    """A whole body that stops half-way is a timeout too."""
    async with serving(answering(OK[:-1], then="hang")) as server:
        with pytest.raises(TransportTimeoutError) as caught:
            await ask(transport, server.url, head=0.1)

        assert caught.value.sent


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nConte", OK[:-1], CHUNKED + b"3\r\none\r\n"])
async def test_lost(transport: HttpTransport, sent: bytes, then: str) -> None:
    """A connection closed or reset before, in or after the head is a `DisconnectedError`, never a short body."""
    async with serving(answering(sent, pause=0.01, then=then)) as server:
        with pytest.raises(DisconnectedError):
            await ask(transport, server.url)


async def test_lost_in_a_stream(transport: HttpTransport) -> None:
    """A stream that is reset fails after what came before it."""
    async with serving(answering(CHUNKED + b"3\r\none\r\n", pause=0.05, then="reset")) as server:
        response = await transport.send(post(server.url), connect=2, head=2)
        got: list[bytes] = []
        with pytest.raises(DisconnectedError):
            await gather_into(got, response.chunks(2))

        assert [b"one"] == got


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        CHUNKED + b"zz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
    ],
)
async def test_garbage(transport: HttpTransport, garbage: bytes) -> None:
    """What is not HTTP is a `DisconnectedError`: it was sent, and something that can't be read came back."""
    async with serving(answering(garbage, pause=0.01, then="close")) as server:
        with pytest.raises(DisconnectedError):
            await ask(transport, server.url)


@pytest.mark.parametrize("head", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked", b"Connection: close"])
async def test_body_over_the_cap(transport: HttpTransport, head: bytes) -> None:
    """A body over the cap is refused and the connection dropped, whether its length was announced or not."""
    body = b"10000\r\n" + b"x" * 65536 + b"\r\n" if b"chunked" in head else b"x" * 65536
    async with serving(answering(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % head, *[body] * 15, then="hang")) as server:
        response = await transport.send(post(server.url), connect=2, head=2)
        with pytest.raises(ResponseTooLargeError):
            await response.read(100_000)

        await until(lambda: server.open == 0)


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A certificate nobody vouches for."""
    folder: Path = tmp_path_factory.mktemp("tls")
    subprocess.run(  # noqa: S603  # fixed words
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",  # noqa: S607
         "-subj", "/CN=localhost", "-keyout", str(folder / "key"), "-out", str(folder / "cert")],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context


async def test_untrusted_certificate(transport: HttpTransport, self_signed: ssl.SSLContext) -> None:
    """A certificate that can't be trusted is a `TlsError`, and the request was not sent."""
    async with serving(answering(OK), self_signed) as server:
        with pytest.raises(TlsError, match="certificate"):
            await ask(transport, server.url)

        assert [] == server.requests


async def test_no_tls_at_all(transport: HttpTransport) -> None:
    """A server that does not speak TLS where it should is a `TlsError`."""

    async def handler(_: Server, reader: Reader, writer: Writer) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with serving(handler) as server:
        with pytest.raises(TlsError):
            await ask(transport, server.url.replace("http:", "https:"))


async def test_tls_handshake_that_hangs(transport: HttpTransport) -> None:
    """A handshake that hangs counts as connecting: nothing was sent."""

    async def handler(_: Server, reader: Reader, __: Writer) -> None:
        await reader.read()

    async with serving(handler) as server:
        with pytest.raises(TransportTimeoutError) as caught:
            await ask(transport, server.url.replace("http:", "https:"), connect=0.1, head=5)

        assert not caught.value.sent


# ---- the table -------------------------------------------------------------------------------------------------------


def everything(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    """Yield every class below ``kind``."""
    for child in kind.__subclasses__():
        yield child
        yield from everything(child)


def test_every_error_of_aiohttp_has_a_row() -> None:
    """An exception class that aiohttp gains, or loses, is looked at by a person before it ships."""
    kinds = [kind for kind, _ in ERRORS]
    ours = {kind for kind in everything(aiohttp.ClientError) if kind.__module__.startswith("aiohttp.")}

    assert ours <= set(kinds)
    assert HttpProcessingError in kinds
    assert aiohttp.ClientError in kinds


def test_most_specific_row_comes_first() -> None:
    """No row hides a later one."""
    kinds = [kind for kind, _ in ERRORS]

    assert [] == [(late, early) for at, late in enumerate(kinds) for early in kinds[:at] if issubclass(late, early)]


def test_foreign_words_are_not_passed_on() -> None:
    """Messages are ours: neither a URL nor the library's words are in them."""
    error = aiohttp.ClientOSError(104, "Connection lost to https://key@example.com")

    assert isinstance(translate(error), TransportError)
    assert "example" not in str(translate(error))
