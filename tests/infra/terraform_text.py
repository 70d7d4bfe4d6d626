"""What can be read from Terraform's files without Terraform: the text of a local value, and the settings in it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "infra" / "terraform"
_COMMENT = re.compile(r"^\s*(?:#|//).*$|\s+#(?=\s)[^\"\n]*$", re.MULTILINE)
_SETTING = re.compile(r'(?<![\w.])"?([A-Z][A-Z0-9]*_[A-Z0-9_]+|Azure\w+__\w+)"?\s*=(?![=>])')


@cache
def text() -> str:
    """Return all files of the root module, without comments."""
    return _COMMENT.sub("", "\n".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.tf"))))


def expression(name: str) -> str:
    """Return what a local value is defined as; raise `LookupError` when there is none, or more than one."""
    found = list(re.finditer(rf"^  {name}\s*=\s*", text(), re.MULTILINE))
    if len(found) != 1:
        message = f"local.{name} is defined {len(found)} times"
        raise LookupError(message)
    rest = text()[found[0].end() :]
    depth = 0
    for place, character in enumerate(rest):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and character == "\n" and rest[:place].strip():
            return rest[:place]
    return rest


def settings(definition: str) -> set[str]:
    """Return the names of environment variables that are given a value anywhere in an expression."""
    return set(_SETTING.findall(definition))


def strings(definition: str) -> list[str]:
    """Return the literal texts in an expression, in their order."""
    return re.findall(r'"([^"\n]*)"', definition)


def locals_named(prefix: str) -> list[str]:
    """Return the local values whose names begin so."""
    return sorted(set(re.findall(rf"^  ({prefix}\w+)\s*=", text(), re.MULTILINE)))
