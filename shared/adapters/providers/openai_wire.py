"""OpenAI's wire format, also the gateway's own: `Call` → body, reply → `Completion | Failed`, events → `Chunk | Failed`.

Pure: no I/O, no clock. Fields pass through untouched except: ``model`` becomes the deployment's target, the output limit gets
the name the model knows, Switchyard's own fields are left out, defaults are left out where the model refuses the field, and
streams always ask for usage (callers who did not are spared the usage chunk by whoever renders the stream: it is the one with
empty ``choices`` and a ``usage``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from shared.adapters.providers.classification import bad_response, dump_body, failed, unusable
from shared.adapters.providers.reply import Reply, count, load_object, read_error, word
from shared.core.chat import Chunk, Completion, Operation, Usage
from shared.core.failures import Failed, FailureKind
from shared.core.sse import ServerSentEvent
from shared.core.wire_support import OWN_FIELDS, is_harmless
from shared.ports import Call

DONE: Final = b"[DONE]"
LONGEST_DONE: Final = 16
"""With the blanks some vendors put around it; longer data is not even looked at."""
REASONING_TEXT: Final = ("reasoning_content", "reasoning")  # DeepSeek, vLLM; OpenRouter, Ollama
_CONTENT: Final = frozenset({"content", "tool_calls", "refusal", "function_call", "audio", *REASONING_TEXT})


def render(call: Call) -> bytes | Failed:
    """Return the body to send, or why it can't be."""
    payload = call.payload
    body = dict(payload)
    if not OWN_FIELDS.isdisjoint(body):
        for name in OWN_FIELDS:
            body.pop(name, None)
    body["model"] = call.deployment.target
    refused = call.model.unsupported_parameters | call.provider.unsupported_parameters
    if refused and not refused.isdisjoint(body):
        for name in refused & body.keys():
            if is_harmless(name, body[name]):
                del body[name]
    if call.operation is Operation.CHAT:
        _name_output_limit(body, "max_completion_tokens" if call.model.reasoning else "max_tokens", refused)
        if call.stream:
            body["stream"] = True
            if "stream_options" not in refused:
                options = body.get("stream_options")
                asked = options if isinstance(options, dict) else {}
                body["stream_options"] = {**asked, "include_usage": True}
        else:
            body.pop("stream", None)
            body.pop("stream_options", None)  # refused by OpenAI without ``stream``
    return dump_body(body)


def _name_output_limit(body: dict[str, Any], known: str, refused: frozenset[str]) -> None:
    """Call the output limit what the model calls it. Callers that send both names mean the smaller.

    A vendor that knows only the other name says so by refusing this one (Ollama serves reasoning models by ``max_tokens``).
    """
    other = "max_tokens" if known == "max_completion_tokens" else "max_completion_tokens"
    if known in refused and other not in refused:
        known, other = other, known
    if other in body:
        value, present = body.pop(other), body.get(known)
        if present is None:
            body[known] = value
        elif isinstance(value, int) and isinstance(present, int):
            body[known] = min(value, present)


def parse(call: Call, reply: Reply, body: bytes) -> Completion | Failed:
    """Return the whole answer, or why it is none."""
    payload = load_object(body)
    refusal = unusable(call, reply, payload)
    if refusal is not None or payload is None:
        return refusal or bad_response(call, reply, "the answer is not a JSON object")
    chat = call.operation is Operation.CHAT
    items = payload.get("choices" if chat else "data")
    flaw = _flaw(items, "message" if chat else "embedding")
    if flaw is not None:
        return bad_response(call, reply, flaw, FailureKind.BAD_RESPONSE if items else FailureKind.EMPTY_RESPONSE)
    return Completion(
        payload=payload,
        usage=read_usage(payload),
        response_model=word(payload.get("model")) or call.deployment.target,
        finish_reason=word(payload["choices"][0].get("finish_reason")) if chat else None,
        headers=reply.kept,
    )


def _flaw(items: Any, part: str) -> str | None:
    """Say what keeps a list of choices or embeddings from being an answer."""
    if not isinstance(items, list):
        return "the answer has neither choices nor data"
    if not items:
        return "the answer is empty"
    kinds = (dict,) if part == "message" else (list, str)
    if not all(isinstance(item, dict) and isinstance(item.get(part), kinds) for item in items):
        return f"the answer has an entry without its {part}"
    return None


