"""Redshift's functions that DuckDB's SQL can say: macros, made once a namespace in a catalogue of their own."""

from __future__ import annotations

from zeroetl_dagster.local.warehouse.errors import RAISED
from zeroetl_dagster.local.warehouse.types import KINDS, NAMES

CATALOGUE = "_redshift"
_DAY_OF = "strpos('sumotuwethfrsa', lower(left(name, 2)))"


def _cases(subject: str, answers: dict[str, object], otherwise: str) -> str:
    whens = " ".join(f"WHEN '{word}' THEN {answer}" for word, answer in answers.items())
    return f"CASE {subject} {whens} ELSE {otherwise} END"


def _float_text(digits: int) -> str:
    return (
        "CASE WHEN isnan(x) THEN 'NaN' WHEN isinf(x) THEN CASE WHEN x > 0 THEN 'Infinity' ELSE '-Infinity' END "
        f"ELSE format('{{:.{digits}g}}', CAST(x AS DOUBLE)) END"
    )


_INTEGER = r"regexp_full_match(trim(s), '[+-]?\d+')"
# JSON without the space between its values; DuckDB's own json() would round long numbers.
_COMPACT = r"""regexp_replace(s, '("(?:[^"\\]|\\.)*")|\s+', '\1', 'g')"""
_WHOLE = "json_type({}) IN ('BIGINT', 'UBIGINT')"


def _of_super(operator: str, whole: str, strings: str = "") -> list[tuple[str, str]]:
    """Arithmetic of two SUPER values: of integers an integer, of other numbers one of 15 digits, otherwise NULL."""
    whole_a, whole_b = _WHOLE.format("a"), _WHOLE.format("b")
    a, b = (f"TRY_CAST(json_extract_string({one}, '$') AS {{}})" for one in "ab")
    divisor = f'{CATALOGUE}.main."_divisor"({{}})' if operator in "/%" else "{}"
    one, two = a.format("BIGINT"), divisor.format(b.format("BIGINT"))
    x, y = a.format("DOUBLE"), divisor.format(b.format("DOUBLE"))
    text = f'{CATALOGUE}.main."_float_text"({x} {operator} {y})'
    numbers = " AND ".join(f"({_WHOLE.format(j)} OR json_type({j}) = 'DOUBLE')" for j in "ab")
    return [
        (
            "a, b",
            f"CASE WHEN {whole_a} AND {whole_b} THEN CAST(CAST({one} {whole} {two} AS VARCHAR) AS JSON) WHEN {numbers} "
            f"THEN CAST(regexp_replace({text}, '^(-?\\d+)$', '\\1.0') AS JSON){strings} END",
        )
    ]


