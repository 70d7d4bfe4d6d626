"""Anthropic's Messages: checks, answers whole and streamed, errors, headers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from local.simulator.answers import Ask, Reply, Tool, reply, tokens
from local.simulator.attempts import Billed
from local.simulator.checks import check_context, is_among
from local.simulator.faults import FaultKind
from local.simulator.protocol import Answer, Event, Problem, Received, RefusedError, refuse

_K = FaultKind
_MESSAGE_TOKENS: Final = 4
_IMAGE_TOKENS: Final = 1600
_NO_PREFILL_FROM: Final = (4, 6)
_MODEL: Final = re.compile(r"claude-[a-z]+-(\d+)(?:-(\d)(?!\d))?")
_STOP_REASONS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    410: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_FAULTS: Final[Mapping[FaultKind, tuple[int, str]]] = {
    _K.RATE_LIMITED_S: (429, "This request would exceed your organization's rate limit (simulated)."),
    _K.RATE_LIMITED_MS: (429, "This request would exceed your organization's rate limit (simulated)."),
    _K.RATE_LIMITED_DATE: (429, "This request would exceed your organization's rate limit (simulated)."),
    _K.RATE_LIMITED_NONE: (429, "This request would exceed your organization's rate limit (simulated)."),
    _K.INSUFFICIENT_QUOTA: (400, "Your credit balance is too low to access the Anthropic API."),
    _K.SERVER_ERROR: (500, "Internal server error"),
    _K.UNAVAILABLE: (503, "Service unavailable"),
    _K.GATEWAY_TIMEOUT: (504, "Request timed out"),
    _K.OVERLOADED: (529, "Overloaded"),
    _K.REQUEST_TIMEOUT: (408, "Request timed out"),
    _K.UNAUTHORIZED: (401, "invalid x-api-key"),
    _K.FORBIDDEN: (403, "Your API key does not have permission to use the specified resource."),
    _K.DEPLOYMENT_NOT_FOUND: (404, "model: not found (simulated)"),
    _K.GONE: (410, "This model has been retired."),
    _K.INVALID_REQUEST: (400, "messages.0.content: invalid value (simulated)"),
    _K.CONTEXT_LENGTH: (400, "prompt is too long: 210000 tokens > 200000 maximum"),
    _K.CONTENT_FILTER: (400, "Output blocked by content filtering policy"),
}


class AnthropicDialect:
    """The Messages API. Foundry's Claude is the same, with a Bearer token."""

    name = "anthropic"

    def answer(self, received: Received) -> Answer:
        """Answer a message, or count its tokens. Raise `RefusedError`."""
        self._check_access(received)
        ask, cached = _ask_of(received)
        if received.operation == "count_tokens":
            return Answer(Billed(), {"input_tokens": ask.input_tokens})
        made = reply(ask)
        billed = Billed(
            input_tokens=ask.input_tokens,
            output_tokens=max(1, made.output_tokens),
            cache_read=cached[0],
            cache_creation=cached[1],
        )
        if received.payload.get("stream"):
            return Answer(billed, events=tuple(_events(received, made, billed)))
        return Answer(billed, _message(received, made, billed))

    def error_body(self, problem: Problem) -> dict[str, Any]:
        """Render Anthropic's error object."""
        kind = _TYPES.get(problem.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": problem.message}, "request_id": "req_sim"}

    def error_event(self, problem: Problem) -> Event:
        """Render an ``error`` event."""
        return Event("error", self.error_body(problem), "error")

    def headers(self, received: Received) -> dict[str, str]:
        """Return request id and rate limits; resets are RFC 3339 times."""
        reset = datetime.fromtimestamp(int(received.at) + 1, UTC).isoformat().replace("+00:00", "Z")
        limits = {"requests": 4_000, "tokens": 2_400_000, "input-tokens": 2_000_000, "output-tokens": 400_000}
        headers = {"request-id": f"req_sim{received.seq:08d}", "anthropic-organization-id": "org-simulator"}
        for name, limit in limits.items():
            headers[f"anthropic-ratelimit-{name}-limit"] = str(limit)
            headers[f"anthropic-ratelimit-{name}-remaining"] = str(limit - 1 - received.seq % 100)
            headers[f"anthropic-ratelimit-{name}-reset"] = reset
        return headers

    def fault_problem(self, kind: FaultKind, received: Received) -> Problem:
        """Word a scripted error as Anthropic does."""
        del received
        status, message = _FAULTS[kind]
        return Problem(status, _TYPES[status], None, message)

    def _check_access(self, received: Received) -> None:
        headers, settings = received.headers, received.settings
        key = headers.get("x-api-key") or headers.get("api-key") or headers.get("authorization")
        if not key and settings.require_key is not False:
            raise RefusedError(Problem(401, "authentication_error", None, "x-api-key header is required"))
        if not headers.get("anthropic-version"):
            refuse("anthropic-version: header is required")
        if settings.models is not None and received.model not in settings.models:
            raise RefusedError(Problem(404, "not_found_error", None, f"model: {received.model}"))


def _ask_of(received: Received) -> tuple[Ask, tuple[int, int]]:
    """Return what is asked, and the tokens read from and written to the prompt cache. Raise `RefusedError`."""
    payload, settings = received.payload, received.settings
    if not isinstance(payload.get("model"), str) or not payload["model"]:
        refuse("model: Field required")
    limit = payload.get("max_tokens")
    wanted = received.operation == "messages" or limit is not None
    if wanted and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        refuse("max_tokens: Field required" if limit is None else "max_tokens: Input should be a positive integer")
    _check_numbers(payload)
    messages = _messages(payload)
    blocks = [*_blocks(payload.get("system")), *[block for item in messages for block in _blocks(item["content"])]]
    tools = _tools(payload)
    tool_tokens = tokens(orjson.dumps(payload["tools"]).decode()) if tools else 0
    counted = tool_tokens + _MESSAGE_TOKENS * len(messages) + sum(map(_block_tokens, blocks))
    check_context(counted, settings.context_window)
    last = _blocks(messages[-1]["content"])
    result = next((block for block in last if block.get("type") == "tool_result"), None)
    choice = payload.get("tool_choice") if isinstance(payload.get("tool_choice"), Mapping) else {}
    ask = Ask(
        model=payload["model"],
        prompt=" ".join(filter(None, map(_text, last))) if result is None else _text(result),
        input_tokens=counted,
        max_tokens=limit,
        stop=tuple(item for item in payload.get("stop_sequences") or () if isinstance(item, str)),
        seed=str(settings.seed),
        tools=tools,
        tool_choice=_choice(choice or {}),
        parallel=not (choice or {}).get("disable_parallel_tool_use"),
        answers_tool=result is not None,
        schema=_schema(payload),
        words=settings.words,
        text=settings.answer,
    )
    return ask, _cached(received, blocks, counted)


def _check_numbers(payload: Mapping[str, Any]) -> None:
    for name, most in (("temperature", 1), ("top_p", 1)):
        value = payload.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most):
            refuse(f"{name}: must be a number in range 0..{most}")
    if payload.get("stop_sequences") is not None and not isinstance(payload["stop_sequences"], list):
        refuse("stop_sequences: Input should be a valid list")


