"""Webhooks: signed, small, never redirected, only to listed hosts, and connected to the very addresses that were checked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.resolver import ThreadedResolver
from openai import InvalidWebhookSignatureError, OpenAI
from openai.types.webhooks import ResponseCompletedWebhookEvent

from shared.adapters.clock import SystemClock
from shared.adapters.transport import open_transport
from shared.adapters.webhook import MAX_BODY, Webhook
from shared.core.completion_events import event_of
from shared.core.registry import Secret
from shared.core.webhooks import may_connect
from shared.ports import ConnectError, HttpTransport, TlsError
from tests.contracts.loopback import OK, answering, ask, serving
from tests.fakes import FakeClock

SECRET = "canary-webhook-secret"
HOSTS = frozenset({"localhost", "127.0.0.1"})


@pytest.fixture
async def checked() -> AsyncIterator[HttpTransport]:
    """Return the HTTP client that webhooks use."""
    opened = open_transport(limit=8, trust_env=False, admits=may_connect)
    yield opened
    await opened.aclose()


@pytest.fixture
def webhook(checked: HttpTransport) -> Webhook:
    """Return the sender."""
    return Webhook(checked, FakeClock(), hosts=HOSTS, secret=Secret(SECRET))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Return what names resolve to: fill it in."""
    found: dict[str, list[str]] = {}

    async def resolve(_self: Any, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        del family
        known = {"hostname": host, "port": port, "family": socket.AF_INET, "proto": 0, "flags": socket.AI_NUMERICHOST}
        return [{**known, "host": address} for address in found[host]]

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    return found


async def test_an_alert_arrives_signed(webhook: Webhook) -> None:
    """The receiver can tell who sent it, when, and whether it has it already."""
    async with serving(answering(OK)) as server:
        assert await webhook.send(server.url, {"id": "alr_1", "name": "größe"}, delivery="alr_1") is None
        (request,) = server.requests

    head, _, body = request.partition(b"\r\n\r\n")
    assert {"id": "alr_1", "name": "größe"} == json.loads(body)
    assert b"x-switchyard-delivery: alr_1" in head
    found = re.search(rb"x-switchyard-signature: t=(\d+),v1=([0-9a-f]{64})", head)
    assert found is not None
    expected = hmac.new(SECRET.encode(), found[1] + b"." + body, hashlib.sha256).hexdigest()
    assert expected.encode() == found[2]
    assert int(found[1]) == int(FakeClock().now())
    assert SECRET.encode() not in request
    assert SECRET not in repr(webhook.__dict__)


@pytest.mark.parametrize("secret", [SECRET, "whsec_" + base64.b64encode(b"a key of 24 random bytes").decode()])
async def test_openais_sdk_takes_an_event(checked: HttpTransport, secret: str) -> None:
    """Its own check of the signature, whatever form the secret has; a body that was changed is refused."""
    sender = Webhook(checked, SystemClock(), hosts=HOSTS, secret=Secret(secret))
    event = event_of("response", "resp_1", "completed", 1_795_000_000.0)
    async with serving(answering(OK)) as server:
        assert await sender.send(server.url, event, delivery=event["id"]) is None
        (request,) = server.requests

    head, _, body = request.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:])
    headers["webhook-signature"] = re.findall(r"webhook-signature: (\S+)", head.decode(), re.IGNORECASE)[0]
    client = OpenAI(api_key="unused", webhook_secret=secret)
    taken = client.webhooks.unwrap(body, headers)
    assert isinstance(taken, ResponseCompletedWebhookEvent)
    assert ("resp_1", event["id"]) == (taken.data.id, headers["webhook-id"])
    with pytest.raises(InvalidWebhookSignatureError):
        client.webhooks.unwrap(body.replace(b"resp_1", b"resp_2"), headers)


