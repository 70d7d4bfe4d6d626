"""OpenAI's Files API: its own SDK up and down, forms of every broken kind, and nothing left of what broke off."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import replace
from typing import Any

import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI
from openai.types import FilePurpose

from functions import multipart
from functions.clients import ClientGoneError
from functions.files import Download
from functions.multipart import FileForm
from shared.core.errors import ConfigurationError, InvalidRequestError, PayloadTooLargeError
from shared.files import TABLE, File, NewFile
from shared.pieces import CAPACITY
from shared.settings import load
from tests.functions.harness import SETTINGS, Edge, Reply, running

LIMIT = 2_000_000
LINES = b'{"custom_id": "a"}\n' * 100_000  # 1.9 MB: three rows
BOUNDARY = "5d41402abc4b2a76"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
PLAIN = ("purpose", None, b"batch")
FILE = ("file", "in.jsonl", b"{}\n")

Part = tuple[str, str | None, bytes]


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    """Return the running edge, which takes files of 2 MB."""
    async with running(replace(SETTINGS, max_file_bytes=LIMIT)) as found:
        yield found


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[AsyncOpenAI]:
    """Return OpenAI's client, pointed here."""
    async with AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=edge.admin, max_retries=0) as found:
        yield found


def form(*parts: Part, end: bytes = f"--{BOUNDARY}--\r\n".encode()) -> bytes:
    """Return a form as it is sent: name, filename, content."""
    body = b""
    for name, filename, content in parts:
        more = "" if filename is None else f'; filename="{filename}"'
        body += f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"
    return body + end


async def upload(edge: Edge, *parts: Part, headers: dict[str, str] | None = None) -> Reply:
    """Post a form."""
    return await edge.call("POST", "/v1/files", data=io.BytesIO(form(*parts)), headers={**(headers or edge.headers), **FORM})


async def left(edge: Edge) -> list[str]:
    """Return the rows by which uploads under way and files that are there are known."""
    table = edge.gateway.tables.table(TABLE)
    return [entity.row for partition in ("open", "all") async for entity in table.query(partition)]


async def test_a_file_from_upload_to_deletion(client: AsyncOpenAI) -> None:
    """With OpenAI's SDK, as its documentation has it."""
    made = await client.files.create(file=("größe.jsonl", LINES), purpose="batch")
    found = await client.files.retrieve(made.id)
    content = await client.files.content(made.id)
    gone = await client.files.delete(made.id)

    assert found == made
    assert (made.object, made.bytes, made.filename, made.purpose, made.status) == (
        "file",
        len(LINES),
        "größe.jsonl",
        "batch",
        "processed",
    )
    assert made.expires_at == made.created_at + 30 * 86_400
    assert content.content == LINES
    assert content.response.headers["content-type"] == "application/jsonl"
    assert content.response.headers["content-length"] == str(len(LINES))
    assert (gone.id, gone.deleted) == (made.id, True)
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(made.id)


async def test_files_of_every_form_the_sdk_takes(client: AsyncOpenAI, edge: Edge) -> None:
    """Bytes without a name, an open file; kept for good, or as long as was said; on Azure's paths too."""
    bare = await client.files.create(file=b"bytes", purpose="user_data")
    named = io.BytesIO(b"open")
    named.name = "notes.txt"
    short = await client.files.create(file=named, purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3_600})
    async with AsyncAzureOpenAI(azure_endpoint=edge.url, api_key=edge.admin, api_version="2024-10-21", max_retries=0) as azure:
        third = await azure.files.create(file=("a.jsonl", b"{}"), purpose="batch")
        assert (await azure.files.content(third.id)).content == b"{}"

    assert bare.expires_at is None
    assert bare.filename
    assert (short.filename, short.expires_at) == ("notes.txt", short.created_at + 3_600)
    assert (await client.files.content(short.id)).response.headers["content-type"] == "application/octet-stream"


async def test_lists(client: AsyncOpenAI) -> None:
    """The newest first, page after page, of a purpose, in the order asked for."""
    purposes: list[FilePurpose] = ["batch", "user_data", "batch"]
    made = [
        (await client.files.create(file=(f"{number}", b"x"), purpose=purpose)).id for number, purpose in enumerate(purposes)
    ]
    pages = await client.files.list(limit=2)
    oldest = await client.files.list(order="asc", limit=1)

    assert sorted(made) == sorted([file.id async for file in client.files.list(limit=1)])
    assert len(pages.data) == 2
    assert pages.has_more is True
    assert (len(oldest.data), oldest.data[0].id in made) == (1, True)
    assert {made[0], made[2]} == {file.id async for file in client.files.list(purpose="batch")}


