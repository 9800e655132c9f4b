"""Trino's functions, and what a statement may hold around them, with the results of Trino's documentation."""

from __future__ import annotations

import re
from typing import Any

import pytest

VALUES: list[tuple[str, str | None]] = [
    ("cbrt(27)", "3.0"),
    ("truncate(1.789, 1)", "1.700"),
    ("sign(-3.5e0)", "-1.0"),
    ("width_bucket(5.0, 0.0, 10.0, 5)", "3"),
    ("to_base(255, 16)", "ff"),
    ("bit_count(7, 64)", "3"),
    ("is_nan(nan())", "true"),
    ("is_finite(1e0)", "true"),
    ("is_infinite(infinity())", "true"),
    ("e()", "2.718281828459045"),
    ("format('%s=%d', 'a', 1)", "a=1"),
    ("format('%.2f', 3.14159e0)", "3.14"),
    ("format('%05d', 42)", "00042"),
    ("format('%,d', 1234567)", "1,234,567"),
    ("typeof(1)", "integer"),
    ("typeof('a')", "varchar(1)"),
    ("typeof(1.5)", "decimal(2,1)"),
    ("typeof(1e0)", "double"),
    ("typeof(DATE '2024-01-01')", "date"),
    ("typeof(now())", "timestamp(3) with time zone"),
    ("strpos('abcabc','c',2)", "6"),
    ("concat_ws(',', 'a', NULL, 'b')", "a,b"),
    ("concat_ws(',', ARRAY['a', NULL, 'b'])", "a,b"),
    ("ARRAY[1] || 2", "[1, 2]"),
    ("1 || ARRAY[2]", "[1, 2]"),
    ("split('a,b,c', ',', 2)", "[a, b,c]"),
    ("split_to_map('a=1,b=2', ',', '=')", "{a=1, b=2}"),
    ("hamming_distance('karolin','kathrin')", "3"),
    ("normalize('é')", "é"),
    ("url_extract_host('http://a.com:80/x?y=1')", "a.com"),
    ("url_extract_parameter('http://a.com/x?y=1&z=2', 'z')", "2"),
    ("url_extract_path('http://a.com/x/y?z')", "/x/y"),
    ("url_encode('a b&c')", "a+b%26c"),
    ("url_decode('a+b%26c')", "a b&c"),
    ("to_hex(md5(to_utf8('a')))", "0CC175B9C0F1B6A831C399E269772661"),
    ("to_hex(sha1(to_utf8('a')))", "86F7E437FAA5A7FCE15D1DDCB9EAEAEA377667B8"),
    ("to_hex(sha256(to_utf8('a')))", "CA978112CA1BBDCAFAC231B39A23DC4DA786EFF8147C4E72B9807785AFEE48BB"),
    ("date_format(DATE '2024-01-07', '%Y-%m')", "2024-01"),
    ("date_format(TIMESTAMP '2024-01-07 13:04:05', '%W %M %e %y')", "Sunday January 7 24"),
    ("date_format(TIMESTAMP '2024-01-07 13:04:05', '%h:%i %p')", "01:04 PM"),
    ("date_format(TIMESTAMP '2024-01-07 13:04:05', '%a %b %c %d')", "Sun Jan 1 07"),
    ("date_format(TIMESTAMP '2024-01-07 13:04:05', '%k %l %H')", "13 1 13"),
    ("date_format(TIMESTAMP '2024-01-07 13:04:05', '%T')", "13:04:05"),
    ("date_format(TIMESTAMP '2024-01-07 13:04:05', '%r')", "01:04:05 PM"),
    ("date_format(TIMESTAMP '2024-01-07 13:04:05.123', '%f')", "123000"),
    ("date_format(TIMESTAMP '2024-01-07 13:04:05', '%j %v %x')", "007 01 2024"),
    ("date_format(TIMESTAMP '2024-01-07 13:04:05', '%s%%')", "05%"),
    ("date_parse('Jan 5 2024', '%b %e %Y')", "2024-01-05 00:00:00.000"),
    ("to_iso8601(DATE '2024-01-01')", "2024-01-01"),
    ("to_iso8601(TIMESTAMP '2024-01-01 10:00:00')", "2024-01-01T10:00:00.000"),
    ("yow(DATE '2023-01-01')", "2022"),
    ("millisecond(TIMESTAMP '2024-01-01 13:14:15.678')", "678"),
    ("extract(day_of_week FROM DATE '2024-01-07')", "7"),
    ("extract(dow FROM DATE '2024-01-07')", "7"),
    ("CAST('12:34:56' AS time)", "12:34:56.000"),
    ("TIME '01:02:03'", "01:02:03.000"),
    ("every(x > 1) FROM (VALUES 1,2) t(x)", "false"),
    ("histogram(x) FROM (VALUES 'a') t(x)", "{a=1}"),
    ("histogram(x) FROM (VALUES 1,1) t(x)", "{1=2}"),
    ("max(x) FROM (VALUES nan(), 1e0) t(x)", "NaN"),
    ("min(x) FROM (VALUES nan(), 1e0) t(x)", "1.0"),
    ("nan() = nan()", "false"),
    ("nan() > 1e0", "false"),
    ("nan() < 1e0", "false"),
    ("nan() <> nan()", "true"),
    ("cardinality(MAP(ARRAY['a'],ARRAY[1]))", "1"),
    ("contains(ARRAY[1,2],2)", "true"),
    ("contains(ARRAY[1,NULL],2)", None),
    ("array_max(ARRAY[1,3,2])", "3"),
    ("array_max(ARRAY[1,NULL])", None),
    ("array_join(ARRAY['a',NULL,'b'], ',')", "a,b"),
    ("array_join(ARRAY['a',NULL,'b'], ',', 'x')", "a,x,b"),
    ("array_join(ARRAY[1,2], '-')", "1-2"),
    ("array_position(ARRAY['a','b'],'b')", "2"),
    ("array_position(ARRAY['a','b'],'z')", "0"),
    ("array_remove(ARRAY[1,2,1],1)", "[2]"),
    ("array_intersect(ARRAY[1,2],ARRAY[2])", "[2]"),
    ("array_union(ARRAY[1],ARRAY[1])", "[1]"),
    ("array_except(ARRAY[1,2],ARRAY[2])", "[1]"),
    ("sequence(1,5)", "[1, 2, 3, 4, 5]"),
    ("sequence(5,1)", "[5, 4, 3, 2, 1]"),
    ("sequence(1,5,2)", "[1, 3, 5]"),
    ("sequence(DATE '2024-01-01', DATE '2024-01-03')", "[2024-01-01, 2024-01-02, 2024-01-03]"),
    ("sequence(DATE '2024-01-01', DATE '2024-03-01', INTERVAL '1' MONTH)", "[2024-01-01, 2024-02-01, 2024-03-01]"),
    ("repeat('a', 3)", "[a, a, a]"),
    ("reverse(ARRAY[1,2])", "[2, 1]"),
    ("slice(ARRAY[1,2,3,4],2,2)", "[2, 3]"),
    ("slice(ARRAY[1,2,3,4],-2,2)", "[3, 4]"),
    ("trim_array(ARRAY[1,2,3], 1)", "[1, 2]"),
    ("zip_with(ARRAY[1,2],ARRAY[3,4],(x,y) -> x+y)", "[4, 6]"),
    ("zip(ARRAY[1,2],ARRAY['a','b'])", "[{field0=1, field1=a}, {field0=2, field1=b}]"),
    ("reduce(ARRAY[1,2,3], 0, (s,x) -> s+x, s -> s * 10)", "60"),
    ("any_match(ARRAY[1,2], x -> x > 1)", "true"),
    ("all_match(ARRAY[1,2], x -> x > 1)", "false"),
    ("none_match(ARRAY[1,2], x -> x > 5)", "true"),
    ("map_entries(MAP(ARRAY['a'],ARRAY[1]))", "[{field0=a, field1=1}]"),
    ("map_filter(MAP(ARRAY['a','b'],ARRAY[1,2]), (k,v) -> v > 1)", "{b=2}"),
    ("transform_values(MAP(ARRAY['a'],ARRAY[1]), (k,v) -> v + 1)", "{a=2}"),
    ("transform_keys(MAP(ARRAY['a'],ARRAY[1]), (k,v) -> k || 'x')", "{ax=1}"),
    ("json_extract_scalar('not json', '$.a')", None),
    ('json_array_get(\'["a","b"]\', 1)', '"b"'),
    ('json_size(\'{"a":{"b":1,"c":2}}\', \'$.a\')', "2"),
    ("is_json_scalar('1')", "true"),
    ("current_timezone()", "UTC"),
    ("random(5) < 5", "true"),
    ("DECIMAL '1.50' + 1", "2.50"),
    ("DECIMAL '10' / 4", "3"),
    ("DECIMAL '1' / 3 * 3", "0"),
    ("date_format(from_unixtime(0) AT TIME ZONE 'Asia/Tokyo', '%H')", "09"),
    # NULL arguments, elements and results
    ("array_remove(ARRAY[1, NULL, 2], 1)", "[null, 2]"),
    ("array_distinct(ARRAY[3, 1, NULL, 3, NULL])", "[3, 1, null]"),
    ("array_join(ARRAY[1e7, 2.5e0], ',')", "1.0E7,2.5"),
    ("any_match(ARRAY[1, NULL], x -> x > 5)", None),
    ("all_match(ARRAY[], x -> true)", "true"),
    ("concat_ws(',', 'a', NULL)", "a"),
    ("repeat(NULL, 2)", "[null, null]"),
    ("slice(ARRAY[1, 2, 3], -5, 2)", "[]"),
    ("element_at(split_to_map('a=1', ',', '='), 'b')", None),
    ("map_filter(MAP(ARRAY['a'], ARRAY[1.00]), (k, v) -> v / 3 = 0.33)", "{a=1.00}"),
    ("transform(ARRAY[ARRAY[1.00]], x -> transform(x, y -> y / 3))", "[[0.33]]"),
    ("reduce(ARRAY[1, 2], CAST(0 AS decimal(10,2)), (s, x) -> s + x, s -> s / 2)", "1.50"),
    # whole numbers stay whole
    ("floor(7) / 2", "3"),
    ("ceil(7) / 2", "3"),
    ("round(7) / 2", "3"),
    ("typeof(sign(2))", "integer"),
    ("typeof(bitwise_and(1, 2))", "bigint"),
    ("length(X'4142')", "2"),
    # an export's numbers are text: NaN among them
    ("count_if(x > 1) FROM (VALUES CAST('NaN' AS double), 2e0) t(x)", "1"),
    ("count_if(x <> x) FROM (VALUES CAST('NaN' AS double), 2e0) t(x)", "1"),
    ("count(*) FROM (VALUES nan()) a(x) JOIN (VALUES nan()) b(y) ON x = y", "0"),
]


