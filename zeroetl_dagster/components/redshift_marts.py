"""The `RedshiftMarts` component: a folder of `.sql` files, each a mart in Redshift that follows its data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from zeroetl_dagster.components import project
from zeroetl_dagster.components.base import SettingsComponent
from zeroetl_dagster.components.zero_etl_integration import ZeroEtlIntegration
from zeroetl_dagster.marts.assets import mart_key
from zeroetl_dagster.marts.checks import build_check
from zeroetl_dagster.marts.compile import CompiledMart, Target, compile_marts
from zeroetl_dagster.marts.engines import redshift_assets
from zeroetl_dagster.marts.jobs import Looks, component_job, nightly_schedule, refresh_sensor
from zeroetl_dagster.marts.model import read_models
from zeroetl_dagster.replication.resources import required_resources
from zeroetl_dagster.settings.errors import SettingsError
from zeroetl_dagster.settings.marts import RedshiftMartsSettings
from zeroetl_dagster.settings.replication import TableName

_TEMPLATE = """\
type: zeroetl_dagster.components.RedshiftMarts

# Every .sql file beside this one is a mart, called like the file.
attributes:
  name: shop_marts                 # first part of the asset keys, and their group
  redshift: warehouse              # the Redshift connection, by name
  database: dev                    # default: the connection's own; not a database made from an integration
  schema: shop_marts               # made when it is missing
  pipelines:
    shop: shop_zetl                # the SQL says shop.public.orders; this is the database it becomes
  materialized: materialized_view  # or `table`, `view`; a file may say otherwise
  minimum_interval_seconds: 300    # a mart is refreshed at most once in this time
  # readers: ["role:analyst"]      # who may SELECT
  # retry: {first_seconds: 60, most_seconds: 3600}
  nightly: {cron: "0 3 * * *", timezone: UTC, default_status: stopped}   # refreshes only what is stale
"""

_EXAMPLE = """\
-- description: Orders and revenue of each day.
-- materialized: materialized_view

SELECT o.ordered_on, COUNT(*) AS orders, SUM(o.total) AS revenue
FROM shop.public.orders AS o
GROUP BY o.ordered_on
"""


class RedshiftMartsScaffolder(dg.Scaffolder):
    """Writes a commented defs.yaml and a first mart."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        request.target_path.mkdir(parents=True, exist_ok=True)
        (request.target_path / "defs.yaml").write_text(_TEMPLATE)
        (request.target_path / "orders_by_day.sql").write_text(_EXAMPLE)


def compile_folder(settings: RedshiftMartsSettings, folder: Path) -> dict[str, CompiledMart]:
    """The marts of a folder, each after those it reads. Raises `marts.model.MartError`."""
    target = Target(settings.name, settings.schema_name, dict(settings.pipelines), materialized=settings.materialized)
    return compile_marts(read_models(folder), target)


def build_mart_definitions(settings: RedshiftMartsSettings, folder: Path, above: Looks | None = None) -> dg.Definitions:
    """Assets, checks, job, nightly schedule of the marts in `folder`, without the connection they use.

    Their refreshes are asked for by the activity sensor of a pipeline above them; `refresh_sensor` adds a sensor for
    marts that have none. `above` lets the nightly schedule look at those pipelines itself. Raises
    `marts.model.MartError`.
    """
    compiled = compile_folder(settings, folder)
    keys = [mart_key(settings.name, name) for name in compiled]
    job = component_job(settings.name, keys)
    nightly, sensor = settings.nightly, settings.refresh_sensor
    return dg.Definitions(
        assets=[redshift_assets(settings, compiled)],
        asset_checks=[build_check(settings.name, keys)],
        jobs=[job],
        schedules=[nightly_schedule(settings.name, job, nightly, above)] if nightly else [],
        sensors=[
            refresh_sensor(
                settings.name,
                job,
                interval_seconds=settings.refresh_sensor_interval_seconds,
                default_status=sensor,
            )
        ]
        if sensor
        else [],
    )


@dg.scaffold_with(RedshiftMartsScaffolder)
class RedshiftMarts(SettingsComponent[RedshiftMartsSettings]):
    """SQL files as marts in Redshift. They refresh when what they read has moved, each once, in order."""

    settings_model = RedshiftMartsSettings

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Raises `SettingsError` for what does not fit the project, and `marts.model.MartError`."""
        project.check(self, context.component_tree, {"redshift": self.settings.redshift})
        compiled = compile_folder(self.settings, context.path)
        pipelines = context.component_tree.get_all_components(ZeroEtlIntegration)
        self._check_pipelines({one.settings.name: one for one in pipelines}, compiled)
        project.check_relations(self, context.component_tree, _place, "schema")
        read = {table.pipeline for mart in compiled.values() for table in mart.tables}
        above = [one for one in pipelines if one.settings.name in read]
        looks = Looks(
            tuple(one.look_anew for one in above),
            frozenset(name for one in above for name in required_resources(one.settings)),
        )
        return build_mart_definitions(self.settings, context.path, looks)

    def _check_pipelines(
        self, pipelines: Mapping[str, ZeroEtlIntegration], compiled: Mapping[str, CompiledMart]
    ) -> None:
        for name, database in self.settings.pipelines.items():
            meant = next((one for one in pipelines.values() if self._reads(one, database)), None)
            if name not in pipelines and meant is not None:
                raise SettingsError(
                    f"{self.where}: `pipelines.{name}` is {database!r}, which is the database of the pipeline "
                    f"{meant.settings.name} in {meant.where}; call it {meant.settings.name} here and in the SQL"
                )
            made = pipelines[name].settings.target.database if name in pipelines else database
            if made != database:
                raise SettingsError(
                    f"{self.where}: `pipelines.{name}` is {database!r}; the pipeline in {pipelines[name].where} makes "
                    f"the database {made!r}"
                )
        for mart in compiled.values():
            for table in mart.tables:
                pipeline = pipelines.get(table.pipeline)
                if pipeline is not None and pipeline.settings.tables != "discover":
                    wanted = str(TableName(table.schema, table.table))
                    project.check_listed(mart, table, wanted, map(str, pipeline.settings.tables), pipeline)

    def _reads(self, pipeline: ZeroEtlIntegration, database: str) -> bool:
        found = pipeline.settings
        return (found.redshift, found.target.database) == (self.settings.redshift, database)


def _place(component: RedshiftMarts) -> tuple[str, ...]:
    settings = component.settings
    return settings.redshift, settings.database or "", settings.schema_name
