from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zeroetl_dagster.local.aws.athena import Athena
from zeroetl_dagster.local.aws.glue import Glue
from zeroetl_dagster.local.aws.iam import Iam
from zeroetl_dagster.local.aws.s3 import S3
from zeroetl_dagster.local.aws.sts import Sts
from zeroetl_dagster_tests.control_plane import OWN_KEY, REGION, ControlPlane

SERVICES = (Iam, Sts, S3, Glue, Athena)
PARQUET = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    "SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"},
}


class Lake:
    """An Athena with a database `db`, a bucket `lake` and results in `s3://lake/results/`."""

    def __init__(self, aws: ControlPlane) -> None:
        self.aws = aws
        self.connect()
        self.s3.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": REGION})
        self.glue.create_database(DatabaseInput={"Name": "db"})

    def connect(self) -> None:
        self.s3, self.glue, self.athena = (self.aws.client(name) for name in ("s3", "glue", "athena"))

    def put(self, key: str, columns: dict[str, Any], **options: Any) -> None:
        into = io.BytesIO()
        pq.write_table(pa.table(columns), into, **options)
        self.s3.put_object(Bucket="lake", Key=key, Body=into.getvalue())

    def table(self, name: str, columns: str, keys: str = "", location: str | None = None, **more: Any) -> None:
        """Columns as `name type, ...`."""
        storage = {"Columns": named(columns), "Location": location or f"s3://lake/{name}/", **PARQUET}
        given = {
            "Name": name,
            "TableType": "EXTERNAL_TABLE",
            "StorageDescriptor": storage,
            "PartitionKeys": named(keys),
        }
        self.glue.create_table(DatabaseName="db", TableInput={**given, **more})

    def partition(self, table: str, *values: str, location: str) -> None:
        storage = self.glue.get_table(DatabaseName="db", Name=table)["Table"]["StorageDescriptor"]
        given = {"Values": list(values), "StorageDescriptor": {**storage, "Location": location}}
        self.glue.create_partition(DatabaseName="db", TableName=table, PartitionInput=given)

    def start(self, sql: str, **more: Any) -> str:
        more.setdefault("ResultConfiguration", {"OutputLocation": "s3://lake/results/"})
        more.setdefault("QueryExecutionContext", {"Database": "db"})
        return str(self.athena.start_query_execution(QueryString=sql, **more)["QueryExecutionId"])

    def wait(self, query_id: str) -> dict[str, Any]:
        for _ in range(1500):
            found: dict[str, Any] = self.athena.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
            if found["Status"]["State"] in ("SUCCEEDED", "FAILED", "CANCELLED"):
                return found
            time.sleep(0.01)
        raise AssertionError("the query did not end")

    def run(self, sql: str, **more: Any) -> dict[str, Any]:
        found = self.wait(self.start(sql, **more))
        assert found["Status"]["State"] == "SUCCEEDED", found["Status"]["StateChangeReason"]
        return found

    def fails(self, sql: str, **more: Any) -> str:
        found = self.wait(self.start(sql, **more))
        assert found["Status"]["State"] == "FAILED", sql
        return str(found["Status"]["StateChangeReason"])

    def rows(self, sql: str, **more: Any) -> list[tuple[str | None, ...]]:
        """The rows as Athena's API gives them, without the header."""
        query = self.run(sql, **more)
        answer = self.athena.get_query_results(QueryExecutionId=query["QueryExecutionId"])
        found = [tuple(cell.get("VarCharValue") for cell in row["Data"]) for row in answer["ResultSet"]["Rows"]]
        return found[1:] if query["SubstatementType"] == "SELECT" else found

    def value(self, expression: str) -> str | None:
        return self.rows(f"SELECT {expression}")[0][0]

    def scanned(self, sql: str) -> int:
        return int(self.run(sql)["Statistics"]["DataScannedInBytes"])

    def pyathena(self, **more: Any) -> Any:
        import pyathena

        return pyathena.connect(
            s3_staging_dir="s3://lake/results/",
            schema_name="db",
            region_name=REGION,
            session=boto3.Session(OWN_KEY, "x", region_name=REGION),
            endpoint_url=self.aws.server.endpoint_url,
            poll_interval=0.02,
            **more,
        )


def named(text: str) -> list[dict[str, str]]:
    return [
        {"Name": part.strip().split(" ", 1)[0], "Type": part.strip().split(" ", 1)[1]}
        for part in split_outside(text)
        if part.strip()
    ]


def split_outside(text: str) -> list[str]:
    """At commas that are in no brackets."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in "(<") - (char in ")>")
        if char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def plane(root: Path) -> ControlPlane:
    return ControlPlane(root, lambda world: {service.name: service(world) for service in SERVICES})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """One for tests that only read (it costs a second to make)."""
    made = plane(tmp_path_factory.mktemp("athena"))
    yield Lake(made)
    made.stop()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    made = plane(tmp_path)
    yield Lake(made)
    made.stop()
