"""PostgreSQL's types as Redshift's, and as DuckDB's, in which Redshift's values are kept here.

The map is the Aurora guide's ("Data type differences between Aurora and Amazon Redshift databases"). Values arrive as
PostgreSQL's text, from the seed as from the stream; `Target.sql` turns a text column into values. DuckDB has no CHAR,
SUPER or VARBYTE: CHAR(n) is a VARCHAR without its trailing blanks (insignificant in Redshift), SUPER a JSON, VARBYTE a
BLOB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zeroetl_dagster.local.stream import literals

MAX_VARCHAR = 65_535  # bytes
MAX_VARBYTE = 16_777_216
MAX_SUPER = 16_777_216


class Unsupported(Exception):
    """A type that zero-ETL does not replicate; the text names it."""


@dataclass(frozen=True)
class Target:
    """How a column is kept.

    `sql` has `{}` where the column's text goes. `limit`: longest text in bytes. `check`: which special values are
    refused (numeric: NaN and infinity; date, timestamp: infinity; timestamp: BC and later than 9999). `convert`:
    a function over each text that SQL cannot express.
    """

    redshift: str
    duckdb: str
    sql: str = "{}"
    limit: int | None = None
    check: str | None = None
    convert: Callable[[str], str] | None = None


def _cast(redshift: str, duckdb: str, check: str | None = None) -> Target:
    return Target(redshift, duckdb, f"CAST({{}} AS {duckdb})", check=check)


def _varchar(length: int) -> Target:
    return Target(f"VARCHAR({length})", "VARCHAR", limit=length)


def _super(convert: Callable[[str], str] | None = None) -> Target:
    return Target("SUPER", "JSON", "CAST({} AS JSON)", limit=MAX_SUPER, convert=convert)


_SIMPLE = {
    "bool": _cast("BOOLEAN", "BOOLEAN"),
    "int2": _cast("SMALLINT", "SMALLINT"),
    "int4": _cast("INTEGER", "INTEGER"),
    "int8": _cast("BIGINT", "BIGINT"),
    "oid": _cast("BIGINT", "BIGINT"),
    "xid": _cast("BIGINT", "BIGINT"),
    "cid": _cast("BIGINT", "BIGINT"),
    "xid8": _cast("DECIMAL(20,0)", "DECIMAL(20,0)"),
    "float4": _cast("REAL", "FLOAT"),
    "float8": _cast("DOUBLE PRECISION", "DOUBLE"),
    "money": Target("DECIMAL(20,3)", "DECIMAL(20,3)", "CAST(replace(replace({}, '$', ''), ',', '') AS DECIMAL(20,3))"),
    "date": Target("DATE", "DATE", "CAST(replace({}, ' BC', ' (BC)') AS DATE)", check="date"),
    "timestamp": _cast("TIMESTAMP", "TIMESTAMP", check="timestamp"),
    "timestamptz": _cast("TIMESTAMPTZ", "TIMESTAMPTZ", check="timestamp"),
    "bytea": Target("VARBYTE(16777216)", "BLOB", "from_hex(substr({}, 3))", limit=2 * MAX_VARBYTE + 2),
    "json": _super(),
    "jsonb": _super(),
    "int2vector": _super(literals.vector),
    "oidvector": _super(literals.vector),
    "time": _varchar(19),
    "timetz": _varchar(22),
    "uuid": _varchar(36),
    "inet": _varchar(19),
    "cidr": _varchar(19),
    "macaddr": _varchar(17),
    "macaddr8": _varchar(23),
    "name": _varchar(64),
    "pg_lsn": _varchar(17),
    "tid": _varchar(23),
} | {
    name: _varchar(MAX_VARCHAR)
    for name in (
        "text varchar xml tsvector tsquery gtsvector jsonpath refcursor pg_snapshot txid_snapshot pg_node_tree "
        "pg_ndistinct pg_dependencies pg_mcv_list pg_brin_bloom_summary"
    ).split()
}

# The range masks of interval's typmod (utils/timestamp.h, INTERVAL_MASK).
_INTERVALS = {0b110: "YEAR TO MONTH", 0b1_1100_0000_1000: "DAY TO SECOND"}


def target_of(name: str, namespace: str, kind: str, typmod: int, element: str | None) -> Target:
    """The target of a PostgreSQL type: `name` and `namespace` of pg_type, `kind` its typtype. Raises `Unsupported`."""
    if namespace != "pg_catalog" or kind != "b":
        shown = name if namespace == "pg_catalog" else f"{namespace}.{name}"
        raise Unsupported(shown if element is None else f"{element}[]")
    if name in _SIMPLE:
        return _SIMPLE[name]
    if element is not None:
        return _array(name, element)
    if name == "bpchar":
        length = typmod - 4
        if length < 0:
            return Target(f"VARCHAR({MAX_VARCHAR})", "VARCHAR", "rtrim({}, ' ')", limit=MAX_VARCHAR)
        return Target(f"CHAR({length})", "VARCHAR", "rtrim({}, ' ')", limit=MAX_VARCHAR)
    if name == "numeric":
        return _numeric(typmod)
    if name == "interval":
        return _interval(typmod)
    if name in ("bit", "varbit"):
        length = typmod if typmod > 0 else MAX_VARBYTE
        return Target(f"VARBYTE({length})", "BLOB", "from_hex({})", limit=2 * MAX_VARBYTE, convert=literals.bits)
    raise Unsupported(name)


def _numeric(typmod: int) -> Target:
    if typmod < 4:
        raise Unsupported("numeric without precision and scale")
    precision, scale = (typmod - 4) >> 16 & 0xFFFF, ((typmod - 4 & 0x7FF) ^ 1024) - 1024
    if precision > 38 or not 0 <= scale <= 37 or scale > precision:
        raise Unsupported(f"numeric({precision},{scale})")
    return _cast(f"DECIMAL({precision},{scale})", f"DECIMAL({precision},{scale})", check="numeric")


def _interval(typmod: int) -> Target:
    qualifier = _INTERVALS.get(typmod >> 16 & 0x7FFF) if typmod >= 0 else None
    if qualifier is None:
        raise Unsupported("interval without YEAR TO MONTH or DAY TO SECOND")
    return Target(f"INTERVAL {qualifier}", "INTERVAL", "CAST(replace({}, '+', '') AS INTERVAL)", check="interval")


_NUMBERS = frozenset("int2 int4 int8 oid xid cid float4 float8 numeric xid8".split())


def _array(name: str, element: str) -> Target:
    if element not in _SIMPLE and element not in ("bpchar", "numeric", "interval", "bit", "varbit"):
        raise Unsupported(f"{element}[]")
    if element in _NUMBERS:
        return _super(literals.number_array)
    if element == "bool":
        return _super(literals.boolean_array)
    if element in ("json", "jsonb"):
        return _super(literals.json_array)
    return _super(literals.text_array)
