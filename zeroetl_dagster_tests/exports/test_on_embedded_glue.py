"""Both catalogue modes on the embedded S3 and Glue, with real Parquet: one table, a partition a day, true columns."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from zeroetl_dagster.exports import manifest
from zeroetl_dagster.exports.daily import Catalogued, CatalogueOfDay, written
from zeroetl_dagster.local.aws.glue import Glue
from zeroetl_dagster.local.aws.iam import Iam
from zeroetl_dagster.local.aws.s3 import S3
from zeroetl_dagster.local.aws.sts import Sts
from zeroetl_dagster_tests.control_plane import REGION, ControlPlane
from zeroetl_dagster_tests.exports.conftest import settings_of
from zeroetl_dagster_tests.exports.fakes import SALES, FakeS3, column, write_export

NOW = datetime(2024, 5, 10, 16, tzinfo=UTC)
CRAWLER = {"name": "shop", "role": "crawler"}
MODES: dict[str, dict[str, Any]] = {
    "register": {"database": "lake"},
    "crawler": {"database": "lake", "mode": "crawler", "crawler": CRAWLER},
}
NAMES = ["public.sales", "public.Order Lines", "public.cost$", "public.empty"]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    made = ControlPlane(
        tmp_path_factory.mktemp("aws"), lambda world: {service.name: service(world) for service in (Iam, Sts, S3, Glue)}
    )
    made.client("s3").create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": REGION})
    trust = {"Effect": "Allow", "Principal": {"Service": "glue.amazonaws.com"}, "Action": "sts:AssumeRole"}
    iam = made.client("iam")
    iam.create_role(RoleName="crawler", AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
    reading = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
    iam.put_role_policy(RoleName="crawler", PolicyName="read", PolicyDocument=json.dumps({"Statement": [reading]}))
    yield made
    made.stop()


def parquet(columns: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"int32": pa.int32(), "int64": pa.int64(), "binary (UTF8)": pa.string()}
    schema = pa.schema([(c["columnName"], types[c["expectedExportedType"]]) for c in columns])
    table = pa.Table.from_pylist([dict.fromkeys(schema.names), dict.fromkeys(schema.names)], schema=schema)
    body = io.BytesIO()
    pq.write_table(table, body)
    return body.getvalue()


def put_export(s3: Any, export_id: str, tables: dict[str, list[dict[str, Any]]]) -> None:
    scratch = FakeS3()
    write_export(scratch, export_id, tables, empty=("public.empty",))
    for key, body in scratch.objects.items():
        if key.endswith(".parquet"):
            label = key.split("/")[3].replace("Order_Lines", "Order Lines")
            body = parquet(tables[label])
        s3.put_object(Bucket="lake", Key=key, Body=body)


class Lake:
    """One pipeline's catalogue on the embedded services."""

    def __init__(self, plane: ControlPlane, mode: str) -> None:
        self.s3, self.glue = plane.client("s3"), plane.client("glue")
        catalogue = {**MODES[mode], "database": f"lake_{mode}"}
        self.settings = settings_of(tables="all", athena=None, catalogue=catalogue, retention_days=5, name=mode)

    def catalogue(self, day: date, tables: dict[str, list[dict[str, Any]]]) -> Catalogued:
        export_id = f"{self.settings.name}-{day:%Y%m%d}"
        put_export(self.s3, export_id, tables)
        found = written(manifest.read(self.s3, "lake", "exports", export_id), self.settings, None)
        lines: list[str] = []
        return CatalogueOfDay(self.glue, None, self.settings, day, export_id, lines.append).run(found, NOW)

    def tables(self) -> dict[str, Any]:
        listed = self.glue.get_tables(DatabaseName=self.settings.catalogue.database)["TableList"]
        return {table["Name"]: table for table in listed}

    def days(self, table: str) -> list[str]:
        found = self.glue.get_partitions(DatabaseName=self.settings.catalogue.database, TableName=table)["Partitions"]
        return sorted(partition["Values"][0] for partition in found)


@pytest.fixture(scope="module", params=sorted(MODES))
def lake(request: pytest.FixtureRequest, plane: ControlPlane) -> Lake:
    """Three days of four tables; on the third, one has a column more."""
    made = Lake(plane, request.param)
    for n in (6, 7):
        made.catalogue(date(2024, 5, n), dict.fromkeys(NAMES, SALES))
    wider = {**dict.fromkeys(NAMES, SALES), "public.sales": [*SALES, column("coupon", "text")]}
    made.last = made.catalogue(date(2024, 5, 8), wider)  # type: ignore[attr-defined]
    return made


def test_there_is_one_table_per_source_table(lake: Lake) -> None:
    assert sorted(lake.tables()) == ["public_cost_", "public_empty", "public_order_lines", "public_sales"]


def test_every_day_is_a_partition_and_an_empty_table_has_none(lake: Lake) -> None:
    assert lake.days("public_sales") == lake.days("public_cost_") == ["2024-05-06", "2024-05-07", "2024-05-08"]
    assert lake.days("public_empty") == []


def test_columns_are_those_of_the_parquet(lake: Lake) -> None:
    columns = {c["Name"]: c["Type"] for c in lake.tables()["public_sales"]["StorageDescriptor"]["Columns"]}
    assert columns == {"salesid": "int", "pricepaid": "string", "saletime": "string", "coupon": "string"}


def test_the_new_column_is_noticed_once_and_for_its_table_only(lake: Lake) -> None:
    changes = {t.name: [str(c) for c in t.changes] for t in lake.last.tables if t.changes}  # type: ignore[attr-defined]
    assert changes == {"public_sales": ["column 'coupon' (string) was added"]}


def test_partitions_point_at_the_exports_own_files(lake: Lake) -> None:
    database = lake.settings.catalogue.database
    found = lake.glue.get_partition(
        DatabaseName=database, TableName="public_order_lines", PartitionValues=["2024-05-07"]
    )
    location = found["Partition"]["StorageDescriptor"]["Location"]
    assert location == f"s3://lake/exports/{lake.settings.name}-20240507/shop/public.Order_Lines/"


def test_the_crawlers_own_database_is_left_clean(plane: ControlPlane) -> None:
    assert plane.client("glue").get_tables(DatabaseName="lake_crawler_crawl")["TableList"] == []


@pytest.mark.parametrize("mode", sorted(MODES))
def test_retention_and_an_older_day(plane: ControlPlane, mode: str) -> None:
    made = Lake(plane, mode)
    made.settings = made.settings.model_copy(
        update={
            "name": f"{mode}_old",
            "catalogue": made.settings.catalogue.model_copy(update={"database": f"old_{mode}"}),
        }
    )
    first = date(2024, 5, 10)
    made.catalogue(first, {"public.sales": SALES})
    older = made.catalogue(first - timedelta(days=2), {"public.sales": SALES})
    assert not older.tables[0].newest
    made.settings = made.settings.model_copy(update={"retention_days": 1})
    made.catalogue(first, {"public.sales": SALES})
    assert made.days("public_sales") == ["2024-05-10"]


def test_a_crawl_by_a_role_that_may_not_read_says_so(plane: ControlPlane) -> None:
    made = Lake(plane, "crawler")
    made.catalogue(date(2024, 5, 8), {"public.sales": SALES})
    iam = plane.client("iam")
    iam.delete_role_policy(RoleName="crawler", PolicyName="read")
    with pytest.raises(Exception, match="Access Denied.*may not s3:ListBucket"):
        made.catalogue(date(2024, 5, 9), {"public.sales": SALES})
