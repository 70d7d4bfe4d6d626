"""What callers saw, what the upstream logged and what the gateway wrote down, laid side by side."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Self

import yaml

from local.simulator import AFTER_CONTENT, FaultKind
from tests.bench.client import Answer

OK: Final = 200
MAY_BREAK: Final = frozenset(AFTER_CONTENT) | {FaultKind.SLOW_DRIP}
"""Faults that end a stream after its content began; a drip does once it is slower than the attempt's time limit."""
PROBER: Final = "probe"
"""The key under which the gateway's own health probes are written down."""

NEVER_SENT: Final = frozenset({"not_admitted", "connection", "tls"})
"""Outcomes of attempts that reached nobody, and so can't be in the upstream's log."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one caller saw: ``answered``, ``interrupted`` (a stream with an error event after content), or what went wrong."""

    request_id: str
    stream: bool
    outcome: str
    attempts: int

    @classmethod
    def of(cls, answer: Answer, *, stream: bool) -> Self:
        """Judge an answer."""
        outcome = f"error {answer.status}" if answer.status != OK else (_stream if stream else _whole)(answer.body)
        return cls(answer.header("x-request-id"), stream, outcome, int(answer.header("x-switchyard-attempts") or 0))


def _whole(body: bytes) -> str:
    try:
        message = json.loads(body)["choices"][0]["message"]
    except (ValueError, LookupError, TypeError):
        return "not an answer"
    return "answered" if message.get("content") or message.get("refusal") else "an empty answer"


def _stream(body: bytes) -> str:
    events = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: ")]
    done = events[-1:] == [b"[DONE]"]
    documents = [json.loads(event) for event in events if event != b"[DONE]"]
    content = any(choice.get("delta", {}).get("content") for one in documents for choice in one.get("choices") or ())
    if any("error" in one for one in documents):
        return "interrupted" if content else "an error event before content"
    if not done:
        return "a silent cut"
    return "answered" if content else "an empty answer"


@dataclass(frozen=True, slots=True)
class Received:
    """One attempt in the upstream's log."""

    request_id: str
    provider: str
    fault: str | None
    stream: bool
    billed: Mapping[str, int]


def attempts_of(log: Sequence[Mapping[str, Any]]) -> list[Received]:
    """Read the simulator's log."""
    return [
        Received(one["headers"].get("x-request-id", ""), one["profile"], one["fault"], one["stream"], one["billed"])
        for one in log
    ]


