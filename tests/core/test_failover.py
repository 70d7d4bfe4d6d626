"""Failover: asks everyone who could answer, in order, within its bounds, and replays exactly."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.failover import Attempt, AttemptFailed, Ended, Event, Outcome, Succeeded, Wait, Waited, failover
from shared.core.failures import CALLERS_FAULT, RULES, Billing, BreakerEffect, Failed, FailureKind, Remedy, Skip
from shared.core.registry import FailoverPolicy
from shared.core.route import Candidate, Route

K = FailureKind
POLICY = FailoverPolicy(deadline=60, max_attempts=6, retries=1, backoff=1, max_backoff=8, max_wait=5)


def candidate(name: str, **facts: object) -> Candidate:
    """A candidate `provider/model`, whose name may carry a copy number: `azure/sol#2`."""
    provider, model = name.partition("#")[0].split("/")
    return replace(Candidate(name, model, provider, ()), **facts)  # type: ignore[arg-type]  # facts are Candidate's fields


@dataclass
class World:
    """A driver for tests: deployments fail as scripted, then answer; every attempt takes `takes` seconds of virtual time."""

    script: dict[str, list[FailureKind | Failed]] = field(default_factory=dict)
    takes: float = 0.1
    billed: int | None = 0
    now: float = 0.0
    steps: list[str] = field(default_factory=list)

    def run(self, *candidates: Candidate, policy: FailoverPolicy = POLICY, cost_cap: int | None = None) -> Outcome:
        """Drive a flow to its end."""
        flow = failover(Route("conversation", candidates), policy, jitter=1.0, cost_cap=cost_cap)
        event: Event | None = None
        while True:
            try:
                step = next(flow) if event is None else flow.send(event)
            except StopIteration as stop:
                outcome: Outcome = stop.value
                return outcome
            event = self._wait(step) if isinstance(step, Wait) else self._attempt(step)

    def _wait(self, step: Wait) -> Event:
        self.steps.append(f"wait {step.seconds:g}")
        self.now += step.seconds
        return Waited(self.now)

    def _attempt(self, step: Attempt) -> Event:
        name = step.candidate.deployment
        self.steps.append(name + ("!" if step.forced else ""))
        script = self.script.get(name, [])
        if not script:
            self.now += self.takes
            return Succeeded(self.now)
        failed = script.pop(0)
        if isinstance(failed, FailureKind):
            failed = Failed(failed, f"{name}: {failed}")
        if failed.kind is not K.NOT_ADMITTED:
            self.now += self.takes
        return AttemptFailed(self.now, failed, self.billed if RULES[failed.kind].billing is Billing.UNKNOWN else 0)


A, B, C = candidate("azure/sol"), candidate("openai/sol"), candidate("anthropic/opus")


def test_every_kind_of_failure_has_a_rule() -> None:
    """A new kind does not pass unnoticed."""
    assert set(FailureKind) == set(RULES)


def test_rules_agree_with_each_other() -> None:
    """The caller's fault never teaches the breaker; what ends the chain isn't asked again; what is retried may be."""
    for kind, rule in RULES.items():
        assert kind not in CALLERS_FAULT or rule.breaker is BreakerEffect.NONE, kind
        assert not (rule.remedy is Remedy.GIVE_UP and rule.again), kind
        assert rule.again or rule.remedy is not Remedy.RETRY, kind
        assert not (rule.again and rule.skip is not Skip.NOTHING), kind


def test_the_first_candidate_that_answers_ends_it() -> None:
    """No second call is made."""
    world = World()
    assert Outcome(Ended.ANSWERED, A, 1) == world.run(A, B)
    assert ["azure/sol"] == world.steps


@pytest.mark.parametrize(
    "kind", [kind for kind, rule in RULES.items() if rule.remedy is Remedy.FALL_BACK and kind is not K.CONTENT_FILTER]
)
def test_any_failure_another_candidate_can_mend_is_mended(kind: FailureKind) -> None:
    """The caller sees an answer."""
    world = World({"azure/sol": [kind]})
    outcome = world.run(A, C)
    assert (Ended.ANSWERED, C) == (outcome.ended, outcome.candidate)
    assert ["azure/sol", "anthropic/opus"] == world.steps


def test_an_empty_answer_is_asked_for_once_more_at_the_same_place() -> None:
    """Then the next candidate has its turn."""
    world = World({"azure/sol": [K.EMPTY_RESPONSE]})
    assert A == world.run(A, B).candidate
    world = World({"azure/sol": [K.EMPTY_RESPONSE, K.EMPTY_RESPONSE]})
    assert B == world.run(A, B).candidate
    assert ["azure/sol", "azure/sol", "openai/sol"] == world.steps


def test_an_empty_answer_is_asked_for_at_once_only_once() -> None:
    """However patient the policy: each empty answer may be billed, and what passes at once has passed by then."""
    world = World({"azure/sol": [K.EMPTY_RESPONSE] * 3})
    assert Ended.ANSWERED == world.run(A, policy=replace(POLICY, retries=9, max_wait=60)).ended
    assert ["azure/sol", "azure/sol", "wait 2", "azure/sol", "wait 4", "azure/sol"] == world.steps


def test_a_lone_candidate_is_asked_again_after_a_pause() -> None:
    """With nobody to fall back to, what may pass is waited for, doubling."""
    world = World({"azure/sol": [K.SERVER_ERROR, K.SERVER_ERROR]})
    outcome = world.run(A, policy=replace(POLICY, retries=2))
    assert (Ended.ANSWERED, 3) == (outcome.ended, outcome.attempts)
    assert ["azure/sol", "wait 1", "azure/sol", "wait 2", "azure/sol"] == world.steps


def test_everybody_is_asked_before_anybody_is_asked_twice() -> None:
    """Breadth first."""
    world = World({name: [K.SERVER_ERROR] for name in ("azure/sol", "openai/sol", "anthropic/opus")})
    outcome = world.run(A, B, C)
    assert (Ended.ANSWERED, A, 4) == (outcome.ended, outcome.candidate, outcome.attempts)
    assert ["azure/sol", "openai/sol", "anthropic/opus"] == world.steps[:3]


def test_a_retry_waits_as_long_as_the_provider_asks() -> None:
    """Retry-After beats the back-off, and the soonest is asked first."""
    world = World(
        {"azure/sol": [Failed(K.RATE_LIMITED, "", retry_after=4)], "openai/sol": [Failed(K.RATE_LIMITED, "", retry_after=2)]}
    )
    assert B == world.run(A, B).candidate
    assert ["azure/sol", "openai/sol", "wait 2", "openai/sol"] == world.steps


def test_a_wait_that_is_too_long_ends_it_with_the_soonest_time_to_come_back() -> None:
    """The caller is told instead of held."""
    world = World(
        {"azure/sol": [Failed(K.RATE_LIMITED, "", retry_after=40)], "openai/sol": [Failed(K.RATE_LIMITED, "", retry_after=30)]}
    )
    outcome = world.run(A, B)
    assert Ended.TOO_LONG_A_WAIT is outcome.ended
    assert pytest.approx(30) == outcome.retry_after


def test_waits_add_up_against_the_limit() -> None:
    """Many short waits are a long one."""
    world = World({"azure/sol": [Failed(K.RATE_LIMITED, "", retry_after=3)] * 5})
    outcome = world.run(A, policy=replace(POLICY, retries=5))
    assert Ended.TOO_LONG_A_WAIT is outcome.ended
    assert 1 == sum(step.startswith("wait") for step in world.steps)


def test_a_candidate_that_is_cooling_down_is_waited_for_only_when_nobody_else_is_left() -> None:
    """The route's first may be pausing: others go first, and if it is short it is waited for."""
    cooling = replace(A, not_before=3.0)
    world = World()
    assert B == world.run(cooling, B).candidate
    world = World()
    assert cooling == world.run(cooling).candidate
    assert ["wait 3", "azure/sol"] == world.steps
    world = World()
    outcome = world.run(replace(A, not_before=100.0))
    assert (Ended.TOO_LONG_A_WAIT, 0, 100.0) == (outcome.ended, outcome.attempts, outcome.retry_after)


