"""OpenAI's other calls: embeddings, legacy completions and the list of models."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from local.simulator.answers import Ask, Reply, reply, tokens
from local.simulator.attempts import Billed
from local.simulator.checks import check_context, check_fields, check_model, is_among
from local.simulator.openai_chat import usage_object
from local.simulator.protocol import Answer, Event, Received, refuse

_SIZES: Final[Mapping[str, int]] = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
    "embed-v-4-0": 1536,
}
_DEFAULT_SIZE: Final = 1024
_MOST_INPUTS: Final = 2048
_LEGACY_MAX_TOKENS: Final = 16
_LISTED: Final = ("simulated-chat", "simulated-embedding")


def answer_embeddings(received: Received) -> Answer:
    """Answer with one vector of length 1 per input; texts that share words point the same way. Raise `RefusedError`."""
    payload = received.payload
    model = received.settings.response_model or check_model(payload, received.deployment)
    check_fields(payload)
    texts = _inputs(payload.get("input"))
    size = payload.get("dimensions") or _SIZES.get(model, _DEFAULT_SIZE)
    if payload.get("dimensions") and "ada" in model:
        refuse("This model does not support specifying dimensions.", param="dimensions", code=None)
    encoding = payload.get("encoding_format") or "float"
    if not is_among(encoding, {"float", "base64"}):
        refuse("Invalid 'encoding_format'.", param="encoding_format", code="invalid_value")
    counted = sum(max(1, tokens(text)) for text in texts)
    check_context(counted, received.settings.context_window)
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector(text, size), encoding)}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": counted, "total_tokens": counted}
    return Answer(Billed(input_tokens=counted), {"object": "list", "data": data, "model": model, "usage": usage})


def vector(text: str, size: int) -> array[float]:
    """Return the text's unit vector: each word lights up some dimensions, so that likeness in words is likeness in angle."""
    values = [0.0] * size
    touched: set[int] = set()
    for word in re.findall(r"\w+", text.lower()) or [text]:
        digest = hashlib.blake2b(word.encode(errors="replace"), digest_size=32).digest()
        for place in range(0, 32, 4):
            number = int.from_bytes(digest[place : place + 4])
            values[number % size] += 1.0 if number >> 31 else -1.0
            touched.add(number % size)
    length = math.sqrt(sum(values[place] ** 2 for place in touched))
    if not length:
        values[0], touched, length = 1.0, {0}, 1.0
    for place in touched:
        values[place] /= length
    return array("f", values)


def _encoded(values: array[float], encoding: str) -> list[float] | str:
    return base64.b64encode(values.tobytes()).decode() if encoding == "base64" else values.tolist()


def _inputs(given: object) -> list[str]:
    """Return the texts to embed; token ids become words of their own."""
    if isinstance(given, str) and given:
        return [given]
    if not isinstance(given, list) or not given or len(given) > _MOST_INPUTS:
        refuse(
            "'$.input' is invalid: it must be a non-empty string, or a list of up to 2048 of them or of token ids.",
            param="input",
            code=None,
        )
    if all(isinstance(item, int) for item in given):
        return [" ".join(map(str, given))]
    texts: list[str] = []
    for item in given:
        text = " ".join(map(str, item)) if isinstance(item, list) else item
        if not isinstance(text, str) or not text:
            refuse("'$.input' is invalid: an item is empty or of the wrong type.", param="input", code=None)
        texts.append(text)
    return texts


def answer_completions(received: Received) -> Answer:
    """Answer a legacy completion (`prompt`), whole or streamed. Raise `RefusedError`."""
    payload = received.payload
    model = received.settings.response_model or check_model(payload, received.deployment)
    check_fields(payload)
    prompts = _inputs(payload.get("prompt") or "<|endoftext|>")
    counted = sum(max(1, tokens(prompt)) for prompt in prompts)
    check_context(counted, received.settings.context_window)
    replies: list[tuple[str, Reply]] = []
    for prompt in prompts:
        ask = Ask(
            model=model,
            prompt=prompt,
            input_tokens=counted,
            max_tokens=payload.get("max_tokens") or _LEGACY_MAX_TOKENS,
            stop=_stops(payload.get("stop")),
            seed=f"{received.settings.seed}/{payload.get('seed')}",
            words=received.settings.words,
            text=received.settings.answer,
        )
        replies += [(prompt if payload.get("echo") else "", reply(ask, index)) for index in range(payload.get("n") or 1)]
    billed = Billed(input_tokens=counted, output_tokens=sum(item.output_tokens for _, item in replies))
    if payload.get("stream"):
        return Answer(billed, events=tuple(_legacy_events(received, model, replies, billed)))
    choices = [_legacy_choice(index, echo + item.text, item.finish) for index, (echo, item) in enumerate(replies)]
    return Answer(billed, {**_legacy_head(received, model), "choices": choices, "usage": usage_object(billed)})


def _stops(stop: object) -> tuple[str, ...]:
    given = [stop] if isinstance(stop, str) else stop
    return tuple(item for item in given if isinstance(item, str)) if isinstance(given, list) else ()


def _legacy_head(received: Received, model: str) -> dict[str, Any]:
    return {
        "id": f"cmpl-sim{received.seq:08d}",
        "object": "text_completion",
        "created": int(received.at),
        "model": model,
        "system_fingerprint": "fp_simulator",
    }


def _legacy_choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


def _legacy_events(received: Received, model: str, replies: Sequence[tuple[str, Reply]], billed: Billed) -> Iterator[Event]:
    head = _legacy_head(received, model)
    options = received.payload.get("stream_options")
    counts = isinstance(options, Mapping) and options.get("include_usage") is True
    head = {**head, "usage": None} if counts else head
    for index, (echo, item) in enumerate(replies):
        pieces = [*([echo] if echo else ()), *item.pieces]
        for piece in pieces:
            yield Event("content", {**head, "choices": [_legacy_choice(index, piece, None)]}, tokens=tokens(piece))
        yield Event("finish", {**head, "choices": [_legacy_choice(index, "", item.finish)]})
    if counts:
        yield Event("usage", {**head, "choices": [], "usage": usage_object(billed)})
    yield Event("end", None)


def answer_models(received: Received) -> Answer:
    """List the models that the script says are deployed, or a sample of names."""
    names = received.settings.models or _LISTED
    data = [{"id": name, "object": "model", "created": int(received.at), "owned_by": "simulator"} for name in names]
    return Answer(Billed(), {"object": "list", "data": data})
