"""What an export writes: the folders, the Parquet files and their types, the manifest; every value and every name."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2.errors
import psycopg2.extensions
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zeroetl_dagster.local.aws import export_files, snapshot_data
from zeroetl_dagster.local.aws.snapshot_data import Column, RowTooLarge, Table, chunks
from zeroetl_dagster_tests.local_exports.bed import BUCKET, Bed

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN whole AS INT CHECK (value > 0);
CREATE TABLE kinds (
  id BIGINT PRIMARY KEY, i INT, s SMALLINT, d DOUBLE PRECISION, r REAL, b BOOLEAN, y BYTEA, n NUMERIC(8,2),
  free NUMERIC, m MONEY, day DATE, at TIME, atz TIMETZ, t TIMESTAMP(3), tz TIMESTAMPTZ, span INTERVAL, u UUID, j JSON,
  jb JSONB, list INT[], grid TEXT[][], mood mood, ip INET, net CIDR, v VARCHAR(20), c CHAR(4), bits BIT(3), o OID,
  w whole, range INT4RANGE, point POINT, words TSVECTOR, made INT GENERATED ALWAYS AS (i / 2) STORED);
INSERT INTO kinds VALUES (9223372036854775807, -2147483648, -32768, 'NaN', '-Infinity', true, '\\x00ff', 123456.78,
  'NaN', '$1,234.50', '0044-03-15 BC', '23:59:59.5', '12:00+09', '2026-01-05 12:00:00.25', '2026-01-05 12:00:00+09',
  '1 day 2:03',
  'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": 1}', '{"a":1}', '{1,NULL,3}', '{{a,b},{"c,d","e\\"f"}}', 'happy',
  '10.0.0.1', '10.0.0.0/8', 'größe', 'ab', B'101', 42, 7, '[1,5)', '(1,2)', 'fat cat');
INSERT INTO kinds (id, d, r, day, t, tz, free, v, i) VALUES (1, 'Infinity', 1.1, 'infinity', '-infinity', 'infinity',
  '-Infinity', '', 3);
INSERT INTO kinds (id) VALUES (2);
CREATE TABLE texts (t TEXT);
INSERT INTO texts VALUES (NULL), (''), (E'two\\nlines'), ('"quoted", with comma'), ('\\N'), ('\\.'), ('日本語'),
  (E'\\r'), ('NULL'), ('NaN');
CREATE TABLE nothing (id INT PRIMARY KEY, label TEXT);
CREATE TABLE nothing_unkeyed (label TEXT);
CREATE TABLE "Mixed Case" ("Größe" INT, "$cost" INT);
INSERT INTO "Mixed Case" VALUES (1, 2);
CREATE TABLE "quo""ted`back\\slash" (id INT);
INSERT INTO "quo""ted`back\\slash" VALUES (3);
CREATE TABLE 売上 (金額 INT);
INSERT INTO 売上 VALUES (100);
CREATE TABLE cost$ (id INT);
CREATE TABLE "a/b" (id INT);
CREATE TABLE "odd column" ("a=b" INT);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE only_oid (o OID);
CREATE UNLOGGED TABLE unlogged (id INT);
CREATE TABLE measured (day DATE, n INT) PARTITION BY RANGE (day);
CREATE TABLE measured_2026 PARTITION OF measured FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO measured VALUES ('2026-05-01', 5);
CREATE TABLE parent (id INT);
CREATE TABLE child () INHERITS (parent);
INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (2);
CREATE VIEW seen AS SELECT * FROM texts;
ALTER DATABASE files SET datestyle = 'SQL, DMY';
ALTER DATABASE files SET bytea_output = 'escape';
ALTER DATABASE files SET timezone = 'Asia/Tokyo';
ALTER DATABASE files SET extra_float_digits = -5;
"""


@pytest.fixture(scope="module")
def exported(bed: Bed) -> Iterator[dict[str, Any]]:
    """The ended task of an export of everything in `files`, and of nothing else that matters."""
    bed.database("files", SCHEMA, of="source")
    bed.snapshot("files", of="source")
    arn = bed.described("files")["DBClusterSnapshotArn"]
    yield bed.export("files", arn, S3Prefix="lake/raw", ExportOnly=["files"])
    bed.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier="files")


