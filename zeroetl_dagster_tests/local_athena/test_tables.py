"""Tables over files: partitions, pruning and scanned bytes, types that do not fit, formats, views."""

from __future__ import annotations

import gzip
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zeroetl_dagster_tests.local_athena.conftest import Lake

ID, PRICE = pa.array([1, 2, 3], pa.int32()), pa.array(["1.50", None, "x" * 500])


def chunk_bytes(lake: Lake, key: str, column: str) -> int:
    path = lake.aws.world.objects.path_of("lake", key)
    group = pq.ParquetFile(path).metadata.row_group(0)
    return next(
        group.column(i).total_compressed_size
        for i in range(group.num_columns)
        if group.column(i).path_in_schema == column
    )


@pytest.fixture
def days(lake: Lake) -> Lake:
    """`sales` with three days, the third in a folder that has another shape."""
    for day in ("2024-01-01", "2024-01-02"):
        lake.put(f"sales/dt={day}/1/part-0.gz.parquet", {"id": ID, "price": PRICE})
        lake.s3.put_object(Bucket="lake", Key=f"sales/dt={day}/1/_SUCCESS", Body=b"x")
    lake.put("elsewhere/part-0.parquet", {"id": ID, "price": PRICE})
    lake.table("sales", "id int, price string", "dt string")
    for day in ("2024-01-01", "2024-01-02"):
        lake.partition("sales", day, location=f"s3://lake/sales/dt={day}/")
    lake.partition("sales", "2024-01-03", location="s3://lake/elsewhere")
    return lake


def test_scanned_bytes_are_the_chunks_of_the_columns_in_the_partitions_read(days: Lake) -> None:
    first = "sales/dt=2024-01-01/1/part-0.gz.parquet"
    ids, prices = chunk_bytes(days, first, "id"), chunk_bytes(days, first, "price")
    assert days.scanned("SELECT id FROM sales") == 3 * ids
    assert days.scanned("SELECT * FROM sales") == 3 * (ids + prices)
    assert days.scanned("SELECT count(*) FROM sales") == 0
    assert days.scanned("SELECT count(*) FROM sales WHERE dt = '2024-01-02' AND id > 1") == ids
    assert days.scanned("SELECT price FROM sales WHERE dt IN ('2024-01-01', '2024-01-02')") == 2 * prices
    assert days.scanned("SELECT id FROM sales WHERE dt > '2024-01-02' OR dt < '2024-01-01'") == ids
    assert days.scanned("SELECT id FROM sales WHERE substr(dt, 9) = '02'") == ids
    assert days.scanned("SELECT id FROM sales WHERE CAST(dt AS date) = DATE '2024-01-03'") == ids
    assert days.scanned("SELECT id FROM sales WHERE dt = '1999-01-01'") == 0
    assert days.scanned("SELECT a.id FROM sales a JOIN sales b ON a.id = b.id AND b.dt = '2024-01-01'") == 4 * ids
    outer = "SELECT a.id, b.id FROM sales a LEFT JOIN sales b ON a.id = b.id AND b.dt = '2024-01-01'"
    assert days.scanned(outer) == 4 * ids
    assert days.scanned(f"{outer} WHERE a.dt = '2024-01-02'") == 2 * ids
    assert days.scanned("WITH x AS (SELECT * FROM sales) SELECT id FROM x WHERE dt = '2024-01-01'") == ids
    assert days.scanned("SELECT id FROM (SELECT *, id + 1 AS n FROM sales) WHERE dt = '2024-01-01'") == ids
    assert days.scanned("SELECT id FROM sales WHERE dt = (SELECT max(dt) FROM sales)") == 3 * ids
    assert days.scanned("SELECT name FROM information_schema.tables t(a, b, name, d)") == 0


