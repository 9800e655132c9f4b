"""Checks of a pipeline, as a run executes them: each table's state (blocking), whether a Synced table has its rows and
as many as the source, failed tables, lag.

The activity sensor reports `synced`, failed tables and lag by itself whenever they change; running a check asks now.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

import dagster as dg
from dagster import AssetCheckExecutionContext

from zeroetl_dagster.connections.redshift import RedshiftDenied, RedshiftUnavailable
from zeroetl_dagster.connections.sql import qualified
from zeroetl_dagster.replication import health, row_counts
from zeroetl_dagster.replication.activity import SYNCED, TableState, read_integrations, read_table_states
from zeroetl_dagster.replication.faults import ABSENT, explain_table
from zeroetl_dagster.replication.probe import probe
from zeroetl_dagster.replication.resources import SYNCED_CHECK, Pipeline, required_resources, step_key, table_key
from zeroetl_dagster.replication.sensor import limits_of
from zeroetl_dagster.settings.replication import IntegrationSettings, TableName


def build_checks(settings: IntegrationSettings, tables: Sequence[TableName]) -> list[dg.AssetChecksDefinition]:
    """`synced`, `not_empty`, `row_count` on every table; the integration's own (`health`)."""
    checks = [_health(settings)]
    if not tables:
        return checks
    of_tables = partial(_of_tables, settings, tables)
    checks.append(of_tables(SYNCED_CHECK, "The table is Synced in Redshift.", _synced, blocking=True))
    if settings.checks.synced_but_empty:
        checks.append(of_tables("not_empty", "A table said to have rows returns some.", _not_empty))
    if settings.checks.row_counts and settings.checks.source_login.given:
        checks.append(of_tables("row_count", "As many rows in Redshift as at the source.", _row_count))
    return checks


Tables = Mapping[dg.AssetKey, TableName]


def _of_tables(
    settings: IntegrationSettings,
    tables: Sequence[TableName],
    name: str,
    description: str,
    evaluate: Callable[[Pipeline, Tables], Iterator[dg.AssetCheckResult]],
    *,
    blocking: bool = False,
) -> dg.AssetChecksDefinition:
    """One check on every table; a run evaluates those that were chosen, in one step."""
    by_key = {table_key(settings.name, table): table for table in tables}

    @dg.multi_asset_check(
        name=f"{settings.name}_{name}",
        specs=[dg.AssetCheckSpec(name, asset=key, blocking=blocking, description=description) for key in by_key],
        can_subset=True,
        required_resource_keys=required_resources(settings),
    )
    def check(context: AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        chosen = {check.asset_key: by_key[check.asset_key] for check in context.selected_asset_check_keys}
        yield from evaluate(Pipeline.of(settings, context.resources), chosen)

    return check


def _states(pipeline: Pipeline) -> dict[TableName, TableState]:
    with pipeline.redshift.session("watch") as session:
        return read_table_states(session, pipeline.integration_id(), pipeline.settings.target.database)


def _synced(pipeline: Pipeline, chosen: Tables) -> Iterator[dg.AssetCheckResult]:
    states = _states(pipeline)
    for key, table in chosen.items():
        state = states.get(table)
        name, reason = (state.state, state.reason) if state is not None else (ABSENT, "")
        yield dg.AssetCheckResult(
            passed=name == SYNCED,
            asset_key=key,
            check_name=SYNCED_CHECK,
            severity=dg.AssetCheckSeverity.ERROR,
            description="Synced" if name == SYNCED else explain_table(name, reason),
            metadata={"zeroetl/state": name, "zeroetl/reason": reason},
        )


def _not_empty(pipeline: Pipeline, chosen: Tables) -> Iterator[dg.AssetCheckResult]:
    states, settings = _states(pipeline), pipeline.settings
    with pipeline.redshift.session("marts") as session:
        for key, table in chosen.items():
            state = states.get(table)
            if state is None or state.state != SYNCED:
                yield _not_asked(key, "not_empty", f"not read: {_NOT_SYNCED}")
                continue
            relation = qualified(settings.target.database, *table)
            found = bool(session.query(f"SELECT 1 FROM {relation} LIMIT 1").rows)
            passed = found or not state.rows
            said = "has rows" if found else f"returns none; Redshift's own count is {state.rows or 0:,}"
            yield dg.AssetCheckResult(
                passed=passed,
                asset_key=key,
                check_name="not_empty",
                description=said if passed else f"{said}. Copy it anew: job `{settings.name}_resync`",
            )


def _row_count(pipeline: Pipeline, chosen: Tables) -> Iterator[dg.AssetCheckResult]:
    states = _states(pipeline)
    readable = {key: table for key, table in chosen.items() if (one := states.get(table)) and one.state == SYNCED}
    for key in chosen.keys() - readable.keys():
        yield _not_asked(key, "row_count", f"not compared: {_NOT_SYNCED}")
    try:
        yield from _counted(pipeline, readable)
    except row_counts.SourceUnreachable as error:
        for key in readable:
            yield _not_asked(key, "row_count", f"not compared: {error}")


_NOT_SYNCED = f"the table is not Synced; see the check `{SYNCED_CHECK}`"


def _not_asked(key: dg.AssetKey, check: str, why: str) -> dg.AssetCheckResult:
    """A warning: what was not looked at has not passed."""
    return dg.AssetCheckResult(
        passed=False,
        asset_key=key,
        check_name=check,
        severity=dg.AssetCheckSeverity.WARN,
        description=why,
    )


def _counted(pipeline: Pipeline, chosen: Tables) -> Iterator[dg.AssetCheckResult]:
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


def _health_by_sql(pipeline: Pipeline, integration_id: str | None) -> dict[str, health.Verdict]:
    """What Redshift says where CloudWatch is silent, as it is for minutes after an integration was made."""
    if integration_id is None:
        return {}
    try:
        with pipeline.redshift.session("watch") as session:
            rows = read_integrations(session, integration_id)
    except (RedshiftUnavailable, RedshiftDenied) as error:
        return {name: health.Verdict(name, False, False, f"not known: {error}") for name in health.CHECKS}
    row = next((one for one in rows if one.target_database == pipeline.settings.target.database), None)
    found = health.verdicts_of_view(row, limits_of(pipeline.settings)) if row is not None else []
    return {verdict.check: verdict for verdict in found}


def _health(settings: IntegrationSettings) -> dg.AssetChecksDefinition:
    key = step_key(settings.name, "integration")

    @dg.multi_asset_check(
        name=f"{settings.name}_health",
        specs=[dg.AssetCheckSpec(name, asset=key, description=said) for name, said in health.CHECKS.items()],
        required_resource_keys=required_resources(settings),
    )
    def check(context: AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        pipeline = Pipeline.of(settings, context.resources)
        found = probe(
            pipeline.rds,
            pipeline.redshift.aws.client("cloudwatch"),
            integration_name=settings.integration,
            namespace=settings.sensor.metrics_namespace,
            now=datetime.now(UTC),
        )
        told = {verdict.check: verdict for verdict in health.verdicts(found, limits_of(settings))}
        if told.keys() != health.CHECKS.keys():
            told = _health_by_sql(pipeline, found.integration_id) | told
        for name in health.CHECKS:
            verdict = told.get(name, health.Verdict(name, False, False, "not known: there are no data yet"))
            yield dg.AssetCheckResult(
                passed=verdict.passed,
                check_name=name,
                asset_key=key,
                severity=dg.AssetCheckSeverity.ERROR if verdict.severe else dg.AssetCheckSeverity.WARN,
                description=verdict.description,
            )

    return check
