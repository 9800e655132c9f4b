"""The schema `_zeroetl` of an integration's database file: what the replica remembers and what the system views show.

It lies in the same file as the replicated tables because a DuckDB transaction writes to one file: position, activity
and rows commit together or not at all. Texts are unpadded, times are UTC. The views' columns are AWS's
(SVV_INTEGRATION and its like); `replica`, `position` and `setting` are for the replica alone, `column_type` tells
Redshift's type of each replicated column, which DuckDB's does not always say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from zeroetl_dagster.local.stream.source import Visible
from zeroetl_dagster.local.stream.sql import qualified
from zeroetl_dagster.local.stream.structure import Structure

SCHEMA = "_zeroetl"
RETENTION_DAYS = 7  # of the activity views

_TABLES = {
    "integration": "integration_id VARCHAR, source_database VARCHAR, options VARCHAR, state VARCHAR, "
    "created_at TIMESTAMP, last_checkpoint VARCHAR, lag_ms BIGINT, latest_detected TIMESTAMP, "
    "latest_applied TIMESTAMP, latest_shipped TIMESTAMP",
    "table_state": "schema_name VARCHAR, table_name VARCHAR, table_id INTEGER, table_state VARCHAR, reason VARCHAR, "
    "checkpoint VARCHAR, last_updated TIMESTAMP, table_rows BIGINT, table_size_mb BIGINT",
    "activity": "checkpoint_name VARCHAR, checkpoint_type VARCHAR, checkpoint_bytes BIGINT, last_commit TIMESTAMP, "
    "modified_tables INTEGER, start_time TIMESTAMP, end_time TIMESTAMP",
    "table_activity": "checkpoint_name VARCHAR, schema_name VARCHAR, table_name VARCHAR, table_id INTEGER, "
    "record_time TIMESTAMP, transaction_id BIGINT, inserted_rows BIGINT, deleted_rows BIGINT, updated_rows BIGINT, "
    "bytes_ingested BIGINT",
    "state_change": "schema_name VARCHAR, table_name VARCHAR, new_state VARCHAR, checkpoint VARCHAR, reason VARCHAR, "
    "record_time TIMESTAMP",
    "position": "lsn BIGINT, txn_seq BIGINT, txn_id BIGINT",
    "replica": "relid BIGINT, structure VARCHAR, visible VARCHAR, visible_lsn BIGINT, row_bytes BIGINT",
    "column_type": "schema_name VARCHAR, table_name VARCHAR, column_name VARCHAR, position INTEGER, "
    "redshift_type VARCHAR, is_key BOOLEAN",
    "setting": "name VARCHAR, value VARCHAR",
}


@dataclass(frozen=True)
class Position:
    """Everything up to `lsn` is applied; `txn_seq` counts transactions, `txn_id` is the last one's."""

    lsn: int
    txn_seq: int
    txn_id: int

    @property
    def checkpoint(self) -> str:
        return json.dumps({"txn_seq": self.txn_seq, "txn_id": self.txn_id}, separators=(",", ":"))


def checkpoint_name(since: int, until: int) -> str:
    """Named like AWS's, after the stretch of the log that it covers."""
    places = (since >> 32, since & 0xFFFFFFFF, until >> 32, until & 0xFFFFFFFF)
    return f"checkpoints/checkpoint_{'_'.join(map(str, places))}.json"


