"""Trino's functions that DuckDB lacks or answers differently, as DuckDB macros; one name each, prefix `trino_`.

A macro may not depend on its argument's type in its result's type; what does is decided before, in `semantics.py`.
Errors carry the mark ZEROETL and Athena's reason (`errors.translated`).
"""

from __future__ import annotations

import re
from typing import Any

_FAIL = "error('ZEROETL {}')"


def _fail(reason: str) -> str:
    return _FAIL.format(reason)


_INTEGER = "[+-]?[0-9]+"

MACROS: dict[str, str] = {
    # ---- text
    "trino_substr(s, a)": "CASE WHEN a = 0 OR -a > length(s) THEN '' ELSE substr(s, a) END",
    "trino_substr3(s, a, n)": "CASE WHEN a = 0 OR -a > length(s) OR n <= 0 THEN '' ELSE substr(s, a, n) END",
    "trino_split_part(s, d, i)": (
        f"CASE WHEN i <= 0 THEN {_fail('INVALID_FUNCTION_ARGUMENT: Index must be greater than zero')} "
        "WHEN i > len(string_split(s, d)) THEN NULL ELSE split_part(s, d, i) END"
    ),
    "trino_regexp_extract(s, p)": "CASE WHEN regexp_matches(s, p) THEN regexp_extract(s, p) END",
    "trino_regexp_extract3(s, p, g)": "CASE WHEN regexp_matches(s, p) THEN regexp_extract(s, p, g) END",
    "trino_cut(s, n)": "substr(s, 1, n)",
    "trino_fit(s, n)": (
        "CASE WHEN length(s) <= n OR s IS NULL THEN s ELSE error('ZEROETL INVALID_CAST_ARGUMENT: Value ' || s || "
        "' cannot be represented as varchar(' || n || ')') END"
    ),
    "trino_pad(s, n)": "rpad(substr(s, 1, n), n, ' ')",
    # ---- numbers as text: Java's Double.toString
    "trino_double_text(x)": (
        "CASE WHEN x IS NULL THEN NULL WHEN isnan(x) THEN 'NaN' WHEN isinf(x) THEN "
        "CASE WHEN x > 0 THEN 'Infinity' ELSE '-Infinity' END "
        "WHEN x = 0 OR (abs(x) >= 1e-3 AND abs(x) < 1e7) THEN "
        "CASE WHEN contains(CAST(x AS VARCHAR), 'e') OR contains(CAST(x AS VARCHAR), '.') "
        "THEN CAST(x AS VARCHAR) ELSE CAST(x AS VARCHAR) || '.0' END "
        "ELSE trino_scientific(CAST(x AS VARCHAR)) END"
    ),
    # digits without sign, point and exponent, and where the point belongs
    "trino_scientific(t)": (
        "(CASE WHEN t LIKE '-%' THEN '-' ELSE '' END) || trino_mantissa(trino_digits(t)) || 'E' || trino_exponent(t)"
    ),
    "trino_digits(t)": ("rtrim(ltrim(replace(regexp_extract(t, '^-?([0-9.]+)', 1), '.', ''), '0') || 'x', 'x')"),
    "trino_mantissa(d)": ("d[1] || '.' || CASE WHEN rtrim(d[2:], '0') = '' THEN '0' ELSE rtrim(d[2:], '0') END"),
    "trino_exponent(t)": (
        "CAST((CASE WHEN contains(t, 'e') THEN CAST(regexp_extract(t, 'e([+-]?[0-9]+)', 1) AS INTEGER) ELSE 0 END) + "
        "(CASE WHEN ltrim(split_part(regexp_extract(t, '^-?([0-9.]+)', 1), '.', 1), '0') = '' "
        "THEN -(length(regexp_extract(split_part(regexp_extract(t, '^-?([0-9.]+)', 1), '.', 2), '^0*')) + 1) "
        "ELSE length(split_part(regexp_extract(t, '^-?([0-9.]+)', 1), '.', 1)) - 1 END) AS VARCHAR)"
    ),
    # ---- text as numbers and times: Trino takes no decimals for an integer, no blanks, no words for a time
    "trino_is_integer(s)": f"regexp_full_match(s, '{_INTEGER}')",
    "trino_integer_text(s, t)": (
        f"CASE WHEN s IS NULL OR regexp_full_match(s, '{_INTEGER}') THEN s ELSE "
        "error('ZEROETL INVALID_CAST_ARGUMENT: Cannot cast ''' || s || ''' to ' || t) END"
    ),
    "trino_integer_try(s)": f"CASE WHEN regexp_full_match(s, '{_INTEGER}') THEN s END",
    "trino_is_date(s)": r"regexp_full_match(s, '\s*[+-]?[0-9]{4,}-[0-9]{1,2}-[0-9]{1,2}\s*')",
    "trino_date_text(s)": (
        "CASE WHEN s IS NULL OR trino_is_date(s) THEN s ELSE "
        "error('ZEROETL INVALID_CAST_ARGUMENT: Value cannot be cast to date: ' || s) END"
    ),
    "trino_date_try(s)": "CASE WHEN trino_is_date(s) THEN s END",
    "trino_is_timestamp(s)": (
        r"regexp_full_match(s, '\s*[+-]?[0-9]{4,}-[0-9]{1,2}-[0-9]{1,2}( [0-9]{1,2}:[0-9]{1,2}(:[0-9]{1,2}"
        r"(\.[0-9]+)?)?)?\s*')"
    ),
    "trino_timestamp_text(s)": (
        "CASE WHEN s IS NULL OR trino_is_timestamp(s) THEN s ELSE "
        "error('ZEROETL INVALID_CAST_ARGUMENT: Value cannot be cast to timestamp: ' || s) END"
    ),
    "trino_timestamp_try(s)": "CASE WHEN trino_is_timestamp(s) THEN s END",
    "trino_is_zoned(s)": (
        r"regexp_full_match(s, '\s*[+-]?[0-9]{4,}-[0-9]{1,2}-[0-9]{1,2}( [0-9]{1,2}:[0-9]{1,2}(:[0-9]{1,2}"
        r"(\.[0-9]+)?)?)?(\s*([+-][0-9]{1,2}:[0-9]{2}|Z|[A-Za-z][A-Za-z_/]+))?\s*')"
    ),
    "trino_zoned_text(s)": (
        "CASE WHEN s IS NULL OR trino_is_zoned(s) THEN s ELSE "
        "error('ZEROETL INVALID_CAST_ARGUMENT: Value cannot be cast to timestamp with time zone: ' || s) END"
    ),
    "trino_zoned_try(s)": "CASE WHEN trino_is_zoned(s) THEN s END",
    "trino_boolean_text(s)": (
        "CASE WHEN s IS NULL OR lower(s) IN ('t', 'true', '1', 'f', 'false', '0') THEN s ELSE "
        "error('ZEROETL INVALID_CAST_ARGUMENT: Cannot cast ''' || s || ''' to BOOLEAN') END"
    ),
    "trino_boolean_try(s)": "CASE WHEN lower(s) IN ('t', 'true', '1', 'f', 'false', '0') THEN s END",
    "trino_timestamp_ms(x)": "make_timestamp(CAST(floor((epoch_us(x) + 500) / 1000.0) AS BIGINT) * 1000)",
    "trino_timestamp_show(x)": "strftime(x, '%Y-%m-%d %H:%M:%S.%g')",
    "trino_interval_show(x)": (
        "CASE WHEN datepart('month', x) + 12 * datepart('year', x) <> 0 "
        "THEN datepart('year', x) || '-' || datepart('month', x) "
        "ELSE (CASE WHEN epoch(x) < 0 THEN '-' ELSE '' END) || CAST(floor(abs(epoch(x)) / 86400) AS BIGINT) || ' ' || "
        "strftime(make_timestamp(CAST(abs(epoch(x)) * 1000000 AS BIGINT) % 86400000000), '%H:%M:%S.%g') END"
    ),
    "trino_zoned_show(x)": "strftime(x AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M:%S.%g') || ' UTC'",
    # ---- arithmetic
    "trino_nonzero(b)": f"CASE WHEN b = 0 THEN {_fail('DIVISION_BY_ZERO: Division by zero')} ELSE b END",
    "trino_nonzero_try(b)": "CASE WHEN b = 0 THEN NULL ELSE b END",
    "trino_double_divide(a, b)": (
        "CASE WHEN b = 0 THEN CASE WHEN a = 0 OR isnan(a) THEN CAST('NaN' AS DOUBLE) "
        "WHEN (a > 0) = (CAST(b AS VARCHAR) NOT LIKE '-%') THEN CAST('Infinity' AS DOUBLE) "
        "ELSE CAST('-Infinity' AS DOUBLE) END ELSE a / b END"
    ),
    # unscaled decimals as whole numbers; half away from zero
    "trino_unscaled(x)": "CAST(replace(CAST(x AS VARCHAR), '.', '') AS HUGEINT)",
    "trino_half_up(n, d)": (
        "CASE WHEN (n < 0) = (d < 0) THEN (2 * abs(n) + abs(d)) // (2 * abs(d)) "
        "ELSE -((2 * abs(n) + abs(d)) // (2 * abs(d))) END"
    ),
    # x / y as text of scale s; s1, s2 are their scales, k the zeros that the quotient's scale asks for. Exact where
    # 128 bits hold the whole numbers, by doubles beyond.
    "trino_quotient(x, y, s1, s2, k, s)": (
        "CASE WHEN abs(CAST(x AS DOUBLE)) * pow(10, s1 + k) < 5e37 AND abs(CAST(y AS DOUBLE)) * pow(10, s2) < 5e37 "
        "THEN CAST(trino_half_up(trino_unscaled(x) * CAST('1' || repeat('0', k) AS HUGEINT), trino_unscaled(y)) "
        "AS VARCHAR) || 'e-' || s ELSE CAST(round(CAST(x AS DOUBLE) / CAST(y AS DOUBLE), s) AS VARCHAR) END"
    ),
    # ---- arrays and maps
    "trino_item(a, i)": (
        f"CASE WHEN i = 0 THEN {_fail('INVALID_FUNCTION_ARGUMENT: SQL array indices start at 1')} "
        f"WHEN i < 0 THEN {_fail('INVALID_FUNCTION_ARGUMENT: Array subscript is negative')} "
        "WHEN i > len(a) THEN error('ZEROETL INVALID_FUNCTION_ARGUMENT: Array subscript must be less than or equal to "
        "array length: ' || i || ' > ' || len(a)) ELSE a[i] END"
    ),
    "trino_entry(m, k)": (
        "CASE WHEN m IS NULL OR k IS NULL OR map_contains(m, k) THEN m[k] ELSE "
        "error('ZEROETL INVALID_FUNCTION_ARGUMENT: Key not present in map: ' || k) END"
    ),
    "trino_json_scalar(j, p)": "CASE WHEN json_type(j, p) IN ('OBJECT', 'ARRAY') THEN NULL ELSE j ->> p END",
}
# Functions that only have another name: Trino's -> DuckDB's.
RENAMED = {"codepoint": "unicode", "arrays_overlap": "list_has_any", "zip": "list_zip", "arbitrary": "any_value"}


def install(connection: Any) -> None:
    """Create the macros in a DuckDB connection; those that use others come after them."""
    pending = dict(MACROS)
    done: set[str] = set()
    names = {signature: signature.partition("(")[0] for signature in MACROS}
    while pending:
        for signature, body in list(pending.items()):
            used = {name for name in names.values() if re.search(rf"\b{name}\(", body)}
            if used - {names[signature]} <= done:
                connection.execute(f"CREATE MACRO {signature} AS {body}")
                done.add(names[signature])
                del pending[signature]
