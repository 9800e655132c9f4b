"""The source: what keeps it from feeding an integration is named with what mends it, and mended where allowed."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from zeroetl_dagster.connections.reconciled import Difference, NotAsDeclared, ensure
from zeroetl_dagster.replication.faults import ReplicationError
from zeroetl_dagster.replication.requirements import PARAMETERS
from zeroetl_dagster.replication.source import IN_SYNC, Source
from zeroetl_dagster.settings.replication import SourceSettings
from zeroetl_dagster_tests.local_aws.conftest import ACCOUNT, GOOD_PARAMETERS, REGION, Bed
from zeroetl_dagster_tests.replication.conftest import FAST

AURORA_POSTGRESQL = SourceSettings(engine="aurora-postgresql", cluster="src", database="db")
AURORA_MYSQL = SourceSettings(engine="aurora-mysql", cluster="src")


def source(bed: Bed, settings: SourceSettings = AURORA_POSTGRESQL, *, reboot: bool = False) -> Source:
    return Source(bed.client("rds"), settings, reboot=reboot, wait_seconds=5, poll=FAST)


def found(one: Source) -> list[Difference]:
    return one.diff(one.read())


def values(bed: Bed, group: str = "src-group") -> dict[str, str]:
    pages = bed.client("rds").get_paginator("describe_db_cluster_parameters")
    shown = pages.paginate(DBClusterParameterGroupName=group, Source="user")
    return {one["ParameterName"]: one["ParameterValue"] for page in shown for one in page["Parameters"]}


def mysql_cluster(bed: Bed, **changed: str) -> None:
    """An aurora-mysql cluster whose group is right but for `changed`."""
    rds = bed.client("rds")
    rds.create_db_cluster_parameter_group(
        DBClusterParameterGroupName="src-group", DBParameterGroupFamily="aurora-mysql8.0", Description="test"
    )
    right = {one.parameter: one.write for one in PARAMETERS["aurora-mysql"]}
    bed.set_parameters("src-group", **{**right, **changed})
    bed.cluster(good=False, Engine="aurora-mysql", DBClusterParameterGroupName="src-group")


# ---- parameters ------------------------------------------------------------------------------------------------------


def test_a_fit_source_is_as_declared(bed: Bed, said: list[str]) -> None:
    cluster = bed.cluster()
    outcome = ensure(source(bed), mode="verify", report=said.append)
    assert outcome.changed == () and said == []
    assert (outcome.state.arn, outcome.state.account_id, outcome.state.region) == (
        cluster["DBClusterArn"],
        ACCOUNT,
        REGION,
    )
    assert outcome.state.port == cluster["Port"] and outcome.state.writer == "src-1"
    assert outcome.state.secret_arn == cluster["MasterUserSecret"]["SecretArn"]


@pytest.mark.parametrize("parameter", sorted(GOOD_PARAMETERS))
def test_each_wrong_parameter_of_aurora_postgresql_is_named_with_its_mend(bed: Bed, parameter: str) -> None:
    wrong = "0" if GOOD_PARAMETERS[parameter] == "1" else "1"
    bed.group("src-group", **{**GOOD_PARAMETERS, parameter: wrong})
    bed.cluster(good=False, DBClusterParameterGroupName="src-group")
    (one,) = found(source(bed))
    assert str(one) == (
        f"parameter group src-group, {parameter}: found {wrong}, required {GOOD_PARAMETERS[parameter]}. "
        "Set it and reboot the writer, or let this project: `manage.source_parameters: ensure`."
    )


@pytest.mark.parametrize(
    ("parameter", "wrong", "required"),
    [
        ("aurora_enhanced_binlog", "0", "1"),
        ("binlog_backup", "1", "0"),
        ("binlog_format", "MIXED", "ROW"),
        ("binlog_replication_globaldb", "1", "0"),
        ("binlog_row_image", "minimal", "full"),
        ("binlog_row_metadata", "minimal", "full"),
        ("binlog_transaction_compression", "ON", "anything but ON"),
        ("binlog_row_value_options", "PARTIAL_JSON", "anything but PARTIAL_JSON"),
    ],
)
def test_each_wrong_parameter_of_aurora_mysql_is_named(bed: Bed, parameter: str, wrong: str, required: str) -> None:
    mysql_cluster(bed, **{parameter: wrong})
    (one,) = found(source(bed, AURORA_MYSQL))
    assert (one.what, one.found, one.required) == (f"parameter group src-group, {parameter}", wrong, required)


def test_ensure_writes_what_is_wrong_and_reboots_the_writer(bed: Bed, said: list[str]) -> None:
    bed.group("src-group", **{"rds.logical_replication": "1", "work_mem": "8192"})
    bed.cluster(good=False, DBClusterParameterGroupName="src-group")
    key = f"{ACCOUNT}/{REGION}/src"
    assert bed.postgres.running_now[key] is False
    outcome = ensure(source(bed, reboot=True), mode="ensure", report=said.append)
    assert len(outcome.changed) == 3 and found(source(bed)) == []
    assert values(bed) == {**GOOD_PARAMETERS, "work_mem": "8192"}
    assert bed.postgres.running_now[key] is True, "the writer was not rebooted"
    assert any("rebooting src-1" in line for line in said)
    said.clear()
    assert ensure(source(bed, reboot=True), mode="ensure", report=said.append).changed == ()
    assert said == []


def test_ensure_of_aurora_mysql_satisfies_every_rule(bed: Bed, said: list[str]) -> None:
    mysql_cluster(
        bed, binlog_format="OFF", binlog_transaction_compression="ON", binlog_row_value_options="PARTIAL_JSON"
    )
    ensure(source(bed, AURORA_MYSQL, reboot=True), mode="ensure", report=said.append)
    assert found(source(bed, AURORA_MYSQL)) == []
    assert {"binlog_format": "ROW", "binlog_transaction_compression": "OFF"}.items() <= values(bed).items()


def test_without_leave_to_reboot_the_command_for_it_is_said(bed: Bed, said: list[str]) -> None:
    bed.group("src-group", **{**GOOD_PARAMETERS, "rds.logical_replication": "0"})
    bed.cluster(good=False, DBClusterParameterGroupName="src-group")
    with pytest.raises(NotAsDeclared) as raised:
        ensure(source(bed), mode="ensure", report=said.append)
    (left,) = raised.value.differences
    assert (left.found, left.required) == ("src-1 is pending-reboot", IN_SYNC)
    assert "aws rds reboot-db-instance --db-instance-identifier src-1" in left.remedy
    assert "manage.reboot_source: true" in left.remedy
    assert bed.postgres.running_now[f"{ACCOUNT}/{REGION}/src"] is False


def test_a_written_parameter_counts_as_pending_before_rds_shows_it(bed: Bed, said: list[str]) -> None:
    """RDS shows `pending-reboot` a while later; until then `in-sync` would be taken for success."""
    bed.group("src-group", **{**GOOD_PARAMETERS, "rds.logical_replication": "0"})
    bed.cluster(good=False, DBClusterParameterGroupName="src-group")
    rds = bed.client("rds")

    def late(parsed: dict[str, Any], **_: Any) -> None:
        for cluster in parsed.get("DBClusters", []):
            for member in cluster["DBClusterMembers"]:
                member["DBClusterParameterGroupStatus"] = IN_SYNC

    rds.meta.events.register("after-call.rds.DescribeDBClusters", late)
    with pytest.raises(NotAsDeclared, match="src-1 is pending-reboot"):
        ensure(Source(rds, AURORA_POSTGRESQL, poll=FAST), mode="ensure", report=said.append)
    bed.set_parameters("src-group", **{"rds.logical_replication": "0"})
    ensure(Source(rds, AURORA_POSTGRESQL, reboot=True, poll=FAST), mode="ensure", report=said.append)
    bed.settle()
    assert bed.postgres.running_now[f"{ACCOUNT}/{REGION}/src"] is True


def test_a_reader_that_waits_for_its_reboot_is_no_difference(bed: Bed) -> None:
    """Only the writer's parameters count; a reboot of the writer for a reader's sake would be repeated for ever."""
    bed.cluster()
    rds = bed.client("rds")
    rds.create_db_instance(
        DBInstanceIdentifier="src-2",
        DBClusterIdentifier="src",
        DBInstanceClass="db.r6g.large",
        Engine="aurora-postgresql",
    )
    bed.settle()
    bed.set_parameters("src-group", **{"max_replication_slots": "30"})
    assert [one.what for one in found(source(bed))] == ["parameter group src-group"]
    rds.reboot_db_instance(DBInstanceIdentifier="src-1")
    bed.settle()
    members = rds.describe_db_clusters(DBClusterIdentifier="src")["DBClusters"][0]["DBClusterMembers"]
    statuses = {one["DBInstanceIdentifier"]: one["DBClusterParameterGroupStatus"] for one in members}
    assert statuses == {"src-1": IN_SYNC, "src-2": "pending-reboot"}
    assert found(source(bed)) == []


def test_awss_own_parameter_group_is_never_written(bed: Bed, said: list[str]) -> None:
    bed.cluster(good=False)
    with pytest.raises(NotAsDeclared) as raised:
        ensure(source(bed, reboot=True), mode="ensure", report=said.append)
    (only,) = raised.value.differences
    assert only.found == "default.aurora-postgresql17, which is AWS's own and cannot be changed"
    for command in ("create-db-cluster-parameter-group", "modify-db-cluster --db-cluster-identifier src"):
        assert command in only.remedy


def test_verify_changes_nothing(bed: Bed, said: list[str]) -> None:
    bed.group("src-group", **{**GOOD_PARAMETERS, "rds.logical_replication": "0"})
    bed.cluster(good=False, DBClusterParameterGroupName="src-group")
    with pytest.raises(NotAsDeclared, match=r"rds.logical_replication: found 0, required 1"):
        ensure(source(bed, reboot=True), mode="verify", report=said.append)
    assert values(bed)["rds.logical_replication"] == "0" and said == []


# ---- what no parameter mends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["ensure", "verify"])
def test_a_missing_cluster_is_said_in_one_line(bed: Bed, said: list[str], mode: Any) -> None:
    with pytest.raises(NotAsDeclared) as raised:
        ensure(source(bed), mode=mode, report=said.append)
    assert [str(one) for one in raised.value.differences] == [
        "source cluster src: found nothing, required that it exists. Check `source.cluster` and the Region of `aws`."
    ]


def test_another_engine_is_the_only_thing_said(bed: Bed, said: list[str]) -> None:
    bed.cluster(good=False, Engine="aurora-mysql")
    assert [str(one) for one in found(source(bed))] == [
        "engine: found aurora-mysql, required aurora-postgresql. Correct `source.engine`."
    ]
    with pytest.raises(NotAsDeclared, match="Correct `source.engine`"):
        ensure(source(bed, reboot=True), mode="ensure", report=said.append)


def test_an_old_aurora_mysql_is_refused(bed: Bed) -> None:
    mysql_cluster(bed)
    rds = bed.client("rds")

    def old(parsed: dict[str, Any], **_: Any) -> None:
        parsed["DBClusters"][0]["EngineVersion"] = "8.0.mysql_aurora.3.04.0"

    rds.meta.events.register("after-call.rds.DescribeDBClusters", old)
    (one,) = found(Source(rds, AURORA_MYSQL))
    assert str(one) == (
        "engine version: found 8.0.mysql_aurora.3.04.0, required Aurora MySQL 3.05.2 or newer is required. "
        "Upgrade the source."
    )


def test_a_cluster_without_instances(bed: Bed, said: list[str]) -> None:
    bed.cluster(instance=False)
    (one,) = found(source(bed))
    assert (one.found, one.required) == ("no writer", "at least one instance")
    with pytest.raises(NotAsDeclared, match="Add a DB instance to the cluster"):
        ensure(source(bed, reboot=True), mode="ensure", report=said.append)


def test_a_stopped_cluster(bed: Bed, said: list[str]) -> None:
    bed.cluster()
    bed.client("rds").stop_db_cluster(DBClusterIdentifier="src")
    bed.settle()
    with pytest.raises(NotAsDeclared, match=r"status: found stopped, required available. Start it."):
        ensure(source(bed, reboot=True), mode="ensure", report=said.append)


def test_a_writer_that_cannot_serve(bed: Bed) -> None:
    bed.cluster()
    bed.hold()
    bed.client("rds").reboot_db_instance(DBInstanceIdentifier="src-1")
    (one,) = found(source(bed))
    assert str(one) == "status of the writer src-1: found rebooting, required available. Wait."
    bed.release()
    bed.settle()
    assert found(source(bed)) == []


def test_a_reboot_that_takes_too_long_says_what_was_seen_last(bed: Bed, said: list[str]) -> None:
    bed.group("src-group", **{**GOOD_PARAMETERS, "rds.logical_replication": "0"})
    bed.cluster(good=False, DBClusterParameterGroupName="src-group")
    bed.hold()
    slow = Source(bed.client("rds"), AURORA_POSTGRESQL, reboot=True, wait_seconds=0.1, poll=FAST)
    with pytest.raises(Exception, match="still: source cluster src: available, src-1 is rebooting and pending-reboot"):
        ensure(slow, mode="ensure", report=said.append)
    bed.release()


# ---- RDS instances, which the embedded AWS does not have ------------------------------------------------------------


def rds_instance(settings: SourceSettings, instance: dict[str, Any], parameters: dict[str, str]) -> Source:
    rds = boto3.client("rds", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    stub = Stubber(rds)
    described = {
        "DBInstanceIdentifier": "orders",
        "DBInstanceArn": f"arn:aws:rds:{REGION}:{ACCOUNT}:db:orders",
        "DBInstanceStatus": "available",
        "BackupRetentionPeriod": 7,
        "DBParameterGroups": [{"DBParameterGroupName": "orders", "ParameterApplyStatus": IN_SYNC}],
        "Endpoint": {"Address": "orders.example", "Port": 5432},
        **instance,
    }
    shown = [
        {"ParameterName": name, "ParameterValue": value, "ApplyType": "static"} for name, value in parameters.items()
    ]
    stub.add_response("describe_db_instances", {"DBInstances": [described]}, {"DBInstanceIdentifier": "orders"})
    half = len(shown) // 2  # AWS answers in pages
    stub.add_response(
        "describe_db_parameters", {"Parameters": shown[:half], "Marker": "2"}, {"DBParameterGroupName": "orders"}
    )
    stub.add_response(
        "describe_db_parameters", {"Parameters": shown[half:]}, {"DBParameterGroupName": "orders", "Marker": "2"}
    )
    stub.activate()
    return Source(rds, settings)


POSTGRES = SourceSettings(engine="postgres", instance="orders", database="orders")
FIT = {
    "rds.logical_replication": "1",
    "rds.replica_identity_full": "1",
    "session_replication_role": "origin",
    "wal_sender_timeout": "0",
    "max_wal_senders": "25",
    "max_replication_slots": "20",
}


@pytest.mark.parametrize(
    ("instance", "parameters", "wanted"),
    [
        ({}, {}, []),
        ({"BackupRetentionPeriod": 0}, {}, ["automated backups: found off, required on."]),
        ({"EngineVersion": "14.9"}, {}, ["engine version: found 14.9"]),
        (
            {"ReadReplicaSourceDBInstanceIdentifier": "main"},
            {},
            ["role: found a read replica of main, required a primary. Name the primary instance."],
        ),
        ({"DBInstanceStatus": "storage-full"}, {}, ["status: found storage-full, required available. Give it more"]),
        ({"DBInstanceStatus": "incompatible-parameters"}, {}, ["status: found incompatible-parameters"]),
        ({"DBInstanceStatus": "backing-up"}, {}, []),
        ({}, {"wal_sender_timeout": "30"}, ["wal_sender_timeout: found 30, required 0 or at least 20000"]),
        ({}, {"max_wal_senders": "10"}, ["max_wal_senders: found 10, required at least 20"]),
        (
            {"DBParameterGroups": [{"DBParameterGroupName": "orders", "ParameterApplyStatus": "pending-reboot"}]},
            {},
            ["parameter group orders: found orders is pending-reboot, required in-sync"],
        ),
    ],
)
def test_an_rds_postgresql_instance(instance: dict[str, Any], parameters: dict[str, str], wanted: list[str]) -> None:
    one = rds_instance(POSTGRES, {"Engine": "postgres", "EngineVersion": "16.6", **instance}, {**FIT, **parameters})
    differences = [str(difference) for difference in found(one)]
    assert len(differences) == len(wanted)
    assert all(text in said for text, said in zip(wanted, differences, strict=True))


def test_an_rds_mysql_instance() -> None:
    settings = SourceSettings(engine="mysql", instance="orders")
    right = {"binlog_format": "ROW", "binlog_row_image": "FULL", "binlog_row_value_options": ""}
    described = {"Engine": "mysql", "EngineVersion": "8.0.40"}
    assert found(rds_instance(settings, described, right)) == []
    (one,) = found(rds_instance(settings, described, {**right, "binlog_row_image": "minimal"}))
    assert "binlog_row_image: found minimal, required full" in str(one)


def test_what_aws_refuses_is_explained() -> None:
    rds = boto3.client("rds", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(rds) as stub:
        stub.add_client_error("describe_db_clusters", "AccessDenied", "User x may not rds:DescribeDBClusters")
        with pytest.raises(ReplicationError) as raised:
            Source(rds, AURORA_POSTGRESQL).read()
    assert str(raised.value) == (
        "describe source cluster src: AccessDenied: User x may not rds:DescribeDBClusters. To do: the credentials do "
        "not allow this call; the message names the action to add to the role's policy."
    )
