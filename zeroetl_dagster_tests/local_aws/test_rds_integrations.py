from __future__ import annotations

import re
from typing import Any

import pytest

from zeroetl_dagster.local.aws.rds_integrations import Integrations
from zeroetl_dagster_tests.local_aws.conftest import ACCOUNT, OTHER_ACCOUNT, REGION, Bed, refused

NO_ACCESS = "You don't have access to zero-ETL integrations because the Amazon Redshift data warehouse doesn't exist"


def create(bed: Bed, arns: tuple[str, str], **more: Any) -> dict[str, Any]:
    settings = {"SourceArn": arns[0], "TargetArn": arns[1], "IntegrationName": "zetl", "DataFilter": "include: db.*.*"}
    answer: dict[str, Any] = bed.client("rds").create_integration(**settings | more)
    return answer


def codes(described: dict[str, Any]) -> list[str]:
    return [error["ErrorCode"] for error in described["Errors"]]


# ---- the way to active -------------------------------------------------------------------------------------------


def test_creating_then_active(bed: Bed, arns: tuple[str, str]) -> None:
    made = create(bed, arns, Description="what for", Tags=[{"Key": "a", "Value": "1"}])
    assert made["Status"] == "creating" and made["Tags"] == [{"Key": "a", "Value": "1"}]
    assert re.fullmatch(rf"arn:aws:rds:{REGION}:{ACCOUNT}:integration:[0-9a-f-]{{36}}", made["IntegrationArn"])
    assert (made["SourceArn"], made["TargetArn"], made["DataFilter"]) == (*arns, "include: db.*.*")
    bed.settle()
    found = bed.described(made["IntegrationArn"])
    assert found["Status"] == "active" and found["Errors"] == [] and found["CreateTime"] == made["CreateTime"]
    integration_id = made["IntegrationArn"].rpartition(":")[2]
    assert bed.described(integration_id) == found
    assert bed.replicator.changed == [integration_id, integration_id]


def test_the_target_sees_it_too(bed: Bed, arns: tuple[str, str]) -> None:
    made = bed.integration(*arns)
    redshift = bed.client("redshift")
    found = redshift.describe_inbound_integrations(TargetArn=arns[1])["InboundIntegrations"]
    assert [i["IntegrationArn"] for i in found] == [made["IntegrationArn"]]
    assert (found[0]["SourceArn"], found[0]["TargetArn"], found[0]["Status"]) == (*arns, "active")
    colon = arns[1].replace("namespace/", "namespace:")
    assert redshift.describe_inbound_integrations(TargetArn=colon)["InboundIntegrations"] == found
    absent = made["IntegrationArn"][:-4] + "0000"
    error = refused(lambda: redshift.describe_inbound_integrations(IntegrationArn=absent))
    assert error["Code"] == "IntegrationNotFoundFault"
    assert bed.of_account("redshift").describe_inbound_integrations()["InboundIntegrations"] == []


def test_what_the_warehouse_and_the_replicator_read(bed: Bed, arns: tuple[str, str]) -> None:
    made = bed.integration(*arns)
    read = Integrations(bed.store)
    integration_id = made["IntegrationArn"].rpartition(":")[2]
    found = read.get(integration_id)
    assert found is not None and read.inbound(arns[1]) == read.inbound(arns[1][-36:]) == [found]
    assert (found.arn, found.source_arn, found.target_arn) == (made["IntegrationArn"], *arns)
    assert (found.engine, found.status, found.data_filter) == ("PostgreSQL", "active", "include: db.*.*")
    assert (
        found.cluster_key == f"{ACCOUNT}/{REGION}/src"
        and abs(found.created_at - made["CreateTime"].timestamp()) < 0.001
    )
    assert read.get("no-such") is None and read.inbound("no-such") == []


def test_the_workgroup_is_modifying_while_an_integration_is_made(bed: Bed, arns: tuple[str, str]) -> None:
    bed.hold()
    create(bed, arns)
    serverless = bed.client("redshift-serverless")
    assert serverless.get_workgroup(workgroupName="target")["workgroup"]["status"] == "MODIFYING"
    error = refused(lambda: serverless.update_workgroup(workgroupName="target", baseCapacity=16))
    assert error["Code"] == "ConflictException"


def test_creation_goes_on_after_a_kill(bed: Bed, arns: tuple[str, str]) -> None:
    bed.hold()
    made = create(bed, arns)
    bed.restart()
    assert bed.described(made["IntegrationArn"])["Status"] == "creating"
    bed.release()
    bed.settle()
    assert bed.described(made["IntegrationArn"])["Status"] == "active"


