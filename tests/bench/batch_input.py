"""The input of the batch that is measured: real prompts, again from the start when there are too few, and some bad lines."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MODELS: Final = ("main", "anything", "auto", "main")
MAX_PROMPT: Final = 20_000
BAD_EVERY: Final = 200
"""One line in so many can't be run: broken, with the custom_id of another, or for an unknown model, in turn."""
BAD_CODES: Final = ("invalid_json_line", "duplicate_custom_id", "model_not_found")


@dataclass(frozen=True, slots=True)
class Input:
    """An input file, how many lines it has, and how many of them can't be run."""

    content: bytes
    lines: int
    bad: int

    @staticmethod
    def code_of(result: Mapping[str, Any]) -> str:
        """Return the code of a line of the error file."""
        error = result["error"] or result["response"]["body"]["error"]
        return str(error["code"])

    def bad_among(self, errors: Iterable[Mapping[str, Any]]) -> int:
        """Return how many lines of the error file are there for what was wrong with them."""
        return sum(
            self.code_of(one) == BAD_CODES[one["switchyard"]["line"] // BAD_EVERY % len(BAD_CODES)]
            for one in errors
            if one["switchyard"]["line"] % BAD_EVERY == 0
        )

    def wrong(self, results: Iterable[Mapping[str, Any]]) -> int:
        """Return how many answers have the custom_id of another line."""
        return sum(one["custom_id"] != _name(one["switchyard"]["line"]) for one in results)


def input_of(path: Path, count: int) -> Input:
    """Make an input file of prompts: rows with a field ``prompt``."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        prompts = [json.loads(line)["prompt"][:MAX_PROMPT] for line in file if line.strip()]
    lines = [_line(number, prompt) for number, prompt in zip(range(1, count + 1), itertools.cycle(prompts), strict=False)]
    return Input(b"\n".join(lines) + b"\n", count, count // BAD_EVERY)


def _line(number: int, prompt: str) -> bytes:
    body = {"model": MODELS[number % len(MODELS)], "messages": [{"role": "user", "content": prompt}], "max_tokens": 200}
    name = _name(number)
    code = BAD_CODES[number // BAD_EVERY % len(BAD_CODES)] if number % BAD_EVERY == 0 else ""
    if code == "duplicate_custom_id":
        name = _name(number - BAD_EVERY + 1)
    if code == "model_not_found":
        body["model"] = "nobody-has-this"
    line = json.dumps({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}).encode()
    return line[: len(line) // 2] if code == "invalid_json_line" else line


def _name(number: int) -> str:
    return f"request-{number:07}"
