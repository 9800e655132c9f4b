from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from zeroetl_dagster.local.aws.iam import Iam
from zeroetl_dagster.local.aws.kms import Kms
from zeroetl_dagster.local.aws.secretsmanager import SecretsManager
from zeroetl_dagster.local.aws.sts import Sts
from zeroetl_dagster_tests.control_plane import ControlPlane


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(
        tmp_path, lambda world: {service.name: service(world) for service in (Iam, Sts, Kms, SecretsManager)}
    )
    yield plane
    plane.stop()
