"""The embedded AWS's snapshot exports: how fast, and in how much memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg2

from bench.beds import Beds
from bench.exporting import batches, export, write_parquet
from bench.figures import Aim, Figure
from bench.timing import in_turn
from zeroetl_dagster.local import tickit
from zeroetl_dagster.local.aws.snapshot_data import Capture, read_manifest
from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.postgres import PostgresServers
from zeroetl_dagster.local.supervisor import free_port

CLUSTER = "123456789012/ap-northeast-1/source"
DATABASE = "tickit"
SCALES = (1, 10)
ROUNDS = 7
MEGABYTE = 1_000_000


def exports(beds: Beds) -> Iterator[Figure]:
    """TICKIT in a PostgreSQL server, captured as a snapshot at two scales."""
    with ExitStack() as undo:
        source = _Source(beds.folder("exports"), undo)
        small = source.snapshot(SCALES[0])
        size = sum(table.text_bytes for table in read_manifest(small))
        ready = list(batches(small))
        whole, copied, written = in_turn(
            ROUNDS,
            lambda: export(small, beds.folder("s3")),
            lambda: source.copy(beds.folder("copy")),
            lambda: write_parquet(ready, beds.folder("parquet")),
            take=min,
        )
        slower = max((copied, "a plain COPY of it"), (written, "writing its Arrow batches to Parquet"))
        what = f"export of a snapshot of {size / MEGABYTE:.0f} MB"
        yield Figure(what, whole, "s", slower[0], slower[1], Aim("ratio", 1.5))
        peaks = [_peak(beds, source.snapshot(scale) if scale != SCALES[0] else small) for scale in SCALES]
        what = f"peak memory of an export at scale {SCALES[1]}"
        yield Figure(what, peaks[1], "MB", peaks[0], f"at scale {SCALES[0]}", Aim("ratio", 1.25))


class _Source:
    def __init__(self, root: Path, undo: ExitStack) -> None:
        self._root = root
        self._servers = PostgresServers(DataFolder(root))
        self._servers.folder.create()
        self._servers.create(
            CLUSTER, port=free_port(), master_username="master", master_password="m" * 12, database=DATABASE
        )
        undo.callback(self._servers.delete, CLUSTER)
        self._servers.start(CLUSTER, logical=False)

    def snapshot(self, scale: float) -> Path:
        """The folder of a snapshot of TICKIT at this scale, which the source holds from now on."""
        with closing(self._connect(DATABASE)) as connection:
            tickit.load(connection, scale=scale, progress=lambda line: None)
        folder = self._root / f"snapshot-{scale:g}"
        with closing(Capture(self._connect)) as capture:
            capture.write(folder)
        return folder

    def copy(self, folder: Path) -> None:
        """COPY's text of every table into files."""
        with closing(self._connect(DATABASE)) as connection, connection.cursor() as cursor:
            for table in tickit.ROWS:
                with (folder / table).open("wb") as file:
                    cursor.copy_expert(f"COPY {table} TO STDOUT (FORMAT csv)", file)

    def _connect(self, database: str) -> Any:
        return psycopg2.connect(**self._servers.dsn(CLUSTER, database))


def _peak(beds: Beds, snapshot: Path) -> float:
    """Megabytes that a process needs which does nothing but this export."""
    command = [sys.executable, "-m", "bench.export_process", str(snapshot), str(beds.folder("s3"))]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) / MEGABYTE