def _messages(payload: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    messages = payload.get("messages")
    if not isinstance(messages, list) or not messages:
        refuse("messages: at least one message is required")
    for place, item in enumerate(messages):
        if not isinstance(item, Mapping) or not is_among(item.get("role"), {"user", "assistant"}):
            refuse(f'messages.{place}.role: Input should be "user" or "assistant"')
        if not isinstance(item.get("content"), str | list) or not item["content"]:
            refuse(f"messages.{place}: content must be non-empty text or a list of blocks")
    version = _MODEL.match(str(payload.get("model")))
    known = (int(version[1]), int(version[2] or 0)) if version else (0, 0)
    if messages[-1]["role"] == "assistant" and known >= _NO_PREFILL_FROM:
        refuse("This model does not support assistant message prefill. The conversation must end with a user message.")
    return messages


def _blocks(content: object) -> list[Mapping[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else []


def _text(block: Mapping[str, Any]) -> str:
    if block.get("type") == "tool_result":
        return " ".join(map(_text, _blocks(block.get("content"))))
    return str(block.get("text") or "")


def _block_tokens(block: Mapping[str, Any]) -> int:
    if is_among(block.get("type"), {"image", "document"}):
        return _IMAGE_TOKENS
    return tokens(orjson.dumps(block["input"]).decode()) if "input" in block else tokens(_text(block))


def _tools(payload: Mapping[str, Any]) -> tuple[Tool, ...]:
    given = payload.get("tools") or []
    if not isinstance(given, list):
        refuse("tools: Input should be a valid list")
    tools: list[Tool] = []
    for place, item in enumerate(given):
        if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
            refuse(f"tools.{place}.name: Field required")
        custom = is_among(item.get("type") or "custom", {"custom"})
        if custom and not isinstance(item.get("input_schema"), Mapping):
            refuse(f"tools.{place}.input_schema: Field required")
        tools += [Tool(item["name"], item["input_schema"])] if custom else []
    return tuple(tools)


def _choice(choice: Mapping[str, Any]) -> str:
    kind = str(choice.get("type") or "auto")
    return str(choice.get("name")) if kind == "tool" else {"any": "required"}.get(kind, kind)


def _schema(payload: Mapping[str, Any]) -> Any:
    config = payload.get("output_config")
    wanted = config.get("format") if isinstance(config, Mapping) else payload.get("output_format")
    return dict(wanted["schema"]) if isinstance(wanted, Mapping) and isinstance(wanted.get("schema"), Mapping) else None


def _cached(received: Received, blocks: Sequence[Mapping[str, Any]], counted: int) -> tuple[int, int]:
    """Return tokens read from and written to the cache: the prompt up to its last ``cache_control`` mark."""
    tools = [item for item in received.payload.get("tools") or () if isinstance(item, Mapping)]
    prompt = [*tools, *blocks]
    marked = max((place for place, block in enumerate(prompt) if block.get("cache_control")), default=-1)
    if received.payload.get("cache_control"):
        marked = len(prompt) - 1
    if marked < 0 or received.operation != "messages":
        return 0, 0
    prefix = orjson.dumps([dict(block) for block in prompt[: marked + 1]]).decode()
    size = min(counted, max(1, sum(map(_block_tokens, prompt[: marked + 1]))))
    known = received.memory.meet(f"{received.profile}/{received.model}", prefix)
    return (size, 0) if known else (0, size)


def _usage(received: Received, billed: Billed, output_tokens: int) -> dict[str, Any]:
    """Render usage; ``input_tokens`` leaves out what the cache read or wrote."""
    return {
        "input_tokens": billed.input_tokens - billed.cache_read - billed.cache_creation,
        "cache_creation_input_tokens": billed.cache_creation,
        "cache_read_input_tokens": billed.cache_read,
        "cache_creation": {"ephemeral_5m_input_tokens": billed.cache_creation, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output_tokens,
        "service_tier": "priority" if received.payload.get("service_tier") == "priority" else "standard",
    }


def _content(made: Reply) -> list[dict[str, Any]]:
    calls = [
        {"type": "tool_use", "id": f"toolu_{call.id}", "name": call.name, "input": orjson.loads(call.arguments)}
        for call in made.tool_calls
    ]
    return calls or [{"type": "text", "text": made.text}]


def _message(received: Received, made: Reply, billed: Billed) -> dict[str, Any]:
    return {
        "id": f"msg_sim{received.seq:08d}",
        "type": "message",
        "role": "assistant",
        "model": received.settings.response_model or received.model,
        "content": _content(made),
        "stop_reason": "stop_sequence" if made.stop_sequence else _STOP_REASONS[made.finish],
        "stop_sequence": made.stop_sequence,
        "usage": _usage(received, billed, billed.output_tokens),
    }


def _events(received: Received, made: Reply, billed: Billed) -> Iterator[Event]:
    whole = _message(received, made, billed)
    opened = {**whole, "content": [], "stop_reason": None, "stop_sequence": None, "usage": _usage(received, billed, 1)}
    yield _event("open", "message_start", message=opened)
    for index, block in enumerate(whole["content"]):
        empty: dict[str, Any] = {"text": ""} if block["type"] == "text" else {"input": {}}
        yield _event("start", "content_block_start", index=index, content_block={**block, **empty})
        if index == 0:
            yield _event("start", "ping")
        for delta, spent in _deltas(made, index, block):
            yield _event("content", "content_block_delta", spent=spent, index=index, delta=delta)
        yield _event("stop", "content_block_stop", index=index)
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": whole["stop_sequence"]}
    yield _event("finish", "message_delta", delta=ending, usage={"output_tokens": billed.output_tokens})
    yield _event("end", "message_stop")


def _event(part: str, name: str, *, spent: int = 0, **fields: Any) -> Event:
    return Event(part, {"type": name, **fields}, name, spent)


def _deltas(made: Reply, index: int, block: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
    if block["type"] == "tool_use":
        arguments = made.tool_calls[index].arguments
        third = len(arguments) // 3
        spent = made.output_tokens // len(made.tool_calls)
        yield {"type": "input_json_delta", "partial_json": ""}, 0
        yield {"type": "input_json_delta", "partial_json": arguments[:third]}, 0
        yield {"type": "input_json_delta", "partial_json": arguments[third:]}, spent
        return
    count = max(1, len(made.pieces))
    for place, piece in enumerate(made.pieces):
        spent = made.output_tokens * (place + 1) // count - made.output_tokens * place // count
        yield {"type": "text_delta", "text": piece}, spent
