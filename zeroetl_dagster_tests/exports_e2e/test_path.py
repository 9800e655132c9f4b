"""From the source to Athena and back: what the newest day's view answers is what the source held at the snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

import dagster as dg
import pytest

from zeroetl_dagster.exports import face
from zeroetl_dagster.exports.names import SourceTable
from zeroetl_dagster_tests.exports_e2e.shop import Pipeline, Shop, checks, day, failure, made, metadata, today

ALL = ["sales", "empty", "Order Lines", "cost$", "売上", "Twins", "twins", "odd", "skipped"]
MODES = ["crawler", "register"]
NOON, THREE = datetime(2026, 1, 5, 12, 0, 0, 250000), datetime(2026, 1, 5, 3)
SALES = [
    (1, date(2026, 1, 5), Decimal("10.50"), NOON, THREE, "ab", True, ""),
    (2, date(2026, 1, 6), Decimal("0.25"), None, None, None, None, None),
    (3, date(2026, 1, 6), -1, datetime(1999, 12, 31), datetime(2026, 1, 1), "abcd", False, 'two\nlines, "quoted"'),
]


@dataclass
class Whole:
    """Every table of the source, exported and catalogued once."""

    pipeline: Pipeline
    result: dg.ExecuteInProcessResult

    @property
    def database(self) -> str:
        return self.pipeline.settings.catalogue.database

    def latest(self, table: str) -> list[tuple[object, ...]]:
        return self.pipeline.shop.query(f'SELECT * FROM "{self.database}"."{table}_latest" ORDER BY 1')

    def listed(self) -> set[str]:
        pages = self.pipeline.shop.glue.get_paginator("get_tables").paginate(DatabaseName=self.database)
        return {table["Name"] for page in pages for table in page["TableList"]}


@pytest.fixture(scope="module", params=MODES)
def whole(request: pytest.FixtureRequest, shop: Shop) -> Whole:
    shop.snapshot()
    settings = shop.settings(f"all_{request.param}", mode=request.param, tables="all")
    pipeline = Pipeline(shop, settings, tables=[SourceTable("shop", "public", name) for name in ALL])
    return Whole(pipeline, pipeline.run())


def test_the_newest_days_view_is_the_source_with_its_own_types(whole: Whole) -> None:
    assert whole.latest("public_sales") == SALES


@pytest.mark.parametrize("mode", MODES)
def test_a_numeric_column_has_the_scale_that_the_configuration_tells(shop: Shop, mode: str) -> None:
    shop.snapshot()
    pipeline = Pipeline(shop, shop.settings(f"scale_{mode}", mode=mode))
    told = {"public.sales": {"Price": "numeric(8,2)"}, "public.gone": {"x": "numeric(1,0)"}}
    catalogue = pipeline.settings.catalogue.model_copy(update={"source_types": told})
    pipeline.settings = pipeline.settings.model_copy(update={"catalogue": catalogue})
    assert pipeline.run().success
    found = shop.query(f"SELECT DISTINCT typeof(price) FROM scale_{mode}_lake.public_sales_latest")
    assert found == [("decimal(8,2)",)]


def test_a_table_without_rows_is_there_and_has_none(whole: Whole) -> None:
    assert whole.latest("public_empty") == []
    told = metadata(whole.result, whole.pipeline.settings.name, "public", "empty")
    assert told["dagster/partition_row_count"] == 0 and told["zeroetl/files"] == 0


def test_names_with_upper_case_blanks_dollars_and_other_scripts(whole: Whole, shop: Shop) -> None:
    assert whole.latest("public_order_lines") == [(1, "groß")]
    assert whole.latest("public_cost_") == [(1, Decimal("1234.50"))]
    (japanese,) = [name for name in whole.listed() if name.startswith("public____") and name.endswith("_latest")]
    assert shop.query(f'SELECT * FROM "{whole.database}"."{japanese}"') == [(1, 100)]


def test_values_that_athena_has_no_type_for(whole: Whole) -> None:
    """NULL in the typed view, as they were in the table below it."""
    infinite, plain = whole.latest("public_odd")
    assert infinite == (1, None, float("inf"), None, None, "{{1,2},{3,4}}")
    assert plain == (2, Decimal("1.5"), 2.5, date(2026, 1, 1), datetime(2026, 1, 1), "{}")
    kept = whole.pipeline.shop.query(f"SELECT n, d, t FROM {whole.database}.public_odd WHERE id = 1")
    assert kept == [("NaN", "0044-03-15 BC", "infinity")]


def test_one_table_and_two_views_for_each_table(whole: Whole) -> None:
    roots = {name.removesuffix("_latest").removesuffix("_typed") for name in whole.listed()}
    assert {f"{root}{end}" for root in roots for end in ("", "_typed", "_latest")} == whole.listed()
    assert len(roots) == 6  # neither the twins, nor what AWS skipped


def test_what_aws_skipped_is_named_and_the_rest_goes_on(whole: Whole) -> None:
    found = checks(whole.result)
    assert not found["nothing_skipped"].passed and not found["everything_asked_was_written"].passed
    assert "public.skipped: INVALID_COLUMN_NAME" in (found["nothing_skipped"].description or "")


def test_tables_that_collide_are_left_out_and_fail_the_step_at_its_end(whole: Whole) -> None:
    assert "public.Twins, public.twins would all be 'public_twins'" in failure(whole.result)
    assert not checks(whole.result)["everything_written_is_catalogued"].passed


def test_metadata_of_an_export_plots(whole: Whole) -> None:
    told = metadata(whole.result, whole.pipeline.settings.name, "export")
    assert told["zeroetl/tables"] == 8 and told["zeroetl/skipped_tables"] == 1
    assert 0 < told["zeroetl/extracted_gb"] < 1 and told["zeroetl/size_bytes"] > 0
    rows = metadata(whole.result, whole.pipeline.settings.name, "public", "sales")["dagster/partition_row_count"]
    assert rows == 3


@pytest.fixture(scope="module", params=MODES)
def days(request: pytest.FixtureRequest, shop: Shop) -> Iterator[Pipeline]:
    """Three days of one table, which gets a column on the last: the first is filled in at the end."""
    shop.sql("CREATE TABLE visits (id INT PRIMARY KEY, page TEXT); INSERT INTO visits VALUES (1, 'a')")
    oldest = shop.snapshot(days_ago=2)
    shop.sql("INSERT INTO visits VALUES (2, 'b')")
    middle = shop.snapshot(days_ago=1)
    shop.sql("ALTER TABLE visits ADD COLUMN seconds INT; INSERT INTO visits VALUES (3, 'c', 7)")
    newest = shop.snapshot()
    settings = shop.settings(f"days_{request.param}", mode=request.param, tables=["public.visits"])
    pipeline = Pipeline(shop, settings)
    pipeline.results = [pipeline.run(day(ago)) for ago in (1, 0, 2)]
    yield pipeline
    shop.sql("DROP TABLE visits")
    for name in (oldest, middle, newest):
        shop.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=name)


def test_one_table_has_every_day(days: Pipeline, shop: Shop) -> None:
    database = days.settings.catalogue.database
    counted = shop.query(f"SELECT snapshot_date, count(*) FROM {database}.public_visits_typed GROUP BY 1 ORDER BY 1")
    assert counted == [(day(2), 1), (day(1), 2), (day(0), 3)]


def test_the_latest_view_stays_with_the_newest_day_after_a_backfill(days: Pipeline, shop: Shop) -> None:
    rows = shop.query(f"SELECT * FROM {days.settings.catalogue.database}.public_visits_latest ORDER BY 1")
    assert rows == [(1, "a", None), (2, "b", None), (3, "c", 7)]


def test_a_new_column_is_told_once_by_its_name(days: Pipeline) -> None:
    told = [checks(result)["schema_unchanged"] for result in days.results]
    assert [found.passed for found in told] == [True, False, True]
    assert told[1].description == "column 'seconds' (int) was added"
    assert told[2].description == "a later day is catalogued already: not compared"


def test_the_snapshot_is_of_its_own_day(days: Pipeline) -> None:
    moments = [metadata(result, days.settings.name, "export")[face.SNAPSHOT_TIME] for result in days.results]
    assert [f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}" for at in moments] == [day(1), day(0), day(2)]


def test_a_day_that_was_exported_is_found_and_not_exported_again(days: Pipeline, shop: Shop) -> None:
    before = len(days.tasks())
    again = days.run(today())
    assert again.success and made(again) >= {f"{days.settings.name}/export", f"{days.settings.name}/public/visits"}
    assert len(days.tasks()) == before == 3


def test_another_export_of_the_day_only_by_name(days: Pipeline, shop: Shop) -> None:
    name = f"{days.settings.name}__export"
    anew = days.run(run_config={"ops": {name: {"config": {"new_export": True}}}})
    assert anew.success
    assert len(days.tasks()) == 4
    told = metadata(anew, days.settings.name, "export")[face.TASK]
    rows = shop.query(f'SELECT "$path" FROM {days.settings.catalogue.database}.public_visits WHERE id = 3')
    assert told in rows[0][0]


def test_a_day_without_a_snapshot_has_an_outcome_of_its_own(shop: Shop) -> None:
    pipeline = Pipeline(shop, shop.settings("nodays", start_date="2026-01-01"))
    result = pipeline.run("2026-01-02")
    assert result.success and made(result) == set()
    told = checks(result)["snapshot_available"]
    assert not told.passed and told.metadata["zeroetl/reason"].value == "beyond retention"
    assert "keeps automated ones for 7 days" in (told.description or "")
