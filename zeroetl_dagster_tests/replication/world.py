"""A model of what the sensor watches: an integration whose rows, states and metrics a test moves as it likes.

It answers through the same three doors as the real thing: RDS and CloudWatch clients, and a Redshift session that
takes the statements of `replication.activity` and returns blank-padded rows. Each part has a clock of its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from zeroetl_dagster.settings.replication import TableName

DATABASE = "tickit_zetl"
HISTORY_SECONDS = 7 * 86_400
START = 1_790_000_000.0


@dataclass
class Rows:
    columns: Sequence[str]
    rows: list[tuple[Any, ...]]


@dataclass
class Row:
    table: TableName
    record_time: float
    transaction_id: int
    checkpoint: str
    inserted: int


@dataclass
class Table:
    state: str = "Synced"
    reason: str = ""
    last_updated: float = START
    generation: int = 1
    rows: int = 0


@dataclass
class World:
    """Times are true seconds; `…_skew` is what a part's clock adds to them."""

    now: float = START
    redshift_skew: float = 0.0
    cloudwatch_skew: float = 0.0
    metric_delay: float = 60.0
    metrics_on: bool = True
    redshift_up: bool = True
    database_made: bool = True
    visible: bool = True
    integration_id: str = "99108e72-1cfd-414f-8cc0-000000000001"
    status: str = "active"
    errors: list[dict[str, str]] = field(default_factory=list)
    tables: dict[TableName, Table] = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)
    published: list[tuple[float, int, str, float]] = field(default_factory=list)
    applied: float | None = None
    transferred: float = 0.0
    transactions: int = 100
    queries: list[str] = field(default_factory=list)
    sessions: int = 0

    # What happens -----------------------------------------------------------------------------------------------

    def add(self, *names: str) -> None:
        """New tables, seeded."""
        for name in names:
            self.tables[TableName("public", name)] = Table(last_updated=self.now)
        self.ingest(*names)

    def ingest(self, *names: str, late: float = 0.0, rows: int = 1) -> None:
        """One transaction that brings rows to these tables; `late` puts its record time before now."""
        self.transactions += 1
        # The identifier of a transaction that became visible later need not be the higher one.
        transaction = self.transactions if late == 0 else self.transactions - 50
        moved = False
        for name in names:
            table = self.tables.get(TableName("public", name))
            if table is None or table.state != "Synced":
                continue
            self._row(TableName("public", name), late, transaction, rows)
            moved = True
        if moved:
            self.applied = int(self.now + self.cloudwatch_skew)
            self.transferred += 100.0

    def _row(self, name: TableName, late: float, transaction: int, rows: int) -> None:
        table = self.tables[name]
        checkpoint = f"checkpoints/{self.transactions}.json"
        self.history.append(Row(name, self.now - late, transaction, checkpoint, rows))
        table.last_updated = self.now
        table.generation += 1
        table.rows += rows

    def fail(self, name: str, state: str = "Failed", reason: str = "no primary key") -> None:
        table = self.tables.get(TableName("public", name))
        if table is not None and table.state == "Synced":
            table.state, table.reason = state, reason

    def reload(self, name: str) -> None:
        """The end of a resync: Synced again, with its rows in one new ingestion."""
        table = self.tables.get(TableName("public", name))
        if table is not None and table.state != "Synced":
            table.state, table.reason = "Synced", ""
            self.ingest(name)

    def recreate(self) -> None:
        """The integration is deleted and made again: another id, everything seeded anew."""
        self.integration_id = str(uuid.UUID(int=uuid.UUID(self.integration_id).int + (1 << 100)))
        self.history.clear()
        self.published.clear()
        for name, table in self.tables.items():
            table.state, table.reason = "Synced", ""
            self.ingest(name.table)

    def wait(self, seconds: float) -> None:
        """Time passes; CloudWatch gets a point for every full minute, to be seen after the delay."""
        end = self.now + seconds
        minute = int(self.now // 60 + 1) * 60
        if seconds > 7200:  # what is older than the look-back is never asked for
            minute = max(minute, int((end - 7200) // 60) * 60)
        while minute <= end:
            if self.metrics_on:
                self._publish(minute)
            minute += 60
        self.now = end

    def _publish(self, minute: float) -> None:
        at = int(minute + self.cloudwatch_skew)
        seen = minute + self.metric_delay
        failed = sum(table.state == "Failed" for table in self.tables.values())
        if self.applied is not None:
            self.published.append((seen, at, "IntegrationLatestAppliedChange", self.applied))
            self.published.append((seen, at, "IntegrationLatestDetectedChange", self.applied))
        self.published.append((seen, at, "IntegrationLag", 5.0))
        self.published.append((seen, at, "IntegrationNumTablesFailedReplication", float(failed)))
        self.published.append((seen, at, "IntegrationNumTablesReplicated", float(len(self.tables) - failed)))
        self.published.append((seen, at, "IntegrationDataTransferred", self.transferred))
        self.transferred = 0.0

    # RDS and CloudWatch -----------------------------------------------------------------------------------------

    def get_paginator(self, operation: str) -> World:
        assert operation == "describe_integrations"
        return self

    def paginate(self) -> list[dict[str, Any]]:
        arn = f"arn:aws:rds:ap-northeast-1:123456789012:integration:{self.integration_id}"
        one = {"IntegrationName": "zeroetl-tickit", "IntegrationArn": arn, "Status": self.status}
        return [{"Integrations": [{**one, "Errors": self.errors}] if self.integration_id else []}]

    def get_metric_data(self, **request: Any) -> dict[str, Any]:
        results = []
        for query in request["MetricDataQueries"]:
            metric = query["MetricStat"]["Metric"]
            points = [
                (at, value)
                for seen, at, name, value in self.published
                if name == metric["MetricName"]
                and seen <= self.now
                and request["StartTime"].timestamp() <= at <= request["EndTime"].timestamp()
            ]
            results.append(
                {
                    "Id": query["Id"],
                    "Timestamps": [datetime.fromtimestamp(at, UTC) for at, _ in points],
                    "Values": [value for _, value in points],
                }
            )
        return {"MetricDataResults": results}

    # Redshift ---------------------------------------------------------------------------------------------------

    def query(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        self.queries.append(sql)
        if "FROM svv_integration " in sql:
            return self._integrations()
        if "svv_integration_table_state" in sql:
            return self._states()
        if sql.startswith("SELECT * FROM sys_integration_activity"):
            return Rows(("checkpoint_name",), [])
        if "svv_all_columns" in sql:
            return self._columns()
        kept = [row for row in self.history if row.record_time > self.now - HISTORY_SECONDS]
        if "MIN(record_time)" in sql:
            oldest = min((self._time(row.record_time) for row in kept), default=None)
            return Rows(("oldest",), [(oldest,)])
        if "JOIN" in sql:
            newest: dict[TableName, float] = {}
            for row in kept:
                newest[row.table] = max(row.record_time, newest.get(row.table, 0.0))
            found = [row for row in kept if row.record_time >= newest[row.table] - 120]
        else:
            since = datetime.fromisoformat(params[-1])
            found = [row for row in kept if self._time(row.record_time) >= since]
        return self._activity(found)

    def _integrations(self) -> Rows:
        columns = ("integration_id", "target_database", "state", "source", "current_lag", "source_database")
        state = "CdcRefreshState" if self.database_made else "PendingDbConnectState"
        database = DATABASE if self.database_made else ""
        row = (self.integration_id.ljust(128), database.ljust(128), state.ljust(128), "PostgreSQL".ljust(128), 5000, "")
        return Rows(columns, [row] if self.visible else [])

    def _states(self) -> Rows:
        columns = (
            "schema_name",
            "table_name",
            "table_state",
            "reason",
            "table_last_replicated_checkpoint",
            "last_updated_timestamp",
            "table_rows",
            "table_size",
        )
        rows: list[tuple[Any, ...]] = []
        for name, table in self.tables.items():
            texts = (name.schema, name.table, table.state, table.reason, '{"txn_seq":1}')
            padded = tuple(text.ljust(128) for text in texts)
            rows.append((*padded, self._time(table.last_updated), table.rows, 1))
        return Rows(columns, rows)

    def _columns(self) -> Rows:
        names = ("schema_name", "table_name", "column_name", "ordinal_position", "data_type", "is_nullable")
        rows = [(*(part.ljust(128) for part in name), "id".ljust(128), 1, "integer", "NO") for name in self.tables]
        return Rows(names, rows)

    def _activity(self, found: list[Row]) -> Rows:
        columns = (
            "checkpoint_name",
            "schema_name",
            "table_name",
            "table_id",
            "record_time",
            "transaction_id",
            "inserted_rows",
            "deleted_rows",
            "updated_rows",
            "bytes_ingested",
        )
        rows: list[tuple[Any, ...]] = []
        for row in found:
            texts = tuple(text.ljust(128) for text in (row.checkpoint, *row.table))
            rows.append((*texts, 1, self._time(row.record_time), row.transaction_id, row.inserted, 0, 0, 100))
        return Rows(columns, rows)

    def _time(self, moment: float) -> datetime:
        """Redshift's own clock, without a zone, to the millisecond so that equal times happen."""
        return datetime(1970, 1, 1) + timedelta(milliseconds=round((moment + self.redshift_skew) * 1000))

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        self.queries.append(sql)
        return 0
