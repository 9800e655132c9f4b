"""One day of the path: from the day to its snapshot, its export task, what was written, its place in the catalogue.

This is where the parts of the room meet, still without Dagster: clients and a `report` function come in, typed outcomes
go out. Every step may be repeated at any time by anybody; what is there already is found and used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from zeroetl_dagster.connections.waiting import Backoff
from zeroetl_dagster.exports import crawler, export_task, manifest, own_snapshots, snapshots, views
from zeroetl_dagster.exports.catalogue import (
    Calls,
    Catalogue,
    CatalogueTable,
    DayOfTable,
    Gone,
    Problem,
    manifest_columns,
)
from zeroetl_dagster.exports.export_task import ExportPlan, Queued, Task
from zeroetl_dagster.exports.names import SourceTable, catalogue_names, parse_table
from zeroetl_dagster.exports.snapshots import NoSnapshot
from zeroetl_dagster.exports.types import ExportedColumn
from zeroetl_dagster.settings.exports import SnapshotExportSettings

Report = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """The export is there, all of it or less: `written` says. `snapshot_gb` is what AWS bills by, where it is told."""

    task: Task
    written: manifest.Written
    root: str
    snapshot_gb: float | None

    @property
    def extracted_gb(self) -> float:
        """GB that were extracted: the task's whole number, or the manifest's finer sum."""
        return max(float(self.task.extracted_gb), sum(table.size_gb or 0.0 for table in self.written.tables))

    @property
    def billed_gb(self) -> float:
        """GB of the snapshot as AWS states them, at least what came out of it."""
        return max(self.snapshot_gb or 0.0, self.extracted_gb)


@dataclass(frozen=True)
class Submitted:
    """The task runs; whoever watches it will see the end."""

    task: Task


@dataclass(frozen=True)
class Catalogued:
    """What one export became in the catalogue."""

    tables: tuple[CatalogueTable, ...]
    problems: tuple[Problem, ...]
    glue_calls: int
    crawl: crawler.Crawl | None
    scanned_bytes: int = 0
    gone: tuple[Gone, ...] = ()


def asked_tables(settings: SnapshotExportSettings) -> list[SourceTable] | None:
    """The listed tables, or None for all."""
    if settings.tables == "all":
        return None
    source = settings.source
    return [parse_table(label, source.database, mysql=source.is_mysql) for label in settings.tables]


def discover_tables(rds: Any, s3: Any, settings: SnapshotExportSettings) -> list[SourceTable]:
    """The tables of the newest export that is complete: what `tables: all` means today. Empty before the first one."""
    task = export_task.newest_complete(rds, settings.name, settings.bucket)
    if task is None:
        return []
    listing = manifest.read(s3, settings.bucket, settings.prefix, task.identifier)
    return [entry.table for entry in written(listing, settings, task.warning).tables]


def plan(settings: SnapshotExportSettings, day: date, nonce: str | None = None) -> ExportPlan:
    """The export of this day as configured. `nonce` makes it another one than was made before."""
    source = settings.source
    kind = "cluster" if source.is_cluster else "instance"
    return ExportPlan(
        pipeline=settings.name,
        day=day,
        source=f"{settings.source_aws}/{kind}/{source.identifier}/{source.database}",
        bucket=settings.bucket,
        prefix=settings.prefix,
        kms_key=settings.kms_key,
        export_role=settings.export_role,
        export_only=settings.export_only,
        nonce=nonce,
    )


@dataclass(frozen=True)
class ExportOfDay:
    """One partition's export, with the clients of the accounts it happens in.

    `known` is the task last reported for the day, if any; `nonce` asks for a new export whatever there is, and
    `new_snapshot` for one of a snapshot that is taken now. `waits`: see the end here, or leave it to whoever watches.
    `pace` is how often AWS is asked.
    """

    rds: Any
    s3: Any
    settings: SnapshotExportSettings
    day: date
    report: Report
    known: str | None = None
    nonce: str | None = None
    new_snapshot: bool = False
    waits: bool = True
    pace: Backoff = export_task.POLL

    def run(self, now: datetime) -> Exported | Submitted | Queued | NoSnapshot:
        """Find or start the task, wait for it if this run does, and see what was written.

        Raises `ExportError` (refused, failed, cancelled, timed out), `SourceNotFound`, `ManifestError`.
        """
        wanted = plan(self.settings, self.day, self.nonce)
        task, _ = export_task.find_own(self.rds, wanted, known=self.known)
        if task is not None and task.status == "COMPLETE":
            self.report(f"found the export of {self.day}: {export_task.progress(task)}")
            return self.result(task, None)
        size: float | None = None
        source_arn: str | None = None
        if task is None or not task.running:
            snapshot = self._snapshot(wanted, now)
            if isinstance(snapshot, NoSnapshot):
                return snapshot
            size, source_arn = snapshot.size_gb, snapshot.arn
            self.report(f"exporting snapshot {snapshot.identifier} of {snapshot.taken_at}")
        elif not self.waits:
            return Submitted(task)
        with export_task.terminating(self.rds, wanted, self.known, self.settings.wait.on_termination, self.report):
            begun = task if source_arn is None else self._begin(wanted, source_arn)
            if isinstance(begun, Queued):
                return begun
            assert begun is not None
            if begun.running and not self.waits:
                return Submitted(begun)
            ended = self._wait(begun) if begun.running else begun
        return self.result(export_task.check(ended), size)

    def reported(self, identifier: str) -> Exported | Submitted:
        """The end of this very task, without ever starting another. Raises as `run` does."""
        task = export_task.describe(self.rds, identifier)
        if task is None:
            raise export_task.ExportError(f"export {identifier} is no longer listed by AWS", retryable=True)
        if task.running:
            return Submitted(task)
        return self.result(export_task.check(task), None)

    def result(self, task: Task, size: float | None) -> Exported:
        """What a COMPLETE task left in S3, against what was asked."""
        listing = manifest.read(self.s3, self.settings.bucket, self.settings.prefix, task.identifier)
        if size is None:  # another run chose the snapshot; the price is the same
            kinds = {*self.settings.snapshot_types, "manual"}
            held = snapshots.list_snapshots(self.rds, self.settings.source, sorted(kinds))
            size = next((one.size_gb for one in held if one.arn == task.source_arn), None)
        if not self.settings.keep_made_snapshots:
            wanted = plan(self.settings, self.day)
            own_snapshots.drop(self.rds, self.settings.source, wanted, task.source_arn, self.report)
        return Exported(task, written(listing, self.settings, task.warning), listing.root, size)

    def _snapshot(self, wanted: ExportPlan, now: datetime) -> snapshots.Snapshot | NoSnapshot:
        settings = self.settings
        zone = ZoneInfo(settings.time_zone)
        own = own_snapshots.OwnSnapshot(self.rds, settings.source, wanted, self.report, self.pace)
        is_today = self.day == now.astimezone(zone).date()
        if self.new_snapshot:
            if not is_today:
                raise export_task.ExportError(
                    f"`new_snapshot` is for today's partition only: a snapshot taken now is not of {self.day}"
                )
            return own.make(timeout_seconds=settings.wait.timeout_seconds)
        kinds = settings.snapshot_types
        found = snapshots.find(self.rds, settings.source, self.day, zone=zone, kinds=kinds, now=now)
        if isinstance(found, NoSnapshot) and is_today and settings.make_snapshot == "when_missing":
            # One that is coming is waited for as ever, unless a run of this day began it.
            if found.reason != "creating" or own.find() is not None:
                return own.make(timeout_seconds=settings.wait.timeout_seconds)
        return found

    def _begin(self, wanted: ExportPlan, source_arn: str) -> Task | Queued:
        if not self.waits:
            return export_task.begin(self.rds, wanted, source_arn, known=self.known)
        return export_task.begin_when_room(
            self.rds,
            wanted,
            source_arn,
            known=self.known,
            timeout_seconds=self.settings.wait.timeout_seconds,
            report=self.report,
            poll=self.pace,
        )

    def _wait(self, task: Task) -> Task:
        return export_task.wait(
            self.rds,
            task,
            timeout_seconds=self.settings.wait.timeout_seconds,
            report=self.report,
            poll=self.pace,
        )


def written(listing: manifest.Manifest, settings: SnapshotExportSettings, warning: str | None) -> manifest.Written:
    """The manifest held against the configuration."""
    source = settings.source
    return manifest.compare(
        listing, database=source.database, mysql=source.is_mysql, asked=asked_tables(settings), warning=warning
    )


@dataclass(frozen=True)
class CatalogueOfDay:
    """One export's way into the catalogue. `athena` is None where no views and counts are wanted."""

    glue: Any
    athena: Any | None
    settings: SnapshotExportSettings
    day: date
    export_id: str
    report: Report
    pace: Backoff = crawler.POLL

    def run(self, found: manifest.Written, now: datetime) -> Catalogued:
        """Register or crawl the written tables, write their views, count their rows.

        Tables that cannot be catalogued are problems of the result. Raises `CatalogueError` when Glue or a crawl fails.
        """
        settings, calls = self.settings, Calls(self.glue)
        catalogue = Catalogue(
            calls, settings.name, settings.catalogue.database, settings.catalogue.partition_key, self.oldest(now)
        )
        names, collisions = catalogue_names([entry.table for entry in found.tables], settings.catalogue.names)
        problems = [Problem(t.label, str(collision)) for collision in collisions for t in collision.tables]
        days = [self._day(entry) for entry in found.tables if entry.table in names]
        crawl = None
        if settings.catalogue.mode == "crawler":
            crawl, days, unseen = self._crawl(calls, catalogue, days)
            problems += unseen
        tables, refused = catalogue.register(days, names)
        self.report(f"{len(tables)} tables of {self.day} are in {catalogue.database} ({calls.count} calls of Glue)")
        scanned = 0
        if self.athena is not None:
            tables = views.publish(self.athena, catalogue, tables, self.report)
            tables, scanned = views.count_rows(self.athena, tables, catalogue.partition_key)
        gone = catalogue.gone(self.day, [*(e.table.label for e in found.tables), *(e.label for e in found.skipped)])
        return Catalogued(tuple(tables), tuple(problems + refused), calls.count, crawl, scanned, tuple(gone))

    def oldest(self, now: datetime) -> date | None:
        """The first day that retention keeps; None keeps all."""
        if self.settings.retention_days is None:
            return None
        today = now.astimezone(ZoneInfo(self.settings.time_zone)).date()
        return today - timedelta(days=self.settings.retention_days - 1)

    def _day(self, entry: manifest.WrittenTable) -> DayOfTable:
        return DayOfTable(
            table=entry.table,
            day=self.day,
            export_id=self.export_id,
            location=entry.location,
            columns=manifest_columns(entry.columns),
            exported=self._exported(entry),
            files=entry.files,
            size_bytes=entry.size_bytes,
        )

    def _exported(self, entry: manifest.WrittenTable) -> tuple[ExportedColumn, ...]:
        """The manifest's columns, with the numeric types that the configuration knows better."""
        given = {
            name.lower(): kind for name, kind in self.settings.catalogue.source_types.get(entry.table.label, {}).items()
        }
        unknown = sorted(set(given) - {column.name.lower() for column in entry.columns})
        if unknown:
            self.report(f"catalogue.source_types: {entry.table.label} has no column {', '.join(unknown)}")
        return tuple(
            replace(column, original_type=given.get(column.name.lower(), column.original_type))
            for column in entry.columns
        )

    def _crawl(
        self, calls: Calls, catalogue: Catalogue, days: Sequence[DayOfTable]
    ) -> tuple[crawler.Crawl | None, list[DayOfTable], list[Problem]]:
        """The days with the columns the crawler found; an empty table has no files and keeps the manifest's."""
        settings = self.settings.catalogue
        targets = [day.location for day in days if day.files]
        if not targets:
            return None, list(days), []
        catalogue.ensure_database(settings.crawler_database)
        crawl = crawler.crawl(
            calls,
            settings,
            self.settings.prefix,
            targets,
            timeout_seconds=self.settings.wait.timeout_seconds,
            report=self.report,
            poll=self.pace,
        )
        seen = crawler.found(calls, settings.crawler_database, targets)
        result: list[DayOfTable] = []
        problems: list[Problem] = []
        for day in days:
            table = seen.get(day.location)
            if table is not None:
                result.append(replace(day, columns=table.columns, crawled_records=table.records))
            elif not day.files:
                result.append(day)
            else:
                reason = f"crawler {crawl.crawler} found no table at {day.location} (log {crawl.log_stream})"
                problems.append(Problem(day.table.label, reason))
        crawler.forget(calls, settings.crawler_database, list(seen.values()))
        return crawl, result, problems
