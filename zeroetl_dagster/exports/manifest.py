"""What an export really wrote: its manifest, read tolerantly, and the objects in S3, compared with what was asked.

    s3://BUCKET/[PREFIX/]EXPORT_ID/export_info_EXPORT_ID.json
                                  /export_tables_info_EXPORT_ID_from_1_to_96.json       several of them for many tables
                                  /DATABASE/SCHEMA.TABLE/BATCH/part-….gz.parquet        and _SUCCESS

A COMPLETE task can have skipped tables: its WarningMessage, the manifest's table statuses and the objects themselves
are all looked at. AWS documents the folders ("File naming convention for exports to Amazon S3") but not the JSON, whose
fields are seen in several spellings: every one of them may be missing here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zeroetl_dagster.exports.names import SourceTable, parse_target
from zeroetl_dagster.exports.types import ExportedColumn

_TABLES_INFO = re.compile(r"export_tables_info_.*_from_(\d+)_to_(\d+)\.json$")


class ManifestError(Exception):
    """The export's own description cannot be read; the message says which object and what is wrong."""


@dataclass(frozen=True)
class ManifestTable:
    """One entry of `perTableStatus`. `size_gb` is the table's extracted size, None where not told."""

    target: str
    status: str
    size_gb: float | None
    columns: tuple[ExportedColumn, ...]
    warning: str | None


@dataclass(frozen=True)
class Folder:
    """The objects of one table: Parquet files and their bytes. `finished` is true when a _SUCCESS was written."""

    path: str
    files: int
    size_bytes: int
    finished: bool


@dataclass(frozen=True)
class Manifest:
    """All that one export left in S3."""

    info: Mapping[str, Any]
    tables: tuple[ManifestTable, ...]
    folders: Mapping[str, Folder]  # by path below the export's folder: `tickit/public.sales`
    root: str  # s3://BUCKET/[PREFIX/]EXPORT_ID/


@dataclass(frozen=True)
class WrittenTable:
    """A table that is there. `location` ends with a slash; a table without rows may have no files at all."""

    table: SourceTable
    location: str
    columns: tuple[ExportedColumn, ...]
    files: int
    size_bytes: int
    size_gb: float | None


@dataclass(frozen=True)
class SkippedTable:
    """A table that the export says it left out, in AWS's words."""

    label: str
    reason: str


@dataclass(frozen=True)
class Written:
    """What was asked for, against what is there."""

    tables: tuple[WrittenTable, ...]
    skipped: tuple[SkippedTable, ...]
    missing: tuple[str, ...]  # asked for, and neither written nor reported as skipped
    notes: tuple[str, ...]  # general warnings of the task

    @property
    def size_bytes(self) -> int:
        """Bytes of Parquet in S3."""
        return sum(table.size_bytes for table in self.tables)

    @property
    def files(self) -> int:
        return sum(table.files for table in self.tables)


def read(s3: Any, bucket: str, prefix: str, export_id: str) -> Manifest:
    """Read the manifest of one export and list its objects (one listing, one GET a manifest file).

    Raises `ManifestError` when nothing is there, or what is there is no manifest.
    """
    root = f"{prefix}/{export_id}/" if prefix else f"{export_id}/"
    described: list[tuple[int, str]] = []
    info_key = None
    folders: dict[str, Folder] = {}
    for key, size in _objects(s3, bucket, root):
        name = key[len(root) :]
        pieces = _TABLES_INFO.match(name)
        if pieces:
            described.append((int(pieces[1]), key))
        elif name.startswith("export_info_") and name.endswith(".json"):
            info_key = key
        else:
            _count(folders, name, size)
    if info_key is None and not described and not folders:
        raise ManifestError(
            f"nothing is left of export {export_id} at s3://{bucket}/{root}: the objects were deleted (by a lifecycle "
            "rule perhaps). Materialise this partition with the run configuration `new_export: true` to export it again"
        )
    if not described:
        raise ManifestError(
            f"s3://{bucket}/{root} has no export_tables_info_*.json: the export did not end, or the file was deleted. "
            "Materialise this partition with the run configuration `new_export: true` to export it again"
        )
    tables = [entry for _, key in sorted(described) for entry in _entries(_json(s3, bucket, key), key)]
    info = _json(s3, bucket, info_key) if info_key else {}
    return Manifest(info, tuple(tables), folders, f"s3://{bucket}/{root}")


def compare(
    manifest: Manifest, *, database: str, mysql: bool, asked: Sequence[SourceTable] | None, warning: str | None
) -> Written:
    """Hold what was asked (None: every table of `database`) against the manifest, the warning and the objects."""
    skipped, notes = parse_warning(warning)
    reasons = {_label(entry.label, database, mysql=mysql): entry.reason for entry in skipped}
    written: dict[SourceTable, WrittenTable] = {}
    for entry in manifest.tables:
        table = parse_target(entry.target, database, mysql=mysql)
        if table is None:
            if entry.warning:
                notes.append(f"{entry.target}: {entry.warning}")
        elif entry.status.upper() != "COMPLETE":
            reasons.setdefault(table.label, entry.warning or f"status {entry.status}")
        elif table.label not in reasons:  # called complete in the manifest, skipped in the warning: the latter knows
            written[table] = _written(manifest, table, entry)
    lost = {table for table, found in written.items() if not found.files and (found.size_gb or 0) > 0}
    missing = {t for t in asked or () if t not in written and t.label not in reasons} | lost
    wanted = [t for t in sorted(written) if t not in lost and (asked is None or t in asked)]
    return Written(
        tables=tuple(written[table] for table in wanted),
        skipped=tuple(SkippedTable(name, reason) for name, reason in sorted(reasons.items())),
        missing=tuple(table.label for table in sorted(missing)),
        notes=tuple(notes),
    )


