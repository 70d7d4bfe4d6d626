"""Chains on Durable Functions: orchestrators, activities, and the client that starts them. The only file that knows Durable.

Azure: Durable Task Scheduler, or Azure Storage, as host.json and the app settings say. On one machine the same functions run on
`local.durable`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import azure.durable_functions as df  # type: ignore[import-untyped]  # it ships no types

from functions import batch_flow, chain_flow
from functions.batch_wire import Endpoints
from functions.engine import ENGINES
from functions.gateway import current
from functions.problems import logged
from functions.work import Stored
from functions.works import WORKS
from shared import background, batching
from shared.chain_outcomes import notify
from shared.core.chat import InferenceRequest
from shared.core.errors import GatewayError, NotFoundError, StorageUnavailableError
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
        if await self._status(instance) is None:  # the library would replace what is there
            await self._asked(self._client.start_new(orchestrator, instance, dict(given)))

    async def cancel(self, instance: str) -> None:
        """Raise the event ``cancel``; nothing happens when the instance is not running."""
        if await self._status(instance) in {df.OrchestrationRuntimeStatus.Running, df.OrchestrationRuntimeStatus.Pending}:
            data = True
            await self._asked(self._client.raise_event(instance, chain_flow.CANCEL, data))

    async def _status(self, instance: str) -> df.OrchestrationRuntimeStatus | None:
        """Return where an instance stands, None when there is none."""
        found = await self._asked(self._client.get_status(instance))
        return None if found is None else found.runtime_status

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


def run_chain(context: df.DurableOrchestrationContext) -> chain_flow.Orchestration:
    """Drive a chain to its end."""
    return chain_flow.chain(context, retry=RETRY, tell_retry=TELL_RETRY)


async def attempt_chain(given: dict[str, Any]) -> dict[str, Any]:
    """Make one attempt."""
    return await _performed(given, lambda gateway: background.attempt(gateway, given, _read))


async def note_chain(given: dict[str, Any]) -> dict[str, Any]:
    """Write down what a chain is waiting for."""
    return await _performed(given, lambda gateway: background.note(gateway, given))


async def end_chain(given: dict[str, Any]) -> str:
    """Write a chain's end and its usage down."""
    gateway = await current()
    try:
        return await background.end(gateway, given)
    except NotFoundError:  # deleted meanwhile: there is nothing left to write the end to
        return "gone"


async def notify_chain(given: dict[str, Any]) -> None:
    """Tell the webhook; raising makes the engine try again."""
    await notify(await current(), given)


async def _performed(given: Mapping[str, Any], perform: Callable[[Gateway], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Perform an activity. What the engine should try again is raised; a bug is logged and ends the chain or batch."""
    try:
        return await perform(await current())
    except StorageUnavailableError:
        raise
    except GatewayError as error:
        logger.warning("The work %s can't go on: %s", given["id"], logged(error))
    except Exception:
        logger.exception("The work %s failed by a bug", given["id"])
    return {"event": "broken", "state": "broken"}


async def _read(gateway: Gateway, caller: Caller, path: str, body: dict[str, Any]) -> InferenceRequest:
    return await WORKS[path].read(Stored(gateway, caller), body)


# ---- batches ---------------------------------------------------------------------------------------------------------


def run_batch(context: df.DurableOrchestrationContext) -> chain_flow.Orchestration:
    """Run a batch to its end."""
    return batch_flow.batch(context, retry=RETRY, tell_retry=TELL_RETRY)


async def prepare_batch(given: dict[str, Any]) -> dict[str, Any]:
    """Look through more of a batch's file."""
    return await _performed(given, lambda gateway: batching.prepare(gateway, given))


async def run_slice(given: dict[str, Any]) -> dict[str, Any]:
    """Run some lines of a batch."""
    return await _performed(given, lambda gateway: batching.run_slice(gateway, given, Endpoints()))


async def end_batch(given: dict[str, Any]) -> str:
    """Write a batch's end down and make its files."""
    return await batching.end(await current(), given)


async def notify_batch(given: dict[str, Any]) -> None:
    """Tell the webhook; raising makes the engine try again."""
    await batching.notify(await current(), given)


# ---- registration ----------------------------------------------------------------------------------------------------

ORCHESTRATORS: Final[tuple[Callable[..., Any], ...]] = (run_chain, run_batch)
ACTIVITIES: Final[tuple[Callable[..., Awaitable[Any]], ...]] = (
    attempt_chain,
    note_chain,
    end_chain,
    notify_chain,
    prepare_batch,
    run_slice,
    end_batch,
    notify_batch,
)

for orchestrator in ORCHESTRATORS:
    BLUEPRINT.orchestration_trigger(context_name="context")(orchestrator)
for activity in ACTIVITIES:
    BLUEPRINT.activity_trigger(input_name="given")(activity)
