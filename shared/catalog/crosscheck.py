"""What must hold between the entries of a catalog: every name means something, and only one thing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final

from shared.catalog.findings import suggestion
from shared.core.chat import AUTO, TASKS, Capability
from shared.core.registry import MAX_ALIAS_DEPTH, Auth, Lifecycle, ProviderKind

if TYPE_CHECKING:
    from shared.catalog.draft import Draft, PlacedDeployment
    from shared.catalog.findings import Findings, Path
    from shared.catalog.schema import ArmEntry, LifecycleEntry, ModelEntry, PriceEntry, ProviderEntry

MissingNames = Mapping[tuple[str | int, ...], tuple[str, ...]]
"""By path: the environment names a credential or an endpoint needs and that are not set."""


KEYLESS: Final = frozenset({Auth.NONE, Auth.ENTRA})
_DEFAULT_AUTH: Final[Mapping[ProviderKind, tuple[Auth, ...]]] = {
    ProviderKind.AZURE_OPENAI: (Auth.API_KEY, Auth.ENTRA),
    ProviderKind.OPENAI_COMPATIBLE: (Auth.BEARER,),
    ProviderKind.ANTHROPIC: (Auth.X_API_KEY,),
}
_OWN_HEADERS: Final = frozenset(
    {"authorization", "api-key", "x-api-key", "host", "content-length", "content-type", "transfer-encoding", "cookie"}
)


def auth_order(entry: ProviderEntry) -> tuple[Auth, ...]:
    """Return the ways a provider may be given its credential, the first one first."""
    return tuple(entry.auth or _DEFAULT_AUTH[entry.kind])


def deployment_id(placed: PlacedDeployment) -> str:
    """Return ``provider/name``; the name is the model's unless the entry gives one."""
    return f"{placed.entry.provider}/{placed.entry.name or placed.model}"


def crosscheck(draft: Draft, missing: MissingNames, findings: Findings) -> None:
    """Note every name that means nothing or two things, and every value that contradicts another."""
    _Checker(draft, missing, findings).check()


