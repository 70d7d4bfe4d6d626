"""plan(): which deployments are asked, in which order, and why; which are not, and why not. A pure function of its arguments.

A request that *names* a model gets that model's deployments; an alias, those of its targets in order; then the models the
catalog lets it fall back to (``policy.fallbacks``). A key that may use none of the models named gets no fallback either.

For ``auto`` come, in order: the caller's ``preferred_models``, the models the task's rule prefers, its fallbacks, and then
every other model the catalog offers to ``auto``, ranked by the objective (the rule's, else the catalog's). A caller who states
an objective has chosen it over the rule's order: then all of these but the preferred ones are ranked together.

An experiment puts its arm's model before all that. It takes part in requests whose original model it lists; one that lists none
takes part in ``auto`` only, because a model named is a promise. Who prefers models is in no experiment.

Within a model see `shared.core.ranking.arranged`. Health has the last word over the whole route: first everybody whose breaker
admits calls, then those whose provider asked for a pause, soonest first, then those whose breaker failures opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from shared.core.bounds import output_bound
from shared.core.chat import AUTO, Objective, Requirements
from shared.core.errors import ModelNotFoundError
from shared.core.experiments import assign
from shared.core.fitness import (
    Check,
    Demands,
    Fact,
    Facts,
    checks_for,
    demands_of,
    expected_cost,
    facts_of,
    models_named,
    stands_for,
    worst_cost,
)
from shared.core.health import HealthSnapshot
from shared.core.ranking import arranged, names_of_task, objective_reason, ranked
from shared.core.refusal import explain, no_candidate_error
from shared.core.registry import Experiment, Registry, RoutingRule
from shared.core.route import Assignment, Candidate, Dropped, Reason, ReasonCode, Route

__all__ = ["no_candidate_error", "output_bound", "plan"]

_LAST_RESORT: Final = Reason(ReasonCode.LAST_RESORT, "its breaker is open: asked when nothing else is left")


@dataclass(frozen=True, slots=True)
class _Group:
    """Models that stand together in a route: in the order given, or ranked by an objective when ``reason`` is None."""

    models: Sequence[str]
    reason: Reason | None


@dataclass(slots=True)
class _Draft:
    """A route being made, within one call of `plan`.

    ``limit`` is how many candidates it may have, ``ready`` how many entries have a breaker that admits calls now. Once those
    are enough, health can bring nobody forward who comes later: the rest is ``beyond``.
    """

    facts: Facts
    demands: Demands
    checks: tuple[Check, ...]
    draw: float
    objective: Objective
    limit: int
    ready: int = 0
    beyond: list[Dropped] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    entries: list[tuple[Fact, Reason | None]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def add(self, group: _Group) -> None:
        """Append a group's usable deployments; note why the others are not."""
        fitting = [found for name in group.models if (found := self._fitting(name))]
        if group.reason is None and len(fitting) > 1:
            task = self.demands.requirements.task
            fitting = ranked(fitting, self.demands, objective=self.objective, task=task)
        known = self.demands.health.deployments
        for found in fitting:
            if self.ready >= self.limit:
                self.beyond += [fact.beyond for fact in found]
                continue
            for fact in arranged(found, self.demands, self.draw):
                self.entries.append((fact, group.reason))
                state = known.get(fact.id)
                self.ready += state is None or state.admits_in <= 0

    def _fitting(self, name: str) -> list[Fact]:
        if name in self.seen:
            return []
        self.seen.add(name)
        facts = self.facts.by_model.get(name, ())
        if not facts:
            known = name in self.facts.registry.models
            detail = f"{name} has no deployment in the catalog" if known else f"the catalog has no model or alias {name}"
            self.dropped.append(Dropped("", name, Reason(ReasonCode.UNAVAILABLE, detail)))
            return []
        fitting = []
        demands, checks = self.demands, self.checks
        for fact in facts:
            for check in checks:
                reason = check(fact, demands)
                if reason is not None:
                    self.dropped.append(Dropped(fact.id, name, reason))
                    break
            else:
                fitting.append(fact)
        return fitting


