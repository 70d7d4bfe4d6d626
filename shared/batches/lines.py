"""A batch's lines: a request each as they come, a result each as they go. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from shared.batches.rows import Counts, Part
from shared.core.chat import Usage

BOM: Final = b"\xef\xbb\xbf"
MAX_CUSTOM_ID: Final = 512
OK: Final = 200
_KNOWN: Final = frozenset({"custom_id", "method", "url", "body"})


@dataclass(frozen=True, slots=True)
class Line:
    """A line that asks for something. ``number`` counts the file's lines from 1."""

    number: int
    custom_id: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that can't be run, and why; the message names the line. ``custom_id`` is None when it can't be told."""

    number: int
    custom_id: str | None
    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a line came to: a line of one of the batch's two files, and what it adds to the counts."""

    part: Part
    content: bytes
    counts: Counts


@dataclass(frozen=True, slots=True)
class Spent:
    """What a line has cost so far, over all its passes: nano-USD, and whether some of it is not known."""

    cost: int = 0
    unpriced: bool = False

    def plus(self, cost: int | None) -> Spent:
        """Return this with another pass's cost."""
        return replace(self, unpriced=True) if cost is None else replace(self, cost=self.cost + cost)


def is_blank(raw: bytes) -> bool:
    """Say whether a line asks for nothing: empty lines are no requests."""
    return not raw.strip(b" \t\r\n")


def parse(raw: bytes, number: int, endpoint: str, *, longest: int) -> Line | BadLine:
    """Read a line for a batch of this endpoint. A line of more than ``longest`` bytes is not read."""
    if len(raw) > longest:
        return BadLine(number, None, "line_too_long", f"Line {number} has {len(raw)} bytes; at most {longest} are accepted.")
    try:
        given = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return BadLine(number, None, "invalid_json_line", f"Line {number} is not valid JSON: {str(error)[:120]}.")
    if not isinstance(given, dict):
        return BadLine(number, None, "invalid_json_line", f"Line {number} is not a JSON object.")
    name = given.get("custom_id")
    custom_id = name if isinstance(name, str) and 0 < len(name) <= MAX_CUSTOM_ID else None
    if custom_id is None:
        message = f"Line {number}: `custom_id` must be a string of 1 to {MAX_CUSTOM_ID} characters."
        return BadLine(number, None, "invalid_custom_id", message, "custom_id")
    problem = _problem(given, endpoint)
    if problem is not None:
        param, code, said = problem
        return BadLine(number, custom_id, code, f"Line {number}: {said}", param)
    return Line(number, custom_id, given["body"])


def _problem(given: dict[str, Any], endpoint: str) -> tuple[str, str, str] | None:
    """Return the field at fault, a code, and what is wrong with it."""
    if given.get("method") != "POST":
        return "method", "invalid_method", "`method` must be POST."
    if given.get("url") not in {endpoint, endpoint.removeprefix("/v1")}:  # the second is Azure OpenAI's form
        return "url", "invalid_url", f"`url` must be {endpoint}, the endpoint of its batch."
    body = given.get("body")
    if not isinstance(body, dict):
        return "body", "invalid_value", "`body` must be an object."
    if body.get("stream"):
        return "body.stream", "unsupported_value", "`body.stream` can't be used in a batch: its answers are whole."
    if unknown := sorted(given.keys() - _KNOWN):
        return unknown[0][:60], "unknown_parameter", f"there is no field `{unknown[0][:60]}` in a batch's line."
    return None


def digest(custom_id: str) -> bytes:
    """Return 16 bytes that stand for a custom_id: of half a million, two share them with a chance of 1 in 10**27."""
    return hashlib.blake2b(custom_id.encode(errors="surrogatepass"), digest_size=16).digest()


# ---- results ---------------------------------------------------------------------------------------------------------


def line_id(batch: str, number: int) -> str:
    """Return the id of a line's result; the same line always has the same."""
    return "batch_req_" + hashlib.sha256(f"{batch}|{number}".encode()).hexdigest()[:24]


def answered(batch: str, line: Line, response: dict[str, Any], spent: Spent, usage: Usage | None) -> Result:
    """Return the result of a line that was asked. ``response`` has ``status_code``, ``request_id`` and ``body``."""
    well = response["status_code"] == OK
    written = {
        "id": line_id(batch, line.number),
        "custom_id": line.custom_id,
        "response": response,
        "error": None,
        "switchyard": {"line": line.number, "cost_nano_usd": None if spent.unpriced else spent.cost},
    }
    return _result(Part.OUTPUT if well else Part.ERRORS, written, spent, usage)


def refused(batch: str, bad: BadLine, spent: Spent = Spent()) -> Result:
    """Return the result of a line that was not asked, or got no answer."""
    written = {
        "id": line_id(batch, bad.number),
        "custom_id": bad.custom_id,
        "response": None,
        "error": {"code": bad.code, "message": bad.message, "param": bad.param, "line": bad.number},
        "switchyard": {"line": bad.number, "cost_nano_usd": None if spent.unpriced else spent.cost},
    }
    return _result(Part.ERRORS, written, spent, None)


def expired(batch: str, number: int, custom_id: str | None, spent: Spent) -> Result:
    """Return the result of a line that the completion window left no time for."""
    message = "This line could not be executed before the completion window expired."
    result = refused(batch, BadLine(number, custom_id, "batch_expired", message), spent)
    return replace(result, counts=replace(result.counts, expired=1))


def _result(part: Part, written: dict[str, Any], spent: Spent, usage: Usage | None) -> Result:
    content = orjson.dumps(written) + b"\n"
    well = part is Part.OUTPUT
    counts = Counts(
        completed=int(well),
        failed=int(not well),
        output_bytes=len(content) if well else 0,
        error_bytes=0 if well else len(content),
        cost=spent.cost,
        unpriced=int(spent.unpriced),
    )
    if usage is not None:
        counts = replace(
            counts,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cache_read,
            reasoning_tokens=usage.reasoning,
        )
    return Result(part, content, counts)
