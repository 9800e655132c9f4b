"""A small shop on an embedded AWS that runs in this process, with delays short enough for tests: a real PostgreSQL as
Aurora, real export tasks, Parquet, crawls and Athena queries. What is exported is what the production code asks for."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import psycopg2

from zeroetl_dagster.connections.resources import AthenaResource, AwsResource
from zeroetl_dagster.connections.waiting import Backoff
from zeroetl_dagster.exports import face
from zeroetl_dagster.exports.assets import Pace, build_assets
from zeroetl_dagster.exports.daily import asked_tables
from zeroetl_dagster.exports.names import SourceTable
from zeroetl_dagster.exports.schedules import build_job
from zeroetl_dagster.exports.sensor import build_sensor
from zeroetl_dagster.local.aws.export_run import WRITING_AT_ONCE
from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.server import EmbeddedAws
from zeroetl_dagster.local.world import Delays
from zeroetl_dagster.settings.connections import AssumeRole, AthenaConnection, AwsAccount
from zeroetl_dagster.settings.exports import SnapshotExportSettings

REGION = "ap-northeast-1"
ACCOUNT = "123456789012"
OTHER_ACCOUNT = "222222222222"
CLUSTER = "shop"
BUCKET = "shop-lake"
EXPORT_ROLE = f"arn:aws:iam::{ACCOUNT}:role/shop-export"
CRAWLER_ROLE = "shop-crawler"
QUICK = Backoff(0.05, 1.0, 0.05, 0.0)
PACE = Pace(poll=QUICK)

SCHEMA = """
CREATE TABLE sales (id INT PRIMARY KEY, day DATE, price NUMERIC(8,2), sold TIMESTAMP, paid TIMESTAMPTZ, code CHAR(4),
  refunded BOOLEAN, note TEXT);
INSERT INTO sales VALUES (1, '2026-01-05', 10.50, '2026-01-05 12:00:00.25', '2026-01-05 12:00:00+09', 'ab', true, ''),
  (2, '2026-01-06', 0.25, NULL, NULL, NULL, NULL, NULL), (3, '2026-01-06', -1, '1999-12-31', '2026-01-01Z', 'abcd',
  false, E'two\\nlines, "quoted"');
CREATE TABLE empty (id INT PRIMARY KEY, label TEXT);
CREATE TABLE "Order Lines" ("Id" INT PRIMARY KEY, "Größe" TEXT);
INSERT INTO "Order Lines" VALUES (1, 'groß');
CREATE TABLE cost$ (id INT PRIMARY KEY, usd MONEY);
INSERT INTO cost$ VALUES (1, '$1,234.50');
CREATE TABLE 売上 (id INT PRIMARY KEY, 金額 INT);
INSERT INTO 売上 VALUES (1, 100);
CREATE TABLE "Twins" (id INT PRIMARY KEY);
CREATE TABLE twins (id INT PRIMARY KEY);
INSERT INTO twins VALUES (1);
INSERT INTO "Twins" VALUES (1);
CREATE TABLE odd (id INT PRIMARY KEY, n NUMERIC(6,2), f DOUBLE PRECISION, d DATE, t TIMESTAMP, grid INT[][]);
INSERT INTO odd VALUES (1, 'NaN', 'Infinity', '0044-03-15 BC', 'infinity', '{{1,2},{3,4}}'), (2, 1.5, 2.5, '2026-01-01',
  '2026-01-01', '{}');
