"""How Athena materialises a mart. Readers find the old one or the new one, whole.

* table: CREATE TABLE AS into a folder of its own under another name; then the mart's entry in Glue is pointed at that
  folder, in one call. The files of the one before stay until the refresh after next, for queries that still read them.
* partitioned: the same for one partition, the day of the export that was read; the other days stay.
* view: CREATE VIEW under another name, then the same. Each time, because a view holds the types of what it reads: when
  one of them changed, Athena refuses the view that was written before (VIEW_IS_STALE).

Who made a table, from which definition, and where its files lie is kept in its parameters in Glue. An entry that no
mart has made is refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zeroetl_dagster.connections.athena import Athena, AthenaResult
from zeroetl_dagster.connections.sql import literal, qualified
from zeroetl_dagster.marts.compile import CompiledMart
from zeroetl_dagster.marts.model import MartError

Action = Literal["created", "replaced", "recreated", "unchanged"]
Entry = dict[str, Any]

OWNER = "zeroetl.mart"
CODE = "zeroetl.code_version"
PREVIOUS = "zeroetl.previous_location"

# What `get_table` returns and `update_table` takes (Glue API reference, TableInput).
_TABLE_INPUT = (
    "Name", "Description", "Owner", "Retention", "StorageDescriptor", "PartitionKeys", "ViewOriginalText",
    "ViewExpandedText", "TableType", "Parameters", "TargetTable",
)  # fmt: skip
_DELETED_AT_ONCE = 1000


@dataclass(frozen=True)
class Place:
    """Where marts go. `location` is s3://bucket/prefix without a slash at the end, None for the workgroup's own."""

    database: str
    location: str | None
    partition_key: str = "snapshot_date"


@dataclass(frozen=True)
class Column:
    name: str
    type: str


@dataclass(frozen=True)
class Materialized:
    """What was done. Times in milliseconds; `scanned_bytes` of all its queries. `rows` is None for a view, because
    counting would cost what reading costs; of a partitioned mart it is the day's."""

    action: Action
    sql: str
    columns: tuple[Column, ...]
    rows: int | None = None
    day: str | None = None
    query_id: str | None = None
    scanned_bytes: int = 0
    duration_ms: int = 0
    queue_ms: int = 0
    reused: bool = False
    gap: bool = False


def ensure_database(athena: Athena, database: str) -> bool:
    """Create the marts' database in Glue where it is missing; returns whether it was."""
    glue = athena.aws.client("glue")
    try:
        glue.get_database(Name=database)
    except glue.exceptions.EntityNotFoundException:
        glue.create_database(DatabaseInput={"Name": database, "Description": "Marts made by zeroetl-dagster"})
        return True
    return False


def materialize(athena: Athena, mart: CompiledMart, place: Place, *, day: str | None = None) -> Materialized:
    """Build or refresh one mart. `day` is that of the export it reads, needed for a partitioned one.

    Raises `MartError` for an entry that is not ours, `AthenaError` or botocore's ClientError; what was there before is
    then still there.
    """
    glue = athena.aws.client("glue")
    held = find(glue, place.database, mart.name)
    if held is not None and OWNER not in held.get("Parameters", {}):
        raise MartError(
            f"{place.database}.{mart.name} is in Glue already, and no mart has made it (it has no parameter {OWNER}): "
            f"drop or rename it, or rename {mart.model.path.name}"
        )
    if mart.materialized == "view":
        return _view(athena, glue, mart, place, held)
    if mart.materialized == "partitioned":
        return _partition(athena, glue, mart, place, held, day)
    return _table(athena, glue, mart, place, held)


def find(glue: Any, database: str, name: str) -> Entry | None:
    """The entry of that name in Glue."""
    try:
        found: Entry = glue.get_table(DatabaseName=database, Name=name)["Table"]
    except glue.exceptions.EntityNotFoundException:
        return None
    return found


def relation_name(mart: CompiledMart, place: Place) -> str:
    """`database.mart`, quoted as SELECT, CTAS and CREATE VIEW take it."""
    return qualified(place.database, mart.name)


def _table(athena: Athena, glue: Any, mart: CompiledMart, place: Place, held: Entry | None) -> Materialized:
    made, result, sql = _build(athena, glue, mart, place, mart.name)
    action = _put(athena, glue, mart, place, made, held)
    return _done(athena, mart, place, made, result, sql, action, gap=action == "recreated")


