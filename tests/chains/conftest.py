"""The executor's bench, for chains."""

from __future__ import annotations

from tests.executor.conftest import bench

__all__ = ["bench"]
