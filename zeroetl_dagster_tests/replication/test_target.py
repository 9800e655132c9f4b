"""The target: who may send into the namespace, without touching what others wrote, and case-sensitive identifiers."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from zeroetl_dagster.connections.reconciled import NotAsDeclared, ensure
from zeroetl_dagster.replication.faults import ReplicationError
from zeroetl_dagster.replication.target import (
    PARAMETER,
    CaseSensitivity,
    PolicyState,
    TargetPolicy,
    check_namespace_arn,
)
from zeroetl_dagster_tests.local_aws.conftest import ACCOUNT, OTHER_ACCOUNT, REGION, Bed, refused
from zeroetl_dagster_tests.replication.conftest import FAST

SOURCE = f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster:src"
OTHER_SOURCE = f"arn:aws:rds:{REGION}:{OTHER_ACCOUNT}:cluster:src"
SERVERLESS = f"arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:namespace/11111111-2222-3333-4444-555555555555"
FOREIGN = {
    "Sid": "Somebody",
    "Effect": "Allow",
    "Principal": {"AWS": f"arn:aws:iam::{OTHER_ACCOUNT}:role/loader"},
    "Action": ["redshift:CreateInboundIntegration"],
}
AUTHORIZE, CREATE = "redshift:AuthorizeInboundIntegration", "redshift:CreateInboundIntegration"


def statements(bed: Bed, arn: str) -> list[dict[str, Any]]:
    text = bed.client("redshift").get_resource_policy(ResourceArn=arn)["ResourcePolicy"]["Policy"]
    found = json.loads(text)["Statement"]
    return list(found) if isinstance(found, list) else [found]


def put(bed: Bed, arn: str, *some: dict[str, Any]) -> None:
    document = {"Version": "2012-10-17", "Id": "ours", "Statement": list(some)}
    bed.client("redshift").put_resource_policy(ResourceArn=arn, Policy=json.dumps(document))


# ---- the resource policy ---------------------------------------------------------------------------------------------


def test_a_namespace_without_a_policy_gets_the_two_statements(bed: Bed, said: list[str]) -> None:
    arn, source = bed.namespace()["namespaceArn"], bed.cluster()["DBClusterArn"]
    policy = TargetPolicy(bed.client("redshift"), arn, source)
    assert [one.required.split(" ")[0] for one in policy.diff(policy.read())] == [AUTHORIZE, CREATE]
    ensure(policy, mode="ensure", report=said.append)
    authorize, create = statements(bed, arn)
    assert authorize["Principal"] == {"Service": "redshift.amazonaws.com"}
    assert authorize["Condition"] == {"StringEquals": {"aws:SourceArn": source}}
    assert create["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    assert bed.integration(source, arn)["Status"] == "active"
    said.clear()
    assert ensure(policy, mode="ensure", report=said.append).changed == () and said == []


def test_foreign_statements_and_ids_stay_as_they_were(bed: Bed, said: list[str]) -> None:
    arn = bed.namespace()["namespaceArn"]
    put(bed, arn, FOREIGN)
    policy = TargetPolicy(bed.client("redshift"), arn, SOURCE)
    ensure(policy, mode="ensure", report=said.append)
    assert statements(bed, arn)[0] == FOREIGN and len(statements(bed, arn)) == 3
    assert policy.read().document["Id"] == "ours"
    assert any("added 2 statement(s); 1 stayed" in line for line in said)
    other = TargetPolicy(bed.client("redshift"), arn, SOURCE + "2")
    ensure(other, mode="ensure", report=said.append)
    assert len(statements(bed, arn)) == 4, "the account may create integrations already: one statement is enough"
    assert policy.remove(said.append) == 1
    assert other.diff(other.read()) == [], "another source of the account still needs that statement"
    assert other.remove(said.append) == 2
    assert statements(bed, arn) == [FOREIGN]


def test_the_policy_goes_with_its_last_statement(bed: Bed, said: list[str]) -> None:
    arn = bed.namespace()["namespaceArn"]
    policy = TargetPolicy(bed.client("redshift"), arn, SOURCE)
    ensure(policy, mode="ensure", report=said.append)
    assert policy.remove(said.append) == 2
    assert refused(lambda: bed.client("redshift").get_resource_policy(ResourceArn=arn))["Code"] == (
        "ResourceNotFoundFault"
    )
    assert policy.remove(said.append) == 0


def test_a_source_of_another_account(bed: Bed, said: list[str]) -> None:
    """Its account is let in as well as its ARN, and its own credentials can then create the integration."""
    arn = bed.namespace()["namespaceArn"]
    ensure(TargetPolicy(bed.client("redshift"), arn, OTHER_SOURCE), mode="ensure", report=said.append)
    assert statements(bed, arn)[1]["Principal"] == {"AWS": f"arn:aws:iam::{OTHER_ACCOUNT}:root"}
    rds = bed.of_account("rds")
    rds.create_db_cluster(
        DBClusterIdentifier="src",
        Engine="aurora-postgresql",
        MasterUsername="master",
        MasterUserPassword="Correct-horse1",
    )
    bed.settle()
    made = rds.create_integration(
        SourceArn=OTHER_SOURCE, TargetArn=arn, IntegrationName="theirs", DataFilter="include: db.*.*"
    )
    assert made["SourceArn"] == OTHER_SOURCE


def test_verify_says_what_is_missing_and_writes_nothing(bed: Bed, said: list[str]) -> None:
    arn = bed.namespace()["namespaceArn"]
    with pytest.raises(NotAsDeclared) as raised:
        ensure(TargetPolicy(bed.client("redshift"), arn, SOURCE), mode="verify", report=said.append)
    assert str(raised.value).splitlines()[1] == (
        f"  - authorized source: found not allowed, required {AUTHORIZE} for redshift.amazonaws.com with "
        f"aws:SourceArn {SOURCE}. Let this project: `manage.target_policy: ensure`."
    )
    assert refused(lambda: statements(bed, arn))["Code"] == "ResourceNotFoundFault"


def test_a_denial_cannot_be_outvoted(bed: Bed, said: list[str]) -> None:
    arn = bed.namespace()["namespaceArn"]
    deny = {"Effect": "Deny", "Principal": "*", "Action": "redshift:*"}
    put(bed, arn, deny)
    with pytest.raises(NotAsDeclared, match="Remove that statement; ours cannot win"):
        ensure(TargetPolicy(bed.client("redshift"), arn, SOURCE), mode="ensure", report=said.append)
    assert statements(bed, arn) == [deny]


@pytest.mark.parametrize(
    ("condition", "lets_in"),
    [
        ({}, True),
        ({"StringEquals": {"aws:SourceArn": SOURCE}}, True),
        ({"StringEquals": {"aws:SourceArn": [SOURCE + "2", SOURCE]}}, True),
        ({"StringEquals": {"AWS:sourcearn": SOURCE}}, True),
        ({"StringEquals": {"aws:SourceArn": f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster:*"}}, False),
        ({"ArnEquals": {"aws:SourceArn": f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster:*"}}, True),
        ({"StringLike": {"aws:SourceArn": f"arn:aws:rds:*:{ACCOUNT}:*"}}, True),
        ({"StringEquals": {"aws:SourceAccount": ACCOUNT}}, True),
        ({"StringEquals": {"aws:SourceAccount": OTHER_ACCOUNT}}, False),
        ({"StringNotEquals": {"aws:SourceArn": SOURCE}}, False),
        ({"StringNotEquals": {"aws:SourceArn": OTHER_SOURCE}}, True),
        ({"StringEquals": {"aws:SourceArn": SOURCE, "aws:SourceAccount": OTHER_ACCOUNT}}, False),
        ({"StringEquals": {"aws:PrincipalOrgID": "o-1"}}, False),
        ({"Bool": {"aws:SecureTransport": "true"}}, False),
    ],
)
def test_conditions_of_a_statement_that_is_there(condition: dict[str, Any], lets_in: bool) -> None:
    """An Allow whose condition is not known to hold is not relied upon: ours is added."""
    policy = TargetPolicy(None, SERVERLESS, SOURCE)
    there = [
        {
            "Effect": "Allow",
            "Principal": {"Service": ["redshift.amazonaws.com"]},
            "Action": AUTHORIZE,
            "Condition": condition,
        },
        {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "redshift:Create*"},
    ]
    assert (policy.diff(PolicyState({"Statement": there})) == []) is lets_in
    there[0]["Effect"] = "Deny"
    (one,) = policy.diff(PolicyState({"Statement": there}))
    assert one.found.startswith("denied by") is lets_in


def test_a_policy_that_somebody_else_writes_at_the_same_time_is_read_again(said: list[str]) -> None:
    redshift = boto3.client("redshift", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    theirs = {"ResourcePolicy": {"ResourceArn": SERVERLESS, "Policy": json.dumps({"Statement": [FOREIGN]})}}
    with Stubber(redshift) as stub:
        stub.add_client_error("get_resource_policy", "ResourceNotFoundFault")
        stub.add_client_error("put_resource_policy", "ConflictPolicyUpdateFault")
        stub.add_response("get_resource_policy", theirs)
        stub.add_response("put_resource_policy", {}, {"ResourceArn": SERVERLESS, "Policy": ANY})
        TargetPolicy(redshift, SERVERLESS, SOURCE).apply((), said.append)
        stub.assert_no_pending_responses()
    assert said == [f"resource policy of {SERVERLESS}: added 2 statement(s); 1 stayed as they were"]


def test_a_policy_that_is_always_being_written_is_given_up() -> None:
    redshift = boto3.client("redshift", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(redshift) as stub:
        for _ in range(4):
            stub.add_client_error("get_resource_policy", "ResourceNotFoundFault")
            stub.add_client_error("put_resource_policy", "ConflictPolicyUpdateFault", "being updated")
        with pytest.raises(
            ReplicationError, match="write the resource policy of .*: ConflictPolicyUpdate: being updated"
        ):
            TargetPolicy(redshift, SERVERLESS, SOURCE).apply((), lambda _: None)
        stub.assert_no_pending_responses()


def test_a_refused_policy_is_explained(bed: Bed) -> None:
    """AWS takes a policy of at most 20 KB: somebody else's statements may leave no room."""
    redshift = boto3.client("redshift", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(redshift) as stub:
        stub.add_client_error("get_resource_policy", "ResourceNotFoundFault")
        stub.add_client_error("put_resource_policy", "InvalidPolicyFault", "the policy is too long")
        with pytest.raises(ReplicationError, match="InvalidPolicy: the policy is too long. To do: Redshift refused"):
            TargetPolicy(redshift, SERVERLESS, SOURCE).apply((), lambda _: None)


@pytest.mark.parametrize(
    ("arn", "kind"),
    [
        (f"arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:workgroup/11111111-2222-3333-4444-555555555555", "workgroup"),
        (f"arn:aws:redshift:{REGION}:{ACCOUNT}:cluster:wh", "cluster"),
        (SERVERLESS.replace("namespace/", "namespace:"), "other"),
    ],
)
def test_other_arns_than_a_namespaces_are_refused(arn: str, kind: str) -> None:
    with pytest.raises(ReplicationError) as raised:
        TargetPolicy(None, arn, SOURCE)
    assert str(raised.value).startswith(f"the target must be a namespace, found the {kind} ARN {arn}; allowed: arn:aws")


def test_both_kinds_of_namespace_arn_are_taken() -> None:
    provisioned = f"arn:aws-us-gov:redshift:us-gov-west-1:{ACCOUNT}:namespace:11111111-2222-3333-4444-555555555555"
    assert check_namespace_arn(SERVERLESS) == SERVERLESS and check_namespace_arn(provisioned) == provisioned


# ---- case sensitivity ------------------------------------------------------------------------------------------------


def serverless(bed: Bed, workgroup: str = "target") -> CaseSensitivity:
    return CaseSensitivity(bed.client, workgroup=workgroup, wait_seconds=5, poll=FAST)


def cluster(bed: Bed, *, reboot: bool = False) -> CaseSensitivity:
    return CaseSensitivity(bed.client, cluster="wh", reboot=reboot, wait_seconds=5, poll=FAST)


def provisioned(bed: Bed, *, group: str | None = "own", **more: Any) -> None:
    """A cluster on a parameter group of its own that leaves identifiers case-insensitive."""
    redshift = bed.client("redshift")
    settings: dict[str, Any] = {"NodeType": "ra3.large", "MasterUsername": "adm", "MasterUserPassword": "Secret-123"}
    if group is not None:
        redshift.create_cluster_parameter_group(
            ParameterGroupName=group, ParameterGroupFamily="redshift-2.0", Description="d"
        )
        settings["ClusterParameterGroupName"] = group
    redshift.create_cluster(ClusterIdentifier="wh", **{**settings, **more})
    bed.settle()


def test_a_workgroup_gets_case_sensitive_identifiers_and_keeps_the_rest(bed: Bed, said: list[str]) -> None:
    bed.namespace(case_sensitive=False)
    client = bed.client("redshift-serverless")
    client.update_workgroup(
        workgroupName="target", configParameters=[{"parameterKey": "query_group", "parameterValue": "night"}]
    )
    bed.settle()
    outcome = ensure(serverless(bed), mode="ensure", report=said.append)
    assert str(outcome.changed[0]).startswith(f"{PARAMETER}: found false, required true")
    shown = client.get_workgroup(workgroupName="target")["workgroup"]["configParameters"]
    held = {one["parameterKey"]: one["parameterValue"] for one in shown}
    assert (held[PARAMETER], held["query_group"]) == ("true", "night")
    assert ensure(serverless(bed), mode="verify", report=said.append).changed == ()


def test_a_workgroup_that_is_being_changed_is_waited_for(bed: Bed, said: list[str]) -> None:
    bed.namespace(case_sensitive=False)
    bed.hold()
    client = bed.client("redshift-serverless")
    client.update_workgroup(workgroupName="target", baseCapacity=16)
    assert client.get_workgroup(workgroupName="target")["workgroup"]["status"] == "MODIFYING"

    def released(line: str) -> None:
        said.append(line)
        if line.endswith("MODIFYING"):
            bed.release()

    ensure(serverless(bed), mode="ensure", report=released)
    assert "Redshift workgroup target: MODIFYING" in said


def test_a_workgroup_that_does_not_exist(bed: Bed, said: list[str]) -> None:
    with pytest.raises(NotAsDeclared) as raised:
        ensure(serverless(bed, "nobody"), mode="ensure", report=said.append)
    assert [str(one) for one in raised.value.differences] == [
        "Redshift workgroup nobody: found nothing, required that it exists. Check the `redshift` connection."
    ]


def test_verify_of_a_workgroup_changes_nothing(bed: Bed, said: list[str]) -> None:
    bed.namespace(case_sensitive=False)
    with pytest.raises(NotAsDeclared, match="manage.case_sensitive: ensure"):
        ensure(serverless(bed), mode="verify", report=said.append)
    assert serverless(bed).read().value == "false"  # type: ignore[union-attr]


def test_a_cluster_is_rebooted_where_that_is_allowed(bed: Bed, said: list[str]) -> None:
    provisioned(bed)
    outcome = ensure(cluster(bed, reboot=True), mode="ensure", report=said.append)
    assert outcome.state.sensitive and outcome.state.apply_status == "in-sync"
    assert any("rebooting it" in line for line in said)
    assert ensure(cluster(bed), mode="verify", report=said.append).changed == ()


def test_a_cluster_that_may_not_be_rebooted_stays_pending(bed: Bed, said: list[str]) -> None:
    provisioned(bed)
    with pytest.raises(NotAsDeclared) as raised:
        ensure(cluster(bed), mode="ensure", report=said.append)
    (left,) = raised.value.differences
    assert (left.what, left.found, left.required) == ("parameter group own", "pending-reboot", "in-sync")
    assert "aws redshift reboot-cluster --cluster-identifier wh" in left.remedy
    assert "manage.reboot_target: true" in left.remedy
    with pytest.raises(NotAsDeclared, match="pending-reboot"):  # and whoever looks later sees it too
        ensure(cluster(bed), mode="verify", report=said.append)


def test_awss_own_parameter_group_of_a_cluster(bed: Bed, said: list[str]) -> None:
    provisioned(bed, group=None)
    with pytest.raises(NotAsDeclared) as raised:
        ensure(cluster(bed, reboot=True), mode="ensure", report=said.append)
    (only,) = raised.value.differences
    assert only.found == "default.redshift-2.0, which is AWS's own and cannot be changed"
    assert "create-cluster-parameter-group" in only.remedy and "--cluster-identifier wh" in only.remedy


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"Encrypted": False}, "encryption: found off, required on. A zero-ETL target must be encrypted."),
        ({"NodeType": "dc2.large"}, "node type: found dc2.large, required ra3. Only RA3 clusters and Serverless"),
    ],
)
def test_clusters_that_cannot_be_a_target(bed: Bed, said: list[str], more: dict[str, Any], wanted: str) -> None:
    provisioned(bed, **more)
    with pytest.raises(NotAsDeclared) as raised:
        ensure(cluster(bed, reboot=True), mode="ensure", report=said.append)
    assert [str(one).startswith(wanted) for one in raised.value.differences] == [True]


