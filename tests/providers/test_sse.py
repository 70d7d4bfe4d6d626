"""The server-sent-events codec: whatever the split of the bytes, the same events."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.sse import Decoder, EventTooLargeError, ServerSentEvent, comment, encode


def decode(*pieces: bytes) -> list[ServerSentEvent]:
    """Decode to the end."""
    decoder = Decoder(1000)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.close()


def data(*pieces: bytes) -> list[bytes]:
    """Return only the data of the events."""
    return [event.data for event in decode(*pieces)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\n\rdata: b\r\n\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\ndata:\ndata: b\n\n", [b"a\n\nb"]),
        (b"data: a\r\ndata: b\r\n\r\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b": keep-alive\n\ndata: a\n\n", [b"a"]),
        (b": keep-alive\ndata: a\n\n", [b"a"]),
        (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
        (b"retry: 10\nnonsense: x\ndata: a\n\n", [b"a"]),
        (b"event: ping\n\ndata: a\n\n", [b"a"]),
        (b"data: a: b\n\n", [b"a: b"]),
        (b"data: a\n", [b"a"]),
        (b"data: a", [b"a"]),
        (b"data: a\xe2\x80\xa8b\x0b\x0c\x85\n\n", [b"a\xe2\x80\xa8b\x0b\x0c\x85"]),
        (b"data: \x00\n\n", [b"\x00"]),
        (b"", []),
        (b"\xef\xbb", []),
        (b"da", []),
    ],
)
def test_every_form_and_every_split_gives_the_same_events(stream: bytes, expected: list[bytes]) -> None:
    """Line ends, comments, marks and unfinished ends are read as the format says, cut at any byte."""
    assert expected == data(stream)
    assert expected == data(*(stream[i : i + 1] for i in range(len(stream))))
    for cut in range(len(stream) + 1):
        assert expected == data(stream[:cut], stream[cut:])
        assert expected == data(stream[:cut], b"", stream[cut:])


def test_names_and_ids_are_reported_and_names_do_not_leak_into_the_next_event() -> None:
    """`event` belongs to one event, `id` lasts until another comes; an id with a NUL is ignored."""
    stream = b"event: error\nid: 7\ndata: a\n\nid: 8\0\ndata: b\n\n"
    assert [ServerSentEvent(b"a", "error", "7"), ServerSentEvent(b"b", "", "7")] == decode(stream)


def test_a_named_event_without_data_is_no_event_and_its_name_is_forgotten() -> None:
    """As browsers do: the name of an empty event must not stick to what follows."""
    assert [ServerSentEvent(b"a")] == decode(b"event: error\n\ndata: a\n\n")


@settings(deadline=None)
@given(
    payloads=st.lists(st.text().map(str.encode), max_size=6),
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    seed=st.data(),
)
def test_what_is_encoded_is_decoded_whatever_the_split(payloads: list[bytes], end: bytes, seed: st.DataObject) -> None:
    """Emoji, U+2028 and line ends in the data survive; line ends inside the data arrive as LF."""
    stream = b"".join(encode(payload) for payload in payloads).replace(b"\n", end)
    cuts = sorted(seed.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    decoder = Decoder(10_000)
    events = [event.data for piece in pieces for event in decoder.feed(piece)] + [e.data for e in decoder.close()]
    assert [p.replace(b"\r\n", b"\n").replace(b"\r", b"\n") for p in payloads] == events


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=10))
def test_no_bytes_can_break_the_decoder(pieces: list[bytes]) -> None:
    """Garbage gives events or none, the same in one piece as in many."""
    assert data(b"".join(pieces)) == data(*pieces)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: ", b"x" * 2000],
        [b"x" * 600, b"x" * 600],
        [b"data: " + b"x" * 500 + b"\n"] * 3,
        [b"data:\n"] * 400,
        [b"data:\n" * 400],
    ],
)
def test_one_event_is_capped(pieces: list[bytes]) -> None:
    """A line, or lines, that never end are given up at the cap instead of eating the memory; it stays given up."""
    decoder = Decoder(1000)
    with pytest.raises(EventTooLargeError):
        [decoder.feed(piece) for piece in pieces]
    with pytest.raises(EventTooLargeError):
        decoder.feed(b"\n\n")
    with pytest.raises(EventTooLargeError):
        decoder.close()


def test_events_before_the_one_that_is_too_large_are_still_given() -> None:
    """The cap takes nothing away that was whole already."""
    decoder = Decoder(1000)
    assert [event.data for event in decoder.feed(b"data: a\n\ndata: " + b"x" * 2000)] == [b"a"]
    with pytest.raises(EventTooLargeError):
        decoder.feed(b"x")


def test_the_cap_is_per_event_not_per_stream() -> None:
    """A long stream of small events, with comments between them, never meets the cap."""
    decoder = Decoder(1000)
    for _ in range(2000):
        assert decoder.feed(b": comment\n\nda") == []
        assert decoder.feed(b"ta: abc\n\n") == [ServerSentEvent(b"abc")]
        assert decoder.feed(b": quiet") == []
        assert decoder.feed(b"\n\n") == []


@pytest.mark.parametrize(
    ("payload", "event", "expected"),
    [
        (b"{}", None, b"data: {}\n\n"),
        (b"{}", "error", b"event: error\ndata: {}\n\n"),
        (b"a\nb\r\nc\rd", None, b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (b"", None, b"data: \n\n"),
    ],
)
def test_encoding(payload: bytes, event: str | None, expected: bytes) -> None:
    """Data lines, never a way out of the event."""
    assert expected == encode(payload, event)


def test_a_comment_is_no_event() -> None:
    """Keep-alives are invisible to readers."""
    assert decode(comment("waiting"), comment()) == []
