"""The providers through the real transport against the simulator: every protocol, whole and streamed, every fault."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import orjson
import pytest

from local.simulator import FaultKind as Fault
from local.simulator import Simulator
from shared.adapters.providers import providers
from shared.core.chat import Chunk, Completion, Operation, Usage
from shared.core.failures import Failed, FailureKind
from shared.core.registry import Auth, ProviderKind, Timeouts
from shared.ports import Call, ConnectError, HttpTransport
from tests.providers.conftest import MakeCall

K = FailureKind


@dataclass(frozen=True)
class Protocol:
    """A protocol as the simulator serves it: the end of its base URL and, for Azure's older paths, the API version."""

    kind: ProviderKind
    path: str
    api_version: str | None = None


PROTOCOLS = {
    "openai": Protocol(ProviderKind.OPENAI_COMPATIBLE, "/openai/v1"),
    "azure-v1": Protocol(ProviderKind.AZURE_OPENAI, "/azure"),
    "azure-dated": Protocol(ProviderKind.AZURE_OPENAI, "/azure", "2024-10-21"),
    "anthropic": Protocol(ProviderKind.ANTHROPIC, "/anthropic"),
}


class NoTokens:
    """A source that has no tokens."""

    async def token(self, scope: str) -> str:
        """Fail as a machine without an identity does."""
        message = f"No token for {scope}."
        raise ConnectError(message)

    async def aclose(self) -> None:
        """Hold nothing."""


class OneToken(NoTokens):
    """A source with one token."""

    async def token(self, scope: str) -> str:
        """Return it, whatever the scope."""
        return f"token-for {scope}"


@pytest.fixture(params=list(PROTOCOLS))
def protocol(request: pytest.FixtureRequest) -> Protocol:
    """Go through all protocols."""
    return PROTOCOLS[request.param]


@pytest.fixture
def ask(simulator: Simulator, make_call: MakeCall) -> MakeCall:
    """Return a maker of calls to the simulator."""

    def make(protocol: Protocol, *, stream: bool = False, **others: object) -> Call:
        return make_call(
            kind=protocol.kind,
            base_url=simulator.url + protocol.path,
            api_version=protocol.api_version,
            stream=stream,
            **others,
        )

    return make


async def collect(transport: HttpTransport, call: Call) -> list[Chunk | Failed]:
    """Read a stream to its end."""
    provider = providers(transport, NoTokens())[call.provider.kind]
    return [item async for batch in provider.stream(call) for item in batch]


async def complete(transport: HttpTransport, call: Call) -> Completion | Failed:
    """Ask for a whole answer."""
    return await providers(transport, NoTokens())[call.provider.kind].complete(call)


def text(items: list[Chunk | Failed]) -> str:
    """Return what a caller would read."""
    chunks = [item for item in items if isinstance(item, Chunk)]
    return "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk.payload["choices"])


def billed(simulator: Simulator) -> Usage:
    """Return what the simulator says it charged for the last attempt."""
    last = simulator.log()[-1].billed
    return Usage(last.input_tokens, last.output_tokens, last.cache_read, last.cache_creation, last.reasoning)


async def test_a_whole_answer(transport: HttpTransport, simulator: Simulator, ask: MakeCall, protocol: Protocol) -> None:
    """It comes in OpenAI's shape with the usage that was billed, the provider's request id, and our own id was sent."""
    simulator.script({"answer": "Grüße, 🌍!"})
    answer = await complete(transport, ask(protocol))
    assert isinstance(answer, Completion)
    assert answer.payload["object"] == "chat.completion"
    assert answer.payload["choices"][0]["message"]["content"] == "Grüße, 🌍!"
    assert answer.finish_reason == "stop"
    assert answer.usage is not None
    assert billed(simulator) == replace(answer.usage, service_tier=None)
    attempt = simulator.log()[-1]
    assert attempt.request_id in answer.headers.values()
    assert attempt.headers["x-request-id"] == "req_01JABCDEFGHJKMNPQRSTVWXYZ0"
    assert attempt.model == "target-model"


