"""One source on both paths: marts of its snapshot in Athena, of its stream in Redshift, and what the check says.

The definitions are those that the components build; only what connects them to a code location is put together here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from zeroetl_dagster.components.athena_marts import build_mart_definitions as lake_definitions
from zeroetl_dagster.components.redshift_marts import build_mart_definitions as warehouse_definitions
from zeroetl_dagster.components.snapshot_export import build_export_definitions
from zeroetl_dagster.connections.redshift import RedshiftSqlError
from zeroetl_dagster.connections.resources import RedshiftResource
from zeroetl_dagster.exports import reconciliation
from zeroetl_dagster.exports.names import SourceTable
from zeroetl_dagster.exports.reconciliation import CHECK
from zeroetl_dagster.settings.connections import RedshiftConnection
from zeroetl_dagster.settings.marts import AthenaMartsSettings, RedshiftMartsSettings
from zeroetl_dagster_tests.exports_e2e.shop import ACCOUNT, BUCKET, REGION, Shop, today, until

ZERO_ETL = {
    "rds.logical_replication": "1",
    "aurora.enhanced_logical_replication": "1",
    "aurora.logical_replication_backup": "0",
    "aurora.logical_replication_globaldb": "0",
}
KEY = f"{ACCOUNT}/{REGION}/both"
SQL = {
    "per_day": "SELECT o.day, COUNT(*) AS orders, SUM(o.total) AS total FROM {p}.public.orders AS o GROUP BY o.day",
    "per_buyer": "SELECT o.buyer, SUM(o.total) AS total, MIN(o.day) AS d FROM {p}.public.orders AS o GROUP BY o.buyer",
}
ORDERS = """
CREATE TABLE orders (id INT PRIMARY KEY, day DATE, buyer CHAR(8), total NUMERIC(8,2));
INSERT INTO orders SELECT n, DATE '2026-01-01' + n % 5, 'b' || n % 3, n * 1.25 FROM generate_series(1, 100) AS n;
"""


class Both:
    """The code location, and what a person does in it."""

    def __init__(self, shop: Shop, folder: Path) -> None:
        self.shop, self.instance = shop, dg.DagsterInstance.ephemeral()
        self.warehouse = RedshiftResource(RedshiftConnection(aws="own", workgroup="both"), shop.aws, "warehouse")
        pairs: list[dict[str, Any]] = [
            {"athena": f"both_lake/{name}", "redshift": f"both_marts/{name}", "keys": [name.removeprefix("per_")]}
            for name in SQL
        ]
        pairs[0] |= {"period_column": "day"}
        self.export = shop.settings(
            "both",
            source={**shop.source, "cluster": "both"},
            tables=["public.orders"],
            reconcile={"redshift": "warehouse", "integration_database": "both_zetl", "marts": pairs},
        )
        self.definitions = dg.Definitions.merge(
            build_export_definitions(self.export, [SourceTable("shop", "public", "orders")]),
            lake_definitions(
                AthenaMartsSettings(
                    name="both_lake",
                    athena="lake",
                    database="both_marts",
                    location=f"s3://{BUCKET}/marts",
                    exports=("both",),
                    minimum_interval_seconds=0,
                ),
                sql_folder(folder / "lake", "both"),
                [self.export],
            ),
            warehouse_definitions(
                RedshiftMartsSettings.model_validate(
                    {
                        "name": "both_marts",
                        "redshift": "warehouse",
                        "schema": "marts",
                        "pipelines": {"stream": "both_zetl"},
                    }
                ),
                sql_folder(folder / "warehouse", "stream"),
            ),
            dg.Definitions(resources=shop.resources(warehouse=self.warehouse)),
        )
        self.repository = self.definitions.get_repository_def()

    def run(self, job: str, **more: Any) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def(job).execute_in_process(instance=self.instance, **more)

    def tick(self, sensor: str) -> list[dg.RunRequest]:
        found = self.repository.get_sensor_def(sensor)
        context = dg.build_sensor_context(instance=self.instance, repository_def=self.repository)
        return list(found.evaluate_tick(context).run_requests or [])

    def reconcile(self) -> dict[str, dg.AssetCheckEvaluation]:
        """What the check says of each mart."""
        result = self.run("both__reconcile_job")
        return {e.asset_key.path[-1]: e for e in result.get_asset_check_evaluations() if e.check_name == CHECK}

    def caught_up(self) -> None:
        """The stream has brought everything to Redshift, and its marts were refreshed."""
        expected = self.shop.sql("SELECT count(*), sum(total) FROM orders", cluster=KEY)
        until(self._streamed, expected)
        assert self.run("both_marts_refresh").success

    def _streamed(self) -> list[tuple[Any, ...]]:
        try:
            return self.ask("SELECT count(*), sum(total) FROM both_zetl.public.orders")
        except RedshiftSqlError:  # the table is not seeded yet
            return []

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with self.warehouse.session("admin") as session:
            return [tuple(row) for row in session.query(sql).rows]


def sql_folder(folder: Path, pipeline: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in SQL.items():
        (folder / f"{name}.sql").write_text(text.format(p=pipeline))
    return folder


@pytest.fixture(scope="module")
def both(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    provision(shop)
    made = Both(shop, tmp_path_factory.mktemp("marts"))
    with pytest.MonkeyPatch.context() as patch:
        # A run in process has no code location to look specs up in; this is the one it would have.
        location = SimpleNamespace(repository_def=made.repository)
        look_up = reconciliation._relation
        patch.setattr(reconciliation, "_relation", lambda context, key: look_up(location, key))
        stream(shop, made)
        made.caught_up()
        shop.snapshot("both-quiet", cluster="both")
        assert made.run("both__export_job", partition_key=today()).success
        yield made


def provision(shop: Shop) -> None:
    """What the first path's assets see to, by hand: a source with logical replication, a target that lets it in."""
    shop.rds.create_db_cluster_parameter_group(
        DBClusterParameterGroupName="both", DBParameterGroupFamily="aurora-postgresql17", Description="-"
    )
    shop.rds.modify_db_cluster_parameter_group(
        DBClusterParameterGroupName="both",
        Parameters=[
            {"ParameterName": name, "ParameterValue": value, "ApplyMethod": "pending-reboot"}
            for name, value in ZERO_ETL.items()
        ],
    )
    serverless = shop.aws.client("redshift-serverless")
    serverless.create_namespace(namespaceName="both", dbName="dev", manageAdminPassword=True)
    sensitive = {"parameterKey": "enable_case_sensitive_identifier", "parameterValue": "true"}
    serverless.create_workgroup(workgroupName="both", namespaceName="both", configParameters=[sensitive])
    shop.cluster(shop.rds, "both", DBClusterParameterGroupName="both")
    shop.sql(ORDERS, cluster=KEY)
    until(lambda: serverless.get_workgroup(workgroupName="both")["workgroup"]["status"], "AVAILABLE")


