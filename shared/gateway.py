"""The one record of everything a use case may reach: built once by `shared.bootstrap`, passed down, replaced whole in tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.adapters.telemetry import OFF
from shared.alerts import Alerts, WebhookSender
from shared.batches import Batches
from shared.budgets import Budgets
from shared.catalog import CatalogSource
from shared.chains import Chains
from shared.core.registry import ProviderKind
from shared.engines import Engines
from shared.feedback import Feedback
from shared.files import Files
from shared.health_book import HealthBook
from shared.idempotency import Idempotency
from shared.keys import Keys
from shared.ledger import Ledger
from shared.limits import RateLimits
from shared.metrics import Metrics
from shared.ports import Clock, HttpTransport, ModelProvider, Tables, Telemetry, TokenSource
from shared.projects import Projects
from shared.responses import Responses
from shared.settings import Settings
from shared.shared_health import SharedHealth
from shared.traffic import Traffic
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
    shared_health: SharedHealth
    budgets: Budgets
    ledger: Ledger
    limits: RateLimits
    projects: Projects
    idempotency: Idempotency
    alerts: Alerts
    chains: Chains
    engines: Engines
    responses: Responses
    files: Files
    batches: Batches
    traffic: Traffic
    clock: Clock
    telemetry: Telemetry = OFF
    outside: HttpTransport | None = None
    """The HTTP client of webhooks, if there are any."""
    webhook: WebhookSender | None = None
    """Tells receivers outside that a budget passed a threshold or that work has ended."""

    @property
    def tells(self) -> bool:
        """Say whether anybody is told anything: what has to be read for it need not be when not."""
        return self.telemetry is not OFF

    async def aclose(self) -> None:
        """Write what is pending, then close connections and the store."""
        await self.shared_health.aclose()
        await self.budgets.aclose()
        await self.projects.aclose()
        await self.keys.aclose()
        await self.usage.aclose()
        await self.ledger.aclose()
        await self.limits.aclose()
        await self.metrics.aclose()
        await self.telemetry.aclose()
        await self.tables.aclose()
        await self.tokens.aclose()
        await self.transport.aclose()
        if self.outside is not None:
            await self.outside.aclose()