async def test_a_streamed_answer(transport: HttpTransport, simulator: Simulator, ask: MakeCall, protocol: Protocol) -> None:
    """The text is whole, one finish reason comes, the usage billed is reported last, in a chunk without choices."""
    simulator.script({"answer": "Grüße, 🌍! Alles gut."})
    items = await collect(transport, ask(protocol, stream=True))
    chunks = [item for item in items if isinstance(item, Chunk)]
    assert items == chunks
    assert text(items) == "Grüße, 🌍! Alles gut."
    assert sum(chunk.text_length for chunk in chunks) == len("Grüße, 🌍! Alles gut.")
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    last = chunks[-1]
    assert last.usage is not None
    assert billed(simulator) == replace(last.usage, service_tier=None)
    assert last.payload["choices"] == []
    assert last.payload["usage"]["completion_tokens"] == last.usage.output_tokens
    assert all(chunk.payload["object"] == "chat.completion.chunk" for chunk in chunks)


HARMLESS = [Fault.EMOJI_SPLIT, Fault.SPLIT_EVERY_BYTE, Fault.SSE_ODD, Fault.SLOW, Fault.ASYNC_FILTER]


@pytest.mark.parametrize("fault", HARMLESS)
@pytest.mark.parametrize("stream", [False, True])
async def test_odd_but_complete_answers_are_read(
    transport: HttpTransport, simulator: Simulator, ask: MakeCall, protocol: Protocol, fault: Fault, *, stream: bool
) -> None:
    """Split characters, comments, CRLF, marks and delays change nothing."""
    simulator.script({"answer": "Grüße, 🌍!", "faults": [fault]})
    if stream:
        items = await collect(transport, ask(protocol, stream=True))
        assert not [item for item in items if isinstance(item, Failed)]
        assert text(items) == "Grüße, 🌍!"
    else:
        answer = await complete(transport, ask(protocol))
        assert isinstance(answer, Completion)
        assert answer.payload["choices"][0]["message"]["content"] == "Grüße, 🌍!"


WHOLE: dict[Fault, FailureKind | None] = {
    Fault.RATE_LIMITED_S: K.RATE_LIMITED,
    Fault.RATE_LIMITED_MS: K.RATE_LIMITED,
    Fault.RATE_LIMITED_DATE: K.RATE_LIMITED,
    Fault.RATE_LIMITED_NONE: K.RATE_LIMITED,
    Fault.INSUFFICIENT_QUOTA: K.QUOTA_EXHAUSTED,
    Fault.SERVER_ERROR: K.SERVER_ERROR,
    Fault.BAD_GATEWAY_HTML: K.SERVER_ERROR,
    Fault.UNAVAILABLE: K.OVERLOADED,
    Fault.GATEWAY_TIMEOUT: K.TIMEOUT,
    Fault.OVERLOADED: K.OVERLOADED,
    Fault.REQUEST_TIMEOUT: K.TIMEOUT,
    Fault.UNAUTHORIZED: K.UNAUTHORIZED,
    Fault.FORBIDDEN: K.UNAUTHORIZED,
    Fault.DEPLOYMENT_NOT_FOUND: K.DEPLOYMENT_NOT_FOUND,
    Fault.GONE: K.GONE,
    Fault.INVALID_REQUEST: K.INVALID_REQUEST,
    Fault.CONTEXT_LENGTH: K.CONTEXT_LENGTH,
    Fault.CONTENT_FILTER: K.CONTENT_FILTER,
    Fault.REDIRECT: K.BAD_RESPONSE,
    Fault.HANG_BEFORE_HEADERS: K.TIMEOUT,
    Fault.HANG_AFTER_HEADERS: K.TIMEOUT,
    Fault.HANG_MID_STREAM: K.TIMEOUT,
    Fault.RESET_BEFORE_HEADERS: K.DISCONNECTED,
    Fault.CLOSE_BEFORE_HEADERS: K.DISCONNECTED,
    Fault.RESET_MID_STREAM: K.DISCONNECTED,
    Fault.CUT_MID_STREAM: K.DISCONNECTED,
    Fault.ENDS_MID_STREAM: K.BAD_RESPONSE,
    Fault.GARBAGE: K.BAD_RESPONSE,
    Fault.WRONG_CONTENT_TYPE: K.BAD_RESPONSE,
    Fault.TRUNCATED_JSON: K.BAD_RESPONSE,
    Fault.ERROR_IN_BODY: K.RATE_LIMITED,
    Fault.ERROR_FIRST_EVENT: K.RATE_LIMITED,
    Fault.ERROR_MID_STREAM: K.RATE_LIMITED,
    Fault.NO_DONE: K.BAD_RESPONSE,
    Fault.EMPTY_CHOICES: K.EMPTY_RESPONSE,
    Fault.HUGE_BODY: K.RESPONSE_TOO_LARGE,
    Fault.FILTERED_OUTPUT: None,
    Fault.USAGE_MISSING: None,
    Fault.SLOW_DRIP: K.TIMEOUT,
}
"""What each fault means for a whole answer; None is an answer."""

