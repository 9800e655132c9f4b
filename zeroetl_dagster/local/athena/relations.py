"""Tables of the catalogue as relations of one statement: which files, which partitions, which columns, how many bytes.

Every reference to a table becomes a relation of its own (`__r0`, `__r1`, ...), because each scans its own columns and
partitions. First it is a typed shell without rows, for the statement to be analysed; then a view over the files that
are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from zeroetl_dagster.local.athena.errors import QueryFailed, not_supported
from zeroetl_dagster.local.athena.hive_types import Type, UnknownType, parse
from zeroetl_dagster.local.athena.parquet import Footer, NotParquet, footer
from zeroetl_dagster.local.athena.textfiles import text_source
from zeroetl_dagster.local.aws.glue_expression import NULL_VALUE
from zeroetl_dagster.local.aws.s3_objects import split_url

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.s3_objects import Object, Objects

PATH = "$path"


@dataclass(frozen=True)
class File:
    """One file of a relation; `url` as `$path` shows it, `partition` the index of its partition."""

    path: Path
    url: str
    size: int
    partition: int


@dataclass
class Relation:
    """One reference to one table. `used` are the columns that the statement reads (None: all); `with_path` where the
    statement asks for "$path", which `*` does not include."""

    name: str
    table: Mapping[str, Any]
    partitions: Sequence[Mapping[str, Any]]
    columns: dict[str, Type]
    keys: dict[str, Type]
    with_path: bool = False
    used: set[str] | None = None
    kept: list[int] | None = None
    files: list[File] = field(default_factory=list)

    @property
    def full_name(self) -> str:
        return f"{self.table['DatabaseName']}.{self.table['Name']}"

    @property
    def schema(self) -> dict[str, Type]:
        path = {PATH: Type("string")} if self.with_path else {}
        return {**self.columns, **self.keys, **path}

    def reads(self, column: str) -> bool:
        return self.used is None or column in self.used


def relation(name: str, table: Mapping[str, Any], partitions: Sequence[Mapping[str, Any]]) -> Relation:
    """Raises `QueryFailed` for a table that this engine cannot read."""
    if table.get("Parameters", {}).get("table_type", "").upper() == "ICEBERG":
        raise not_supported("Iceberg tables")
    if str(table.get("Parameters", {}).get("projection.enabled", "")).lower() == "true":
        raise not_supported("partition projection")
    storage = table.get("StorageDescriptor") or {}
    try:
        columns = {column["Name"].lower(): parse(column["Type"]) for column in storage.get("Columns", [])}
        keys = {key["Name"].lower(): parse(key["Type"]) for key in table.get("PartitionKeys", [])}
    except UnknownType as error:
        raise QueryFailed(f"HIVE_INVALID_METADATA: table {table['DatabaseName']}.{table['Name']}: {error}") from None
    return Relation(name, table, partitions, columns, keys)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


# ---- the shell -----------------------------------------------------------------------------------------------------


def create_shell(connection: Any, found: Relation) -> None:
    columns = ", ".join(f"NULL::{kind.duckdb} AS {quoted(name)}" for name, kind in found.schema.items())
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {quoted(found.name)} AS SELECT {columns} WHERE false")


def create_partition_table(connection: Any, found: Relation) -> str:
    """A table of the partitions' values (`__i` is their index), to evaluate filters on; its name."""
    name = f"__p{found.name}"
    keys = ", ".join(f"{quoted(key)} {kind.duckdb}" for key, kind in found.keys.items())
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {quoted(name)} (__i INTEGER, {keys})")
    rows = []
    for index, partition in enumerate(found.partitions):
        cells = ["NULL" if value is None else text(value) for value in _values(partition["Values"])]
        rows.append(f"({index}, {', '.join(cells)})")
    if rows:
        connection.execute(f"INSERT INTO {quoted(name)} VALUES {', '.join(rows)}")
    return name


def _values(values: Iterable[str]) -> list[str | None]:
    return [None if value == NULL_VALUE else unquote(value) if "%" in value else value for value in values]


