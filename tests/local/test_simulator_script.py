"""Scripts: which rule applies, what rates draw, what the log tells; and the control calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from aiohttp import ClientSession

from local.simulator import BEFORE_CONTENT, GROUPS, FaultKind, ScriptError, Simulator, start_simulator
from local.simulator.attempts import Attempt, AttemptLog
from local.simulator.memory import PromptMemory
from local.simulator.paths import Target, find_target
from local.simulator.script import Script

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/openai/v1/chat/completions", Target("openai", "openai", "chat")),
        ("/v1/chat/completions", Target("default", "openai", "chat")),
        ("/openai/deployments/d/embeddings", Target("default", "azure", "embeddings", "d")),
        ("/az/openai/deployments/d/chat/completions", Target("az", "azure", "chat", "d")),
        ("/az/openai/v1/completions", Target("az", "azure", "completions")),
        ("/anthropic/v1/messages", Target("anthropic", "anthropic", "messages")),
        ("/az/anthropic/v1/messages", Target("az", "anthropic", "messages")),
        ("/v1/messages/count_tokens", Target("default", "anthropic", "count_tokens")),
        ("/github/inference/chat/completions", Target("github", "openai", "chat")),
        ("/ollama/v1/models", Target("ollama", "openai", "models")),
        ("/openai/v1/nothing", None),
        ("/", None),
    ],
)
def test_paths(path: str, target: Target | None) -> None:
    """The first segment is the profile, the last name the call, Azure is known by what is between."""
    assert target == find_target(path)


def test_queue_is_taken_in_order_then_ends() -> None:
    """Faults are met in the order scripted, each as often as it says, and then no more."""
    script = Script()
    script.apply({"faults": ["gone", None, {"kind": "garbage", "times": 2}]})
    met = [script.take("p", "m", 0) for _ in range(6)]
    kinds = [fault.kind.value if fault else None for fault in met]
    assert ["gone", None, "garbage", "garbage", None, None] == kinds


def test_the_most_specific_rule_wins() -> None:
    """Profile and model beat profile, which beats model, which beats the rule for all; settings add up."""
    script = Script()
    script.apply(
        [
            {"faults": ["gone"], "latency_ms": 1, "seed": 4},
            {"model": "m", "faults": ["garbage"], "latency_ms": 2},
            {"profile": "p", "faults": ["overloaded"], "latency_ms": 3},
            {"profile": "p", "model": "m", "faults": ["unauthorized"], "words": 9},
        ]
    )
    met = [script.take("p", "m", 0) for _ in range(5)]
    kinds = [fault.kind.value if fault else None for fault in met]
    assert ["unauthorized", "overloaded", "garbage", "gone", None] == kinds
    settings = script.settings("p", "m")
    assert (3, 4, 9) == (settings.latency_ms, settings.seed, settings.words)
    assert script.settings("other", "other").latency_ms == 1


def test_rates_are_exact_enough_and_repeat() -> None:
    """A rate comes out as often as it says, and the same seed draws the same faults."""

    def draws(seed: int) -> list[str | None]:
        script = Script()
        script.apply({"rates": {"gone": 0.1, "garbage": {"rate": 0.2, "after_events": 1}}})
        return [fault.kind.value if fault else None for fault in (script.take("p", "m", seed) for _ in range(4000))]

    counts = Counter(draws(1))
    assert counts["gone"] == pytest.approx(400, abs=60)
    assert counts["garbage"] == pytest.approx(800, abs=80)
    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_a_group_shares_its_rate() -> None:
    """A group's name stands for each of its faults, and nothing else."""
    script = Script()
    script.apply({"rates": {"before_content": 1.0}})
    met = {fault.kind for fault in (script.take("p", "m", 0) for _ in range(2000)) if fault}
    assert set(BEFORE_CONTENT) == met
    named = [kind for kinds in GROUPS.values() for kind in kinds]
    assert len(named) == len(set(named))
    assert {FaultKind.OK} == set(FaultKind) - set(named)


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ("text", "object"),
        ({"fault": []}, "'fault'"),
        ({"faults": "gone"}, "'faults'"),
        ({"faults": ["goner"]}, "'goner'"),
        ({"faults": [{"kind": "gone", "tiems": 2}]}, "'tiems'"),
        ({"faults": [{"kind": "gone", "times": -1}]}, "'times'"),
        ({"faults": [{"times": 2}]}, "no kind"),
        ({"rates": {"gone": 2}}, "'gone'"),
        ({"rates": {"gone": 0.6, "garbage": 0.6}}, "more than 1"),
        ({"rates": {"rate": float("nan")}}, "'rate'"),
        ({"latency_ms": -1}, "'latency_ms'"),
        ({"latency_ms": float("inf")}, "'latency_ms'"),
        ({"models": "gpt"}, "'models'"),
        ({"profile": 7}, "'profile'"),
        ({"seed": True}, "'seed'"),
    ],
)
def test_bad_scripts_are_refused_whole(document: Any, named: str) -> None:
    """A bad script names its mistake and changes nothing, not even by its good first half."""
    script = Script()
    with pytest.raises(ScriptError, match=named):
        script.apply([{"latency_ms": 9}, document])
    assert script.settings("p", "m").latency_ms == 0


