"""CSV and JSON tables as DuckDB reads them, by the table's SerDe; what cannot be read as the column's type is NULL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeroetl_dagster.local.athena.errors import not_supported

if TYPE_CHECKING:
    from zeroetl_dagster.local.athena.relations import Relation


def text_source(found: Relation, serde: str) -> str:
    """A SELECT of `__file` and the table's columns. Raises `QueryFailed` for a SerDe that is not implemented."""
    library = serde.rsplit(".", 1)[-1].lower()
    if "json" in library:
        return _json(found)
    if library in ("lazysimpleserde", "opencsvserde", ""):
        return _csv(found, quoting=library == "opencsvserde")
    raise not_supported(f"tables with the SerDe {serde}")


def _csv(found: Relation, *, quoting: bool) -> str:
    from zeroetl_dagster.local.athena.relations import quoted, text

    storage = found.table["StorageDescriptor"]
    given = (storage.get("SerdeInfo") or {}).get("Parameters") or {}
    parameters = {**found.table.get("Parameters", {}), **given}
    delimiter = given.get("separatorChar", ",") if quoting else given.get("field.delim", "\x01")
    skip = int(parameters.get("skip.header.line.count", "0"))
    null = "" if quoting else given.get("serialization.null.format", "\\N")
    names = list(found.columns)
    read = ", ".join(f"{text(f'c{index}')}: 'VARCHAR'" for index in range(len(names)))
    options = [
        f"delim = {text(delimiter)}",
        "header = false",
        f"skip = {skip}",
        f"quote = {text(given.get('quoteChar', chr(34)) if quoting else '')}",
        f"escape = {text(given.get('escapeChar', chr(92)) if quoting else given.get('escape.delim', ''))}",
        f"nullstr = {text(null or '__zeroetl_no_null__')}",
        "null_padding = true",
        "ignore_errors = false",
        "auto_detect = false",
        "strict_mode = false",
        f"compression = {text(_compression(found))}",
        f"columns = {{{read}}}",
        "filename = '__file'",
    ]
    columns = [
        f"TRY_CAST(c{index} AS {kind.duckdb}) AS {quoted(name)}"
        for index, (name, kind) in enumerate(found.columns.items())
    ]
    return f"SELECT __file, {', '.join(columns)} FROM read_csv([{_files(found)}], {', '.join(options)})"


def _json(found: Relation) -> str:
    from zeroetl_dagster.local.athena.relations import quoted, text

    read = ", ".join(f"{text(name)}: {text(kind.duckdb)}" for name, kind in found.columns.items())
    options = f"columns = {{{read}}}, format = 'newline_delimited', compression = {text(_compression(found))}"
    columns = ", ".join(quoted(name) for name in found.columns)
    return f"SELECT __file, {columns} FROM read_json([{_files(found)}], {options}, filename = '__file')"


def _files(found: Relation) -> str:
    from zeroetl_dagster.local.athena.relations import text

    return ", ".join(text(str(file.path)) for file in found.files)


def _compression(found: Relation) -> str:
    """By the first bytes, as Hive's codecs go by the name; one table has one compression."""
    kinds = set()
    for file in found.files:
        with file.path.open("rb") as opened:
            kinds.add("gzip" if opened.read(2) == b"\x1f\x8b" else "uncompressed")
    if len(kinds) > 1:
        raise not_supported(f"compressed and plain files in one table ({found.full_name})")
    return kinds.pop()
