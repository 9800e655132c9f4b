"""The `ZeroEtlIntegration` component: one zero-ETL pipeline, from the source's parameters to its replicated tables."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg

from zeroetl_dagster.components import project
from zeroetl_dagster.components.discovery import DiscoveringComponent, found
from zeroetl_dagster.marts import refresh
from zeroetl_dagster.marts.jobs import pipeline_job
from zeroetl_dagster.replication import configuration, discovery
from zeroetl_dagster.replication.assets import build_provision_assets, build_table_specs
from zeroetl_dagster.replication.checks import build_checks
from zeroetl_dagster.replication.discovery import Tables
from zeroetl_dagster.replication.jobs import build_jobs
from zeroetl_dagster.replication.resources import Pipeline, required_resources
from zeroetl_dagster.replication.sensor import build_activity_sensor, look_anew
from zeroetl_dagster.settings.base import DefsStateSettings
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
  tables:                          # or `tables: discover`, then `dg utils refresh-defs-state`
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


def build_zero_etl_definitions(settings: IntegrationSettings, columns: Tables) -> dg.Definitions:
    """Assets, checks, jobs and the activity sensor of one pipeline, without the connections it uses.

    `columns` has every table, with its columns where they are known.
    """
    tables = list(columns)
    job = pipeline_job(settings.name)
    sensor = build_activity_sensor(
        settings,
        tables,
        job=job,
        refresh=lambda context, pending: refresh.plan(context, pending, settings.name),
    )
    return dg.Definitions(
        assets=[*build_provision_assets(settings), *build_table_specs(settings, columns)],
        asset_checks=build_checks(settings, tables),
        jobs=[job, *build_jobs(settings, tables)],
        sensors=[sensor],
    )


@dg.scaffold_with(ZeroEtlIntegrationScaffolder)
class ZeroEtlIntegration(DiscoveringComponent[IntegrationSettings]):
    """One zero-ETL integration: what it stands on, its Redshift database, every replicated table, and its sensor.

    With `tables: discover`, the tables are those that Redshift showed when `dg utils refresh-defs-state` asked last;
    before that, the pipeline has its four provisioning assets only.
    """

    settings_model = IntegrationSettings
    _tables: tuple[TableName, ...] = ()

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def defs_state(self) -> DefsStateSettings:
        return self.settings.defs_state

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Raises `SettingsError` for what the data filter's grammar refuses."""
        configuration.check(self.settings, self.where)
        uses = {"redshift": self.settings.redshift, "aws": self.settings.aws}
        project.check(self, context.component_tree, uses)
        if self.settings.tables == "discover":
            return super().build_defs(context)
        return self._build({table: () for table in self.settings.tables})

    def build_defs_from_state(self, context: dg.ComponentLoadContext, state_path: Path | None) -> dg.Definitions:
        text = found(state_path)
        return self._build(discovery.load(text) if text is not None else {})

    def _build(self, columns: Tables) -> dg.Definitions:
        self._tables = tuple(columns)
        return build_zero_etl_definitions(self.settings, columns)

    def look_anew(self, instance: dg.DagsterInstance, resources: Any) -> str:
        """Report what the activity sensor has not, for the nightly net of the marts; returns what was seen."""
        return look_anew(instance, resources, self.settings, self._tables)

    def write_state_to_path(self, state_path: Path) -> None:
        """Ask Redshift for the replicated tables. Raises `SettingsError`, `ReplicationError`, `RedshiftError`."""
        names = {name: self.connection(name) for name in required_resources(self.settings)}
        pipeline = Pipeline.of(self.settings, SimpleNamespace(**names))
        with pipeline.redshift.session("watch") as session:
            tables = discovery.discover(session, pipeline.integration_id(), self.settings.target.database)
        state_path.parent.mkdir(parents=True, exist_ok=True)
        state_path.write_text(discovery.dump(tables))
