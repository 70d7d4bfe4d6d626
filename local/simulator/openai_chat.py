"""OpenAI's chat completions: request fields to what is asked, replies to bodies and stream events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from local.simulator.answers import Ask, Reply, Tool, reply, tokens
from local.simulator.attempts import Billed
from local.simulator.checks import check_context, check_fields, check_model, check_reasoning, is_among, reasons
from local.simulator.protocol import Answer, Event, Received, refuse

_ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_IMAGE_TOKENS: Final = 85
_MESSAGE_TOKENS: Final = 4
_CACHE_FROM: Final = 1024
_CACHE_STEP: Final = 128
_THINKING: Final[Mapping[str, int]] = {"none": 0, "minimal": 0, "low": 32, "medium": 64, "high": 128, "xhigh": 256}

_SAFE: Final = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
_PROMPT_SAFE: Final = {**_SAFE, "jailbreak": {"filtered": False, "detected": False}}


def answer_chat(received: Received) -> Answer:
    """Answer a chat request, whole or streamed. Raise `RefusedError`."""
    ask = ask_of(received)
    cached = _cached_tokens(received, ask)
    replies = [reply(ask, index) for index in range(ask.n)]
    billed = Billed(
        input_tokens=ask.input_tokens,
        output_tokens=sum(item.output_tokens for item in replies),
        cache_read=cached,
        reasoning=sum(item.reasoning for item in replies),
    )
    if received.payload.get("stream"):
        return Answer(billed, events=tuple(_events(received, replies, billed)))
    return Answer(billed, body=_whole(received, replies, billed))


def ask_of(received: Received) -> Ask:
    """Read the request's fields. Raise `RefusedError` naming the first bad one."""
    payload, settings = received.payload, received.settings
    model = settings.response_model or check_model(payload, received.deployment)
    check_fields(payload)
    messages = _messages(payload)
    thinks = reasons(model)
    if thinks:
        check_reasoning(model, payload)
    counted = count_tokens(messages) + _tool_tokens(payload)
    check_context(counted, settings.context_window)
    last = messages[-1]
    choice = payload.get("tool_choice") or "auto"
    limit = payload.get("max_completion_tokens") or payload.get("max_tokens")
    return Ask(
        model=model,
        prompt=text_of(last if last["role"] in {"tool", "function"} else _last_user(messages)),
        input_tokens=counted,
        max_tokens=limit,
        stop=_stop(payload),
        n=payload.get("n") or 1,
        seed=f"{settings.seed}/{payload.get('seed')}",
        tools=_tools(payload),
        tool_choice=choice if isinstance(choice, str) else _forced_tool(choice),
        parallel=payload.get("parallel_tool_calls") is not False,
        answers_tool=last["role"] in {"tool", "function"},
        schema=_schema(payload),
        reasoning=_thinking(payload.get("reasoning_effort")) if thinks else 0,
        words=settings.words,
        text=settings.answer,
    )


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message, of all its text parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return " ".join(str(part.get("text") or "") for part in parts if isinstance(part, Mapping)).strip()


def count_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """Count a prompt's tokens: its text, a flat figure per image or other part, some for each message."""
    total = 0
    for message in messages:
        total += _MESSAGE_TOKENS + tokens(text_of(message))
        parts = message.get("content")
        others = [part for part in parts if isinstance(part, Mapping) and "text" not in part] if isinstance(parts, list) else ()
        total += _IMAGE_TOKENS * len(others)
        if message.get("tool_calls"):
            total += tokens(orjson.dumps(message["tool_calls"]).decode())
    return total


