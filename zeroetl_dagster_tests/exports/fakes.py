"""In-memory stand-ins for RDS, S3, Glue and Athena that answer with AWS's own codes.

They are for what an embedded AWS cannot be made to say at will: a task that fails with a given cause, a crawler that
somebody else runs, a lost connection. Times are moved by the tests, nothing waits.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from zeroetl_dagster.connections.athena import AthenaResult
from zeroetl_dagster.connections.redshift import Rows


def fault(code: str, message: str, operation: str = "Operation") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


class Pages:
    """A paginator over one operation, two items a page, so that every caller must really page."""

    def __init__(self, items: Callable[..., list[Any]], member: str) -> None:
        self._items, self._member = items, member

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        items = self._items(**request)
        for start in range(0, max(len(items), 1), 2):
            yield {self._member: items[start : start + 2]}


@dataclass
class FakeRds:
    """Snapshots are given; export tasks move one status per describe, `steps` at a time."""

    cluster_snapshots: list[dict[str, Any]] = field(default_factory=list)
    instance_snapshots: list[dict[str, Any]] = field(default_factory=list)
    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)  # identifiers used, even if no longer listed
    limit: int = 5
    refuse: Exception | None = None
    on_describe: Callable[[dict[str, Any]], None] | None = None
    started: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def get_paginator(self, operation: str) -> Pages:
        return {
            "describe_db_cluster_snapshots": Pages(self._cluster_snapshots, "DBClusterSnapshots"),
            "describe_db_snapshots": Pages(self._instance_snapshots, "DBSnapshots"),
            "describe_export_tasks": Pages(self._tasks, "ExportTasks"),
        }[operation]

    def _cluster_snapshots(self, DBClusterIdentifier: str, SnapshotType: str) -> list[dict[str, Any]]:
        return [
            s
            for s in self.cluster_snapshots
            if s["DBClusterIdentifier"] == DBClusterIdentifier and s["SnapshotType"] == SnapshotType
        ]

    def _instance_snapshots(self, DBInstanceIdentifier: str, SnapshotType: str) -> list[dict[str, Any]]:
        return [
            s
            for s in self.instance_snapshots
            if s["DBInstanceIdentifier"] == DBInstanceIdentifier and s["SnapshotType"] == SnapshotType
        ]

    def describe_db_clusters(self, DBClusterIdentifier: str) -> dict[str, Any]:
        if DBClusterIdentifier not in self.clusters:
            raise fault("DBClusterNotFoundFault", f"DBCluster {DBClusterIdentifier} not found.")
        return {"DBClusters": [self.clusters[DBClusterIdentifier]]}

    def describe_db_instances(self, DBInstanceIdentifier: str) -> dict[str, Any]:
        if DBInstanceIdentifier not in self.instances:
            raise fault("DBInstanceNotFound", f"DBInstance {DBInstanceIdentifier} not found.")
        return {"DBInstances": [self.instances[DBInstanceIdentifier]]}

    def _tasks(self, SourceArn: str | None = None, Filters: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        wanted = {v for f in Filters or () if f["Name"] == "status" for v in f["Values"]}
        return [
            t
            for t in self.tasks.values()
            if (SourceArn is None or t["SourceArn"] == SourceArn) and (not wanted or t["Status"].lower() in wanted)
        ]

    def describe_export_tasks(self, ExportTaskIdentifier: str) -> dict[str, Any]:
        if ExportTaskIdentifier not in self.tasks:
            raise fault("ExportTaskNotFound", f"The export task {ExportTaskIdentifier} could not be found.")
        if self.on_describe is not None:
            self.on_describe(self.tasks[ExportTaskIdentifier])
        return {"ExportTasks": [dict(self.tasks[ExportTaskIdentifier])]}

    def start_export_task(self, **request: Any) -> dict[str, Any]:
        if self.refuse is not None:
            raise self.refuse
        identifier = request["ExportTaskIdentifier"]
        if identifier in self.taken or identifier in self.tasks:
            raise fault("ExportTaskAlreadyExists", f"The export task with the ID {identifier} already exists.")
        running = [t for t in self.tasks.values() if t["Status"] in ("STARTING", "IN_PROGRESS", "CANCELING")]
        if len(running) >= self.limit:
            raise fault("ExportTaskLimitReachedFault", "You have reached the limit of export tasks in progress")
        self.started.append(request)
        self.tasks[identifier] = {
            "ExportTaskIdentifier": identifier,
            "SourceArn": request["SourceArn"],
            "S3Bucket": request["S3BucketName"],
            "S3Prefix": request.get("S3Prefix", ""),
            "ExportOnly": request.get("ExportOnly", []),
            "Status": "STARTING",
            "PercentProgress": 0,
            "TotalExtractedDataInGB": 0,
            "TaskStartTime": datetime(2024, 5, 1, 16, 0, tzinfo=UTC),
            "SnapshotTime": datetime(2024, 5, 1, 3, 0, tzinfo=UTC),
            "SourceType": "SNAPSHOT",
        }
        return dict(self.tasks[identifier])

    def cancel_export_task(self, ExportTaskIdentifier: str) -> dict[str, Any]:
        task = self.tasks[ExportTaskIdentifier]
        if task["Status"] not in ("STARTING", "IN_PROGRESS"):
            raise fault("InvalidExportTaskStateFault", "The task is not in progress")
        task["Status"] = "CANCELING"
        self.cancelled.append(ExportTaskIdentifier)
        return dict(task)

    def add_snapshot(self, identifier: str, taken_at: datetime, **more: Any) -> dict[str, Any]:
        snapshot = {
            "DBClusterIdentifier": "shop",
            "DBClusterSnapshotIdentifier": identifier,
            "DBClusterSnapshotArn": f"arn:aws:rds:eu-west-1:123456789012:cluster-snapshot:{identifier}",
            "SnapshotType": "automated",
            "Status": "available",
            "SnapshotCreateTime": taken_at,
            "PercentProgress": 100,
            "AllocatedStorage": 12,
            **more,
        }
        self.cluster_snapshots.append(snapshot)
        return snapshot


def ends(status: str = "COMPLETE", **more: Any) -> Callable[[dict[str, Any]], None]:
    """Each describe moves a task on: STARTING, IN_PROGRESS 40, then `status`."""

    def move(task: dict[str, Any]) -> None:
        if task["Status"] == "STARTING":
            task |= {"Status": "IN_PROGRESS", "PercentProgress": 40, "TotalExtractedDataInGB": 2}
        elif task["Status"] == "IN_PROGRESS":
            end = task["TaskStartTime"] + timedelta(minutes=20)
            task |= {"Status": status, "PercentProgress": 100, "TaskEndTime": end, "TotalExtractedDataInGB": 5, **more}
        elif task["Status"] == "CANCELING":
            task["Status"] = "CANCELED"

    return move


class FakeS3:
    """Objects of one bucket by key."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = objects or {}

    def get_paginator(self, operation: str) -> Pages:
        assert operation == "list_objects_v2"
        return Pages(
            lambda Bucket, Prefix: [
                {"Key": key, "Size": len(body)} for key, body in sorted(self.objects.items()) if key.startswith(Prefix)
            ],
            "Contents",
        )

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        if Key not in self.objects:
            raise fault("NoSuchKey", "The specified key does not exist.")
        return {"Body": io.BytesIO(self.objects[Key])}