CREATE TABLE skipped (id INT PRIMARY KEY, "a,b" INT);
INSERT INTO skipped VALUES (1, 1);
"""


class Shop:
    """The embedded AWS, its source cluster, and the lake into which it is exported. Connections are made as the
    configuration makes them, from the environment that the fixture has set."""

    def __init__(self, root: Path) -> None:
        self.root = root
        folder = DataFolder(root)
        folder.create()
        folder.credentials_file.write_text(
            json.dumps({"access_key_id": "AKIASHOP000000000000", "secret_access_key": "s"})
        )
        self.embedded = EmbeddedAws(folder, port=0, delays=Delays(0.05, 0.05, 0.05, 60))
        self.embedded.start()
        self._numbers = itertools.count(1)

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.embedded.server.endpoint_url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "AKIASHOP000000000000",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_EC2_METADATA_DISABLED": "true",
            "ZEROETL_REDSHIFT_SSL": "off",
        }

    def build(self) -> None:
        """What a user's Terraform would have made."""
        self.aws = AwsResource(AwsAccount(), "own")
        self.lake = AthenaResource(AthenaConnection(aws="own", workgroup="shop"), self.aws, "lake")
        self.lake.poll_seconds = 0.02
        self.rds, self.s3, self.glue = (self.aws.client(name) for name in ("rds", "s3", "glue"))
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.key_arn: str = self.aws.client("kms").create_key()["KeyMetadata"]["Arn"]
        self.role("shop-export", "export.rds.amazonaws.com", ["s3:*"])
        self.role(CRAWLER_ROLE, "glue.amazonaws.com", ["s3:GetObject", "s3:ListBucket"])
        results = {"ResultConfiguration": {"OutputLocation": f"s3://{BUCKET}/athena/"}}
        self.aws.client("athena").create_work_group(
            Name="shop", Configuration={**results, "EnforceWorkGroupConfiguration": False}
        )
        self.cluster(self.rds, CLUSTER)
        self.sql(SCHEMA)

    def stop(self) -> None:
        self.embedded.stop()

    # ---- what is there -----------------------------------------------------------------------------------------

    def client(self, service: str, region: str = REGION, account: str = ACCOUNT) -> Any:
        """A client of another Region, or of an account as AWS Organizations opens it."""
        if account == ACCOUNT:
            return boto3.client(service, region_name=region)
        arn = f"arn:aws:iam::{account}:role/OrganizationAccountAccessRole"
        made = self.aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        names = {"aws_access_key_id": "AccessKeyId", "aws_secret_access_key": "SecretAccessKey"}
        keys = {**{name: made[key] for name, key in names.items()}, "aws_session_token": made["SessionToken"]}
        return boto3.client(service, region_name=region, **keys)

    def role(self, name: str, trusted: str, actions: list[str], *, iam: Any = None, resource: str = "*") -> str:
        """A role with these rights; `trusted` is a service or the ARN of a principal."""
        kind = "Service" if trusted.endswith(".amazonaws.com") else "AWS"
        iam = iam or self.aws.client("iam")
        trust = {"Effect": "Allow", "Principal": {kind: trusted}, "Action": "sts:AssumeRole"}
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
        rights = {"Effect": "Allow", "Action": actions, "Resource": resource}
        if actions:
            iam.put_role_policy(RoleName=name, PolicyName="rights", PolicyDocument=json.dumps({"Statement": [rights]}))
        return str(made["Role"]["Arn"])

    def cluster(self, rds: Any, name: str, **more: Any) -> None:
        rds.create_db_cluster(
            DBClusterIdentifier=name,
            Engine="aurora-postgresql",
            DatabaseName="shop",
            MasterUsername="shopkeeper",
            MasterUserPassword="no-secret-of-anybody",
            BackupRetentionPeriod=7,
            **more,
        )
        rds.create_db_instance(
            DBInstanceIdentifier=f"{name}-1",
            DBClusterIdentifier=name,
            DBInstanceClass="db.serverless",
            Engine="aurora-postgresql",
        )
        until(
            lambda: rds.describe_db_instances(DBInstanceIdentifier=f"{name}-1")["DBInstances"][0]["DBInstanceStatus"],
            "available",
        )

    def sql(self, statements: str, *, cluster: str = f"{ACCOUNT}/{REGION}/{CLUSTER}") -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(**self.embedded.world.postgres.dsn(cluster, "shop"))
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statements)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def snapshot(self, name: str | None = None, *, rds: Any = None, cluster: str = CLUSTER, days_ago: int = 0) -> str:
        """Take one and wait for it. `days_ago` lets it look older than it is."""
        rds = rds or self.rds
        name = name or f"by-hand-{next(self._numbers)}"
        rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier=name, DBClusterIdentifier=cluster)
        until(lambda: describe_snapshot(rds, name)["Status"], "available")
        if days_ago:
            store = self.embedded.world.store
            key = f"{ACCOUNT}/{REGION}/{name}"
            store.update("rds.snapshot", key, lambda held: {**held, "taken_at": held["taken_at"] - days_ago * 86400})
        return name

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Export tasks stay STARTING, as AWS lets them for hours."""
        writing = self.embedded.plane.rds.exports._writing
        for _ in range(WRITING_AT_ONCE):
            writing.acquire()
        try:
            yield
        finally:
            for _ in range(WRITING_AT_ONCE):
                writing.release()

    @contextmanager
    def delays(self, **seconds: float) -> Iterator[None]:
        """What is begun meanwhile takes so long."""
        world = self.embedded.world
        held, world.delays = world.delays, replace(world.delays, **seconds)
        try:
            yield
        finally:
            world.delays = held

    def export(self, source_arn: str, identifier: str) -> None:
        """Somebody else's export task."""
        self.rds.start_export_task(
            ExportTaskIdentifier=identifier,
            SourceArn=source_arn,
            S3BucketName=BUCKET,
            S3Prefix="others",
            IamRoleArn=EXPORT_ROLE,
            KmsKeyId=self.key_arn,
        )

    def tasks(self, pipeline: str, rds: Any = None) -> list[dict[str, Any]]:
        """Export tasks of this pipeline, the oldest first."""
        found = (rds or self.rds).describe_export_tasks()["ExportTasks"]
        return [task for task in reversed(found) if task["ExportTaskIdentifier"].startswith(f"{pipeline}-")]

    def ended(self, pipeline: Pipeline, status: str = "COMPLETE") -> None:
        """Wait until the pipeline's newest task has this status."""
        until(lambda: pipeline.tasks()[-1]["Status"], status)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return list(self.lake.query(sql).rows.rows)

    # ---- what is configured --------------------------------------------------------------------------------------

    @property
    def source(self) -> dict[str, Any]:
        return {"cluster": CLUSTER, "engine": "aurora-postgresql", "database": "shop"}

    def settings(self, name: str, *, mode: str = "register", **more: Any) -> SnapshotExportSettings:
        catalogue: dict[str, Any] = {"mode": mode, "database": f"{name}_lake"}
        if mode == "crawler":
            catalogue["crawler"] = {"name": name, "role": CRAWLER_ROLE}
        values: dict[str, Any] = {
            "name": name,
            "aws": "own",
            "athena": "lake",
            "source": self.source,
            "bucket": BUCKET,
            "prefix": f"exports/{name}",
            "kms_key": self.key_arn,
            "export_role": EXPORT_ROLE,
            "tables": ["public.sales"],
            "catalogue": catalogue,
            "start_date": f"{datetime.now(UTC):%Y}-01-01",
        }
        return SnapshotExportSettings.model_validate({**values, **more})

    def assumed(self, role_arn: str, name: str = "assumed") -> AwsResource:
        return AwsResource(AwsAccount(assume_role=AssumeRole(role_arn=role_arn)), name)

    def resources(self, **more: Any) -> dict[str, Any]:
        return {"own": self.aws, "lake": self.lake, **more}


