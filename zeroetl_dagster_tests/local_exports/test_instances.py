"""DB instances without a cluster (RDS for PostgreSQL): their lives, their snapshots, exports of these."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg2
import pytest

from zeroetl_dagster_tests.control_plane import ACCOUNT, REGION
from zeroetl_dagster_tests.local_aws.conftest import refused
from zeroetl_dagster_tests.local_exports.bed import Bed, until

PASSWORD = "of-nobody-at-all"
SERVER = "db.orders"


@pytest.fixture(scope="module")
def orders(bed: Bed) -> Iterator[str]:
    """An instance with the database `shop`, whose table `it` has one row."""
    bed.rds.create_db_instance(
        DBInstanceIdentifier="Orders",
        DBInstanceClass="db.t4g.micro",
        Engine="postgres",
        EngineVersion="17",
        AllocatedStorage=30,
        DBName="shop",
        MasterUsername="keeper",
        MasterUserPassword=PASSWORD,
        CopyTagsToSnapshot=True,
        Tags=[{"Key": "team", "Value": "sales"}],
    )
    bed.settle()
    bed.sql("CREATE TABLE it AS SELECT 7 AS n", of=SERVER)
    yield "orders"


def described(bed: Bed, name: str = "orders") -> dict[str, Any]:
    return dict(bed.rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0])


def snapshot(bed: Bed, name: str) -> dict[str, Any]:
    bed.rds.create_db_snapshot(DBSnapshotIdentifier=name, DBInstanceIdentifier="orders")
    until(lambda: snapshots(bed, DBSnapshotIdentifier=name)[0]["Status"], "available")
    return snapshots(bed, DBSnapshotIdentifier=name)[0]


def snapshots(bed: Bed, **more: Any) -> list[dict[str, Any]]:
    return list(bed.rds.describe_db_snapshots(**more)["DBSnapshots"])


def test_it_is_a_postgresql_server(bed: Bed, orders: str) -> None:
    found = described(bed)
    assert (found["DBInstanceStatus"], found["Engine"], found["EngineVersion"]) == ("available", "postgres", "17.5")
    assert (found["AllocatedStorage"], found["DBName"], found["BackupRetentionPeriod"]) == (30, "shop", 1)
    assert found.get("DBClusterIdentifier") is None
    assert found["DBInstanceArn"] == f"arn:aws:rds:{REGION}:{ACCOUNT}:db:orders"
    endpoint = found["Endpoint"]
    with psycopg2.connect(
        host=endpoint["Address"], port=endpoint["Port"], user="keeper", password=PASSWORD, dbname="shop"
    ) as connection:
        connection.cursor().execute("CREATE TABLE mine (id INT)")
    connection.close()
    tags = bed.rds.list_tags_for_resource(ResourceName=found["DBInstanceArn"])["TagList"]
    assert tags == [{"Key": "team", "Value": "sales"}]


def test_it_is_listed_beside_the_members_of_clusters(bed: Bed, orders: str) -> None:
    listed = {item["DBInstanceIdentifier"] for item in bed.rds.describe_db_instances()["DBInstances"]}
    assert {"orders", "source-1"} <= listed
    of_cluster = [{"Name": "db-cluster-id", "Values": ["source"]}]
    listed = {item["DBInstanceIdentifier"] for item in bed.rds.describe_db_instances(Filters=of_cluster)["DBInstances"]}
    assert listed == {"source-1"}


def test_its_snapshot_is_exported(bed: Bed, orders: str) -> None:
    found = snapshot(bed, "of-orders")
    bed.sql("UPDATE it SET n = 8", of=SERVER)
    assert found["DBSnapshotArn"] == f"arn:aws:rds:{REGION}:{ACCOUNT}:snapshot:of-orders"
    assert (found["SnapshotType"], found["DBInstanceIdentifier"]) == ("manual", "orders")
    assert found["TagList"] == [{"Key": "team", "Value": "sales"}]
    done = bed.export("of-orders", found["DBSnapshotArn"], ExportOnly=["shop.public.it"])
    assert (done["SourceType"], done["SnapshotTime"]) == ("SNAPSHOT", found["SnapshotCreateTime"])
    assert bed.table("of-orders/shop/public.it/")["n"].to_pylist() == [7]
    bed.sql("UPDATE it SET n = 7", of=SERVER)


def test_a_copy_keeps_the_moment_of_its_data(bed: Bed, orders: str) -> None:
    original = snapshot(bed, "original-of-orders")
    copied = bed.rds.copy_db_snapshot(
        SourceDBSnapshotIdentifier="original-of-orders", TargetDBSnapshotIdentifier="copy-of-orders"
    )["DBSnapshot"]
    assert copied["OriginalSnapshotCreateTime"] == original["SnapshotCreateTime"] < copied["SnapshotCreateTime"]
    assert copied["SourceDBSnapshotIdentifier"] == original["DBSnapshotArn"]
    assert {s["DBSnapshotIdentifier"] for s in snapshots(bed, DBInstanceIdentifier="orders")} >= {
        "copy-of-orders", "original-of-orders",
    }  # fmt: skip
    given = {"DBSnapshotIdentifier": "copy-of-orders", "AttributeName": "restore", "ValuesToAdd": ["all"]}
    shared = bed.rds.modify_db_snapshot_attribute(**given)["DBSnapshotAttributesResult"]
    assert (
        shared
        == bed.rds.describe_db_snapshot_attributes(DBSnapshotIdentifier="copy-of-orders")["DBSnapshotAttributesResult"]
    )
    assert shared["DBSnapshotAttributes"] == [{"AttributeName": "restore", "AttributeValues": ["all"]}]
    bed.rds.delete_db_snapshot(DBSnapshotIdentifier="copy-of-orders")
    gone = refused(lambda: snapshots(bed, DBSnapshotIdentifier="copy-of-orders"))
    assert gone["Code"] == "DBSnapshotNotFound"


def test_automated_snapshots_are_taken_of_it_too(bed: Bed, orders: str) -> None:
    names = [name for name in bed.service.take_due_backups(time.time()) if name.startswith("rds:orders-")]
    until(lambda: snapshots(bed, DBInstanceIdentifier="orders", SnapshotType="automated")[0]["Status"], "available")
    (found,) = snapshots(bed, DBInstanceIdentifier="orders", SnapshotType="automated")
    assert [found["DBSnapshotIdentifier"]] == names
    bed.rds.modify_db_instance(DBInstanceIdentifier="orders", BackupRetentionPeriod=0)
    bed.settle()
    bed.service.take_due_backups(time.time())
    assert snapshots(bed, DBInstanceIdentifier="orders", SnapshotType="automated") == []
    bed.forget_automated("source")


def test_a_member_of_a_cluster_has_no_snapshots_of_its_own(bed: Bed) -> None:
    create = partial(bed.rds.create_db_snapshot, DBSnapshotIdentifier="wrong", DBInstanceIdentifier="source-1")
    said = refused(create)
    assert said["Code"] == "InvalidParameterValue" and "use the CreateDBClusterSnapshot API" in said["Message"]


def test_it_stops_and_starts_again_and_is_rebooted(bed: Bed, orders: str) -> None:
    bed.rds.stop_db_instance(DBInstanceIdentifier="orders")
    bed.settle()
    assert described(bed)["DBInstanceStatus"] == "stopped"
    said = refused(lambda: snapshot(bed, "stopped-orders"))
    assert said["Code"] == "InvalidDBInstanceState" and "is in stopped state" in said["Message"]
    bed.rds.start_db_instance(DBInstanceIdentifier="orders")
    bed.settle()
    bed.rds.reboot_db_instance(DBInstanceIdentifier="orders")
    assert described(bed)["DBInstanceStatus"] == "rebooting"
    bed.settle()
    assert bed.sql("SELECT n FROM it", of=SERVER) == [(7,)]
    assert "StartDBCluster" in refused(lambda: bed.rds.stop_db_instance(DBInstanceIdentifier="source-1"))["Message"]


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"DBInstanceIdentifier": "orders"}, "DBInstanceAlreadyExists", "orders"),
        ({"DBInstanceIdentifier": "source-1"}, "DBInstanceAlreadyExists", "source-1"),
        ({"EngineVersion": "9.6"}, "InvalidParameterCombination", "17.5"),
        ({"BackupRetentionPeriod": 36}, "InvalidParameterValue", "between 0 and 35"),
        ({"MasterUserPassword": "short"}, "InvalidParameterValue", "MasterUserPassword"),
        ({"DBInstanceClass": "large"}, "InvalidParameterValue", "large"),
        ({"Engine": "mysql"}, "NotImplemented", "without DBClusterIdentifier"),
    ],
)
def test_what_is_refused(bed: Bed, orders: str, given: dict[str, Any], code: str, words: str) -> None:
    wanted = {
        "DBInstanceIdentifier": "new",
        "DBInstanceClass": "db.t4g.micro",
        "Engine": "postgres",
        "MasterUsername": "keeper",
        "MasterUserPassword": PASSWORD,
        **given,
    }
    said = refused(lambda: bed.rds.create_db_instance(**wanted))
    assert said["Code"] == code and words in said["Message"]


def test_it_goes_and_leaves_its_last_snapshot(bed: Bed, orders: str) -> None:
    """The last test of the file."""
    delete = partial(bed.rds.delete_db_instance, DBInstanceIdentifier="orders")
    assert "FinalDBSnapshotIdentifier is required" in refused(delete)["Message"]
    bed.rds.modify_db_instance(DBInstanceIdentifier="orders", DeletionProtection=True)
    bed.settle()
    assert "protected" in refused(partial(delete, SkipFinalSnapshot=True))["Message"]
    bed.rds.modify_db_instance(DBInstanceIdentifier="orders", DeletionProtection=False)
    bed.settle()
    delete(FinalDBSnapshotIdentifier="last-of-orders")
    bed.settle()
    assert refused(lambda: described(bed))["Code"] == "DBInstanceNotFound"
    bed.export("last-of-orders", snapshots(bed, DBSnapshotIdentifier="last-of-orders")[0]["DBSnapshotArn"])
    assert bed.table("last-of-orders/shop/public.it/")["n"].to_pylist() == [7]
    assert not (bed.folder.root / "postgres" / ACCOUNT / REGION / SERVER).exists()
