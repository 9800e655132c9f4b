from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from zeroetl_dagster_tests.local_aws.conftest import ACCOUNT, REGION, Bed, refused

KEY = f"{ACCOUNT}/{REGION}/src"


def create(bed: Bed, **more: Any) -> dict[str, Any]:
    settings = {"DBClusterIdentifier": "src", "Engine": "aurora-postgresql", "MasterUsername": "master"}
    settings |= {"MasterUserPassword": "Correct-horse1"} | more
    answer: dict[str, Any] = bed.client("rds").create_db_cluster(**settings)["DBCluster"]
    return answer


def test_a_cluster_becomes_available_and_has_a_server_from_its_first_instance_on(bed: Bed) -> None:
    made = create(bed, DatabaseName="tickit")
    assert made["Status"] == "creating" and made["DBClusterArn"] == f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster:src"
    bed.settle()
    assert bed.postgres.created == {}
    rds = bed.client("rds")
    rds.create_db_instance(
        DBInstanceIdentifier="one",
        DBClusterIdentifier="src",
        DBInstanceClass="db.serverless",
        Engine="aurora-postgresql",
    )
    rds.get_waiter("db_instance_available").wait(
        DBInstanceIdentifier="one", WaiterConfig={"Delay": 1, "MaxAttempts": 9}
    )
    found = rds.describe_db_clusters(DBClusterIdentifier="src")["DBClusters"][0]
    assert found["Status"] == "available" and found["Endpoint"] == "127.0.0.1"
    assert bed.postgres.created[KEY] == {
        "port": found["Port"],
        "master_username": "master",
        "master_password": "Correct-horse1",
        "database": "tickit",
    }
    assert found["DBClusterMembers"][0] == {
        "DBInstanceIdentifier": "one",
        "IsClusterWriter": True,
        "PromotionTier": 1,
        "DBClusterParameterGroupStatus": "in-sync",
    }
    instance = rds.describe_db_instances(DBInstanceIdentifier="one")["DBInstances"][0]
    assert instance["Endpoint"]["Port"] == found["Port"]


def test_the_password_is_nowhere_in_the_store_once_the_server_has_it(bed: Bed) -> None:
    bed.cluster(ManageMasterUserPassword=False, MasterUserPassword="Correct-horse1")
    assert "Correct-horse1" not in "".join(bed.store._database.iterdump())


def test_a_managed_password_is_in_a_secret(bed: Bed) -> None:
    cluster = bed.cluster()
    secret = bed.client("secretsmanager").get_secret_value(SecretId=cluster["MasterUserSecret"]["SecretArn"])
    held = json.loads(secret["SecretString"])
    assert held == {"username": "master", "password": bed.postgres.created[KEY]["master_password"]}
    assert secret["Name"].startswith("rds!cluster-")


def test_rotation_changes_password_and_secret(bed: Bed) -> None:
    cluster = bed.cluster()
    before = bed.postgres.created[KEY]["master_password"]
    bed.client("rds").modify_db_cluster(DBClusterIdentifier="src", RotateMasterUserPassword=True)
    after = bed.postgres.created[KEY]["master_password"]
    arn = cluster["MasterUserSecret"]["SecretArn"]
    held = json.loads(bed.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])
    assert before != after == held["password"]


def test_from_managed_to_given_password_and_back(bed: Bed) -> None:
    bed.cluster()
    rds = bed.client("rds")
    error = refused(lambda: rds.modify_db_cluster(DBClusterIdentifier="src", MasterUserPassword="Correct-horse1"))
    assert "ManageMasterUserPassword=false" in error["Message"]
    rds.modify_db_cluster(
        DBClusterIdentifier="src", ManageMasterUserPassword=False, MasterUserPassword="Correct-horse1"
    )
    found = rds.describe_db_clusters(DBClusterIdentifier="src")["DBClusters"][0]
    assert "MasterUserSecret" not in found and bed.postgres.created[KEY]["master_password"] == "Correct-horse1"
    error = refused(lambda: rds.modify_db_cluster(DBClusterIdentifier="src", RotateMasterUserPassword=True))
    assert "no managed password" in error["Message"]
    answer = rds.modify_db_cluster(DBClusterIdentifier="src", ManageMasterUserPassword=True)
    assert answer["DBCluster"]["MasterUserSecret"]["SecretStatus"] == "active"
    error = refused(lambda: rds.modify_db_cluster(DBClusterIdentifier="src", ManageMasterUserPassword=False))
    assert "Specify MasterUserPassword" in error["Message"]