@pytest.mark.parametrize(("status", "said"), [(301, "301"), (302, "302"), (307, "307"), (404, "404"), (500, "500")])
async def test_what_is_not_taken_is_said(webhook: Webhook, status: int, said: str) -> None:
    """A redirect is an answer like any other: it is not followed."""
    answer = f"HTTP/1.1 {status} No\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".encode()
    async with serving(answering(answer)) as server:
        problem = await webhook.send(server.url, {}, delivery="x")
        assert problem is not None
        assert said in problem
        assert len(server.requests) == 1


async def test_a_silent_receiver_is_left(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its seconds."""
    monkeypatch.setattr("shared.adapters.webhook.TIMEOUT", 0.05)
    async with serving(answering(then="hang")) as server:
        problem = await webhook.send(server.url, {}, delivery="x")
        assert problem is not None
        assert "TransportTimeoutError" in problem
        assert "127.0.0.1" not in problem


async def test_what_is_not_allowed_any_more_is_not_called(webhook: Webhook) -> None:
    """The list is asked again at each call; nothing is said about the URL."""
    async with serving(answering(OK)) as server:
        url = server.url.replace("127.0.0.1", "127.0.0.2")
        problem = await webhook.send(url + "?token=canary", {}, delivery="x")
        assert problem is not None
        assert "SWITCHYARD_WEBHOOK_HOSTS" in problem
        assert "canary" not in problem
        assert server.connections == 0


async def test_a_large_alert_is_not_sent(webhook: Webhook) -> None:
    """It is ours to keep small."""
    async with serving(answering(OK)) as server:
        problem = await webhook.send(server.url, {"text": "x" * MAX_BODY}, delivery="x")
        assert problem is not None
        assert server.connections == 0


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], []])
async def test_a_name_that_leads_inside_is_not_connected(
    checked: HttpTransport, names: dict[str, list[str]], addresses: list[str]
) -> None:
    """One private address among public ones is enough."""
    names["hooks.example.com"] = addresses
    async with serving(answering(OK)) as server:
        with pytest.raises(ConnectError):
            await ask(checked, server.url.replace("127.0.0.1", "hooks.example.com"))
        assert server.connections == 0


async def test_what_was_checked_is_connected(names: dict[str, list[str]]) -> None:
    """Each address that is connected to has been asked about, with its name; the name stays the request's host."""
    names["hooks.example.com"] = ["127.0.0.1"]
    asked: list[tuple[str, str]] = []

    def admits(host: str, address: str) -> bool:
        names["hooks.example.com"] = ["127.0.0.2"]  # the name changes its mind as soon as it was checked
        asked.append((host, address))
        return True

    transport = open_transport(trust_env=True, admits=admits)
    async with serving(answering(OK)) as server:
        assert await ask(transport, server.url.replace("127.0.0.1", "hooks.example.com")) == b"ok"
        await transport.aclose()
        assert [("hooks.example.com", "127.0.0.1")] == asked
        assert b"host: hooks.example.com:" in server.requests[0].lower()


@pytest.fixture
def self_signed(tmp_path: Path) -> ssl.SSLContext:
    """Return a server's side of TLS, with a certificate nobody vouches for."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(  # noqa: S603 - a fixed command line
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",  # noqa: S607
         "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_the_certificate_is_asked_for_by_name(names: dict[str, list[str]], self_signed: ssl.SSLContext) -> None:
    """Though an address is connected to, TLS is with the name: its certificate must be that name's."""
    names["hooks.example.com"] = ["127.0.0.1"]
    seen: list[str | None] = []

    def name_asked(_socket: Any, name: str | None, _context: Any) -> None:
        seen.append(name)

    self_signed.sni_callback = name_asked
    transport = open_transport(admits=lambda _host, _address: True)
    async with serving(answering(OK), self_signed) as server:
        with pytest.raises(TlsError):
            await ask(transport, server.url.replace("127.0.0.1", "hooks.example.com"))
        await transport.aclose()
    assert ["hooks.example.com"] == seen
