"""Server-sent events: an incremental decoder and an encoder, after the WHATWG description of the format.

The decoder takes bytes in any split (in the middle of a line, of a CRLF, of a character) and gives whole events. It differs
from a browser in one point: an event that the end of the stream leaves without its blank line is reported by `Decoder.close`,
because for a gateway the last words of a provider matter more than the form.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_EVENT: Final = 4 * 1024 * 1024
"""Bytes one event may have before the stream is given up: far above any chunk, far below what would hurt."""

_BOM: Final = b"\xef\xbb\xbf"
_ENDS: Final = b"\n\r"


class EventTooLargeError(ValueError):
    """One event is over the decoder's cap."""


class ServerSentEvent(NamedTuple):
    """One event. ``data`` is the data lines joined by LF; ``event`` and ``id`` are "" when the stream did not name them.

    A named tuple, not a dataclass: one is made for every token of every stream, and this is several times cheaper.
    """

    data: bytes
    event: str = ""
    id: str = ""


class Decoder:
    """Bytes in, events out. One decoder per stream."""

    __slots__ = ("_after_cr", "_data", "_event", "_id", "_limit", "_pieces", "_size", "_start", "_too_large")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []  # of the line that has not ended yet
        self._data: list[bytes] = []  # data lines of the event that has not ended yet
        self._event = ""
        self._id = ""
        self._size = 0  # bytes held in both
        self._after_cr = False  # the next LF belongs to a CR that ended the last line already
        self._start = True  # a byte order mark may still come
        self._too_large = False

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes; return the events they complete.

        Raise `EventTooLargeError` once an event is over the cap; events completed before it are returned first.
        """
        if self._too_large:
            raise EventTooLargeError(self._limit)
        if self._start or self._after_cr:
            data = self._stripped(data)
        if not data:
            return []
        if b"\n" in data or b"\r" in data:
            events = self._lines(data)
        else:
            events = []
            self._hold(data)
        if self._size > self._limit:
            self._too_large = True
            if not events:
                raise EventTooLargeError(self._limit)
        return events

    def close(self) -> list[ServerSentEvent]:
        """Say that the stream has ended; return its last event if only the blank line after it is missing."""
        if self._too_large:
            raise EventTooLargeError(self._limit)
        lines = [b"".join(self._pieces)] if self._pieces else []
        self._pieces.clear()
        return self._take([*lines, b""])

    def _stripped(self, data: bytes) -> bytes:
        """Return ``data`` without a byte order mark at the start of the stream, or the LF of a CRLF that was cut apart."""
        if self._start:
            data = b"".join((*self._pieces, data))
            self._pieces.clear()
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._pieces.append(data)  # may yet become one
                return b""
            self._start = False
            return data.removeprefix(_BOM)
        if data:
            self._after_cr = False
        return data.removeprefix(b"\n")

    def _hold(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)

    def _lines(self, data: bytes) -> list[ServerSentEvent]:
        if self._pieces:
            self._size -= sum(map(len, self._pieces))
            data = b"".join((*self._pieces, data))
            self._pieces.clear()
        lines = data.splitlines()  # of bytes: splits at LF, CR and CRLF only
        tail = b""
        if data[-1] not in _ENDS:
            tail = lines.pop()
        else:
            self._after_cr = data[-1] == _ENDS[1]
        events = self._take(lines)
        if events or not self._data:
            self._size = sum(map(len, self._data))
        else:  # many lines of one event: counted as they came, so that empty ones count too
            self._size += len(data) - len(tail)
        if tail:
            self._hold(tail)
        return events

    def _take(self, lines: list[bytes]) -> list[ServerSentEvent]:
        events: list[ServerSentEvent] = []
        held = self._data
        for line in lines:
            if line.startswith(b"data: "):  # nearly every line of every provider
                held.append(line[6:])
            elif line:
                self._field(line)
            else:
                if held:
                    data = held[0] if len(held) == 1 else b"\n".join(held)
                    events.append(ServerSentEvent(data, self._event, self._id))
                    held.clear()
                self._event = ""
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        # anything else is a comment (no name), ``retry``, or a field this format does not know


def encode(data: bytes, event: str | None = None) -> bytes:
    """Return one event. Line ends inside ``data`` become further data lines, so nothing can break out of the event."""
    head = b"event: " + event.encode() + b"\n" if event else b""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
    return b"%bdata: %b\n\n" % (head, data)


def comment(text: str = "") -> bytes:
    """Return a comment: keeps a quiet connection alive and is no event. ``text`` is one line."""
    return b": %b\n\n" % text.encode()
