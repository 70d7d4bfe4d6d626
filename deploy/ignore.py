"""The rules of `.funcignore`, which are those of `.gitignore`: the last line that matches a path decides.

A line with a slash before its end counts from the root, one without it matches at any depth; `/` at the end means folders only;
`*` and `?` stop at slashes, `**` does not; `!` takes back. What lies in a folder that is left out can't be taken back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r"(?P<folders>\*\*/)|(?P<all>\*\*)|(?P<some>\*)|(?P<one>\?)|(?P<set>\[!?\]?[^\]]*\])|\\?(?P<plain>.)"
)
_WILD: Final = {"folders": "(?:[^/]+/)*", "all": ".*", "some": "[^/]*", "one": "[^/]"}


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: what it matches, and whether that is left out or taken back."""

    pattern: re.Pattern[str]
    folders_only: bool
    leaves_out: bool


def parse(text: str) -> tuple[Rule, ...]:
    """Read a file's lines; comments and empty ones say nothing."""
    return tuple(_rule(line) for line in map(_trimmed, text.splitlines()) if line and not line.startswith("#"))


def ignored(path: str, rules: Iterable[Rule], *, folder: bool = False) -> bool:
    """Say whether a path relative to the root, with `/` between its parts, is left out, itself or by a folder above it."""
    rules = tuple(rules)
    parts = path.split("/")
    above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
    return any(_left_out(one, rules, folder=True) for one in above) or _left_out(path, rules, folder=folder)


def _left_out(path: str, rules: tuple[Rule, ...], *, folder: bool) -> bool:
    for rule in reversed(rules):
        if (folder or not rule.folders_only) and rule.pattern.fullmatch(path):
            return rule.leaves_out
    return False


def _trimmed(line: str) -> str:
    """Drop spaces at the end, unless a backslash keeps one."""
    bare = line.rstrip(" \t\r")
    return bare + " " if bare.endswith("\\") and bare != line else bare


def _rule(line: str) -> Rule:
    leaves_out = not line.startswith("!")
    body = line if leaves_out else line[1:]
    folders_only = body.endswith("/")
    body = body.rstrip("/") if folders_only else body
    anchored = "/" in body
    text = "".join(_piece(token) for token in _TOKEN.finditer(body.removeprefix("/")))
    return Rule(re.compile(text if anchored else f"(?:.*/)?{text}", re.DOTALL), folders_only, leaves_out)


def _piece(token: re.Match[str]) -> str:
    kind, found = str(token.lastgroup), token.group()
    if kind == "plain":
        return re.escape(token.group("plain"))
    if kind == "set":
        inner = found[1:-1].replace("\\", "\\\\")
        return f"(?!/)[{'^' + inner[1:] if inner.startswith('!') else inner}]"
    return _WILD[kind]
