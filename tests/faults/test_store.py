"""The store's faults, through the whole gateway: busy, lost answers, conflicts, frozen, restarted, full (23-28, 34)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from shared.budgets.store import PATIENCE
from shared.ledger import AccountKey, IntentState, rows
from shared.ledger.policy import DEFAULT_POLICY
from shared.ports import Entity, Tables
from tests.azurite.process import Azurite
from tests.faults.money import PAYING, PERIOD, ask, budget, finish, over, settled
from tests.faults.wire import Asked, Fate, Wire, first
from tests.functions.harness import Edge, Reply

FAST = PATIENCE + DEFAULT_POLICY.wait * 1.25 + 10
"""Seconds in which a refusal must come: what a look at the budgets and the ledger may take; ten are a busy machine's."""


def intent(asked: Asked) -> bool:
    """Say whether a request to the store writes the ledger's attempts."""
    return asked.writes_to(b"s~") and b'"r~' in asked.body


def lease(asked: Asked) -> bool:
    """Say whether a request to the store moves money from a budget's head to a lease, or back."""
    return asked.writes_to(b"b~")


async def timed(edge: Edge, headers: dict[str, str]) -> tuple[Reply, float]:
    """Ask, and take the time."""
    began = time.monotonic()
    reply = await ask(edge, headers)
    return reply, time.monotonic() - began


# ---- 23: busy ----------------------------------------------------------------------------------------------------------


async def test_23_a_store_that_is_busy_for_a_moment_is_waited_for(wire: Wire) -> None:
    """Throttled writes are sent again, with pauses: the caller gets the answer, the books are right."""
    async with over(wire.setting) as edge:
        name = await budget(edge)
        key = await edge.key(PAYING)
        wire.judge = first(Fate.BUSY, lambda asked: asked.writes_to(b""), times=4)
        reply = await ask(edge, key)

        assert (200, [Fate.BUSY] * 4) == (reply.status, wire.met)
        found = await settled(edge, name)
        assert (1, {IntentState.DONE}) == (len(found.attempts), found.states)
        assert len(edge.sent()) == 1


@pytest.mark.parametrize("fate", [Fate.BUSY, Fate.BROKEN])
async def test_23_a_store_that_stays_busy_refuses_hard_budgets_and_is_not_hammered(wire: Wire, fate: Fate) -> None:
    """503 with Retry-After in time, nothing sent to the provider; who has no hard budget is served. Then all is well."""
    async with over(wire.setting) as edge:
        name = await budget(edge)
        hard, soft = await edge.key(PAYING), await edge.key("other")
        assert [200, 200] == [(await ask(edge, key)).status for key in (hard, soft)]
        wire.judge = lambda asked: fate if asked.writes_to(b"") else Fate.PASS
        (refused, took), served = await asyncio.gather(timed(edge, hard), ask(edge, soft))
        hammered = len(wire.met)
        wire.judge = lambda _asked: Fate.PASS

        assert (503, "storage_unavailable", "1") == (refused.status, refused.error["code"], refused.headers["retry-after"])
        assert took < FAST
        assert (200, 3) == (served.status, len(edge.sent()))
        assert 2 <= hammered <= 60
        assert (await ask(edge, hard)).status == 200
        assert {2} == {len([row for row in (await settled(edge, name)).attempts if row.state is IntentState.DONE])}


# ---- 24: outcome unknown ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", [Fate.LOSE, Fate.DROP, Fate.BROKEN])
@pytest.mark.parametrize("what", [lease, intent], ids=["lease", "intent"])
@pytest.mark.parametrize("after", [0, 1], ids=["at the first", "at the next"])
async def test_24_an_unknown_outcome_is_told_by_the_token(wire: Wire, fate: Fate, what: object, after: int) -> None:
    """Whether a write that was not answered landed or not: the call is answered once, charged once, and nothing leaks."""
    assert callable(what)
    async with over(wire.setting) as edge:
        name = await budget(edge)
        key = await edge.key(PAYING)
        for _ in range(after):
            assert (await ask(edge, key)).status == 200
            await finish(edge.gateway)
        wire.judge = first(fate, what)
        reply = await ask(edge, key)

        assert (200, [fate]) == (reply.status, wire.met)
        found = await settled(edge, name)
        assert (after + 1, {IntentState.DONE}) == (len(found.attempts), found.states)
        assert len(edge.sent()) == after + 1


