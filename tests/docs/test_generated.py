"""Docs that are made from tables agree with the tables."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from functions import chain_view, files, prefer, prometheus
from functions.batches import MAX_HOURS
from functions.chains import TELL_RETRY
from functions.schemas_responses import MAX_ITEMS
from shared import idempotency, responses
from shared.adapters.webhook import TIMEOUT, signature
from shared.batches import store as batches
from shared.batches.lines import MAX_CUSTOM_ID
from shared.batching import asking, lifecycle, preparing
from shared.chains import store as chains
from shared.chains.rows import CLAIM_TRANSITIONS, TRANSITIONS, State
from shared.core import chain, semconv
from shared.core.exposition import TOTAL, Family, Kind
from shared.core.failures import RULES, FailureKind, Remedy, Rule
from shared.core.registry import Secret
from shared.files import MAX_LINE
from shared.settings import Settings
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
        rows += [f"    {state or '[*]'} --> {after}" for after in sorted(map(str, next_ones)) or ["[*]"]]
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


def span(seconds: float) -> str:
    """Say a time in the largest unit that makes it a whole number."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f} {unit if seconds > length else unit[:-1]}"
    return f"{seconds:.0f} {'second' if seconds == 1 else 'seconds'}"


def size(count: int) -> str:
    """Say a number of bytes in MiB."""
    return f"{count / 1024**2:.0f} MiB"


def limits_table() -> str:
    """Render what bounds work in the background as Markdown."""
    settings = Settings()
    retried = f"{TELL_RETRY.max_number_of_attempts} times, {span(TELL_RETRY.first_retry_interval_in_milliseconds / 1000)} apart"
    rows = [
        (
            "`deadline_seconds`",
            f"{span(chain.MIN_DEADLINE)} to {span(chain.MAX_DEADLINE)}; {span(chain.DEFAULT_DEADLINE)} if absent",
        ),
        ("`wait` in `Prefer`", span(prefer.MAX_WAIT)),
        ("attempts of a chain; of them again at one deployment", f"{chain.MAX_ATTEMPTS}; {chain.RETRIES}"),
        ("pauses between them, if no provider asks for longer", f"{span(chain.FIRST_PAUSE)} to {span(chain.LONGEST_PAUSE)}"),
        ("`retry-after` of a chain that is under way", f"{chain_view.MIN_POLL} to {chain_view.MAX_POLL} seconds"),
        ("a request's body", f"{size(settings.max_body_bytes)} (`SWITCHYARD_MAX_BODY_BYTES`)"),
        ("items of a response's `input`", f"{MAX_ITEMS:,}"),
        ("a conversation continued by `previous_response_id`", size(responses.MAX_CONVERSATION)),
        ("an answer kept under an `Idempotency-Key`", f"{idempotency.MAX_ANSWER:,} bytes"),
        ("an upload", f"{size(settings.max_file_bytes)} (`SWITCHYARD_MAX_FILE_BYTES`)"),
        ("a batch's file; its lines", f"{size(lifecycle.MAX_FILE_BYTES)}; {preparing.MAX_LINES:,}"),
        ("a line of it", f"as a request's body, and at most {size(MAX_LINE)}"),
        ("`custom_id`", f"{MAX_CUSTOM_ID} characters"),
        ("`completion_window`", f"`1h` to `{MAX_HOURS}h`"),
        ("tries of a line that every candidate failed", f"{asking.MAX_PASSES}"),
        ("a webhook's receiver; tries to tell it", f"{span(TIMEOUT)}; {retried}"),
    ]
    return "\n".join(["| what | limit |", "|---|---|", *(f"| {what} | {limit} |" for what, limit in rows)])


