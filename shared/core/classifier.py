"""What a request is for, when the caller did not say: a table of patterns with scores.

Every pattern that is found adds its score to its task; the highest sum wins, and nothing found is a conversation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from shared.core.chat import Json

DEFAULT_TASK: Final = "conversation"
LONGEST_TEXT: Final = 4_000
"""Characters looked at: what to do is said at the beginning or the end, what to do it to is between."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The task found. ``confidence`` is 0..1; ``rules`` are the names of those that matched."""

    task: str
    confidence: float
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    task: str
    score: float
    pattern: re.Pattern[str]


def _rule(name: str, task: str, score: float, pattern: str) -> _Rule:
    return _Rule(name, task, score, re.compile(pattern, re.IGNORECASE))


RULES: Final = (
    _rule("ask for code", "code-generation", 3.0, r"\b(?:function|script|program|class|regex|sql|python|javascript|code)\b"),
    _rule("ask for a summary", "summarization", 3.0, r"\b(?:summar|tl;?dr|sum up\b|condense)"),
    _rule("ask for a translation", "translation", 3.0, r"\btranslat"),
)


def classify(text: str) -> Classification:
    """Return the task a text asks for."""
    scores: dict[str, float] = {}
    matched: list[_Rule] = []
    for rule in RULES:
        if rule.pattern.search(text):
            scores[rule.task] = scores.get(rule.task, 0.0) + rule.score
            matched.append(rule)
    if not scores:
        return Classification(DEFAULT_TASK, 0.0)
    task = max(scores, key=scores.__getitem__)
    return Classification(task, scores[task] / sum(scores.values()), tuple(rule.name for rule in matched))


def text_of(payload: Json) -> str:
    """Return the text that says what to do: the last message of the user, cut in the middle when it is long."""
    messages = payload.get("messages")
    if not isinstance(messages, list):
        return ""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            return content[:LONGEST_TEXT] if isinstance(content, str) else ""
    return ""
