"""Planted faults: the shipped source with one thing wrong, and what notices it.

Each must be noticed by a schedule (`tests.ledger.schedules`): there, what makes it show is certain. How many random worlds it
takes is told too, but depends on every draw of chance in ledger and simulation, so nothing is asked of it.

``python -m tests.ledger.mutants [NAME …] [--seeds 60] [--jobs 2]`` prints a table, and fails when a fault is not noticed. A
fault is a piece of the source and what to put in its place; when the source has changed so that the piece is not in it exactly
once, planting says so.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "shared.ledger",
    *[f"tests.ledger.{name}" for name in ("bench", "invariants", "plan", "schedules", "world")],
)
"""What is imported anew while a fault is planted: the ledger, and what has names from it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One planted fault."""

    name: str
    module: str  # within shared.ledger
    old: str
    new: str

    def plant(self, source: str) -> str:
        """Return the source with the fault in it; raise `ValueError` if its place can't be found."""
        if source.count(self.old) != 1:
            message = f"The fault `{self.name}` does not fit shared/ledger/{self.module}.py any more: mend it in {__name__}."
            raise ValueError(message)
        return source.replace(self.old, self.new)


class _Planted(SourceFileLoader):
    def __init__(self, fault: Fault, name: str, path: str) -> None:
        super().__init__(name, path)
        self._fault = fault

    def get_code(self, fullname: str) -> CodeType:
        """Compile the mutated source, past every cache of bytecode."""
        source = self._fault.plant(Path(self.path).read_text(encoding="utf-8"))
        code: CodeType = compile(source, f"{fullname} with `{self._fault.name}`", "exec", dont_inherit=True)
        return code


class _Finder(MetaPathFinder):
    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._name = f"shared.ledger.{fault.module}"

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002
        """Find the one module that has a fault."""
        if fullname != self._name:
            return None
        file = str(ROOT / "shared" / "ledger" / f"{self._fault.module}.py")
        return importlib.util.spec_from_file_location(fullname, file, loader=_Planted(self._fault, fullname, file))


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """Have whatever is imported within use a ledger with the fault; afterwards everything is as it was."""

    def ours(name: str) -> bool:
        return any(name == package or name.startswith(package + ".") for package in PACKAGES)

    kept = {name: module for name, module in sys.modules.items() if ours(name)}
    finder = _Finder(fault)
    for name in kept:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if ours(name)]:
            del sys.modules[name]
        sys.modules.update(kept)


def noticed(fault: Fault) -> tuple[str, str] | None:
    """Return which schedule notices a fault first, and by what; None if none does."""
    with planted(fault):
        schedules = importlib.import_module("tests.ledger.schedules")
        for name in schedules.SCHEDULES:
            wrong: list[str] = schedules.played(name)
            if wrong:
                return name, wrong[0]
    return None


def caught(fault: Fault, *, seeds: int) -> tuple[int, str] | None:
    """Return after how many random worlds a fault is noticed, and by which violation; None if it is not."""
    with planted(fault):
        world = importlib.import_module("tests.ledger.world")
        for seed in range(seeds):
            violations: list[str] = world.World(seed).run().violations
            if violations:
                return seed + 1, violations[0]
    return None


# ---- the faults ------------------------------------------------------------------------------------------------------