def column(name: str, original: str, exported: str = "binary (UTF8)", **more: Any) -> dict[str, Any]:
    return {"columnName": name, "originalType": original, "expectedExportedType": exported, **more}


SALES = [
    column("salesid", "integer", "int32"),
    column("pricepaid", "numeric", originalNumPrecision=8),
    column("saletime", "timestamp without time zone"),
]


def write_export(
    s3: FakeS3,
    export_id: str,
    tables: dict[str, list[dict[str, Any]]],
    *,
    prefix: str = "exports",
    database: str = "shop",
    empty: tuple[str, ...] = (),
    per_file: int = 96,
    statuses: dict[str, dict[str, Any]] | None = None,
) -> None:
    """Write what AWS writes for an export of these PostgreSQL tables (`schema.table` -> its type mappings)."""
    root = f"{prefix}/{export_id}/"
    entries = []
    for label, columns in tables.items():
        entry = {
            "target": f"{database}.{label}",
            "status": "COMPLETE",
            "sizeGB": 0.0 if label in empty else 0.5,
            "schemaMetadata": {"originalTypeMappings": columns},
            **(statuses or {}).get(label, {}),
        }
        entries.append(entry)
        if entry["status"] != "COMPLETE":
            continue
        folder = re.sub(r'[\\`" ]', "_", f"{root}{database}/{label}/1/")
        s3.objects[f"{folder}_SUCCESS"] = b""
        if label not in empty:
            s3.objects[f"{folder}part-00000-aa.gz.parquet"] = b"x" * 100
            s3.objects[f"{folder}part-00003-bb.gz.parquet"] = b"x" * 20
    for first in range(0, max(len(entries), 1), per_file):
        some = entries[first : first + per_file]
        name = f"export_tables_info_{export_id}_from_{first + 1}_to_{first + len(some)}.json"
        s3.objects[root + name] = json.dumps({"perTableStatus": some}).encode()
    info = {"exportTaskIdentifier": export_id, "status": "COMPLETE", "s3Bucket": "lake", "s3Prefix": prefix}
    s3.objects[f"{root}export_info_{export_id}.json"] = json.dumps(info).encode()