# ---- what makes a creation fail ----------------------------------------------------------------------------------


def test_wrong_source_parameters_fail_it_with_the_true_reason(bed: Bed) -> None:
    cluster, namespace = bed.cluster(good=False), bed.namespace()
    bed.authorise(namespace["namespaceArn"], cluster["DBClusterArn"])
    found = bed.integration(cluster["DBClusterArn"], namespace["namespaceArn"])
    assert found["Status"] == "failed" and codes(found) == ["REDSHIFT-INTEGRATION-EVENT-1000"]
    said = found["Errors"][0]["ErrorMessage"]
    assert "rds.logical_replication is 0, required is 1" in said
    assert "aurora.logical_replication_backup is 1, required is 0" in said and "reboot the writer" in said


def test_right_parameters_before_the_reboot_are_wrong_ones(bed: Bed) -> None:
    cluster, namespace = bed.cluster(good=False), bed.namespace()
    bed.group("good")
    bed.client("rds").modify_db_cluster(DBClusterIdentifier="src", DBClusterParameterGroupName="good")
    bed.authorise(namespace["namespaceArn"], cluster["DBClusterArn"])
    found = bed.integration(cluster["DBClusterArn"], namespace["namespaceArn"])
    assert found["Status"] == "failed" and codes(found) == ["REDSHIFT-INTEGRATION-EVENT-1000"]


def test_case_sensitivity_off_fails_it(bed: Bed) -> None:
    cluster, namespace = bed.cluster(), bed.namespace(case_sensitive=False)
    bed.authorise(namespace["namespaceArn"], cluster["DBClusterArn"])
    found = bed.integration(cluster["DBClusterArn"], namespace["namespaceArn"])
    assert found["Status"] == "failed" and codes(found) == ["REDSHIFT-INTEGRATION-EVENT-1001"]
    assert "enable_case_sensitive_identifier" in found["Errors"][0]["ErrorMessage"]


def test_a_source_without_an_instance_fails_it(bed: Bed) -> None:
    cluster, namespace = bed.cluster(instance=False), bed.namespace()
    bed.authorise(namespace["namespaceArn"], cluster["DBClusterArn"])
    found = bed.integration(cluster["DBClusterArn"], namespace["namespaceArn"])
    assert found["Status"] == "failed" and codes(found) == ["SourceNotAvailable"]


def test_mysql_gets_the_default_filter_and_fails_saying_that_there_is_no_engine(bed: Bed) -> None:
    cluster, namespace = bed.cluster(good=False, Engine="aurora-mysql"), bed.namespace()
    bed.authorise(namespace["namespaceArn"], cluster["DBClusterArn"])
    made = create(bed, (cluster["DBClusterArn"], namespace["namespaceArn"]), DataFilter="include: a.b")
    assert made["DataFilter"] == "include: a.b"
    bed.settle()
    found = bed.described(made["IntegrationArn"])
    assert found["Status"] == "failed"
    assert "No data engine stands behind aurora-mysql" in found["Errors"][0]["ErrorMessage"]
    bed.client("rds").delete_integration(IntegrationIdentifier=made["IntegrationArn"])
    bed.settle()
    again = bed.client("rds").create_integration(
        SourceArn=cluster["DBClusterArn"], TargetArn=namespace["namespaceArn"], IntegrationName="zetl"
    )
    assert again["DataFilter"] == "include: *.*"


# ---- what is refused ---------------------------------------------------------------------------------------------


def test_without_a_policy_there_is_no_access(bed: Bed) -> None:
    cluster, namespace = bed.cluster(), bed.namespace()
    arns = (cluster["DBClusterArn"], namespace["namespaceArn"])
    error = refused(lambda: create(bed, arns))
    assert error["Code"] == "InvalidParameterValue" and error["Message"].startswith(NO_ACCESS)
    bed.authorise(arns[1], arns[0] + "-other")
    assert refused(lambda: create(bed, arns))["Message"].startswith(NO_ACCESS)


