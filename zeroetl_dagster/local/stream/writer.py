"""Writes what the stream brings into one integration database, transaction by transaction.

One DuckDB transaction holds the rows of whole source transactions, the position after them, the activity and the table
states: a kill at any moment leaves the database exactly at some commit of the source. A large source transaction is
written in parts, but committed once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from zeroetl_dagster.local.stream.catalog import (
    Catalog,
    Position,
    TableActivity,
    TableRecord,
    checkpoint_name,
    naive,
    now,
)
from zeroetl_dagster.local.stream.changes import Batch, TableChanges
from zeroetl_dagster.local.stream.columns import BadValue
from zeroetl_dagster.local.stream.structure import Change, Structure, change_between
from zeroetl_dagster.local.stream.tables import Diverged, Tables

SYNCED, FAILED = "Synced", "Failed"
REQUIRED, INITIATED = "ResyncRequired", "ResyncInitiated"
RESYNC = (REQUIRED, INITIATED)


class Retry(Exception):
    """DuckDB refused a table's rows: the table is marked as failed, the stream begins again at the last commit."""


@dataclass
class Counts:
    """What one DuckDB transaction does to one table."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    size: int = 0  # bytes


class Writer:
    """Owns the one cursor that writes to the database. Not thread-safe: the replica's thread alone uses it.

    `records` are the replicated tables by relation id, as they are within the open transaction.
    """

    def __init__(self, cursor: Any, database: str, batch: Batch) -> None:
        self.cursor = cursor
        self.catalog = Catalog(database)
        self.tables = Tables(database)
        self.batch = batch
        self.records: dict[int, TableRecord] = {}
        self.position: Position | None = None
        self.options: dict[str, Any] = {}
        self.open = False
        self._started = now()
        self._counts: dict[int, Counts] = {}
        self.began = 0.0  # epoch seconds of the open transaction's beginning
        self.states_changed = True  # for whoever reports them, who sets it back
        self.lag_ms = 0
        self.applied_at: datetime | None = None

    def load(self) -> None:
        """Read what was committed last; an open transaction is undone."""
        if self.open:
            self.cursor.rollback()
            self.open = False
        self._counts.clear()
        self.records = {record.structure.relid: record for record in self.catalog.tables(self.cursor)}
        self.position = self.catalog.position(self.cursor)
        self.set_options(self.catalog.options(self.cursor))

    def set_options(self, options: dict[str, Any]) -> None:
        self.options = options
        self.tables.truncate = bool(options.get("truncatecolumns"))

    # ---- transactions ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Open a DuckDB transaction unless one is."""
        if not self.open:
            self.cursor.begin()
            self.open = True
            self._started, self.began = now(), time.time()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        """A transaction of its own, for what is not part of the stream."""
        self.begin()
        try:
            yield self.cursor
        except BaseException:
            self.load()
            raise
        self.cursor.commit()
        self.open = False

    def commit(self, lsn: int, xid: int, transactions: int, committed_at: datetime) -> int:
        """Commit what was written together with the position after it; the bytes of it."""
        before = self.position or Position(lsn, 0, 0)
        position = Position(lsn, before.txn_seq + transactions, xid)
        activity, last_commit = self._activity(), naive(committed_at)
        if activity:
            name = checkpoint_name(before.lsn, lsn)
            self.catalog.log_activity(
                self.cursor, name, "cdc", activity, last_commit=last_commit, started=self._started
            )
            self.catalog.log_tables(self.cursor, name, activity, xid)
            moved = [self.records[one.relid] for one in activity if one.relid in self.records]
            for record in moved:
                record.checkpoint = position.checkpoint
            self.catalog.update_states(self.cursor, moved)
        # DDL without rows is a change that was applied, too.
        applied = self.applied_at = now()
        self.lag_ms = max(0, round((applied - last_commit).total_seconds() * 1000))
        self.catalog.update_integration(
            self.cursor,
            last_checkpoint=position.checkpoint,
            lag_ms=self.lag_ms,
            latest_detected=last_commit,
            latest_applied=applied,
            latest_shipped=last_commit,
        )
        self.catalog.set_position(self.cursor, position)
        self.cursor.commit()
        self.open = False
        self.position = position
        self._counts.clear()
        return sum(one.size for one in activity)

    def _activity(self) -> list[TableActivity]:
        return [
            TableActivity(
                *(record.structure.schema, record.structure.name, relid),
                *(counts.inserted, counts.deleted, counts.updated, counts.size),
            )
            for relid, counts in self._counts.items()
            if (record := self.records.get(relid)) is not None and record.state == SYNCED
        ]

    # ---- rows --------------------------------------------------------------------------------------------------------

    def apply(self) -> None:
        """Write what the batch has gathered into the open transaction. Raises `Retry`."""
        for changes in self.batch.take():
            if changes.record.state == SYNCED:
                self.begin()
                self._apply_one(changes)

    def _apply_one(self, changes: TableChanges) -> None:
        import duckdb

        record = changes.record
        try:
            self.tables.apply(self.cursor, changes)
        except BadValue as why:
            self.fail(record, str(why))
            return
        except Diverged as why:
            self.require_resync(record, str(why))
            return
        except duckdb.DataError as error:  # aborts the whole transaction
            self.load()
            with self.transaction():
                self.fail(self.records[record.structure.relid], value_refused(error))
            raise Retry(str(error)) from error
        counts = self._counts.setdefault(record.structure.relid, Counts())
        inserted, updated, deleted = changes.count(b"I"), changes.count(b"U"), changes.count(b"D")
        average = record.row_bytes / record.rows if record.rows else changes.size / max(1, inserted + updated)
        record.rows += inserted - deleted
        record.row_bytes = max(0, round(average * record.rows))
        counts.inserted += inserted
        counts.updated += updated
        counts.deleted += deleted
        counts.size += changes.size

    def truncate(self, relid: int) -> None:
        """TRUNCATE at the source; what was gathered before it is applied already."""
        record = self.records.get(relid)
        if record is None or record.state != SYNCED:
            return
        self.begin()
        self.tables.empty(self.cursor, record.structure)
        self._counts.setdefault(relid, Counts()).deleted += record.rows
        record.rows = record.row_bytes = 0

    # ---- states ------------------------------------------------------------------------------------------------------

    def fail(self, record: TableRecord, reason: str) -> None:
        """The table is out until it is refreshed or mended; the others go on."""
        self._set_state(record, FAILED, reason)

    def require_resync(self, record: TableRecord, reason: str) -> None:
        if record.state not in RESYNC:
            self._set_state(record, REQUIRED, reason)

    def _set_state(self, record: TableRecord, state: str, reason: str) -> None:
        self.begin()
        self.batch.forget(record.structure.relid)
        self._counts.pop(record.structure.relid, None)
        record.state, record.reason, record.visible = state, reason, None
        self.put(record)
        self.catalog.log_state(self.cursor, record)

    def put(self, record: TableRecord) -> None:
        """Remember a table as it is now."""
        self.states_changed = True
        self.catalog.put_table(self.cursor, record)

    def add(self, structure: Structure, state: str, reason: str = "") -> TableRecord:
        """A table that was not replicated before, without rows of its own yet."""
        self.begin()
        record = TableRecord(structure, SYNCED)
        self.records[structure.relid] = record
        self._set_state(record, state, reason)
        return record

    def remove(self, record: TableRecord) -> None:
        """Dropped, or not to be replicated any more: its rows go too."""
        self.begin()
        relid = record.structure.relid
        self.batch.forget(relid)
        self._counts.pop(relid, None)
        self.records.pop(relid, None)
        self.states_changed = True
        self.tables.drop(self.cursor, record.structure)
        self.catalog.forget_table(self.cursor, record)

    # ---- DDL ---------------------------------------------------------------------------------------------------------

    def described(self, structure: Structure, tag: str, *, included: bool) -> None:
        """A DDL statement left the table with this structure. `included`: the filter lets it through.

        What follows from it is in the Aurora guide, "DDL operations for Aurora PostgreSQL".
        """
        record = self.records.get(structure.relid)
        if not (included and structure.replicable):
            if record is not None:
                self.remove(record)
        elif record is None:
            self._appeared(structure, tag)
        else:
            self._altered(record, structure)

    def _appeared(self, structure: Structure, tag: str) -> None:
        problem = self.problem(structure)
        if problem is not None:
            self.add(structure, FAILED, problem)
        elif tag == "CREATE TABLE":  # its first rows are still to come
            self.add(structure, SYNCED)
            self.tables.create(self.cursor, structure)
        else:
            self.add(structure, REQUIRED)

    def _altered(self, record: TableRecord, structure: Structure) -> None:
        old, problem = record.structure, self.problem(structure)
        self.begin()
        if record.state != SYNCED:
            self._move(record, structure)
            if record.state == FAILED and problem is None and not old.key:
                self._set_state(record, REQUIRED, "")  # a primary key was added
            elif record.state == FAILED and problem is not None and problem != record.reason:
                self._set_state(record, FAILED, problem)
            return
        if problem is not None:
            self._move(record, structure)
            self._set_state(record, FAILED, problem)
            return
        change = change_between(old, structure)
        if change is Change.RESYNC:
            self._move(record, structure)
            self._set_state(record, REQUIRED, "")
        else:
            if change is Change.FOLLOW:
                touched = old.relid in self._counts
                self.tables.follow(self.cursor, old, structure, touched=touched)
            record.structure = structure
            self.put(record)

    def _move(self, record: TableRecord, structure: Structure) -> None:
        """Take the new structure over for a table whose rows are not kept up. Rows under an old name go."""
        old = record.structure
        if (old.schema, old.name) != (structure.schema, structure.name):
            self.tables.drop(self.cursor, old)
        record.structure = structure
        if old.schema != structure.schema:
            self._drop_empty_schema(old.schema)
        self.put(record)

    def _drop_empty_schema(self, schema: str) -> None:
        if not any(record.structure.schema == schema for record in self.records.values()):
            self.tables.drop_schema(self.cursor, schema)

    def rewritten(self, relid: int) -> None:
        """ALTER TABLE wrote new rows, which are not in the stream."""
        record = self.records.get(relid)
        if record is not None and record.state == SYNCED:
            self._set_state(record, REQUIRED, "")

    def dropped(self, relids: list[int], schemas: list[str]) -> None:
        for relid in relids:
            if record := self.records.get(relid):
                self.remove(record)
        for schema in schemas:
            self.begin()
            self._drop_empty_schema(schema)

    def problem(self, structure: Structure) -> str | None:
        """Why the table cannot be replicated here."""
        found = structure.problem()
        if found is not None:
            return found
        for record in self.records.values():
            other = record.structure
            if other.relid == structure.relid:
                continue
            names, others = (structure.schema, structure.name), (other.schema, other.name)
            same_schema = names[0].lower() == others[0].lower()
            if same_schema and (names[0] != others[0] or names[1].lower() == others[1].lower()):
                return (
                    "Amazon Redshift cannot replicate the table because the embedded Redshift cannot tell it from "
                    f"{other.schema}.{other.name}, whose name differs only in case."
                )
        if structure.schema.lower() in ("_zeroetl", "information_schema", "pg_catalog"):
            return f"Amazon Redshift cannot replicate the table because the schema name {structure.schema} is reserved."
        return None


def value_refused(error: Exception) -> str:
    """The reason for a value that only DuckDB found wrong."""
    first = str(error).splitlines()[0]
    return f"Amazon Redshift cannot replicate the table because of a value: {first}"[:256]
