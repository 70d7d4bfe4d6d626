"""What goes over the wire for one request: a pure plan, made from a good answer and the fault it met."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from enum import StrEnum
from typing import Any, Final

import orjson

from local.simulator.faults import Fault, FaultKind
from local.simulator.protocol import Answer, Dialect, Event, Problem, Received

JSON: Final = "application/json"
SSE: Final = "text/event-stream; charset=utf-8"
_BLOCK: Final = 64 * 1024
_LEADING_BITS: Final = 0b1100_0000
_CONTINUATION: Final = 0b1000_0000  # of a UTF-8 byte that is not the first of its character
_K = FaultKind


class Ending(StrEnum):
    """How the exchange ends: well, never, with a TCP reset, or with a close before the body's announced end."""

    COMPLETE = "complete"
    HANG = "hang"
    RESET = "reset"
    CUT = "cut"


class Charge(StrEnum):
    """What is billed: nothing, the input and what was sent, or the whole answer."""

    NOTHING = "nothing"
    SENT = "sent"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes written at once, the tokens they carry and how many events they hold."""

    data: bytes
    tokens: int = 0
    events: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """One response. ``status`` None sends no head at all. ``length`` announces a Content-Length, None sends chunks.

    ``wait_s`` passes before the head, ``gap_s`` between parts, ``linger_s`` before the ending; ``separate`` writes each part on
    its own even without a gap.
    """

    status: int | None = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: Iterable[Part] = ()
    length: int | None = None
    ending: Ending = Ending.COMPLETE
    charge: Charge = Charge.ALL
    wait_s: float = 0.0
    gap_s: float = 0.0
    linger_s: float = 0.0
    separate: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """All a plan is made of."""

    received: Received
    dialect: Dialect
    answer: Answer
    fault: Fault

    @property
    def body(self) -> bytes:
        """The whole answer's bytes."""
        return orjson.dumps(self.answer.body)


def good_plan(received: Received, answer: Answer) -> Plan:
    """Plan the answer as it is."""
    if answer.events is None:
        return _whole(orjson.dumps(answer.body))
    return _streamed(answer.events, gap_s=received.settings.chunk_gap_ms / 1000)


def problem_plan(dialect: Dialect, problem: Problem, headers: Mapping[str, str] | None = None) -> Plan:
    """Plan an error response."""
    body = orjson.dumps(dialect.error_body(problem))
    return replace(
        _whole(body, charge=Charge.NOTHING), status=problem.status, headers={"content-type": JSON, **(headers or {})}
    )


def needs_answer(kind: FaultKind) -> bool:
    """Return whether a fault shows only once the provider has begun to answer."""
    return kind in _SHAPED


def fault_plan_without_answer(received: Received, dialect: Dialect, fault: Fault, now: float) -> Plan:
    """Plan a fault that comes before any answer: an error status, or a connection that dies or hangs."""
    linger_s = fault.delay_ms / 1000
    if fault.kind in _DEAD:
        return Plan(status=None, ending=_DEAD[fault.kind], charge=Charge.NOTHING, linger_s=linger_s)
    if fault.kind is _K.HANG_AFTER_HEADERS:
        kind = SSE if received.payload.get("stream") else JSON
        return Plan(headers={"content-type": kind}, ending=Ending.HANG, charge=Charge.NOTHING)
    if fault.kind is _K.REDIRECT:
        headers = {"content-type": "text/html", "location": "http://127.0.0.1:9/elsewhere"}
        return Plan(307, headers, (Part(b"<html>moved</html>"),), 18, charge=Charge.NOTHING)
    if fault.kind is _K.BAD_GATEWAY_HTML:
        page = b"<html><head><title>502 Bad Gateway</title></head><body>nginx (simulated)</body></html>"
        return Plan(502, {"content-type": "text/html"}, (Part(page),), len(page), charge=Charge.NOTHING)
    problem = dialect.fault_problem(fault.kind, received)
    problem = replace(problem, message=fault.message) if fault.message is not None else problem
    return problem_plan(dialect, problem, _retry_headers(fault, now))


