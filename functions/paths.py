"""Routes as the Functions host writes them: ``{name}`` is one segment, ``{*name}`` the rest, even if empty. Pure."""

from __future__ import annotations

import re

_PARAMETER = re.compile(r"(\{\*?\w+\})")


def path_pattern(path: str) -> re.Pattern[str]:
    """Return what matches the paths of a route, with its parameters as named groups."""
    return re.compile("".join(_pattern(part) for part in _PARAMETER.split(path)))


def _pattern(part: str) -> str:
    if part.startswith("{*"):
        return f"(?P<{part[2:-1]}>.*)"
    return f"(?P<{part[1:-1]}>[^/]+)" if part.startswith("{") else re.escape(part)


def specificity(path: str) -> tuple[int, ...]:
    """Return a key that sorts the more specific route first: a literal segment, then one parameter, then the rest."""
    return tuple(2 if "{*" in segment else int("{" in segment) for segment in path.split("/"))