def test_an_open_breaker_is_overridden_as_a_last_resort_before_anything_is_waited_for() -> None:
    """An error would be certain, a call may work."""
    broken = replace(A, last_resort=True, not_before=12.0)
    world = World({"openai/sol": [K.SERVER_ERROR]})
    assert broken == world.run(broken, B).candidate
    assert ["openai/sol", "azure/sol!"] == world.steps


def test_a_refused_admission_is_no_attempt_and_loses_nothing() -> None:
    """Whoever is refused comes back: as a last resort, or when it said."""
    world = World({"azure/sol": [K.NOT_ADMITTED]})
    outcome = world.run(A)
    assert (Ended.ANSWERED, 1, ()) == (outcome.ended, outcome.attempts, outcome.failures)
    assert ["azure/sol", "azure/sol!"] == world.steps
    world = World({"azure/sol": [Failed(K.NOT_ADMITTED, "", retry_after=2)]})
    assert A == world.run(A).candidate
    assert ["azure/sol", "wait 2", "azure/sol"] == world.steps


def test_whoever_keeps_refusing_admission_does_not_make_it_spin() -> None:
    """One that refuses even as a last resort is left out; one that says "now" is given a moment each time, within the bound."""
    world = World({"azure/sol": [K.NOT_ADMITTED] * 1000})
    assert Ended.NOBODY_LEFT is world.run(A).ended
    assert ["azure/sol", "azure/sol!"] == world.steps
    world = World({"azure/sol": [Failed(K.NOT_ADMITTED, "", retry_after=0)] * 10_000})
    assert Ended.TOO_LONG_A_WAIT is world.run(A).ended
    assert len(world.steps) < 600


