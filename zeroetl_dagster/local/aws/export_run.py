"""One export task from STARTING to its end: its own thread, its state in the store, its files in S3.

A task that a stop or a kill interrupted is run again from its snapshot (what it had written is removed first); one of
a live cluster only if its clone was complete. Two tasks write at once, the others wait in STARTING, as AWS's do for
hours.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws import policy
from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.export_files import ValueTooLarge, mappings, skip_reason, write_table
from zeroetl_dagster.local.aws.identities import Identities
from zeroetl_dagster.local.aws.kms import Keys
from zeroetl_dagster.local.aws.snapshot_data import Capture, RowTooLarge, Table, read_manifest
from zeroetl_dagster.local.aws.snapshot_runs import EXPORT

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.s3_objects import Bucket
    from zeroetl_dagster.local.world import World

log = logging.getLogger("zeroetl.local.rds")

Document = dict[str, Any]
SERVICE = "export.rds.amazonaws.com"
ACTIVE = ("STARTING", "IN_PROGRESS", "CANCELING")
WRITING_AT_ONCE = 2
TABLES_A_FILE = 100
TELL_SECONDS = 0.2  # how often the percentage is written down, and a cancellation looked for
_GB = 1 << 30
# What the export role must be allowed (Aurora guide, "Providing access to an Amazon S3 bucket using an IAM role").
_ON_BUCKET = ("s3:ListBucket", "s3:GetBucketLocation")
_ON_OBJECTS = ("s3:PutObject", "s3:GetObject", "s3:DeleteObject")


class ExportFailed(Exception):
    """The task ends FAILED with this cause."""


class ExportCanceled(Exception):
    """Somebody called cancel_export_task."""


def role_problem(world: World, role: Mapping[str, Any], bucket: Bucket, prefix: str) -> str | None:
    """What the role may not do with the bucket, in AWS's words."""
    identities = Identities.of_world(world)
    base = f"arn:aws:s3:::{bucket.name}"
    path = f"{base}/{prefix.strip('/')}/x" if prefix.strip("/") else f"{base}/x"
    wanted = [*((action, base) for action in _ON_BUCKET), *((action, path) for action in _ON_OBJECTS)]
    for action, resource in wanted:
        if not identities.role_may_use_bucket(role, bucket, action, resource):
            return (
                f"The IAM role {role['Arn']} isn't authorized to call {action} on the S3 bucket {bucket.name}. Review "
                "your permissions and retry the export."
            )
    return None


class _Stopped(Exception):
    """The embedded AWS stops; the task goes on at its next start."""


