"""What must be true of the money, at every moment and at the end. Everything is read from the tables, nothing from the ledger.

1. No write lets a hard account's ``spent + reserved`` grow beyond its limit, but for flagged overruns and what was admitted
   while it was soft: where the limit was lowered below what is spent and held, they only go down. ``reserved`` is what its
   open leases were granted and the head has not counted as spent, ``spent`` what they and corrections say; and no session's
   calls cost more than it was granted.
2. At every moment what the provider has billed for a hard account is within its limit (but for the same), or within what was
   spent and held when the limit was lowered.
3. At the end ``spent`` is the sum of what the account's rows were charged, nothing is reserved, no lease is open.
4. A call under a hard account is sent when its row is written; it is charged at least what was billed, by exactly one row.
5. Nothing is charged twice; what was void, or never admitted, is charged 0 when its instance lived to say so. No process takes
   a session from itself: a write that was not answered is no loss.
6. A refusal is only for money that was not there at some moment while it was asked for.
7. When all is well again, requests succeed and recovery completes in time.
8. Rows of soft accounts are lost only with their process, and only those of the last moments.
9. The usage of whatever was charged is written: by its process, or by whoever recovered its session.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.core.budgets import Account
from shared.ports import Value
from tests.ledger.settings import LAG, Key, Settings
from tests.ledger.store import Change, Store

LEDGER = "ledger"
GRACE = 2.0
"""Seconds before a request in which the look at the head may have been taken that refused it (asked for another one)."""
SOFT_WINDOW = 1.0
"""Seconds for which the row of a call under soft budgets may exist only in memory while the store answers."""
REMEMBERED = 30.0
"""Seconds of a head's history that are kept to judge refusals by."""


@dataclass(slots=True)
class Attempt:
    """What the world knows of one attempt: the truth the tables are held against. Amounts are nano-USD."""

    request_id: str
    instance: str
    accounts: tuple[Account, ...]
    asked_at: float
    amount: int = 0  # what is held; 0: never admitted
    admitted_at: float | None = None
    billed: int = 0  # by the provider
    charged: int | None = None  # what the ledger was told; None: it was told nothing
    number: int = 1

    @property
    def name(self) -> str:
        """What it is called: a request may be tried twice."""
        return f"{self.request_id}~{self.number}"

    @property
    def overrun(self) -> int:
        """What was billed above what was held."""
        return max(0, self.billed - self.amount)

    @property
    def guarded(self) -> bool:
        """Whether any of its accounts is hard."""
        return any(account.hard for account in self.accounts)


class Death(NamedTuple):
    """When an instance was killed, and since when all had been well with it and its way to the store."""

    at: float
    well_since: float


class Row(NamedTuple):
    """An intent row, as it is stored."""

    session: str
    state: str
    estimate: int
    charged: int
    accounts: tuple[Key, ...]


@dataclass(slots=True)
class _Totals:
    """An account as its partition says, kept with each change."""

    reserved: int = 0
    folded: int = 0
    corrected: int = 0
    billed: int = 0
    overruns: int = 0
    softly: int = 0  # admitted while it was, or may have been seen as, soft
    used: int = 0  # what its calls have truly cost, or may yet
    total: int = 0  # spent and reserved
    bound: int | None = None  # what is billed may not exceed it
    past: deque[tuple[float, int]] = field(default_factory=deque)  # of `total`


