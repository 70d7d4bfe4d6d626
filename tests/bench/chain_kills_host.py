"""Kill -9 of a whole host with background work in flight: the host started after it says what was lost, and owes nothing."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.bootstrap import open_gateway
from shared.settings import Settings
from tests.bench.chain_kills_books import Books, read
from tests.bench.chain_kills_scene import CATALOG, HANGS, WAITS, Provider, providing
from tests.bench.tables import table
from tests.e2e.harness import Host, hosting

LIMIT = 1_000_000_000
PATIENCE = 120.0
LOST = "chain_lost"
SHOWN = {False: LOST, True: "server_error"}
"""As which code a lost chain is shown: a response's are OpenAI's own, so that its SDK can read it."""


@dataclass(slots=True)
class Piece:
    """One piece of background work, with a project, a key and a hard budget of its own. ``path`` is where it is shown."""

    name: str
    response: bool
    code: str | None
    key: str = ""
    path: str = ""
    shown: str = ""
    """What the host that was started afterwards shows: the answer, or the error's code."""
    books: Books | None = None
    billed: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The chain's id."""
        return self.path.rpartition("/")[2]


def pieces() -> list[Piece]:
    """Return the work there is when the host is killed: answered, being answered, and waiting for an hour."""
    kinds = ("answered", None), (f"{HANGS}: being answered", LOST), (f"{WAITS} for an hour", LOST)
    return [
        Piece(f"{what}, {'response' if response else 'respond-async'} {number}", response, code)
        for what, code in kinds
        for response in (False, True)
        for number in (1, 2)
    ]


async def run() -> list[Piece]:
    """Play it over a SQLite file; return what became of each piece."""
    with tempfile.TemporaryDirectory(prefix="switchyard-host-") as made:
        folder = Path(made)
        async with providing() as provider:
            catalog = str(folder / "catalog.yaml")
            Path(catalog).write_text(CATALOG.format(url=provider.url), encoding="utf-8")  # noqa: ASYNC240 - a few bytes
            work = pieces()
            async with hosting(folder, SWITCHYARD_CATALOG=catalog) as host:
                await asyncio.gather(*(_begin(host, piece) for piece in work))
                await _until_in_flight(host, provider, work)
                await host.stop(signal.SIGKILL)
            async with hosting(folder, SWITCHYARD_CATALOG=catalog) as host:
                await asyncio.gather(*(_until_ended(host, piece) for piece in work))
                await _until_settled(host, work)
                await host.stop()
            await _read(f"sqlite:{folder / '.switchyard' / 'state.db'}", catalog, provider, work)
    return work


async def _begin(host: Host, piece: Piece) -> None:
    """Make a budget and a key, and ask."""
    made = {"name": piece.name, "scope": {"kind": "project", "name": _project(piece)}, "limit_usd": "1", "cycle": "total"}
    status, told = await host.call("POST", "/v1/budgets", {**made, "id": _project(piece)})
    assert status == 201, told
    status, told = await host.call("POST", "/v1/keys", {"name": "k", "project": _project(piece)})
    assert status == 201, told
    piece.key = told["key"]
    headers = {"authorization": f"Bearer {piece.key}"}
    if piece.response:
        body: dict[str, Any] = {"model": "small", "input": piece.name, "max_output_tokens": 50, "background": True}
        async with host.session.post(f"{host.url}/v1/responses", json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            piece.path = f"/v1/responses/{(await response.json())['id']}"
        return
    body = {"model": "small", "max_tokens": 50, "messages": [{"role": "user", "content": piece.name}]}
    headers["prefer"] = "respond-async"
    async with host.session.post(f"{host.url}/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status == 202, await response.text()
        piece.path = response.headers["location"]


def _project(piece: Piece) -> str:
    return "".join(one if one.isalnum() else "-" for one in piece.name)


async def _look(host: Host, piece: Piece) -> str | None:
    """Return what a piece came to, as its owner is shown it; None while it has not ended."""
    async with host.session.get(host.url + piece.path, headers={"authorization": f"Bearer {piece.key}"}) as response:
        told = await response.json()
    if response.status == 202 or told.get("status") in {"queued", "in_progress"}:
        return None
    if told.get("error"):
        return str(told["error"]["code"])
    return str(told["output"][0]["content"][0]["text"] if piece.response else told["choices"][0]["message"]["content"])


async def _until_in_flight(host: Host, provider: Provider, work: Sequence[Piece]) -> None:
    """Wait until what can be answered is, and of all others the provider has been asked."""
    async with asyncio.timeout(PATIENCE):
        for piece in work:
            while not (await _look(host, piece) if piece.code is None else _asked(provider, piece)):
                await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)  # what was refused is written down, and waited for


def _asked(provider: Provider, piece: Piece) -> bool:
    return piece.name in provider.refused or provider.calls(piece.name) > 0


async def _until_ended(host: Host, piece: Piece) -> None:
    async with asyncio.timeout(PATIENCE):
        while (shown := await _look(host, piece)) is None:
            await asyncio.sleep(0.5)
    piece.shown = shown


async def _until_settled(host: Host, work: Sequence[Piece]) -> None:
    async with asyncio.timeout(PATIENCE):
        for piece in work:
            while (await host.call("GET", f"/v1/budgets/{_project(piece)}"))[1]["held_nano_usd"]:
                await asyncio.sleep(0.5)


async def _read(storage: str, catalog: str, provider: Provider, work: Sequence[Piece]) -> None:
    """Read the books of each piece, when both hosts are gone."""
    gateway = await open_gateway(Settings(catalog=catalog, storage=storage), environment={})
    try:
        for piece in work:
            books = await read(gateway, piece.id, budget=_project(piece), limit=LIMIT)
            answers = provider.answers[piece.name]
            piece.books, piece.billed = books, provider.billed(piece.name)
            piece.wrong = books.wrong(answers=answers, billed=piece.billed, code=piece.code)
            if piece.shown not in ([SHOWN[piece.response]] if piece.code else answers):
                piece.wrong.append(f"it is shown as {piece.shown!r}")
    finally:
        await gateway.aclose()


def report(work: Sequence[Piece]) -> None:
    """Print what was found."""
    head = ["in flight", "shown afterwards", "billed", "charged", "spent = rows = usage", "held", "claims", "index", ""]
    table(
        "A host killed with background work in flight, and started again (SQLite, micro-USD)", head, [_row(one) for one in work]
    )
    for piece in work:
        for text in piece.wrong:
            print(f"WRONG, {piece.name}: {text}")


def _row(piece: Piece) -> list[object]:
    books = piece.books
    if books is None:
        return [piece.name, piece.shown, *["-"] * 6, "WRONG"]
    usage = None if books.usage is None else books.usage.record.cost
    return [
        piece.name,
        "the answer" if piece.code is None and not piece.wrong else piece.shown,
        f"{piece.billed / 1000:g}",
        f"{books.charged / 1000:g}",
        "yes" if books.head.spent == books.charged == usage else "NO",
        f"{books.head.reserved / 1000:g}",
        ", ".join(claim.state.value for claim in books.claims),
        "listed" if books.listed else "empty",
        "WRONG" if piece.wrong else "ok",
    ]
