"""Metrics: how the gateway is doing, by minute, model and project, over all instances."""

from __future__ import annotations

from shared.metrics.cells import Quantiles, Summary
from shared.metrics.series import Metrics, MetricsReport, Point

__all__ = ["Metrics", "MetricsReport", "Point", "Quantiles", "Summary"]
