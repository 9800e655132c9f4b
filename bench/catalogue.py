"""Registering exports in Glue: 1,000 tables with 30 days behind them, then the next day of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

from bench.beds import TABLES, Beds
from bench.figures import Figure
from bench.timing import seconds
from zeroetl_dagster.exports.catalogue import Calls, Catalogue, Column, DayOfTable, storage
from zeroetl_dagster.exports.names import SourceTable

DAYS = 30
THREADS = 8
FIRST_DAY = date(2026, 1, 1)
COLUMNS = tuple(Column(f"column_{number}", "string") for number in range(10))
NAMES = {SourceTable("shop", "public", f"t{number:04d}"): f"public_t{number:04d}" for number in range(TABLES)}


def register(beds: Beds) -> Iterator[Figure]:
    """Against plain boto3 calls that write the same tables and partitions and compare nothing."""
    glue = beds.aws.client("glue", config=_config())
    past = [FIRST_DAY + timedelta(days=number) for number in range(DAYS)]
    for days, what in ((past, f"{TABLES:,} tables x {DAYS} days"), ([past[-1] + timedelta(days=1)], "the next day")):
        ours, bare = Calls(glue), Calls(glue)
        catalogue = Catalogue(ours, "shop", "ours", "snapshot_date")
        found = [_day(table, day) for table in NAMES for day in days]
        taken = seconds(lambda catalogue=catalogue, found=found: _registered(catalogue, found))  # type: ignore[misc]
        floor = seconds(lambda bare=bare, days=days: _bare(bare, days))  # type: ignore[misc]
        yield Figure(f"registering {what}", taken, "s", floor, "the same writes by plain boto3")
        yield Figure(f"registering {what}: API calls", ours.count, "", bare.count, "the same writes by plain boto3")


def _registered(catalogue: Catalogue, found: Sequence[DayOfTable]) -> None:
    done, problems = catalogue.register(found, NAMES)
    assert not problems and len(done) == len(found), problems[:3]


def _day(table: SourceTable, day: date) -> DayOfTable:
    location = f"s3://lake/exports/shop-{day:%Y%m%d}/{table.folder}/"
    return DayOfTable(table, day, f"shop-{day:%Y%m%d}", location, COLUMNS, (), files=1, size_bytes=1_000)


def _bare(calls: Calls, days: Sequence[date]) -> None:
    """Tables with their first day; a batch of partitions for each."""
    first = days[0] == FIRST_DAY
    if first:
        calls("create_database", DatabaseInput={"Name": "bare"})

    def write(table: SourceTable) -> None:
        name = NAMES[table]
        if first:
            calls("create_table", DatabaseName="bare", TableInput=_table(name, _day(table, days[-1])))
        partitions = [
            {"Values": [day.isoformat()], "StorageDescriptor": storage(COLUMNS, _day(table, day).location)}
            for day in days
        ]
        answer = calls("batch_create_partition", DatabaseName="bare", TableName=name, PartitionInputList=partitions)
        assert not answer.get("Errors"), answer

    _each(write, list(NAMES))


def _table(name: str, day: DayOfTable) -> dict[str, Any]:
    return {
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": {"classification": "parquet", "EXTERNAL": "TRUE"},
        "PartitionKeys": [{"Name": "snapshot_date", "Type": "string"}],
        "StorageDescriptor": storage(COLUMNS, day.location),
    }


def _each(write: Callable[[SourceTable], None], tables: list[SourceTable]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, tables))


def _config() -> Any:
    from botocore.config import Config

    return Config(max_pool_connections=THREADS)
