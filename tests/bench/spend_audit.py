"""Whether a hard budget was spent as promised: callers, head, ledger, usage and the upstream's own log, laid side by side.

The promises: at every look, spent and held are within the limit, and what the upstream billed is within what is spent; at the
end 99.9% of the limit is spent, or what is left does not cover the smallest request; who was refused was refused rightly, in
the right shape, and cost nothing; head, ledger rows and usage are the same sum to the nano-dollar; every attempt the upstream
saw is in usage once, charged at least what it was billed, exactly that where the tokens are known, its whole bound where they
are not; nothing is held or open at the end.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.core.failures import FailureKind
from shared.core.records import LOST
from shared.ledger import rows
from tests.bench.audit import MAY_BREAK, NEVER_SENT, PROBER, Received, Verdict, price_of, prices
from tests.bench.money.books import Attempt, Books
from tests.bench.spend_scene import LATE, Kill, Sample, Told

PLENTY: Final = 0.15
"""The share of the limit that must be neither spent nor held for a refusal to be wrong."""
SPENT: Final = 0.999
UNCOVERED: Final = "a budget does not cover"
MAYBE_SENT: Final = frozenset({LOST, FailureKind.CANCELLED.value})
"""Outcomes of attempts that may have ended before they were sent: nobody can know, so they are charged."""
MAY_BE_LATE: Final = 0.01
"""The share of requests that may be told, after two seconds, that the store did not answer: it shares the machine with all."""
USAGE_SECONDS: Final = 1.0
"""What a killed process may lose of requests that cost nothing: usage waits a moment for company before it is written."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything a run leaves. ``usage`` is the total of `GET /v1/usage`; ``requests`` are the rows of the usage table."""

    limit: int
    hard: rows.AccountKey
    soft: rows.AccountKey
    told: Sequence[Told]
    kills: Sequence[Kill]
    samples: Sequence[Sample]
    shown: Sequence[Sample]
    usage: Mapping[str, Any]
    hard_shown: Mapping[str, Any]
    soft_shown: Mapping[str, Any]
    requests: Sequence[Mapping[str, Any]]
    books: Books
    received: Sequence[Received]
    overruns: Sequence[str]
    catalog: Path
    recovered_shown: int = 0
    """Of how many requests `GET /v1/requests/{id}` tells that recovery wrote them down."""

    @property
    def spent(self) -> int:
        """What the hard budget's head says at the end."""
        return self.books.accounts[self.hard].head.spent

    def price(self, one: Received) -> int:
        """Return what the upstream billed for an attempt, computed from the catalog's prices."""
        return price_of(one.billed, prices(self.catalog)[one.provider])


def audit(found: Evidence) -> Verdict:
    """Compare everything with everything."""
    verdict = Verdict()
    _callers(verdict, found)
    _limit(verdict, found)
    _refusals(verdict, found)
    _attempts(verdict, found)
    _charges(verdict, found)
    _sums(verdict, found)
    _rest(verdict, found)
    _faults(verdict, found)
    return verdict


# ---- callers ---------------------------------------------------------------------------------------------------------


def _callers(verdict: Verdict, found: Evidence) -> None:
    outcomes = Counter(one.outcome for one in found.told)
    verdict.tell("requests asked", asked := len(found.told))
    for outcome in ("answered", "refused", "left"):
        verdict.tell(outcome, outcomes[outcome])
    verdict.hold("SIGKILLs", len(found.kills), "at least 2", holds=len(found.kills) > 1)
    in_flight = sum(kill.in_flight for kill in found.kills)
    verdict.hold("requests in flight at them", in_flight, "more than 0", holds=in_flight > 0)
    verdict.hold("requests lost by them", outcomes["lost"], f"at most {in_flight}", holds=outcomes["lost"] <= in_flight)
    rule = f"at most {MAY_BE_LATE:.1%}"
    verdict.hold(
        "told that the store is late, and asked again", late := outcomes[LATE], rule, holds=late <= MAY_BE_LATE * asked
    )
    broke = min((one.ended for one in found.told if one.outcome == "refused"), default=0.0)
    verdict.tell("of them after the first refusal", sum(one.outcome == LATE and one.ended >= broke for one in found.told))
    bad = [one for one in found.told if one.outcome not in {"answered", "refused", "left", "lost", LATE}]
    excused = [one for one in bad if _excused(one, found)]
    verdict.tell("streams the provider broke, or failures of which no other candidate was affordable", len(excused))
    verdict.expect("other errors", len(bad) - len(excused), 0)
    verdict.problems += [f"{one.request_id or 'no id'}: {one.outcome}: {one.said}" for one in bad if one not in excused]


