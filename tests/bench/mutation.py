"""Plant faults in the core, one at a time, and see that its tests catch each.

    python -m tests.bench.mutation

Works on a copy of the tree. Prints a line per fault and exits non-zero when one survives or no longer applies.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Fault:
    """One change of one place: what it breaks, and the text it replaces."""

    module: str
    breaks: str
    old: str
    new: str


FAULTS = (
    Fault(
        "failover",
        "retry after a refused request",
        "self.entries = [other for other in self.entries if not",
        "_ = [other for other in self.entries if not",
    ),
    Fault(
        "failover",
        "attempt cap off by one",
        "self.attempts >= self.policy.max_attempts",
        "self.attempts > self.policy.max_attempts",
    ),
    Fault("failover", "deadline ignored", "if self.now >= self.policy.deadline:", "if self.now >= self.policy.deadline * 9:"),
    Fault("failover", "Retry-After ignored", "failed.retry_after or 0.0)", "0.0)"),
    Fault("failover", "cost of failed attempts forgotten", "self.spent += event.billed", "self.spent += 0 * event.billed"),
    Fault("failover", "unknown price fits the cost cap", "return worst is None or", "return worst is not None and"),
    Fault("failover", "waits don't add up", "chain.waited += pause", "chain.waited = pause"),
    Fault("failover", "open breakers go first", "return (2, 0.0, entry.place)", "return (0, 0.0, entry.place)"),
    Fault(
        "failover",
        "content filter always falls back",
        "and not self.policy.content_filter_fallback",
        "and self.policy.content_filter_fallback is None",
    ),
    Fault(
        "failover",
        "a refused admission counts as an attempt",
        "if failed.kind is FailureKind.NOT_ADMITTED:",
        "if failed.kind is FailureKind.CANCELLED:",
    ),
    Fault(
        "failures",
        "server errors give up",
        "FailureKind.SERVER_ERROR: Rule(Remedy.FALL_BACK",
        "FailureKind.SERVER_ERROR: Rule(Remedy.GIVE_UP",
    ),
    Fault(
        "failures",
        "a caller's mistake opens the breaker",
        "Remedy.FALL_BACK, Skip.MODEL, BreakerEffect.NONE",
        "Remedy.FALL_BACK, Skip.MODEL, BreakerEffect.FAILURE",
    ),
    Fault("breaker", "opens one failure late", "consecutive: int = 3", "consecutive: int = 4"),
    Fault(
        "breaker",
        "a pause is shortened",
        "until = max(breaker.open_until if breaker.cooling else 0.0, now + pause)",
        "until = now + pause",
    ),
    Fault("breaker", "old successes close it", "if breaker.cooling or started_at < breaker.opened_at:", "if breaker.cooling:"),
    Fault("breaker", "many probes at once", "lease_until=now + policy.lease)", "lease_until=now)"),
    Fault("breaker", "cooldown never grows", "policy.cooldown * 2.0 ** min(breaker.openings, 20)", "policy.cooldown"),
    Fault("breaker", "a lease is never given back", "return replace(breaker, lease_until=0.0) if", "return breaker if"),
    Fault(
        "breaker", "half failing is fine", "sum(outcomes) >= policy.failure_share", "sum(outcomes) >= 2 * policy.failure_share"
    ),
    Fault("pricing", "rounds down", "-(-units // _UNITS_PER_NANO)", "units // _UNITS_PER_NANO"),
    Fault(
        "pricing",
        "cache reads counted twice",
        "plain_input=usage.input_tokens - cached - written",
        "plain_input=usage.input_tokens - written",
    ),
    Fault(
        "pricing",
        "tier starts at its threshold",
        "if input_tokens > tier.above_input_tokens >= reached",
        "if input_tokens >= tier.above_input_tokens >= reached",
    ),
    Fault(
        "pricing",
        "an unlisted service tier is free",
        "if special is None or rates is price.rates:\n        return special",
        "if special is None or rates is price.rates:\n        return special or rates",
    ),
    Fault("pricing", "tomorrow's price holds today", "if price.effective_from <= day and", "if"),
    Fault("pricing", "worst case forgets service tiers", "for tier in (None, *price.service_tiers))", "for tier in (None,))"),
    Fault("router", "health has no say", "return (1 if state.cooling else 2, state.admits_in)", "return (0, 0.0)"),
    Fault("router", "open breakers are no last resort", "last_resort = not_before > 0 and", "last_resort = False and"),
    Fault("router", "who is beyond the limit is forgotten", "draft.dropped += [", "_ = ["),
    Fault(
        "router", "one draw decides nothing", "        draw=draw,\n        objective=", "        draw=0.0,\n        objective="
    ),
    Fault("ranking", "reserved capacity for everybody", "priority is Priority.HIGH", "priority is not Priority.HIGH"),
    Fault("ranking", "weights are ignored", "shares.append(fact.deployment.weight *", "shares.append("),
    Fault("fitness", "a key may use any model", "if demands.allowed is None or", "if True or"),
    Fault("fitness", "missing capabilities are overlooked", "if needed <= fact.capabilities:", "if needed or not needed:"),
    Fault("fitness", "fields a provider refuses are sent", "if fact.refuses.isdisjoint(sent):", "if fact.refuses is not sent:"),
    Fault("experiments", "weights are ignored", "return -arm.weight / log(uniform)", "return -1 / log(uniform)"),
    Fault("experiments", "everybody gets the same arm", "(experiment, arm.name, subject)", "(experiment, arm.name)"),
)


def main() -> int:
    """Try every fault; return the exit code."""
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT / "shared", tree / "shared", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        shutil.copytree(ROOT / "catalog", tree / "catalog")
        shutil.copytree(ROOT / "local", tree / "local", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        if not _passes(tree):
            print("The tests fail without any fault.")
            return 1
        for fault in FAULTS:
            path = tree / "shared" / "core" / f"{fault.module}.py"
            sound = path.read_text(encoding="utf-8")
            if fault.old not in sound:
                verdict = "DOES NOT APPLY"
            else:
                path.write_text(sound.replace(fault.old, fault.new), encoding="utf-8")
                began = time.monotonic()
                verdict = "SURVIVED" if _passes(tree) else f"caught in {time.monotonic() - began:.1f} s"
                path.write_text(sound, encoding="utf-8")
            survived += not verdict.startswith("caught")
            print(f"{fault.module:<10} {fault.breaks:<45} {verdict}", flush=True)
    print(f"{len(FAULTS) - survived} of {len(FAULTS)} faults caught")
    return 1 if survived else 0


def _passes(tree: Path) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "tests/core"]
    return subprocess.run(command, cwd=tree, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
