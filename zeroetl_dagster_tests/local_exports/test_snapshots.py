"""DB cluster snapshots: of their moment, listed, shared, copied, deleted."""

from __future__ import annotations

import threading
from typing import Any

import psycopg2
import pytest

from zeroetl_dagster_tests.local_aws.conftest import refused
from zeroetl_dagster_tests.local_exports.bed import Bed, until

PARTNER = "444444444444"


def test_a_snapshot_is_the_data_of_its_moment(bed: Bed) -> None:
    """Also of tables that are truncated, dropped or changed while it is still being written."""
    moment = bed.database("moment", "CREATE TABLE kept AS SELECT g AS id FROM generate_series(1, 1000) g", of="source")
    bed.sql("CREATE TABLE emptied AS TABLE kept; CREATE TABLE dropped AS TABLE kept", of="source", database=moment)
    made = bed.rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier="moment", DBClusterIdentifier="source")
    bed.sql("DELETE FROM kept; TRUNCATE emptied; DROP TABLE dropped", of="source", database=moment)
    until(lambda: bed.described("moment")["Status"], "available")
    bed.export("of-moment", made["DBClusterSnapshot"]["DBClusterSnapshotArn"], ExportOnly=["moment"])
    for table in ("kept", "emptied", "dropped"):
        assert sorted(bed.table(f"of-moment/moment/public.{table}/")["id"].to_pylist()) == list(range(1, 1001))


def test_a_snapshot_under_traffic_holds_whole_transactions(bed: Bed) -> None:
    """Every transaction moves an amount from one table to the other: what both hold together never changes."""
    name = bed.database(
        "traffic", "CREATE TABLE here AS SELECT 1000 AS n; CREATE TABLE there AS SELECT 0 AS n", of="source"
    )
    stopped = threading.Event()

    def move() -> None:
        connection = psycopg2.connect(**bed.world.postgres.dsn(bed.server_of("source"), name))
        with connection.cursor() as cursor:
            while not stopped.is_set():
                cursor.execute("UPDATE here SET n = n - 1")
                cursor.execute("UPDATE there SET n = n + 1")
                connection.commit()
        connection.close()

    writer = threading.Thread(target=move)
    writer.start()
    try:
        arns = [bed.snapshot(f"traffic-{index}", of="source") for index in range(2)]
    finally:
        stopped.set()
        writer.join()
    moved = []
    for index, arn in enumerate(arns):
        bed.export(f"traffic-{index}", arn, ExportOnly=[name])
        here, there = (
            bed.table(f"traffic-{index}/traffic/public.{table}/")["n"][0].as_py() for table in ("here", "there")
        )
        assert here + there == 1000
        moved.append(there)
    assert moved[0] < moved[1]


