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
CYCLE: Final = "gateway.budget.cycle"
"""How often a budget's period begins anew: day, week, month or total."""
QUEUE_STATE: Final = "gateway.queue.state"

# ---- spans -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpanAttribute:
    """What a span says. ``request`` and ``attempt`` are the spans that have it, where there is something to say."""

    name: str
    meaning: str
    request: bool = False
    attempt: bool = False


def _request(name: str, meaning: str) -> SpanAttribute:
    return SpanAttribute(name, meaning, request=True)


def _attempt(name: str, meaning: str) -> SpanAttribute:
    return SpanAttribute(name, meaning, attempt=True)


def _both(name: str, meaning: str) -> SpanAttribute:
    return SpanAttribute(name, meaning, request=True, attempt=True)


SPAN_ATTRIBUTES: Final = (
    _both(OPERATION, "`chat` or `embeddings`"),
    _both(REQUEST_MODEL, "the catalog's name of the model that answered, else of the first that was asked, else `(unknown)`"),
    _request(ORIGINAL_MODEL, "what the caller asked for: a model, an alias, `auto`, or anything else; 128 characters of it"),
    _attempt(RESPONSE_MODEL, "what the provider says answered"),
    _attempt(PROVIDER, "the provider in OpenTelemetry's words, as the catalog's `semconv_name` has it"),
    _both(DEPLOYMENT, "the deployment that was called; of a request the one that answered"),
    _attempt(REGION, "where it is, if the catalog says so"),
    _both(REQUEST_ID, "as in the header `x-request-id` and in log lines"),
    _request(CHAIN_ID, "of work in the background: the chain"),
    _both(PROJECT, "who pays"),
    _both(KEY_ID, "which key asked: its public id, never the key"),
    _request(TASK, "the task, given or detected"),
    _both(STREAM, "whether the answer is streamed"),
    _both(OUTCOME, "`succeeded`, or how it ended"),
    _both(ERROR_TYPE, "the outcome of what failed"),
    _attempt(STATUS_CODE, "the provider's HTTP status, if it refused"),
    _attempt(ATTEMPT, "1 for the first"),
    _request(ATTEMPTS, "how many deployments were called"),
    _both(TIME_TO_FIRST_CHUNK, "seconds until a stream's first content"),
    _attempt(INPUT_TOKENS, "tokens in, those of the cache included"),
    _attempt(OUTPUT_TOKENS, "tokens out, those of reasoning included"),
    _attempt(CACHE_READ_TOKENS, "of those in, read from the provider's cache"),
    _attempt(CACHE_CREATION_TOKENS, "of those in, written to it"),
    _attempt(REASONING_TOKENS, "of those out, spent on reasoning"),
    _both(COST, "billionths of a US dollar, a whole number; of a request the sum over its attempts; absent when not known"),
    _both(EXACT, "false where cost and tokens are an underestimate, as of a cut stream"),
    _both(SIMULATED, "true when the simulator answered"),
    _request(RECOVERED, "true when the process that served it died: this was told by another, from the ledger"),
    _request(INPUT_MESSAGES, "only where the operator opted in: what was asked, as JSON"),
    _request(OUTPUT_MESSAGES, "only where the operator opted in: what was answered, as JSON"),
)
"""Every attribute of a span there is."""

# ---- metrics -----------------------------------------------------------------------------------------------------------


class InstrumentKind(StrEnum):
    """What an instrument does with its values."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Instrument:
    """A metric. ``unit`` is UCUM's; annotations in braces are counts of that. ``attributes`` are the most it is told with.

    A gauge with ``peak`` tells the most that was seen since it told last: what lasts a moment would be missed otherwise.
    """

    name: str
    kind: InstrumentKind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    peak: bool = False


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
    "A deployment's circuit breaker at this instance, the worst since last told: 0 closed, 1 half open, 2 open.",
    (DEPLOYMENT, REQUEST_MODEL, PROVIDER, REGION),
    peak=True,
)
_OF_BUDGETS: Final = (BUDGET, PROJECT, CYCLE)
BUDGET_LIMIT: Final = Instrument(
    "gateway.budget.limit", InstrumentKind.GAUGE, "{nano_usd}", "What a budget allows in its period.", _OF_BUDGETS
)
BUDGET_SPENT: Final = Instrument(
    "gateway.budget.spent", InstrumentKind.GAUGE, "{nano_usd}", "What has been spent in a budget's period.", _OF_BUDGETS
)
BUDGET_HELD: Final = Instrument(
    "gateway.budget.held", InstrumentKind.GAUGE, "{nano_usd}", "What is held for calls in flight.", _OF_BUDGETS
)
BUDGET_BEGAN: Final = Instrument(
    "gateway.budget.period.start",
    InstrumentKind.GAUGE,
    "s",
    "When the period of a budget with days of its own began, in seconds since 1970. Days of UTC need no telling.",
    _OF_BUDGETS,
)
BUDGET_ENDS: Final = Instrument(
    "gateway.budget.period.end", InstrumentKind.GAUGE, "s", "When that period ends, in seconds since 1970.", _OF_BUDGETS
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
    BUDGET_BEGAN,
    BUDGET_ENDS,
    QUEUE_DEPTH,
    QUEUE_AGE,
    DROPPED,
)
"""Every metric there is."""