def test_the_port_is_free_and_kept(bed: Bed) -> None:
    cluster = bed.cluster()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", cluster["Port"]))
    bed.restart()
    assert bed.client("rds").describe_db_clusters()["DBClusters"][0]["Port"] == cluster["Port"]


def test_a_taken_port_becomes_another(bed: Bed) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        wanted = taken.getsockname()[1]
        assert create(bed, Port=wanted)["Port"] != wanted


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ({"DBClusterIdentifier": "1a"}, "InvalidParameterValue", "not a valid identifier"),
        ({"DBClusterIdentifier": "a--b"}, "InvalidParameterValue", "two consecutive hyphens"),
        ({"Engine": "mysql"}, "NotImplemented", "engine mysql"),
        ({"EngineVersion": "9.6"}, "InvalidParameterCombination", "Cannot find version 9.6"),
        ({"MasterUserPassword": "short"}, "InvalidParameterValue", "not a valid password"),
        ({"MasterUserPassword": "has@sign-in-it"}, "InvalidParameterValue", "not a valid password"),
        ({"MasterUserPassword": ""}, "InvalidParameterValue", "MasterUserPassword must be provided"),
        ({"ManageMasterUserPassword": True}, "InvalidParameterCombination", "when you specify Manage"),
        ({"MasterUsername": "rdsadmin"}, "InvalidParameterValue", "reserved word"),
        ({"MasterUsername": ""}, "InvalidParameterValue", "MasterUsername must be provided"),
        ({"MasterUsername": "a b"}, "InvalidParameterValue", "not a valid identifier"),
        ({"DBClusterParameterGroupName": "none"}, "DBClusterParameterGroupNotFound", "none"),
        (
            {"DBClusterParameterGroupName": "default.aurora-mysql8.0"},
            "InvalidParameterCombination",
            "DBParameterGroupFamily aurora-postgresql17",
        ),
        ({"GlobalClusterIdentifier": "g"}, "NotImplemented", "CreateDBCluster with GlobalClusterIdentifier"),
        ({"EnableIAMDatabaseAuthentication": True}, "NotImplemented", "EnableIAMDatabaseAuthentication"),
        ({"EngineMode": "serverless"}, "NotImplemented", "CreateDBCluster with"),
        (
            {"ServerlessV2ScalingConfiguration": {"MinCapacity": 0.3, "MaxCapacity": 1}},
            "InvalidParameterValue",
            "multiples of 0.5",
        ),
    ],
)
def test_what_cannot_be_is_refused(bed: Bed, more: dict[str, Any], code: str, said: str) -> None:
    error = refused(lambda: create(bed, **more))
    assert error["Code"] == code and said in error["Message"]
    assert "has@sign-in-it" not in error["Message"]


def test_a_major_version_stands_for_its_newest(bed: Bed) -> None:
    assert create(bed, EngineVersion="16")["EngineVersion"] == "16.8"


def test_a_cluster_exists_once(bed: Bed) -> None:
    create(bed)
    assert refused(lambda: create(bed, DBClusterIdentifier="SRC"))["Code"] == "DBClusterAlreadyExistsFault"


def test_accounts_and_regions_are_apart(bed: Bed) -> None:
    create(bed)
    assert bed.client("rds", region="eu-west-1").describe_db_clusters()["DBClusters"] == []
    other = bed.of_account("rds")
    assert other.describe_db_clusters()["DBClusters"] == []
    error = refused(lambda: other.describe_db_clusters(DBClusterIdentifier="src"))
    assert error == {"Type": "Sender", "Code": "DBClusterNotFoundFault", "Message": "DBCluster src not found."}


