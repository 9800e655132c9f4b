"""Redshift's views of an integration as typed rows, read in one session.

Source: Redshift system view reference. All character columns there are blank-padded, SVV_INTEGRATION.current_lag is in
milliseconds, table_size in MB, timestamps are UTC without a zone; units and padding end here. Columns differ between
Redshift's patches, so rows are read with `SELECT *` and a column that is not there is None.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from zeroetl_dagster.connections.sql import identifier, integration_uuid, qualified
from zeroetl_dagster.settings.replication import TableName

# SVV_INTEGRATION_TABLE_STATE.table_state: only Synced tables can be queried (unless QUERY_ALL_STATES).
SYNCED = "Synced"
TRANSITIONAL_STATES = frozenset({"ResyncRequired", "ResyncInitiated"})
# More tables than this are not named one by one in a statement.
_MOST_NAMED = 100


class Rows(Protocol):
    """What a query returns."""

    @property
    def columns(self) -> Sequence[str]: ...

    @property
    def rows(self) -> Sequence[Sequence[Any]]: ...


class Session(Protocol):
    """An open Redshift session."""

    def query(self, sql: str, params: Sequence[Any] = ()) -> Rows: ...

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int: ...


@dataclass(frozen=True)
class IntegrationRow:
    """SVV_INTEGRATION: one row for each (integration, target database)."""

    integration_id: str
    target_database: str
    source: str
    state: str
    lag_seconds: float | None
    last_replicated_checkpoint: str
    tables_replicated: int
    tables_failed: int
    refresh_interval_seconds: int | None
    source_database: str
    history_mode: bool | None
    auto_remediation: bool | None
    latest_detected: datetime | None
    latest_applied: datetime | None

    @property
    def pending(self) -> bool:
        """True while no database has been made from the integration."""
        return not self.target_database or self.state == "PendingDbConnectState"


@dataclass(frozen=True)
class TableState:
    """SVV_INTEGRATION_TABLE_STATE: one row for each replicated table."""

    name: TableName
    state: str
    reason: str
    checkpoint: str
    last_updated: datetime | None
    rows: int | None
    size_mb: int | None


@dataclass(frozen=True)
class TableActivity:
    """SYS_INTEGRATION_TABLE_ACTIVITY: one row for each completed ingestion into a table."""

    name: TableName
    checkpoint: str
    record_time: datetime
    transaction_id: int
    inserted_rows: int
    deleted_rows: int
    updated_rows: int
    bytes_ingested: int


@dataclass(frozen=True)
class Checkpoint:
    """SYS_INTEGRATION_ACTIVITY: one completed integration run."""

    name: str
    kind: str
    bytes: int
    last_commit: datetime | None
    ended: datetime | None

    @property
    def lag_seconds(self) -> float | None:
        """From the last commit it carries to its end; None where a timestamp is missing."""
        if self.last_commit is None or self.ended is None:
            return None
        return max(0.0, (self.ended - self.last_commit).total_seconds())


@dataclass(frozen=True)
class Column:
    """A column as Redshift types it."""

    name: str
    type: str
    nullable: bool
    comment: str = ""


@dataclass(frozen=True)
class Snapshot:
    """What the views said in one session.

    `full` means that `activity` holds every table's newest rows, however old; otherwise it holds the rows since
    `since`. `visible` is False when SVV_INTEGRATION has no row of the integration: it does not know it (yet), or the
    user may not see it (superuser, or what `zeroetl grants` prints).
    """

    visible: bool
    integration: IntegrationRow | None
    tables: Mapping[TableName, TableState]
    activity: Sequence[TableActivity]
    full: bool
    since: datetime | None = None
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)
    columns: Mapping[TableName, tuple[Column, ...]] = field(default_factory=dict)


def read_integrations(session: Session, integration_id: str) -> list[IntegrationRow]:
    """The rows of SVV_INTEGRATION for one integration; empty when there are none or they may not be seen."""
    rows = session.query(
        "SELECT * FROM svv_integration WHERE TRIM(integration_id) = %s", (integration_uuid(integration_id),)
    )
    return [_integration(row) for row in _dicts(rows)]


def read_integrations_into(session: Session, database: str) -> list[IntegrationRow]:
    """The rows of SVV_INTEGRATION for one target database, whatever its integration."""
    rows = session.query("SELECT * FROM svv_integration WHERE TRIM(target_database) = %s", (database,))
    return [_integration(row) for row in _dicts(rows)]


def read_table_states(session: Session, integration_id: str, database: str) -> dict[TableName, TableState]:
    """The state of every table of one target database."""
    rows = session.query(
        "SELECT * FROM svv_integration_table_state WHERE TRIM(integration_id) = %s AND TRIM(target_database) = %s",
        (integration_uuid(integration_id), database),
    )
    states = (_table_state(row) for row in _dicts(rows))
    return {state.name: state for state in states}


_OF_TARGET = "TRIM({0}integration_id) = %s AND TRIM({0}target_database) = %s"


def read_activity(session: Session, integration_id: str, database: str, since: datetime) -> list[TableActivity]:
    """Ingestions recorded at `since` or later."""
    rows = session.query(
        f"SELECT * FROM sys_integration_table_activity WHERE {_OF_TARGET.format('')} "
        "AND record_time >= CAST(%s AS TIMESTAMP)",
        (integration_uuid(integration_id), database, _text(since)),
    )
    return [_table_activity(row) for row in _dicts(rows)]


def read_newest_activity(
    session: Session, integration_id: str, database: str, overlap_seconds: int
) -> list[TableActivity]:
    """Every table's newest ingestion that the view still keeps, and those up to `overlap_seconds` before it."""
    key = (integration_uuid(integration_id), database)
    rows = session.query(
        "SELECT a.* FROM sys_integration_table_activity a JOIN ("
        "SELECT schema_name, table_name, MAX(record_time) AS newest FROM sys_integration_table_activity "
        f"WHERE {_OF_TARGET.format('')} GROUP BY schema_name, table_name) n "
        "ON a.schema_name = n.schema_name AND a.table_name = n.table_name "
        f"WHERE {_OF_TARGET.format('a.')} AND a.record_time >= DATEADD(second, -{int(overlap_seconds)}, n.newest)",
        (*key, *key),
    )
    return [_table_activity(row) for row in _dicts(rows)]


