"""Catalog text → `Registry`: read, resolve references, check every part and the whole, place what is deployed, assemble."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from shared.catalog.assemble import Assembly
from shared.catalog.crosscheck import crosscheck
from shared.catalog.document import MAX_DEPTH, read
from shared.catalog.draft import draft
from shared.catalog.findings import Findings
from shared.catalog.flat import translate
from shared.catalog.infrastructure import SETTING, read_infrastructure
from shared.catalog.placing import place
from shared.catalog.references import References, has_reference

if TYPE_CHECKING:
    from shared.core.chat import Json
    from shared.core.registry import Registry

NO_OVERLAY: Final[Mapping[str, Any]] = MappingProxyType({})
_VERSION_LENGTH: Final = 20


@dataclass(frozen=True, slots=True)
class Loaded:
    """A registry, with what a person should look at, and what it was made from.

    ``references`` maps each environment name the text uses to its value; to "" when it is only a credential or an endpoint,
    and to None when it is not set. ``SWITCHYARD_DEPLOYMENTS`` is among them when it is set, without its addresses. With text
    and overlay it is all that decides the registry, but for the secrets.
    """

    registry: Registry
    warnings: tuple[str, ...] = ()
    references: Mapping[str, str | None] = field(default_factory=dict)


def parse(
    text: str,
    *,
    source: str,
    environment: Mapping[str, str],
    overlay: Mapping[str, Json] = NO_OVERLAY,
    simulator_url: str | None = None,
) -> Registry:
    """Return the registry a catalog describes.

    ``source`` is the file's name for messages. ``overlay`` holds dynamically registered models by name; they replace the
    file's. ``simulator_url`` sends every provider's calls to the loopback simulator there. Raise `ConfigurationError` with
    every problem, each as ``file:line: path: what to do``.
    """
    return load(text, source=source, environment=environment, overlay=overlay, simulator_url=simulator_url).registry


def load(
    text: str,
    *,
    source: str,
    environment: Mapping[str, str],
    overlay: Mapping[str, Json] = NO_OVERLAY,
    simulator_url: str | None = None,
) -> Loaded:
    """Do as `parse`, and return the warnings too."""
    findings = Findings(source, registered=frozenset(overlay), settings=frozenset({SETTING}))
    references = References(environment, findings)
    read_tree = read(text, findings)
    if read_tree is None:
        findings.raise_if_any()  # alone: what the rest would be checked against can't be read
    tree = references.resolve(read_tree or {})
    _lay_over(tree, overlay, findings)
    drafted = draft(tree, findings)
    translate(drafted, references, findings)
    crosscheck(drafted, references.missing, findings)
    infrastructure = read_infrastructure(environment, findings)
    if infrastructure is not None and infrastructure.accounts:
        references.values[SETTING] = infrastructure.facts()
        place(drafted, infrastructure, references, findings)
    findings.raise_if_any()
    version = _version(text, overlay, references.values, simulated=simulator_url is not None)
    registry = Assembly(drafted, references.missing, simulator_url).registry(version)
    return Loaded(registry, findings.render(findings.warnings), MappingProxyType(dict(references.values)))


def _lay_over(tree: dict[str, Any], overlay: Mapping[str, Json], findings: Findings) -> None:
    """Put the registered models into the tree.

    They may not reach the environment or name an endpoint: a registration comes over HTTP, and our provider keys go only
    where the operator's file says.
    """
    models = tree.setdefault("models", {}) if overlay else None
    for name, document in overlay.items():
        path = ("models", name)
        if not isinstance(document, Mapping) or _depth(document) > MAX_DEPTH:
            findings.problem(path, "must be a mapping of fields, not nested deeper than a catalog's model")
            continue
        if has_reference(document):
            findings.problem(path, "refers to the environment with `${`; only the catalog's file may")
        deployments = document.get("deployments")
        for index, deployment in enumerate(deployments if isinstance(deployments, list) else ()):
            if isinstance(deployment, Mapping) and "base_url" in deployment:
                message = "is not allowed in a registered model; endpoints stand in the catalog's file, under `providers:`"
                findings.problem((*path, "deployments", index, "base_url"), message)
        if isinstance(models, dict):
            models[name] = document


def _depth(value: object) -> int:
    """Return how deep a JSON value is nested, or a little more than allowed as soon as that is certain."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        depth += 1
        inner = (item.values() if isinstance(item, Mapping) else item for item in level if isinstance(item, Mapping | list))
        level = [item for items in inner for item in items]
    return depth


def _version(text: str, overlay: Mapping[str, Json], values: Mapping[str, str | None], *, simulated: bool) -> str:
    """Return a hash of all that decides the registry, but for credentials and addresses."""
    parts = {"text": text, "overlay": dict(overlay), "references": dict(values), "simulated": simulated}
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:_VERSION_LENGTH]
