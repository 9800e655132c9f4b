"""The pipeline's assets: what it stands on (source, target, integration, database), and the replicated tables.

The four are ensure-or-verify steps that can be run again at any time. The tables are external: AWS writes them, and the
activity sensor reports what moved. They are plain specs, never one `@asset` each: a thousand of them load in a second.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from zeroetl_dagster.connections.reconciled import Outcome, ensure
from zeroetl_dagster.replication import configuration
from zeroetl_dagster.replication.activity import Column
from zeroetl_dagster.replication.faults import explain_status, explain_table
from zeroetl_dagster.replication.integration import IntegrationState
from zeroetl_dagster.replication.resources import (
    PIPELINE,
    Pipeline,
    bullets,
    column_schema,
    console,
    integration_pages,
    plain,
    required_resources,
    step_key,
    table_key,
    warehouse_page,
)
from zeroetl_dagster.replication.seeding import Seeding, wait_for_tables
from zeroetl_dagster.settings.replication import IntegrationSettings, TableName

OPTIONS = "zeroetl/options"
INTEGRATION_ID = "zeroetl/integration_id"


class IntegrationConfig(dg.Config):
    """`replace_integration` names the integration that may be deleted and made anew (a full load of every table)."""

    replace_integration: str | None = None


class DatabaseConfig(dg.Config):
    """`replace_database` names the database that may be dropped and made anew; `wait` for the tables to be loaded."""

    replace_database: str | None = None
    wait: bool = True


def build_provision_assets(settings: IntegrationSettings) -> list[dg.AssetsDefinition]:
    """The four steps, each an asset that reads, compares, changes the least, and may be run again."""
    return [_source_asset(settings), _target_asset(settings), _integration_asset(settings), _database_asset(settings)]


def build_table_specs(
    settings: IntegrationSettings, tables: Mapping[TableName, Sequence[Column]]
) -> list[dg.AssetSpec]:
    """One external asset for each replicated table, in the order given, with its columns where they are known."""
    pipeline, database = settings.name, settings.target.database
    deps = [step_key(pipeline, "database")]
    kinds = {"redshift", "table", _engine_kind(settings)}
    origin = f"`{settings.source.identifier}`"
    specs = []
    for table, columns in tables.items():
        metadata: dict[str, Any] = {
            PIPELINE: pipeline,
            "dagster/table_name": f"{database}.{table.schema}.{table.table}",
            "dagster/storage_kind": "redshift",
        }
        if columns:
            metadata["dagster/column_schema"] = column_schema(columns)
        source = ".".join(filter(None, (settings.source.database, *table)))
        specs.append(
            dg.AssetSpec(
                table_key(pipeline, table),
                deps=deps,
                group_name=pipeline,
                kinds=kinds,
                metadata=metadata,
                description=f"`{source}` of {origin}, replicated by integration `{settings.integration}`.",
            )
        )
    return specs


def _source_asset(settings: IntegrationSettings) -> dg.AssetsDefinition:
    @dg.asset(
        key=step_key(settings.name, "source"),
        group_name=settings.name,
        kinds={_engine_kind(settings), "aws"},
        required_resource_keys=required_resources(settings),
        metadata={PIPELINE: settings.name},
        description=(
            f"`{settings.source.identifier}` runs with the parameters that zero-ETL needs "
            f"(`{settings.manage.source_parameters}`)."
        ),
    )
    def source(context: AssetExecutionContext) -> dg.MaterializeResult:
        pipeline = Pipeline.of(settings, context.resources)
        resource = pipeline.source()
        outcome = ensure(resource, mode=settings.manage.source_parameters, report=context.log.info)
        state = outcome.state
        kind = "true" if resource.kind == "cluster" else "false"
        return dg.MaterializeResult(
            metadata={
                **_changed(outcome),
                "zeroetl/arn": state.arn,
                "zeroetl/engine_version": state.engine_version,
                "zeroetl/parameter_group": state.parameter_group,
                "zeroetl/console": console(
                    state.region, f"rds/#database:id={settings.source.identifier};is-cluster={kind}"
                ),
            }
        )

    return source


def _target_asset(settings: IntegrationSettings) -> dg.AssetsDefinition:
    @dg.asset(
        key=step_key(settings.name, "target"),
        deps=[step_key(settings.name, "source")],
        group_name=settings.name,
        kinds={"redshift", "aws"},
        required_resource_keys=required_resources(settings),
        metadata={PIPELINE: settings.name},
        description=(
            f"The namespace of `{settings.redshift}` lets the source in (`{settings.manage.target_policy}`), and its "
            f"identifiers are case-sensitive (`{settings.manage.case_sensitive}`)."
        ),
    )
    def target(context: AssetExecutionContext) -> dg.MaterializeResult:
        pipeline = Pipeline.of(settings, context.resources)
        case = ensure(pipeline.case_sensitivity(), mode=settings.manage.case_sensitive, report=context.log.info)
        policy = pipeline.policy(pipeline.source_state().arn)
        authorized = ensure(policy, mode=settings.manage.target_policy, report=context.log.info)
        warehouse = pipeline.redshift
        return dg.MaterializeResult(
            metadata={
                **_changed(case, authorized),
                "zeroetl/namespace_arn": policy.namespace_arn,
                "zeroetl/policy_statements": len(authorized.state.statements),
                "zeroetl/console": warehouse_page(warehouse.aws.region, warehouse.settings),
            }
        )

    return target


def _integration_asset(settings: IntegrationSettings) -> dg.AssetsDefinition:
    @dg.asset(
        key=step_key(settings.name, "integration"),
        deps=[step_key(settings.name, "source"), step_key(settings.name, "target")],
        group_name=settings.name,
        kinds={"aws", "zeroetl"},
        required_resource_keys=required_resources(settings),
        metadata={PIPELINE: settings.name},
        description=f"The zero-ETL integration `{settings.integration}` (`{settings.manage.integration}`).",
    )
    def integration(context: AssetExecutionContext, config: IntegrationConfig) -> dg.MaterializeResult:
        pipeline = Pipeline.of(settings, context.resources)
        for warning in configuration.warnings(settings):
            context.log.warning(f"data_filter: {warning}")
        resource = pipeline.integration(pipeline.source_state().arn, replace=config.replace_integration)
        outcome = ensure(resource, mode=settings.manage.integration, report=context.log.info)
        state = outcome.state
        if state.errors or state.status != "active":
            context.log.warning(explain_status(state.status, state.errors))
        return dg.MaterializeResult(metadata={**_changed(outcome), **_integration_metadata(settings, state, pipeline)})

    return integration


def _integration_metadata(settings: IntegrationSettings, state: IntegrationState, pipeline: Pipeline) -> dict[str, Any]:
    ours = state.made_by(settings.name)
    return {
        "zeroetl/status": state.status,
        "zeroetl/errors": bullets(message or code for code, message in state.errors),
        "zeroetl/arn": state.arn,
        INTEGRATION_ID: state.integration_id,
        "zeroetl/data_filter": state.data_filter or "none",
        "zeroetl/ownership": "made by this project" if ours else "adopted; teardown will leave it",
        **integration_pages(pipeline.source_aws.region, state.integration_id),
    }


def _database_asset(settings: IntegrationSettings) -> dg.AssetsDefinition:
    key = step_key(settings.name, "database")

    @dg.asset(
        key=key,
        deps=[step_key(settings.name, "integration")],
        group_name=settings.name,
        kinds={"redshift"},
        required_resource_keys=required_resources(settings),
        metadata={PIPELINE: settings.name, "dagster/storage_kind": "redshift"},
        description=(
            f"The Redshift database `{settings.target.database}` made from the integration "
            f"(`{settings.manage.database}`), its options, and its tables loaded."
        ),
    )
    def database(context: AssetExecutionContext, config: DatabaseConfig) -> dg.MaterializeResult:
        pipeline = Pipeline.of(settings, context.resources)
        integration_id = pipeline.integration_id()
        last_set = _last_set(context.instance, key, integration_id)
        resource = pipeline.database(integration_id, last_set=last_set, replace=config.replace_database)
        outcome = ensure(resource, mode=settings.manage.database, report=context.log.info)
        row = outcome.state.of(settings.target.database)
        metadata: dict[str, Any] = {
            **_changed(outcome),
            INTEGRATION_ID: integration_id,
            OPTIONS: dg.MetadataValue.json(resource.last_set),
            "zeroetl/state": row.state if row is not None else "",
        }
        if config.wait:
            seeding = _wait(context, pipeline, integration_id)
            metadata.update(_seeding_metadata(seeding))
        return dg.MaterializeResult(metadata=metadata)

    return database


def _wait(context: AssetExecutionContext, pipeline: Pipeline, integration_id: str) -> Seeding:
    settings = pipeline.settings
    seeding = wait_for_tables(
        pipeline.sessions("admin"),
        integration_id=integration_id,
        database=settings.target.database,
        tables=None if settings.tables == "discover" else settings.tables,
        timeout_seconds=settings.wait.tables_seconds,
        report=context.log.info,
    )
    for line in _findings(seeding):
        context.log.warning(line)
    return seeding


def _findings(seeding: Seeding) -> Iterator[str]:
    for state in seeding.failed:
        yield f"{state.name} is {explain_table(state.state, state.reason)}"
    for name in seeding.absent:
        yield f"{name} is listed, but not replicated: the filter leaves it out, or it does not exist at the source"


def _seeding_metadata(seeding: Seeding) -> dict[str, Any]:
    return {
        "zeroetl/tables_synced": len(seeding.synced),
        "zeroetl/tables_failed": len(seeding.failed),
        "zeroetl/tables_absent": len(seeding.absent),
        "zeroetl/findings": bullets(_findings(seeding)),
    }


def _last_set(instance: dg.DagsterInstance, key: dg.AssetKey, integration_id: str) -> dict[str, Any]:
    """The options as this asset set them last, for the same integration: Redshift shows only some of them."""
    event = instance.get_latest_materialization_event(key)
    found = event.asset_materialization if event is not None else None
    if found is None or plain(found.metadata, INTEGRATION_ID) != integration_id:
        return {}
    return dict(plain(found.metadata, OPTIONS) or {})


def _changed(*outcomes: Outcome[Any]) -> dict[str, dg.MetadataValue]:
    """What was found and is now as required; the remedies have been carried out."""
    return {"zeroetl/changed": bullets(one.fact for outcome in outcomes for one in outcome.changed)}


def _engine_kind(settings: IntegrationSettings) -> str:
    return "postgresql" if "postgres" in settings.source.engine else "mysql"
