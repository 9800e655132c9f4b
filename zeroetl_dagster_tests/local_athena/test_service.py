"""The service around the engine: workgroups, results and their pages, reuse, stopping, restarts, PyAthena."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError

from zeroetl_dagster.local.world import World
from zeroetl_dagster_tests.control_plane import OTHER_ACCOUNT, REGION, ControlPlane
from zeroetl_dagster_tests.local_athena.conftest import SERVICES, Lake

SLOW = (
    "SELECT count(*) FROM UNNEST(sequence(1, 100000)) a(x) CROSS JOIN UNNEST(sequence(1, 1000000)) b(y) "
    "WHERE x * y = -1"
)


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


# ---- results -------------------------------------------------------------------------------------------------------


def test_the_csv_object_quotes_everything_but_null(lake: Lake) -> None:
    query = lake.run('SELECT 1 AS "a ""b""", \'x,"y"\nz\' AS t, NULL AS n, \'\' AS e')
    location = query["ResultConfiguration"]["OutputLocation"]
    assert location == f"s3://lake/results/{query['QueryExecutionId']}.csv"
    body = lake.s3.get_object(Bucket="lake", Key=location.removeprefix("s3://lake/"))["Body"].read()
    assert body == b'"a ""b""","t","n","e"\n"1","x,""y""\nz",,""\n'
    rows = lake.athena.get_query_results(QueryExecutionId=query["QueryExecutionId"])["ResultSet"]["Rows"]
    assert rows[1]["Data"] == [{"VarCharValue": "1"}, {"VarCharValue": 'x,"y"\nz'}, {}, {"VarCharValue": ""}]


def test_results_come_in_pages(lake: Lake) -> None:
    query = lake.run("SELECT x, 'é\n' || CAST(x AS varchar) FROM UNNEST(sequence(1, 2500)) AS t(x) ORDER BY x")
    pages = lake.athena.get_paginator("get_query_results").paginate(QueryExecutionId=query["QueryExecutionId"])
    rows = [[row["Data"][0]["VarCharValue"] for row in page["ResultSet"]["Rows"]] for page in pages]
    assert [len(page) for page in rows] == [1000, 1000, 501]
    assert [value for page in rows for value in page][1:] == [str(n) for n in range(1, 2501)]
    first = lake.athena.get_query_results(QueryExecutionId=query["QueryExecutionId"], MaxResults=2)
    assert len(first["ResultSet"]["Rows"]) == 2
    with pytest.raises(ClientError, match="Pagination token is invalid"):
        other = lake.run("SELECT 1")["QueryExecutionId"]
        lake.athena.get_query_results(QueryExecutionId=other, NextToken=first["NextToken"])


def test_results_that_are_not_there(lake: Lake) -> None:
    with pytest.raises(ClientError, match="QueryExecution 0{8}.* was not found"):
        lake.athena.get_query_results(QueryExecutionId="00000000-0000-0000-0000-000000000000")
    failed = lake.start("SELECT nope")
    lake.wait(failed)
    with pytest.raises(ClientError, match="Final query state: FAILED"):
        lake.athena.get_query_results(QueryExecutionId=failed)
    gone = lake.run("SELECT 1")
    lake.s3.delete_object(Bucket="lake", Key=f"results/{gone['QueryExecutionId']}.csv")
    with pytest.raises(ClientError, match="Could not find results"):
        lake.athena.get_query_results(QueryExecutionId=gone["QueryExecutionId"])


def test_utilities_leave_a_text_object(lake: Lake) -> None:
    query = lake.run("SHOW DATABASES")
    location = query["ResultConfiguration"]["OutputLocation"]
    assert location.endswith(f"{query['QueryExecutionId']}.txt")
    assert lake.s3.get_object(Bucket="lake", Key=location.removeprefix("s3://lake/"))["Body"].read() == b"db\n"


