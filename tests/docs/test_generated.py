"""Docs that are made from tables agree with the tables."""

from __future__ import annotations

from pathlib import Path

from shared.chains.rows import CLAIM_TRANSITIONS, TRANSITIONS, State
from shared.core.failures import RULES, FailureKind, Remedy, Rule
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


def chain_states() -> str:
    """Render where a chain can go as a Mermaid diagram."""
    rows = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.QUEUED}"]
    rows += [f"    {state} --> {after}" for state, next_ones in TRANSITIONS.items() for after in sorted(next_ones)]
    rows += [f"    {state} --> [*]" for state in State if state.ended]
    return "\n".join([*rows, "```"])


def claim_states() -> str:
    """Render where the claim of an attempt can go as a Mermaid diagram."""
    rows = ["```mermaid", "stateDiagram-v2"]
    for state, next_ones in CLAIM_TRANSITIONS.items():
        rows += [f"    {state or '[*]'} --> {after}" for after in sorted(next_ones) or ["[*]"]]
    return "\n".join([*rows, "```"])


def chain_flow() -> str:
    """Render what each failure of an attempt leads to as a Mermaid diagram."""
    rows = ["```mermaid", "flowchart LR", "    attempt((attempt)) -->|answered| answered([completed])"]
    leads: dict[str, list[str]] = {}
    for kind, rule in RULES.items():
        leads.setdefault(_leads_to(kind, rule), []).append(kind.value)
    rows += [f"    attempt -->|{'<br/>'.join(kinds)}| {where}" for where, kinds in leads.items()]
    rows += ["    later -->|a durable timer| attempt", "    other --> attempt", "    same --> attempt"]
    rows += [f"    {where} -->|nobody left, deadline, attempt or cost cap| failed([failed])" for where in ("later", "other")]
    return "\n".join([*rows, "```"])


def _leads_to(kind: FailureKind, rule: Rule) -> str:
    if kind is FailureKind.CANCELLED:
        return "cancelled([cancelled])"
    if rule.remedy is Remedy.GIVE_UP:
        return "failed"
    if rule.remedy is Remedy.RETRY:
        return "same[the same at once, then as the others]"
    return "later[the next candidate, and this one again later]" if rule.again else "other[the next candidate, not this one]"


def test_the_diagrams_of_chains_in_the_docs_are_the_codes() -> None:
    """Replace what stands under `<!-- generated: … -->` in docs/chains.md by the expected text when this fails."""
    page = (DOCS / "chains.md").read_text(encoding="utf-8")
    for drawn in (chain_states(), claim_states(), chain_flow()):
        assert drawn in page


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
