"""Writes the histories of scripts that have none of the current version: ``python -m tests.chains.record``.

A file that is there is never changed: it is what chains in flight may have in their engine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from functions.surface import registered
from local.mounting import functions_of
from shared.core.chain import CURRENT
from tests.chains.player import Player
from tests.chains.scripts import SCRIPTS

FOLDER: Final = Path(__file__).with_name("histories")


def in_file(script: str, version: int) -> Path:
    """Return where the history of a script is."""
    return FOLDER / f"v{version}_{script}.json"


def main() -> None:
    """Write what is missing."""
    orchestrator = functions_of(registered()).orchestrators["run_chain"]
    for script in SCRIPTS:
        path = in_file(script.name, CURRENT)
        if path.exists():
            continue
        end = Player(orchestrator, script).play()
        kept = {"given": script.given(), "history": end.history, "actions": end.actions, "output": end.output}
        with path.open("x") as file:
            json.dump(kept, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