def fault_plan(case: Case) -> Plan:
    """Plan a fault that spoils a good answer."""
    return _SHAPED[case.fault.kind](case)


def _retry_headers(fault: Fault, now: float) -> dict[str, str]:
    seconds = {"retry-after": f"{fault.retry_after_s:g}"}
    return {
        _K.RATE_LIMITED_S: seconds,
        _K.RATE_LIMITED_MS: {"retry-after-ms": f"{fault.retry_after_s * 1000:g}", "retry-after": f"{fault.retry_after_s:g}"},
        _K.RATE_LIMITED_DATE: {"retry-after": formatdate(now + fault.retry_after_s, usegmt=True)},
        _K.UNAVAILABLE: seconds,
        _K.OVERLOADED: seconds,
    }.get(fault.kind, {})


_DEAD: Final[Mapping[FaultKind, Ending]] = {
    _K.HANG_BEFORE_HEADERS: Ending.HANG,
    _K.RESET_BEFORE_HEADERS: Ending.RESET,
    _K.CLOSE_BEFORE_HEADERS: Ending.CUT,
}


def _whole(body: bytes, *, kind: str = JSON, charge: Charge = Charge.ALL) -> Plan:
    return Plan(headers={"content-type": kind}, parts=(Part(body),), length=len(body), charge=charge)


def _streamed(events: Sequence[Event], *, gap_s: float = 0.0) -> Plan:
    headers = {"content-type": SSE, "cache-control": "no-cache"}
    return Plan(headers=headers, parts=[Part(event.encode(), event.tokens, 1) for event in events], gap_s=gap_s)


def _good(case: Case) -> Plan:
    return good_plan(case.received, case.answer)


def _with_body(case: Case, body: dict[str, Any]) -> Plan:
    return good_plan(case.received, replace(case.answer, body=body))


def _with_events(case: Case, events: Iterable[Event]) -> Plan:
    return good_plan(case.received, replace(case.answer, events=tuple(events)))


def _begun(case: Case) -> list[Event]:
    """Return the events up to the content event after which a stream breaks; at least one never arrives."""
    kept: list[Event] = []
    left = case.fault.after_events
    for event in case.answer.events or ():
        if event.part in {"stop", "finish", "usage", "end"} or (event.part == "content" and left <= 0):
            break
        left -= event.part == "content"
        kept.append(event)
    return kept


