"""Expressions whose answer in Trino differs from DuckDB's without an error, with Trino's documented results."""

from __future__ import annotations

from typing import Any

import pytest

VALUES = [
    # integers and decimals (Trino docs, "Mathematical functions and operators", "Decimal functions and operators")
    ("1 / 2", "0"),
    ("7 / -2", "-3"),
    ("5 % 3", "2"),
    ("-5 % 3", "-2"),
    ("1e0 / 0", "Infinity"),
    ("-1e0 / 0", "-Infinity"),
    ("0e0 / 0", "NaN"),
    ("10.00 / 3", "3.33"),
    ("CAST(10 AS decimal(10,2)) / CAST(3 AS decimal(10,4))", "3.3333"),
    ("CAST(2 AS decimal(4,2)) / CAST(3 AS decimal(4,2))", "0.67"),
    ("CAST(-2 AS decimal(4,2)) / CAST(3 AS decimal(4,2))", "-0.67"),
    ("1.0 / 8", "0.1"),
    ("100.0 * 1 / 3", "33.3"),
    ("CAST(1 AS decimal) / 3", "0"),
    ("avg(x) FROM (VALUES CAST(1.00 AS decimal(10,2)), CAST(2.01 AS decimal(10,2))) t(x)", "1.51"),
    ("avg(x) FROM (VALUES 1, 2) t(x)", "1.5"),
    ("sum(x) FROM (VALUES 2000000000, 2000000000) t(x)", "4000000000"),
    ("sum(x) / 2 FROM (VALUES 1, 2) t(x)", "1"),
    ("sum(x) / count(*) FROM (VALUES 1.50, 2.00) t(x)", "1.75"),
    ("round(CAST('12.3456' AS decimal(10,4)), 2)", "12.3500"),
    ("round(2.5e0)", "3.0"),
    ("round(-2.5e0)", "-3.0"),
    ("TRY(1 / 0)", None),
    ("TRY(CAST('x' AS integer))", None),
    ("greatest(1, NULL)", None),
    ("approx_percentile(1.5, 0.5)", "1.5"),
    # casts ("Conversion functions")
    ("CAST('abcdef' AS varchar(3))", "abc"),
    ("CAST(123 AS varchar(3))", "123"),
    ("CAST('ab' AS char(4)) || '|'", "ab  |"),
    ("CAST(1.0E10 AS varchar)", "1.0E10"),
    ("CAST(12345678.5e0 AS varchar)", "1.23456785E7"),
    ("CAST(0.00012e0 AS varchar)", "1.2E-4"),
    ("CAST(1e0 AS varchar)", "1.0"),
    ("CAST(0.1e0 AS varchar)", "0.1"),
    ("CAST(true AS varchar)", "true"),
    ("CAST(2.5e0 AS integer)", "3"),
    ("CAST(-2.5e0 AS bigint)", "-3"),
    ("CAST(2.5 AS integer)", "3"),
    ("CAST('12.345' AS decimal(10,2))", "12.35"),
    ("CAST(1 AS decimal)", "1"),
    ("CAST(TIMESTAMP '2024-01-01 00:00:00' AS varchar)", "2024-01-01 00:00:00.000"),
    ("CAST('2024-01-01 10:00:00.123956' AS timestamp)", "2024-01-01 10:00:00.124"),
    ("CAST('2024-01-01' AS timestamp)", "2024-01-01 00:00:00.000"),
    ("CAST(TIMESTAMP '2024-01-01 10:00:00 UTC' AS varchar)", "2024-01-01 10:00:00.000 UTC"),
    ("CAST('abc' AS json)", '"abc"'),
    ("try_cast('1.5' AS integer)", None),
    ("try_cast(' 1' AS integer)", None),
    ("try_cast('2024-02-30' AS date)", None),
    ("try_cast('infinity' AS date)", None),
    ("try_cast('0044-03-15 BC' AS date)", None),
    ("try_cast('infinity' AS timestamp)", None),
    ("try_cast('2008-01-01 10:00:00+00' AS timestamp)", None),
    ("try_cast('NaN' AS decimal(10,2))", None),
    ("try_cast('yes' AS boolean)", None),
    ("CAST('NaN' AS double)", "NaN"),
    # text ("String functions", "Regular expression functions")
    ("substr('hello', 0, 2)", ""),
    ("substr('hello', -3, 2)", "ll"),
    ("substr('hello', -9, 2)", ""),
    ("substr('hello', 2)", "ello"),
    ("split_part('a,b', ',', 5)", None),
    ("split_part('a,b', ',', 2)", "b"),
    ("regexp_extract('abc', 'x')", None),
    ("regexp_extract('abc', '(b)(c)', 2)", "c"),
    ("regexp_replace('abc', '(b)', '[$1]')", "a[b]c"),
    ("regexp_replace('aXbX', 'X')", "ab"),
    ("concat('a', NULL)", None),
    ("'a' || NULL", None),
    ("length('日本')", "2"),
    ("json_extract_scalar('{\"a\": {\"b\": 1}}', '$.a.b')", "1"),
    ("json_extract_scalar('{\"a\": {\"b\": 1}}', '$.a')", None),
    # dates ("Date and time functions and operators")
    ("date_trunc('month', DATE '2024-01-15')", "2024-01-01"),
    ("date_trunc('hour', TIMESTAMP '2024-01-15 10:30:00')", "2024-01-15 10:00:00.000"),
    ("date_trunc('week', DATE '2024-01-21')", "2024-01-15"),
    ("date_add('month', 1, DATE '2024-01-31')", "2024-02-29"),
    ("DATE '2024-01-31' + INTERVAL '1' DAY", "2024-02-01"),
    ("DATE '2024-03-31' - INTERVAL '1' MONTH", "2024-02-29"),
    ("DATE '2024-03-01' - DATE '2024-01-01'", "60 00:00:00.000"),
    ("date_diff('month', DATE '2024-01-31', DATE '2024-02-01')", "0"),
    ("date_diff('hour', TIMESTAMP '2024-01-01 00:59:00', TIMESTAMP '2024-01-01 01:00:00')", "0"),
    ("date_diff('day', DATE '2024-01-01', DATE '2024-03-01')", "60"),
    ("day_of_week(DATE '2024-01-07')", "7"),
    ("week(DATE '2024-01-07')", "1"),
    ("date_format(TIMESTAMP '2024-01-07 13:04:05', '%Y-%m-%d %H:%i:%s')", "2024-01-07 13:04:05"),
    ("format_datetime(TIMESTAMP '2024-01-07 13:04:05', 'yyyy/MM/dd''T''HH:mm')", "2024/01/07T13:04"),
    ("date_parse('2024-01-07 13:04', '%Y-%m-%d %H:%i')", "2024-01-07 13:04:00.000"),
    ("from_unixtime(0)", "1970-01-01 00:00:00.000 UTC"),
    ("CAST(TIMESTAMP '2024-01-01 20:00:00' AT TIME ZONE 'Asia/Tokyo' AS date)", "2024-01-02"),
    ("hour(at_timezone(TIMESTAMP '2024-01-01 00:00:00 UTC', 'Asia/Tokyo'))", "9"),
    ("TIMESTAMP '2024-01-01 00:00:00 UTC' AT TIME ZONE 'UTC'", "2024-01-01 00:00:00.000 UTC"),
    ("CAST(at_timezone(TIMESTAMP '2024-01-01 00:00:00 UTC', 'UTC') AS timestamp)", "2024-01-01 00:00:00.000"),
    ("INTERVAL '1' DAY + INTERVAL '2' HOUR", "1 02:00:00.000"),
    ("INTERVAL '14' MONTH", "1-2"),
    # arrays, maps, rows
    ("ARRAY[1, 2][2]", "2"),
    ("element_at(ARRAY[1, 2], 5)", None),
    ("element_at(MAP(ARRAY['a'], ARRAY[1]), 'b')", None),
    ("ARRAY[1.5e0, NULL]", "[1.5, null]"),
    ("MAP(ARRAY['a', 'b'], ARRAY[1, 2])", "{a=1, b=2}"),
    ("CAST(ROW(1, 'x') AS ROW(a integer, b varchar))", "{a=1, b=x}"),
    ("X'4142'", "41 42"),
    ("map_agg(k, v) FROM (VALUES ('a', 1), ('b', 2)) t(k, v)", "{a=1, b=2}"),
    ("cardinality(ARRAY[1, 2])", "2"),
    ("transform(ARRAY[1, 2], x -> x / 2)", "[0, 1]"),
    ("reduce(ARRAY[1, 2], 0, (s, x) -> s + x, s -> s)", "3"),
    ("codepoint('A')", "65"),
    ("count_if(x > 1) FROM (VALUES 1, 2, 3) t(x)", "2"),
    ("NULL = NULL", None),
    ("NULL IS DISTINCT FROM 1", "true"),
]


