"""KMS key states and secrets with versions, through boto3 and through what the other services call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.identities import Identities
from zeroetl_dagster.local.aws.kms import Keys
from zeroetl_dagster.local.aws.secretsmanager import Secrets
from zeroetl_dagster_tests.control_plane import ACCOUNT, OTHER_ACCOUNT, OWN_KEY, REGION, ControlPlane


def test_a_key_is_found_by_every_name_and_survives_a_restart(aws: ControlPlane) -> None:
    kms = aws.client("kms")
    made = kms.create_key(Description="exports", Tags=[{"TagKey": "a", "TagValue": "b"}])["KeyMetadata"]
    kms.create_alias(AliasName="alias/exports", TargetKeyId=made["KeyId"])
    aws.restart()
    kms = aws.client("kms")
    alias_arn = f"arn:aws:kms:{REGION}:{ACCOUNT}:alias/exports"
    for name in (made["KeyId"], made["Arn"], "alias/exports", alias_arn):
        found = kms.describe_key(KeyId=name)["KeyMetadata"]
        assert (found["Arn"], found["CreationDate"], found["Enabled"]) == (made["Arn"], made["CreationDate"], True)
    assert [a["AliasName"] for a in kms.list_aliases(KeyId=made["KeyId"])["Aliases"]] == ["alias/exports"]
    assert [k["KeyId"] for k in kms.list_keys()["Keys"]] == [made["KeyId"]]


def test_only_an_enabled_key_is_usable(aws: ControlPlane) -> None:
    kms, keys = aws.client("kms"), Keys(aws.world.store)
    me = Identities.of_world(aws.world).caller(OWN_KEY)
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    assert keys.require_usable(me, REGION, key)["KeyState"] == "Enabled"
    kms.disable_key(KeyId=key)
    with pytest.raises(AwsError, match="is disabled"):
        keys.require_usable(me, REGION, key)
    kms.enable_key(KeyId=key)
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    with pytest.raises(AwsError, match="is pending deletion"):
        keys.require_usable(me, REGION, key)
    with pytest.raises(kms.exceptions.KMSInvalidStateException):
        kms.enable_key(KeyId=key)
    kms.cancel_key_deletion(KeyId=key)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"
    with pytest.raises(kms.exceptions.NotFoundException, match="does not exist"):
        kms.describe_key(KeyId="00000000-0000-0000-0000-000000000000")
    with pytest.raises(kms.exceptions.NotFoundException, match="Alias arn.* is not found"):
        kms.describe_key(KeyId="alias/nothing")


def test_another_accounts_key_needs_its_policy(aws: ControlPlane) -> None:
    kms, keys = aws.client("kms"), Keys(aws.world.store)
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    other = Identities.of_world(aws.world).caller(aws.in_account(OTHER_ACCOUNT)["AccessKeyId"])
    with pytest.raises(AwsError, match="no resource-based policy allows"):
        keys.require_usable(other, REGION, arn)
    document = json.loads(kms.get_key_policy(KeyId=arn)["Policy"])
    root = {"AWS": f"arn:aws:iam::{OTHER_ACCOUNT}:root"}
    document["Statement"].append({"Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*"})
    kms.put_key_policy(KeyId=arn, Policy=json.dumps(document))
    assert keys.require_usable(other, REGION, arn)["Arn"] == arn


def test_aws_managed_keys_appear_at_first_use(aws: ControlPlane) -> None:
    kms = aws.client("kms")
    first = kms.describe_key(KeyId="alias/aws/rds")["KeyMetadata"]
    assert first["KeyManager"] == "AWS"
    assert kms.describe_key(KeyId="alias/aws/rds")["KeyMetadata"]["Arn"] == first["Arn"]


def test_grants(aws: ControlPlane) -> None:
    kms = aws.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    grant = kms.create_grant(KeyId=key, GranteePrincipal=f"arn:aws:iam::{ACCOUNT}:role/x", Operations=["Decrypt"])
    assert [g["GrantId"] for g in kms.list_grants(KeyId=key)["Grants"]] == [grant["GrantId"]]
    kms.revoke_grant(KeyId=key, GrantId=grant["GrantId"])
    assert kms.list_grants(KeyId=key)["Grants"] == []


def test_encryption_is_refused_by_name(aws: ControlPlane) -> None:
    key = aws.client("kms").create_key()["KeyMetadata"]["KeyId"]
    with pytest.raises(ClientError, match="kms:Encrypt"):
        aws.client("kms").encrypt(KeyId=key, Plaintext=b"x")


def test_a_secret_has_versions_and_survives_a_restart(aws: ControlPlane) -> None:
    secrets = aws.client("secretsmanager")
    arn = secrets.create_secret(Name="etl/admin", SecretString="one")["ARN"]
    secrets.put_secret_value(SecretId="etl/admin", SecretString="two")
    aws.restart()
    secrets = aws.client("secretsmanager")
    for name in ("etl/admin", arn, arn[:-7]):
        assert secrets.get_secret_value(SecretId=name)["SecretString"] == "two"
    assert secrets.get_secret_value(SecretId=arn, VersionStage="AWSPREVIOUS")["SecretString"] == "one"
    stages = secrets.describe_secret(SecretId=arn)["VersionIdsToStages"]
    assert sorted(stage for held in stages.values() for stage in held) == ["AWSCURRENT", "AWSPREVIOUS"]
    secrets.put_secret_value(SecretId=arn, SecretBinary=b"\x00\xff")
    assert secrets.get_secret_value(SecretId=arn)["SecretBinary"] == b"\x00\xff"


def test_deleting_and_restoring(aws: ControlPlane) -> None:
    secrets = aws.client("secretsmanager")
    secrets.create_secret(Name="a", SecretString="1")
    secrets.delete_secret(SecretId="a")
    with pytest.raises(secrets.exceptions.InvalidRequestException, match="marked for deletion"):
        secrets.get_secret_value(SecretId="a")
    assert secrets.list_secrets()["SecretList"] == []
    secrets.restore_secret(SecretId="a")
    assert [s["Name"] for s in secrets.list_secrets(Filters=[{"Key": "name", "Values": ["a"]}])["SecretList"]] == ["a"]
    secrets.delete_secret(SecretId="a", ForceDeleteWithoutRecovery=True)
    with pytest.raises(secrets.exceptions.ResourceNotFoundException):
        secrets.get_secret_value(SecretId="a")
    with pytest.raises(secrets.exceptions.ResourceNotFoundException):
        secrets.get_secret_value(SecretId=f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:a-AbCdEf")


def test_a_name_is_taken_once(aws: ControlPlane) -> None:
    secrets = aws.client("secretsmanager")
    secrets.create_secret(Name="a", SecretString="1")
    with pytest.raises(secrets.exceptions.ResourceExistsException):
        secrets.create_secret(Name="a", SecretString="2")


def test_other_services_keep_managed_secrets(aws: ControlPlane) -> None:
    own = Secrets(aws.world.store)
    value: dict[str, Any] = {"username": "u", "password": "p"}
    arn = own.put(ACCOUNT, REGION, "rds!cluster-1", json.dumps(value), owning_service="rds")
    assert own.put(ACCOUNT, REGION, "rds!cluster-1", "rotated", owning_service="rds") == arn
    assert own.get(ACCOUNT, REGION, arn) == "rotated"
    client = aws.client("secretsmanager")
    assert client.describe_secret(SecretId=arn)["OwningService"] == "rds"
    with pytest.raises(client.exceptions.InvalidRequestException, match="managed by rds"):
        client.delete_secret(SecretId=arn)
    own.delete(ACCOUNT, REGION, arn)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_secret_value(SecretId=arn)