class ExportRuns:
    """The running tasks. `snapshots` is the folder of the snapshots' data, `released` is called when one is free."""

    def __init__(self, world: World, snapshots: Path, released: Callable[[], None]) -> None:
        self._world, self._snapshots, self._released = world, snapshots, released
        self._store = world.store
        self._writing = threading.Semaphore(WRITING_AT_ONCE)
        self._stopped = threading.Event()
        self._running: dict[threading.Thread, Capture | None] = {}
        self._lock = threading.Lock()

    def begin(self, key: str, capture: Capture | None) -> None:
        thread = threading.Thread(target=self._run, args=(key, capture), name=f"export-{key}", daemon=True)
        with self._lock:
            self._running[thread] = capture
        thread.start()

    def resume(self) -> None:
        for key, task in self._store.items(EXPORT):
            if task["Status"] in ACTIVE:
                self.begin(key, None)

    def stop(self) -> None:
        """End the threads; the tasks keep their status for `resume`."""
        self._stopped.set()
        with self._lock:
            running = dict(self._running)
        for thread, capture in running.items():
            if capture is not None:
                capture.interrupt(thread)
            thread.join()

    # ---- one task --------------------------------------------------------------------------------------------------

    def _run(self, key: str, capture: Capture | None) -> None:
        try:
            outcome = self._outcome(key, capture)
        finally:
            if capture is not None:
                capture.close()
            with self._lock:
                self._running.pop(threading.current_thread())
        if self._stopped.is_set():
            return
        task = self._store.update(EXPORT, key, lambda held: _concluded(held, outcome))
        if task["SourceType"] == "CLUSTER":
            shutil.rmtree(self._snapshots / task["data"], ignore_errors=True)
        self._released()

    def _outcome(self, key: str, capture: Capture | None) -> Document:
        """The members that the task ends with."""
        try:
            self._clone(key, capture)
            self._wait_for_place(key)
            try:
                return {"Status": "COMPLETE", "PercentProgress": 100, **self._export(key)}
            finally:
                self._writing.release()
        except ExportCanceled:
            return {"Status": "CANCELED"}
        except ExportFailed as error:
            return {"Status": "FAILED", "FailureCause": str(error)}
        except Exception:
            if not self._stopped.is_set():
                log.exception("export %s", key)
            return {"Status": "FAILED", "FailureCause": "An unknown internal error occurred."}

    def _wait_for_place(self, key: str) -> None:
        """As long as AWS restores the snapshot, and until two others do not write."""
        ready_at = time.monotonic() + self._world.delays.creating_seconds
        while time.monotonic() < ready_at:
            self._stop_if_asked(key)
            self._stopped.wait(min(max(ready_at - time.monotonic(), 0), 0.2))
        while not self._writing.acquire(timeout=0.2):
            self._stop_if_asked(key)

    def _clone(self, key: str, capture: Capture | None) -> None:
        """A live cluster's data, put aside as AWS clones the cluster."""
        task = self._task(key)
        if task["SourceType"] == "CLUSTER" and capture is not None:
            capture.write(self._snapshots / task["data"], lambda part: self._stop_if_asked(key))
            capture.close()

    def _export(self, key: str) -> Document:
        self._stop_if_asked(key)
        task = self._change(key, TaskStartTime=time.time())
        self._check_access(key, task)
        folder = self._snapshots / task["data"]
        try:
            tables = read_manifest(folder)
        except FileNotFoundError:
            raise ExportFailed("An unknown internal error occurred.") from None
        chosen = [table for table in tables if _is_wanted(table, task.get("ExportOnly", []))]
        writer = _TaskWriter(self, key, task, folder, chosen)
        writer.clear()
        self._change_unless_canceling(key, Status="IN_PROGRESS", PercentProgress=0)
        return writer.write()

    def _check_access(self, key: str, task: Document) -> None:
        """Role, bucket and key may have changed since the task was asked for. Raises `ExportFailed`."""
        account, region, _ = key.split("/", 2)
        identities = Identities.of_world(self._world)
        bucket = self._world.objects.bucket(task["S3Bucket"])
        if bucket is None:
            raise ExportFailed(
                f"The S3 bucket {task['S3Bucket']} isn't valid. Make sure it's located in the current AWS Region and "
                "that it exists. Review your S3 bucket name and retry the export."
            )
        if bucket.region != region:
            raise ExportFailed(
                f"The S3 bucket {bucket.name} isn't located in the current AWS Region. Please, review your S3 bucket "
                "name and retry the export."
            )
        role = identities.role(task["IamRoleArn"])
        if role is None or not identities.role_trusts(role, policy.Principal(service=SERVICE)):
            raise ExportFailed(
                "The RDS export failed to write the export task's metadata because it can't assume the IAM role "
                f"{task['IamRoleArn']}."
            )
        problem = role_problem(self._world, role, bucket, task["S3Prefix"])
        if problem:
            raise ExportFailed(problem)
        try:
            state = Keys(self._world.store).describe(account, region, task["KmsKeyId"])["KeyState"]
        except AwsError:
            state = "deleted"
        if state != "Enabled":
            raise ExportFailed(f"The export task can't use the KMS key {task['KmsKeyId']}: it is {state}.")

    def _stop_if_asked(self, key: str) -> None:
        if self._stopped.is_set():
            raise _Stopped
        if self._task(key)["Status"] == "CANCELING":
            raise ExportCanceled

    def _task(self, key: str) -> Document:
        found = self._store.get(EXPORT, key)
        assert found is not None
        return found

    def _change(self, key: str, **members: Any) -> Document:
        return self._store.update(EXPORT, key, lambda task: {**task, **members})

    def _change_unless_canceling(self, key: str, **members: Any) -> None:
        def change(task: Document) -> Document:
            if task["Status"] == "CANCELING":
                raise ExportCanceled
            return {**task, **members}

        self._store.update(EXPORT, key, change)