@pytest.mark.parametrize("fate", [Fate.LOSE, Fate.DROP])
async def test_24_a_settlement_of_unknown_outcome_charges_once(wire: Wire, fate: Fate) -> None:
    """The write that says what a call cost is repeated until it is known to be there: what was spent is the usage's cost."""
    async with over(wire.setting) as edge:
        name = await budget(edge)
        key = await edge.key(PAYING)
        assert (await ask(edge, key)).status == 200
        await finish(edge.gateway)
        wire.judge = first(fate, lambda asked: intent(asked) and b'"state":"d"' in asked.body.replace(b" ", b""))
        reply = await ask(edge, key)
        found = await settled(edge, name)

        assert wire.met == [fate]
        assert [float(reply.headers["x-switchyard-cost-usd"])] * 2 == [charge / 1e9 for charge in found.charges]


# ---- 25, 26: conflicts --------------------------------------------------------------------------------------------------


async def test_25_a_412_is_read_again(wire: Wire, elsewhere: Tables) -> None:
    """Somebody else changes a budget's head just before us, again and again: each time it is read anew, and it adds up."""
    async with over(wire.setting) as edge:
        name = await budget(edge)
        key = await edge.key(PAYING)
        assert (await ask(edge, key)).status == 200
        await finish(edge.gateway)
        left = 3

        async def meddle(asked: Asked) -> None:
            nonlocal left
            if lease(asked) and left:
                left -= 1
                table = elsewhere.table(rows.TABLE)
                head = await table.get(rows.account_partition(AccountKey(name, PERIOD)), rows.HEAD)
                assert head is not None
                await table.replace(head)

        wire.meddle = meddle
        before = wire.conflicts(412)
        assert (await ask(edge, key)).status == 200

        assert 3 == wire.conflicts(412) - before
        found = await settled(edge, name)
        assert (2, {IntentState.DONE}) == (len(found.attempts), found.states)
        table = elsewhere.table(rows.TABLE)
        assert 2 == len([row for name in (rows.SESSIONS, rows.CLOSED) async for row in table.query(name)])


async def test_26_a_409_replays_the_result(wire: Wire) -> None:
    """The second call finds the first one's row taken, and gets its answer: one attempt, one charge."""
    async with over(wire.setting) as edge:
        name = await budget(edge)
        key = {**await edge.key(PAYING), "idempotency-key": "one"}
        one = await ask(edge, key)
        before = wire.conflicts(409)
        two = await ask(edge, key)

        assert 1 == wire.conflicts(409) - before
        assert (200, one.body, "true") == (two.status, two.body, two.headers["idempotent-replayed"])
        assert 1 == len(edge.sent()) == len((await settled(edge, name)).attempts)


@pytest.mark.parametrize("fate", [Fate.LOSE, Fate.DROP])
@pytest.mark.parametrize("what", ["first", "answer"])
async def test_26_a_key_whose_write_was_lost_is_usable(wire: Wire, fate: Fate, what: str) -> None:
    """Whether the row of an Idempotency-Key landed is looked up: the call goes on or can be repeated; its answer is kept."""
    async with over(wire.setting) as edge:
        await budget(edge)
        key = {**await edge.key(PAYING), "idempotency-key": "one"}
        assert (await ask(edge, {**key, "idempotency-key": "zero"})).status == 200
        end = "/idempotency" if what == "first" else "$batch"
        wire.judge = first(fate, lambda asked: asked.path.endswith(end) and b"ledger" not in asked.body)
        replies = [await ask(edge, key), await ask(edge, key)]

        assert [fate] == wire.met
        assert 200 == replies[1].status
        assert replies[0].status in {200, 503}
        assert 2 == len(edge.sent())


# ---- 27, 28: frozen, restarted -------------------------------------------------------------------------------------------