STREAMED: dict[Fault, FailureKind | None] = WHOLE | {
    Fault.ENDS_MID_STREAM: K.DISCONNECTED,
    Fault.ERROR_MID_STREAM: K.SERVER_ERROR,
    Fault.NO_DONE: None,  # the finish reason came: OpenAI's vendors are believed, see below for Anthropic
}
"""The same for streams, where it differs."""

AFTER_CONTENT = {
    Fault.HANG_MID_STREAM,
    Fault.RESET_MID_STREAM,
    Fault.CUT_MID_STREAM,
    Fault.ENDS_MID_STREAM,
    Fault.TRUNCATED_JSON,
    Fault.ERROR_MID_STREAM,
    Fault.NO_DONE,
}


def test_every_fault_the_simulator_knows_is_tried() -> None:
    """A fault that is added there must be decided here."""
    assert set(Fault) == {Fault.OK, *WHOLE, *HARMLESS}


HANGING = {
    Fault.HANG_BEFORE_HEADERS,
    Fault.HANG_AFTER_HEADERS,
    Fault.HANG_MID_STREAM,
    Fault.SLOW_DRIP,
}
SHORT = Timeouts(connect=0.4, first_content=0.4, idle=0.2, whole=0.5)


def limits(fault: Fault) -> Timeouts | None:
    """Do not wait long for what never comes."""
    return SHORT if fault in HANGING else None


@pytest.mark.parametrize("fault", list(WHOLE))
async def test_faults_of_whole_answers(
    transport: HttpTransport, simulator: Simulator, ask: MakeCall, protocol: Protocol, fault: Fault
) -> None:
    """Each is the kind the table says; no message shows the key, the address or the body."""
    simulator.script({"faults": [{"kind": fault, "delay_ms": 20}], "answer": "word " * 40})
    answer = await complete(transport, ask(protocol, timeouts=limits(fault)))
    expected = WHOLE[fault]
    if expected is None:
        assert isinstance(answer, Completion)
        return
    assert isinstance(answer, Failed)
    assert answer.kind == expected
    assert "canary" not in answer.message
    assert "127.0.0.1" not in answer.message
    assert "<html" not in answer.message


@pytest.mark.parametrize("fault", list(STREAMED))
async def test_faults_of_streams(
    transport: HttpTransport, simulator: Simulator, ask: MakeCall, protocol: Protocol, fault: Fault
) -> None:
    """A failure is the last event, of the kind the table says; content came before it only where the fault lets it."""
    simulator.script({"faults": [{"kind": fault, "delay_ms": 20}], "answer": "word " * 40})
    items = await collect(transport, ask(protocol, stream=True, timeouts=limits(fault)))
    expected = STREAMED[fault]
    if fault is Fault.NO_DONE and protocol.kind is ProviderKind.ANTHROPIC:
        expected = K.DISCONNECTED  # message_stop belongs to the protocol
    failures = [item for item in items if isinstance(item, Failed)]
    if expected is None:
        assert failures == []
        return
    assert failures == items[-1:]
    assert failures[0].kind == expected
    content = any(isinstance(item, Chunk) and item.content for item in items)
    assert content == (fault in AFTER_CONTENT)