def _messages(payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = payload.get("messages")
    if messages is None:
        refuse("Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter")
    if not isinstance(messages, list) or not messages:
        refuse("Invalid 'messages': expected a non-empty array.", param="messages", code="empty_array")
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not is_among(message.get("role"), _ROLES):
            text = f"Invalid value for 'messages[{place}].role'. Supported values are: {', '.join(sorted(_ROLES))}."
            refuse(text, param=f"messages[{place}].role", code="invalid_value")
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            text = f"Invalid type for 'messages[{place}].content': expected a string or an array of parts."
            refuse(text, param=f"messages[{place}].content", code="invalid_type")
    return messages


def _last_user(messages: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((item for item in reversed(messages) if item["role"] == "user"), messages[-1])


def _stop(payload: Mapping[str, Any]) -> tuple[str, ...]:
    stop = payload.get("stop")
    if isinstance(stop, str):
        return (stop,)
    return tuple(item for item in stop if isinstance(item, str)) if isinstance(stop, list) else ()


def _thinking(effort: object) -> int:
    if effort is not None and (not isinstance(effort, str) or effort not in _THINKING):
        refuse(
            f"Invalid value: {effort!r}. Supported values are: {', '.join(_THINKING)}.",
            param="reasoning_effort",
            code="invalid_value",
        )
    return _THINKING[effort or "medium"]


def _tools(payload: Mapping[str, Any]) -> tuple[Tool, ...]:
    given = payload.get("tools")
    if given is None:
        return ()
    if not isinstance(given, list) or not given:
        refuse("Invalid 'tools': expected a non-empty array.", param="tools", code="empty_array")
    tools: list[Tool] = []
    for place, item in enumerate(given):
        function = item.get("function") if isinstance(item, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            param = f"tools[{place}].function.name"
            refuse(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
        parameters = function.get("parameters")
        if parameters is not None and (
            not isinstance(parameters, Mapping) or not is_among(parameters.get("type", "object"), {"object"})
        ):
            refuse(
                f"Invalid schema for function '{function['name']}': schema must be of type \"object\".",
                param=f"tools[{place}].function.parameters",
                code="invalid_function_parameters",
            )
        tools.append(Tool(function["name"], parameters))
    return tuple(tools)


def _forced_tool(choice: object) -> str:
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        refuse("Invalid 'tool_choice'.", param="tool_choice", code="invalid_value")
    return name


def _tool_tokens(payload: Mapping[str, Any]) -> int:
    return tokens(orjson.dumps(payload["tools"]).decode()) if payload.get("tools") else 0


def _schema(payload: Mapping[str, Any]) -> Any:
    wanted = payload.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return {}
    holder = wanted.get("json_schema") if kind == "json_schema" else None
    if not isinstance(holder, Mapping) or not isinstance(holder.get("schema"), Mapping):
        refuse("Invalid 'response_format'.", param="response_format", code="invalid_value")
    return dict(holder["schema"])


def _cached_tokens(received: Received, ask: Ask) -> int:
    """Count what a provider reads from its cache: a long prompt whose first 1,024 tokens it has seen before."""
    if ask.input_tokens < _CACHE_FROM:
        return 0
    prefix = orjson.dumps(received.payload["messages"]).decode()[: _CACHE_FROM * 4]
    known = received.memory.meet(f"{received.profile}/{ask.model}", prefix)
    return ask.input_tokens // _CACHE_STEP * _CACHE_STEP if known else 0


def usage_object(billed: Billed) -> dict[str, Any]:
    """Render usage as OpenAI does."""
    return {
        "prompt_tokens": billed.input_tokens,
        "completion_tokens": billed.output_tokens,
        "total_tokens": billed.input_tokens + billed.output_tokens,
        "prompt_tokens_details": {"cached_tokens": billed.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": billed.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _head(received: Received, kind: str) -> dict[str, Any]:
    model = received.settings.response_model or received.model
    head = {
        "id": f"chatcmpl-sim{received.seq:08d}",
        "object": kind,
        "created": int(received.at),
        "model": model,
        "system_fingerprint": "fp_simulator",
    }
    tier = received.payload.get("service_tier")
    return {**head, "service_tier": "default" if tier == "auto" else tier} if tier else head


def _whole(received: Received, replies: Sequence[Reply], billed: Billed) -> dict[str, Any]:
    choices: list[dict[str, Any]] = []
    for index, item in enumerate(replies):
        message: dict[str, Any] = {"role": "assistant", "content": item.text, "refusal": None, "annotations": []}
        if item.tool_calls:
            message |= {"content": None, "tool_calls": [_call_object(call) for call in item.tool_calls]}
        choice = {"index": index, "message": message, "finish_reason": item.finish, "logprobs": None}
        choice["logprobs"] = _logprobs(received.payload, item.pieces)
        choices.append({**choice, "content_filter_results": _SAFE} if received.azure else choice)
    body = {**_head(received, "chat.completion"), "choices": choices, "usage": usage_object(billed)}
    if received.azure:
        body["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": _PROMPT_SAFE}]
    return body


def _call_object(call: Any) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _logprobs(payload: Mapping[str, Any], pieces: Sequence[str]) -> dict[str, Any] | None:
    if not payload.get("logprobs"):
        return None
    top = payload.get("top_logprobs") or 0
    content = [
        {
            **_logprob(piece, place),
            "top_logprobs": [_logprob(piece if rank == 0 else f"{piece}{rank}", place + rank) for rank in range(top)],
        }
        for place, piece in enumerate(pieces)
    ]
    return {"content": content, "refusal": None}


def _logprob(text: str, place: int) -> dict[str, Any]:
    return {"token": text, "logprob": -0.01 * (1 + place % 7), "bytes": list(text.encode())}


def _events(received: Received, replies: Sequence[Reply], billed: Billed) -> Iterator[Event]:
    head = _head(received, "chat.completion.chunk")
    options = received.payload.get("stream_options")
    counts = isinstance(options, Mapping) and options.get("include_usage") is True
    if counts:
        head["usage"] = None
    if received.azure:
        filtered = [{"prompt_index": 0, "content_filter_results": _PROMPT_SAFE}]
        yield Event("open", {**head, "id": "", "model": "", "choices": [], "prompt_filter_results": filtered})
    for index, item in enumerate(replies):
        first: dict[str, Any] = {"role": "assistant", "content": None if item.tool_calls else "", "refusal": None}
        yield _chunk(head, "start", index, first, spent=item.reasoning)
        for delta, logprobs, spent in _deltas(received.payload, item):
            event = _chunk(head, "content", index, delta, spent=spent)
            choice = (event.payload or {})["choices"][0]
            choice["logprobs"] = logprobs
            if received.azure:
                choice["content_filter_results"] = _SAFE
            yield event
    for index, item in enumerate(replies):
        yield _chunk(head, "finish", index, {}, finish=item.finish)
    if counts:
        yield Event("usage", {**head, "choices": [], "usage": usage_object(billed)})
    yield Event("end", None)


def _chunk(
    head: Mapping[str, Any], part: str, index: int, delta: dict[str, Any], *, finish: str | None = None, spent: int = 0
) -> Event:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return Event(part, {**head, "choices": [choice]}, tokens=spent)


def _deltas(payload: Mapping[str, Any], item: Reply) -> Iterator[tuple[dict[str, Any], Any, int]]:
    """Yield each piece of a reply: the delta, its logprobs and the tokens it is billed."""
    spoken = item.output_tokens - item.reasoning
    count = max(1, len(item.pieces) + 2 * len(item.tool_calls))
    shares = [spoken * (place + 1) // count - spoken * place // count for place in range(count)]
    for place, piece in enumerate(item.pieces):
        yield {"content": piece}, _logprobs(payload, (piece,)), shares[place]
    for place, call in enumerate(item.tool_calls):
        opened = {"index": place, **_call_object(call)}
        opened["function"] = {"name": call.name, "arguments": ""}
        yield {"tool_calls": [opened]}, None, shares[2 * place]
        half = len(call.arguments) // 2
        for part, spent in ((call.arguments[:half], 0), (call.arguments[half:], shares[2 * place + 1])):
            yield {"tool_calls": [{"index": place, "function": {"arguments": part}}]}, None, spent
