"""The types of a catalog's fields: strict, finite, with messages that say what to write.

YAML gives text (see `shared.catalog.document`), a registration gives JSON values: both are taken, and a number is never made
through a binary float when its text is there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from shared.catalog.document import Plain
from shared.core.chat import Objective
from shared.core.registry import Auth, Lifecycle, ProviderKind

_INTEGER: Final = re.compile(r"[+-]?\d{1,3}(_\d{3}){1,5}|[+-]?\d{1,18}")
_NUMBER: Final = re.compile(r"[+-]?(\d{1,15}(\.\d{0,18})?|\.\d{1,18})([eE][+-]?\d{1,2})?")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_TEXT_LIMIT: Final = 1000
_FINITE_LIMIT: Final = 1e15
_LAST_PRINTABLE: Final = "~"

E = TypeVar("E", bound=StrEnum)


def _refuse(message: str) -> PydanticCustomError:
    return PydanticCustomError("catalog", "{reason}", {"reason": message})


def text(value: Any) -> str:
    """Return printable, non-empty text."""
    if not isinstance(value, str):
        message = "must be text"
        raise _refuse(message)
    stripped = value.strip()
    if not stripped:
        message = "must not be empty"
        raise _refuse(message)
    if len(stripped) > _TEXT_LIMIT or not stripped.replace("\n", " ").isprintable():
        message = f"must be printable text of at most {_TEXT_LIMIT} characters"
        raise _refuse(message)
    return str(stripped)


def _matching(pattern: re.Pattern[str], message: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise _refuse(message)
        return str(value)

    return parse


def integer(value: Any) -> int:
    """Return a whole number; refuse true, 1.0 and quoted digits."""
    if isinstance(value, Plain) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    message = "must be a whole number"
    raise _refuse(message)


def decimal(value: Any) -> Decimal:
    """Return the decimal exactly as it is written; JSON's floats by their shortest text."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return Decimal(str(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if isinstance(value, float) and math.isfinite(value):
        return Decimal(repr(value))
    message = "must be a finite number"
    raise _refuse(message)


def number(value: Any) -> float:
    """Return a finite number; refuse true, NaN, infinities and quoted digits."""
    if isinstance(value, str) and not isinstance(value, Plain):
        message = "must be a number without quotes"
        raise _refuse(message)
    exact = float(decimal(value))
    if abs(exact) > _FINITE_LIMIT:
        message = f"must be within ±{_FINITE_LIMIT:g}"
        raise _refuse(message)
    return exact


def truth(value: Any) -> bool:
    """Return true or false; nothing else stands for them."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Plain) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    message = "must be true or false"
    raise _refuse(message)


def day(value: Any) -> date:
    """Return a calendar day."""
    if isinstance(value, str) and _DAY.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    message = "must be a day that exists, as YYYY-MM-DD"
    raise _refuse(message)


def url(value: Any) -> str:
    """Return an http(s) address without a trailing slash."""
    message = "must be an address such as https://host/path, without user, query or fragment"
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        raise _refuse(message)
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        raise _refuse(message) from None
    if not usable or parts.username is not None or parts.query or parts.fragment or "?" in value or "#" in value:
        raise _refuse(message)
    # ${NAME}/v1 with a NAME that ends in a slash, or in /v1 already, means what it says once.
    path = re.sub(r"/{2,}", "/", parts.path).rstrip("/")
    path = re.sub(r"(/v1){2,}$", "/v1", path)
    return f"{parts.scheme}://{parts.netloc}{path}"


def credential(value: Any) -> str:
    """Return what may stand in a header. The message never holds the value."""
    if isinstance(value, str) and value and all(" " <= letter <= _LAST_PRINTABLE for letter in value):
        return str(value)
    message = "must be printable ASCII on one line: it is sent as a header"
    raise _refuse(message)


def _choice(kind: type[E]) -> Callable[[Any], E]:
    def parse(value: Any) -> E:
        try:
            return kind(value)
        except ValueError:
            message = "must be one of " + ", ".join(kind)
            raise _refuse(message) from None

    return parse


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(text)]
Name = Annotated[
    str,
    BeforeValidator(_matching(_NAME, "must be a name of letters, digits and ._:/@+-, starting with a letter or digit")),
]
Slug = Annotated[
    str, BeforeValidator(_matching(_SLUG, "must be lower-case letters, digits and ._-, starting with a letter or digit"))
]
HeaderName = Annotated[str, BeforeValidator(_matching(_HEADER, "must be the name of an HTTP header"))]
Truth = Annotated[bool, BeforeValidator(truth)]
Count = Annotated[int, BeforeValidator(integer), Field(ge=0, le=10**12)]
Positive = Annotated[int, BeforeValidator(integer), Field(ge=1, le=10**12)]
Seconds = Annotated[float, BeforeValidator(number), Field(gt=0, le=86_400)]
Wait = Annotated[float, BeforeValidator(number), Field(ge=0, le=86_400)]
Milliseconds = Annotated[float, BeforeValidator(number), Field(ge=0, le=3_600_000)]
Share = Annotated[float, BeforeValidator(number), Field(ge=0, le=1)]
Money = Annotated[Decimal, BeforeValidator(decimal), Field(ge=0, le=1_000_000)]
Factor = Annotated[Decimal, BeforeValidator(decimal), Field(ge=1, le=10)]
Day = Annotated[date, BeforeValidator(day)]
Url = Annotated[str, BeforeValidator(url)]
Credential = Annotated[str, BeforeValidator(credential)]
Names = Annotated[list[Name], BeforeValidator(_listed)]
Kind = Annotated[ProviderKind, BeforeValidator(_choice(ProviderKind))]
AuthName = Annotated[Auth, BeforeValidator(_choice(Auth))]
Stage = Annotated[Lifecycle, BeforeValidator(_choice(Lifecycle))]
ObjectiveName = Annotated[Objective, BeforeValidator(_choice(Objective))]
AuthOrder = Annotated[list[AuthName], BeforeValidator(_listed), Field(min_length=1)]

NAME_PATTERN: Final = _NAME
SLUG_PATTERN: Final = _SLUG
