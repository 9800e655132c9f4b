"""Views per table, and rows counted by Athena."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
import sqlglot

from zeroetl_dagster.exports import views
from zeroetl_dagster.exports.catalogue import Calls, Catalogue, CatalogueTable, manifest_columns
from zeroetl_dagster.exports.names import SourceTable
from zeroetl_dagster.exports.types import ExportedColumn
from zeroetl_dagster_tests.exports.fakes import FakeAthena, FakeGlue
from zeroetl_dagster_tests.exports.test_catalogue import day

EXPORTED = (
    ExportedColumn("SalesId", "integer", "int32"),
    ExportedColumn("paid", "numeric(8,2)", "binary (UTF8)"),
    ExportedColumn("soldAt", "timestamp with time zone", "binary (UTF8)"),
)
SALES = SourceTable("shop", "public", "sales")


@pytest.fixture
def catalogue(glue: FakeGlue) -> Catalogue:
    return Catalogue(Calls(glue), "shop", "lake", "snapshot_date")


def put(
    catalogue: Catalogue, n: int, exported: tuple[ExportedColumn, ...] = EXPORTED, files: int = 2
) -> CatalogueTable:
    wanted = replace(day(n), exported=exported, columns=manifest_columns(exported), files=files)
    (table,), _ = catalogue.register([wanted], {SALES: "public_sales"})
    return table


def publish(athena: FakeAthena, catalogue: Catalogue, table: CatalogueTable, lines: list[str] | None = None) -> None:
    views.publish(athena, catalogue, [table], (lines if lines is not None else []).append)


def test_the_typed_view_casts_and_keeps_the_day(catalogue: Catalogue) -> None:
    sql = views.typed_view(put(catalogue, 0), "snapshot_date")
    assert sql.startswith('CREATE OR REPLACE VIEW "lake"."public_sales_typed" AS\nSELECT\n  "salesid",\n')
    assert 'try_cast("paid" AS decimal(8,2)) AS "paid"' in sql
    assert sql.endswith('"snapshot_date"\nFROM "lake"."public_sales"')


def test_the_latest_view_names_its_day_as_a_literal(catalogue: Catalogue) -> None:
    sql = views.latest_view(put(catalogue, 0), "snapshot_date")
    assert sql.endswith('FROM "lake"."public_sales_typed"\nWHERE "snapshot_date" = \'2024-05-01\'')
    assert '"snapshot_date",' not in sql


@pytest.mark.parametrize("build", [views.typed_view, views.latest_view])
def test_views_are_trino_sql(catalogue: Catalogue, build: object) -> None:
    assert sqlglot.parse_one(build(put(catalogue, 0), "snapshot_date"), read="trino")  # type: ignore[operator]


def test_columns_that_are_gone_stay_in_typed_with_their_types_and_leave_latest(catalogue: Catalogue) -> None:
    put(catalogue, 0)
    put(catalogue, 1, EXPORTED[:1])
    table = put(catalogue, 2, EXPORTED[:1])
    typed = views.typed_view(table, "snapshot_date")
    assert "AS timestamp with time zone), 'UTC') AS timestamp) AS \"soldat\"" in typed
    assert 'try_cast("paid" AS decimal(8,2)) AS "paid"' in typed
    assert '"soldat"' not in views.latest_view(table, "snapshot_date")


def test_typed_is_written_once_and_latest_with_each_day(athena: FakeAthena, catalogue: Catalogue) -> None:
    for n in range(3):
        publish(athena, catalogue, put(catalogue, n))
    created = [s.split('"')[3] for s in athena.statements]
    assert created == ["public_sales_typed"] + ["public_sales_latest"] * 3


def test_typed_is_rewritten_when_a_column_comes(athena: FakeAthena, catalogue: Catalogue) -> None:
    publish(athena, catalogue, put(catalogue, 0, EXPORTED[:2]))
    athena.statements.clear()
    publish(athena, catalogue, put(catalogue, 1))
    assert [s.split('"')[3] for s in athena.statements] == ["public_sales_typed", "public_sales_latest"]


def test_typed_is_rewritten_when_a_type_below_it_changes(athena: FakeAthena, catalogue: Catalogue) -> None:
    """Its text is the same, but Athena calls it stale."""
    publish(athena, catalogue, put(catalogue, 0))
    athena.statements.clear()
    publish(athena, catalogue, put(catalogue, 1, (ExportedColumn("SalesId", "bigint", "int64"), *EXPORTED[1:])))
    assert [s.split('"')[3] for s in athena.statements] == ["public_sales_typed", "public_sales_latest"]


def test_typed_is_written_again_when_somebody_dropped_it(
    athena: FakeAthena, catalogue: Catalogue, glue: FakeGlue
) -> None:
    publish(athena, catalogue, put(catalogue, 0))
    del glue.databases["lake"]["public_sales_typed"]
    publish(athena, catalogue, put(catalogue, 0))
    assert "public_sales_typed" in glue.databases["lake"]


def test_an_older_day_leaves_latest_alone(athena: FakeAthena, catalogue: Catalogue) -> None:
    publish(athena, catalogue, put(catalogue, 5))
    athena.statements.clear()
    publish(athena, catalogue, put(catalogue, 0))
    assert athena.statements == []


def test_latest_of_an_empty_table_names_the_empty_day(athena: FakeAthena, catalogue: Catalogue) -> None:
    publish(athena, catalogue, put(catalogue, 0))
    publish(athena, catalogue, put(catalogue, 1, files=0))
    assert "= '2024-05-02'" in athena.statements[-1]


def test_of_two_days_at_once_the_later_one_wins(athena: FakeAthena, catalogue: Catalogue) -> None:
    older = put(catalogue, 0)
    publish(athena, catalogue, put(catalogue, 1))
    lines: list[str] = []
    publish(athena, catalogue, older, lines)
    assert "= '2024-05-02'" in athena.statements[-1] and "was catalogued meanwhile" in lines[0]


def test_rows_of_many_tables_are_one_query(athena: FakeAthena, catalogue: Catalogue) -> None:
    table = put(catalogue, 0)
    users = replace(table, name="public_users")
    empty = replace(table, name="public_empty", source=replace(table.source, files=0))
    athena.counts = {"public_sales": 3, "public_users": 4}
    counted, _ = views.count_rows(athena, [table, users, empty], "snapshot_date")
    assert [t.rows for t in counted] == [3, 4, 0] and len(athena.statements) == 1


def test_a_count_prunes_by_the_day(athena: FakeAthena, catalogue: Catalogue) -> None:
    views.count_rows(athena, [put(catalogue, 0)], "snapshot_date")
    assert f"WHERE \"snapshot_date\" = '{date(2024, 5, 1)}'" in athena.statements[0]
