"""Results of many rows: sent as they are computed, never all in the server's memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest

from zeroetl_dagster_tests.warehouse.conftest import Redshift

Sql = Callable[..., list[tuple[Any, ...]]]
ROWS = 100_000


@pytest.fixture(scope="module", autouse=True)
def large(redshift: Redshift) -> None:
    cursor = redshift.psycopg2().cursor()
    digits = " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10))
    cursor.execute(f"CREATE TABLE digits AS {digits}")
    cursor.execute(
        "CREATE TABLE large AS SELECT a.d * 10000 + b.d * 1000 + c.d * 100 + e.d * 10 + f.d AS n, 'name ' || n AS name "
        "FROM digits a, digits b, digits c, digits e, digits f"
    )


def test_its_rows_are_never_all_in_memory(redshift: Redshift) -> None:
    with redshift.psycopg2() as connection, connection.cursor() as cursor:  # which keeps its rows outside of Python
        tracemalloc.start()
        cursor.execute("SELECT * FROM large")
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert cursor.rowcount == ROWS
    assert peak_bytes / ROWS < 50  # a row alone takes three times as much


def test_an_error_in_the_middle_ends_it_and_the_session_goes_on(redshift: Redshift) -> None:
    with redshift.psycopg2().cursor() as cursor:
        with pytest.raises(psycopg2.Error, match="Divide by zero"):
            cursor.execute(f"SELECT n, 1 / ({ROWS - 1} - n) FROM large")
        cursor.execute("SELECT COUNT(*) FROM large")
        assert cursor.fetchall() == [(ROWS,)]


def test_an_error_in_the_middle_aborts_its_transaction(redshift: Redshift) -> None:
    connection = redshift.psycopg2()
    connection.autocommit = False
    with connection.cursor() as cursor:
        with pytest.raises(psycopg2.Error, match="Divide by zero"):
            cursor.execute(f"SELECT n, 1 / ({ROWS - 1} - n) FROM large")
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            cursor.execute("SELECT 1")
        connection.rollback()
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [(1,)]


def test_the_history_counts_its_rows(sql: Sql) -> None:
    assert len(sql("SELECT n FROM large")) == ROWS
    found = sql("SELECT status, returned_rows FROM sys_query_history WHERE query_text = 'SELECT n FROM large'")
    assert found == [("success", ROWS)]


def test_a_cursor_reads_it_in_parts(redshift: Redshift) -> None:
    connection = redshift.psycopg2()
    connection.autocommit = False
    with connection.cursor("parts") as cursor:
        cursor.itersize = 30_000
        cursor.execute("SELECT n FROM large")
        assert sum(1 for _ in cursor) == ROWS
