"""What happens to an integration that was active once."""

from __future__ import annotations

import json

from zeroetl_dagster_tests.local_aws.conftest import ACCOUNT, Bed, refused
from zeroetl_dagster_tests.local_aws.test_rds_integrations import codes


def test_health_comes_from_the_replicator(bed: Bed, arns: tuple[str, str]) -> None:
    made = bed.integration(*arns)
    integration_id = made["IntegrationArn"].rpartition(":")[2]
    bed.plane.on_health(integration_id, "needs_attention", [("Broken", "table public.a has no primary key")])
    found = bed.described(integration_id)
    assert found["Status"] == "needs_attention"
    assert found["Errors"] == [{"ErrorCode": "Broken", "ErrorMessage": "table public.a has no primary key"}]
    bed.plane.on_health(integration_id, "syncing", [])
    assert bed.described(integration_id)["Status"] == "syncing"
    bed.plane.on_health(integration_id, "active", [])
    assert bed.described(integration_id)["Status"] == "active"
    bed.plane.on_health("no-such", "active", [])


def test_removing_the_authorised_source_fails_it_for_good(bed: Bed, arns: tuple[str, str]) -> None:
    made = bed.integration(*arns)
    bed.client("redshift").delete_resource_policy(ResourceArn=arns[1])
    found = bed.described(made["IntegrationArn"])
    assert found["Status"] == "failed" and codes(found) == ["REDSHIFT-INTEGRATION-EVENT-0008"]
    bed.authorise(arns[1], arns[0])
    assert bed.described(made["IntegrationArn"])["Status"] == "failed"
    rds = bed.client("rds")
    error = refused(lambda: rds.modify_integration(IntegrationIdentifier=made["IntegrationArn"], Description="d"))
    assert error["Code"] == "InvalidIntegrationStateFault" and "is failed" in error["Message"]
    rds.delete_integration(IntegrationIdentifier=made["IntegrationArn"])
    bed.settle()
    assert bed.integration(*arns)["Status"] == "active"


def test_a_policy_replaced_by_one_for_another_source_fails_it(bed: Bed, arns: tuple[str, str]) -> None:
    made = bed.integration(*arns)
    bed.authorise(arns[1], arns[0] + "-other")
    assert bed.described(made["IntegrationArn"])["Status"] == "failed"


def test_turning_case_sensitivity_off_fails_it(bed: Bed, arns: tuple[str, str]) -> None:
    made = bed.integration(*arns)
    off = [{"parameterKey": "enable_case_sensitive_identifier", "parameterValue": "false"}]
    bed.client("redshift-serverless").update_workgroup(workgroupName="target", configParameters=off)
    bed.settle()
    found = bed.described(made["IntegrationArn"])
    assert found["Status"] == "failed" and codes(found) == ["REDSHIFT-INTEGRATION-EVENT-1001"]


def test_a_required_parameter_changed_later_makes_it_sync_until_mended(bed: Bed, arns: tuple[str, str]) -> None:
    made = bed.integration(*arns)
    bed.set_parameters("src-group", **{"aurora.enhanced_logical_replication": "0"})
    assert bed.described(made["IntegrationArn"])["Status"] == "active"  # pending a reboot
    bed.client("rds").reboot_db_instance(DBInstanceIdentifier="src-1")
    bed.settle()
    found = bed.described(made["IntegrationArn"])
    assert found["Status"] == "syncing" and codes(found) == ["REDSHIFT-INTEGRATION-EVENT-1000"]
    bed.set_parameters("src-group", **{"aurora.enhanced_logical_replication": "1"})
    bed.client("rds").reboot_db_instance(DBInstanceIdentifier="src-1")
    bed.settle()
    assert bed.described(made["IntegrationArn"])["Status"] == "active"


def test_a_deleted_source_fails_it(bed: Bed, arns: tuple[str, str]) -> None:
    made = bed.integration(*arns)
    rds = bed.client("rds")
    rds.delete_db_instance(DBInstanceIdentifier="src-1")
    bed.settle()
    rds.delete_db_cluster(DBClusterIdentifier="src", SkipFinalSnapshot=True)
    bed.settle()
    found = bed.described(made["IntegrationArn"])
    assert found["Status"] == "failed" and codes(found) == ["SourceNotFound"]


def test_a_deleted_target_fails_it(bed: Bed, arns: tuple[str, str]) -> None:
    made = bed.integration(*arns)
    serverless = bed.client("redshift-serverless")
    serverless.delete_workgroup(workgroupName="target")
    bed.settle()
    serverless.delete_namespace(namespaceName="target")
    bed.settle()
    found = bed.described(made["IntegrationArn"])
    assert found["Status"] == "failed"


def test_a_provisioned_target_needs_attention_while_it_is_paused(bed: Bed) -> None:
    source = bed.cluster()["DBClusterArn"]
    redshift = bed.client("redshift")
    redshift.create_cluster_parameter_group(
        ParameterGroupName="cs", ParameterGroupFamily="redshift-2.0", Description="d"
    )
    redshift.modify_cluster_parameter_group(
        ParameterGroupName="cs",
        Parameters=[{"ParameterName": "enable_case_sensitive_identifier", "ParameterValue": "true"}],
    )
    target = redshift.create_cluster(
        ClusterIdentifier="wh",
        NodeType="ra3.large",
        MasterUsername="admin",
        ManageMasterPassword=True,
        ClusterParameterGroupName="cs",
    )["Cluster"]["ClusterNamespaceArn"]
    bed.settle()
    bed.authorise(target, source)
    made = bed.integration(source, target)
    assert made["Status"] == "active" and made["TargetArn"] == target
    redshift.pause_cluster(ClusterIdentifier="wh")
    bed.settle()
    found = bed.described(made["IntegrationArn"])
    assert found["Status"] == "needs_attention" and codes(found) == ["TargetPaused"]
    redshift.resume_cluster(ClusterIdentifier="wh")
    bed.settle()
    assert bed.described(made["IntegrationArn"])["Status"] == "active"
    redshift.modify_cluster(ClusterIdentifier="wh", Encrypted=False)
    bed.settle()
    assert codes(bed.described(made["IntegrationArn"])) == ["TargetNotEncrypted"]


def test_the_policy_of_the_aws_guide_is_understood(bed: Bed, arns: tuple[str, str]) -> None:
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "redshift.amazonaws.com"},
                "Action": ["redshift:AuthorizeInboundIntegration"],
                "Resource": arns[1],
                "Condition": {"StringEquals": {"aws:SourceArn": [arns[0]]}},
            },
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
                "Action": ["redshift:CreateInboundIntegration"],
            },
        ],
    }
    bed.client("redshift").put_resource_policy(ResourceArn=arns[1], Policy=json.dumps(document))
    assert bed.integration(*arns)["Status"] == "active"
