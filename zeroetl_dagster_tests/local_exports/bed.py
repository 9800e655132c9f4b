"""An embedded RDS with real PostgreSQL servers, S3, IAM, KMS and STS: all that the export of a snapshot needs."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from zeroetl_dagster.local.aws.export_run import WRITING_AT_ONCE
from zeroetl_dagster.local.aws.iam import Iam
from zeroetl_dagster.local.aws.kms import Kms
from zeroetl_dagster.local.aws.rds import Rds
from zeroetl_dagster.local.aws.s3 import S3
from zeroetl_dagster.local.aws.sts import Sts
from zeroetl_dagster.local.aws.transitions import Transitions
from zeroetl_dagster.local.folder import DataFolder
from zeroetl_dagster.local.postgres import PostgresServers
from zeroetl_dagster.local.world import World
from zeroetl_dagster_tests.control_plane import ACCOUNT, REGION, ControlPlane

BUCKET = "exports"
ENGINE = "aurora-postgresql"
TRUST = {"Effect": "Allow", "Principal": {"Service": "export.rds.amazonaws.com"}, "Action": "sts:AssumeRole"}
ALL_OF_S3 = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}


class Bed(ControlPlane):
    """`start` also goes on with what was under way; `stop` leaves the PostgreSQL servers running, as a kill does."""

    account, region = ACCOUNT, REGION

    def __init__(self, root: Path) -> None:
        super().__init__(root, self._compose, postgres=PostgresServers(DataFolder(root)))
        self.rds, self.s3, self.iam, self.kms = (self.client(name) for name in ("rds", "s3", "iam", "kms"))

    def _compose(self, world: World) -> Mapping[str, Any]:
        self.transitions = Transitions(world.store)
        self.service = Rds(world, self.transitions)
        return {"rds": self.service, **{made.name: made(world) for made in (Iam, Kms, S3, Sts)}}

    def start(self) -> None:
        super().start()
        self.service.resume_servers()
        self.transitions.start()
        self.service.runs.resume()  # without the thread that takes automated snapshots: tests ask for them
        self.service.resume_exports()
        self.rds, self.s3, self.iam, self.kms = (self.client(name) for name in ("rds", "s3", "iam", "kms"))

    def stop(self) -> None:
        self.service.stop_exports()
        self.service.stop_snapshots()
        self.transitions.stop()
        super().stop()
        self.world.objects.close()

    def end(self) -> None:
        """Stop for good, the PostgreSQL servers too."""
        self.stop()
        for server in self.folder.postgres_clusters():
            self.world.postgres.stop(server, immediate=True)

    def furnish(self) -> None:
        """A bucket, a key and a role that an export needs."""
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.key: str = self.kms.create_key()["KeyMetadata"]["Arn"]
        self.role = self.make_role("export")

    def make_role(self, name: str, trust: Any = TRUST, rights: Any = ALL_OF_S3, iam: Any = None) -> str:
        iam = iam or self.iam
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
        if rights:
            iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=json.dumps({"Statement": [rights]}))
        return str(made["Role"]["Arn"])

    # ---- sources -------------------------------------------------------------------------------------------------

    def cluster(self, name: str, *, rds: Any = None, **more: Any) -> None:
        """An available cluster with one instance."""
        rds = rds or self.rds
        rds.create_db_cluster(
            DBClusterIdentifier=name,
            Engine=ENGINE,
            DatabaseName="shop",
            MasterUsername="keeper",
            MasterUserPassword="of-nobody-at-all",
            **more,
        )
        rds.create_db_instance(
            DBInstanceIdentifier=f"{name}-1", DBClusterIdentifier=name, DBInstanceClass="db.serverless", Engine=ENGINE
        )
        self.settle()

    def settle(self) -> None:
        """Until every cluster and instance has the status that it is on the way to."""
        assert self.transitions.wait_idle(30)

    def server_of(self, name: str, account: str = ACCOUNT) -> str:
        """The key of a cluster's PostgreSQL server."""
        return f"{account}/{REGION}/{name}"

    def sql(self, statements: str, *, of: str, database: str = "shop", account: str = ACCOUNT) -> list[Any]:
        with_it = psycopg2.connect(**self.world.postgres.dsn(self.server_of(of, account), database))
        try:
            with_it.autocommit = True
            with with_it.cursor() as cursor:
                cursor.execute(statements)
                return cursor.fetchall() if cursor.description else []
        finally:
            with_it.close()

    def database(self, name: str, statements: str, *, of: str) -> str:
        """A database of one's own in a cluster that is shared with other tests."""
        self.sql(f'CREATE DATABASE "{name}"', of=of, database="postgres")
        self.sql(statements, of=of, database=name)
        return name

    # ---- snapshots -----------------------------------------------------------------------------------------------

    def snapshot(self, name: str, *, of: str, rds: Any = None) -> str:
        """Taken and available; its ARN."""
        rds = rds or self.rds
        made = rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier=name, DBClusterIdentifier=of)
        until(lambda: self.described(name, rds=rds)["Status"], "available")
        return str(made["DBClusterSnapshot"]["DBClusterSnapshotArn"])

    def described(self, name: str, *, rds: Any = None) -> dict[str, Any]:
        answer = (rds or self.rds).describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=name)
        (found,) = answer["DBClusterSnapshots"]
        return dict(found)

    def automated_keys(self, cluster: str) -> list[str]:
        """The store's keys of a cluster's automated snapshots."""
        items = self.world.store.items("rds.snapshot", f"{ACCOUNT}/{REGION}/rds:{cluster}-")
        return [key for key, _ in items]

    def forget_automated(self, cluster: str) -> None:
        for key in self.automated_keys(cluster):
            until(lambda key=key: self.world.store.get("rds.snapshot", key)["Status"], "available")  # type: ignore[misc, index]
            self.world.store.delete("rds.snapshot", key)

    # ---- exports -------------------------------------------------------------------------------------------------

    def start_export(self, name: str, source: str, *, rds: Any = None, **more: Any) -> dict[str, Any]:
        given = {"S3BucketName": BUCKET, "IamRoleArn": self.role, "KmsKeyId": self.key, **more}
        made = (rds or self.rds).start_export_task(ExportTaskIdentifier=name, SourceArn=source, **given)
        return dict(made)

    def task(self, name: str, *, rds: Any = None) -> dict[str, Any]:
        (found,) = (rds or self.rds).describe_export_tasks(ExportTaskIdentifier=name)["ExportTasks"]
        return dict(found)

    def ended(self, name: str, status: str = "COMPLETE", *, rds: Any = None) -> dict[str, Any]:
        """Wait for the end of a task, which must be this one."""
        limit = time.monotonic() + 60
        while (found := self.task(name, rds=rds))["Status"] not in ("COMPLETE", "FAILED", "CANCELED"):
            assert time.monotonic() < limit, found
            time.sleep(0.02)
        assert found["Status"] == status, found
        return found

    def export(self, name: str, source: str, **more: Any) -> dict[str, Any]:
        self.start_export(name, source, **more)
        return self.ended(name)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Export tasks stay STARTING, as AWS lets them for hours."""
        writing = self.service.exports._writing
        for _ in range(WRITING_AT_ONCE):
            writing.acquire()
        try:
            yield
        finally:
            for _ in range(WRITING_AT_ONCE):
                writing.release()

    def keys(self, prefix: str) -> list[str]:
        """Keys below a prefix, without it."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        return bytes(self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def table(self, prefix: str) -> Any:
        """All Parquet files below a prefix as one Arrow table."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        parts = [key for key in self.keys(prefix) if key.endswith(".parquet")]
        return pa.concat_tables([pq.read_table(io.BytesIO(self.read(prefix + key))) for key in parts])

    def manifest(self, name: str) -> dict[str, dict[str, Any]]:
        """The entries of the export's tables, by target."""
        files = [key for key in self.keys(f"{name}/export_tables_info_")]
        found = [json.loads(self.read(f"{name}/export_tables_info_{key}")) for key in files]
        return {entry["target"]: entry for part in found for entry in part["perTableStatus"]}


def until(read: Callable[[], Any], wanted: Any, seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while (found := read()) != wanted:
        assert time.monotonic() < limit, f"still {found!r}, wanted {wanted!r}"
        time.sleep(0.02)