def plan(
    requirements: Requirements,
    registry: Registry,
    health: HealthSnapshot,
    *,
    day: date,
    draw: float,
    allowed: frozenset[str] | None = None,
) -> Route:
    """Return the route of a request.

    ``day`` decides prices and retirement, ``draw`` (0 up to but not including 1) shares load, ``allowed`` are the model names
    the caller's key may ask for (aliases stand for their models, `auto` for all that the router may choose), None all.
    Raise `ModelNotFoundError` for a model name that stands for nothing.
    """
    named = requirements.model != AUTO
    rule = None if named else _find_rule(registry, requirements.task)
    demands = demands_of(requirements, registry, health, allowed=_models_allowed(requirements.model, registry, allowed))
    draft = _Draft(
        facts=facts_of(registry, day),
        demands=demands,
        checks=checks_for(demands),
        draw=draw,
        objective=_objective(requirements, registry, rule),
        limit=registry.policy.max_candidates,
    )
    assignment = _assignment(requirements, draft.facts, draw)
    if assignment is not None:
        detail = f"arm {assignment.arm} of {assignment.experiment}"
        draft.add(_Group(stands_for(assignment.model, registry), Reason(ReasonCode.EXPERIMENT, detail)))
    for group in _named(requirements.model, demands, registry) if named else _auto(draft, rule):
        draft.add(group)
    candidates = _candidates(draft)
    return Route(
        task=requirements.task,
        candidates=candidates,
        dropped=tuple(draft.dropped),
        registry_version=registry.version,
        objective="" if named else draft.objective.value,
        rule=None if rule is None else rule.task,
        assignment=assignment,
        note=_note(requirements, registry) if candidates else explain(draft.dropped, requirements),
    )


# ---- who is considered -----------------------------------------------------------------------------------------------


def _named(model: str, demands: Demands, registry: Registry) -> Iterable[_Group]:
    first, *others = _resolve(model, registry)
    code = ReasonCode.NAMED if model == first else ReasonCode.ALIASED
    yield _Group((first,), Reason(code, f"the request names {model}"))
    if others:
        yield _Group(others, Reason(ReasonCode.ALIASED, f"{model} stands for it too"))
    if demands.allowed is not None and demands.allowed.isdisjoint((first, *others)):
        return
    fallbacks = registry.policy.fallbacks
    for source in dict.fromkeys((model, first, *others)):
        for name in fallbacks.get(source, ()):
            reason = Reason(ReasonCode.FALLBACK, f"the catalog lets {source} fall back to {name}")
            yield _Group(stands_for(name, registry) or (name,), reason)


def _resolve(model: str, registry: Registry) -> tuple[str, ...]:
    try:
        return registry.resolve(model)
    except ModelNotFoundError as error:
        alias = registry.find_alias(model)
        if alias is None or not alias.note:
            raise
        message = f"The model `{model}` does not exist any more: {alias.note}"
        raise ModelNotFoundError(message, param=error.param, code=error.code) from None


def _auto(draft: _Draft, rule: RoutingRule | None) -> Iterable[_Group]:
    registry, requirements = draft.facts.registry, draft.demands.requirements
    wishes = requirements.preferences
    for name in wishes.preferred_models:
        yield _Group(stands_for(name, registry) or (name,), Reason(ReasonCode.PREFERRED_BY_CALLER, "in preferred_models"))
    pooled: list[str] = []
    if rule is not None:
        for code, names in (
            (ReasonCode.RULE_PREFERRED, rule.preferred_models),
            (ReasonCode.RULE_FALLBACK, rule.fallback_models),
        ):
            models = [model for name in names for model in stands_for(name, registry) or (name,)]
            if wishes.objective is None:
                yield _Group(models, Reason(code, f"the rule for {rule.task}"))
            else:
                pooled += models
    yield _Group([*pooled, *_others(draft, rule, frozenset(pooled))], None)


