"""The Parquet files of an export: AWS's types of PostgreSQL columns, files of a few MB, batches with `_SUCCESS`.

Types: Aurora guide, "Data conversion when exporting to Amazon S3", PostgreSQL. Numbers that are exact in PostgreSQL,
dates and times, arrays and everything of its own are text there; so they go through as they are.
"""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws.snapshot_data import Column, RowTooLarge, Table, chunks

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.s3_objects import Objects

FILE_BYTES = 8 << 20  # "Individual Parquet files are usually 1-10 MB in size"
GZIP_LEVEL = 3
LARGE_VALUE_BYTES = 500 << 20  # a value of that size fails an export
LARGE_ROW_BYTES = 2 << 30  # a row of that size skips its table
# information_schema's data_type -> (Arrow, what the manifest calls it); all others are text
_TYPES = {
    "bigint": ("int64", "int64"),
    "integer": ("int32", "int32"),
    "smallint": ("int16", "int32"),
    "double precision": ("float64", "double"),
    "real": ("float32", "float"),
    "boolean": ("bool_", "boolean"),
    "bytea": ("binary", "binary"),
}
_BAD_COLUMN = set(",;{}()\n\t= ")


class ValueTooLarge(Exception):
    """A value near 500 MB: the whole export fails."""


def skip_reason(table: Table) -> str | None:
    """Why AWS leaves a table out, if it does."""
    if "/" in table.name:
        return "INVALID_TABLE_NAME"
    if any(_BAD_COLUMN & set(column.name) for column in table.columns):
        return "INVALID_COLUMN_NAME"
    if not exported(table):
        return "NO_EXPORTABLE_COLUMNS"
    return None


def exported(table: Table) -> list[Column]:
    """Object identifiers are not exported."""
    return [column for column in table.columns if column.data_type != "oid"]


def mappings(table: Table) -> list[dict[str, Any]]:
    """`originalTypeMappings` of the manifest."""
    return [
        {
            "columnName": column.name,
            "originalType": column.data_type,
            "expectedExportedType": _types(column)[1],
            "originalCharMaxLength": column.max_length,
            "originalNumPrecision": column.precision,
            "originalDateTimePrecision": column.datetime_precision,
        }
        for column in exported(table)
    ]


def path_of(table: Table) -> str:
    """`DB/SCHEMA.TABLE`, with what AWS does not write in a path as underscores."""
    return "".join("_" if c in '\\`" ' else c for c in f"{table.database}/{table.schema}.{table.name}")


def write_table(
    objects: Objects,
    bucket: str,
    prefix: str,
    folder: Path,
    table: Table,
    *,
    headers: dict[str, str],
    progress: Callable[[int], None],
) -> int:
    """Write the table's files below `prefix`; how many. `progress` hears the bytes of text done, and may raise.

    A table with a numeric key is one batch of several parts, any other a batch a part. Raises `RowTooLarge`,
    `ValueTooLarge`.
    """
    if table.largest_value:
        _require_small_value(table.largest_value, table)
        raise RowTooLarge(f"a row of {table.target} has more text than PostgreSQL writes")
    files = _Files(objects, bucket, f"{prefix}{path_of(table)}/", table, headers)
    try:
        for size, batch in _ahead(_tables_of(folder, table)):
            files.write(batch)
            progress(size)
        files.finish()
    except BaseException:
        files.discard()
        raise
    return files.count