@pytest.mark.parametrize(
    ("kind", "pointless"),
    [
        (K.INVALID_REQUEST, "openai/sol"),
        (K.UNAUTHORIZED, "azure/luna"),
        (K.GONE, "azure/luna"),
        (K.QUOTA_EXHAUSTED, "azure/luna"),
        (K.TLS, "azure/sol"),
        (K.DEPLOYMENT_NOT_FOUND, "azure/sol"),
    ],
)
def test_a_failure_rules_out_those_that_would_fail_alike(kind: FailureKind, pointless: str) -> None:
    """The same model refuses the same request; the same credentials are refused again; a missing deployment stays missing."""
    world = World({"azure/sol": [kind]})
    assert C == world.run(A, candidate(pointless), C).candidate
    assert ["azure/sol", "anthropic/opus"] == world.steps


def test_a_context_that_is_too_long_goes_to_larger_windows_only() -> None:
    """A smaller or equal one would fail too; an unknown one may do."""
    small = replace(A, context_window=8000)
    world = World({"azure/sol": [K.CONTEXT_LENGTH]})
    large = candidate("openai/terra", context_window=9000)
    assert large == world.run(small, candidate("openai/luna", context_window=8000), large).candidate
    world = World({"azure/sol": [K.CONTEXT_LENGTH]})
    outcome = world.run(small, candidate("openai/luna", context_window=4000))
    assert (Ended.NOBODY_LEFT, [K.CONTEXT_LENGTH]) == (outcome.ended, [failed.kind for failed in outcome.failures])
    world = World({"azure/sol": [K.CONTEXT_LENGTH]})
    assert Ended.ANSWERED is world.run(small, candidate("vllm/mine")).ended


def test_a_content_filter_is_final_unless_the_policy_permits_another_vendor() -> None:
    """And then never the same vendor."""
    world = World({"azure/sol": [K.CONTENT_FILTER]})
    assert Ended.GAVE_UP is world.run(A, C).ended
    world = World({"azure/sol": [K.CONTENT_FILTER]})
    permitted = replace(POLICY, content_filter_fallback=True)
    assert C == world.run(A, candidate("azure/luna"), C, policy=permitted).candidate


def test_a_failure_nobody_can_mend_ends_it() -> None:
    """A cut stream or a dead client."""
    for kind in (K.INTERRUPTED, K.CANCELLED):
        world = World({"azure/sol": [kind]})
        assert Ended.GAVE_UP is world.run(A, B).ended
        assert 1 == len(world.steps)


def test_the_attempt_cap_bounds_the_whole_chain() -> None:
    """However many candidates there are."""
    many = [candidate(f"p{n}/m{n}") for n in range(20)]
    world = World({one.deployment: [K.SERVER_ERROR] for one in many})
    outcome = world.run(*many)
    assert (Ended.ATTEMPT_CAP, 6, 6) == (outcome.ended, outcome.attempts, len(outcome.failures))


