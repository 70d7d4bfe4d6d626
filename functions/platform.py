"""The request and response types of the Functions worker's streaming extension, in one place and typed.

The worker only streams when this extension is imported, and then every HTTP handler must take its ``Request`` and return its
``Response``. They are Starlette's classes; the extension itself carries no types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
else:
    from azurefunctions.extensions.http.fastapi import Request, Response, StreamingResponse

__all__ = ["Request", "Response", "StreamingResponse"]