class _Files:
    """The file that is written now, and the names of the next."""

    def __init__(self, objects: Objects, bucket: str, prefix: str, table: Table, headers: dict[str, str]) -> None:
        self._objects, self._bucket, self._prefix = objects, bucket, prefix
        self._table, self._headers = table, headers
        self._open: tuple[Any, Any, str] | None = None
        self.count = 0

    def write(self, batch: Any) -> None:
        import pyarrow.parquet as pq

        if self._open is None:
            batch_index = 1 if self._table.numeric_key else self.count + 1
            part = self.count if self._table.numeric_key else 0
            key = f"{self._prefix}{batch_index}/part-{part:05d}-{uuid.uuid4()}.gz.parquet"
            writer = self._objects.writer(self._bucket, key)
            parquet = pq.ParquetWriter(
                writer, batch.schema, compression="gzip", compression_level=GZIP_LEVEL, use_dictionary=True
            )
            self._open = (writer, parquet, key)
        writer, parquet, _ = self._open
        parquet.write_table(batch)
        if writer.size >= FILE_BYTES:
            self._close()

    def finish(self) -> None:
        self._close()
        for index in range(1, 2 if self._table.numeric_key else max(self.count, 1) + 1):
            self._objects.put(self._bucket, f"{self._prefix}{index}/_SUCCESS", b"", self._headers)

    def discard(self) -> None:
        if self._open is not None:
            self._open[0].discard()

    def _close(self) -> None:
        if self._open is not None:
            writer, parquet, key = self._open
            parquet.close()
            self._objects.commit(self._bucket, key, writer, self._headers)
            self._open = None
            self.count += 1


def _tables_of(folder: Path, table: Table) -> Iterator[tuple[int, Any]]:
    """(bytes of text, Arrow table) of each chunk."""
    columns = exported(table)
    for chunk in chunks(folder, table, LARGE_ROW_BYTES):
        rows = parsed(chunk, columns)
        if len(chunk) >= LARGE_VALUE_BYTES:  # only then can a value be as large as that
            _require_small_values(rows, table)
        yield len(chunk), rows


def parsed(chunk: bytes, columns: list[Column]) -> Any:
    """COPY's CSV as an Arrow table of AWS's types."""
    import pyarrow as pa
    from pyarrow import csv

    kinds = [_types(column)[0] for column in columns]
    names = [f"c{index}" for index in range(len(columns))]
    read = {name: _arrow("string" if kind == "binary" else kind) for name, kind in zip(names, kinds, strict=True)}
    table = csv.read_csv(
        pa.BufferReader(chunk),
        csv.ReadOptions(column_names=names, block_size=len(chunk) + 1, use_threads=False),
        csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        csv.ConvertOptions(
            column_types=read,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
            check_utf8=False,
        ),
    )
    for index, kind in enumerate(kinds):
        if kind == "binary":
            values = table.column(index).to_pylist()
            decoded = pa.array([None if v is None else bytes.fromhex(v[2:]) for v in values], pa.binary())
            table = table.set_column(index, names[index], decoded)
    return table.rename_columns([column.name for column in columns])


def _require_small_values(rows: Any, table: Table) -> None:
    """Raises `ValueTooLarge`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for column in rows.columns:
        if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
            _require_small_value(pc.max(pc.binary_length(column)).as_py() or 0, table)


def _require_small_value(size: int, table: Table) -> None:
    """Raises `ValueTooLarge`."""
    if size >= LARGE_VALUE_BYTES:
        raise ValueTooLarge(f"{table.target} holds a large object that is close to or greater than 500 MB")


def _types(column: Column) -> tuple[str, str]:
    return (
        ("string", "binary (UTF8)") if column.is_domain else _TYPES.get(column.data_type, ("string", "binary (UTF8)"))
    )


def _arrow(kind: str) -> Any:
    import pyarrow as pa

    return getattr(pa, kind)()


def _ahead(source: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """The same, one or two items ahead in a thread: parsing and writing go on together, in bounded memory."""
    items: queue.Queue[Any] = queue.Queue(maxsize=2)
    stopped = threading.Event()

    def produce() -> None:
        last: Any = None
        try:
            for item in source:
                while not stopped.is_set():
                    try:
                        items.put(item, timeout=0.2)
                        break
                    except queue.Full:
                        continue
                if stopped.is_set():
                    return
        except BaseException as error:  # raised again where it is consumed
            last = error
        while not stopped.is_set():
            try:
                items.put((None, last), timeout=0.2)
                return
            except queue.Full:
                continue

    thread = threading.Thread(target=produce, name="export-reader", daemon=True)
    thread.start()
    try:
        while True:
            size, item = items.get()
            if size is None:
                if item is not None:
                    raise item
                return
            yield size, item
    finally:
        stopped.set()
        thread.join()