@pytest.mark.parametrize(("expression", "expected"), VALUES, ids=[expression for expression, _ in VALUES])
def test_values(shared: Any, expression: str, expected: str | None) -> None:
    assert shared.value(expression) == expected


ROWS = [
    ("SELECT x FROM (VALUES 2, NULL, 1) t(x) ORDER BY x", ["1", "2", None]),
    ("SELECT x FROM (VALUES 2, NULL, 1) t(x) ORDER BY x DESC", ["2", "1", None]),
    ("SELECT x FROM (VALUES 2, NULL, 1) t(x) ORDER BY x DESC NULLS FIRST", [None, "2", "1"]),
    ("SELECT x FROM (VALUES 'b', 'B', 'a') t(x) ORDER BY 1", ["B", "a", "b"]),
    ("SELECT x FROM (VALUES 1, 2, 3) t(x) ORDER BY x OFFSET 1 LIMIT 1", ["2"]),
    ("SELECT x FROM (VALUES 1, 2, 3) t(x) ORDER BY x FETCH FIRST 2 ROWS ONLY", ["1", "2"]),
    ("SELECT y FROM (VALUES ARRAY[1, 2]) t(x) CROSS JOIN UNNEST(x) AS u(y) ORDER BY y", ["1", "2"]),
    ("SELECT date_trunc('month', d) FROM (VALUES DATE '2024-01-31') t(d) GROUP BY 1", ["2024-01-01"]),
    ("WITH a AS (SELECT 10.00 / 3 AS q), b AS (SELECT avg(q) AS r FROM a) SELECT r / 2 FROM b", ["1.67"]),
    (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3) SELECT x FROM n ORDER BY x",
        ["1", "2", "3"],
    ),
    ("SELECT avg(x) OVER (ORDER BY x) FROM (VALUES 1.0, 2.0) t(x) ORDER BY 1", ["1.0", "1.5"]),
    ("SELECT sum(x) OVER () FROM (VALUES 1, 2) t(x)", ["3", "3"]),
    ("SELECT x FROM (VALUES 1.0, 3.0) t(x) WHERE x > (SELECT avg(x) FROM (VALUES 1.0, 2.0) u(x))", ["3.0"]),
    ("SELECT k FROM (VALUES ('a', 1), ('b', 2)) t(k, v) GROUP BY k HAVING sum(v) / 2 = 0", ["a"]),
    ("SELECT DISTINCT x / 2 FROM (VALUES 2, 3) t(x)", ["1"]),
]