def test_pruning_makes_no_rows_that_are_not_there(days: Lake) -> None:
    join = "SELECT count(*) FROM sales a LEFT JOIN sales b ON a.id = b.id AND a.dt = b.dt"
    assert days.rows(f"{join} WHERE b.dt IS NULL") == [("0",)]
    assert days.rows(f"{join} WHERE coalesce(b.dt, '2024-01-01') = '2024-01-01'") == [("3",)]
    assert days.rows(f"{join} WHERE NOT (b.dt = '2024-01-01')") == [("6",)]
    assert days.rows(f"{join} WHERE b.dt = '2024-01-01'") == [("3",)]
    assert days.rows(f"{join} AND a.dt = '2024-01-01'") == [("9",)]
    right = "SELECT count(*) FROM sales a RIGHT JOIN sales b ON a.id = b.id AND a.dt = b.dt"
    assert days.rows(f"{right} AND b.dt = '2024-01-01'") == [("9",)]
    assert days.rows(f"{right} WHERE a.dt IS NULL") == [("0",)]
    full = "SELECT count(*) FROM sales a FULL JOIN sales b ON a.id = b.id AND a.dt = b.dt AND b.dt = '2024-01-01'"
    assert days.rows(full) == [("15",)]


def test_partitions_are_columns(days: Lake) -> None:
    sql = "SELECT dt, count(*), min(id) FROM sales GROUP BY dt ORDER BY dt"
    assert days.rows(sql) == [(day, "3", "1") for day in ("2024-01-01", "2024-01-02", "2024-01-03")]
    assert days.rows("SELECT DISTINCT dt FROM sales WHERE dt = '2024-01-03'") == [("2024-01-03",)]
    assert days.rows("SELECT id FROM sales WHERE dt = '2024-01-03' AND id = 2") == [("2",)]
    assert len(days.rows('SELECT * FROM "sales$partitions" ORDER BY dt')) == 3


def test_the_path_of_a_row(days: Lake) -> None:
    sql = "SELECT DISTINCT \"$path\" FROM sales WHERE dt = '2024-01-03'"
    assert days.rows(sql) == [("s3://lake/elsewhere/part-0.parquet",)]
    assert len(days.rows("SELECT * FROM sales WHERE \"$path\" LIKE '%elsewhere%'")[0]) == 3


def test_partition_values_by_their_type(lake: Lake) -> None:
    lake.put("t/a.parquet", {"id": ID})
    lake.table("t", "id int", "y int, d date")
    lake.partition("t", "2024", "2024-01-10", location="s3://lake/t/")
    lake.partition("t", "__HIVE_DEFAULT_PARTITION__", "2024-01-09", location="s3://lake/t/")
    assert lake.rows("SELECT y / 2, d + INTERVAL '1' DAY FROM t WHERE d > DATE '2024-01-09' AND id = 1") == [
        ("1012", "2024-01-11")
    ]
    assert lake.rows("SELECT count(*) FROM t WHERE y IS NULL") == [("3",)]
    assert "Cannot apply operator: integer = varchar(4)" in lake.fails("SELECT 1 FROM t WHERE y = '2024'")


def test_an_empty_table_and_a_partition_without_files(lake: Lake) -> None:
    lake.table("t", "id int, name string", "dt string")
    assert lake.rows("SELECT id, sum(1) FROM t GROUP BY 1") == []
    lake.partition("t", "1", location="s3://lake/nothing/")
    assert lake.rows("SELECT count(*), max(dt) FROM t") == [("0", None)]
    lake.table("plain", "id int")
    assert lake.rows("SELECT * FROM plain") == []


def test_columns_that_a_file_lacks_are_null(lake: Lake) -> None:
    lake.put("t/a.parquet", {"id": ID})
    lake.put("t/b.parquet", {"ID": pa.array([9], pa.int32()), "Note": pa.array(["n"])})
    lake.table("t", "id int, note string, gone double")
    assert lake.rows("SELECT id, note, gone FROM t WHERE id >= 3 ORDER BY 1") == [("3", None, None), ("9", "n", None)]


