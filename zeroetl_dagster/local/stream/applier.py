"""Applies decoded transactions to DuckDB: the last state of every touched key, by delete and insert from a staging
table, in one DuckDB transaction with the position and the activity rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from zeroetl_dagster.local.stream import pgoutput
from zeroetl_dagster.local.stream.catalog import Catalog, quoted
from zeroetl_dagster.local.stream.pgoutput import UNCHANGED, Delete, Insert, Relation, Truncate, Update
from zeroetl_dagster.local.stream.seed import Unreplicable
from zeroetl_dagster.local.stream.source import SourceTable
from zeroetl_dagster.local.stream.types import MAX_VARCHAR_BYTES, cast, text_for_duckdb

_EPOCH = dt.datetime(2000, 1, 1)
Key = tuple[object, ...]


@dataclass
class Transaction:
    """One committed transaction of the source; `changes` in order, `size` in bytes of messages."""

    xid: int
    commit_lsn: int
    end_lsn: int
    committed_us: int
    changes: list[tuple[Relation, Insert | Update | Delete | Truncate]] = field(default_factory=list)
    size: int = 0

    @property
    def committed(self) -> dt.datetime:
        """UTC, naive."""
        return _EPOCH + dt.timedelta(microseconds=self.committed_us)


class TableChanges:
    """What one batch does to one table, reduced to the last state of every key."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, database: str, table: SourceTable, truncate: bool) -> None:
        self.cursor = cursor
        self.table = table
        self.target = quoted(database, table.schema, table.name)
        self.truncate = truncate
        self.inserted = self.updated = self.deleted = self.size = 0
        self._last: dict[Key, pgoutput.Row | None] = {}
        names = [c.name for c in table.columns]
        self._key_at = [names.index(name) for name in table.key]

    def add(self, change: Insert | Update | Delete | Truncate) -> None:
        if isinstance(change, Truncate):
            self.flush()
            found = self.cursor.execute(f"SELECT count(*) FROM {self.target}").fetchone()
            self.deleted += int(found[0]) if found else 0
            self.cursor.execute(f"DELETE FROM {self.target}")
        elif isinstance(change, Insert):
            self.inserted += 1
            self._last[self._key(change.new)] = change.new
        elif isinstance(change, Delete):
            self.deleted += 1
            self._last[self._key(change.old)] = None
        else:
            self.updated += 1
            self._update(change)

    def _update(self, change: Update) -> None:
        before = self._key(change.old) if change.old is not None else self._key(change.new)
        new = change.new
        if any(value is UNCHANGED for value in new):
            known = self._last.get(before)
            if known is None:
                self.flush()
                self._update_in_place(before, new)
                return
            new = tuple(known[n] if value is UNCHANGED else value for n, value in enumerate(new))
        if before != self._key(new):
            self._last[before] = None
        self._last[self._key(new)] = new

    def flush(self) -> None:
        """Write what has been gathered. Raises `Unreplicable` for a value that Redshift does not take."""
        if not self._last:
            return
        rows = [row for row in self._last.values() if row is not None]
        self._check(rows)
        self._stage("_keys", list(self._last), [self.table.columns[n] for n in self._key_at])
        match = " AND ".join(
            f"t.{quoted(self.table.columns[n].name)} = {cast(self.table.columns[n], f's.c{at}')}"
            for at, n in enumerate(self._key_at)
        )
        self.cursor.execute(f"DELETE FROM {self.target} t USING _keys s WHERE {match}")
        if rows:
            self._stage("_rows", rows, self.table.columns)
            values = ", ".join(cast(c, f"c{n}") for n, c in enumerate(self.table.columns))
            self.cursor.execute(f"INSERT INTO {self.target} SELECT {values} FROM _rows")
        self._last.clear()

    def _stage(self, name: str, rows: Sequence[Sequence[Any]], columns: Sequence[Any]) -> None:
        import pyarrow as pa

        arrays = [
            pa.array([text_for_duckdb(column, row[n]) for row in rows], pa.string()) for n, column in enumerate(columns)
        ]
        self.cursor.register(name, pa.table(arrays, names=[f"c{n}" for n in range(len(columns))]))

    def _update_in_place(self, key: Key, new: pgoutput.Row) -> None:
        """A TOASTed value did not change and is not in the message: only the others are set."""
        columns = self.table.columns
        changed = [(columns[n], value) for n, value in enumerate(new) if value is not UNCHANGED]
        self._check([tuple(None if value is UNCHANGED else value for value in new)])
        sets = ", ".join(f"{quoted(c.name)} = {cast(c, '?')}" for c, _ in changed)
        where = " AND ".join(f"{quoted(columns[n].name)} = {cast(columns[n], '?')}" for n in self._key_at)
        values = [text_for_duckdb(c, value) for c, value in changed]  # type: ignore[arg-type]
        self.cursor.execute(f"UPDATE {self.target} SET {sets} WHERE {where}", [*values, *key])

    def _key(self, row: pgoutput.Row) -> Key:
        return tuple(row[n] for n in self._key_at)

    def _check(self, rows: Iterable[pgoutput.Row]) -> None:
        for n, c in enumerate(self.table.columns):
            if c.type != "VARCHAR" or self.truncate:
                continue
            for row in rows:
                value = row[n]
                if isinstance(value, str) and len(value) * 4 > MAX_VARCHAR_BYTES < len(value.encode()):
                    raise Unreplicable(
                        f"Table '{self.table.schema}.{self.table.name}' has a value of {len(value.encode())} bytes in "
                        f"column '{c.name}': the length exceeds VARCHAR({MAX_VARCHAR_BYTES})"
                    )