def stream(shop: Shop, both: Both) -> None:
    """The integration, active, and its database."""
    source = shop.rds.describe_db_clusters(DBClusterIdentifier="both")["DBClusters"][0]["DBClusterArn"]
    target = both.warehouse.namespace_arn()
    statements = [
        {
            "Effect": "Allow",
            "Principal": {"Service": "redshift.amazonaws.com"},
            "Action": "redshift:AuthorizeInboundIntegration",
            "Condition": {"StringEquals": {"aws:SourceArn": source}},
        },
        {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
            "Action": "redshift:CreateInboundIntegration",
        },
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    shop.aws.client("redshift").put_resource_policy(ResourceArn=target, Policy=policy)
    made = shop.rds.create_integration(
        SourceArn=source, TargetArn=target, IntegrationName="both", DataFilter="include: shop.public.*"
    )
    arn = made["IntegrationArn"]
    until(lambda: shop.rds.describe_integrations(IntegrationIdentifier=arn)["Integrations"][0]["Status"], "active")
    with both.warehouse.session("admin") as session:
        session.execute(f"CREATE DATABASE both_zetl FROM INTEGRATION '{arn.rpartition(':')[2]}' DATABASE \"shop\"")


def test_athenas_marts_are_asked_for_by_what_was_catalogued_and_both_engines_agree(both: Both) -> None:
    (refresh,) = both.tick("both_lake_refresh_sensor")
    assert {key.path[-1] for key in refresh.asset_selection or ()} == set(SQL)
    assert both.run("both_lake_refresh").success
    assert both.tick("both_lake_refresh_sensor") == []
    (compare,) = both.tick("both__reconcile_sensor")
    assert {key.asset_key.path[-1] for key in compare.asset_check_keys or ()} == set(SQL)
    found = both.reconcile()
    assert {name: e.description for name, e in found.items()} == {
        "per_day": "equal: 5 rows are equal in both engines",
        "per_buyer": "equal: 3 rows are equal in both engines",
    }
    assert both.tick("both__reconcile_sensor") == []


def test_a_difference_while_the_source_is_quiet_is_an_error_that_names_row_and_values(both: Both) -> None:
    both.shop.lake.execute("INSERT INTO both_marts.per_buyer VALUES ('b9', 1.5, DATE '2026-01-01')")
    found = both.reconcile()
    assert found["per_day"].passed and not found["per_buyer"].passed
    assert found["per_buyer"].severity == dg.AssetCheckSeverity.ERROR
    assert found["per_buyer"].description == "different: 1 differences: buyer b9 is only in Athena"
    assert both.run("both_lake_refresh").success
    assert both.reconcile()["per_buyer"].passed


def test_while_the_source_goes_on_closed_periods_are_compared_and_the_rest_is_not(both: Both) -> None:
    both.shop.sql("INSERT INTO orders VALUES (1000, CURRENT_DATE + 1, 'b0', 3.5)", cluster=KEY)
    both.caught_up()
    found = both.reconcile()
    assert found["per_day"].passed
    assert "5 rows of periods that ended before the snapshot (0 rows left out)" in (found["per_day"].description or "")
    assert found["per_buyer"].severity == dg.AssetCheckSeverity.WARN
    assert (found["per_buyer"].description or "").startswith("not comparable: the source changed until")


def test_a_closed_period_that_was_corrected_later_is_told_as_a_warning(both: Both) -> None:
    both.shop.sql("UPDATE orders SET total = total + 1 WHERE id = 1", cluster=KEY)
    both.caught_up()
    found = both.reconcile()["per_day"]
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    assert "different: 1 differences of periods that ended before the snapshot" in (found.description or "")


def test_the_next_snapshot_makes_them_equal_again(both: Both) -> None:
    config = {"ops": {"both__export": {"config": {"new_snapshot": True}}}}
    assert both.run("both__export_job", partition_key=today(), run_config=config).success
    assert len(both.tick("both_lake_refresh_sensor")) == 1
    assert both.run("both_lake_refresh").success
    assert all(found.passed for found in both.reconcile().values())