FAULTS = (
    Fault(
        "the fence's ETag is adopted with a foreign token",
        "journal",
        "if found is None or found.token != token:",
        "if found is None:",
    ),
    Fault(
        "an unanswered journal write is taken as landed",
        "journal",
        """                failures += 1
                await self._clock.sleep(self._policy.backoff(failures, self._clock.draw()))
                continue
            self._etag = etag""",
        """                return True
            self._etag = etag""",
    ),
    Fault(
        "an unanswered journal write is taken as lost",
        "journal",
        """                failures += 1
                await self._clock.sleep(self._policy.backoff(failures, self._clock.draw()))
                continue
            self._etag = etag""",
        """                return False
            self._etag = etag""",
    ),
    Fault(
        "a journal write is sent again with another token",
        "journal",
        """                failures += 1
                await self._clock.sleep(self._policy.backoff(failures, self._clock.draw()))
                continue
            self._etag = etag""",
        """                failures += 1
                await self._clock.sleep(self._policy.backoff(failures, self._clock.draw()))
                token = f"{self.session}.{next(self._tokens)}"
                fence = rows.Fence(state, token, self._clock.now(), self._instance, self._usage_until(), self._etag)
                ops[0] = Op(ops[0].action, fence.entity(self.session))
                continue
            self._etag = etag""",
    ),
    Fault(
        "a lost session does not tell what waits",
        "journal",
        """        queue, self._queue = self._queue, {}
        _tell(queue, landed=False)""",
        "        return",
    ),
    Fault(
        "nobody waits for the intent write",
        "book",
        "landed = await session.journal.written(row.row)",
        "landed = True",
    ),
    Fault(
        "an intent that may have landed is dropped, not voided",
        "book",
        """            if session.journal.withdraw(row.row):
                self._drop(hold)
            else:
                self.void(hold)""",
        """            session.journal.withdraw(row.row)
            self._drop(hold)""",
    ),
    Fault(
        "a late settlement is forgotten",
        "book",
        """        if session.lost:
            self._late.append(late)
            return
        leases""",
        """        if session.lost:
            return
        leases""",
    ),
    Fault(
        "one of several accounts is ignored",
        "session",
        """        for lease in self.leases:
            lease.take(amount)
        return self._end()""",
        """        for lease in self.leases[:1]:
            lease.take(amount)
        return self._end()""",
    ),
    Fault(
        "a lost session closes its leases",
        "session",
        "return self.draining and not self.lost and not",
        "return self.draining and not",
    ),
    Fault(
        "a lease is opened before its marker has landed",
        "session",
        "if lease.marked or await self.journal.written(rows.marker_row(lease.key)):",
        "if True:",
    ),
    Fault(
        "a lease is closed twice",
        "leases",
        "        self.closed = move.closing\n",
        "",
    ),
    Fault(
        "a cancelled move is forgotten",
        "leases",
        """        self._unanswered = _Move(ops, token, after, delta, used, closing)
        return await self._answered(self._unanswered)""",
        "        return await self._answered(_Move(ops, token, after, delta, used, closing))",
    ),
    Fault(
        "a lease takes more than is left",
        "leases",
        """        if left < short:
            return left if 0 < least_short <= left else None
""",
        "        left = max(left, short)\n",
    ),
    Fault(
        "what is held may be promised again",
        "leases",
        "return self.granted - self.used - self.held",
        "return self.granted - self.used",
    ),
    Fault(
        "money freed by a settlement is given back before it has landed",
        "leases",
        "self.granted - promised - self.unsettled - keep",
        "self.granted - promised - keep",
    ),
    Fault(
        "money freed and promised again counts twice",
        "leases",
        """        if self.granted < promised:""",
        """        promised += self.unsettled
        if self.granted < promised:""",
    ),
    Fault(
        "folding does not lower what is reserved",
        "leases",
        "reserved=head.reserved + delta - (used - self.folded)",
        "reserved=head.reserved + delta",
    ),
    Fault(
        "the head is overwritten whatever it says",
        "leases",
        "Op(Action.REPLACE if head.etag else Action.INSERT, after.entity(self.key))",
        "Op(Action.UPSERT, after.entity(self.key))",
    ),
    Fault(
        "an unanswered move is asked anew with other content",
        "leases",
        """            except StorageUnavailableError:
                failures += 1
                await self._clock.sleep(self._policy.backoff(failures, self._clock.draw()))

    async def _after_conflict""",
        """            except StorageUnavailableError:
                return None

    async def _after_conflict""",
    ),
    Fault(
        "recovery does not write the fence",
        "recovery",
        "return replace(fenced, etag=await self._table.replace(fenced.entity(session)))",
        "return fenced",
    ),
    Fault(
        "recovery writes no fence where there is none",
        "recovery",
        "return replace(fence, etag=await self._table.insert(fence.entity(session)))",
        "return fence",
    ),
    Fault(
        "recovery releases what is pending",
        "recovery",
        "state=rows.IntentState.CHARGED, charged=intent.estimate)",
        "state=rows.IntentState.CHARGED, charged=0)",
    ),
    Fault(
        "recovery does not count what it charged",
        "recovery",
        "                    totals[account] += intent.charged",
        "                    totals[account] += intent.charged if intent.state is rows.IntentState.DONE else 0",
    ),
    Fault(
        "recovery forgets what was reserved",
        "recovery",
        "reserved=head.reserved - (lease.granted - lease.folded),",
        "reserved=head.reserved,",
    ),
    Fault(
        "recovery closes a closed lease",
        "recovery",
        """            if lease.closed:
                return
""",
        "",
    ),
    Fault(
        "recovery leaves no tombstone for a marked lease that is not there",
        "recovery",
        """            if lease.closed:
                return
""",
        """            if lease.closed or (stored is None and not total):
                return
""",
    ),
    Fault(
        "recovery looks only at accounts that have rows",
        "recovery",
        "for account in sorted(left.accounts | set(totals)):",
        "for account in sorted(totals):",
    ),
    Fault(
        "a correction is written as often as it is tried",
        "corrections",
        """        known = await table.get(partition, row)
        if known is not None:
            return rows.correction(known)
        found = await table.get(partition, rows.HEAD)
        head = rows.Head(0) if found is None else rows.head(found)
        after = replace(head, spent=head.spent + delta)
        ops = [
            Op(Action.INSERT, Entity""",
        """        found = await table.get(partition, rows.HEAD)
        head = rows.Head(0) if found is None else rows.head(found)
        after = replace(head, spent=head.spent + delta)
        ops = [
            Op(Action.UPSERT, Entity""",
    ),
    Fault(
        "what was settled in time is corrected too",
        "corrections",
        "    if stored.state is rows.IntentState.CHARGED:\n        delta = late.intent.charged - stored.charged",
        "    if stored.state is not rows.IntentState.PENDING:\n        delta = late.intent.charged - stored.estimate",
    ),
    Fault(
        "a session is closed before its usage is written",
        "book",
        "return session.finished and (self._usage_until is None or not session.unwritten)",
        "return session.finished",
    ),
    Fault(
        "usage counts as written when it is taken",
        "book",
        "            self._ended.append((self._clock.now(), request_id))",
        "            self._open.pop(request_id)",
    ),
    Fault(
        "recovery hands on the usage only of what it charged",
        "recovery",
        "if intent.state is rows.IntentState.CHARGED or intent.at >= usage_until - USAGE_MARGIN",
        "if intent.state is rows.IntentState.CHARGED",
    ),
    Fault(
        "an attempt may end twice",
        "book",
        """        if hold.ended:
            return
        hold.ended = True
        charged""",
        """        hold.ended = True
        charged""",
    ),
    Fault(
        "what is freed piles up where calls come",
        "session",
        "else lease.standby if unused else lease.needed",
        "else lease.standby if unused else lease.available",
    ),
    Fault(
        "nobody hears of a changed limit",
        "session",
        "            lease.account = account  # the limit was changed, or the budget turned from soft to hard",
        "            pass",
    ),
)


def _try(task: tuple[Fault, int]) -> tuple[Fault, tuple[str, str] | None, tuple[int, str] | None, float]:
    fault, seeds = task
    began = time.process_time()
    return fault, noticed(fault), caught(fault, seeds=seeds), time.process_time() - began


def main() -> int:
    """Plant each fault and print what came of it; return how many no schedule noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; all when there are none")
    parser.add_argument("--seeds", type=int, default=60, help="random worlds to try")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if not options.names or any(part in fault.name for part in options.names)]
    missed = 0
    print(f"{'fault':<66} {'random worlds':>14} {'CPU':>8}  schedule: what it says")
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for fault, schedule, world, seconds in pool.imap(_try, [(fault, options.seeds) for fault in chosen], chunksize=1):
            missed += schedule is None
            worlds = f"after {world[0]}" if world else f"not in {options.seeds}"
            why = f"{schedule[0]}: {schedule[1]}" if schedule else "NOT NOTICED"
            print(f"{fault.name:<66} {worlds:>14} {seconds:6.1f} s  {why[:120]}", flush=True)
    print(f"{len(chosen)} planted faults, {missed} of them not noticed")
    return missed


if __name__ == "__main__":
    sys.exit(main())