_JOINED = (
    " WHEN json_type(a) = 'VARCHAR' AND json_type(b) = 'VARCHAR' "
    "THEN to_json(json_extract_string(a, '$') || json_extract_string(b, '$'))"
)
_WORD = "trim(regexp_replace(lower(t), '\\(.*\\)', ''))"  # of a declared type, without its length
# Name to its bodies: parameters and DuckDB's SQL. Several differ in the number of arguments, or in their types.
MACROS: dict[str, list[tuple[str, str]]] = {
    # strings
    "len": [("s", "CAST(length(s) AS INTEGER)")],
    "octet_length": [("s", "CAST(strlen(s) AS INTEGER)")],
    "charindex": [("part, s", "CAST(strpos(s, part) AS INTEGER)")],
    "strpos": [("s, part", "CAST(strpos(s, part) AS INTEGER)")],
    "btrim": [("s", "trim(s, ' ')"), ("s, chars", "trim(s, chars)")],
    "ltrim": [("s", "ltrim(s, ' ')"), ("s, chars", "ltrim(s, chars)")],
    "rtrim": [("s", "rtrim(s, ' ')"), ("s, chars", "rtrim(s, chars)")],
    "lpad": [("s, n", "lpad(s, CAST(n AS INTEGER), ' ')"), ("s, n, fill", "lpad(s, CAST(n AS INTEGER), fill)")],
    "rpad": [("s, n", "rpad(s, CAST(n AS INTEGER), ' ')"), ("s, n, fill", "rpad(s, CAST(n AS INTEGER), fill)")],
    "substr": [
        ("s, start", "substring(CAST(s AS VARCHAR), greatest(start, 1))"),
        (
            "s, start, n",
            f"CASE WHEN n < 0 THEN error('{RAISED}22011:negative substring length not allowed') ELSE "
            "substring(CAST(s AS VARCHAR), greatest(start, 1), greatest(n + least(start - 1, 0), 0)) END",
        ),
    ],
    "initcap": [
        (
            "s",
            "array_to_string(list_transform(range(1, length(s) + 1), i -> CASE WHEN i = 1 OR NOT "
            r"regexp_matches(substring(s, i - 1, 1), '[\p{L}\p{N}]') THEN upper(substring(s, i, 1)) "
            "ELSE lower(substring(s, i, 1)) END), '')",
        )
    ],
    "quote_ident": [
        (
            "s",
            "CASE WHEN regexp_full_match(s, '[a-z_][a-z0-9_$]*') THEN s "
            "ELSE '\"' || replace(s, '\"', '\"\"') || '\"' END",
        )
    ],
    "quote_literal": [("s", "'''' || replace(replace(s, '\\', '\\\\'), '''', '''''') || ''''")],
    "strtol": [
        (
            "s, b",
            "list_reduce(list_transform(string_split(lower(s), ''), "
            "c -> CAST(strpos('0123456789abcdefghijklmnopqrstuvwxyz', c) - 1 AS BIGINT)), (a, d) -> a * b + d)",
        )
    ],
    "regexp_instr": [
        (
            "s, p",
            "CAST(CASE WHEN regexp_matches(s, p) THEN length(regexp_extract(s, '(?s)^(.*?)(?:' || p || ')', 1)) + 1 "
            "ELSE 0 END AS INTEGER)",
        )
    ],
    "_or_empty": [("found, s", "CASE WHEN s IS NOT NULL THEN coalesce(found, '') END")],
    "_text": [("s", "CASE WHEN suffix(s, ' ') THEN rtrim(s, ' ') ELSE s END")],  # much faster than rtrim alone
    "_cut": [
        (
            "s, n",
            "CASE WHEN strlen(s) <= n THEN s ELSE left(s, list_max(list_filter(range(0, n + 1), "
            "i -> strlen(left(s, i)) <= n))) END",
        )
    ],
    # a float's digits are PostgreSQL's: 15, and 6 of a REAL
    "_float_text": [("x FLOAT", _float_text(6)), ("x DOUBLE", _float_text(15))],
    "_integer_text": [
        (
            "s",
            f"CASE WHEN s IS NULL OR {_INTEGER} THEN s "
            f"""ELSE error('{RAISED}22P02:invalid input syntax for integer: "' || s || '"') END""",
        )
    ],
    "_integer_or_null": [("s", f"CASE WHEN {_INTEGER} THEN s END")],
    "split_part": [
        (
            "s, d, n",
            f"CASE WHEN n < 1 THEN error('{RAISED}22023:field position must be greater than zero') "
            "ELSE split_part(s, d, n) END",
        )
    ],
    "_fits": [
        (
            "s, n, name",
            "CASE WHEN s IS NULL OR strlen(s) <= n THEN s WHEN strlen(rtrim(s, ' ')) <= n THEN left(s, n) "
            f"ELSE error('{RAISED}22001:value too long for type ' || name) END",
        )
    ],
    # dates
    "add_months": [
        (
            "d, n",
            "CASE WHEN CAST(d AS DATE) = last_day(CAST(d AS DATE)) THEN CAST(last_day(CAST(CAST(d AS DATE) + to_months("
            "CAST(n AS INTEGER)) AS DATE)) AS TIMESTAMP) + (CAST(d AS TIMESTAMP) - date_trunc('day', CAST(d AS "
            "TIMESTAMP))) ELSE CAST(d AS TIMESTAMP) + to_months(CAST(n AS INTEGER)) END",
        )
    ],
    "last_day": [("d", "last_day(CAST(d AS DATE))")],
    "months_between": [
        (
            "a, b",
            "CAST((year(a) - year(b)) * 12 + month(a) - month(b) AS DOUBLE) + CASE WHEN day(a) = day(b) OR (CAST(a AS "
            "DATE) = last_day(a) AND CAST(b AS DATE) = last_day(b)) THEN 0e0 ELSE CAST(day(a) - day(b) AS DOUBLE) / 31 "
            "END",
        )
    ],
    "next_day": [
        (
            "d, name",
            f"CASE WHEN {_DAY_OF} = 0 THEN error('{RAISED}22023:not a day of the week: ' || name) ELSE CAST(CAST(d AS "
            f"DATE) + CAST(({_DAY_OF} // 2 - dayofweek(CAST(d AS DATE)) + 6) % 7 + 1 AS INTEGER) AS DATE) END",
        )
    ],
    "date_cmp": [("a, b", "CAST(sign(date_diff('day', CAST(b AS DATE), CAST(a AS DATE))) AS INTEGER)")],
    "timestamp_cmp": [
        ("a, b", "CAST(sign(date_diff('microsecond', CAST(b AS TIMESTAMP), CAST(a AS TIMESTAMP))) AS INTEGER)")
    ],
    "date_part_year": [("d", "CAST(year(CAST(d AS DATE)) AS INTEGER)")],
    "getdate": [("", "date_trunc('second', CAST(now() AS TIMESTAMP))")],
    "sysdate": [("", "CAST(now() AS TIMESTAMP)")],
    "now": [("", "now()")],
    "date_trunc": [
        ("part, d TIMESTAMPTZ", "date_trunc(part, d)"),
        ("part, d TIMESTAMP", "CAST(date_trunc(part, d) AS TIMESTAMP)"),
        ("part, d DATE", "CAST(date_trunc(part, CAST(d AS TIMESTAMP)) AS TIMESTAMP)"),
        ("part, d VARCHAR", "CAST(date_trunc(part, CAST(d AS TIMESTAMP)) AS TIMESTAMP)"),
        ("part, d INTERVAL", "date_trunc(part, d)"),
    ],
    "convert_timezone": [
        ("target, t TIMESTAMPTZ", "t AT TIME ZONE target"),
        ("target, t TIMESTAMP", "(t AT TIME ZONE 'UTC') AT TIME ZONE target"),
        ("target, t VARCHAR", "(CAST(t AS TIMESTAMP) AT TIME ZONE 'UTC') AT TIME ZONE target"),
        ("source, target, t", "(CAST(t AS TIMESTAMP) AT TIME ZONE source) AT TIME ZONE target"),
    ],
    # JSON and SUPER
    "_json": [("s", f"CAST(CASE WHEN json_valid(s) THEN {_COMPACT} ELSE s END AS JSON)")],
    "_json_or_null": [("s", f"CASE WHEN json_valid(s) THEN CAST({_COMPACT} AS JSON) END")],
    "is_valid_json": [("s", "CASE WHEN json_valid(s) THEN json_type(s) = 'OBJECT' ELSE false END")],
    "is_valid_json_array": [("s", "CASE WHEN json_valid(s) THEN json_type(s) = 'ARRAY' ELSE false END")],
    "can_json_parse": [("s", "json_valid(s)")],
    "json_serialize": [("j", "CAST(j AS VARCHAR)")],
    "json_typeof": [
        (
            "j",
            "CASE json_type(j) WHEN 'OBJECT' THEN 'object' WHEN 'ARRAY' THEN 'array' WHEN 'VARCHAR' THEN 'string' "
            "WHEN 'BOOLEAN' THEN 'boolean' WHEN 'NULL' THEN 'null' ELSE 'number' END",
        )
    ],
    "get_array_length": [("j", "CASE WHEN json_type(j) = 'ARRAY' THEN CAST(json_array_length(j) AS INTEGER) END")],
    "is_array": [("j", "coalesce(json_type(j) = 'ARRAY', false)")],
    "is_object": [("j", "coalesce(json_type(j) = 'OBJECT', false)")],
    "is_scalar": [("j", "coalesce(json_type(j) NOT IN ('ARRAY', 'OBJECT', 'NULL'), false)")],
    "is_varchar": [("j", "coalesce(json_type(j) = 'VARCHAR', false)")],
    "is_boolean": [("j", "coalesce(json_type(j) = 'BOOLEAN', false)")],
    "is_integer": [("j", "coalesce(json_type(j) IN ('UBIGINT', 'BIGINT'), false)")],
    # arithmetic: DuckDB answers NULL where Redshift raises
    "_divisor": [("b", f"CASE WHEN b = 0 THEN error('{RAISED}22012:Divide by zero') ELSE b END")],
    "_super_add": _of_super("+", "+", _JOINED),
    "_super_sub": _of_super("-", "-"),
    "_super_mul": _of_super("*", "*"),
    "_super_div": _of_super("/", "//"),
    "_super_mod": _of_super("%", "%"),
    # the catalogue's own: parts of a declared type
    "_type_name": [("t", _cases(_WORD, {word: f"'{name}'" for word, name in NAMES.items()}, _WORD))],
    "_type_size": [("t", r"TRY_CAST(regexp_extract(t, '\((\d+)', 1) AS INTEGER)")],
    "_type_scale": [("t", r"TRY_CAST(regexp_extract(t, ',\s*(\d+)', 1) AS INTEGER)")],
    "_type_oid": [("name", _cases("name", {name: oid for name, (oid, _, _) in KINDS.items()}, "1043"))],
    "_type_width": [("name", _cases("name", {name: width for name, (_, width, _) in KINDS.items()}, "-1"))],
    "format_type": [
        (
            "oid, modifier",
            _cases("CAST(oid AS VARCHAR)", {str(oid): f"'{name}'" for name, (oid, _, _) in KINDS.items()}, "'-'")
            + " || CASE WHEN modifier IS NULL OR modifier < 4 THEN '' "
            "WHEN oid = 1700 THEN '(' || ((modifier - 4) >> 16) || ',' || ((modifier - 4) & 65535) || ')' WHEN oid "
            "IN (1042, 1043) THEN '(' || (modifier - 4) || ')' "
            "ELSE '' END",
        )
    ],
    "array_to_string": [("texts, separator", "CAST(texts AS VARCHAR)")],  # of access lists, which are not kept as lists
    "pg_table_is_visible": [("oid", "true")],
    "pg_type_is_visible": [("oid", "true")],
    "pg_function_is_visible": [("oid", "true")],
    "pg_get_expr": [("code, oid", "CAST(code AS VARCHAR)"), ("code, oid, pretty", "CAST(code AS VARCHAR)")],
    "format_encoding": [("code", "CASE code WHEN 0 THEN 'none' ELSE 'az64' END")],
}


def qualified(name: str) -> str:
    return f'{CATALOGUE}.main."{name}"'


def statements() -> list[str]:
    """Those that make the macros, in a catalogue that is attached already."""
    made = []
    for name, bodies in MACROS.items():
        overloads = ", ".join(f"({parameters}) AS {body}" for parameters, body in bodies)
        made.append(f"CREATE OR REPLACE MACRO {qualified(name)}{overloads}")
    return made
