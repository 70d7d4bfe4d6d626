"""Failover as one pure generator: it yields what to do next and is sent what happened.

    flow = failover(route, policy)
    step = next(flow)                      # Attempt(candidate, …) or Wait(seconds)
    step = flow.send(Succeeded(at) | AttemptFailed(at, failed) | Waited(at))
    …                                      # StopIteration.value is the Outcome

Time reaches it only inside events (``at``: seconds since the chain began), so it needs no clock and replays exactly: the
asyncio driver, a durable orchestrator and a test that sends events by hand all see the same attempts for the same script.

The order in which candidates are asked: those never asked whose breaker admits calls, as the route lists them; then those whose
breaker failures opened (a last resort beats an error); then, waiting if that is short, whichever is ready soonest: a candidate
that is cooling down, or one that failed in a way that may pass. What a failure means is `shared.core.failures.RULES`; deadline,
attempt cap and cost cap bound the whole chain, and nothing beneath it retries.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from shared.core.breaker import FOREVER
from shared.core.failures import RULES, Failed, FailureKind, Remedy, Skip
from shared.core.registry import FailoverPolicy
from shared.core.route import Candidate, Route

MIN_POSTPONEMENT: Final = 0.02
"""Seconds before a candidate that refused to be called is asked again."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Call this candidate; the chain has ``remaining`` seconds left. ``forced`` overrides a breaker that failures opened."""

    candidate: Candidate
    number: int
    remaining: float
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The attempt answered (a stream: its first content event is here)."""

    at: float


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The attempt failed. ``billed`` is what it may have cost, in nano-USD, None when that is not known."""

    at: float
    failed: Failed
    billed: int | None = 0


@dataclass(frozen=True, slots=True)
class Waited:
    """The wait is over."""

    at: float


Step = Attempt | Wait
Event = Succeeded | AttemptFailed | Waited


class Ended(StrEnum):
    """Why a chain ended."""

    ANSWERED = "answered"
    GAVE_UP = "gave_up"  # a failure that no other candidate can mend
    NOBODY_LEFT = "nobody_left"
    TOO_LONG_A_WAIT = "too_long_a_wait"  # everybody left is cooling down for longer than the policy waits
    DEADLINE = "deadline"
    ATTEMPT_CAP = "attempt_cap"
    COST_CAP = "cost_cap"
    BUDGET = "budget"  # a hard budget covers no candidate that is left


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a chain ended: who answered, or every failure in order.

    ``retry_after`` (seconds) is when trying again makes sense, None when that is not known.
    """

    ended: Ended
    candidate: Candidate | None = None
    attempts: int = 0
    failures: tuple[Failed, ...] = ()
    retry_after: float | None = None


@dataclass(slots=True)
class _Entry:
    """A candidate with what the chain has learnt of it."""

    candidate: Candidate
    place: int
    ready_at: float
    last_resort: bool
    tries: int = 0
    at_once: bool = False


@dataclass(slots=True)
class _Chain:
    """The chain's own state; lives only inside the generator."""

    policy: FailoverPolicy
    entries: list[_Entry]
    jitter: float
    cost_cap: int | None
    now: float = 0.0
    attempts: int = 0
    spent: int = 0
    waited: float = 0.0
    capped: bool = False
    over_budget: bool = False
    failures: list[Failed] = field(default_factory=list)

    def choose(self) -> _Entry | None:
        """Return who is next, or None when nobody is left."""
        return min(self.entries, key=self._order, default=None)

    def _order(self, entry: _Entry) -> tuple[int, float, int]:
        if entry.at_once:
            return (0, 0.0, entry.place)
        if entry.tries == 0 and not entry.last_resort and entry.ready_at <= self.now:
            return (1, 0.0, entry.place)
        if entry.tries == 0 and entry.last_resort:
            return (2, 0.0, entry.place)
        return (3, max(entry.ready_at, self.now), entry.place)

    def learn(self, entry: _Entry, event: AttemptFailed) -> Ended | None:
        """Take in a failure: who is still worth asking, and when. Return why the chain ends here, if it does."""
        failed = event.failed
        rule = RULES[failed.kind]
        self.entries.remove(entry)
        if failed.kind is FailureKind.NOT_ADMITTED:
            self._postpone(entry, failed)
            return None
        if failed.kind is FailureKind.OVER_BUDGET:
            self.over_budget = True
            return None
        self.attempts += 1
        entry.tries += 1
        entry.at_once = False
        self.failures.append(failed)
        self.spent += event.billed if event.billed is not None else entry.candidate.worst_cost or 0
        if rule.remedy is Remedy.GIVE_UP or self._filtered_for_good(failed):
            return Ended.GAVE_UP
        self.entries = [other for other in self.entries if not _pointless(rule.skip, entry.candidate, other.candidate)]
        if rule.again and entry.tries <= self.policy.retries:
            entry.at_once = rule.remedy is Remedy.RETRY and entry.tries == 1  # whatever passes at once has passed by then
            entry.ready_at = (
                event.at if entry.at_once else event.at + max(self._backoff(entry.tries), failed.retry_after or 0.0)
            )
            self.entries.append(entry)
        return None

    def _postpone(self, entry: _Entry, failed: Failed) -> None:
        # Its breaker changed its mind since the plan was made. That is no attempt: ask when it says, or as a last resort, but
        # one that refuses even that is out, and one that says "now" is given a moment, so that nothing spins.
        if failed.retry_after is not None:
            entry.ready_at = self.now + max(failed.retry_after, MIN_POSTPONEMENT)
        elif entry.last_resort:
            return
        entry.last_resort = failed.retry_after is None
        self.entries.append(entry)

    def _filtered_for_good(self, failed: Failed) -> bool:
        return failed.kind is FailureKind.CONTENT_FILTER and not self.policy.content_filter_fallback

    def _backoff(self, tries: int) -> float:
        full = min(self.policy.max_backoff, self.policy.backoff * 2.0 ** (tries - 1))
        return full * (0.5 + self.jitter / 2)

    def over_cost(self, entry: _Entry) -> bool:
        """Say whether asking this candidate could pass the cost cap. An unknown price always could."""
        if self.cost_cap is None:
            return False
        worst = entry.candidate.worst_cost
        return worst is None or self.spent + worst > self.cost_cap

    def leave_out(self, entry: _Entry) -> None:
        """Drop a candidate that could pass the cost cap."""
        self.entries.remove(entry)
        self.capped = True

    def pause_before(self, entry: _Entry) -> float:
        """Return how long to wait before this candidate may be asked; 0 for one that is asked regardless of its breaker."""
        regardless = entry.at_once or (entry.tries == 0 and entry.last_resort)
        return 0.0 if regardless else max(0.0, entry.ready_at - self.now)

    def bound(self, pause: float) -> Ended | None:
        """Say which bound of the chain the next step would break, if any."""
        if self.now >= self.policy.deadline:
            return Ended.DEADLINE
        if self.attempts >= self.policy.max_attempts:
            return Ended.ATTEMPT_CAP
        too_long = self.waited + pause > self.policy.max_wait or self.now + pause >= self.policy.deadline
        return Ended.TOO_LONG_A_WAIT if pause > 0 and too_long else None

    def why_nobody(self) -> Ended:
        """Say why nobody is left: money, if nothing else was wrong with those it ran out for."""
        if self.over_budget and not self.failures:
            return Ended.BUDGET
        return Ended.COST_CAP if self.capped else Ended.NOBODY_LEFT

    def end(self, ended: Ended) -> Outcome:
        """Sum up."""
        waits = [entry.ready_at - self.now for entry in self.entries if entry.ready_at > self.now]
        asked = [failed.retry_after for failed in self.failures if failed.retry_after]
        soonest = min(waits or asked, default=None)
        if soonest is not None and soonest >= FOREVER / 2:
            soonest = None
        return Outcome(ended, attempts=self.attempts, failures=tuple(self.failures), retry_after=soonest)


