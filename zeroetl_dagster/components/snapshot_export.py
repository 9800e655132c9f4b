"""The `SnapshotExport` component: a daily snapshot export to S3, its catalogue in Glue, its views in Athena."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from zeroetl_dagster.components import project
from zeroetl_dagster.components.discovery import DiscoveringComponent, found
from zeroetl_dagster.connections.resources import AwsResource
from zeroetl_dagster.exports import face, reconcile_sensor
from zeroetl_dagster.exports.assets import build_assets
from zeroetl_dagster.exports.daily import asked_tables, discover_tables
from zeroetl_dagster.exports.names import SourceTable
from zeroetl_dagster.exports.reconciliation import build_checks
from zeroetl_dagster.exports.schedules import build_job, build_schedule
from zeroetl_dagster.exports.sensor import build_sensor
from zeroetl_dagster.settings.base import DefsStateSettings
from zeroetl_dagster.settings.errors import SettingsError
from zeroetl_dagster.settings.exports import SnapshotExportSettings

_TEMPLATE = """\
type: zeroetl_dagster.components.SnapshotExport

attributes:
  name: shop_export               # first part of the asset keys
  aws: production                 # connection whose S3, Glue and Athena are used
  athena: lake                    # Athena connection for views and row counts; leave out for neither
  source:
    cluster: shop                 # or `instance:` for RDS
    engine: aurora-postgresql     # aurora-mysql, postgres, mysql, mariadb
    database: shop
    # aws: elsewhere              # when the database lives in another account: a connection with `assume_role`
  bucket: shop-lake               # in the Region of the database
  prefix: exports/shop
  kms_key: alias/shop-export
  export_role: arn:aws:iam::111122223333:role/shop-export   # assumed by export.rds.amazonaws.com
  tables: all                     # or a list of `schema.table` (MySQL: `table`); the price is the same
  make_snapshot: never            # or `when_missing`: takes one for today's partition, deleted after its export
  catalogue:
    mode: register                # from the export's manifest, no DPU; or `crawler`
    database: shop_lake
    # crawler: {name: shop-export, role: glue-crawler, manage: create}   # or `manage: adopt`
  retention_days: 90              # partitions kept in Glue; let a lifecycle rule delete the objects
  start_date: 2026-01-01
  time_zone: UTC                  # of the days
  schedule: {cron: "0 16 * * *", timezone: UTC, default_status: stopped}
  wait: {mode: run, timeout_seconds: 21600, on_termination: cancel}      # `mode: sensor` holds no run slot
"""


class SnapshotExportScaffolder(dg.Scaffolder):
    """Writes a commented defs.yaml."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        request.target_path.mkdir(parents=True, exist_ok=True)
        (request.target_path / "defs.yaml").write_text(_TEMPLATE)


def build_export_definitions(settings: SnapshotExportSettings, tables: Sequence[SourceTable]) -> dg.Definitions:
    """Assets, checks, sensors, jobs and schedule of one snapshot export, without its connections.

    `tables` are those known now; with `tables: all`, one that appears later is reported too, and gets a spec of its own
    once the definitions know it.
    """
    keys = [face.table_key(settings, table) for table in tables]
    job = build_job(settings, keys)
    schedule = build_schedule(settings, job)
    reconciling = reconcile_sensor.build_job(settings)
    return dg.Definitions(
        assets=build_assets(settings, tables),
        asset_checks=build_checks(settings),
        jobs=[job, *([reconciling] if reconciling else [])],
        schedules=[schedule] if schedule else [],
        sensors=[
            build_sensor(settings, keys, job),
            *([reconcile_sensor.build_sensor(settings, reconciling)] if reconciling else []),
        ],
    )


@dg.scaffold_with(SnapshotExportScaffolder)
class SnapshotExport(DiscoveringComponent[SnapshotExportSettings]):
    """Exports a snapshot a day to S3 as Parquet and catalogues it: one asset per table, one partition per day.

    With `tables: all`, the tables are those of the newest complete export, kept as defs state: `dg utils
    refresh-defs-state` reads them again. Before there is any, the export and its catalogue are the only assets.
    """

    settings_model = SnapshotExportSettings

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def defs_state(self) -> DefsStateSettings:
        return self.settings.defs_state

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        settings = self.settings
        reconcile = settings.reconcile.redshift if settings.reconcile is not None else None
        uses = {"aws": settings.aws, "source.aws": settings.source.aws, "athena": settings.athena}
        project.check(self, context.component_tree, {**uses, "reconcile.redshift": reconcile})
        listed = asked_tables(self.settings)
        return super().build_defs(context) if listed is None else build_export_definitions(self.settings, listed)

    def build_defs_from_state(self, context: dg.ComponentLoadContext, state_path: Path | None) -> dg.Definitions:
        text = found(state_path)
        known = [SourceTable(**table) for table in json.loads(text)] if text is not None else []
        return build_export_definitions(self.settings, known)

    def write_state_to_path(self, state_path: Path) -> None:
        """Write the tables of the newest complete export. Raises `SettingsError` for an unknown connection."""
        tables = asked_tables(self.settings)
        if tables is None:
            rds, s3 = self._client(self.settings.source_aws, "rds"), self._client(self.settings.aws, "s3")
            tables = discover_tables(rds, s3, self.settings)
        state_path.parent.mkdir(parents=True, exist_ok=True)
        state_path.write_text(json.dumps([vars(table) for table in tables]))

    def _client(self, name: str, service: str) -> Any:
        connection = self.connection(name)
        if not isinstance(connection, AwsResource):
            raise SettingsError(
                f"{self.where}: {name!r} is a {type(connection).__name__}; it must name an AWS account of a "
                "Connections component"
            )
        return connection.client(service)
