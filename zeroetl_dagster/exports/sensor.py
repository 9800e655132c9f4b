"""The completion sensor: watches export tasks without a run slot, and lets the catalogue follow the exports.

A tick reads what the runs left in the event log, asks AWS only about what is pending (nothing pending: no call at all),
and asks for runs: one that reports a task that ended, one that starts a queued export when there is room, one that
exports a day whose snapshot has come. The reporting run is an ordinary run of the partition (short, since the task has
ended), so that its checks, its metadata and the tables that follow are the same in both ways of waiting.
An export that was materialised without its tables, from the UI say, gets a run of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
from dagster import AssetKey, DagsterRunStatus, RunsFilter

from zeroetl_dagster.exports import export_task, face, snapshots
from zeroetl_dagster.exports.assets import Clock
from zeroetl_dagster.exports.export_task import MAX_RUNNING, Task
from zeroetl_dagster.exports.partitions import day_of
from zeroetl_dagster.exports.pending import (
    Cursor,
    Note,
    Pending,
    Request,
    RunState,
    Seen,
    advance,
    due_for_look,
    load_cursor,
    take_in,
)
from zeroetl_dagster.settings.exports import SnapshotExportSettings

_PAGE = 200
_INTERVAL_SECONDS = 60
_RUN_STATES: dict[DagsterRunStatus, RunState] = {
    DagsterRunStatus.SUCCESS: "success",
    DagsterRunStatus.FAILURE: "failure",
    DagsterRunStatus.CANCELED: "canceled",
}


def build_sensor(
    settings: SnapshotExportSettings,
    table_keys: Sequence[AssetKey],
    job: dg.UnresolvedAssetJobDefinition,
    now: Clock = lambda: datetime.now(UTC),
) -> dg.SensorDefinition:
    """`<name>__export_sensor`, which asks for parts of the export's job.

    With `wait: run` it still waits for late snapshots and lets tables follow.
    """
    export, following = face.export_key(settings), [face.catalogue_key(settings), *table_keys]

    @dg.sensor(
        name=f"{settings.name}__export_sensor",
        job=job,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus[settings.wait.sensor_status.upper()],
        required_resource_keys={settings.source_aws},
        description="Reports export tasks that ended, starts queued ones, lets the catalogue follow.",
    )
    def completion(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        cursor, remark = load_cursor(context.cursor)
        if remark:
            context.log.warning(remark)
        tick = _Tick(context, settings, export, following)
        return tick.run(cursor, now())

    return completion


class _Tick:
    """One tick: read the log, ask AWS, decide."""

    def __init__(
        self,
        context: dg.SensorEvaluationContext,
        settings: SnapshotExportSettings,
        export: AssetKey,
        following: Sequence[AssetKey],
    ) -> None:
        self._context, self._settings = context, settings
        self._export, self._following = export, list(following)

    def run(self, cursor: Cursor, now: datetime) -> dg.SensorResult:
        observed = list(self._events("observations", cursor.observed))
        materialized = list(self._events("materializations", cursor.materialized or 0))
        done = {str(record.partition_key): record.storage_id for record in materialized if record.partition_key}
        pending = take_in(cursor.pending, [note for r in observed if (note := _note(r))], done)
        seconds = now.timestamp()
        pending, requests, lines = advance(pending, self._look(pending, now), seconds) if pending else ({}, [], [])
        runs = [self._run_request(request) for request in requests]
        if cursor.materialized is not None:  # the first tick does not catalogue history
            runs += [run for record in materialized if (run := self._follow(record)) is not None]
        state = Cursor(
            observed=max([cursor.observed, *(r.storage_id for r in observed)]),
            materialized=max([cursor.materialized or 0, *(r.storage_id for r in materialized)]),
            pending=pending,
        )
        for line in lines:
            self._context.log.info(line)
        if runs:
            return dg.SensorResult(run_requests=runs, cursor=state.model_dump_json())
        return dg.SensorResult(skip_reason="; ".join(lines) or "no export is pending", cursor=state.model_dump_json())

    def _events(self, what: str, after: int) -> Iterator[dg.EventLogRecord]:
        fetch = getattr(self._context.instance, f"fetch_{what}")
        while True:
            wanted = dg.AssetRecordsFilter(asset_key=self._export, after_storage_id=after)
            records = fetch(wanted, limit=_PAGE, ascending=True).records
            yield from records
            if len(records) < _PAGE:
                return
            after = records[-1].storage_id

    def _look(self, pending: Mapping[str, Pending], now: datetime) -> Seen:
        rds = getattr(self._context.resources, self._settings.source_aws).client("rds")
        watched = [entry.task for entry in pending.values() if entry.task]
        tasks: dict[str, Task] = {}
        for identifier in watched:
            task = export_task.describe(rds, identifier)
            if task is not None:
                tasks[identifier] = task
        free = 0
        if any(entry.state == "queued" for entry in pending.values()):
            free = MAX_RUNNING - len(export_task.running_tasks(rds))
        found = {partition: self._snapshot(rds, partition, now) for partition in due_for_look(pending, now.timestamp())}
        return Seen(tasks, free, found, self._reporting_runs(pending))

    def _snapshot(self, rds: Any, partition: str, now: datetime) -> snapshots.Snapshot | snapshots.NoSnapshot:
        return snapshots.find(
            rds,
            self._settings.source,
            day_of(partition),
            zone=ZoneInfo(self._settings.time_zone),
            kinds=self._settings.snapshot_types,
            now=now,
        )

    def _reporting_runs(self, pending: Mapping[str, Pending]) -> dict[str, RunState]:
        states: dict[str, RunState] = {}
        for entry in pending.values():
            if entry.state == "reporting":
                runs = self._context.instance.get_runs(RunsFilter(tags={face.REPORT_TAG: entry.task}), limit=1)
                if runs:
                    states[entry.task] = _RUN_STATES.get(runs[0].status, "running")
        return states

    def _run_request(self, request: Request) -> dg.RunRequest:
        return dg.RunRequest(
            run_key=f"{self._settings.name}:{request.run_key}",
            partition_key=request.partition,
            asset_selection=[self._export, *self._following],
            tags={face.REPORT_TAG: request.reports} if request.reports else {},
        )

    def _follow(self, record: dg.EventLogRecord) -> dg.RunRequest | None:
        """A run of the catalogue for an export that was materialised by a run without it."""
        event = record.asset_materialization
        if event is None or event.partition is None or face.TASK not in event.metadata:
            return None
        if self._planned(record.event_log_entry.run_id) & set(self._following):
            return None
        task = str(face.plain(event.metadata[face.TASK]))
        return dg.RunRequest(
            run_key=f"{self._settings.name}:{event.partition}:{task}:catalogue:{record.storage_id}",
            partition_key=event.partition,
            asset_selection=self._following,
        )

    def _planned(self, run_id: str) -> set[AssetKey]:
        """What the run set out to materialise (none for an event that somebody reported without a run)."""
        planned = self._context.instance.get_records_for_run(
            run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        ).records
        return {
            key
            for record in planned
            if (event := record.event_log_entry.dagster_event) is not None and (key := event.asset_key) is not None
        }


def _note(record: dg.EventLogRecord) -> Note | None:
    event = record.event_log_entry.asset_observation
    if event is None or event.partition is None or face.STATE not in event.metadata:
        return None
    values = {key: face.plain(value) for key, value in event.metadata.items()}
    return Note(
        event=record.storage_id,
        partition=event.partition,
        state=str(values[face.STATE]),
        time=record.timestamp,
        task=str(values.get(face.TASK, "")),
        may_come=bool(values.get(face.MAY_COME, False)),
    )
