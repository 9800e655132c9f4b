"""PostgreSQL's types as Redshift replicates them (Aurora guide, "Data type differences … Aurora PostgreSQL"), in
DuckDB's names, and a text value as DuckDB reads it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

MAX_VARCHAR_BYTES = 65535

_PLAIN = {
    "smallint": "SMALLINT", "integer": "INTEGER", "bigint": "BIGINT", "real": "FLOAT", "double precision": "DOUBLE",
    "boolean": "BOOLEAN", "date": "DATE", "timestamp without time zone": "TIMESTAMP",
    "timestamp with time zone": "TIMESTAMPTZ", "text": "VARCHAR", "uuid": "VARCHAR", "name": "VARCHAR",
    "time without time zone": "VARCHAR", "time with time zone": "VARCHAR", "inet": "VARCHAR", "cidr": "VARCHAR",
    "xml": "VARCHAR", "json": "JSON", "jsonb": "JSON", "bytea": "BLOB", "money": "DECIMAL(20,3)", "oid": "BIGINT",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column of the source and what it becomes; `reason` says why it cannot be replicated."""

    name: str
    source_type: str
    type: str | None
    reason: str = ""


def column(name: str, source_type: str) -> Column:
    """`source_type` as format_type() writes it."""
    base = re.sub(r"\(\d+(,\d+)?\)", "", source_type)
    if base in _PLAIN:
        return Column(name, source_type, _PLAIN[base])
    if base in ("character varying", "character"):
        return Column(name, source_type, "VARCHAR")
    if base.endswith("[]"):
        return Column(name, source_type, "JSON")
    if base == "numeric":
        return _numeric(name, source_type)
    return Column(name, source_type, None, f"column '{name}' has the unsupported data type {source_type}")


def _numeric(name: str, source_type: str) -> Column:
    found = re.fullmatch(r"numeric\((\d+),(\d+)\)", source_type)
    if found is None:
        return Column(name, source_type, None, f"column '{name}' is numeric without explicit precision and scale")
    precision, scale = int(found[1]), int(found[2])
    if precision > 38 or scale > 37:
        return Column(name, source_type, None, f"column '{name}' has the unsupported data type {source_type}")
    return Column(name, source_type, f"DECIMAL({precision},{scale})")


def cast(column: Column, value: str) -> str:
    """DuckDB SQL that turns the text in `value` (an SQL expression) into the column's type."""
    if column.type == "BLOB":
        return f"unhex(substr({value}, 3))"
    if column.source_type == "money":
        return f"CAST(regexp_replace({value}, '[^0-9.-]', '', 'g') AS DECIMAL(20,3))"
    return f"CAST({value} AS {column.type})"


def text_for_duckdb(column: Column, value: str | None) -> str | None:
    """PostgreSQL's text where DuckDB reads another: an array becomes JSON."""
    if value is None or not column.source_type.endswith("[]"):
        return value
    import psycopg2.extensions

    return json.dumps(psycopg2.extensions.UNICODEARRAY(value, None))
