"""What goes over the wire to Table Storage and what comes back, as pure functions: entities, keys, filters, batches, refusals.

The service speaks OData 3 in JSON. Everything a caller names reaches it quoted and percent-encoded, or inside JSON; nothing is
formatted into a filter or a path as it is.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from shared.adapters.tables import rules
from shared.ports import Action, Entity, InvalidEntityError, Op, Value

TABLE_NOT_FOUND: Final = "TableNotFound"
NOTHING: Final = frozenset({TABLE_NOT_FOUND, "ResourceNotFound", "EntityNotFound"})
"""The service's names for "there is no such row". A 404 without one of them is somebody else's."""
JSON: Final = "application/json;odata=minimalmetadata"

_TYPE: Final = "@odata.type"
_SYSTEM: Final = frozenset({"PartitionKey", "RowKey", "Timestamp"})
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~-]*")
_UNQUOTED: Final = "!$&'()*,;=:@"
"""What a path may hold as it is. Quoting more would be undone on the way, and the signature be of another path."""
_ETAG: Final = re.compile(r"""W/"datetime'[0-9A-Za-z%.:+-]+'\"""")
_NO_ETAG: Final = "W/\"datetime'1601-01-01T00%3A00%3A00.0000000Z'\""
"""Table Storage's form of an ETag that no row has: a condition in another form it would call a bad request."""

_LONG: Final = 16_384
"""Bytes of an entity above which it is sent in ASCII unless in a batch: the emulator decodes what it receives by pieces of
up to 64 KiB, and makes two broken characters of one that a piece ends in."""

_ODD_DOUBLES: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
"""Doubles that are sent as text: JSON has no word for them."""

_INNER: Final = re.compile(rb"^HTTP/1\.1 (\d{3})[^\r\n]*\r?\n((?:[^\r\n]+\r?\n)*)(?:\r?\n([^\r\n]*))?", re.MULTILINE)
_INNER_ETAG: Final = re.compile(rb"^ETag: *([^\r\n]+)", re.MULTILINE | re.IGNORECASE)
_INDEX: Final = re.compile(r"(\d{1,2}):")
_XML_CODE: Final = re.compile(rb"<Code>(\w+)</Code>")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said of one request; of a transaction, what it said of the operation that failed, or of all."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    code: str = ""
    """Table Storage's name for what is wrong; "" where nothing is."""
    index: int = 0
    """Which operation of a transaction is wrong."""
    etags: tuple[str, ...] = ()
    """A transaction's new ETags, in order, "" for deletes."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A request without what signs it. ``path`` and ``query`` are percent-encoded already."""

    method: str
    path: str
    headers: Mapping[str, str]
    query: str = ""
    body: bytes | None = None


# ---- out -------------------------------------------------------------------------------------------------------------


def get(table: str, partition: str, row: str) -> Draft:
    """Ask for one row."""
    return Draft("GET", _row_path(table, partition, row), {"Accept": JSON})


def page(table: str, bounds: tuple[str, str, str | None], size: int, after: tuple[str, str] | None) -> Draft:
    """Ask for up to ``size`` rows of (partition, start, end), from where the page ``after`` ended."""
    partition, start, end = bounds
    terms = [f"PartitionKey eq {_literal(partition)}"]
    if start:
        terms.append(f"RowKey ge {_literal(start)}")
    if end is not None:
        terms.append(f"RowKey lt {_literal(end)}")
    query = f"$filter={quote(' and '.join(terms), safe='')}&$top={size}"
    if after is not None:
        query += f"&NextPartitionKey={quote(after[0], safe='')}&NextRowKey={quote(after[1], safe='')}"
    return Draft("GET", f"/{table}()", {"Accept": JSON}, query)


def create(table: str) -> Draft:
    """Ask for a table."""
    headers = {"Accept": JSON, "Content-Type": "application/json", "Prefer": "return-no-content"}
    return Draft("POST", "/Tables", headers, body=orjson.dumps({"TableName": table}))


def write(table: str, op: Op) -> Draft:
    """Ask for one write."""
    method, path, headers, body = _operation(table, op)
    if body is not None and len(body) > _LONG and not body.isascii():
        body = json.dumps(orjson.loads(body)).encode()
    return Draft(method, path, {"Accept": JSON, **headers}, body=body)


def batch(base: str, table: str, ops: Sequence[Op], boundary: str) -> Draft:
    """Ask for a transaction. ``boundary`` must be a word that no caller can know; ``base`` is the account's URL."""
    mark = f"--changeset_{boundary}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n".encode()
    parts = [
        f"--batch_{boundary}\r\nContent-Type: multipart/mixed; boundary=changeset_{boundary}\r\n\r\n".encode(),
    ]
    for op in ops:
        method, path, headers, body = _operation(table, op)
        head = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        parts += (mark, f"{method} {base}{path} HTTP/1.1\r\nAccept: {JSON}\r\n{head}\r\n".encode(), body or b"", b"\r\n")
    parts.append(f"--changeset_{boundary}--\r\n--batch_{boundary}--\r\n".encode())
    body = b"".join(parts)
    if len(body) > rules.MAX_PAYLOAD:
        message = f"A transaction can't be over 4 MiB; this one has {len(body)} bytes."
        raise InvalidEntityError(message)
    return Draft("POST", "/$batch", {"Content-Type": f"multipart/mixed; boundary=batch_{boundary}"}, body=body)