def _put(athena: Athena, glue: Any, mart: CompiledMart, place: Place, made: Entry, held: Entry | None) -> Action:
    """Make what was built beside the mart the mart, in one call where Glue lets it, and delete what nobody reads."""
    partitioned = held is not None and bool(held.get("PartitionKeys"))
    marks = dict(held.get("Parameters", {})) if held is not None else {}
    # The days of a partitioned mart lie in folders below its own, in which the new files are too: they stay.
    before = _location(held) if held is not None and not partitioned else None
    entry = {
        **_input(made),
        "Name": mart.name,
        "Description": mart.model.options.description or "",
        "Parameters": {**made.get("Parameters", {}), **_marks(mart, before)},
    }
    if held is not None and not partitioned:
        glue.update_table(DatabaseName=place.database, TableInput=entry)
    else:
        if held is not None:  # Glue does not take partition keys away from an entry
            glue.delete_table(DatabaseName=place.database, Name=mart.name)
        glue.create_table(DatabaseName=place.database, TableInput=entry)
    glue.delete_table(DatabaseName=place.database, Name=made["Name"])
    if not partitioned:
        _forget(athena, marks.get(PREVIOUS), live=_location(made))
    return "created" if held is None else "recreated" if partitioned else "replaced"


def _partition(
    athena: Athena, glue: Any, mart: CompiledMart, place: Place, held: Entry | None, day: str | None
) -> Materialized:
    if place.partition_key in mart.columns:
        raise MartError(
            f"{mart.model.path}: the column {place.partition_key!r} is the partition's own and is added to the result; "
            "take it out of the SELECT, or set another `partition_key`"
        )
    if day is None:
        raise MartError(
            f"{mart.model.path}: `materialized: partitioned` writes the day of the export it reads, but what it reads "
            "has none; read an exported table, or set `-- materialized: table`"
        )
    made, result, sql = _build(athena, glue, mart, place, f"{mart.name}/{place.partition_key}={day}")
    replaced = held is not None and [k["Name"] for k in held.get("PartitionKeys", [])] != [place.partition_key]
    if replaced:
        glue.delete_table(DatabaseName=place.database, Name=mart.name)
    _declare(glue, mart, place, made, None if replaced else held)
    before = _put_partition(glue, mart, place, made, day)
    glue.delete_table(DatabaseName=place.database, Name=made["Name"])
    _forget(athena, before)
    action: Action = "created" if held is None else "recreated" if replaced else "replaced"
    return _done(athena, mart, place, made, result, sql, action, day=day, gap=replaced)


def _view(athena: Athena, glue: Any, mart: CompiledMart, place: Place, held: Entry | None) -> Materialized:
    name = _clear(athena, glue, mart, place)
    sql = f"CREATE VIEW {qualified(place.database, name)} AS\n{mart.sql}"
    result = athena.execute(sql, database=place.database)
    made = glue.get_table(DatabaseName=place.database, Name=name)["Table"]
    action = _put(athena, glue, mart, place, made, held)
    if held is not None and _is_same_view(held, made, mart):
        action = "unchanged"
    return Materialized(
        action,
        sql,
        _columns(made),
        query_id=result.query_id,
        scanned_bytes=result.scanned_bytes,
        duration_ms=result.duration_ms,
        queue_ms=result.queue_ms,
        reused=result.reused,
        gap=action == "recreated",
    )


def _is_same_view(held: Entry, made: Entry, mart: CompiledMart) -> bool:
    if held.get("TableType") != "VIRTUAL_VIEW":
        return False
    return held["Parameters"].get(CODE) == mart.code_version and _columns(held) == _columns(made)


def _build(athena: Athena, glue: Any, mart: CompiledMart, place: Place, folder: str) -> tuple[Entry, AthenaResult, str]:
    """CREATE TABLE AS beside the mart; returns its entry in Glue, the query's result, and the statement."""
    name = _clear(athena, glue, mart, place)
    properties = "format = 'PARQUET'"
    if place.location is not None:
        # A folder of its own each time: Athena refuses one that holds files, and readers keep the old ones.
        properties += f", external_location = {literal(f'{place.location}/{folder}/{uuid.uuid4().hex[:12]}/')}"
    sql = f"CREATE TABLE {qualified(place.database, name)} WITH ({properties}) AS\n{mart.sql}"
    result = athena.execute(sql, database=place.database)
    return glue.get_table(DatabaseName=place.database, Name=name)["Table"], result, sql


def _clear(athena: Athena, glue: Any, mart: CompiledMart, place: Place) -> str:
    """The name under which the mart is built, after what a killed run has left there is gone."""
    name = f"{mart.name}__new"
    if (left := find(glue, place.database, name)) is not None:
        glue.delete_table(DatabaseName=place.database, Name=name)
        if _location(left) not in _live(glue, mart, place):  # it may have been put in place before the kill
            _forget(athena, _location(left))
    return name


