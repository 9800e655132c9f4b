"""Statements that write data: CREATE TABLE AS, INSERT INTO, UNLOAD. Files first, then the catalogue, so that a reader
never sees half of them; what a failed statement wrote is removed.
"""

from __future__ import annotations

import contextlib
import random
import string
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
from sqlglot import exp

from zeroetl_dagster.local.athena import relations
from zeroetl_dagster.local.athena.checks import family
from zeroetl_dagster.local.athena.errors import QueryFailed, not_supported, translated
from zeroetl_dagster.local.athena.hive_types import Type, parse
from zeroetl_dagster.local.athena.query import Environment, Prepared, prepare
from zeroetl_dagster.local.athena.statements import Statement, table_options, values_query
from zeroetl_dagster.local.athena.views import hive_of
from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.glue_catalogue import is_view
from zeroetl_dagster.local.aws.glue_expression import NULL_VALUE
from zeroetl_dagster.local.aws.glue_formats import STORAGE
from zeroetl_dagster.local.aws.s3_objects import split_url

MAX_PARTITIONS = 100
_CODECS = {
    "PARQUET": ("GZIP", "SNAPPY", "ZSTD", "NONE", "UNCOMPRESSED", "LZ4"),
    "TEXTFILE": ("GZIP", "NONE"),
    "JSON": ("GZIP", "NONE"),
}
_FORMATS = {"PARQUET": "parquet", "TEXTFILE": "csv", "JSON": "json"}
_CTAS_OPTIONS = {
    "format", "write_compression", "parquet_compression", "external_location", "partitioned_by", "field_delimiter",
    "table_type", "is_external",
}  # fmt: skip


@dataclass(frozen=True)
class Written:
    """What a statement wrote: rows, and the objects' URLs for the data manifest."""

    rows: int
    urls: list[str]
    scanned_bytes: int


@dataclass(frozen=True)
class Layout:
    """How files are written. `partitioned_by` are the last columns, in order."""

    format: str
    compression: str
    location: str
    partitioned_by: tuple[str, ...] = ()
    delimiter: str = "\x01"


def create_table_as(
    connection: Any, environment: Environment, statement: Statement, default_location: str, caller: str
) -> Written:
    tree = statement.tree
    database, name = table_of(tree.this, environment.database)
    options = table_options(tree)
    unknown = set(options) - _CTAS_OPTIONS - {"withdata"}
    if unknown:
        raise not_supported(f"CREATE TABLE AS with {', '.join(sorted(unknown))}")
    if str(options.get("table_type", "HIVE")).upper() != "HIVE":
        raise not_supported(f"CREATE TABLE AS with table_type {options['table_type']}")
    _require_database(environment, database)
    if environment.catalogue.find_table(database, name) is not None:
        if tree.args.get("exists"):
            return Written(0, [], 0)
        raise QueryFailed(f"TABLE_ALREADY_EXISTS: line 1:1: Table 'awsdatacatalog.{database}.{name}' already exists")
    query = tree.expression if options.get("withdata", True) else tree.expression.limit(0)
    prepared = prepare(connection, environment, query, statement.sql)
    layout = _layout(options, options.get("external_location") or default_location)
    columns = _checked_columns(prepared, layout)
    if not _is_empty(environment, layout.location):
        raise QueryFailed(
            f"HIVE_PATH_ALREADY_EXISTS: Target directory for table '{database}.{name}' already exists: "
            f"{layout.location}. You may need to manually clean the data at location '{layout.location}' before "
            "retrying. Athena will not delete data in your account."
        )
    with _written_files(connection, environment, prepared, layout, statement.sql) as (rows, files):
        given = _table_input(name, columns, layout, caller)
        try:
            table = environment.catalogue.create_table(database, given, caller)
        except AwsError as error:
            raise QueryFailed(f"TABLE_ALREADY_EXISTS: line 1:1: {error.message}") from None
        _add_partitions(environment, table, files)
    return Written(rows, [url for url, _ in files], prepared.scanned_bytes)


