"""Replicated tables in DuckDB: made, changed in shape, filled, emptied, and brought up to date from a batch.

Everything happens in the transaction that the caller has open on the cursor. Tables have no keys or indexes in DuckDB
(Redshift does not enforce them either): a changed row is deleted by its key and inserted anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from zeroetl_dagster.local.stream.changes import Group, TableChanges
from zeroetl_dagster.local.stream.columns import Buffer, Cells, array_of, cut_tuples
from zeroetl_dagster.local.stream.sql import identifier, literal, qualified
from zeroetl_dagster.local.stream.structure import Column, Structure


class Diverged(Exception):
    """The stream does not fit what is known of the table: it has to be seeded again."""


class Tables:
    """The replicated tables of one attached database. `truncate`: TRUNCATECOLUMNS."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.truncate = False

    def name(self, structure: Structure) -> str:
        return qualified(self.database, structure.schema, structure.name)

    # ---- shape -------------------------------------------------------------------------------------------------------

    def create(self, cursor: Any, structure: Structure) -> None:
        """An empty table, in place of one of that name."""
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {qualified(self.database, structure.schema)}")
        cursor.execute(f"DROP TABLE IF EXISTS {self.name(structure)}")
        columns = ", ".join(f"{identifier(column.name)} {column.target().duckdb}" for column in structure.columns)
        cursor.execute(f"CREATE TABLE {self.name(structure)} ({columns})")

    def drop(self, cursor: Any, structure: Structure) -> None:
        if self._schema_exists(cursor, structure.schema):
            cursor.execute(f"DROP TABLE IF EXISTS {self.name(structure)}")

    def drop_schema(self, cursor: Any, schema: str) -> None:
        """An emptied schema; Redshift's own `public` stays."""
        if schema not in ("public", "main") and self._schema_exists(cursor, schema):
            cursor.execute(f"DROP SCHEMA {qualified(self.database, schema)}")

    def _schema_exists(self, cursor: Any, schema: str) -> bool:
        found = cursor.execute(
            "SELECT count(*) FROM duckdb_schemas() WHERE database_name = $1 AND schema_name = $2",
            [self.database, schema],
        )
        return bool(found.fetchone()[0])

    def empty(self, cursor: Any, structure: Structure) -> None:
        cursor.execute(f"DELETE FROM {self.name(structure)}")

    def follow(self, cursor: Any, old: Structure, new: Structure, *, touched: bool) -> None:
        """The same rows in a new shape: table or columns renamed, columns added or dropped.

        `touched`: rows of it were changed earlier in this transaction. DuckDB cannot alter such a table, so it is
        copied; as it is when a name only changes its case.
        """
        names = [(o.name, n.name) for o in old.columns for n in new.columns if o.number == n.number]
        recased = any(a != b and a.lower() == b.lower() for a, b in [*names, (old.name, new.name)])
        if touched or recased:
            self._copy(cursor, old, new)
            return
        known = {column.number: column for column in old.columns}
        kept = {column.number for column in new.columns}
        table = self.name(old)
        for column in old.columns:
            if column.number not in kept:
                cursor.execute(f"ALTER TABLE {table} DROP COLUMN {identifier(column.name)}")
        for column in new.columns:
            before = known.get(column.number)
            if before is None:
                self._add(cursor, table, column)
            elif before.name != column.name:
                names_now = f"{identifier(before.name)} TO {identifier(column.name)}"
                cursor.execute(f"ALTER TABLE {table} RENAME COLUMN {names_now}")
        if old.name != new.name:
            cursor.execute(f"ALTER TABLE {table} RENAME TO {identifier(new.name)}")

    def _add(self, cursor: Any, table: str, column: Column) -> None:
        cursor.execute(f"ALTER TABLE {table} ADD COLUMN {identifier(column.name)} {column.target().duckdb}")
        if column.missing is not None:
            cursor.execute(f"UPDATE {table} SET {identifier(column.name)} = {_missing(column)}")

    def _copy(self, cursor: Any, old: Structure, new: Structure) -> None:
        known = {column.number: column for column in old.columns}
        shown = ", ".join(
            f"{identifier(known[c.number].name) if c.number in known else _missing(c)} AS {identifier(c.name)}"
            for c in new.columns
        )
        copied = qualified(self.database, new.schema, f"_zeroetl copy of {new.name}")
        cursor.execute(f"CREATE TABLE {copied} AS SELECT {shown} FROM {self.name(old)}")
        cursor.execute(f"DROP TABLE {self.name(old)}")
        cursor.execute(f"ALTER TABLE {copied} RENAME TO {identifier(new.name)}")

    # ---- rows --------------------------------------------------------------------------------------------------------

    def insert(self, cursor: Any, structure: Structure, arrays: list[Any]) -> None:
        """Rows as one text array a column, in the structure's order."""
        staged = pa.table(arrays, names=[f"c{place}" for place in range(len(arrays))])
        self._with(cursor, {"_rows": staged}, self._insert(structure) + " FROM _rows AS r")

    def apply(self, cursor: Any, changes: TableChanges) -> None:
        """All changes of a batch at once.

        Every change of a row that was there carries the row's old key, so a version of a row is outdated exactly when
        its key dies later in the batch: what is left is inserted, what was there under a dead key is deleted.
        Raises `BadValue` and `Diverged`, having changed nothing.
        """
        structure = changes.record.structure
        rows, dead = _stage(changes, self.truncate)
        keys = range(len(structure.key))
        if dead is not None:
            typed = ", ".join(f"{c.target().sql.format(f'k{n}')} AS k{n}" for n, c in enumerate(structure.keys))
            same = " AND ".join(f"t.{identifier(c.name)} = d.k{n}" for n, c in enumerate(structure.keys))
            delete = (
                f"DELETE FROM {self.name(structure)} AS t USING (SELECT DISTINCT {typed} FROM _dead) AS d WHERE {same}"
            )
            self._with(cursor, {"_dead": dead}, delete)
        if rows is None:
            return
        insert = self._insert(structure) + " FROM _rows AS r"
        if dead is None:
            self._with(cursor, {"_rows": rows}, insert)
            return
        places = [structure.columns.index(column) for column in structure.keys]
        last = f"SELECT {', '.join(f'k{n}' for n in keys)}, max(place) AS last FROM _dead GROUP BY ALL"
        same = " AND ".join(f"r.c{place} = d.k{n}" for n, place in enumerate(places))
        insert += f" LEFT JOIN ({last}) AS d ON {same} WHERE d.last IS NULL OR d.last <= r.place"
        self._with(cursor, {"_rows": rows, "_dead": dead}, insert)

    def _insert(self, structure: Structure) -> str:
        names = ", ".join(identifier(column.name) for column in structure.columns)
        values = ", ".join(column.target().sql.format(f"r.c{n}") for n, column in enumerate(structure.columns))
        return f"INSERT INTO {self.name(structure)} ({names}) SELECT {values}"

    def _with(self, cursor: Any, staged: dict[str, Any], statement: str) -> None:
        for name, table in staged.items():
            cursor.register(name, table)
        try:
            cursor.execute(statement)
        finally:
            for name in staged:
                cursor.unregister(name)