def _operation(table: str, op: Op) -> tuple[str, str, dict[str, str], bytes | None]:
    """Return method, path, headers and body of one write."""
    entity = op.entity
    match op.action:
        case Action.INSERT:
            headers = {"Content-Type": "application/json", "Prefer": "return-no-content"}
            return "POST", f"/{table}", headers, _properties(entity)
        case Action.UPSERT:
            path = _row_path(table, entity.partition, entity.row)
            return "PUT", path, {"Content-Type": "application/json"}, _properties(entity)
        case Action.REPLACE:
            path = _row_path(table, entity.partition, entity.row)
            headers = {"Content-Type": "application/json", "If-Match": _condition(entity.etag)}
            return "PUT", path, headers, _properties(entity)
    return "DELETE", _row_path(table, entity.partition, entity.row), {"If-Match": _condition(entity.etag)}, None


def _properties(entity: Entity) -> bytes:
    fields: dict[str, object] = {"PartitionKey": entity.partition, "RowKey": entity.row}
    for name, value in entity.properties.items():
        kind = type(value)
        if kind is str or kind is bool:
            fields[name] = value
        elif kind is int:
            fields[name + _TYPE] = "Edm.Int64"
            fields[name] = str(value)
        else:
            fields[name + _TYPE], fields[name] = _typed(value)
    text = orjson.dumps(fields)
    # Line separators are legal in JSON, but not everybody who looks for the end of a line in a batch knows better.
    return text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029") if b"\xe2\x80" in text else text


def _typed(value: Value) -> tuple[str, object]:
    """Return the annotation and the JSON value of what JSON does not tell apart."""
    match value:
        case bytes():
            return "Edm.Binary", base64.b64encode(value).decode()
        case float():
            return "Edm.Double", _ODD_DOUBLES.get(repr(value), value)
        case str():  # a subclass, such as a StrEnum
            return "Edm.String", str(value)
        case int():
            return "Edm.Int64", str(int(value))


def _row_path(table: str, partition: str, row: str) -> str:
    return f"/{table}(PartitionKey='{_key(partition)}',RowKey='{_key(row)}')"


def _key(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text.replace("'", "''"), safe=_UNQUOTED)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _condition(etag: str) -> str:
    return etag if etag == "*" or _ETAG.fullmatch(etag) else _NO_ETAG


# ---- in --------------------------------------------------------------------------------------------------------------


def answer(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """Read what the service said; a transaction's answer is unwrapped."""
    if headers.get("content-type", "").startswith("multipart/mixed"):
        return _batch_answer(status, headers, body)
    if status < 300:  # noqa: PLR2004 - success
        return Answer(status, headers, body)
    code, index = _error(status, headers, body)
    return Answer(status, headers, body, code, index)


def entity(body: bytes) -> Entity:
    """Return the row that was asked for; raise `ValueError` for what no table holds."""
    return _entity(orjson.loads(body))


def entities(body: bytes) -> list[Entity]:
    """Return a page of rows; raise `ValueError` for what no table holds."""
    found = orjson.loads(body)
    if not isinstance(found, dict) or not isinstance(found.get("value"), list):
        message = "not a page of rows"
        raise ValueError(message)  # noqa: TRY004 - the text is wrong, not the caller's types
    return [_entity(each) for each in found["value"]]


def following(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Return where the next page begins; None after the last. A page may be empty and not the last."""
    partition = headers.get("x-ms-continuation-nextpartitionkey")
    return None if partition is None else (partition, headers.get("x-ms-continuation-nextrowkey", ""))


def _entity(found: Any) -> Entity:
    try:
        partition, row, etag = found["PartitionKey"], found["RowKey"], found["odata.etag"]
        properties = {name: _value(found.get(name + _TYPE), value) for name, value in found.items() if _is_property(name)}
    except (KeyError, TypeError, AttributeError) as error:
        message = "not a row"
        raise ValueError(message) from error
    return Entity(partition, row, properties, etag)


def _is_property(name: str) -> bool:
    return name not in _SYSTEM and "." not in name


def _value(kind: str | None, value: Any) -> Value:
    match kind, value:
        case None | "Edm.String" | "Edm.Boolean" | "Edm.Int32", str() | bool() | int() | float():
            return value
        case "Edm.Int64", str() | int():
            return int(value)
        case "Edm.Double", str() | int() | float():
            return float(value)
        case "Edm.Binary", str():
            return base64.b64decode(value, validate=True)
        case "Edm.DateTime" | "Edm.Guid", str():  # written by somebody else; no loss as text
            return value
    message = "a value of no known type"
    raise ValueError(message)


def _batch_answer(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    etags = []
    for code, lines, text in _INNER.findall(body):
        if int(code) >= 400:  # noqa: PLR2004 - refused, and with it everything
            name, index = _error(int(code), {}, text)
            return Answer(int(code), headers, text, name, index)
        etag = _INNER_ETAG.search(lines)
        etags.append(etag[1].decode("latin-1") if etag else "")
    return Answer(status, headers, body, etags=tuple(etags))


def _error(status: int, headers: Mapping[str, str], body: bytes) -> tuple[str, int]:
    """Return the error's code, or one made of the status, and which operation it is about."""
    try:
        error = orjson.loads(body)["odata.error"]
        index = _INDEX.match(error["message"]["value"])
        return str(error["code"]), int(index[1]) if index else 0
    except (ValueError, KeyError, TypeError):
        found = _XML_CODE.search(body)
        return headers.get("x-ms-error-code") or (found[1].decode() if found else f"HTTP {status}"), 0