@pytest.mark.parametrize(("expression", "expected"), VALUES, ids=[expression for expression, _ in VALUES])
def test_values(shared: Any, expression: str, expected: str | None) -> None:
    assert shared.value(expression) == expected


ROWS: list[tuple[str, list[tuple[str | None, ...]]]] = [
    (
        "SELECT k, v FROM UNNEST(MAP(ARRAY['a', 'b'], ARRAY[1, 2])) AS u(k, v) ORDER BY k",
        [("a", "1"), ("b", "2")],
    ),
    (
        "SELECT a, b, o FROM UNNEST(ARRAY[1, 2], ARRAY['x', 'y', 'z']) WITH ORDINALITY AS u(a, b, o) ORDER BY o",
        [("1", "x", "1"), ("2", "y", "2"), (None, "z", "3")],
    ),
    (
        "SELECT id, a, b FROM (VALUES (7, ARRAY[ROW(1, 'x')])) t(id, r) CROSS JOIN UNNEST(r) AS u(a, b)",
        [("7", "1", "x")],
    ),
    (
        "SELECT id, x FROM (VALUES (1, ARRAY[5]), (2, NULL)) t(id, a) LEFT JOIN UNNEST(a) AS u(x) ON true ORDER BY id",
        [("1", "5"), ("2", None)],
    ),
    ("SELECT sum(x / 2) FROM UNNEST(sequence(1, 3)) AS u(x)", [("2",)]),
    ("SELECT x FROM UNNEST(split('a,b', ',')) AS u(x) ORDER BY x", [("a",), ("b",)]),
    ("SELECT x.a.b FROM (VALUES CAST(ROW(ROW(2)) AS ROW(a ROW(b integer)))) t(x)", [("2",)]),
    ("SELECT t.x.a FROM (VALUES CAST(ROW(3) AS ROW(a integer))) t(x)", [("3",)]),
    ("SELECT r[2] FROM (SELECT ROW(5, 6) AS r)", [("6",)]),
    # types of a query around, and of a lambda's variables
    (
        "SELECT x FROM (VALUES 1.00) t(x) WHERE EXISTS (SELECT 1 FROM (VALUES 3) u(y) WHERE t.x / u.y = 0.33)",
        [("1.00",)],
    ),
    ("SELECT (SELECT max(t.x / u.y) FROM (VALUES 3) u(y)) FROM (VALUES 1.00) t(x)", [("0.33",)]),
    ("SELECT transform(ARRAY[1.00], x -> x / 3)", [("[0.33]",)]),
    (
        "WITH RECURSIVE n(i, v) AS (SELECT 1, CAST(100 AS decimal(10,2)) UNION ALL SELECT i + 1, "
        "CAST(v / 3 AS decimal(10,2)) FROM n WHERE i < 3) SELECT i, v FROM n ORDER BY i",
        [("1", "100.00"), ("2", "33.33"), ("3", "11.11")],
    ),
    ("SELECT transform(ARRAY[DATE '2024-01-31'], x -> date_trunc('month', x))", [("[2024-01-01]",)]),
    ("SELECT transform(ARRAY[date_trunc('month', DATE '2024-01-31')], x -> CAST(x AS varchar))", [("[2024-01-01]",)]),
    ("SELECT transform(ARRAY[1e7], x -> CAST(x AS varchar))", [("[1.0E7]",)]),
]