def _excused(one: Told, found: Evidence) -> bool:
    if one.outcome == "interrupted":
        return any(sent.request_id == one.request_id and sent.stream and sent.fault in MAY_BREAK for sent in found.received)
    return one.outcome.startswith("error") and one.request_id in _uncovered(found)


def _uncovered(found: Evidence) -> set[str]:
    """Return the requests of which a candidate was too dear for what was left."""
    return {
        one["request_id"]
        for one in found.requests
        if any(UNCOVERED in reason for reason in one["trace"].get("not_admitted", ()))
    }


# ---- the limit -------------------------------------------------------------------------------------------------------


def _limit(verdict: Verdict, found: Evidence) -> None:
    rule = f"at most {found.limit:,}"
    verdict.hold("the limit, nano-USD", found.limit, "", holds=True)
    for what, samples in (("its row", found.samples), ("the gateway", found.shown)):
        most = max(one.spent + one.held for one in samples)
        verdict.hold(f"most spent and held in {len(samples):,} looks at {what}", most, rule, holds=most <= found.limit)
    billed = sum(found.price(one) for one in found.received)
    verdict.hold("billed by the upstream, computed again", billed, f"at most {found.spent:,}", holds=billed <= found.spent)
    verdict.hold("spent", found.spent, rule, holds=found.spent <= found.limit)
    probes = {one["request_id"] for one in found.requests if one["key_id"] == PROBER}
    smallest = min(row.estimate for at, made in found.books.intents.items() if at.request_id not in probes for row in made)
    left = found.limit - found.spent
    enough = found.spent >= SPENT * found.limit or left < smallest
    verdict.hold("share of the limit that is spent", f"{found.spent / found.limit:.5f}", f"at least {SPENT}", holds=enough)
    if enough and found.spent < SPENT * found.limit:
        verdict.rows[-1][2] = f"all but the smallest request's {smallest:,}"
    verdict.expect("attempts that cost more than was held for them", len(found.overruns), 0)
    verdict.problems += found.overruns


# ---- refusals --------------------------------------------------------------------------------------------------------


def _refusals(verdict: Verdict, found: Evidence) -> None:
    refused = [one for one in found.told if one.outcome == "refused"]
    ids = {one.request_id for one in refused}
    verdict.hold("refused", len(refused), "more than 0", holds=bool(refused))
    shapeless = sum("shape" in one.outcome for one in found.told)
    verdict.expect("of them not 429 insufficient_quota with x-should-retry: false", shapeless, 0)
    verdict.expect("of them in the upstream's log", sum(one.request_id in ids for one in found.received), 0)
    uncovered = _uncovered(found)
    judged = refused + [one for one in found.told if one.outcome.startswith("error") and one.request_id in uncovered]
    wrong = [one for one in judged if _had_plenty(one, found)]
    verdict.expect(f"of them with {PLENTY:.0%} of the limit neither spent nor held", len(wrong), 0)
    verdict.problems += [f"{one.request_id}: refused with plenty left" for one in wrong]
    if judged:
        first = min(judged, key=lambda one: one.ended)
        looks = list(_looks(first, found.samples))
        used = max((one.spent + one.held) / found.limit for one in looks)
        spent = max(one.spent / found.limit for one in looks)
        place = sorted(one.ended for one in found.told).index(first.ended) / len(found.told)
        verdict.tell("requests ended before the first refusal, % of all", round(100 * place))
        verdict.rows.append(["spent, and spent or held, of the limit at the first refusal", f"{spent:.3f}, {used:.3f}", "", ""])


def _looks(one: Told, samples: Sequence[Sample]) -> Iterator[Sample]:
    """Yield what was seen while a request ran, and just before and after."""
    times = [sample.at for sample in samples]
    first, beyond = max(0, bisect_left(times, one.began) - 1), bisect_right(times, one.ended) + 1
    yield from samples[first:beyond]


