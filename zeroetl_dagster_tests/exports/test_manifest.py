"""The manifest is read tolerantly; what was asked is held against what is there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from zeroetl_dagster.exports import manifest
from zeroetl_dagster.exports.manifest import ManifestError, Written
from zeroetl_dagster.exports.names import SourceTable
from zeroetl_dagster_tests.exports.fakes import SALES, FakeS3, column, write_export

USERS = SourceTable("shop", "public", "users")
SALES_TABLE = SourceTable("shop", "public", "sales")


def compare(s3: FakeS3, asked: list[SourceTable] | None = None, warning: str | None = None) -> Written:
    found = manifest.read(s3, "lake", "exports", "e1")
    return manifest.compare(found, database="shop", mysql=False, asked=asked, warning=warning)


def test_tables_with_location_columns_files_and_bytes(s3: FakeS3) -> None:
    write_export(s3, "e1", {"public.sales": SALES})
    (table,) = compare(s3).tables
    assert table.location == "s3://lake/exports/e1/shop/public.sales/"
    assert [c.name for c in table.columns] == ["salesid", "pricepaid", "saletime"]
    assert (table.files, table.size_bytes, table.columns[1].numeric_precision) == (2, 120, 8)


def test_several_manifest_files_are_one_list_in_order(s3: FakeS3) -> None:
    write_export(s3, "e1", {f"public.t{n:03}": SALES for n in range(25)}, per_file=10)
    assert [t.table.name for t in compare(s3).tables] == [f"t{n:03}" for n in range(25)]


def test_an_empty_table_is_there_without_files(s3: FakeS3) -> None:
    write_export(s3, "e1", {"public.sales": SALES, "public.users": SALES}, empty=("public.users",))
    assert {t.table.name: t.files for t in compare(s3).tables} == {"sales": 2, "users": 0}
    assert compare(s3).missing == ()


def test_a_table_with_data_but_without_objects_is_missing(s3: FakeS3) -> None:
    write_export(s3, "e1", {"public.sales": SALES})
    for key in [key for key in s3.objects if key.endswith(".parquet")]:
        del s3.objects[key]
    assert compare(s3).missing == ("public.sales",) and compare(s3).tables == ()


def test_tables_asked_for_and_not_in_the_export_are_missing(s3: FakeS3) -> None:
    write_export(s3, "e1", {"public.sales": SALES})
    assert compare(s3, [SALES_TABLE, USERS]).missing == ("public.users",)


def test_tables_not_asked_for_are_left_out(s3: FakeS3) -> None:
    write_export(s3, "e1", {"public.sales": SALES, "public.users": SALES})
    assert [t.table for t in compare(s3, [USERS]).tables] == [USERS]


def test_a_table_that_the_manifest_skipped_is_skipped_with_its_reason(s3: FakeS3) -> None:
    skipped = {"public.users": {"status": "SKIPPED", "warningMessage": "row too large", "schemaMetadata": None}}
    write_export(s3, "e1", {"public.sales": SALES, "public.users": []}, statuses=skipped)
    (entry,) = compare(s3, [SALES_TABLE, USERS]).skipped
    assert (entry.label, entry.reason) == ("public.users", "row too large")
    assert compare(s3, [SALES_TABLE, USERS]).missing == ()


@pytest.mark.parametrize(
    "entry",
    [
        "shop.public.users",
        {"target": "shop.public.users", "reason": "PERMISSIONS_DO_NOT_EXIST"},
        {"tableName": "shop.public.users", "warningMessage": "no"},
    ],
)
def test_the_warning_of_a_complete_task_knows_better_than_the_manifest(s3: FakeS3, entry: Any) -> None:
    write_export(s3, "e1", {"public.sales": SALES, "public.users": SALES})
    found = compare(s3, warning=json.dumps({"skippedTables": [entry], "skippedObjectives": [], "general": []}))
    assert [s.label for s in found.skipped] == ["public.users"]
    assert [t.table for t in found.tables] == [SALES_TABLE]


@pytest.mark.parametrize(
    ("warning", "note"),
    [
        (
            '{"skippedTables":[],"general":[{"reason":"FAILED_TO_EXTRACT_TABLES_LIST_FOR_DATABASE"}]}',
            "FAILED_TO_EXTRACT",
        ),
        ("plain words", "plain words"),
        ('["a list"]', "a list"),
    ],
)
def test_other_warnings_are_notes(s3: FakeS3, warning: str, note: str) -> None:
    write_export(s3, "e1", {"public.sales": SALES})
    assert note in compare(s3, warning=warning).notes[0]


def test_an_entry_of_a_skipped_database_is_a_note(s3: FakeS3) -> None:
    write_export(s3, "e1", {"public.sales": SALES})
    key = "exports/e1/export_tables_info_e1_from_1_to_1.json"
    document = json.loads(s3.objects[key])
    document["perTableStatus"].append({"target": "rdsadmin", "warningMessage": "skipped"})
    s3.objects[key] = json.dumps(document).encode()
    assert compare(s3).notes == ("rdsadmin: skipped",)


def test_fields_may_be_missing_or_spelled_otherwise(s3: FakeS3) -> None:
    write_export(s3, "e1", {"public.sales": SALES})
    entry = {"target": "shop.public.sales", "SchemaMetadata": {"OriginalTypeMappings": [{"columnName": "id"}]}}
    s3.objects["exports/e1/export_tables_info_e1_from_1_to_1.json"] = json.dumps({"PerTableStatus": [entry]}).encode()
    (table,) = compare(s3).tables
    assert table.columns[0].name == "id" and table.columns[0].exported_type == "string" and table.size_gb is None


def test_exports_without_a_batch_level_are_read_too(s3: FakeS3) -> None:
    write_export(s3, "e1", {"public.sales": SALES}, empty=("public.sales",))
    s3.objects["exports/e1/shop/public.sales/part-00000-x.gz.parquet"] = b"12345"
    assert compare(s3).tables[0].size_bytes == 5


def test_names_with_blanks_and_quotes_are_found_in_their_folders(s3: FakeS3) -> None:
    write_export(s3, "e1", {'public.Order "Lines"': [column("id", "integer", "int32")]})
    (table,) = compare(s3).tables
    assert table.location.endswith("/shop/public.Order__Lines_/") and table.files == 2


def test_an_export_whose_files_are_gone_says_how_to_get_a_new_one(s3: FakeS3) -> None:
    with pytest.raises(ManifestError, match="new_export: true"):
        compare(s3)


def test_an_export_without_its_manifest_did_not_end(s3: FakeS3) -> None:
    s3.objects["exports/e1/shop/public.sales/1/part-0.parquet"] = b"1"
    with pytest.raises(ManifestError, match="no export_tables_info"):
        compare(s3)


@pytest.mark.parametrize(("body", "words"), [(b"{", "is not JSON"), (b"{}", "`perTableStatus` is missing")])
def test_a_manifest_that_is_none(s3: FakeS3, body: bytes, words: str) -> None:
    s3.objects["exports/e1/export_tables_info_e1_from_1_to_1.json"] = body
    with pytest.raises(ManifestError, match=words):
        compare(s3)
