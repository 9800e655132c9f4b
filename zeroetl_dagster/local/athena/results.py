"""Results as Athena writes and pages them: the CSV object of a query, the text object of a utility statement.

Every value is text in Athena's form (`[a, b]`, `{k=v}`, milliseconds, Java's doubles), made by DuckDB while it writes.
In the CSV all values are quoted and NULL is nothing at all, so that an empty text and NULL differ; `GetQueryResults`
pages through that object, a page token being a position in it.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroetl_dagster.local.athena.hive_types import Type

Columns = Sequence[tuple[str, Type]]
_CELL = re.compile(rb'(?:"((?:[^"]|"")*)")?(,|\n)')
_PRECISION = {
    "tinyint": 3,
    "smallint": 5,
    "int": 10,
    "bigint": 19,
    "float": 17,
    "double": 17,
    "string": 2147483647,
    "varchar": 2147483647,
    "binary": 1073741824,
    "timestamp": 3,
    "timestamptz": 3,
}


def column_info(columns: Columns) -> list[dict[str, Any]]:
    """ResultSetMetadata.ColumnInfo."""
    return [
        {
            "CatalogName": "hive",
            "SchemaName": "",
            "TableName": "",
            "Name": name,
            "Label": name,
            "Type": _type_name(kind),
            "Precision": kind.arguments[0] if kind.name == "decimal" else _PRECISION.get(kind.name, 0),
            "Scale": kind.arguments[1] if kind.name == "decimal" else 0,
            "Nullable": "UNKNOWN",
            "CaseSensitive": kind.is_text,
        }
        for name, kind in columns
    ]


def _type_name(kind: Type) -> str:
    """Without lengths and inner types; `real` is called float here."""
    return "float" if kind.name == "float" else kind.trino.partition("(")[0]


def shown(column: str, kind: Type) -> str:
    """DuckDB SQL that makes Athena's text of a value."""
    if kind.name in ("double", "float"):
        return f"trino_double_text({column})"
    if kind.name == "timestamp":
        return f"trino_timestamp_show({column})"
    if kind.name == "timestamptz":
        return f"trino_zoned_show({column})"
    if kind.name == "time":
        return f"trino_time_show({column})"
    if kind.name == "interval":
        return f"trino_interval_show({column})"
    if kind.name == "binary":
        return f"rtrim(regexp_replace(lower(hex({column})), '(..)', '\\1 ', 'g'))"
    if kind.name == "array":
        inner = shown("e", kind.arguments[0])
        items = f"list_transform({column}, lambda e: coalesce({inner}, 'null'))"
        return f"CASE WHEN {column} IS NOT NULL THEN '[' || array_to_string({items}, ', ') || ']' END"
    if kind.name == "map":
        key, value = shown("e.key", kind.arguments[0]), shown("e.value", kind.arguments[1])
        items = f"list_transform(map_entries({column}), lambda e: {key} || '=' || coalesce({value}, 'null'))"
        return f"CASE WHEN {column} IS NOT NULL THEN '{{' || array_to_string({items}, ', ') || '}}' END"
    if kind.name == "struct":
        return _shown_row(column, kind)
    return f"CAST({column} AS VARCHAR)"


def _shown_row(column: str, kind: Type) -> str:
    parts = []
    for index, (name, inner) in enumerate(zip(kind.fields, kind.arguments, strict=True)):
        field = f"struct_extract({column}, '{name.replace(chr(39), chr(39) * 2)}')"
        label = f"field{index}" if re.fullmatch(r"_\d+|", name) else name
        text = label.replace("'", "''")
        parts.append(f"'{text}=' || coalesce({shown(field, inner)}, 'null')")
    joined = " || ', ' || ".join(parts) or "''"
    return f"CASE WHEN {column} IS NOT NULL THEN '{{' || {joined} || '}}' END"


def write_csv(connection: Any, sql: str, columns: Columns, path: Path) -> int:
    """Run the query into a CSV of texts without a header; the number of rows."""
    names = ", ".join(f"c{index}" for index in range(len(columns)))
    texts = ", ".join(f"{shown(f'c{index}', kind)} AS c{index}" for index, (_, kind) in enumerate(columns))
    target = str(path).replace("'", "''")
    copied = connection.execute(
        f"COPY (SELECT {texts} FROM ({sql}) AS q({names})) TO '{target}' (FORMAT csv, HEADER false, FORCE_QUOTE *)"
    )
    return int(copied.fetchone()[0])


def csv_header(columns: Columns) -> bytes:
    return (",".join('"' + name.replace('"', '""') + '"' for name, _ in columns) + "\n").encode()


@dataclass(frozen=True)
class Page:
    """`position` is where the next page begins, None at the end."""

    rows: list[list[str | None]]
    position: int | None


def csv_page(path: Path, position: int, size: int) -> Page:
    """Up to `size` rows from a byte position of the CSV object; its header is the first row."""
    rows: list[list[str | None]] = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        end = len(text)
        row: list[str | None] = []
        while position < end and len(rows) < size:
            found = _CELL.match(text, position)
            if found is None:
                raise ValueError(f"the result object {path.name} is no CSV of Athena at byte {position}")
            value = found[1]
            row.append(None if value is None else value.replace(b'""', b'"').decode())
            position = found.end()
            if found[2] == b"\n":
                rows.append(row)
                row = []
    return Page(rows, position if position < end else None)


def text_page(path: Path, position: int, size: int) -> Page:
    """Lines of the text object of a utility statement, one cell each."""
    lines = path.read_text().split("\n")
    lines = lines[:-1] if lines and lines[-1] == "" else lines
    page = lines[position : position + size]
    end = position + len(page)
    return Page([[line] for line in page], end if end < len(lines) else None)