class Auditor:
    """Watches the store and the provider, and reads the tables back at the end.

    ``stale`` is for how many seconds a lease may go by a limit that everybody has heard was changed: as long as a write may
    take, or an instance be frozen.
    """

    def __init__(self, store: Store, settings: Settings, *, stale: float = float("inf")) -> None:
        self.violations: list[str] = []
        self.attempts: dict[str, Attempt] = {}
        self.counts: Counter[str] = Counter()
        self._store = store
        self._now = settings.now
        self._settings = settings
        self._stale = stale
        self._totals: dict[Key, _Totals] = defaultdict(_Totals)
        self._pending: set[str] = set()  # attempts whose rows are written
        self._asking: dict[str, int] = {}  # attempts that were not admitted yet, and what for
        store.observers.append(self._observe)

    def violated(self, invariant: int, text: str) -> None:
        """Take note of a violation."""
        self.violations.append(f"[{invariant}] at {self._now():.3f} s: {text}")

    # ---- at every moment ---------------------------------------------------------------------------------------------

    def _observe(self, changes: Sequence[Change]) -> None:
        head: Change | None = None
        for change in changes:
            if change.table != LEDGER:
                continue
            if change.partition.startswith("b~"):
                if change.row == "h":
                    head = change
                else:
                    self._account_row(change)
            elif change.row.startswith("r~"):
                self._intent_row(change)
            elif change.row == "0" and change.after is not None:
                self._fence(change.partition, change.after)
        if head is not None:
            self._head(head)

    def _account_row(self, change: Change) -> None:
        totals = self._totals[_key(change.partition)]
        if change.row.startswith("c~"):
            if change.before is not None:
                self.violated(5, f"the correction {change.row} was written twice")
            totals.corrected += _whole(change.after, "delta") - _whole(change.before, "delta")
            return
        if change.before is not None and change.before["state"] == "closed":
            self.violated(3, f"the closed lease {change.row} of {change.partition} was written again")
        self._within_grant(change)
        totals.folded += _whole(change.after, "folded") - _whole(change.before, "folded")
        totals.reserved += _reserved(change.after) - _reserved(change.before)

    def _within_grant(self, change: Change) -> None:
        """Hold what a session's calls cost, or may have cost, against what it had been granted: the limit's own guard."""
        granted, folded = _whole(change.before, "granted"), _whole(change.after, "folded")
        if change.before is None and change.after is not None and change.after["state"] == "open":
            granted = _whole(change.after, "granted")
        key = _key(change.partition)
        if self._ceiling(key) is not None and folded > granted + self._excused(key):
            self.violated(1, f"{change.row} of {change.partition} was granted {granted} and its calls cost {folded}")

    def _fence(self, partition: str, fence: Mapping[str, Value]) -> None:
        instance = partition.removeprefix("s~").rpartition("-")[0]
        if fence["state"] == "fenced" and str(fence["token"]).startswith(instance + ":"):
            self.violated(5, f"{instance} has taken {partition} from itself")

    def _intent_row(self, change: Change) -> None:
        self._pending.add(_attempt_in(change.row))
        before = "" if change.before is None else str(change.before["state"])
        after = "" if change.after is None else str(change.after["state"])
        if before in {"d", "v", "x"} and (before, change.before) != (after, change.after):
            self.violated(5, f"the row {change.row} went from {before} to {after}, its charge with it")

    def _head(self, change: Change) -> None:
        key = _key(change.partition)
        totals, bound = self._totals[key], self._bound(key)
        spent, reserved = _whole(change.after, "spent"), _whole(change.after, "reserved")
        before, totals.total = totals.total, spent + reserved
        totals.past.append((self._now(), totals.total))
        while len(totals.past) > 1 and totals.past[1][0] < self._now() - REMEMBERED:
            totals.past.popleft()
        if reserved != totals.reserved:
            self.violated(1, f"{change.partition}: reserved is {reserved}, its leases say {totals.reserved}")
        if spent != totals.folded + totals.corrected:
            self.violated(1, f"{change.partition}: spent is {spent}, its rows say {totals.folded + totals.corrected}")
        if bound is not None and before < totals.total > bound + (excused := self._excused(key)):
            self.violated(1, f"{change.partition}: spent {spent} + reserved {reserved} > limit {bound} + {excused}")

    def _bound(self, key: Key) -> int | None:
        """Return what may be spent and held: the limit, or what was when the limit was lowered and has not come back yet."""
        totals, ceiling = self._totals[key], self._ceiling(key)
        if ceiling is not None:
            totals.bound = max(ceiling, totals.total if totals.bound is None else min(totals.bound, totals.total))
        return None if ceiling is None else totals.bound

    def _ceiling(self, key: Key) -> int | None:
        """Return the highest limit that somebody may go by who sees the account as hard; None when nobody does."""
        seen = [account.limit for account in self._settings.possible(key, self._now() - self._stale) if account.hard]
        return max(seen, default=None)

    def _excused(self, key: Key) -> int:
        """Return what may be above the limit: overruns, and what is admitted while the account is soft, or may be seen so."""
        totals, asking = self._totals[key], 0
        if len(self._settings.possible(key, float("-inf"))) > 1:
            for name, amount in self._asking.items():
                asking += amount if self._may_be_soft(key, self.attempts[name]) else 0
        return totals.overruns + totals.softly + asking

    def _may_be_soft(self, key: Key, attempt: Attempt) -> bool:
        return not all(each.hard for each in self._settings.possible(key, attempt.asked_at - LAG))

    def billed(self, attempt: Attempt, amount: int) -> None:
        """Take note of the provider's bill for an attempt, the moment it is made."""
        attempt.billed += amount
        for account in attempt.accounts:
            totals = self._totals[account.budget, account.period]
            totals.billed += amount
            totals.overruns += attempt.overrun
            bound = self._bound((account.budget, account.period))
            if bound is not None and totals.billed > bound + self._excused((account.budget, account.period)):
                self.violated(2, f"billed {totals.billed} on {account.budget}, which may cost {bound}")

    def asked(self, attempt: Attempt, amount: int) -> None:
        """Take note of an attempt before anything is asked for it."""
        self.attempts[attempt.name] = attempt
        self._asking[attempt.name] = amount

    def admitted(self, attempt: Attempt, amount: int) -> None:
        """Take note that an attempt may cost so much."""
        attempt.admitted_at, attempt.amount = self._now(), amount
        self._asking.pop(attempt.name)
        if attempt.guarded and attempt.name not in self._pending:
            self.violated(4, f"{attempt.name} may be sent, and nothing of it is written")
        for account in attempt.accounts:
            key = account.budget, account.period
            self._totals[key].used += amount
            if self._may_be_soft(key, attempt):
                self._totals[key].softly += amount

    def told(self, attempt: Attempt, charged: int) -> None:
        """Take note of what the ledger is told an attempt has cost."""
        attempt.charged = charged
        for account in attempt.accounts:
            self._totals[account.budget, account.period].used += charged - attempt.amount

    def refused(self, attempt: Attempt, budget: str, amount: int, *, slept: bool = False) -> None:
        """Judge a refusal for want of ``amount``: there must have been a moment when it was not there.

        An instance that ``slept`` meanwhile, beyond its patience, is refused by its last look, and could not take another; what
        was true at that look is forgotten here.
        """
        account = next(account for account in attempt.accounts if account.budget == budget)
        key = account.budget, account.period
        totals, since = self._totals[key], attempt.asked_at - GRACE
        most = 0
        for at, total in totals.past:
            most = total if at < since else max(most, total)
        least = min(each.limit for each in self._settings.possible(key, since - LAG)) - most
        self.counts["refused"] += 1
        self._asking.pop(attempt.name)
        if not slept and least - self._excused(key) >= amount:  # an overrun is spent before the head knows of it
            self.violated(6, f"{attempt.name} was refused {amount} of {budget}, which had {least} left all the time")
        for share in (85, 75):
            self.counts[f"refused below {share} %"] += totals.used + amount <= account.limit * share / 100

    # ---- at the end --------------------------------------------------------------------------------------------------

    def close(self, deaths: Mapping[str, Death], *, usage: Container[str] | None = None) -> None:
        """Read everything back. ``deaths`` says which instances were killed, ``usage`` whose usage is written."""
        rows = self._rows()
        corrections = self._corrections()
        charges: Counter[Key] = Counter()
        for found in rows.values():
            for row in found:
                for key in row.accounts:
                    charges[key] += row.charged
        for key, account in self._settings.accounts().items():
            self._balances(key, charges[key] + sum(corrections[key].values()))
            self.counts["hard accounts used up"] += account.hard and charges[key] > account.limit * 0.9
        for attempt in self.attempts.values():
            self._attempt(attempt, rows.get(attempt.name, []), corrections, deaths.get(attempt.instance))
        for name, found in rows.items():
            if name not in self.attempts:
                self.violated(4, f"the row of {name} belongs to no request")
            elif usage is not None and name not in usage and any(row.charged for row in found):
                self.violated(
                    9, f"{name} was charged {found[0].charged} in {found[0].session}, and its usage was never written"
                )

    def _balances(self, key: Key, charged: int) -> None:
        head = self._store.get(LEDGER, f"b~{key[0]}~{key[1]}", "h")
        if head is None:
            if charged:
                self.violated(3, f"{key}: rows say {charged}, and there is no head")
            return
        spent, reserved, leases = (_whole(head.properties, name) for name in ("spent", "reserved", "open"))
        if (spent, reserved, leases) != (charged, 0, 0):
            self.violated(3, f"{key}: spent {spent}, reserved {reserved}, open {leases}; its rows were charged {charged}")

    def _attempt(
        self, attempt: Attempt, rows: list[Row], corrections: Mapping[Key, Mapping[str, int]], death: Death | None
    ) -> None:
        name = attempt.name
        if not rows:
            self._missing(attempt, death)
            return
        if any(row.state == "p" for row in rows):
            self.violated(3, f"{name} is pending for ever")
        for account in attempt.accounts:
            key = (account.budget, account.period)
            if any(key not in row.accounts for row in rows):
                self.violated(4, f"a row of {name} does not name {key}")
            charges = [row.charged + corrections[key].get(f"{row.session.removeprefix('s~')}~{name}", 0) for row in rows]
            # A row that landed unheard in a lost session is taken back, and written anew in another one.
            charged = sum(charges)
            if len(rows) > 1 and len([charge for charge in charges if charge]) > 1:
                self.violated(5, f"{name} has {len(rows)} rows, charged {charges}")
            # An overrun is known to nobody else than the process that died before it could tell.
            if charged < (attempt.billed if death is None else min(attempt.billed, attempt.amount)):
                self.violated(4, f"{name} was charged {charged} on {account.budget}, the provider billed {attempt.billed}")
            told = 0 if attempt.admitted_at is None else attempt.charged
            if death is None and charged != told:
                states = "".join(row.state for row in rows)
                self.violated(5, f"{name} was charged {charged} on {account.budget} (state {states}), was told {told}")

    def _missing(self, attempt: Attempt, death: Death | None) -> None:
        """Judge an attempt without a row."""
        if attempt.admitted_at is None or not (attempt.billed or attempt.charged):
            return
        if attempt.guarded:
            self.violated(4, f"{attempt.name} was billed {attempt.billed} and has no row")
        elif death is None:
            self.violated(8, f"{attempt.name} has no row though {attempt.instance} was never killed")
        elif attempt.admitted_at >= death.well_since and death.at - attempt.admitted_at > SOFT_WINDOW:
            self.violated(8, f"{attempt.name} has no row, {death.at - attempt.admitted_at:.3f} s before its process died")
        else:
            self.counts["soft rows lost with their process"] += 1

    def _rows(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = defaultdict(list)
        for partition, entities in self._store.tables.get(LEDGER, {}).items():
            if not partition.startswith("s~"):
                continue
            for name, entity in entities.items():
                if name.startswith("r~"):
                    value = entity.properties
                    accounts = tuple(_account(one) for one in str(value["accounts"]).split())
                    row = Row(partition, str(value["state"]), _whole(value, "est"), _whole(value, "charged"), accounts)
                    found[_attempt_in(name)].append(row)
        return found

    def _corrections(self) -> dict[Key, Counter[str]]:
        found: dict[Key, Counter[str]] = defaultdict(Counter)
        for partition, entities in self._store.tables.get(LEDGER, {}).items():
            if partition.startswith("b~"):
                for name, entity in entities.items():
                    if name.startswith("c~"):
                        found[_key(partition)][name.removeprefix("c~")] += _whole(entity.properties, "delta")
        return found


def _key(partition: str) -> Key:
    _, budget, period = partition.split("~")
    return budget, period


def _attempt_in(row: str) -> str:
    return "~".join(row.split("~")[-2:])


def _account(text: str) -> Key:
    budget, _, period = text.partition("|")
    return budget, period


def _whole(properties: Mapping[str, Value] | None, name: str) -> int:
    value = 0 if properties is None else properties[name]
    assert isinstance(value, int), f"{name} is no whole number: {value!r}"
    return value


def _reserved(lease: Mapping[str, Value] | None) -> int:
    if lease is None or lease["state"] == "closed":
        return 0
    return _whole(lease, "granted") - _whole(lease, "folded")
