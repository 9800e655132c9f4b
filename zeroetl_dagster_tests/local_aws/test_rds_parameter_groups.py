from __future__ import annotations

from typing import Any

import pytest

from zeroetl_dagster_tests.local_aws.conftest import ACCOUNT, GOOD_PARAMETERS, REGION, Bed, refused

KEY = f"{ACCOUNT}/{REGION}/src"


def values(bed: Bed, group: str, **more: Any) -> dict[str, dict[str, Any]]:
    pages = bed.client("rds").get_paginator("describe_db_cluster_parameters")
    found = pages.paginate(DBClusterParameterGroupName=group, PaginationConfig={"PageSize": 20}, **more)
    return {p["ParameterName"]: p for page in found for p in page["Parameters"]}


def status(bed: Bed) -> str:
    member = bed.client("rds").describe_db_clusters()["DBClusters"][0]["DBClusterMembers"][0]
    found: str = member["DBClusterParameterGroupStatus"]
    return found


def test_the_parameters_that_decide_zero_etl_are_there(bed: Bed) -> None:
    found = values(bed, "default.aurora-postgresql17")
    assert len(found) > 50
    assert found["rds.logical_replication"] | {"Description": ""} == {
        "ParameterName": "rds.logical_replication",
        "ParameterValue": "0",
        "Description": "",
        "Source": "engine-default",
        "ApplyType": "static",
        "DataType": "boolean",
        "AllowedValues": "0,1",
        "IsModifiable": True,
        "ApplyMethod": "pending-reboot",
        "SupportedEngineModes": ["provisioned"],
    }
    assert "ParameterValue" not in found["work_mem"]  # as AWS: no value where the engine computes one
    mysql = values(bed, "default.aurora-mysql8.0")
    assert mysql["binlog_format"]["ParameterValue"] == "OFF"
    assert not mysql["datadir"]["IsModifiable"] and mysql["datadir"]["Source"] == "system"


def test_a_modified_parameter_is_of_source_user(bed: Bed) -> None:
    bed.group("mine")
    found = values(bed, "mine", Source="user")
    assert {name: p["ParameterValue"] for name, p in found.items()} == GOOD_PARAMETERS
    assert "Invalid source" in refused(lambda: values(bed, "mine", Source="x"))["Message"]


def test_parameters_take_effect_at_the_reboot_and_not_before(bed: Bed) -> None:
    bed.cluster(good=False)
    assert bed.postgres.running_now == {KEY: False} and status(bed) == "in-sync"
    bed.group("mine")
    rds = bed.client("rds")
    rds.modify_db_cluster(DBClusterIdentifier="src", DBClusterParameterGroupName="mine")
    assert status(bed) == "pending-reboot" and bed.postgres.running_now == {KEY: False}
    assert rds.reboot_db_instance(DBInstanceIdentifier="src-1")["DBInstance"]["DBInstanceStatus"] == "rebooting"
    bed.settle()
    assert status(bed) == "in-sync" and bed.postgres.running_now == {KEY: True}
    bed.set_parameters("mine", **{"aurora.logical_replication_backup": "1"})
    assert status(bed) == "pending-reboot"
    bed.restart()  # a restart of the embedded AWS is no reboot of the instance
    assert status(bed) == "pending-reboot" and bed.postgres.running_now == {KEY: True}
    bed.client("rds").reboot_db_instance(DBInstanceIdentifier="src-1")
    bed.settle()
    assert status(bed) == "in-sync" and bed.postgres.running_now == {KEY: False}


def test_a_dynamic_parameter_holds_at_once_if_asked(bed: Bed) -> None:
    bed.cluster()
    change = {"ParameterName": "log_statement", "ParameterValue": "ddl", "ApplyMethod": "immediate"}
    rds = bed.client("rds")
    rds.modify_db_cluster_parameter_group(DBClusterParameterGroupName="src-group", Parameters=[change])
    assert status(bed) == "in-sync"
    change["ApplyMethod"] = "pending-reboot"
    rds.modify_db_cluster_parameter_group(DBClusterParameterGroupName="src-group", Parameters=[change])
    assert status(bed) == "pending-reboot"


def test_stopping_and_starting_puts_parameters_into_effect(bed: Bed) -> None:
    bed.cluster()
    bed.set_parameters("src-group", **{"rds.logical_replication": "0"})
    bed.client("rds").stop_db_cluster(DBClusterIdentifier="src")
    bed.settle()
    bed.client("rds").start_db_cluster(DBClusterIdentifier="src")
    bed.settle()
    assert status(bed) == "in-sync" and bed.postgres.running_now == {KEY: False}


@pytest.mark.parametrize("name", sorted(GOOD_PARAMETERS))
def test_one_wrong_value_keeps_logical_decoding_off(bed: Bed, name: str) -> None:
    wrong = "0" if GOOD_PARAMETERS[name] == "1" else "1"
    bed.group("almost", **GOOD_PARAMETERS | {name: wrong})
    bed.cluster(good=False, DBClusterParameterGroupName="almost")
    assert bed.postgres.running_now == {KEY: False}


