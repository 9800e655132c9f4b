"""What the footers of Parquet files say: columns, types, bytes on disk. Blobs never change, so it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any


class NotParquet(ValueError):
    """The file is no Parquet file; the message says why."""


@dataclass(frozen=True)
class Leaf:
    """One top-level column: compressed bytes of its chunks, and its physical and Arrow types."""

    scanned_bytes: int
    physical: str
    arrow: Any


@dataclass(frozen=True)
class Footer:
    """`columns` by lower-case name, as Athena looks them up; `compression` is of the first chunk."""

    columns: dict[str, Leaf]
    rows: int
    compression: str


@lru_cache(maxsize=20_000)
def footer(path: Path) -> Footer:
    """Raises `NotParquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            metadata, schema = file.metadata, file.schema_arrow
            sizes: dict[str, int] = {}
            kinds: dict[str, str] = {}
            compression = "UNCOMPRESSED"
            for group in range(metadata.num_row_groups):
                row_group = metadata.row_group(group)
                for index in range(row_group.num_columns):
                    chunk = row_group.column(index)
                    name = chunk.path_in_schema.split(".", 1)[0].lower()
                    sizes[name] = sizes.get(name, 0) + chunk.total_compressed_size
                    compression = chunk.compression
            for index in range(len(file.schema)):
                column = file.schema.column(index)
                kinds[column.path.split(".", 1)[0].lower()] = column.physical_type
    except (pa.ArrowInvalid, OSError) as error:
        raise NotParquet(str(error)) from None
    columns = {
        field.name.lower(): Leaf(sizes.get(field.name.lower(), 0), kinds.get(field.name.lower(), ""), field.type)
        for field in schema
    }
    return Footer(columns, metadata.num_rows, compression)
