"""What changes while a call runs: the catalog's prices, the key, the budget, the period. The call keeps what it began with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from shared import bootstrap
from shared.adapters.clock import SystemClock
from shared.ledger import AccountKey, IntentState, rows
from tests.faults.money import CHAT, INPUT, OUTPUT, PAYING, ask, budget, chat, finish, over, settled
from tests.functions.harness import CATALOG, Edge

TEXT = Path(CATALOG).read_text()
PRICED = "      - {provider: north, prices: [{from: 2026-01-01, input: 1, output: 2, source: test, read_on: 2026-01-01}]}"
UNPRICED = "      - {provider: north, prices: []}"
STREAM = chat(stream=True, stream_options={"include_usage": True})
DAY = 86_400.0


class Moved(SystemClock):
    """A clock whose wall can be moved on."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0
        self.now = lambda: time.time() + self.ahead


def rewrite(path: Path, text: str) -> None:
    """Change a file, as an editor would."""
    path.write_text(text)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """Return a catalog that can be changed."""
    path = tmp_path / "models.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
async def edge(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Edge]:
    """Return the running edge over that catalog and a clock that can be moved."""
    monkeypatch.setattr(bootstrap, "SystemClock", Moved)
    async with over("memory:", catalog=str(catalog)) as found:
        yield found


async def streamed(edge: Edge, headers: dict[str, str], between: Callable[[], Awaitable[object]]) -> str:
    """Ask for a stream, do something once its first words are here, and return the whole of it."""
    edge.simulator.script({"chunk_gap_ms": 40, "answer": "one two three four five six"})
    async with edge.session.post(edge.url + CHAT, json=STREAM, headers=headers) as response:
        assert response.status == 200
        text = (await response.content.readline()).decode()
        await between()
        return text + (await response.read()).decode()


def cost(text: str) -> int:
    """Return what a stream's usage costs at the price it was admitted with."""
    found = [int(part.split(":")[1].split(",")[0].rstrip("}")) for name in ("prompt_tokens", "completion_tokens")
             for part in [text[text.rindex(f'"{name}"'):]]]  # fmt: skip
    return found[0] * INPUT + found[1] * OUTPUT


@pytest.mark.parametrize("after", [PRICED.replace("input: 1, output: 2", "input: 90, output: 90"), UNPRICED])
async def test_a_price_that_changes_or_disappears_while_a_stream_runs(edge: Edge, catalog: Path, after: str) -> None:
    """The stream settles at the price it was admitted with. Without a price the next call is refused, or answered unpriced."""
    assert TEXT.count(PRICED) == 1
    name = await budget(edge)
    key, other = await edge.key(PAYING), await edge.key("other")

    async def change() -> None:
        rewrite(catalog, TEXT.replace(PRICED, after))
        await edge.gateway.catalog.refresh()

    text = await streamed(edge, key, change)
    found = await settled(edge, name)
    hard, free = await ask(edge, key), await ask(edge, other)

    assert text.endswith("data: [DONE]\n\n")
    assert [cost(text)] == found.charges
    assert 200 == free.status
    if "input" in after:
        assert 200 == hard.status
    else:
        assert (429, "insufficient_quota", "false") == (hard.status, hard.error["code"], hard.headers["x-should-retry"])
        assert "price" in hard.error["message"]
        assert "x-switchyard-cost-usd" not in free.headers


async def test_a_key_revoked_in_mid_stream(edge: Edge) -> None:
    """The stream comes to its end and is charged; the key's next request is refused at once."""
    name = await budget(edge)
    made = (await edge.post("/v1/keys", {"name": "k", "project": PAYING})).json
    key = {"authorization": f"Bearer {made['key']}"}

    async def revoke() -> None:
        assert 200 == (await edge.call("DELETE", f"/v1/keys/{made['id']}")).status
        refused = await ask(edge, key)
        assert (401, "invalid_api_key") == (refused.status, refused.error["code"])

    text = await streamed(edge, key, revoke)
    found = await settled(edge, name)

    assert text.endswith("data: [DONE]\n\n")
    assert ([cost(text)], {IntentState.DONE}) == (found.charges, found.states)
    usage = (await edge.get(f"/v1/usage?key={made['id']}")).json["total"]
    assert (1, found.spent) == (usage["requests"], usage["cost_nano_usd"])


@pytest.mark.parametrize("change", [{"limit_usd": "0.000000001"}, {"enabled": False}, {"hard": False}])
async def test_a_budget_that_changes_in_mid_stream(edge: Edge, change: dict[str, object]) -> None:
    """What was held stays held and is settled; the change is in force for the next call, here at once."""
    name = await budget(edge)
    key = await edge.key(PAYING)

    async def alter() -> None:
        assert 200 == (await edge.call("PATCH", f"/v1/budgets/{name}", json=change)).status

    text = await streamed(edge, key, alter)
    found = await settled(edge, name)

    assert [cost(text)] == found.charges
    assert (429 if "limit_usd" in change else 200) == (await ask(edge, key)).status


async def test_a_period_that_ends_while_money_is_held(edge: Edge) -> None:
    """What was admitted before midnight is settled in that day, though it ends in the next; the new day has its whole limit."""
    clock = edge.gateway.clock
    assert isinstance(clock, Moved)
    name = await budget(edge, cycle="day", limit="0.001")
    key = await edge.key(PAYING)
    begun = (await edge.get(f"/v1/budgets/{name}")).json["period"]["key"]

    async def midnight() -> None:
        shown = (await edge.get(f"/v1/budgets/{name}")).json
        assert 0 < shown["held_nano_usd"]
        clock.ahead = DAY
        shown = (await edge.get(f"/v1/budgets/{name}")).json
        assert begun == shown["previous"]["period"]["key"] != shown["period"]["key"]
        assert 0 < shown["previous"]["held_nano_usd"]
        assert (0, 0, shown["limit_nano_usd"]) == tuple(shown[f"{what}_nano_usd"] for what in ("spent", "held", "left"))

    text = await streamed(edge, key, midnight)
    assert 200 == (await ask(edge, key)).status
    await finish(edge.gateway)
    table = edge.gateway.tables.table(rows.TABLE)
    entity = await table.get(rows.account_partition(AccountKey(name, begun)), rows.HEAD)
    assert entity is not None
    head = rows.head(entity)
    today = (await edge.get(f"/v1/budgets/{name}")).json

    assert (cost(text), 0) == (head.spent, head.reserved)
    assert 0 < today["spent_nano_usd"]
    assert 0 == today["held_nano_usd"]


async def test_a_catalog_without_the_model_that_is_streaming(edge: Edge, catalog: Path) -> None:
    """The deployment goes away in mid-stream: the stream ends well and is charged; the next call does not find it."""
    name = await budget(edge)
    key = await edge.key(PAYING)

    async def remove() -> None:
        rewrite(catalog, TEXT.replace("  small:\n", "  tiny:\n").replace("[small]", "[tiny]"))
        await edge.gateway.catalog.refresh()
        await asyncio.sleep(0)

    text = await streamed(edge, key, remove)

    assert [cost(text)] == (await settled(edge, name)).charges
    assert 404 == (await ask(edge, key)).status
