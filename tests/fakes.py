"""State-based fakes: a clock that is moved by hand, providers that obey a script, a small registry."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from shared.core import semconv
from shared.core.chat import Chunk, Completion, InferenceRequest, Operation, Requirements, Usage
from shared.core.failures import Failed, FailureKind
from shared.core.records import RequestRecord
from shared.core.registry import (
    Deployment,
    FailoverPolicy,
    Model,
    Price,
    Provider,
    ProviderKind,
    Rates,
    Registry,
    RoutingPolicy,
)
from shared.core.semconv import Instrument
from shared.core.telemetry import Attribute, Content, Measurement, Span, TraceContext
from shared.core.telling import measurements_of, spans_of
from shared.core.traceparent import begin
from shared.ports import Call

PRICE = Price(date(2026, 1, 1), Rates(Decimal(1), Decimal(2)))
"""One dollar a million tokens in, two out: 1,000 and 2,000 nano-USD a token."""


@dataclass
class FakeClock:
    """Virtual time: sleeping moves it, and so does whoever says so."""

    seconds: float = 1_000.0
    epoch: float = 1_795_000_000.0  # in November 2026
    chance: float = 0.5
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        """Return the wall clock."""
        return self.epoch + self.seconds

    def monotonic(self) -> float:
        """Return the same without the date."""
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        """Let time pass at once."""
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)

    def draw(self) -> float:
        """Return the chance that was set."""
        return self.chance


@dataclass(frozen=True)
class Told:
    """One request as telemetry was told of it."""

    record: RequestRecord
    trace: TraceContext | None
    content: Content | None

    @property
    def spans(self) -> tuple[Span, ...]:
        """Return its spans, none where it has no place in a trace."""
        return () if self.trace is None else spans_of(self.record, self.trace, self.content)


@dataclass
class RecordingTelemetry:
    """Keeps all it is told. Ids of traces and spans are counted up from 1; everything is sampled."""

    content: bool = False
    told: list[Told] = field(default_factory=list)
    gauges: dict[tuple[str, frozenset[tuple[str, Attribute]]], int | float] = field(default_factory=dict)
    begun: int = 0

    def trace(self, traceparent: str | None) -> TraceContext:
        """Return the next place."""
        self.begun += 1
        return begin(traceparent, (self.begun << 64) + self.begun, 1.0)

    def ended(self, record: RequestRecord, trace: TraceContext | None, content: Content | None = None) -> None:
        """Keep it."""
        self.told.append(Told(record, trace, content))

    def gauge(self, measurements: Sequence[Measurement]) -> None:
        """Keep the latest values."""
        for one in measurements:
            self.gauges[one.instrument.name, frozenset(one.attributes.items())] = one.value

    async def aclose(self) -> None:
        """Nothing is pending."""

    @property
    def measurements(self) -> list[Measurement]:
        """Return what was measured of requests."""
        return [measured for one in self.told for measured in measurements_of(one.record)]

    def total(self, instrument: Instrument, **attributes: Attribute) -> int | float:
        """Return the sum of a metric over what has these attributes, named by the constants of `shared.core.semconv`."""
        wanted = {getattr(semconv, name.upper()): value for name, value in attributes.items()}
        return sum(
            one.value
            for one in self.measurements
            if one.instrument is instrument and wanted.items() <= dict(one.attributes).items()
        )


@dataclass(frozen=True)
class Hang:
    """A step of a script: never answer."""


Step = Completion | Failed | Hang | Sequence[Chunk | Failed | Hang | list[Chunk | Failed]]
"""A list is a stream; a list in it are events that come together."""


@dataclass
class ScriptedProvider:
    """Every deployment follows its script, then answers well. Knows what was asked and which calls were left early."""

    scripts: dict[str, deque[Step]] = field(default_factory=dict)
    asked: list[Call] = field(default_factory=list)
    closed_early: list[str] = field(default_factory=list)

    def script(self, deployment: str, *steps: Step) -> None:
        """Append steps to a deployment's script."""
        self.scripts.setdefault(deployment, deque()).extend(steps)

    def _next(self, call: Call) -> Step | None:
        self.asked.append(call)
        steps = self.scripts.get(call.deployment.id)
        return steps.popleft() if steps else None

    async def complete(self, call: Call) -> Completion | Failed:
        """Answer whole."""
        step = self._next(call)
        if isinstance(step, Hang):
            try:
                await asyncio.wait_for(asyncio.Event().wait(), call.timeouts.whole)
            except TimeoutError:
                return Failed(FailureKind.TIMEOUT, "it hung")
            finally:
                self.closed_early.append(call.deployment.id)
        assert not isinstance(step, Sequence | Hang)
        return answer() if step is None else step

    async def stream(self, call: Call) -> AsyncGenerator[list[Chunk | Failed], None]:
        """Answer streamed: each event by itself, unless the script has it otherwise."""
        step = self._next(call)
        events = [step] if isinstance(step, Failed | Hang) else chunks("Hello") if step is None else step
        assert isinstance(events, Sequence)
        done = False
        try:
            for event in events:
                if isinstance(event, Hang):
                    await asyncio.Event().wait()
                else:
                    yield event if isinstance(event, list) else [event]
            done = True
        finally:
            if not done:
                self.closed_early.append(call.deployment.id)


