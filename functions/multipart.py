"""A form with one file, read as it arrives: no more of it is held than what came in one piece.

The bytes are taken apart by python-multipart's push parser; here is who feeds it, for how long, and what a form may hold.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from typing import Final
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from functions.bodies import Receive
from functions.clients import ClientGoneError
from shared.core.errors import InvalidRequestError, PayloadTooLargeError

IDLE_SECONDS: Final = 30.0
"""How long a client may send nothing. A large file over a slow line may take its time, if it comes steadily."""
WHOLE_SECONDS: Final = 3600.0
"""How long it may take however steadily it comes: a client that sends a byte now and then holds a place others could use."""
OVERHEAD: Final = 64 * 1024
"""Bytes of a form beside those of its file."""
MAX_FIELD: Final = 1024
MAX_NAME: Final = 255

_FILE: Final = "file"
_PLAIN: Final = frozenset({b"", b"7bit", b"8bit", b"binary"})
_EXTENDED_NAME: Final = re.compile(rb"""filename\*\s*=\s*"?utf-8'[^']*'([^;\s"]+)""", re.IGNORECASE)
"""What RFC 7578 forbids in forms and some clients send all the same."""
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


class FileForm:
    """A ``multipart/form-data`` body: a file in the field ``file``, and plain fields before and after it.

    ``check`` is told every plain field as it is complete, and raises `InvalidRequestError` for one that is wrong: a file
    is not read to its end to be refused for what came before it. ``limit`` is the bytes a file may have.
    """

    def __init__(
        self,
        receive: Receive,
        *,
        content_type: bytes,
        declared: bytes | None,
        limit: int,
        check: Callable[[str, str], None],
    ) -> None:
        """Begin; raise `InvalidRequestError` for another kind of body, `PayloadTooLargeError` for one declared too large."""
        if declared is not None and declared.isdigit() and int(declared[:20]) > limit + OVERHEAD:
            raise _too_large(limit)
        self._receive = receive
        self._limit = limit
        self._check = check
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size = 0
        self._name: str | None = None  # of the part that is being read
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._pieces: list[bytes] = []
        self._ended = False
        self._parser = MultipartParser(
            _boundary(content_type),
            {
                "on_part_begin": self._begin_part,
                "on_header_begin": self._begin_header,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._take,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    async def file(self) -> AsyncGenerator[bytes, None]:
        """Yield the file's bytes; when it ends, the whole form has been read: ``fields``, ``filename`` and ``size`` are known.

        Raise `InvalidRequestError` naming the field, `PayloadTooLargeError` when the file passes the limit, and
        `ClientGoneError` when the client goes away.
        """
        async for part in self._body():
            try:
                self._parser.write(part)
            except FormParserError:
                message = "The body is not a valid multipart/form-data form: a boundary or a header in it is broken."
                raise InvalidRequestError(message, param=self._name, code="invalid_form") from None
            taken, self._pieces = self._pieces, []
            for piece in taken:
                yield piece
        if not self._ended:
            message = "The form ends before its last boundary: the body was cut off."
            raise InvalidRequestError(message, param=self._name, code="invalid_form")
        if self.filename is None:
            raise _missing_file()

    async def _body(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes, as long as it comes."""
        loop = asyncio.get_running_loop()
        last, total = loop.time() + WHOLE_SECONDS, 0
        while True:
            try:
                async with asyncio.timeout_at(min(last, loop.time() + IDLE_SECONDS)):
                    message = await self._receive()
            except TimeoutError:
                text = f"The upload stood still for {IDLE_SECONDS:.0f} seconds, or took more than {WHOLE_SECONDS:.0f}."
                raise InvalidRequestError(text, code="body_timeout") from None
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part: bytes = message.get("body", b"")
            total += len(part)
            if total > self._limit + OVERHEAD:
                raise _too_large(self._limit)
            yield part
            if not message.get("more_body", False):
                return

    # ---- what the parser tells ---------------------------------------------------------------------------------------

    def _begin_part(self) -> None:
        self._name = None
        self._headers = {}
        self._value.clear()

    def _begin_header(self) -> None:
        self._header = (bytearray(), bytearray())

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)

    def _end_headers(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        kind, options = parse_options_header(disposition)
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            message = "A part of the form has no name: each needs the header `Content-Disposition: form-data; name=…`."
            raise InvalidRequestError(message, code="invalid_form")
        self._name = _text(name, "")
        if self._headers.get(b"content-transfer-encoding", b"").strip().lower() not in _PLAIN:
            message = f"`{self._name:.60}` is sent with a content-transfer-encoding. Send its bytes as they are."
            raise InvalidRequestError(message, param=self._name[:60], code="invalid_form")
        if self._name == _FILE:
            self._begin_file(disposition, options.get(b"filename"))

    def _begin_file(self, disposition: bytes, name: bytes | None) -> None:
        if self.filename is not None:
            message = "`file` is there twice. Upload one file at a time."
            raise InvalidRequestError(message, param=_FILE, code="invalid_value")
        if (extended := _EXTENDED_NAME.search(disposition)) is not None:
            name = unquote_to_bytes(extended[1])
        if not name:
            raise _missing_file()
        # Browsers and most clients write a quotation mark in a name so; nothing else is escaped.
        text = _text(name.replace(b"%22", b'"'), _FILE)
        if len(text) > MAX_NAME or _CONTROL.search(text) is not None:
            message = f"The filename of `file` must have at most {MAX_NAME} characters, none of them a control character."
            raise InvalidRequestError(message, param=_FILE, code="invalid_value")
        self.filename = text

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._name == _FILE:
            self.size += end - start
            if self.size > self._limit:
                raise _too_large(self._limit)
            self._pieces.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD:
            message = f"`{self._name or '':.60}` is longer than {MAX_FIELD} bytes. Only `file` may be."
            raise InvalidRequestError(message, param=(self._name or "")[:60], code="invalid_value")

    def _end_part(self) -> None:
        name, self._name = self._name or "", None
        if name == _FILE:
            return
        if name in self.fields:
            message = f"`{name:.60}` is there twice."
            raise InvalidRequestError(message, param=name[:60], code="invalid_value")
        value = _text(bytes(self._value), name)
        self._check(name, value)
        self.fields[name] = value

    def _end(self) -> None:
        self._ended = True


def _boundary(content_type: bytes) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        message = "Upload a file as multipart/form-data, with the fields `file` and `purpose`."
        raise InvalidRequestError(message, param="content-type", code="invalid_content_type")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:  # noqa: PLR2004 - RFC 2046's bound
        message = "The content-type multipart/form-data needs a boundary of 1 to 70 characters: `…; boundary=XYZ`."
        raise InvalidRequestError(message, param="content-type", code="invalid_content_type")
    return boundary


def _text(value: bytes, field: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        message = f"`{field:.60}` is not UTF-8." if field else "The name of a field is not UTF-8."
        raise InvalidRequestError(message, param=field[:60] or None, code="invalid_value") from None


def _missing_file() -> InvalidRequestError:
    message = "`file` is required: the file to upload, as a part of the form with a filename."
    return InvalidRequestError(message, param=_FILE, code="missing_required_parameter")


def _too_large(limit: int) -> PayloadTooLargeError:
    message = f"The file is larger than the {limit} bytes this gateway accepts. Split it into several."
    return PayloadTooLargeError(message, param=_FILE)
