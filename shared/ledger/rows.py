"""How money is laid out in the table ``ledger``. Amounts are integer nano-USD.

    s~SESSION            0                  the FENCE: state, token of the last write, heartbeat
                         r~REQUEST~ATTEMPT  an INTENT: what an attempt may cost, and what it did
                         l~BUDGET~PERIOD    a MARKER: this session has, or is about to have, a lease there
    b~BUDGET~PERIOD      h                  the HEAD: limit, spent, reserved, number of open leases
                         l~SESSION          a LEASE: what the session was granted, and how much of it the head counts as spent
                         c~SESSION~REQ~ATT  a CORRECTION: what an attempt that recovery had charged really cost, less that
    sessions             SESSION            sessions that are not closed
    closed               DAY~SESSION        sessions that are, for those who prune

Head: ``reserved`` is the sum of granted - folded over open leases, ``spent`` that of folded over all leases, and of
corrections. Every change of a head is one transaction with the lease or the correction it is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from shared.core.errors import StorageUnavailableError
from shared.core.fields import Fields
from shared.ports import Entity, Value

TABLE: Final = "ledger"
SESSIONS: Final = "sessions"
CLOSED: Final = "closed"
FENCE: Final = "0"
HEAD: Final = "h"
INTENT: Final = "r~"
LEASE: Final = "l~"
CORRECTION: Final = "c~"
_BETWEEN_ACCOUNTS: Final = " "
_IN_ACCOUNT: Final = "|"


class DamagedRowError(StorageUnavailableError):
    """A row that was not written by Switchyard: whoever needs it can't go on, and about money nothing is guessed."""


class SessionState(StrEnum):
    """A session's state, in its fence."""

    OPEN = "open"
    FENCED = "fenced"  # recovery has taken it over: nothing its owner sends can land any more
    CLOSED = "closed"


class IntentState(StrEnum):
    """An attempt's state."""

    PENDING = "p"
    DONE = "d"
    VOID = "v"  # the provider charged nothing
    CHARGED = "x"  # nobody knows: recovery charged the estimate


class AccountKey(NamedTuple):
    """Which budget, in which period."""

    budget: str
    period: str


@dataclass(frozen=True, slots=True)
class Fence:
    """The row every write of a session goes through. ``usage_until``: usage of requests ended before is in the usage log."""

    state: SessionState
    token: str
    beat: float
    instance: str
    usage_until: float
    etag: str = ""

    def entity(self, session: str) -> Entity:
        """Return it as a row."""
        properties: dict[str, Value] = {
            "state": self.state.value,
            "token": self.token,
            "beat": self.beat,
            "instance": self.instance,
            "usage_until": self.usage_until,
        }
        return Entity(session_partition(session), FENCE, properties, self.etag)


@dataclass(frozen=True, slots=True)
class IntentRow:
    """One attempt: its upper bound, its charge, the accounts it is charged to, and the caller's facts about it (JSON)."""

    request_id: str
    attempt: int
    state: IntentState
    estimate: int
    charged: int
    accounts: tuple[AccountKey, ...]
    facts: str
    at: float
    etag: str = ""

    @property
    def row(self) -> str:
        """Its row key."""
        return intent_row(self.request_id, self.attempt)

    def properties(self) -> dict[str, Value]:
        """Return what is stored of it."""
        return {
            "state": self.state.value,
            "est": self.estimate,
            "charged": self.charged,
            "accounts": accounts_text(self.accounts),
            "facts": self.facts,
            "at": self.at,
        }


@dataclass(frozen=True, slots=True)
class Head:
    """An account's totals."""

    limit: int
    spent: int = 0
    reserved: int = 0
    open: int = 0
    etag: str = ""

    def entity(self, key: AccountKey) -> Entity:
        """Return it as a row."""
        properties: dict[str, Value] = {
            "limit": self.limit,
            "spent": self.spent,
            "reserved": self.reserved,
            "open": self.open,
        }
        return Entity(account_partition(key), HEAD, properties, self.etag)


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A session's part of an account."""

    granted: int
    folded: int
    closed: bool
    token: str
    etag: str = ""

    def entity(self, key: AccountKey, session: str) -> Entity:
        """Return it as a row."""
        properties: dict[str, Value] = {
            "granted": self.granted,
            "folded": self.folded,
            "state": "closed" if self.closed else "open",
            "token": self.token,
        }
        return Entity(account_partition(key), lease_row(session), properties, self.etag)


