"""Seeds tables: all of them when an integration begins, single ones when they must be copied anew.

All tables of one round are read in one snapshot. What the stream brings of transactions that the snapshot saw is
skipped later, table by table (`TableRecord.visible`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing

from zeroetl_dagster.local.stream.catalog import Position, TableActivity, checkpoint_name, now
from zeroetl_dagster.local.stream.columns import BadValue
from zeroetl_dagster.local.stream.data_filter import DataFilter
from zeroetl_dagster.local.stream.seed import copy_table
from zeroetl_dagster.local.stream.source import Snapshot, SnapshotTooOld, Source
from zeroetl_dagster.local.stream.structure import Structure
from zeroetl_dagster.local.stream.writer import FAILED, INITIATED, REQUIRED, RESYNC, SYNCED, Writer, value_refused

log = logging.getLogger("zeroetl.local.stream")

# Names of settings: the filter that the tables follow, the slot whose stream the position belongs to.
FILTER, SLOT = "data_filter", "slot"


def discover(
    writer: Writer, structures: list[Structure], data_filter: DataFilter, database: str, *, all_known: bool
) -> None:
    """Bring the set of replicated tables in line with the filter and with what a snapshot shows.

    `all_known`: the stream begins at this snapshot, so a table that it does not show is gone; otherwise the stream will
    tell of its end.
    """
    shown = {structure.relid for structure in structures}
    wanted = {s.relid: s for s in structures if data_filter.includes(database, s.schema, s.name)}
    with writer.transaction() as cursor:
        for relid, record in list(writer.records.items()):
            if relid not in wanted and (all_known or relid in shown):
                writer.remove(record)
        for relid, structure in wanted.items():
            if relid not in writer.records:
                problem = writer.problem(structure)
                writer.add(structure, REQUIRED if problem is None else FAILED, problem or "")
        writer.catalog.set_setting(cursor, FILTER, data_filter.text)


def seed(
    writer: Writer,
    snapshot: Snapshot,
    structures: list[Structure],
    position: Position,
    *,
    stopped: Callable[[], bool],
    seeded: Callable[[], None],
) -> int:
    """Copy every table that is to be resynced, each in a DuckDB transaction of its own; the bytes copied.

    A table that the snapshot cannot read any more stays to be resynced.
    """
    by_relid = {structure.relid: structure for structure in structures}
    due = [relid for relid, record in writer.records.items() if record.state in RESYNC and relid in by_relid]
    with writer.transaction():
        for relid in due:
            record = writer.records[relid]
            record.state, record.reason = INITIATED, ""
            writer.put(record)
            writer.catalog.log_state(writer.cursor, record)
    started, done = now(), []
    checkpoint = checkpoint_name(position.lsn, snapshot.visible.lsn)
    for relid in due:
        activity = _seed_one(writer, snapshot, by_relid[relid], checkpoint, position, stopped)
        if activity is not None:
            done.append(activity)
        seeded()
    if done:
        with writer.transaction() as cursor:
            applied = writer.applied_at = now()
            writer.catalog.log_activity(cursor, checkpoint, "snapshot", done, last_commit=started, started=started)
            writer.catalog.update_integration(
                cursor, last_checkpoint=position.checkpoint, latest_applied=applied, latest_shipped=started
            )
    return sum(one.size for one in done)


def _seed_one(
    writer: Writer,
    snapshot: Snapshot,
    structure: Structure,
    checkpoint: str,
    position: Position,
    stopped: Callable[[], bool],
) -> TableActivity | None:
    import duckdb
    import psycopg2

    relid = structure.relid
    begun = time.monotonic()
    try:
        with writer.transaction() as cursor:
            record = writer.records[relid]
            old = record.structure
            if (old.schema, old.name) != (structure.schema, structure.name):
                writer.tables.drop(cursor, old)
            record.structure = structure
            problem = writer.problem(structure)
            if problem is not None:
                writer.fail(record, problem)
                return None
            with snapshot.table(structure) as session:
                rows, size = copy_table(session, cursor, writer.tables, structure, stopped)
            record.state, record.reason, record.visible = SYNCED, "", snapshot.visible
            record.rows, record.row_bytes, record.checkpoint = rows, size, position.checkpoint
            writer.put(record)
            writer.catalog.log_state(cursor, record)
            activity = TableActivity(structure.schema, structure.name, relid, rows, 0, 0, size)
            writer.catalog.log_tables(cursor, checkpoint, [activity], snapshot.visible.maximum - 1)
    except (BadValue, duckdb.DataError) as why:
        reason = str(why) if isinstance(why, BadValue) else value_refused(why)
        with writer.transaction():
            writer.fail(writer.records[relid], reason)
        return None
    except (SnapshotTooOld, psycopg2.ProgrammingError) as why:
        log.info("%s.%s is seeded again: %s", structure.schema, structure.name, why)
        return None
    log.info("%s.%s seeded: %d rows in %.2f s", structure.schema, structure.name, rows, time.monotonic() - begun)
    return activity


def begin(
    writer: Writer,
    source: Source,
    data_filter: DataFilter,
    *,
    stopped: Callable[[], bool],
    seeded: Callable[[], None],
) -> int:
    """Make a new slot and seed every table from the very moment at which its stream begins; the bytes copied.

    Tables that were replicated before are copied anew: without the old slot nobody knows what they missed.
    """
    with writer.transaction() as cursor:
        writer.catalog.update_integration(cursor, state="SchemaDiscoveryState")
        writer.catalog.set_setting(cursor, SLOT, "begun")
        for record in list(writer.records.values()):
            if record.state == SYNCED:
                writer.require_resync(record, "")
    with closing(source.connect()) as control:
        source.remove_slot(control)
        with source.new_slot() as (lsn, snapshot):
            source.identify(control)  # tables whose creation was under way when the event triggers came
            structures = snapshot.structures()
            before = writer.position
            position = Position(lsn, before.txn_seq if before else 0, before.txn_id if before else 0)
            with writer.transaction() as cursor:
                writer.catalog.set_position(cursor, position)
                writer.catalog.set_setting(cursor, SLOT, source.slot)
            writer.position = position
            discover(writer, structures, data_filter, source.database, all_known=True)
            return seed(writer, snapshot, structures, position, stopped=stopped, seeded=seeded)
