"""From a request's path to what is called: profile, protocol, operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_OPERATIONS: Final[Mapping[tuple[str, ...], str]] = {
    ("chat", "completions"): "chat",
    ("completions",): "completions",
    ("embeddings",): "embeddings",
    ("models",): "models",
    ("messages",): "messages",
    ("messages", "count_tokens"): "count_tokens",
}
_NO_PROFILE: Final = frozenset({"v1", "chat", "completions", "embeddings", "models", "messages"})
DEFAULT_PROFILE: Final = "default"


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. ``deployment`` is set by Azure's older paths."""

    profile: str
    dialect: str
    operation: str
    deployment: str | None = None


def find_target(path: str) -> Target | None:
    """Return what the path calls, or None when it calls nothing.

    The first segment is the profile. Whatever stands between it and the operation is the provider's own base path; two of those
    are Azure's: ``openai/deployments/{name}`` and ``openai/v1``. Without a profile (``/v1/…``) it is "default".
    """
    segments = [segment for segment in path.split("/") if segment]
    operation, length = _operation(segments)
    if operation is None:
        return None
    between = segments[: len(segments) - length]
    profile = DEFAULT_PROFILE
    if segments[0] not in _NO_PROFILE and between[:2] != ["openai", "deployments"]:
        profile, between = between[0], between[1:]
    deployed = len(between) == 3 and between[:2] == ["openai", "deployments"]  # noqa: PLR2004 - openai/deployments/name
    azure = deployed or between == ["openai", "v1"]
    dialect = "anthropic" if operation in {"messages", "count_tokens"} else "azure" if azure else "openai"
    return Target(profile, dialect, operation, between[2] if deployed else None)


def _operation(segments: list[str]) -> tuple[str | None, int]:
    for length in (2, 1):
        found = _OPERATIONS.get(tuple(segments[-length:])) if len(segments) >= length else None
        if found is not None:
            return found, length
    return None, 0
