"""A threaded endpoint; the data plane behind it replaced by recorders, so that only the control plane is under test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from zeroetl_dagster.local import supervisor
from zeroetl_dagster.local.aws.app import Server, build_app
from zeroetl_dagster.local.aws.identities import Caller, Identities
from zeroetl_dagster.local.aws.plane import ControlPlane
from zeroetl_dagster.local.aws.secretsmanager import SecretsManager
from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.store import Store
from zeroetl_dagster.local.world import Delays, World

REGION = "ap-northeast-1"
ACCOUNT = "123456789012"
OTHER_ACCOUNT = "210987654321"
OTHER_KEY = "ASIAOTHERACCOUNT"

Client = Callable[..., Any]

GOOD_PARAMETERS = {
    "rds.logical_replication": "1",
    "aurora.enhanced_logical_replication": "1",
    "aurora.logical_replication_backup": "0",
    "aurora.logical_replication_globaldb": "0",
}


def make_client(endpoint_url: str, service: str, *, region: str = REGION, key: str = "AKIAOWN", **config: Any) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint_url,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 2}, **config),
    )


@pytest.fixture
def serve() -> Iterator[Callable[[Mapping[str, Any]], Client]]:
    """Serve WSGI applications by service name; gives a function that makes boto3 clients for them."""
    servers: list[Server] = []

    def start(services: Mapping[str, Any]) -> Client:
        app = build_app(services, default_account=ACCOUNT, account_of={OTHER_KEY: OTHER_ACCOUNT}.get)
        server = Server(app)
        server.start()
        servers.append(server)
        return lambda service, **more: make_client(server.endpoint_url, service, **more)

    yield start
    for server in servers:
        server.stop()


class RecordedPostgres:
    """What the control plane asks of the PostgreSQL servers; `running_now` outlives it like real servers do."""

    def __init__(self) -> None:
        self.created: dict[str, dict[str, Any]] = {}
        self.running_now: dict[str, bool] = {}  # cluster key -> wal_level is logical
        self.fail_start = False

    def create(self, cluster_key: str, **more: Any) -> None:
        assert cluster_key not in self.created
        self.created[cluster_key] = more

    def start(self, cluster_key: str, *, logical: bool) -> None:
        if self.fail_start:
            raise OSError("the port is taken")
        assert cluster_key in self.created and cluster_key not in self.running_now
        self.running_now[cluster_key] = logical

    def stop(self, cluster_key: str, *, immediate: bool = False) -> None:
        del self.running_now[cluster_key]

    def running(self, cluster_key: str) -> bool:
        return cluster_key in self.running_now

    def delete(self, cluster_key: str) -> None:
        self.created.pop(cluster_key, None)

    def set_master_password(self, cluster_key: str, password: str) -> None:
        self.created[cluster_key]["master_password"] = password


class RecordedWarehouse:
    def __init__(self) -> None:
        self.namespaces: dict[str, dict[str, Any]] = {}
        self.listening: dict[str, dict[str, Any]] = {}
        self.paused: set[str] = set()
        self.users: dict[tuple[str, str], dict[str, Any]] = {}
        self.opened: list[str] = []

    def create_namespace(self, namespace_id: str, *, admin_user: str, admin_password: str, database: str) -> None:
        self.namespaces[namespace_id] = {"user": admin_user, "password": admin_password, "database": database}

    def open_namespace(self, namespace_id: str) -> None:
        self.opened.append(namespace_id)

    def delete_namespace(self, namespace_id: str) -> None:
        self.namespaces.pop(namespace_id, None)

    def listen(
        self, endpoint: str, namespace_id: str, *, port: int, settings: Mapping[str, str], rpu: int | None
    ) -> None:
        assert endpoint not in self.listening
        self.listening[endpoint] = {"namespace": namespace_id, "port": port, "settings": settings, "rpu": rpu}

    def configure(self, endpoint: str, settings: Mapping[str, str], rpu: int | None) -> None:
        self.listening[endpoint] |= {"settings": settings, "rpu": rpu}

    def close(self, endpoint: str) -> None:
        self.listening.pop(endpoint, None)

    def pause(self, endpoint: str) -> None:
        self.paused.add(endpoint)

    def resume(self, endpoint: str) -> None:
        self.paused.discard(endpoint)

    def set_user(
        self,
        namespace_id: str,
        user: str,
        password: str,
        *,
        superuser: bool = False,
        expires_at: float | None = None,
    ) -> None:
        self.users[namespace_id, user] = {"password": password, "superuser": superuser, "expires_at": expires_at}


@dataclass
class Metrics:
    integration_id: str
    lag_seconds: float | None
    tables_replicated: int
    tables_failed: int
    bytes_transferred: int
    latest_detected_change: float | None
    latest_applied_change: float | None


@dataclass
class RecordedReplicator:
    changed: list[str] = field(default_factory=list)
    found: list[Metrics] = field(default_factory=list)

    def integration_changed(self, integration_id: str) -> None:
        self.changed.append(integration_id)

    def metrics(self) -> list[Metrics]:
        return self.found


class Bed:
    """One embedded control plane on a folder; `restart` is what a kill -9 and a new start do."""

    def __init__(self, root: Path, delays: Delays | None = None) -> None:
        self.folder = DataFolder(root)
        self.folder.create()
        self.key = supervisor.access_key(self.folder)["access_key_id"]
        self.delays = delays or Delays(0.02, 0.02, 0.02, metrics_interval_seconds=3600)
        self.postgres, self.warehouse = RecordedPostgres(), RecordedWarehouse()
        self.replicator = RecordedReplicator()
        self._start()

    def _start(self) -> None:
        self.store = Store(self.folder.store_path)
        parts: tuple[Any, Any, Any] = (self.postgres, self.warehouse, self.replicator)
        self.world = World(self.folder, self.store, *parts, delays=self.delays)
        self.plane = ControlPlane(self.world)
        identities = Identities.of_world(self.world)
        services = {**self.plane.services, "secretsmanager": SecretsManager(self.world)}
        app = build_app(
            services, default_account=ACCOUNT, account_of=lambda access_key: identities.caller(access_key).account
        )
        self.server = Server(app)
        self.server.start()
        self.plane.resume()

    def client(self, service: str, **more: Any) -> Any:
        return make_client(self.server.endpoint_url, service, **{"key": self.key, **more})

    def of_account(self, service: str, account: str = OTHER_ACCOUNT, **more: Any) -> Any:
        """A client with the credentials of a role's session in another account."""
        role = f"arn:aws:iam::{account}:role/builder"
        arn = f"arn:aws:sts::{account}:assumed-role/builder/test"
        caller = Caller(account, arn, "AROA:test", role_name="builder", role_arn=role)
        session = Identities.of_world(self.world).open_session(caller, 900)
        return self.client(service, key=session["AccessKeyId"], **more)

    def hold(self) -> None:
        """From now on nothing that is planned happens, until `release`: what is under way can be looked at."""
        self.world.delays = Delays(600, 600, 600, metrics_interval_seconds=3600)

    def release(self) -> None:
        self.world.delays = self.delays
        transitions = self.plane.transitions
        with transitions._changed:
            for key, _ in self.store.items("transition"):
                self.store.update("transition", key, lambda plan: plan.update(due=0))
            transitions._changed.notify_all()

    def settle(self) -> None:
        """Until nothing is under way."""
        assert self.plane.transitions.wait_idle(20)

    def stop(self) -> None:
        self.server.stop()
        self.plane.stop()
        self.store.close()

    def restart(self, *, delays: Delays | None = None) -> None:
        self.stop()
        self.warehouse.listening.clear()  # listeners die with the process
        self.delays = delays or self.delays
        self._start()

    # ---- landscapes ----------------------------------------------------------------------------------------------

    def cluster(self, name: str = "src", *, good: bool = True, instance: bool = True, **more: Any) -> dict[str, Any]:
        """An available cluster with one instance; `good` with a parameter group fit for zero-ETL."""
        rds = self.client("rds")
        settings = {"Engine": "aurora-postgresql", "MasterUsername": "master", "ManageMasterUserPassword": True, **more}
        if good:
            self.group(f"{name}-group")
            settings["DBClusterParameterGroupName"] = f"{name}-group"
        rds.create_db_cluster(DBClusterIdentifier=name, **settings)
        if instance:
            rds.create_db_instance(
                DBInstanceIdentifier=f"{name}-1",
                DBClusterIdentifier=name,
                DBInstanceClass="db.serverless",
                Engine=settings["Engine"],
            )
        self.settle()
        found: dict[str, Any] = rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"][0]
        return found

    def group(self, name: str, **values: str) -> None:
        rds = self.client("rds")
        rds.create_db_cluster_parameter_group(
            DBClusterParameterGroupName=name, DBParameterGroupFamily="aurora-postgresql17", Description="test"
        )
        self.set_parameters(name, **(values or GOOD_PARAMETERS))

    def set_parameters(self, group: str, **values: str) -> None:
        changes = [
            {"ParameterName": name, "ParameterValue": value, "ApplyMethod": "pending-reboot"}
            for name, value in values.items()
        ]
        self.client("rds").modify_db_cluster_parameter_group(DBClusterParameterGroupName=group, Parameters=changes)

    def namespace(self, name: str = "target", *, case_sensitive: bool = True) -> dict[str, Any]:
        """A namespace with one workgroup of the same name, available."""
        serverless = self.client("redshift-serverless")
        made: dict[str, Any] = serverless.create_namespace(namespaceName=name, manageAdminPassword=True)["namespace"]
        value = "true" if case_sensitive else "false"
        serverless.create_workgroup(
            workgroupName=name,
            namespaceName=name,
            baseCapacity=8,
            configParameters=[{"parameterKey": "enable_case_sensitive_identifier", "parameterValue": value}],
        )
        self.settle()
        return made

    def authorise(self, target_arn: str, *source_arns: str, principal: str | None = None) -> None:
        import json

        statements: list[dict[str, Any]] = [
            {
                "Effect": "Allow",
                "Principal": {"Service": "redshift.amazonaws.com"},
                "Action": "redshift:AuthorizeInboundIntegration",
                "Condition": {"StringEquals": {"aws:SourceArn": arn}},
            }
            for arn in source_arns
        ]
        if principal:
            statements.append(
                {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "redshift:CreateInboundIntegration"}
            )
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        self.client("redshift").put_resource_policy(ResourceArn=target_arn, Policy=document)

    def integration(self, source_arn: str, target_arn: str, name: str = "zetl", **more: Any) -> dict[str, Any]:
        """Created and waited for; as described then."""
        settings = {"DataFilter": "include: db.*.*", **more}
        rds = self.client("rds")
        made = rds.create_integration(SourceArn=source_arn, TargetArn=target_arn, IntegrationName=name, **settings)
        self.settle()
        return self.described(made["IntegrationArn"])

    def described(self, arn: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client("rds").describe_integrations(IntegrationIdentifier=arn)["Integrations"][0]
        return found

    def landscape(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A fit source and a fit target that lets it in."""
        cluster, namespace = self.cluster(), self.namespace()
        self.authorise(namespace["namespaceArn"], cluster["DBClusterArn"])
        return cluster, namespace


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path / "aws")
    yield made
    made.stop()


def refused(action: Callable[[], Any]) -> dict[str, Any]:
    """The error of a call that must be refused: Code and Message."""
    with pytest.raises(ClientError) as caught:
        action()
    error: dict[str, Any] = dict(caught.value.response["Error"])
    return error


@pytest.fixture
def arns(bed: Bed) -> tuple[str, str]:
    """Of a fit source and a fit target."""
    cluster, namespace = bed.landscape()
    return cluster["DBClusterArn"], namespace["namespaceArn"]
