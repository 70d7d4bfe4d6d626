"""What Table Storage's adapter sends again, and what never: every line of the table in `retries`, over a scripted transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from shared.adapters.tables.azure import AzureTables
from shared.adapters.tables.azure_account import SCOPE
from shared.adapters.tables.retries import MOST, WITHIN
from shared.core.errors import StorageUnavailableError
from shared.ports import (
    Action,
    ConnectError,
    DisconnectedError,
    Entity,
    EntityChangedError,
    EntityExistsError,
    EntityTable,
    HttpRequest,
    InvalidEntityError,
    Op,
    ResponseTooLargeError,
    TlsError,
    TransportError,
    TransportTimeoutError,
)
from tests.fakes import FakeClock

Ask = Callable[[EntityTable], Awaitable[object]]
URL = "https://account.table.core.windows.net"
ETAG = "W/\"datetime'2026-11-23T00%3A00%3A00.0000000Z'\""


@dataclass
class Reply:
    """A response that has arrived whole."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    async def read(self, limit: int) -> bytes:
        """Return the body."""
        assert limit >= len(self.body)
        return self.body

    async def chunks(self, idle: float) -> AsyncGenerator[bytes, None]:
        """Yield the body."""
        assert idle
        yield self.body

    async def aclose(self) -> None:
        """Hold nothing."""


@dataclass
class ScriptedTransport:
    """Answers by its script, the last line for ever; each exchange takes ``seconds`` of the clock."""

    script: Sequence[Reply | TransportError]
    clock: FakeClock
    seconds: float = 0.0
    requests: list[HttpRequest] = field(default_factory=list)

    async def send(self, request: HttpRequest, *, connect: float, head: float) -> Reply:
        """Take the next line of the script."""
        assert connect > 0
        assert head > 0
        line = self.script[min(len(self.requests), len(self.script) - 1)]
        self.requests.append(request)
        self.clock.seconds += self.seconds
        if isinstance(line, TransportError):
            raise line
        return line

    async def aclose(self) -> None:
        """Hold nothing."""


@dataclass
class Tokens:
    """Entra's tokens, or what goes wrong instead."""

    failures: list[TransportError] = field(default_factory=list)
    scopes: list[str] = field(default_factory=list)

    async def token(self, scope: str) -> str:
        """Return a token."""
        self.scopes.append(scope)
        if self.failures:
            raise self.failures.pop(0)
        return "a-token"

    async def aclose(self) -> None:
        """Hold nothing."""


def error(status: int, code: str, index: int | None = None) -> Reply:
    """Return a refusal as Table Storage words it."""
    text = ("" if index is None else f"{index}:") + "Some words.\\nRequestId:1\\nTime:2026-11-23T00:00:00.0000000Z"
    body = f'{{"odata.error":{{"code":"{code}","message":{{"lang":"en-US","value":"{text}"}}}}}}'
    return Reply(status, body.encode(), {"content-type": "application/json;odata=minimalmetadata"})


def batched(*parts: str) -> Reply:
    """Return a transaction's answer as Table Storage words it."""
    inner = "".join(
        f"--changesetresponse_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n{part}\r\n"
        for part in parts
    )
    body = f"--batchresponse_1\r\nContent-Type: multipart/mixed; boundary=changesetresponse_1\r\n\r\n{inner}"
    body += "--changesetresponse_1--\r\n--batchresponse_1--\r\n"
    return Reply(202, body.encode(), {"content-type": "multipart/mixed; boundary=batchresponse_1"})


def refused(reply: Reply) -> str:
    """Return a refusal as a part of a transaction's answer."""
    return (
        f"HTTP/1.1 {reply.status} Whatever\r\nContent-ID: 1\r\nX-Content-Type-Options: nosniff\r\n"
        f"Content-Type: application/json;odata=minimalmetadata;streaming=true;charset=utf-8\r\n\r\n{reply.body.decode()}\r\n"
    )


