"""What Application Insights is sent becomes the rows that Microsoft documents."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.kusto.rows import milliseconds, tables


def envelope(kind: str, base: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return an envelope as the exporter sends it."""
    tags = {"ai.cloud.role": "switchyard", "ai.cloud.roleInstance": "one", "ai.operation.id": "t", "ai.operation.parentId": "p"}
    return {
        "iKey": "key",
        "time": "2026-11-23T10:00:00.123456Z",
        "tags": tags,
        "data": {"baseType": kind, "baseData": base},
        **more,
    }


def test_a_sampled_span_counts_for_those_that_were_not_told() -> None:
    """A quarter of all: one span stands for four; what is not sampled stands for itself."""
    base = {"id": "i", "name": "chat big", "duration": "0.00:01:02.345", "success": False, "properties": {"a.b": "7"}}
    sent = [envelope("RemoteDependencyData", base, sampleRate=25.0), envelope("RemoteDependencyData", base)]

    first, second = tables(sent)["AppDependencies"].rows

    assert (4, 1) == (first["ItemCount"], second["ItemCount"])
    assert {
        "AppRoleName": "switchyard",
        "AppRoleInstance": "one",
        "OperationId": "t",
        "ParentId": "p",
        "DurationMs": 62_345,
        "Success": False,
        "Properties": {"a.b": "7"},
        "TimeGenerated": datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC),
        "Target": "",
    }.items() <= first.items()


def test_a_metric_is_its_sum_and_how_many_values_it_is_of() -> None:
    """A counter's or a gauge's point is one value without least and most; a histogram's has all."""
    counter = envelope("MetricData", {"metrics": [{"name": "gateway.cost", "value": 5}], "properties": {}})
    histogram = envelope("MetricData", {"metrics": [{"name": "d", "value": 6.0, "count": 3, "min": 1.0, "max": 3.0}]})

    rows = tables([counter, histogram])["AppMetrics"].rows

    assert [(5.0, 1, None, None), (6.0, 3, 1.0, 3.0)] == [(r["Sum"], r["ItemCount"], r["Min"], r["Max"]) for r in rows]


def test_lines_and_exceptions_have_their_severity_as_a_number() -> None:
    """Azure Monitor numbers them from verbose, 0, to critical, 4."""
    line = envelope("MessageData", {"message": "no", "severityLevel": "Warning"})
    fault = envelope("ExceptionData", {"severityLevel": 3, "exceptions": [{"typeName": "ValueError", "message": "bad"}]})

    held = tables([line, fault])

    assert [(2, "no")] == [(row["SeverityLevel"], row["Message"]) for row in held["AppTraces"].rows]
    assert [(3, "ValueError", "bad")] == [
        (row["SeverityLevel"], row["ExceptionType"], row["OuterMessage"]) for row in held["AppExceptions"].rows
    ]


def test_what_is_not_known_is_refused() -> None:
    """A kind of envelope nobody translated, or a duration in another form, is an error and not a gap."""
    with pytest.raises(KeyError, match="EventData"):
        tables([envelope("EventData", {})])
    with pytest.raises(ValueError, match="is no timespan"):
        milliseconds("12")
    assert 90_061_001 == milliseconds("1.01:01:01.001")