async def test_the_shape_of_a_list(edge: Edge) -> None:
    """OpenAI's, with the ids of its ends; an empty one has none."""
    assert (await edge.get("/v1/files")).json == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    made = (await upload(edge, PLAIN, FILE)).json
    listed = (await edge.get("/openai/v1/files")).json

    assert listed == {"object": "list", "data": [made], "first_id": made["id"], "last_id": made["id"], "has_more": False}


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("purpose=x", "purpose"), ("after=file-x", "after")],
)
async def test_a_list_that_can_not_be_made(edge: Edge, query: str, param: str) -> None:
    """Says which parameter is wrong."""
    refused = await edge.get(f"/v1/files?{query}")
    assert (refused.status, refused.error["param"]) == (400, param)


async def test_another_projects_file_is_unknown(edge: Edge) -> None:
    """To read, to download, to delete, and in lists; the administrator sees it."""
    shop, other = await edge.key("shop"), await edge.key("other")
    made = (await upload(edge, PLAIN, FILE, headers=shop)).json
    path = f"/v1/files/{made['id']}"

    for method, where in (("GET", path), ("GET", f"{path}/content"), ("DELETE", path)):
        assert (await edge.call(method, where, headers=other)).status == 404
    assert (await edge.get("/v1/files", headers=other)).json["data"] == []
    assert (await edge.get("/v1/files?project=shop", headers=other)).status == 403
    assert (await edge.get(path, headers=shop)).json == made
    assert (await edge.get(path)).json == made
    assert (await edge.get("/v1/files?project=other")).json["data"] == []


@pytest.mark.parametrize(
    ("parts", "param", "said"),
    [
        ([FILE], "purpose", "required"),
        ([PLAIN], "file", "required"),
        ([], "file", "required"),
        ([("file", None, b"x"), PLAIN], "file", "filename"),
        ([("file", "", b"x"), PLAIN], "file", "filename"),
        ([("file", "a.jsonl", b""), PLAIN], "file", "empty"),
        ([FILE, FILE, PLAIN], "file", "twice"),
        ([PLAIN, PLAIN, FILE], "purpose", "twice"),
        ([("purpose", None, b"fine-tune"), FILE], "purpose", "nothing here"),
        ([FILE, ("purpose", None, b"pets")], "purpose", "must be `batch`"),
        ([PLAIN, ("purpos\u00e9", None, b"x"), FILE], "purpos\u00e9", "known field"),
        ([("purpose", None, b"\xff"), FILE], "purpose", "UTF-8"),
        ([("purpose", None, b"x" * 5_000), FILE], "purpose", "longer"),
        ([PLAIN, ("expires_after[anchor]", None, b"created_at"), FILE], "expires_after", "both"),
        ([PLAIN, ("expires_after[seconds]", None, b"3599"), FILE], "expires_after.seconds", "3600"),
        ([PLAIN, ("expires_after[anchor]", None, b"now"), FILE], "expires_after.anchor", "created_at"),
        ([PLAIN, ("file", "x" * 300, b"x")], "file", "filename"),
    ],
)
async def test_a_form_that_is_not_right(edge: Edge, parts: list[Part], param: str, said: str) -> None:
    """Names the field and says what to do; nothing is left of it."""
    refused = await upload(edge, *parts)

    assert (refused.status, refused.error["param"]) == (400, param)
    assert said in refused.error["message"]
    assert await left(edge) == []


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        ("application/json", b"{}", "content-type"),
        ("multipart/form-data", form(PLAIN, FILE), "content-type"),
        (f"multipart/form-data; boundary={'x' * 71}", form(PLAIN, FILE), "content-type"),
        (FORM["content-type"], form(PLAIN, FILE, end=b""), "file"),
        (FORM["content-type"], form(PLAIN, FILE)[:-40], None),
        (FORM["content-type"], b"what is this?", None),
        (FORM["content-type"], b"", None),
        (FORM["content-type"], form(PLAIN, FILE).replace(b"form-data; name", b"attachment; name"), None),
        (FORM["content-type"], form(FILE).replace(b"\r\n\r\n", b"\r\ncontent-transfer-encoding: base64\r\n\r\n"), "file"),
    ],
)
async def test_a_body_that_is_no_form(edge: Edge, kind: str, body: bytes, param: str | None) -> None:
    """Another content type, no boundary, cut off, not a form at all."""
    refused = await edge.call("POST", "/v1/files", data=body, headers={**edge.headers, "content-type": kind})

    assert (refused.status, refused.error["param"]) == (400, param)
    assert await left(edge) == []