def insert(connection: Any, environment: Environment, statement: Statement) -> Written:
    tree = statement.tree
    target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    database, name = table_of(target, environment.database)
    table = environment.catalogue.find_table(database, name)
    if table is None:
        _require_database(environment, database)
        raise QueryFailed(f"TABLE_NOT_FOUND: line 1:1: Table 'awsdatacatalog.{database}.{name}' does not exist")
    if is_view(table):
        raise QueryFailed("NOT_SUPPORTED: line 1:1: Inserting into views is not supported")
    found = relations.relation("target", table, [])
    kinds = {**found.columns, **found.keys}
    given = [item.name.lower() for item in tree.this.expressions] if isinstance(tree.this, exp.Schema) else list(kinds)
    unknown = [column for column in given if column not in kinds]
    if unknown:
        raise QueryFailed(
            f"COLUMN_NOT_FOUND: line 1:1: Insert column name does not exist in target table: {unknown[0]}"
        )
    query = tree.expression
    if isinstance(query, exp.Values):
        query = values_query(query)
    prepared = prepare(connection, environment, query, statement.sql)
    _require_matching(prepared, [kinds[column] for column in given])
    ordered = Prepared(
        _in_table_order(prepared, given, kinds), [(name, kind) for name, kind in kinds.items()], prepared.scanned_bytes
    )
    layout = _layout_of(table, tuple(found.keys))
    with _written_files(connection, environment, ordered, layout, statement.sql) as (rows, files):
        _add_partitions(environment, table, files)
    return Written(rows, [url for url, _ in files], prepared.scanned_bytes)


def unload(connection: Any, environment: Environment, statement: Statement) -> Written:
    options = {key: value for key, value in statement.parts["options"].items()}
    if "format" not in options:
        raise QueryFailed("INVALID_TABLE_PROPERTY: UNLOAD needs the property format")
    unknown = set(options) - {"format", "compression", "partitioned_by", "field_delimiter", "compression_level"}
    if unknown:
        raise not_supported(f"UNLOAD with {', '.join(sorted(unknown))}")
    options["write_compression"] = options.get("compression")
    layout = _layout(options, statement.parts["location"])
    if not _is_empty(environment, layout.location):
        raise QueryFailed(
            f"HIVE_PATH_ALREADY_EXISTS: Target directory already exists: {layout.location}. UNLOAD needs an empty one."
        )
    prepared = prepare(connection, environment, statement.tree, statement.sql)
    _checked_columns(prepared, layout)
    with _written_files(connection, environment, prepared, layout, statement.sql) as (rows, files):
        return Written(rows, [url for url, _ in files], prepared.scanned_bytes)


def table_of(node: Any, default: str) -> tuple[str, str]:
    """(database, table) in lower case."""
    table = node.this if isinstance(node, exp.Schema) else node
    return (table.db or default).lower(), table.name.lower()


def _require_database(environment: Environment, database: str) -> None:
    if not any(found["Name"] == database for found in environment.catalogue.databases()):
        raise QueryFailed(f"SCHEMA_NOT_FOUND: line 1:1: Schema {database} not found")


# ---- how it is written ---------------------------------------------------------------------------------------------


def _layout(options: Mapping[str, Any], location: str) -> Layout:
    kind = str(options.get("format", "PARQUET")).upper()
    if kind not in _FORMATS:
        raise not_supported(f"writing the format {kind} (PARQUET, TEXTFILE and JSON are)")
    codec = str(options.get("write_compression") or options.get("parquet_compression") or "GZIP").upper()
    if codec not in _CODECS[kind]:
        raise not_supported(f"writing {kind} with compression {codec} ({', '.join(_CODECS[kind])} are)")
    keys = tuple(str(key).lower() for key in options.get("partitioned_by", []))
    location = location if location.endswith("/") else location + "/"
    return Layout(kind, codec, location, keys, str(options.get("field_delimiter", "\x01")))


def _layout_of(table: Mapping[str, Any], keys: tuple[str, ...]) -> Layout:
    storage = table["StorageDescriptor"]
    serde = (storage.get("SerdeInfo") or {}).get("SerializationLibrary", "").lower()
    kind = "PARQUET" if "parquet" in serde else "JSON" if "json" in serde else "TEXTFILE"
    if "opencsv" in serde:
        raise not_supported("INSERT INTO a table with the OpenCSVSerde")
    delimiter = ((storage.get("SerdeInfo") or {}).get("Parameters") or {}).get("field.delim", "\x01")
    location = storage["Location"]
    return Layout(kind, "GZIP", location if location.endswith("/") else location + "/", keys, delimiter)


