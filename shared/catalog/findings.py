"""What is wrong with a catalog, as values: each finding has its line, its path in the file, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from shared.core.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]
"""Where a value is in the catalog: mapping keys and list positions, outermost first."""

MAX_LISTED: Final = 100
MAX_KEY_LENGTH: Final = 120
MIN_SCRUBBED_LENGTH: Final = 4  # replacing shorter values would garble every sentence and hides nothing

_SENTENCES: Final[Mapping[str, str]] = {
    "missing": "is missing; add it",
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
    "too_short": "must not be empty",
    "finite_number": "must be a finite number",
}


def render_path(path: Path) -> str:
    """Write a path as a person would: ``models.gpt-5.deployments[0].region``."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            name = step if step.isprintable() else ascii(step)
            parts.append(f".{name[:MAX_KEY_LENGTH]}" if parts else name[:MAX_KEY_LENGTH])
    return "".join(parts)


class CatalogError(ConfigurationError):
    """The catalog is wrong. ``registered`` names the dynamically registered models that have a part in it."""

    def __init__(self, message: str, *, problems: Sequence[str], registered: frozenset[str] = frozenset()) -> None:
        super().__init__(message, problems=problems)
        self.registered = registered


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem or warning. ``registered`` names the dynamically registered model it is in, None is the file.

    ``setting`` says that its path begins with an environment setting and not in the file.
    """

    path: Path
    message: str
    line: int | None = None
    registered: str | None = None
    setting: bool = False

    def render(self, source: str) -> str:
        """Return ``file:line: path: message``."""
        place = source if self.line is None else f"{source}:{self.line}"
        if self.registered is not None:
            place = f"registered model {self.registered}"
        if self.setting:
            place = "environment"
        path = render_path(self.path)
        return f"{place}: {path}: {self.message}" if path else f"{place}: {self.message}"


@dataclass(slots=True)
class Findings:
    """Collects everything that is wrong, so that all of it is told at once.

    ``lines`` maps a path to its line, ``registered`` are the models that came by registration, ``settings`` those a path may
    begin with, ``hidden`` maps values that came from the environment to the reference that stands for them in every message.
    """

    source: str
    lines: dict[Path, int] = field(default_factory=dict)
    registered: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()
    hidden: dict[str, str] = field(default_factory=dict)
    problems: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def problem(self, path: Path, message: str, *, line: int | None = None) -> None:
        """Note what stops the catalog from being used."""
        self.problems.append(self._finding(path, message, line))

    def warn(self, path: Path, message: str) -> None:
        """Note what a person should look at, though the catalog works."""
        self.warnings.append(self._finding(path, message, None))

    def invalid(self, path: Path, errors: Sequence[ErrorDetails], *, fields: Sequence[str] = ()) -> None:
        """Note what pydantic found below ``path``; ``fields`` are the names a misspelt one is compared with."""
        for error in errors:
            self.problem((*path, *error["loc"]), _sentence(error, fields))

    def _finding(self, path: Path, message: str, line: int | None) -> Finding:
        registered = None
        if path and path[0] in self.settings:
            return Finding(path, message, setting=True)
        if path[:1] == ("models",) and len(path) > 1 and path[1] in self.registered:
            registered = str(path[1])
        elif line is None:
            line = self._line(path)
        return Finding(path, message, line, registered)

    def _line(self, path: Path) -> int | None:
        for length in range(len(path), -1, -1):
            if (line := self.lines.get(path[:length])) is not None:
                return line
        return None

    def render(self, findings: Sequence[Finding]) -> tuple[str, ...]:
        """Return the findings as text in the order of their lines, with values from the environment hidden."""
        ordered = sorted(findings, key=lambda found: (found.registered or "", found.line or 0))
        texts = [self._scrub(found.render(self.source)) for found in ordered[:MAX_LISTED]]
        if len(ordered) > MAX_LISTED:
            texts.append(f"{self.source}: … and {len(ordered) - MAX_LISTED} more")
        return tuple(dict.fromkeys(texts))

    def _scrub(self, text: str) -> str:
        for value in sorted(self.hidden, key=len, reverse=True):
            if len(value) >= MIN_SCRUBBED_LENGTH:
                text = text.replace(value, self.hidden[value])
        return text

    def raise_if_any(self) -> None:
        """Raise `CatalogError` with every problem, if there is one."""
        if self.problems:
            problems = self.render(self.problems)
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            message = f"The catalog {self.source} has {count}:\n" + "\n".join(problems)
            registered = frozenset(found.registered for found in self.problems if found.registered is not None)
            raise CatalogError(message, problems=problems, registered=registered)


def _sentence(error: ErrorDetails, fields: Sequence[str]) -> str:
    kind = error["type"]
    if kind == "extra_forbidden":
        return unknown_field(str(error["loc"][-1]), fields)
    context: Mapping[str, Any] = error.get("ctx", {})
    if (template := _SENTENCES.get(kind)) is not None:
        return template.format_map(context)
    return error["msg"]


def unknown_field(name: str, known: Sequence[str]) -> str:
    """Say that a field is not known, and which was probably meant."""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"is not a known field; did you mean `{near[0]}`?"
    return "is not a known field; remove it" + (f" (known here: {', '.join(known)})" if known else "")


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return `` (did you mean `x`?)`` for a name close to a known one, "" otherwise."""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean `{near[0]}`?)" if near else ""
