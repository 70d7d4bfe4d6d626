"""Request ids: "req_" and a ULID, so that an id sorts by, and tells, the moment its request began.

A ULID is 48 bits of milliseconds and 80 bits of chance in Crockford's base 32. Both come from the caller: this is pure.
"""

from __future__ import annotations

import re
from typing import Final

PREFIX: Final = "req_"
RANDOM_BITS: Final = 80

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_TO_PYTHON: Final = str.maketrans(_ALPHABET, "0123456789ABCDEFGHIJKLMNOPQRSTUV")
"""From Crockford's digits to those of Python's own base 32."""
_FORM: Final = re.compile(f"{PREFIX}[0-7][{_ALPHABET}]{{25}}")
_TIME: Final = slice(len(PREFIX), len(PREFIX) + 10)
_MAX_MILLISECONDS: Final = (1 << 48) - 1


def request_id(now: float, draw: int) -> str:
    """Return the id of a request that begins at ``now`` (seconds since the epoch); ``draw`` is 80 random bits.

    Raise `ValueError` for a time before 1970 or after the year 10889, and for a draw that is not 80 bits.
    """
    if not 0 <= draw < 1 << RANDOM_BITS:
        message = "A request id needs a draw of 80 bits."
        raise ValueError(message)
    bits = (_milliseconds(now) << RANDOM_BITS) | draw
    pairs = _PAIRS
    return PREFIX + "".join([pairs[(bits >> shift) & 1023] for shift in range(120, -1, -10)])


def time_of(request_id: str) -> float:
    """Return when the request with this id began, in seconds since the epoch (to the millisecond).

    Raise `ValueError` for a text that `request_id` can't have made.
    """
    if _FORM.fullmatch(request_id) is None:
        message = 'Not a request id: it must be "req_" and 26 letters and digits.'
        raise ValueError(message)
    return int(request_id[_TIME].translate(_TO_PYTHON), 32) / 1000


def instance_id(work_id: str, created_at: float) -> str:
    """Return the engine's name for a piece of background work: its id, which may follow from a key, and when it was made.

    Engines take a name once, for good; what was deleted can be made again under the same key.
    """
    return f"{work_id}-{_milliseconds(created_at):x}"


def lowest(moment: float) -> str:
    """Return the smallest id a request that begins at ``moment`` can have: the bound of a range of ids."""
    return request_id(moment, 0)


def _milliseconds(moment: float) -> int:
    if not 0 <= moment <= _MAX_MILLISECONDS / 1000:  # refuses NaN too
        message = "A request id needs a time between 1970 and 10889."
        raise ValueError(message)
    return min(round(moment * 1000), _MAX_MILLISECONDS)