ROOT = "lake/raw/files/"


def read(bed: Bed, table: str) -> Any:
    return bed.table(f"{ROOT}files/public.{table}/")


def test_the_folders(bed: Bed, exported: dict[str, Any]) -> None:
    keys = [re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", key) for key in bed.keys(ROOT)]
    assert "export_info_files.json" in keys and len([key for key in keys if key.startswith("export_tables_info_")]) == 1
    assert [key for key in keys if "public.kinds/" in key] == [
        "files/public.kinds/1/_SUCCESS",
        "files/public.kinds/1/part-00000-UUID.gz.parquet",
    ]
    assert [key for key in keys if "nothing" in key] == [
        "files/public.nothing/1/_SUCCESS",
        "files/public.nothing_unkeyed/1/_SUCCESS",
    ]
    folders = {key.split("/")[1] for key in keys if key.endswith("_SUCCESS")}
    assert folders == {
        "public.Mixed_Case",
        "public.child",
        "public.cost$",
        "public.kinds",
        "public.measured_2026",
        "public.nothing",
        "public.nothing_unkeyed",
        "public.parent",
        "public.quo_ted_back_slash",
        "public.texts",
        "public.売上",
    }


def test_the_types_of_the_columns(bed: Bed, exported: dict[str, Any]) -> None:
    (key,) = [key for key in bed.keys(f"{ROOT}files/public.kinds/") if key.endswith(".parquet")]
    file = pq.ParquetFile(io.BytesIO(bed.read(f"{ROOT}files/public.kinds/{key}")))
    types = {column.name: (column.physical_type, str(column.logical_type)) for column in file.schema}
    text = ("BYTE_ARRAY", "String")
    assert types.pop("id") == ("INT64", "None") and types.pop("i") == types.pop("made") == ("INT32", "None")
    assert types.pop("s") == ("INT32", "Int(bitWidth=16, isSigned=true)")
    assert types.pop("d") == ("DOUBLE", "None") and types.pop("r") == ("FLOAT", "None")
    assert types.pop("b") == ("BOOLEAN", "None") and types.pop("y") == ("BYTE_ARRAY", "None")
    assert set(types.values()) == {text} and "o" not in types and len(types) == 24
    assert file.metadata.row_group(0).column(0).compression == "GZIP"


def test_every_value(bed: Bed, exported: dict[str, Any]) -> None:
    rows = {row["id"]: row for row in read(bed, "kinds").to_pylist()}
    full = rows[9223372036854775807]
    assert repr(full.pop("d")) == "nan" and full.pop("r") == float("-inf")
    assert full == {
        "id": 9223372036854775807,
        "i": -2147483648,
        "s": -32768,
        "b": True,
        "y": b"\x00\xff",
        "n": "123456.78",
        "free": "NaN",
        "m": "$1,234.50",
        "day": "0044-03-15 BC",
        "at": "23:59:59.5",
        "atz": "12:00:00+09",
        "t": "2026-01-05 12:00:00.25",
        "tz": "2026-01-05 03:00:00+00",
        "span": "1 day 02:03:00",
        "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "j": '{"a": 1}',
        "jb": '{"a": 1}',
        "list": "{1,NULL,3}",
        "grid": '{{a,b},{"c,d","e\\"f"}}',
        "mood": "happy",
        "ip": "10.0.0.1",
        "net": "10.0.0.0/8",
        "v": "größe",
        "c": "ab  ",
        "bits": "101",
        "w": "7",
        "range": "[1,5)",
        "point": "(1,2)",
        "words": "'cat' 'fat'",
        "made": -1073741824,
    }
    ends = {name: value for name, value in rows[1].items() if value is not None}
    assert ends.pop("r") == pytest.approx(1.1)
    assert ends == {
        "id": 1, "d": float("inf"), "day": "infinity", "t": "-infinity", "tz": "infinity", "free": "-Infinity", "v": "",
        "i": 3, "made": 1,
    }  # fmt: skip
    assert {name for name, value in rows[2].items() if value is not None} == {"id"}


def test_text_is_what_it_was(bed: Bed, exported: dict[str, Any]) -> None:
    assert read(bed, "texts")["t"].to_pylist() == [
        None, "", "two\nlines", '"quoted", with comma', "\\N", "\\.", "日本語", "\r", "NULL", "NaN",
    ]  # fmt: skip


def test_every_name(bed: Bed, exported: dict[str, Any]) -> None:
    assert read(bed, "Mixed_Case").to_pylist() == [{"Größe": 1, "$cost": 2}]
    assert read(bed, "quo_ted_back_slash").to_pylist() == [{"id": 3}]
    assert read(bed, "売上").to_pylist() == [{"金額": 100}]
    targets = bed.manifest("lake/raw/files")
    assert {'files.public.quo"ted`back\\slash', "files.public.Mixed Case", "files.public.売上"} <= set(targets)


def test_partitions_and_children_have_their_own_rows(bed: Bed, exported: dict[str, Any]) -> None:
    assert read(bed, "measured_2026")["n"].to_pylist() == [5]
    assert read(bed, "parent")["id"].to_pylist() == [1] and read(bed, "child")["id"].to_pylist() == [2]
    assert {"files.public.measured", "files.public.seen", "files.public.unlogged"} & set(
        bed.manifest("lake/raw/files")
    ) == set()


def test_what_is_skipped_is_said_in_the_warning_and_in_the_manifest(bed: Bed, exported: dict[str, Any]) -> None:
    said = json.loads(exported["WarningMessage"])
    reasons = {table["tableName"]: table["reason"] for table in said["skippedTables"]}
    assert exported["Status"] == "COMPLETE" and reasons == {
        "files.public.a/b": "INVALID_TABLE_NAME",
        "files.public.odd column": "INVALID_COLUMN_NAME",
        "files.public.no_columns": "NO_EXPORTABLE_COLUMNS",
        "files.public.only_oid": "NO_EXPORTABLE_COLUMNS",
    }
    entries = {target: entry for target, entry in bed.manifest("lake/raw/files").items() if target in reasons}
    assert all(entry["status"] == "SKIPPED" and "schemaMetadata" not in entry for entry in entries.values())
    assert {target: entry["warningMessage"] for target, entry in entries.items()} == reasons


def test_the_manifest_has_the_original_types(bed: Bed, exported: dict[str, Any]) -> None:
    entry = bed.manifest("lake/raw/files")["files.public.kinds"]
    columns = {column.pop("columnName"): column for column in entry["schemaMetadata"]["originalTypeMappings"]}
    for name, original, parquet, length, precision, moment in (
        ("id", "bigint", "int64", 0, 64, 0),
        ("s", "smallint", "int32", 0, 16, 0),
        ("n", "numeric", "binary (UTF8)", 0, 8, 0),
        ("v", "character varying", "binary (UTF8)", 20, 0, 0),
        ("t", "timestamp without time zone", "binary (UTF8)", 0, 0, 3),
        ("y", "bytea", "binary", 0, 0, 0),
        ("list", "ARRAY", "binary (UTF8)", 0, 0, 0),
        ("mood", "USER-DEFINED", "binary (UTF8)", 0, 0, 0),
    ):
        assert columns[name] == {
            "originalType": original,
            "expectedExportedType": parquet,
            "originalCharMaxLength": length,
            "originalNumPrecision": precision,
            "originalDateTimePrecision": moment,
        }
    assert entry["status"] == "COMPLETE" and entry["sizeGB"] > 0
    assert entry["TableStatistics"]["partitioningInfo"]["numberOfCompletedPartitions"] == 1


def test_the_export_is_described_beside_its_tables(bed: Bed, exported: dict[str, Any]) -> None:
    info = json.loads(bed.read(f"{ROOT}export_info_files.json"))
    assert {name: info[name] for name in ("exportTaskIdentifier", "status", "percentProgress", "exportOnly")} == {
        "exportTaskIdentifier": "files", "status": "COMPLETE", "percentProgress": 100, "exportOnly": ["files"],
    }  # fmt: skip
    assert (info["s3Bucket"], info["s3Prefix"], info["exportedFilesPath"]) == (BUCKET, "lake/raw", "lake/raw/files")
    assert (info["sourceArn"], info["kmsKeyId"], info["iamRoleArn"]) == (exported["SourceArn"], bed.key, bed.role)
    assert info["snapshotTime"] == f"{exported['SnapshotTime']:%Y-%m-%dT%H:%M:%SZ}"


def test_the_objects_are_encrypted_with_the_key(bed: Bed, exported: dict[str, Any]) -> None:
    for key in bed.keys(ROOT):
        found = bed.s3.head_object(Bucket=BUCKET, Key=ROOT + key)
        assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", bed.key)


def test_many_tables_have_a_manifest_in_several_files(bed: Bed) -> None:
    tables = ";".join(f"CREATE TABLE t{n:03} (id INT)" for n in range(101))
    name = bed.database("many", tables, of="source")
    bed.export("many", bed.snapshot("many", of="source"), ExportOnly=[name])
    assert [key for key in bed.keys("many/") if key.startswith("export_tables_info")] == [
        "export_tables_info_many_from_101_to_101.json",
        "export_tables_info_many_from_1_to_100.json",
    ]
    assert len(bed.manifest("many")) == 101


def test_tables_larger_than_a_file_are_parts_of_one_batch_or_a_batch_each(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch where a numeric key lets AWS read in parallel."""
    monkeypatch.setattr(export_files, "FILE_BYTES", 20_000)
    monkeypatch.setattr(snapshot_data, "CHUNK_BYTES", 50_000)
    rows = "SELECT g AS id, md5(g::text) AS label FROM generate_series(1, 3000) g"
    keyed = f"CREATE TABLE keyed AS {rows}; ALTER TABLE keyed ADD PRIMARY KEY (id)"
    name = bed.database("large", f"{keyed}; CREATE TABLE unkeyed AS {rows}", of="source")
    bed.export("large", bed.snapshot("large", of="source"), ExportOnly=[name])
    numeric, without = (bed.keys(f"large/large/public.{table}/") for table in ("keyed", "unkeyed"))
    assert numeric[0] == "1/_SUCCESS" and [key[:12] for key in numeric[1:]] == [
        "1/part-00000",
        "1/part-00001",
        "1/part-00002",
    ]
    assert [key[:12] for key in without] == [
        "1/_SUCCESS", "1/part-00000", "2/_SUCCESS", "2/part-00000", "3/_SUCCESS", "3/part-00000",
    ]  # fmt: skip
    for table in ("keyed", "unkeyed"):
        assert sorted(bed.table(f"large/large/public.{table}/")["id"].to_pylist()) == list(range(1, 3001))


def test_a_row_that_is_too_large_skips_its_table(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS's limit is 2 GB."""
    monkeypatch.setattr(export_files, "LARGE_ROW_BYTES", 100_000)
    monkeypatch.setattr(snapshot_data, "CHUNK_BYTES", 10_000)
    tables = (
        "CREATE TABLE fat AS SELECT repeat('x', 60000) AS a, repeat('y', 60000) AS b; CREATE TABLE thin AS SELECT 1"
    )
    name = bed.database("rows", tables, of="source")
    done = bed.export("rows", bed.snapshot("rows", of="source"), ExportOnly=[name])
    skipped = json.loads(done["WarningMessage"])["skippedTables"]
    assert skipped == [{"tableName": "rows.public.fat", "reason": "ROW_SIZE_TOO_LARGE"}]
    assert [key for key in bed.keys("rows/rows/") if "fat" in key] == []


@pytest.mark.parametrize(
    ("kind", "value"), [("text", "repeat('ü', 30000)"), ("bytea", "convert_to(repeat('x', 60000), 'UTF8')")]
)
def test_a_value_that_is_too_large_fails_the_export(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, kind: str, value: str
) -> None:
    """AWS's limit is 500 MB, of bytes."""
    monkeypatch.setattr(export_files, "LARGE_VALUE_BYTES", 60_000)
    name = bed.database(f"values_{kind}", f"CREATE TABLE fat AS SELECT {value} AS a", of="source")
    arn = bed.snapshot(f"values-{kind}", of="source")
    bed.start_export(f"values-{kind}", arn, ExportOnly=[name])
    assert f"{name}.public.fat holds a large object" in bed.ended(f"values-{kind}", "FAILED")["FailureCause"]
    monkeypatch.setattr(export_files, "LARGE_VALUE_BYTES", 60_001)
    bed.export(f"values-{kind}-2", arn, ExportOnly=[name])


class Limited(psycopg2.extensions.cursor):
    """PostgreSQL's limit of 1 GB for the text of a row, lower: its own error in the place of COPY's."""

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        if "fat" in sql:
            self.execute("SELECT repeat('x', 1073741823)")
        super().copy_expert(sql, file, size)


def test_a_row_that_postgresql_does_not_write_as_text_is_in_the_snapshot_as_too_large(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tables of the snapshot are whole."""
    tables = "CREATE TABLE fat AS SELECT 1 AS id, decode(repeat('00', 3000), 'hex') AS a; CREATE TABLE thin AS SELECT 7"
    bed.database("beyond", tables, of="source")
    monkeypatch.setattr(snapshot_data, "ROW_TEXT_BYTES", 6000)

    def connect(database: str) -> Any:
        return psycopg2.connect(cursor_factory=Limited, **bed.world.postgres.dsn(bed.server_of("source"), database))

    with closing(snapshot_data.Capture(connect)) as capture:
        capture.tables = [table for table in capture.tables if table.database == "beyond"]
        capture.write(tmp_path)
    fat, thin = snapshot_data.read_manifest(tmp_path)
    assert (fat.largest_value, thin.largest_value, thin.rows) == (3000, 0, 1)
    given: dict[str, Any] = {"headers": {}, "progress": lambda size: None}
    with pytest.raises(RowTooLarge):
        export_files.write_table(bed.world.objects, BUCKET, "x/", tmp_path, fat, **given)
    monkeypatch.setattr(export_files, "LARGE_VALUE_BYTES", 3000)
    with pytest.raises(export_files.ValueTooLarge):
        export_files.write_table(bed.world.objects, BUCKET, "x/", tmp_path, fat, **given)


def test_another_error_of_postgresql_is_not_taken_for_a_large_row(bed: Bed, tmp_path: Path) -> None:
    bed.database("failing", "CREATE TABLE fat AS SELECT 1 AS id", of="source")

    def connect(database: str) -> Any:
        return psycopg2.connect(cursor_factory=Limited, **bed.world.postgres.dsn(bed.server_of("source"), database))

    with closing(snapshot_data.Capture(connect)) as capture:
        capture.tables = [table for table in capture.tables if table.database == "failing"]
        with pytest.raises(psycopg2.errors.ProgramLimitExceeded):
            capture.write(tmp_path)


# ---- the snapshot's text in pieces ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_pieces_are_whole_rows_whatever_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rows = [
        b"1,plain\n",
        b'2,"two\nlines"\n',
        b'3,"a ""quoted"" word"\n',
        b"\n",
        b'"",\n',
        b'4,"""\n"""\n',
        b'5,"\n\n""\n"\n',
    ]
    table = Table("db", "public", "t", (Column("a", "text", False, 0, 0, 0),), False, "t.csv.zst", 0)
    with pa.CompressedOutputStream(pa.OSFile(str(tmp_path / table.file), "wb"), "zstd") as stream:
        stream.write(b"".join(rows))
    monkeypatch.setattr(snapshot_data, "CHUNK_BYTES", size)
    found = list(chunks(tmp_path, table, 1000))
    assert b"".join(found) == b"".join(rows)
    ends = {len(b"".join(rows[: n + 1])) for n in range(len(rows))}
    position = 0
    for piece in found:
        position += len(piece)
        assert position in ends


def test_a_row_is_given_up_before_all_of_it_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table("db", "public", "t", (Column("a", "text", False, 0, 0, 0),), False, "t.csv.zst", 0)
    with pa.CompressedOutputStream(pa.OSFile(str(tmp_path / table.file), "wb"), "zstd") as stream:
        stream.write(b"1\n" + b"x" * 1000)
    monkeypatch.setattr(snapshot_data, "CHUNK_BYTES", 10)
    found = chunks(tmp_path, table, 100)
    assert next(found) == b"1\n"
    with pytest.raises(RowTooLarge, match=r"db\.public\.t has 100 bytes or more"):
        next(found)
