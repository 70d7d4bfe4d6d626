"""Whatever a body holds: it is refused by name, or becomes a chat that chat's own endpoint takes."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from functions.chat_completions import CHAT
from functions.responses_asked import RESPONSE
from functions.schemas_own import DEADLINE, WEBHOOK
from functions.schemas_responses import ResponseRequest
from shared.core.errors import InvalidRequestError
from shared.core.requirements import chat_requirements
from shared.core.responses import chat_body
from shared.core.responses_events import ResponseEvents
from shared.core.responses_items import items_of, references_of
from shared.core.responses_object import begun

NAME = "resp_" + "0" * 32
TEXT = st.text(max_size=3)
NAMES = st.sampled_from(["f", "g"])
ANY: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner),
)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects that have some of these fields, now and then with something else in one."""
    return st.fixed_dictionaries({}, optional={name: field | st.none() for name, field in fields.items()})


def of(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects of a type, with these fields."""
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


SAID = st.one_of(of("output_text", text=TEXT), of("refusal", refusal=TEXT))
TEXTS = st.one_of(of("input_text", text=TEXT))
PARTS = st.one_of(
    TEXTS,
    of("input_image", image_url=st.just("u")),
    of("input_file", file_data=st.just("d"), filename=TEXT),
    of("input_audio", input_audio=st.just({"data": "AA", "format": "wav"})),
)


def message(role: str, parts: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Return a turn in which somebody says something."""
    content = TEXT | st.lists(parts, min_size=1, max_size=3)
    return st.tuples(st.fixed_dictionaries({"role": st.just(role), "content": content})).map(list)


def called(kind: str, given_as: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Return a turn in which a tool is called, and returns something."""
    call = of(kind, call_id=st.just("a"), name=NAMES, **{given_as: TEXT})
    output = TEXT | st.lists(TEXTS, min_size=1, max_size=2)
    return st.tuples(call, of(f"{kind.removesuffix('_call')}_call_output", call_id=st.just("a"), output=output)).map(list)


TURNS = st.one_of(
    message("user", PARTS),
    message("assistant", SAID),
    message("system", TEXTS),
    message("developer", TEXTS),
    called("function_call", "arguments"),
    called("custom_tool_call", "input"),
    st.just([{"type": "reasoning", "summary": []}]),
)
HELLO = {"role": "user", "content": "Hello"}
INPUTS = st.lists(TURNS, max_size=6).map(lambda turns: [HELLO, *(item for turn in turns for item in turn)])
FORMATS = of("text") | of("json_object") | of("json_schema", name=NAMES, schema=st.just({}))
BODIES = st.builds(
    lambda required, more: {**more, **required},
    st.fixed_dictionaries({"input": st.text(min_size=1, max_size=3) | INPUTS}),
    objects(
        instructions=TEXT,
        tools=st.lists(of("function", name=NAMES) | of("custom", name=NAMES), max_size=2),
        tool_choice=st.sampled_from(["auto", "none"]),
        parallel_tool_calls=st.booleans(),
        text=objects(format=FORMATS, verbosity=st.just("low")),
        reasoning=objects(effort=st.just("low"), summary=st.just("auto")),
        max_output_tokens=st.integers(1, 5),
        top_logprobs=st.integers(0, 3),
        include=st.lists(st.just("message.output_text.logprobs"), max_size=2),
        metadata=st.dictionaries(TEXT, TEXT, max_size=2),
        stream=st.booleans(),
        store=st.booleans(),
        background=st.booleans(),
        user=TEXT,
    ),
)


@settings(max_examples=200)
@given(BODIES)
def test_a_good_body_becomes_a_chat(body: dict[str, Any]) -> None:
    """What is read again from the store (background, batches) must be read as what it was."""
    RESPONSE.check(body)
    chat = chat_body(body, items_of(body["input"], NAME))
    CHAT.check(chat)
    chat_requirements(chat)

    assert not {WEBHOOK, DEADLINE, "metadata", "store", "background"} & set(chat)
    assert "response" == begun(body, NAME, 0.0)["object"]


@settings(max_examples=200)
@given(BODIES, st.sampled_from(sorted(ResponseRequest.__annotations__)), ANY)
def test_a_spoilt_body_is_refused_by_name_or_still_good(body: dict[str, Any], name: str, value: Any) -> None:
    """Never an error of ours."""
    body = {**body, name: value}
    refused: InvalidRequestError | None = None
    try:
        RESPONSE.check(body)
        if not references_of(body["input"]):
            CHAT.check(chat_body(body, items_of(body["input"], NAME)))
    except InvalidRequestError as error:
        refused = error

    assert refused is None or refused.param


DELTAS = objects(
    role=st.just("assistant"),
    content=TEXT | st.lists(of("text", text=TEXT), max_size=2),
    refusal=TEXT,
    reasoning_content=TEXT,
    tool_calls=st.lists(
        objects(
            index=st.integers(0, 2),
            id=TEXT,
            type=st.sampled_from(["function", "custom"]),
            function=objects(name=TEXT, arguments=TEXT),
            custom=objects(name=TEXT, input=TEXT),
        ),
        max_size=2,
    ),
)
CHUNKS = objects(
    model=TEXT,
    usage=objects(prompt_tokens=st.integers(0, 9), completion_tokens=st.integers(0, 9), prompt_tokens_details=st.just({})),
    choices=st.lists(objects(delta=DELTAS, finish_reason=st.sampled_from(["stop", "length"])), max_size=1),
)


@settings(max_examples=300)
@given(st.lists(CHUNKS, max_size=6))
def test_whatever_vendors_leave_out_the_events_fit_together(chunks: list[dict[str, Any]]) -> None:
    """Each item is added once and done once, what its deltas say is what it holds in the end, numbers have no gap."""
    events = ResponseEvents(begun({}, NAME, 0.0))
    made = events.begin()
    for chunk in chunks:
        made += events.feed(chunk)
    made += events.finish(at=1.0)
    output = made[-1]["response"]["output"]

    assert list(range(len(made))) == [one["sequence_number"] for one in made]
    for kind in ("added", "done"):
        places = [one["output_index"] for one in made if one["type"] == f"response.output_item.{kind}"]
        assert list(range(len(output))) == sorted(places)
    said = "".join(one["delta"] for one in made if one["type"].endswith(".delta"))
    held = [part.get("text", part.get("refusal", "")) for item in output for part in item.get("content", ())]
    held += [item.get("arguments", item.get("input", "")) for item in output]
    assert sorted(said) == sorted("".join(held))
