"""Parameters of redshift_connector: each value arrives as what it is, and means the same at every call."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
import redshift_connector

from zeroetl_dagster_tests.warehouse.conftest import Redshift

Sql = Callable[..., list[tuple[Any, ...]]]
MOMENT = dt.datetime(2008, 1, 2, 3, 4, 5, 678)
VALUES = [
    1, -1, 2**20, 2**40, 2**70, 1.5, Decimal("1.50"), Decimal("1E+3"), Decimal("-0.001"), "é", "it's \\ %", True, None,
    dt.date(2008, 1, 2), dt.time(1, 2, 3), MOMENT, MOMENT.replace(tzinfo=dt.UTC),
]  # fmt: skip


@pytest.fixture
def raw(redshift: Redshift) -> Iterator[Any]:
    connection = redshift.connect()
    yield connection.cursor()
    connection.close()


def test_values_of_every_type_come_back_through_one_statement(sql: Sql) -> None:
    # One session and one text: what was bound for one type must not serve another.
    assert [sql("SELECT %s", value)[0][0] for value in VALUES] == VALUES
    assert [sql("SELECT %s", value)[0][0] for value in reversed(VALUES)] == VALUES[::-1]


def test_nan_is_no_null(sql: Sql) -> None:
    assert math.isnan(sql("SELECT %s", float("nan"))[0][0])


def test_a_number_is_of_its_declared_type_whatever_its_value(sql: Sql) -> None:
    assert sql("SELECT %s + 1", 2**40) == [(2**40 + 1,)]
    assert [sql("SELECT 10 / %s", value) for value in (4, 2.5)] == [[(2,)], [(4.0,)]]


def test_a_decimals_digits_count_in_a_division(sql: Sql) -> None:
    found = [sql("SELECT 10.0 / %s", Decimal(value))[0][0] for value in ("2", "1.25", "0.5")]
    assert found == [5, 8, 20]
    sql("CREATE TEMP TABLE divided AS SELECT 10.0 / %s AS x", Decimal("1.25"))
    assert sql("SELECT x FROM divided WHERE x = %s", Decimal("8")) == [(8,)]


def test_a_date_is_a_date_where_types_decide(sql: Sql) -> None:
    assert sql("SELECT DATEADD(day, %s, %s)", 3, dt.date(2020, 1, 1)) == [(dt.datetime(2020, 1, 4),)]
    assert sql("SELECT %s - %s", dt.date(2020, 1, 4), dt.date(2020, 1, 1)) == [(3,)]


def test_null_goes_into_a_column_that_has_a_length(raw: Any) -> None:
    raw.execute("CREATE TEMP TABLE given (id INT, name VARCHAR(5), code CHAR(3))")
    raw.executemany("INSERT INTO given VALUES (%s, %s, %s)", [(1, "a", "b"), (2, None, None)])
    raw.execute("CREATE TEMP TABLE taken (LIKE given)")
    raw.execute("INSERT INTO taken SELECT * FROM given")
    raw.execute("UPDATE taken SET name = NULLIF(name, 'a')")
    raw.execute("SELECT * FROM taken ORDER BY id")
    assert raw.fetchall() == ([1, None, "b  "], [2, None, None])


def test_what_cannot_be_read_is_refused_and_the_session_goes_on(raw: Any) -> None:
    with pytest.raises(redshift_connector.Error, match="binary parameters of type 1005"):
        raw.execute("SELECT %s", ([1, 2],))
    assert raw.execute("SELECT 1").fetchall() == ([1],)


def test_a_fault_of_the_embedded_one_ends_no_session(raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("zeroetl_dagster.local.warehouse.session.Session.prepare", fail)
    with pytest.raises(redshift_connector.Error, match="failed on this statement: RuntimeError: a fault"):
        raw.execute("SELECT 1")
    monkeypatch.undo()
    assert raw.execute("SELECT 2").fetchall() == ([2],)


def test_a_parameter_is_a_value_and_no_columns_number(sql: Sql) -> None:
    assert sql("SELECT COUNT(*) FROM (SELECT 1 AS d UNION ALL SELECT 2) GROUP BY %s", 1) == [(2,)]
    assert sql("SELECT d FROM (SELECT 2 AS d UNION ALL SELECT 1) ORDER BY %s, d", 1) == [(1,), (2,)]
    with pytest.raises(redshift_connector.ProgrammingError, match='"d" must appear in the GROUP BY clause'):
        sql("SELECT d, COUNT(*) FROM (SELECT 1 AS d) GROUP BY %s", 1)
