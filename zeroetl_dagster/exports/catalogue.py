"""The Glue catalogue of the exports: one table per source table, one partition per day.

A partition's location is free-form in Glue, so each day's partition points straight at the folder which the export
wrote, `s3://BUCKET/PREFIX/EXPORT_ID/DATABASE/SCHEMA.TABLE/`: nothing is copied or renamed, and a new export never makes
a new table. Columns come from the export's manifest (`register`) or from a crawl (`exports.crawler`); everything after
that is the same, and so is the result.

Columns are append-only: a new one goes to the end, one that left the source stays (with a comment) so that older
partitions remain readable, and every partition carries the table's columns at its time, hence a prefix of today's.
(Athena compares partition and table columns by position: HIVE_PARTITION_SCHEMA_MISMATCH.)

Calls are few: the tables are listed once (100 a call), partitions are created without asking first (100 a call, AWS
answers which exist), the days kept are noted in the table's parameters so that retention asks nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

from botocore.exceptions import ClientError

from zeroetl_dagster.exports.changes import ColumnChange, joined, recalled, remembered, retyped
from zeroetl_dagster.exports.faults import code_of
from zeroetl_dagster.exports.names import SourceTable
from zeroetl_dagster.exports.types import ExportedColumn, glue_type

GONE = "gone from the source by "
OWNER = "zeroetl.pipeline"
LABEL = "zeroetl.source_table"
LATEST_DAY = "zeroetl.latest_day"
OLDEST_DAY = "zeroetl.oldest_day"

_CREATE_AT_ONCE = 100
_DELETE_AT_ONCE = 25
_WORKERS = 8


@dataclass(frozen=True)
class Column:
    """A column as Glue has it: lower-case name, Hive type."""

    name: str
    type: str
    comment: str = ""

    @property
    def gone(self) -> bool:
        """True for a column that only older days have."""
        return self.comment.startswith(GONE)


@dataclass(frozen=True)
class DayOfTable:
    """One table in one export. `columns` as read from the manifest or found by a crawl; `files` 0 means no rows."""

    table: SourceTable
    day: date
    export_id: str
    location: str
    columns: tuple[Column, ...]
    exported: tuple[ExportedColumn, ...]
    files: int
    size_bytes: int
    crawled_records: int | None = None


@dataclass(frozen=True)
class CatalogueTable:
    """One table and day in the catalogue. `rows` is None until counted; `newest` when no later day is catalogued."""

    source: DayOfTable
    database: str
    name: str
    columns: tuple[Column, ...]
    newest: bool
    changes: tuple[ColumnChange, ...] = ()
    rows: int | None = None
    typed_view: str | None = None
    latest_view: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def day_columns(self) -> tuple[Column, ...]:
        """The columns this day really has, in the source's order."""
        return self.source.columns


@dataclass(frozen=True)
class Problem:
    """A table that could not be catalogued, and what to do about it."""

    label: str
    reason: str

    def __str__(self) -> str:
        return f"{self.label}: {self.reason}"


@dataclass(frozen=True)
class Gone:
    """A table that earlier exports had and this one has not: dropped or renamed at the source, or no longer asked for.
    It stays as it was, `latest` view included."""

    label: str
    relation: str
    last_day: date

    def __str__(self) -> str:
        return (
            f"{self.label} is not in this export; {self.relation} and its views still show {self.last_day}. Delete "
            "them in Glue when they are not needed any more"
        )


@dataclass
class Calls:
    """A Glue client that counts its calls (they are what Glue bills and throttles)."""

    glue: Any
    count: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, operation: str, **request: Any) -> Any:
        with self._lock:
            self.count += 1
        return getattr(self.glue, operation)(**request)

    def pages(self, operation: str, **request: Any) -> Iterator[Any]:
        """The answers of a paginated operation."""
        token: dict[str, str] = {}
        while True:
            answer = self(operation, **request, **token)
            yield answer
            if not answer.get("NextToken"):
                return
            token = {"NextToken": answer["NextToken"]}


