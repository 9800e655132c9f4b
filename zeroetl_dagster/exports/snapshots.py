"""Snapshots: which one stands for a day, and why a day has none.

A partition's day is the day, in a configured time zone, at which the snapshot was taken. Names are never guessed: the
minute in `rds:NAME-YYYY-MM-DD-hh-mm` cannot be known, so snapshots are listed (all pages) and the newest **available**
one of the day is taken. Cluster and instance snapshots have their own API calls, members and ARNs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Any, Literal

from botocore.exceptions import ClientError

from zeroetl_dagster.settings.exports import ExportSource

AVAILABLE = "available"
_COMING = ("creating", "copying")


class SourceNotFound(Exception):
    """Neither the source nor a snapshot of it is there."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of the source. `taken_at` (UTC) is None while AWS has not said; `size_gb` as AWS states it."""

    arn: str
    identifier: str
    status: str
    kind: str
    taken_at: datetime | None
    percent: int
    size_gb: float | None

    @property
    def available(self) -> bool:
        return self.status == AVAILABLE and self.taken_at is not None


@dataclass(frozen=True)
class NoSnapshot:
    """A day without an available snapshot: an outcome of its own. `may_come` is true where waiting can help."""

    day: date
    reason: Literal["beyond retention", "creating", "not yet", "none"]
    message: str

    @property
    def may_come(self) -> bool:
        return self.reason in ("creating", "not yet")


@dataclass(frozen=True)
class BackupPlan:
    """What the source says of its automated snapshots; `window` is `hh:mm-hh:mm` in UTC."""

    retention_days: int
    window: str


def find(
    rds: Any, source: ExportSource, day: date, *, zone: tzinfo, kinds: Sequence[str], now: datetime
) -> Snapshot | NoSnapshot:
    """The newest available snapshot of `day`, or why there is none.

    Raises `SourceNotFound` when there is neither such a source nor any snapshot of it.
    """
    snapshots = list_snapshots(rds, source, kinds)
    chosen = choose(snapshots, day, zone)
    if chosen is not None:
        return chosen
    plan = backup_plan(rds, source)
    if plan is None and not snapshots:
        what = "cluster" if source.is_cluster else "instance"
        raise SourceNotFound(
            f"there is no {what} {source.identifier!r} in this account and Region, and no snapshot of it: check "
            f"`source.{what}`, `source.aws` and the Region of that connection"
        )
    return explain(snapshots, day, zone=zone, plan=plan, now=now, source=source.identifier)


def list_snapshots(rds: Any, source: ExportSource, kinds: Iterable[str]) -> list[Snapshot]:
    """Every snapshot of the source of these types, whatever its status (all pages)."""
    found: dict[str, Snapshot] = {}
    operation, members, identifier = (
        ("describe_db_cluster_snapshots", "DBClusterSnapshots", "DBClusterIdentifier")
        if source.is_cluster
        else ("describe_db_snapshots", "DBSnapshots", "DBInstanceIdentifier")
    )
    for kind in kinds:
        pages = rds.get_paginator(operation).paginate(**{identifier: source.identifier, "SnapshotType": kind})
        for page in pages:
            for item in page[members]:
                snapshot = _cluster_snapshot(item) if source.is_cluster else _instance_snapshot(item)
                found[snapshot.arn] = snapshot
    return list(found.values())


def read(rds: Any, source: ExportSource, identifier: str) -> Snapshot | None:
    """The manual snapshot of this name, whatever its status."""
    try:
        if source.is_cluster:
            found = rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=identifier)["DBClusterSnapshots"]
            return _cluster_snapshot(found[0]) if found else None
        found = rds.describe_db_snapshots(DBSnapshotIdentifier=identifier)["DBSnapshots"]
        return _instance_snapshot(found[0]) if found else None
    except ClientError as error:
        if error.response["Error"]["Code"] in ("DBClusterSnapshotNotFoundFault", "DBSnapshotNotFound"):
            return None
        raise


