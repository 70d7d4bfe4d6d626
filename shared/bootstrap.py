"""The composition root: settings in, one `Gateway` out. The only place that picks adapters."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

from shared.adapters.clock import SystemClock
from shared.adapters.entra import EntraTokens
from shared.adapters.providers import providers
from shared.adapters.tables import open_tables
from shared.adapters.transport import open_transport
from shared.catalog import CatalogSource
from shared.core.errors import ConfigurationError
from shared.feedback import Feedback
from shared.gateway import Gateway
from shared.health_book import HealthBook
from shared.keys import Keys
from shared.metrics import Metrics
from shared.settings import SIMULATOR, Settings
from shared.usage import UsageLog


async def open_gateway(settings: Settings, *, environment: Mapping[str, str]) -> Gateway:
    """Open everything a process needs; raise `ConfigurationError` when the catalog or a setting is wrong.

    ``environment`` is what the catalog's ``${NAME}`` refer to. A simulator must already run: its URL is ``settings.upstream``.
    """
    if settings.upstream == SIMULATOR:
        message = "SWITCHYARD_UPSTREAM=simulator needs a host that starts one, such as `make run`; give its URL instead."
        raise ConfigurationError(message)
    clock = SystemClock()
    tables = open_tables(settings.storage)
    catalog = CatalogSource(
        settings.catalog, environment=environment, tables=tables, clock=clock, simulator_url=settings.upstream
    )
    try:
        await catalog.refresh()
    except ConfigurationError:
        await tables.aclose()
        raise
    transport = open_transport()
    tokens = EntraTokens()
    usage = UsageLog(tables, clock)
    instance = f"{os.getpid():x}{secrets.token_hex(3)}"
    return Gateway(
        settings=settings,
        catalog=catalog,
        providers=providers(transport, tokens),
        transport=transport,
        tokens=tokens,
        tables=tables,
        usage=usage,
        metrics=Metrics(tables, clock, instance),
        keys=Keys(tables, clock, settings.admin_key),
        feedback=Feedback(tables, usage, clock),
        health=HealthBook(),
        clock=clock,
    )
