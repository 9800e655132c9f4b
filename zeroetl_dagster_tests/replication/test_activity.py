"""Redshift's views as typed rows: padding and units end here, whatever a patch adds or leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from zeroetl_dagster.replication import activity
from zeroetl_dagster.replication.activity import Checkpoint, Column, IntegrationRow, TableActivity, TableState
from zeroetl_dagster.settings.replication import TableName
from zeroetl_dagster_tests.replication.conftest import Provisioned
from zeroetl_dagster_tests.replication.world import Rows

ID = "99108e72-1cfd-414f-8cc0-000000000001"
DATABASE = "tickit_zetl"
AT = datetime(2026, 11, 21, 7, 30, 0, 123456)


class Answer:
    """A session that answers every query with the same rows, and remembers what it was asked."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        columns = tuple(rows[0]) if rows else ("integration_id",)
        self.rows = Rows(tuple(name.upper() for name in columns), [tuple(row.values()) for row in rows])
        self.asked: list[tuple[str, Sequence[Any]]] = []

    def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        self.asked.append((sql, params))
        return self.rows

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        self.asked.append((sql, params))
        return 0


def pad(text: str, width: int = 128) -> str:
    return text.ljust(width)


def test_an_integration_row_is_unpadded_and_in_seconds() -> None:
    session = Answer(
        {
            "integration_id": pad(ID),
            "target_database": pad(DATABASE),
            "source": pad("PostgreSQL"),
            "state": pad("CdcRefreshState"),
            "current_lag": 56_606_106,
            "last_replicated_checkpoint": pad('{"txn_seq":9}'),
            "total_tables_replicated": 7,
            "total_tables_failed": 1,
            "refresh_interval": 0,
            "source_database": pad("tickit"),
            "is_history_mode": False,
            "latest_detected_change_time": AT,
            "latest_applied_change_time": "2026-11-21 07:30:00.123456",
            "auto_remediation": "t",
            "of_a_later_patch": "x",
        }
    )
    assert activity.read_integrations(session, f"arn:aws:rds:r:1:integration:{ID.upper()}") == [
        IntegrationRow(
            integration_id=ID,
            target_database=DATABASE,
            source="PostgreSQL",
            state="CdcRefreshState",
            lag_seconds=56_606.106,
            last_replicated_checkpoint='{"txn_seq":9}',
            tables_replicated=7,
            tables_failed=1,
            refresh_interval_seconds=0,
            source_database="tickit",
            history_mode=False,
            auto_remediation=True,
            latest_detected=AT.replace(tzinfo=UTC),
            latest_applied=AT.replace(tzinfo=UTC),
        )
    ]
    assert session.asked[0][1] == (ID,)


def test_columns_that_an_older_patch_has_not_are_none() -> None:
    (row,) = activity.read_integrations(Answer({"integration_id": pad(ID), "state": pad("PendingDbConnectState")}), ID)
    assert row.pending and row.target_database == "" and row.lag_seconds is None and row.auto_remediation is None
    assert row.refresh_interval_seconds is None and row.latest_applied is None and row.tables_failed == 0


@pytest.mark.parametrize("wrong", ["", "zetl", f"{ID}' OR '1'='1"])
def test_what_is_no_integration_id_is_not_asked_for(wrong: str) -> None:
    session = Answer()
    with pytest.raises(ValueError, match="is no integration id: a UUID is needed"):
        activity.read_table_states(session, wrong, DATABASE)
    assert session.asked == []


def test_a_table_state() -> None:
    session = Answer(
        {
            "schema_name": pad("Größe"),
            "table_name": pad("a.b"),
            "table_state": pad("Failed"),
            "reason": pad("no key", 256),
            "table_last_replicated_checkpoint": pad(""),
            "last_updated_timestamp": None,
            "table_rows": None,
            "table_size": 12,
        }
    )
    name = TableName("Größe", "a.b")
    assert activity.read_table_states(session, ID, DATABASE) == {
        name: TableState(name, "Failed", "no key", "", None, None, 12)
    }


def test_an_ingestion_and_one_without_a_time() -> None:
    row = {
        "schema_name": pad("public"),
        "table_name": pad("sales"),
        "checkpoint_name": pad("checkpoints/1.json"),
        "record_time": AT,
        "transaction_id": "4711",
        "inserted_rows": 3,
        "deleted_rows": None,
        "updated_rows": 1,
        "bytes_ingested": 400,
    }
    session = Answer(row)
    assert activity.read_activity(session, ID, DATABASE, AT.replace(tzinfo=UTC)) == [
        TableActivity(TableName("public", "sales"), "checkpoints/1.json", AT.replace(tzinfo=UTC), 4711, 3, 0, 1, 400)
    ]
    assert session.asked[0][1] == (ID, DATABASE, "2026-11-21 07:30:00.123456")
    with pytest.raises(ValueError, match="SYS_INTEGRATION_TABLE_ACTIVITY has a row without record_time"):
        activity.read_activity(Answer({**row, "record_time": None}), ID, DATABASE, AT.replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("last_commit", "ended", "lag"),
    [
        (AT, AT + timedelta(seconds=4.5), 4.5),
        (AT, AT - timedelta(seconds=1), 0.0),  # two clocks
        (AT, time(7, 30), None),  # the documentation types it as a time of day
        (AT, "07:30:00", None),
        (None, AT, None),
    ],
)
def test_the_lag_of_a_checkpoint(last_commit: Any, ended: Any, lag: float | None) -> None:
    session = Answer(
        {
            "checkpoint_name": pad("c1"),
            "checkpoint_type": pad("cdc", 16),
            "checkpoint_bytes": 10,
            "last_commit_timestamp": last_commit,
            "integration_end_time": ended,
        }
    )
    found = activity.read_checkpoints(session, ID, DATABASE, AT.replace(tzinfo=UTC))["c1"]
    assert isinstance(found, Checkpoint) and (found.kind, found.bytes, found.lag_seconds) == ("cdc", 10, lag)