def test_describing_in_pages_and_by_filter(bed: Bed) -> None:
    for number in range(23):
        create(bed, DBClusterIdentifier=f"c{number:02}")
    rds = bed.client("rds")
    pages = list(rds.get_paginator("describe_db_clusters").paginate(PaginationConfig={"PageSize": 20}))
    assert [len(page["DBClusters"]) for page in pages] == [20, 3]
    only = rds.describe_db_clusters(Filters=[{"Name": "db-cluster-id", "Values": ["c05", "c06"]}])
    assert [c["DBClusterIdentifier"] for c in only["DBClusters"]] == ["c05", "c06"]
    error = refused(lambda: rds.describe_db_clusters(Filters=[{"Name": "domain", "Values": ["x"]}]))
    assert "filter domain" in error["Message"]
    assert "between 20 and 100" in refused(lambda: rds.describe_db_clusters(MaxRecords=5))["Message"]


def test_stop_and_start(bed: Bed) -> None:
    bed.cluster()
    rds = bed.client("rds")
    assert rds.stop_db_cluster(DBClusterIdentifier="src")["DBCluster"]["Status"] == "stopping"
    bed.settle()
    assert not bed.postgres.running(KEY)
    assert rds.describe_db_instances()["DBInstances"][0]["DBInstanceStatus"] == "stopped"
    assert refused(lambda: rds.stop_db_cluster(DBClusterIdentifier="src"))["Code"] == "InvalidDBClusterStateFault"
    bed.restart()
    assert not bed.postgres.running(KEY)
    bed.client("rds").start_db_cluster(DBClusterIdentifier="src")
    bed.settle()
    assert bed.postgres.running(KEY)
    assert bed.client("rds").describe_db_clusters()["DBClusters"][0]["Status"] == "available"


def test_deleting_in_order(bed: Bed) -> None:
    cluster = bed.cluster(DeletionProtection=True)
    rds = bed.client("rds")
    error = refused(lambda: rds.delete_db_cluster(DBClusterIdentifier="src"))
    assert "FinalDBSnapshotIdentifier is required" in error["Message"]
    delete = {"DBClusterIdentifier": "src", "SkipFinalSnapshot": True}
    assert "protected" in refused(lambda: rds.delete_db_cluster(**delete))["Message"]
    rds.modify_db_cluster(DBClusterIdentifier="src", DeletionProtection=False)
    assert "still contains DB instances" in refused(lambda: rds.delete_db_cluster(**delete))["Message"]
    bed.hold()
    assert rds.delete_db_instance(DBInstanceIdentifier="src-1")["DBInstance"]["DBInstanceStatus"] == "deleting"
    assert "already being deleted" in refused(lambda: rds.delete_db_instance(DBInstanceIdentifier="src-1"))["Message"]
    bed.release()
    bed.settle()
    assert not bed.postgres.running(KEY) and KEY in bed.postgres.created
    bed.hold()
    rds.delete_db_cluster(**delete)
    assert "being deleted" in refused(lambda: rds.delete_db_cluster(**delete))["Message"]
    bed.release()
    bed.settle()
    assert rds.describe_db_clusters()["DBClusters"] == [] and bed.postgres.created == {}
    arn = cluster["MasterUserSecret"]["SecretArn"]
    assert refused(lambda: bed.client("secretsmanager").get_secret_value(SecretId=arn))["Code"] == (
        "ResourceNotFoundException"
    )
    bed.client("rds").get_waiter("db_cluster_deleted").wait(DBClusterIdentifier="src", WaiterConfig={"Delay": 1})