def choose(snapshots: Iterable[Snapshot], day: date, zone: tzinfo) -> Snapshot | None:
    """The newest available snapshot whose date in `zone` is `day`."""
    of_day = [s for s in snapshots if s.available and s.taken_at and s.taken_at.astimezone(zone).date() == day]
    return max(of_day, key=lambda s: (s.taken_at, s.identifier), default=None)


def explain(
    snapshots: Sequence[Snapshot], day: date, *, zone: tzinfo, plan: BackupPlan | None, now: datetime, source: str
) -> NoSnapshot:
    """Why `day` has no available snapshot, and what can be done about it."""
    today = now.astimezone(zone).date()
    of_day = [s for s in snapshots if (s.taken_at.astimezone(zone).date() if s.taken_at else today) == day]
    coming = [s for s in of_day if s.status in _COMING]
    if coming:
        names = ", ".join(f"{s.identifier} ({s.status}, {s.percent} %)" for s in coming)
        return NoSnapshot(day, "creating", f"the snapshot of {day} is not ready yet: {names}")
    if of_day:
        names = ", ".join(f"{s.identifier} ({s.status})" for s in of_day)
        return NoSnapshot(day, "none", f"{source} has a snapshot of {day}, but none that is available: {names}")
    if day >= today:
        window = f"; its backup window is {plan.window} UTC" if plan and plan.window else ""
        advice = "" if day > today else ". Take one by hand, or schedule the export after the window"
        return NoSnapshot(day, "not yet", f"{source} has no snapshot of {day} ({zone}) yet{window}{advice}")
    newest = max((s.taken_at for s in snapshots if s.taken_at), default=None)
    seen = f" The newest is of {newest.astimezone(zone):%Y-%m-%d %H:%M}." if newest else " There is none at all."
    if plan is not None and plan.retention_days == 0:
        return NoSnapshot(
            day, "none", f"{source} takes no automated snapshots: its BackupRetentionPeriod is 0.{seen} Set it to 1-35"
        )
    if plan is not None and day < today - timedelta(days=plan.retention_days):
        return NoSnapshot(
            day,
            "beyond retention",
            f"the snapshots of {day} are gone: {source} keeps automated ones for {plan.retention_days} days "
            f"(BackupRetentionPeriod); only a manual snapshot could be older.{seen}",
        )
    return NoSnapshot(day, "none", f"no snapshot of {source} was taken on {day} ({zone}).{seen}")


def backup_plan(rds: Any, source: ExportSource) -> BackupPlan | None:
    """Retention and window of the source; None when it is gone (its snapshots may outlive it)."""
    try:
        if source.is_cluster:
            item = rds.describe_db_clusters(DBClusterIdentifier=source.identifier)["DBClusters"][0]
        else:
            item = rds.describe_db_instances(DBInstanceIdentifier=source.identifier)["DBInstances"][0]
    except ClientError as error:
        if error.response["Error"]["Code"] in ("DBClusterNotFoundFault", "DBInstanceNotFound"):
            return None
        raise
    return BackupPlan(item.get("BackupRetentionPeriod", 0), item.get("PreferredBackupWindow", ""))


def _cluster_snapshot(item: dict[str, Any]) -> Snapshot:
    return Snapshot(
        arn=item["DBClusterSnapshotArn"],
        identifier=item["DBClusterSnapshotIdentifier"],
        status=item.get("Status", ""),
        kind=item.get("SnapshotType", ""),
        taken_at=item.get("SnapshotCreateTime"),
        percent=item.get("PercentProgress", 0),
        size_gb=item.get("AllocatedStorage") or None,
    )


def _instance_snapshot(item: dict[str, Any]) -> Snapshot:
    size = item.get("FullSnapshotSizeInBytes")
    return Snapshot(
        arn=item["DBSnapshotArn"],
        identifier=item["DBSnapshotIdentifier"],
        status=item.get("Status", ""),
        kind=item.get("SnapshotType", ""),
        # Of a copy, SnapshotCreateTime is when it was copied; the data are of OriginalSnapshotCreateTime.
        taken_at=item.get("OriginalSnapshotCreateTime") or item.get("SnapshotCreateTime"),
        percent=item.get("PercentProgress", 0),
        size_gb=size / 1024**3 if size else item.get("AllocatedStorage") or None,
    )