def test_types_of_files(lake: Lake) -> None:
    lake.put(
        "t/a.parquet",
        {
            "i": pa.array([1], pa.int16()),
            "l": pa.array([1], pa.int32()),
            "f": pa.array([1.5], pa.float32()),
            "d": pa.array([12345678.5]),
            "b": pa.array([b"\x01\xff"]),
            "t": pa.array([1_700_000_000_123_956], pa.timestamp("us")),
            "a": pa.array([[1, None]], pa.list_(pa.int32())),
            "s": pa.array([{"x": 1, "y": "z"}]),
            "m": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())),
            "n": pa.array([None], pa.string()),
            "e": pa.array([""]),
        },
    )
    lake.table(
        "t",
        "i smallint, l bigint, f float, d double, b binary, t timestamp, a array<int>, s struct<x:bigint,y:string>, "
        "m map<string,int>, n string, e string",
    )
    assert lake.rows("SELECT * FROM t") == [
        (
            "1",
            "1",
            "1.5",
            "1.23456785E7",
            "01 ff",
            "2023-11-14 22:13:20.124",
            "[1, null]",
            "{x=1, y=z}",
            "{k=1}",
            None,
            "",
        )
    ]
    assert lake.rows("SELECT s.y, a[1], element_at(m, 'k'), s.x / 2 FROM t") == [("z", "1", "1", "0")]


@pytest.mark.parametrize(("declared", "held"), [("bigint", pa.timestamp("ms")), ("int", pa.date32())])
def test_numbers_are_not_read_from_times(lake: Lake, declared: str, held: pa.DataType) -> None:
    lake.put("t/a.parquet", {"x": pa.array([1], pa.int64() if declared == "bigint" else pa.int32()).cast(held)})
    lake.table("t", f"x {declared}")
    assert lake.fails("SELECT x FROM t").startswith("HIVE_BAD_DATA: Field x's type INT")


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        ("price double", "BYTE_ARRAY.*double"),
        ("id string", "INT32.*varchar"),
        ("price timestamp", "BYTE_ARRAY.*timestamp"),
    ],
)
def test_a_file_that_does_not_fit_its_table_fails_when_it_is_read(days: Lake, declared: str, found: str) -> None:
    days.table("bad", f"{declared}, other string", location="s3://lake/elsewhere/")
    name = declared.split()[0]
    reason = days.fails(f"SELECT {name} FROM bad")
    assert reason.startswith(f"HIVE_BAD_DATA: Field {name}'s type") and "elsewhere/part-0.parquet" in reason
    assert __import__("re").search(found, reason)
    assert days.rows("SELECT count(*) FROM bad") == [("3",)]


def test_a_file_of_another_kind_fails(lake: Lake) -> None:
    lake.put("t/a.parquet", {"id": ID})
    lake.s3.put_object(Bucket="lake", Key="t/export_info.json", Body=b'{"a": 1}')
    lake.table("t", "id int")
    assert lake.fails("SELECT id FROM t").startswith(
        "HIVE_BAD_DATA: Not valid Parquet file: s3://lake/t/export_info.json"
    )


def test_locations_that_are_not(lake: Lake) -> None:
    lake.table("t", "id int", location="s3://nowhere/x/")
    assert "The specified bucket does not exist: nowhere" in lake.fails("SELECT id FROM t")
    lake.table("u", "id int", location="/tmp/x")
    assert lake.fails("SELECT id FROM u").startswith("HIVE_INVALID_METADATA")


def test_what_this_engine_cannot_read_is_said(lake: Lake) -> None:
    lake.table("ice", "id int", Parameters={"table_type": "ICEBERG"})
    assert lake.fails("SELECT * FROM ice") == "NOT_SUPPORTED: the embedded Athena does not implement Iceberg tables"
    lake.table("p", "id int", "dt string", Parameters={"projection.enabled": "true"})
    assert "partition projection" in lake.fails("SELECT * FROM p")
    lake.table("q", "id int", "dt string", Parameters={"projection.enabled": "false"})  # as awswrangler writes
    assert lake.rows("SELECT * FROM q") == []
    lake.run("CREATE EXTERNAL TABLE x (a int) ROW FORMAT SERDE 'org.x.OrcSerde' LOCATION 's3://lake/t/'")
    lake.put("t/a.parquet", {"id": ID})
    assert "tables with the SerDe org.x.OrcSerde" in lake.fails("SELECT * FROM x")


