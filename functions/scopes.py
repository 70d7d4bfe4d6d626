"""Whose data a caller may see: the administrator everybody's, any other key its own project's."""

from __future__ import annotations

from functions.http import Call
from shared.core.errors import PermissionDeniedError


def project_of(call: Call) -> str | None:
    """Return the project a report is limited to, None for all; raise `PermissionDeniedError` for another's."""
    asked, caller = call.query("project"), call.caller
    if caller.admin or asked == caller.project:
        return asked
    if asked is not None:
        message = f"This key belongs to the project `{caller.project}` and sees no other."
        raise PermissionDeniedError(message, param="project")
    return caller.project