def test_what_a_query_says_of_itself(lake: Lake) -> None:
    query = lake.run("SELECT ? AS x", ExecutionParameters=["1"])
    assert (query["StatementType"], query["SubstatementType"], query["WorkGroup"]) == ("DML", "SELECT", "primary")
    assert query["ExecutionParameters"] == ["1"] and query["QueryExecutionContext"] == {"Database": "db"}
    assert query["EngineVersion"]["EffectiveEngineVersion"] == "Athena engine version 3"
    assert query["Status"]["SubmissionDateTime"] <= query["Status"]["CompletionDateTime"]
    statistics = query["Statistics"]
    assert statistics["ResultReuseInformation"] == {"ReusedPreviousResult": False}
    assert statistics["TotalExecutionTimeInMillis"] >= statistics["EngineExecutionTimeInMillis"] >= 0
    failed = lake.wait(lake.start("SELECT nope"))["Status"]
    assert failed["AthenaError"]["ErrorCategory"] == 2 and failed["AthenaError"]["Retryable"] is False
    runtime = lake.athena.get_query_runtime_statistics(QueryExecutionId=query["QueryExecutionId"])
    assert runtime["QueryRuntimeStatistics"]["Rows"]["OutputRows"] == 1
    answer = lake.athena.batch_get_query_execution(
        QueryExecutionIds=[query["QueryExecutionId"], "00000000-0000-0000-0000-000000000000"]
    )
    assert len(answer["QueryExecutions"]) == len(answer["UnprocessedQueryExecutionIds"]) == 1
    ids = lake.athena.list_query_executions(MaxResults=1)
    assert len(ids["QueryExecutionIds"]) == 1 and "NextToken" in ids


# ---- where results go ----------------------------------------------------------------------------------------------


def test_a_place_for_results_is_needed(lake: Lake) -> None:
    with pytest.raises(ClientError, match="No output location provided") as error:
        lake.athena.start_query_execution(QueryString="SELECT 1")
    assert code(error) == "InvalidRequestException"
    for location, message in (
        ("s3://nowhere/x/", "Unable to verify/create output bucket nowhere"),
        ("file:///x", "outputLocation is not a valid S3 path"),
    ):
        with pytest.raises(ClientError, match=message):
            lake.start("SELECT 1", ResultConfiguration={"OutputLocation": location})
    lake.aws.client("s3", region="us-east-1").create_bucket(Bucket="virginia")
    with pytest.raises(ClientError, match="same region"):
        lake.start("SELECT 1", ResultConfiguration={"OutputLocation": "s3://virginia/"})
    other = lake.aws.client("s3", credentials=lake.aws.in_account(OTHER_ACCOUNT))
    other.create_bucket(Bucket="theirs", CreateBucketConfiguration={"LocationConstraint": REGION})
    with pytest.raises(ClientError, match="Access denied when writing output"):
        lake.start("SELECT 1", ResultConfiguration={"OutputLocation": "s3://theirs/"})


def test_an_enforced_workgroup_decides_the_place(lake: Lake) -> None:
    configuration = {"ResultConfiguration": {"OutputLocation": "s3://lake/team/"}}
    lake.athena.create_work_group(Name="team", Configuration=configuration, Tags=[{"Key": "a", "Value": "b"}])
    query = lake.run("SELECT 1", WorkGroup="team")
    assert query["ResultConfiguration"]["OutputLocation"].startswith("s3://lake/team/")
    lake.athena.update_work_group(WorkGroup="team", ConfigurationUpdates={"EnforceWorkGroupConfiguration": False})
    query = lake.run("SELECT 1", WorkGroup="team")
    assert query["ResultConfiguration"]["OutputLocation"].startswith("s3://lake/results/")
    found = lake.athena.get_work_group(WorkGroup="team")["WorkGroup"]
    assert found["Configuration"]["EnforceWorkGroupConfiguration"] is False
    assert [w["Name"] for w in lake.athena.list_work_groups()["WorkGroups"]] == ["primary", "team"]
    arn = f"arn:aws:athena:{REGION}:123456789012:workgroup/team"
    assert lake.athena.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "a", "Value": "b"}]
    lake.athena.update_work_group(WorkGroup="team", State="DISABLED")
    with pytest.raises(ClientError, match="WorkGroup team is disabled"):
        lake.start("SELECT 1", WorkGroup="team")
    with pytest.raises(ClientError, match="is not empty"):
        lake.athena.delete_work_group(WorkGroup="team")
    lake.athena.delete_work_group(WorkGroup="team", RecursiveDeleteOption=True)
    for call, message in (
        (lambda: lake.start("SELECT 1", WorkGroup="team"), "WorkGroup team is not found"),
        (lambda: lake.athena.create_work_group(Name="primary"), "already created"),
        (lambda: lake.athena.delete_work_group(WorkGroup="primary"), "cannot be deleted"),
        (
            lambda: lake.athena.create_work_group(
                Name="m", Configuration={"ManagedQueryResultsConfiguration": {"Enabled": True}}
            ),
            "workgroups with ManagedQueryResultsConfiguration",
        ),
    ):
        with pytest.raises(ClientError, match=message):
            call()


