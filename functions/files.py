"""``/v1/files``: OpenAI's Files API. Uploads and downloads pass through, a piece at a time, whatever their size."""

from __future__ import annotations

from collections.abc import AsyncGenerator, MutableMapping
from contextlib import aclosing
from typing import Any, Final, NoReturn
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from functions.clients import ClientWatch, Receive
from functions.endpoints import Access, Endpoint, Parameter, blueprint
from functions.http import Boundary, Call, endpoint
from functions.multipart import FileForm
from functions.rendering import NO_STORE, RawHeaders, json_response
from functions.scopes import project_of
from functions.streaming import Send
from shared.core.errors import ConflictError, InvalidRequestError, NotFoundError
from shared.files import MAX_LISTED, File, NewFile

PURPOSES: Final = frozenset({"batch", "user_data"})
OPENAIS_PURPOSES: Final = frozenset({"assistants", "vision", "fine-tune", "evals"})
LISTED_PURPOSES: Final = PURPOSES | {"batch_output"}

_DAY: Final = 86_400
BATCH_LIFETIME: Final = 30 * _DAY
"""Seconds that a file of a batch is kept when nothing else was said, as at OpenAI."""
LIFETIMES: Final = range(3_600, BATCH_LIFETIME + 1)

_ANCHOR: Final = "expires_after[anchor]"
_SECONDS: Final = "expires_after[seconds]"
_ORDERS: Final = frozenset({"asc", "desc"})


async def create_file(call: Call) -> Response:
    """Store an upload as it arrives."""
    form = FileForm(
        call.request.receive,
        content_type=call.headers.get(b"content-type", b""),
        declared=call.headers.get(b"content-length"),
        limit=call.gateway.settings.max_file_bytes,
        check=_check_field,
    )
    async with aclosing(form.file()) as chunks:
        file = await call.gateway.files.create(chunks, lambda: _described(form, call.caller.project))
    return json_response(view(file), headers=[NO_STORE])


def _check_field(name: str, value: str) -> None:
    """Refuse a field that is not known, or has a value that can't be taken."""
    if name == "purpose":
        _check_purpose(value)
    elif name == _ANCHOR:
        if value != "created_at":
            _refuse("expires_after.anchor", "must be `created_at`")
    elif name == _SECONDS:
        if not (value.isascii() and value.isdigit() and int(value[:20]) in LIFETIMES):
            _refuse("expires_after.seconds", f"must be a whole number from {LIFETIMES[0]} to {LIFETIMES[-1]}")
    else:
        message = f"`{name:.60}` is not a known field. Known: file, purpose, {_ANCHOR}, {_SECONDS}."
        raise InvalidRequestError(message, param=name[:60] or None, code="unknown_parameter")


def _check_purpose(purpose: str) -> None:
    if purpose in OPENAIS_PURPOSES:
        _refuse("purpose", f"is `{purpose}`, which nothing here would use. Files are for `batch`, or `user_data` to keep")
    if purpose not in PURPOSES:
        _refuse("purpose", f"is {purpose[:60]!r}; it must be `batch` or `user_data`")


def _described(form: FileForm, project: str) -> NewFile:
    """Return what a form that was read to its end says of its file."""
    purpose, seconds = form.fields.get("purpose"), form.fields.get(_SECONDS)
    if purpose is None:
        message = "`purpose` is required: `batch`, or `user_data`."
        raise InvalidRequestError(message, param="purpose", code="missing_required_parameter")
    if (seconds is None) != (_ANCHOR not in form.fields):
        _refuse("expires_after", "needs both `anchor` and `seconds`")
    if not form.size:
        _refuse("file", "is empty")
    lifetime = BATCH_LIFETIME if purpose == "batch" else None
    return NewFile(project, form.filename or "", purpose, lifetime if seconds is None else int(seconds))


def _refuse(field: str, said: str) -> NoReturn:
    message = f"`{field}` {said}."
    raise InvalidRequestError(message, param=field, code="invalid_value")


async def list_files(call: Call) -> Response:
    """List files, the newest first unless asked otherwise."""
    purpose, order, limit = call.query("purpose"), call.query("order") or "desc", call.query("limit") or str(MAX_LISTED)
    if purpose is not None and purpose not in LISTED_PURPOSES | OPENAIS_PURPOSES:
        _refuse("purpose", f"must be one of {', '.join(sorted(LISTED_PURPOSES))}")
    if order not in _ORDERS:
        _refuse("order", "must be `asc` or `desc`")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:20]) <= MAX_LISTED):
        _refuse("limit", f"must be a whole number from 1 to {MAX_LISTED}")
    page = await call.gateway.files.list(
        project_of(call), purpose=purpose, after=call.query("after"), limit=int(limit), newest_first=order == "desc"
    )
    found = [view(file) for file in page.files]
    listed = {
        "object": "list",
        "data": found,
        "first_id": found[0]["id"] if found else None,
        "last_id": found[-1]["id"] if found else None,
        "has_more": page.more,
    }
    return json_response(listed, headers=[NO_STORE])


async def get_file(call: Call) -> Response:
    """Say what is known of a file."""
    return json_response(view(await _own(call)), headers=[NO_STORE])


async def get_file_content(call: Call) -> Response:
    """Send a file's bytes as they are read."""
    file = await _own(call)
    content = call.gateway.files.content(file.id) if file.composed is None else call.gateway.batches.output(file)
    try:
        first = await anext(content, b"")  # what can't be read at all is an error, and not an answer that breaks off
    except BaseException:
        await content.aclose()
        raise
    return Download(file, first, content, call.request_id)


