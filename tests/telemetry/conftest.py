"""The executor's bench, for telemetry."""

from __future__ import annotations

from tests.executor.conftest import bench

__all__ = ["bench"]
