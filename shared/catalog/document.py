"""YAML text → a plain tree of mappings, lists and text, with the line of everything in it.

Built from PyYAML's parse events with an explicit stack, so that nothing nested can exhaust Python's. Only the plain part of
YAML is taken: anchors, aliases, merge keys and tags are refused (289 bytes of aliases can expand to gigabytes), a key may
appear once, and text stays text until the schema asks for a number: ``no`` is never False, 1.10 is never 1.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from shared.catalog.findings import Findings, Path

MAX_TEXT: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 24
MAX_NODES: Final = 200_000

_NULL: Final = re.compile(r"~|null|Null|NULL|")
_LOADER: Final = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # libyaml is 10 times faster where the wheel has it


class Plain(str):
    """Text that stood in the file without quotes: it may be read as a number or a truth value."""

    __slots__ = ()


class _RefusedError(Exception):
    """Reading can't go on; the reason has been noted."""


@dataclass(slots=True)
class _Open:
    """A mapping or list that is being filled."""

    path: Path
    value: dict[str, Any] | list[Any]
    key: str | None = None
    awaits_key: bool = True


@dataclass(slots=True)
class _Builder:
    findings: Findings
    stack: list[_Open] = field(default_factory=list)
    root: Any = None
    nodes: int = 0
    documents: int = 0

    def take(self, event: yaml.Event) -> None:
        """Apply one event."""
        match event:
            case yaml.DocumentStartEvent():
                self._document(event)
            case yaml.AliasEvent():
                self._problem(event, "YAML aliases (*name) are not allowed; write the value out")
                self._place(event, None)
            case yaml.ScalarEvent():
                self._check(event)
                self._scalar(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._check(event)
                self._start(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self.stack.pop()
            case _:
                pass  # the stream's and the document's own marks hold nothing

    def _document(self, event: yaml.Event) -> None:
        self.documents += 1
        if self.documents > 1:
            self._problem(event, "a second YAML document starts here; a catalog is one document: remove the `---`")
            raise _RefusedError

    def _check(self, event: yaml.NodeEvent) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self._problem(event, f"the catalog has more than {MAX_NODES} values; split it or remove what is not used")
            raise _RefusedError
        if event.anchor is not None:
            self._problem(event, "YAML anchors (&name) are not allowed; write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._problem(event, "YAML tags (!name) are not allowed; remove it")

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        top = self.stack[-1] if self.stack else None
        if top is not None and isinstance(top.value, dict) and top.awaits_key:
            self._key(top, event)
        elif event.style:
            self._place(event, str(event.value))
        else:
            self._place(event, None if _NULL.fullmatch(event.value) else Plain(event.value))

    def _key(self, top: _Open, event: yaml.ScalarEvent) -> None:
        name = str(event.value)
        line = _line(event)
        path = (*top.path, name)
        if name == "<<" and not event.style:
            self._problem(event, "YAML merge keys (<<) are not allowed; write the fields out")
        elif not name:
            self._problem(event, "a key is empty; name it")
        elif isinstance(top.value, dict) and name in top.value:
            first = self.findings.lines.get(path)
            message = f"is here twice (first on line {first}); keep one of them"
            self.findings.problem(path, message, line=line)
        self.findings.lines[path] = line
        top.key, top.awaits_key = name, False

    def _start(self, event: yaml.NodeEvent) -> None:
        top = self.stack[-1] if self.stack else None
        if top is not None and isinstance(top.value, dict) and top.awaits_key:
            self._problem(event, "a key must be plain text, not a list or mapping")
            raise _RefusedError
        if len(self.stack) >= MAX_DEPTH:
            self._problem(event, f"values are nested more than {MAX_DEPTH} deep; no part of a catalog is")
            raise _RefusedError
        value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self._place(event, value)
        self.stack.append(_Open(path, value))

    def _place(self, event: yaml.Event, value: object) -> Path:
        if not self.stack:
            self.root = value
            self.findings.lines.setdefault((), _line(event))
            return ()
        top = self.stack[-1]
        if isinstance(top.value, list):
            path: Path = (*top.path, len(top.value))
            self.findings.lines[path] = _line(event)
            top.value.append(value)
            return path
        if top.awaits_key:  # an alias where a key should be; it has been refused
            top.key, top.awaits_key = "", False
            return top.path
        key = top.key or ""
        top.value[key] = value
        top.awaits_key = True
        return (*top.path, key)

    def _problem(self, event: yaml.Event, message: str) -> None:
        path = self.stack[-1].path if self.stack else ()
        self.findings.problem(path, message, line=_line(event))


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else event.start_mark.line + 1


def read(text: str, findings: Findings) -> dict[str, Any] | None:
    """Return the catalog's tree; what is wrong with the text goes to ``findings``, and then the tree may be incomplete.

    None says that there is no tree at all.
    """
    if len(text) > MAX_TEXT:
        findings.problem((), f"is longer than {MAX_TEXT} characters; no catalog is")
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        findings.problem((), "holds half a surrogate pair; save the file as UTF-8")
        return None
    builder = _Builder(findings)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except _RefusedError:
        return None
    except yaml.YAMLError as error:
        _unreadable(error, findings)
        return None
    return _checked_root(builder.root, findings)


def _checked_root(root: object, findings: Findings) -> dict[str, Any] | None:
    if root is None:
        findings.problem((), "is empty; a catalog has at least `models:`")
    elif not isinstance(root, dict):
        findings.problem((), "must be a mapping with `models:` and the like at the top", line=1)
    else:
        return root
    return None


def _unreadable(error: yaml.YAMLError, findings: Findings) -> None:
    """Note a syntax error. Only the parser's own words: its excerpt of the text could show a credential."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
        reason = ", ".join(part for part in (error.context, error.problem) if part)
    else:
        line, reason = None, "it holds a character YAML does not allow"
    findings.problem((), f"is not valid YAML: {reason}", line=line)