def read_oldest_activity(session: Session, integration_id: str, database: str) -> datetime | None:
    """When the oldest ingestion that the view still keeps was recorded; None when it keeps none."""
    rows = session.query(
        "SELECT MIN(record_time) AS oldest FROM sys_integration_table_activity WHERE " + _OF_TARGET.format(""),
        (integration_uuid(integration_id), database),
    )
    return _timestamp(next(iter(_dicts(rows)), {}).get("oldest"))


def read_checkpoints(session: Session, integration_id: str, database: str, since: datetime) -> dict[str, Checkpoint]:
    """The integration runs behind the ingestions recorded at `since` or later, by name."""
    key = (integration_uuid(integration_id), database)
    # By name, not by time: the documentation types this view's own start and end as `time`.
    rows = session.query(
        f"SELECT * FROM sys_integration_activity WHERE {_OF_TARGET.format('')} AND checkpoint_name IN ("
        f"SELECT checkpoint_name FROM sys_integration_table_activity WHERE {_OF_TARGET.format('')} "
        "AND record_time >= CAST(%s AS TIMESTAMP))",
        (*key, *key, _text(since)),
    )
    found = (_checkpoint(row) for row in _dicts(rows))
    return {checkpoint.name: checkpoint for checkpoint in found}


def refresh_tables(session: Session, database: str, tables: Sequence[TableName]) -> str:
    """Ask Redshift to replicate tables anew and in full; returns the statement. It runs on by itself.

    Redshift SQL reference, ALTER DATABASE: the tables cannot be read until they are Synced again.
    """
    names = ", ".join(qualified(*name) for name in tables)
    statement = f"ALTER DATABASE {identifier(database)} INTEGRATION REFRESH TABLE {names}"
    session.execute(statement)
    return statement


def refresh_failed_tables(session: Session, database: str) -> str:
    """Ask Redshift to replicate every table in error anew; returns the statement."""
    statement = f"ALTER DATABASE {identifier(database)} INTEGRATION REFRESH INERROR TABLES"
    session.execute(statement)
    return statement


def read_columns(
    session: Session, database: str, tables: Collection[TableName] | None = None
) -> dict[TableName, tuple[Column, ...]]:
    """The columns of a database's tables, in order (SVV_ALL_COLUMNS); of all of them, or of those named."""
    sql, params = "SELECT * FROM svv_all_columns WHERE TRIM(database_name) = %s", [database]
    if tables is not None and len(tables) <= _MOST_NAMED:
        if not tables:
            return {}
        sql += f" AND ({' OR '.join(['(TRIM(schema_name) = %s AND TRIM(table_name) = %s)'] * len(tables))})"
        params += [part for name in tables for part in name]
    ordered = sorted(_dicts(session.query(sql, params)), key=lambda row: _integer(row.get("ordinal_position")) or 0)
    columns: dict[TableName, list[Column]] = {}
    for row in ordered:
        name = TableName(_string(row.get("schema_name")), _string(row.get("table_name")))
        column = Column(
            name=_string(row.get("column_name")),
            type=_column_type(row),
            nullable=_string(row.get("is_nullable")).upper() not in ("NO", "F", "FALSE"),
            comment=_string(row.get("remarks")),
        )
        columns.setdefault(name, []).append(column)
    return {name: tuple(found) for name, found in columns.items()}


