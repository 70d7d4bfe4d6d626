"""What the tables say of a chain after it was killed: no total is believed, all are added up again from the rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from shared.chain_outcomes import answer_of
from shared.chains import Chain, Claim, ClaimState, State
from shared.chains.rows import OPEN
from shared.chains.rows import TABLE as CHAINS
from shared.gateway import Gateway
from shared.ledger import rows
from shared.usage import StoredRequest

PERIOD = "total"


@dataclass(frozen=True, slots=True)
class Charge:
    """An attempt's row in a session, with what its correction took off (or put on)."""

    session: str
    number: int
    state: rows.IntentState
    charged: int
    corrected: int

    @property
    def live(self) -> int:
        """What it comes to."""
        return self.charged + self.corrected


@dataclass(slots=True)
class Books:
    """All there is of one chain. ``limit`` is its hard budget's, in nano-USD."""

    chain: Chain
    limit: int
    head: rows.Head
    usage: StoredRequest | None
    text: str = ""
    claims: list[Claim] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    open_leases: int = 0
    listed: bool = False
    """Whether it is in the index of what has not ended."""
    sessions: list[str] = field(default_factory=list)
    """Sessions that hold rows of it and are not closed."""

    @property
    def charged(self) -> int:
        """What all its rows come to."""
        return sum(charge.live for charge in self.charges)

    def live(self) -> dict[int, list[int]]:
        """Return, for each attempt, the charges that are not nothing."""
        found: dict[int, list[int]] = defaultdict(list)
        for charge in self.charges:
            if charge.live:
                found[charge.number].append(charge.live)
        return found

    def wrong(self, *, answers: list[str], billed: int, code: str | None = None) -> list[str]:
        """Return what must not be. ``answers`` are those the provider gave, in their order, ``billed`` what for.

        ``code`` is the error the chain must have ended with, None when it must have been answered.
        """
        end = self._answered(answers) if code is None else self._failed(code)
        return [*end, *self._attempts(), *self._totals(billed), *self._left_open()]

    def _failed(self, code: str) -> Iterator[str]:
        found = None if self.chain.error is None else self.chain.error.get("code")
        if (self.chain.state, found) != (State.FAILED, code):
            yield f"the chain is {self.chain.state}, {found}, not {code}"
        if self.usage is None or self.usage.record.outcome != code:
            yield f"no usage that says {code}"

    def _answered(self, answers: list[str]) -> Iterator[str]:
        if self.chain.state is not State.COMPLETED:
            yield f"the chain is {self.chain.state}: {self.chain.error}"
        elif self.text not in answers:
            yield f"the answer is {self.text!r}, the provider's were {answers}"
        if self.usage is None:
            yield "no usage"

    def _attempts(self) -> Iterator[str]:
        live = self.live()
        numbers = [claim.number for claim in self.claims]
        written = [] if self.usage is None else list(self.usage.attempts)
        free = {one.number for one in written if one.cost == 0}  # the provider refused it
        for number in {*live, *numbers}:
            if len(live.get(number, ())) != (0 if number in free else 1):
                yield f"attempt {number} has the charges {live.get(number, [])}"
            if number not in numbers:
                yield f"attempt {number} is charged and was never claimed"
        for claim in self.claims:
            if claim.state is not ClaimState.DONE:
                yield f"attempt {claim.number} is still {claim.state}"
        if sorted(numbers) != sorted(one.number for one in written):
            yield f"usage has the attempts {[one.number for one in written]}, claimed were {numbers}"
        for one in written:
            if one.cost != sum(live.get(one.number, [])):
                yield f"attempt {one.number}: usage says {one.cost}, the ledger {live.get(one.number, [])}"

    def _totals(self, billed: int) -> Iterator[str]:
        cost = None if self.usage is None else self.usage.record.cost
        if not self.head.spent == self.charged == cost == self.chain.cost:
            yield f"spent {self.head.spent}, rows {self.charged}, usage {cost}, chain {self.chain.cost}"
        if self.charged < billed:
            yield f"the provider billed {billed}, {self.charged} is charged"
        if self.head.spent > self.limit:
            yield f"{self.head.spent} of {self.limit} are spent"

    def _left_open(self) -> Iterator[str]:
        if self.head.reserved or self.head.open or self.open_leases:
            yield f"{self.head.reserved} held, {self.head.open} open, {self.open_leases} leases open"
        if any(charge.state is rows.IntentState.PENDING for charge in self.charges):
            yield "an attempt is pending"
        if self.listed:
            yield "it is still in the index of what has not ended"
        if self.sessions:
            yield f"the sessions {self.sessions} are not closed"


async def read(gateway: Gateway, chain_id: str, *, budget: str, limit: int) -> Books:
    """Read all there is of a chain, and of the budget that is its alone."""
    chain = await gateway.chains.get(chain_id)
    key = rows.AccountKey(budget, PERIOD)
    table = gateway.tables.table(rows.TABLE)
    entity = await table.get(rows.account_partition(key), rows.HEAD)
    head = rows.Head(limit) if entity is None else rows.head(entity)
    books = Books(chain, limit, head, await gateway.usage.find(chain.request_id))
    books.claims = await gateway.chains.claims(chain_id)
    books.listed = await gateway.tables.table(CHAINS).get(OPEN, chain_id) is not None
    if chain.state is State.COMPLETED:
        books.text = (await answer_of(gateway, chain)).completion.payload["choices"][0]["message"]["content"]
    corrections: dict[tuple[str, int], int] = defaultdict(int)
    async for one in table.query(rows.account_partition(key)):
        if one.row.startswith(rows.LEASE):
            books.open_leases += not rows.lease(one).closed
        elif one.row.startswith(rows.CORRECTION):
            _, session, _, number = one.row.split("~")
            corrections[session, int(number)] += int(one.properties["delta"])
    listed = [one.row async for one in table.query(rows.SESSIONS)]
    closed = {str(one.properties["session"]) async for one in table.query(rows.CLOSED)}
    for session in {*listed, *closed}:
        found = [
            rows.intent(one)
            async for one in table.query(rows.session_partition(session), start=rows.INTENT, end="r~~")
            if chain.request_id in one.row
        ]
        books.charges += [
            Charge(session, row.attempt, row.state, row.charged, corrections[session, row.attempt]) for row in found
        ]
        if found and session in listed:
            books.sessions.append(session)
    books.charges.sort(key=lambda charge: (charge.number, charge.session))
    return books