def test_a_table_that_is_locked_is_said_when_it_was_waited_for(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeroetl_dagster.local.aws.snapshot_data.LOCK_SECONDS", 1)
    name = bed.database("locked", "CREATE TABLE mine (id INT)", of="source")
    holder = psycopg2.connect(**bed.world.postgres.dsn(bed.server_of("source"), name))
    try:
        holder.cursor().execute("LOCK TABLE mine IN ACCESS EXCLUSIVE MODE")
        said = refused(lambda: bed.snapshot("locked", of="source"))
    finally:
        holder.close()
    assert said["Code"] == "InvalidDBClusterStateFault"
    assert "database locked" in said["Message"] and "End that transaction and try again" in said["Message"]


def test_a_table_that_is_dropped_while_its_lock_is_waited_for_is_not_in_the_snapshot(bed: Bed) -> None:
    name = bed.database("dropping", "CREATE TABLE going (id INT); CREATE TABLE staying (id INT)", of="source")
    dropper = psycopg2.connect(**bed.world.postgres.dsn(bed.server_of("source"), name))
    dropper.cursor().execute("DROP TABLE going")
    arns: list[str] = []
    taker = threading.Thread(target=lambda: arns.append(bed.snapshot("dropping", of="source")))
    taker.start()
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    until(lambda: bed.sql(waiting, of="source", database=name)[0][0], 1)
    dropper.commit()
    dropper.close()
    taker.join()
    bed.export("dropping", arns[0], ExportOnly=[name])
    assert list(bed.manifest("dropping")) == ["dropping.public.staying"]


@pytest.fixture(scope="module")
def plain(bed: Bed) -> str:
    """The ARN of a snapshot that tests only read."""
    return bed.snapshot("plain", of="source")


def test_what_is_described(bed: Bed, plain: str) -> None:
    found, cluster = bed.described("plain"), bed.rds.describe_db_clusters(DBClusterIdentifier="source")["DBClusters"][0]
    assert found["DBClusterSnapshotArn"] == plain == f"arn:aws:rds:{bed.region}:{bed.account}:cluster-snapshot:plain"
    for member in ("DBClusterIdentifier", "DbClusterResourceId", "Engine", "EngineVersion", "ClusterCreateTime"):
        assert found[member] == cluster[member]
    assert (found["SnapshotType"], found["PercentProgress"]) == ("manual", 100)
    assert cluster["ClusterCreateTime"] < found["SnapshotCreateTime"]


def test_pages_filters_and_types(bed: Bed, plain: str) -> None:
    cluster = {"DBClusterIdentifier": "source"}
    for index in range(21):
        name = f"page-{index:02}"
        bed.rds.copy_db_cluster_snapshot(
            SourceDBClusterSnapshotIdentifier=plain, TargetDBClusterSnapshotIdentifier=name
        )
    first = bed.rds.describe_db_cluster_snapshots(MaxRecords=20, **cluster)
    assert len(first["DBClusterSnapshots"]) == 20 and first["Marker"]
    pages = bed.rds.get_paginator("describe_db_cluster_snapshots").paginate(
        PaginationConfig={"PageSize": 20}, **cluster
    )
    names = [item["DBClusterSnapshotIdentifier"] for page in pages for item in page["DBClusterSnapshots"]]
    assert len(names) == len(set(names)) and {"plain", "page-00", "page-20"} <= set(names)

    def listed(**more: Any) -> set[str]:
        found = bed.rds.describe_db_cluster_snapshots(**more)["DBClusterSnapshots"]
        return {item["DBClusterSnapshotIdentifier"] for item in found}

    one = {"Name": "db-cluster-snapshot-id", "Values": ["page-03", "page-04"]}
    assert listed(Filters=[one]) == {"page-03", "page-04"}
    assert listed(Filters=[{"Name": "db-cluster-id", "Values": ["another"]}]) == set()
    assert listed(DBClusterIdentifier="another") == set()
    assert listed(SnapshotType="manual", **cluster) == set(names)
    assert listed(SnapshotType="automated", **cluster) == set()
    assert "automated, manual" in refused(lambda: listed(SnapshotType="monthly"))["Message"]
    for index in range(21):
        bed.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=f"page-{index:02}")
    assert "plain" in listed()


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"DBClusterIdentifier": "there-is-none"}, "DBClusterNotFoundFault"),
        ({"DBClusterSnapshotIdentifier": "plain"}, "DBClusterSnapshotAlreadyExistsFault"),
        ({"DBClusterSnapshotIdentifier": "rds:new"}, "InvalidParameterValue"),
        ({"DBClusterSnapshotIdentifier": "a" * 64}, "InvalidParameterValue"),
    ],
)
def test_what_no_snapshot_is_made_of(bed: Bed, plain: str, given: dict[str, str], code: str) -> None:
    wanted = {"DBClusterSnapshotIdentifier": "new", "DBClusterIdentifier": "source", **given}
    assert refused(lambda: bed.rds.create_db_cluster_snapshot(**wanted))["Code"] == code


def test_a_cluster_without_a_server_has_no_data_to_take(bed: Bed) -> None:
    bed.rds.create_db_cluster(
        DBClusterIdentifier="bare", Engine="aurora-postgresql", MasterUsername="keeper", ManageMasterUserPassword=True
    )
    assert refused(lambda: bed.snapshot("bare", of="bare"))["Code"] == "InvalidDBClusterStateFault"  # creating
    bed.settle()
    assert "has no running DB instance" in refused(lambda: bed.snapshot("bare", of="bare"))["Message"]
    bed.rds.delete_db_cluster(DBClusterIdentifier="bare", SkipFinalSnapshot=True)