@dataclass(frozen=True)
class Catalogue:
    """One Glue database that belongs to one pipeline. `oldest` is the first day that retention keeps (None: all)."""

    calls: Calls
    pipeline: str
    database: str
    partition_key: str
    oldest: date | None = None

    def ensure_database(self, name: str | None = None) -> None:
        """Create the database unless it is there."""
        database = name or self.database
        try:
            self.calls("get_database", Name=database)
        except ClientError as error:
            if code_of(error) != "EntityNotFoundException":
                raise
            _unless(
                "AlreadyExistsException",
                lambda: self.calls(
                    "create_database",
                    DatabaseInput={"Name": database, "Description": f"Snapshot exports of pipeline {self.pipeline}"},
                ),
            )

    def tables(self, database: str | None = None) -> dict[str, dict[str, Any]]:
        """Every table and view of the database as Glue describes it, by name."""
        pages = self.calls.pages("get_tables", DatabaseName=database or self.database, MaxResults=100)
        return {table["Name"]: table for page in pages for table in page["TableList"]}

    def register(
        self, days: Iterable[DayOfTable], names: Mapping[SourceTable, str]
    ) -> tuple[list[CatalogueTable], list[Problem]]:
        """Put these tables and days into the catalogue; several days of a table cost no more calls than one.

        Tables that cannot be catalogued are returned as problems, the others are done all the same.
        """
        self.ensure_database()
        existing = self.tables()
        grouped: dict[SourceTable, list[DayOfTable]] = {}
        for day in days:
            if day.table in names:
                grouped.setdefault(day.table, []).append(day)
        jobs = [
            (names[t], sorted(ds, key=lambda d: d.day), existing.get(names[t])) for t, ds in sorted(grouped.items())
        ]
        with ThreadPoolExecutor(_WORKERS) as pool:
            results = list(pool.map(lambda job: self._table(*job), jobs))
        done = [table for tables in results if not isinstance(tables, Problem) for table in tables]
        return done, [problem for problem in results if isinstance(problem, Problem)]

    def gone(self, day: date, there: Iterable[str]) -> list[Gone]:
        """Tables of this pipeline of which an earlier day is the newest, but `day` has none: all but those `there`."""
        known = set(there)
        found = []
        for name, table in sorted(self.tables().items()):
            parameters = table.get("Parameters", {})
            last, label = _day(parameters.get(LATEST_DAY)), parameters.get(LABEL, "")
            if parameters.get(OWNER) == self.pipeline and label not in known and last is not None and last < day:
                found.append(Gone(label, f"{self.database}.{name}", last))
        return found

    def set_parameters(self, table: CatalogueTable, parameters: Mapping[str, str]) -> CatalogueTable:
        """Add these parameters to the table as it is in Glue now (other days may have changed it meanwhile)."""
        now = self.calls("get_table", DatabaseName=self.database, Name=table.name)["Table"]
        merged = {**now.get("Parameters", {}), **parameters}
        self._update(table.name, _columns(now), merged, table.source)
        return replace(table, parameters=merged)

    def _table(
        self, name: str, days: Sequence[DayOfTable], existing: dict[str, Any] | None
    ) -> list[CatalogueTable] | Problem:
        problem = self._problem(name, days, existing)
        if problem is not None:
            return problem
        before = _columns(existing) if existing else ()
        held = dict(existing.get("Parameters", {})) if existing else {}
        columns, parameters, changes = before, dict(held), dict[date, tuple[ColumnChange, ...]]()
        newest = _day(held.get(LATEST_DAY))
        for day in days:
            latest = newest is None or day.day >= newest
            columns, found = merge(columns, day, latest=latest)
            if latest:
                again = recalled(parameters) if day.day == newest else ()
                found = joined(again, found, retyped(parameters, day.exported))
                parameters |= remembered(parameters, day.exported, found)
            changes[day.day] = found
            newest = day.day if latest else newest
        parameters |= self._parameters(days, held, newest)
        if existing is None:
            if not self._create(name, columns, parameters, days[-1]):  # a run of another day was quicker
                return self._table(name, days, self.calls("get_table", DatabaseName=self.database, Name=name)["Table"])
        elif columns != before or parameters != held:
            self._update(name, columns, parameters, days[-1])
        self._partitions(name, columns, days, fresh=existing is None)
        self._retain(name, held)
        return [
            CatalogueTable(d, self.database, name, columns, d.day == newest, changes[d.day], parameters=parameters)
            for d in days
        ]

    def _problem(self, name: str, days: Sequence[DayOfTable], existing: dict[str, Any] | None) -> Problem | None:
        table = days[0].table
        if existing is not None:
            owner = existing.get("Parameters", {}).get(OWNER)
            if owner != self.pipeline or existing.get("Parameters", {}).get(LABEL) != table.label:
                whose = f"belongs to {owner}" if owner else "was not made by this project"
                return Problem(
                    table.label,
                    f"{self.database}.{name} exists in Glue and {whose}: delete it, or give another name with "
                    f"`catalogue: {{names: {{{table.label!r}: another_name}}}}`",
                )
        for day in days:
            seen: set[str] = set()
            for column in day.columns:
                if column.name in seen:
                    return Problem(table.label, f"two columns are {column.name!r} in Glue, which ignores case")
                seen.add(column.name)
            if self.partition_key in seen:
                return Problem(
                    table.label,
                    f"it has a column {self.partition_key!r} like the partition key: set `catalogue.partition_key`",
                )
            if not day.columns:
                return Problem(table.label, f"neither manifest nor crawl of export {day.export_id} tells its columns")
        return None

    def _parameters(self, days: Sequence[DayOfTable], held: Mapping[str, str], newest: date | None) -> dict[str, str]:
        oldest = min([d.day for d in days] + [d for d in [_day(held.get(OLDEST_DAY))] if d])
        kept = max(oldest, self.oldest) if self.oldest else oldest
        return {
            "classification": "parquet",
            "EXTERNAL": "TRUE",
            OWNER: self.pipeline,
            LABEL: days[0].table.label,
            LATEST_DAY: newest.isoformat() if newest else "",
            OLDEST_DAY: kept.isoformat(),
        }

    def _create(self, name: str, columns: Sequence[Column], parameters: dict[str, str], day: DayOfTable) -> bool:
        request = {"DatabaseName": self.database, "TableInput": self._input(name, columns, parameters, day)}
        return _unless("AlreadyExistsException", lambda: self.calls("create_table", **request))

    def _update(self, name: str, columns: Sequence[Column], parameters: Mapping[str, str], day: DayOfTable) -> None:
        table = self._input(name, columns, parameters, day)
        self.calls("update_table", DatabaseName=self.database, TableInput=table, SkipArchive=True)

    def _input(
        self, name: str, columns: Sequence[Column], parameters: Mapping[str, str], day: DayOfTable
    ) -> dict[str, Any]:
        return {
            "Name": name,
            "Description": f"{day.table.label} of {day.table.database}, from snapshot exports of {self.pipeline}",
            "TableType": "EXTERNAL_TABLE",
            "Parameters": dict(parameters),
            "PartitionKeys": [{"Name": self.partition_key, "Type": "string"}],
            "StorageDescriptor": storage(columns, day.location),
        }

    def _partitions(self, name: str, columns: Sequence[Column], days: Sequence[DayOfTable], *, fresh: bool) -> None:
        full = {d.day.isoformat(): d for d in days if d.files and (self.oldest is None or d.day >= self.oldest)}
        inputs = [_partition(day, columns) for day in full.values()]
        for batch in _chunks(inputs, _CREATE_AT_ONCE):
            answer = self.calls(
                "batch_create_partition", DatabaseName=self.database, TableName=name, PartitionInputList=batch
            )
            self._mend(name, batch, answer.get("Errors", []))
        empty = [d.day.isoformat() for d in days if not d.files]
        if empty and not fresh:  # an earlier export of that day may have had rows
            self._drop(name, empty)

    def _mend(self, name: str, batch: list[dict[str, Any]], errors: Sequence[dict[str, Any]]) -> None:
        """Partitions that exist already: rewrite those that point elsewhere."""
        taken = []
        for error in errors:
            detail = error.get("ErrorDetail", {})
            if detail.get("ErrorCode") != "AlreadyExistsException":
                raise CatalogueError(
                    f"Glue refused partition {error.get('PartitionValues')} of {self.database}.{name}: "
                    f"{detail.get('ErrorMessage')} [{detail.get('ErrorCode')}]"
                )
            taken.append(error["PartitionValues"])
        if not taken:
            return
        found = self.calls(
            "batch_get_partition",
            DatabaseName=self.database,
            TableName=name,
            PartitionsToGet=[{"Values": values} for values in taken],
        )["Partitions"]
        there = {tuple(p["Values"]): p["StorageDescriptor"] for p in found}
        changed = [
            {"PartitionValueList": item["Values"], "PartitionInput": item}
            for item in batch
            if item["Values"] in taken and not _same_place(there.get(tuple(item["Values"])), item["StorageDescriptor"])
        ]
        if changed:
            answer = self.calls("batch_update_partition", DatabaseName=self.database, TableName=name, Entries=changed)
            for error in answer.get("Errors", []):
                raise CatalogueError(f"Glue did not move a partition of {self.database}.{name}: {error}")

    def _retain(self, name: str, held: Mapping[str, str]) -> None:
        first = _day(held.get(OLDEST_DAY))
        if self.oldest is None or first is None or first >= self.oldest:
            return
        span = (self.oldest - first).days
        self._drop(name, [(first + timedelta(days=n)).isoformat() for n in range(span)])

    def _drop(self, name: str, days: Sequence[str]) -> None:
        for batch in _chunks(list(days), _DELETE_AT_ONCE):
            answer = self.calls(
                "batch_delete_partition",
                DatabaseName=self.database,
                TableName=name,
                PartitionsToDelete=[{"Values": [day]} for day in batch],
            )
            for error in answer.get("Errors", []):
                if error.get("ErrorDetail", {}).get("ErrorCode") != "EntityNotFoundException":
                    raise CatalogueError(f"Glue did not drop a partition of {self.database}.{name}: {error}")