STORED = f"HTTP/1.1 204 No Content\r\nX-Content-Type-Options: nosniff\r\nETag: {ETAG}\r\nDataServiceVersion: 1.0;\r\n\r\n"
DONE = Reply(204, b"", {"etag": ETAG})
ROW = Reply(
    200, json.dumps({"odata.etag": ETAG, "PartitionKey": "p", "RowKey": "r", "n@odata.type": "Edm.Int64", "n": "7"}).encode()
)
BUSY = error(503, "ServerBusy")
OPS = [Op(Action.INSERT, Entity("p", "a")), Op(Action.INSERT, Entity("p", "b"))]


def opened(
    *script: Reply | TransportError, seconds: float = 0.0, tokens: Tokens | None = None
) -> tuple[EntityTable, ScriptedTransport]:
    """Return a table over the script, and the transport, which keeps what was sent."""
    clock = FakeClock()
    transport = ScriptedTransport(script, clock, seconds)
    return AzureTables(URL, transport=transport, tokens=tokens or Tokens(), clock=clock).table("contract"), transport


NOT_DONE: dict[str, Reply | TransportError] = {
    "refused": ConnectError("refused"),
    "no connection in time": TransportTimeoutError("late", sent=False),
    "busy": BUSY,
    "too many": error(429, "TooManyRequests"),
}
UNKNOWN: dict[str, Reply | TransportError] = {
    "lost": DisconnectedError("lost"),
    "500": error(500, "InternalError"),
    "timed out inside": error(500, "OperationTimedOut"),
    "504": Reply(504, b"<html>gateway</html>"),
    "a 503 that is not Table Storage's": Reply(503, b"<html>maintenance</html>"),
    "408": Reply(408),
}


@pytest.mark.parametrize("what", NOT_DONE)
async def test_what_did_not_happen_is_sent_again(what: str) -> None:
    """A write that certainly did not happen is sent again, the very same; so is a read."""
    table, transport = opened(NOT_DONE[what], NOT_DONE[what], DONE)
    assert await table.insert(Entity("p", "r", {"n": 7})) == ETAG
    assert len(transport.requests) == 3
    assert len({request.body for request in transport.requests}) == 1

    table, transport = opened(NOT_DONE[what], ROW)
    assert await table.get("p", "r") == Entity("p", "r", {"n": 7}, ETAG)


@pytest.mark.parametrize("what", UNKNOWN)
async def test_a_write_of_unknown_outcome_is_never_sent_again(what: str) -> None:
    """Whatever may have happened is left to the caller, who has a token to tell by: one send, one error. Reads are repeated."""
    writes: list[Ask] = [lambda t: t.insert(Entity("p", "r")), lambda t: t.transact(OPS), lambda t: t.delete("p", "r")]
    for write in writes:
        table, transport = opened(UNKNOWN[what], error(409, "EntityAlreadyExists"))
        with pytest.raises(StorageUnavailableError):
            await write(table)
        assert len(transport.requests) == 1

    table, transport = opened(UNKNOWN[what], ROW)
    assert await table.get("p", "r") is not None
    assert len(transport.requests) == 2


@pytest.mark.parametrize(
    "failure", [TransportTimeoutError("silent", sent=True), ResponseTooLargeError("large"), TlsError("bad")]
)
async def test_what_would_only_cost_time_again_is_not_sent_again(failure: TransportError) -> None:
    """After silence the time is spent, and a certificate does not mend itself: not even a read is repeated."""
    table, transport = opened(failure, ROW)

    with pytest.raises(StorageUnavailableError):
        await table.get("p", "r")

    assert len(transport.requests) == 1


