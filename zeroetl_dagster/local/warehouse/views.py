"""Redshift's system views: SVV_/SYS_ of integrations with AWS's columns, types and blank padding, and the catalogue.

Each is SQL over `_zeroetl` (what the replicator writes in an integration's database, what the storage keeps in every
database), made into temporary views of the session when it starts and whenever the set of databases changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from zeroetl_dagster.local.warehouse.usage import Usage


@dataclass(frozen=True)
class Attached:
    """One database of the namespace; `integration_id` of those made from an integration."""

    name: str
    oid: int
    integration_id: str | None = None
    engine: str = "PostgreSQL"


@dataclass(frozen=True)
class Pending:
    """An integration of this namespace without a database."""

    integration_id: str
    engine: str


_BLANK = {"char": "VARCHAR", "ts": "TIMESTAMP", "big": "BIGINT", "int": "INTEGER", "bool": "BOOLEAN"}
_COLUMNS = {
    "svv_integration": "integration_id:char target_database:char source:char state:char current_lag:big "
    "last_replicated_checkpoint:char total_tables_replicated:int total_tables_failed:int creation_time:ts "
    "refresh_interval:int source_database:char is_history_mode:bool latest_detected_change_time:ts "
    "latest_applied_change_time:ts auto_remediation:bool latest_shipped_source_commit_time:ts",
    "svv_integration_table_state": "integration_id:char target_database:char schema_name:char table_name:char "
    "table_state:char table_last_replicated_checkpoint:char reason:char last_updated_timestamp:ts table_rows:big "
    "table_size:big is_history_mode:bool",
    "sys_integration_activity": "integration_id:char target_database:char source:char checkpoint_name:char "
    "checkpoint_type:char checkpoint_bytes:big last_commit_timestamp:ts modified_tables:int "
    "integration_start_time:ts integration_end_time:ts",
    "sys_integration_table_activity": "integration_id:char checkpoint_name:char target_database:char "
    "schema_name:char table_name:char table_id:int record_time:ts transaction_id:big inserted_rows:big "
    "deleted_rows:big updated_rows:big bytes_ingested:big",
    "sys_integration_table_state_change": "integration_id:char database_name:char schema_name:char table_name:char "
    "new_state:char table_last_replicated_checkpoint:char state_change_reason:char record_time:ts",
}
_WIDTH = {"checkpoint_type": 16, "reason": 256}
_CATALOGUE = [
    "pg_class", "pg_namespace", "pg_description", "pg_database", "pg_user", "stv_mv_info", "svv_mv_info",
    "svv_columns", "svv_tables", "svv_all_tables", "svv_all_columns", "svv_redshift_databases",
    "svv_redshift_tables", "svv_redshift_columns", "sys_serverless_usage",
]  # fmt: skip
VIEWS = frozenset([*_COLUMNS, *_CATALOGUE])


def definitions(
    databases: Iterable[Attached],
    pending: Iterable[Pending],
    *,
    current: str,
    sees_all: bool,
    users: Iterable[tuple],
    usage: Iterable[Usage] = (),
) -> dict[str, str]:
    """View name to the SQL of it, for one session. `sees_all`: a superuser or a monitor; others see zero rows."""
    databases, pending = list(databases), list(pending)
    made = {name: _integration_view(name, databases, pending, sees_all) for name in _COLUMNS}
    return made | _catalogue(databases, current, users) | {"sys_serverless_usage": _usage(usage)}


def _integration_view(name: str, databases: list[Attached], pending: list[Pending], sees_all: bool) -> str:
    columns = [column.split(":") for column in _COLUMNS[name].split()]
    empty = ", ".join(f"CAST(NULL AS {_BLANK[kind]}) AS {column}" for column, kind in columns)
    rows = [_ROWS[name](database) for database in databases if database.integration_id and sees_all]
    if name == "svv_integration" and sees_all:
        rows += [_pending(one) for one in pending]
    union = " UNION ALL BY NAME ".join([f"SELECT {empty} WHERE false", *rows])
    shown = ", ".join(
        f"rpad({column}, {_WIDTH.get(column, 128)}, ' ') AS {column}" if kind == "char" else column
        for column, kind in columns
    )
    return f"SELECT {shown} FROM ({union})"


def _usage(usage: Iterable[Usage]) -> str:
    rows = [
        f"(make_timestamp({int(u.start * 1e6)}), make_timestamp({int(u.end * 1e6)}), {u.compute_seconds}, {u.rpu}, "
        f"{u.charged_seconds})"
        for u in usage
    ]
    columns = "start_time, end_time, compute_seconds, compute_capacity, charged_seconds"
    nothing = "(NULL::TIMESTAMP, NULL::TIMESTAMP, NULL::BIGINT, NULL::INTEGER, NULL::BIGINT)"
    values = ", ".join(rows) or nothing
    typed = (
        "start_time, end_time, compute_seconds::BIGINT AS compute_seconds, "
        "compute_capacity::INTEGER AS compute_capacity, charged_seconds::BIGINT AS charged_seconds"
    )
    return f"SELECT {typed} FROM (VALUES {values}) AS t({columns}) WHERE start_time IS NOT NULL"


def _q(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _z(database: Attached, table: str) -> str:
    return '"' + database.name.replace('"', '""') + f'"._zeroetl.{table}'


def _ids(database: Attached, target: str = "target_database") -> str:
    return f"{_q(database.integration_id or '')} AS integration_id, {_q(database.name)} AS {target}"


def _pending(one: Pending) -> str:
    return (
        f"SELECT {_q(one.integration_id)} AS integration_id, '' AS target_database, {_q(one.engine)} AS source, "
        "'PendingDbConnectState' AS state, 0 AS total_tables_replicated, 0 AS total_tables_failed"
    )


def _svv_integration(d: Attached) -> str:
    states = _z(d, "table_state")
    return (
        f"SELECT {_ids(d)}, {_q(d.engine)} AS source, i.state, i.lag_ms AS current_lag, "
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
        f"SELECT {_ids(d)}, {_q(d.engine)} AS source, checkpoint_name, checkpoint_type, checkpoint_bytes, "
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

_TYPE = (
    "CASE WHEN data_type = 'VARCHAR' THEN 'character varying' WHEN data_type LIKE 'DECIMAL%' THEN 'numeric' "
    "WHEN data_type = 'TIMESTAMP' THEN 'timestamp without time zone' "
    "WHEN data_type = 'TIMESTAMP WITH TIME ZONE' THEN 'timestamp with time zone' "
    "WHEN data_type = 'DOUBLE' THEN 'double precision' WHEN data_type = 'FLOAT' THEN 'real' "
    "WHEN data_type = 'HUGEINT' THEN 'numeric' WHEN data_type = 'JSON' THEN 'super' ELSE lower(data_type) END"
)
_HIDDEN = "schema_name NOT IN ('_zeroetl', 'information_schema', 'pg_catalog', 'main')"


def _catalogue(databases: list[Attached], current: str, users: Iterable[tuple]) -> dict[str, str]:
    here = f"database_name = {_q(current)} AND {_HIDDEN}"
    known = ", ".join(_q(d.name) for d in databases) or "''"
    everywhere = f"database_name IN ({known}) AND {_HIDDEN}"
    relations = (
        f"SELECT table_oid + 100000 AS oid, schema_name, table_name AS relname, 'r' AS relkind FROM duckdb_tables() "
        f"WHERE {here} UNION ALL SELECT view_oid + 500000, schema_name, view_name, 'v' FROM duckdb_views() "
        f"WHERE {here} AND NOT internal"
    )
    objects = '"' + current.replace('"', '""') + '"._zeroetl.relation'
    mv = f"(SELECT schema_name, relation_name FROM {objects} WHERE kind = 'mv')"
    columns = (
        "SELECT database_name, schema_name, table_name, column_name, column_index AS ordinal_position, "
        f"column_default, is_nullable, {_TYPE} AS data_type, CASE WHEN data_type = 'VARCHAR' THEN 65535 END "
        "AS character_maximum_length, numeric_precision, numeric_scale FROM duckdb_columns() WHERE NOT internal AND "
    )
    tables = (
        f"SELECT database_name, schema_name, table_name, 'TABLE' AS table_type FROM duckdb_tables() WHERE {everywhere} "
        f"UNION ALL SELECT database_name, schema_name, view_name, 'VIEW' FROM duckdb_views() "
        f"WHERE {everywhere} AND NOT internal"
    )
    rows = ", ".join(f"({d.oid}, {_q(d.name)}, {_q(d.integration_id or '')})" for d in databases)
    people = ", ".join(f"({_q(name)}, {number}, {superuser})" for name, number, superuser in users) or "('', 0, false)"
    mv_info = (
        f"SELECT rpad({_q(current)}, 128, ' ') AS db_name, rpad(schema_name, 128, ' ') AS schema, "
        "rpad(relation_name, 128, ' ') AS name, 0 AS updated_upto_xid, false AS is_stale, "
        f"'' AS owner_user_name, 0 AS state, 0 AS autorewrite, 0 AS autorefresh FROM {objects} WHERE kind = 'mv'"
    )
    return {
        "pg_namespace": f"SELECT oid, schema_name AS nspname FROM duckdb_schemas() WHERE {here}",
        "pg_class": "SELECT r.oid, r.relname, s.oid AS relnamespace, "
        f"CASE WHEN (r.schema_name, r.relname) IN {mv} THEN 'v' ELSE r.relkind END AS relkind FROM ({relations}) r "
        f"JOIN (SELECT oid, schema_name FROM duckdb_schemas() WHERE {here}) s USING (schema_name)",
        "pg_description": f"SELECT r.oid AS objoid, 0 AS objsubid, c.comment AS description FROM ({relations}) r "
        f"JOIN {objects} c ON c.schema_name = r.schema_name AND c.relation_name = r.relname "
        "WHERE c.comment IS NOT NULL",
        "pg_database": f"SELECT oid, datname, 100 AS datdba FROM (VALUES {rows}) AS t(oid, datname, integration)",
        "pg_user": f"SELECT usename, usesysid, usesuper FROM (VALUES {people}) AS t(usename, usesysid, usesuper)",
        "stv_mv_info": mv_info,
        "svv_mv_info": "SELECT db_name AS database_name, schema AS schema_name, owner_user_name AS user_name, name, "
        f"is_stale, state, autorewrite, autorefresh FROM ({mv_info})",
        "svv_columns": "SELECT database_name AS table_catalog, schema_name AS table_schema, * EXCLUDE "
        f"(database_name, schema_name) FROM ({columns} {here})",
        "svv_tables": "SELECT database_name AS table_catalog, schema_name AS table_schema, table_name, table_type "
        f"FROM ({tables}) WHERE database_name = {_q(current)}",
        "svv_all_tables": tables,
        "svv_redshift_tables": tables,
        "svv_all_columns": f"{columns} {everywhere}",
        "svv_redshift_columns": f"{columns} {everywhere}",
        "svv_redshift_databases": "SELECT datname AS database_name, 100 AS database_owner, "
        "CASE WHEN integration = '' THEN 'local' ELSE 'integration' END AS database_type, NULL AS database_acl, "
        f"NULL AS database_options FROM (VALUES {rows}) AS t(oid, datname, integration)",
    }
