"""Snapshots made for an export, where the day has none or one of now was asked for by name.

The identifier is derived from the export's (`FAMILY-snapshot[-NONCE]`), so that a retry finds the one which a killed
run began, and so that whoever sees the end of the export knows that its snapshot was made for it alone and may go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from zeroetl_dagster.connections.waiting import Backoff, WaitTimeout, wait_for
from zeroetl_dagster.exports.export_task import POLL, ExportPlan, running_tasks
from zeroetl_dagster.exports.faults import ExportError, code_of, text_of
from zeroetl_dagster.exports.names import slug
from zeroetl_dagster.exports.snapshots import Snapshot, read
from zeroetl_dagster.settings.exports import ExportSource

TAG = "zeroetl:export"
_GONE = ("DBClusterSnapshotNotFoundFault", "DBSnapshotNotFound")
_EXISTS = ("DBClusterSnapshotAlreadyExistsFault", "DBSnapshotAlreadyExists")
_ADVICE = {
    "InvalidDBClusterStateFault": "a snapshot needs an available cluster: run the partition again when it is",
    "InvalidDBInstanceState": "a snapshot needs an available instance: run the partition again when it is",
    "SnapshotQuotaExceeded": "delete manual snapshots that nobody needs, or ask AWS for a higher quota",
}


@dataclass(frozen=True)
class OwnSnapshot:
    """The snapshot that belongs to one export. `report` hears what is done."""

    rds: Any
    source: ExportSource
    plan: ExportPlan
    report: Callable[[str], None]
    poll: Backoff = POLL

    @property
    def identifier(self) -> str:
        """At most 63 characters, as RDS allows."""
        return f"{_stem(self.plan)}-{slug(self.plan.nonce, 8)}" if self.plan.nonce else _stem(self.plan)

    def find(self) -> Snapshot | None:
        """It, whatever its status; None where it was never begun."""
        return read(self.rds, self.source, self.identifier)

    def make(self, *, timeout_seconds: float) -> Snapshot:
        """Take it, unless it was begun before, and wait until it is available. Raises `ExportError`."""
        self._begin()
        try:
            found = wait_for(
                self._read,
                until=lambda snapshot: snapshot.available or snapshot.status == "failed",
                describe=lambda snapshot: f"snapshot {snapshot.identifier} {snapshot.status} {snapshot.percent} %",
                timeout_seconds=timeout_seconds,
                report=self.report,
                poll=self.poll,
            )
        except WaitTimeout as error:
            raise ExportError(f"{error}. It goes on: run the partition again to wait on", retryable=True) from error
        if not found.available:
            raise ExportError(
                f"snapshot {self.identifier} of {self.source.identifier} failed: see the events of the source in RDS, "
                f"delete the snapshot and run the partition again"
            )
        return found

    def _begin(self) -> None:
        tags = [{"Key": TAG, "Value": self.plan.pipeline}]
        try:
            if self.source.is_cluster:
                self.rds.create_db_cluster_snapshot(
                    DBClusterSnapshotIdentifier=self.identifier,
                    DBClusterIdentifier=self.source.identifier,
                    Tags=tags,
                )
            else:
                self.rds.create_db_snapshot(
                    DBSnapshotIdentifier=self.identifier, DBInstanceIdentifier=self.source.identifier, Tags=tags
                )
        except ClientError as error:
            if code_of(error) in _EXISTS:
                return
            raise self._refused(error) from error
        self.report(f"snapshot {self.identifier} of {self.source.identifier} begun")

    def _read(self) -> Snapshot:
        found = self.find()
        if found is None:
            raise ExportError(f"snapshot {self.identifier} was deleted while it was made", retryable=True)
        return found

    def _refused(self, error: ClientError) -> ExportError:
        code = code_of(error)
        advice = _ADVICE.get(code, "")
        if code in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"):
            action = "CreateDBClusterSnapshot" if self.source.is_cluster else "CreateDBSnapshot"
            advice = f"allow rds:{action} and rds:AddTagsToResource, or set `make_snapshot: never`"
        return ExportError(
            f"AWS refused a snapshot of {self.source.identifier}: {text_of(error) or code} [{code}]."
            + (f" What to do: {advice}." if advice else ""),
            retryable=code.startswith("InvalidDB"),
        )


def drop(rds: Any, source: ExportSource, plan: ExportPlan, source_arn: str, report: Callable[[str], None]) -> None:
    """Delete the snapshot at `source_arn` if it was made for an export of this day and these tables.

    One that is not ours is left alone. What AWS refuses is reported: the export itself is done.
    """
    identifier = source_arn.rpartition("snapshot:")[2]
    if identifier != _stem(plan) and not identifier.startswith(f"{_stem(plan)}-"):
        return
    if running_tasks(rds, source_arn):
        report(f"snapshot {identifier}, made for this export, is being exported by somebody else and stays")
        return
    try:
        if source.is_cluster:
            rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=identifier)
        else:
            rds.delete_db_snapshot(DBSnapshotIdentifier=identifier)
    except ClientError as error:
        if code_of(error) not in _GONE:
            report(f"snapshot {identifier}, made for this export, could not be deleted: {text_of(error)}")
        return
    report(f"snapshot {identifier}, made for this export, was deleted (`keep_made_snapshots: true` keeps them)")


def _stem(plan: ExportPlan) -> str:
    return f"{plan.family}-snapshot"
