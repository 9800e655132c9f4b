"""The Glue catalogue: one table, a partition a day, few calls."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from zeroetl_dagster.exports.catalogue import (
    LATEST_DAY,
    Calls,
    Catalogue,
    CatalogueError,
    CatalogueTable,
    Column,
    DayOfTable,
    Problem,
    merge,
)
from zeroetl_dagster.exports.names import SourceTable
from zeroetl_dagster.exports.types import ExportedColumn
from zeroetl_dagster_tests.exports.fakes import FakeGlue, fault

SALES = SourceTable("shop", "public", "sales")
NAMES = {SALES: "public_sales"}
COLUMNS = (Column("id", "int"), Column("paid", "string"))
FIRST = date(2024, 5, 1)


def day(n: int, columns: tuple[Column, ...] = COLUMNS, files: int = 2, **more: Any) -> DayOfTable:
    when = FIRST + timedelta(days=n)
    values: dict[str, Any] = {
        "table": SALES,
        "day": when,
        "export_id": f"e{n}",
        "location": f"s3://lake/exports/e{n}/shop/public.sales/",
        "columns": columns,
        "exported": (),
        "files": files,
        "size_bytes": 120,
    }
    return DayOfTable(**{**values, **more})


def catalogue(glue: Any, oldest: date | None = None, pipeline: str = "shop") -> Catalogue:
    return Catalogue(Calls(glue), pipeline, "lake", "snapshot_date", oldest)


def register(glue: FakeGlue, *days: DayOfTable, **more: Any) -> CatalogueTable:
    tables, problems = catalogue(glue, **more).register(days, NAMES)
    assert not problems
    return tables[-1]


def partitions(glue: FakeGlue) -> dict[str, str]:
    held = glue.partitions.get(("lake", "public_sales"), {})
    return {values[0]: item["StorageDescriptor"]["Location"] for values, item in sorted(held.items())}


def held(glue: FakeGlue) -> dict[str, Any]:
    return glue.databases["lake"]["public_sales"]


def names(glue: FakeGlue) -> list[str]:
    return [c["Name"] for c in held(glue)["StorageDescriptor"]["Columns"]]


def test_one_table_over_the_days_with_partitions_on_the_exports_own_folders(glue: FakeGlue) -> None:
    for n in range(3):
        register(glue, day(n))
    assert list(glue.databases["lake"]) == ["public_sales"]
    assert partitions(glue) == {f"2024-05-0{n + 1}": f"s3://lake/exports/e{n}/shop/public.sales/" for n in range(3)}
    assert held(glue)["PartitionKeys"] == [{"Name": "snapshot_date", "Type": "string"}]
    assert held(glue)["Parameters"][LATEST_DAY] == "2024-05-03"


def test_registering_a_day_again_changes_nothing(glue: FakeGlue) -> None:
    register(glue, day(0))
    before = held(glue)
    glue.calls.clear()
    register(glue, day(0))
    assert held(glue) == before
    assert {"create_table", "update_table", "batch_update_partition"}.isdisjoint(glue.calls)


def test_a_new_export_of_a_day_moves_its_partition(glue: FakeGlue) -> None:
    register(glue, day(0))
    register(glue, replace(day(0), location="s3://lake/exports/again/shop/public.sales/"))
    assert partitions(glue) == {"2024-05-01": "s3://lake/exports/again/shop/public.sales/"}


def test_an_empty_table_is_there_without_a_partition(glue: FakeGlue) -> None:
    table = register(glue, day(0, files=0))
    assert table.newest and held(glue) and partitions(glue) == {}


def test_a_table_that_became_empty_loses_the_partition_of_that_day(glue: FakeGlue) -> None:
    register(glue, day(0))
    register(glue, day(0, files=0))
    assert partitions(glue) == {}


def test_a_thousand_tables_and_thirty_days_cost_two_calls_a_table(glue: FakeGlue) -> None:
    tables = [SourceTable("shop", "public", f"t{n}") for n in range(50)]
    days = [replace(day(n), table=table) for table in tables for n in range(30)]
    found = catalogue(glue)
    found.register(days, {table: table.glue_name for table in tables})
    assert found.calls.count == 2 * 50 + 3  # and the database asked for, made, and listed
    assert len(glue.partitions[("lake", "public_t7")]) == 30


def test_partitions_are_created_a_hundred_at_a_time(glue: FakeGlue) -> None:
    register(glue, *(day(n) for n in range(250)))
    assert glue.calls.count("batch_create_partition") == 3 and len(partitions(glue)) == 250


def test_retention_drops_the_days_before_it(glue: FakeGlue) -> None:
    register(glue, *(day(n) for n in range(40)))
    register(glue, day(40), oldest=FIRST + timedelta(days=38))
    assert list(partitions(glue)) == ["2024-06-08", "2024-06-09", "2024-06-10"]
    glue.calls.clear()
    register(glue, day(41), oldest=FIRST + timedelta(days=38))
    assert "batch_delete_partition" not in glue.calls


def test_a_day_older_than_retention_gets_no_partition(glue: FakeGlue) -> None:
    register(glue, day(9))
    register(glue, day(0), oldest=FIRST + timedelta(days=5))
    assert list(partitions(glue)) == ["2024-05-10"]


@pytest.mark.parametrize(
    ("columns", "change"),
    [
        ((*COLUMNS, Column("city", "string")), "column 'city' (string) was added"),
        (COLUMNS[:1], "column 'paid' (string) was removed"),
        ((Column("id", "bigint"), COLUMNS[1]), "column 'id' changed from int to bigint"),
    ],
)
def test_a_schema_change_names_the_column_once(glue: FakeGlue, columns: tuple[Column, ...], change: str) -> None:
    assert register(glue, day(0)).changes == ()
    assert [str(c) for c in register(glue, day(1, columns)).changes] == [change]
    assert register(glue, day(2, columns)).changes == ()


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ({"original_type": "text"}, {"original_type": "numeric", "numeric_precision": 8}, "text to numeric(8)"),
        ({"original_type": "date"}, {"original_type": "text"}, "date to text"),
        (
            {"original_type": "character varying", "max_length": 10},
            {"original_type": "character varying", "max_length": 20},
            "character varying(10) to character varying(20)",
        ),
    ],
)
def test_a_type_that_changed_at_the_source_is_told_though_the_files_have_strings(
    glue: FakeGlue, before: dict[str, Any], after: dict[str, Any], change: str
) -> None:
    old, new = (ExportedColumn("Paid", exported_type="binary (UTF8)", **kind) for kind in (before, after))
    assert register(glue, day(0, exported=(old,))).changes == ()
    assert [str(c) for c in register(glue, day(1, exported=(new,))).changes] == [f"column 'paid' changed from {change}"]
    assert register(glue, day(2, exported=(new,))).changes == ()


def test_a_day_that_is_catalogued_again_is_told_the_same_change(glue: FakeGlue) -> None:
    register(glue, day(0))
    changed = day(1, COLUMNS[:1])
    assert register(glue, changed).changes == register(glue, changed).changes != ()
    assert register(glue, day(2, COLUMNS[:1])).changes == ()


def test_columns_are_append_only_and_say_when_they_left(glue: FakeGlue) -> None:
    register(glue, day(0))
    register(glue, day(1, (Column("new", "string"), Column("paid", "string"))))
    assert names(glue) == ["id", "paid", "new"]
    assert held(glue)["StorageDescriptor"]["Columns"][0]["Comment"] == "gone from the source by 2024-05-02"
    register(glue, day(2))
    assert "Comment" not in held(glue)["StorageDescriptor"]["Columns"][0]


def test_an_older_day_changes_neither_schema_nor_latest(glue: FakeGlue) -> None:
    register(glue, day(5))
    table = register(glue, day(0, (Column("id", "bigint"), Column("old", "string"))))
    assert not table.newest and table.changes == ()
    assert names(glue) == ["id", "paid", "old"]
    assert held(glue)["Parameters"][LATEST_DAY] == "2024-05-06"


def test_partition_columns_are_a_prefix_of_the_tables(glue: FakeGlue) -> None:
    register(glue, day(0))
    register(glue, day(1, (Column("first", "string"), *COLUMNS)))
    for item in glue.partitions[("lake", "public_sales")].values():
        columns = [c["Name"] for c in item["StorageDescriptor"]["Columns"]]
        assert names(glue)[: len(columns)] == columns


def problem(glue: FakeGlue, *days: DayOfTable, **more: Any) -> Problem:
    tables, problems = catalogue(glue, **more).register(days, NAMES)
    assert not tables
    return problems[0]


def test_somebody_elses_table_is_left_alone(glue: FakeGlue) -> None:
    glue.databases["lake"] = {"public_sales": {"Name": "public_sales", "Parameters": {}}}
    assert "was not made by this project" in str(problem(glue, day(0)))
    assert held(glue) == {"Name": "public_sales", "Parameters": {}}


def test_another_pipelines_table_is_left_alone(glue: FakeGlue) -> None:
    register(glue, day(0))
    assert "belongs to shop" in str(problem(glue, day(1), pipeline="other"))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ((Column("id", "int"), Column("id", "string")), "two columns are 'id'"),
        ((Column("snapshot_date", "string"),), "set `catalogue.partition_key`"),
        ((), "tells its columns"),
    ],
)
def test_tables_that_glue_cannot_hold_are_problems(glue: FakeGlue, columns: Any, words: str) -> None:
    assert words in str(problem(glue, day(0, columns)))


def test_a_problem_of_one_table_does_not_stop_the_others(glue: FakeGlue) -> None:
    users = SourceTable("shop", "public", "users")
    tables, problems = catalogue(glue).register(
        [day(0, ()), replace(day(0), table=users)], {**NAMES, users: "public_users"}
    )
    assert [t.name for t in tables] == ["public_users"] and [p.label for p in problems] == ["public.sales"]


def test_a_table_created_by_another_run_meanwhile_is_merged(glue: FakeGlue, monkeypatch: pytest.MonkeyPatch) -> None:
    register(glue, day(5))
    mine = catalogue(glue)
    monkeypatch.setattr(Catalogue, "tables", lambda self, database=None: {})
    tables, _ = mine.register([day(0)], NAMES)
    assert not tables[0].newest and len(partitions(glue)) == 2


def test_a_partition_that_glue_refuses_is_an_error(glue: FakeGlue, monkeypatch: pytest.MonkeyPatch) -> None:
    detail = {"ErrorCode": "InvalidInputException", "ErrorMessage": "no"}
    answer = {"Errors": [{"PartitionValues": ["2024-05-01"], "ErrorDetail": detail}]}
    monkeypatch.setattr(glue, "batch_create_partition", lambda **request: answer)
    with pytest.raises(CatalogueError, match=r"lake.public_sales: no \[InvalidInputException\]"):
        register(glue, day(0))


def test_other_faults_of_glue_are_not_swallowed(glue: FakeGlue, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**request: Any) -> None:
        raise fault("AccessDeniedException", "no glue:GetDatabase")

    monkeypatch.setattr(glue, "get_database", refuse)
    with pytest.raises(Exception, match="glue:GetDatabase"):
        register(glue, day(0))


def test_merging_nothing_into_a_new_table_is_no_change() -> None:
    assert merge((), day(0), latest=True) == (COLUMNS, ())


def test_the_calls_pass_aws_own_model() -> None:
    client = boto3.client("glue", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(client) as stub:
        stub.add_client_error("get_database", "EntityNotFoundException")
        stub.add_response("create_database", {})
        stub.add_response("get_tables", {"TableList": []}, {"DatabaseName": "lake", "MaxResults": 100})
        stub.add_response("create_table", {}, {"DatabaseName": "lake", "TableInput": ANY})
        stub.add_response("batch_create_partition", {"Errors": []})
        tables, problems = catalogue(client).register([day(0)], NAMES)
        stub.assert_no_pending_responses()
    assert len(tables) == 1 and not problems