def test_a_query_over_the_scan_limit_is_cancelled(lake: Lake) -> None:
    import random

    lake.put("t/a.parquet", {"x": pa.array([random.randbytes(1000).hex() for _ in range(6000)])}, compression="none")
    lake.table("t", "x string")
    lake.athena.create_work_group(Name="small", Configuration={"BytesScannedCutoffPerQuery": 10_000_000})
    query = lake.wait(lake.start("SELECT max(x) FROM t", WorkGroup="small"))
    assert (query["Status"]["State"], query["Status"]["StateChangeReason"]) == (
        "CANCELLED",
        "Query cancelled! : Bytes scanned limit was exceeded",
    )
    assert query["Statistics"]["DataScannedInBytes"] == 10_000_000
    assert lake.wait(lake.start("SELECT count(*) FROM t", WorkGroup="small"))["Status"]["State"] == "SUCCEEDED"


# ---- reuse, tokens, stopping, restarts -----------------------------------------------------------------------------

REUSE = {"ResultReuseConfiguration": {"ResultReuseByAgeConfiguration": {"Enabled": True, "MaxAgeInMinutes": 60}}}


def test_results_are_reused_where_asked(lake: Lake) -> None:
    lake.put("t/a.parquet", {"id": pa.array([1], pa.int32())})
    lake.table("t", "id int")
    first = lake.run("SELECT id FROM t", **REUSE)
    lake.put("t/b.parquet", {"id": pa.array([2], pa.int32())})
    second = lake.run("SELECT id FROM t", **REUSE)
    assert second["Statistics"]["ResultReuseInformation"]["ReusedPreviousResult"] is True
    assert second["Statistics"]["DataScannedInBytes"] == 0 and first["Statistics"]["DataScannedInBytes"] > 0
    assert second["ResultConfiguration"] == first["ResultConfiguration"]
    rows = lake.athena.get_query_results(QueryExecutionId=second["QueryExecutionId"])["ResultSet"]["Rows"]
    assert len(rows) == 2
    for other in (
        lake.run("SELECT id FROM t"),
        lake.run("SELECT id  FROM t", **REUSE),
        lake.run("SELECT id FROM t", ResultConfiguration={"OutputLocation": "s3://lake/else/"}, **REUSE),
    ):
        assert other["Statistics"]["ResultReuseInformation"]["ReusedPreviousResult"] is False


