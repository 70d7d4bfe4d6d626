"""What happens without a request: probes of deployments that failed or fell silent, and writing down what is pending."""

from __future__ import annotations

from typing import Final

import azure.functions as func

from functions.gateway import current
from functions.http import new_request_id
from shared.executor import probe

BLUEPRINT: Final = func.Blueprint()  # type: ignore[no-untyped-call]  # the library is half typed

EVERY_HALF_MINUTE: Final = "*/30 * * * * *"
EVERY_TEN_SECONDS: Final = "*/10 * * * * *"


@BLUEPRINT.function_name("probe_deployments")
@BLUEPRINT.timer_trigger(arg_name="timer", schedule=EVERY_HALF_MINUTE, use_monitor=False)
async def probe_deployments(timer: func.TimerRequest) -> None:
    """Ask deployments whose breaker is open, or that were silent for long, whether they answer again."""
    del timer
    await probe(await current(), request_id=new_request_id)


@BLUEPRINT.function_name("write_pending")
@BLUEPRINT.timer_trigger(arg_name="timer", schedule=EVERY_TEN_SECONDS, use_monitor=False)
async def write_pending(timer: func.TimerRequest) -> None:
    """Write usage and metrics that wait, and take over what other instances registered."""
    del timer
    gateway = await current()
    await gateway.usage.flush()
    await gateway.metrics.flush()
    await gateway.catalog.refresh()