def _had_plenty(one: Told, found: Evidence) -> bool:
    left = [found.limit - look.spent - look.held for look in _looks(one, found.samples)]
    return bool(left) and min(left) >= PLENTY * found.limit


# ---- attempts --------------------------------------------------------------------------------------------------------


def _attempts(verdict: Verdict, found: Evidence) -> None:
    written = Counter((one["request_id"], attempt["provider"]) for one in found.requests for attempt in _sent(one))
    unsure = Counter((one["request_id"], attempt["provider"]) for one in found.requests for attempt in _sent(one, MAYBE_SENT))
    logged = Counter((one.request_id, one.provider) for one in found.received)
    lost, extra = logged - written, written - logged
    verdict.tell("attempts in the upstream's log", len(found.received))
    verdict.expect("of them not in usage", sum(lost.values()), 0)
    verdict.expect("attempts in usage that never reached the upstream", sum((extra - unsure).values()), 0)
    verdict.tell(
        "attempts in usage that were given up before they reached it, or whose process was killed before", sum(extra.values())
    )
    numbers = Counter((one["request_id"], attempt["number"]) for one in found.requests for attempt in one["attempts"])
    verdict.expect("attempts in usage twice", sum(count - 1 for count in numbers.values()), 0)
    ids = Counter(one["request_id"] for one in found.requests)
    verdict.expect("requests in usage twice", sum(count - 1 for count in ids.values()), 0)
    missing = [one for one in found.told if one.request_id and one.request_id not in ids]
    excused = [one for one in missing if one.request_id not in _billed(found) and _killed_after(one, found.kills)]
    verdict.expect("requests with an answer that are not in usage", len(missing) - len(excused), 0)
    verdict.tell("of refused or unsent ones, the last words of a killed process", len(excused))
    verdict.problems += [f"{request}: {count} attempt(s) at {who} not in usage" for (request, who), count in lost.items()]
    verdict.problems += [f"{request}: {count} at {who} too many" for (request, who), count in (extra - unsure).items()]
    verdict.problems += [f"{one.request_id}: {one.outcome}, and not in usage" for one in missing if one not in excused]


def _sent(request: Mapping[str, Any], outcomes: frozenset[str] | None = None) -> list[Mapping[str, Any]]:
    attempts = [one for one in request["attempts"] if one["outcome"] not in NEVER_SENT]
    return attempts if outcomes is None else [one for one in attempts if one["outcome"] in outcomes]


def _billed(found: Evidence) -> set[str]:
    return {one.request_id for one in found.received}


def _killed_after(one: Told, kills: Sequence[Kill]) -> bool:
    return any(one.began <= kill.at <= one.ended + USAGE_SECONDS for kill in kills)


# ---- what attempts were charged --------------------------------------------------------------------------------------


def _charges(verdict: Verdict, found: Evidence) -> None:
    rates = prices(found.catalog)
    in_order: dict[tuple[str, str], list[Received]] = defaultdict(list)
    for one in found.received:
        in_order[one.request_id, one.provider].append(one)
    less = wrong = unlike = bounds = 0
    for request in found.requests:
        turn: Counter[str] = Counter()
        for attempt in request["attempts"]:
            name = f"{request['request_id']} attempt {attempt['number']} ({attempt['outcome']})"
            sent = in_order[request["request_id"], attempt["provider"]]
            place, cost = turn[attempt["provider"]], attempt["cost"]
            turn[attempt["provider"]] += attempt["outcome"] not in NEVER_SENT
            billed = price_of(sent[place].billed, rates[attempt["provider"]]) if place < len(sent) else 0
            row = _row(found.books, request["request_id"], attempt["number"])
            known = attempt["usage"] is not None and attempt["exact"]
            unknown = not attempt["exact"]
            if cost < billed:
                less += 1
                verdict.problems.append(f"{name}: charged {cost}, billed {billed}")
            if known and cost != price_of(attempt["usage"], rates[attempt["provider"]]):
                wrong += 1
                verdict.problems.append(f"{name}: {cost} is not its tokens times the price")
            bounds += unknown
            charged = (
                0 if row is None else row.charged + found.books.corrections[found.hard][Attempt(row.request_id, row.attempt)]
            )
            if row is None or charged != cost or (unknown and cost < row.estimate):
                unlike += 1
                verdict.problems.append(f"{name}: {cost} in usage, {charged} in the ledger ({row and row.state.value})")
    states = found.books.states()
    verdict.tell("attempts charged at their whole bound: nobody knows what they cost", bounds)
    verdict.expect("attempts charged less than the upstream billed", less, 0)
    verdict.expect("attempts of known tokens charged anything but their price", wrong, 0)
    verdict.expect("attempts whose charge differs in usage and ledger, or is below the bound it must be", unlike, 0)
    verdict.tell("attempts in the ledger: settled", states["d"])
    verdict.tell("attempts in the ledger: nothing charged", states["v"])
    verdict.tell("attempts in the ledger: charged at their bound by recovery", states["x"])
    by_recovery = _by_recovery(found)
    corrected = len(found.books.corrections[found.hard])
    verdict.tell("of them corrected: the dead process had written the usage and not the settlement", corrected)
    verdict.expect(
        "the others in usage as lost with their process, of a request marked `recovered`", by_recovery, states["x"] - corrected
    )
    recovered = sum(one["recovered"] for one in found.requests)
    verdict.expect("requests that recovery wrote down, as GET /v1/requests/{id} tells", found.recovered_shown, recovered)