@dataclass(frozen=True, slots=True)
class _Checker:
    draft: Draft
    missing: MissingNames
    findings: Findings

    def check(self) -> None:
        for name, provider in self.draft.providers.items():
            self._provider(("providers", name), provider)
        for name, model in self.draft.models.items():
            self._model(("models", name), model)
        self._deployments()
        self._aliases()
        self._rules()
        self._experiments()
        for name, targets in self.draft.fallbacks.items():
            path = ("fallbacks", name)
            self._known([path], [name])
            self._known([(*path, index) for index in range(len(targets))], targets)
        self._mentions()

    def _mentions(self) -> None:
        """Check the names in entries that have other mistakes."""
        mentions = self.draft.mentions
        for path, name in mentions.providers:
            self._known_provider(path, name)
        for path, name in mentions.capabilities:
            self._known_capability(path, name)
        models = [(path, name) for path, name in mentions.models if name != AUTO or path[0] != "experiments"]
        self._known([path for path, _ in models], [name for _, name in models])

    # ---- providers ---------------------------------------------------------------------------------------------------

    def _provider(self, path: Path, entry: ProviderEntry) -> None:
        if entry.base_url is None and (*path, "base_url") not in self.missing:
            self.findings.problem((*path, "base_url"), "is missing; add the provider's address, such as https://host/v1")
        given = entry.api_key is not None or (*path, "api_key") in self.missing
        if not given and not KEYLESS.intersection(auth_order(entry)):
            self.findings.problem((*path, "api_key"), "is missing; write ${NAME} for it, or `auth: none`")
        for header in entry.headers:
            if header.lower() in _OWN_HEADERS:
                self.findings.problem((*path, "headers", header), "is set by the gateway; use `api_key` and `auth`")

    # ---- models ------------------------------------------------------------------------------------------------------

    def _model(self, path: Path, model: ModelEntry) -> None:
        for index, name in enumerate(model.capabilities):
            self._known_capability((*path, "capabilities", index), name)
        window, limit = model.context_window, model.max_output_tokens
        if window is not None and limit is not None and limit > window:
            message = f"is more than the context window of {window}; correct one of them"
            self.findings.problem((*path, "max_output_tokens"), message)
        tasks = TASKS | {rule.task for _, rule in self.draft.rules}
        for index, task in enumerate(model.tasks):
            if task not in tasks:
                near = suggestion(task, sorted(tasks))
                self.findings.warn((*path, "tasks", index), f"no rule and no request knows the task `{task}`{near}")
        self._lifecycle((*path, "lifecycle"), model.lifecycle)

    def _known_capability(self, path: Path, name: str) -> None:
        known = {*Capability, *self.draft.custom_capabilities}
        if name not in known:
            near = suggestion(name, sorted(known))
            message = f"`{name}` is not a known capability{near}; correct it, or list it in `custom_capabilities:`"
            self.findings.problem(path, message)

    def _lifecycle(self, path: Path, lifecycle: LifecycleEntry | None) -> None:
        if lifecycle is None or lifecycle.retires_on is None:
            return
        if lifecycle.source is None:
            self.findings.problem((*path, "source"), "is missing; retirement dates move, so say where it was read")
        self._read_on(path, lifecycle.source, lifecycle.read_on)

    def _read_on(self, path: Path, source: str | None, read_on: date | None) -> None:
        if read_on is None and source not in self.draft.sources:
            message = "is missing; say on which day it was read, or name one of `sources:` as its source"
            self.findings.problem((*path, "read_on"), message)

    # ---- deployments -------------------------------------------------------------------------------------------------

    def _deployments(self) -> None:
        first: dict[str, PlacedDeployment] = {}
        for placed in self.draft.deployments:
            entry = placed.entry
            self._known_provider((*placed.path, "provider"), entry.provider)
            identity = deployment_id(placed)
            if (other := first.setdefault(identity, placed)) is not placed:
                line = self.findings.lines.get(other.path)
                where = f" on line {line}" if line is not None else ""
                message = f"`{identity}` is already a deployment{where}; give this one another `name:`"
                self.findings.problem(placed.path, message)
            self._lifecycle((*placed.path, "lifecycle"), entry.lifecycle)
            if entry.uplift is not None:
                self._read_on((*placed.path, "uplift"), entry.uplift.source, entry.uplift.read_on)
            if placed.model not in self.draft.flat_models:  # those have one price without a date
                self._prices(placed)
        served = {placed.model for placed in self.draft.deployments}
        for name, model in self.draft.models.items():
            retired = model.lifecycle is not None and model.lifecycle.stage is Lifecycle.RETIRED
            if name not in served and not retired:
                self.findings.warn(("models", name), "has no deployment, so no request can reach it")

    def _known_provider(self, path: Path, name: str) -> None:
        known = self.draft.provider_names
        if name not in known and "providers" not in self.draft.unread:
            near = suggestion(name, sorted(known))
            self.findings.problem(path, f"there is no provider `{name}`{near}; describe it under `providers:`")

    def _prices(self, placed: PlacedDeployment) -> None:
        model = self.draft.models.get(placed.model)
        priced_output = model is not None and Capability.CHAT in model.capabilities
        days: set[object] = set()
        for index, price in enumerate(placed.entry.prices):
            path = (*placed.path, "prices", index)
            if price.effective_from in days:
                self.findings.problem((*path, "from"), "two prices start on this day; keep one of them")
            days.add(price.effective_from)
            self._read_on(path, price.source, price.read_on)
            if priced_output:
                self._output(path, price)
            limits = [tier.above_input_tokens for tier in price.tiers]
            if len(set(limits)) < len(limits):
                self.findings.problem((*path, "tiers"), "two tiers start at the same size; keep one of them")

    def _output(self, path: Path, price: PriceEntry) -> None:
        message = "is missing; a chat model charges for output (write 0 if it does not)"
        rates: list[tuple[Path, object]] = [(path, price.output)]
        rates += [((*path, "tiers", index), tier.output) for index, tier in enumerate(price.tiers)]
        rates += [((*path, "service_tiers", name), tier.output) for name, tier in price.service_tiers.items()]
        for place, output in rates:
            if output is None:
                self.findings.problem((*place, "output"), message)

    # ---- aliases -----------------------------------------------------------------------------------------------------

    def _aliases(self) -> None:
        for name in sorted(self.draft.alias_names & self.draft.model_names):
            message = "there is a model of this name, which it would hide; rename one of them"
            registered = name in self.findings.registered
            self.findings.problem(("models" if registered else "aliases", name), message)
        for name, alias in self.draft.aliases.items():
            path = ("aliases", name, "to")
            self._known([path] * len(alias.to), alias.to)
            if (trail := self._circle(name)) is not None:
                message = f"goes round in a circle: {' → '.join(trail)}; point one of them at a model"
                self.findings.problem(path, message)
            elif self._depth(name, {}) > MAX_ALIAS_DEPTH:
                self.findings.problem(path, f"is more than {MAX_ALIAS_DEPTH} aliases away from a model; shorten the way")

    def _circle(self, start: str) -> tuple[str, ...] | None:
        """Return the way from an alias back to itself, breadth first, or None."""
        trails: list[tuple[str, ...]] = [(start,)]
        seen: set[str] = set()
        for trail in trails:
            alias = self.draft.aliases.get(trail[-1])
            for target in alias.to if alias is not None else ():
                if target == start:
                    return (*trail, target)
                if target not in seen:
                    seen.add(target)
                    trails.append((*trail, target))
        return None

    def _depth(self, name: str, known: dict[str, int]) -> int:
        """Return how many aliases lie between a name and its furthest model; circles, told elsewhere, end the way."""
        alias = self.draft.aliases.get(name)
        if alias is None:
            return 0
        if name not in known:
            known[name] = 0  # what a circle finds when it comes back here
            known[name] = 1 + max((self._depth(target, known) for target in alias.to), default=0)
        return known[name]

    # ---- routing -----------------------------------------------------------------------------------------------------

    def _rules(self) -> None:
        seen: set[str] = set()
        for path, rule in self.draft.rules:
            if rule.task in seen:
                self.findings.problem((*path, "task"), f"`{rule.task}` already has a rule; keep one of them")
            seen.add(rule.task)
            for name in ("preferred_models", "fallback_models"):
                models: Sequence[str] = getattr(rule, name)
                self._known([(*path, name, index) for index in range(len(models))], models)

    def _experiments(self) -> None:
        names: set[str] = set()
        for path, experiment in self.draft.experiments:
            if experiment.name in names:
                self.findings.problem((*path, "name"), "another experiment has this name; rename one of them")
            names.add(experiment.name)
            self._arms(path, experiment.arms)
            selected = [name for name in experiment.models if name != AUTO]
            self._known([(*path, "models")] * len(selected), selected)

    def _arms(self, path: Path, arms: Sequence[ArmEntry]) -> None:
        self._known([(*path, "arms", index, "model") for index in range(len(arms))], [arm.model for arm in arms])
        if not sum(arm.weight for arm in arms):
            self.findings.problem((*path, "arms"), "all weights are 0, so nobody can be assigned; give one arm a weight")
        names = [arm.name or arm.model for arm in arms]
        if len(set(names)) < len(names):
            self.findings.problem((*path, "arms"), "two arms have the same name; give them different ones")

    def _known(self, paths: Iterable[Path], names: Sequence[str]) -> None:
        if not self.draft.unread.isdisjoint({"models", "aliases"}):
            return
        known = self.draft.model_names | self.draft.alias_names
        for path, name in zip(paths, names, strict=True):
            if name not in known:
                near = suggestion(name, sorted(known))
                self.findings.problem(path, f"there is no model or alias `{name}`{near}")
