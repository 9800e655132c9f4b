"""An RDS instance without a cluster as the source: other calls, other ARNs, the same path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest

from zeroetl_dagster_tests.exports_e2e.shop import Pipeline, Shop, made, metadata, until

SOURCE = {"instance": "till", "engine": "postgres", "database": "shop"}


@pytest.fixture(scope="module")
def till(shop: Shop) -> Iterator[dict[str, Any]]:
    """The instance as it is described, with two sales."""

    def described() -> dict[str, Any]:
        return dict(shop.rds.describe_db_instances(DBInstanceIdentifier="till")["DBInstances"][0])

    password = "no-secret-of-anybody"
    shop.rds.create_db_instance(
        DBInstanceIdentifier="till",
        DBInstanceClass="db.t4g.micro",
        Engine="postgres",
        DBName="shop",
        MasterUsername="keeper",
        MasterUserPassword=password,
        BackupRetentionPeriod=7,
    )
    until(lambda: described()["DBInstanceStatus"], "available")
    where = described()["Endpoint"]
    connection = psycopg2.connect(
        host=where["Address"], port=where["Port"], user="keeper", password=password, dbname="shop"
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE sales (id INT PRIMARY KEY, price NUMERIC(8,2))")
        cursor.execute("INSERT INTO sales VALUES (1, 2.50), (2, 3)")
    connection.close()
    yield described()
    shop.rds.delete_db_instance(DBInstanceIdentifier="till", SkipFinalSnapshot=True)


def test_its_newest_snapshot_is_exported_and_catalogued(shop: Shop, till: dict[str, Any]) -> None:
    shop.rds.create_db_snapshot(DBSnapshotIdentifier="till-by-hand", DBInstanceIdentifier="till")
    until(
        lambda: shop.rds.describe_db_snapshots(DBSnapshotIdentifier="till-by-hand")["DBSnapshots"][0]["Status"],
        "available",
    )
    pipeline = Pipeline(shop, shop.settings("till", source=SOURCE, snapshot_types=("manual",)))
    result = pipeline.run()
    assert "till/public/sales" in made(result)
    assert metadata(result, "till", "export")["zeroetl/snapshot_arn"].endswith(":snapshot:till-by-hand")
    assert shop.query("SELECT id, price FROM till_lake.public_sales_latest ORDER BY 1") == [(1, 2.5), (2, 3)]


def test_a_day_without_one_gets_one_which_goes_with_its_export(shop: Shop, till: dict[str, Any]) -> None:
    more: dict[str, Any] = {"snapshot_types": ("awsbackup",), "make_snapshot": "when_missing"}
    pipeline = Pipeline(shop, shop.settings("till_fresh", source=SOURCE, **more))
    result = pipeline.run()
    arn = metadata(result, "till_fresh", "export")["zeroetl/snapshot_arn"]
    assert ":snapshot:till-fresh-" in arn
    left = shop.rds.describe_db_snapshots(DBInstanceIdentifier="till", SnapshotType="manual")["DBSnapshots"]
    assert arn not in [snapshot["DBSnapshotArn"] for snapshot in left]
