"""What a workspace holds of what Application Insights was sent: envelopes → rows of the App* tables.

Microsoft says which envelope becomes which table and column: the schemas of RequestData, RemoteDependencyData, MessageData,
ExceptionData and MetricData (github.com/microsoft/ApplicationInsights-Home, EndpointSpecs) and the table "Migrate to
workspace-based Application Insights resources" (legacy name → column). What an envelope does not say stays null or "".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from tests.kusto.query import table
from tests.kusto.scope import Table
from tests.kusto.values import to_datetime

Envelope = Mapping[str, Any]
Columns = dict[str, Any]

_TAGS: Final = {
    "ai.application.ver": "AppVersion",
    "ai.cloud.role": "AppRoleName",
    "ai.cloud.roleInstance": "AppRoleInstance",
    "ai.internal.sdkVersion": "SDKVersion",
    "ai.operation.id": "OperationId",
    "ai.operation.name": "OperationName",
    "ai.operation.parentId": "ParentId",
    "ai.operation.syntheticSource": "SyntheticSource",
    "ai.session.id": "SessionId",
    "ai.user.authUserId": "UserAuthenticatedId",
    "ai.user.id": "UserId",
}
_WHOLE: Final = 100.0
"""The sample rate, in per cent, of what is not sampled."""
SEVERITIES: Final = {"Verbose": 0, "Information": 1, "Warning": 2, "Error": 3, "Critical": 4}


def milliseconds(duration: str) -> float:
    """Return a timespan's text, ``d.hh:mm:ss.fff``, in milliseconds; raise `ValueError` for another."""
    found = re.fullmatch(r"(\d+)\.(\d\d):(\d\d):(\d\d)(?:\.(\d+))?", duration)
    if found is None:
        message = f"{duration!r} is no timespan."
        raise ValueError(message)
    days, hours, minutes, seconds = (int(found[part]) for part in (1, 2, 3, 4))
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return whole * 1000 + int((found[5] or "0").ljust(3, "0")[:3])


def tables(envelopes: Iterable[Envelope]) -> dict[str, Table]:
    """Return the tables that envelopes become; raise `KeyError` for a kind of envelope that is not known here."""
    rows: dict[str, list[Columns]] = {name: [] for name, _ in _KINDS.values()}
    for envelope in envelopes:
        name, columns = _KINDS[envelope["data"]["baseType"]]
        rows[name].append({**_common(envelope), **columns(envelope["data"]["baseData"])})
    return {name: table(name, found) for name, found in rows.items()}


def _common(envelope: Envelope) -> Columns:
    base = envelope["data"]["baseData"]
    tags = {_TAGS[tag]: text for tag, text in envelope["tags"].items() if tag in _TAGS}
    rate = envelope.get("sampleRate") or _WHOLE
    return {
        **tags,
        "IKey": envelope["iKey"],
        "ItemCount": round(_WHOLE / rate),
        "Properties": base.get("properties") or {},
        "TimeGenerated": to_datetime(envelope["time"]) or datetime.now(UTC),
    }


def _span(base: Mapping[str, Any]) -> Columns:
    return {
        "DurationMs": milliseconds(base["duration"]),
        "Id": base["id"],
        "Measurements": base.get("measurements") or {},
        "Name": base["name"],
        "Success": base.get("success"),
    }


def _dependency(base: Mapping[str, Any]) -> Columns:
    said = {"Data": "data", "DependencyType": "type", "ResultCode": "resultCode", "Target": "target"}
    return {**_span(base), **{column: base.get(field) or "" for column, field in said.items()}}


def _request(base: Mapping[str, Any]) -> Columns:
    said = {"ResultCode": "responseCode", "Source": "source", "Url": "url"}
    return {**_span(base), **{column: base.get(field) or "" for column, field in said.items()}}


def _trace(base: Mapping[str, Any]) -> Columns:
    return {
        "Measurements": base.get("measurements") or {},
        "Message": base["message"],
        "SeverityLevel": _severity(base.get("severityLevel")),
    }


def _exception(base: Mapping[str, Any]) -> Columns:
    outer, inner = base["exceptions"][0], base["exceptions"][-1]
    return {
        "Details": base["exceptions"],
        "ExceptionType": outer["typeName"],
        "InnermostMessage": inner["message"],
        "InnermostType": inner["typeName"],
        "Measurements": base.get("measurements") or {},
        "OuterMessage": outer["message"],
        "OuterType": outer["typeName"],
        "SeverityLevel": _severity(base.get("severityLevel")),
    }


def _metric(base: Mapping[str, Any]) -> Columns:
    (point,) = base["metrics"]
    return {
        "ItemCount": point.get("count") or 1,
        "Max": point.get("max"),
        "Min": point.get("min"),
        "Name": point["name"],
        "Sum": float(point["value"]),
    }


def _severity(said: int | str | None) -> int | None:
    return SEVERITIES[said] if isinstance(said, str) else said


_KINDS: Final[Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Columns]]]] = {
    "ExceptionData": ("AppExceptions", _exception),
    "MessageData": ("AppTraces", _trace),
    "MetricData": ("AppMetrics", _metric),
    "RemoteDependencyData": ("AppDependencies", _dependency),
    "RequestData": ("AppRequests", _request),
}
"""Kind of envelope → table, and what its data says."""
