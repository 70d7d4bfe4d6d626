"""Chat's answers in the shape of OpenAI's legacy completions: pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.core.chat import Json
from shared.executor import Answer


def choices_of(answers: list[Answer], echoes: list[str]) -> list[dict[str, Any]]:
    """Return the choices of all answers, numbered through; ``echoes`` are the prompts to repeat before each text."""
    choices: list[dict[str, Any]] = []
    for answer, echo in zip(answers, echoes, strict=True):
        for choice in answer.completion.payload.get("choices", ()):
            content = (choice.get("message") or {}).get("content")
            choices.append(
                {
                    "text": echo + text_of(content),
                    "index": len(choices),
                    "logprobs": logprobs_of(choice.get("logprobs"), offset=len(echo)),
                    "finish_reason": choice.get("finish_reason"),
                }
            )
    return choices


def text_of(content: object) -> str:
    """Return a message's text: "" where there is none, the texts of its parts where it has parts."""
    if isinstance(content, list):
        return "".join(text_of(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def logprobs_of(logprobs: Json | None, *, offset: int = 0) -> dict[str, Any] | None:
    """Return chat's log probabilities as the legacy ones; ``offset`` is where the text begins."""
    tokens = (logprobs or {}).get("content")
    if not tokens:
        return None
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token["token"])
    return {
        "tokens": [token["token"] for token in tokens],
        "token_logprobs": [token["logprob"] for token in tokens],
        "top_logprobs": [{top["token"]: top["logprob"] for top in token.get("top_logprobs") or ()} for token in tokens],
        "text_offset": offsets,
    }


def usage_sum(answers: list[Answer]) -> dict[str, Any]:
    """Return the tokens of all answers in OpenAI's words."""
    known = [answer.completion.usage for answer in answers if answer.completion.usage is not None]
    prompt, completion = sum(usage.input_tokens for usage in known), sum(usage.output_tokens for usage in known)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def legacy_chunk(echo: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what turns chat chunks into legacy ones; the first one of each choice begins with ``echo``."""
    echoed: set[int] = set()

    def text(choice: Json) -> str:
        index = choice.get("index", 0)
        found = text_of((choice.get("delta") or {}).get("content"))
        if echo and index not in echoed:
            echoed.add(index)
            return echo + found
        return found

    def shape(payload: dict[str, Any]) -> dict[str, Any]:
        choices = [
            {
                "text": text(choice),
                "index": choice.get("index", 0),
                "logprobs": logprobs_of(choice.get("logprobs")),
                "finish_reason": choice.get("finish_reason"),
            }
            for choice in payload.get("choices", ())
        ]
        return {**payload, "object": "text_completion", "choices": choices}

    return shape
