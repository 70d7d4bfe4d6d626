"""``${NAME}`` and ``${NAME:-default}`` in a catalog's text, replaced from the environment; ``$${`` is a literal ``${``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from shared.catalog.document import Plain
from shared.core.registry import UNRESOLVED

if TYPE_CHECKING:
    from shared.catalog.findings import Findings, Path

_REFERENCE: Final = re.compile(
    r"(?P<escaped>\$\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<bad>\$\{)"
)
_PROVIDER_FIELDS: Final = frozenset({"api_key", "base_url", "headers"})


@dataclass(slots=True)
class References:
    """What a catalog took from the environment.

    ``missing`` maps the path of a credential or endpoint to the names that are not set: its deployments are unavailable, which
    is no error. ``values`` maps each name to its value; to "" if it is only used as a credential or endpoint (so the value is
    never kept with the catalog), and to None if it is not set.
    """

    environment: Mapping[str, str]
    findings: Findings
    missing: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    values: dict[str, str | None] = field(default_factory=dict)
    _hidden: set[str] = field(default_factory=set)

    def resolve(self, value: Any, path: Path = ()) -> Any:
        """Return the tree with every reference replaced, without the credentials and endpoints that are missing.

        Recursion is bounded: the reader bounds the depth.
        """
        if isinstance(value, dict):
            resolved = {key: self.resolve(item, (*path, key)) for key, item in value.items()}
            return {key: item for key, item in resolved.items() if (*path, key) not in self.missing}
        if isinstance(value, list):
            return [self.resolve(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return self._text(value, path)
        return value

    def _text(self, text: str, path: Path) -> str | None:
        sensitive = is_credential_or_endpoint(path)
        missing: list[str] = []

        def replace(match: re.Match[str]) -> str:
            if match["escaped"]:
                return "${"
            if match["bad"]:
                self.findings.problem(path, "has a `${` that is no reference; write ${NAME}, or $${ for the characters")
                return ""
            value = self._look_up(match["name"], path, sensitive=sensitive)
            if value is None and match["default"] is None:
                missing.append(match["name"])
            return value if value is not None else (match["default"] or "")

        replaced = _REFERENCE.sub(replace, text)
        if missing and not sensitive:
            names = " and ".join(dict.fromkeys(missing))
            self.findings.problem(path, f"needs {names}; set it in the environment, or write ${{NAME:-default}}")
        if missing and sensitive:
            self.missing[path] = tuple(dict.fromkeys(missing))
        return Plain(replaced) if replaced and not missing else None

    def _look_up(self, name: str, path: Path, *, sensitive: bool) -> str | None:
        value = self.environment.get(name, "").strip() or None
        if value is not None and value.startswith(UNRESOLVED):  # sent as a key, it would tell a stranger the vault's name
            self.findings.warn(path, f"Azure could not read {name} from Key Vault: see to its role, then restart the app")
            value = None
        if value is not None:
            self.findings.hidden[value] = f"${{{name}}}"
        if sensitive:
            self._hidden.add(name)
        self.values[name] = "" if value is not None and name in self._hidden else value
        return value


def is_credential_or_endpoint(path: Path) -> bool:
    """Tell whether a missing reference here only makes deployments unavailable, and its value must never be shown."""
    match path:
        case ("providers", str(), str() as name, *_):
            return name in _PROVIDER_FIELDS
        case ("models", str(), "deployments", int(), "base_url"):
            return True
        case _:
            return False


def has_reference(value: Any) -> bool:
    """Tell whether a reference stands anywhere in a JSON value."""
    if isinstance(value, Mapping):
        return any(has_reference(item) for item in value.values())
    if isinstance(value, list):
        return any(has_reference(item) for item in value)
    return isinstance(value, str) and "${" in value
