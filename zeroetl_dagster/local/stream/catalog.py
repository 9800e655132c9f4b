"""The schema `_zeroetl` of an integration's database: table states, activity and the position, written in the same
DuckDB transaction as the data, so that a kill -9 neither loses nor doubles a change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import duckdb

_TABLES = """
CREATE TABLE IF NOT EXISTS {z}.integration (integration_id VARCHAR, source_database VARCHAR, options VARCHAR,
  state VARCHAR, created_at TIMESTAMP, last_checkpoint VARCHAR, lag_ms BIGINT, latest_detected TIMESTAMP,
  latest_applied TIMESTAMP, latest_shipped TIMESTAMP);
CREATE TABLE IF NOT EXISTS {z}.table_state (schema_name VARCHAR, table_name VARCHAR, table_id INTEGER,
  table_state VARCHAR, reason VARCHAR, checkpoint VARCHAR, last_updated TIMESTAMP, table_rows BIGINT,
  table_size_mb BIGINT, from_lsn BIGINT, columns VARCHAR, PRIMARY KEY (schema_name, table_name));
CREATE TABLE IF NOT EXISTS {z}.activity (checkpoint_name VARCHAR, checkpoint_type VARCHAR, checkpoint_bytes BIGINT,
  last_commit TIMESTAMP, modified_tables INTEGER, start_time TIMESTAMP, end_time TIMESTAMP);
CREATE TABLE IF NOT EXISTS {z}.table_activity (checkpoint_name VARCHAR, schema_name VARCHAR, table_name VARCHAR,
  table_id INTEGER, record_time TIMESTAMP, transaction_id BIGINT, inserted_rows BIGINT, deleted_rows BIGINT,
  updated_rows BIGINT, bytes_ingested BIGINT);
CREATE TABLE IF NOT EXISTS {z}.state_change (schema_name VARCHAR, table_name VARCHAR, new_state VARCHAR,
  checkpoint VARCHAR, reason VARCHAR, record_time TIMESTAMP);
