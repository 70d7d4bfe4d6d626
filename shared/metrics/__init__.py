"""Metrics: how the gateway is doing, by minute, model and project, over all instances."""

from __future__ import annotations

from shared.metrics.cells import Cell, Quantiles, Summary
from shared.metrics.series import DayTotals, Metrics, MetricsReport, Point

__all__ = ["Cell", "DayTotals", "Metrics", "MetricsReport", "Point", "Quantiles", "Summary"]