# ---- keys ------------------------------------------------------------------------------------------------------------


def session_partition(session: str) -> str:
    """Return the partition of a session."""
    return "s~" + session


def account_partition(key: AccountKey) -> str:
    """Return the partition of an account."""
    return f"b~{key.budget}~{key.period}"


def intent_row(request_id: str, attempt: int) -> str:
    """Return the row of an attempt."""
    return f"{INTENT}{request_id}~{attempt}"


def lease_row(session: str) -> str:
    """Return the row of a session's lease in an account's partition."""
    return LEASE + session


def marker_row(key: AccountKey) -> str:
    """Return the row that says, in a session's partition, that it has a lease on this account."""
    return f"{LEASE}{key.budget}~{key.period}"


def correction_row(session: str, request_id: str, attempt: int) -> str:
    """Return the row of the correction of an attempt that was written in that session."""
    return f"{CORRECTION}{session}~{request_id}~{attempt}"


def closed_row(session: str, moment: float) -> str:
    """Return the row that says when a session was closed."""
    return f"{datetime.fromtimestamp(moment, UTC).date().isoformat()}~{session}"


def accounts_text(accounts: tuple[AccountKey, ...]) -> str:
    """Return accounts as a property's text."""
    return _BETWEEN_ACCOUNTS.join([f"{key.budget}{_IN_ACCOUNT}{key.period}" for key in accounts])


def accounts_in(text: str) -> tuple[AccountKey, ...]:
    """Return the accounts in such a text."""
    pairs = [one.partition(_IN_ACCOUNT) for one in text.split(_BETWEEN_ACCOUNTS) if one]
    return tuple(AccountKey(budget, period) for budget, _, period in pairs)


def marked(entity: Entity) -> AccountKey:
    """Return the account a marker is about."""
    row = Fields(entity.properties)
    return AccountKey(row.text("budget"), row.text("period"))


# ---- from rows -------------------------------------------------------------------------------------------------------


def fence(entity: Entity) -> Fence:
    """Return a session's fence; raise `StorageUnavailableError` when the row is damaged."""
    row = Fields(entity.properties)
    with _Damage(entity):
        return Fence(
            SessionState(row.text("state")),
            row.text("token"),
            row.number("beat"),
            row.text("instance"),
            row.number("usage_until"),
            entity.etag,
        )


def intent(entity: Entity) -> IntentRow:
    """Return an attempt; raise `StorageUnavailableError` when the row is damaged."""
    row = Fields(entity.properties)
    with _Damage(entity):
        request_id, _, attempt = entity.row.removeprefix(INTENT).rpartition("~")
        return IntentRow(
            request_id,
            int(attempt),
            IntentState(row.text("state")),
            row.whole("est"),
            row.whole("charged"),
            accounts_in(row.text("accounts")),
            row.text("facts"),
            row.number("at"),
            entity.etag,
        )


def head(entity: Entity) -> Head:
    """Return an account's totals; raise `StorageUnavailableError` when the row is damaged."""
    row = Fields(entity.properties)
    with _Damage(entity):
        return Head(row.whole("limit"), row.whole("spent"), row.whole("reserved"), row.whole("open"), entity.etag)


def lease(entity: Entity) -> LeaseRow:
    """Return a lease; raise `StorageUnavailableError` when the row is damaged."""
    row = Fields(entity.properties)
    with _Damage(entity):
        closed = row.text("state") == "closed"
        return LeaseRow(row.whole("granted"), row.whole("folded"), closed, row.text("token"), entity.etag)


def correction(entity: Entity) -> int:
    """Return what a correction adds to a charge; raise `StorageUnavailableError` when the row is damaged."""
    with _Damage(entity):
        return Fields(entity.properties).whole("delta")


class _Damage:
    """A row that was not written by Switchyard stops whoever reads it: about money nothing is guessed."""

    __slots__ = ("_entity",)

    def __init__(self, entity: Entity) -> None:
        self._entity = entity

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):
            message = f"The ledger's row {self._entity.row} in {self._entity.partition} is damaged: {error}."
            raise DamagedRowError(message) from error
