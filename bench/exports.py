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
TIMES = 10
LARGE = {"users": "userid", "listing": "listid", "sales": "salesid"}  # 98 % of TICKIT's rows, and their keys
ROUNDS = 7
MEGABYTE = 1_000_000
KEYS_APART = 10_000_000


def exports(beds: Beds) -> Iterator[Figure]:
    """TICKIT in a PostgreSQL server, captured as a snapshot at two scales."""
    with ExitStack() as undo:
        source = _Source(beds.folder("exports"), undo)
        small = source.snapshot("small")
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
        source.grow()
        large = source.snapshot("large")
        times = sum(table.text_bytes for table in read_manifest(large)) / size
        what = f"peak memory of an export of {times:.1f} times as much"
        yield Figure(what, _peak(beds, large), "MB", _peak(beds, small), "of that snapshot", Aim("ratio", 1.25))


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

        with closing(self._connect(DATABASE)) as connection:
            tickit.load(connection, scale=1, progress=lambda line: None)

    def grow(self) -> None:
        """The large tables get every row so many times, under other keys."""
        with closing(self._connect(DATABASE)) as connection, connection, connection.cursor() as cursor:
            for table, key in LARGE.items():
                cursor.execute(f"SELECT * FROM {table} LIMIT 0")
                columns = [column.name for column in cursor.description]
                copied = ", ".join(f"{key} + {KEYS_APART} * n" if name == key else name for name in columns)
                cursor.execute(
                    f"INSERT INTO {table} ({', '.join(columns)}) "
                    f"SELECT {copied} FROM {table}, generate_series(1, {TIMES - 1}) AS n"
                )

    def snapshot(self, name: str) -> Path:
        """The folder of a snapshot of what the source holds now."""
        folder = self._root / name
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