def _checked_columns(prepared: Prepared, layout: Layout) -> list[tuple[str, Type]]:
    """Names and types that a Hive table can have; partition keys must be the last columns."""
    columns = [(name.lower(), kind) for name, kind in prepared.columns]
    names = [name for name, _ in columns]
    for index, (name, kind) in enumerate(columns, 1):
        if name.startswith("_col"):
            raise QueryFailed(f"MISSING_COLUMN_NAME: line 1:1: Column name not specified at position {index}")
        if kind.name in ("timestamptz", "time", "json", "interval"):
            shown = {"timestamptz": "timestamp(3) with time zone", "interval": "interval day to second"}
            raise QueryFailed(f"NOT_SUPPORTED: Unsupported Hive type: {shown.get(kind.name, kind.name)}")
        if kind.name == "unknown":
            raise QueryFailed(f"COLUMN_TYPE_UNKNOWN: line 1:1: Column type is unknown at position {index}")
        if names.count(name) > 1:
            raise QueryFailed(f"DUPLICATE_COLUMN_NAME: line 1:1: Column name '{name}' specified more than once")
    keys = list(layout.partitioned_by)
    if keys and names[-len(keys) :] != keys:
        raise QueryFailed(
            "HIVE_COLUMN_ORDER_MISMATCH: Partition keys must be the last columns in the table and in the same order as "
            f"the table properties: {keys}"
        )
    if keys and len(keys) == len(names):
        raise QueryFailed("INVALID_TABLE_PROPERTY: Table contains only partition columns")
    return columns


@contextlib.contextmanager
def _written_files(
    connection: Any, environment: Environment, prepared: Prepared, layout: Layout, sql: str
) -> Iterator[tuple[int, list[tuple[str, tuple[str, ...]]]]]:
    """Rows and (URL, partition values) of the objects; they are removed if the block fails."""
    bucket, prefix = split_url(layout.location)
    if environment.objects.bucket(bucket) is None:
        raise QueryFailed(f"HIVE_FILESYSTEM_ERROR: The specified bucket does not exist: {bucket}")
    folder = environment.scratch / "out"
    folder.mkdir()
    rows = _copy(connection, prepared, layout, folder, sql)
    made: list[tuple[str, tuple[str, ...]]] = []
    keys: list[str] = []
    stamp = time.strftime("%Y%m%d_%H%M%S", time.gmtime())
    mark = "".join(random.choices(string.ascii_lowercase + string.digits, k=5))
    try:
        for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
            values = tuple(_partition_value(part) for part in path.relative_to(folder).parts[:-1])
            place = "".join(f"{k}={escaped(v)}/" for k, v in zip(layout.partitioned_by, values, strict=True))
            key = f"{prefix}{place}{stamp}_{number:05d}_{mark}_{uuid.uuid4()}"
            environment.objects.adopt(bucket, key, path)
            keys.append(key)
            made.append((f"s3://{bucket}/{key}", values))
        yield rows, made
    except BaseException:
        environment.objects.delete(bucket, keys)
        raise


def _copy(connection: Any, prepared: Prepared, layout: Layout, folder: Path, sql: str) -> int:
    names = [name.lower() for name, _ in prepared.columns]
    options = [f"FORMAT {_FORMATS[layout.format]}"]
    if layout.format == "PARQUET":
        codec = "UNCOMPRESSED" if layout.compression == "NONE" else layout.compression
        options.append(f"CODEC '{codec.lower()}'")
    else:
        options.append(f"COMPRESSION {'gzip' if layout.compression == 'GZIP' else 'none'}")
    if layout.format == "TEXTFILE":
        options += [f"DELIMITER {relations.text(layout.delimiter)}", "HEADER false", "QUOTE ''", "NULLSTR '\\N'"]
    target = folder / "data"
    if layout.partitioned_by and layout.format == "JSON":
        raise not_supported("partitions of JSON files")
    if layout.partitioned_by:
        keys = ", ".join(relations.quoted(key) for key in layout.partitioned_by)
        options += [f"PARTITION_BY ({keys})", "WRITE_PARTITION_COLUMNS false", "OVERWRITE_OR_IGNORE true"]
        target = folder
        _limit_partitions(connection, prepared, names, layout)
    columns = ", ".join(relations.quoted(name) for name in names)
    try:
        done = connection.execute(
            f"COPY (SELECT * FROM ({prepared.sql}) AS q({columns})) TO {relations.text(str(target))} "
            f"({', '.join(options)})"
        )
    except duckdb.Error as error:
        raise translated(error, sql) from None
    return int(done.fetchone()[0])