def _missing(column: Column) -> str:
    """The value of rows that are older than the column."""
    target = column.target()
    if column.missing is None:
        return f"CAST(NULL AS {target.duckdb})"
    text = column.missing if target.convert is None else target.convert(column.missing)
    return f"CAST({target.sql.format(literal(text))} AS {target.duckdb})"


# The first tuple of a message begins after its tag, the relation's id and the tuple's kind.
_FIRST = 6


def _stage(changes: TableChanges, truncate: bool) -> tuple[Any, Any]:
    """New rows (c0, c1, …, place) and dead keys (k0, …, place) as Arrow tables; None where there are none."""
    structure, wire = changes.record.structure, changes.relation.columns
    try:
        columns = [wire.index(column.name) for column in structure.columns]
    except ValueError:
        raise Diverged(f"the stream has the columns {', '.join(wire)}") from None
    keys = [wire.index(column.name) for column in structure.keys]
    rows: list[Any] = []
    dead: list[Any] = []
    for shape, group in changes.shapes.items():
        buffer = Buffer(group.messages)
        places = pa.array(np.asarray(group.places, np.int64))
        new, old = _tuples(buffer, shape, len(wire), group)
        if new is not None:
            cells = [new[place] for place in columns]
            if any(cell.unchanged is not None for cell in cells):
                raise Diverged("a value was not sent because it had not changed")
            arrays = [
                array_of(buffer.raw, cell, column, truncate=truncate)
                for cell, column in zip(cells, structure.columns, strict=True)
            ]
            rows.append(pa.record_batch([*arrays, places], names=[*(f"c{n}" for n in range(len(arrays))), "place"]))
        if old is not None:
            if shape[1:] == b"K" and not all(changes.relation.keys[key] for key in keys):
                raise Diverged("old rows are not told by their primary key")
            arrays = [array_of(buffer.raw, old[k], c) for k, c in zip(keys, structure.keys, strict=True)]
            dead.append(pa.record_batch([*arrays, places], names=[*(f"k{n}" for n in range(len(arrays))), "place"]))
    return (
        pa.Table.from_batches(rows) if rows else None,
        pa.Table.from_batches(dead) if dead else None,
    )


def _tuples(buffer: Buffer, shape: bytes, width: int, group: Group) -> tuple[list[Cells] | None, list[Cells] | None]:
    """The new tuples, and those that hold the old keys. An UPDATE without an old tuple keeps its key."""
    first, end = cut_tuples(buffer, buffer.begin + _FIRST, width)
    if shape == b"IN":
        return first, None
    if shape == b"UN":
        return first, first
    if shape[:1] == b"D":
        return None, first
    second, _ = cut_tuples(buffer, end + 1, width)
    if shape[1:] == b"K":  # the other columns of an old key are null, whatever they were
        return second, first
    return [new.or_else(old) for new, old in zip(second, first, strict=True)], first
