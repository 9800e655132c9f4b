"""The SQL which this room runs through Athena: two views per table, and one count for many.

* `TABLE_typed`: every day, columns cast back to the types they have in the source (rules: `exports.types`).
* `TABLE_latest`: the newest catalogued day, named as a literal. A literal prunes; `max(snapshot_date)` would read every
  day ever kept. It is rewritten with each export, has the source's own columns only, and shows no rows for a table that
  is empty on that day.

`count(*)` of Parquet reads footers only (0 bytes scanned), so exact row counts cost one query per fifty tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from typing import Any

from zeroetl_dagster.connections.sql import identifier, literal
from zeroetl_dagster.exports.catalogue import LATEST_DAY, Catalogue, CatalogueTable, Column, table_columns
from zeroetl_dagster.exports.changes import known_columns
from zeroetl_dagster.exports.names import LATEST_SUFFIX, TYPED_SUFFIX
from zeroetl_dagster.exports.types import typed_expression

TYPED_FINGERPRINT = "zeroetl.typed_view"
_COUNTS_AT_ONCE = 50
_WORKERS = 4  # Athena runs 20 DDL statements of an account at once by default


def typed_view(table: CatalogueTable, partition_key: str) -> str:
    """CREATE VIEW of all days with the source's types; the day's columns first, then those that are gone."""
    exported = known_columns(table.parameters) | {column.name.lower(): column for column in table.source.exported}
    held = {column.name: column for column in table.columns}
    order = [held.get(c.name, c) for c in table.day_columns] + [c for c in table.columns if c.name not in _names(table)]
    lines = []
    for column in order:
        reference = identifier(column.name)
        expression = typed_expression(exported.get(column.name), column.type, reference)
        lines.append(reference if expression == reference else f"{expression} AS {reference}")
    lines.append(identifier(partition_key))
    return _create(table.database, table.name + TYPED_SUFFIX, lines, f"{_relation(table.database, table.name)}")


def latest_view(table: CatalogueTable, partition_key: str) -> str:
    """CREATE VIEW of this day only, with the columns which the source has on it."""
    lines = [identifier(column.name) for column in table.day_columns]
    source = _relation(table.database, table.name + TYPED_SUFFIX)
    day = literal(table.source.day.isoformat())
    return _create(
        table.database, table.name + LATEST_SUFFIX, lines, f"{source}\nWHERE {identifier(partition_key)} = {day}"
    )


def publish(
    athena: Any, catalogue: Catalogue, tables: Sequence[CatalogueTable], report: Callable[[str], None]
) -> list[CatalogueTable]:
    """Write the views that must change, and return the tables with their views' names.

    A typed view is rewritten when it is gone, or when its text or the types below it are not those of the one that was
    written last (Athena refuses a view whose columns have changed: VIEW_IS_STALE); their fingerprint is a parameter of
    the table. `latest` is rewritten by the newest day only, so that a backfill of older days leaves it alone.
    """
    there = catalogue.tables()
    with ThreadPoolExecutor(_WORKERS) as pool:
        published = list(pool.map(lambda table: _publish(athena, catalogue, table, there), tables))
    newest = [table for table in published if table.newest]
    if newest:
        _yield_to_newer_days(athena, catalogue, newest, report)
    return published


def count_rows(athena: Any, tables: Sequence[CatalogueTable], partition_key: str) -> tuple[list[CatalogueTable], int]:
    """The tables with the rows of their day, counted by Athena, and the bytes it scanned.

    A table without files has no rows and is not asked for.
    """
    asked = [table for table in tables if table.source.files]
    counted: dict[tuple[str, str], int] = {}
    scanned = 0
    for start in range(0, len(asked), _COUNTS_AT_ONCE):
        batch = asked[start : start + _COUNTS_AT_ONCE]
        answer = athena.query("\nUNION ALL ".join(_count(table, partition_key) for table in batch))
        counted.update({(str(name), str(day)): int(count) for name, day, count in answer.rows.rows})
        scanned += answer.scanned_bytes
    rows = [counted.get((t.name, t.source.day.isoformat()), 0 if not t.source.files else None) for t in tables]
    return [replace(table, rows=count) for table, count in zip(tables, rows, strict=True)], scanned


def fingerprint(sql: str) -> str:
    """Short hash of what makes a view."""
    return hashlib.sha256(sql.encode()).hexdigest()[:16]


def _publish(
    athena: Any, catalogue: Catalogue, table: CatalogueTable, there: Mapping[str, Mapping[str, Any]]
) -> CatalogueTable:
    typed, latest = table.name + TYPED_SUFFIX, table.name + LATEST_SUFFIX
    if table.newest or typed not in there:
        sql = typed_view(table, catalogue.partition_key)
        wanted = fingerprint(f"{sql}\n{column_list(table.columns)}")
        if typed not in there or table.parameters.get(TYPED_FINGERPRINT) != wanted:
            athena.execute(sql)
            table = catalogue.set_parameters(table, {TYPED_FINGERPRINT: wanted})
    if table.newest:
        athena.execute(latest_view(table, catalogue.partition_key))
    return replace(table, typed_view=typed, latest_view=latest if table.newest or latest in there else None)


def _yield_to_newer_days(
    athena: Any, catalogue: Catalogue, tables: Iterable[CatalogueTable], report: Callable[[str], None]
) -> None:
    """Two days catalogued at once: the later day's view must win, whichever run wrote last."""
    now = catalogue.tables()
    for table in tables:
        held = now.get(table.name, {})
        day = held.get("Parameters", {}).get(LATEST_DAY, "")
        if day > table.source.day.isoformat():
            columns = tuple(column for column in table_columns(held) if not column.gone)
            newer = replace(table, source=replace(table.source, day=date.fromisoformat(day), columns=columns))
            athena.execute(latest_view(newer, catalogue.partition_key))
            report(f"{table.name}{LATEST_SUFFIX} names {day}, which was catalogued meanwhile")


def _create(database: str, view: str, lines: Sequence[str], source: str) -> str:
    columns = ",\n  ".join(lines)
    return f"CREATE OR REPLACE VIEW {_relation(database, view)} AS\nSELECT\n  {columns}\nFROM {source}"


def _relation(database: str, name: str) -> str:
    return f"{identifier(database)}.{identifier(name)}"


def _names(table: CatalogueTable) -> set[str]:
    return {column.name for column in table.day_columns}


def _count(table: CatalogueTable, partition_key: str) -> str:
    day = literal(table.source.day.isoformat())
    return (
        f"SELECT {literal(table.name)}, {day}, count(*) FROM {_relation(table.database, table.name)} "
        f"WHERE {identifier(partition_key)} = {day}"
    )


def column_list(columns: Iterable[Column]) -> str:
    """`name type, …`."""
    return ", ".join(f"{column.name} {column.type}" for column in columns)
