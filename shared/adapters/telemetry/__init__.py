"""Telemetry: OpenTelemetry's data, handed to whichever exporter the environment names; nothing at all when it names none."""

from __future__ import annotations

from shared.adapters.telemetry.off import OFF

__all__ = ["OFF"]