def test_the_serverless_services_own_policy_does_not_count(bed: Bed) -> None:
    cluster, namespace = bed.cluster(), bed.namespace()
    arns = (cluster["DBClusterArn"], namespace["namespaceArn"])
    bed.authorise(arns[1], arns[0])
    document = bed.client("redshift").get_resource_policy(ResourceArn=arns[1])["ResourcePolicy"]["Policy"]
    bed.client("redshift").delete_resource_policy(ResourceArn=arns[1])
    bed.client("redshift-serverless").put_resource_policy(resourceArn=arns[1], policy=document)
    assert refused(lambda: create(bed, arns))["Message"].startswith(NO_ACCESS)


def test_a_target_that_does_not_exist_is_no_access_too(bed: Bed, arns: tuple[str, str]) -> None:
    absent = arns[1][:-4] + "0000"
    assert refused(lambda: create(bed, (arns[0], absent)))["Message"].startswith(NO_ACCESS)


def test_a_target_in_another_account_must_let_the_caller_in(bed: Bed) -> None:
    namespace = bed.namespace()
    rds = bed.of_account("rds")
    rds.create_db_cluster(
        DBClusterIdentifier="src", Engine="aurora-postgresql", MasterUsername="m", ManageMasterUserPassword=True
    )
    source = rds.describe_db_clusters()["DBClusters"][0]["DBClusterArn"]
    settings = {"SourceArn": source, "TargetArn": namespace["namespaceArn"], "IntegrationName": "zetl"}
    settings["DataFilter"] = "include: db.*.*"
    bed.authorise(namespace["namespaceArn"], source)
    assert refused(lambda: rds.create_integration(**settings))["Message"].startswith(NO_ACCESS)
    bed.authorise(namespace["namespaceArn"], source, principal=f"arn:aws:iam::{OTHER_ACCOUNT}:root")
    made = rds.create_integration(**settings)
    assert made["IntegrationArn"].split(":")[4] == OTHER_ACCOUNT
    inbound = bed.client("redshift").describe_inbound_integrations()["InboundIntegrations"]
    assert [i["IntegrationArn"] for i in inbound] == [made["IntegrationArn"]]
    bed.settle()
    assert bed.client("rds").describe_integrations()["Integrations"] == []


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ({"IntegrationName": "1x"}, "ValidationError", "regular expression pattern"),
        ({"DataFilter": "include: (a)"}, "ValidationError", "regular expression pattern"),
        ({"Description": "x" * 1001}, "ValidationError", "less than or equal to 1000"),
        ({"SourceArn": f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster:absent"}, "DBClusterNotFoundFault", "absent"),
        ({"SourceArn": f"arn:aws:rds:{REGION}:{ACCOUNT}:db:absent"}, "DBInstanceNotFound", "absent"),
        ({"SourceArn": f"arn:aws:rds:{REGION}:{ACCOUNT}:db:src-1"}, "InvalidParameterValue", "ARN of the cluster src"),
        ({"SourceArn": f"arn:aws:rds:eu-west-1:{ACCOUNT}:cluster:src"}, "InvalidParameterValue", "Region"),
        (
            {"TargetArn": f"arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:workgroup/target"},
            "InvalidParameterValue",
            "not of a workgroup or cluster",
        ),
        (
            {"TargetArn": f"arn:aws:redshift-serverless:eu-west-1:{ACCOUNT}:namespace/x"},
            "InvalidParameterValue",
            "in one Region",
        ),
        ({"DataFilter": "exclude: db.public.*"}, "InvalidParameterValue", "must contain at least one include"),
        ({"DataFilter": "include: *.*.*"}, "InvalidParameterValue", "must name one database"),
        ({"KMSKeyId": "absent"}, "KMSKeyNotAccessibleFault", "absent"),
        ({"AdditionalEncryptionContext": {"a": "b"}}, "InvalidParameterCombination", "KMSKeyId"),
    ],
)
def test_what_cannot_be_is_refused(bed: Bed, arns: tuple[str, str], more: dict[str, Any], code: str, said: str) -> None:
    error = refused(lambda: create(bed, arns, **more))
    assert error["Code"] == code and said in error["Message"]


def test_an_instance_is_refused_for_what_it_is(bed: Bed, arns: tuple[str, str]) -> None:
    """A cluster's member is AWS's own refusal; an instance by itself may be a source there and is none here."""
    rds = bed.client("rds")
    member = rds.describe_db_instances()["DBInstances"][0]
    error = refused(lambda: create(bed, (member["DBInstanceArn"], arns[1])))
    assert error["Code"] == "InvalidParameterValue" and f"cluster {member['DBClusterIdentifier']}" in error["Message"]
    alone = rds.create_db_instance(
        DBInstanceIdentifier="alone",
        DBInstanceClass="db.t4g.micro",
        Engine="postgres",
        AllocatedStorage=20,
        MasterUsername="keeper",
        MasterUserPassword="of-nobody-at-all",
    )["DBInstance"]
    error = refused(lambda: create(bed, (alone["DBInstanceArn"], arns[1])))
    assert error["Code"] == "NotImplemented" and "CreateIntegration with an RDS instance" in error["Message"]


