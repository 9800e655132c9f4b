"""The activity sensor: what moved becomes materializations, what failed becomes check results, and marts follow.

One tick asks RDS and CloudWatch, which is free; Redshift only when they say that something was applied; and decides in
`changes.advance`, a pure function. Its events, its run requests and its cursor leave in one result, so that a crash
leaves the tick to be done again with the same outcome.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import dagster as dg
from botocore.exceptions import BotoCoreError, ClientError
from dagster import AssetKey

from zeroetl_dagster.connections.aws import AwsError, momentary
from zeroetl_dagster.connections.redshift import RedshiftDenied, RedshiftUnavailable
from zeroetl_dagster.replication import health
from zeroetl_dagster.replication.activity import Column
from zeroetl_dagster.replication.changes import Advance, Event, Reported, TableMoved, advance
from zeroetl_dagster.replication.cursor import Cursor, CursorError, Move, decode
from zeroetl_dagster.replication.faults import explain_status, explain_table
from zeroetl_dagster.replication.observe import declared_digest, read_snapshot
from zeroetl_dagster.replication.probe import Probe, ProbeUnavailable, probe
from zeroetl_dagster.replication.resources import (
    SYNCED_CHECK,
    Pipeline,
    column_schema,
    integration_pages,
    plain,
    required_resources,
    step_key,
    table_key,
)
from zeroetl_dagster.replication.signals import Limits, base, why_sql
from zeroetl_dagster.settings.replication import IntegrationSettings, TableName

DATA_VERSION = "dagster/data_version"
MARKER = "zeroetl/marker"
# Worth another try: nothing was asked, and nothing is lost.
_NOT_ANSWERED = (ProbeUnavailable, AwsError, RedshiftUnavailable, RedshiftDenied)
_STATUS = {"running": dg.DefaultSensorStatus.RUNNING, "stopped": dg.DefaultSensorStatus.STOPPED}


class Refreshes(Protocol):
    """What the marts ask for in a tick (`marts.refresh.RefreshPlan`)."""

    @property
    def run_requests(self) -> Sequence[dg.RunRequest]: ...

    @property
    def asset_events(self) -> Sequence[dg.AssetCheckEvaluation]: ...

    @property
    def notes(self) -> Sequence[str]: ...


Refresh = Callable[[dg.SensorEvaluationContext, Mapping[AssetKey, str]], Refreshes]


def build_activity_sensor(
    settings: IntegrationSettings, tables: Sequence[TableName], *, job: Any, refresh: Refresh | None = None
) -> dg.SensorDefinition:
    """`<pipeline>_activity_sensor`. `refresh` is asked with the versions of the events about to be stored; its run
    requests are for `job`, the sensor's one target."""

    @dg.sensor(
        name=f"{settings.name}_activity_sensor",
        job=job,
        minimum_interval_seconds=settings.sensor.interval_seconds,
        default_status=_STATUS[settings.sensor.default_status],
        required_resource_keys=required_resources(settings),
        description=(
            f"Watches integration `{settings.integration}`: CloudWatch on every tick, SQL only when something was "
            "applied. Reports tables that moved and asks for the marts that are due."
        ),
    )
    def activity(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        cursor = _decode(context)
        try:
            look = _look(context.instance, context.resources, settings, tables, cursor)
        except _NOT_ANSWERED as error:
            return _answer(context, refresh, f"nothing was asked or lost: {error}", context.cursor)
        events = _events(context.instance, settings, look)
        versions = {
            table_key(settings.name, event.table): event.move.version
            for event in look.advance.events
            if isinstance(event, TableMoved)
        }
        return _answer(context, refresh, look.summary(tables), look.advance.cursor.encode(), events, versions)

    return activity


def look_anew(
    instance: dg.DagsterInstance, resources: Any, settings: IntegrationSettings, tables: Sequence[TableName]
) -> str:
    """Compare every table with what Dagster has, and store what the sensor has not reported; returns what was seen.

    It needs no cursor and leaves none: the sensor, on or off, comes to the same versions. One session of Redshift, and
    at most `events_per_tick` events.
    """
    try:
        look = _look(instance, resources, settings, tables, None)
    except _NOT_ANSWERED as error:
        return f"pipeline {settings.name} was not looked at: {error}"
    for event in _events(instance, settings, look):
        instance.report_runless_asset_event(event)
    return f"pipeline {settings.name}: {look.summary(tables)}"


def limits_of(settings: IntegrationSettings) -> Limits:
    """The sensor's settings as the rules need them."""
    sensor = settings.sensor
    return Limits(
        events_per_tick=sensor.events_per_tick,
        minimum_sql_interval_seconds=sensor.minimum_sql_interval_seconds,
        sql_every_tick=sensor.sql == "every_tick",
        look_again_seconds=min(30.0, max(1.0, float(sensor.interval_seconds))),
        lag_warning_seconds=sensor.lag_warning_seconds,
        lag_error_seconds=sensor.lag_error_seconds,
    )


@dataclass(frozen=True)
class _Look:
    """One tick's findings. `asked` says why SQL was asked, None when it was not; `refused` why it did not answer;
    `columns` are of the tables whose ingestions were read in this tick, `pages` the integration's in the console."""

    advance: Advance
    probe: Probe
    asked: str | None
    refused: str | None
    columns: Mapping[TableName, Sequence[Column]]
    pages: Mapping[str, dg.UrlMetadataValue]

    def summary(self, tables: Sequence[TableName]) -> str:
        """For the tick's page: what was seen."""
        moved = sum(isinstance(event, TableMoved) for event in self.advance.events)
        said = [f"{len(tables)} tables, {moved} moved" if moved else f"{len(tables)} tables, none moved"]
        metrics = self.probe.metrics
        if metrics is not None and metrics.lag_seconds is not None:
            said.append(f"lag {metrics.lag_seconds:.1f} s")
        if self.probe.status not in ("", "active"):
            said.append(explain_status(self.probe.status, self.probe.errors))
        said.append(f"SQL: {self.asked}" if self.asked else "no SQL")
        if self.refused:
            said.append(f"Redshift did not answer, the next tick asks again: {self.refused}")
        return "; ".join([*said, *self.advance.notes])


def _look(
    instance: dg.DagsterInstance,
    resources: Any,
    settings: IntegrationSettings,
    tables: Sequence[TableName],
    cursor: Cursor | None,
) -> _Look:
    """Ask what is free, then Redshift where that is worth it, and decide.

    Raises `ProbeUnavailable` or `AwsError` when not even the free calls were answered.
    """
    limits, declared = limits_of(settings), declared_digest(tables)
    pipeline, now = Pipeline.of(settings, resources), time.time()
    found = probe(
        pipeline.rds,
        pipeline.redshift.aws.client("cloudwatch"),
        integration_name=settings.integration,
        namespace=settings.sensor.metrics_namespace,
        now=datetime.fromtimestamp(now, UTC),
    )
    begun = base(cursor, found)
    asked = None if begun is None else why_sql(begun, found, limits, declared=declared, now=now)
    snapshot, refused = None, None
    if asked is not None and begun is not None:
        try:
            with pipeline.redshift.session("watch") as session:
                snapshot = read_snapshot(
                    session, begun, limits, database=settings.target.database, declared=declared, now=now
                )
        except (RedshiftUnavailable, RedshiftDenied) as error:
            refused = str(error)
        except (ClientError, BotoCoreError) as error:  # from describing the warehouse, or fetching a login
            refused = momentary(error)
            if refused is None:
                raise
    reported = _reported(instance, settings, tables) if snapshot is not None else {}
    done = advance(cursor, found, snapshot, limits, now=now, tables=tables, declared=declared, reported=reported)
    columns = snapshot.columns if snapshot is not None else {}
    pages = integration_pages(pipeline.source_aws.region, done.cursor.integration_id)
    return _Look(done, found, asked, refused, columns, pages)


def _answer(
    context: dg.SensorEvaluationContext,
    refresh: Refresh | None,
    seen: str,
    cursor: str | None,
    events: Sequence[dg.AssetMaterialization | dg.AssetCheckEvaluation] = (),
    versions: Mapping[AssetKey, str] | None = None,
) -> dg.SensorResult:
    """Our events with what the marts ask for, which may be due without any (missing, changed, their waiting over).

    What was seen is the tick's reason where it asks for no run, else a line in its log: Dagster shows only one of them.
    """
    plan = refresh(context, versions or {}) if refresh is not None else None
    told = [seen, *(plan.notes if plan else ())]
    requests = list(plan.run_requests) if plan else []
    if requests:
        for line in told:
            context.log.info(line)
    return dg.SensorResult(
        asset_events=[*events, *(plan.asset_events if plan else ())],
        run_requests=requests or None,
        skip_reason=None if requests else "; ".join(told),
        cursor=cursor,
    )


def _decode(context: dg.SensorEvaluationContext) -> Cursor | None:
    if not context.cursor:
        return None
    try:
        return decode(context.cursor)
    except CursorError as error:
        context.log.warning(f"{error}: starting anew; every table is compared with what Dagster has")
        return None


def _reported(
    instance: dg.DagsterInstance, settings: IntegrationSettings, tables: Sequence[TableName]
) -> dict[TableName, Reported]:
    """What Dagster's event log last heard of each table, in two queries."""
    by_key = {table_key(settings.name, table): table for table in tables}
    events = instance.get_latest_materialization_events(by_key)
    checks = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [dg.AssetCheckKey(key, SYNCED_CHECK) for key in by_key]
    )
    found: dict[TableName, Reported] = {}
    for key, table in by_key.items():
        entry = events.get(key)
        materialization = entry.asset_materialization if entry is not None else None
        evaluation = _evaluation(checks.get(dg.AssetCheckKey(key, SYNCED_CHECK)))
        version, marker = "", ""
        if materialization is not None:
            version = (materialization.tags or {}).get(DATA_VERSION, "")
            marker = str(plain(materialization.metadata, MARKER) or "")
        if materialization is not None or evaluation is not None:
            found[table] = Reported(version, marker, evaluation.passed if evaluation is not None else None)
    return found