def _column_type(row: Mapping[str, Any]) -> str:
    """`character varying(65535)`, `numeric(18,2)`: the view keeps lengths in columns of their own."""
    kind = _string(row.get("data_type"))
    length = _integer(row.get("character_maximum_length"))
    if "(" in kind:
        return kind
    if length and kind.startswith(("character", "varchar", "char")):
        return f"{kind}({length})"
    precision, scale = _integer(row.get("numeric_precision")), _integer(row.get("numeric_scale"))
    if kind in ("numeric", "decimal") and precision:
        return f"{kind}({precision},{scale or 0})"
    return kind


def _integration(row: Mapping[str, Any]) -> IntegrationRow:
    lag = _integer(row.get("current_lag"))
    return IntegrationRow(
        integration_id=_string(row.get("integration_id")),
        target_database=_string(row.get("target_database")),
        source=_string(row.get("source")),
        state=_string(row.get("state")),
        lag_seconds=None if lag is None else lag / 1000,
        last_replicated_checkpoint=_string(row.get("last_replicated_checkpoint")),
        tables_replicated=_integer(row.get("total_tables_replicated")) or 0,
        tables_failed=_integer(row.get("total_tables_failed")) or 0,
        refresh_interval_seconds=_integer(row.get("refresh_interval")),
        source_database=_string(row.get("source_database")),
        history_mode=_boolean(row.get("is_history_mode")),
        auto_remediation=_boolean(row.get("auto_remediation")),
        latest_detected=_timestamp(row.get("latest_detected_change_time")),
        latest_applied=_timestamp(row.get("latest_applied_change_time")),
    )


def _table_state(row: Mapping[str, Any]) -> TableState:
    return TableState(
        name=TableName(_string(row.get("schema_name")), _string(row.get("table_name"))),
        state=_string(row.get("table_state")),
        reason=_string(row.get("reason")),
        checkpoint=_string(row.get("table_last_replicated_checkpoint")),
        last_updated=_timestamp(row.get("last_updated_timestamp")),
        rows=_integer(row.get("table_rows")),
        size_mb=_integer(row.get("table_size")),
    )


def _table_activity(row: Mapping[str, Any]) -> TableActivity:
    recorded = _timestamp(row.get("record_time"))
    if recorded is None:
        raise ValueError(f"SYS_INTEGRATION_TABLE_ACTIVITY has a row without record_time: {dict(row)}")
    return TableActivity(
        name=TableName(_string(row.get("schema_name")), _string(row.get("table_name"))),
        checkpoint=_string(row.get("checkpoint_name")),
        record_time=recorded,
        transaction_id=_integer(row.get("transaction_id")) or 0,
        inserted_rows=_integer(row.get("inserted_rows")) or 0,
        deleted_rows=_integer(row.get("deleted_rows")) or 0,
        updated_rows=_integer(row.get("updated_rows")) or 0,
        bytes_ingested=_integer(row.get("bytes_ingested")) or 0,
    )


def _checkpoint(row: Mapping[str, Any]) -> Checkpoint:
    return Checkpoint(
        name=_string(row.get("checkpoint_name")),
        kind=_string(row.get("checkpoint_type")),
        bytes=_integer(row.get("checkpoint_bytes")) or 0,
        last_commit=_timestamp(row.get("last_commit_timestamp")),
        ended=_timestamp(row.get("integration_end_time")),
    )


def _dicts(rows: Rows) -> Iterable[dict[str, Any]]:
    names = [name.lower() for name in rows.columns]
    for row in rows.rows:
        yield dict(zip(names, row, strict=True))


def _string(value: Any) -> str:
    return "" if value is None else str(value).rstrip(" ")


def _integer(value: Any) -> int | None:
    return None if value is None else int(value)


def _boolean(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    return str(value).strip().lower() in ("t", "true", "1", "on")


def _timestamp(value: Any) -> datetime | None:
    """UTC with a zone. A bare time of day (as the documentation types two columns) says nothing: None."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) < len("2023-05-10"):
            return None
        value = datetime.fromisoformat(text)
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
