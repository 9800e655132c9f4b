"""Statements that change something: CREATE TABLE AS, INSERT, UNLOAD, Hive's DDL; and the utilities that show."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from zeroetl_dagster.local.aws.s3_objects import split_url
from zeroetl_dagster_tests.local_athena.conftest import Lake


@pytest.fixture
def sales(lake: Lake) -> Lake:
    lake.put("sales/a.parquet", {"id": pa.array([1, 2, 3], pa.int32()), "day": pa.array(["a", "a", "b"])})
    lake.table("sales", "id int, day string")
    return lake


def keys(lake: Lake, prefix: str) -> list[str]:
    return [item["Key"] for item in lake.s3.list_objects_v2(Bucket="lake", Prefix=prefix).get("Contents", [])]


def manifest(lake: Lake, query: dict[str, Any]) -> list[str]:
    bucket, key = split_url(query["Statistics"]["DataManifestLocation"])
    return lake.s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode().split()


def test_create_table_as_writes_files_and_partitions(sales: Lake) -> None:
    query = sales.run(
        "CREATE TABLE agg WITH (format = 'PARQUET', write_compression = 'SNAPPY', "
        "external_location = 's3://lake/agg/', partitioned_by = ARRAY['day']) "
        "AS SELECT sum(id) AS total, CAST(avg(id) AS decimal(10,2)) AS mean, day "
        "FROM sales GROUP BY day"
    )
    assert (query["StatementType"], query["SubstatementType"]) == ("DDL", "CREATE_TABLE_AS_SELECT")
    written = manifest(sales, query)
    assert sorted(re.sub(r"/[^/]+$", "", url) for url in written) == ["s3://lake/agg/day=a", "s3://lake/agg/day=b"]
    path = sales.aws.world.objects.path_of(*split_url(written[0]))
    file = pq.ParquetFile(path)
    assert [str(f.type) for f in file.schema_arrow] == ["int64", "decimal128(10, 2)"]
    assert file.metadata.row_group(0).column(0).compression == "SNAPPY"
    assert sales.rows("SELECT total, mean, day FROM agg ORDER BY day") == [("3", "1.50", "a"), ("3", "3.00", "b")]
    assert sales.rows("SHOW PARTITIONS agg") == [("day=a",), ("day=b",)]
    answer = sales.athena.get_query_results(QueryExecutionId=query["QueryExecutionId"])
    assert (answer["UpdateCount"], answer["ResultSet"]["Rows"]) == (2, [])


def test_without_a_location_the_table_lies_below_the_results(sales: Lake) -> None:
    query = sales.run("CREATE TABLE copy AS SELECT * FROM sales")
    location = sales.glue.get_table(DatabaseName="db", Name="copy")["Table"]["StorageDescriptor"]["Location"]
    assert location == f"s3://lake/results/tables/{query['QueryExecutionId']}"
    assert query["ResultConfiguration"]["OutputLocation"] == location
    assert sales.rows("SELECT count(*) FROM copy") == [("3",)]


@pytest.mark.parametrize("kind", ["TEXTFILE", "JSON"])
def test_other_formats_read_back(sales: Lake, kind: str) -> None:
    sales.run(f"CREATE TABLE t WITH (format = '{kind}') AS SELECT id, day, CAST(NULL AS varchar) AS n FROM sales")
    assert sales.rows("SELECT * FROM t ORDER BY id") == [("1", "a", None), ("2", "a", None), ("3", "b", None)]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("CREATE TABLE sales AS SELECT 1 AS x", "TABLE_ALREADY_EXISTS"),
        ("CREATE TABLE none.t AS SELECT 1 AS x", "SCHEMA_NOT_FOUND"),
        ("CREATE TABLE t WITH (external_location = 's3://lake/sales/') AS SELECT 1 AS x", "HIVE_PATH_ALREADY_EXISTS"),
        ("CREATE TABLE t AS SELECT id + 1 FROM sales", "MISSING_COLUMN_NAME: .*position 1"),
        ("CREATE TABLE t AS SELECT 1 AS x, 2 AS X", "DUPLICATE_COLUMN_NAME"),
        ("CREATE TABLE t AS SELECT now() AS x", r"NOT_SUPPORTED: Unsupported Hive type: timestamp\(3\) with time zone"),
        ("CREATE TABLE t AS SELECT NULL AS x", "COLUMN_TYPE_UNKNOWN"),
        (
            "CREATE TABLE t WITH (partitioned_by = ARRAY['id']) AS SELECT id, day FROM sales",
            "HIVE_COLUMN_ORDER_MISMATCH",
        ),
        ("CREATE TABLE t WITH (partitioned_by = ARRAY['x']) AS SELECT 1 AS x", "only partition columns"),
        ("CREATE TABLE t WITH (format = 'ORC') AS SELECT 1 AS x", "NOT_SUPPORTED: .*format ORC"),
        (
            "CREATE TABLE t WITH (format = 'JSON', partitioned_by = ARRAY['y']) AS SELECT 1 AS x, 2 AS y",
            "NOT_SUPPORTED: .*partitions of JSON files",
        ),
        (
            "CREATE TABLE t WITH (bucketed_by = ARRAY['x'], bucket_count = 2) AS SELECT 1 AS x",
            "bucket_count, bucketed_by",
        ),
        ("CREATE TABLE t WITH (table_type = 'ICEBERG') AS SELECT 1 AS x", "table_type ICEBERG"),
        ("CREATE TABLE t WITH (write_compression = 'LZO') AS SELECT 1 AS x", "compression LZO"),
        (
            "CREATE TABLE t WITH (partitioned_by = ARRAY['p']) AS SELECT 1 x, p FROM UNNEST(sequence(1, 101)) AS u(p)",
            "HIVE_TOO_MANY_OPEN_PARTITIONS: Exceeded limit of 100",
        ),
        ("CREATE TABLE t AS SELECT 1 / 0 AS x", "DIVISION_BY_ZERO"),
        ("CREATE TABLE t WITH (external_location = '/x') AS SELECT 1 AS x", "INVALID_TABLE_PROPERTY"),
        (
            "CREATE TABLE t WITH (external_location = 's3://nowhere/x/') AS SELECT 1 AS x",
            "bucket does not exist: nowhere",
        ),
    ],
)
def test_create_table_as_that_cannot_be_leaves_nothing(sales: Lake, sql: str, message: str) -> None:
    before = keys(sales, "")
    assert re.search(message, sales.fails(sql))
    assert keys(sales, "") == before
    assert [t["Name"] for t in sales.glue.get_tables(DatabaseName="db")["TableList"]] == ["sales"]


def test_the_database_of_a_statement_may_be_quoted_as_hive_does(sales: Lake) -> None:
    described = sales.rows("DESCRIBE sales", QueryExecutionContext={"Database": "`db`"})
    assert described[0][0] is not None and described[0][0].startswith("id")


def test_create_table_with_no_data_has_no_rows(sales: Lake) -> None:
    sales.run("CREATE TABLE bare AS SELECT 1 AS x, 'a' AS y WITH NO DATA")
    assert sales.rows("SELECT * FROM bare") == []


def test_if_not_exists_leaves_the_table(sales: Lake) -> None:
    sales.run("CREATE TABLE IF NOT EXISTS sales AS SELECT 1 AS x")
    assert sales.rows("SELECT count(*) FROM sales") == [("3",)]


def test_insert(sales: Lake) -> None:
    sales.run("INSERT INTO sales VALUES (10, 'c'), (11, NULL)")
    sales.run("INSERT INTO sales (day) SELECT 'd'")
    assert sales.rows("SELECT id, day FROM sales WHERE id IS NULL OR id > 9 ORDER BY id") == [
        ("10", "c"),
        ("11", None),
        (None, "d"),
    ]
    query = sales.run("INSERT INTO sales SELECT id, day FROM sales")
    assert sales.athena.get_query_results(QueryExecutionId=query["QueryExecutionId"])["UpdateCount"] == 6


def test_insert_makes_partitions(sales: Lake) -> None:
    sales.table("p", "id bigint", "day string, n int")
    sales.run("INSERT INTO p SELECT id, day, id FROM sales WHERE id > 1")
    sales.run("INSERT INTO p VALUES (9, 'a b/c', 7)")
    assert sales.rows("SHOW PARTITIONS p") == [("day=a b%2Fc/n=7",), ("day=a/n=2",), ("day=b/n=3",)]
    assert sales.rows("SELECT id FROM p WHERE day = 'a b/c' AND n = 7") == [("9",)]
    assert any("day=a b%2Fc/n=7/" in key for key in keys(sales, "p/"))


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("INSERT INTO sales VALUES ('x', 'c')", "TYPE_MISMATCH: .*mismatched column types: Table: .integer, varchar."),
        ("INSERT INTO sales SELECT 1", "mismatched column types"),
        ("INSERT INTO sales (nope) VALUES (1)", "COLUMN_NOT_FOUND: .*nope"),
        ("INSERT INTO nothing VALUES (1)", "TABLE_NOT_FOUND"),
        ("INSERT INTO none.t VALUES (1)", "SCHEMA_NOT_FOUND"),
    ],
)
def test_inserts_that_cannot_be(sales: Lake, sql: str, message: str) -> None:
    assert re.search(message, sales.fails(sql))


def test_unload(sales: Lake) -> None:
    query = sales.run(
        "UNLOAD (SELECT id, ')' AS p, day FROM sales) TO 's3://lake/out/' "
        "WITH (format = 'PARQUET', compression = 'ZSTD', partitioned_by = ARRAY['day'])"
    )
    assert (query["StatementType"], query["SubstatementType"]) == ("DML", "UNLOAD")
    written = manifest(sales, query)
    assert len(written) == 2 and all(url.startswith("s3://lake/out/day=") for url in written)
    assert "HIVE_PATH_ALREADY_EXISTS" in sales.fails(
        "UNLOAD (SELECT 1 AS x) TO 's3://lake/out/' WITH (format = 'JSON')"
    )
    assert "needs the property format" in sales.fails("UNLOAD (SELECT 1 AS x) TO 's3://lake/o2/'")


# ---- Hive's statements -----------------------------------------------------------------------------------------------


def test_databases(lake: Lake) -> None:
    lake.run("CREATE DATABASE IF NOT EXISTS new COMMENT 'it''s' LOCATION 's3://lake/new/' WITH DBPROPERTIES ('a'='b')")
    lake.run("CREATE SCHEMA IF NOT EXISTS new")
    assert "already exists" in lake.fails("CREATE DATABASE new")
    made = lake.glue.get_database(Name="new")["Database"]
    assert (made["LocationUri"], made["Parameters"], made["Description"]) == ("s3://lake/new/", {"a": "b"}, "it's")
    assert lake.rows("SHOW DATABASES") == [("db",), ("new",)]
    assert lake.rows("SHOW SCHEMAS LIKE 'n*'") == [("new",)]
    lake.run("CREATE VIEW new.v AS SELECT 1 AS x")
    assert "is not empty" in lake.fails("DROP DATABASE new")
    lake.run("DROP DATABASE new CASCADE")
    assert "Database does not exist: new" in lake.fails("DROP DATABASE new")
    lake.run("DROP SCHEMA IF EXISTS new")


def test_create_external_table(lake: Lake) -> None:
    lake.run(
        "CREATE EXTERNAL TABLE IF NOT EXISTS db.t (`Id` int COMMENT 'the key', s struct<x:int,y:array<string>>, "
        "p decimal(10,2)) COMMENT 'a table' PARTITIONED BY (dt string COMMENT 'day') STORED AS PARQUET "
        "LOCATION 's3://lake/t/' TBLPROPERTIES ('classification'='parquet')"
    )
    table = lake.glue.get_table(DatabaseName="db", Name="t")["Table"]
    assert table["StorageDescriptor"]["Columns"] == [
        {"Name": "id", "Type": "int", "Comment": "the key"},
        {"Name": "s", "Type": "struct<x:int,y:array<string>>"},
        {"Name": "p", "Type": "decimal(10,2)"},
    ]
    assert table["PartitionKeys"] == [{"Name": "dt", "Type": "string", "Comment": "day"}]
    assert table["Description"] == "a table" and table["Parameters"]["classification"] == "parquet"
    assert "parquet.serde" in table["StorageDescriptor"]["SerdeInfo"]["SerializationLibrary"]
    text = "\n".join(row[0] or "" for row in lake.rows("SHOW CREATE TABLE t"))
    lake.run("DROP TABLE t")
    lake.run(text.replace("`db.t`", "db.t"))
    again = lake.glue.get_table(DatabaseName="db", Name="t")["Table"]
    for member in ("Columns", "Location", "InputFormat", "OutputFormat", "SerdeInfo"):
        assert again["StorageDescriptor"][member] == table["StorageDescriptor"][member]
    assert "already exists" in lake.fails("CREATE EXTERNAL TABLE t (a int) STORED AS PARQUET LOCATION 's3://lake/t/'")
    assert "SCHEMA_NOT_FOUND" in lake.fails("CREATE EXTERNAL TABLE x.t (a int) LOCATION 's3://lake/t/'")
    assert "LOCATION" in lake.fails("CREATE EXTERNAL TABLE u (a int)")
    assert "STORED AS ORC" in lake.fails("CREATE EXTERNAL TABLE u (a int) STORED AS ORC LOCATION 's3://lake/t/'")


def test_partitions(lake: Lake) -> None:
    lake.table("t", "id int", "dt string, h int")
    lake.run(
        "ALTER TABLE t ADD IF NOT EXISTS PARTITION (dt = '2024-01-01', h = 1) LOCATION 's3://lake/any/' "
        "PARTITION (h = 2, dt = '2024-01-01')"
    )
    found = lake.glue.get_partitions(DatabaseName="db", TableName="t")["Partitions"]
    assert {tuple(p["Values"]): p["StorageDescriptor"]["Location"] for p in found} == {
        ("2024-01-01", "1"): "s3://lake/any/",
        ("2024-01-01", "2"): "s3://lake/t/dt=2024-01-01/h=2",
    }
    lake.run("ALTER TABLE t ADD IF NOT EXISTS PARTITION (dt = '2024-01-01', h = 1)")
    assert "already exists" in lake.fails("ALTER TABLE t ADD PARTITION (dt = '2024-01-01', h = 1)")
    assert "contains non-partition columns" in lake.fails("ALTER TABLE t ADD PARTITION (x = '1')")
    lake.run("ALTER TABLE t PARTITION (dt = '2024-01-01', h = 2) SET LOCATION 's3://lake/moved/'")
    lake.run("ALTER TABLE t PARTITION (dt = '2024-01-01', h = 2) RENAME TO PARTITION (dt = '2024-01-02', h = 3)")
    assert lake.rows("SHOW PARTITIONS t") == [("dt=2024-01-01/h=1",), ("dt=2024-01-02/h=3",)]
    lake.run("ALTER TABLE t DROP PARTITION (dt = '2024-01-01'), PARTITION (dt = '2024-01-02', h = '3')")
    assert lake.rows("SHOW PARTITIONS t") == []
    assert "Partition not found" in lake.fails("ALTER TABLE t DROP PARTITION (dt = '9')")
    lake.run("ALTER TABLE t DROP IF EXISTS PARTITION (dt = '9')")


def test_repair_adds_what_lies_there(lake: Lake) -> None:
    lake.table("t", "id int", "dt string")
    for key in ("t/dt=1/a.parquet", "t/dt=2/sub/a.parquet", "t/other/a.parquet", "t/dt=3/_SUCCESS"):
        lake.put(key, {"id": pa.array([1], pa.int32())})
    lake.run("ALTER TABLE t ADD PARTITION (dt = '1')")
    assert lake.rows("MSCK REPAIR TABLE t") == [
        ("Partitions not in metastore:\tt:dt=2",),
        ("Repair: Added partition to metastore t:dt=2",),
    ]
    assert lake.rows("MSCK REPAIR TABLE db.t") == []
    assert lake.rows("SELECT dt, count(*) FROM t GROUP BY dt ORDER BY dt") == [("1", "1"), ("2", "1")]


def test_properties_and_columns(lake: Lake) -> None:
    lake.table("t", "id int")
    lake.run("ALTER TABLE t SET TBLPROPERTIES ('a' = 'b, c', 'comment' = 'x')")
    assert ("a\tb, c",) in lake.rows("SHOW TBLPROPERTIES t")
    assert lake.rows("SHOW TBLPROPERTIES t('a')") == [("b, c",)]
    lake.run("ALTER TABLE t ADD COLUMNS (Note string, p decimal(10,2))")
    lake.run("ALTER TABLE t SET LOCATION 's3://lake/moved/'")
    table = lake.glue.get_table(DatabaseName="db", Name="t")["Table"]["StorageDescriptor"]
    assert [c["Name"] for c in table["Columns"]] == ["id", "note", "p"] and table["Location"] == "s3://lake/moved/"
    assert "Duplicate column name" in lake.fails("ALTER TABLE t ADD COLUMNS (ID int)")
    assert lake.rows("SHOW COLUMNS IN t")[0] == ("id                  ",)


def test_describe_and_show(lake: Lake) -> None:
    lake.table("t", "id int", "dt string")
    lake.run("CREATE VIEW v AS SELECT 1 AS x")
    query = lake.run("DESCRIBE t")
    assert query["StatementType"] == "UTILITY"
    answer = lake.athena.get_query_results(QueryExecutionId=query["QueryExecutionId"])["ResultSet"]
    assert [c["Name"] for c in answer["ResultSetMetadata"]["ColumnInfo"]] == ["col_name", "data_type", "comment"]
    assert answer["Rows"][0]["Data"] == [{"VarCharValue": f"{'id':<20}\t{'int':<20}\t{'':<20}"}]
    assert len(answer["Rows"]) == 7
    assert lake.rows("SHOW TABLES") == [("t",), ("v",)]
    assert lake.rows("SHOW TABLES IN db 't|x'") == [("t",)]
    assert lake.rows("SHOW VIEWS IN `db`") == [("v",)]
    assert "Table not found db.none" in lake.fails("DESCRIBE none")
    assert "not a partitioned table" in lake.fails("SHOW PARTITIONS v")
    assert "SEQ_SCAN" in str(lake.rows("EXPLAIN SELECT * FROM t")) or lake.rows("EXPLAIN SELECT 1")


def test_drop_table_keeps_the_files(sales: Lake) -> None:
    sales.run("DROP TABLE sales")
    assert keys(sales, "sales/") == ["sales/a.parquet"]
    sales.run("DROP TABLE IF EXISTS sales")
    assert "Table not found sales" in sales.fails("DROP TABLE sales")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", "line 1:1: mismatched input 'SELEC'|line 1:7: mismatched input '1'"),
        ("SELECT a,\n  b c d FROM t", "line 2:7: mismatched input 'd'"),
        ("", "mismatched input '<EOF>'"),
        ("-- nothing\n;", "mismatched input '<EOF>'"),
        ("SELECT 1; SELECT 2", "Only one sql statement is allowed"),
        ("GRANT ALL ON x TO y", "mismatched input 'GRANT'"),
        ("UNLOAD (SELECT 1 TO 's3://x/'", "Expecting: '\\)'"),
        ("UNLOAD SELECT 1", "Expecting: '\\('"),
        ("UNLOAD (SELECT 1) INTO 'x'", "Expecting: TO"),
        ("EXPLAIN DROP TABLE x", "EXPLAIN of something else"),
        ("SELECT ?", "Incorrect number of parameters: expected 1 but found 0"),
    ],
)
def test_nonsense_is_refused_when_it_is_submitted(lake: Lake, sql: str, message: str) -> None:
    with pytest.raises(ClientError, match=message) as error:
        lake.start(sql or " ")
    assert error.value.response["Error"]["Code"] == "InvalidRequestException"


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM sales",
        "UPDATE sales SET id = 1",
        "ALTER TABLE sales RENAME TO x",
        "PREPARE p FROM SELECT ?",
        "EXECUTE p USING 1",
    ],
)
def test_what_is_not_implemented_says_so(sales: Lake, sql: str) -> None:
    assert sales.fails(sql).startswith("NOT_SUPPORTED: the embedded Athena does not implement")


def test_comments_and_ends_are_no_part_of_a_statement(sales: Lake) -> None:
    assert sales.rows("/* a; */ SELECT count(*) -- b\nFROM sales ; \n") == [("3",)]
    assert sales.rows("-- x\nSHOW TABLES") == [("sales",)]
    assert sales.rows("SELECT '--x', '/* y */', 'a;b'") == [("--x", "/* y */", "a;b")]


def test_execution_parameters(sales: Lake) -> None:
    sql = "SELECT id, '?' FROM sales WHERE day = ? AND id > ? -- ?\nORDER BY id"
    assert sales.rows(sql, ExecutionParameters=["'a'", "1"]) == [("2", "?")]
    assert sales.rows("SELECT ?, ?", ExecutionParameters=["DATE '2024-01-01'", "-1"]) == [("2024-01-01", "-1")]
    assert sales.rows("SELECT ?", ExecutionParameters=["plain text; DROP TABLE x"]) == [("plain text; DROP TABLE x",)]
    assert sales.rows("SELECT ?", ExecutionParameters=["it's"]) == [("it's",)]
    with pytest.raises(ClientError, match="only supported for queries"):
        sales.start("SHOW TABLES", ExecutionParameters=["1"])