async def test_control_calls(simulator: Simulator, http: ClientSession) -> None:
    """Script, log and reset work over HTTP; mistakes are 400 with the reason."""
    async with http.post("/_sim/script", json={"profile": "p", "faults": ["gone"]}) as response:
        assert await response.json() == {"ok": True, "faults_pending": 1}
    headers = {"authorization": "Bearer sk-secret", "x-request-id": "r1"}
    for _ in range(2):
        async with http.post("/p/v1/chat/completions", json=BODY, headers=headers):
            pass
    async with http.get("/_sim/log?since=0") as response:
        text = await response.text()
        log = await response.json()
    assert "sk-secret" not in text
    assert [410, 200] == [attempt["status"] for attempt in log["attempts"]]
    assert log["attempts"][1]["credentials"] == ["authorization"]
    assert log["attempts"][1]["headers"]["x-request-id"] == "r1"
    assert log["counters"]["by_fault"] == {"gone": 1, "none": 1}
    assert log["next"] == 2
    async with http.get("/_sim/log?since=2") as response:
        assert (await response.json())["attempts"] == []
    async with http.post("/_sim/reset") as response:
        assert response.status == 200
    assert simulator.log() == []
    for method, path, data in (
        ("POST", "script", b"{"),
        ("POST", "script", b'{"nope": 1}'),
        ("POST", "script", b"[3]"),
        ("GET", "log?since=x", None),
    ):
        async with http.request(method, f"/_sim/{path}", data=data) as response:
            assert response.status == 400
            assert (await response.json())["error"]
    async with http.get("/_sim/nothing") as response:
        assert response.status == 404


async def test_latency_and_gaps(simulator: Simulator, http: ClientSession) -> None:
    """latency_ms passes before the head, chunk_gap_ms between events, so the first event comes alone."""
    simulator.script({"latency_ms": 80, "chunk_gap_ms": 30, "answer": "one two three four"})
    clock = asyncio.get_running_loop().time
    started = clock()
    async with http.post("/p/v1/chat/completions", json={**BODY, "stream": True}) as response:
        head = clock() - started
        times = [clock() - started async for _ in response.content]
    assert head >= 0.08
    assert times[-1] - times[0] >= 0.15


async def test_counters_survive_a_short_log() -> None:
    """The log keeps the newest attempts only; the counters count them all."""
    async with await start_simulator(log_limit=3) as simulator, ClientSession(simulator.url) as http:
        for _ in range(5):
            async with http.post("/p/v1/chat/completions", json=BODY):
                pass
        assert [3, 4, 5] == [attempt.seq for attempt in simulator.log()]
        assert simulator.counters["requests"] == 5
        assert simulator.counters["billed"]["input_tokens"] == 30


def test_reset_forgets_attempts_in_flight() -> None:
    """An attempt that began before a reset does not end in the new counters."""
    log = AttemptLog(10)
    attempt = log.open(Attempt(0, 0.0, "p", "openai", "chat", "POST", "/"))
    log.clear()
    log.close(attempt, "answered")
    assert log.counters()["active"] == 0
    assert log.counters()["by_outcome"] == {}


def test_prompt_memory_is_bounded() -> None:
    """The oldest prefix is forgotten when there are too many; profiles do not share."""
    memory = PromptMemory(limit=2)
    assert [False, True, False] == [memory.meet("p", "a"), memory.meet("p", "a"), memory.meet("q", "a")]
    memory.meet("p", "b")
    assert not memory.meet("p", "a")


async def test_context_window(simulator: Simulator, http: ClientSession) -> None:
    """A prompt above the scripted window is refused as a provider refuses it."""
    simulator.script({"profile": "p", "context_window": 5})
    async with http.post("/p/v1/chat/completions", json=BODY) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "context_length_exceeded"


async def test_port_taken(simulator: Simulator) -> None:
    """A port in use is an OSError, not a silent second server."""
    with pytest.raises(OSError, match="address already in use"):
        await start_simulator(simulator.port)