def test_the_deadline_bounds_the_whole_chain() -> None:
    """Time spent anywhere counts, and each attempt is told what is left."""
    world = World({"azure/sol": [K.TIMEOUT], "openai/sol": [K.TIMEOUT]}, takes=35)
    outcome = world.run(A, B, C)
    assert (Ended.DEADLINE, 2) == (outcome.ended, outcome.attempts)
    flow = failover(Route("", (A, B)), POLICY)
    assert 60 == next(flow).remaining  # type: ignore[union-attr]  # the first step is an Attempt
    step = flow.send(AttemptFailed(25, Failed(K.TIMEOUT, "")))
    assert isinstance(step, Attempt)
    assert (35, 2) == (step.remaining, step.number)


def test_the_cost_cap_counts_what_may_have_been_billed() -> None:
    """A timed-out attempt may have cost; one that is free leaves the cap untouched; an unknown price never fits."""
    dear = [replace(one, worst_cost=60) for one in (A, B, C)]
    world = World({"azure/sol": [K.TIMEOUT]}, billed=50)
    assert (Ended.COST_CAP, 1) == ((out := world.run(*dear, cost_cap=100)).ended, out.attempts)
    world = World({"azure/sol": [K.SERVER_ERROR]}, billed=50)
    assert Ended.ANSWERED is world.run(*dear, cost_cap=100).ended
    world = World({"azure/sol": [K.TIMEOUT]}, billed=None)
    assert Ended.COST_CAP is world.run(*dear, cost_cap=100).ended
    assert Ended.COST_CAP is World().run(A, cost_cap=100).ended
    cheap = replace(C, worst_cost=10)
    assert cheap == World().run(replace(A, worst_cost=101), cheap, cost_cap=100).candidate


def test_nobody_to_ask_ends_it_at_once() -> None:
    """An empty route is no loop."""
    assert Outcome(Ended.NOBODY_LEFT) == World().run()


def test_an_impossible_event_is_a_defect_not_a_loop() -> None:
    """A driver that answers an attempt with Waited is told."""
    flow = failover(Route("", (A,)), POLICY)
    next(flow)
    with pytest.raises(TypeError):
        flow.send(Waited(1))


kinds = st.sampled_from([kind for kind in FailureKind if kind is not K.CANCELLED])
failures = st.builds(Failed, kinds, st.just(""), retry_after=st.none() | st.floats(0, 100))
names = [f"{provider}/{model}" for provider in ("a", "b", "c") for model in ("m", "n")]
scripts = st.dictionaries(st.sampled_from(names), st.lists(failures, max_size=5))
routes = st.lists(
    st.builds(
        lambda name, late, last: candidate(name, not_before=late, last_resort=last),
        st.sampled_from(names),
        st.sampled_from([0.0, 0.0, 3.0, 50.0]),
        st.booleans(),
    ),
    unique_by=lambda one: one.deployment,
    max_size=6,
)


@settings(max_examples=80)
@given(scripts, routes, st.sampled_from([0.01, 5.0, 30.0]))
def test_any_script_ends_within_its_bounds_and_replays_exactly(
    script: dict[str, list[Failed]], route: list[Candidate], takes: float
) -> None:
    """No script makes it loop, pass a bound, or decide differently the second time."""

    def play() -> tuple[World, Outcome]:
        world = World({name: list(steps) for name, steps in script.items()}, takes=takes)
        return world, world.run(*route)

    (first, outcome), (second, again) = play(), play()
    assert (first.steps, outcome) == (second.steps, again)
    assert outcome.attempts <= POLICY.max_attempts
    assert first.now < POLICY.deadline + takes
    waited = sum(float(step.split()[1]) for step in first.steps if step.startswith("wait"))
    assert waited <= POLICY.max_wait + 1e-9
    if outcome.ended is Ended.ANSWERED:
        assert outcome.attempts == len(outcome.failures) + 1


@settings(max_examples=80)
@given(scripts, routes)
def test_a_healthy_candidate_is_always_found(script: dict[str, list[Failed]], route: list[Candidate]) -> None:
    """The first promise: if one candidate would answer and no failure was final, the caller gets an answer."""
    healthy = candidate("z/healthy", context_window=None)
    world = World({name: list(steps) for name, steps in script.items()}, takes=0.01)
    outcome = world.run(*route, healthy, policy=replace(POLICY, max_attempts=100, content_filter_fallback=True))
    final = any(RULES[failed.kind].remedy is Remedy.GIVE_UP for failed in outcome.failures)
    assert final or outcome.ended is Ended.ANSWERED