def _live(glue: Any, mart: CompiledMart, place: Place) -> set[str]:
    """Where the files are that readers of the mart are sent to."""
    held = find(glue, place.database, mart.name)
    if held is None:
        return set()
    locations = {_location(held)}
    if held.get("PartitionKeys"):
        pages = glue.get_paginator("get_partitions").paginate(DatabaseName=place.database, TableName=mart.name)
        locations |= {_location(partition) for page in pages for partition in page["Partitions"]}
    return locations


def _declare(glue: Any, mart: CompiledMart, place: Place, made: Entry, held: Entry | None) -> None:
    """The partitioned mart's own entry: the columns of this day, and after them those that only older days have."""
    columns = list(made["StorageDescriptor"]["Columns"])
    if held is not None:
        names = {column["Name"] for column in columns}
        columns += [column for column in held["StorageDescriptor"]["Columns"] if column["Name"] not in names]
    base = f"{place.location}/{mart.name}/" if place.location is not None else _location(held or made)
    entry = {
        **_input(made),
        "Name": mart.name,
        "Description": mart.model.options.description or "",
        "StorageDescriptor": {**made["StorageDescriptor"], "Columns": columns, "Location": base},
        "PartitionKeys": [{"Name": place.partition_key, "Type": "string"}],
        "Parameters": {**made.get("Parameters", {}), **_marks(mart, None)},
    }
    if held is None:
        glue.create_table(DatabaseName=place.database, TableInput=entry)
    elif _input(held) != entry:
        glue.update_table(DatabaseName=place.database, TableInput=entry)


def _put_partition(glue: Any, mart: CompiledMart, place: Place, made: Entry, day: str) -> str | None:
    """Point the day at its new files; returns where the files before the last ones are."""
    name = {"DatabaseName": place.database, "TableName": mart.name}
    entry = {"Values": [day], "StorageDescriptor": made["StorageDescriptor"], "Parameters": {}}
    try:
        held = glue.get_partition(**name, PartitionValues=[day])["Partition"]
    except glue.exceptions.EntityNotFoundException:
        glue.create_partition(**name, PartitionInput=entry)
        return None
    entry["Parameters"] = {PREVIOUS: _location(held)}
    glue.update_partition(**name, PartitionValueList=[day], PartitionInput=entry)
    before: str | None = held.get("Parameters", {}).get(PREVIOUS)
    return before


def _done(
    athena: Athena,
    mart: CompiledMart,
    place: Place,
    made: Entry,
    result: AthenaResult,
    sql: str,
    action: Action,
    *,
    day: str | None = None,
    gap: bool = False,
) -> Materialized:
    # Parquet's footers hold the count: this scans nothing.
    where = f" WHERE {qualified(place.partition_key)} = {literal(day)}" if day is not None else ""
    counted = athena.query(f"SELECT count(*) FROM {relation_name(mart, place)}{where}", database=place.database)
    return Materialized(
        action,
        sql,
        _columns(made),
        rows=int(counted.rows.rows[0][0]),
        day=day,
        query_id=result.query_id,
        scanned_bytes=result.scanned_bytes + counted.scanned_bytes,
        duration_ms=result.duration_ms,
        queue_ms=result.queue_ms,
        reused=result.reused,
        gap=gap,
    )


def _forget(athena: Athena, location: str | None, *, live: str = "") -> None:
    """Delete files that a mart wrote and no reader is left with. A location is a folder of one refresh, never one that
    holds the `live` files."""
    bucket, _, prefix = (location or "").removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/") + "/"
    # `mart/refresh/` or deeper (`tables/query/` below a workgroup's own location): never a bucket or a whole mart.
    if not bucket or prefix.count("/") < 2 or live.startswith(f"s3://{bucket}/{prefix}"):
        return
    s3 = athena.aws.client("s3")
    for page in _pages(s3, bucket, prefix):
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in page], "Quiet": True})


def _pages(s3: Any, bucket: str, prefix: str) -> Iterator[list[str]]:
    for page in s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": _DELETED_AT_ONCE}
    ):
        if keys := [found["Key"] for found in page.get("Contents", [])]:
            yield keys


def _marks(mart: CompiledMart, previous: str | None) -> dict[str, str]:
    marks = {OWNER: f"{mart.target.name}/{mart.name}", CODE: mart.code_version}
    return {**marks, PREVIOUS: previous} if previous else marks


def _input(entry: Mapping[str, Any]) -> Entry:
    return {key: entry[key] for key in _TABLE_INPUT if key in entry}


def _location(entry: Mapping[str, Any]) -> str:
    return str(entry.get("StorageDescriptor", {}).get("Location", ""))


def _columns(entry: Mapping[str, Any]) -> tuple[Column, ...]:
    columns = entry.get("StorageDescriptor", {}).get("Columns", [])
    return tuple(Column(column["Name"], column.get("Type", "")) for column in columns)
