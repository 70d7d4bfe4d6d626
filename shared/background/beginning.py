"""How a chain begins: planned, stored, given to an engine; and how it is waited for and cancelled."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from shared.background.places import place_out
from shared.chains import Chain, Kind, State
from shared.core.chain import (
    CURRENT,
    Plan,
    chain_policy,
    plan_out,
)
from shared.core.chat import InferenceRequest
from shared.core.errors import ConflictError, GatewayError, StorageUnavailableError
from shared.core.ids import instance_id
from shared.core.records import Caller
from shared.execution import Execution
from shared.executor import outcome_name
from shared.gateway import Gateway
from shared.ports import ChainEngine

DURABLE: Final = "durable"
"""The name of an engine that never forgets."""
ORCHESTRATOR: Final = "run_chain"
NO_RIGHT_CODE: Final = "invalid_api_key"
"""The code of a failure whose cause is that a key lost the right to what it had asked for."""
LONGEST_PAUSE: Final = 1.0
"""Seconds between two looks at a chain that is waited for, at the most."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewChain:
    """What a chain is to be. ``deadline`` is seconds from now; ``body`` is read again by the endpoint at ``path``."""

    id: str
    request_id: str
    kind: Kind
    path: str
    body: bytes
    deadline: float
    webhook: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


async def start(gateway: Gateway, engine: ChainEngine, caller: Caller, request: InferenceRequest, new: NewChain) -> Chain:
    """Plan a request, store it as a chain and have the engine run it; raise the `GatewayError` of a plan that finds nobody.

    With the id of a chain that is there, that one is returned. Once the chain is stored it will run: if the engine does not
    answer now, `sweep` starts it.
    """
    chain = await gateway.chains.find(new.id)
    if chain is None:
        chain = await _created(gateway, engine, caller, request, new)
    elif chain.caller.key_id != caller.key_id:
        message = "There is another chain of this id."
        raise ConflictError(message)
    if chain.state is State.QUEUED:
        try:
            await launch(engine, chain)
        except StorageUnavailableError as error:
            _log.warning("The chain %s will be started later: %s", chain.id, error.message)
    return chain


async def _created(gateway: Gateway, engine: ChainEngine, caller: Caller, request: InferenceRequest, new: NewChain) -> Chain:
    execution = Execution(gateway, caller, request, new.request_id)
    try:
        await execution.admit()
        route = await execution.plan()
    except GatewayError as error:
        execution.close(outcome_name(error))
        raise
    plan = Plan(
        route.task,
        route.candidates,
        chain_policy(execution.registry.policy.failover, new.deadline),
        jitter=execution.draw,
        cost_cap=request.requirements.budget_limit,
    )
    requirements = request.requirements
    now = gateway.clock.now()
    chain = Chain(
        new.id,
        new.kind,
        new.request_id,
        new.path,
        caller,
        plan_out(plan),
        created_at=now,
        deadline=now + new.deadline,
        version=CURRENT,
        engine=engine.name,
        webhook=new.webhook,
        facts={
            **new.facts,
            "operation": requirements.operation,
            "model": requirements.model[:256],
            "task": requirements.task,
            **place_out(execution.place),
        },
    )
    return await gateway.chains.create(chain, new.body, orjson.dumps(execution.trace()))


async def launch(engine: ChainEngine, chain: Chain) -> None:
    """Have the engine run a chain; one that it runs already is left alone."""
    given = {
        "id": chain.id,
        "version": chain.version,
        "began": chain.created_at,
        "plan": dict(chain.plan),
        "webhook": chain.webhook is not None,
    }
    await engine.start(ORCHESTRATOR, instance_id(chain.id, chain.created_at), given)


async def cancel(gateway: Gateway, engine: ChainEngine, chain_id: str) -> Chain:
    """Ask a chain to end. One that has ended stays as it is. Raise `NotFoundError`, `StorageUnavailableError`."""
    chain = await gateway.chains.change(chain_id, lambda one: one if one.cancelling else replace(one, cancelling=True))
    if not chain.state.ended:
        await engine.cancel(instance_id(chain.id, chain.created_at))
    return chain


async def wait_for(gateway: Gateway, chain_id: str, seconds: float) -> Chain:
    """Return a chain as soon as it has ended, or as it is after so many seconds."""
    until, pause = gateway.clock.monotonic() + seconds, 0.05
    while True:
        chain = await gateway.chains.get(chain_id)
        left = until - gateway.clock.monotonic()
        if chain.state.ended or left <= 0:
            return chain
        await gateway.clock.sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)