def _events(
    instance: dg.DagsterInstance, settings: IntegrationSettings, look: _Look
) -> list[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    told = [_event(settings, event, look) for event in look.advance.events]
    verdicts, there = health.verdicts(look.probe, limits_of(settings)), look.probe.integration_id is not None
    return told + _health_events(instance, settings, verdicts, there=there)


def _event(
    settings: IntegrationSettings, event: Event, look: _Look
) -> dg.AssetMaterialization | dg.AssetCheckEvaluation:
    key = table_key(settings.name, event.table)
    if isinstance(event, TableMoved):
        metadata = {**_metadata(event.move), **look.pages}
        if event.table in look.columns:
            metadata["dagster/column_schema"] = column_schema(look.columns[event.table])
        return dg.AssetMaterialization(key, metadata=metadata, tags={DATA_VERSION: event.move.version})
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=SYNCED_CHECK,
        passed=event.synced,
        severity=dg.AssetCheckSeverity.ERROR,
        description="Synced" if event.synced else explain_table(event.state, event.reason),
        metadata={"zeroetl/state": event.state, "zeroetl/reason": event.reason},
        blocking=True,
    )


def _health_events(
    instance: dg.DagsterInstance, settings: IntegrationSettings, verdicts: Sequence[health.Verdict], *, there: bool
) -> list[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """The integration's checks whose outcome is another than Dagster heard last. `there`: it exists."""
    asset = step_key(settings.name, "integration")
    keys = {verdict.check: dg.AssetCheckKey(asset, verdict.check) for verdict in verdicts}
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys.values())) if keys else {}
    events: list[dg.AssetMaterialization | dg.AssetCheckEvaluation] = []
    for verdict in verdicts:
        severity = dg.AssetCheckSeverity.ERROR if verdict.severe else dg.AssetCheckSeverity.WARN
        last = _evaluation(records.get(keys[verdict.check]))
        if last is None and not there:
            continue  # it was never made, and nobody has claimed otherwise
        if last is None or last.passed != verdict.passed or (not verdict.passed and last.severity != severity):
            events.append(
                dg.AssetCheckEvaluation(
                    asset_key=asset,
                    check_name=verdict.check,
                    passed=verdict.passed,
                    severity=severity,
                    description=verdict.description,
                )
            )
    return events


def _evaluation(record: Any) -> dg.AssetCheckEvaluation | None:
    found = record.event.asset_check_evaluation if record is not None and record.event is not None else None
    return found if isinstance(found, dg.AssetCheckEvaluation) else None


def _metadata(move: Move) -> dict[str, Any]:
    """Numbers keep one type, so that they plot over time."""
    found: dict[str, Any] = {
        "zeroetl/inserted_rows": move.inserted,
        "zeroetl/updated_rows": move.updated,
        "zeroetl/deleted_rows": move.deleted,
        "zeroetl/ingested_bytes": move.bytes,
        "zeroetl/checkpoint": move.checkpoint,
        "zeroetl/state": move.state,
        MARKER: move.marker,
    }
    if move.lag_seconds is not None:
        found["zeroetl/lag_seconds"] = float(move.lag_seconds)
    if move.rows is not None:
        found["dagster/row_count"] = move.rows
    if move.size_mb is not None:
        found["zeroetl/table_size_mb"] = move.size_mb
    return found