@pytest.mark.parametrize(("sql", "expected"), ROWS, ids=[sql for sql, _ in ROWS])
def test_rows(shared: Any, sql: str, expected: list[str | None]) -> None:
    assert [row[0] for row in shared.rows(sql)] == expected


FAILURES = [
    ("SELECT 1 / 0", "DIVISION_BY_ZERO: Division by zero"),
    ("SELECT 1.0 / 0", "DIVISION_BY_ZERO: Division by zero"),
    ("SELECT 5 % 0", "DIVISION_BY_ZERO"),
    ("SELECT CAST(12345 AS varchar(3))", "INVALID_CAST_ARGUMENT: Value 12345 cannot be represented as varchar"),
    ("SELECT CAST('1.5' AS integer)", "INVALID_CAST_ARGUMENT: Cannot cast '1.5' to INT"),
    ("SELECT CAST(x AS double) FROM (VALUES 'a') t(x)", "INVALID_CAST_ARGUMENT: Cannot cast 'a' to DOUBLE"),
    ("SELECT CAST(x AS date) FROM (VALUES 'a') t(x)", "INVALID_CAST_ARGUMENT: Value cannot be cast to date: a"),
    ("SELECT CAST('yes' AS boolean)", "INVALID_CAST_ARGUMENT: Cannot cast 'yes' to BOOLEAN"),
    ("SELECT DATE '2024-13-01'", "INVALID_CAST_ARGUMENT: Value cannot be cast to date: 2024-13-01"),
    ("SELECT CAST(99999999999 AS integer)", "NUMERIC_VALUE_OUT_OF_RANGE: Out of range for integer: 99999999999"),
    ("SELECT 2147483647 + 1", "NUMERIC_VALUE_OUT_OF_RANGE"),
    ("SELECT ARRAY[1, 2][3]", "INVALID_FUNCTION_ARGUMENT: Array subscript must be less than or equal to array length"),
    ("SELECT ARRAY[1, 2][0]", "INVALID_FUNCTION_ARGUMENT: SQL array indices start at 1"),
    ("SELECT MAP(ARRAY['a'], ARRAY[1])['z']", "INVALID_FUNCTION_ARGUMENT: Key not present in map: z"),
    ("SELECT split_part('a', ',', 0)", "INVALID_FUNCTION_ARGUMENT: Index must be greater than zero"),
    ("SELECT '1' = 1", r"TYPE_MISMATCH: line 1:\d+: Cannot apply operator: varchar\(1\) = integer"),
    (
        "SELECT x FROM (VALUES '2024-01-01') t(x) WHERE x >= DATE '2024-01-01'",
        "TYPE_MISMATCH: line 1:8: Cannot apply operator: varchar.* >= date",
    ),
    (
        "SELECT x FROM (VALUES 'a') t(x) WHERE x BETWEEN DATE '2024-01-01' AND DATE '2024-01-02'",
        "TYPE_MISMATCH: .*Cannot check if varchar is BETWEEN date and date",
    ),
    ("SELECT 1 WHERE 'a' IN (1, 2)", "TYPE_MISMATCH: .*All IN operands must be the same type"),
    ("SELECT 1 + 'a'", r"TYPE_MISMATCH: .*Cannot apply operator: integer \+ varchar\(1\)"),
    ("SELECT 1 || 'a'", "FUNCTION_NOT_FOUND: .*for function concat"),
    ("SELECT coalesce('a', 1)", "TYPE_MISMATCH: .*All COALESCE operands must be the same type"),
    ("SELECT CASE WHEN true THEN 1 ELSE 'a' END", "TYPE_MISMATCH: .*All CASE results must be the same type"),
    ("SELECT 1 LIKE 'a'", "TYPE_MISMATCH: .*Left side of LIKE expression must evaluate to a varchar"),
    (
        "SELECT sum(x) FROM (VALUES 'a') t(x)",
        r"FUNCTION_NOT_FOUND: line 1:8: Unexpected parameters \(varchar.*\) for function sum",
    ),
    ("SELECT year(x) FROM (VALUES 'a') t(x)", "FUNCTION_NOT_FOUND: line 1:8: .* for function year"),
    ("SELECT lower(1)", r"FUNCTION_NOT_FOUND: line 1:8: Unexpected parameters \(integer\) for function lower"),
    ("SELECT foo(1)", "FUNCTION_NOT_FOUND: line 1:8: Function 'foo' not registered"),
    (
        "SELECT 1 UNION ALL SELECT 'a'",
        "TYPE_MISMATCH: .*column 1 in UNION query has incompatible types: integer, varchar",
    ),
    ("SELECT 1, 2 UNION ALL SELECT 3", "TYPE_MISMATCH: .*UNION query has different number of fields: 2, 1"),
    ("SELECT x, count(*) FROM (VALUES 1) t(x)", "EXPRESSION_NOT_AGGREGATE: line 1:8: 'x' must be an aggregate"),
    ("SELECT y FROM (VALUES 1) t(x)", "COLUMN_NOT_FOUND: line 1:8: Column 'y' cannot be resolved"),
    ("SELECT x AS y FROM (VALUES 1) t(x) WHERE y = 1", "COLUMN_NOT_FOUND: .*Column 'y' cannot be resolved"),
    ("SELECT (SELECT x FROM (VALUES 1, 2) t(x))", "SUBQUERY_MULTIPLE_ROWS"),
    ("SELECT x FROM (VALUES 1) a(x), (VALUES 1) b(x)", "AMBIGUOUS_NAME: .*Column 'x' is ambiguous"),
    (
        "SELECT regexp_replace('a', 'a', x -> 'b')",
        "NOT_SUPPORTED: the embedded Athena does not implement regexp_replace",
    ),
    (
        "SELECT now() AT TIME ZONE 'Asia/Tokyo'",
        "NOT_SUPPORTED: .*a timestamp with the time zone Asia/Tokyo as a result",
    ),
    (
        "SELECT 1 UNION SELECT at_timezone(now(), 'Asia/Tokyo') AS x",
        "NOT_SUPPORTED: .*time zone Asia/Tokyo as a result",
    ),
    ("SELECT from_unixtime(0, 'Asia/Tokyo') AS x", "NOT_SUPPORTED: .*time zone Asia/Tokyo as a result"),
    ("SELECT format_datetime(now(), 'GG')", "NOT_SUPPORTED: .*the date pattern 'GG'"),
]


