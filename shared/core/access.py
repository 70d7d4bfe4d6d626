"""What somebody who was recognised may do: three roles, and nothing without one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.core.records import Caller


class Role(StrEnum):
    """What a key or an Entra identity may do. Only administrators give roles, so nobody raises their own."""

    ADMIN = "admin"  # everything: keys, budgets, models, every project's usage
    MEMBER = "member"  # asks models, and sees what its own project did
    VIEWER = "viewer"  # sees what its own project did, and asks nothing


DEFAULT_ROLES: Final = frozenset({Role.MEMBER})


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a credential stands for, and what they may do. ``caller.admin`` is true exactly with the role admin."""

    caller: Caller
    roles: frozenset[Role] = DEFAULT_ROLES