def _written(manifest: Manifest, table: SourceTable, entry: ManifestTable) -> WrittenTable:
    folder = manifest.folders.get(table.folder)
    return WrittenTable(
        table=table,
        location=f"{manifest.root}{table.folder}/",
        columns=entry.columns,
        files=folder.files if folder else 0,
        size_bytes=folder.size_bytes if folder else 0,
        size_gb=entry.size_gb,
    )


def parse_warning(warning: str | None) -> tuple[list[SkippedTable], list[str]]:
    """Skipped tables and general remarks of a task's WarningMessage.

    AWS writes JSON: `{"skippedTables":[…],"skippedObjectives":[…],"general":[{"reason":…}]}`. Entries are seen as
    strings and as objects; text that is no JSON is a remark as it stands.
    """
    if not warning or not warning.strip():
        return [], []
    try:
        document = json.loads(warning)
    except ValueError:
        return [], [warning.strip()]
    if not isinstance(document, dict):
        return [], [warning.strip()]
    skipped: list[SkippedTable] = []
    notes: list[str] = []
    for key, entries in document.items():
        for entry in entries if isinstance(entries, list) else [entries]:
            name, reason = _named(entry)
            if key.lower() == "skippedtables":
                name, reason = (name, reason) if name else (reason, "")
                skipped.append(SkippedTable(name, reason or "skipped, no reason given"))
            else:
                notes.append(": ".join(part for part in (name, reason) if part))
    return skipped, notes


def _named(entry: object) -> tuple[str, str]:
    if not isinstance(entry, dict):
        return "", str(entry)
    name = next((str(entry[key]) for key in entry if key.lower() in _NAMES and entry[key]), "")
    reason = next((str(entry[key]) for key in entry if key.lower() in _REASONS and entry[key]), "")
    return name, reason or ("" if name else json.dumps(entry))


_NAMES = ("target", "tablename", "table", "name", "object")
_REASONS = ("reason", "warningmessage", "message", "cause")


def _label(name: str, database: str, *, mysql: bool) -> str:
    table = parse_target(name, database, mysql=mysql)
    return table.label if table else name


def _objects(s3: Any, bucket: str, root: str) -> Iterator[tuple[str, int]]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=root):
        for item in page.get("Contents", ()):
            yield item["Key"], item["Size"]


def _count(folders: dict[str, Folder], name: str, size: int) -> None:
    """`DB/SCHEMA.TABLE/[BATCH/]object`; older exports have no BATCH level."""
    parts = name.split("/")
    if len(parts) < 3:
        return
    path = "/".join(parts[:2])
    known = folders.get(path, Folder(path, 0, 0, False))
    data = parts[-1].endswith(".parquet")
    folders[path] = Folder(
        path, known.files + data, known.size_bytes + (size if data else 0), known.finished or parts[-1] == "_SUCCESS"
    )


def _json(s3: Any, bucket: str, key: str) -> Any:
    body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    try:
        return json.loads(body)
    except ValueError as error:
        raise ManifestError(f"s3://{bucket}/{key} is not JSON ({error}); the export's files were changed") from error


def _entries(document: Any, key: str) -> list[ManifestTable]:
    statuses = _get(document, "perTableStatus")
    if not isinstance(statuses, list):
        raise ManifestError(f"{key}: `perTableStatus` is missing: this is not a description of exported tables")
    return [_entry(item) for item in statuses if isinstance(item, dict) and _get(item, "target")]


def _entry(item: Mapping[str, Any]) -> ManifestTable:
    mappings = _get(_get(item, "schemaMetadata") or {}, "originalTypeMappings") or _get(item, "originalTypeMappings")
    size = _get(item, "sizeGB")
    return ManifestTable(
        target=str(_get(item, "target")),
        status=str(_get(item, "status") or ("COMPLETE" if mappings else "SKIPPED")),
        size_gb=float(size) if isinstance(size, int | float) else None,
        columns=tuple(_column(mapping) for mapping in mappings or () if _get(mapping, "columnName")),
        warning=_get(item, "warningMessage"),
    )


def _column(mapping: Mapping[str, Any]) -> ExportedColumn:
    return ExportedColumn(
        name=str(_get(mapping, "columnName")),
        original_type=str(_get(mapping, "originalType") or ""),
        exported_type=str(_get(mapping, "expectedExportedType") or "string"),
        max_length=_positive(_get(mapping, "originalCharMaxLength")),
        numeric_precision=_positive(_get(mapping, "originalNumPrecision")),
        numeric_scale=_number(_first(mapping, ("originalNumScale", "originalNumericScale", "originalScale"))),
    )


def _get(document: Any, name: str) -> Any:
    """A member whatever the case of its first letters: both `OriginalTypeMappings` and `originalTypeMappings` occur."""
    if not isinstance(document, Mapping):
        return None
    if name in document:
        return document[name]
    lower = name.lower()
    return next((value for key, value in document.items() if key.lower() == lower), None)


def _first(document: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((value for name in names if (value := _get(document, name)) is not None), None)


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None


def _positive(value: Any) -> int | None:
    number = _number(value)
    return number if number and number > 0 else None