def answer(text: str = "Hello", *, usage: Usage | None = Usage(10, 5)) -> Completion:  # noqa: B008  (frozen)
    """Return a whole answer."""
    message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Completion({"object": "chat.completion", "choices": [message]}, usage, "response-model", "stop")


def chunks(text: str, *, usage: Usage | None = Usage(10, 5)) -> list[Chunk | Failed | Hang]:  # noqa: B008  (frozen)
    """Return the events of a streamed answer: the role, each letter, the finish reason, the usage."""

    def delta(content: str) -> dict[str, object]:
        return {"choices": [{"index": 0, "delta": {"content": content}}]}

    return [
        Chunk({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}),
        *(Chunk(delta(letter), content=True, text_length=1) for letter in text),
        Chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, content=True, finish_reason="stop"),
        Chunk({"choices": [], "usage": {}}, usage=usage),
    ]


def registry(
    *deployments: str, prices: Mapping[str, tuple[Price, ...]] | None = None, failover: FailoverPolicy | None = None
) -> Registry:
    """Build a registry of `provider/model` deployments, each priced at `PRICE`; the first model falls back to the others."""
    names = [name.split("/") for name in deployments]
    models = list(dict.fromkeys(model for _, model in names))
    built = {
        name: Deployment(name, model, provider, target=model, prices=(prices or {}).get(name, (PRICE,)))
        for name, (provider, model) in zip(deployments, names, strict=True)
    }
    return Registry(
        version="test",
        providers={
            provider: Provider(provider, ProviderKind.OPENAI_COMPATIBLE, "http://127.0.0.1:9/v1") for provider, _ in names
        },
        models={
            model: Model(model, frozenset({"chat", "embeddings", "tools"}), context_window=100_000, max_output_tokens=1000)
            for model in models
        },
        deployments=built,
        by_model={model: tuple(one for one in built.values() if one.model == model) for model in models},
        policy=RoutingPolicy(
            fallbacks={models[0]: tuple(models[1:])} if models else {},
            failover=failover or FailoverPolicy(backoff=1, max_wait=5),
        ),
    )


def request(model: str = "sol", *, stream: bool = False, **facts: object) -> InferenceRequest:
    """Return a chat request of ten tokens."""
    requirements = Requirements(
        Operation.CHAT,
        model,
        "conversation",
        capabilities=frozenset({"chat"}),
        input_tokens=10,
        input_tokens_bound=40,
        stream=stream,
        **facts,  # type: ignore[arg-type]  # facts are fields of Requirements
    )
    return InferenceRequest({"model": model, "messages": [{"role": "user", "content": "Hi"}]}, requirements)


def texts(events: Iterable[Chunk]) -> str:
    """Return what a stream's chunks say."""
    return "".join(choice["delta"].get("content", "") for event in events for choice in event.payload.get("choices", []))
