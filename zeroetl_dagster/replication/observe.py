"""Reading the views for one tick: in one session, as little as the cursor allows, in the order that loses nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from zeroetl_dagster.replication import activity
from zeroetl_dagster.replication.activity import Session, Snapshot
from zeroetl_dagster.replication.changes import history_in_doubt, read_since, why_full
from zeroetl_dagster.replication.cursor import Cursor
from zeroetl_dagster.replication.signals import Limits
from zeroetl_dagster.settings.replication import TableName


def declared_digest(tables: Sequence[TableName]) -> str:
    """A short digest of the set of tables, to notice when it changes."""
    text = "\n".join(sorted(f"{schema}\0{table}" for schema, table in tables))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_snapshot(
    session: Session, cursor: Cursor, limits: Limits, *, database: str, declared: str, now: float
) -> Snapshot:
    """Read what `changes.advance` needs for this cursor.

    States are read before ingestions: what lands in between is then in a version whose marker is older, which at worst
    compares a table once too often.
    """
    integration_id = cursor.integration_id
    integrations = activity.read_integrations(session, integration_id)
    integration = next((row for row in integrations if row.target_database == database and not row.pending), None)
    if integration is None:
        return Snapshot(visible=bool(integrations), integration=None, tables={}, activity=(), full=False)
    states = activity.read_table_states(session, integration_id, database)
    oldest = None
    if cursor.watermark_us is not None and history_in_doubt(cursor, limits, now=now):
        oldest = activity.read_oldest_activity(session, integration_id, database)
    if why_full(cursor, limits, declared=declared, now=now, oldest=oldest) is None:
        full = False
        begin = read_since(cursor, limits)
        rows = activity.read_activity(session, integration_id, database, begin)
        since: datetime | None = begin
    else:
        full = True
        rows = activity.read_newest_activity(session, integration_id, database, limits.overlap_seconds)
        newest = max((row.record_time for row in rows), default=None)
        since = None if newest is None else newest - timedelta(seconds=limits.overlap_seconds)
    checkpoints = {}
    if rows and since is not None:
        checkpoints = activity.read_checkpoints(session, integration_id, database, since)
    columns = activity.read_columns(session, database, {row.name for row in rows})
    return Snapshot(True, integration, states, rows, full, since, checkpoints, columns)