# ---- files ---------------------------------------------------------------------------------------------------------


def list_files(objects: Objects, found: Relation) -> None:
    """Fill `files` from the partitions that are kept, or the table's location. Raises `QueryFailed`."""
    places: list[tuple[int, str]] = []
    if found.keys:
        kept = range(len(found.partitions)) if found.kept is None else found.kept
        for index in kept:
            places.append((index, (found.partitions[index].get("StorageDescriptor") or {}).get("Location", "")))
    else:
        places.append((0, found.table["StorageDescriptor"].get("Location", "")))
    for index, location in places:
        found.files += [
            File(item.path, f"s3://{item.bucket}/{item.key}", item.size, index)
            for item in objects_at(objects, location, found.full_name)
        ]


def objects_at(objects: Objects, location: str, owner: str) -> list[Object]:
    """The data files below a location, at any depth, as Athena sees them: no empty ones, none that hide."""
    try:
        bucket, prefix = split_url(location)
    except ValueError:
        raise QueryFailed(f"HIVE_INVALID_METADATA: the location of {owner} is {location!r}") from None
    if objects.bucket(bucket) is None:
        raise QueryFailed(f"HIVE_FILESYSTEM_ERROR: The specified bucket does not exist: {bucket} (table {owner})")
    prefix = prefix if not prefix or prefix.endswith("/") else prefix + "/"
    hidden = ("_", ".")
    return [
        item
        for item in objects.find(bucket, prefix)
        if item.size
        and not any(part.startswith(hidden) for part in item.key[len(prefix) :].split("/"))
        and not item.key.endswith("/")
    ]


# ---- the view over the files ---------------------------------------------------------------------------------------


def create_view(connection: Any, found: Relation) -> int:
    """Replace the shell by a view over the files; the bytes that reading its used columns scans.

    Raises `QueryFailed` HIVE_BAD_DATA where a file does not hold what the table declares.
    """
    serde = (found.table["StorageDescriptor"].get("SerdeInfo") or {}).get("SerializationLibrary", "")
    if not found.files:
        create_shell(connection, found)
        return 0
    if "parquet" in serde.lower():
        source, scanned = _parquet_source(found), sum(_parquet_bytes(found, file) for file in found.files)
    else:
        source, scanned = text_source(found, serde), sum(file.size for file in found.files)
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {quoted(found.name)} AS {_with_keys(connection, found, source)}")
    return scanned


def _with_keys(connection: Any, found: Relation, source: str) -> str:
    """The files' columns, and beside them the partition's values and `$path`: constants where one partition is left."""
    partitions = sorted({file.partition for file in found.files})
    several = len(partitions) > 1 and any(found.reads(key) for key in found.keys)
    if several or (found.with_path and found.reads(PATH)):
        return _joined(connection, found, source)
    values = _values(found.partitions[partitions[0]]["Values"]) if found.keys else []
    keys = [
        f", {_constant(value if len(partitions) == 1 else None, kind)} AS {quoted(key)}"
        for (key, kind), value in zip(found.keys.items(), values, strict=True)
    ]
    path = ', NULL::VARCHAR AS "$path"' if found.with_path else ""
    return f"SELECT * EXCLUDE (__file){''.join(keys)}{path} FROM ({source})"


def _joined(connection: Any, found: Relation, source: str) -> str:
    name = f"__f{found.name}"
    columns = "".join(f", {quoted(key)} {kind.duckdb}" for key, kind in found.keys.items())
    path = ', "$path" VARCHAR' if found.with_path else ""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {quoted(name)} (__file VARCHAR{columns}{path})")
    rows = []
    for file in found.files:
        values = _values(found.partitions[file.partition]["Values"]) if found.keys else []
        cells = [str(file.path), *values, *([file.url] if found.with_path else [])]
        rows.append(f"({', '.join('NULL' if cell is None else text(cell) for cell in cells)})")
    connection.execute(f"INSERT INTO {quoted(name)} VALUES {', '.join(rows)}")
    return f"SELECT * EXCLUDE (__file) FROM ({source}) JOIN {quoted(name)} USING (__file)"


