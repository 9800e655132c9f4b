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
    "trino_has_null(a)": "len(a) <> list_count(a)",
    "trino_contains(a, x)": (
        "CASE WHEN a IS NULL OR x IS NULL THEN NULL WHEN list_contains(a, x) THEN true "
        "WHEN trino_has_null(a) THEN NULL ELSE false END"
    ),
    "trino_array_max(a)": "CASE WHEN NOT trino_has_null(a) THEN list_max(a) END",
    "trino_array_min(a)": "CASE WHEN NOT trino_has_null(a) THEN list_min(a) END",
    "trino_array_position(a, x)": (
        "CASE WHEN a IS NOT NULL AND x IS NOT NULL THEN CAST(coalesce(list_position(a, x), 0) AS BIGINT) END"
    ),
    "trino_array_remove(a, x)": ("CASE WHEN x IS NOT NULL THEN list_filter(a, lambda e: e IS DISTINCT FROM x) END"),
    # the first of equal elements, in their order
    "trino_distinct(a)": "list_filter(a, lambda e, i: list_position(a, e) = i)",
    "trino_union(a, b)": "CASE WHEN a IS NOT NULL AND b IS NOT NULL THEN trino_distinct(list_concat(a, b)) END",
    "trino_except(a, b)": (
        "CASE WHEN b IS NOT NULL THEN list_filter(trino_distinct(a), lambda e: list_position(b, e) IS NULL) END"
    ),
    "trino_intersect(a, b)": (
        "CASE WHEN b IS NOT NULL THEN list_filter(trino_distinct(a), lambda e: list_position(b, e) IS NOT NULL) END"
    ),
    "trino_repeat(x, n)": "list_transform(range(n), lambda zeroetl_i: x)",
    "trino_slice(a, s, n)": (
        f"CASE WHEN s = 0 THEN {_fail('INVALID_FUNCTION_ARGUMENT: SQL array indices start at 1')} "
        f"WHEN n < 0 THEN {_fail('INVALID_FUNCTION_ARGUMENT: length must be greater than or equal to 0')} "
        "WHEN n = 0 OR -s > len(a) THEN a[2:1] WHEN s > 0 THEN a[s:s + n - 1] "
        "ELSE a[len(a) + s + 1:len(a) + s + n] END"
    ),
    "trino_trim_array(a, n)": (
        f"CASE WHEN n < 0 THEN {_fail('INVALID_FUNCTION_ARGUMENT: size must not be negative')} "
        f"WHEN n > len(a) THEN {_fail('INVALID_FUNCTION_ARGUMENT: size must not exceed array cardinality')} "
        "WHEN n = len(a) THEN a[2:1] ELSE a[1:len(a) - n] END"
    ),
    "trino_sequence(a, b)": "CASE WHEN b >= a THEN generate_series(a, b) ELSE generate_series(a, b, -1) END",
    "trino_sequence3(a, b, s)": (
        "CASE WHEN s = 0 OR (b > a AND s < 0) OR (b < a AND s > 0) THEN error('ZEROETL INVALID_FUNCTION_ARGUMENT: "
        "sequence stop value should be greater than or equal to start value if step is greater than zero otherwise "
        "stop should be less than or equal to start') ELSE generate_series(a, b, s) END"
    ),
    "trino_dates3(a, b, s)": (
        "list_transform(generate_series(CAST(a AS TIMESTAMP), CAST(b AS TIMESTAMP), s), lambda e: CAST(e AS DATE))"
    ),
    "trino_dates(a, b)": "trino_dates3(a, b, CASE WHEN b >= a THEN INTERVAL 1 DAY ELSE -INTERVAL 1 DAY END)",
    "trino_any_match(l)": (
        "CASE WHEN l IS NULL THEN NULL WHEN list_contains(l, true) THEN true WHEN trino_has_null(l) THEN NULL "
        "ELSE false END"
    ),
    "trino_all_match(l)": (
        "CASE WHEN l IS NULL THEN NULL WHEN list_contains(l, false) THEN false WHEN trino_has_null(l) THEN NULL "
        "ELSE true END"
    ),
    "trino_none_match(l)": "NOT trino_any_match(l)",
    # ---- JSON: what is no JSON has no parts
    "trino_json_scalar(j, p)": (
        "CASE WHEN NOT json_valid(j) OR json_type(j, p) IN ('OBJECT', 'ARRAY') THEN NULL ELSE j ->> p END"
    ),
    "trino_json_extract(j, p)": "CASE WHEN json_valid(j) THEN json_extract(j, p) END",
    "trino_json_array_get(j, i)": (
        "CASE WHEN json_valid(j) THEN json_extract(j, '$[' || CASE WHEN i < 0 THEN '#' ELSE '' END || i || ']') END"
    ),
    "trino_json_size(j, p)": (
        "CASE WHEN NOT json_valid(j) THEN NULL "
        "WHEN json_type(j, p) = 'OBJECT' THEN CAST(len(json_keys(j, p)) AS BIGINT) "
        "WHEN json_type(j, p) = 'ARRAY' THEN CAST(json_array_length(j, p) AS BIGINT) "
        "WHEN json_type(j, p) IS NOT NULL THEN 0 END"
    ),
    "trino_is_json_scalar(j)": "json_type(j) NOT IN ('OBJECT', 'ARRAY')",
    # ---- more text
    "trino_strpos(s, t, n)": (
        f"CASE WHEN n <= 0 THEN {_fail('INVALID_FUNCTION_ARGUMENT: instance must be a positive number.')} "
        "WHEN len(string_split(s, t)) > n THEN CAST(length(array_to_string(string_split(s, t)[1:n], t)) + 1 AS BIGINT) "
        "ELSE 0 END"
    ),
    "trino_split(s, d, n)": (
        f"CASE WHEN n <= 0 THEN {_fail('INVALID_FUNCTION_ARGUMENT: Limit must be positive')} "
        "WHEN len(string_split(s, d)) <= n THEN string_split(s, d) ELSE "
        "list_append(string_split(s, d)[1:n - 1], array_to_string(string_split(s, d)[n:], d)) END"
    ),
    "trino_split_to_map(s, d, k)": (
        "map_from_entries(list_transform(string_split(s, d), lambda e: row(split_part(e, k, 1), split_part(e, k, 2))))"
    ),
    "trino_concat_ws_array(s, a)": "array_to_string(list_filter(a, lambda e: e IS NOT NULL), s)",
    "trino_to_base(n, b)": "lower(to_base(n, b))",
    "trino_url_encode(s)": "replace(replace(replace(url_encode(s), '%20', '+'), '~', '%7E'), '%2A', '*')",
    "trino_url_decode(s)": "url_decode(replace(s, '+', ' '))",
    "trino_url_protocol(u)": "regexp_extract(u, '^([A-Za-z][A-Za-z0-9+.-]*):', 1)",
    "trino_url_authority(u)": "regexp_extract(u, '^(?:[A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#]*)', 1)",
    "trino_url_host(u)": "regexp_extract(trino_url_authority(u), '^(?:[^@]*@)?([^:]*)', 1)",
    "trino_url_port(u)": (
        "TRY_CAST(regexp_extract(trino_url_authority(u), '^(?:[^@]*@)?[^:]*:([0-9]+)$', 1) AS BIGINT)"
    ),
    "trino_url_path(u)": "regexp_extract(u, '^(?:[A-Za-z][A-Za-z0-9+.-]*:)?(?://[^/?#]*)?([^?#]*)', 1)",
    "trino_url_query(u)": "regexp_extract(u, '^[^?#]*\\?([^#]*)', 1)",
    "trino_url_fragment(u)": "regexp_extract(u, '#(.*)$', 1)",
    "trino_url_parameter(u, n)": (
        "trino_url_decode(list_transform(list_filter(string_split(trino_url_query(u), '&'), "
        "lambda e: split_part(e, '=', 1) = n), lambda e: substr(e, length(n) + 2))[1])"
    ),
    # ---- more numbers and times
    "trino_cbrt(x)": "CASE WHEN pow(round(cbrt(x)), 3) = x THEN round(cbrt(x)) ELSE cbrt(x) END",
    "trino_random(a, b)": "CAST(floor(a + random() * (b - a)) AS BIGINT)",
    "trino_width_bucket(x, a, b, n)": (
        "CASE WHEN a < b THEN CASE WHEN x < a THEN 0 WHEN x >= b THEN n + 1 "
        "ELSE CAST(floor((x - a) * CAST(n AS DOUBLE) / CAST(b - a AS DOUBLE)) AS BIGINT) + 1 END "
        "ELSE CASE WHEN x > a THEN 0 WHEN x <= b THEN n + 1 "
        "ELSE CAST(floor((a - x) * CAST(n AS DOUBLE) / CAST(a - b AS DOUBLE)) AS BIGINT) + 1 END END"
    ),
    "trino_millisecond(x)": "datepart('millisecond', x) % 1000",
    "trino_time_show(x)": "strftime(CAST('1970-01-01' AS DATE) + x, '%H:%M:%S.%g')",
}


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