async def test_a_conflict_is_about_this_very_send() -> None:
    """After throttling, a 409 or 412 is an answer, and so it is what the caller hears."""
    table, _ = opened(BUSY, error(409, "EntityAlreadyExists"))
    with pytest.raises(EntityExistsError):
        await table.insert(Entity("p", "r"))
    table, _ = opened(BUSY, error(412, "UpdateConditionNotSatisfied"))
    with pytest.raises(EntityChangedError):
        await table.replace(Entity("p", "r", {}, ETAG))


async def test_a_throttled_transaction_is_sent_again() -> None:
    """Throttling is found inside a transaction's answer too; an unclear answer inside is as unclear as outside."""
    table, transport = opened(batched(refused(BUSY)), batched(STORED, STORED))
    assert await table.transact(OPS) == [ETAG, ETAG]
    assert len(transport.requests) == 2

    table, transport = opened(batched(refused(error(500, "InternalError", 0))), batched(STORED, STORED))
    with pytest.raises(StorageUnavailableError):
        await table.transact(OPS)
    assert len(transport.requests) == 1


async def test_nobody_can_know_what_parts_a_transaction() -> None:
    """Each transaction has a boundary of its own, of 128 random bits."""
    table, transport = opened(batched(STORED, STORED))

    for _ in range(20):
        await table.transact(OPS)

    boundaries = {request.headers["Content-Type"].partition("boundary=batch_")[2] for request in transport.requests}
    assert len(boundaries) == 20
    assert {len(boundary) for boundary in boundaries} == {32}


async def test_a_refused_transaction_names_the_row() -> None:
    """The number before the service's words says which operation it was."""
    table, _ = opened(batched(refused(error(409, "EntityAlreadyExists", 1))))

    with pytest.raises(EntityExistsError, match="row b "):
        await table.transact(OPS)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 1.0])
async def test_it_gives_up_within_its_bound(seconds: float) -> None:
    """A store that stays busy costs a caller three seconds and one exchange at most, and is not hammered."""
    table, transport = opened(BUSY, seconds=seconds)
    clock = transport.clock
    began = clock.seconds

    with pytest.raises(StorageUnavailableError, match="503 ServerBusy") as caught:
        await table.insert(Entity("p", "r"))

    assert clock.seconds - began <= WITHIN + seconds
    assert 2 <= len(transport.requests) <= 12
    assert caught.value.retry_after == 1.0


async def test_pauses_follow_the_round_trip() -> None:
    """The slower the store answers, the longer the pauses; each is twice the last, up to a bound."""
    pauses = []
    for seconds in (0.005, 0.1):
        table, transport = opened(*[ROW] * 50, BUSY, BUSY, BUSY, DONE, seconds=seconds)
        for _ in range(50):
            await table.get("p", "r")
        await table.insert(Entity("p", "r"))
        pauses.append(transport.clock.slept)

    assert pauses[0] == pytest.approx([0.005, 0.01, 0.02], rel=0.1)
    assert pauses[1] == pytest.approx([0.1, 0.2, 0.4], rel=0.1)
    assert max(pauses[1]) <= 1.5 * MOST


async def test_a_token_that_can_not_be_had_sends_nothing() -> None:
    """Without a token nothing is sent; as soon as there is one, it goes along, for storage and nothing else."""
    tokens = Tokens([ConnectError("no identity")])
    table, transport = opened(DONE, tokens=tokens)

    await table.insert(Entity("p", "r"))

    assert tokens.scopes == [SCOPE, SCOPE]
    assert [request.headers["Authorization"] for request in transport.requests] == ["Bearer a-token"]
    assert transport.requests[0].headers["x-ms-version"] == "2020-12-06"  # the first that takes tokens


async def test_a_missing_table_is_made_and_the_write_sent_again() -> None:
    """Where there is no table yet it is made; that another instance was faster is as good."""
    for made in (Reply(204), error(409, "TableAlreadyExists")):
        table, transport = opened(error(404, "TableNotFound"), made, DONE)
        assert await table.insert(Entity("p", "r")) == ETAG
        assert [request.url.removeprefix(URL) for request in transport.requests] == ["/contract", "/Tables", "/contract"]


