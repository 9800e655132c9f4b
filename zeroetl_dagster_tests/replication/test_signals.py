"""The free signals: what CloudWatch's points come to, when a lag counts, and what is worth a SQL statement."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from zeroetl_dagster.replication.cursor import Cursor, CursorError, Health, Move, Signals, Window, decode
from zeroetl_dagster.replication.faults import explain_table
from zeroetl_dagster.replication.probe import Metrics, Probe, read_metrics
from zeroetl_dagster.replication.signals import Lag, Limits, lag_of, why_sql
from zeroetl_dagster.settings.replication import TableName

ID = "99108e72-1cfd-414f-8cc0-000000000001"
NOW = 1_790_000_000.0
METRICS = Metrics(
    applied=NOW - 60,
    detected=NOW - 60,
    lag_seconds=5.0,
    tables_failed=0.0,
    tables_replicated=7.0,
    transferred={1_789_999_920: 100.0},
    newest_point=1_789_999_980,
)
SEEN = Signals(
    applied=NOW - 60,
    failed=0.0,
    replicated=7.0,
    status="active",
    transferred={1_789_999_920: 100.0},
    newest_point=1_789_999_980,
    advanced_at=NOW,
)
CURSOR = Cursor(ID, declared="d", watermark_us=1, signals=SEEN, sql_at=NOW - 10, watched_at=NOW)


def probe(**changes: Any) -> Probe:
    return Probe(ID, "arn", changes.pop("status", "active"), metrics=replace(METRICS, **changes))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"applied": NOW - 1}, "a change was applied"),
        ({"transferred": {1_789_999_920: 100.0, 1_789_999_980: 1.0}}, "data was transferred"),
        ({"transferred": {1_789_999_920: 101.0}}, "data was transferred"),  # more came within a minute already seen
        ({"transferred": {}}, None),
        ({"tables_failed": 1.0}, "the number of failed tables changed"),
        ({"tables_replicated": 8.0}, "the number of replicated tables changed"),
        ({"status": "needs_attention"}, "the integration's status is needs_attention"),
        ({"detected": NOW, "lag_seconds": 900.0}, None),  # nothing is applied yet
        ({"applied": None, "detected": None, "transferred": {}}, None),  # no metrics: not before the interval is over
    ],
)
def test_what_is_worth_a_statement(changes: dict[str, Any], why: str | None) -> None:
    found = why_sql(CURSOR, probe(**changes), Limits(), declared="d", now=NOW)
    assert found is None if why is None else found is not None and why in found


@pytest.mark.parametrize(
    ("cursor", "limits", "declared", "now", "why"),
    [
        (replace(CURSOR, sql_at=None), Limits(), "d", NOW, "first look"),
        (CURSOR, Limits(), "other", NOW, "the list of tables changed"),
        (CURSOR, Limits(sql_every_tick=True), "d", NOW, "configured to ask on every tick"),
        (replace(CURSOR, look_again_at=NOW), Limits(), "d", NOW, "looking again"),
        (replace(CURSOR, look_again_at=NOW + 1), Limits(), "d", NOW, None),
        (replace(CURSOR, look_again_at=NOW + 1), Limits(), "d", NOW - 3600, "looking again"),  # the clock was put back
        (CURSOR, Limits(), "d", NOW + 1000, "CloudWatch has no current metrics"),  # no newer point for too long
        (CURSOR, Limits(minimum_sql_interval_seconds=5000), "d", NOW + 1000, None),
    ],
)
def test_other_reasons(cursor: Cursor, limits: Limits, declared: str, now: float, why: str | None) -> None:
    found = why_sql(cursor, probe(), limits, declared=declared, now=now)
    assert found is None if why is None else found is not None and why in found


@pytest.mark.parametrize(
    ("changes", "lag"),
    [
        ({"lag_seconds": 9999.0}, Lag("ok", 9999.0, idle=True)),  # grows while nothing is committed
        ({"detected": NOW, "lag_seconds": 200.0}, Lag("ok", 200.0, idle=False)),
        ({"detected": NOW, "lag_seconds": 301.0}, Lag("warning", 301.0, idle=False)),
        ({"detected": NOW, "lag_seconds": 3601.0}, Lag("error", 3601.0, idle=False)),
        ({"detected": NOW + 340, "lag_seconds": None}, Lag("warning", 400.0, idle=False)),
        ({"applied": None, "lag_seconds": 301.0}, Lag("warning", 301.0, idle=False)),
        ({"applied": None, "transferred": {}}, None),
    ],
)
def test_an_idle_source_is_not_late(changes: dict[str, Any], lag: Lag | None) -> None:
    assert lag_of(probe(**changes), Limits()) == lag


def test_metrics_are_read_from_every_page_and_by_their_newest_point() -> None:
    cloudwatch = boto3.client("cloudwatch", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    at = [datetime.fromtimestamp(NOW - seconds, UTC) for seconds in (0, 60, 120)]
    with Stubber(cloudwatch) as stub:
        stub.add_response(
            "get_metric_data",
            {
                "MetricDataResults": [
                    {"Id": "m0", "Timestamps": at[:2], "Values": [20.0, 10.0], "StatusCode": "PartialData"},
                    {"Id": "m5", "Timestamps": at, "Values": [0.0, 7.0, 8.0], "StatusCode": "Complete"},
                ],
                "NextToken": "more",
            },
        )
        stub.add_response(
            "get_metric_data",
            {"MetricDataResults": [{"Id": "m0", "Timestamps": at[2:], "Values": [5.0], "StatusCode": "Complete"}]},
            {"MetricDataQueries": ANY, "StartTime": ANY, "EndTime": ANY, "NextToken": "more"},
        )
        found = read_metrics(cloudwatch, ID, namespace="AWS/Redshift", now=datetime.fromtimestamp(NOW, UTC))
        stub.assert_no_pending_responses()
    assert found.applied == 20.0 and found.detected is None and found.newest_point == int(NOW)
    assert found.transferred == {int(NOW - 60): 7.0, int(NOW - 120): 8.0}, "minutes without bytes say nothing"


# ---- the cursor ------------------------------------------------------------------------------------------------------


def test_a_cursor_with_every_part_survives_its_encoding() -> None:
    odd = TableName('we"ird', "Üm.läut")
    cursor = replace(
        CURSOR,
        recent={odd: Window(1, 2, 3, 4, 5, 6, 7)},
        pending={odd: Move("v", 1, checkpoint="c", lag_seconds=0.5, rows=3)},
        pending_health={odd: Health("Failed", "no key")},
        unhealthy={odd: Health("Failed", "no key", moved=True)},
    )
    assert decode(cursor.encode()) == cursor


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("3", "has version 'int', this sensor writes 1"),
        ('{"version": 2}', "has version 2, this sensor writes 1"),
        ('{"version": 1}', r"is damaged \(KeyError"),
        (CURSOR.encode().replace('"recent":[]', '"recent":[["a"]]'), "is damaged"),
        (CURSOR.encode().replace('"recent":[]', '"recent":[["a","b",1]]'), r"is damaged \(TypeError"),
    ],
)
def test_a_damaged_cursor_says_what_is_wrong_with_it(text: str, said: str) -> None:
    with pytest.raises(CursorError, match=said):
        decode(text)


# ---- why a table is not Synced ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "reason", "remedy"),
    [
        ("Failed", "the table is missing a primary key", "add a primary key at the source"),
        ("Failed", "one or more columns use an unsupported data type: place (point)", "exclude the table"),
        ("Failed", "DATA_COLUMN_LENGTH_EXCEEDED", "`target.options.truncatecolumns: true`"),
        ("Failed", "a value exceeds 65535 bytes", "`target.options.truncatecolumns: true`"),
        ("Failed", "Invalid character in UTF-8", "`target.options.acceptinvchars: true`"),
        ("Failed", "a foreign key with ON DELETE CASCADE", "RESTRICT or NO ACTION"),
        ("Failed", "alloc(1048576) failed", "more RPUs"),
        ("Failed", "partitioned tables cannot be replicated", "replicate the partitions"),
        ("Failed", "duplicate rows were found", "`target.options.auto_remediation: true`"),
        ("Failed", "", "SYS_LOAD_ERROR_DETAIL"),
        ("ResyncRequired", "novel", "SYS_LOAD_ERROR_DETAIL"),
        ("ResyncInitiated", "", "wait: it is being loaded anew"),
        ("Absent", "", "Correct `tables` or `data_filter`"),
    ],
)
def test_each_reason_has_its_remedy(state: str, reason: str, remedy: str) -> None:
    told = explain_table(state, reason)
    assert told.startswith(f"{state} ({reason}): " if reason else f"{state}: ") and remedy in told


def test_a_table_whose_source_was_dropped_needs_nothing() -> None:
    assert explain_table("DroppedSource", "") == "DroppedSource"
