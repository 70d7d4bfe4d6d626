"""The names under which Switchyard tells what it does: OpenTelemetry's GenAI conventions, and our own under ``gateway.``.

Source: github.com/open-telemetry/semantic-conventions-genai, which is still in development: so every string stands here, and
nowhere else. What Azure Monitor calls the same things is said in ``docs/telemetry.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SERVICE: Final = "switchyard"

# ---- attributes: GenAI and general conventions -------------------------------------------------------------------------

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_CREATION_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - a name
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
"""Seconds."""
ERROR_TYPE: Final = "error.type"
"""A `FailureKind` value (attempts) or an outcome (requests)."""
STATUS_CODE: Final = "http.response.status_code"

# ---- attributes: ours --------------------------------------------------------------------------------------------------

REQUEST_ID: Final = "gateway.request.id"
CHAIN_ID: Final = "gateway.chain.id"
PROJECT: Final = "gateway.project"
KEY_ID: Final = "gateway.key.id"
TASK: Final = "gateway.task"
STREAM: Final = "gateway.stream"
OUTCOME: Final = "gateway.outcome"
ORIGINAL_MODEL: Final = "gateway.model.original"
DEPLOYMENT: Final = "gateway.deployment"
DEPLOYMENT_FROM: Final = "gateway.deployment.from"
DEPLOYMENT_TO: Final = "gateway.deployment.to"
REGION: Final = "gateway.region"
ATTEMPT: Final = "gateway.attempt.number"
ATTEMPTS: Final = "gateway.attempts"
COST: Final = "gateway.cost"
"""Nano-USD, a whole number; absent when it is not known."""
EXACT: Final = "gateway.cost.exact"
SIMULATED: Final = "gateway.simulated"
RECOVERED: Final = "gateway.recovered"
BUDGET: Final = "gateway.budget.id"
BREAKER_STATE: Final = "gateway.breaker.state"
QUEUE_STATE: Final = "gateway.queue.state"

# ---- metrics -----------------------------------------------------------------------------------------------------------


class InstrumentKind(StrEnum):
    """What an instrument does with its values."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Instrument:
    """A metric. ``unit`` is UCUM's; annotations in braces are counts of that. ``attributes`` are the most it is told with."""

    name: str
    kind: InstrumentKind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()


_WHO: Final = (PROJECT, KEY_ID)
_WHERE: Final = (OPERATION, REQUEST_MODEL, PROVIDER, DEPLOYMENT, REGION)

REQUESTS: Final = Instrument(
    "gateway.requests",
    InstrumentKind.COUNTER,
    "{request}",
    "Requests that have ended, by how.",
    (OPERATION, REQUEST_MODEL, *_WHO, STREAM, OUTCOME, ERROR_TYPE),
)
REQUEST_DURATION: Final = Instrument(
    "gateway.request.duration",
    InstrumentKind.HISTOGRAM,
    "s",
    "How long callers waited, over all attempts.",
    (OPERATION, REQUEST_MODEL, PROJECT, STREAM, OUTCOME),
)
ATTEMPTS_MADE: Final = Instrument(
    "gateway.attempts",
    InstrumentKind.COUNTER,
    "{attempt}",
    "Calls to deployments, by how they ended.",
    (*_WHERE, OUTCOME, ERROR_TYPE),
)
FALLBACKS: Final = Instrument(
    "gateway.fallbacks",
    InstrumentKind.COUNTER,
    "{fallback}",
    "Failures of a deployment that were followed by an attempt at another.",
    (DEPLOYMENT_FROM, DEPLOYMENT_TO, ERROR_TYPE),
)
COST_SPENT: Final = Instrument(
    "gateway.cost",
    InstrumentKind.COUNTER,
    "{nano_usd}",
    "What attempts cost, in billionths of a US dollar; an attempt of unknown cost is not in it.",
    (*_WHERE, *_WHO, EXACT),
)
TOKENS: Final = Instrument(
    "gen_ai.client.token.usage",
    InstrumentKind.HISTOGRAM,
    "{token}",
    "Tokens of attempts, by type: input, output.",
    (*_WHERE, *_WHO, TOKEN_TYPE),
)
OPERATION_DURATION: Final = Instrument(
    "gen_ai.client.operation.duration",
    InstrumentKind.HISTOGRAM,
    "s",
    "How long attempts took.",
    (*_WHERE, ERROR_TYPE),
)
FIRST_CHUNK: Final = Instrument(
    "gen_ai.client.operation.time_to_first_chunk",
    InstrumentKind.HISTOGRAM,
    "s",
    "How long streamed attempts took to their first content.",
    _WHERE,
)
BREAKER: Final = Instrument(
    "gateway.breaker.state",
    InstrumentKind.GAUGE,
    "1",
    "A deployment's circuit breaker at this instance: 0 closed, 1 half open, 2 open.",
    (DEPLOYMENT, REQUEST_MODEL, PROVIDER, REGION),
)
BUDGET_LIMIT: Final = Instrument(
    "gateway.budget.limit", InstrumentKind.GAUGE, "{nano_usd}", "What a budget allows in its period.", (BUDGET, PROJECT)
)
BUDGET_SPENT: Final = Instrument(
    "gateway.budget.spent", InstrumentKind.GAUGE, "{nano_usd}", "What has been spent in a budget's period.", (BUDGET, PROJECT)
)
BUDGET_HELD: Final = Instrument(
    "gateway.budget.held", InstrumentKind.GAUGE, "{nano_usd}", "What is held for calls in flight.", (BUDGET, PROJECT)
)
QUEUE_DEPTH: Final = Instrument(
    "gateway.queue.depth", InstrumentKind.GAUGE, "{chain}", "Background work that has not ended, by state.", (QUEUE_STATE,)
)
QUEUE_AGE: Final = Instrument(
    "gateway.queue.age", InstrumentKind.GAUGE, "s", "How long the oldest piece of background work has waited to begin."
)
DROPPED: Final = Instrument(
    "gateway.telemetry.dropped",
    InstrumentKind.COUNTER,
    "{record}",
    "Requests whose spans were not told because telling could not keep up; their metrics were.",
)

INSTRUMENTS: Final = (
    REQUESTS,
    REQUEST_DURATION,
    ATTEMPTS_MADE,
    FALLBACKS,
    COST_SPENT,
    TOKENS,
    OPERATION_DURATION,
    FIRST_CHUNK,
    BREAKER,
    BUDGET_LIMIT,
    BUDGET_SPENT,
    BUDGET_HELD,
    QUEUE_DEPTH,
    QUEUE_AGE,
    DROPPED,
)
"""Every metric there is."""
