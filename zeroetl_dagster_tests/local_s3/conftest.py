from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zeroetl_dagster.local.aws.iam import Iam
from zeroetl_dagster.local.aws.s3 import S3
from zeroetl_dagster.local.aws.sts import Sts
from zeroetl_dagster_tests.control_plane import REGION, ControlPlane


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path, lambda world: {service.name: service(world) for service in (Iam, Sts, S3)})
    yield plane
    plane.stop()


@pytest.fixture
def s3(aws: ControlPlane) -> Any:
    """A client, and a bucket called `b`."""
    client = aws.client("s3")
    client.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    return client