@dataclass
class TableRecord:
    """One replicated table as it was committed. `state` is AWS's word; `visible` what its last seed already held."""

    structure: Structure
    state: str
    reason: str = ""
    checkpoint: str = ""
    rows: int = 0
    row_bytes: int = 0  # of all its rows together, about
    visible: Visible | None = None

    @property
    def size_mb(self) -> int:
        return -(-self.row_bytes // 2**20)


@dataclass(frozen=True)
class TableActivity:
    schema: str
    name: str
    relid: int
    inserted: int
    deleted: int
    updated: int
    size: int  # bytes


def now() -> datetime:
    return naive(datetime.now(UTC))


def naive(moment: datetime) -> datetime:
    """As TIMESTAMP columns hold it."""
    return moment.astimezone(UTC).replace(tzinfo=None)


class Catalog:
    """Reads and writes `_zeroetl` of one attached database, on the cursor and in the transaction that it is given."""

    def __init__(self, database: str) -> None:
        self.database = database

    def name(self, table: str) -> str:
        return qualified(self.database, SCHEMA, table)

    def create(self, cursor: Any, integration_id: str, source_database: str, options: Mapping[str, Any]) -> None:
        """Make what is missing; an existing database keeps what it remembers."""
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {qualified(self.database, SCHEMA)}")
        for table, columns in _TABLES.items():
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {self.name(table)} ({columns})")
        if cursor.execute(f"SELECT count(*) FROM {self.name('integration')}").fetchone()[0] == 0:
            cursor.execute(
                f"INSERT INTO {self.name('integration')} VALUES ($1, $2, $3, 'PendingDbConnectState', $4, '', 0, NULL, "
                "NULL, NULL)",
                [integration_id, source_database, json.dumps(dict(options)), now()],
            )

    # ---- the replica's memory ----------------------------------------------------------------------------------------

    def position(self, cursor: Any) -> Position | None:
        """None before the first seed began."""
        found = cursor.execute(f"SELECT lsn, txn_seq, txn_id FROM {self.name('position')}").fetchone()
        return None if found is None else Position(*found)

    def set_position(self, cursor: Any, position: Position) -> None:
        values = [position.lsn, position.txn_seq, position.txn_id]
        cursor.execute(f"UPDATE {self.name('position')} SET lsn = $1, txn_seq = $2, txn_id = $3", values)
        if cursor.fetchone()[0] == 0:
            cursor.execute(f"INSERT INTO {self.name('position')} VALUES ($1, $2, $3)", values)

    def setting(self, cursor: Any, name: str) -> str | None:
        found = cursor.execute(f"SELECT value FROM {self.name('setting')} WHERE name = $1", [name]).fetchone()
        return None if found is None else found[0]

    def set_setting(self, cursor: Any, name: str, value: str) -> None:
        cursor.execute(f"DELETE FROM {self.name('setting')} WHERE name = $1", [name])
        cursor.execute(f"INSERT INTO {self.name('setting')} VALUES ($1, $2)", [name, value])

    def options(self, cursor: Any) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            cursor.execute(f"SELECT options FROM {self.name('integration')}").fetchone()[0]
        )
        return found

    def latest(self, cursor: Any) -> tuple[datetime | None, datetime | None]:
        """When a change was last detected and last applied."""
        found = cursor.execute(f"SELECT latest_detected, latest_applied FROM {self.name('integration')}").fetchone()
        return found[0], found[1]

    def update_integration(self, cursor: Any, **columns: Any) -> None:
        """Set columns of the one row of `integration`."""
        places = ", ".join(f"{column} = ${number}" for number, column in enumerate(columns, 1))
        cursor.execute(f"UPDATE {self.name('integration')} SET {places}", list(columns.values()))

    def tables(self, cursor: Any) -> list[TableRecord]:
        """The replicated tables; those that are gone (`Deleted`) are not among them."""
        rows = cursor.execute(
            "SELECT structure, table_state, reason, checkpoint, table_rows, row_bytes, visible, visible_lsn "
            f"FROM {self.name('replica')} JOIN {self.name('table_state')} ON relid = table_id "
            "WHERE table_state <> 'Deleted'"
        ).fetchall()
        return [
            TableRecord(
                Structure.parse(structure),
                state,
                reason,
                checkpoint,
                count,
                size,
                Visible.parse(seen, lsn) if seen else None,
            )
            for structure, state, reason, checkpoint, count, size, seen, lsn in rows
        ]

    def put_table(self, cursor: Any, table: TableRecord) -> None:
        """Remember a table, its structure included, replacing what was known of its relation."""
        self._forget_replica(cursor, table.structure.relid)
        visible = table.visible
        cursor.execute(
            f"INSERT INTO {self.name('replica')} VALUES ($1, $2, $3, $4, $5)",
            [
                table.structure.relid,
                table.structure.text(),
                visible.text() if visible else None,
                visible.lsn if visible else None,
                table.row_bytes,
            ],
        )
        self._put_columns(cursor, table.structure)
        self._put_state(cursor, table)

    def _put_columns(self, cursor: Any, structure: Structure) -> None:
        if structure.problem() is not None:
            return
        values = [
            [
                structure.schema,
                structure.name,
                column.name,
                place,
                column.target().redshift,
                column.number in structure.key,
            ]
            for place, column in enumerate(structure.columns, 1)
        ]
        cursor.executemany(f"INSERT INTO {self.name('column_type')} VALUES ($1, $2, $3, $4, $5, $6)", values)

    def _forget_replica(self, cursor: Any, relid: int) -> None:
        found = cursor.execute(f"SELECT structure FROM {self.name('replica')} WHERE relid = $1", [relid]).fetchone()
        if found is not None:
            known = Structure.parse(found[0])
            cursor.execute(
                f"DELETE FROM {self.name('column_type')} WHERE schema_name = $1 AND table_name = $2",
                [known.schema, known.name],
            )
            cursor.execute(f"DELETE FROM {self.name('replica')} WHERE relid = $1", [relid])

    def _put_state(self, cursor: Any, table: TableRecord) -> None:
        structure = table.structure
        cursor.execute(
            f"DELETE FROM {self.name('table_state')} WHERE table_id = $1 OR (schema_name = $2 AND table_name = $3 "
            "AND table_state = 'Deleted')",
            [structure.relid, structure.schema, structure.name],
        )
        cursor.execute(
            f"INSERT INTO {self.name('table_state')} VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            [structure.schema, structure.name, structure.relid, table.state, table.reason, table.checkpoint, now()]
            + [table.rows, table.size_mb],
        )

    def forget_table(self, cursor: Any, table: TableRecord) -> None:
        """A table that is no longer replicated stays in the table states as `Deleted`."""
        table.state, table.reason, table.rows, table.row_bytes = "Deleted", "", 0, 0
        self._forget_replica(cursor, table.structure.relid)
        self._put_state(cursor, table)
        self.log_state(cursor, table)

    # ---- what the views show -----------------------------------------------------------------------------------------

    def log_state(self, cursor: Any, table: TableRecord) -> None:
        """One row of SYS_INTEGRATION_TABLE_STATE_CHANGE."""
        cursor.execute(
            f"INSERT INTO {self.name('state_change')} VALUES ($1, $2, $3, $4, $5, $6)",
            [table.structure.schema, table.structure.name, table.state, table.checkpoint, table.reason, now()],
        )

    def log_activity(
        self,
        cursor: Any,
        checkpoint: str,
        kind: str,
        tables: Sequence[TableActivity],
        *,
        last_commit: datetime,
        started: datetime,
    ) -> None:
        """One row of SYS_INTEGRATION_ACTIVITY."""
        cursor.execute(
            f"INSERT INTO {self.name('activity')} VALUES ($1, $2, $3, $4, $5, $6, $7)",
            [checkpoint, kind, sum(table.size for table in tables), last_commit, len(tables), started, now()],
        )

    def log_tables(self, cursor: Any, checkpoint: str, tables: Sequence[TableActivity], transaction_id: int) -> None:
        """One row of SYS_INTEGRATION_TABLE_ACTIVITY for each table."""
        moment = now()
        values: list[Any] = []
        for one in tables:
            values += [checkpoint, one.schema, one.name, one.relid, moment, transaction_id]
            values += [one.inserted, one.deleted, one.updated, one.size]
        if values:
            cursor.execute(f"INSERT INTO {self.name('table_activity')} VALUES {_places(len(tables), 10)}", values)

    def update_states(self, cursor: Any, tables: Sequence[TableRecord]) -> None:
        """Checkpoint, rows and size of tables whose rows have changed."""
        moment = now()
        values: list[Any] = []
        for one in tables:
            values += [one.structure.relid, one.checkpoint, moment, one.rows, one.size_mb]
        if not values:
            return
        cursor.execute(
            f"UPDATE {self.name('table_state')} AS t SET checkpoint = v.c, last_updated = v.m, table_rows = v.r, "
            f"table_size_mb = v.s FROM (VALUES {_places(len(tables), 5)}) AS v(i, c, m, r, s) WHERE t.table_id = v.i",
            values,
        )
        cursor.execute(
            f"UPDATE {self.name('replica')} AS t SET row_bytes = v.b "
            f"FROM (VALUES {_places(len(tables), 2)}) AS v(i, b) WHERE t.relid = v.i",
            [value for one in tables for value in (one.structure.relid, one.row_bytes)],
        )

    def prune(self, cursor: Any) -> None:
        """The views keep seven days."""
        for table, column in (
            ("activity", "end_time"),
            ("table_activity", "record_time"),
            ("state_change", "record_time"),
        ):
            oldest = now() - timedelta(days=RETENTION_DAYS)
            cursor.execute(f"DELETE FROM {self.name(table)} WHERE {column} < $1", [oldest])


def _places(rows: int, columns: int) -> str:
    """($1, $2), ($3, $4), …"""
    numbers = iter(range(1, rows * columns + 1))
    return ", ".join(f"({', '.join(f'${next(numbers)}' for _ in range(columns))})" for _ in range(rows))