@pytest.mark.parametrize(
    ("row", "kind", "nullable"),
    [
        ({"data_type": "character varying", "character_maximum_length": 100}, "character varying(100)", True),
        ({"data_type": pad("character varying(65535)")}, "character varying(65535)", True),
        ({"data_type": "numeric", "numeric_precision": 18, "numeric_scale": 2}, "numeric(18,2)", True),
        ({"data_type": "numeric", "numeric_precision": 18, "numeric_scale": None}, "numeric(18,0)", True),
        ({"data_type": "integer", "numeric_precision": 32}, "integer", True),
        ({"data_type": "date", "is_nullable": pad("NO", 3)}, "date", False),
    ],
)
def test_column_types(row: dict[str, Any], kind: str, nullable: bool) -> None:
    session = Answer({"schema_name": "public", "table_name": "t", "column_name": pad("c"), **row})
    assert activity.read_columns(session, DATABASE) == {TableName("public", "t"): (Column("c", kind, nullable),)}


def test_columns_of_named_tables_and_of_many() -> None:
    session = Answer()
    assert activity.read_columns(session, DATABASE, []) == {} and session.asked == []
    activity.read_columns(session, DATABASE, [TableName("a", 'x"y'), TableName("b", "z")])
    sql, params = session.asked[-1]
    assert sql.count("%s") == len(params) == 5 and 'x"y' not in sql
    activity.read_columns(session, DATABASE, [TableName("a", str(number)) for number in range(101)])
    assert session.asked[-1][1] == [DATABASE], "too many to name one by one: all are read"


def test_resyncs_quote_every_name() -> None:
    session = Answer()
    activity.refresh_tables(session, 'z"', [TableName("public", "sales"), TableName("Größe", "a.b")])
    activity.refresh_failed_tables(session, "tickit_zetl")
    assert [sql for sql, _ in session.asked] == [
        'ALTER DATABASE "z""" INTEGRATION REFRESH TABLE "public"."sales", "Größe"."a.b"',
        'ALTER DATABASE "tickit_zetl" INTEGRATION REFRESH INERROR TABLES',
    ]


# ---- the embedded Redshift's views -----------------------------------------------------------------------------------


def test_the_views_of_a_running_integration_agree_with_each_other(tickit: Provisioned) -> None:
    venue = TableName("public", "venue")
    with tickit.session() as session:
        key = (session, tickit.integration_id, tickit.settings.target.database)
        (row,) = activity.read_integrations(session, tickit.integration_id)
        states = activity.read_table_states(*key)
        newest = activity.read_newest_activity(*key, overlap_seconds=120)
        oldest = activity.read_oldest_activity(*key)
        assert oldest is not None
        every = activity.read_activity(*key, since=oldest)
        checkpoints = activity.read_checkpoints(*key, since=oldest)
        columns = activity.read_columns(session, tickit.settings.target.database, [venue])
        assert activity.read_activity(*key, since=datetime.now(UTC) + timedelta(hours=1)) == []
        assert activity.read_integrations_into(session, tickit.settings.target.database) == [row]
    assert (row.state, row.source_database, row.history_mode) == ("CdcRefreshState", "tickit", False)
    assert {one.name for one in newest} == {TableName(*name) for name in tickit.settings.tables}
    assert min(one.record_time for one in every) == oldest
    seed = min((one for one in every if one.name == venue), key=lambda one: one.record_time)
    assert seed.inserted_rows == states[venue].rows == 202
    assert {one.checkpoint for one in every} == set(checkpoints)
    assert all(checkpoint.lag_seconds is not None for checkpoint in checkpoints.values())
    assert [(one.name, one.type) for one in columns[venue]][:2] == [
        ("venueid", "smallint"),
        ("venuename", "character varying(65535)"),
    ]


def test_the_overlap_before_the_newest_row_is_read_too(shop: Provisioned) -> None:
    plain = TableName("public", "plain")
    with shop.session() as session:
        for price in ("3.00", "4.00"):
            before = shop.ingested(session, plain)
            shop.run(f"UPDATE plain SET price = {price} WHERE id = 1")
            shop.ingested(session, plain, since=before)
        key = (session, shop.integration_id, shop.settings.target.database)
        wide = [one for one in activity.read_newest_activity(*key, overlap_seconds=3600) if one.name == plain]
        narrow = [one for one in activity.read_newest_activity(*key, overlap_seconds=0) if one.name == plain]
    assert len(wide) >= 2 and [one.record_time for one in narrow] == [max(one.record_time for one in wide)]
