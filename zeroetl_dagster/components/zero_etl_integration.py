"""The `ZeroEtlIntegration` component: one zero-ETL pipeline, from the source's parameters to its replicated tables."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from zeroetl_dagster.components.base import SettingsComponent
from zeroetl_dagster.marts import refresh
from zeroetl_dagster.marts.jobs import pipeline_job
from zeroetl_dagster.replication import configuration
from zeroetl_dagster.replication.assets import build_provision_assets, build_table_specs
from zeroetl_dagster.replication.checks import build_checks
from zeroetl_dagster.replication.jobs import build_jobs
from zeroetl_dagster.replication.sensor import build_activity_sensor
from zeroetl_dagster.settings.errors import SettingsError
from zeroetl_dagster.settings.replication import IntegrationSettings, TableName

_TEMPLATE = """\
type: zeroetl_dagster.components.ZeroEtlIntegration

attributes:
  name: shop                       # first part of the asset keys, and of names in mart SQL: shop.public.orders
  redshift: warehouse              # the Redshift connection, by name
  # aws: production                # the source's AWS account; default: the target's
  source:
    engine: aurora-postgresql      # aurora-mysql, postgres (RDS), mysql (RDS)
    cluster: shop-prod             # RDS: `instance:`
    database: shop                 # PostgreSQL only
  target:
    database: shop_zetl            # made from the integration
    # options: {truncatecolumns: true, refresh_interval_seconds: 300}
  data_filter: "include: shop.public.*"
  tables:
    - public.orders
  manage:                          # `ensure` creates and corrects, `verify` only compares
    source_parameters: verify
    target_policy: ensure
    case_sensitive: ensure
    integration: ensure
    database: ensure
  sensor: {interval_seconds: 30, default_status: stopped}
"""


class ZeroEtlIntegrationScaffolder(dg.Scaffolder):
    """Writes a commented defs.yaml."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        request.target_path.mkdir(parents=True, exist_ok=True)
        (request.target_path / "defs.yaml").write_text(_TEMPLATE)


def build_zero_etl_definitions(settings: IntegrationSettings, tables: Sequence[TableName]) -> dg.Definitions:
    """Assets, checks, jobs and the activity sensor of one pipeline, without the connections it uses."""
    job = pipeline_job(settings.name)
    sensor = build_activity_sensor(
        settings,
        tables,
        job=job,
        refresh=lambda context, pending: refresh.plan(context, pending, settings.name),
    )
    return dg.Definitions(
        assets=[*build_provision_assets(settings), *build_table_specs(settings, tables)],
        asset_checks=build_checks(settings, tables),
        jobs=[job, *build_jobs(settings, tables)],
        sensors=[sensor],
    )


@dg.scaffold_with(ZeroEtlIntegrationScaffolder)
class ZeroEtlIntegration(SettingsComponent[IntegrationSettings]):
    """One zero-ETL integration: what it stands on, its Redshift database, every replicated table, and its sensor."""

    settings_model = IntegrationSettings

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Raises `SettingsError` for what the data filter's grammar refuses."""
        configuration.check(self.settings, self.where)
        if self.settings.tables == "discover":
            raise SettingsError(f"{self.where}: `tables: discover` is not there yet; list the tables as `schema.table`")
        return build_zero_etl_definitions(self.settings, self.settings.tables)