def test_an_old_result_is_not_reused(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.run("SELECT 1", **REUSE)
    later = time.time() + 3601
    monkeypatch.setattr(time, "time", lambda: later)
    query = lake.run("SELECT 1", **REUSE)
    assert query["Statistics"]["ResultReuseInformation"]["ReusedPreviousResult"] is False


def test_a_request_token_makes_one_query(lake: Lake) -> None:
    token = "t" * 32
    first = lake.start("SELECT 1", ClientRequestToken=token)
    assert lake.start("SELECT 1", ClientRequestToken=token) == first
    with pytest.raises(ClientError, match="Idempotent parameters do not match"):
        lake.start("SELECT 2", ClientRequestToken=token)


def test_a_running_query_is_stopped(lake: Lake) -> None:
    query = lake.start(SLOW)
    while lake.athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"]["State"] == "QUEUED":
        time.sleep(0.01)
    with pytest.raises(ClientError, match="Query has not yet finished. Current state: RUNNING"):
        lake.athena.get_query_results(QueryExecutionId=query)
    lake.athena.stop_query_execution(QueryExecutionId=query)
    found = lake.wait(query)["Status"]
    assert (found["State"], found["StateChangeReason"]) == ("CANCELLED", "Query cancelled by user")
    lake.athena.stop_query_execution(QueryExecutionId=query)
    assert lake.rows("SELECT 1") == [("1",)]


def test_a_query_that_is_stopped_asks_a_closed_store_for_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever interrupts it goes on for a moment after the embedded AWS has ended."""
    asked: list[str] = []
    store = lake.aws.world.store

    def get(kind: str, key: str) -> Any:
        asked.append(threading.current_thread().name)
        return read(kind, key)

    query = lake.start(SLOW)
    read = store.get
    before = set(threading.enumerate())
    monkeypatch.setattr(store, "get", get)
    lake.athena.stop_query_execution(QueryExecutionId=query)
    watchers = [one for one in threading.enumerate() if one not in before and one.name.startswith("athena-stop")]
    for one in watchers:
        one.join()
    lake.wait(query)
    assert not [name for name in asked if name.startswith("athena-stop")]


def test_queries_queue_and_are_stopped_there_too(lake: Lake) -> None:
    queries = [lake.start(SLOW) for _ in range(6)]
    states = [lake.athena.get_query_execution(QueryExecutionId=q)["QueryExecution"]["Status"]["State"] for q in queries]
    assert states[-1] == "QUEUED"
    for query in reversed(queries):
        lake.athena.stop_query_execution(QueryExecutionId=query)
    assert {lake.wait(query)["Status"]["State"] for query in queries} == {"CANCELLED"}


def test_history_and_results_survive_a_restart(lake: Lake) -> None:
    done = lake.run("SELECT 42 AS x")
    running = lake.start(SLOW)
    document = lake.aws.world.store.get("athena.query", f"123456789012/{REGION}/{running}")
    lake.athena.stop_query_execution(QueryExecutionId=running)
    lake.wait(running)
    assert document is not None
    lake.aws.world.store.put("athena.query", f"123456789012/{REGION}/{running}", document)
    lake.aws.world.objects.close()
    lake.aws.restart()
    lake.connect()
    assert lake.athena.get_query_execution(QueryExecutionId=done["QueryExecutionId"])["QueryExecution"] == done
    rows = lake.athena.get_query_results(QueryExecutionId=done["QueryExecutionId"])["ResultSet"]["Rows"]
    assert rows[1]["Data"] == [{"VarCharValue": "42"}]
    interrupted = lake.wait(running)["Status"]
    assert (interrupted["State"], interrupted["AthenaError"]["Retryable"]) == ("FAILED", True)


def test_stopping_does_not_wait_for_queries(tmp_path: Path) -> None:
    """What ran and what was queued may be retried after the next start; what had ended stays so."""
    made: dict[str, Any] = {}

    def services(world: World) -> dict[str, Any]:
        made.update({service.name: service(world) for service in SERVICES})
        return made

    aws = ControlPlane(tmp_path, services)
    lake = Lake(aws)
    done = lake.run("SELECT 1")["QueryExecutionId"]
    queries = [lake.start(SLOW) for _ in range(6)]
    while [state_of(lake, query) for query in queries].count("RUNNING") < 4:
        time.sleep(0.01)
    made["athena"].runs.close()
    assert sorted(state_of(lake, query) for query in queries) == [*["QUEUED"] * 2, *["RUNNING"] * 4]
    aws.world.objects.close()
    aws.restart()
    lake.connect()
    assert state_of(lake, done) == "SUCCEEDED"
    for query in queries:
        status = lake.wait(query)["Status"]
        assert (status["State"], status["AthenaError"]["Retryable"]) == ("FAILED", True)
    made["athena"].runs.close()
    aws.stop()


def state_of(lake: Lake, query: str) -> str:
    return str(lake.athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"]["State"])


# ---- metadata ------------------------------------------------------------------------------------------------------


def test_metadata(lake: Lake) -> None:
    lake.table("t", "id int", "dt string", Parameters={"classification": "parquet"})
    catalog = {"CatalogName": "AwsDataCatalog"}
    assert [d["Name"] for d in lake.athena.list_databases(**catalog)["DatabaseList"]] == ["db"]
    assert lake.athena.get_database(**catalog, DatabaseName="db")["Database"]["Name"] == "db"
    found = lake.athena.get_table_metadata(**catalog, DatabaseName="db", TableName="t")["TableMetadata"]
    assert found["Columns"] == [{"Name": "id", "Type": "int"}] and found["PartitionKeys"][0]["Name"] == "dt"
    assert found["Parameters"]["location"] == "s3://lake/t/" and found["Parameters"]["classification"] == "parquet"
    listed = lake.athena.list_table_metadata(**catalog, DatabaseName="db", Expression="t.*")["TableMetadataList"]
    assert [table["Name"] for table in listed] == ["t"]
    with pytest.raises(
        ClientError, match=r"\(Service: AmazonDataCatalog; .* Error Code: EntityNotFoundException"
    ) as error:
        lake.athena.get_table_metadata(**catalog, DatabaseName="db", TableName="none")
    assert code(error) == "MetadataException"
    with pytest.raises(ClientError, match="Catalog Other was not found"):
        lake.athena.list_databases(CatalogName="Other")
    assert lake.athena.list_data_catalogs()["DataCatalogsSummary"][0]["CatalogName"] == "AwsDataCatalog"
    with pytest.raises(ClientError, match="athena:CreatePreparedStatement"):
        lake.athena.create_prepared_statement(StatementName="x", WorkGroup="primary", QueryStatement="SELECT 1")


# ---- PyAthena ------------------------------------------------------------------------------------------------------

TYPED = (
    "SELECT 1 AS i, 'é \"x\"' AS s, CAST(1.5 AS decimal(10,2)) AS d, true AS b, 1.5e0 AS f, DATE '2024-01-01' AS dt, "
    "TIMESTAMP '2024-01-01 10:00:00.5' AS ts, NULL AS n, '' AS e, ARRAY[1, 2] AS a, X'01ff' AS x"
)


def test_the_default_cursor(lake: Lake) -> None:
    import datetime
    from decimal import Decimal

    with lake.pyathena() as connection, connection.cursor() as cursor:
        cursor.execute(TYPED)
        assert [column[:2] for column in cursor.description][:3] == [
            ("i", "integer"),
            ("s", "varchar"),
            ("d", "decimal"),
        ]
        row = cursor.fetchone()
        assert row[:9] == (
            1,
            'é "x"',
            Decimal("1.50"),
            True,
            1.5,
            datetime.date(2024, 1, 1),
            datetime.datetime(2024, 1, 1, 10, 0, 0, 500000),
            None,
            "",
        )
        assert cursor.fetchone() is None and cursor.data_scanned_in_bytes == 0 and cursor.query_id
        cursor.execute("SELECT x FROM UNNEST(sequence(1, 3000)) AS t(x)")
        assert len(cursor.fetchall()) == 3000
        cursor.execute("SELECT ? AS a, ? AS b", ["'x'", "2"], paramstyle="qmark")
        assert cursor.fetchall() == [("x", 2)]
        cursor.execute("SELECT %(name)s AS a", {"name": "it's"})
        assert cursor.fetchall() == [("it's",)]


def test_the_dict_cursor_and_utilities(lake: Lake) -> None:
    from pyathena.cursor import DictCursor

    lake.table("t", "id int")
    with lake.pyathena() as connection:
        cursor = connection.cursor(DictCursor)
        assert cursor.execute("SELECT 1 AS a, 'b' AS c").fetchall() == [{"a": 1, "c": "b"}]
        assert connection.cursor().execute("SHOW TABLES").fetchall() == [("t",)]
        described = connection.cursor().execute("DESCRIBE t").fetchall()
        assert described == [(f"{'id':<20}\t{'int':<20}\t{'':<20}",)]
        assert connection.cursor().execute("CREATE TABLE u AS SELECT 1 AS x").fetchall() == []
        cursor = connection.cursor()
        cursor.execute("INSERT INTO u SELECT 2")
        assert cursor.rowcount in (1, -1)


def test_the_pandas_cursor(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyathena.pandas.cursor import PandasCursor

    monkeypatch.setenv("AWS_ENDPOINT_URL", lake.aws.server.endpoint_url)  # it makes an S3 client of its own

    with lake.pyathena(cursor_class=PandasCursor) as connection:
        frame = connection.cursor().execute(TYPED).as_pandas()
        assert list(frame.columns) == ["i", "s", "d", "b", "f", "dt", "ts", "n", "e", "a", "x"]
        assert (frame["i"][0], frame["s"][0], str(frame["ts"][0])) == (1, 'é "x"', "2024-01-01 10:00:00.500000")
        big = connection.cursor().execute("SELECT x FROM UNNEST(sequence(1, 5000)) AS t(x)").as_pandas()
        assert int(big["x"].sum()) == 5000 * 5001 // 2
        cursor = connection.cursor(unload=True)
        assert int(cursor.execute("SELECT x FROM UNNEST(sequence(1, 10)) AS t(x)").as_pandas()["x"].sum()) == 55


def test_errors_and_reuse_through_pyathena(lake: Lake) -> None:
    import pyathena

    with lake.pyathena() as connection:
        cursor = connection.cursor()
        with pytest.raises(pyathena.error.OperationalError, match="TABLE_NOT_FOUND"):
            cursor.execute("SELECT * FROM nothing")
        with pytest.raises(pyathena.error.DatabaseError, match="mismatched input"):
            cursor.execute("SELECT FROM WHERE")
        cursor.execute("SELECT 7", result_reuse_enable=True, result_reuse_minutes=5)
        again: Any = connection.cursor()
        again.execute("SELECT 7", result_reuse_enable=True, result_reuse_minutes=5)
        assert again.reused_previous_result is True and again.fetchall() == [(7,)]


def test_a_denied_bucket_policy_holds(lake: Lake) -> None:
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::lake/results/*"}
    lake.s3.put_bucket_policy(Bucket="lake", Policy=json.dumps({"Statement": deny}))
    with pytest.raises(ClientError, match="Access denied when writing output"):
        lake.start("SELECT 1")