async def test_the_purpose_may_follow_the_file(edge: Edge) -> None:
    """Fields come in any order."""
    made = await upload(edge, ("file", "b.jsonl", LINES), PLAIN)

    assert made.status == 200
    assert made.json["bytes"] == len(LINES)
    assert (await edge.get(f"/v1/files/{made.json['id']}/content")).body == LINES


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ('filename="日本.jsonl"', "日本.jsonl"),
        ("filename*=utf-8''%E6%97%A5%20x.jsonl", "日 x.jsonl"),
        ('filename="a%22b%2Fc.jsonl"', 'a"b%2Fc.jsonl'),
        ('filename="Shot 9.41\u202fAM.png"', "Shot 9.41\u202fAM.png"),
    ],
)
async def test_names_of_files_are_kept(edge: Edge, written: str, name: str) -> None:
    """Whatever their letters, and however clients write them."""
    body = form(PLAIN, ("file", "X", b"x")).replace(b'filename="X"', written.encode())
    made = await edge.call("POST", "/v1/files", data=body, headers={**edge.headers, **FORM})
    sent = await edge.get(f"/v1/files/{made.json['id']}/content")

    assert made.json["filename"] == name
    assert sent.headers["content-disposition"].isascii()


async def test_a_file_that_is_too_large(edge: Edge) -> None:
    """413 when it says so, before a byte is read; 413 when it turns out so; nothing is left. The limit itself is accepted."""
    fits = await upload(edge, PLAIN, ("file", "fits", b"x" * LIMIT))
    await edge.call("DELETE", f"/v1/files/{fits.json['id']}")
    over = await upload(edge, PLAIN, ("file", "over", b"x" * (LIMIT + 1)))

    async def endless() -> AsyncIterator[bytes]:
        yield form(PLAIN, ("file", "endless", b""), end=b"")[:-2]
        for _ in range(100):
            yield b"x" * 65_536

    async with edge.session.post(edge.url + "/v1/files", data=endless(), headers={**edge.headers, **FORM}) as response:
        streamed = response.status

    assert (fits.status, over.status, streamed) == (200, 413, 413)
    assert over.error["param"] == "file"
    assert str(LIMIT) in over.error["message"]
    assert await left(edge) == []


async def test_the_sdk_learns_that_a_file_is_too_large(client: AsyncOpenAI, edge: Edge) -> None:
    """It sends all of it before it reads the answer: what it sends must be let through, and the answer must be there."""
    with pytest.raises(openai.APIStatusError) as refused:
        await client.files.create(file=("large", b"x" * (4 * LIMIT)), purpose="batch")

    assert refused.value.status_code == 413
    assert await left(edge) == []


def test_the_operator_says_how_large_a_file_may_be() -> None:
    """200 MB if nothing is said, as at OpenAI."""
    assert load({}).max_file_bytes == 200 * 1024 * 1024
    assert load({"SWITCHYARD_MAX_FILE_BYTES": "1000"}).max_file_bytes == 1_000
    with pytest.raises(ConfigurationError, match="SWITCHYARD_MAX_FILE_BYTES"):
        load({"SWITCHYARD_MAX_FILE_BYTES": "200MB"})


async def test_a_client_that_leaves_in_mid_upload_leaves_nothing(edge: Edge) -> None:
    """What it had sent is removed at once."""
    _, writer = await asyncio.open_connection("127.0.0.1", int(edge.url.rpartition(":")[2]))
    head = f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {edge.admin}\r\ncontent-length: 1900000\r\n"
    writer.write(f"{head}content-type: {FORM['content-type']}\r\n\r\n".encode())
    writer.write(form(PLAIN, ("file", "half", b"x" * 900_000), end=b""))
    await writer.drain()
    table = edge.gateway.tables.table(TABLE)
    async with asyncio.timeout(20):
        while not (under_way := await left(edge)) or await table.get(f"f~{under_way[0]}", "p~00000") is None:
            await asyncio.sleep(0.01)
        writer.close()
        while edge.mounted.in_flight:
            await asyncio.sleep(0.01)

    assert await left(edge) == []
    assert [entity async for entity in table.query(f"f~{under_way[0]}")] == []


