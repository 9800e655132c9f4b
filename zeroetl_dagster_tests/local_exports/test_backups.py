"""Automated snapshots: when they are due, how they are named, when they go."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from zeroetl_dagster.local.aws import rds_backups
from zeroetl_dagster_tests.local_aws.conftest import refused
from zeroetl_dagster_tests.local_exports.bed import Bed, until

DAY = 86400.0


@pytest.fixture
def daily(bed: Bed) -> Iterator[str]:
    """The cluster `source`, with its backup window twelve hours from now, three days of retention and no snapshot."""
    at = datetime.now(UTC) + timedelta(hours=12)
    window = f"{at:%H:%M}-{at + timedelta(minutes=30):%H:%M}"
    bed.rds.modify_db_cluster(
        DBClusterIdentifier="source", BackupRetentionPeriod=3, PreferredBackupWindow=window, ApplyImmediately=True
    )
    yield "source"
    bed.forget_automated("source")


def take(bed: Bed, now: float) -> list[str]:
    taken = bed.service.take_due_backups(now)
    until(lambda: {bed.described(name)["Status"] for name in taken} - {"available"}, set())
    return taken


def test_the_first_comes_with_the_cluster_and_then_one_in_each_window(bed: Bed, daily: str) -> None:
    now = time.time()
    (first,) = take(bed, now)
    assert re.fullmatch(r"rds:source-\d{4}-\d\d-\d\d-\d\d-\d\d", first)
    assert first.endswith(f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d-%H-%M}")
    found = bed.described(first)
    assert (found["SnapshotType"], found["DBClusterSnapshotArn"].rpartition(":cluster-snapshot:")[2]) == (
        "automated",
        first,
    )
    assert take(bed, now + 11 * 3600) == []  # the window is not yet
    (second,) = take(bed, now + 13 * 3600)
    assert second != first
    listed = bed.rds.describe_db_cluster_snapshots(DBClusterIdentifier=daily, SnapshotType="automated")
    assert {s["DBClusterSnapshotIdentifier"] for s in listed["DBClusterSnapshots"]} == {first, second}


def test_an_automated_snapshot_is_exported_but_neither_deleted_nor_shared(bed: Bed, daily: str) -> None:
    bed.sql("CREATE TABLE IF NOT EXISTS backed_up AS SELECT 7 AS n", of=daily)
    (name,) = take(bed, time.time())
    bed.export("automated", bed.described(name)["DBClusterSnapshotArn"], ExportOnly=["shop.public.backed_up"])
    assert bed.table("automated/shop/public.backed_up/")["n"].to_pylist() == [7]
    said = refused(lambda: bed.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=name))
    assert (said["Code"], said["Message"]) == (
        "InvalidDBClusterSnapshotStateFault", "Only manual snapshots may be deleted."
    )  # fmt: skip
    share = {"DBClusterSnapshotIdentifier": name, "AttributeName": "restore", "ValuesToAdd": ["all"]}
    assert "copy it first" in refused(lambda: bed.rds.modify_db_cluster_snapshot_attribute(**share))["Message"]


def test_they_go_after_the_retention_period(bed: Bed, daily: str) -> None:
    now = time.time()
    (first,) = take(bed, now)
    assert take(bed, now + 2.9 * DAY) != []
    assert bed.described(first)["Status"] == "available"
    take(bed, now + 3.1 * DAY)
    assert refused(lambda: bed.described(first))["Code"] == "DBClusterSnapshotNotFoundFault"


def test_the_retention_period_is_one_to_35_days(bed: Bed) -> None:
    for days in (0, 36):
        change = partial(bed.rds.modify_db_cluster, DBClusterIdentifier="source", BackupRetentionPeriod=days)
        said = refused(change)
        assert said["Code"] == "InvalidParameterValue" and "between 1 and 35" in said["Message"]


def test_they_are_taken_by_the_clock(bed: Bed, daily: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rds_backups, "BACKUP_CHECK_SECONDS", 0.05)
    clock = threading.Thread(target=bed.service._back_up)
    clock.start()
    try:
        until(lambda: len(bed.automated_keys(daily)), 1)
    finally:
        bed.service._backups_stopped.set()
        clock.join()
        bed.service._backups_stopped.clear()
