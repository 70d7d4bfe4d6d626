"""Chat's answers as the events of Responses, one after the other: whole or streamed, the same items come of it. Pure.

A reasoning or message item ends when the next one begins. Calls of tools end with the answer, because vendors may send the
arguments of several of them at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shared.core.responses_items import item_id
from shared.core.responses_object import INCOMPLETE, ended, failed

Json = Mapping[str, Any]
Event = dict[str, Any]
Item = dict[str, Any]

_REASONING: Final = ("reasoning_content", "reasoning")
"""What vendors call a model's thoughts."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A kind of content: which item has it, where its text is, and what its events are called."""

    item: str
    kind: str
    text: str
    events: str

    def made(self, text: str, logprobs: list[Any]) -> dict[str, Any]:
        part: dict[str, Any] = {"type": self.kind, self.text: text}
        return {**part, "annotations": [], "logprobs": logprobs} if self.kind == "output_text" else part


_TEXT: Final = _Part("message", "output_text", "text", "response.output_text")
_REFUSAL: Final = _Part("message", "refusal", "refusal", "response.refusal")
_THOUGHT: Final = _Part("reasoning", "reasoning_text", "text", "response.reasoning_text")
_PARTS: Final = {part.kind: part for part in (_TEXT, _REFUSAL, _THOUGHT)}


@dataclass(frozen=True, slots=True)
class _Call:
    """A kind of call: where chat and Responses have its name and its input, and what its events are called."""

    item: str
    inner: str
    text: str
    events: str


_FUNCTION: Final = _Call("function_call", "function", "arguments", "response.function_call_arguments")
_CUSTOM: Final = _Call("custom_tool_call", "custom", "input", "response.custom_tool_call_input")
_CALLS: Final = {call.item: call for call in (_FUNCTION, _CUSTOM)}


@dataclass(slots=True)
class _Calling:
    """A call whose arguments are coming."""

    kind: _Call
    call_id: str
    name: str = ""
    text: str = ""
    item: Item | None = None
    place: int = 0


@dataclass(slots=True)
class _Writing:
    """An item whose text is coming."""

    item: Item
    place: int
    part: _Part
    text: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)


