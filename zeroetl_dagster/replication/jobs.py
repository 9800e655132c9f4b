"""Jobs of a pipeline: provision, check, resync tables, and teardown, which is a dry run unless told otherwise."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster import OpExecutionContext

from zeroetl_dagster.replication import activity, teardown
from zeroetl_dagster.replication.resources import Pipeline, required_resources, step_key, table_key
from zeroetl_dagster.settings.replication import IntegrationSettings, TableName, parse_table_name

_STEPS = ("source", "target", "integration", "database")
# A run whose process died is begun again, where the instance has run retries on (as this project's dagster.yaml): what
# it does may be done again. A step that failed has said why, and is left to a person. Resync and teardown always are;
# marts are asked for anew by their sensor, those that are still due.
_RETRIED = {"dagster/max_retries": "2", "dagster/retry_on_asset_or_op_failure": "false"}


class ResyncConfig(dg.Config):
    """`tables` are `schema.table`; none means every table in error. A table is unreadable while it is copied anew."""

    reason: str
    tables: list[str] = []


class TeardownConfig(dg.Config):
    """Nothing is removed while `dry_run` is true."""

    dry_run: bool = True


def build_jobs(settings: IntegrationSettings, tables: Sequence[TableName]) -> list[Any]:
    """`<pipeline>_provision`, `<pipeline>_checks`, `<pipeline>_resync`, `<pipeline>_teardown`."""
    return [_provision(settings), _checks(settings, tables), _resync(settings, tables), _teardown(settings)]


def _provision(settings: IntegrationSettings) -> Any:
    return dg.define_asset_job(
        f"{settings.name}_provision",
        selection=dg.AssetSelection.assets(*(step_key(settings.name, step) for step in _STEPS)),
        executor_def=dg.in_process_executor,
        tags=_RETRIED,
        description="Ensures or verifies source, target, integration and database; safe to run again.",
    )


def _checks(settings: IntegrationSettings, tables: Sequence[TableName]) -> Any:
    keys = [step_key(settings.name, "integration"), *(table_key(settings.name, table) for table in tables)]
    return dg.define_asset_job(
        f"{settings.name}_checks",
        selection=dg.AssetSelection.checks_for_assets(*keys),
        executor_def=dg.in_process_executor,
        tags=_RETRIED,
        description="Every check of the pipeline, asked now: states, lag, rows. It wakes a Serverless workgroup.",
    )


def _resync(settings: IntegrationSettings, tables: Sequence[TableName]) -> dg.JobDefinition:
    @dg.op(name=f"{settings.name}_resync_tables", required_resource_keys=required_resources(settings))
    def resync(context: OpExecutionContext, config: ResyncConfig) -> None:
        if not config.reason.strip():
            raise dg.Failure("`reason` is empty: say why the tables are copied anew; it stays in the run's log")
        wanted = [_known(settings, tables, text) for text in config.tables]
        pipeline = Pipeline.of(settings, context.resources)
        with pipeline.redshift.session("admin") as session:
            if wanted:
                statement = activity.refresh_tables(session, settings.target.database, wanted)
            else:
                statement = activity.refresh_failed_tables(session, settings.target.database)
        context.log.info(f"{config.reason}: {statement}")

    @dg.job(
        name=f"{settings.name}_resync",
        executor_def=dg.in_process_executor,
        description="Copies tables anew (all tables in error, or those listed), with a reason.",
    )
    def job() -> None:
        resync()

    return job


def _known(settings: IntegrationSettings, tables: Sequence[TableName], text: str) -> TableName:
    try:
        name = parse_table_name(text)
    except ValueError as error:
        raise dg.Failure(f"`tables`: {error}") from None
    if name not in tables:
        known = ", ".join(map(str, tables)) or "none"
        raise dg.Failure(f"`tables`: {text} is not a table of pipeline {settings.name}; its tables: {known}")
    return name


def _teardown(settings: IntegrationSettings) -> dg.JobDefinition:
    @dg.op(name=f"{settings.name}_teardown_steps", required_resource_keys=required_resources(settings))
    def remove(context: OpExecutionContext, config: TeardownConfig) -> None:
        pipeline = Pipeline.of(settings, context.resources)
        source_arn = pipeline.source_state().arn
        steps = teardown.plan(
            pipeline.integration(source_arn),
            pipeline.policy(source_arn),
            pipeline.sessions("admin"),
            database=settings.target.database,
        )
        teardown.execute(steps, context.log.info, dry_run=config.dry_run)
        if config.dry_run:
            context.log.info("a dry run: nothing was removed; set `dry_run: false` to do it")

    @dg.job(
        name=f"{settings.name}_teardown",
        executor_def=dg.in_process_executor,
        description="Removes what this project made of this pipeline, and only that. A dry run unless told otherwise.",
    )
    def job() -> None:
        remove()

    return job
