"""What the budgets are at the moment, as those who change them see it and as each instance, a little later, does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from shared.core.budgets import Account

LAG = 5.0
"""Seconds after which every instance knows of a change."""

Key = tuple[str, str]


class Version(NamedTuple):
    """An account as it is from a moment on."""

    since: float
    account: Account


class Settings:
    """The accounts that calls are charged to now, and their history."""

    def __init__(self, accounts: Iterable[Account], now: Callable[[], float]) -> None:
        self.now = now
        self._budgets = {account.budget: [Version(float("-inf"), account)] for account in accounts}

    @property
    def budgets(self) -> tuple[str, ...]:
        """Return the budgets' ids."""
        return tuple(self._budgets)

    @property
    def changed(self) -> bool:
        """Say whether anything has ever been changed."""
        return any(len(versions) > 1 for versions in self._budgets.values())

    def change(self, account: Account) -> None:
        """Let a budget's account be this one from now on."""
        self._budgets[account.budget].append(Version(self.now(), account))

    def seen(self, budget: str, lag: float = 0.0) -> Account:
        """Return a budget's account as somebody sees it who hears of changes so many seconds late."""
        return next(one.account for one in reversed(self._budgets[budget]) if one.since <= self.now() - lag)

    def accounts(self) -> dict[Key, Account]:
        """Return the last version of every account there ever was: of a budget, one for each period."""
        every = [version.account for versions in self._budgets.values() for version in versions]
        return {(account.budget, account.period): account for account in every}

    def possible(self, key: Key, since: float) -> list[Account]:
        """Return the versions of an account that somebody may have seen at some moment from ``since`` on."""
        versions = self._budgets.get(key[0])
        if versions is None:
            return []
        ends = [version.since + LAG for version in versions[1:]]
        found = [one.account for one, end in zip(versions, [*ends, float("inf")], strict=True) if end >= since]
        return [account for account in found if account.period == key[1]] or [
            version.account for version in versions if version.account.period == key[1]
        ][-1:]