def test_a_paused_cluster(bed: Bed, said: list[str]) -> None:
    provisioned(bed)
    bed.client("redshift").pause_cluster(ClusterIdentifier="wh")
    bed.settle()
    with pytest.raises(NotAsDeclared, match="status: found paused, required available. Resume the cluster."):
        ensure(cluster(bed, reboot=True), mode="ensure", report=said.append)


def test_a_cluster_that_does_not_exist(bed: Bed, said: list[str]) -> None:
    with pytest.raises(NotAsDeclared, match="Redshift cluster wh: found nothing, required that it exists"):
        ensure(cluster(bed), mode="ensure", report=said.append)


def test_what_redshift_refuses_is_explained(bed: Bed, said: list[str]) -> None:
    provisioned(bed)
    client = bed.client("redshift")
    refusing = Stubber(client)
    case = CaseSensitivity(lambda _: client, cluster="wh", reboot=True, poll=FAST)
    state = case.read()
    assert state is not None
    with refusing:
        refusing.add_client_error("describe_clusters", "AccessDenied", "not allowed: redshift:DescribeClusters")
        with pytest.raises(ReplicationError, match="describe Redshift cluster wh: AccessDenied: not allowed"):
            case.read()
        refusing.add_client_error(
            "modify_cluster_parameter_group", "InvalidClusterParameterGroupState", "it is being updated"
        )
        with pytest.raises(ReplicationError, match="write .* into parameter group own: InvalidClusterParameterGroup"):
            case._update_cluster(state, said.append)