class _TaskWriter:
    """Writes the tables and the manifest of one task."""

    def __init__(self, runs: ExportRuns, key: str, task: Document, folder: Path, tables: list[Table]) -> None:
        self._runs, self._key, self._task, self._folder, self._tables = runs, key, task, folder, tables
        self._objects = runs._world.objects
        name = task["ExportTaskIdentifier"]
        self._root = f"{task['S3Prefix']}/{name}/" if task["S3Prefix"] else f"{name}/"
        self._headers = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": task["KmsKeyId"]}
        self._total = sum(table.text_bytes for table in tables) or 1
        self._done = 0
        self._told = 0.0

    def clear(self) -> None:
        """What an interrupted run of this task has left."""
        self._objects.delete_prefix(self._task["S3Bucket"], self._root)

    def write(self) -> Document:
        """The members that the task ends with. Raises `ExportCanceled`, `ExportFailed`."""
        entries, skipped = [], []
        for table in self._tables:
            self._runs._stop_if_asked(self._key)
            started = time.time()
            reason = skip_reason(table)
            if reason is None:
                reason = self._write(table)
            if reason is None:
                entries.append(_entry(table, started))
            else:
                entries.append({"status": "SKIPPED", "target": table.target, "warningMessage": reason})
                skipped.append({"tableName": table.target, "reason": reason})
        gigabytes = int(sum(table.text_bytes for table in self._tables) / _GB)
        self._runs._stop_if_asked(self._key)
        self._write_manifest(entries, gigabytes)
        made: Document = {"TotalExtractedDataInGB": gigabytes}
        if skipped:
            made["WarningMessage"] = json.dumps({"skippedTables": skipped, "skippedObjectives": [], "general": []})
        return made

    def _write(self, table: Table) -> str | None:
        """The reason for which the table had to be skipped after all."""
        before = self._done
        try:
            write_table(
                self._objects,
                self._task["S3Bucket"],
                self._root,
                self._folder,
                table,
                headers=self._headers,
                progress=self._progress,
            )
        except RowTooLarge:
            self._done = before + table.text_bytes
            return "ROW_SIZE_TOO_LARGE"
        except ValueTooLarge as error:
            raise ExportFailed(f"{error}. The export was stopped.") from None
        return None

    def _progress(self, size: int) -> None:
        self._done += size
        now = time.time()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            self._runs._stop_if_asked(self._key)
            percent = min(int(100 * self._done / self._total), 99)
            self._runs._change_unless_canceling(self._key, PercentProgress=percent)

    def _write_manifest(self, entries: list[Document], gigabytes: int) -> None:
        name, bucket = self._task["ExportTaskIdentifier"], self._task["S3Bucket"]
        for first in range(0, max(len(entries), 1), TABLES_A_FILE):
            part = entries[first : first + TABLES_A_FILE]
            key = f"{self._root}export_tables_info_{name}_from_{first + 1}_to_{max(first + len(part), 1)}.json"
            self._objects.put(bucket, key, json.dumps({"perTableStatus": part}).encode(), self._headers)
        info = {
            "exportTaskIdentifier": name,
            "sourceArn": self._task["SourceArn"],
            "exportOnly": self._task.get("ExportOnly", []),
            "snapshotTime": _written(self._task["SnapshotTime"]),
            "taskStartTime": _written(self._task["TaskStartTime"]),
            "taskEndTime": _written(time.time()),
            "s3Bucket": bucket,
            "s3Prefix": self._task["S3Prefix"],
            "exportedFilesPath": self._root.rstrip("/"),
            "iamRoleArn": self._task["IamRoleArn"],
            "kmsKeyId": self._task["KmsKeyId"],
            "status": "COMPLETE",
            "percentProgress": 100,
            "totalExportedDataInGB": gigabytes,
        }
        self._objects.put(bucket, f"{self._root}export_info_{name}.json", json.dumps(info).encode(), self._headers)


def _concluded(task: Document, outcome: Document) -> Document:
    """A task at its end; what was cancelled at the last moment is not complete."""
    if task["Status"] == "CANCELING" and outcome["Status"] == "COMPLETE":
        outcome = {"Status": "CANCELED"}
    return {**task, **outcome, "TaskEndTime": time.time()}


def _entry(table: Table, started: float) -> Document:
    return {
        "TableStatistics": {
            "extractionStartTime": _written(started),
            "extractionEndTime": _written(time.time()),
            "partitioningInfo": {"numberOfPartitions": 1, "numberOfCompletedPartitions": 1},
        },
        "schemaMetadata": {"originalTypeMappings": mappings(table)},
        "status": "COMPLETE",
        "sizeGB": table.text_bytes / _GB,
        "target": table.target,
    }


def _is_wanted(table: Table, only: list[str]) -> bool:
    names = (table.database, f"{table.database}.{table.schema}", table.target)
    return not only or any(name in only for name in names)


def _written(epoch: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
