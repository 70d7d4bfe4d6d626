"""Sticky A/B assignment: the same subject gets the same arm of an experiment, on every instance, with nothing stored.

Weighted rendezvous hashing: each arm gets a score from its weight and the hash of experiment, arm and subject, and the highest
wins. Changing one arm's weight moves subjects only into or out of that arm, never between two others.
"""

from __future__ import annotations

from hashlib import sha256
from math import inf, log
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shared.core.registry import Arm, Experiment

_RANGE: Final = 2.0**64
_SEPARATOR: Final = "\x1f"


def assign(experiment: Experiment, subject: str) -> Arm:
    """Return the subject's arm. Weights are shares; an arm of weight 0 gets nobody, unless all have 0: then the first arm.

    Raise `ValueError` for an experiment without arms.
    """
    if not experiment.arms:
        message = f"experiment {experiment.name} has no arms"
        raise ValueError(message)
    return max(experiment.arms, key=lambda arm: _score(experiment.name, arm, subject))


def _score(experiment: str, arm: Arm, subject: str) -> float:
    text = _SEPARATOR.join((experiment, arm.name, subject))
    digest = sha256(text.encode("utf-8", "surrogatepass")).digest()
    # A uniform number strictly between 0 and 1: -weight / ln(u) makes the odds of winning proportional to the weights.
    uniform = (int.from_bytes(digest[:8], "big") + 0.5) / _RANGE
    if uniform >= 1.0:
        return inf
    return -arm.weight / log(uniform)
