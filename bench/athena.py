"""Marts in Athena: what they scan as exports accumulate, and how soon a query's first row is there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.beds import Beds
from bench.figures import Aim, Figure
from bench.timing import in_turn
from zeroetl_dagster.local import landscape

if TYPE_CHECKING:
    from bench.lake import Lake
    from zeroetl_dagster.connections.athena import Athena

KEPT = 30
ROUNDS = 9
QUERY = "SELECT eventid, COUNT(*) AS sold FROM {} GROUP BY eventid ORDER BY sold DESC, eventid LIMIT 10"


def scanned_bytes(beds: Beds) -> Iterator[Figure]:
    """The five TICKIT marts, built from one export and from the newest of thirty that are kept."""
    lake = beds.lake
    first, *others = lake.days_before(KEPT - 1)
    lake.publish(first, lake.copy(first))
    one = lake.refresh_marts()
    lake.register([(day, lake.copy(day)) for day in others])
    lake.publish(lake.today, lake.exported.written)
    many = lake.refresh_marts()
    what = f"bytes scanned by the marts with {KEPT} exports kept"
    yield Figure(what, many, "bytes", one, "with 1 export kept", Aim("ratio", 1))


def first_row(beds: Beds) -> Iterator[Figure]:
    """The same aggregate over the same Parquet files, through AWS's interfaces and by DuckDB in this process."""
    import duckdb

    lake = beds.lake
    lake.publish(lake.today, lake.exported.written)
    name = "public_sales"
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        files = _downloaded(lake, "public.sales", Path(folder))
        direct = QUERY.format(f"read_parquet({files})")
        statement = QUERY.format(f"{name}_latest")

        def by_duckdb() -> Any:
            return connection.execute(direct).fetchone()

        assert _first(lake.quick, statement) == by_duckdb()
        quick, usual, floor = in_turn(
            ROUNDS, lambda: _first(lake.quick, statement), lambda: _first(lake.athena, statement), by_duckdb
        )
    yield Figure("query to first row through PyAthena, a look every 10 ms", quick, "s", floor, "DuckDB directly")
    yield Figure("query to first row through PyAthena, every 0.5 s as set", usual, "s", floor, "DuckDB directly")


def _first(athena: Athena, statement: str) -> Any:
    return athena.query(statement).rows.rows[0]


def _downloaded(lake: Lake, table: str, folder: Path) -> list[str]:
    """The Parquet files of a table in the export, as files of this machine."""
    prefix = f"exports/{lake.exported.task.identifier}/{landscape.DATABASE}/{table}/"
    found = lake.s3.list_objects_v2(Bucket=landscape.BUCKET, Prefix=prefix)["Contents"]
    paths = []
    for number, key in enumerate(one["Key"] for one in found if one["Key"].endswith(".parquet")):
        path = folder / f"{number}.parquet"
        lake.s3.download_file(landscape.BUCKET, key, str(path))
        paths.append(str(path))
    assert paths, f"nothing was exported to {prefix}"
    return paths