async def test_27_a_store_frozen_for_six_seconds(own: Azurite) -> None:
    """Hard budgets are refused with 503 within the ledger's bound, soft ones served without waiting; then all goes on."""
    async with over(own.setting) as edge:
        name = await budget(edge)
        soft_name = await budget(edge, hard=False, scope={"kind": "project", "name": "easy"})
        hard, soft = await edge.key(PAYING), await edge.key("easy")
        assert [200, 200] == [(await ask(edge, key)).status for key in (hard, soft)]
        sent = len(edge.sent())
        own.freeze()
        frozen_at = time.monotonic()
        refused, served = [], []
        try:
            for _ in range(15):
                refused.append(asyncio.create_task(timed(edge, hard)))
                served.append(asyncio.create_task(timed(edge, soft)))
                await asyncio.sleep(0.4)
            assert time.monotonic() - frozen_at >= 6
            early = [task for task in refused if task.done()]
        finally:
            own.thaw()
        refusals = await asyncio.gather(*refused)
        answers = await asyncio.gather(*served)

        assert {200} == {reply.status for reply, _ in answers}
        assert len(early) >= 4
        assert {(503, "storage_unavailable", "1")} == {
            (reply.status, reply.error["code"], reply.headers["retry-after"]) for reply, _ in [task.result() for task in early]
        }
        assert max(took for _, took in refusals) < FAST
        assert max(took for _, took in answers) < FAST
        assert (await ask(edge, hard)).status == 200
        done = 2 + sum(reply.status == 200 for reply, _ in refusals)
        assert len(edge.sent()) == sent + 15 + done - 1
        found, easy = await settled(edge, name), await settled(edge, soft_name)
        assert done == sum(row.state is IntentState.DONE for row in found.attempts)
        assert 16 == sum(row.state is IntentState.DONE for row in easy.attempts)
        assert {IntentState.DONE, IntentState.VOID} >= found.states


async def test_28_an_emulator_that_is_killed_and_restarted(own: Azurite) -> None:
    """The gateway finds it again by itself; what it had saved before is there, and every call's charge is."""
    async with over(own.setting) as edge:
        name = await budget(edge)
        key = await edge.key(PAYING)
        for _ in range(5):
            assert (await ask(edge, key)).status == 200
        await edge.gateway.ledger.flush()
        await edge.gateway.usage.flush()
        await saved(own, edge.gateway.tables)
        own.kill()
        away = await asyncio.gather(*[timed(edge, key) for _ in range(5)])
        await asyncio.to_thread(own.start)

        assert {503} == {reply.status for reply, _ in away}
        assert max(took for _, took in away) < FAST
        assert {200} == {(await ask(edge, key)).status for _ in range(3)}
        found = await settled(edge, name)
        assert 8 == sum(row.state is IntentState.DONE for row in found.attempts)
        usage = (await edge.get(f"/v1/usage?project={PAYING}")).json
        assert found.spent == usage["total"]["cost_nano_usd"]


async def saved(emulator: Azurite, tables: Tables) -> None:
    """Wait until the emulator has saved what it was told before now."""
    await tables.table(rows.TABLE).insert(Entity("mark", "written-last"))
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(emulator.holds, "written-last"):
            await asyncio.sleep(0.05)


# ---- 34: a full disk -----------------------------------------------------------------------------------------------------


async def resize(tables: Tables, pages: int) -> None:
    """Let the file have so many pages and no more: what a disk without room is to SQLite."""
    worker = tables._writer  # type: ignore[attr-defined]  # there is no disk here that could be filled
    await worker.do(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone(), writes=False)


async def test_34_a_full_disk_is_a_503_and_no_grant(tmp_path: Path) -> None:
    """Nothing reaches the provider that is not written down; with room again calls go on and the books are right."""
    async with over(f"sqlite:{tmp_path / 'state.db'}") as edge:
        name = await budget(edge)
        key = await edge.key(PAYING)
        assert (await ask(edge, key)).status == 200
        await resize(edge.gateway.tables, 1)
        replies: list[Reply] = []
        while len(replies) < 60 and (not replies or replies[-1].status == 200):
            replies.append(await ask(edge, key, "x" * 3_000))
        answered = 1 + sum(reply.status == 200 for reply in replies)

        assert (503, "storage_unavailable") == (replies[-1].status, replies[-1].error["code"])
        assert len(edge.sent()) == answered
        await resize(edge.gateway.tables, 1_000_000)
        assert (await ask(edge, key)).status == 200
        found = await settled(edge, name)
        assert answered + 1 == sum(row.state is IntentState.DONE for row in found.attempts)
