"""How often the classifier is right on labelled prompts: accuracy by label, and what is taken for what.

    python tests/bench/classifier_report.py PATH [--misses LABEL]

PATH is a JSONL file (gzipped or not) of rows with ``label``, ``accept`` (labels that are right too) and ``prompt``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from shared.core.classifier import classify

LABELS: Final = {
    "code": "code-generation",
    "creative": "creative-writing",
    "qa": "question-answering",
    **{name: name for name in ("summarization", "conversation", "reasoning", "extraction", "classification", "translation")},
}
"""The file's labels as Switchyard's tasks."""


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in content.splitlines()]


def report(rows: list[dict[str, Any]], misses: str | None) -> None:
    """Print the accuracy by label and the confusion table."""
    confusion: dict[str, Counter[str]] = {label: Counter() for label in LABELS}
    right: Counter[str] = Counter()
    began = time.perf_counter()
    for row in rows:
        found = classify(row["prompt"])
        confusion[row["label"]][found.task] += 1
        if found.task in {LABELS[label] for label in row["accept"]}:
            right[row["label"]] += 1
        elif misses == row["label"]:
            print(f"{found.task:20} {found.rules} {row['prompt'][:150]!r}")
    seconds = time.perf_counter() - began
    print(f"{'label':16}{'rows':>6}{'right':>8}   taken for")
    for label, taken in confusion.items():
        count = taken.total()
        others = ", ".join(f"{task} {number}" for task, number in taken.most_common(5) if task != LABELS[label])
        print(f"{label:16}{count:6}{right[label] / max(count, 1):8.1%}   {others}")
    macro = sum(right[label] / max(taken.total(), 1) for label, taken in confusion.items()) / len(confusion)
    count = max(len(rows), 1)
    print(f"all {right.total() / count:.1%} of {count}, mean over labels {macro:.1%}, {seconds / count * 1e6:.0f} us each")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Accuracy of the task classifier on labelled prompts.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--misses", choices=sorted(LABELS), help="print the prompts of this label that were taken for others")
    asked = parser.parse_args()
    report(rows_of(asked.path), asked.misses)


if __name__ == "__main__":
    main()
