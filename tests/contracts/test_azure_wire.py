"""What goes over the wire to Table Storage: nothing a caller names can be anything but what it names."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from shared.adapters.tables import azure_wire, open_tables
from shared.adapters.tables.azure_account import account_url, emulator_url
from shared.core.errors import ConfigurationError
from shared.ports import Action, Entity, Op
from tests.azurite import process

HOST = "http://127.0.0.1:10002/devstoreaccount1"
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\#?"), max_size=40)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(KEYS, KEYS)
def test_a_key_is_one_literal_in_its_path(partition: str, row: str) -> None:
    """Decoded as OData says, a path names the very keys; and what is signed is what the HTTP client sends."""
    path = azure_wire.get("contract", partition, row).path

    keys = re.fullmatch(r"/contract\(PartitionKey='((?:[^']|'')*)',RowKey='((?:[^']|'')*)'\)", unquote(path))
    assert keys is not None
    assert [partition, row] == [key.replace("''", "'") for key in keys.groups()]
    assert URL(HOST + path).raw_path == URL(HOST).raw_path + path


@given(TEXTS, TEXTS, TEXTS)
def test_a_bound_is_one_literal_in_its_filter(partition: str, start: str, end: str) -> None:
    """No text ends its literal, the filter, or its parameter; nor does the HTTP client change what it means."""
    query = azure_wire.page("contract", (partition, start, end), 10, (start, end)).query

    literal = "'((?:[^']|'')*)'"
    for text in (query, URL(f"{HOST}/contract()?{query}").raw_query_string):
        found = parse_qs(text, keep_blank_values=True, strict_parsing=True)
        lower = f" and RowKey ge {literal}" if start else ""
        terms = re.fullmatch(f"PartitionKey eq {literal}{lower} and RowKey lt {literal}", found.pop("$filter")[0])
        assert terms is not None
        assert [term.replace("''", "'") for term in terms.groups()] == [partition, *([start] if start else []), end]
        assert found == {"$top": ["10"], "NextPartitionKey": [start], "NextRowKey": [end]}


@given(KEYS, TEXTS)
def test_a_text_can_not_leave_its_part_of_a_batch(row: str, text: str) -> None:
    """Each operation is one part, whose last line is its JSON."""
    nasty = f"{text}\r\n--changeset_x\r\n\r\nDELETE {HOST}/t HTTP/1.1\u2028--batch_x--"
    ops = [Op(Action.INSERT, Entity("p", row, {"x": nasty})), Op(Action.DELETE, Entity("p", "other", etag="*\r\nX: y"))]

    body = azure_wire.batch(HOST, "t", ops, "0123").body

    assert body is not None
    parts = body.split(b"--changeset_0123")
    assert len(parts) == 4
    lines = parts[1].decode().split("\r\n")
    assert orjson.loads(lines[-2]) == {"PartitionKey": "p", "RowKey": row, "x": nasty}
    assert "\u2028" not in parts[1].decode()
    assert b"X: y" not in body


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True), TEXTS | st.integers(-(2**63), 2**63 - 1)
                       | st.floats(allow_nan=False) | st.booleans() | st.binary(max_size=30), max_size=6))  # fmt: skip
def test_properties_come_back_as_they_went(properties: dict[str, str | int | float | bool | bytes]) -> None:
    """Every type is annotated so that it is read as itself."""
    sent = orjson.loads(azure_wire.write("t", Op(Action.INSERT, Entity("p", "r", properties))).body or b"")

    found = azure_wire.entity(orjson.dumps({**sent, "odata.etag": "e", "Timestamp": "2026-11-23T00:00:00Z"}))

    assert dict(found.properties) == properties
    assert [type(value) for value in found.properties.values()] == [type(value) for value in properties.values()]


def test_what_others_wrote_can_be_read() -> None:
    """A 32-bit integer is an integer; a date and a GUID are their text; a type from the future is an error, not a guess."""
    row = {"odata.etag": "e", "PartitionKey": "p", "RowKey": "r", "small": 7, "half": 0.5}
    row |= {"when@odata.type": "Edm.DateTime", "when": "2026-11-23T00:00:00Z", "id@odata.type": "Edm.Guid", "id": "0-0"}

    assert azure_wire.entity(orjson.dumps(row)).properties == {
        "small": 7,
        "half": 0.5,
        "when": "2026-11-23T00:00:00Z",
        "id": "0-0",
    }
    with pytest.raises(ValueError, match="no known type"):
        azure_wire.entity(orjson.dumps({**row, "x@odata.type": "Edm.Geo", "x": "?"}))


def test_a_refusal_in_xml_is_read_too() -> None:
    """Faults from before the request was understood come as XML; from others' machines, as anything."""
    xml = b'<?xml version="1.0"?><error><Code>ServerBusy</Code><Message>m</Message></error>'

    assert azure_wire.answer(503, {"content-type": "application/xml"}, xml).code == "ServerBusy"
    assert azure_wire.answer(503, {"x-ms-error-code": "ServerBusy"}, b"").code == "ServerBusy"
    assert azure_wire.answer(502, {}, b"<html>").code == "HTTP 502"


# ---- settings ----------------------------------------------------------------------------------------------------------


def test_the_emulator_is_on_this_machine() -> None:
    """The published key goes to loopback only."""
    assert emulator_url("azurite:") == HOST
    assert emulator_url("azurite:http://127.0.0.1:7/devstoreaccount1") == "http://127.0.0.1:7/devstoreaccount1"
    assert emulator_url("sqlite:azurite:") is None
    for other in ("azurite:http://example.com:10002/devstoreaccount1", "azurite:http://127.0.0.1:1/other", "azurite:x"):
        with pytest.raises(ConfigurationError, match="azurite:http"):
            emulator_url(other)
    assert process.Azurite().setting.startswith("azurite:http://127.0.0.1:")


@pytest.mark.parametrize(
    "setting",
    [
        "http://account.table.core.windows.net",
        "https://account.table.core.windows.net.example.com",
        "https://account.blob.core.windows.net",
        "https://account.table.core.windows.net/path",
        "https://key@account.table.core.windows.net",
        "https://account.table.core.windows.net:8443",
    ],
)
def test_tokens_go_to_table_storage_only(setting: str) -> None:
    """Anything but an account's own address is refused at the start."""
    with pytest.raises(ConfigurationError, match="SWITCHYARD_STORAGE"):
        open_tables(setting)


def test_an_account_is_an_address() -> None:
    """With or without the slash at its end; Azure's national clouds too."""
    assert account_url("https://account.table.core.windows.net/") == "https://account.table.core.windows.net"
    assert account_url("https://account.table.core.usgovcloudapi.net") is not None
