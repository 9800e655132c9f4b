"""What a crawler reads out of one file: its format, columns and types (Glue guide, "Built-in classifiers").

Parquet from its footer; JSON and CSV, plain or gzip, from the first part of the text.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from zeroetl_dagster.local.athena.hive_types import Type, UnknownType, from_arrow, merged
from zeroetl_dagster.local.athena.parquet import NotParquet, footer

SAMPLE_BYTES = 1 << 20
_PARQUET = "org.apache.hadoop.hive.ql.io.parquet"
_TEXT = {
    "InputFormat": "org.apache.hadoop.mapred.TextInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
}
STORAGE: dict[str, dict[str, Any]] = {
    "parquet": {
        "InputFormat": f"{_PARQUET}.MapredParquetInputFormat",
        "OutputFormat": f"{_PARQUET}.MapredParquetOutputFormat",
        "SerdeInfo": {
            "SerializationLibrary": f"{_PARQUET}.serde.ParquetHiveSerDe",
            "Parameters": {"serialization.format": "1"},
        },
    },
    "json": {
        **_TEXT,
        "SerdeInfo": {"SerializationLibrary": "org.openx.data.jsonserde.JsonSerDe", "Parameters": {}},
    },
    "csv": {
        **_TEXT,
        "SerdeInfo": {
            "SerializationLibrary": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
            "Parameters": {"field.delim": ","},
        },
    },
}


@dataclass(frozen=True)
class FileSchema:
    """`columns` in file order by lower-case name; `parameters` go to the table (a CSV's delimiter, its header)."""

    format: str
    compression: str
    columns: dict[str, Type]
    rows: int | None = None
    parameters: dict[str, str] = field(default_factory=dict, compare=False)

    def similarity(self, other: FileSchema) -> float:
        """The part of the columns that both have, with the same type."""
        common = sum(other.columns.get(name) == kind for name, kind in self.columns.items())
        return common / max(len(self.columns), len(other.columns), 1)

    def compatible(self, other: FileSchema) -> bool:
        """Same format and compression: what "data compatibility" is to a crawler."""
        return (self.format, self.compression) == (other.format, other.compression)

    def union(self, other: FileSchema) -> FileSchema:
        columns = dict(self.columns)
        for name, kind in other.columns.items():
            columns[name] = merged(columns[name], kind) if name in columns else kind
        rows = None if self.rows is None or other.rows is None else self.rows + other.rows
        return FileSchema(self.format, self.compression, columns, rows, self.parameters)


@lru_cache(maxsize=20_000)
def read_schema(path: Path) -> FileSchema | None:
    """None where no classifier knows the file."""
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
    if head.startswith(b"PAR1"):
        return _parquet(path)
    compression = "none"
    if head.startswith(b"\x1f\x8b"):
        compression = "gzip"
        with gzip.open(path) as file:
            head = file.read(SAMPLE_BYTES)
    text = head.decode("utf-8", "replace")
    if len(head) == SAMPLE_BYTES:  # the last line is probably cut
        text = text[: text.rfind("\n") + 1]
    return _json(text, compression) or _csv(text, compression)


def _parquet(path: Path) -> FileSchema | None:
    try:
        found = footer(path)
        columns = {name: from_arrow(leaf.arrow) for name, leaf in found.columns.items()}
    except (NotParquet, UnknownType):
        return None
    return FileSchema("parquet", "none", columns, found.rows)


def _json(text: str, compression: str) -> FileSchema | None:
    if not text.lstrip().startswith(("{", "[")):
        return None
    rows: list[Any] = []
    try:
        whole = json.loads(text)
        rows = whole if isinstance(whole, list) else [whole]
    except ValueError:
        for line in text.splitlines():
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    return None
    columns: dict[str, Type] = {}
    for row in rows:
        if not isinstance(row, dict):
            return None
        for name, value in row.items():
            kind = _json_type(value)
            if kind is not None:
                known = columns.get(name.lower())
                columns[name.lower()] = kind if known is None else merged(known, kind)
    return FileSchema("json", compression, columns) if columns else None


def _json_type(value: Any) -> Type | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return Type("boolean")
    if isinstance(value, int):
        return Type("int" if abs(value) < 2**31 else "bigint")
    if isinstance(value, float):
        return Type("double")
    if isinstance(value, list):
        inner = [kind for kind in map(_json_type, value) if kind is not None]
        made = inner[0] if inner else Type("string")
        for kind in inner[1:]:
            made = merged(made, kind)
        return Type("array", (made,))
    if isinstance(value, dict):
        fields = [(name.lower(), _json_type(item) or Type("string")) for name, item in value.items()]
        return Type("struct", tuple(kind for _, kind in fields), tuple(name for name, _ in fields))
    return Type("string")


def _csv(text: str, compression: str) -> FileSchema | None:
    """At least two columns and two rows, the same number of columns in each; a header where only it is all text."""
    best: tuple[str, list[list[str]]] | None = None
    for delimiter in (",", "|", "\t", ";", "\x01"):
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
        widths = {len(row) for row in rows}
        if (
            len(rows) >= 2
            and len(widths) == 1
            and len(rows[0]) >= 2
            and (best is None or len(rows[0]) > len(best[1][0]))
        ):
            best = delimiter, rows
    if best is None:
        return None
    delimiter, rows = best
    body = [_column_type([row[i] for row in rows[1:]]) for i in range(len(rows[0]))]
    header = all(_text_type(cell).name == "string" and cell for cell in rows[0]) and any(
        kind.name != "string" for kind in body
    )
    names = [re.sub(r"[^a-z0-9_]+", "_", cell.strip().lower()) for cell in rows[0]]
    columns = body if header else [_column_type([row[i] for row in rows]) for i in range(len(rows[0]))]
    named = dict(zip(names if header else [f"col{i}" for i in range(len(columns))], columns, strict=True))
    parameters = {"delimiter": delimiter, "areColumnsQuoted": "false", "columnsOrdered": "true"}
    if header:
        parameters["skip.header.line.count"] = "1"
    return FileSchema("csv", compression, named, None, parameters)


def _column_type(cells: list[str]) -> Type:
    kinds = [_text_type(cell) for cell in cells if cell != ""]
    made = kinds[0] if kinds else Type("string")
    for kind in kinds[1:]:
        made = merged(made, kind)
    return made


def _text_type(cell: str) -> Type:
    if re.fullmatch(r"[+-]?\d{1,18}", cell.strip()):
        return Type("bigint")
    if re.fullmatch(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?", cell.strip()):
        return Type("double")
    if cell.strip().lower() in ("true", "false"):
        return Type("boolean")
    return Type("string")
