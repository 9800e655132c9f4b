"""Redshift's data types: their names, their DuckDB counterparts, and how the protocol describes them.

DuckDB has no CHAR, SUPER or VARBYTE, and no lengths: CHAR(n) is a VARCHAR without its trailing blanks (insignificant
in Redshift) that is padded on its way out, SUPER a JSON, VARBYTE a BLOB. Lengths are kept beside the tables, in
`_zeroetl.column_type`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from zeroetl_dagster.local.warehouse.errors import SqlError

MAX_VARCHAR = 65_535
MAX_CHAR = 4_096
MAX_VARBYTE = 16_777_216
_DEFAULT_VARCHAR = 256  # VARCHAR and TEXT without a length
_DEFAULT_VARBYTE = 64_000


@dataclass(frozen=True)
class RedshiftType:
    """`name` is the catalogue's ("character varying"); `size` a length or a precision."""

    name: str
    size: int | None = None
    scale: int | None = None

    @property
    def text(self) -> str:
        """As the catalogue and SHOW print it."""
        if self.size is None:
            return self.name
        return f"{self.name}({self.size})" if self.scale is None else f"{self.name}({self.size},{self.scale})"

    @property
    def duckdb(self) -> str:
        return f"DECIMAL({self.size},{self.scale})" if self.name == "numeric" else KINDS[self.name][2]

    @property
    def oid(self) -> int:
        return KINDS[self.name][0]

    @property
    def width(self) -> int:
        """Bytes of a value, -1 where they vary."""
        return KINDS[self.name][1]

    @property
    def modifier(self) -> int:
        """PostgreSQL's atttypmod."""
        if self.size is None:
            return -1
        return (self.size << 16 | self.scale) + 4 if self.scale is not None else self.size + 4

    @property
    def is_text(self) -> bool:
        return self.name in ("character varying", "character")


# Catalogue name -> oid, width, DuckDB's type. SUPER, VARBYTE and the intervals as redshift_connector knows them.
KINDS = {
    "boolean": (16, 1, "BOOLEAN"), "smallint": (21, 2, "SMALLINT"), "integer": (23, 4, "INTEGER"),
    "bigint": (20, 8, "BIGINT"), "oid": (26, 4, "INTEGER"), "numeric": (1700, -1, "DECIMAL(18,0)"),
    "real": (700, 4, "FLOAT"), "double precision": (701, 8, "DOUBLE"), "character varying": (1043, -1, "VARCHAR"),
    "character": (1042, -1, "VARCHAR"), "date": (1082, 4, "DATE"), "time without time zone": (1083, 8, "TIME"),
    "time with time zone": (1266, 12, "TIMETZ"), "timestamp without time zone": (1114, 8, "TIMESTAMP"),
    "timestamp with time zone": (1184, 8, "TIMESTAMPTZ"), "super": (4000, -1, "JSON"),
    "binary varying": (6551, -1, "BLOB"), "interval year to month": (1188, 4, "INTERVAL"),
    "interval day to second": (1190, 8, "INTERVAL"), "interval": (1186, 16, "INTERVAL"),
    "smallint[]": (1005, -1, "SMALLINT[]"), "integer[]": (1007, -1, "INTEGER[]"), "text[]": (1009, -1, "VARCHAR[]"),
}  # fmt: skip
_FROM_DUCKDB = {
    "BOOLEAN": "boolean", "TINYINT": "smallint", "UTINYINT": "smallint", "SMALLINT": "smallint",
    "USMALLINT": "integer", "INTEGER": "integer", "UINTEGER": "bigint", "BIGINT": "bigint", "FLOAT": "real",
    "DOUBLE": "double precision", "DATE": "date", "TIME": "time without time zone",
    "TIME WITH TIME ZONE": "time with time zone", "TIMESTAMP": "timestamp without time zone",
    "TIMESTAMP WITH TIME ZONE": "timestamp with time zone", "JSON": "super", "BLOB": "binary varying",
    "INTERVAL": "interval", "SMALLINT[]": "smallint[]", "INTEGER[]": "integer[]", "VARCHAR[]": "text[]",
}  # fmt: skip
# Names in SQL -> catalogue name, where they differ.
NAMES = {
    "bool": "boolean", "int2": "smallint", "int": "integer", "int4": "integer", "int8": "bigint",
    "decimal": "numeric", "float4": "real", "float": "double precision", "float8": "double precision",
    "varchar": "character varying", "nvarchar": "character varying", "text": "character varying",
    "char": "character", "nchar": "character", "bpchar": "character", "time": "time without time zone",
    "timetz": "time with time zone", "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone", "varbyte": "binary varying", "varbinary": "binary varying",
}  # fmt: skip
_DECLARED = re.compile(
    r"\s*([a-z][a-z0-9]*(?: [a-z]+)*?)\s*(?:\(\s*(\d+|max)\s*(?:,\s*(\d+)\s*)?\))?((?: with| without) time zone)?\s*$"
)


def from_duckdb(kind: str) -> RedshiftType:
    """What Redshift would call the type of a DuckDB result; what it does not know is text."""
    if kind.startswith("DECIMAL("):
        precision, scale = kind[8:-1].split(",")
        return RedshiftType("numeric", int(precision), int(scale))
    if kind in ("HUGEINT", "UHUGEINT", "BIGNUM"):
        return RedshiftType("numeric", 38, 0)
    if kind == "UBIGINT":
        return RedshiftType("numeric", 20, 0)
    return RedshiftType(_FROM_DUCKDB.get(kind, "character varying"))


def parse(declared: str) -> RedshiftType | None:
    """A type as SQL declares it (`varchar(10)`, `DECIMAL(8,2)`); None for one that Redshift does not have.

    Raises `SqlError` (22023) for a length that it does not have."""
    found = _DECLARED.match(" ".join(declared.lower().split()))
    if found is None:
        return None
    written = found[1] + (found[4] or "")
    name = NAMES.get(written, written)
    return _sized(name, written, found[2], found[3]) if name in KINDS and "[]" not in name else None


def _sized(name: str, written: str, size: str | None, scale: str | None) -> RedshiftType:
    if name == "numeric":
        return _numeric(int(size or 18), int(scale or 0))
    if name == "character varying":
        return RedshiftType(name, _length("varchar", size, _DEFAULT_VARCHAR, MAX_VARCHAR))
    if name == "character":
        return RedshiftType(name, _length("char", size, 256 if written == "bpchar" else 1, MAX_CHAR))
    if name == "binary varying":
        return RedshiftType(name, _length("varbyte", size, _DEFAULT_VARBYTE, MAX_VARBYTE))
    return RedshiftType(name)


def _length(word: str, size: str | None, default: int, most: int) -> int:
    length = most if size == "max" else default if size is None else int(size)
    if length < 1:
        raise SqlError("22023", f"length for type {word} must be at least 1")
    if length > most:
        raise SqlError("22023", f"length for type {word} cannot exceed {most}")
    return length


def _numeric(precision: int, scale: int) -> RedshiftType:
    if not 1 <= precision <= 38:
        raise SqlError("22023", f"DECIMAL precision {precision} must be between 1 and 38")
    if scale > min(precision, 37):
        raise SqlError("22023", f"DECIMAL scale {scale} must be between 0 and {min(precision, 37)}")
    return RedshiftType("numeric", precision, scale)
