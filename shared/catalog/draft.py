"""The catalog's tree → its entries, each checked by itself, so that every mistake in the file is told at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from shared.catalog.fields import NAME_PATTERN, SLUG_PATTERN
from shared.catalog.findings import unknown_field
from shared.catalog.mentions import Mentions, names
from shared.catalog.schema import (
    SECTIONS,
    AliasEntry,
    DeploymentEntry,
    Entry,
    ExperimentEntry,
    FlatModelEntry,
    ModelEntry,
    PolicyEntry,
    ProviderEntry,
    RuleEntry,
    SourceEntry,
)
from shared.core.chat import AUTO

if TYPE_CHECKING:
    from shared.catalog.findings import Findings, Path

E = TypeVar("E", bound=Entry)

_FLAT_MARKS: Final = frozenset({"provider", "cost_per_1k_tokens"})
_PLAIN_NAME: Final = "must be letters, digits and ._:/@+-, starting with a letter or digit, at most 128 in all"


@dataclass(frozen=True, slots=True)
class PlacedDeployment:
    """A deployment of a model, and where it is written."""

    path: Path
    model: str
    entry: DeploymentEntry


@dataclass(slots=True)
class Draft:
    """Entries that are right by themselves. ``…_names`` also hold those that are not, so that they count as known.

    ``mentions`` are the names those that are not refer to; ``unread`` are the sections that can't be read at all.
    """

    providers: dict[str, ProviderEntry] = field(default_factory=dict)
    provider_names: set[str] = field(default_factory=set)
    models: dict[str, ModelEntry] = field(default_factory=dict)
    flat_models: dict[str, FlatModelEntry] = field(default_factory=dict)
    flat_names: set[str] = field(default_factory=set)
    model_names: set[str] = field(default_factory=set)
    deployments: list[PlacedDeployment] = field(default_factory=list)
    aliases: dict[str, AliasEntry] = field(default_factory=dict)
    alias_names: set[str] = field(default_factory=set)
    rules: list[tuple[Path, RuleEntry]] = field(default_factory=list)
    fallbacks: dict[str, list[str]] = field(default_factory=dict)
    experiments: list[tuple[Path, ExperimentEntry]] = field(default_factory=list)
    policy: PolicyEntry = field(default_factory=PolicyEntry)
    custom_capabilities: set[str] = field(default_factory=set)
    sources: dict[str, SourceEntry] = field(default_factory=dict)
    conventional: set[str] = field(default_factory=set)
    """Providers the file names but does not describe."""
    mentions: Mentions = field(default_factory=Mentions)
    unread: set[str] = field(default_factory=set)

    def is_flat(self, registered: AbstractSet[str]) -> bool:
        """Tell whether the whole file is in the first format; what was registered over it does not change that."""
        return bool(self.flat_names - registered) and not self.models.keys() - registered


def is_flat(entry: object) -> bool:
    """Tell whether a model entry is in the first format."""
    return isinstance(entry, Mapping) and entry.keys() >= _FLAT_MARKS


def draft(tree: Mapping[str, Any], findings: Findings) -> Draft:
    """Return what the tree says, and note in ``findings`` what is wrong with each part of it."""
    return _Reader(findings, Draft()).read(tree)


@dataclass(frozen=True, slots=True)
class _Reader:
    findings: Findings
    draft: Draft

    def read(self, tree: Mapping[str, Any]) -> Draft:
        for name in tree:
            if name not in SECTIONS:
                self.findings.problem((name,), unknown_field(name, SECTIONS))
        self._custom_capabilities(tree.get("custom_capabilities"))
        for name, value in self._mapping(tree, "sources").items():
            if (source := self._entry(SourceEntry, ("sources", name), value)) is not None:
                self.draft.sources[name] = source
        for name, value in self._mapping(tree, "providers").items():
            self._provider(name, value)
        for name, value in self._mapping(tree, "models").items():
            self._model(name, value)
        if not self.draft.model_names and "models" not in self.draft.unread:
            self.findings.problem(("models",), "names no model; a catalog has at least one")
        for name, value in self._mapping(tree, "aliases").items():
            self._alias(name, value)
        self._routing(tree)
        return self.draft

    def _routing(self, tree: Mapping[str, Any]) -> None:
        for path, value in self._list(tree, "routing_rules"):
            if (rule := self._entry(RuleEntry, path, value)) is not None:
                self.draft.rules.append((path, rule))
        for name, value in self._mapping(tree, "fallbacks").items():
            targets = [value] if isinstance(value, str) else value
            if isinstance(targets, list) and all(isinstance(item, str) for item in targets):
                self.draft.fallbacks[name] = [str(item) for item in targets]
            else:
                path = ("fallbacks", name)
                self.findings.problem(path, "must be a list of models")
                self.draft.mentions.models += [(path, name), *names(path, value)]
        for path, value in self._list(tree, "experiments"):
            if (experiment := self._entry(ExperimentEntry, path, value)) is not None:
                self.draft.experiments.append((path, experiment))
        if tree.get("policy") is not None:
            self.draft.policy = self._entry(PolicyEntry, ("policy",), tree["policy"]) or self.draft.policy

    def _custom_capabilities(self, value: object) -> None:
        if value is None:
            return
        if isinstance(value, list) and all(isinstance(item, str) and SLUG_PATTERN.fullmatch(item) for item in value):
            self.draft.custom_capabilities.update(str(item) for item in value)
        else:
            self.findings.problem(("custom_capabilities",), "must be a list of names in lower case")

    def _provider(self, name: str, value: object) -> None:
        path = ("providers", name)
        self.draft.provider_names.add(name)
        if not SLUG_PATTERN.fullmatch(name):
            self.findings.problem(path, "a provider's name must be lower-case letters, digits and ._-, at most 64 in all")
        if (entry := self._entry(ProviderEntry, path, value)) is not None:
            self.draft.providers[name] = entry

    def _model(self, name: str, value: object) -> None:
        path = ("models", name)
        self._public_name(path, name)
        self.draft.model_names.add(name)
        if is_flat(value):
            self.draft.flat_names.add(name)
            if (flat := self._entry(FlatModelEntry, path, value)) is not None:
                self.draft.flat_models[name] = flat
            return
        if isinstance(value, Mapping):
            self._deployments(name, value)
            value = {key: item for key, item in value.items() if key != "deployments"}
        if (entry := self._entry(ModelEntry, path, value, also=("deployments",))) is not None:
            self.draft.models[name] = entry

    def _deployments(self, model: str, entry: Mapping[str, Any]) -> None:
        path = ("models", model, "deployments")
        items = entry.get("deployments")
        if items is None and "deployments" not in entry:
            self.findings.problem(path, "is missing; say where the model is served: [{provider: …, prices: […]}]")
        elif not isinstance(items, list):
            self.findings.problem(path, "must be a list of deployments")
        else:
            for index, item in enumerate(items):
                place = (*path, index)
                if (deployment := self._entry(DeploymentEntry, place, item)) is not None:
                    self.draft.deployments.append(PlacedDeployment(place, model, deployment))

    def _alias(self, name: str, value: object) -> None:
        path = ("aliases", name)
        self._public_name(path, name)
        self.draft.alias_names.add(name)
        value = {"to": value} if isinstance(value, str | list) else value
        if (entry := self._entry(AliasEntry, path, value)) is not None:
            self.draft.aliases[name] = entry

    def _public_name(self, path: Path, name: str) -> None:
        if not NAME_PATTERN.fullmatch(name):
            self.findings.problem(path, f"the name {_PLAIN_NAME}")
        elif name == AUTO:
            self.findings.problem(path, f"`{AUTO}` stands for the router's own choice; take another name")

    def _entry(self, kind: type[E], path: Path, value: object, *, also: Sequence[str] = ()) -> E | None:
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            known = [info.alias or name for name, info in kind.model_fields.items()]
            self.findings.invalid(path, error.errors(include_url=False, include_input=False), fields=[*known, *also])
            self.draft.mentions.collect(kind, path, value)
            return None

    def _mapping(self, tree: Mapping[str, Any], section: str) -> Mapping[str, Any]:
        value = tree.get(section)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.findings.problem((section,), "must be a mapping of names to entries")
            self.draft.unread.add(section)
            return {}
        return value

    def _list(self, tree: Mapping[str, Any], section: str) -> list[tuple[Path, Any]]:
        value = tree.get(section)
        if value is None:
            return []
        if not isinstance(value, list):
            self.findings.problem((section,), "must be a list of entries, each starting with `- `")
            return []
        return [((section, index), item) for index, item in enumerate(value)]
