from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from zeroetl_dagster_tests.local_aws.conftest import ACCOUNT, REGION, Bed, refused

ENDPOINT = f"cluster:{ACCOUNT}/{REGION}/wh"
CASE = "enable_case_sensitive_identifier"


def create(bed: Bed, **more: Any) -> dict[str, Any]:
    settings = {"ClusterIdentifier": "wh", "NodeType": "ra3.large", "MasterUsername": "Admin"}
    settings |= {"MasterUserPassword": "Secret-123"} | more
    sent = {name: value for name, value in settings.items() if value is not None}
    answer: dict[str, Any] = bed.client("redshift").create_cluster(**sent)["Cluster"]
    return answer


def found(bed: Bed) -> dict[str, Any]:
    cluster: dict[str, Any] = bed.client("redshift").describe_clusters(ClusterIdentifier="wh")["Clusters"][0]
    return cluster


def group(bed: Bed, name: str = "cs", **values: str) -> None:
    redshift = bed.client("redshift")
    redshift.create_cluster_parameter_group(
        ParameterGroupName=name, ParameterGroupFamily="redshift-2.0", Description="d"
    )
    changes = [{"ParameterName": n, "ParameterValue": v} for n, v in (values or {CASE: "true"}).items()]
    redshift.modify_cluster_parameter_group(ParameterGroupName=name, Parameters=changes)


def apply_status(bed: Bed) -> tuple[str, str]:
    """Of the group, and of the case sensitivity in it."""
    shown = found(bed)["ClusterParameterGroups"][0]
    statuses = {p["ParameterName"]: p["ParameterApplyStatus"] for p in shown["ClusterParameterStatusList"]}
    return shown["ParameterApplyStatus"], statuses[CASE]


# ---- clusters ----------------------------------------------------------------------------------------------------


def test_a_cluster_becomes_available_and_listens(bed: Bed) -> None:
    made = create(bed)
    assert made["ClusterStatus"] == "creating" and "Endpoint" not in made
    assert made["ClusterNamespaceArn"].startswith(f"arn:aws:redshift:{REGION}:{ACCOUNT}:namespace:")
    bed.client("redshift").get_waiter("cluster_available").wait(ClusterIdentifier="wh", WaiterConfig={"Delay": 1})
    cluster = found(bed)
    assert (cluster["DBName"], cluster["MasterUsername"], cluster["Encrypted"]) == ("dev", "admin", True)
    assert (cluster["ClusterAvailabilityStatus"], cluster["NumberOfNodes"]) == ("Available", 1)
    listening = bed.warehouse.listening[ENDPOINT]
    assert listening["port"] == cluster["Endpoint"]["Port"] and listening["rpu"] is None
    assert listening["settings"][CASE] == "false"
    namespace = bed.warehouse.namespaces[cluster["ClusterNamespaceArn"].rpartition(":")[2]]
    assert namespace == {"user": "admin", "password": "Secret-123", "database": "dev"}


def test_a_managed_password_is_in_a_secret(bed: Bed) -> None:
    made = create(bed, MasterUserPassword=None, ManageMasterPassword=True)
    secret = bed.client("secretsmanager").get_secret_value(SecretId=made["MasterPasswordSecretArn"])
    held = bed.warehouse.namespaces[made["ClusterNamespaceArn"].rpartition(":")[2]]
    assert json.loads(secret["SecretString"]) == {"username": "admin", "password": held["password"]}
    bed.settle()
    bed.client("redshift").modify_cluster(ClusterIdentifier="wh", MasterUserPassword="Secret-456")
    bed.settle()
    assert "MasterPasswordSecretArn" not in found(bed)
    again = bed.client("redshift").modify_cluster(ClusterIdentifier="wh", ManageMasterPassword=True)["Cluster"]
    assert again["ClusterStatus"] == "modifying"
    bed.settle()
    assert "MasterPasswordSecretArn" in found(bed)


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ({"NodeType": "tiny"}, "InvalidParameterValue", "ra3.large"),
        ({"ClusterType": "multi-node"}, "InvalidParameterCombination", "multi-node 2 or more"),
        ({"MasterUserPassword": "short"}, "InvalidParameterValue", "8 to 64 characters"),
        ({"MasterUserPassword": None}, "InvalidParameterCombination", "either MasterUserPassword"),
        ({"ManageMasterPassword": True}, "InvalidParameterCombination", "either MasterUserPassword"),
        ({"ClusterParameterGroupName": "none"}, "ClusterParameterGroupNotFound", "none"),
        ({"HsmConfigurationIdentifier": "h"}, "NotImplemented", "HsmConfigurationIdentifier"),
    ],
)
def test_clusters_that_cannot_be(bed: Bed, more: dict[str, Any], code: str, said: str) -> None:
    error = refused(lambda: create(bed, **more))
    assert error["Code"] == code and said in error["Message"]


