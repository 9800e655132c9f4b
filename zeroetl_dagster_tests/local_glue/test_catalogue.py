"""Databases, tables, partitions through boto3."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from zeroetl_dagster_tests.control_plane import ACCOUNT, OTHER_ACCOUNT, ControlPlane

COLUMNS = [{"Name": "id", "Type": "int"}, {"Name": "name", "Type": "string"}]


@pytest.fixture
def glue(aws: ControlPlane) -> Any:
    client = aws.client("glue")
    client.create_database(DatabaseInput={"Name": "Tickit", "Description": "sales"})
    return client


def table(name: str, keys: tuple[str, ...] = ("dt",), kind: str = "string", **more: Any) -> dict[str, Any]:
    return {
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "PartitionKeys": [{"Name": key, "Type": kind} for key in keys],
        "StorageDescriptor": {"Columns": COLUMNS, "Location": f"s3://lake/{name}/"},
        **more,
    }


def partition(*values: str) -> dict[str, Any]:
    return {"Values": list(values), "StorageDescriptor": {"Columns": COLUMNS, "Location": f"s3://lake/x/{values[0]}/"}}


def test_names_are_lower_case_and_all_survives_a_restart(aws: ControlPlane, glue: Any) -> None:
    glue.create_table(DatabaseName="TICKIT", TableInput=table("Sales", Parameters={"classification": "parquet"}))
    made = glue.get_table(DatabaseName="tickit", Name="SALES")["Table"]
    assert (made["Name"], made["DatabaseName"], made["VersionId"]) == ("sales", "tickit", "0")
    assert made["CreatedBy"] == f"arn:aws:iam::{ACCOUNT}:user/admin"
    glue.create_partition(DatabaseName="tickit", TableName="sales", PartitionInput=partition("2024-01-01"))
    aws.restart()
    glue = aws.client("glue")
    assert glue.get_table(DatabaseName="tickit", Name="sales")["Table"] == made
    assert [p["Values"] for p in glue.get_partitions(DatabaseName="tickit", TableName="sales")["Partitions"]] == [
        ["2024-01-01"]
    ]
    assert [d["Name"] for d in glue.get_databases()["DatabaseList"]] == ["tickit"]


def test_accounts_and_regions_are_apart(aws: ControlPlane, glue: Any) -> None:
    other = aws.client("glue", credentials=aws.in_account(OTHER_ACCOUNT))
    assert other.get_databases()["DatabaseList"] == []
    assert aws.client("glue", region="us-east-1").get_databases()["DatabaseList"] == []
    with pytest.raises(ClientError, match="is not shared"):
        other.get_database(Name="tickit", CatalogId=ACCOUNT)


def test_faults(glue: Any) -> None:
    glue.create_table(DatabaseName="tickit", TableInput=table("sales"))
    with pytest.raises(glue.exceptions.AlreadyExistsException):
        glue.create_database(DatabaseInput={"Name": "tickit"})
    with pytest.raises(glue.exceptions.AlreadyExistsException):
        glue.create_table(DatabaseName="tickit", TableInput=table("SALES"))
    with pytest.raises(glue.exceptions.EntityNotFoundException, match="Database nothing not found"):
        glue.get_tables(DatabaseName="nothing")
    with pytest.raises(glue.exceptions.EntityNotFoundException, match="Table none not found"):
        glue.get_table(DatabaseName="tickit", Name="none")
    with pytest.raises(glue.exceptions.InvalidInputException, match="number of partition keys"):
        glue.create_partition(DatabaseName="tickit", TableName="sales", PartitionInput=partition("a", "b"))
    with pytest.raises(glue.exceptions.InvalidInputException, match="TableInput is required"):
        glue.create_table(DatabaseName="tickit", Name="x")
    with pytest.raises(ClientError, match="glue:CreateTable with OpenTableFormatInput"):
        glue.create_table(
            DatabaseName="tickit",
            TableInput=table("x"),
            OpenTableFormatInput={"IcebergInput": {"MetadataOperation": "CREATE"}},
        )
    with pytest.raises(ClientError, match="glue:GetTableVersions"):
        glue.get_table_versions(DatabaseName="tickit", TableName="sales")


def test_an_update_replaces_and_counts_versions(glue: Any) -> None:
    glue.create_table(DatabaseName="tickit", TableInput=table("sales", Description="old"))
    made = glue.get_table(DatabaseName="tickit", Name="sales")["Table"]
    glue.update_table(DatabaseName="tickit", TableInput=table("sales"))
    found = glue.get_table(DatabaseName="tickit", Name="sales")["Table"]
    assert "Description" not in found and found["VersionId"] == "1" and found["CreateTime"] == made["CreateTime"]
    with pytest.raises(glue.exceptions.ConcurrentModificationException):
        glue.update_table(DatabaseName="tickit", TableInput=table("sales"), VersionId="0")
    glue.create_partition(DatabaseName="tickit", TableName="sales", PartitionInput=partition("1"))
    glue.update_table(DatabaseName="tickit", Name="sales", TableInput=table("sales2"))
    assert len(glue.get_partitions(DatabaseName="tickit", TableName="sales2")["Partitions"]) == 1
    assert [t["Name"] for t in glue.get_tables(DatabaseName="tickit")["TableList"]] == ["sales2"]


def test_tables_are_found_by_pattern_and_page(glue: Any) -> None:
    for name in ("a1", "a2", "b1"):
        glue.create_table(DatabaseName="tickit", TableInput=table(name))
    for pattern, expected in (("a.*", ["a1", "a2"]), ("a*", ["a1", "a2"]), ("*1", ["a1", "b1"]), ("b1", ["b1"])):
        found = glue.get_tables(DatabaseName="tickit", Expression=pattern)["TableList"]
        assert [t["Name"] for t in found] == expected
    pages = glue.get_paginator("get_tables").paginate(DatabaseName="tickit", PaginationConfig={"PageSize": 2})
    assert [[t["Name"] for t in page["TableList"]] for page in pages] == [["a1", "a2"], ["b1"]]
    answer = glue.batch_delete_table(DatabaseName="tickit", TablesToDelete=["a1", "none"])
    assert [(e["TableName"], e["ErrorDetail"]["ErrorCode"]) for e in answer["Errors"]] == [
        ("none", "EntityNotFoundException")
    ]
    glue.delete_database(Name="tickit")
    assert glue.get_databases()["DatabaseList"] == []


def test_partitions_in_batches(glue: Any) -> None:
    glue.create_table(DatabaseName="tickit", TableInput=table("sales", keys=("dt", "region")))
    where = {"DatabaseName": "tickit", "TableName": "sales"}
    values = [("2024-01-01", "eu/west"), ("2024-01-01", "a%2Fb"), ("2024-01-02", "日本")]
    answer = glue.batch_create_partition(**where, PartitionInputList=[partition(*v) for v in values])
    assert answer["Errors"] == []
    again = glue.batch_create_partition(**where, PartitionInputList=[partition(*values[0]), partition("x", "y")])
    assert [(e["PartitionValues"], e["ErrorDetail"]["ErrorCode"]) for e in again["Errors"]] == [
        (list(values[0]), "AlreadyExistsException")
    ]
    wanted = [{"Values": list(values[2])}, {"Values": ["no", "no"]}]
    got = glue.batch_get_partition(**where, PartitionsToGet=wanted)
    assert [p["Values"] for p in got["Partitions"]] == [list(values[2])]
    assert got["UnprocessedKeys"] == wanted[1:]
    moved = {**partition(*values[1]), "Parameters": {"a": "b"}}
    entry = {"PartitionValueList": list(values[1]), "PartitionInput": moved}
    missing = {"PartitionValueList": ["no", "no"], "PartitionInput": moved}
    answer = glue.batch_update_partition(**where, Entries=[entry, missing])
    assert [e["PartitionValueList"] for e in answer["Errors"]] == [["no", "no"]]
    assert glue.get_partition(**where, PartitionValues=list(values[1]))["Partition"]["Parameters"] == {"a": "b"}
    renamed = partition("2024-02-01", "x")
    glue.update_partition(**where, PartitionValueList=list(values[2]), PartitionInput=renamed)
    deleted = glue.batch_delete_partition(
        **where, PartitionsToDelete=[{"Values": list(values[0])}, {"Values": ["n", "n"]}]
    )
    assert [e["PartitionValues"] for e in deleted["Errors"]] == [["n", "n"]]
    left = glue.get_partitions(**where, ExcludeColumnSchema=True)["Partitions"]
    assert sorted(p["Values"] for p in left) == [["2024-01-01", "a%2Fb"], ["2024-02-01", "x"], ["x", "y"]]
    assert all("Columns" not in p["StorageDescriptor"] for p in left)
    glue.delete_partition(**where, PartitionValues=["x", "y"])
    with pytest.raises(glue.exceptions.EntityNotFoundException, match="Cannot find partition"):
        glue.get_partition(**where, PartitionValues=["x", "y"])


def test_segments_cover_all_partitions_once(glue: Any) -> None:
    glue.create_table(DatabaseName="tickit", TableInput=table("t"))
    where = {"DatabaseName": "tickit", "TableName": "t"}
    glue.batch_create_partition(**where, PartitionInputList=[partition(str(n)) for n in range(10)])
    segments = [
        glue.get_partitions(**where, Segment={"SegmentNumber": n, "TotalSegments": 3})["Partitions"] for n in range(3)
    ]
    assert sorted(p["Values"][0] for segment in segments for p in segment) == [str(n) for n in range(10)]
    pages = glue.get_paginator("get_partitions").paginate(**where, PaginationConfig={"PageSize": 4})
    assert [len(page["Partitions"]) for page in pages] == [4, 4, 2]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("dt = '2024-01-02'", ["2024-01-02"]),
        ("dt >= '2024-01-02'", ["2024-01-02", "2024-02-01"]),
        ("dt > '2024-01-01' AND dt < '2024-02-01'", ["2024-01-02"]),
        ("(dt = '2024-01-01') OR dt = '2024-02-01'", ["2024-01-01", "2024-02-01"]),
        ("dt IN ('2024-01-01', '2023-01-01')", ["2024-01-01"]),
        ("dt NOT IN ('2024-01-01')", ["2024-01-02", "2024-02-01"]),
        ("dt BETWEEN '2024-01-02' AND '2024-12-31'", ["2024-01-02", "2024-02-01"]),
        ("DT LIKE '2024-01%'", ["2024-01-01", "2024-01-02"]),
        ("dt <> '2024-01-01'", ["2024-01-02", "2024-02-01"]),
        ("NOT dt != '2024-01-01'", ["2024-01-01"]),
        ("dt IS NOT NULL", ["2024-01-01", "2024-01-02", "2024-02-01"]),
        ("dt IS NULL", ["__HIVE_DEFAULT_PARTITION__"]),
    ],
)
def test_expressions_over_text(glue: Any, expression: str, expected: list[str]) -> None:
    glue.create_table(DatabaseName="tickit", TableInput=table("t"))
    where = {"DatabaseName": "tickit", "TableName": "t"}
    values = ("2024-01-01", "2024-01-02", "2024-02-01", "__HIVE_DEFAULT_PARTITION__")
    glue.batch_create_partition(**where, PartitionInputList=[partition(value) for value in values])
    found = glue.get_partitions(**where, Expression=expression)["Partitions"]
    assert [p["Values"][0] for p in found] == expected


@pytest.mark.parametrize(
    ("kind", "expression", "expected"),
    [
        ("int", "k > 9", ["10", "100"]),
        ("bigint", "k = '9'", ["9"]),
        ("date", "k >= '2024-01-10'", ["2024-01-10", "2024-02-02"]),
    ],
)
def test_expressions_by_the_keys_type(glue: Any, kind: str, expression: str, expected: list[str]) -> None:
    glue.create_table(DatabaseName="tickit", TableInput=table("t", keys=("k",), kind=kind))
    where = {"DatabaseName": "tickit", "TableName": "t"}
    values = ["2024-01-09", "2024-01-10", "2024-02-02"] if kind == "date" else ["9", "10", "100"]
    glue.batch_create_partition(**where, PartitionInputList=[partition(value) for value in values])
    found = glue.get_partitions(**where, Expression=expression)["Partitions"]
    assert sorted(p["Values"][0] for p in found) == expected


@pytest.mark.parametrize("expression", ["dt =", "other = 1", "dt", "dt = dt || 'x'"])
def test_what_is_no_filter_is_refused(glue: Any, expression: str) -> None:
    glue.create_table(DatabaseName="tickit", TableInput=table("t"))
    glue.create_partition(DatabaseName="tickit", TableName="t", PartitionInput=partition("1"))
    with pytest.raises(glue.exceptions.InvalidInputException, match="Unsupported expression"):
        glue.get_partitions(DatabaseName="tickit", TableName="t", Expression=expression)
