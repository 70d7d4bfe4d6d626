"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.azurite.process import Azurite

# A slow machine is no defect: timings are never asserted, so an example may take as long as it takes.
settings.register_profile("switchyard", deadline=None)
settings.load_profile("switchyard")


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """Return the emulator that the tests share, in memory. Whoever kills or freezes one starts their own."""
    with Azurite() as running:
        yield running
