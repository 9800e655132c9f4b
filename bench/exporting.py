"""An export's two halves by themselves: the whole of it, the COPY before it, and the Parquet at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zeroetl_dagster.local.aws.export_files import (
    FILE_BYTES,
    GZIP_LEVEL,
    LARGE_ROW_BYTES,
    exported,
    parsed,
    write_table,
)
from zeroetl_dagster.local.aws.s3_objects import Objects
from zeroetl_dagster.local.aws.snapshot_data import chunks, read_manifest

BUCKET = "lake"


def export(snapshot: Path, s3: Path) -> None:
    """Every table of a snapshot as Parquet in S3, as an export task writes it."""
    objects = Objects(s3)
    try:
        objects.create_bucket(BUCKET, "123456789012", "ap-northeast-1")
        for table in read_manifest(snapshot):
            write_table(objects, BUCKET, "export/", snapshot, table, headers={}, progress=lambda done: None)
    finally:
        objects.close()


def batches(snapshot: Path) -> Iterator[list[Any]]:
    """The Arrow tables that an export of the snapshot writes, a list for each of its tables."""
    for table in read_manifest(snapshot):
        yield [parsed(chunk, exported(table)) for chunk in chunks(snapshot, table, LARGE_ROW_BYTES)]


def write_parquet(tables: list[list[Any]], folder: Path) -> None:
    """Write batches that are in memory already into files of the same size and compression, and nothing else."""
    import pyarrow.parquet as pq

    number = 0
    for pending in tables:
        waiting = iter(pending)
        batch = next(waiting, None)
        while batch is not None:
            number += 1
            with (folder / f"{number}.parquet").open("wb") as file:
                writer = pq.ParquetWriter(
                    file, batch.schema, compression="gzip", compression_level=GZIP_LEVEL, use_dictionary=True
                )
                while batch is not None and file.tell() < FILE_BYTES:
                    writer.write_table(batch)
                    batch = next(waiting, None)
                writer.close()