class CatalogueError(Exception):
    """Glue refused a change, or a crawl did not end well; the message names the table and AWS's reason."""


def merge(
    before: Sequence[Column], day: DayOfTable, *, latest: bool
) -> tuple[tuple[Column, ...], tuple[ColumnChange, ...]]:
    """The table's columns once this day is in it, and what changed. A day older than the newest changes nothing
    but may add columns that have left the source since."""
    held = {column.name: column for column in before}
    there = {column.name: column for column in day.columns}
    gone = f"{GONE}{day.day.isoformat()}"
    if not latest:
        extra = [replace(c, comment=f"{GONE}a later day") for c in day.columns if c.name not in held]
        return (*before, *extra), ()
    changes: list[ColumnChange] = []
    merged: list[Column] = []
    for column in before:
        now = there.get(column.name)
        if now is None:
            merged.append(column if column.gone else replace(column, comment=gone))
            if not column.gone:
                changes.append(ColumnChange("removed", column.name, column.type, None))
            continue
        merged.append(replace(now, comment=""))
        if column.gone:
            changes.append(ColumnChange("added", column.name, None, now.type))
        elif column.type != now.type:
            changes.append(ColumnChange("retyped", column.name, column.type, now.type))
    for column in day.columns:
        if column.name not in held:
            merged.append(column)
            if before:
                changes.append(ColumnChange("added", column.name, None, column.type))
    return tuple(merged), tuple(changes)


