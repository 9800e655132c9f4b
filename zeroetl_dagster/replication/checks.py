"""Checks of a pipeline, as a run executes them: each table's state (blocking), failed tables, lag.

The activity sensor reports the same `synced` result by itself whenever a state changes; running the check asks now.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster import AssetCheckExecutionContext

from zeroetl_dagster.replication.activity import SYNCED, read_table_states
from zeroetl_dagster.replication.faults import explain_table
from zeroetl_dagster.replication.probe import probe
from zeroetl_dagster.replication.resources import SYNCED_CHECK, Pipeline, required_resources, step_key, table_key
from zeroetl_dagster.replication.sensor import limits_of
from zeroetl_dagster.replication.signals import lag_of
from zeroetl_dagster.settings.replication import IntegrationSettings, TableName


def build_checks(settings: IntegrationSettings, tables: Sequence[TableName]) -> list[dg.AssetChecksDefinition]:
    """`synced` on every table; `no_failed_tables` and `lag_within_bounds` on the integration."""
    return [_synced(settings, tables), _health(settings)] if tables else [_health(settings)]


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
