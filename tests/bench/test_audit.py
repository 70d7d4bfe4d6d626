"""The replay's audit finds what it is there to find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.bench.audit import Received, Seen, Verdict, audit
from tests.bench.client import Answer
from tests.bench.replay import CATALOG, faults

HEAD = b"HTTP/1.1 200 OK\r\nX-Request-ID: req_1"
TOKENS = {"input_tokens": 10, "output_tokens": 7, "cache_read": 3, "cache_creation": 0, "reasoning": 2}
COST = 5_683  # (7 × 0.1503 + 3 × 0.0757 + 5 × 0.6007 + 2 × 0.7001) USD per million tokens is 5,682.9 nano-USD
CONTENT = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'
ERROR = b'data: {"error": {"message": "cut off"}}\n\n'


def request(**changes: Any) -> dict[str, Any]:
    """Return a request as the gateway wrote it down."""
    attempt = {
        "number": 1,
        "provider": "primary",
        "outcome": "succeeded",
        "usage": TOKENS,
        "exact": True,
        "cost_nano_usd": COST,
    }
    return {"id": "req_1", "attempts": [attempt | changes]}


def judged(
    *,
    seen: Seen | None = None,
    written: list[dict[str, Any]] | None = None,
    cost: int = COST,
    received: list[Received] | None = None,
) -> Verdict:
    """Audit one request that went well, but for what is given."""
    usage = {"requests": 1, "attempts": 1, "cost_nano_usd": cost, "cost_unknown": 0, "underestimates": 0}
    asked = Seen("req_1", stream=False, outcome="answered", attempts=1)
    sound = [Received("req_1", "primary", None, stream=False, billed=TOKENS)]
    return audit([seen or asked], written or [request()], usage, sound if received is None else received, CATALOG)


def test_all_is_well() -> None:
    """A request that was answered, written down once and priced right breaks no promise."""
    assert judged().kept


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: judged(seen=Seen("req_1", stream=False, outcome="error 503", attempts=1)),
        lambda: judged(seen=Seen("req_1", stream=True, outcome="interrupted", attempts=1)),
        lambda: judged(received=[]),
        lambda: judged(received=[Received("req_1", "primary", None, stream=False, billed=TOKENS)] * 2),
        lambda: judged(written=[{"id": "req_1", "attempts": []}]),
        lambda: judged(written=[request(provider="reserve")]),
        lambda: judged(written=[request(usage=TOKENS | {"output_tokens": 8})]),
        lambda: judged(written=[request(cost_nano_usd=COST - 1)]),
        lambda: judged(cost=COST + 1),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(wrong: Callable[[], Verdict]) -> None:
    """An error, a lost, doubled or misplaced attempt, a wrong token and a wrong nano-dollar each break a promise."""
    verdict = wrong()

    assert not verdict.kept


def test_stream_broken_by_its_provider_is_excused() -> None:
    """A stream may end in an error event after content only where the upstream broke the attempt that served it."""
    seen = Seen("req_1", stream=True, outcome="interrupted", attempts=1)

    assert judged(seen=seen, received=[Received("req_1", "primary", "reset_mid_stream", stream=True, billed=TOKENS)]).kept
    assert not judged(seen=seen, received=[Received("req_1", "primary", "server_error", stream=True, billed=TOKENS)]).kept


@pytest.mark.parametrize(
    ("outcome", "body"),
    [
        ("answered", CONTENT + b"data: [DONE]\n\n"),
        ("interrupted", CONTENT + ERROR),
        ("an error event before content", ERROR),
        ("a silent cut", CONTENT),
        ("an empty answer", b"data: [DONE]\n\n"),
    ],
)
def test_stream_is_judged(outcome: str, body: bytes) -> None:
    """A stream is answered only with content and its end; one that just stops is a silent cut."""
    seen = Seen.of(Answer(200, 0.1, body, HEAD), stream=True)

    assert ("req_1", outcome) == (seen.request_id, seen.outcome)


@pytest.mark.parametrize(
    ("outcome", "status", "body"),
    [
        ("answered", 200, b'{"choices": [{"message": {"content": "x"}}]}'),
        ("an empty answer", 200, b'{"choices": [{"message": {"content": ""}}]}'),
        ("not an answer", 200, b'{"choices": []}'),
        ("not an answer", 200, b"nonsense"),
        ("error 503", 503, b"{}"),
        ("error 0", 0, b""),
    ],
)
def test_whole_answer_is_judged(outcome: str, status: int, body: bytes) -> None:
    """A whole answer is answered only with content."""
    assert outcome == Seen.of(Answer(status, 0.1, body, HEAD), stream=False).outcome


def test_every_way_to_fail_comes_up() -> None:
    """Of the primary's attempts the wanted share fails, every way about as often, and the same on each run."""
    queue = faults(8000, 0.2, refused=False)
    kinds = [one["kind"] for one in queue if one is not None]

    assert queue == faults(8000, 0.2, refused=False)
    assert 0.23 < len(kinds) / len(queue) < 0.27
    assert min(kinds.count(kind) for kind in set(kinds)) > 20
    assert {"hang_before_headers", "reset_mid_stream", "garbage", "content_filter", "sse_odd"} < set(kinds)
    assert {one["kind"] for one in faults(2000, 0.2, refused=True) if one is not None} > {"unauthorized", "gone"}