@pytest.mark.parametrize(
    ("fault", "low", "high"),
    [
        (Fault.RATE_LIMITED_S, 7, 7),
        (Fault.RATE_LIMITED_MS, 7, 7),
        (Fault.RATE_LIMITED_DATE, 5.9, 8.1),
        (Fault.UNAVAILABLE, 7, 7),
        (Fault.OVERLOADED, 7, 7),
    ],
)
async def test_the_providers_own_wait_is_honoured(
    transport: HttpTransport, simulator: Simulator, ask: MakeCall, protocol: Protocol, fault: Fault, low: float, high: float
) -> None:
    """Seconds, milliseconds and dates all arrive as seconds."""
    simulator.script({"faults": [{"kind": fault, "retry_after_s": 7}]})
    answer = await complete(transport, ask(protocol))
    assert isinstance(answer, Failed)
    assert answer.retry_after is not None
    assert low <= answer.retry_after <= high


async def test_the_callers_mistakes_are_told_in_the_providers_words(
    transport: HttpTransport, simulator: Simulator, ask: MakeCall, protocol: Protocol
) -> None:
    """Message, OpenAI's code and the status reach the caller; so does the provider's request id."""
    message = "Output blocked by content filtering policy."
    simulator.script({"faults": [{"kind": Fault.CONTENT_FILTER, "message": message}, Fault.CONTEXT_LENGTH]})
    refused = await complete(transport, ask(protocol))
    too_long = await complete(transport, ask(protocol))
    assert isinstance(refused, Failed)
    assert isinstance(too_long, Failed)
    assert (refused.code, refused.status) == ("content_filter", 400)
    assert refused.message == message
    assert too_long.code == "context_length_exceeded"
    assert refused.provider_request_id == simulator.log()[0].request_id


async def test_leaving_a_stream_drops_the_connection(
    transport: HttpTransport, simulator: Simulator, ask: MakeCall, protocol: Protocol
) -> None:
    """A caller who is gone costs no more tokens: the provider sees the disconnect."""
    simulator.script({"chunk_gap_ms": 30, "words": 200})
    provider = providers(transport, NoTokens())[protocol.kind]
    stream = provider.stream(ask(protocol, stream=True))
    await anext(stream)
    await stream.aclose()
    async with asyncio.timeout(2):
        while simulator.log()[-1].outcome == "in_flight":
            await asyncio.sleep(0.01)
    assert simulator.log()[-1].disconnected


async def test_connections_are_used_again_after_a_complete_stream(
    transport: HttpTransport, simulator: Simulator, ask: MakeCall, protocol: Protocol
) -> None:
    """The end of the HTTP body is read, too, so that the next call need not connect."""
    for _ in range(3):
        await collect(transport, ask(protocol, stream=True))
    assert [attempt.outcome for attempt in simulator.log()] == ["answered"] * 3


async def test_a_cancelled_call_is_cancelled(
    transport: HttpTransport, simulator: Simulator, ask: MakeCall, protocol: Protocol
) -> None:
    """Cancellation is the one thing that is raised."""
    simulator.script({"faults": [Fault.HANG_BEFORE_HEADERS]})
    task = asyncio.create_task(complete(transport, ask(protocol)))
    while not simulator.log():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("name", ["openai", "azure-v1", "azure-dated"])