def _row(books: Books, request_id: str, number: int) -> rows.IntentRow | None:
    made = books.intents.get(Attempt(request_id, number), [])
    return made[0] if len(made) == 1 else None


def _by_recovery(found: Evidence) -> int:
    return sum(
        request["recovered"] and attempt["outcome"] == LOST and row.state is rows.IntentState.CHARGED
        for request in found.requests
        for attempt in request["attempts"]
        if (row := _row(found.books, request["request_id"], attempt["number"])) is not None
    )


# ---- sums ------------------------------------------------------------------------------------------------------------


def _sums(verdict: Verdict, found: Evidence) -> None:
    costs = [(one["project"], attempt["cost"]) for one in found.requests for attempt in one["attempts"]]
    hard, soft = found.books.accounts[found.hard], found.books.accounts[found.soft]
    verdict.tell("spent, by the head, nano-USD", hard.head.spent)
    verdict.expect("by the ledger's rows and corrections", hard.charged + hard.corrected, hard.head.spent)
    verdict.expect("by the attempts in the usage table", sum(cost for _, cost in costs), hard.head.spent)
    verdict.expect("by GET /v1/usage", found.usage["cost_nano_usd"], hard.head.spent)
    verdict.expect("by GET /v1/budgets", found.hard_shown["spent_nano_usd"], hard.head.spent)
    verdict.tell("spent of the project's soft budget", soft.head.spent)
    verdict.expect("by the ledger's rows and corrections", soft.charged + soft.corrected, soft.head.spent)
    mine = sum(cost for project, cost in costs if project == found.soft.budget)
    verdict.expect("by the attempts in the usage table", mine, soft.head.spent)
    verdict.expect("by GET /v1/budgets", found.soft_shown["spent_nano_usd"], soft.head.spent)
    verdict.expect("attempts of unknown cost", found.usage["cost_unknown"], 0)


def _rest(verdict: Verdict, found: Evidence) -> None:
    verdict.expect("held at the end, by GET /v1/budgets", found.hard_shown["held_nano_usd"], 0)
    verdict.expect("of the soft budget", found.soft_shown["held_nano_usd"], 0)
    violations = found.books.violations()
    verdict.tell("sessions in the ledger", found.books.sessions)
    verdict.tell("of them recovered", found.books.recovered)
    verdict.expect("attempts, leases or sessions left open, twice, or added up wrongly", len(violations), 0)
    verdict.problems += [f"{one.kind}: {one.text}" for one in violations]


# ---- faults ----------------------------------------------------------------------------------------------------------


def _faults(verdict: Verdict, found: Evidence) -> None:
    outcome = {one.request_id: one.outcome for one in found.told}
    by_fault: dict[str, Counter[str]] = defaultdict(Counter)
    for one in found.received:
        if one.fault is not None:
            by_fault[one.fault][outcome.get(one.request_id, "nobody, or a caller whose connection was lost")] += 1
    for fault, seen in sorted(by_fault.items()):
        verdict.faults.append([fault, sum(seen.values()), ", ".join(f"{what} {count}" for what, count in seen.most_common())])
