"""Which snapshot stands for a day, and why a day has none."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from zeroetl_dagster.exports import snapshots
from zeroetl_dagster.exports.snapshots import NoSnapshot, Snapshot, SourceNotFound
from zeroetl_dagster.settings.exports import ExportSource
from zeroetl_dagster_tests.exports.fakes import FakeRds

CLUSTER = ExportSource(cluster="shop", engine="aurora-postgresql", database="shop")
INSTANCE = ExportSource(instance="shop-db", engine="postgres", database="shop")
TOKYO = ZoneInfo("Asia/Tokyo")
UTC_ZONE = ZoneInfo("UTC")
NOW = datetime(2024, 5, 1, 16, 0, tzinfo=UTC)


def at(day: int, hour: int, month: int = 5) -> datetime:
    return datetime(2024, month, day, hour, tzinfo=UTC)


def find(rds: FakeRds, day: date, zone: ZoneInfo = UTC_ZONE, source: ExportSource = CLUSTER) -> object:
    return snapshots.find(rds, source, day, zone=zone, kinds=("automated", "manual"), now=NOW)


def none(rds: FakeRds, day: date, zone: ZoneInfo = UTC_ZONE) -> NoSnapshot:
    found = find(rds, day, zone)
    assert isinstance(found, NoSnapshot)
    return found


@pytest.fixture
def shop() -> FakeRds:
    return FakeRds(clusters={"shop": {"BackupRetentionPeriod": 7, "PreferredBackupWindow": "03:00-03:30"}})


def test_the_newest_available_one_of_the_day_over_all_pages_and_types(shop: FakeRds) -> None:
    for hour in (1, 9, 5, 3, 7):
        shop.add_snapshot(f"m-{hour}", at(1, hour), SnapshotType="manual" if hour == 9 else "automated")
    shop.add_snapshot("later but creating", at(1, 12), Status="creating")
    shop.add_snapshot("another day", at(2, 1))
    found = find(shop, date(2024, 5, 1))
    assert isinstance(found, Snapshot) and found.identifier == "m-9"


def test_the_day_is_the_snapshots_date_in_the_time_zone(shop: FakeRds) -> None:
    shop.add_snapshot("rds:shop-2024-05-01-15-30", at(1, 15))
    assert isinstance(find(shop, date(2024, 5, 2), TOKYO), Snapshot)
    assert isinstance(find(shop, date(2024, 5, 1), TOKYO), NoSnapshot)


def test_instances_have_their_own_calls_and_copies_keep_their_first_date(shop: FakeRds) -> None:
    shop.instances["shop-db"] = {"BackupRetentionPeriod": 7}
    shop.instance_snapshots.append(
        {
            "DBInstanceIdentifier": "shop-db",
            "DBSnapshotIdentifier": "copy",
            "DBSnapshotArn": "arn:aws:rds:eu-west-1:123456789012:snapshot:copy",
            "SnapshotType": "manual",
            "Status": "available",
            "SnapshotCreateTime": at(1, 9),
            "OriginalSnapshotCreateTime": at(30, 9, month=4),
            "FullSnapshotSizeInBytes": 3 * 1024**3,
        }
    )
    found = find(shop, date(2024, 4, 30), source=INSTANCE)
    assert isinstance(found, Snapshot) and found.size_gb == 3


def test_one_that_is_still_being_made_may_come(shop: FakeRds) -> None:
    shop.add_snapshot("rds:shop-now", at(1, 15), Status="creating", PercentProgress=40)
    outcome = none(shop, date(2024, 5, 1))
    assert (outcome.reason, outcome.may_come) == ("creating", True)
    assert "rds:shop-now (creating, 40 %)" in outcome.message


def test_today_without_one_may_still_get_one_in_the_backup_window(shop: FakeRds) -> None:
    outcome = none(shop, date(2024, 5, 2), TOKYO)
    assert (outcome.reason, outcome.may_come) == ("not yet", True)
    assert "backup window is 03:00-03:30 UTC" in outcome.message


def test_days_older_than_the_retention_are_gone(shop: FakeRds) -> None:
    shop.add_snapshot("newest", at(1, 3))
    outcome = none(shop, date(2024, 4, 20))
    assert (outcome.reason, outcome.may_come) == ("beyond retention", False)
    assert "for 7 days" in outcome.message and "The newest is of 2024-05-01 03:00" in outcome.message


def test_a_day_within_the_retention_had_none(shop: FakeRds) -> None:
    assert none(shop, date(2024, 4, 29)).message.startswith("no snapshot of shop was taken on 2024-04-29")


def test_backups_that_are_off_are_said_so(shop: FakeRds) -> None:
    shop.clusters["shop"]["BackupRetentionPeriod"] = 0
    assert "BackupRetentionPeriod is 0" in none(shop, date(2024, 4, 29)).message


def test_a_failed_snapshot_is_no_snapshot(shop: FakeRds) -> None:
    shop.add_snapshot("broken", at(30, 3, month=4), Status="failed")
    outcome = none(shop, date(2024, 4, 30))
    assert (outcome.reason, outcome.may_come) == ("none", False) and "broken (failed)" in outcome.message


def test_the_snapshots_of_a_deleted_cluster_can_be_exported(shop: FakeRds) -> None:
    shop.clusters.clear()
    shop.add_snapshot("final", at(1, 3), SnapshotType="manual")
    assert isinstance(find(shop, date(2024, 5, 1)), Snapshot)


@pytest.mark.parametrize(("source", "words"), [(CLUSTER, "no cluster 'shop'"), (INSTANCE, "no instance 'shop-db'")])
def test_a_source_that_is_not_there_is_an_error(source: ExportSource, words: str) -> None:
    with pytest.raises(SourceNotFound, match=words):
        find(FakeRds(), date(2024, 5, 1), source=source)