async def test_a_file_that_a_batch_reads_stays(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """409, and it is still there."""
    made = str((await upload(edge, PLAIN, FILE)).json["id"])

    async def uses(self: object, file_id: str) -> bool:
        del self
        return file_id == made

    monkeypatch.setattr(type(edge.gateway.batches), "uses", uses)
    refused = await edge.call("DELETE", f"/v1/files/{made}")

    assert (refused.status, refused.error["code"]) == (409, "file_in_use")
    assert (await edge.get(f"/v1/files/{made}")).status == 200


# ---- without a server --------------------------------------------------------------------------------------------


class Channel:
    """A receive channel that gives a body in parts, then hangs or disconnects. Counts what it was asked for."""

    def __init__(self, *parts: bytes, then: str = "end") -> None:
        self.messages: list[dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        if then == "end":
            self.messages.append({"type": "http.request", "body": b"", "more_body": False})
        elif then == "leave":
            self.messages.append({"type": "http.disconnect"})
        self.asked = 0

    async def __call__(self) -> MutableMapping[str, Any]:
        """Return the next message."""
        self.asked += 1
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)


def accept(name: str, value: str) -> None:
    """Take any field."""
    del name, value


def reading(channel: Channel, *, declared: bytes | None = None, limit: int = LIMIT) -> FileForm:
    """Return a form that is read from a channel."""
    return FileForm(channel, content_type=FORM["content-type"].encode(), declared=declared, limit=limit, check=accept)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_a_form_in_pieces_of_any_size_is_the_same_form(size: int) -> None:
    """A boundary may be cut anywhere, and the content may look like one."""
    content = f"\r\n--{BOUNDARY}x\r\n--{BOUNDARY[:-1]}--\r\n\r\n-".encode()
    body = form(("file", "ä.jsonl", content), PLAIN)
    found = reading(Channel(*(body[at : at + size] for at in range(0, len(body), size))))

    assert b"".join([piece async for piece in found.file()]) == content
    assert (found.fields, found.filename, found.size) == ({"purpose": "batch"}, "ä.jsonl", len(content))


async def test_no_piece_is_larger_than_what_came(edge: Edge) -> None:
    """A file is passed on as it comes: what is held does not grow with it."""
    del edge
    parts = [b"y" * 50_000] * 30
    body = form(PLAIN, ("file", "a", b"".join(parts)))
    found = reading(Channel(*(body[at : at + 50_000] for at in range(0, len(body), 50_000))))

    assert max([len(piece) async for piece in found.file()]) <= 50_000
    assert found.size == 1_500_000


async def test_what_is_declared_too_large_is_not_read() -> None:
    """300 MB are refused at their head; what lies about its size, at the byte that passes the limit."""
    channel = Channel(form(PLAIN, FILE))
    with pytest.raises(PayloadTooLargeError):
        reading(channel, declared=b"%d" % (300 * 1024 * 1024), limit=200 * 1024 * 1024)
    assert channel.asked == 0
    channel = Channel(form(PLAIN, ("file", "a", b"x" * 100), end=b""), b"x" * 100, b"x" * 100)
    with pytest.raises(PayloadTooLargeError):
        _ = [piece async for piece in reading(channel, declared=b"10", limit=150).file()]
    assert channel.asked == 2


async def test_a_form_of_nothing_but_blank_lines_ends() -> None:
    """What comes before the first boundary counts as well."""
    with pytest.raises(PayloadTooLargeError):
        _ = [piece async for piece in reading(Channel(*([b"\r\n" * 32_000] * 3)), limit=10).file()]


async def test_a_client_that_stands_still_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute without a byte is too long; so is an hour in all, however steadily they come."""
    for name in ("IDLE_SECONDS", "WHOLE_SECONDS"):
        with monkeypatch.context() as patched:
            patched.setattr(multipart, name, 0.01)
            with pytest.raises(InvalidRequestError) as refused:
                async with asyncio.timeout(20):
                    _ = [piece async for piece in reading(Channel(form(PLAIN, FILE, end=b""), then="hang")).file()]
            assert refused.value.code == "body_timeout"


async def test_a_client_that_leaves_is_gone() -> None:
    """There is nobody to answer."""
    with pytest.raises(ClientGoneError):
        _ = [piece async for piece in reading(Channel(form(PLAIN, FILE, end=b""), then="leave")).file()]


async def test_a_download_that_can_not_go_on_is_cut(edge: Edge) -> None:
    """A file that is deleted while it is sent: the client learns that it did not get all of it."""
    file = await edge.gateway.files.create(_pieces(b"x" * (2 * CAPACITY)), lambda: NewFile("shop", "a", "user_data"))
    content = edge.gateway.files.content(file.id)
    first = await anext(content)
    await edge.gateway.files.delete(file.id)

    assert await sent_of(Download(file, first, content, "req")) == (CAPACITY, False)


async def test_a_composed_file_must_be_as_long_as_it_says(edge: Edge) -> None:
    """Whether it is whole is told by its end."""
    del edge
    file = File("file-1", "shop", "out.jsonl", "batch_output", 6, 0.0, composed="batch_1")

    assert await sent_of(Download(file, b"abc", _pieces(b"def"), "req")) == (6, True)
    assert await sent_of(Download(file, b"abc", _pieces(b"de"), "req")) == (5, False)


async def _pieces(*parts: bytes) -> Any:
    for part in parts:
        yield part


async def sent_of(response: Download) -> tuple[int, bool]:
    """Return how many bytes a response sends, and whether it ends well."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await response({}, Channel(then="hang"), send)
    bodies = [message for message in sent if message["type"] == "http.response.body"]
    return sum(len(message["body"]) for message in bodies), not bodies[-1]["more_body"]
