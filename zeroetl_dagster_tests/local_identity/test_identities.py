"""Users, roles, sessions: who a key belongs to, who may assume what, what survives a restart."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.identities import Identities
from zeroetl_dagster_tests.control_plane import ACCOUNT, OTHER_ACCOUNT, OWN_KEY, ControlPlane


def trust(principal: Any, **statement: Any) -> str:
    base = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [{**base, **statement}]})


def allow(action: str, resource: str = "*", **more: Any) -> str:
    return json.dumps({"Statement": {"Effect": "Allow", "Action": action, "Resource": resource, **more}})


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_the_own_key_is_the_admin_of_the_default_account(aws: ControlPlane) -> None:
    who = aws.client("sts").get_caller_identity()
    assert (who["Account"], who["Arn"]) == (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/admin")
    identities = Identities.of_world(aws.world)
    assert identities.account_of(OWN_KEY) == ACCOUNT
    assert identities.database_user(OWN_KEY) == "IAM:admin"
    assert aws.client("iam").get_user()["User"]["UserName"] == "admin"


def test_an_unknown_key_is_refused_in_each_protocols_words(aws: ControlPlane) -> None:
    stranger = {"AccessKeyId": "AKIANOBODY", "SecretAccessKey": "x"}
    for service, call, expected in (
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
        ("secretsmanager", "list_secrets", "UnrecognizedClientException"),
    ):
        with pytest.raises(ClientError) as error:
            getattr(aws.client(service, credentials=stranger), call)()
        assert code(error) == expected


def test_a_role_of_another_account_is_assumed_and_survives_a_restart(aws: ControlPlane) -> None:
    member = aws.in_account(OTHER_ACCOUNT)
    aws.client("iam", credentials=member).create_role(
        RoleName="exporter", AssumeRolePolicyDocument=trust({"AWS": f"arn:aws:iam::{ACCOUNT}:root"})
    )
    arn = f"arn:aws:iam::{OTHER_ACCOUNT}:role/exporter"
    session = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="nightly")["Credentials"]
    aws.restart()
    who = aws.client("sts", credentials=session).get_caller_identity()
    assert who["Arn"] == f"arn:aws:sts::{OTHER_ACCOUNT}:assumed-role/exporter/nightly"
    assert Identities.of_world(aws.world).database_user(session["AccessKeyId"]) == "IAMR:exporter"


def test_a_session_ends(aws: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    session = aws.in_account(OTHER_ACCOUNT)
    later = time.time() + 3601
    monkeypatch.setattr(time, "time", lambda: later)
    for service, call, expected in (
        ("sts", "get_caller_identity", "ExpiredToken"),
        ("secretsmanager", "list_secrets", "ExpiredTokenException"),
    ):
        with pytest.raises(ClientError) as error:
            getattr(aws.client(service, credentials=session), call)()
        assert code(error) == expected


@pytest.mark.parametrize(
    ("principal", "more", "external_id", "allowed"),
    [
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, {}, None, True),
        ({"AWS": ACCOUNT}, {}, None, True),
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:user/admin"}, {}, None, True),
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:user/other"}, {}, None, False),
        ({"Service": "export.rds.amazonaws.com"}, {}, None, False),
        ({"AWS": ACCOUNT}, {"Condition": {"StringEquals": {"sts:ExternalId": "s3cret"}}}, "s3cret", True),
        ({"AWS": ACCOUNT}, {"Condition": {"StringEquals": {"sts:ExternalId": "s3cret"}}}, "other", False),
        ({"AWS": ACCOUNT}, {"Condition": {"StringEquals": {"sts:ExternalId": "s3cret"}}}, None, False),
        ({"AWS": ACCOUNT}, {"Condition": {"NumericLessThan": {"aws:MultiFactorAuthAge": "3"}}}, None, False),
    ],
)
def test_the_trust_policy_decides(
    aws: ControlPlane, principal: Any, more: Any, external_id: str | None, allowed: bool
) -> None:
    role = aws.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument=trust(principal, **more))["Role"]
    given = {"ExternalId": external_id} if external_id else {}

    def assume() -> Any:
        return aws.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="me", **given)

    if allowed:
        assert assume()["AssumedRoleUser"]["Arn"].endswith("assumed-role/r/me")
    else:
        with pytest.raises(ClientError, match="is not authorized to perform: sts:AssumeRole") as error:
            assume()
        assert code(error) == "AccessDenied"


def test_a_user_needs_a_policy_where_the_trust_names_only_the_account(aws: ControlPlane) -> None:
    iam = aws.client("iam")
    role = iam.create_role(RoleName="r", AssumeRolePolicyDocument=trust({"AWS": ACCOUNT}))["Role"]
    iam.create_user(UserName="ann")
    key = iam.create_access_key(UserName="ann")["AccessKey"]
    sts = aws.client("sts", credentials=key)
    assert sts.get_caller_identity()["Arn"].endswith("user/ann")
    with pytest.raises(ClientError):
        sts.assume_role(RoleArn=role["Arn"], RoleSessionName="me")
    iam.put_user_policy(UserName="ann", PolicyName="p", PolicyDocument=allow("sts:AssumeRole", role["Arn"]))
    assert sts.assume_role(RoleArn=role["Arn"], RoleSessionName="me")["Credentials"]["AccessKeyId"].startswith("ASIA")
    iam.update_access_key(UserName="ann", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    with pytest.raises(ClientError):
        sts.get_caller_identity()


def test_a_duration_beyond_the_roles_maximum_is_refused(aws: ControlPlane) -> None:
    role = aws.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument=trust({"AWS": ACCOUNT}))["Role"]
    with pytest.raises(ClientError, match="exceeds the MaxSessionDuration"):
        aws.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="me", DurationSeconds=7200)


def test_pass_role_needs_a_policy_for_the_service(aws: ControlPlane) -> None:
    iam, identities = aws.client("iam"), Identities.of_world(aws.world)
    iam.create_role(RoleName="runner", AssumeRolePolicyDocument=trust({"AWS": f"arn:aws:iam::{ACCOUNT}:user/admin"}))
    arn = f"arn:aws:iam::{ACCOUNT}:role/runner"
    session = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="me")["Credentials"]
    caller = identities.caller(session["AccessKeyId"])
    export_role = f"arn:aws:iam::{ACCOUNT}:role/export"
    with pytest.raises(AwsError, match="is not authorized to perform: iam:PassRole on resource: " + export_role):
        identities.require_pass_role(caller, export_role, "export.rds.amazonaws.com")
    condition = {"StringEquals": {"iam:PassedToService": "export.rds.amazonaws.com"}}
    document = allow("iam:PassRole", export_role, Condition=condition)
    made = iam.create_policy(PolicyName="pass", PolicyDocument=document)["Policy"]
    iam.attach_role_policy(RoleName="runner", PolicyArn=made["Arn"])
    identities.require_pass_role(caller, export_role, "export.rds.amazonaws.com")
    with pytest.raises(AwsError):
        identities.require_pass_role(caller, export_role, "glue.amazonaws.com")


def test_an_explicit_deny_wins_over_an_aws_managed_allow(aws: ControlPlane) -> None:
    iam, identities = aws.client("iam"), Identities.of_world(aws.world)
    iam.create_role(RoleName="r", AssumeRolePolicyDocument=trust({"Service": "glue.amazonaws.com"}))
    iam.attach_role_policy(RoleName="r", PolicyArn="arn:aws:iam::aws:policy/AmazonS3FullAccess")
    role = identities.role(f"arn:aws:iam::{ACCOUNT}:role/r")
    assert role is not None
    assert identities.holder_decides(role, "s3:PutObject", "arn:aws:s3:::b/k") == "Allow"
    deny = json.dumps({"Statement": [{"Effect": "Deny", "Action": "s3:Put*", "Resource": "arn:aws:s3:::b/*"}]})
    iam.put_role_policy(RoleName="r", PolicyName="no", PolicyDocument=deny)
    role = identities.role(f"arn:aws:iam::{ACCOUNT}:role/r") or {}
    assert identities.holder_decides(role, "s3:PutObject", "arn:aws:s3:::b/k") == "Deny"
    assert identities.holder_decides(role, "s3:PutObject", "arn:aws:s3:::c/k") == "Allow"
    assert identities.holder_decides(role, "kms:Decrypt", "*") is None


def test_roles_are_kept_as_given(aws: ControlPlane) -> None:
    iam = aws.client("iam")
    document = trust({"Service": "export.rds.amazonaws.com"})
    made = iam.create_role(
        RoleName="r", Path="/etl/", AssumeRolePolicyDocument=document, Tags=[{"Key": "a", "Value": "b"}]
    )
    aws.restart()
    iam = aws.client("iam")
    found = iam.get_role(RoleName="r")["Role"]
    assert found["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/etl/r"
    assert (found["RoleId"], found["CreateDate"]) == (made["Role"]["RoleId"], made["Role"]["CreateDate"])
    assert found["AssumeRolePolicyDocument"] == json.loads(document)
    assert [r["RoleName"] for r in iam.list_roles(PathPrefix="/etl/")["Roles"]] == ["r"]
    iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=allow("s3:*"))
    assert iam.get_role_policy(RoleName="r", PolicyName="p")["PolicyDocument"]["Statement"]["Action"] == "s3:*"
    with pytest.raises(ClientError, match="must delete policies first"):
        iam.delete_role(RoleName="r")
    iam.delete_role_policy(RoleName="r", PolicyName="p")
    iam.delete_role(RoleName="r")
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_role(RoleName="r")


def test_faults(aws: ControlPlane) -> None:
    iam = aws.client("iam")
    with pytest.raises(iam.exceptions.MalformedPolicyDocumentException, match="invalid Json"):
        iam.create_role(RoleName="r", AssumeRolePolicyDocument="{")
    with pytest.raises(iam.exceptions.MalformedPolicyDocumentException, match="has an Effect"):
        iam.create_policy(PolicyName="p", PolicyDocument='{"Statement": [{"Action": "*"}]}')
    iam.create_role(RoleName="r", AssumeRolePolicyDocument=trust({"AWS": ACCOUNT}))
    with pytest.raises(iam.exceptions.EntityAlreadyExistsException):
        iam.create_role(RoleName="r", AssumeRolePolicyDocument=trust({"AWS": ACCOUNT}))
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.attach_role_policy(RoleName="r", PolicyArn="arn:aws:iam::aws:policy/NoSuchThing")
    with pytest.raises(ClientError, match="iam:CreateInstanceProfile"):
        iam.create_instance_profile(InstanceProfileName="x")


ROLE = {"RoleName": "r", "AssumeRolePolicyDocument": trust({"AWS": f"arn:aws:iam::{ACCOUNT}:root"})}
READ_ONLY = "arn:aws:iam::aws:policy/ReadOnlyAccess"


@pytest.mark.parametrize(
    ("service", "operation", "arguments"),
    [
        ("iam", "create_role", {**ROLE, "PermissionsBoundary": READ_ONLY}),
        ("iam", "create_user", {"UserName": "u", "PermissionsBoundary": READ_ONLY}),
        ("iam", "list_policies", {"OnlyAttached": True}),
        ("iam", "list_users", {"PathPrefix": "/staff/"}),
        ("sts", "assume_role", {"RoleArn": READ_ONLY, "RoleSessionName": "me", "Policy": allow("s3:*")}),
        ("sts", "assume_role", {"RoleArn": READ_ONLY, "RoleSessionName": "me", "Tags": [{"Key": "a", "Value": "b"}]}),
        ("kms", "create_key", {"MultiRegion": True}),
        ("secretsmanager", "create_secret", {"Name": "s", "AddReplicaRegions": [{"Region": "us-west-2"}]}),
    ],
)
def test_a_parameter_without_effect_here_is_refused_by_name(
    aws: ControlPlane, service: str, operation: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ClientError) as error:
        getattr(aws.client(service), operation)(**arguments)
    assert code(error) == "NotImplemented" and list(arguments)[-1] in str(error.value)


def test_tags_of_a_managed_policy_are_kept(aws: ControlPlane) -> None:
    tags = [{"Key": "team", "Value": "data"}]
    made = aws.client("iam").create_policy(PolicyName="p", PolicyDocument=allow("s3:*"), Tags=tags)["Policy"]
    assert aws.client("iam").get_policy(PolicyArn=made["Arn"])["Policy"]["Tags"] == tags


def test_a_marker_that_no_answer_gave_is_refused(aws: ControlPlane) -> None:
    with pytest.raises(ClientError) as error:
        aws.client("iam").list_roles(Marker="next, please")
    assert code(error) == "ValidationError" and "Invalid Marker: next, please" in str(error.value)