def failover(
    route: Route, policy: FailoverPolicy, *, jitter: float = 0.5, cost_cap: int | None = None
) -> Generator[Step, Event, Outcome]:
    """Try the route's candidates until one answers; see the module's text.

    ``jitter`` (0..1) spreads the waits between tries; ``cost_cap`` is nano-USD for the whole chain.
    """
    entries = [_Entry(c, place, c.not_before, c.last_resort) for place, c in enumerate(route.candidates)]
    chain = _Chain(policy, entries, jitter, cost_cap)
    while (entry := chain.choose()) is not None:
        if chain.over_cost(entry):
            chain.leave_out(entry)
            continue
        pause = chain.pause_before(entry)
        stop = chain.bound(pause)
        if stop is not None:
            return chain.end(stop)
        if pause > 0:
            event = yield Wait(pause)
            chain.waited += pause
            chain.now = event.at
            continue
        event = yield Attempt(entry.candidate, chain.attempts + 1, policy.deadline - chain.now, forced=entry.last_resort)
        chain.now = event.at
        if isinstance(event, Succeeded):
            return Outcome(Ended.ANSWERED, entry.candidate, chain.attempts + 1, tuple(chain.failures))
        if not isinstance(event, AttemptFailed):
            message = f"an attempt was answered with {event!r}"
            raise TypeError(message)
        stop = chain.learn(entry, event)
        if stop is not None:
            return chain.end(stop)
    return chain.end(chain.why_nobody())


def _pointless(skip: Skip, failed: Candidate, other: Candidate) -> bool:
    match skip:
        case Skip.NOTHING:
            return False
        case Skip.DEPLOYMENT:
            return other.deployment == failed.deployment
        case Skip.MODEL:
            return other.model == failed.model
        case Skip.PROVIDER:
            return other.provider == failed.provider
        case Skip.SMALLER_CONTEXT:
            if other.model == failed.model:
                return True
            known = failed.context_window is not None and other.context_window is not None
            return known and (other.context_window or 0) <= (failed.context_window or 0)