def retention_table() -> str:
    """Render how long things are kept as Markdown."""
    lifetimes = f"{span(files.LIFETIMES[0])} to {span(files.LIFETIMES[-1])}"
    rows = [
        ("chains, with request and answer", f"{chains.KEPT_DAYS} days", "`DELETE /v1/chains/{id}`"),
        (
            "responses, with their conversations",
            f"{responses.KEPT_DAYS} days",
            "`DELETE /v1/responses/{id}`, or `store: false`",
        ),
        ("batches", f"{batches.KEPT_DAYS} days", ""),
        ("output and error files of a batch", f"{span(lifecycle.OUTPUT_SECONDS)} from its end", "`DELETE /v1/files/{id}`"),
        ("files for `batch`", span(files.BATCH_LIFETIME), f"`expires_after`, {lifetimes}; `DELETE`"),
        ("files for `user_data`", "for good", f"`expires_after`, {lifetimes}; `DELETE`"),
        ("answers under an `Idempotency-Key`", span(idempotency.KEPT_SECONDS), ""),
    ]
    return "\n".join(
        ["| what | for | sooner by |", "|---|---|---|", *(f"| {what} | {kept} | {sooner} |" for what, kept, sooner in rows)]
    )


def spans_table() -> str:
    """Render what spans say as Markdown."""
    rows = ["| attribute | request | attempt | what |", "|---|---|---|---|"]
    rows += [
        f"| `{one.name}` | {_tick(one.request)} | {_tick(one.attempt)} | {one.meaning} |" for one in semconv.SPAN_ATTRIBUTES
    ]
    return "\n".join(rows)


def _tick(there: bool) -> str:  # noqa: FBT001 - it is what is drawn
    return "✓" if there else ""


def metrics_table() -> str:
    """Render the metrics as Markdown."""
    rows = ["| metric | kind | unit | what | attributes |", "|---|---|---|---|---|"]
    for one in semconv.INSTRUMENTS:
        attributes = ", ".join(f"`{name}`" for name in one.attributes)
        rows.append(f"| `{one.name}` | {one.kind.value} | `{one.unit}` | {one.description} | {attributes} |")
    return "\n".join(rows)


def prometheus_table() -> str:
    """Render what GET /metrics says as Markdown."""
    counted = [family for family in vars(prometheus.Counted()).values() if isinstance(family, Family)]
    rows = ["| metric | type | what |", "|---|---|---|"]
    rows += [f"| `{one.name}{TOTAL if one.kind is Kind.COUNTER else ''}` | {one.kind.value} | {one.help} |" for one in counted]
    rows += [f"| `{name}` | gauge | {described} |" for name, described in prometheus.GAUGES.values()]
    return "\n".join(rows)


def test_the_tables_of_telemetry_in_the_docs_are_the_codes() -> None:
    """Replace the tables in docs/telemetry.md by the expected ones when this fails."""
    page = (DOCS / "telemetry.md").read_text(encoding="utf-8")
    for drawn in (spans_table(), metrics_table(), prometheus_table()):
        assert drawn in page


def test_the_diagrams_of_chains_in_the_docs_are_the_codes() -> None:
    """Replace what stands under `<!-- generated: … -->` in docs/chains.md by the expected text when this fails."""
    page = (DOCS / "chains.md").read_text(encoding="utf-8")
    for drawn in (chain_states(), claim_states(), chain_flow(), limits_table(), retention_table()):
        assert drawn in page


def test_the_receivers_check_in_the_docs_tells_genuine_messages() -> None:
    """Those that were signed with the secret, a moment ago, and have not been changed since."""
    page = (DOCS / "chains.md").read_text(encoding="utf-8")
    example = re.search(r"<!-- example: receiver -->\n```python\n(.*?)```", page, re.DOTALL)
    assert example
    there: dict[str, Any] = {}
    exec(example.group(1), there)  # noqa: S102 - our own page
    secret, body, now = "a secret of sixteen", b'{"object":"event"}', int(time.time())
    signed = signature(Secret(secret), now, body)

    assert there["is_genuine"](secret, signed, body)
    assert not there["is_genuine"](secret, signed, body + b" ")
    assert not there["is_genuine"]("another secret of sixteen", signed, body)
    assert not there["is_genuine"](secret, signature(Secret(secret), now - 3600, body), body)


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
