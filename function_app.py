"""What the Functions worker looks for: the one app, with every trigger.

Importing the extension is what makes the worker stream. It costs half a second and the local host has no use for it, so it is
imported here only; its request and response types are Starlette's, which the handlers name.
"""

from __future__ import annotations

import azurefunctions.extensions.http.fastapi  # type: ignore[import-untyped]  # noqa: F401 - see above

from functions.surface import registered

app = registered()