def test_a_postgresql_source_needs_a_filter(bed: Bed, arns: tuple[str, str]) -> None:
    rds = bed.client("rds")
    error = refused(lambda: rds.create_integration(SourceArn=arns[0], TargetArn=arns[1], IntegrationName="zetl"))
    assert error["Message"] == "Your data filter must contain at least one include statement."


def test_a_customer_key_must_let_redshift_in(bed: Bed, arns: tuple[str, str]) -> None:
    from zeroetl_dagster.local.aws.kms import Keys

    key = Keys(bed.store).create(ACCOUNT, REGION)
    error = refused(lambda: create(bed, arns, KMSKeyId=key["KeyId"]))
    assert error["Code"] == "KMSKeyNotAccessibleFault" and "redshift.amazonaws.com" in error["Message"]
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "redshift.amazonaws.com"},
        "Action": "kms:CreateGrant",
        "Resource": "*",
    }
    Keys(bed.store).change(key, lambda doc: doc["policy"]["Statement"].append(statement))
    made = create(bed, arns, KMSKeyId=key["KeyId"], AdditionalEncryptionContext={"team": "a"})
    assert made["KMSKeyId"] == key["Arn"] and made["AdditionalEncryptionContext"] == {"team": "a"}
    disabled = Keys(bed.store).create(ACCOUNT, REGION, KeyState="Disabled")
    error = refused(lambda: create(bed, arns, KMSKeyId=disabled["KeyId"], IntegrationName="b"))
    assert "is Disabled" in error["Message"]


def test_one_name_and_one_pair_once(bed: Bed, arns: tuple[str, str]) -> None:
    bed.integration(*arns)
    error = refused(lambda: create(bed, arns))
    assert error["Code"] == "IntegrationAlreadyExistsFault" and "name zetl" in error["Message"]
    error = refused(lambda: create(bed, arns, IntegrationName="second"))
    assert error["Code"] == "IntegrationAlreadyExistsFault" and "between this source and target" in error["Message"]


def test_one_at_a_time_for_a_source(bed: Bed, arns: tuple[str, str]) -> None:
    bed.hold()
    second = bed.client("redshift-serverless").create_namespace(namespaceName="second")["namespace"]["namespaceArn"]
    bed.authorise(second, arns[0])
    create(bed, arns)
    error = refused(lambda: create(bed, (arns[0], second), IntegrationName="second"))
    assert error["Code"] == "IntegrationConflictOperationFault"


def test_five_for_a_source(bed: Bed, arns: tuple[str, str]) -> None:
    targets = [bed.namespace(f"target{number}")["namespaceArn"] for number in range(5)]
    bed.integration(*arns)
    for number, target in enumerate(targets):
        bed.authorise(target, arns[0])
        if number < 4:
            bed.integration(arns[0], target, f"zetl{number}")
    error = refused(lambda: create(bed, (arns[0], targets[4]), IntegrationName="sixth"))
    assert error["Code"] == "IntegrationQuotaExceededFault" and "at most 5" in error["Message"]


def test_fifty_into_a_target(bed: Bed, arns: tuple[str, str]) -> None:
    made = bed.integration(*arns)
    key = f"{ACCOUNT}/{REGION}/" + made["IntegrationArn"].rpartition(":")[2]
    doc = bed.store.get("rds.integration", key)
    assert doc is not None
    for number in range(50):
        doc |= {"SourceArn": f"other{number}", "IntegrationArn": f"arn:aws:rds:{REGION}:1:integration:{number}"}
        bed.store.put("rds.integration", f"1/{REGION}/{number}", doc)
    bed.store.delete("rds.integration", key)
    error = refused(lambda: create(bed, arns))
    assert error["Code"] == "IntegrationQuotaExceededFault" and "at most 50" in error["Message"]


# ---- describe, modify, delete ------------------------------------------------------------------------------------


