from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from zeroetl_dagster.local.aws.glue import Glue
from zeroetl_dagster.local.aws.iam import Iam
from zeroetl_dagster.local.aws.s3 import S3
from zeroetl_dagster.local.aws.sts import Sts
from zeroetl_dagster_tests.control_plane import REGION, ControlPlane


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[ControlPlane]:
    """With a bucket `lake` and a role `crawler` that may read it."""
    plane = ControlPlane(tmp_path, lambda world: {service.name: service(world) for service in (Iam, Sts, S3, Glue)})
    plane.client("s3").create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": REGION})
    trust = {"Effect": "Allow", "Principal": {"Service": "glue.amazonaws.com"}, "Action": "sts:AssumeRole"}
    iam = plane.client("iam")
    iam.create_role(RoleName="crawler", AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
    reading = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
    iam.put_role_policy(RoleName="crawler", PolicyName="read", PolicyDocument=json.dumps({"Statement": [reading]}))
    yield plane
    plane.stop()
