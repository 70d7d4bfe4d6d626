"""The names that entries with mistakes refer to, as far as they can be read: a mistake in one field hides none in another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from shared.catalog.fields import NAME_PATTERN
from shared.catalog.schema import AliasEntry, DeploymentEntry, Entry, ExperimentEntry, FlatModelEntry, ModelEntry, RuleEntry

if TYPE_CHECKING:
    from shared.catalog.findings import Path

Mention = tuple["Path", str]
"""Where a name stands, and the name."""

_MODEL_FIELDS: Final[Mapping[type[Entry], tuple[str, ...]]] = MappingProxyType(
    {AliasEntry: ("to",), RuleEntry: ("preferred_models", "fallback_models"), ExperimentEntry: ("models",)}
)


@dataclass(slots=True)
class Mentions:
    """Names by what they must be the name of. ``flat_providers`` are those of models of the first format."""

    providers: list[Mention] = field(default_factory=list)
    models: list[Mention] = field(default_factory=list)
    capabilities: list[Mention] = field(default_factory=list)
    flat_providers: list[Mention] = field(default_factory=list)

    def collect(self, kind: type[Entry], path: Path, value: object) -> None:
        """Take the names out of an entry that was refused."""
        if not isinstance(value, Mapping):
            return
        for name in _MODEL_FIELDS.get(kind, ()):
            self.models += names((*path, name), value.get(name))
        if kind is ExperimentEntry:
            self._arms((*path, "arms"), value.get("arms"))
        elif kind is ModelEntry:
            self.capabilities += names((*path, "capabilities"), value.get("capabilities"))
        elif kind in {DeploymentEntry, FlatModelEntry}:
            found = self.providers if kind is DeploymentEntry else self.flat_providers
            found += _name((*path, "provider"), value.get("provider"))

    def _arms(self, path: Path, arms: object) -> None:
        for index, arm in enumerate(arms if isinstance(arms, list) else ()):
            if isinstance(arm, Mapping):
                self.models += _name((*path, index, "model"), arm.get("model"))


def names(path: Path, value: object) -> list[Mention]:
    """Return the readable names of a field that holds one name or a list of them."""
    if not isinstance(value, list):
        return _name(path, value)
    return [mention for index, item in enumerate(value) for mention in _name((*path, index), item)]


def _name(path: Path, value: object) -> list[Mention]:
    return [(path, str(value))] if isinstance(value, str) and NAME_PATTERN.fullmatch(value) else []