def test_a_cluster_exists_once_and_is_described_by_name(bed: Bed) -> None:
    create(bed)
    assert refused(lambda: create(bed))["Code"] == "ClusterAlreadyExists"
    redshift = bed.client("redshift")
    assert refused(lambda: redshift.describe_clusters(ClusterIdentifier="x"))["Code"] == "ClusterNotFound"
    assert [c["ClusterIdentifier"] for c in redshift.describe_clusters()["Clusters"]] == ["wh"]


def test_pausing_and_resuming(bed: Bed) -> None:
    create(bed)
    bed.settle()
    redshift = bed.client("redshift")
    error = refused(lambda: redshift.resume_cluster(ClusterIdentifier="wh"))
    assert error["Code"] == "InvalidClusterState" and "must be paused" in error["Message"]
    assert redshift.pause_cluster(ClusterIdentifier="wh")["Cluster"]["ClusterStatus"] == "pausing"
    bed.settle()
    assert found(bed)["ClusterAvailabilityStatus"] == "Paused" and bed.warehouse.paused == {ENDPOINT}
    bed.warehouse.paused.clear()
    bed.restart()
    assert bed.warehouse.paused == {ENDPOINT}
    bed.client("redshift").resume_cluster(ClusterIdentifier="wh")
    bed.settle()
    assert bed.warehouse.paused == set() and found(bed)["ClusterStatus"] == "available"


def test_deleting(bed: Bed) -> None:
    bed.hold()
    create(bed)
    redshift = bed.client("redshift")
    error = refused(lambda: redshift.delete_cluster(ClusterIdentifier="wh", SkipFinalClusterSnapshot=True))
    assert error["Code"] == "InvalidClusterState"
    bed.release()
    bed.settle()
    error = refused(lambda: redshift.delete_cluster(ClusterIdentifier="wh"))
    assert "FinalClusterSnapshotIdentifier is required" in error["Message"]
    redshift.delete_cluster(ClusterIdentifier="wh", SkipFinalClusterSnapshot=True)
    bed.settle()
    assert redshift.describe_clusters()["Clusters"] == []
    assert bed.warehouse.namespaces == {} and bed.warehouse.listening == {}


def test_a_restart_opens_what_was_open_on_the_same_port(bed: Bed) -> None:
    create(bed)
    bed.settle()
    before = dict(bed.warehouse.listening)
    bed.restart()
    assert bed.warehouse.listening == before


# ---- parameter groups --------------------------------------------------------------------------------------------


def test_case_sensitivity_takes_effect_at_the_reboot(bed: Bed) -> None:
    create(bed)
    bed.settle()
    group(bed)
    redshift = bed.client("redshift")
    redshift.modify_cluster(ClusterIdentifier="wh", ClusterParameterGroupName="cs")
    bed.settle()
    assert apply_status(bed) == ("pending-reboot", "pending-reboot")
    assert bed.warehouse.listening[ENDPOINT]["settings"][CASE] == "false"
    bed.restart()
    assert apply_status(bed) == ("pending-reboot", "pending-reboot")
    assert bed.client("redshift").reboot_cluster(ClusterIdentifier="wh")["Cluster"]["ClusterStatus"] == "rebooting"
    bed.settle()
    assert apply_status(bed) == ("in-sync", "in-sync")
    assert bed.warehouse.listening[ENDPOINT]["settings"][CASE] == "true"


def test_a_group_given_at_creation_is_in_effect(bed: Bed) -> None:
    group(bed)
    create(bed, ClusterParameterGroupName="cs")
    assert apply_status(bed) == ("in-sync", "in-sync")


def test_a_dynamic_parameter_holds_at_once(bed: Bed) -> None:
    group(bed)
    create(bed, ClusterParameterGroupName="cs")
    bed.settle()
    change = [{"ParameterName": "max_concurrency_scaling_clusters", "ParameterValue": "3"}]
    bed.client("redshift").modify_cluster_parameter_group(ParameterGroupName="cs", Parameters=change)
    assert apply_status(bed) == ("in-sync", "in-sync")


