"""Automated snapshots of the embedded RDS: `rds:<source>-yyyy-mm-dd-hh-mm`, one a day, kept for the retention period.

The first is taken soon after a cluster or an instance is there, as RDS does, then one in each backup window (UTC), or
later where nobody was there to take it. Nothing waits for a window: `take_due_backups` may be asked with any time.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
from typing import TYPE_CHECKING

from zeroetl_dagster.local.aws.rds_postgres_instances import POSTGRES
from zeroetl_dagster.local.aws.rds_resources import CLUSTER, Document
from zeroetl_dagster.local.aws.rds_snapshot_kinds import CLUSTER_SNAPSHOT, INSTANCE_SNAPSHOT, SnapshotKind
from zeroetl_dagster.local.aws.rds_snapshots import Snapshots, server_of

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.transitions import Transitions
    from zeroetl_dagster.local.world import World

log = logging.getLogger("zeroetl.local.rds")

BACKUP_CHECK_SECONDS = 30.0
_SOURCES = ((CLUSTER_SNAPSHOT, CLUSTER), (INSTANCE_SNAPSHOT, POSTGRES))


class Backups(Snapshots):
    """Takes automated snapshots as they come due, and lets them expire."""

    def __init__(self, world: World, transitions: Transitions) -> None:
        super().__init__(world, transitions)
        self._backups_stopped = threading.Event()
        self._backups: threading.Thread | None = None

    def resume_snapshots(self) -> None:
        """Settle what a kill interrupted, then take automated snapshots as they come due."""
        self.runs.resume()
        self._backups = threading.Thread(target=self._back_up, name="automated-backups", daemon=True)
        self._backups.start()

    def stop_snapshots(self) -> None:
        """End the backups and the snapshots that are being written."""
        self._backups_stopped.set()
        if self._backups is not None:
            self._backups.join(timeout=10)
        self.runs.stop()

    def _back_up(self) -> None:
        while not self._backups_stopped.wait(BACKUP_CHECK_SECONDS):
            self.take_due_backups(time.time())

    def take_due_backups(self, now: float) -> list[str]:
        """Take the automated snapshots that are due at `now` (epoch seconds), drop those beyond retention; the names
        of the new ones."""
        taken = []
        for kind, sources in _SOURCES:
            for key, source in self.store.items(sources):
                try:
                    name = self._due_backup(kind, key, source, now)
                    if name and self.take(kind, key, source, name, "automated", []) is not None:
                        taken.append(name)
                except Exception:  # the next check tries again; other sources must not wait for this one
                    log.exception("automated snapshot of %s", key)
            self._expire(kind, sources, now)
        return taken

    def _due_backup(self, kind: SnapshotKind, key: str, source: Document, now: float) -> str | None:
        status = source["Status" if kind is CLUSTER_SNAPSHOT else "DBInstanceStatus"]
        ready = status == "available" and source["Engine"] != "aurora-mysql"
        if not ready or not source["BackupRetentionPeriod"] or not self.world.postgres.running(server_of(kind, key)):
            return None
        own = [s for s in self._automated(kind, key) if s["Status"] != "failed"]
        latest = max((s["taken_at"] for s in own), default=None)
        window = _window_start(source["PreferredBackupWindow"], now)
        if latest is not None and (latest >= window or source["created_at"] >= window):
            return None
        at = datetime.datetime.fromtimestamp(now, datetime.UTC)
        return f"rds:{source[kind.source]}-{at:%Y-%m-%d-%H-%M}"

    def _automated(self, kind: SnapshotKind, key: str) -> list[Document]:
        prefix, _, name = key.rpartition("/")
        found = self.store.list(kind.store, f"{prefix}/rds:")
        return [s for s in found if s[kind.source] == name and s["SnapshotType"] == "automated"]

    def _expire(self, kind: SnapshotKind, sources: str, now: float) -> None:
        """Automated snapshots go after the retention period, with their source, and when they have failed."""
        expired = False
        for key, doc in self.store.items(kind.store):
            if doc["SnapshotType"] != "automated" or doc["Status"] == "creating":
                continue
            source = self.store.get(sources, f"{key.rpartition('/')[0]}/{doc[kind.source]}")
            days = source["BackupRetentionPeriod"] if source else 0
            if source is None or doc["Status"] == "failed" or doc["taken_at"] < now - days * 86400:
                self.store.delete(kind.store, key)
                expired = True
        if expired:
            self.runs.sweep()


def _window_start(window: str, now: float) -> float:
    """The latest beginning of `hh:mm-hh:mm` (UTC) that is not after `now`."""
    hours, minutes = window.split("-")[0].split(":")
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    start = at.replace(hour=int(hours), minute=int(minutes), second=0, microsecond=0)
    return (start if start <= at else start - datetime.timedelta(days=1)).timestamp()
