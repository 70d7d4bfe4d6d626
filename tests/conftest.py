"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# A slow machine is no defect: timings are never asserted, so an example may take as long as it takes.
settings.register_profile("switchyard", deadline=None)
settings.load_profile("switchyard")