def test_a_reader_takes_over_from_a_deleted_writer(bed: Bed) -> None:
    bed.cluster()
    rds = bed.client("rds")
    reader = {"DBClusterIdentifier": "src", "DBInstanceClass": "db.serverless", "Engine": "aurora-postgresql"}
    rds.create_db_instance(DBInstanceIdentifier="src-2", **reader)
    bed.settle()
    members = rds.describe_db_clusters()["DBClusters"][0]["DBClusterMembers"]
    assert [(m["DBInstanceIdentifier"], m["IsClusterWriter"]) for m in members] == [("src-1", True), ("src-2", False)]
    rds.delete_db_instance(DBInstanceIdentifier="src-1")
    bed.settle()
    members = rds.describe_db_clusters()["DBClusters"][0]["DBClusterMembers"]
    assert [(m["DBInstanceIdentifier"], m["IsClusterWriter"]) for m in members] == [("src-2", True)]
    assert bed.postgres.running(KEY)


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ({"DBClusterIdentifier": "absent"}, "DBClusterNotFoundFault", "absent"),
        ({"Engine": "aurora-mysql"}, "InvalidParameterCombination", "must be its cluster's"),
        ({"DBInstanceClass": "large"}, "InvalidParameterValue", "Invalid DB Instance class"),
        ({"DBInstanceIdentifier": "src-1"}, "DBInstanceAlreadyExists", "src-1"),
        ({"AllocatedStorage": 20}, "NotImplemented", "AllocatedStorage"),
    ],
)
def test_instances_that_cannot_be(bed: Bed, more: dict[str, Any], code: str, said: str) -> None:
    bed.cluster()
    settings = {
        "DBInstanceIdentifier": "src-2",
        "DBClusterIdentifier": "src",
        "DBInstanceClass": "db.serverless",
        "Engine": "aurora-postgresql",
    }
    error = refused(lambda: bed.client("rds").create_db_instance(**settings | more))
    assert error["Code"] == code and said in error["Message"]


def test_an_instance_outside_a_cluster_is_one_of_postgresql(bed: Bed) -> None:
    rds = bed.client("rds")
    error = refused(
        lambda: rds.create_db_instance(DBInstanceIdentifier="a", DBInstanceClass="db.t4g.micro", Engine="mysql")
    )
    assert error["Code"] == "NotImplemented" and "without DBClusterIdentifier" in error["Message"]


def test_modifying_an_instance(bed: Bed) -> None:
    bed.cluster()
    rds = bed.client("rds")
    bed.hold()
    changed = rds.modify_db_instance(DBInstanceIdentifier="src-1", DBInstanceClass="db.r7g.large", PromotionTier=3)
    assert changed["DBInstance"]["DBInstanceStatus"] == "modifying"
    assert refused(lambda: rds.reboot_db_instance(DBInstanceIdentifier="src-1"))["Code"] == "InvalidDBInstanceState"
    bed.release()
    bed.settle()
    found = rds.describe_db_instances()["DBInstances"][0]
    assert (found["DBInstanceClass"], found["PromotionTier"], found["DBInstanceStatus"]) == (
        "db.r7g.large",
        3,
        "available",
    )


def test_creation_goes_on_after_a_kill(bed: Bed) -> None:
    bed.hold()
    create(bed)
    rds = bed.client("rds")
    rds.create_db_instance(
        DBInstanceIdentifier="one",
        DBClusterIdentifier="src",
        DBInstanceClass="db.serverless",
        Engine="aurora-postgresql",
    )
    bed.restart()
    assert bed.postgres.running_now == {}
    bed.release()
    bed.settle()
    found = bed.client("rds").describe_db_instances()["DBInstances"][0]
    assert found["DBInstanceStatus"] == "available" and bed.postgres.running(KEY)


def test_servers_are_brought_back_or_adopted(bed: Bed) -> None:
    bed.cluster()
    bed.restart()  # the server lives on: nothing to start
    assert bed.postgres.running_now == {KEY: True}
    bed.postgres.running_now.clear()
    bed.restart()
    assert bed.postgres.running_now == {KEY: True}


