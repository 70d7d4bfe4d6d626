"""Says everything that is wrong with a catalog file, for the command line: one line per finding, with its place."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from shared.catalog.loading import load
from shared.catalog.watch import UnreadableError, WatchedFile
from shared.core.errors import ConfigurationError

WARNING = "warning: "
"""Starts the lines that do not stop the catalog from being used."""


def check(path: str, environment: Mapping[str, str]) -> list[str]:
    """Return every problem of the file, or, if there is none, every warning, which starts with ``warning: ``."""
    try:
        text = WatchedFile(path).poll()
        loaded = load(text or "", source=path, environment=environment)
    except UnreadableError as error:
        return [str(error)]
    except ConfigurationError as error:
        return list(error.problems)
    return [f"{WARNING}{line}" for line in loaded.warnings]


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Check the files named; write what was found, and return 1 if one can't be used, 0 otherwise."""
    status = 0
    for path in arguments:
        findings = check(path, environment)
        broken = any(not line.startswith(WARNING) for line in findings)
        status = max(status, int(broken))
        sys.stdout.write("".join(f"{line}\n" for line in findings) or f"{path}: the catalog is well.\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