@dataclass
class FakeGlue:
    """Databases, tables, partitions, and a crawler whose state the tests drive."""

    databases: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    partitions: dict[tuple[str, str], dict[tuple[str, ...], dict[str, Any]]] = field(default_factory=dict)
    crawlers: dict[str, dict[str, Any]] = field(default_factory=dict)
    crawl: Callable[[FakeGlue, dict[str, Any]], None] | None = None
    calls: list[str] = field(default_factory=list)
    crawls: int = 0
    fail_crawl: str | None = None
    busy_polls: int = 0  # the crawler runs for somebody else for so many looks
    _looks: int = 0

    def _database(self, name: str) -> dict[str, dict[str, Any]]:
        if name not in self.databases:
            raise fault("EntityNotFoundException", f"Database {name} not found.")
        return self.databases[name]

    def _table(self, database: str, name: str) -> dict[str, Any]:
        tables = self._database(database)
        if name not in tables:
            raise fault("EntityNotFoundException", f"Table {name} not found.")
        return tables[name]

    def get_database(self, Name: str) -> dict[str, Any]:
        self.calls.append("get_database")
        self._database(Name)
        return {"Database": {"Name": Name}}

    def create_database(self, DatabaseInput: dict[str, Any]) -> None:
        self.calls.append("create_database")
        self.databases[DatabaseInput["Name"]] = {}

    def get_tables(self, DatabaseName: str, MaxResults: int, NextToken: str = "0") -> dict[str, Any]:
        self.calls.append("get_tables")
        tables = list(self._database(DatabaseName).values())
        first = int(NextToken)
        answer: dict[str, Any] = {"TableList": json.loads(json.dumps(tables[first : first + MaxResults]))}
        if first + MaxResults < len(tables):
            answer["NextToken"] = str(first + MaxResults)
        return answer

    def get_table(self, DatabaseName: str, Name: str) -> dict[str, Any]:
        self.calls.append("get_table")
        return {"Table": json.loads(json.dumps(self._table(DatabaseName, Name)))}

    def create_table(self, DatabaseName: str, TableInput: dict[str, Any]) -> None:
        self.calls.append("create_table")
        if TableInput["Name"] in self._database(DatabaseName):
            raise fault("AlreadyExistsException", "Table already exists.")
        self.databases[DatabaseName][TableInput["Name"]] = TableInput

    def update_table(self, DatabaseName: str, TableInput: dict[str, Any], SkipArchive: bool) -> None:
        self.calls.append("update_table")
        self._table(DatabaseName, TableInput["Name"])
        self.databases[DatabaseName][TableInput["Name"]] = TableInput

    def batch_delete_table(self, DatabaseName: str, TablesToDelete: list[str]) -> dict[str, Any]:
        self.calls.append("batch_delete_table")
        for name in TablesToDelete:
            self.databases[DatabaseName].pop(name)
        return {}

    def _held(self, database: str, table: str) -> dict[tuple[str, ...], dict[str, Any]]:
        self._table(database, table)
        return self.partitions.setdefault((database, table), {})

    def batch_create_partition(
        self, DatabaseName: str, TableName: str, PartitionInputList: list[dict[str, Any]]
    ) -> dict[str, Any]:
        self.calls.append("batch_create_partition")
        assert len(PartitionInputList) <= 100
        errors = []
        held = self._held(DatabaseName, TableName)
        for item in PartitionInputList:
            if tuple(item["Values"]) in held:
                detail = {"ErrorCode": "AlreadyExistsException", "ErrorMessage": "Partition already exists."}
                errors.append({"PartitionValues": item["Values"], "ErrorDetail": detail})
            else:
                held[tuple(item["Values"])] = item
        return {"Errors": errors}

    def batch_get_partition(
        self, DatabaseName: str, TableName: str, PartitionsToGet: list[dict[str, Any]]
    ) -> dict[str, Any]:
        self.calls.append("batch_get_partition")
        held = self._held(DatabaseName, TableName)
        return {"Partitions": [held[tuple(p["Values"])] for p in PartitionsToGet if tuple(p["Values"]) in held]}

    def batch_update_partition(
        self, DatabaseName: str, TableName: str, Entries: list[dict[str, Any]]
    ) -> dict[str, Any]:
        self.calls.append("batch_update_partition")
        for entry in Entries:
            self._held(DatabaseName, TableName)[tuple(entry["PartitionValueList"])] = entry["PartitionInput"]
        return {}

    def batch_delete_partition(
        self, DatabaseName: str, TableName: str, PartitionsToDelete: list[dict[str, Any]]
    ) -> dict[str, Any]:
        self.calls.append("batch_delete_partition")
        assert len(PartitionsToDelete) <= 25
        errors = []
        for item in PartitionsToDelete:
            if self._held(DatabaseName, TableName).pop(tuple(item["Values"]), None) is None:
                detail = {"ErrorCode": "EntityNotFoundException", "ErrorMessage": "Partition not found"}
                errors.append({"PartitionValues": item["Values"], "ErrorDetail": detail})
        return {"Errors": errors}

    def get_crawler(self, Name: str) -> dict[str, Any]:
        self.calls.append("get_crawler")
        if Name not in self.crawlers:
            raise fault("EntityNotFoundException", f"Crawler entry with name {Name} does not exist")
        crawler = self.crawlers[Name]
        if crawler["State"] == "RUNNING":
            self._looks -= 1
            if self._looks < 0:
                self._end(crawler)
        return {"Crawler": json.loads(json.dumps(crawler, default=str))}

    def _end(self, crawler: dict[str, Any]) -> None:
        self.crawls += 1
        crawler["State"] = "READY"
        crawler["LastCrawl"] = {
            "Status": "FAILED" if self.fail_crawl else "SUCCEEDED",
            "StartTime": datetime(2024, 5, 1, tzinfo=UTC) + timedelta(minutes=self.crawls),
            "LogGroup": "/aws-glue/crawlers",
            "LogStream": crawler["Name"],
        }
        if self.fail_crawl:
            crawler["LastCrawl"]["ErrorMessage"] = self.fail_crawl
        elif self.crawl is not None:
            self.crawl(self, crawler)

    def create_crawler(self, **request: Any) -> None:
        self.calls.append("create_crawler")
        self.crawlers[request["Name"]] = {**request, "State": "READY"}

    def update_crawler(self, **request: Any) -> None:
        self.calls.append("update_crawler")
        crawler = self.crawlers[request["Name"]]
        if crawler["State"] != "READY":
            raise fault("CrawlerRunningException", f"Crawler with name {request['Name']} is RUNNING")
        crawler.update(request)

    def start_crawler(self, Name: str) -> None:
        self.calls.append("start_crawler")
        crawler = self.crawlers[Name]
        if crawler["State"] != "READY":
            raise fault("CrawlerRunningException", f"Crawler with name {Name} has already started")
        crawler["State"], self._looks = "RUNNING", 2

    def stop_crawler(self, Name: str) -> None:
        self.calls.append("stop_crawler")
        self.crawlers[Name]["State"] = "STOPPING"

    def list_crawls(self, CrawlerName: str, MaxResults: int) -> dict[str, Any]:
        self.calls.append("list_crawls")
        return {"Crawls": [{"DPUHour": 0.05}]}


