"""Types in Glue, and casts back to what the source had."""

from __future__ import annotations

import pytest

from zeroetl_dagster.exports.types import ExportedColumn, glue_type, parse_source_type, typed_expression


def col(original: str, exported: str = "binary (UTF8)", **more: int) -> ExportedColumn:
    return ExportedColumn("c", original, exported, **more)


@pytest.mark.parametrize(
    ("exported", "original", "expected"),
    [
        ("int32", "integer", "int"),
        ("int32 (INT(16,true))", "smallint", "int"),
        ("INT64", "bigint", "bigint"),
        ("int64 (TIMESTAMP_MICROS)", "datetime", "timestamp"),
        ("double", "double precision", "double"),
        ("float", "real", "float"),
        ("boolean", "boolean", "boolean"),
        ("fixed_len_byte_array(9) (DECIMAL(20,0))", "bigint unsigned", "decimal(20,0)"),
        ("decimal(65,2)", "decimal(65,2)", "string"),
        ("binary (UTF8)", "numeric", "string"),
        ("binary", "bytea", "binary"),
        ("binary", "text", "string"),
        ("something new", "whatever", "string"),
    ],
)
def test_exported_types_in_glue(exported: str, original: str, expected: str) -> None:
    assert glue_type(col(original, exported)) == expected


@pytest.mark.parametrize(
    ("column", "found", "expected"),
    [
        (col("numeric(8,2)"), "string", "try_cast(c AS decimal(8,2))"),
        (col("numeric", numeric_precision=8, numeric_scale=2), "string", "try_cast(c AS decimal(8,2))"),
        (col("numeric", numeric_precision=8), "string", "try_cast(c AS decimal(38,8))"),
        (col("numeric", numeric_precision=30), "string", "try_cast(c AS double)"),
        (col("numeric"), "string", "try_cast(c AS double)"),
        (col("numeric(3,5)"), "string", "try_cast(c AS double)"),
        (col("numeric(50,2)"), "string", "try_cast(c AS double)"),
        (col("money"), "string", "try_cast(regexp_replace(c, '[^0-9.-]', '') AS decimal(19,2))"),
        (col("date"), "string", "try_cast(c AS date)"),
        (col("timestamp(3) without time zone"), "string", "try_cast(c AS timestamp)"),
        (col("character(8)"), "string", "rtrim(c)"),
        (col("character varying(8)"), "string", "c"),
        (col("uuid"), "string", "c"),
        (col("integer[]"), "string", "c"),
        (col("tinyint(1)", "int32"), "int", "(c <> 0)"),
        (col("boolean", "boolean"), "boolean", "c"),
        (col("datetime", "int64 (TIMESTAMP_MICROS)"), "timestamp", "c"),
        (col("date"), "date", "c"),
    ],
)
def test_casts_of_the_typed_view(column: ExportedColumn, found: str, expected: str) -> None:
    assert typed_expression(column, found, "c") == expected


def test_timestamptz_becomes_utc() -> None:
    sql = typed_expression(col("timestamp with time zone"), "string", "c")
    assert sql.startswith("CAST(at_timezone(try_cast(regexp_replace(c,") and sql.endswith("'UTC') AS timestamp)")


def test_a_column_that_the_manifest_does_not_know_is_left_alone() -> None:
    assert typed_expression(None, "string", "c") == "c"


@pytest.mark.parametrize(
    "column",
    [
        ExportedColumn("a", "numeric", "string", numeric_precision=8),
        ExportedColumn("a", "numeric(8,2)", "string"),
        ExportedColumn("a", "numeric", "string"),
        ExportedColumn("a", "character", "string", max_length=4),
        ExportedColumn("a", "timestamp(3) with time zone", "string"),
        ExportedColumn("a", "enum('a(','b')", "string"),
        ExportedColumn("a", "date", "string"),
    ],
)
def test_a_type_that_was_remembered_is_cast_as_before(column: ExportedColumn) -> None:
    known = parse_source_type("a", column.source_type)
    assert typed_expression(known, "string", '"a"') == typed_expression(column, "string", '"a"')