def read_usage(payload: dict[str, Any]) -> Usage | None:
    """Return the tokens a payload reports, None when it reports none or nonsense.

    Where ``total_tokens`` shows that reasoning is not part of ``completion_tokens``, it is added: xAI tells it
    apart, Gemini does not.
    """
    usage = payload.get("usage")
    if not isinstance(usage, dict):
        return None
    input_tokens, output_tokens = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens", 0))
    if input_tokens is None or output_tokens is None:
        return None
    of_input, of_output = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    of_input = of_input if isinstance(of_input, dict) else {}
    of_output = of_output if isinstance(of_output, dict) else {}
    reasoning = count(of_output.get("reasoning_tokens")) or 0
    unlisted = (count(usage.get("total_tokens")) or 0) - input_tokens - output_tokens
    if unlisted > 0:
        output_tokens += unlisted
        reasoning = max(reasoning, unlisted)
    cached = of_input.get("cached_tokens", usage.get("prompt_cache_hit_tokens"))  # the latter is DeepSeek's
    cache_read = min(count(cached) or 0, input_tokens)
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read=cache_read,
        cache_creation=min(count(of_input.get("cache_write_tokens")) or 0, input_tokens - cache_read),
        reasoning=min(reasoning, output_tokens),
        service_tier=word(payload.get("service_tier")),
    )


class Stream:
    """The meaning of a stream's events, one after the other. ``done`` once the provider has said that it is complete."""

    __slots__ = ("_call", "_held", "_open", "_reply", "_some", "_stopped", "done")

    def __init__(self, call: Call, reply: Reply) -> None:
        self._call = call
        self._reply = reply
        self._some = False  # anything a caller can use has come
        self._stopped = False  # a finish reason has come …
        self._open: set[int] = set()  # … but not yet for these choices
        self._held: dict[str, Any] = {}  # what an event without choices said besides
        self.done = False

    def feed(self, event: ServerSentEvent) -> Chunk | Failed | None:
        """Return what the event means; None when it means nothing to a caller."""
        if len(event.data) < LONGEST_DONE and event.data.strip() == DONE:
            self.done = True
            if self._some:
                return None
            return bad_response(self._call, self._reply, "the stream had no content", FailureKind.EMPTY_RESPONSE)
        payload = load_object(event.data)
        if payload is None:
            return bad_response(self._call, self._reply, "the stream has an event that is not a JSON object")
        if "error" in payload or "choices" not in payload or event.event == "error":
            error = read_error(payload)
            if error is not None or event.event == "error":
                return failed(self._call, self._reply, error)
        choices = payload.get("choices")
        if choices and not (isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices)):
            return bad_response(self._call, self._reply, "the stream has an event whose `choices` make no sense")
        if not choices:
            payload["choices"] = choices = []  # absent or null at some vendors; readers of chunks may rely on it
        return self._chunk(payload, choices)

    def _chunk(self, payload: dict[str, Any], choices: Sequence[dict[str, Any]]) -> Chunk | None:
        if not choices and not payload.get("usage"):
            # Azure opens with its verdict on the prompt in an event without choices, and many clients read `choices[0]` of
            # every event: its fields travel with the next one.
            self._held |= payload
            return None
        if self._held and choices:
            payload, self._held = self._held | payload, {}
        length, content, finish = 0, False, None
        for choice in choices:
            delta = choice.get("delta")
            if not isinstance(delta, dict):
                choice["delta"] = delta = {}  # Azure's late filter verdicts have none; clients read it of every choice
            if delta:
                counted, useful = _measure(delta)
                length += counted
                content = content or useful
                if useful:
                    self._open.add(_index(choice))
            reason = choice.get("finish_reason")
            if reason is not None:
                finish = str(reason)
                self._stopped = True
                self._open.discard(_index(choice))
        content = content or finish is not None
        self._some = self._some or content
        usage = read_usage(payload) if payload.get("usage") else None
        return Chunk(payload, content, length, usage, finish, word(payload.get("model")))

    def finish(self) -> Failed | None:
        """Say that the stream has ended: None if it was complete.

        OpenAI ends with ``[DONE]``. Vendors that leave it out are believed when every choice has had its finish reason;
        anything less is a cut stream, not an answer.
        """
        if self.done or (self._stopped and not self._open):
            return None
        what = "the stream ended before the answer was complete"
        return bad_response(self._call, self._reply, what, FailureKind.DISCONNECTED)


def _index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _measure(delta: dict[str, Any]) -> tuple[int, bool]:
    """Return the characters of output in a delta (text, refusal, reasoning, tool arguments), and if a caller can use it."""
    length, useful = 0, False
    for name, value in delta.items():
        if not value or name not in _CONTENT:
            continue
        useful = True
        if isinstance(value, str):
            length += len(value)
        elif name == "tool_calls" and isinstance(value, list):
            length += sum(_arguments_length(call) for call in value)
    return length, useful


def _arguments_length(call: Any) -> int:
    function = call.get("function") if isinstance(call, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    return len(arguments) if isinstance(arguments, str) else 0