def _broken(ending: Ending) -> Callable[[Case], Plan]:
    """Return the plan maker for an answer that starts well and ends so."""

    def plan(case: Case) -> Plan:
        linger_s = case.fault.delay_ms / 1000 if ending is not Ending.HANG else 0.0
        if case.answer.events is None:
            half = Part(case.body[: len(case.body) // 2])
            whole = _whole(case.body)
            return replace(whole, parts=(half,), ending=ending, charge=Charge.ALL, linger_s=linger_s)
        return replace(_with_events(case, _begun(case)), ending=ending, charge=Charge.SENT, linger_s=linger_s)

    return plan


def _ends_mid_stream(case: Case) -> Plan:
    """End the HTTP response properly, in the middle of the answer."""
    if case.answer.events is None:
        return _truncated(case)
    return replace(_with_events(case, _begun(case)), charge=Charge.SENT)


def _truncated(case: Case) -> Plan:
    if case.answer.events is None:
        return _whole(case.body[: len(case.body) // 2])
    begun = _with_events(case, _begun(case))
    return replace(begun, parts=[*begun.parts, Part(b'data: {"id": "sim", "choices": [{"del\n\n')], charge=Charge.SENT)


def _garbage(case: Case) -> Plan:
    junk = b"\xff\xfe\x00<<< this is not JSON >>>\x00"
    if case.answer.events is None:
        return _whole(junk)
    data = b"data: " + junk + b"\n\n"
    return Plan(headers={"content-type": SSE}, parts=(Part(data),), charge=Charge.ALL)


def _wrong_content_type(case: Case) -> Plan:
    page = b"<!doctype html><html><body><h1>Sign in to continue</h1></body></html>"
    del case
    return _whole(page, kind="text/html; charset=utf-8")


def _fault_problem(case: Case) -> Problem:
    problem = case.dialect.fault_problem(_K.RATE_LIMITED_NONE, case.received)
    return problem if case.fault.message is None else replace(problem, message=case.fault.message)


def _error_in_body(case: Case) -> Plan:
    return replace(problem_plan(case.dialect, _fault_problem(case)), status=200)


def _error_first_event(case: Case) -> Plan:
    if case.answer.events is None:
        return _error_in_body(case)
    event = case.dialect.error_event(_fault_problem(case))
    return replace(_streamed([event]), charge=Charge.NOTHING)


def _error_mid_stream(case: Case) -> Plan:
    if case.answer.events is None:
        return _error_in_body(case)
    problem = case.dialect.fault_problem(_K.SERVER_ERROR, case.received)
    event = case.dialect.error_event(problem if case.fault.message is None else replace(problem, message=case.fault.message))
    return replace(_with_events(case, [*_begun(case), event]), charge=Charge.SENT)


def _no_done(case: Case) -> Plan:
    if case.answer.events is None:
        return _truncated(case)
    return _with_events(case, [event for event in case.answer.events if event.part != "end"])


def _empty_choices(case: Case) -> Plan:
    if case.answer.events is not None:
        return _with_events(case, [event for event in case.answer.events if _says_nothing(event)])
    empty: dict[str, Any] = {name: [] for name in ("choices", "content", "data") if name in case.answer.body}
    return _with_body(case, {**case.answer.body, **empty})


def _says_nothing(event: Event) -> bool:
    finish = event.part == "finish" and "choices" not in (event.payload or {})
    return finish or event.part in {"open", "usage", "end"}


def _huge_body(case: Case) -> Plan:
    """Send a body that never seems to end: JSON whose one string is as long as the fault's ``size_bytes``."""
    streamed = case.answer.events is not None
    opening, closing = (b'data: {"choices":"', b'"}\n\n') if streamed else (b'{"choices":"', b'"}')

    def parts() -> Iterator[Part]:
        yield Part(opening)
        block = b"x" * _BLOCK
        for sent in range(0, case.fault.size_bytes, _BLOCK):
            yield Part(block[: case.fault.size_bytes - sent])
        yield Part(closing)

    return Plan(headers={"content-type": SSE if streamed else JSON}, parts=parts(), separate=True)


def _filtered_output(case: Case) -> Plan:
    def changed(payload: dict[str, Any]) -> dict[str, Any]:
        payload = dict(payload)
        if payload.get("stop_reason"):
            payload["stop_reason"] = "refusal"
        if isinstance(payload.get("delta"), Mapping) and payload["delta"].get("stop_reason"):
            payload["delta"] = {**payload["delta"], "stop_reason": "refusal"}
        choices = payload.get("choices")
        if choices:
            filtered = {"finish_reason": "content_filter"}
            payload["choices"] = [{**item, **filtered} if item.get("finish_reason") else item for item in choices]
        return payload

    return _changed(case, changed)


def _usage_missing(case: Case) -> Plan:
    def changed(payload: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in payload.items() if name != "usage"}
        if isinstance(kept.get("message"), Mapping):
            kept["message"] = {name: value for name, value in kept["message"].items() if name != "usage"}
        return kept

    if case.answer.events is None:
        return _changed(case, changed)
    answer = replace(case.answer, events=tuple(event for event in case.answer.events if event.part != "usage"))
    return _changed(replace(case, answer=answer), changed)


def _changed(case: Case, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Plan:
    if case.answer.events is None:
        return _with_body(case, change(case.answer.body))
    events = [event if event.payload is None else replace(event, payload=change(event.payload)) for event in case.answer.events]
    return _with_events(case, events)


def _slow(case: Case) -> Plan:
    return replace(_good(case), wait_s=case.fault.delay_ms / 1000)


def _in_pieces(plan: Plan, cut: Callable[[bytes], Iterable[bytes]], *, gap_s: float) -> Plan:
    """Write each part in several pieces; its tokens and events go with the last one."""
    parts: list[Part] = []
    for part in plan.parts:
        pieces = list(cut(part.data))
        parts += [Part(piece) for piece in pieces[:-1]]
        parts.append(replace(part, data=pieces[-1]))
    return replace(plan, parts=parts, gap_s=gap_s, separate=True)


def _bytes_of(data: bytes) -> Iterator[bytes]:
    return (data[place : place + 1] for place in range(len(data)))


def _slow_drip(case: Case) -> Plan:
    return _in_pieces(_good(case), _bytes_of, gap_s=case.fault.delay_ms / 1000)


def _split_every_byte(case: Case) -> Plan:
    return _in_pieces(_good(case), _bytes_of, gap_s=0.0)


def _emoji_split(case: Case) -> Plan:
    """Cut the bytes inside every character of more than one byte, with a pause so that each piece is its own segment."""
    return _in_pieces(_good(case), _inside_characters, gap_s=0.001)


def _inside_characters(data: bytes) -> Iterator[bytes]:
    start = 0
    for place, byte in enumerate(data):
        if byte & _LEADING_BITS == _CONTINUATION:
            yield data[start:place]
            start = place
    yield data[start:]


def _sse_odd(case: Case) -> Plan:
    """Use everything the event-stream format allows and few providers do: comments, CRLF, ids, retry, a bare colon."""
    if case.answer.events is None:
        return _good(case)
    plan = _good(case)
    parts = [Part("\ufeff: hello\r\n\r\nretry: 3000\r\n\r\n".encode())]
    for place, event in enumerate(case.answer.events):
        data = event.encode("\r\n").replace(b"data: ", b"data:", 1)
        parts.append(Part(b": keep-alive\r\n\r\nid: %d\r\n" % place + data, event.tokens, 1))
    return replace(plan, parts=parts)


def _async_filter(case: Case) -> Plan:
    """Follow each piece of text with Azure's late filter verdict: a choice that has no delta."""
    events: list[Event] = []
    for place, event in enumerate(case.answer.events or ()):
        events.append(event)
        if event.part == "content" and "choices" in (event.payload or {}):
            offsets = {"check_offset": place, "start_offset": place, "end_offset": place + 1}
            verdict = {"index": 0, "finish_reason": None, "content_filter_offsets": offsets, "content_filter_results": {}}
            late = {"id": "", "object": "", "created": 0, "model": "", "choices": [verdict]}
            events.append(Event("filter", late))
    return _good(case) if case.answer.events is None else _with_events(case, events)


_SHAPED: Final[Mapping[FaultKind, Callable[[Case], Plan]]] = {
    _K.HANG_MID_STREAM: _broken(Ending.HANG),
    _K.RESET_MID_STREAM: _broken(Ending.RESET),
    _K.CUT_MID_STREAM: _broken(Ending.CUT),
    _K.ENDS_MID_STREAM: _ends_mid_stream,
    _K.GARBAGE: _garbage,
    _K.WRONG_CONTENT_TYPE: _wrong_content_type,
    _K.TRUNCATED_JSON: _truncated,
    _K.ERROR_IN_BODY: _error_in_body,
    _K.ERROR_FIRST_EVENT: _error_first_event,
    _K.ERROR_MID_STREAM: _error_mid_stream,
    _K.NO_DONE: _no_done,
    _K.EMPTY_CHOICES: _empty_choices,
    _K.HUGE_BODY: _huge_body,
    _K.FILTERED_OUTPUT: _filtered_output,
    _K.USAGE_MISSING: _usage_missing,
    _K.SLOW: _slow,
    _K.SLOW_DRIP: _slow_drip,
    _K.EMOJI_SPLIT: _emoji_split,
    _K.SPLIT_EVERY_BYTE: _split_every_byte,
    _K.SSE_ODD: _sse_odd,
    _K.ASYNC_FILTER: _async_filter,
}