def test_text_tables(lake: Lake) -> None:
    lake.s3.put_object(Bucket="lake", Key="csv/a.csv", Body=b"id,name\n1,a\n2,\\N\nx,\n")
    lake.run(
        "CREATE EXTERNAL TABLE c (id int, name string) ROW FORMAT DELIMITED FIELDS TERMINATED BY ',' "
        "LOCATION 's3://lake/csv/' TBLPROPERTIES ('skip.header.line.count'='1')"
    )
    assert lake.rows("SELECT * FROM c") == [("1", "a"), ("2", None), (None, "")]
    assert lake.scanned("SELECT id FROM c") == 20
    lake.s3.put_object(Bucket="lake", Key="q/a.csv.gz", Body=gzip.compress(b'"1","a, ""b"""\n"2",""\n'))
    lake.run(
        "CREATE EXTERNAL TABLE q (id string, name string) ROW FORMAT SERDE "
        "'org.apache.hadoop.hive.serde2.OpenCSVSerde' LOCATION 's3://lake/q/'"
    )
    assert lake.rows("SELECT * FROM q")[0][0] == "1"
    lake.s3.put_object(Bucket="lake", Key="j/a.json", Body=b'{"id": 1, "tags": ["x"], "o": {"k": 2}}\n{"id": 2}\n')
    lake.run(
        "CREATE EXTERNAL TABLE j (id int, tags array<string>, o struct<k:int>) ROW FORMAT SERDE "
        "'org.openx.data.jsonserde.JsonSerDe' LOCATION 's3://lake/j/'"
    )
    assert lake.rows("SELECT id, tags, o.k FROM j ORDER BY id") == [("1", "[x]", "2"), ("2", None, None)]


# ---- views ----------------------------------------------------------------------------------------------------------

TYPED = """CREATE OR REPLACE VIEW db.sales_typed AS
SELECT
  "id",
  try_cast("price" AS decimal(38,2)) AS "price",
  "dt"
FROM "db"."sales"  -- as exported
"""


def test_views_unfold_and_prune(days: Lake) -> None:
    days.run(TYPED)
    days.run("CREATE OR REPLACE VIEW latest AS SELECT id, price FROM sales_typed WHERE dt = '2024-01-02'")
    assert days.rows("SELECT sum(price), avg(price), count(*) FROM latest") == [("1.50", "1.50", "3")]
    first = "sales/dt=2024-01-01/1/part-0.gz.parquet"
    assert days.scanned("SELECT id FROM latest") == chunk_bytes(days, first, "id")
    assert days.scanned("SELECT price FROM db.latest") == chunk_bytes(days, first, "price")


def test_a_view_is_kept_as_presto_writes_it(days: Lake) -> None:
    import base64
    import json

    days.run(TYPED)
    table = days.glue.get_table(DatabaseName="db", Name="sales_typed")["Table"]
    assert table["TableType"] == "VIRTUAL_VIEW" and table["ViewExpandedText"] == "/* Presto View */"
    assert table["Parameters"]["presto_view"] == "true"
    columns = [(c["Name"], c["Type"]) for c in table["StorageDescriptor"]["Columns"]]
    assert columns == [("id", "int"), ("price", "decimal(38,2)"), ("dt", "string")]
    definition = json.loads(base64.b64decode(table["ViewOriginalText"].split()[3]))
    assert definition["columns"][1] == {"name": "price", "type": "decimal(38,2)"}
    assert (definition["schema"], definition["catalog"]) == ("db", "awsdatacatalog")
    assert definition["originalSql"].startswith('SELECT\n  "id",')
    assert days.rows("SHOW CREATE VIEW sales_typed")[1] == ("SELECT",)


def test_names_in_a_view_belong_to_its_own_database(days: Lake) -> None:
    days.run("CREATE DATABASE other")
    days.run("CREATE VIEW other.v AS SELECT count(*) AS n FROM sales")
    assert days.rows("SELECT n FROM v", QueryExecutionContext={"Database": "other"}) == [("9",)]


