"""Buckets: names, Regions, owners, policies, and configuration that is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from zeroetl_dagster_tests.control_plane import ACCOUNT, OTHER_ACCOUNT, REGION, ControlPlane

B = "bucket"


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_a_bucket_has_a_region(aws: ControlPlane, s3: Any) -> None:
    assert s3.get_bucket_location(Bucket=B)["LocationConstraint"] == REGION
    assert s3.head_bucket(Bucket=B)["BucketRegion"] == REGION
    aws.client("s3", region="us-east-1").create_bucket(Bucket="virginia")
    assert s3.get_bucket_location(Bucket="virginia")["LocationConstraint"] is None
    assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == [B, "virginia"]
    assert [b["Name"] for b in s3.list_buckets(BucketRegion="us-east-1")["Buckets"]] == ["virginia"]
    paged = s3.get_paginator("list_buckets").paginate(PaginationConfig={"PageSize": 1})
    assert [b["Name"] for page in paged for b in page["Buckets"]] == [B, "virginia"]
    with pytest.raises(ClientError, match="unspecified location constraint") as error:
        s3.create_bucket(Bucket="no-region")
    assert code(error) == "IllegalLocationConstraintException"
    with pytest.raises(ClientError, match="us-west-2 location constraint is incompatible"):
        s3.create_bucket(Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})


@pytest.mark.parametrize("name", ["UPPER", "ab..cd", "under_score", "192.168.1.1", "xn--a1b"])
def test_invalid_names(s3: Any, name: str) -> None:
    with pytest.raises(ClientError) as error:
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    assert code(error) == "InvalidBucketName"


def test_names_are_global(aws: ControlPlane, s3: Any) -> None:
    where = {"CreateBucketConfiguration": {"LocationConstraint": REGION}}
    with pytest.raises(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=B, **where)
    other = aws.client("s3", credentials=aws.in_account(OTHER_ACCOUNT))
    with pytest.raises(other.exceptions.BucketAlreadyExists):
        other.create_bucket(Bucket=B, **where)


def test_only_an_empty_bucket_is_deleted(s3: Any) -> None:
    s3.put_object(Bucket=B, Key="k", Body=b"")
    with pytest.raises(ClientError) as error:
        s3.delete_bucket(Bucket=B)
    assert code(error) == "BucketNotEmpty"
    s3.delete_object(Bucket=B, Key="k")
    s3.delete_bucket(Bucket=B)
    with pytest.raises(ClientError) as error:
        s3.head_bucket(Bucket=B)
    assert code(error) == "404"


def test_another_account_needs_the_bucket_policy(aws: ControlPlane, s3: Any) -> None:
    other = aws.client("s3", credentials=aws.in_account(OTHER_ACCOUNT))
    with pytest.raises(ClientError, match="s3:PutObject on resource: arn:aws:s3:::bucket/in/k") as error:
        other.put_object(Bucket=B, Key="in/k", Body=b"1")
    assert code(error) == "AccessDenied"
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{OTHER_ACCOUNT}:root"},
        "Action": ["s3:PutObject*", "s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{B}", f"arn:aws:s3:::{B}/in/*"],
    }
    s3.put_bucket_policy(Bucket=B, Policy=json.dumps({"Statement": [statement]}))
    other.put_object(Bucket=B, Key="in/k", Body=b"1")
    assert other.list_objects_v2(Bucket=B)["KeyCount"] == 1
    for call in (
        lambda: other.put_object(Bucket=B, Key="out/k", Body=b"1"),
        lambda: other.get_object(Bucket=B, Key="in/k"),
    ):
        with pytest.raises(ClientError):
            call()
    assert s3.get_object(Bucket=B, Key="in/k")["Body"].read() == b"1"
    with pytest.raises(ClientError, match="Access Denied"):
        s3.get_object(Bucket=B, Key="in/k", ExpectedBucketOwner=OTHER_ACCOUNT)


def test_a_deny_holds_for_the_owner_too(s3: Any) -> None:
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", "Resource": f"arn:aws:s3:::{B}/*"}
    s3.put_bucket_policy(Bucket=B, Policy=json.dumps({"Statement": deny}))
    s3.put_object(Bucket=B, Key="k", Body=b"1")
    with pytest.raises(ClientError, match="s3:DeleteObject"):
        s3.delete_object(Bucket=B, Key="k")
    assert s3.get_bucket_policy_status(Bucket=B)["PolicyStatus"]["IsPublic"] is False
    s3.delete_bucket_policy(Bucket=B)
    s3.delete_object(Bucket=B, Key="k")
    with pytest.raises(ClientError, match="bucket policy does not exist"):
        s3.get_bucket_policy(Bucket=B)
    with pytest.raises(ClientError, match="invalid Json"):
        s3.put_bucket_policy(Bucket=B, Policy="{")


def test_configuration_is_kept(aws: ControlPlane, s3: Any) -> None:
    rules = [{"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 7}}]
    block = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), False)
    encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k"}}]}
    s3.put_bucket_lifecycle_configuration(Bucket=B, LifecycleConfiguration={"Rules": rules})
    s3.put_public_access_block(Bucket=B, PublicAccessBlockConfiguration=block)
    s3.put_bucket_encryption(Bucket=B, ServerSideEncryptionConfiguration=encryption)
    s3.put_bucket_tagging(Bucket=B, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    s3.put_bucket_ownership_controls(Bucket=B, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]})
    aws.world.objects.close()
    aws.restart()
    s3 = aws.client("s3")
    assert s3.get_bucket_lifecycle_configuration(Bucket=B)["Rules"] == rules
    assert s3.get_public_access_block(Bucket=B)["PublicAccessBlockConfiguration"] == block
    assert s3.get_bucket_encryption(Bucket=B)["ServerSideEncryptionConfiguration"] == encryption
    assert s3.get_bucket_tagging(Bucket=B)["TagSet"] == [{"Key": "a", "Value": "b"}]
    ownership = s3.get_bucket_ownership_controls(Bucket=B)["OwnershipControls"]
    assert ownership == {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}


def test_what_is_not_configured_says_so(s3: Any) -> None:
    for call, expected in (
        (s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration"),
        (s3.get_bucket_tagging, "NoSuchTagSet"),
        (s3.get_bucket_cors, "NoSuchCORSConfiguration"),
        (s3.get_bucket_website, "NoSuchWebsiteConfiguration"),
        (s3.get_bucket_replication, "ReplicationConfigurationNotFoundError"),
        (s3.get_object_lock_configuration, "ObjectLockConfigurationNotFoundError"),
    ):
        with pytest.raises(ClientError) as error:
            call(Bucket=B)
        assert code(error) == expected
    assert "Status" not in s3.get_bucket_versioning(Bucket=B)
    assert s3.get_bucket_acl(Bucket=B)["Owner"]["ID"].endswith(ACCOUNT)
    rule = s3.get_bucket_encryption(Bucket=B)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    s3.delete_public_access_block(Bucket=B)
    with pytest.raises(ClientError, match="public access block configuration was not found"):
        s3.get_public_access_block(Bucket=B)


def test_what_is_not_implemented_is_refused_by_name(s3: Any) -> None:
    s3.put_object(Bucket=B, Key="k", Body=b"1")
    with pytest.raises(ClientError, match="s3:PutBucketVersioning with Status=Enabled"):
        s3.put_bucket_versioning(Bucket=B, VersioningConfiguration={"Status": "Enabled"})
    for call, operation in (
        (lambda: s3.list_object_versions(Bucket=B), "ListObjectVersions"),
        (lambda: s3.restore_object(Bucket=B, Key="k"), "RestoreObject"),
        (lambda: s3.put_bucket_notification_configuration(Bucket=B, NotificationConfiguration={}), "PutBucketNot"),
    ):
        with pytest.raises(ClientError, match=f"s3:{operation}") as error:
            call()
        assert code(error) == "NotImplemented"