class ResponseEvents:
    """The events of one response. ``response`` is how it began; `feed` it chunks, or one whole answer, then `finish` it."""

    def __init__(self, response: Json) -> None:
        self.response: dict[str, Any] = dict(response)
        self._number = 0
        self._output: list[Item] = []
        self._writing: _Writing | None = None
        self._calls: dict[int, _Calling] = {}
        self._facts: dict[str, Any] = {}

    # ---- the beginning and the end -----------------------------------------------------------------------------------

    def begin(self) -> list[Event]:
        """Return the events of a response that is being answered."""
        return [self.lifecycle("created"), self.lifecycle("in_progress")]

    def lifecycle(self, name: str) -> Event:
        """Return ``response.created``, ``response.queued`` and so on, with the response as it is."""
        return self._event(f"response.{name}", response=self.response)

    def finish(self, *, at: float, more: Json | None = None) -> list[Event]:
        """Return the last events of an answer that came to its end.

        The last one has the whole response, with ``more`` in it; ``at`` is when it ended, in seconds since the epoch.
        """
        status = "incomplete" if self._facts.get("finish_reason") in INCOMPLETE else "completed"
        events = self._close_all(status)
        if not self._output:
            events += [*self._write(_TEXT, ""), *self._close(status)]
        self.response = {**ended(self.response, self._output, self._facts, at=at), **(more or {})}
        return [*events, self.lifecycle(self.response["status"])]

    def fail(self, error: Json) -> list[Event]:
        """Return the last events of an answer that broke off; what has come stands. ``error`` is OpenAI's error object."""
        events = self._close_all("incomplete")
        self.response = failed(self.response, error, self._output)
        return [*events, self.lifecycle("failed")]

    def _close_all(self, status: str) -> list[Event]:
        events = list(self._close(status))
        for call in self._calls.values():
            events += self._close_call(call, status)
        return events

    def _event(self, kind: str, **fields: Any) -> Event:
        number = self._number
        self._number += 1
        return {"type": kind, "sequence_number": number, **fields}

    # ---- chunks ------------------------------------------------------------------------------------------------------

    def feed(self, payload: Json) -> list[Event]:
        """Return the events of a chat chunk, or of a whole ``chat.completion``."""
        for name in ("model", "usage", "service_tier"):
            if payload.get(name) is not None:
                self._facts[name] = payload[name]
        choices = payload.get("choices")
        if not choices:
            return []
        choice = choices[0]  # Responses have no `n`
        if choice.get("finish_reason") is not None:
            self._facts["finish_reason"] = choice["finish_reason"]
        return list(self._delta(choice.get("delta") or choice.get("message") or {}, choice.get("logprobs") or {}))

    def _delta(self, delta: Json, logprobs: Json) -> Iterator[Event]:
        thought = next((delta[name] for name in _REASONING if isinstance(delta.get(name), str) and delta[name]), None)
        if thought is not None:
            yield from self._write(_THOUGHT, thought)
        if text := _plain(delta.get("content")):
            yield from self._write(_TEXT, text, logprobs.get("content") or [])
        for annotation in delta.get("annotations") or ():
            yield from self._annotate(annotation)
        if refusal := delta.get("refusal"):
            yield from self._write(_REFUSAL, refusal)
        for place, call in enumerate(delta.get("tool_calls") or ()):
            yield from self._call(call, call.get("index", place))

    def _write(self, part: _Part, text: str, logprobs: list[Any] | None = None) -> Iterator[Event]:
        writing = self._writing
        if writing is None or writing.part.item != part.item:
            yield from self._close("completed")
            writing = yield from self._open(part)
        elif writing.part is not part:
            yield from self._close_part(writing)
            writing.part, writing.text, writing.logprobs = part, [], []
            yield self._part_event("response.content_part.added", writing, part=part.made("", []))
        if text:
            writing.text.append(text)
            more: dict[str, Any] = {}
            if part is _TEXT:
                more["logprobs"] = logprobs or []
                writing.logprobs += logprobs or []
            yield self._part_event(f"{part.events}.delta", writing, delta=text, **more)

    def _open(self, part: _Part) -> Any:
        place = len(self._output)
        item: Item = {"id": item_id(part.item, self.response["id"], place), "type": part.item, "status": "in_progress"}
        item.update({"role": "assistant", "content": []} if part.item == "message" else {"summary": [], "content": []})
        self._output.append(item)
        self._writing = writing = _Writing(item, place, part)
        yield self._event("response.output_item.added", output_index=place, item=_copy(item))
        yield self._part_event("response.content_part.added", writing, part=part.made("", []))
        return writing

    def _part_event(self, kind: str, writing: _Writing, **fields: Any) -> Event:
        place, content = writing.place, len(writing.item["content"])
        return self._event(kind, item_id=writing.item["id"], output_index=place, content_index=content, **fields)

    def _annotate(self, annotation: Any) -> Iterator[Event]:
        """Pass on where a text has something from; it is in the finished part, too."""
        inner = annotation.get("url_citation") if isinstance(annotation, Mapping) else None
        if not isinstance(inner, Mapping) or self._writing is None or self._writing.part is not _TEXT:
            return
        flat = {"type": "url_citation", **inner}
        found = self._writing.item.setdefault("annotations", [])
        found.append(flat)
        yield self._part_event(
            "response.output_text.annotation.added", self._writing, annotation_index=len(found) - 1, annotation=flat
        )

    def _close(self, status: str) -> Iterator[Event]:
        writing = self._writing
        if writing is None:
            return
        yield from self._close_part(writing)
        writing.item["status"] = status
        self._writing = None
        yield self._event("response.output_item.done", output_index=writing.place, item=_copy(writing.item))

    def _close_part(self, writing: _Writing) -> Iterator[Event]:
        part, text = writing.part, "".join(writing.text)
        more = {"logprobs": writing.logprobs} if part is _TEXT else {}
        made = part.made(text, writing.logprobs)
        if part is _TEXT:
            made["annotations"] = writing.item.pop("annotations", [])
        yield self._part_event(f"{part.events}.done", writing, **{part.text: text}, **more)
        yield self._part_event("response.content_part.done", writing, part=made)
        writing.item["content"].append(made)

    # ---- calls -------------------------------------------------------------------------------------------------------

    def _call(self, given: Json, index: int) -> Iterator[Event]:
        calling = self._calls.get(index)
        if calling is None:
            yield from self._close("completed")
            kind = _CUSTOM if given.get("type") == "custom" or "custom" in given else _FUNCTION
            made_up = f"call_{self.response['id'][-24:]}{index}"
            calling = self._calls[index] = _Calling(kind, given.get("id") or made_up)
        inner = given.get(calling.kind.inner) or {}
        calling.name = calling.name or inner.get("name") or ""
        piece = inner.get(calling.kind.text) or ""
        calling.text += piece
        if calling.item is None and calling.name:
            piece = calling.text
            yield self._open_call(calling)
        if piece and calling.item is not None:
            yield self._call_event("delta", calling, delta=piece)

    def _open_call(self, calling: _Calling) -> Event:
        calling.place = len(self._output)
        kind = calling.kind
        name = item_id(kind.item, self.response["id"], calling.place)
        calling.item = {"id": name, "type": kind.item, "status": "in_progress", "call_id": calling.call_id}
        calling.item.update({"name": calling.name, kind.text: ""})
        self._output.append(calling.item)
        return self._event("response.output_item.added", output_index=calling.place, item=_copy(calling.item))

    def _call_event(self, event: str, calling: _Calling, /, **fields: Any) -> Event:
        item = calling.item or {}
        return self._event(f"{calling.kind.events}.{event}", item_id=item.get("id"), output_index=calling.place, **fields)

    def _close_call(self, calling: _Calling, status: str) -> Iterator[Event]:
        if calling.item is None:
            return  # it never got a name: nobody could call it
        calling.item.update({calling.kind.text: calling.text, "status": status})
        yield self._call_event("done", calling, name=calling.name, **{calling.kind.text: calling.text})
        yield self._event("response.output_item.done", output_index=calling.place, item=_copy(calling.item))

    # ---- a response that is there already ----------------------------------------------------------------------------

    def replay(self, response: Json) -> Iterator[Event]:
        """Yield the rest of the events of a response that has ended: its items, each text in one piece, and its end."""
        for place, item in enumerate(response["output"]):
            yield from self._replayed(dict(item), place)
        self.response = dict(response)
        status = response["status"]
        # OpenAI has no event for a cancelled response: it failed to be answered.
        yield self.lifecycle("failed" if status == "cancelled" else status)

    def _replayed(self, item: Item, place: int) -> Iterator[Event]:
        call = _CALLS.get(item["type"])
        empty: Item = {**item, "status": "in_progress"}
        empty["content" if call is None else call.text] = [] if call is None else ""
        yield self._event("response.output_item.added", output_index=place, item=empty)
        if call is not None:
            calling = _Calling(call, item["call_id"], item["name"], item[call.text], item, place)
            if calling.text:
                yield self._call_event("delta", calling, delta=calling.text)
            yield self._call_event("done", calling, name=calling.name, **{call.text: calling.text})
        else:
            yield from self._replayed_parts(item, place)
        yield self._event("response.output_item.done", output_index=place, item=item)

    def _replayed_parts(self, item: Item, place: int) -> Iterator[Event]:
        for number, made in enumerate(item.get("content") or ()):
            part, logprobs = _PARTS[made["type"]], made.get("logprobs") or []
            text = made[part.text]
            at = {"item_id": item["id"], "output_index": place, "content_index": number}
            more = {"logprobs": logprobs} if part is _TEXT else {}
            yield self._event("response.content_part.added", **at, part=part.made("", []))
            if text:
                yield self._event(f"{part.events}.delta", **at, delta=text, **more)
            yield self._event(f"{part.events}.done", **at, **{part.text: text}, **more)
            yield self._event("response.content_part.done", **at, part=made)


def answered(response: Json, payload: Json, *, at: float, more: Json | None = None) -> dict[str, Any]:
    """Return a response ended by a whole ``chat.completion``."""
    events = ResponseEvents(response)
    events.feed(payload)
    events.finish(at=at, more=more)
    return events.response


def _copy(item: Item) -> Item:
    """Return an item as it is now: events are sent later than they are made."""
    return {name: list(value) if isinstance(value, list) else value for name, value in item.items() if name != "annotations"}


def _plain(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""
