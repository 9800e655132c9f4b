"""Redshift's views of integrations and of usage: SVV_/SYS_ with AWS's columns and types, as SQL over `_zeroetl`.

Each is one SELECT; character columns are CHAR(n), so that they arrive padded with blanks as AWS's do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from zeroetl_dagster.local.warehouse.dialect import literal, quoted
from zeroetl_dagster.local.warehouse.relations import INTERNAL, Column
from zeroetl_dagster.local.warehouse.types import RedshiftType
from zeroetl_dagster.local.warehouse.usage import Usage


@dataclass(frozen=True)
class Attached:
    """One database of the namespace; `integration_id` of those made from an integration."""

    name: str
    oid: int
    integration_id: str | None = None
    engine: str = "PostgreSQL"
    owner: str | None = None


@dataclass(frozen=True)
class Pending:
    """An integration of this namespace without a database."""

    integration_id: str
    engine: str


_TYPES = {
    "ts": RedshiftType("timestamp without time zone"),
    "big": RedshiftType("bigint"),
    "int": RedshiftType("integer"),
    "bool": RedshiftType("boolean"),
}
_COLUMNS = {
    "svv_integration": "integration_id:128 target_database:128 source:128 state:128 current_lag:big "
    "last_replicated_checkpoint:128 total_tables_replicated:int total_tables_failed:int creation_time:ts "
    "refresh_interval:int source_database:128 is_history_mode:bool latest_detected_change_time:ts "
    "latest_applied_change_time:ts auto_remediation:bool latest_shipped_source_commit_time:ts",
    "svv_integration_table_state": "integration_id:128 target_database:128 schema_name:128 table_name:128 "
    "table_state:128 table_last_replicated_checkpoint:128 reason:256 last_updated_timestamp:ts table_rows:big "
    "table_size:big is_history_mode:bool",
    "sys_integration_activity": "integration_id:128 target_database:128 source:128 checkpoint_name:128 "
    "checkpoint_type:16 checkpoint_bytes:big last_commit_timestamp:ts modified_tables:int "
    "integration_start_time:ts integration_end_time:ts",
    "sys_integration_table_activity": "integration_id:128 checkpoint_name:128 target_database:128 "
    "schema_name:128 table_name:128 table_id:int record_time:ts transaction_id:big inserted_rows:big "
    "deleted_rows:big updated_rows:big bytes_ingested:big",
    "sys_integration_table_state_change": "integration_id:128 database_name:128 schema_name:128 table_name:128 "
    "new_state:128 table_last_replicated_checkpoint:128 state_change_reason:128 record_time:ts",
    "sys_serverless_usage": "start_time:ts end_time:ts compute_seconds:big compute_capacity:int charged_seconds:big",
}
COLUMNS = {
    view: [
        Column(name, _TYPES.get(kind) or RedshiftType("character", int(kind)))
        for name, kind in (column.split(":") for column in columns.split())
    ]
    for view, columns in _COLUMNS.items()
}


def definition(
    name: str, databases: Iterable[Attached], pending: Iterable[Pending], usage: Iterable[Usage], *, sees_all: bool
) -> str:
    """The SQL of one of `COLUMNS`. `sees_all`: a superuser or a monitor; others see zero rows."""
    if name == "sys_serverless_usage":
        return _usage(usage)
    rows = [_ROWS[name](database) for database in databases if database.integration_id and sees_all]
    if name == "svv_integration" and sees_all:
        rows += [_pending(one) for one in pending]
    empty = ", ".join(f"CAST(NULL AS {column.type.duckdb}) AS {column.name}" for column in COLUMNS[name])
    union = " UNION ALL BY NAME ".join([f"SELECT {empty} WHERE false", *rows])
    # cut to the width of AWS's column, which also holds the blanks
    shown = ", ".join(
        f"left({column.name}, {column.type.size}) AS {column.name}" if column.type.is_text else column.name
        for column in COLUMNS[name]
    )
    return f"SELECT {shown} FROM ({union})"


def _usage(usage: Iterable[Usage]) -> str:
    rows = [
        f"(make_timestamp({int(u.start * 1e6)}), make_timestamp({int(u.end * 1e6)}), {u.compute_seconds}, {u.rpu}, "
        f"{u.charged_seconds})"
        for u in usage
    ]
    columns = ", ".join(
        f"{column.name}::{column.type.duckdb} AS {column.name}" for column in COLUMNS["sys_serverless_usage"]
    )
    names = ", ".join(column.name for column in COLUMNS["sys_serverless_usage"])
    values = ", ".join(rows) or "(NULL, NULL, NULL, NULL, NULL)"
    return f"SELECT {columns} FROM (VALUES {values}) AS t({names}) WHERE start_time IS NOT NULL"


def _z(database: Attached, table: str) -> str:
    return quoted(database.name, INTERNAL, table)


def _ids(database: Attached, target: str = "target_database") -> str:
    return f"{literal(database.integration_id or '')} AS integration_id, {literal(database.name)} AS {target}"


def _pending(one: Pending) -> str:
    return (
        f"SELECT {literal(one.integration_id)} AS integration_id, '' AS target_database, {literal(one.engine)} AS "
        f"source, "
        "'PendingDbConnectState' AS state, 0 AS total_tables_replicated, 0 AS total_tables_failed"
    )


def _svv_integration(d: Attached) -> str:
    states = _z(d, "table_state")
    return (
        f"SELECT {_ids(d)}, {literal(d.engine)} AS source, i.state, i.lag_ms AS current_lag, "
        "i.last_checkpoint AS last_replicated_checkpoint, "
        f"CAST((SELECT count(*) FROM {states} WHERE table_state NOT IN ('Failed', 'Deleted')) AS INTEGER) "
        "AS total_tables_replicated, "
        f"CAST((SELECT count(*) FROM {states} WHERE table_state = 'Failed') AS INTEGER) AS total_tables_failed, "
        "i.created_at AS creation_time, "
        "coalesce(CAST(json_extract_string(i.options, '$.refresh_interval') AS INTEGER), 0) AS refresh_interval, "
        "i.source_database, false AS is_history_mode, i.latest_detected AS latest_detected_change_time, "
        "i.latest_applied AS latest_applied_change_time, "
        "coalesce(json_extract_string(i.options, '$.auto_remediation') = 'true', false) AS auto_remediation, "
        f"i.latest_shipped AS latest_shipped_source_commit_time FROM {_z(d, 'integration')} i"
    )


_ROWS = {
    "svv_integration": _svv_integration,
    "svv_integration_table_state": lambda d: (
        f"SELECT {_ids(d)}, schema_name, table_name, table_state, checkpoint AS table_last_replicated_checkpoint, "
        "reason, last_updated AS last_updated_timestamp, table_rows, table_size_mb AS table_size, "
        f"false AS is_history_mode FROM {_z(d, 'table_state')}"
    ),
    "sys_integration_activity": lambda d: (
        f"SELECT {_ids(d)}, {literal(d.engine)} AS source, checkpoint_name, checkpoint_type, checkpoint_bytes, "
        "last_commit AS last_commit_timestamp, modified_tables, start_time AS integration_start_time, "
        f"end_time AS integration_end_time FROM {_z(d, 'activity')}"
    ),
    "sys_integration_table_activity": lambda d: f"SELECT {_ids(d)}, * FROM {_z(d, 'table_activity')}",
    "sys_integration_table_state_change": lambda d: (
        f"SELECT {_ids(d, 'database_name')}, schema_name, table_name, new_state, "
        "checkpoint AS table_last_replicated_checkpoint, reason AS state_change_reason, record_time "
        f"FROM {_z(d, 'state_change')}"
    ),
}
