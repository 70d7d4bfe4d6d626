"""What happens without a request: probes, writing down what is pending, recovery, roll-ups, budget alerts."""

from __future__ import annotations

from typing import Final

import azure.functions as func

from functions.engine import engine_of
from functions.gateway import current
from functions.http import new_request_id
from functions.periods import iso
from shared import batching
from shared.background import sweep
from shared.executor import probe
from shared.gauges import tell
from shared.ledger.retention import KEPT_DAYS
from shared.recovery import recover

BLUEPRINT: Final = func.Blueprint()  # type: ignore[no-untyped-call]  # the library is half typed

EVERY_HALF_MINUTE: Final = "*/30 * * * * *"
EVERY_TEN_SECONDS: Final = "*/10 * * * * *"
EVERY_MINUTE: Final = "20 * * * * *"
EVERY_MINUTE_TOO: Final = "50 * * * * *"
EVERY_FIVE_MINUTES: Final = "40 */5 * * * *"
DAY: Final = 86_400.0


@BLUEPRINT.function_name("probe_deployments")
@BLUEPRINT.timer_trigger(arg_name="timer", schedule=EVERY_HALF_MINUTE, use_monitor=False)
async def probe_deployments(timer: func.TimerRequest) -> None:
    """Ask deployments whose breaker is open, or that were silent for long, whether they answer again."""
    del timer
    gateway = await current()
    await gateway.shared_health.exchange()
    await probe(gateway, request_id=new_request_id)
    await gateway.shared_health.exchange()


@BLUEPRINT.function_name("write_pending")
@BLUEPRINT.timer_trigger(arg_name="timer", schedule=EVERY_TEN_SECONDS, use_monitor=False)
async def write_pending(timer: func.TimerRequest) -> None:
    """Write usage and metrics that wait, and take over what other instances registered."""
    del timer
    gateway = await current()
    await gateway.usage.flush()
    await gateway.metrics.flush()
    await gateway.catalog.refresh()


@BLUEPRINT.function_name("recover_ledger")
@BLUEPRINT.timer_trigger(arg_name="timer", schedule=EVERY_TEN_SECONDS, use_monitor=False)
async def recover_ledger(timer: func.TimerRequest) -> None:
    """Settle what processes that died have left open, and write their usage down."""
    del timer
    await recover(await current())


@BLUEPRINT.function_name("raise_alerts")
@BLUEPRINT.timer_trigger(arg_name="timer", schedule=EVERY_MINUTE, use_monitor=False)
async def raise_alerts(timer: func.TimerRequest) -> None:
    """Tell of budgets that have passed a threshold."""
    del timer
    await (await current()).alerts.check()


@BLUEPRINT.function_name("tell_gauges")
@BLUEPRINT.timer_trigger(arg_name="timer", schedule=EVERY_MINUTE_TOO, use_monitor=False)
async def tell_gauges(timer: func.TimerRequest) -> None:
    """Tell how budgets and the work in the background stand."""
    del timer
    await tell(await current())


@BLUEPRINT.function_name("sweep_chains")
@BLUEPRINT.generic_input_binding(arg_name="client", type="durableClient")
@BLUEPRINT.timer_trigger(arg_name="timer", schedule=EVERY_MINUTE, use_monitor=False)
async def sweep_chains(timer: func.TimerRequest, client: str) -> None:
    """Start chains and batches that were stored and never started, and cancel again those that did not hear it."""
    del timer
    gateway, engine = await current(), engine_of(client)
    await sweep(gateway, engine)
    await batching.sweep(gateway, engine)


@BLUEPRINT.function_name("roll_up_usage")
@BLUEPRINT.timer_trigger(arg_name="timer", schedule=EVERY_FIVE_MINUTES, use_monitor=False)
async def roll_up_usage(timer: func.TimerRequest) -> None:
    """Add usage up, so that reports need not read every request; delete what is kept no longer."""
    del timer
    gateway = await current()
    now = gateway.clock.now()
    await gateway.usage.roll_up(now)
    await gateway.idempotency.prune()
    await gateway.chains.prune()
    await gateway.responses.prune()
    await gateway.batches.prune()
    await gateway.files.prune(gateway.batches.uses, gateway.batches.forget_output)
    await gateway.ledger.prune(iso(now - KEPT_DAYS * DAY)[:10])
    if gateway.settings.usage_days is not None:
        await gateway.usage.prune(iso(now - gateway.settings.usage_days * DAY)[:10])