@pytest.mark.parametrize(("sql", "expected"), ROWS, ids=[sql for sql, _ in ROWS])
def test_rows(shared: Any, sql: str, expected: list[tuple[str | None, ...]]) -> None:
    assert shared.rows(sql) == expected


FAILURES = [
    *(
        (f"SELECT {call}", f"FUNCTION_NOT_FOUND: line 1:8: Function '{call.partition('(')[0]}' not registered")
        for call in (
            "len('a')", "nvl(1, 2)", "ifnull(1, 2)", "left('abc', 2)", "string_agg('a', ',')", "strftime(now(), '%Y')",
            "list_value(1)", "epoch(now())", "median(1)", "instr('abc', 'b')", "initcap('a')", "getdate()",
        )
    ),
    *(
        (f"SELECT {call}", f"NOT_SUPPORTED: the embedded Athena does not implement the function {call.split('(')[0]}")
        for call in (
            "soundex('a')", "skewness(1)", "checksum(1)", "json_value('{}', 'lax $.a')", "json_query('{}', 'lax $.a')",
            "array_sort(ARRAY[1], (a, b) -> 1)", "ngrams(ARRAY['a'], 1)", "json_object('a': 1)",
        )
    ),
    ("SELECT md5('a')", r"FUNCTION_NOT_FOUND: line 1:8: Unexpected parameters \(varchar\(1\)\) for function md5"),
    ("SELECT concat_ws(',', 1, 2)", "FUNCTION_NOT_FOUND: .*for function concat_ws"),
    ("SELECT round('1.5')", "FUNCTION_NOT_FOUND: line 1:8: .* for function round"),
    ("SELECT slice(ARRAY[1], 1)", "FUNCTION_NOT_FOUND: .* for function slice"),
    ("SELECT date_diff('day', '2024-01-01', '2024-01-02')", "FUNCTION_NOT_FOUND: line 1:8: .* for function date_diff"),
    ("SELECT date_format(now(), '%U')", "INVALID_FUNCTION_ARGUMENT: %U not supported in date format string"),
    ("SELECT IF(true, 1, 'a')", "TYPE_MISMATCH: .*All IF results must be the same type"),
    ("SELECT slice(ARRAY[1], 0, 1)", "INVALID_FUNCTION_ARGUMENT: SQL array indices start at 1"),
    ("SELECT x, count(*) AS c FROM (VALUES 1) t(x) GROUP BY x HAVING c > 0", "COLUMN_NOT_FOUND: .*Column 'c' cannot"),
    ("SELECT x FROM UNNEST(1) AS u(x)", "TYPE_MISMATCH: Cannot unnest type: integer"),
    ("SELECT x FROM UNNEST(ARRAY[1]) AS u(x, y)", "MISMATCHED_COLUMN_ALIASES: Column alias list has 2 entries"),
    ("SELECT 1 FROM (VALUES 1) t(x) WHERE count(*) > 0", "EXPRESSION_NOT_SCALAR: .*WHERE clause cannot contain"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "message"), FAILURES, ids=[sql for sql, _ in FAILURES])
def test_failures(shared: Any, sql: str, message: str) -> None:
    found = shared.fails(sql)
    assert re.match(message, found), found


FOREIGN = [
    ("SELECT 1::varchar", "line 1:9: mismatched input '::'"),
    ("SELECT [1, 2]", r"line 1:8: mismatched input '\['"),
    ("SELECT {'a': 1}", "line 1:8: mismatched input '{'"),
    ("SELECT 'a' ILIKE 'A'", "line 1:12: mismatched input 'ILIKE'"),
    ("SELECT 1 LIMIT 1 OFFSET 1", "line 1:18: mismatched input 'OFFSET'"),
]


@pytest.mark.parametrize(("sql", "message"), FOREIGN, ids=[sql for sql, _ in FOREIGN])
def test_the_syntax_of_other_engines_is_refused(shared: Any, sql: str, message: str) -> None:
    with pytest.raises(shared.athena.exceptions.InvalidRequestException, match=message):
        shared.start(sql)
