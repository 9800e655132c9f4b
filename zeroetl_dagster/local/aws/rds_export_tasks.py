"""Export tasks of the embedded RDS: a snapshot's or a live cluster's data as Parquet in S3.

The request is checked as AWS checks it, the task is remembered for ever (an identifier is never free again), and
`export_run.py` does the work. Aurora guide, "Exporting DB cluster snapshot data to Amazon S3".
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.aws import policy
from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.export_run import ACTIVE, SERVICE, ExportRuns, role_problem
from zeroetl_dagster.local.aws.rds_backups import Backups
from zeroetl_dagster.local.aws.rds_resources import Document, filtered
from zeroetl_dagster.local.aws.rds_snapshot_kinds import CLUSTER_SNAPSHOT, KINDS
from zeroetl_dagster.local.aws.service import Call
from zeroetl_dagster.local.aws.snapshot_data import Capture, Table, read_manifest
from zeroetl_dagster.local.aws.snapshot_runs import EXPORT
from zeroetl_dagster.local.aws.times import moment

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.transitions import Transitions
    from zeroetl_dagster.local.world import World

MAX_ACTIVE = 5  # "up to five concurrent DB snapshot export tasks in progress per AWS account"
MAX_ONLY_BYTES = 200 * 1024
_IDENTIFIER = re.compile(r"[A-Za-z](?:-?[A-Za-z0-9]+)*")
_PLAIN = re.compile(r"[A-Za-z0-9_$]+(?:\.[A-Za-z0-9_$]+){0,2}")


class ExportTasks(Backups):
    """Operations on export tasks."""

    def __init__(self, world: World, transitions: Transitions) -> None:
        super().__init__(world, transitions)
        self.exports = ExportRuns(world, self.runs.root, self.runs.sweep)
        self._starting = threading.Lock()

    def start_export_task(self, call: Call) -> Document:
        name = _identifier(call)
        if self.store.get(EXPORT, call.key(name)) is not None:
            raise _exists(name)
        if ":" in call.params.get("S3Prefix", ""):
            raise AwsError("InvalidParameterValue", "The S3 prefix may not contain a colon (:).")
        source, capture = self._export_source(call)
        try:
            return self._start(call, name, source, capture)
        except BaseException:
            if capture is not None:
                capture.close()
            raise

    def _start(self, call: Call, name: str, source: Document, capture: Capture | None) -> Document:
        self._require_place(call)
        role = self._role(call)
        key_arn = self._key_arn(call, call.params["KmsKeyId"])
        only = call.params.get("ExportOnly", [])
        tables = capture.tables if capture is not None else read_manifest(self.runs.root / source["data"])
        _check_only(only, tables)
        task = {
            "ExportTaskIdentifier": name,
            "S3Bucket": call.params["S3BucketName"],
            "S3Prefix": call.params.get("S3Prefix", "").strip("/"),
            "IamRoleArn": role["Arn"],
            "KmsKeyId": key_arn,
            "Status": "STARTING",
            "PercentProgress": 0,
            "TotalExtractedDataInGB": 0,
            **({"ExportOnly": only} if only else {}),
            **source,
            "requested_at": time.time(),
        }
        with self._starting:  # two calls at once must not both find the last place free
            self._require_free(call, source["SourceArn"])
            if not self.store.insert(EXPORT, call.key(name), task):
                raise _exists(name)
        self.exports.begin(call.key(name), capture)
        return shown(task)

    def describe_export_tasks(self, call: Call) -> Document:
        call.only("ExportTaskIdentifier", "SourceArn", "SourceType", "Filters", "MaxRecords", "Marker")
        found = self.store.list(EXPORT, call.prefix)
        found.sort(key=lambda task: -task["requested_at"])
        if name := call.params.get("ExportTaskIdentifier"):
            found = [task for task in found if task["ExportTaskIdentifier"] == name]
            if not found:
                raise AwsError("ExportTaskNotFound", f"Unable to find export task {name}.")
        for member in ("SourceArn", "SourceType"):
            if wanted := call.params.get(member):
                found = [task for task in found if task[member] == wanted]
        filters = {
            "export-task-identifier": lambda task: task["ExportTaskIdentifier"],
            "s3-bucket": lambda task: task["S3Bucket"],
            "source-arn": lambda task: task["SourceArn"],
            "status": lambda task: task["Status"].lower(),
        }
        return self.paged(call, "ExportTasks", [shown(task) for task in filtered(call, found, filters)])

    def cancel_export_task(self, call: Call) -> Document:
        name = call.params["ExportTaskIdentifier"]
        found = self.store.get(EXPORT, call.key(name))
        if found is None:
            raise AwsError("ExportTaskNotFound", f"Unable to find export task {name}.")

        def cancel(task: Document) -> Document:
            if task["Status"] not in ("STARTING", "IN_PROGRESS"):
                raise AwsError(
                    "InvalidExportTaskStateFault",
                    f"You can't cancel the export task {name}: it has the status {task['Status']}.",
                )
            return {**task, "Status": "CANCELING"}

        return shown(self.store.update(EXPORT, call.key(name), cancel))

    def resume_exports(self) -> None:
        """Go on with tasks that a kill interrupted."""
        self.exports.resume()

    def stop_exports(self) -> None:
        """Leave the running tasks as they are, for the next start."""
        self.exports.stop()

    # ---- what is checked -------------------------------------------------------------------------------------------

    def _export_source(self, call: Call) -> tuple[Document, Capture | None]:
        """Members of the task that tell of its source; for a live cluster also its moment, taken now."""
        arn = call.params["SourceArn"]
        parts = arn.split(":", 6)
        kind = parts[5] if len(parts) == 7 and parts[:3] == ["arn", "aws", "rds"] else ""
        for snapshot in KINDS:
            if kind != snapshot.arn_type:
                continue
            _, found = self.find_snapshot(snapshot, call, arn)
            if found["Status"] != "available":
                raise AwsError(
                    "InvalidExportSourceState",
                    f"The snapshot {parts[6]} has the status {found['Status']}; only an available one is exported.",
                )
            members = {"SourceArn": arn, "SourceType": "SNAPSHOT", "SnapshotTime": found["taken_at"]}
            return {**members, "data": found["data"]}, None
        if kind == "cluster":
            if parts[3:5] != [call.region, call.account]:
                raise AwsError("DBClusterNotFoundFault", f"DBCluster {parts[6]} not found.")
            key, cluster = self.find_cluster(call, arn)
            if cluster["Status"] != "available":
                message = f"The cluster {parts[6]} has the status {cluster['Status']}; it must be available."
                raise AwsError("InvalidExportSourceState", message)
            capture = self.capture(CLUSTER_SNAPSHOT, key)
            members = {"SourceArn": arn, "SourceType": "CLUSTER", "SnapshotTime": capture.moment}
            return {**members, "data": self.runs.place().name}, capture
        raise AwsError(
            "InvalidParameterValue", f"Invalid SourceArn: {arn}. It is the ARN of a snapshot or of an Aurora cluster."
        )

    def _require_place(self, call: Call) -> None:
        if self.world.objects.bucket(call.params["S3BucketName"]) is None:
            raise AwsError(
                "InvalidS3BucketFault",
                f"The S3 bucket {call.params['S3BucketName']} isn't valid. Make sure it's located in the current AWS "
                "Region and that it exists. Review your S3 bucket name and retry the export.",
            )

    def _role(self, call: Call) -> Document:
        """The export role, which the caller may pass and the service may use. Raises `AwsError`."""
        arn = call.params["IamRoleArn"]
        role = self.identities.role(arn)
        if role is None or arn.split(":")[4] != call.account:
            raise AwsError("IamRoleNotFound", f"The IAM role {arn} is missing for exporting to S3.")
        caller = self.identities.caller(call.caller.access_key)
        self.identities.require_pass_role(caller, arn, SERVICE)
        if not self.identities.role_trusts(role, policy.Principal(service=SERVICE)):
            raise AwsError(
                "IamRoleMissingPermissions",
                f"The service {SERVICE} can't assume the IAM role {arn}: its trust policy does not allow it.",
            )
        bucket = self.world.objects.bucket(call.params["S3BucketName"])
        problem = role_problem(self.world, role, bucket, call.params.get("S3Prefix", "")) if bucket else None
        if problem:
            raise AwsError("IamRoleMissingPermissions", problem)
        return role

    def _require_free(self, call: Call, source_arn: str) -> None:
        active = [task for task in self.store.list(EXPORT, f"{call.account}/") if task["Status"] in ACTIVE]
        if any(task["SourceArn"] == source_arn for task in active):
            raise AwsError(
                "InvalidExportSourceState",
                f"{source_arn} is being exported; only one export task at a time runs for a source.",
            )
        if len(active) >= MAX_ACTIVE:
            raise AwsError(
                "ExportTaskLimitReachedFault",
                f"You have reached the limit of {MAX_ACTIVE} export tasks in progress in this account.",
            )


def shown(task: Document) -> Document:
    """A task as AWS answers it."""
    made: dict[str, Any] = {name: value for name, value in task.items() if name[0].isupper()}
    for name in ("SnapshotTime", "TaskStartTime", "TaskEndTime"):
        if name in made:
            made[name] = moment(made[name])
    return made


def _identifier(call: Call) -> str:
    name: str = call.params["ExportTaskIdentifier"]
    if len(name) > 60 or not _IDENTIFIER.fullmatch(name):
        raise AwsError(
            "InvalidParameterValue",
            f"The parameter ExportTaskIdentifier is not a valid identifier: {name}. It has at most 60 letters, digits "
            "and hyphens, begins with a letter, does not end with a hyphen and has no two in a row.",
        )
    return name


def _exists(name: str) -> AwsError:
    return AwsError("ExportTaskAlreadyExists", f"The export task with the ID {name} already exists.")


def _check_only(only: list[str], tables: list[Table]) -> None:
    """`database`, `database.schema`, `database.schema.table`, each of them there. Raises `AwsError`."""
    if sum(len(item.encode()) for item in only) > MAX_ONLY_BYTES:
        raise AwsError("InvalidExportOnly", "The ExportOnly list has a maximum size of 200 KB.")
    known: set[str] = set()
    for table in tables:
        known |= {table.database, f"{table.database}.{table.schema}", table.target}
    for item in only:
        if not _PLAIN.fullmatch(item):
            raise AwsError(
                "InvalidExportOnly",
                f"The export is invalid: {item!r} is not database, database.schema or database.schema.table of "
                "letters, digits, $ and _. Export everything instead.",
            )
        if item not in known:
            raise AwsError("InvalidExportOnly", f"The export is invalid: {item} does not exist in the source.")
