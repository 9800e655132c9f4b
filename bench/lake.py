"""TICKIT exported to S3 by a real export task, and as many days of it in Glue as a benchmark wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zeroetl_dagster.defs
from zeroetl_dagster.components.athena_marts import compile_folder
from zeroetl_dagster.connections.athena import Athena
from zeroetl_dagster.connections.aws import Aws
from zeroetl_dagster.connections.waiting import Backoff
from zeroetl_dagster.exports.catalogue import Calls, Catalogue, DayOfTable, manifest_columns
from zeroetl_dagster.exports.daily import CatalogueOfDay, Exported, ExportOfDay
from zeroetl_dagster.exports.manifest import Written
from zeroetl_dagster.local import landscape
from zeroetl_dagster.marts import athena as athena_marts
from zeroetl_dagster.settings.connections import AthenaConnection
from zeroetl_dagster.settings.exports import SnapshotExportSettings
from zeroetl_dagster.settings.marts import AthenaMartsSettings

if TYPE_CHECKING:
    from zeroetl_dagster.local.landscape import EmbeddedSession

TABLES = ("users", "venue", "category", "date", "event", "listing", "sales")
PREFIX, DATABASE, MARTS_DATABASE = "exports", "bench_lake", "bench_lake_marts"
MARTS_FOLDER = Path(zeroetl_dagster.defs.__file__).parent / "tickit_lake_marts"
EXPORT: dict[str, Any] = {
    "name": "tickit_export",
    "aws": "account",
    "athena": "lake",
    "source": {"engine": "aurora-postgresql", "cluster": landscape.CLUSTER, "database": landscape.DATABASE},
    "bucket": landscape.BUCKET,
    "prefix": PREFIX,
    "kms_key": landscape.KEY_ALIAS,
    "export_role": f"arn:aws:iam::123456789012:role/{landscape.EXPORT_ROLE}",
    "tables": [f"public.{table}" for table in TABLES],
    "catalogue": {"mode": "register", "database": DATABASE},
    "start_date": "2026-01-01",
}
MARTS: dict[str, Any] = {
    "name": "lake_marts",
    "athena": "lake",
    "database": MARTS_DATABASE,
    "location": f"s3://{landscape.BUCKET}/marts",
    "exports": ["tickit_export"],
}
_PACE = Backoff(0.1, 1, 0.1, 0)


class QuickAthena(Athena):
    """The embedded Athena answers at once; a look every half second, right for AWS, would be most of the time."""

    poll_seconds = 0.01


class Lake:
    """One export of the source as it is, and the catalogue of the days it is said to be of."""

    def __init__(self, aws: EmbeddedSession) -> None:
        self.s3, self.glue = aws.client("s3"), aws.client("glue")
        connection = AthenaConnection(aws="account", workgroup=landscape.ATHENA_WORKGROUP, database=DATABASE)
        self.athena, self.quick = Athena(connection, Aws()), QuickAthena(connection, Aws())
        self._export = SnapshotExportSettings.model_validate(EXPORT)
        self._marts = AthenaMartsSettings.model_validate(MARTS)
        self._now = datetime.now(UTC)
        self.today = self._now.date()
        day = ExportOfDay(aws.client("rds"), self.s3, self._export, self.today, _nobody, new_snapshot=True, pace=_PACE)
        made = day.run(self._now)
        assert isinstance(made, Exported), made
        self.exported = made

    def copy(self, day: date) -> Written:
        """The same files once more, as the export of another day."""
        task, other = self.exported.task.identifier, f"copy-{day:%Y%m%d}"
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=landscape.BUCKET, Prefix=f"{PREFIX}/{task}/")
        for found in (one["Key"] for page in pages for one in page["Contents"]):
            source = {"Bucket": landscape.BUCKET, "Key": found}
            self.s3.copy_object(Bucket=landscape.BUCKET, Key=found.replace(task, other), CopySource=source)
        tables = [
            replace(table, location=table.location.replace(task, other)) for table in self.exported.written.tables
        ]
        return replace(self.exported.written, tables=tuple(tables))

    def publish(self, day: date, written: Written) -> None:
        """Catalogue a day as its run does it, views included."""
        of_day = CatalogueOfDay(self.glue, self.quick, self._export, day, f"export-{day:%Y%m%d}", _nobody)
        problems = of_day.run(written, self._now).problems
        assert not problems, problems

    def register(self, days: Sequence[tuple[date, Written]]) -> None:
        """Catalogue many days at once, without writing the views anew for each."""
        catalogue = Catalogue(
            Calls(self.glue), self._export.name, DATABASE, self._export.catalogue.partition_key, days[0][0]
        )
        found = [
            DayOfTable(
                one.table, day, str(day), one.location, manifest_columns(one.columns), one.columns, one.files,
                one.size_bytes,
            )
            for day, written in days
            for one in written.tables
        ]  # fmt: skip
        _, problems = catalogue.register(found, {one.table: one.table.glue_name for _, w in days for one in w.tables})
        assert not problems, problems

    def refresh_marts(self) -> int:
        """Build every mart; the bytes that Athena scanned for them."""
        athena_marts.ensure_database(self.quick, MARTS_DATABASE)
        place = athena_marts.Place(MARTS_DATABASE, self._marts.location)
        compiled = compile_folder(self._marts, MARTS_FOLDER, {self._export.name: self._export})
        return sum(athena_marts.materialize(self.quick, mart, place).scanned_bytes for mart in compiled.values())

    def days_before(self, days: int) -> list[date]:
        """So many days, the last of them yesterday."""
        return [self.today - timedelta(days=number) for number in range(days, 0, -1)]


def _nobody(line: str) -> None:
    """Progress that is not shown."""