def test_describing_in_pages(bed: Bed, arns: tuple[str, str]) -> None:
    made = bed.integration(*arns)
    key = f"{ACCOUNT}/{REGION}/" + made["IntegrationArn"].rpartition(":")[2]
    doc = bed.store.get("rds.integration", key)
    for number in range(24):
        bed.store.put("rds.integration", f"{ACCOUNT}/{REGION}/copy{number:02}", doc or {})
    for client, operation, member in (
        ("rds", "describe_integrations", "Integrations"),
        ("redshift", "describe_inbound_integrations", "InboundIntegrations"),
    ):
        pages = bed.client(client).get_paginator(operation).paginate(PaginationConfig={"PageSize": 20})
        assert [len(page[member]) for page in pages] == [20, 5]


def test_describing_what_is_not_there(bed: Bed) -> None:
    error = refused(lambda: bed.client("rds").describe_integrations(IntegrationIdentifier="absent"))
    assert error["Code"] == "IntegrationNotFoundFault" and "absent" in error["Message"]


def test_modifying(bed: Bed, arns: tuple[str, str]) -> None:
    made = bed.integration(*arns)
    rds, who = bed.client("rds"), {"IntegrationIdentifier": made["IntegrationArn"]}
    bed.replicator.changed.clear()
    answer = rds.modify_integration(**who, IntegrationName="new", DataFilter="include: db.public.*", Description="d")
    assert answer["Status"] == "modifying" and answer["DataFilter"] == "include: db.public.*"
    bed.settle()
    found = bed.described(made["IntegrationArn"])
    assert (found["IntegrationName"], found["Description"], found["Status"]) == ("new", "d", "active")
    assert bed.replicator.changed and set(bed.replicator.changed) == {made["IntegrationArn"].rpartition(":")[2]}


def test_modifications_that_cannot_be(bed: Bed, arns: tuple[str, str]) -> None:
    made = bed.integration(*arns)
    rds, who = bed.client("rds"), {"IntegrationIdentifier": made["IntegrationArn"]}
    assert "No modifications" in refused(lambda: rds.modify_integration(**who))["Message"]
    error = refused(lambda: rds.modify_integration(**who, DataFilter="include: db.public"))
    assert error["Code"] == "InvalidParameterValue" and "database.schema.table" in error["Message"]
    error = refused(lambda: rds.modify_integration(IntegrationIdentifier="absent", Description="d"))
    assert error["Code"] == "IntegrationNotFoundFault"
    bed.hold()
    rds.modify_integration(**who, Description="d")
    for action in (lambda: rds.modify_integration(**who, Description="e"), lambda: rds.delete_integration(**who)):
        error = refused(action)
        assert error["Code"] == "IntegrationConflictOperationFault" and "is modifying" in error["Message"]


def test_deleting(bed: Bed, arns: tuple[str, str]) -> None:
    made = bed.integration(*arns)
    who = {"IntegrationIdentifier": made["IntegrationArn"]}
    bed.hold()
    rds = bed.client("rds")
    bed.replicator.changed.clear()
    assert rds.delete_integration(**who)["Status"] == "deleting"
    assert refused(lambda: rds.delete_integration(**who))["Code"] == "IntegrationConflictOperationFault"
    bed.release()
    bed.settle()
    assert refused(lambda: rds.describe_integrations(**who))["Code"] == "IntegrationNotFoundFault"
    assert len(bed.replicator.changed) == 2
    assert bed.integration(*arns)["IntegrationArn"] != made["IntegrationArn"]


def test_one_that_is_being_created_cannot_be_changed_or_deleted(bed: Bed, arns: tuple[str, str]) -> None:
    bed.hold()
    who = {"IntegrationIdentifier": create(bed, arns)["IntegrationArn"]}
    rds = bed.client("rds")
    for action in (lambda: rds.modify_integration(**who, Description="e"), lambda: rds.delete_integration(**who)):
        error = refused(action)
        assert error["Code"] == "InvalidIntegrationStateFault" and "is creating" in error["Message"]


def test_tags(bed: Bed, arns: tuple[str, str]) -> None:
    arn = bed.integration(*arns)["IntegrationArn"]
    rds = bed.client("rds")
    rds.add_tags_to_resource(ResourceName=arn, Tags=[{"Key": "a", "Value": "1"}])
    assert rds.list_tags_for_resource(ResourceName=arn)["TagList"] == [{"Key": "a", "Value": "1"}]
    assert bed.described(arn)["Tags"] == [{"Key": "a", "Value": "1"}]