async def test_an_identity_without_the_role_is_told_so() -> None:
    """A refusal names the role to give, and no token."""
    table, _ = opened(error(403, "AuthorizationPermissionMismatch"))

    with pytest.raises(StorageUnavailableError, match="Storage Table Data Contributor") as caught:
        await table.get("p", "r")

    assert "a-token" not in str(caught.value)


@dataclass
class GatedTransport(ScriptedTransport):
    """Answers when it is let."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, request: HttpRequest, *, connect: float, head: float) -> Reply:
        """Wait, and take the next line of the script."""
        await self.gate.wait()
        return await super().send(request, connect=connect, head=head)


async def test_closing_waits_for_what_is_on_its_way() -> None:
    """A write that was asked for is answered before the store is closed, even where a table must be made for it first."""
    clock = FakeClock()
    transport = GatedTransport([error(404, "TableNotFound"), Reply(204), DONE], clock)
    tables = AzureTables(URL, transport=transport, tokens=Tokens(), clock=clock)
    write = asyncio.ensure_future(tables.table("contract").insert(Entity("p", "r")))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(tables.aclose())
    for _ in range(5):
        await asyncio.sleep(0)

    assert not closing.done()
    transport.gate.set()
    await closing
    assert len(transport.requests) == 3
    assert await write == ETAG
    with pytest.raises(StorageUnavailableError, match="closed"):
        await tables.table("contract").get("p", "r")


UNREADABLE: dict[str, tuple[Reply, Ask]] = {
    "a write without an ETag": (Reply(204), lambda t: t.insert(Entity("p", "r"))),
    "a transaction with one ETag too few": (batched(STORED), lambda t: t.transact(OPS)),
    "a transaction without a part": (batched(), lambda t: t.transact(OPS)),
    "a page that is none": (Reply(200, b"[]"), lambda t: t.get("p", "r")),
    "a row without keys": (Reply(200, b"{}"), lambda t: t.get("p", "r")),
    "a 404 that is not Table Storage's": (Reply(404, b"<html>"), lambda t: t.get("p", "r")),
    "not even JSON": (Reply(200, b"<html>"), lambda t: t.get("p", "r")),
}


@pytest.mark.parametrize("what", UNREADABLE)
async def test_an_answer_that_makes_no_sense_is_unknown(what: str) -> None:
    """What can't be read is not taken for anything."""
    reply, ask = UNREADABLE[what]
    table, _ = opened(reply)

    with pytest.raises(StorageUnavailableError):
        await ask(table)


async def test_a_transaction_that_is_too_large_on_the_wire_is_refused() -> None:
    """Text that JSON writes six times as long fits the service's count, but not its wire: nothing is sent."""
    table, transport = opened(DONE)
    large = {"x": "\x01" * 32_000, "y": "\x01" * 32_000}

    with pytest.raises(InvalidEntityError, match="4 MiB"):
        await table.transact([Op(Action.INSERT, Entity("p", f"{n}", large)) for n in range(15)])

    assert transport.requests == []


async def test_pages_follow_each_other_even_when_empty() -> None:
    """An empty page that is not the last leads on to the next."""
    row = ROW.body.decode()
    first = Reply(
        200, b'{"value":[]}', {"x-ms-continuation-nextpartitionkey": "1!4!cA--", "x-ms-continuation-nextrowkey": "a/b="}
    )
    table, transport = opened(first, Reply(200, f'{{"value":[{row}]}}'.encode()))

    assert [entity.row async for entity in table.query("p", start="a'b", end="c&$top=9")] == ["r"]

    assert transport.requests[1].url.endswith("&NextPartitionKey=1%214%21cA--&NextRowKey=a%2Fb%3D")
    assert "RowKey%20ge%20%27a%27%27b%27%20and%20RowKey%20lt%20%27c%26%24top%3D9%27&" in transport.requests[0].url
