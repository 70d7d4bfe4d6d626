"""What an administrator may say about a budget: every field is checked, and a refusal names the field.

Amounts are USD as a JSON number or as text, read as Decimal to the last digit: nothing is rounded, ever.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from decimal import Decimal, localcontext
from enum import StrEnum
from functools import cache
from typing import Any, Final, NoReturn, TypeVar

from shared.core.budgets import MAX_LIMIT, AtEnd, Budget, Cycle, Scope, ScopeKind
from shared.core.errors import InvalidRequestError
from shared.core.pricing import NANO_PER_USD
from shared.core.webhooks import WebhookRefusedError, target_of

MAX_NAME: Final = 100
MAX_THRESHOLDS: Final = 10
MAX_FLOOR_TOKENS: Final = 1_000_000

ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""Ids become parts of storage keys and are joined by ``|`` and ``~`` there."""

_PROJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY: Final = re.compile(r"[a-z0-9][a-z0-9:_-]{0,63}")
_MAX_MODEL: Final = 256
_AMOUNT: Final = re.compile(r"-?[0-9]{1,60}(\.[0-9]{1,60})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_MAX_DIGITS: Final = 200
_DECIMALS: Final = 4
_MAX_ZONE: Final = 64

Choice = TypeVar("Choice", bound=StrEnum)
Hosts = Collection[str]


def drafted(fields: Mapping[str, Any], *, id: str, created_at: float, hosts: Hosts) -> Budget:  # noqa: A002 - the field's name
    """Return the budget that some fields describe; raise `InvalidRequestError` naming the one at fault.

    ``hosts`` are those webhooks may lead to. Whether a parent exists is not known here.
    """
    for name in ("name", "scope", "limit_usd", "cycle"):
        if name not in fields:
            message = f"`{name}` is required."
            raise InvalidRequestError(message, param=name, code="missing_required_parameter")
    blank = Budget(
        id=id,
        name="",
        scope=scope_of(fields["scope"]),
        limit=0,
        cycle=_choice(fields["cycle"], Cycle, "cycle"),
        time_zone=time_zone(fields.get("time_zone", "UTC")),
        created_at=created_at,
    )
    rest = {name: value for name, value in fields.items() if name not in _FIXED}
    return changed(blank, rest, hosts=hosts)


def changed(budget: Budget, fields: Mapping[str, Any], *, hosts: Hosts) -> Budget:
    """Return the budget with some fields changed; raise `InvalidRequestError` naming the one at fault."""
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _FIXED:
            _refuse(name, "can't change: the money is kept per period of the scope. Disable this budget and make another")
        if name not in _FIELDS:
            _refuse(name[:60], "is not a field of a budget")
        attribute, read = _FIELDS[name]
        values[attribute] = read(value, hosts) if read is _webhook else read(value)
    return replace(budget, **values)


def nano_usd(value: object) -> int:
    """Return an amount of USD (number or text) as integer nano-USD; raise `InvalidRequestError` naming ``limit_usd``.

    It must be above zero, at most a billion dollars, and whole nano-dollars: what can't be kept exactly is refused.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        _refuse("limit_usd", 'must be an amount of USD: a number, or text such as "12.50"')
    text = value if isinstance(value, str) else str(value)
    if _AMOUNT.fullmatch(text) is None:
        _refuse("limit_usd", 'must be a finite amount of USD: a number, or text such as "12.50"')
    with localcontext() as context:
        context.prec = _MAX_DIGITS
        amount = Decimal(text)
        if amount <= 0:
            _refuse("limit_usd", "must be above 0")
        if amount > MAX_LIMIT // NANO_PER_USD:
            _refuse("limit_usd", f"must be at most {MAX_LIMIT // NANO_PER_USD:,} USD")
        nano = amount * NANO_PER_USD
        if nano != nano.to_integral_value():
            _refuse("limit_usd", "can't hold fractions of a nano-dollar: at most nine decimals")
        return int(nano)


def scope_of(value: object) -> Scope:
    """Return whom a budget covers, from ``{"kind": …, "name": …}``; raise `InvalidRequestError`."""
    if not isinstance(value, Mapping) or not set(value) <= {"kind", "name"}:
        _refuse("scope", 'must be an object such as {"kind": "project", "name": "shop"}')
    kind = _choice(value.get("kind"), ScopeKind, "scope.kind")
    name = value.get("name")
    if kind not in _NAMES:
        if name not in {None, ""}:
            _refuse("scope.name", f"must be left out: a budget of kind `{kind}` has none")
        return Scope(kind)
    if not isinstance(name, str) or not _NAMES[kind](name):
        _refuse("scope.name", f"must be the name of a {kind.value}")
    return Scope(kind, name)


def _is_model(name: str) -> bool:
    return 0 < len(name) <= _MAX_MODEL and name.isprintable()


_NAMES: Final[dict[ScopeKind, Callable[[str], object]]] = {
    ScopeKind.PROJECT: _PROJECT.fullmatch,
    ScopeKind.KEY: _KEY.fullmatch,
    ScopeKind.MODEL: _is_model,
}


def time_zone(value: object) -> str:
    """Return the name of a time zone that exists here; raise `InvalidRequestError`."""
    if not isinstance(value, str) or len(value) > _MAX_ZONE or value not in _time_zones():
        _refuse("time_zone", "must be a time zone of the IANA database, such as Europe/Berlin or UTC")
    return value


@cache
def _time_zones() -> frozenset[str]:
    # "localtime" is whatever the machine is set to, and so differs between instances.
    return frozenset(zoneinfo.available_timezones()) - {"localtime", "Factory"} | {"UTC"}


# ---- fields that can change ------------------------------------------------------------------------------------------


def _name(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME or not value.isprintable() or value.isspace():
        _refuse("name", f"must be 1 to {MAX_NAME} printable characters")
    return value


def _hard(value: object) -> bool:
    return _flag(value, "hard")


def _enabled(value: object) -> bool:
    return _flag(value, "enabled")


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        _refuse(name, "must be true or false")
    return value


def _parent(value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or ID.fullmatch(value) is None):
        _refuse("parent", "must be the id of a budget, or null")
    return value


def _thresholds(value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_THRESHOLDS:
        _refuse("thresholds", f"must be at most {MAX_THRESHOLDS} shares of the limit")
    found = tuple(sorted(_share(each, f"thresholds[{at}]") for at, each in enumerate(value)))
    if len(set(found)) < len(found):
        _refuse("thresholds", "must differ from each other")
    return found


def _downgrade_at(value: object) -> float:
    return _share(value, "downgrade_at")


def _share(value: object, name: str) -> float:
    number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    share = float(value) if number else 0.0  # type: ignore[arg-type]  # a number is one of the three
    if not 0 < share <= 1 or round(share, _DECIMALS) != share:
        _refuse(name, f"must be a share of the limit: above 0, at most 1, and at most {_DECIMALS} decimals")
    return share


def _at_end(value: object) -> AtEnd:
    return _choice(value, AtEnd, "at_end")


def _floor_tokens(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_FLOOR_TOKENS:
        _refuse("floor_tokens", f"must be an integer from 1 to {MAX_FLOOR_TOKENS}")
    return value


def _webhook(value: object, hosts: Hosts = ()) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        _refuse("webhook", "must be a URL, or null")
    try:
        target_of(value, hosts)
    except WebhookRefusedError as error:
        _refuse("webhook", str(error))
    return value


def _choice(value: object, kind: type[Choice], name: str) -> Choice:
    if not isinstance(value, str) or value not in list(kind):
        _refuse(name, f"must be one of {', '.join(kind)}")
    return kind(value)


def _refuse(name: str, said: str) -> NoReturn:
    message = f"`{name}` {said}."
    raise InvalidRequestError(message, param=name, code="invalid_value")


_FIXED: Final = ("scope", "cycle", "time_zone")

_FIELDS: Final[dict[str, tuple[str, Callable[..., Any]]]] = {
    "name": ("name", _name),
    "limit_usd": ("limit", nano_usd),
    "hard": ("hard", _hard),
    "parent": ("parent", _parent),
    "thresholds": ("thresholds", _thresholds),
    "at_end": ("at_end", _at_end),
    "downgrade_at": ("downgrade_at", _downgrade_at),
    "floor_tokens": ("floor_tokens", _floor_tokens),
    "webhook": ("webhook", _webhook),
    "enabled": ("enabled", _enabled),
}
