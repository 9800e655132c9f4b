"""The `AthenaMarts` component: a folder of `.sql` files, each a mart in Athena made of a snapshot export's tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import dagster as dg

from zeroetl_dagster.components import project
from zeroetl_dagster.components.base import SettingsComponent
from zeroetl_dagster.components.snapshot_export import SnapshotExport
from zeroetl_dagster.exports.daily import asked_tables
from zeroetl_dagster.exports.names import LATEST_SUFFIX, SourceTable
from zeroetl_dagster.marts.assets import mart_key
from zeroetl_dagster.marts.checks import build_check
from zeroetl_dagster.marts.compile import CompiledMart, TableRef, Target, compile_marts
from zeroetl_dagster.marts.engines import athena_assets
from zeroetl_dagster.marts.jobs import component_job, nightly_schedule, refresh_sensor
from zeroetl_dagster.marts.model import read_models
from zeroetl_dagster.settings.errors import SettingsError
from zeroetl_dagster.settings.exports import ExportSource, SnapshotExportSettings
from zeroetl_dagster.settings.marts import AthenaMartsSettings

_TEMPLATE = """\
type: zeroetl_dagster.components.AthenaMarts

# Every .sql file beside this one is a mart, called like the file.
attributes:
  name: shop_lake_marts            # first part of the asset keys, and their group
  athena: lake                     # the Athena connection, by name
  database: shop_marts             # in Glue; made when it is missing
  location: s3://shop-lake/marts   # of their files; leave out where the workgroup enforces its own
  exports: [shop_export]           # the SQL says shop_export.public.orders, and reads its newest day
  materialized: table              # or `view`, `partitioned` (a partition per day of export); a file may say otherwise
  minimum_interval_seconds: 300
  nightly: {cron: "0 3 * * *", timezone: UTC, default_status: stopped}   # refreshes only what is stale
"""

_EXAMPLE = """\
-- description: Orders and revenue of each day.
-- materialized: table

SELECT o.ordered_on, COUNT(*) AS orders, SUM(o.total) AS revenue
FROM shop_export.public.orders AS o
GROUP BY o.ordered_on
"""


class AthenaMartsScaffolder(dg.Scaffolder):
    """Writes a commented defs.yaml and a first mart."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        request.target_path.mkdir(parents=True, exist_ok=True)
        (request.target_path / "defs.yaml").write_text(_TEMPLATE)
        (request.target_path / "orders_by_day.sql").write_text(_EXAMPLE)


def compile_folder(
    settings: AthenaMartsSettings, folder: Path, exports: Mapping[str, SnapshotExportSettings]
) -> dict[str, CompiledMart]:
    """The marts of a folder, each after those it reads. Raises `marts.model.MartError`."""

    def relation(ref: TableRef) -> tuple[str, ...]:
        export = exports[ref.pipeline]
        table = _source_table(ref, export.source)
        name = export.catalogue.names.get(table.label, table.glue_name)
        return export.catalogue.database, name + LATEST_SUFFIX

    target = Target(
        settings.name,
        settings.database,
        {name: export.catalogue.database for name, export in exports.items()},
        dialect="athena",
        materialized=settings.materialized,
        relation=relation,
    )
    return compile_marts(read_models(folder), target)


def build_mart_definitions(
    settings: AthenaMartsSettings, folder: Path, exports: Iterable[SnapshotExportSettings]
) -> dg.Definitions:
    """Assets, checks, job, sensor, nightly schedule of the marts in `folder`, without the connection they use.

    Raises `SettingsError` for an export that is not among `exports`, and `marts.model.MartError`.
    """
    compiled = compile_folder(settings, folder, _chosen(settings, exports))
    keys = [mart_key(settings.name, name) for name in compiled]
    job = component_job(settings.name, keys)
    nightly, status = settings.nightly, settings.refresh_sensor
    interval = settings.refresh_sensor_interval_seconds
    sensor = refresh_sensor(settings.name, job, interval_seconds=interval, default_status=status) if status else None
    return dg.Definitions(
        assets=[athena_assets(settings, compiled)],
        asset_checks=[build_check(settings.name, keys)],
        jobs=[job],
        schedules=[nightly_schedule(settings.name, job, nightly)] if nightly else [],
        sensors=[sensor] if sensor else [],
    )


@dg.scaffold_with(AthenaMartsScaffolder)
class AthenaMarts(SettingsComponent[AthenaMartsSettings]):
    """SQL files as marts in Athena, made of the newest day of a snapshot export. They follow its catalogue."""

    settings_model = AthenaMartsSettings

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Raises `SettingsError` for what does not fit the project, and `marts.model.MartError`."""
        project.check(self, context.component_tree, {"athena": self.settings.athena})
        exports = {one.settings.name: one for one in context.component_tree.get_all_components(SnapshotExport)}
        settings = [one.settings for one in exports.values()]
        compiled = compile_folder(self.settings, context.path, _chosen(self.settings, settings, self.where))
        for mart in compiled.values():
            for table in mart.tables:
                export = exports[table.pipeline]
                listed = asked_tables(export.settings)
                if listed is not None:
                    name = _source_table(table, export.settings.source).label
                    project.check_listed(mart, table, name, (one.label for one in listed), export)
        project.check_relations(self, context.component_tree, _place, "database")
        return build_mart_definitions(self.settings, context.path, settings)


def _place(component: AthenaMarts) -> tuple[str, ...]:
    return component.settings.athena, component.settings.database


def _source_table(ref: TableRef, source: ExportSource) -> SourceTable:
    return SourceTable(source.database, None if source.is_mysql else ref.schema, ref.table)


def _chosen(
    settings: AthenaMartsSettings, exports: Iterable[SnapshotExportSettings], where: str | None = None
) -> dict[str, SnapshotExportSettings]:
    """The exports that the settings name; `where` (the file) begins the message of one that is not there."""
    where = where or settings.name
    by_name = {export.name: export for export in exports}
    for name in settings.exports:
        if name not in by_name:
            raise SettingsError(
                f"{where}: `exports` names {name!r}, which no SnapshotExport component is called; "
                f"declared: {', '.join(sorted(by_name)) or 'none'}"
            )
        if by_name[name].athena is None:
            raise SettingsError(
                f"{where}: the export {name!r} has no `athena` connection, without which it makes no views for "
                "marts to read; add `athena:` to it"
            )
    return {name: by_name[name] for name in settings.exports}
