"""Whether what was published serves: `GET /v1/health/live` until it answers with the package's name."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from deploy.errors import DeployError

PATH: Final = "/v1/health/live"
PATIENCE: Final = 600.0
"""Seconds: a first start waits for role assignments to spread, which takes minutes."""

_PAUSE = 5.0
_ONE_ANSWER: Final = 60.0
_GLANCE: Final = 10.0
_FEW: Final = 1024


def wait(
    endpoint: str,
    *,
    build: str | None = None,
    patience: float = PATIENCE,
    say: Callable[[str], None] = print,
) -> str:
    """Ask until the endpoint answers well, and with ``build`` if given; return the name of the package that serves.

    Raise `DeployError` after ``patience`` seconds, with what it last saw. Every change of what it sees is said once.
    """
    deadline = time.monotonic() + patience
    last = ""
    while True:
        serving, seen = _look(endpoint)
        if serving is not None and build in {None, serving}:
            return serving
        if serving is not None:
            seen = f"package {serving or '(unnamed)'} still answers"
        if seen != last:
            say(f"  {endpoint}{PATH}: {seen}")
            last = seen
        if time.monotonic() + _PAUSE > deadline:
            message = f"{endpoint}{PATH} is not well after {patience:.0f} seconds: {seen}."
            raise DeployError(message)
        time.sleep(_PAUSE)


def serving(endpoint: str) -> str | None:
    """Ask once, not for long; return the name of the package that serves, None if none does."""
    return _look(endpoint, _GLANCE)[0]


def _look(endpoint: str, timeout: float = _ONE_ANSWER) -> tuple[str | None, str]:
    """Return the serving package's name, or None; and what was seen, in words."""
    if not endpoint.startswith(("https://", "http://127.0.0.1:")):
        message = f"`{endpoint}` is not an https:// address."
        raise DeployError(message)
    request = urllib.request.Request(f"{endpoint.rstrip('/')}{PATH}", headers={"accept": "application/json"})  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - checked above
            body: Any = json.loads(answer.read(_FEW))
    except urllib.error.HTTPError as error:
        return None, f"answers {error.code} {HTTPStatus(error.code).phrase if error.code in set(HTTPStatus) else ''}".rstrip()
    except OSError as error:
        return None, f"does not answer ({getattr(error, 'reason', error)})"
    except (ValueError, http.client.HTTPException):
        return None, "answers something that is not ours"
    if not isinstance(body, dict) or body.get("status") != "alive":
        return None, "answers something that is not ours"
    return str(body.get("build", "")), "alive"
