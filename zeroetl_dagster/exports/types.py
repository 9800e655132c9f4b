"""Types: what a column is in the source, in the exported Parquet, in Glue, and how a view casts it back.

Exports turn most PostgreSQL types into strings (RDS guide, "Data conversion when exporting to Amazon S3"): a Glue table
that declared them otherwise would fail on reading (HIVE_BAD_DATA). So tables are declared as exported and the typed
view casts. Rules of the cast, the same for every engine:

* A value that its type cannot hold in Trino is NULL in the typed view and stays as it was in the table below it:
  `numeric` NaN and Infinity, dates and timestamps `infinity` and BC, MySQL's `0000-00-00`.
* `numeric(p,s)` is `decimal(p,s)`. Where the manifest tells p but not s, `decimal(38,p)` holds every value exactly up
  to p = 19. Otherwise (no precision, more than 38 digits) it is `double`, which does hold NaN and Infinity, and only 15
  digits exactly. `catalogue.source_types` tells the true type of a column. `money` is `decimal(19,2)`.
* Timestamps have milliseconds, Athena's resolution; `timestamptz` becomes a `timestamp` in UTC.
* `character(n)` loses its blank padding, which has no meaning in the source and would break joins.
* `tinyint(1)` of MySQL is `boolean`.
* time, interval, uuid, json, arrays, enums, xml, inet stay strings: Athena tables have no such types.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_DECIMAL = re.compile(r"decimal\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)")
_NUMERIC = re.compile(r"(?:numeric|decimal)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
_BINARY_ORIGINALS = ("bytea", "binary", "varbinary", "blob", "tinyblob", "mediumblob", "longblob", "bit", "geometry")
_TRINO_DECIMAL_DIGITS = 38
_EXACT_WITHOUT_SCALE = 19  # p digits before and p after the point must fit into 38


@dataclass(frozen=True)
class ExportedColumn:
    """A column as the export's manifest describes it. Precisions are None where the manifest has none (or 0)."""

    name: str
    original_type: str
    exported_type: str
    max_length: int | None = None
    numeric_precision: int | None = None
    numeric_scale: int | None = None

    @property
    def base_type(self) -> str:
        """`original_type` in lower case without its parameters: `numeric(8,2)` is `numeric`."""
        return re.sub(r"\s*\(.*?\)", "", self.original_type.lower()).strip()

    @property
    def source_type(self) -> str:
        """The type with what the manifest tells of its length or precision, as a person would write it."""
        sizes: tuple[int | None, ...] = ()
        if self.base_type in ("numeric", "decimal"):
            sizes = (self.numeric_precision, self.numeric_scale)
        elif "char" in self.base_type:
            sizes = (self.max_length,)
        told = ",".join(str(size) for size in sizes if size is not None)
        return f"{self.base_type}({told})" if told else self.original_type.lower()


def parse_source_type(name: str, source_type: str) -> ExportedColumn:
    """The column whose `source_type` this is, exported as a string."""
    exact = re.fullmatch(r"(numeric|decimal)\((\d+)(?:,(-?\d+))?\)", source_type)
    if exact is None:
        return ExportedColumn(name, source_type, "string")
    scale = int(exact[3]) if exact[3] else None
    return ExportedColumn(name, exact[1], "string", numeric_precision=int(exact[2]), numeric_scale=scale)


def glue_type(column: ExportedColumn) -> str:
    """The Hive type that reads the exported Parquet; `string` for whatever is unknown.

    The manifest writes Parquet's own words, in more than one spelling (`int32`, `INT32`, `binary (UTF8)`,
    `fixed_len_byte_array(9) (DECIMAL(20,0))`).
    """
    exported = column.exported_type.lower()
    decimal = _DECIMAL.search(exported)
    if decimal:
        precision, scale = int(decimal[1]), int(decimal[2])
        return f"decimal({precision},{scale})" if precision <= _TRINO_DECIMAL_DIGITS else "string"
    if "timestamp" in exported or exported.startswith("int96"):
        return "timestamp"
    for word, hive in (("int64", "bigint"), ("int32", "int"), ("boolean", "boolean"), ("double", "double")):
        if exported.startswith(word):
            return hive
    if exported.startswith(("float", "real")):
        return "float"
    text = any(word in exported for word in ("utf8", "string", "enum", "json"))
    if not text and exported.startswith(("binary", "byte_array")) and column.base_type in _BINARY_ORIGINALS:
        return "binary"
    return "string"


def typed_expression(column: ExportedColumn | None, found_type: str, reference: str) -> str:
    """Trino SQL that casts `reference`, a quoted column of Hive type `found_type`, back to its original type.

    `column` is None where the manifest says nothing of it. Only strings are parsed: where the export already
    has the type, nothing is done.
    """
    if column is None:
        return reference
    if column.original_type.lower().replace(" ", "") in ("tinyint(1)", "bool", "boolean"):
        return f"({reference} <> 0)" if found_type in ("int", "tinyint", "smallint") else reference
    if found_type not in ("string", "varchar"):
        return reference
    return _parsed(column, reference)


def _parsed(column: ExportedColumn, reference: str) -> str:
    base = column.base_type
    if base in ("numeric", "decimal"):
        return f"try_cast({reference} AS {_decimal(column)})"
    if base == "money":
        return f"try_cast(regexp_replace({reference}, '[^0-9.-]', '') AS decimal(19,2))"
    if base == "date":
        return f"try_cast({reference} AS date)"
    if base in ("timestamp", "timestamp without time zone", "datetime"):
        return f"try_cast({reference} AS timestamp)"
    if base in ("timestamptz", "timestamp with time zone"):
        # PostgreSQL writes +00, Trino reads +00:00.
        zoned = f"try_cast(regexp_replace({reference}, '([+-][0-9][0-9])$', '$1:00') AS timestamp with time zone)"
        return f"CAST(at_timezone({zoned}, 'UTC') AS timestamp)"
    if base in ("character", "bpchar", "char"):
        return f"rtrim({reference})"
    return reference


def _decimal(column: ExportedColumn) -> str:
    precision, scale = column.numeric_precision, column.numeric_scale
    written = _NUMERIC.search(column.original_type.lower())
    if written:
        precision, scale = int(written[1]), int(written[2] or 0)
    if precision is None or precision > _TRINO_DECIMAL_DIGITS:
        return "double"
    if scale is None:
        return f"decimal({_TRINO_DECIMAL_DIGITS},{precision})" if precision <= _EXACT_WITHOUT_SCALE else "double"
    if not 0 <= scale <= precision:  # PostgreSQL allows numeric(2,-3) and numeric(3,5)
        return "double"
    return f"decimal({precision},{scale})"