def manifest_columns(columns: Iterable[ExportedColumn]) -> tuple[Column, ...]:
    """Glue's columns of a table from the manifest's."""
    return tuple(Column(column.name.lower(), glue_type(column)) for column in columns)


def storage(columns: Sequence[Column], location: str) -> dict[str, Any]:
    """A StorageDescriptor of Parquet files below `location`."""
    return {
        "Columns": [{"Name": c.name, "Type": c.type, **({"Comment": c.comment} if c.comment else {})} for c in columns],
        "Location": location,
        "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
        "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
        "SerdeInfo": {
            "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
            "Parameters": {"serialization.format": "1"},
        },
    }


def table_columns(description: Mapping[str, Any]) -> tuple[Column, ...]:
    """The columns of a table as Glue describes it."""
    return _columns(description)


def _columns(description: Mapping[str, Any]) -> tuple[Column, ...]:
    listed = description.get("StorageDescriptor", {}).get("Columns", [])
    return tuple(Column(c["Name"], c.get("Type", "string"), c.get("Comment", "")) for c in listed)


def _partition(day: DayOfTable, columns: Sequence[Column]) -> dict[str, Any]:
    return {
        "Values": [day.day.isoformat()],
        "StorageDescriptor": storage(columns, day.location),
        "Parameters": {
            "zeroetl.export": day.export_id,
            "zeroetl.files": str(day.files),
            "zeroetl.size_bytes": str(day.size_bytes),
        },
    }


def _same_place(found: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    if found is None:
        return False
    return found.get("Location", "").rstrip("/") == wanted["Location"].rstrip("/") and _columns(
        {"StorageDescriptor": found}
    ) == _columns({"StorageDescriptor": wanted})


def _unless(code: str, call: Callable[[], object]) -> bool:
    """False when AWS answered with `code`."""
    try:
        call()
    except ClientError as error:
        if code_of(error) != code:
            raise
        return False
    return True


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None