class Pipeline:
    """One configuration, materialised on an instance of its own."""

    def __init__(
        self, shop: Shop, settings: SnapshotExportSettings, *, tables: Sequence[SourceTable] = (), **resources: Any
    ) -> None:
        self.shop, self.settings = shop, settings
        self.instance = dg.DagsterInstance.ephemeral()
        self.resources = shop.resources(**resources)
        self.tables = list(tables) or asked_tables(settings) or []
        self.results: list[dg.ExecuteInProcessResult] = []
        self.cursor: str | None = None

    @property
    def export(self) -> dg.AssetKey:
        return face.export_key(self.settings)

    @property
    def following(self) -> list[dg.AssetKey]:
        """What comes after the export."""
        tables = [face.table_key(self.settings, table) for table in self.tables]
        return [face.catalogue_key(self.settings), *tables]

    def run(
        self, day: str | None = None, *, only: Sequence[dg.AssetKey] | None = None, **more: Any
    ) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            build_assets(self.settings, self.tables, PACE),
            partition_key=day or today(),
            instance=self.instance,
            resources=self.resources,
            selection=dg.AssetSelection.assets(*only) if only else None,
            raise_on_error=False,
            **more,
        )

    def tick(self) -> list[dg.RunRequest]:
        """One tick of the completion sensor; returns what it asks for."""
        keys = [face.table_key(self.settings, table) for table in self.tables]
        sensor = build_sensor(self.settings, keys, build_job(self.settings, keys))
        definitions = dg.Definitions(
            assets=build_assets(self.settings, self.tables), sensors=[sensor], resources=self.resources
        )
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources=self.resources, definitions=definitions
        )
        found = sensor.evaluate_tick(context)
        self.cursor = found.cursor
        return list(found.run_requests or [])

    def asked(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Execute what the sensor asked for."""
        return self.run(request.partition_key, only=request.asset_selection, tags=dict(request.tags))

    def tasks(self, rds: Any = None) -> list[dict[str, Any]]:
        """The export tasks of this pipeline, the oldest first."""
        return self.shop.tasks(self.settings.name.replace("_", "-"), rds)


def day(ago: int) -> str:
    """The partition of so many days ago."""
    return f"{datetime.now(UTC) - timedelta(days=ago):%Y-%m-%d}"


def today() -> str:
    return day(0)


def describe_snapshot(rds: Any, name: str) -> Mapping[str, Any]:
    found: dict[str, Any] = rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=name)["DBClusterSnapshots"][0]
    return found


def until(read: Callable[[], Any], wanted: Any, seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while (found := read()) != wanted:
        assert time.monotonic() < limit, f"still {found!r}, wanted {wanted!r}"
        time.sleep(0.02)


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What the run failed with."""
    (event,) = [e for e in result.all_events if e.is_step_failure]
    data = event.step_failure_data
    assert data.error is not None
    cause = data.error.cause or data.error
    return str(data.user_failure_data.description if data.user_failure_data else cause.message)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {found.check_name: found for found in result.get_asset_check_evaluations()}


def metadata(result: dg.ExecuteInProcessResult, *path: str) -> dict[str, Any]:
    events = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(list(path))]
    return {key: face.plain(value) for key, value in events[-1].materialization.metadata.items()}


def made(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}