def test_describing_parameters(bed: Bed) -> None:
    group(bed)
    redshift = bed.client("redshift")
    mine = redshift.describe_cluster_parameters(ParameterGroupName="cs", Source="user")["Parameters"]
    assert [(p["ParameterName"], p["ParameterValue"], p["ApplyType"]) for p in mine] == [(CASE, "true", "static")]
    every = redshift.describe_cluster_parameters(ParameterGroupName="default.redshift-2.0")["Parameters"]
    assert len(every) > 10 and all(p["Source"] == "engine-default" for p in every)
    names = [g["ParameterGroupName"] for g in redshift.describe_cluster_parameter_groups()["ParameterGroups"]]
    assert names == ["cs", "default.redshift-1.0", "default.redshift-2.0"]
    redshift.reset_cluster_parameter_group(ParameterGroupName="cs", Parameters=[{"ParameterName": CASE}])
    assert redshift.describe_cluster_parameters(ParameterGroupName="cs", Source="user")["Parameters"] == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("no_such", "1", "Could not find parameter with name: no_such"),
        (CASE, "yes", "allowed are true and false"),
        ("statement_timeout", "soon", "allowed are 0,100-2147483647"),
    ],
)
def test_parameters_that_cannot_be(bed: Bed, name: str, value: str, said: str) -> None:
    group(bed)
    change = [{"ParameterName": name, "ParameterValue": value}]
    redshift = bed.client("redshift")
    error = refused(lambda: redshift.modify_cluster_parameter_group(ParameterGroupName="cs", Parameters=change))
    assert error["Code"] == "InvalidParameterValue" and said in error["Message"]


def test_groups_that_cannot_be_changed_or_deleted(bed: Bed) -> None:
    group(bed)
    create(bed, ClusterParameterGroupName="cs")
    redshift = bed.client("redshift")
    error = refused(lambda: redshift.delete_cluster_parameter_group(ParameterGroupName="cs"))
    assert error["Code"] == "InvalidClusterParameterGroupState" and "cluster wh" in error["Message"]
    error = refused(lambda: redshift.delete_cluster_parameter_group(ParameterGroupName="default.redshift-1.0"))
    assert "default parameter group" in error["Message"]
    assert refused(lambda: group(bed))["Code"] == "ClusterParameterGroupAlreadyExists"
    error = refused(lambda: redshift.reset_cluster_parameter_group(ParameterGroupName="cs"))
    assert "either ResetAllParameters=true or a list" in error["Message"]
    error = refused(
        lambda: redshift.create_cluster_parameter_group(
            ParameterGroupName="x", ParameterGroupFamily="redshift-9", Description="d"
        )
    )
    assert "redshift-2.0, redshift-1.0" in error["Message"]
    group(bed, "free")
    redshift.delete_cluster_parameter_group(ParameterGroupName="free")
    error = refused(lambda: redshift.describe_cluster_parameter_groups(ParameterGroupName="free"))
    assert error["Code"] == "ClusterParameterGroupNotFound"


# ---- credentials -------------------------------------------------------------------------------------------------


def test_temporary_credentials(bed: Bed) -> None:
    namespace_id = create(bed)["ClusterNamespaceArn"].rpartition(":")[2]
    redshift = bed.client("redshift")
    own = redshift.get_cluster_credentials_with_iam(ClusterIdentifier="wh", DbName="dev", DurationSeconds=900)
    assert own["DbUser"] == "IAM:admin"
    assert bed.warehouse.users[namespace_id, "IAM:admin"]["password"] == own["DbPassword"]
    named = redshift.get_cluster_credentials(ClusterIdentifier="wh", DbUser="etl", AutoCreate=True)
    assert named["DbUser"] == "etl"
    held = bed.warehouse.users[namespace_id, "etl"]
    assert held["password"] == named["DbPassword"] and held["expires_at"] and not held["superuser"]