def test_reset(bed: Bed) -> None:
    bed.group("mine")
    rds = bed.client("rds")
    rds.reset_db_cluster_parameter_group(
        DBClusterParameterGroupName="mine", Parameters=[{"ParameterName": "rds.logical_replication"}]
    )
    assert "rds.logical_replication" not in values(bed, "mine", Source="user")
    rds.reset_db_cluster_parameter_group(DBClusterParameterGroupName="mine", ResetAllParameters=True)
    assert values(bed, "mine", Source="user") == {}
    error = refused(lambda: rds.reset_db_cluster_parameter_group(DBClusterParameterGroupName="mine"))
    assert "either ResetAllParameters=true or a list" in error["Message"]


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"ParameterName": "no.such"}, "InvalidParameterValue", "Could not find parameter with name: no.such"),
        ({"ParameterName": "data_directory"}, "InvalidParameterValue", "cannot be modified"),
        ({"ParameterValue": "2"}, "InvalidParameterValue", "allowed values are: 0,1"),
        ({"ApplyMethod": "immediate"}, "InvalidParameterCombination", "immediate apply method for static"),
        ({"ApplyMethod": None}, "InvalidParameterValue", "ApplyMethod (immediate or pending-reboot)"),
        ({"ParameterName": "log_temp_files", "ParameterValue": "x"}, "InvalidParameterValue", "-1-2147483647"),
    ],
)
def test_changes_that_cannot_be(bed: Bed, change: dict[str, Any], code: str, said: str) -> None:
    bed.group("mine")
    whole = {"ParameterName": "rds.logical_replication", "ParameterValue": "1", "ApplyMethod": "pending-reboot"}
    sent = {name: value for name, value in (whole | change).items() if value is not None}
    rds = bed.client("rds")
    error = refused(
        lambda: rds.modify_db_cluster_parameter_group(DBClusterParameterGroupName="mine", Parameters=[sent])
    )
    assert error["Code"] == code and said in error["Message"]


def test_twenty_parameters_a_call(bed: Bed) -> None:
    bed.group("mine")
    change = {"ParameterName": "log_statement", "ParameterValue": "ddl", "ApplyMethod": "immediate"}
    rds = bed.client("rds")
    error = refused(
        lambda: rds.modify_db_cluster_parameter_group(DBClusterParameterGroupName="mine", Parameters=[change] * 21)
    )
    assert "maximum of 20" in error["Message"]


def test_default_groups_never_change(bed: Bed) -> None:
    rds = bed.client("rds")
    name = {"DBClusterParameterGroupName": "default.aurora-postgresql17"}
    change = {"ParameterName": "rds.logical_replication", "ParameterValue": "1", "ApplyMethod": "pending-reboot"}
    for action in (
        lambda: rds.modify_db_cluster_parameter_group(**name, Parameters=[change]),
        lambda: rds.reset_db_cluster_parameter_group(**name, ResetAllParameters=True),
        lambda: rds.delete_db_cluster_parameter_group(**name),
    ):
        error = refused(action)
        assert error["Code"] == "InvalidDBParameterGroupState" and "Default parameter group" in error["Message"]


def test_groups_are_created_once_described_and_deleted_when_free(bed: Bed) -> None:
    bed.cluster()
    rds = bed.client("rds")
    names = [
        g["DBClusterParameterGroupName"] for g in rds.describe_db_cluster_parameter_groups()["DBClusterParameterGroups"]
    ]
    assert "src-group" in names and "default.aurora-postgresql17" in names
    error = refused(lambda: bed.group("src-group"))
    assert error["Code"] == "DBParameterGroupAlreadyExists"
    error = refused(lambda: rds.delete_db_cluster_parameter_group(DBClusterParameterGroupName="src-group"))
    assert error["Code"] == "InvalidDBParameterGroupState" and error["Message"].endswith("src")
    rds.modify_db_cluster(DBClusterIdentifier="src", DBClusterParameterGroupName="default.aurora-postgresql17")
    rds.delete_db_cluster_parameter_group(DBClusterParameterGroupName="src-group")
    error = refused(lambda: rds.describe_db_cluster_parameters(DBClusterParameterGroupName="src-group"))
    assert error["Code"] == "DBParameterGroupNotFound"
    error = refused(
        lambda: rds.create_db_cluster_parameter_group(
            DBClusterParameterGroupName="x", DBParameterGroupFamily="oracle", Description="d"
        )
    )
    assert "ParameterGroupFamily oracle is not a valid" in error["Message"]


def test_engine_defaults(bed: Bed) -> None:
    rds = bed.client("rds")
    found = rds.describe_engine_default_cluster_parameters(DBParameterGroupFamily="aurora-mysql8.0")["EngineDefaults"]
    assert found["DBParameterGroupFamily"] == "aurora-mysql8.0" and len(found["Parameters"]) > 40
    error = refused(lambda: rds.describe_engine_default_cluster_parameters(DBParameterGroupFamily="x"))
    assert error["Code"] == "DBParameterGroupNotFound"
