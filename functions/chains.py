"""Chains on Durable Functions: orchestrators, activities, and the client that starts them. The only file that knows Durable.

Azure: Durable Task Scheduler, or Azure Storage, as host.json and the app settings say. On one machine the same functions run on
`local.durable`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import azure.durable_functions as df

from functions import chain_flow
from functions.engine import ENGINES
from functions.gateway import current
from functions.work import Stored
from functions.works import WORKS
from shared import background
from shared.core.chat import InferenceRequest
from shared.core.errors import GatewayError, StorageUnavailableError
from shared.core.records import Caller
from shared.gateway import Gateway

logger = logging.getLogger("switchyard.chains")

BLUEPRINT: Final = df.Blueprint()

RETRY: Final = df.RetryOptions(5_000, 2_000)
"""Every five seconds for some three hours: what activities raise is that the store does not answer."""
TELL_RETRY: Final = df.RetryOptions(30_000, 40)
"""A webhook's receiver has twenty minutes to come back."""


# ---- the client ------------------------------------------------------------------------------------------------------


class DurableEngine:
    """`shared.ports.ChainEngine` on the client that a Durable Functions binding gives."""

    name = background.DURABLE

    def __init__(self, client: df.DurableOrchestrationClient) -> None:
        self._client = client

    async def start(self, orchestrator: str, instance: str, given: Mapping[str, object]) -> None:
        """Start an orchestration; one of that instance id that runs already is left alone."""
        status = await self._asked(self._client.get_status(instance))
        if status is not None and status.runtime_status is not None:
            return
        await self._asked(self._client.start_new(orchestrator, instance, dict(given)))

    async def cancel(self, instance: str) -> None:
        """Raise the event ``cancel``."""
        await self._asked(self._client.raise_event(instance, chain_flow.CANCEL, True))  # noqa: FBT003 - the event's data

    @staticmethod
    async def _asked(asked: Awaitable[Any]) -> Any:
        try:
            return await asked
        except Exception as error:  # the library raises plain ones, whatever happened
            logger.warning("Durable Functions did not take a call: %s", type(error).__name__)
            message = "The engine of background work did not answer. Try again."
            raise StorageUnavailableError(message, retry_after=2.0) from error


ENGINES.use(lambda client: DurableEngine(df.DurableOrchestrationClient(client)))


# ---- chains ----------------------------------------------------------------------------------------------------------


@BLUEPRINT.orchestration_trigger(context_name="context")
def run_chain(context: df.DurableOrchestrationContext) -> chain_flow.Orchestration:
    """Drive a chain to its end."""
    return chain_flow.chain(context, retry=RETRY, tell_retry=TELL_RETRY)


@BLUEPRINT.activity_trigger(input_name="given")
async def attempt_chain(given: dict[str, Any]) -> dict[str, Any]:
    """Make one attempt."""
    return await _performed(given, lambda gateway: background.attempt(gateway, given, _read))


@BLUEPRINT.activity_trigger(input_name="given")
async def note_chain(given: dict[str, Any]) -> dict[str, Any]:
    """Write down what a chain is waiting for."""
    return await _performed(given, lambda gateway: background.note(gateway, given))


@BLUEPRINT.activity_trigger(input_name="given")
async def end_chain(given: dict[str, Any]) -> str:
    """Write a chain's end and its usage down."""
    gateway = await current()
    return await background.end(gateway, given)


@BLUEPRINT.activity_trigger(input_name="given")
async def notify_chain(given: dict[str, Any]) -> None:
    """Tell the webhook; raising makes the engine try again."""
    await background.notify(await current(), given)


async def _performed(given: Mapping[str, Any], perform: Callable[[Gateway], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Perform an activity. What the engine should try again is raised; a bug is logged and ends the chain."""
    try:
        return await perform(await current())
    except StorageUnavailableError:
        raise
    except GatewayError as error:
        logger.warning("The chain %s can't go on: %s", given["id"], error.message)
    except Exception:
        logger.exception("The chain %s failed by a bug", given["id"])
    return {"event": "broken"}


async def _read(gateway: Gateway, caller: Caller, path: str, body: dict[str, Any]) -> InferenceRequest:
    return await WORKS[path].read(Stored(gateway, caller), body)
