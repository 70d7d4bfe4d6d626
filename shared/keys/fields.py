"""A key as a value, and what each of its fields may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypedDict

from shared.core.access import DEFAULT_ROLES, Role
from shared.core.budgets import MAX_ACCOUNTS
from shared.core.errors import InvalidRequestError

MAX_NAME: Final = 100
MAX_MODELS: Final = 200
MAX_MODEL_NAME: Final = 256
MAX_BUDGETS: Final = MAX_ACCOUNTS
MAX_PER_MINUTE: Final = 10**12
MAX_TAGS: Final = 16
MAX_TAG: Final = 128
LATEST: Final = 253_402_300_799
"""The end of the year 9999, in seconds since the epoch."""

PROJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BUDGET: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_TAG_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}")
_ROLES: Final[frozenset[str]] = frozenset(Role)


@dataclass(frozen=True, slots=True)
class Token:
    """One secret of a key, by its SHA-256. ``ends_at`` (seconds since the epoch) is None until a rotation ends it."""

    digest: str
    created_at: float
    ends_at: float | None = None


@dataclass(frozen=True, slots=True)
class VirtualKey:
    """A key as it may be shown: everything but its secrets. Times are seconds since the epoch.

    ``models`` None is all models; ``budgets`` are ids; limits are None for none; ``tags`` are written down with its usage.
    ``tokens`` are those that may still be good, the newest last. ``version`` grows by one with every change.
    """

    key_id: str
    name: str
    project: str
    created_at: float
    expires_at: float | None = None
    disabled: bool = False
    models: frozenset[str] | None = None
    budgets: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    roles: frozenset[Role] = DEFAULT_ROLES
    tags: Mapping[str, str] = field(default_factory=dict)
    tokens: tuple[Token, ...] = ()
    version: int = 1


class Grants(TypedDict, total=False):
    """What a key may be given beside its name and project; what is left out is `VirtualKey`'s default."""

    expires_at: float | None
    models: frozenset[str] | None
    budgets: tuple[str, ...]
    requests_per_minute: int | None
    tokens_per_minute: int | None
    roles: frozenset[Role]
    tags: Mapping[str, str]


class Changes(Grants, total=False):
    """What may be changed later: everything but the project, which its usage was written down under."""

    name: str


def check(given: Mapping[str, object], *, now: float) -> None:
    """Raise `InvalidRequestError` naming the first field that is not what it must be. ``now`` is seconds since the epoch."""
    for name, value in given.items():
        holds, text = RULES.get(name, (_never, "left out: a key has no such field"))
        if not holds(value):
            message = f"`{name}` must be {text}."
            raise InvalidRequestError(message, param=name, code="invalid_value")
    expires_at = given.get("expires_at")
    if isinstance(expires_at, int | float) and expires_at <= now:
        message = "`expires_at` must be a moment to come, in seconds since the epoch."
        raise InvalidRequestError(message, param="expires_at", code="invalid_value")


def is_model_name(name: object) -> bool:
    """Say whether a text can be a model's name."""
    return _is_printable(name, MAX_MODEL_NAME)


def _never(_value: object) -> bool:
    return False


def _is_printable(value: object, longest: int) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= longest and value.isprintable() and not value.isspace()


def _is_name(value: object) -> bool:
    return _is_printable(value, MAX_NAME)


def _is_project(value: object) -> bool:
    return isinstance(value, str) and PROJECT.fullmatch(value) is not None


def _is_moment(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LATEST)


def _are_models(value: object) -> bool:
    return value is None or (isinstance(value, frozenset) and 1 <= len(value) <= MAX_MODELS and all(map(is_model_name, value)))


def _are_budgets(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == len(set(value)) <= MAX_BUDGETS and all(map(_is_budget, value))


def _is_budget(value: object) -> bool:
    return isinstance(value, str) and _BUDGET.fullmatch(value) is not None


def _is_limit(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_PER_MINUTE)


def _are_roles(value: object) -> bool:
    return isinstance(value, frozenset) and bool(value) and value <= _ROLES


def _are_tags(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) <= MAX_TAGS
        and all(isinstance(name, str) and _TAG_NAME.fullmatch(name) is not None for name in value)
        and all(_is_printable(text, MAX_TAG) for text in value.values())
    )


_LIMIT: Final = f"a whole number from 1 to {MAX_PER_MINUTE}; leave it out for no limit"

RULES: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "name": (_is_name, f"1 to {MAX_NAME} printable characters"),
    "project": (_is_project, "1 to 64 letters, digits, `.`, `_` or `-`, a letter or digit first"),
    "expires_at": (_is_moment, "a moment to come, in seconds since the epoch"),
    "models": (_are_models, f"1 to {MAX_MODELS} model names; leave it out to allow all"),
    "budgets": (_are_budgets, f"ids of at most {MAX_BUDGETS} budgets, each once"),
    "requests_per_minute": (_is_limit, _LIMIT),
    "tokens_per_minute": (_is_limit, _LIMIT),
    "roles": (_are_roles, f"at least one of {', '.join(Role)}"),
    "tags": (
        _are_tags,
        f"at most {MAX_TAGS} texts of 1 to {MAX_TAG} printable characters, each under a name of at most 32 letters and digits",
    ),
}
"""What each field must be: a test, and its words."""
