from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from zeroetl_dagster.connections.aws import Aws
from zeroetl_dagster.connections.redshift import Redshift
from zeroetl_dagster.connections.waiting import Backoff, wait_for
from zeroetl_dagster.local.aws.iam import Iam
from zeroetl_dagster.local.aws.secretsmanager import SecretsManager
from zeroetl_dagster.local.aws.sts import Sts
from zeroetl_dagster.settings.connections import Identity, RedshiftConnection
from zeroetl_dagster_tests.conftest import Embedded
from zeroetl_dagster_tests.control_plane import OWN_KEY, REGION, ControlPlane

NAME = "connections-tests"
PLAIN_PASSWORD = "Only4Tests"
_AWS_VARIABLES = (
    "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION",
    "AWS_DEFAULT_REGION", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # fmt: skip


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment that says nothing of AWS."""
    for name in _AWS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An AWS of users, roles and secrets only."""
    root = tmp_path_factory.mktemp("identities")
    plane = ControlPlane(root, lambda world: {one.name: one(world) for one in (Iam, Sts, SecretsManager)})
    yield plane
    plane.stop()


@pytest.fixture
def signed_in(bare: pytest.MonkeyPatch, identities: ControlPlane) -> pytest.MonkeyPatch:
    """The environment of that AWS's own key."""
    bare.setenv("AWS_ENDPOINT_URL", identities.server.endpoint_url)
    bare.setenv("AWS_REGION", REGION)
    bare.setenv("AWS_DEFAULT_REGION", REGION)
    bare.setenv("AWS_ACCESS_KEY_ID", OWN_KEY)
    bare.setenv("AWS_SECRET_ACCESS_KEY", "x")
    return bare


class Warehouse:
    """A workgroup of the embedded AWS, with a user `plain` of its own and a secret of that user's."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.aws = Aws(name="aws")
        serverless = session.client("redshift-serverless")
        serverless.create_namespace(namespaceName=NAME, dbName="dev", manageAdminPassword=True)
        serverless.create_workgroup(
            workgroupName=NAME,
            namespaceName=NAME,
            configParameters=[{"parameterKey": "enable_case_sensitive_identifier", "parameterValue": "true"}],
        )
        wait_for(
            lambda: serverless.get_workgroup(workgroupName=NAME)["workgroup"]["status"],
            until=lambda status: status == "AVAILABLE",
            describe=str,
            timeout_seconds=30,
            report=lambda _: None,
            poll=Backoff(0.05, 1, 0.05, 0),
        )
        self.endpoint = serverless.get_workgroup(workgroupName=NAME)["workgroup"]["endpoint"]
        with self.redshift().session("admin") as admin:
            admin.execute(f"CREATE USER plain PASSWORD '{PLAIN_PASSWORD}'")
        self.secret = session.client("secretsmanager").create_secret(
            Name=f"{NAME}-plain", SecretString=json.dumps({"username": "plain", "password": PLAIN_PASSWORD})
        )["ARN"]

    def redshift(self, marts: dict[str, Any] | None = None, **more: Any) -> Redshift:
        """A connection of its own; `marts` says how that identity logs in."""
        given: dict[str, Any] = {"aws": "aws", "workgroup": NAME, **more}
        if marts is not None:
            given["marts"] = Identity.model_validate(marts)
        return Redshift(RedshiftConnection.model_validate(given), self.aws, "warehouse")


@contextmanager
def environment_of(embedded: Embedded) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for key, value in embedded.env.items():
            patch.setenv(key, value)
        yield


@pytest.fixture(scope="session")
def only_warehouse(embedded: Embedded) -> Warehouse:
    with environment_of(embedded):
        return Warehouse(embedded.session)


@pytest.fixture(scope="module")
def warehouse(embedded: Embedded, only_warehouse: Warehouse) -> Iterator[Warehouse]:
    """Made once for the session, in whatever order the files come; the environment is the module's."""
    with environment_of(embedded):
        yield only_warehouse