class Applier:
    """Writes batches of transactions for one integration database."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, database: str, catalog: Catalog) -> None:
        self.cursor = cursor
        self.database = database
        self.catalog = catalog

    def apply(self, batch: Sequence[Transaction], tables: dict[tuple[str, str], SourceTable]) -> set[tuple[str, str]]:
        """Apply the batch in one DuckDB transaction; returns the tables that failed in it (and are marked so)."""
        failed: dict[tuple[str, str], str] = {}
        while True:
            self.cursor.begin()
            try:
                culprit = self._write(batch, tables, failed)
            except BaseException:
                self.cursor.rollback()
                raise
            if culprit is None:
                self.cursor.commit()
                return set(failed)
            self.cursor.rollback()
            failed[culprit[0]] = culprit[1]

    def _write(
        self,
        batch: Sequence[Transaction],
        tables: dict[tuple[str, str], SourceTable],
        failed: dict[tuple[str, str], str],
    ) -> tuple[tuple[str, str], str] | None:
        started = dt.datetime.now(dt.UTC).replace(tzinfo=None)
        states = self.catalog.tables()
        truncate = bool(self.catalog.options().get("truncatecolumns"))
        changes: dict[tuple[str, str], TableChanges] = {}
        for transaction in batch:
            for relation, change in transaction.changes:
                name = (relation.schema, relation.name)
                state = states.get(name)
                wanted = name in tables and name not in failed and state is not None
                if not wanted or state is None or state["table_state"] != "Synced":
                    continue
                if transaction.commit_lsn < state["from_lsn"]:
                    continue  # the seed's snapshot has it already
                if name not in changes:
                    changes[name] = TableChanges(self.cursor, self.database, tables[name], truncate)
                changes[name].add(change)
                changes[name].size += transaction.size // max(len(transaction.changes), 1)
        for name, table in changes.items():
            try:
                table.flush()
            except Unreplicable as reason:
                return name, str(reason)
            except (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException) as error:
                return name, f"Table '{'.'.join(name)}' has a value out of range: {error}"
        self._record(batch, changes, failed, tables, started)
        return None

    def _record(
        self,
        batch: Sequence[Transaction],
        changes: dict[tuple[str, str], TableChanges],
        failed: dict[tuple[str, str], str],
        tables: dict[tuple[str, str], SourceTable],
        started: dt.datetime,
    ) -> None:
        last = batch[-1]
        _, seq = self.catalog.position()
        for name, reason in failed.items():
            self.catalog.table(*name, tables[name].oid, "Failed", reason)
        checkpoint = None
        if changes:
            seq += 1
            size = sum(table.size for table in changes.values())
            checkpoint = self.catalog.checkpoint("cdc", seq, last.xid, size, last.committed, len(changes), started)
            for (schema, table_name), table in changes.items():
                counts = (table.inserted, table.updated, table.deleted)
                self.catalog.moved(
                    checkpoint, schema, table_name, tables[schema, table_name].oid, last.xid, counts, table.size
                )
        self.catalog.advance(last.end_lsn, seq, last.xid)
        lag = max(int((dt.datetime.now(dt.UTC).replace(tzinfo=None) - last.committed).total_seconds() * 1000), 0)
        if checkpoint is not None:
            self.catalog.seen(detected=last.committed, applied=True, lag_ms=lag, checkpoint=checkpoint)