@dataclass(slots=True)
class Verdict:
    """The tables to print, what was found wrong, and whether every promise was kept."""

    rows: list[list[object]] = field(default_factory=list)
    faults: list[list[object]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    kept: bool = True

    def expect(self, what: str, found: int, wanted: int) -> None:
        """Add a row that must hold."""
        self.rows.append([what, f"{found:,}", f"{wanted:,}", "" if found == wanted else "NOT SO"])
        self.kept = self.kept and found == wanted

    def hold(self, what: str, found: object, rule: str, *, holds: bool) -> None:
        """Add a row that must obey a rule."""
        self.rows.append([what, f"{found:,}" if isinstance(found, int) else found, rule, "" if holds else "NOT SO"])
        self.kept = self.kept and holds

    def tell(self, what: str, found: int) -> None:
        """Add a row to know."""
        self.rows.append([what, f"{found:,}", "", ""])


def audit(
    seen: Sequence[Seen],
    requests: Sequence[Mapping[str, Any]],
    usage: Mapping[str, Any],
    received: Sequence[Received],
    catalog: Path,
) -> Verdict:
    """Compare everything with everything."""
    verdict = Verdict()
    _answers(verdict, seen, received)
    _attempts(verdict, seen, requests, usage, received)
    _tokens(verdict, requests, received)
    _costs(verdict, requests, usage, catalog)
    _faults(verdict, seen, received)
    return verdict


def _answers(verdict: Verdict, seen: Sequence[Seen], received: Iterable[Received]) -> None:
    last = {one.request_id: one for one in received}
    broken = {name for name, one in last.items() if one.stream and one.fault in MAY_BREAK}
    outcomes = Counter(one.outcome for one in seen)
    excused = sum(one.outcome == "interrupted" and one.request_id in broken for one in seen)
    verdict.tell("requests", len(seen))
    verdict.expect("answered", outcomes["answered"], len(seen) - excused)
    verdict.expect("errors another candidate could have prevented", len(seen) - outcomes["answered"] - excused, 0)
    verdict.tell("streams the provider broke after content, ended by an error event", excused)
    for one in seen:
        if one.outcome != "answered" and not (one.outcome == "interrupted" and one.request_id in broken):
            verdict.problems.append(f"{one.request_id}: {'a stream' if one.stream else 'a whole answer'}: {one.outcome}")


def _attempts(
    verdict: Verdict,
    seen: Sequence[Seen],
    requests: Sequence[Mapping[str, Any]],
    usage: Mapping[str, Any],
    received: Sequence[Received],
) -> None:
    written = Counter((one["id"], attempt["provider"]) for one in requests for attempt in sent(one))
    logged = Counter((one.request_id, one.provider) for one in received)
    probes = sum(one.get("key") == PROBER for one in requests)
    verdict.tell("health probes of the gateway's own", probes)
    verdict.expect("requests in usage", usage["requests"], len(seen) + probes)
    verdict.expect("requests that can be looked up", len({one["id"] for one in requests}), len(seen) + probes)
    verdict.tell("fallbacks and retries (attempts beyond the first)", len(received) - len({one.request_id for one in received}))
    verdict.expect("attempts in usage, against the upstream's log", sum(written.values()), len(received))
    verdict.expect("attempts in GET /v1/usage", usage["attempts"], sum(len(one["attempts"]) for one in requests))
    lost, extra = logged - written, written - logged
    verdict.expect("attempts the upstream saw and usage does not have", sum(lost.values()), 0)
    verdict.expect("attempts usage has and the upstream never saw", sum(extra.values()), 0)
    verdict.problems += [f"{request}: {count} attempt(s) at {who} are not in usage" for (request, who), count in lost.items()]
    verdict.problems += [f"{request}: {count} attempt(s) at {who} too many" for (request, who), count in extra.items()]


def sent(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a written request's attempts that reached somebody."""
    return [attempt for attempt in request["attempts"] if attempt["outcome"] not in NEVER_SENT]


def _tokens(verdict: Verdict, requests: Sequence[Mapping[str, Any]], received: Iterable[Received]) -> None:
    in_order: dict[tuple[str, str], list[Received]] = defaultdict(list)
    for one in received:
        in_order[one.request_id, one.provider].append(one)
    exact = wrong = 0
    for request in requests:
        turn: Counter[str] = Counter()
        for attempt in sent(request):
            logged = in_order[request["id"], attempt["provider"]]
            place = turn[attempt["provider"]]
            turn[attempt["provider"]] += 1
            if not (attempt["usage"] and attempt["exact"]) or place >= len(logged):
                continue
            exact += 1
            if any(attempt["usage"][name] != tokens for name, tokens in logged[place].billed.items()):
                wrong += 1
                verdict.problems.append(f"{request['id']}: usage {attempt['usage']} is not the billed {logged[place].billed}")
    verdict.tell("attempts with exact tokens", exact)
    verdict.expect("of them, tokens that are not what the upstream billed", wrong, 0)


# ---- money -----------------------------------------------------------------------------------------------------------


def _costs(verdict: Verdict, requests: Sequence[Mapping[str, Any]], usage: Mapping[str, Any], catalog: Path) -> None:
    rates = prices(catalog)
    again = wrong = 0
    for request in requests:
        for attempt in request["attempts"]:
            cost = price_of(attempt["usage"], rates[attempt["provider"]]) if attempt["usage"] else 0
            again += cost
            if cost != attempt["cost_nano_usd"]:
                wrong += 1
                verdict.problems.append(f"{request['id']} attempt {attempt['number']}: {attempt['cost_nano_usd']}, not {cost}")
    verdict.expect("attempts whose cost is not tokens times price", wrong, 0)
    verdict.expect("nano-USD in GET /v1/usage, against the sum computed again", usage["cost_nano_usd"], again)
    verdict.expect("attempts of unknown cost", usage["cost_unknown"], 0)
    verdict.tell("attempts marked as underestimates (cut, timed out, never reported)", usage["underestimates"])


def prices(catalog: Path) -> dict[str, dict[str, Fraction]]:
    """Read each provider's rates from the catalog, exactly, in nano-USD per token."""
    text = yaml.load(catalog.read_text(), yaml.BaseLoader)  # noqa: S506  # every number stays the text it is
    found = {}
    for model in text["models"].values():
        for deployment in model["deployments"]:
            price = deployment["prices"][-1]
            rates = {name: Fraction(Decimal(rate)) * 1000 for name, rate in price.items() if name not in {"from", "source"}}
            found[deployment["provider"]] = rates
    return found


def price_of(usage: Mapping[str, Any], rates: Mapping[str, Fraction]) -> int:
    """Return what a usage costs in nano-USD, rounded up once: an independent computation of `shared.core.pricing.cost`."""
    cached, written, reasoning = int(usage["cache_read"]), int(usage["cache_creation"]), int(usage["reasoning"])
    plain_in, plain_out = int(usage["input_tokens"]) - cached - written, int(usage["output_tokens"]) - reasoning
    return math.ceil(
        plain_in * rates["input"]
        + cached * rates.get("cached_input", rates["input"])
        + written * rates.get("cache_write", rates["input"])
        + plain_out * rates["output"]
        + reasoning * rates.get("reasoning", rates["output"])
    )


# ---- faults ----------------------------------------------------------------------------------------------------------


def _faults(verdict: Verdict, seen: Iterable[Seen], received: Iterable[Received]) -> None:
    outcome = {one.request_id: one.outcome for one in seen}
    by_fault: dict[str, Counter[str]] = defaultdict(Counter)
    primary = 0
    for one in received:
        primary += one.provider == "primary"
        if one.fault is not None:
            by_fault[one.fault][outcome.get(one.request_id, "nobody")] += 1
    failed = sum(sum(found.values()) for found in by_fault.values())
    verdict.tell("attempts at the primary", primary)
    verdict.tell("of them with a scripted fault (some merely odd)", failed)
    for fault, found in sorted(by_fault.items()):
        verdict.faults.append([fault, sum(found.values()), ", ".join(f"{what} {count}" for what, count in found.most_common())])
