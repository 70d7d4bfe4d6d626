"""Telemetry: OpenTelemetry's data, handed to whichever exporter the environment names; nothing at all when it names none."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING

from shared.adapters.telemetry.off import OFF
from shared.core.errors import ConfigurationError
from shared.core.telemetry import Destination, TelemetryOptions
from shared.ports import Clock, Telemetry

if TYPE_CHECKING:
    from shared.adapters.telemetry.exporters import Exporters
    from shared.adapters.telemetry.pipeline import Pace

__all__ = ["OFF", "open_telemetry"]

_OTLP = "opentelemetry-exporter-otlp-proto-http"


def open_telemetry(
    options: TelemetryOptions,
    clock: Clock,
    instance: str,
    *,
    credential: Callable[[], object] | None = None,
    pace: Pace | None = None,
) -> Telemetry:
    """Return what tells as ``options`` say. Nothing is imported, and no thread runs, before something is told.

    ``instance`` names this process; ``pace`` is for tests. ``credential`` makes the identity Azure Monitor is told with, in the
    telemetry's thread.
    Raise `ConfigurationError` when what the destination needs is not installed.
    """
    if options.destination is Destination.OFF:
        return OFF
    if options.destination is Destination.OTLP:
        try:
            metadata.distribution(_OTLP)
        except metadata.PackageNotFoundError:
            message = (
                f"Telemetry by OTLP needs {_OTLP}: pip install -r requirements-local.txt, or set SWITCHYARD_TELEMETRY=off."
            )
            raise ConfigurationError(message) from None
    from shared.adapters.telemetry import pipeline  # noqa: PLC0415 - whoever tells nothing does not load it

    return pipeline.Pipeline(
        options,
        clock,
        instance,
        open_exporters=_opener(options, credential),
        entropy=lambda: int.from_bytes(os.urandom(24)),
        pace=pace or pipeline.Pace(),
    )


def _opener(options: TelemetryOptions, credential: Callable[[], object] | None) -> Callable[[], Exporters]:
    def open_exporters() -> Exporters:
        """Import the exporters: slow, so it is the telemetry's thread that calls this."""
        if options.destination is Destination.CONSOLE:
            from shared.adapters.telemetry import console  # noqa: PLC0415 - see above

            return console.open_exporters()
        if options.destination is Destination.OTLP:
            from shared.adapters.telemetry import otlp  # noqa: PLC0415 - see above

            return otlp.open_exporters(options.endpoint)
        from shared.adapters.telemetry import azure_monitor  # noqa: PLC0415 - see above

        secret = options.connection_string
        return azure_monitor.open_exporters("" if secret is None else secret.reveal(), credential)

    return open_exporters