def crawl_folders(columns: dict[str, list[tuple[str, str]]]) -> Callable[[FakeGlue, dict[str, Any]], None]:
    """A crawl as Glue does it: a table per target, named by its folder, a hash where the name is taken elsewhere."""

    def crawl(glue: FakeGlue, crawler: dict[str, Any]) -> None:
        tables = glue.databases[crawler["DatabaseName"]]
        for target in crawler["Targets"]["S3Targets"]:
            folder = target["Path"].rstrip("/").rsplit("/", 1)[1]
            name = re.sub(r"[^a-z0-9_]", "_", folder.lower())
            taken = tables.get(name)
            if taken and taken["StorageDescriptor"]["Location"].rstrip("/") != target["Path"].rstrip("/"):
                name = f"{name}_5f3a"
            if folder in columns:
                tables[name] = {
                    "Name": name,
                    "Parameters": {"recordCount": "7", "UPDATED_BY_CRAWLER": crawler["Name"]},
                    "StorageDescriptor": {
                        "Location": target["Path"],
                        "Columns": [{"Name": n, "Type": t} for n, t in columns[folder]],
                    },
                    "PartitionKeys": [{"Name": "partition_0", "Type": "string"}],
                }

    return crawl


@dataclass
class FakeAthena:
    """Remembers statements; a view becomes a table of Glue, a count is answered from `counts`."""

    glue: FakeGlue | None = None
    counts: dict[str, int] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)

    def execute(self, sql: str) -> None:
        self.statements.append(sql)
        view = re.match(r'CREATE OR REPLACE VIEW "(\w+)"\."(\w+)"', sql)
        if view and self.glue:
            table: dict[str, Any] = {"Name": view[2], "TableType": "VIRTUAL_VIEW", "Parameters": {}}
            self.glue.databases[view[1]][view[2]] = table

    def query(self, sql: str) -> AthenaResult:
        self.statements.append(sql)
        asked = re.findall(r"SELECT '(\w+)', '([\d-]+)', count", sql)
        rows = Rows(("a", "b", "c"), [(name, day, self.counts.get(name, 0)) for name, day in asked])
        return AthenaResult(rows, "q1", 0, 5, 1, False)


@dataclass
class FakeAws:
    """A connection by service name."""

    clients: dict[str, Any]
    region: str = "eu-west-1"

    def client(self, service: str) -> Any:
        return self.clients[service]