def test_sharing_lets_another_account_see_and_copy_it(bed: Bed, plain: str) -> None:
    theirs = bed.client("rds", credentials=bed.in_account(PARTNER))

    def seen(**more: Any) -> list[str]:
        return [s["DBClusterSnapshotArn"] for s in theirs.describe_db_cluster_snapshots(**more)["DBClusterSnapshots"]]

    def share(**change: list[str]) -> list[str]:
        given = {"DBClusterSnapshotIdentifier": "plain", "AttributeName": "restore", **change}
        answer = bed.rds.modify_db_cluster_snapshot_attribute(**given)["DBClusterSnapshotAttributesResult"]
        assert (
            answer
            == bed.rds.describe_db_cluster_snapshot_attributes(DBClusterSnapshotIdentifier="plain")[
                "DBClusterSnapshotAttributesResult"
            ]
        )
        return list(answer["DBClusterSnapshotAttributes"][0]["AttributeValues"])

    def copy(name: str) -> Any:
        return theirs.copy_db_cluster_snapshot(
            SourceDBClusterSnapshotIdentifier=plain, TargetDBClusterSnapshotIdentifier=name
        )

    assert refused(lambda: copy("theirs"))["Code"] == "DBClusterSnapshotNotFoundFault"
    assert share(ValuesToAdd=[PARTNER]) == [PARTNER]
    assert seen() == [] and seen(SnapshotType="shared") == seen(IncludeShared=True) == [plain]
    assert copy("theirs")["DBClusterSnapshot"]["SourceDBClusterSnapshotArn"] == plain
    assert share(ValuesToRemove=[PARTNER], ValuesToAdd=["all"]) == ["all"]
    assert seen(SnapshotType="public") == [plain] and seen(SnapshotType="shared") == []
    assert share(ValuesToRemove=["all"]) == [] and seen(SnapshotType="public") == []
    assert "12 digits" in refused(lambda: share(ValuesToAdd=["me"]))["Message"]
    theirs.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier="theirs")


def test_tags_follow_where_asked(bed: Bed, plain: str) -> None:
    bed.rds.add_tags_to_resource(ResourceName=plain, Tags=[{"Key": "why", "Value": "test"}])
    for name, copied in (("tagged", True), ("bare-copy", False)):
        given = {"SourceDBClusterSnapshotIdentifier": plain, "TargetDBClusterSnapshotIdentifier": name}
        made = bed.rds.copy_db_cluster_snapshot(**given, CopyTags=copied)["DBClusterSnapshot"]
        tags = bed.rds.list_tags_for_resource(ResourceName=made["DBClusterSnapshotArn"])["TagList"]
        assert tags == ([{"Key": "why", "Value": "test"}] if copied else [])
        bed.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=name)


def test_a_copy_outlives_what_it_was_made_of_and_the_data_go_with_the_last(bed: Bed) -> None:
    def folders() -> int:
        return len(list((bed.folder.root / "snapshots").iterdir()))

    before = folders()
    name = bed.database("copied", "CREATE TABLE it AS SELECT 7 AS n", of="source")
    bed.snapshot("original", of="source")
    made = bed.rds.copy_db_cluster_snapshot(
        SourceDBClusterSnapshotIdentifier="original", TargetDBClusterSnapshotIdentifier="second"
    )["DBClusterSnapshot"]
    bed.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier="original")
    assert refused(lambda: bed.described("original"))["Code"] == "DBClusterSnapshotNotFoundFault"
    bed.export("second", made["DBClusterSnapshotArn"], ExportOnly=[name])
    assert bed.table("second/copied/public.it/")["n"].to_pylist() == [7]
    bed.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier="second")
    assert folders() == before


def test_one_that_is_being_made_is_not_deleted_and_one_that_is_exported_may_be(bed: Bed) -> None:
    name = bed.database("deleted", "CREATE TABLE it AS SELECT 7 AS n", of="source")
    bed.rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier="doomed", DBClusterIdentifier="source")
    said = refused(lambda: bed.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier="doomed"))
    assert said["Code"] == "InvalidDBClusterSnapshotStateFault"
    until(lambda: bed.described("doomed")["Status"], "available")
    with bed.waiting():
        bed.start_export("doomed", bed.described("doomed")["DBClusterSnapshotArn"], ExportOnly=[name])
        bed.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier="doomed")
    bed.ended("doomed")
    assert bed.table("doomed/deleted/public.it/")["n"].to_pylist() == [7]


def test_the_last_snapshot_of_a_cluster_outlives_it(bed: Bed) -> None:
    bed.cluster("short", BackupRetentionPeriod=1)
    bed.sql("CREATE TABLE it AS SELECT 7 AS n", of="short")

    def delete(**more: Any) -> Any:
        return bed.rds.delete_db_cluster(DBClusterIdentifier="short", **more)

    assert "FinalDBSnapshotIdentifier is required" in refused(delete)["Message"]
    said = refused(lambda: delete(FinalDBSnapshotIdentifier="last"))
    assert "still contains DB instances" in said["Message"]
    assert refused(lambda: bed.described("last"))["Code"] == "DBClusterSnapshotNotFoundFault"
    bed.rds.delete_db_instance(DBInstanceIdentifier="short-1")
    bed.settle()
    delete(FinalDBSnapshotIdentifier="last")
    bed.settle()
    arn = bed.described("last")["DBClusterSnapshotArn"]
    bed.export("last", arn, ExportOnly=["shop"])
    assert bed.table("last/shop/public.it/")["n"].to_pylist() == [7]