async def test_embeddings(transport: HttpTransport, ask: MakeCall, name: str) -> None:
    """Embeddings come as they are, with usage."""
    payload = {"model": "auto", "input": ["one", "two"]}
    answer = await complete(transport, ask(PROTOCOLS[name], payload=payload, operation=Operation.EMBEDDINGS))
    assert isinstance(answer, Completion)
    assert len(answer.payload["data"]) == 2
    assert answer.usage is not None
    assert answer.usage.input_tokens > 0
    assert answer.finish_reason is None


async def test_nobody_listens(transport: HttpTransport, make_call: MakeCall) -> None:
    """A refused connection was never sent, whole or streamed."""
    call = make_call(base_url="http://127.0.0.1:9/v1")
    answer = await complete(transport, call)
    assert isinstance(answer, Failed)
    assert answer.kind is K.CONNECTION
    items = await collect(transport, replace(call, stream=True))
    assert [item.kind for item in items if isinstance(item, Failed)] == [K.CONNECTION]


async def test_entra_tokens_are_sent_as_bearer(transport: HttpTransport, simulator: Simulator, ask: MakeCall) -> None:
    """No key, a token for the provider's scope; without a token nothing is sent."""
    call = ask(PROTOCOLS["azure-v1"], auth=Auth.ENTRA, credential=None)
    answer = await providers(transport, OneToken())[call.provider.kind].complete(call)
    assert isinstance(answer, Completion)
    assert simulator.log()[-1].credentials == ("authorization",)
    refused = await complete(transport, call)
    assert isinstance(refused, Failed)
    assert refused.kind is K.CONNECTION
    assert len(simulator.log()) == 1


async def test_the_whole_deadline_also_ends_a_stream_that_drips(
    transport: HttpTransport, simulator: Simulator, ask: MakeCall, protocol: Protocol
) -> None:
    """Events that keep coming within the idle limit do not prolong the attempt."""
    simulator.script({"chunk_gap_ms": 50, "words": 500})
    short = Timeouts(connect=1, first_content=1, idle=0.3, whole=0.6)
    items = await collect(transport, ask(protocol, stream=True, timeouts=short))
    last = items[-1]
    assert isinstance(last, Failed)
    assert last.kind is K.TIMEOUT
    assert len(items) < 250  # of 25 seconds' 500


@pytest.mark.parametrize("stream", [False, True])
async def test_tools(transport: HttpTransport, ask: MakeCall, protocol: Protocol, *, stream: bool) -> None:
    """A forced tool call comes back in OpenAI's shape from every protocol, and its result is accepted."""
    function = {"name": "look_up", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    messages: list[dict[str, object]] = [{"role": "user", "content": "How warm is it in Oslo?"}]
    payload = {"messages": messages, "tools": [{"type": "function", "function": function}], "tool_choice": "required"}
    if stream:
        items = await collect(transport, ask(protocol, payload=payload, stream=True))
        chunks = [item for item in items if isinstance(item, Chunk)]
        assert items == chunks
        parts = [c for chunk in chunks for choice in chunk.payload["choices"] for c in choice["delta"].get("tool_calls", ())]
        name = "".join(part["function"].get("name") or "" for part in parts)
        arguments = "".join(part["function"].get("arguments") or "" for part in parts)
        finish = [chunk.finish_reason for chunk in chunks if chunk.finish_reason]
        call_id = parts[0]["id"]
    else:
        answer = await complete(transport, ask(protocol, payload=payload))
        assert isinstance(answer, Completion)
        [made] = answer.payload["choices"][0]["message"]["tool_calls"]
        name, arguments, call_id = made["function"]["name"], made["function"]["arguments"], made["id"]
        finish = [str(answer.finish_reason)]
    assert (name, finish) == ("look_up", ["tool_calls"])
    assert isinstance(orjson.loads(arguments), dict)
    turn = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    messages += [{"role": "assistant", "content": None, "tool_calls": [turn]}]
    messages += [{"role": "tool", "tool_call_id": call_id, "content": "21 °C"}]
    answer = await complete(transport, ask(protocol, payload={**payload, "tool_choice": "none"}))
    assert isinstance(answer, Completion)
    assert answer.finish_reason == "stop"