def _others(draft: _Draft, rule: RoutingRule | None, pooled: frozenset[str]) -> list[str]:
    """Return the models of the operation that nobody named, leaving out those that are not for ``auto``."""
    others: list[str] = []
    closed = rule is not None and not rule.others
    registry = draft.facts.registry
    for name in draft.facts.models[draft.demands.requirements.operation]:
        if name in draft.seen or name in pooled:
            continue
        if registry.models[name].auto and not closed:
            others.append(name)
            continue
        draft.seen.add(name)
        for fact in draft.facts.by_model[name]:
            keeps = f"the rule for {rule.task} keeps to its own models" if closed and rule is not None else ""
            draft.dropped.append(Dropped(fact.id, name, Reason(ReasonCode.NOT_AUTO, keeps)) if keeps else fact.not_auto)
    return others


def _find_rule(registry: Registry, task: str) -> RoutingRule | None:
    for name in names_of_task(task):
        rule = registry.rules.get(name)
        if rule is not None:
            return rule
    return None


def _objective(requirements: Requirements, registry: Registry, rule: RoutingRule | None) -> Objective:
    return requirements.preferences.objective or (rule and rule.objective) or registry.policy.objective


def _models_allowed(model: str, registry: Registry, allowed: frozenset[str] | None) -> frozenset[str] | None:
    """Return the models a key may reach with this request."""
    if allowed is None or (model == AUTO and AUTO in allowed):
        return None
    return models_named(allowed, registry)


def _assignment(requirements: Requirements, facts: Facts, draw: float) -> Assignment | None:
    for experiment in facts.registry.experiments:
        if _takes_part(requirements, experiment, facts):
            # Without a subject nothing can stick: chance assigns, and the draw that is recorded replays it.
            arm = assign(experiment, requirements.subject or repr(draw))
            return Assignment(experiment.name, arm.name, arm.model)
    return None


def _takes_part(requirements: Requirements, experiment: Experiment, facts: Facts) -> bool:
    if not experiment.enabled or not experiment.arms or requirements.preferences.preferred_models:
        return False
    if experiment.tasks and requirements.task not in experiment.tasks:
        return False
    if requirements.model not in (experiment.models or (AUTO,)):
        return False
    able = facts.models[requirements.operation]
    return all(model in able for arm in experiment.arms for model in stands_for(arm.model, facts.registry) or (arm.model,))


# ---- what comes of it ------------------------------------------------------------------------------------------------


def _candidates(draft: _Draft) -> tuple[Candidate, ...]:
    entries = draft.entries if draft.ready == len(draft.entries) else _by_health(draft.entries, draft.demands.health)
    draft.dropped += [fact.beyond for fact, _ in entries[draft.limit :]]
    draft.dropped += draft.beyond
    return tuple(_candidate(fact, reason, draft) for fact, reason in entries[: draft.limit])


def _by_health(entries: list[tuple[Fact, Reason | None]], health: HealthSnapshot) -> list[tuple[Fact, Reason | None]]:
    known = health.deployments

    def key(entry: tuple[Fact, Reason | None]) -> tuple[int, float]:
        state = known.get(entry[0].id)
        if state is None or state.admits_in <= 0:
            return (0, 0.0)
        return (1 if state.cooling else 2, state.admits_in)

    return sorted(entries, key=key)


def _candidate(fact: Fact, reason: Reason | None, draft: _Draft) -> Candidate:
    demands = draft.demands
    reasons = [reason or objective_reason(fact, demands, draft.objective)]
    if len(draft.facts.by_model[fact.model.name]) > 1:
        reasons.append(fact.standing)
    state = demands.health.deployments.get(fact.id)
    not_before = 0.0 if state is None else max(0.0, state.admits_in)
    last_resort = not_before > 0 and state is not None and not state.cooling
    if last_resort:
        reasons.append(_LAST_RESORT)
    return Candidate(
        deployment=fact.id,
        model=fact.model.name,
        provider=fact.provider.name,
        reasons=tuple(reasons),
        worst_cost=worst_cost(fact, demands),
        expected_cost=expected_cost(fact, demands),
        context_window=fact.model.context_window,
        not_before=not_before,
        last_resort=last_resort,
    )


def _note(requirements: Requirements, registry: Registry) -> str:
    """Return what the caller should know although there is an answer: that the name it uses is retired."""
    alias = registry.find_alias(requirements.model)
    if alias is None or not alias.retired:
        return ""
    return f"{alias.name} is retired. {alias.note}".strip()
