"""Processes that die while they make a chain's attempts (30).

They are processes of `tests.bench.chain_kills`: the app's own activities over the shipped gateway, killed by SIGKILL at one
point. A session is taken for dead after four seconds instead of thirty. All points: ``python -m tests.bench.chain_kills``.
"""

from __future__ import annotations

from tests.bench.chain_kills import QUICK, QUICK_TTL, run


async def test_30_a_kill_anywhere_in_a_chain_bills_each_attempt_once() -> None:
    """Held, claimed, answered or ending: each attempt has one charge, none is missing, and the chain has its answer."""
    results = await run("sqlite", scenarios=QUICK, ttl=QUICK_TTL)

    assert [] == [(result.scenario.name, result.wrong) for result in results if result.wrong]
    assert len(QUICK) == len(results) == sum(result.kills >= 1 for result in results)