def test_credentials_that_cannot_be(bed: Bed) -> None:
    create(bed)
    redshift = bed.client("redshift")
    error = refused(lambda: redshift.get_cluster_credentials(ClusterIdentifier="x", DbUser="etl"))
    assert error["Code"] == "ClusterNotFound"
    error = refused(lambda: redshift.get_cluster_credentials_with_iam(ClusterIdentifier="wh", DurationSeconds=1))
    assert "between 900 and 3600" in error["Message"]
    error = refused(lambda: redshift.get_cluster_credentials(DbUser="etl"))
    assert "ClusterIdentifier must be given" in error["Message"]
    error = refused(lambda: redshift.get_cluster_credentials(ClusterIdentifier="wh", DbUser="e", DbGroups=["g"]))
    assert error["Code"] == "NotImplemented" and "DbGroups" in error["Message"]


# ---- resource policies and tags ----------------------------------------------------------------------------------


def test_policies_of_namespaces_of_both_kinds(bed: Bed) -> None:
    provisioned, serverless = create(bed)["ClusterNamespaceArn"], bed.namespace()["namespaceArn"]
    redshift = bed.client("redshift")
    for arn in (provisioned, serverless):
        error = refused(partial(redshift.get_resource_policy, ResourceArn=arn))
        assert error["Code"] == "ResourceNotFoundFault" and "has no resource policy" in error["Message"]
        bed.authorise(arn, "arn:aws:rds:r:1:cluster:a")
        held = redshift.get_resource_policy(ResourceArn=arn)["ResourcePolicy"]
        assert held["ResourceArn"] == arn and "AuthorizeInboundIntegration" in held["Policy"]
        bed.authorise(arn, "arn:aws:rds:r:1:cluster:b")
        assert "cluster:a" not in redshift.get_resource_policy(ResourceArn=arn)["ResourcePolicy"]["Policy"]
        redshift.delete_resource_policy(ResourceArn=arn)
        error = refused(partial(redshift.delete_resource_policy, ResourceArn=arn))
        assert error["Code"] == "ResourceNotFoundFault"


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("{", "invalid Json"),
        ("{}", "with a Statement"),
        ('{"Statement": [{"Action": "redshift:x", "Principal": "*"}]}', "Effect"),
        ('{"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Principal": "*"}]}', "s3:GetObject"),
        ('{"Statement": [{"Effect": "Allow", "Action": "redshift:CreateInboundIntegration"}]}', "needs a Principal"),
    ],
)
def test_policies_that_cannot_be(bed: Bed, policy: str, said: str) -> None:
    arn = bed.namespace()["namespaceArn"]
    error = refused(lambda: bed.client("redshift").put_resource_policy(ResourceArn=arn, Policy=policy))
    assert error["Code"] == "InvalidPolicyFault" and said in error["Message"]


def test_a_policy_for_what_is_no_namespace_of_the_caller(bed: Bed) -> None:
    arn = bed.namespace()["namespaceArn"]
    policy = '{"Statement": []}'
    for client, wrong in (
        (bed.client("redshift"), arn.replace("namespace/", "workgroup/")),
        (bed.of_account("redshift"), arn),
        (bed.client("redshift", region="eu-west-1"), arn),
    ):
        error = refused(partial(client.put_resource_policy, ResourceArn=wrong, Policy=policy))
        assert error["Code"] == "ResourceNotFoundFault" and "namespace/UUID" in error["Message"]


def test_tags(bed: Bed) -> None:
    create(bed, Tags=[{"Key": "a", "Value": "1"}])
    arn = f"arn:aws:redshift:{REGION}:{ACCOUNT}:cluster:wh"
    redshift = bed.client("redshift")
    redshift.create_tags(ResourceName=arn, Tags=[{"Key": "b", "Value": "2"}])
    redshift.delete_tags(ResourceName=arn, TagKeys=["a"])
    assert redshift.describe_tags(ResourceName=arn)["TaggedResources"] == [
        {"Tag": {"Key": "b", "Value": "2"}, "ResourceName": arn, "ResourceType": "cluster"}
    ]
    assert found(bed)["Tags"] == [{"Key": "b", "Value": "2"}]
    assert refused(lambda: redshift.describe_tags(ResourceName=arn + "x"))["Code"] == "ResourceNotFoundFault"
    assert "DescribeTags without ResourceName" in refused(lambda: redshift.describe_tags())["Message"]


def test_no_cluster_writes_audit_logs(bed: Bed) -> None:
    create(bed)
    redshift = bed.client("redshift")
    assert redshift.describe_logging_status(ClusterIdentifier="wh")["LoggingEnabled"] is False
    assert refused(lambda: redshift.describe_logging_status(ClusterIdentifier="no"))["Code"] == "ClusterNotFound"
