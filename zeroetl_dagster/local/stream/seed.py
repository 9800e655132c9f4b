"""Copies tables as of one snapshot: COPY to CSV text on the source's side, typed by DuckDB on this side."""

from __future__ import annotations

import tempfile
from typing import Any

import duckdb

from zeroetl_dagster.local.stream.catalog import quoted
from zeroetl_dagster.local.stream.source import SourceTable
from zeroetl_dagster.local.stream.types import MAX_VARCHAR_BYTES, cast

_NULL = "\\N"


class Unreplicable(Exception):
    """A value that Redshift does not take; the message is the table's reason."""


def copy_table(
    connection: Any, cursor: duckdb.DuckDBPyConnection, database: str, table: SourceTable, *, truncate: bool
) -> tuple[int, int]:
    """Replace the table in DuckDB (inside the caller's transaction); returns rows and bytes read.

    Raises `Unreplicable` when a value does not fit.
    """
    from psycopg2 import sql

    selected = sql.SQL(", ").join(
        sql.SQL("to_json({})").format(sql.Identifier(c.name))
        if c.source_type.endswith("[]")
        else sql.Identifier(c.name)
        for c in table.columns
    )
    statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT csv, NULL {}, FORCE_QUOTE *)").format(
        selected, sql.Identifier(table.schema, table.name), sql.Literal(_NULL)
    )
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        with connection.cursor() as reading:
            reading.copy_expert(statement, file)
        file.flush()
        size = file.tell()
        rows = _load(cursor, database, table, file.name, truncate)
    return rows, size


def _load(cursor: duckdb.DuckDBPyConnection, database: str, table: SourceTable, path: str, truncate: bool) -> int:
    target = quoted(database, table.schema, table.name)
    cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(database, table.schema)}")
    columns = ", ".join(f"{quoted(c.name)} {c.type}" for c in table.columns)
    cursor.execute(f"CREATE OR REPLACE TABLE {target} ({columns})")
    names = ", ".join(f"'c{n}': 'VARCHAR'" for n in range(len(table.columns)))
    values = ", ".join(_value(f"c{n}", c, truncate) for n, c in enumerate(table.columns))
    reader = (
        f"read_csv('{path}', header=false, auto_detect=false, delim=',', quote='\"', escape='\"', nullstr='{_NULL}', "
        f"allow_quoted_nulls=false, max_line_size=1073741824, columns={{{names}}})"
    )
    try:
        cursor.execute(f"INSERT INTO {target} SELECT {values} FROM {reader}")
    except (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException) as error:
        raise Unreplicable(f"Table '{table.schema}.{table.name}' has a value out of range: {error}") from None
    if not truncate:
        for c in table.columns:
            if c.type == "VARCHAR" and c.source_type not in ("uuid", "date"):
                check_length(cursor, target, table, c.name)
    count = cursor.execute(f"SELECT count(*) FROM {target}").fetchone()
    return int(count[0]) if count else 0


def check_length(cursor: duckdb.DuckDBPyConnection, target: str, table: SourceTable, name: str) -> None:
    found = cursor.execute(f"SELECT max(strlen({quoted(name)})) FROM {target}").fetchone()
    if found and (found[0] or 0) > MAX_VARCHAR_BYTES:
        raise Unreplicable(
            f"Table '{table.schema}.{table.name}' has a value of {found[0]} bytes in column '{name}': "
            f"the length exceeds VARCHAR({MAX_VARCHAR_BYTES})"
        )


def _value(expression: str, column: Any, truncate: bool) -> str:
    if truncate and column.type == "VARCHAR":
        expression = f"left({expression}, {MAX_VARCHAR_BYTES})"
    return cast(column, expression)