def test_a_server_that_does_not_come_back_keeps_nobody_else_down(bed: Bed) -> None:
    bed.cluster()
    bed.postgres.running_now.clear()
    bed.postgres.fail_start = True
    bed.restart()
    rds = bed.client("rds")
    assert rds.describe_db_instances()["DBInstances"][0]["DBInstanceStatus"] == "failed"
    assert "the port is taken" in rds.describe_events(SourceType="db-instance")["Events"][-1]["Message"]
    bed.postgres.fail_start = False
    bed.restart()
    assert bed.client("rds").describe_db_instances()["DBInstances"][0]["DBInstanceStatus"] == "available"


def test_a_server_that_does_not_start_is_said(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeroetl_dagster.local.aws.transitions.RETRY_SECONDS", 0.01)
    bed.postgres.fail_start = True
    bed.cluster()
    rds = bed.client("rds")
    assert rds.describe_db_instances()["DBInstances"][0]["DBInstanceStatus"] == "failed"
    events = rds.describe_events(SourceType="db-instance", SourceIdentifier="src-1")["Events"]
    assert "the port is taken" in events[-1]["Message"]


def test_tags(bed: Bed) -> None:
    arn = bed.cluster(Tags=[{"Key": "a", "Value": "1"}])["DBClusterArn"]
    rds = bed.client("rds")
    rds.add_tags_to_resource(ResourceName=arn, Tags=[{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}])
    rds.remove_tags_from_resource(ResourceName=arn, TagKeys=["a"])
    assert rds.list_tags_for_resource(ResourceName=arn)["TagList"] == [{"Key": "b", "Value": "3"}]
    assert rds.describe_db_clusters()["DBClusters"][0]["TagList"] == [{"Key": "b", "Value": "3"}]
    error = refused(lambda: rds.list_tags_for_resource(ResourceName=arn + "x"))
    assert error["Code"] == "DBClusterNotFoundFault"
    error = refused(lambda: rds.list_tags_for_resource(ResourceName="arn:aws:rds:r:1:og:x"))
    assert "Invalid resource name" in error["Message"]


def test_engine_versions(bed: Bed) -> None:
    rds = bed.client("rds")
    default = rds.describe_db_engine_versions(Engine="aurora-postgresql", DefaultOnly=True)["DBEngineVersions"]
    assert [v["DBParameterGroupFamily"] for v in default] == ["aurora-postgresql17"]
    assert all(v["SupportsIntegrations"] for v in rds.describe_db_engine_versions()["DBEngineVersions"])


def test_a_cluster_belongs_to_no_global_cluster(bed: Bed) -> None:
    """Terraform asks for each cluster that it reads."""
    rds = bed.client("rds")
    ours = [{"Name": "db-cluster-id", "Values": [bed.cluster()["DBClusterArn"]]}]
    assert rds.describe_global_clusters(Filters=ours)["GlobalClusters"] == []
    error = refused(lambda: rds.describe_global_clusters(GlobalClusterIdentifier="world"))
    assert error["Code"] == "GlobalClusterNotFoundFault"


# ---- Aurora MySQL: a control plane that says what it is ----------------------------------------------------------


def test_mysql_says_that_no_engine_stands_behind_it(bed: Bed) -> None:
    cluster = bed.cluster(good=False, Engine="aurora-mysql")
    rds = bed.client("rds")
    assert cluster["Status"] == "available" and cluster["EngineVersion"].startswith("8.0.mysql_aurora.3.")
    messages = [event["Message"] for event in rds.describe_events(SourceIdentifier="src")["Events"]]
    assert any("No data engine stands behind aurora-mysql" in message for message in messages)
    with socket.create_connection(("127.0.0.1", cluster["Port"]), timeout=10) as connection:
        packet = connection.recv(4096)
    assert packet[3:7] == b"\x00\xff" + (1105).to_bytes(2, "little")
    assert b"No data engine stands behind aurora-mysql" in packet
    bed.restart()
    with socket.create_connection(("127.0.0.1", cluster["Port"]), timeout=10) as connection:
        assert connection.recv(4096)[4] == 0xFF
    assert bed.postgres.created == {}