CREATE TABLE IF NOT EXISTS {z}.position (lsn BIGINT, txn_seq BIGINT, txn_id BIGINT);
"""
NOW = "CAST(now() AS TIMESTAMP)"


def quoted(*parts: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


class Catalog:
    """Reads and writes `_zeroetl` through the applier's own cursor."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, database: str) -> None:
        self.cursor = cursor
        self.z = quoted(database, "_zeroetl")

    def create(self, integration_id: str, source_database: str | None, options: Mapping[str, object]) -> None:
        for statement in _TABLES.format(z=self.z).split(";"):
            if statement.strip():
                self.cursor.execute(statement)
        if self.one(f"SELECT 1 FROM {self.z}.integration") is None:
            self.cursor.execute(
                f"INSERT INTO {self.z}.integration VALUES (?, ?, ?, 'SchemaDiscoveryState', {NOW}, NULL, 0, NULL, "
                "NULL, NULL)",
                [integration_id, source_database, json.dumps(dict(options))],
            )
            self.cursor.execute(f"INSERT INTO {self.z}.position VALUES (0, 0, 0)")

    def one(self, sql: str, params: list[Any] | None = None) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self.cursor.execute(sql, params or []).fetchone()
        return found

    def position(self) -> tuple[int, int]:
        """The LSN up to which everything is applied, and the number of checkpoints so far."""
        row = self.one(f"SELECT lsn, txn_seq FROM {self.z}.position")
        assert row is not None
        return int(row[0]), int(row[1])

    def advance(self, lsn: int, txn_seq: int, txn_id: int) -> None:
        self.cursor.execute(f"UPDATE {self.z}.position SET lsn = ?, txn_seq = ?, txn_id = ?", [lsn, txn_seq, txn_id])

    def options(self) -> dict[str, Any]:
        row = self.one(f"SELECT options FROM {self.z}.integration")
        found: dict[str, Any] = json.loads(row[0]) if row else {}
        return found

    def set_options(self, options: Mapping[str, object]) -> None:
        merged = json.dumps({**self.options(), **options})
        self.cursor.execute(f"UPDATE {self.z}.integration SET options = ?", [merged])

    def set_state(self, state: str) -> None:
        self.cursor.execute(f"UPDATE {self.z}.integration SET state = ?", [state])

    def tables(self) -> dict[tuple[str, str], dict[str, Any]]:
        cursor = self.cursor.execute(f"SELECT * FROM {self.z}.table_state")
        names = [column[0] for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return {(row["schema_name"], row["table_name"]): row for row in rows}

    def table(self, schema: str, name: str, table_id: int, state: str, reason: str = "", **more: Any) -> None:
        """Record a table's state, and the change where it is one."""
        before = self.tables().get((schema, name), {})
        row = {
            "schema_name": schema, "table_name": name, "table_id": table_id, "table_state": state,
            "reason": reason[:256], "checkpoint": before.get("checkpoint") or "",
            "table_rows": before.get("table_rows") or 0, "table_size_mb": before.get("table_size_mb") or 0,
            "from_lsn": before.get("from_lsn") or 0, "columns": before.get("columns") or "", **more,
        }  # fmt: skip
        self.cursor.execute(
            f"INSERT OR REPLACE INTO {self.z}.table_state ({', '.join(row)}, last_updated) "
            f"VALUES ({', '.join('?' * len(row))}, {NOW})",
            list(row.values()),
        )
        if (before.get("table_state"), before.get("reason")) != (state, row["reason"]):
            self.cursor.execute(
                f"INSERT INTO {self.z}.state_change VALUES (?, ?, ?, ?, ?, {NOW})",
                [schema, name, state, row["checkpoint"], row["reason"][:128]],
            )

    def forget(self, schema: str, name: str) -> None:
        self.cursor.execute(
            f"DELETE FROM {self.z}.table_state WHERE schema_name = ? AND table_name = ?", [schema, name]
        )

    def checkpoint(self, kind: str, seq: int, txn_id: int, size: int, commit: Any, tables: int, started: Any) -> str:
        name = f"checkpoints/checkpoint_3_{seq}_3_{txn_id}.json"
        self.cursor.execute(
            f"INSERT INTO {self.z}.activity VALUES (?, ?, ?, ?, ?, ?, {NOW})",
            [name, kind, size, commit, tables, started],
        )
        return name

    def moved(
        self, checkpoint: str, schema: str, name: str, table_id: int, txn: int, counts: tuple[int, int, int], size: int
    ) -> None:
        """`counts` are rows inserted, updated, deleted."""
        inserted, updated, deleted = counts
        self.cursor.execute(
            f"INSERT INTO {self.z}.table_activity VALUES (?, ?, ?, ?, {NOW}, ?, ?, ?, ?, ?)",
            [checkpoint, schema, name, table_id, txn, inserted, deleted, updated, size],
        )
        self.cursor.execute(
            f"UPDATE {self.z}.table_state SET table_rows = table_rows + ?, checkpoint = ?, last_updated = {NOW} "
            "WHERE schema_name = ? AND table_name = ?",
            [inserted - deleted, json.dumps({"txn_seq": int(checkpoint.split("_")[2]), "txn_id": txn}), schema, name],
        )

    def seen(self, *, detected: Any, applied: bool, lag_ms: int, checkpoint: str | None) -> None:
        applied_at = NOW if applied else "latest_applied"
        self.cursor.execute(
            f"UPDATE {self.z}.integration SET latest_detected = coalesce(?, latest_detected), "
            f"latest_shipped = coalesce(?, latest_shipped), latest_applied = {applied_at}, lag_ms = ?, "
            "last_checkpoint = coalesce(?, last_checkpoint)",
            [detected, detected, lag_ms, checkpoint],
        )