def _constant(value: str | None, kind: Type) -> str:
    return f"CAST({'NULL' if value is None else text(value)} AS {kind.duckdb})"


def _parquet_source(found: Relation) -> str:
    footers = [_footer(file) for file in found.files]
    present = set().union(*(item.columns for item in footers))
    columns = []
    for name, kind in found.columns.items():
        if name not in present or not found.reads(name):
            columns.append(f"NULL::{kind.duckdb} AS {quoted(name)}")
            continue
        for file, item in zip(found.files, footers, strict=True):
            if name in item.columns:
                _require_compatible(name, kind, item, file)
        columns.append(f"{_typed(name, kind, footers)} AS {quoted(name)}")
    same = all(list(item.columns) == list(footers[0].columns) for item in footers)
    files = ", ".join(text(str(file.path)) for file in found.files)
    by_name = "" if same else ", union_by_name = true"
    return (
        f"SELECT __file{''.join(', ' + c for c in columns)} FROM read_parquet([{files}], filename = '__file'{by_name})"
    )


def _typed(name: str, kind: Type, footers: list[Footer]) -> str:
    import pyarrow as pa

    held = next(item.columns[name].arrow for item in footers if name in item.columns)
    column = quoted(name)
    if kind.is_text and (pa.types.is_binary(held) or pa.types.is_large_binary(held)):
        return f"decode({column})"
    if kind.name == "binary" and pa.types.is_string(held):
        return f"encode({column})"
    if kind.name == "timestamp":  # Athena reads milliseconds
        return f"trino_timestamp_ms(CAST({column} AS TIMESTAMP))"
    return f"CAST({column} AS {kind.duckdb})"


_PHYSICAL = {
    "boolean": {"BOOLEAN"},
    "tinyint": {"INT32"},
    "smallint": {"INT32"},
    "int": {"INT32"},
    "bigint": {"INT32", "INT64"},
    "float": {"FLOAT"},
    "double": {"FLOAT", "DOUBLE"},
    "decimal": {"INT32", "INT64", "FIXED_LEN_BYTE_ARRAY"},
    "string": {"BYTE_ARRAY"},
    "varchar": {"BYTE_ARRAY"},
    "char": {"BYTE_ARRAY"},
    "binary": {"BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"},
    "date": {"INT32"},
    "timestamp": {"INT64", "INT96"},
}


_INTEGERS = ("tinyint", "smallint", "int", "bigint")


def _require_compatible(name: str, kind: Type, found: Footer, file: File) -> None:
    import pyarrow as pa

    leaf = found.columns[name]
    allowed = _PHYSICAL.get(kind.name)
    logical = {"decimal": pa.types.is_decimal, "date": pa.types.is_date, "timestamp": pa.types.is_timestamp}
    right = leaf.physical in allowed if allowed else pa.types.is_nested(leaf.arrow)
    if right and kind.name in logical:
        right = logical[kind.name](leaf.arrow)
    if kind.name in _INTEGERS:  # a date or a timestamp lies in the same bytes
        right = right and not pa.types.is_temporal(leaf.arrow)
    if not right:
        raise QueryFailed(
            f"HIVE_BAD_DATA: Field {name}'s type {leaf.physical} in parquet file {file.url} is incompatible with type "
            f"{kind.trino} defined in table schema"
        )


def _parquet_bytes(found: Relation, file: File) -> int:
    columns = _footer(file).columns
    return sum(columns[name].scanned_bytes for name in found.columns if name in columns and found.reads(name))


@lru_cache(maxsize=20_000)
def _head(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(4).decode("latin-1")


def _footer(file: File) -> Footer:
    try:
        return footer(file.path)
    except NotParquet:
        raise QueryFailed(
            f"HIVE_BAD_DATA: Not valid Parquet file: {file.url} expected magic number: PAR1 got: {_head(file.path)!r}"
        ) from None
