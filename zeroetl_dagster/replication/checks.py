"""Checks of a pipeline, as a run executes them: each table's state (blocking), whether a Synced table has its rows and
as many as the source, failed tables, lag.

The activity sensor reports the same `synced` result by itself whenever a state changes; running the check asks now.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

import dagster as dg
from dagster import AssetCheckExecutionContext

from zeroetl_dagster.connections.sql import qualified
from zeroetl_dagster.replication import row_counts
from zeroetl_dagster.replication.activity import SYNCED, read_table_states
from zeroetl_dagster.replication.faults import explain_table
from zeroetl_dagster.replication.probe import probe
from zeroetl_dagster.replication.resources import SYNCED_CHECK, Pipeline, required_resources, step_key, table_key
from zeroetl_dagster.replication.sensor import limits_of
from zeroetl_dagster.replication.signals import lag_of
from zeroetl_dagster.settings.replication import IntegrationSettings, TableName


def build_checks(settings: IntegrationSettings, tables: Sequence[TableName]) -> list[dg.AssetChecksDefinition]:
    """`synced`, `not_empty`, `row_count` on every table; `no_failed_tables`, `lag_within_bounds` on the integration."""
    checks = [_health(settings)]
    if tables:
        checks.append(_synced(settings, tables))
        if settings.checks.synced_but_empty:
            checks.append(_not_empty(settings, tables))
        if settings.checks.row_counts and settings.checks.source_login.given:
            checks.append(_row_count(settings, tables))
    return checks


def _synced(settings: IntegrationSettings, tables: Sequence[TableName]) -> dg.AssetChecksDefinition:
    by_key = {table_key(settings.name, table): table for table in tables}

    @dg.multi_asset_check(
        name=f"{settings.name}_synced",
        specs=[
            dg.AssetCheckSpec(SYNCED_CHECK, asset=key, blocking=True, description="The table is Synced in Redshift.")
            for key in by_key
        ],
        can_subset=True,
        required_resource_keys=required_resources(settings),
    )
    def synced(context: AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        pipeline = Pipeline.of(settings, context.resources)
        with pipeline.redshift.session("watch") as session:
            states = read_table_states(session, pipeline.integration_id(), settings.target.database)
        for check in context.selected_asset_check_keys:
            state = states.get(by_key[check.asset_key])
            name, reason = (state.state, state.reason) if state is not None else ("Absent", "no such table in Redshift")
            yield dg.AssetCheckResult(
                passed=name == SYNCED,
                asset_key=check.asset_key,
                check_name=SYNCED_CHECK,
                severity=dg.AssetCheckSeverity.ERROR,
                description="Synced" if name == SYNCED else explain_table(name, reason),
                metadata={"zeroetl/state": name, "zeroetl/reason": reason},
            )

    return synced


def _not_empty(settings: IntegrationSettings, tables: Sequence[TableName]) -> dg.AssetChecksDefinition:
    by_key = {table_key(settings.name, table): table for table in tables}

    @dg.multi_asset_check(
        name=f"{settings.name}_not_empty",
        specs=[
            dg.AssetCheckSpec("not_empty", asset=key, description="A table said to have rows returns some.")
            for key in by_key
        ],
        can_subset=True,
        required_resource_keys=required_resources(settings),
    )
    def not_empty(context: AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        pipeline, database = Pipeline.of(settings, context.resources), settings.target.database
        with pipeline.redshift.session("watch") as watch, pipeline.redshift.session("marts") as session:
            states = read_table_states(watch, pipeline.integration_id(), database)
            for check in context.selected_asset_check_keys:
                table = by_key[check.asset_key]
                state = states.get(table)
                if state is None or state.state != SYNCED:
                    said = f"not Synced, so not read; see the check `{SYNCED_CHECK}`"
                    passed = True
                else:
                    found = bool(session.query(f"SELECT 1 FROM {qualified(database, *table)} LIMIT 1").rows)
                    passed = found or not state.rows
                    said = "has rows" if found else f"returns none; Redshift's own count is {state.rows or 0:,}"
                yield dg.AssetCheckResult(
                    passed=passed,
                    asset_key=check.asset_key,
                    check_name="not_empty",
                    description=said if passed else f"{said}. Copy it anew: job `{settings.name}_resync`",
                )

    return not_empty


def _row_count(settings: IntegrationSettings, tables: Sequence[TableName]) -> dg.AssetChecksDefinition:
    by_key = {table_key(settings.name, table): table for table in tables}

    @dg.multi_asset_check(
        name=f"{settings.name}_row_count",
        specs=[
            dg.AssetCheckSpec("row_count", asset=key, description="As many rows in Redshift as at the source.")
            for key in by_key
        ],
        can_subset=True,
        required_resource_keys=required_resources(settings),
    )
    def row_count(context: AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        pipeline = Pipeline.of(settings, context.resources)
        chosen = {check.asset_key: by_key[check.asset_key] for check in context.selected_asset_check_keys}
        try:
            yield from _counted(pipeline, chosen)
        except row_counts.SourceUnreachable as error:
            for key in chosen:
                yield dg.AssetCheckResult(
                    passed=False,
                    asset_key=key,
                    check_name="row_count",
                    severity=dg.AssetCheckSeverity.WARN,
                    description=f"not compared: {error}",
                )

    return row_count


def _counted(pipeline: Pipeline, chosen: Mapping[dg.AssetKey, TableName]) -> Iterator[dg.AssetCheckResult]:
    settings = pipeline.settings
    secrets = pipeline.source_aws.client("secretsmanager")
    reached = row_counts.connect(pipeline.rds, secrets, settings.source, settings.checks.source_login)
    with reached as source, pipeline.redshift.session("marts") as session:
        for key, table in chosen.items():
            counted = row_counts.compare(
                partial(source.count, table),
                partial(row_counts.count_in_redshift, session, settings.target.database, table),
                tolerance=settings.checks.row_counts_tolerance,
            )
            yield dg.AssetCheckResult(
                passed=counted.agree,
                asset_key=key,
                check_name="row_count",
                severity=dg.AssetCheckSeverity.WARN,
                description=str(counted),
                metadata={"zeroetl/target_rows": counted.target, "zeroetl/source_rows": counted.source[-1]},
            )


def _health(settings: IntegrationSettings) -> dg.AssetChecksDefinition:
    key = step_key(settings.name, "integration")

    @dg.multi_asset_check(
        name=f"{settings.name}_health",
        specs=[
            dg.AssetCheckSpec("no_failed_tables", asset=key, description="CloudWatch counts no failed table."),
            dg.AssetCheckSpec("lag_within_bounds", asset=key, description="Changes arrive in time; idle is not late."),
        ],
        required_resource_keys=required_resources(settings),
    )
    def health(context: AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        pipeline = Pipeline.of(settings, context.resources)
        found = probe(
            pipeline.rds,
            pipeline.redshift.aws.client("cloudwatch"),
            integration_name=settings.integration,
            namespace=settings.sensor.metrics_namespace,
            now=datetime.now(UTC),
        )
        failed = found.metrics.tables_failed if found.metrics is not None else None
        yield dg.AssetCheckResult(
            passed=not failed,
            check_name="no_failed_tables",
            asset_key=key,
            description="CloudWatch has no data yet" if failed is None else f"{failed:.0f} failed tables",
        )
        lag = lag_of(found, limits_of(settings))
        late = lag is not None and lag.status != "ok"
        severe = lag is not None and lag.status == "error"
        yield dg.AssetCheckResult(
            passed=not late,
            check_name="lag_within_bounds",
            asset_key=key,
            severity=dg.AssetCheckSeverity.ERROR if severe else dg.AssetCheckSeverity.WARN,
            description="CloudWatch has no data yet" if lag is None else f"lag {lag.seconds:.1f} s ({lag.status})",
        )

    return health
