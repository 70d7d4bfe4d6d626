"""The one timer: what is due without a request (`functions.housekeeping`)."""

from __future__ import annotations

from typing import Final

import azure.functions as func

from functions.engine import engine_of
from functions.gateway import current
from functions.housekeeping import ROUNDS

BLUEPRINT: Final = func.Blueprint()  # type: ignore[no-untyped-call]  # the library is half typed

EVERY_MINUTE: Final = "20 * * * * *"


@BLUEPRINT.function_name("keep_house")
@BLUEPRINT.generic_input_binding(arg_name="client", type="durableClient")
@BLUEPRINT.timer_trigger(arg_name="timer", schedule=EVERY_MINUTE, use_monitor=False)
async def keep_house(timer: func.TimerRequest, client: str) -> None:
    """Do what is due."""
    del timer
    await ROUNDS.go(await current(), engine_of(client))
