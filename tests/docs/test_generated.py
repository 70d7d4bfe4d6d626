"""Docs that are made from tables agree with the tables."""

from __future__ import annotations

from pathlib import Path

from shared.core.failures import RULES
from shared.settings import __doc__ as settings_text

DOCS = Path(__file__).resolve().parents[2] / "docs"


def failures_table() -> str:
    """Render the failure rules as Markdown."""
    rows = ["| failure | remedy | rules out | breaker | billing | asked again |", "|---|---|---|---|---|---|"]
    rows += [
        f"| `{kind.value}` | {rule.remedy.value} | {rule.skip.value} | {rule.breaker.value} | {rule.billing.value} | "
        f"{'yes' if rule.again else 'no'} |"
        for kind, rule in RULES.items()
    ]
    return "\n".join(rows)


def test_the_failure_table_in_the_docs_is_the_codes() -> None:
    """Replace what stands under `<!-- generated: failures -->` in docs/architecture.md by the expected text when this fails."""
    assert failures_table() in (DOCS / "architecture.md").read_text(encoding="utf-8")


def test_every_setting_the_code_reads_is_described_where_it_is_read() -> None:
    """The table in shared/settings.py names every variable that `load` asks for."""
    source = (DOCS.parent / "shared" / "settings.py").read_text(encoding="utf-8")
    code = source.split('"""', 2)[2]
    named = {word for word in code.replace('"', " ").replace("`", " ").split() if word.startswith("SWITCHYARD_")}
    assert named
    for name in named:
        setting = f"`{name.rstrip(':;,.=')}`"
        assert setting in (settings_text or ""), name
        assert setting in (DOCS.parent / "README.md").read_text(encoding="utf-8"), name
