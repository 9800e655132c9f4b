"""Checks of this path: was there a snapshot, was anything skipped, is all there that was asked, did a schema change.

They are evaluated where the facts are known, in the runs that export and catalogue; a check with nothing to say (no
export, hence nothing skipped) is left as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import dagster as dg
from dagster import AssetCheckResult, AssetCheckSeverity, AssetCheckSpec, AssetKey, MetadataValue

from zeroetl_dagster.exports.catalogue import CatalogueTable, Gone
from zeroetl_dagster.exports.daily import Exported
from zeroetl_dagster.exports.snapshots import NoSnapshot

SNAPSHOT_AVAILABLE = "snapshot_available"
NOTHING_SKIPPED = "nothing_skipped"
ALL_WRITTEN = "everything_asked_was_written"
SCHEMA_UNCHANGED = "schema_unchanged"
ALL_CATALOGUED = "everything_written_is_catalogued"
NO_TABLE_GONE = "no_table_gone"


class TableCheckSpec(AssetCheckSpec):
    """A check of a table whose name may have any character: Dagster's default output name allows only ASCII words."""

    def get_python_identifier(self) -> str:
        digest = hashlib.sha256("\0".join(self.asset_key.path).encode()).hexdigest()[:16]
        return f"{self.name}_{digest}"


def export_specs(key: AssetKey) -> list[AssetCheckSpec]:
    """The checks of the export asset."""
    return [
        AssetCheckSpec(SNAPSHOT_AVAILABLE, asset=key, description="The day has an available snapshot."),
        AssetCheckSpec(
            NOTHING_SKIPPED,
            asset=key,
            description="Neither the task's WarningMessage nor the manifest names a skipped table.",
        ),
        AssetCheckSpec(ALL_WRITTEN, asset=key, description="Every table that was asked for is in S3."),
    ]


def catalogue_specs(key: AssetKey) -> list[AssetCheckSpec]:
    """The checks of the catalogue asset."""
    return [
        AssetCheckSpec(ALL_CATALOGUED, asset=key, description="Every table of the export is in Glue."),
        AssetCheckSpec(
            NO_TABLE_GONE, asset=key, description="Every table that earlier exports put into Glue is in this one."
        ),
    ]


def table_spec(key: AssetKey) -> AssetCheckSpec:
    """The check of one table."""
    return TableCheckSpec(
        SCHEMA_UNCHANGED,
        asset=key,
        description="No column was added, removed or retyped since the newest day that was catalogued before.",
    )


def no_snapshot(key: AssetKey, outcome: NoSnapshot) -> AssetCheckResult:
    """The day has no snapshot: a warning of its own, with the reason."""
    return AssetCheckResult(
        asset_key=key,
        check_name=SNAPSHOT_AVAILABLE,
        passed=False,
        severity=AssetCheckSeverity.WARN,
        description=outcome.message,
        metadata={"zeroetl/reason": outcome.reason},
    )


def exported(key: AssetKey, found: Exported) -> Iterator[AssetCheckResult]:
    """What a finished export is checked for."""
    written = found.written
    yield AssetCheckResult(asset_key=key, check_name=SNAPSHOT_AVAILABLE, passed=True)
    skipped = [f"{entry.label}: {entry.reason}" for entry in written.skipped]
    yield AssetCheckResult(
        asset_key=key,
        check_name=NOTHING_SKIPPED,
        passed=not skipped,
        description=_listing("skipped by AWS", skipped) if skipped else "nothing was skipped",
        metadata={"zeroetl/skipped": MetadataValue.md("\n".join(f"* {line}" for line in skipped) or "none")},
    )
    lost = list(written.missing)
    yield AssetCheckResult(
        asset_key=key,
        check_name=ALL_WRITTEN,
        passed=not lost and not skipped,
        description=_listing("asked for, but not in the export", lost or skipped)
        if lost or skipped
        else f"all {len(written.tables)} tables were written",
    )


def catalogued(key: AssetKey, problems: list[str]) -> AssetCheckResult:
    """Tables of the export which are not in the catalogue."""
    return AssetCheckResult(
        asset_key=key,
        check_name=ALL_CATALOGUED,
        passed=not problems,
        description=_listing("not catalogued", problems) if problems else "every table is in Glue",
    )


def none_gone(key: AssetKey, gone: Sequence[Gone]) -> AssetCheckResult:
    """Tables that this export has no more: a warning, since nothing else tells readers of their old rows."""
    return AssetCheckResult(
        asset_key=key,
        check_name=NO_TABLE_GONE,
        passed=not gone,
        severity=AssetCheckSeverity.WARN,
        description=_listing("gone", [str(table) for table in gone]) if gone else "no table is gone",
    )


def schema(key: AssetKey, table: CatalogueTable) -> AssetCheckResult:
    """Which columns changed since the newest day before this one."""
    changes = [str(change) for change in table.changes]
    if changes:
        description = "; ".join(changes)
    elif table.newest:
        description = "no column changed"
    else:
        description = "a later day is catalogued already: not compared"
    return AssetCheckResult(
        asset_key=key,
        check_name=SCHEMA_UNCHANGED,
        passed=not changes,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
    )


def _listing(what: str, lines: list[str]) -> str:
    shown = "; ".join(lines[:5])
    return f"{len(lines)} {what}: {shown}" + ("; …" if len(lines) > 5 else "")
