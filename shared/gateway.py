"""The one record of everything a use case may reach: built once by `shared.bootstrap`, passed down, replaced whole in tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.catalog import CatalogSource
from shared.core.registry import ProviderKind
from shared.feedback import Feedback
from shared.health_book import HealthBook
from shared.keys import Keys
from shared.metrics import Metrics
from shared.ports import Clock, HttpTransport, ModelProvider, Tables, TokenSource
from shared.settings import Settings
from shared.usage import UsageLog


@dataclass(frozen=True, slots=True)
class Gateway:
    """Ports and stores of one process."""

    settings: Settings
    catalog: CatalogSource
    providers: Mapping[ProviderKind, ModelProvider]
    transport: HttpTransport
    tokens: TokenSource
    tables: Tables
    usage: UsageLog
    metrics: Metrics
    keys: Keys
    feedback: Feedback
    health: HealthBook
    clock: Clock

    async def aclose(self) -> None:
        """Write what is pending, then close connections and the store."""
        await self.usage.aclose()
        await self.metrics.aclose()
        await self.tokens.aclose()
        await self.transport.aclose()
        await self.tables.aclose()