def _limit_partitions(connection: Any, prepared: Prepared, names: list[str], layout: Layout) -> None:
    columns = ", ".join(relations.quoted(name) for name in names)
    keys = ", ".join(relations.quoted(key) for key in layout.partitioned_by)
    found = connection.execute(
        f"SELECT count(*) FROM (SELECT DISTINCT {keys} FROM ({prepared.sql}) AS q({columns}))"
    ).fetchone()[0]
    if found > MAX_PARTITIONS:
        raise QueryFailed(
            f"HIVE_TOO_MANY_OPEN_PARTITIONS: Exceeded limit of {MAX_PARTITIONS} open writers for partitions/buckets"
        )


def _partition_value(folder: str) -> str:
    value = unquote(folder.partition("=")[2])
    return NULL_VALUE if value == "NULL" or value == NULL_VALUE else value


def escaped(value: str) -> str:
    """Hive's escaping of a partition value in a path."""
    unsafe = set("\"#%'*/:=?\\{[]^\x7f")
    return "".join(f"%{ord(c):02X}" if c in unsafe or ord(c) < 32 else c for c in value)


def _is_empty(environment: Environment, location: str) -> bool:
    try:
        bucket, prefix = split_url(location)
    except ValueError as error:
        raise QueryFailed(f"INVALID_TABLE_PROPERTY: {error}") from None
    return not environment.objects.find(bucket, prefix, limit=1)


# ---- what the catalogue gets ---------------------------------------------------------------------------------------


def _table_input(name: str, columns: list[tuple[str, Type]], layout: Layout, caller: str) -> dict[str, Any]:
    split = len(columns) - len(layout.partitioned_by)
    storage = STORAGE[_FORMATS[layout.format]]
    serde = {**storage["SerdeInfo"], "Parameters": dict(storage["SerdeInfo"]["Parameters"])}
    if layout.format == "TEXTFILE":
        serde["Parameters"] = {"field.delim": layout.delimiter, "serialization.format": layout.delimiter}
    return {
        "Name": name,
        "Owner": caller,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": {"EXTERNAL": "TRUE", "classification": _FORMATS[layout.format], "has_encrypted_data": "false"},
        "PartitionKeys": [{"Name": column, "Type": hive_of(kind)} for column, kind in columns[split:]],
        "StorageDescriptor": {
            "Columns": [{"Name": column, "Type": hive_of(kind)} for column, kind in columns[:split]],
            "Location": layout.location.rstrip("/"),
            "InputFormat": storage["InputFormat"],
            "OutputFormat": storage["OutputFormat"],
            "Compressed": layout.compression != "NONE",
            "NumberOfBuckets": 0,
            "SerdeInfo": serde,
        },
    }


def _add_partitions(
    environment: Environment, table: Mapping[str, Any], files: list[tuple[str, tuple[str, ...]]]
) -> None:
    if not table["PartitionKeys"]:
        return
    for values in sorted({values for _, values in files}):
        if environment.catalogue.partition(table["DatabaseName"], table["Name"], values) is None:
            location = next(url for url, own in files if own == values).rsplit("/", 1)[0]
            storage = {**table["StorageDescriptor"], "Location": location}
            environment.catalogue.create_partition(table, {"Values": list(values), "StorageDescriptor": storage})


def _require_matching(prepared: Prepared, wanted: list[Type]) -> None:
    found = [kind for _, kind in prepared.columns]
    matching = len(found) == len(wanted) and all(
        kind.name == "unknown" or family(kind) == family(target) for kind, target in zip(found, wanted, strict=True)
    )
    if not matching:
        table, query = (", ".join(kind.trino for kind in kinds) for kinds in (wanted, found))
        raise QueryFailed(
            f"TYPE_MISMATCH: line 1:1: Insert query has mismatched column types: Table: [{table}], Query: [{query}]"
        )


def _in_table_order(prepared: Prepared, given: list[str], kinds: Mapping[str, Type]) -> str:
    """The query's columns cast to the table's types, in the table's order; what is not given is NULL."""
    columns = ", ".join(f"c{index}" for index in range(len(given)))
    shown = []
    for name, kind in kinds.items():
        value = f"c{given.index(name)}" if name in given else "NULL"
        if kind.name == "varchar" and kind.arguments:
            value = f"trino_fit({value}, {kind.arguments[0]})"
        shown.append(f"CAST({value} AS {parse(kind.hive).duckdb}) AS {relations.quoted(name)}")
    return f"SELECT {', '.join(shown)} FROM ({prepared.sql}) AS q({columns})"
