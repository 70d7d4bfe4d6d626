"""A/B assignment: sticky, in proportion to the weights, and moving as few subjects as it can."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.experiments import assign
from shared.core.registry import Arm, Experiment

SUBJECTS = [f"user-{number}" for number in range(2_000)]


def experiment(**weights: int) -> Experiment:
    """An experiment with these arms."""
    return Experiment("x", tuple(Arm(name, name, weight) for name, weight in weights.items()))


def arms_of(tested: Experiment) -> dict[str, str]:
    """Each subject's arm."""
    return {subject: assign(tested, subject).name for subject in SUBJECTS}


def test_shares_are_the_weights() -> None:
    """Within what chance allows: five standard deviations."""
    counts = Counter(arms_of(experiment(a=1, b=3, c=6)).values())
    for name, share in (("a", 0.1), ("b", 0.3), ("c", 0.6)):
        assert len(SUBJECTS) * share == pytest.approx(counts[name], abs=5 * (len(SUBJECTS) * share * (1 - share)) ** 0.5)


def test_an_arm_without_weight_gets_nobody() -> None:
    """Unless none has any: then everybody gets the first."""
    assert {"b"} == set(arms_of(experiment(a=0, b=1)).values())
    assert {"a"} == set(arms_of(experiment(a=0, b=0)).values())


def test_an_experiment_without_arms_is_a_mistake() -> None:
    """It has nobody to assign."""
    with pytest.raises(ValueError, match="no arms"):
        assign(Experiment("x", ()), "user")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=20))
def test_a_subject_sticks(subject: str) -> None:
    """The order of the arms in the catalog plays no part."""
    tested = experiment(a=1, b=2, c=3)
    assert assign(tested, subject) == assign(replace(tested, arms=tested.arms[::-1]), subject)


def test_the_assignment_is_the_same_on_every_instance_and_in_every_release() -> None:
    """These were assigned once: a change here would move the subjects of every running experiment."""
    tested = experiment(a=1, b=1)
    assert "abbabaabababaaba" == "".join(assign(tested, subject).name for subject in SUBJECTS[:16])


@pytest.mark.parametrize("weight", [0, 1, 5, 50])
def test_changing_one_weight_moves_subjects_only_into_or_out_of_that_arm(weight: int) -> None:
    """And only one way: into it when it grows, out of it when it shrinks."""
    before, after = arms_of(experiment(a=2, b=4, c=6)), arms_of(experiment(a=2, b=weight, c=6))
    for subject, arm in before.items():
        if arm != after[subject]:
            assert "b" == (after[subject] if weight > 4 else arm)


def test_two_experiments_are_independent() -> None:
    """Half of those in one's arm are in the other's."""
    one, two = experiment(a=1, b=1), replace(experiment(a=1, b=1), name="y")
    same = sum(assign(one, subject) == assign(two, subject) for subject in SUBJECTS)
    assert len(SUBJECTS) / 2 == pytest.approx(same, abs=120)