@pytest.mark.parametrize(("sql", "message"), FAILURES, ids=[sql for sql, _ in FAILURES])
def test_failures(shared: Any, sql: str, message: str) -> None:
    import re

    found = shared.fails(sql)
    assert re.match(message, found), found


def test_columns_have_trinos_names_and_types(shared: Any) -> None:
    sql = (
        "SELECT 1, 'a' AS Text, CAST(1 AS decimal(10,2)) AS d, true b, 1.5e0, ARRAY[1], REAL '1', NULL AS n, "
        "DATE '2024-01-01' AS dt, TIMESTAMP '2024-01-01 00:00:00' AS ts, CAST(ROW(1) AS ROW(x bigint)) AS r, "
        "sum(1) AS s, now() AS z, CAST(1 AS tinyint) AS t, 1 AS s"
    )
    query = shared.run(sql)
    info = shared.athena.get_query_results(QueryExecutionId=query["QueryExecutionId"])["ResultSet"]
    found = [(c["Name"], c["Type"], c["Precision"], c["Scale"]) for c in info["ResultSetMetadata"]["ColumnInfo"]]
    assert found == [
        ("_col0", "integer", 10, 0),
        ("Text", "varchar", 2147483647, 0),
        ("d", "decimal", 10, 2),
        ("b", "boolean", 0, 0),
        ("_col4", "double", 17, 0),
        ("_col5", "array", 0, 0),
        ("_col6", "float", 17, 0),
        ("n", "unknown", 0, 0),
        ("dt", "date", 0, 0),
        ("ts", "timestamp", 3, 0),
        ("r", "row", 0, 0),
        ("s", "bigint", 19, 0),
        ("z", "timestamp with time zone", 3, 0),
        ("t", "tinyint", 3, 0),
        ("s", "integer", 10, 0),
    ]
