"""Types of results and of tables: Redshift's, also where DuckDB would choose others."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import redshift_connector

from zeroetl_dagster_tests.warehouse.conftest import Redshift

Sql = Callable[..., list[tuple[Any, ...]]]
NAMES = {
    16: "boolean", 20: "bigint", 21: "smallint", 23: "integer", 700: "real", 701: "double", 1042: "char",
    1043: "varchar", 1082: "date", 1114: "timestamp", 1184: "timestamptz", 1700: "numeric",
    4000: "super", 6551: "varbyte",
}  # fmt: skip


@pytest.fixture(scope="module")
def cursor(redshift: Redshift) -> Iterator[Any]:
    connection = redshift.psycopg2()
    with connection.cursor() as found:
        found.execute(
            "CREATE TABLE kinds (s SMALLINT, i INT, b BIGINT, n NUMERIC(8,2), wide NUMERIC(20,4), r REAL, f FLOAT, "
            "v VARCHAR(10), c CHAR(4), t TEXT, flag BOOL, d DATE, ts TIMESTAMP, tz TIMESTAMPTZ, j SUPER, "
            "raw VARBYTE(3))"
        )
        found.execute(
            "INSERT INTO kinds VALUES (1, 2, 3, 4.5, 6.7, 1, 2, 'vé', 'ab', 'text', true, '2008-01-01', "
            "'2008-01-01', '2008-01-01', JSON_PARSE('{\"a\":1}'), NULL)"
        )
        yield found
        found.execute("DROP TABLE kinds")
    connection.close()


def kinds(cursor: Any) -> list[str]:
    """The types of the result, with lengths, precision and scale."""
    shown = []
    for column in cursor.description:
        size = "" if column.internal_size in (-1, None) else f"({column.internal_size})"
        if column.type_code == 1700:
            size = f"({column.precision},{column.scale})"
        shown.append(NAMES[column.type_code] + (size if column.type_code in (1042, 1043, 1700) else ""))
    return shown


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("SUM(s), SUM(i), SUM(b)", "bigint bigint numeric(38,0)"),
        ("SUM(n), SUM(wide), SUM(r), SUM(f)", "numeric(38,2) numeric(38,4) double double"),
        ("AVG(s), AVG(i), AVG(b)", "bigint bigint bigint"),
        ("AVG(n), AVG(wide), AVG(f)", "numeric(19,2) numeric(38,4) double"),
        ("COUNT(*), COUNT(DISTINCT i), MIN(s), MAX(n)", "bigint bigint smallint numeric(8,2)"),
        ("SUM(n) / COUNT(*), SUM(i) / COUNT(*), AVG(i) / 2.0", "numeric(38,4) bigint numeric(24,4)"),
        ("SUM(SUM(i)) OVER ()", "numeric(38,0)"),
        ("MAX(v), MIN(c), COALESCE(MAX(v), 'none'), LISTAGG(v)", "varchar(10) char(4) varchar(10) varchar"),
    ],
)
def test_aggregates(cursor: Any, expression: str, kind: str) -> None:
    cursor.execute(f"SELECT {expression} FROM kinds")
    assert kinds(cursor) == kind.split()


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("s, i, b, n, wide, r, f", "smallint integer bigint numeric(8,2) numeric(20,4) real double"),
        ("v, c, t, flag, d, ts, tz", "varchar(10) char(4) varchar(256) boolean date timestamp timestamptz"),
        ("j, raw, j.a", "super varbyte super"),
        ("s + s, s + i, i * b, i / s, b % i", "smallint integer bigint integer bigint"),
        ("n / n, n / i, i / n", "numeric(17,9) numeric(19,13) numeric(19,7)"),
        ("n / 2, wide / wide", "numeric(19,13) numeric(38,18)"),
        ("n + wide, n * n, f / i", "numeric(21,4) numeric(16,4) double"),
        ("LEN(v), STRPOS(v, 'x'), DATEDIFF(day, d, ts), EXTRACT(year FROM d)", "integer integer bigint integer"),
        ("DATEADD(day, 1, d), DATE_TRUNC('month', d), d + 1, d - d", "timestamp timestamp date integer"),
        ("UPPER(v), TRIM(c), v || c, 'lit', CAST(i AS VARCHAR(5))",
         "varchar(10) varchar(4) varchar(14) varchar(3) varchar(5)"),
        ("CASE WHEN flag THEN v ELSE 'a long text' END, NULLIF(c, 'x')", "varchar(11) char(4)"),
        ("ROW_NUMBER() OVER (ORDER BY i), LAG(v) OVER (ORDER BY i)", "bigint varchar(10)"),
        ("GETDATE(), CURRENT_DATE, CURRENT_DATABASE(), i = 2", "timestamp date varchar boolean"),
        ("*", "smallint integer bigint numeric(8,2) numeric(20,4) real double varchar(10) char(4) varchar(256) boolean "
              "date timestamp timestamptz super varbyte"),
    ],
)  # fmt: skip
def test_expressions(cursor: Any, expression: str, kind: str) -> None:
    cursor.execute(f"SELECT {expression} FROM kinds")
    assert kinds(cursor) == kind.split()


def test_lengths_pass_through_subqueries_and_unions(cursor: Any) -> None:
    cursor.execute(
        "WITH w AS (SELECT v AS x, c FROM kinds) SELECT q.x, q.c FROM (SELECT * FROM w UNION ALL "
        "SELECT 'abcdefghijkl', 'x') q"
    )
    assert kinds(cursor) == ["varchar(12)", "varchar(4)"]
    assert sorted(cursor.fetchall()) == [("abcdefghijkl", "x"), ("vé", "ab")]


def test_char_arrives_padded_and_is_kept_without_blanks(cursor: Any) -> None:
    cursor.execute("SELECT c, LEN(c), c || '|' FROM kinds WHERE c = 'ab      '")
    assert cursor.fetchall() == [("ab  ", 2, "ab|")]


def test_a_table_made_of_a_query_has_its_types(cursor: Any) -> None:
    cursor.execute(
        "CREATE TABLE made AS SELECT v, c, SUM(b) AS total, AVG(n) AS mean, COUNT(*) AS n, 'x' AS one "
        "FROM kinds GROUP BY 1, 2"
    )
    cursor.execute(
        "SELECT column_name, data_type, character_maximum_length, numeric_precision, numeric_scale FROM svv_columns "
        "WHERE table_name = 'made' ORDER BY ordinal_position"
    )
    assert cursor.fetchall() == [
        ("v", "character varying", 10, None, None), ("c", "character", 4, None, None),
        ("total", "numeric", None, 38, 0),
        ("mean", "numeric", None, 19, 2), ("n", "bigint", None, 64, 0), ("one", "character varying", 1, None, None),
    ]  # fmt: skip
    cursor.execute("SELECT * FROM made")
    assert kinds(cursor) == ["varchar(10)", "char(4)", "numeric(38,0)", "numeric(19,2)", "bigint", "varchar(1)"]
    cursor.execute("DROP TABLE made")


@pytest.mark.parametrize(
    ("statement", "code", "message"),
    [
        ("INSERT INTO kinds (v) VALUES ('eleven chars')", "22001", "value too long for type character varying(10)"),
        ("INSERT INTO kinds (v) SELECT REPEAT('é', 6)", "22001", "value too long for type character varying(10)"),
        ("INSERT INTO kinds (c) VALUES ('abcde')", "22001", "value too long for type character(4)"),
        ("UPDATE kinds SET v = v || 'ten chars!'", "22001", "value too long for type character varying(10)"),
        ("INSERT INTO kinds (n) VALUES (12345678.5)", "22003", "Numeric data overflow"),
        ("INSERT INTO kinds (s) VALUES (40000)", "22003", "Value out of range for 2 bytes"),
        ("INSERT INTO kinds (i) VALUES ('x')", "22P02", 'invalid input syntax for integer: "x"'),
        ("INSERT INTO kinds VALUES (1, 2, 3, 4, 5, 6, 7, 'v', 'c', 't', true, NULL, NULL, NULL, NULL, NULL, 9)",
         "42601", "INSERT has more expressions than target columns"),
        ("INSERT INTO kinds (nothing) VALUES (1)", "42703", 'column "nothing" of relation "kinds" does not exist'),
        ("CREATE TABLE bad (a HUGEINT)", "42704", 'type "int128" does not exist'),
        ("CREATE TABLE bad (a INT IDENTITY(1, 1))", "0A000", "does not implement IDENTITY columns"),
        ("CREATE TABLE bad (a INT, a INT)", "42701", 'column "a" duplicated'),
        ("CREATE TABLE kinds (a INT)", "42P07", 'Relation "kinds" already exists'),
        ("ALTER TABLE kinds ALTER COLUMN i TYPE BIGINT", "0A000", "only the size of VARCHAR columns can change"),
        ("ALTER TABLE kinds ALTER COLUMN v TYPE VARCHAR(2)", "22001", "is too short"),
    ],
)  # fmt: skip
def test_values_and_tables_that_do_not_fit_are_refused(cursor: Any, statement: str, code: str, message: str) -> None:
    with pytest.raises(psycopg2.Error) as found:
        cursor.execute(statement)
    assert (found.value.pgcode, message in str(found.value)) == (code, True), str(found.value)


def test_only_blanks_are_cut_off(cursor: Any) -> None:
    cursor.execute("INSERT INTO kinds (i, v, c) VALUES (77, 'ten chars!   ', 'abcd  ')")
    cursor.execute("SELECT v, c, LEN(v) FROM kinds WHERE i = 77")
    assert cursor.fetchall() == [("ten chars!", "abcd", 10)]
    cursor.execute("DELETE FROM kinds WHERE i = 77")


def test_keys_are_told_and_not_enforced(cursor: Any) -> None:
    cursor.execute(
        "CREATE TABLE keyed (id INT PRIMARY KEY DISTKEY, code VARCHAR(3) UNIQUE SORTKEY, up INT REFERENCES kinds(i), "
        "made TIMESTAMP DEFAULT GETDATE(), n INT NOT NULL DEFAULT 7 ENCODE az64)"
    )
    cursor.execute("INSERT INTO keyed (id, code) VALUES (1, 'a'), (1, 'a')")
    cursor.execute("SELECT COUNT(*), COUNT(made), SUM(n) FROM keyed")
    assert cursor.fetchall() == [(2, 2, 14)]
    with pytest.raises(psycopg2.Error, match="Cannot insert a NULL value into column id"):
        cursor.execute("INSERT INTO keyed (code) VALUES ('b')")
    cursor.execute("DROP TABLE keyed")


def test_a_table_changes_its_shape(cursor: Any) -> None:
    cursor.execute("CREATE TABLE shape (a INT, b VARCHAR(3))")
    cursor.execute("INSERT INTO shape VALUES (1, 'x')")
    for action in (
        "ADD COLUMN c VARCHAR(5) DEFAULT 'new'", "RENAME COLUMN b TO bb", "ALTER COLUMN bb TYPE VARCHAR(20)",
        "DROP COLUMN a", "ALTER SORTKEY (bb)", "ALTER DISTSTYLE ALL", "ALTER COLUMN bb ENCODE zstd", "RENAME TO shape2",
    ):  # fmt: skip
        cursor.execute(f"ALTER TABLE shape {action}")
    cursor.execute("SELECT * FROM shape2")
    assert kinds(cursor) == ["varchar(20)", "varchar(5)"] and cursor.fetchall() == [("x", "new")]
    cursor.execute("CREATE TABLE alike (LIKE shape2)")
    cursor.execute("SELECT * FROM alike")
    assert kinds(cursor) == ["varchar(20)", "varchar(5)"]
    cursor.execute("DROP TABLE shape2, alike")


def test_temporary_tables_are_the_sessions_own(redshift: Redshift, cursor: Any) -> None:
    cursor.execute("CREATE TEMP TABLE mine AS SELECT i, v FROM kinds")
    cursor.execute("SELECT i INTO #hashed FROM mine")
    cursor.execute("SELECT (SELECT COUNT(*) FROM mine) + (SELECT COUNT(*) FROM #hashed)")
    assert cursor.fetchall() == [(2,)]
    other = redshift.psycopg2().cursor()
    with pytest.raises(psycopg2.Error, match='relation "mine" does not exist'):
        other.execute("SELECT * FROM mine")
    cursor.execute("DROP TABLE mine, #hashed")


def test_rows_are_merged(cursor: Any) -> None:
    cursor.execute("CREATE TABLE target (id INT, v VARCHAR(5))")
    cursor.execute("INSERT INTO target VALUES (1, 'a'), (2, 'b')")
    cursor.execute("CREATE TABLE source AS SELECT 2 AS id, 'B'::VARCHAR(9) AS v UNION ALL SELECT 3, 'C'")
    merge = "MERGE INTO target USING source ON target.id = source.id WHEN MATCHED THEN UPDATE SET v = source.v "
    cursor.execute(f"{merge} WHEN NOT MATCHED THEN INSERT VALUES (source.id, source.v)")
    cursor.execute("SELECT * FROM target ORDER BY 1")
    assert cursor.fetchall() == [(1, "a"), (2, "B"), (3, "C")]
    cursor.execute("INSERT INTO source VALUES (1, 'too long')")
    with pytest.raises(psycopg2.Error, match="value too long"):
        cursor.execute(f"{merge} WHEN NOT MATCHED THEN INSERT (id, v) VALUES (source.id, source.v)")
    cursor.execute("UPDATE target SET v = s.v FROM source s WHERE target.id = s.id AND s.id = 3")
    cursor.execute("DELETE FROM target USING source WHERE target.id = source.id")
    assert cursor.rowcount == 3
    cursor.execute("DROP TABLE target, source")


def test_temporary_tables_hold_to_their_types_too(sql: Sql) -> None:
    sql("CREATE TEMP TABLE short (code CHAR(3), name VARCHAR(5))")
    for values in ("'abcd', 'x'", "'a', 'abcdef'"):
        with pytest.raises(redshift_connector.Error, match="value too long for type character"):
            sql(f"INSERT INTO short VALUES ({values})")
    sql("INSERT INTO short VALUES ('a', 'b')")
    sql("CREATE TEMP TABLE other AS SELECT * FROM short")
    assert sql("SELECT * FROM other") == [("a  ", "b")]
    sql("BEGIN")
    sql("DROP TABLE other")
    sql("ROLLBACK")
    assert sql("SELECT code FROM other") == [("a  ",)]


def test_like_copies_not_null_and_the_defaults_that_are_asked_for(sql: Sql) -> None:
    sql("CREATE TEMP TABLE parent (id INT NOT NULL, kind VARCHAR(3) DEFAULT 'new')")
    sql("CREATE TEMP TABLE plain (LIKE parent)")
    sql("CREATE TEMP TABLE full_copy (LIKE parent INCLUDING DEFAULTS)")
    for table in ("plain", "full_copy"):
        sql(f"INSERT INTO {table} (id) VALUES (1)")
        with pytest.raises(redshift_connector.Error, match="NULL value into column id"):
            sql(f"INSERT INTO {table} (kind) VALUES ('x')")
    assert sql("SELECT kind FROM plain") == [(None,)]
    assert sql("SELECT kind FROM full_copy") == [("new",)]


@pytest.fixture
def printed(redshift: Redshift) -> Iterator[Any]:
    """A cursor whose values are the text that came."""
    plain = psycopg2.extensions.new_type((700, 701, 1083, 1114, 1184, 1266), "PRINTED", lambda value, _: value)
    with closing(redshift.psycopg2()) as connection, connection.cursor() as cursor:
        psycopg2.extensions.register_type(plain, cursor)
        yield cursor


def test_floats_are_printed_with_postgresqls_digits(printed: Any) -> None:
    asked = "SELECT 0.1::FLOAT + 0.2::FLOAT, 0.1::REAL"
    printed.execute(asked)
    assert printed.fetchall() == [("0.3", "0.1")]
    printed.execute("SET extra_float_digits TO 2")
    printed.execute(asked)
    assert printed.fetchall() == [("0.30000000000000004", "0.1")]


def test_a_string_that_is_inserted_is_read_as_the_columns_type(sql: Sql) -> None:
    sql("CREATE TEMP TABLE read (day DATE, at TIMESTAMP, number INT)")
    sql("INSERT INTO read VALUES ('2/3/2008', 'Feb 3, 2008 11:12', '7')")
    sql("UPDATE read SET day = 'Mar 1, 2008' WHERE day = '02/03/2008'")
    assert sql("SELECT * FROM read") == [(dt.date(2008, 3, 1), dt.datetime(2008, 2, 3, 11, 12), 7)]
    with pytest.raises(redshift_connector.Error, match="invalid input syntax for integer"):
        sql("INSERT INTO read (number) VALUES ('7.5')")


def test_fractions_of_a_second_end_without_zeros(printed: Any) -> None:
    printed.execute(
        "SELECT '2020-01-01 10:00:00.500'::TIMESTAMP, '2020-01-01 10:00:00'::TIMESTAMP, '10:00:00.120'::TIME, "
        "'2020-01-01 10:00:00.25+05:30'::TIMESTAMPTZ, '10:00:00.5+09'::TIMETZ"
    )
    assert printed.fetchone() == (
        "2020-01-01 10:00:00.5", "2020-01-01 10:00:00", "10:00:00.12", "2020-01-01 04:30:00.25+00", "10:00:00.5+09",
    )  # fmt: skip
    printed.execute("SET timezone TO 'Asia/Kolkata'")
    printed.execute("SELECT '2020-01-01 00:00:00+00'::TIMESTAMPTZ")
    assert printed.fetchone() == ("2020-01-01 05:30:00+05:30",)


def test_intervals_and_zoned_times_reach_the_driver_as_they_are(sql: Sql) -> None:
    hours = dt.timedelta(hours=36, seconds=0.5)
    assert sql(
        f"SELECT INTERVAL '{hours.total_seconds()} seconds', TIMESTAMP '2020-01-05 12:00' - DATE '2020-01-01'"
    ) == [(hours, dt.timedelta(days=4, hours=12))]
    assert sql("SELECT INTERVAL '-2 hours', '23:30:00-05'::TIMETZ, '10:00:00.5+09'::TIMETZ") == [
        (dt.timedelta(hours=-2), dt.time(4, 30, tzinfo=dt.UTC), dt.time(1, 0, 0, 500000, tzinfo=dt.UTC))
    ]


LAYOUTS = [
    "(a INT) DISTSTYLE AUTO SORTKEY AUTO", "(a INT) ENCODE AUTO", "(a INT, b INT) INTERLEAVED SORTKEY(a, b)",
    "(a INT ENCODE RAW DISTKEY SORTKEY, b INT ENCODE zstd NULL)", "(a INT) BACKUP NO DISTSTYLE KEY DISTKEY (a)",
    "DISTSTYLE AUTO SORTKEY AUTO AS SELECT 1 AS a", "DISTKEY(a) COMPOUND SORTKEY(a, b) AS SELECT 1 AS a, 2 AS b",
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_read_and_changes_nothing(sql: Sql, layout: str) -> None:
    sql(f"CREATE TABLE laid {layout}")
    assert sql("SELECT column_name FROM svv_columns WHERE table_name = 'laid' AND ordinal_position = 1") == [("a",)]
    assert sql('SELECT "schema", "table" FROM svv_table_info WHERE "table" = \'laid\'') == [("public", "laid")]
    sql("ALTER TABLE laid ALTER SORTKEY AUTO")
    sql("ALTER TABLE laid ALTER ENCODE AUTO")
    sql("DROP TABLE laid")


def test_words_of_layout_are_names_elsewhere(sql: Sql) -> None:
    sql("CREATE LOCAL TEMP TABLE words AS SELECT 'SORTKEY AUTO' AS note, 1 AS local")
    assert sql("SELECT note, local FROM words") == [("SORTKEY AUTO", 1)]