async def delete_file(call: Call) -> Response:
    """Remove a file with its content."""
    file = await _own(call)
    if await call.gateway.batches.uses(file.id):
        message = f"A batch that has not ended reads {file.id}. Cancel the batch, or wait until it has ended."
        raise ConflictError(message, param="file_id", code="file_in_use")
    await call.gateway.files.delete(file.id)
    if file.composed is not None:
        await call.gateway.batches.forget_output(file)
    return json_response({"id": file.id, "object": "file", "deleted": True}, headers=[NO_STORE])


async def _own(call: Call) -> File:
    """Return the file of the path; one of another project is as unknown as one that never was."""
    return await call.gateway.files.get(call.path("file_id"), project=None if call.caller.admin else call.caller.project)


def view(file: File) -> dict[str, Any]:
    """Return a file as OpenAI's object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": int(file.created_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
        "expires_at": None if file.expires_at is None else int(file.expires_at),
    }


class Download(StreamingResponse):
    """A file on its way to a client. What can't be read to its end is cut off: a part must not pass for the whole."""

    def __init__(self, file: File, first: bytes, content: AsyncGenerator[bytes, None], request_id: str) -> None:
        self.status_code = 200  # the base class would only derive headers
        self.background = None
        self.body_iterator = self._content = content
        self.raw_headers = _headers(file)
        self._file = file
        self._first = first
        self._request_id = request_id

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Send the file to its end, or until the client has gone."""
        del scope
        with Boundary(self._request_id) as boundary:
            async with aclosing(self._content):
                with ClientWatch(receive):
                    await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                    async for data in self._checked():
                        await send({"type": "http.response.body", "body": data, "more_body": True})
        if not boundary.gone and boundary.problem is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _checked(self) -> AsyncGenerator[bytes, None]:
        """Yield the content; raise `NotFoundError` when it is not as long as it was said to be."""
        sent = len(self._first)
        yield self._first
        async for data in self._content:
            sent += len(data)
            yield data
        if sent != self._file.size:
            message = f"{self._file.id} has {sent} of its {self._file.size} bytes: it is being deleted."
            raise NotFoundError(message)


def _headers(file: File) -> RawHeaders:
    """Return the headers of a download. A browser saves what others have uploaded, and never shows it as a page."""
    kind = b"application/octet-stream" if file.purpose == "user_data" else b"application/jsonl"
    return [
        (b"content-type", kind),
        (b"content-length", b"%d" % file.size),
        (b"content-disposition", f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}".encode()),
        (b"x-content-type-options", b"nosniff"),
        NO_STORE,
    ]


_FORM: Final = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "contentMediaType": "application/octet-stream", "description": "The file, with its name."},
        "purpose": {
            "type": "string",
            "enum": sorted(PURPOSES),
            "description": "`batch` is a JSONL file of requests, kept for 30 days; `user_data` anything, kept until deleted.",
        },
        _ANCHOR: {"type": "string", "const": "created_at", "description": "From when `seconds` count."},
        _SECONDS: {
            "type": "integer",
            "minimum": LIFETIMES[0],
            "maximum": LIFETIMES[-1],
            "description": "How long the file is kept. Both of `expires_after`, or neither.",
        },
    },
}

_ID: Final = Parameter("file_id", "The file's id.", place="path")

ENDPOINTS: Final = (
    Endpoint(
        name="create_file",
        method="POST",
        path="/v1/files",
        aliases=("/openai/v1/files", "/openai/files"),
        handler=create_file,
        summary="Upload a file",
        tag="Files",
        reads_body=False,
        form=_FORM,
        answers="The file.",
    ),
    Endpoint(
        name="list_files",
        method="GET",
        path="/v1/files",
        aliases=("/openai/v1/files", "/openai/files"),
        handler=list_files,
        summary="List files",
        tag="Files",
        parameters=(
            Parameter("purpose", "Only files of this purpose.", schema={"type": "string", "enum": sorted(LISTED_PURPOSES)}),
            Parameter("after", "The last id of the page before."),
            Parameter("limit", "Files of a page.", schema={"type": "integer", "minimum": 1, "maximum": MAX_LISTED}),
            Parameter("order", "By the time they were made.", schema={"type": "string", "enum": sorted(_ORDERS)}),
            Parameter("project", "Whose files; the key's own project unless it is the administrator's, who sees all."),
        ),
        answers="A page of files.",
    ),
    Endpoint(
        name="get_file",
        method="GET",
        path="/v1/files/{file_id}",
        aliases=("/openai/v1/files/{file_id}", "/openai/files/{file_id}"),
        handler=get_file,
        summary="Look a file up",
        tag="Files",
        parameters=(_ID,),
        answers="The file.",
    ),
    Endpoint(
        name="get_file_content",
        method="GET",
        path="/v1/files/{file_id}/content",
        aliases=("/openai/v1/files/{file_id}/content", "/openai/files/{file_id}/content"),
        handler=get_file_content,
        summary="Download a file",
        tag="Files",
        access=Access.MEMBER,  # it may hold prompts and answers
        parameters=(_ID,),
        answers="The file's bytes.",
        media_types=("application/jsonl", "application/octet-stream"),
    ),
    Endpoint(
        name="delete_file",
        method="DELETE",
        path="/v1/files/{file_id}",
        aliases=("/openai/v1/files/{file_id}", "/openai/files/{file_id}"),
        handler=delete_file,
        summary="Delete a file",
        tag="Files",
        parameters=(_ID,),
        answers="Which file is no more.",
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