def test_a_view_over_a_changed_table_is_stale(days: Lake) -> None:
    days.run("CREATE VIEW v AS SELECT * FROM sales")
    days.run("ALTER TABLE sales ADD COLUMNS (note string)")
    assert "stored view column count (3) does not match column count derived from the view query analysis (4)" in (
        days.fails("SELECT id FROM v")
    )
    days.run("CREATE VIEW w AS SELECT id FROM sales")
    days.run("ALTER TABLE sales REPLACE COLUMNS (id bigint, price string)")
    assert "VIEW_IS_STALE" in days.fails("SELECT * FROM w")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("CREATE VIEW v AS SELECT nope FROM sales", "COLUMN_NOT_FOUND: line 1:25: Column 'nope'"),
        ("CREATE VIEW v AS SELECT id + 1 FROM sales", "MISSING_COLUMN_NAME: .*position 1"),
        ("CREATE VIEW v AS SELECT id, dt AS id FROM sales", "DUPLICATE_COLUMN_NAME: .*'id'"),
        ("CREATE OR REPLACE VIEW v AS SELECT * FROM v", "TABLE_NOT_FOUND|VIEW_IS_RECURSIVE"),
        ("CREATE VIEW sales AS SELECT 1 AS x", "TABLE_ALREADY_EXISTS"),
        ("CREATE VIEW none.v AS SELECT 1 AS x", "SCHEMA_NOT_FOUND: .*none"),
        ("DROP VIEW sales", "Cannot drop a base table with DROP VIEW"),
        ("DROP VIEW nothing", "Table not found nothing"),
        ("SHOW CREATE VIEW sales", "is a table, not a view"),
    ],
)
def test_views_that_cannot_be(days: Lake, sql: str, message: str) -> None:
    import re

    assert re.search(message, days.fails(sql))


def test_a_recursive_view_is_refused(days: Lake) -> None:
    days.run("CREATE VIEW v AS SELECT id FROM sales")
    assert "VIEW_ALREADY_EXISTS" in days.fails("CREATE VIEW v AS SELECT 1 AS id")
    assert "VIEW_IS_RECURSIVE" in days.fails("CREATE OR REPLACE VIEW v AS SELECT id FROM v")
    days.run("CREATE VIEW w AS SELECT id FROM v")
    days.run("CREATE OR REPLACE VIEW v AS SELECT id FROM w")
    assert "VIEW_IS_RECURSIVE" in days.fails("SELECT * FROM w")
    assert "Cannot drop a view with DROP TABLE" in days.fails("DROP TABLE v")
    days.run("DROP VIEW v")
    days.run("DROP VIEW IF EXISTS v")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM nothing", "TABLE_NOT_FOUND: line 1:15: Table 'awsdatacatalog.db.nothing' does not exist"),
        ("SELECT *\nFROM none.t", "SCHEMA_NOT_FOUND: line 2:11: Schema 'none' does not exist"),
        ('SELECT * FROM "other"."db"."sales"', "CATALOG_NOT_FOUND: line 1:16: Catalog 'other' not found"),
        ("SELECT id,\n  nope FROM sales", "COLUMN_NOT_FOUND: line 2:3: Column 'nope' cannot be resolved"),
        ("SELECT s.id FROM sales", "COLUMN_NOT_FOUND: .*Column 's' cannot be resolved|COLUMN_NOT_FOUND"),
        ("SELECT * FROM information_schema.nothing", "TABLE_NOT_FOUND: .*information_schema.nothing"),
    ],
)
def test_names_that_are_not(days: Lake, sql: str, message: str) -> None:
    import re

    assert re.match(message, days.fails(sql))


def test_names_with_their_catalog_and_in_any_case(days: Lake) -> None:
    assert days.rows('SELECT count(*) FROM "AwsDataCatalog"."DB".Sales') == [("9",)]
    assert days.rows("SELECT db.sales.id FROM db.sales WHERE ID = 1 AND dt = '2024-01-01'") == [("1",)]
    named: Any = days.rows("SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'db'")
    assert named == [("sales", "BASE TABLE")]
    types = days.rows(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'sales' "
        "ORDER BY ordinal_position"
    )
    assert types == [("id", "integer"), ("price", "varchar"), ("dt", "varchar")]
