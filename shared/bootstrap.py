"""The composition root: settings in, one `Gateway` out. The only place that picks adapters."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from shared.adapters.clock import SystemClock
from shared.adapters.entra import EntraTokens, blocking_credential
from shared.adapters.entra_jwt import EntraTenant, EntraVerifier
from shared.adapters.providers import providers
from shared.adapters.redis_limits import open_redis
from shared.adapters.tables import open_tables
from shared.adapters.telemetry import open_telemetry
from shared.adapters.transport import open_transport
from shared.adapters.webhook import Webhook
from shared.alerts import Alerts
from shared.batches import Batches
from shared.budgets import Budgets
from shared.catalog import CatalogSource
from shared.chains import Chains
from shared.core.errors import ConfigurationError, NotFoundError
from shared.core.webhooks import may_connect
from shared.engines import Engines
from shared.feedback import Feedback
from shared.files import Files
from shared.gateway import Gateway
from shared.health_book import HealthBook
from shared.idempotency import Idempotency
from shared.keys import Keys
from shared.ledger import Ledger
from shared.limits import RateLimits
from shared.metrics import Metrics
from shared.ports import Clock, HttpTransport, LimitBackend, Tables, Telemetry
from shared.projects import Projects
from shared.responses import Responses
from shared.settings import SIMULATOR, Settings
from shared.shared_health import SharedHealth
from shared.traffic import Traffic
from shared.usage import UsageLog


async def open_gateway(settings: Settings, *, environment: Mapping[str, str]) -> Gateway:
    """Open everything a process needs; raise `ConfigurationError` when the catalog or a setting is wrong.

    ``environment`` is what the catalog's ``${NAME}`` refer to. A simulator must already run: its URL is ``settings.upstream``.
    """
    if settings.upstream == SIMULATOR:
        message = "SWITCHYARD_UPSTREAM=simulator needs a host that starts one, such as `make run`; give its URL instead."
        raise ConfigurationError(message)
    clock = SystemClock()
    transport = open_transport()
    tokens = EntraTokens()
    instance = f"{os.getpid():x}{secrets.token_hex(3)}"
    tables: Tables | None = None
    try:
        tables = open_tables(settings.storage, transport=transport, tokens=tokens, clock=clock)
        catalog = CatalogSource(
            settings.catalog, environment=environment, tables=tables, clock=clock, simulator_url=settings.upstream
        )
        await catalog.refresh()
        opened = _Opened(
            clock=clock,
            transport=transport,
            tokens=tokens,
            instance=instance,
            tables=tables,
            catalog=catalog,
            verifier=_verifier(settings, transport, clock),
            limits=None if settings.redis is None else open_redis(settings.redis.reveal(), clock, tokens=tokens),
            telemetry=open_telemetry(settings.telemetry, clock, instance, credential=blocking_credential),
        )
    except ConfigurationError:
        if tables is not None:
            await tables.aclose()
        await tokens.aclose()
        await transport.aclose()
        raise
    return _gateway(settings, opened)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What can fail to open; all else is made of it. ``limits`` is where limits per minute are counted, None for the tables."""

    clock: Clock
    transport: HttpTransport
    tokens: EntraTokens
    instance: str
    tables: Tables
    catalog: CatalogSource
    verifier: EntraVerifier | None
    limits: LimitBackend | None
    telemetry: Telemetry


def _gateway(settings: Settings, opened: _Opened) -> Gateway:
    tables, clock, instance = opened.tables, opened.clock, opened.instance
    usage = UsageLog(tables, clock)
    budgets = Budgets(tables, clock, webhook_hosts=settings.webhook_hosts)
    ledger = Ledger(tables, clock, instance, usage_until=usage.written_until)
    health = HealthBook()
    # Webhooks have a client of their own: it connects only to the addresses it has checked, and never through a proxy.
    outside = open_transport(limit=8, trust_env=False, admits=may_connect) if settings.webhook_hosts else None
    webhook = _webhook(settings, outside, clock)
    return Gateway(
        settings=settings,
        catalog=opened.catalog,
        providers=providers(opened.transport, opened.tokens),
        transport=opened.transport,
        tokens=opened.tokens,
        tables=tables,
        usage=usage,
        metrics=Metrics(tables, clock, instance),
        keys=Keys(tables, clock, settings.admin_key, budget_exists=_existing(budgets), verifier=opened.verifier),
        feedback=Feedback(tables, usage, clock),
        health=health,
        shared_health=SharedHealth(tables, clock, health, instance),
        budgets=budgets,
        ledger=ledger,
        limits=RateLimits(tables, clock, instance, backend=opened.limits),
        projects=Projects(tables, clock),
        idempotency=Idempotency(tables, clock),
        alerts=Alerts(tables, clock, budgets, ledger.balance, webhook),
        chains=Chains(tables, clock),
        engines=Engines(tables, clock),
        responses=Responses(tables, clock),
        files=Files(tables, clock),
        batches=Batches(tables, clock),
        traffic=Traffic(),
        clock=clock,
        telemetry=opened.telemetry,
        outside=outside,
        webhook=webhook,
    )


class _existing:  # noqa: N801  (a function that remembers the budgets)
    """Says whether there is a budget of an id."""

    __slots__ = ("_budgets",)

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets

    async def __call__(self, budget: str) -> bool:
        try:
            await self._budgets.get(budget)
        except NotFoundError:
            return False
        return True


def _verifier(settings: Settings, transport: HttpTransport, clock: Clock) -> EntraVerifier | None:
    if settings.entra_tenant is None or settings.entra_audience is None:
        return None
    tenant = EntraTenant(settings.entra_tenant, settings.entra_audience, settings.entra_project_claim)
    return EntraVerifier(tenant, transport, clock)


def _webhook(settings: Settings, transport: HttpTransport | None, clock: Clock) -> Webhook | None:
    if transport is None or settings.webhook_secret is None:
        return None
    return Webhook(transport, clock, hosts=settings.webhook_hosts, secret=settings.webhook_secret)
